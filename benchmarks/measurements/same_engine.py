"""The engines against themselves and against loops by hand: a user's equations, float32, many draws at once."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial

from benchmarks import of_0_1_0, reasons, requirements
from benchmarks.agreement import require_agreement
from benchmarks.cases import (
    DRAWS,
    FRAMEWORK_CASES,
    HAND_WRITTEN_CELLS,
    HAND_WRITTEN_SIZES,
    LARGE_HAND_WRITTEN,
    QUICK_SIZES,
    USERS_FILES,
    Case,
    engines_on,
)
from benchmarks.engines import NUMPY, TITLES
from benchmarks.hand_written import LOOPS
from benchmarks.measurements.frameworks import agreement_row
from benchmarks.measurements.measurement import Measurement, Settings
from benchmarks.requirements import USERS_FILE
from benchmarks.rows import Compared, Ratio, Row, in_milliseconds
from benchmarks.timing import alternate

_DRAWN_CELLS = ("lstm", "rnn")


def measurements(settings: Settings) -> Iterator[Measurement]:
    """Yield float32, a user's file, each hand-written loop, and draws at once."""
    sizes = QUICK_SIZES if settings.quick else HAND_WRITTEN_SIZES
    in_float64 = [case for case in FRAMEWORK_CASES if case.dtype == "float64"]
    for case in [Case("lstm", *size) for size in QUICK_SIZES] if settings.quick else in_float64:
        yield Measurement(f"float32 against float64 {case.label}", partial(_float32, settings, case))
    for cell in USERS_FILES:
        for size in sizes:
            case = Case(cell, *size)
            yield Measurement(f"user's file {case.label}", partial(_users_file, settings, case))
    cases = [Case(cell, *size, overrides=overrides) for cell, overrides in HAND_WRITTEN_CELLS for size in sizes]
    for case in cases if settings.quick else [*cases, LARGE_HAND_WRITTEN]:
        yield Measurement(f"hand-written {case.label}", partial(_by_hand, settings, case))
    for cell in _DRAWN_CELLS:
        case = Case(cell, 1, 8, 12) if settings.quick else Case(cell, 1, 32, 100)
        yield Measurement(f"draws at once {case.label}", partial(_draws_at_once, settings, case))


def draws_of(case: Case) -> str:
    """Return what the row of many draws at once says that it is about."""
    return f"{case.label}: norms of {DRAWS} draws"


def _compared(settings: Settings, first: Case, second: Case, ratio: Ratio = Ratio.SHARE) -> Compared:
    """Return the first case against the second, of each engine, all in turn."""
    engines, others = engines_on(first), engines_on(second)
    contestants: list[Callable[[], object]] = []
    for name, one in engines.items():
        contestants += [one.norms_only, others[name].norms_only]
    times = alternate(contestants, settings.effort)
    pairs = {name: (times[2 * i], times[2 * i + 1]) for i, name in enumerate(engines)}
    return in_milliseconds(pairs, ratio)


def _float32(settings: Settings, case: Case) -> Iterator[Row]:
    yield Row(
        "float32 against float64",
        f"{case.label}: norms in float32",
        "in float64",
        _compared(settings, replace(case, dtype="float32"), case, Ratio.TIMES_FASTER),
        settings.required(requirements.float32(case)),
        reasons.float32(case),
    )


def _users_file(settings: Settings, case: Case) -> Iterator[Row]:
    users = replace(case, target=str(USERS_FILES[case.target]))
    yield Row(
        "Equations in a user's file against the built-in cell",
        f"{users.label}: norms",
        case.label,
        _compared(settings, users, case),
        settings.required(USERS_FILE),
        reasons.USERS_FILE,
    )


def _draws_at_once(settings: Settings, case: Case) -> Iterator[Row]:
    yield Row(
        f"{DRAWS} draws of the weights at once, in single runs",
        draws_of(case),
        "one draw",
        _compared(settings, replace(case, trials=DRAWS), case),
    )


def _by_hand(settings: Settings, case: Case) -> Iterator[Row]:
    """Yield both engines against a loop by hand, and by how much they differ; the requirement is the NumPy engine's."""
    section = "Against loops written by hand in NumPy"
    engines = engines_on(case)
    loop = LOOPS[case.cell](next(iter(engines.values())).numbers)
    theirs = loop.run()
    for name, one in engines.items():
        require_agreement(f"the hand-written loop of {case.label}, {TITLES[name]} engine", theirs, one.norms())
    *ours, by_hand = alternate([*(one.norms_only for one in engines.values()), loop.run], settings.effort)
    pairs = {name: (found, by_hand) for name, found in zip(engines, ours, strict=True)}
    yield agreement_row(settings, section, case, engines)
    share = of_0_1_0.SHARES.get(case.label)
    yield Row(
        section,
        f"{case.label}: norms",
        "by hand, plain numbers" if share is None else f"by hand, plain numbers; 0.1.0 needed {share:.3g} of theirs",
        in_milliseconds(pairs, Ratio.SHARE),
        None if share is None else settings.required(requirements.hand_written(case)),
        reasons.hand_written(case),
        engine=NUMPY,
    )
