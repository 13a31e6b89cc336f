"""A million steps: memory, time against storing everything, and how time grows with T. Minutes, so on request only."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from unittest.mock import patch

import numpy as np

from benchmarks import reasons
from benchmarks.cases import Case
from benchmarks.engines import COMPILED, TITLES, there, use
from benchmarks.measurements.measurement import Measurement, Settings
from benchmarks.processes import LongRun, run_long
from benchmarks.requirements import LINEARITY, LONG_RUN_MEMORY_MIB, LONG_RUN_TIME
from benchmarks.rows import Compared, Figure, Ratio, Row, Values
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
        for engine in there():
            # All but the last for NumPy, unless it is all that there is: it would take as long as everything else here.
            lengths = _LENGTHS if engine == there()[0] else _LENGTHS[:-1]
            measure = partial(_linearity, settings, engine, lengths, what, None, reasons.LINEARITY)
            yield Measurement(f"long runs linearity {engine}", measure)
        what = f"exponent of T, in segments of {_SEGMENT} steps at every length"
        measure = partial(_linearity, settings, there()[0], _LENGTHS, what, _SEGMENT, reasons.LINEARITY_IN_SEGMENTS)
        yield Measurement("long runs linearity in segments", measure)


def _million_steps(settings: Settings) -> Iterator[Row]:
    segmented: dict[str, list[LongRun]] = {engine: [] for engine in there()}
    stored: dict[str, list[LongRun]] = {engine: [] for engine in there()}
    for _ in range(FEW.least):
        for engine in there():
            segmented[engine].append(run_long(_STEPS, engine))
            stored[engine].append(run_long(_STORED_STEPS, engine, segment=_STORED_STEPS))
    factor = _STEPS // _STORED_STEPS
    pairs: dict[str, tuple[Values, Values]] = {
        engine: ([r.seconds for r in segmented[engine]], [factor * r.seconds for r in stored[engine]])
        for engine in there()
    }
    yield Row(
        _SECTION,
        f"T = {_STEPS:,}: norms",
        f"T = {_STORED_STEPS:,} with everything stored, times {factor}",
        Compared(pairs, "s", Ratio.SHARE),
        settings.required(LONG_RUN_TIME),
        reasons.LONG_RUN_TIME,
    )
    for runs, what, requirement in (
        (segmented, f"T = {_STEPS:,}: peak memory", settings.required(LONG_RUN_MEMORY_MIB)),
        (stored, f"T = {_STORED_STEPS:,} with everything stored: peak memory", None),
    ):
        above = {engine: [r.above_start_up_bytes / 2**20 for r in found] for engine, found in runs.items()}
        curve = next(iter(runs.values()))[0].curve_bytes / 2**20
        against = f"above start-up, of it {curve:.3g} MiB the curves themselves"
        yield Row(_SECTION, what, against, Figure(above, "MiB"), requirement, reasons.LONG_RUN_MEMORY_MIB)


def _linearity(
    settings: Settings, engine: str, lengths: Sequence[int], what: str, segment: int | None, reason: str
) -> Iterator[Row]:
    use(engine)
    # Each run draws its input, as a command does; where that is small it would be kept, and short runs be favoured.
    with patch("gradcli.engine.run.KEPT_INPUT_BYTES", 0):
        engines = [Engine(Case("lstm", 1, 32, steps).problem(), segment=segment) for steps in lengths]

    def run(one: Engine) -> None:
        use(engine)
        one.run(parameters=False)

    contestants: list[Callable[[], object]] = [partial(run, one) for one in engines]
    times = alternate(contestants, FEW)
    # time ~ T^exponent, fitted for each round.
    exponents = [float(np.polyfit(np.log(lengths), np.log(found), 1)[0]) for found in zip(*times, strict=True)]
    measured = ", ".join(f"{steps:,}: {spread(t).median:.3g} s" for steps, t in zip(lengths, times, strict=True))
    yield Row(
        _SECTION,
        f"{what}, {TITLES[engine]} engine" if engine != COMPILED else what,
        measured,
        Figure({engine: exponents}, ""),
        settings.required(LINEARITY),
        reason,
        engine=engine,
    )
