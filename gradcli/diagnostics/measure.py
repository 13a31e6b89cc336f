"""One spec, run and measured: the findings that reports are made of."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from gradcli.diagnostics.clipping import Clipped, clip_all, median
from gradcli.diagnostics.curve import LOG10_2, Curve, curve_of, median_of
from gradcli.diagnostics.predictions import Prediction, predict
from gradcli.diagnostics.verdict import Verdict, judge, judge_backward_overflow, judge_overflow
from gradcli.engine.problem import Overflow, Progress, Run
from gradcli.engine.run import Engine
from gradcli.network.build import Network
from gradcli.spec.models import Thresholds

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class StateCurve:
    """One state of one layer: its median curve by distance, (T+1,), and the verdict on it."""

    median: Array
    verdict: Verdict


@dataclass(frozen=True)
class Measured:
    """A network and what was found about it.

    losses: (R, B). curve: of all states of the top layer joined; None where a number overflowed.
    states: "layer0.h" -> its own curve.
    parameters: "layer0.W_hh" -> log10 of the norm of the batch loss's gradient, median over trials; -inf for zero.
    predictions: rates that theory gives for the top layer.
    run: what the engine gave but for the norms, for `--save`; None unless it was recorded, as it is large.
    """

    network: Network
    losses: Array
    verdict: Verdict
    curve: Curve | None
    states: dict[str, StateCurve]
    parameters: dict[str, float]
    clipped: list[Clipped]
    predictions: list[Prediction]
    run: Run | None

    @property
    def label(self) -> str:
        return self.network.loaded.label


def measure(
    network: Network, *, record: bool = False, progress: Progress | None = None, run: Run | None = None
) -> Measured:
    """Run a network and put every question of `simulate` to it.

    Args:
        record: keep states and adjoints, and with them the run. progress: called while it is under way.
        run: what the engine gave for the network, if it has run already.
    """
    spec = network.spec
    engine = Engine(network.problem, progress=progress)
    if run is None:
        run = engine.run(record=record)
    kept = run if record else None
    verdict = nonfinite_run_verdict(network, engine, run)
    if verdict is not None:
        return Measured(network, run.losses, verdict, None, {}, {}, [], [], kept)
    top = network.problem.names[-1]
    curve, states = _curves(run, top, spec.thresholds)
    return Measured(
        network,
        run.losses,
        _judged(curve.median, spec.thresholds),
        curve,
        states,
        {name: median(gradient.log2_norm()) * LOG10_2 for name, gradient in run.gradients.items()},
        clip_all(engine, run, [(c.NAME, c.threshold) for c in spec.clip], spec.learning_rate, top),
        predict(network.problem, len(network.problem.plans) - 1),
        kept,
    )


def _curves(run: Run, top: str, thresholds: Thresholds) -> tuple[Curve, dict[str, StateCurve]]:
    """Return the curve of the top layer's states joined, and that of each state; the run's norms are used up."""
    norms = run.log2_norm
    joined = [name for name in norms if name.startswith(f"{top}.")]
    curve = curve_of(*(norms[name] for name in joined))
    states = {}
    for name in list(norms):
        # Taken out one by one: over a million steps, norms and curves of all states would be twice as much.
        norm = norms.pop(name)
        median = curve.median if joined == [name] else median_of(norm)
        del norm
        states[name] = StateCurve(median, _judged(median, thresholds))
    return curve, states


def _judged(curve: Array, thresholds: Thresholds) -> Verdict:
    return judge(curve, vanishing=thresholds.vanishing, exploding=thresholds.exploding)


def nonfinite_run_verdict(network: Network, engine: Engine, run: Run) -> Verdict | None:
    """Return the verdict on a run in which a number stopped being finite; None where all were."""
    if run.overflow is not None:
        return nonfinite_verdict(network, engine, run.overflow)
    if run.backward_overflow is not None:
        return judge_backward_overflow(_place(network, run.backward_overflow) + _among(run.backward_overflow.trials))
    return None


def nonfinite_verdict(network: Network, engine: Engine, overflow: Overflow) -> Verdict:
    """Return the verdict on a forward pass that has just stopped being finite."""
    equation = engine.equation_of_overflow(overflow)
    text = " ".join(equation.statement.text.split())
    return judge_overflow(f"{_place(network, overflow)}: {text}{_among(overflow.trials)}")


def _place(network: Network, overflow: Overflow) -> str:
    layer = network.problem.names[overflow.layer]
    return f"step {overflow.step}, {layer}" if overflow.step else f"the initial state of {layer}"


def _among(trials: Array) -> str:
    """Say in which of several trials something happened."""
    count, total = int(trials.sum()), len(trials)
    if total == 1:
        return ""
    return f" (in all {total} trials)" if count == total else f" (in {count} of {total} trials)"
