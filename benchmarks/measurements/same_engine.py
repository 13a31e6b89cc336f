"""The engine against itself and against loops by hand: a user's equations, many draws at once, log-scaled norms."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import partial

from benchmarks import reasons
from benchmarks.agreement import require_agreement
from benchmarks.cases import (
    DRAWS,
    HAND_WRITTEN_CELLS,
    HAND_WRITTEN_SIZES,
    LARGE_HAND_WRITTEN,
    QUICK_SIZES,
    USERS_FILES,
    Case,
    ours,
)
from benchmarks.hand_written import LOOPS
from benchmarks.measurements.measurement import Measurement, Settings
from benchmarks.requirements import DRAWS_AT_ONCE, HAND_WRITTEN, LOG_SCALED, USERS_FILE, Requirement
from benchmarks.rows import Compared, Ratio, Row, in_milliseconds
from benchmarks.timing import alternate


def measurements(settings: Settings) -> Iterator[Measurement]:
    """Yield a user's file, draws at once, log-scaled norms, and each hand-written loop."""
    sizes = QUICK_SIZES if settings.quick else HAND_WRITTEN_SIZES
    for cell in USERS_FILES:
        for size in sizes:
            case = Case(cell, *size)
            yield Measurement(f"user's file {case.label}", partial(_users_file, settings, case))
    for cell in DRAWS_AT_ONCE:
        case = Case(cell, 1, 8, 12) if settings.quick else Case(cell, 1, 32, 100)
        yield Measurement(f"draws at once {case.label}", partial(_draws_at_once, settings, case))
    for size in sizes:
        case = Case("lstm", *size)
        section, reason = "Log-scaled norms against plain ones", reasons.log_scaled(case)
        measure = partial(_by_hand, settings, case, section, LOG_SCALED, reason)
        yield Measurement(f"log-scaled {case.label}", measure)
    cases = [Case(cell, *size, overrides=overrides) for cell, overrides in HAND_WRITTEN_CELLS for size in sizes]
    for case in cases if settings.quick else [*cases, LARGE_HAND_WRITTEN]:
        section, reason = "Against loops written by hand", reasons.hand_written(case)
        measure = partial(_by_hand, settings, case, section, HAND_WRITTEN, reason)
        yield Measurement(f"hand-written {case.label}", measure)


def draws_of(case: Case) -> str:
    """Return what the row of many draws at once says that it is about."""
    return f"{case.label}: norms of {DRAWS} draws"


def _compared(settings: Settings, first: Case, second: Case) -> Compared:
    times = alternate((ours(first).norms_only, ours(second).norms_only), settings.effort)
    return in_milliseconds(times, Ratio.SHARE)


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
        settings.required(DRAWS_AT_ONCE[case.target]),
        reasons.DRAWS_AT_ONCE,
    )


def _by_hand(settings: Settings, case: Case, section: str, requirement: Requirement, reason: str) -> Iterator[Row]:
    engine = ours(case)
    loop = LOOPS[case.cell](engine.numbers)
    require_agreement(f"the hand-written loop of {case.label}", loop.run(), engine.norms())
    times = alternate((engine.norms_only, loop.run), settings.effort)
    outcome = in_milliseconds(times, Ratio.SHARE)
    yield Row(
        section,
        f"{case.label}: norms",
        "by hand, plain numbers",
        outcome,
        settings.required(requirement),
        reason,
    )
