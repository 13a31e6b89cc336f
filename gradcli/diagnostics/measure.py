"""One spec, run and measured: the findings that reports are made of."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from gradcli.diagnostics.clipping import Clipped, clip_all, median
from gradcli.diagnostics.curve import LOG10_2, Curve, curve_of, joined
from gradcli.diagnostics.verdict import Verdict, judge
from gradcli.engine.run import Engine, Run
from gradcli.network.build import Network

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Measured:
    """A network and what was found about it.

    curve: of all states of the top layer joined; None where a number overflowed. states: each state's median curve.
    parameters: "layer0.W_hh" -> log10 of the norm of the batch loss's gradient, median over trials; -inf for zero.
    """

    network: Network
    run: Run
    verdict: Verdict
    curve: Curve | None
    states: dict[str, Array]
    parameters: dict[str, float]
    clipped: list[Clipped]

    @property
    def label(self) -> str:
        return self.network.loaded.label


def measure(network: Network, *, record: bool = False) -> Measured:
    """Run a network and put every question of `simulate` to it."""
    spec = network.spec
    engine = Engine(network.problem)
    run = engine.run(record=record)
    thresholds = spec.thresholds
    nonfinite = _nonfinite(network, engine, run)
    if nonfinite is not None:
        verdict = judge(
            np.zeros(1), vanishing=thresholds.vanishing, exploding=thresholds.exploding, nonfinite=nonfinite
        )
        return Measured(network, run, verdict, None, {}, {}, [])
    top = network.problem.names[-1]
    curve = curve_of(joined(norm for name, norm in run.log2_norm.items() if name.startswith(f"{top}.")))
    verdict = judge(curve.median, vanishing=thresholds.vanishing, exploding=thresholds.exploding)
    return Measured(
        network,
        run,
        verdict,
        curve,
        {name: curve_of(norm).median for name, norm in run.log2_norm.items()},
        {name: median(gradient.log2_norm()) * LOG10_2 for name, gradient in run.gradients.items()},
        clip_all(engine, run, [(c.NAME, c.threshold) for c in spec.clip], spec.learning_rate, top),
    )


def _nonfinite(network: Network, engine: Engine, run: Run) -> str | None:
    """Return where a number stopped being finite, in words; None where all were."""
    found = run.overflow or run.backward_overflow
    if found is None:
        return None
    layer = network.problem.names[found.layer]
    count, trials = int(found.trials.sum()), network.spec.trials
    where = f"step {found.step}, {layer}"
    among = f" (in {count} of {trials} trials)" if trials > 1 else ""
    if run.overflow is None:
        return f"{where}: a derivative is not finite{among}"
    equation = engine.equation_of_overflow(found)
    text = " ".join(equation.statement.text.split())
    return f"{where}: {text}{among}"
