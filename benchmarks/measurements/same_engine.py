"""The engine against itself and against loops by hand: a user's equations, many draws at once, log-scaled norms."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import partial

from benchmarks.agreement import require_agreement
from benchmarks.cases import (
    HAND_WRITTEN_CELLS,
    HAND_WRITTEN_SIZES,
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

DRAWS = 64


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
        measure = partial(_by_hand, settings, case, "Log-scaled norms against plain ones", LOG_SCALED)
        yield Measurement(f"log-scaled {case.label}", measure)
    for target, overrides in HAND_WRITTEN_CELLS:
        for size in sizes:
            case = Case(target, *size, overrides=overrides)
            measure = partial(_by_hand, settings, case, "Against loops written by hand", HAND_WRITTEN)
            yield Measurement(f"hand-written {case.label}", measure)


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
    )


def _draws_at_once(settings: Settings, case: Case) -> Iterator[Row]:
    yield Row(
        f"{DRAWS} draws of the weights at once, in single runs",
        f"{case.label}: norms of {DRAWS} draws",
        "one draw",
        _compared(settings, replace(case, trials=DRAWS), case),
        settings.required(DRAWS_AT_ONCE[case.target]),
    )


def _by_hand(settings: Settings, case: Case, section: str, requirement: Requirement) -> Iterator[Row]:
    engine = ours(case)
    loop = LOOPS[case.cell](engine.numbers)
    require_agreement(f"the hand-written loop of {case.label}", loop.run(), engine.norms())
    times = alternate((engine.norms_only, loop.run), settings.effort)
    outcome = in_milliseconds(times, Ratio.SHARE)
    yield Row(section, f"{case.label}: norms", "by hand, plain numbers", outcome, settings.required(requirement))
