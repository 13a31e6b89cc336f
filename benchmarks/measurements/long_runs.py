"""A million steps: memory, time against storing everything, and how time grows with T. Minutes, so on request only."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import numpy as np

from benchmarks import reasons
from benchmarks.cases import Case
from benchmarks.measurements.measurement import Measurement, Settings
from benchmarks.processes import run_long
from benchmarks.requirements import LINEARITY, LONG_RUN_MEMORY_MIB, LONG_RUN_TIME
from benchmarks.rows import Compared, Figure, Ratio, Row
from benchmarks.timing import FEW, alternate, spread
from gradcli.engine.run import Engine

_SECTION = "Long sequences: LSTM, hidden size 32, batch 1, drawn input"
_STEPS, _STORED_STEPS = 1_000_000, 100_000
_LENGTHS = (1_000, 10_000, 100_000, 1_000_000)
#: Steps a segment where every length is run in segments: several of them at the shortest length, too.
_SEGMENT = 100


def measurements(settings: Settings) -> Iterator[Measurement]:
    """Yield the long runs where they are asked for."""
    if settings.long:
        yield Measurement("long runs memory and time", partial(_million_steps, settings))
        what = "exponent of T in the time"
        yield Measurement("long runs linearity", partial(_linearity, settings, what, None, reasons.LINEARITY))
        what = f"exponent of T, in segments of {_SEGMENT} steps at every length"
        measure = partial(_linearity, settings, what, _SEGMENT, reasons.LINEARITY_IN_SEGMENTS)
        yield Measurement("long runs linearity in segments", measure)


def _million_steps(settings: Settings) -> Iterator[Row]:
    segmented, stored = [], []
    for _ in range(FEW.least):
        segmented.append(run_long(_STEPS))
        stored.append(run_long(_STORED_STEPS, segment=_STORED_STEPS))
    factor = _STEPS // _STORED_STEPS
    yield Row(
        _SECTION,
        f"T = {_STEPS:,}: norms",
        f"T = {_STORED_STEPS:,} with everything stored, times {factor}",
        Compared([r.seconds for r in segmented], [factor * r.seconds for r in stored], "s", Ratio.SHARE),
        settings.required(LONG_RUN_TIME),
        reasons.LONG_RUN_TIME,
    )
    for runs, what, requirement in (
        (segmented, f"T = {_STEPS:,}: peak memory", settings.required(LONG_RUN_MEMORY_MIB)),
        (stored, f"T = {_STORED_STEPS:,} with everything stored: peak memory", None),
    ):
        above = Figure([r.above_start_up_bytes / 2**20 for r in runs], "MiB")
        against = "above start-up, besides the curve's own arrays"
        yield Row(_SECTION, what, against, above, requirement, reasons.LONG_RUN_MEMORY_MIB)


def _linearity(settings: Settings, what: str, segment: int | None, reason: str) -> Iterator[Row]:
    engines = [Engine(Case("lstm", 1, 32, steps).problem(), segment=segment) for steps in _LENGTHS]
    times = alternate([partial(engine.run, parameters=False) for engine in engines], FEW)
    # time ~ T^exponent, fitted for each round.
    exponents = [float(np.polyfit(np.log(_LENGTHS), np.log(found), 1)[0]) for found in zip(*times, strict=True)]
    measured = ", ".join(f"{steps:,}: {spread(t).median:.3g} s" for steps, t in zip(_LENGTHS, times, strict=True))
    yield Row(_SECTION, what, measured, Figure(exponents, ""), settings.required(LINEARITY), reason)
