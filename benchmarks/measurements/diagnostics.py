"""What `contributions` and `gates` compute, against what the engine needs for `simulate` of the same spec."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

from benchmarks import reasons
from benchmarks.cases import Case
from benchmarks.engines import there, use
from benchmarks.measurements.measurement import Measurement, Settings
from benchmarks.requirements import DIAGNOSTICS
from benchmarks.rows import Ratio, Row, in_milliseconds
from benchmarks.timing import alternate
from gradcli.diagnostics.contributions import measure_contributions
from gradcli.diagnostics.gates import measure_gates
from gradcli.engine.run import Engine
from gradcli.prepare.build import Network

#: The default sizes of a spec, and a small cell over many steps.
_CASES = (Case("lstm", 16, 64, 100, trials=4), Case("lstm", 1, 32, 10000))
_QUICK_CASES = (Case("lstm", 2, 8, 12),)

_DIAGNOSTICS: dict[str, Callable[[Network, int], object]] = {
    "contributions": measure_contributions,
    "gates": measure_gates,
}


def measurements(settings: Settings) -> Iterator[Measurement]:
    """Yield each diagnostic at each size."""
    for name in _DIAGNOSTICS:
        for case in _QUICK_CASES if settings.quick else _CASES:
            yield Measurement(f"diagnostics {name} {case.label}", partial(_against_simulate, settings, name, case))


def _against_simulate(settings: Settings, name: str, case: Case) -> Iterator[Row]:
    network, diagnostic = case.network(), _DIAGNOSTICS[name]

    def ours(engine: str) -> None:
        use(engine)
        diagnostic(network, 0)

    def simulate(engine: str) -> None:
        use(engine)
        Engine(network.problem).run()

    contestants: list[Callable[[], object]] = []
    for engine in there():
        contestants += [partial(ours, engine), partial(simulate, engine)]
    times = alternate(contestants, settings.effort)
    pairs = {engine: (times[2 * i], times[2 * i + 1]) for i, engine in enumerate(there())}
    yield Row(
        "Diagnostics against the engine's time of `simulate`",
        f"{name} of {case.label}, {case.trials} trial{'s' * (case.trials > 1)}: all that it computes",
        "simulate: norms and parameter gradients, its programs made anew",
        in_milliseconds(pairs, Ratio.SHARE),
        settings.required(DIAGNOSTICS),
        reasons.DIAGNOSTICS,
    )
