"""One spec, run and measured: the findings that reports are made of."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from gradcli.diagnostics.clipping import Clipped, clip_all, median
from gradcli.diagnostics.curve import LOG10_2, Curve, curve_of, median_of
from gradcli.diagnostics.nonfinite import Cause, derivative_cause, forward_cause
from gradcli.diagnostics.predictions import Prediction, predict
from gradcli.diagnostics.verdict import Verdict, judge, judge_backward_overflow, judge_overflow
from gradcli.engine.nonfinite import Blame
from gradcli.engine.problem import Overflow, Problem, Progress, Run
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

    losses: (R, B). curve: of the states of the `headline` layers joined; None where a number overflowed.
    headline: the layers whose states the curve joins; see `headline_layers`.
    states: "layer0.h" -> its own curve.
    parameters: "layer0.W_hh" -> log10 of the norm of the batch loss's gradient, median over trials; -inf for zero.
    predictions: rates that theory gives for the layer in the headline.
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
    headline: Sequence[str]

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
    verdict = judge_nonfinite(network, engine, run)
    headline = headline_layers(network.problem)
    if verdict is not None:
        return Measured(network, run.losses, verdict, None, {}, {}, [], [], kept, headline)
    joined = [name for name in run.log2_norm if name.rpartition(".")[0] in headline]
    curve, states = _curves(run, joined, spec.thresholds)
    return Measured(
        network,
        run.losses,
        _judged(curve.median, spec.thresholds),
        curve,
        states,
        {name: median(gradient.log2_norm()) * LOG10_2 for name, gradient in run.gradients.items()},
        clip_all(engine, run, [(c.NAME, c.threshold) for c in spec.clip], spec.learning_rate, joined),
        _predictions(network.problem, headline),
        kept,
        headline,
    )


def headline_layers(problem: Problem) -> list[str]:
    """Return the layers whose states the headline curve joins: the top one, of two directions those that it can judge.

    Position t is step t of the forward direction and step T+1-t of the reverse one. So a loss at a few positions may
    reach one direction at its end and the other at its beginning only, where it is no measure of how far a gradient
    flows. A direction takes part if the loss reaches its latter half; at least one does.
    """
    if not problem.bidirectional:
        return problem.names[-1:]
    return [layer for layer, distance in first_distances(problem).items() if distance < problem.seq_len / 2]


def first_distances(problem: Problem) -> dict[str, int]:
    """Return for both directions of the top layer the first distance, in own steps, at which the loss enters."""
    forward, reverse = problem.names[-2:]
    return {forward: problem.seq_len - problem.loss.last_step, reverse: problem.loss.first_step - 1}


def _predictions(problem: Problem, headline: Sequence[str]) -> list[Prediction]:
    """Return what theory says of the layer in the headline; of two directions together it says nothing."""
    return predict(problem, problem.names.index(headline[0])) if len(headline) == 1 else []


def _curves(run: Run, joined: Sequence[str], thresholds: Thresholds) -> tuple[Curve, dict[str, StateCurve]]:
    """Return the curve of the `joined` states, and that of each state; the run's norms are used up."""
    norms = run.log2_norm
    curve = curve_of(*(norms[name] for name in joined))
    states = {}
    for name in list(norms):
        # Taken out one by one: over a million steps, norms and curves of all states would be twice as much.
        norm = norms.pop(name)
        median = curve.median if list(joined) == [name] else median_of(norm)
        del norm
        states[name] = StateCurve(median, _judged(median, thresholds))
    return curve, states


def _judged(curve: Array, thresholds: Thresholds) -> Verdict:
    return judge(curve, vanishing=thresholds.vanishing, exploding=thresholds.exploding)


def judge_nonfinite(network: Network, engine: Engine, run: Run) -> Verdict | None:
    """Return the verdict on a run in which a number stopped being finite; None where all were."""
    if run.overflow is not None:
        return nonfinite_verdict(network, engine, run.overflow)
    if run.backward_overflow is not None:
        return derivative_verdict(network, engine, run.backward_overflow)
    return None


def nonfinite_verdict(network: Network, engine: Engine, overflow: Overflow) -> Verdict:
    """Return the verdict on a forward pass that has just stopped being finite."""
    blame = engine.blame_of(overflow)
    cause = forward_cause(blame, network.problem.dtype)
    place = f"{_place(network, overflow)}: {_equation(blame)}{_where(cause)}"
    return judge_overflow(place + _among(overflow.trials), cause)


def derivative_verdict(network: Network, engine: Engine, overflow: Overflow) -> Verdict:
    """Return the verdict on a backward pass in which an adjoint is not finite."""
    found = engine.blame_of_derivative(overflow)
    if found is None:
        return judge_backward_overflow(_place(network, overflow) + _among(overflow.trials), Cause())
    step, layer, blame = found
    cause = derivative_cause(blame)
    place = f"{_place(network, replace(overflow, step=step, layer=layer))}: {_equation(blame)}"
    operation = f", that of {cause.operation}" if cause.operation else ""
    return judge_backward_overflow(place + operation + _among(overflow.trials), cause)


def _equation(blame: Blame) -> str:
    return " ".join(blame.equation.statement.text.split())


def _where(cause: Cause) -> str:
    return f", where {cause.operation}" if cause.operation else ""


def _place(network: Network, overflow: Overflow) -> str:
    layer = network.problem.names[overflow.layer]
    return f"step {overflow.step}, {layer}" if overflow.step else f"the initial state of {layer}"


def _among(trials: Array) -> str:
    """Say in which of several trials something happened."""
    count, total = int(trials.sum()), len(trials)
    if total == 1:
        return ""
    return f" (in all {total} trials)" if count == total else f" (in {count} of {total} trials)"
