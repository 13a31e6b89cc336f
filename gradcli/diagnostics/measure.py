"""One spec, run and measured: the findings that reports are made of."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from gradcli.diagnostics.clipping import Clipped, clip_all, median
from gradcli.diagnostics.curve import LOG10_2, Curve, curve_of, median_and_mean_of
from gradcli.diagnostics.float32 import Float32, distances_of_last_loss, see_in_float32
from gradcli.diagnostics.nonfinite import Blame, Cause, derivative_cause, forward_cause
from gradcli.diagnostics.predictions import Prediction, predict
from gradcli.diagnostics.rounding import states_of_rounding
from gradcli.diagnostics.verdict import (
    Verdict,
    judge,
    judge_backward_overflow,
    judge_overflow,
    judge_sequences,
)
from gradcli.engine.problem import Overflow, Problem, Progress, Run
from gradcli.engine.run import Engine
from gradcli.frozen import frozen
from gradcli.prepare.build import Network
from gradcli.spec.models import Thresholds

Array = np.ndarray[Any, Any]

#: So many trials, or sequences of a single one, are enough to tell how much a figure differs from one to the next.
MOST_APART = 64


@frozen
class StateCurve:
    """One state of one layer: log10 of the median and of the mean norm by distance, (T+1,), the verdict on the mean.

    is_rounding: whether they are nothing but rounding, see `gradcli.diagnostics.rounding`: the verdict says nothing.
    """

    median: Array
    mean: Array
    verdict: Verdict
    is_rounding: bool = False


@frozen
class Measured:
    """A network and what was found about it.

    losses: (R, B). curve: of the states of the `headline` layers joined, from the last loss alone; None where a number
        overflowed. total: the same from the losses at all steps together; None where there is but one.
    headline: the layers whose states the curve joins; see `headline_layers`.
    states: "layer0.h" -> its own curve.
    parameters: "layer0.W_hh" -> log10 of the norm of the batch loss's gradient, median over trials; -inf for zero.
    predictions: rates that theory gives for the layer in the headline.
    run: what the engine gave but for the norms, for `--save`; None unless it was recorded, as it is large.
    float32: what training in float32 would see; None for a run in float64, and for one without a curve.
    apart: the verdict on each trial alone, or on each sequence of a single one; none unless asked for.
    """

    network: Network
    losses: Array
    verdict: Verdict
    curve: Curve | None
    total: Curve | None
    states: dict[str, StateCurve]
    parameters: dict[str, float]
    clipped: list[Clipped]
    predictions: list[Prediction]
    run: Run | None
    headline: Sequence[str]
    float32: Float32 | None = None
    apart: Sequence[Verdict] = ()

    @property
    def label(self) -> str:
        return self.network.loaded.label


def measure(
    network: Network,
    *,
    record: bool = False,
    progress: Progress | None = None,
    run: Run | None = None,
    theory: bool = True,
    apart: bool = False,
) -> Measured:
    """Run a network and put every question of `simulate` to it.

    Args:
        record: keep states and adjoints, and with them the run. progress: called while it is under way.
        run: what the engine gave for the network, if it has run already.
        theory: whether the rates that theory gives are wanted. apart: whether trials are judged one by one as well.
    """
    spec = network.spec
    engine = Engine(network.problem, progress=progress)
    if run is None:
        run = engine.run(record=record)
    kept = run if record else None
    verdict = judge_nonfinite(network, engine, run)
    if verdict is not None:
        return _without_curve(network, run, verdict, kept)
    problem, headline, total = network.problem, headline_layers(network.problem), None
    gradients, log2_norm, joined = run.gradients, run.log2_norm, states_of(headline, run.log2_norm)
    clipped = clip_all(engine, run, [(c.NAME, c.threshold) for c in spec.clip], spec.learning_rate, joined)
    seen = see_in_float32(engine, run, joined) if problem.dtype == np.float32 else None
    if len(problem.loss.steps) > 1:
        total = curve_of(*(log2_norm[name] for name in joined))
        for loss, layers in problem.last_losses:
            engine.set_loss(loss)
            of_last = engine.run(parameters=False)
            verdict = judge_nonfinite(network, engine, of_last)
            if verdict is not None:
                return _without_curve(network, run, verdict, kept)
            seen = seen and distances_of_last_loss(seen, engine, of_last.log2_norm, layers, joined)
            log2_norm |= {name: of_last.log2_norm[name] for name in states_of(layers, log2_norm)}
    alone = _judged_apart(problem, log2_norm, headline, spec.thresholds) if apart else []
    verdict, curve, states = _curves(problem, log2_norm, headline, spec.thresholds)
    rounding = states_of_rounding(engine, {name: state.mean for name, state in states.items()})
    states = {name: replace(state, is_rounding=name in rounding) for name, state in states.items()}
    return Measured(
        network,
        run.losses,
        verdict,
        curve,
        total,
        states,
        {name: median(gradient.log2_norm()) * LOG10_2 for name, gradient in gradients.items()},
        clipped,
        _predictions(problem, headline, verdict) if theory else [],
        kept,
        headline,
        seen,
        alone,
    )


def _without_curve(network: Network, run: Run, verdict: Verdict, kept: Run | None) -> Measured:
    """Return what is left to say of a run in which a number was not finite."""
    headline = headline_layers(network.problem)
    return Measured(network, run.losses, verdict, None, None, {}, {}, [], [], kept, headline)


def states_of(layers: Sequence[str], names: Iterable[str]) -> list[str]:
    """Return the states of some layers: of layer0, layer0.h and layer0.c."""
    return [name for name in names if name.rpartition(".")[0] in layers]


def headline_layers(problem: Problem) -> list[str]:
    """Return the layers whose states the headline curve joins: the top one, of two directions those that it can judge.

    Position t is step t of the forward direction and step T+1-t of the reverse one. So a loss at a few positions may
    reach one direction at its end and the other late or at its beginning only, where it is no measure of how far a
    gradient flows; and curves that begin at two distances would make a hump together that neither has. The direction
    takes part whose end the loss is nearer to, or both where that is the same.
    """
    if not problem.bidirectional:
        return problem.names[-1:]
    distances = first_distances(problem)
    nearest = min(distances.values())
    return [layer for layer, distance in distances.items() if distance == nearest]


def first_distances(problem: Problem) -> dict[str, int]:
    """Return for both directions of the top layer the first distance, in own steps, at which the loss enters."""
    forward, reverse = problem.names[-2:]
    from_end = problem.seq_len - problem.loss.last_step
    return {forward: from_end, reverse: from_end if problem.loss.final else problem.loss.first_step - 1}


def _predictions(problem: Problem, headline: Sequence[str], verdict: Verdict) -> list[Prediction]:
    """Return what theory says of the layer in the headline; of two directions together it says nothing.

    A state of rest in which all units are off says nothing of a run in which they are on.
    """
    if len(headline) != 1:
        return []
    found = predict(problem, problem.names.index(headline[0]))
    return [one for one in found if one.rate_per_step != 0.0 or verdict.kind == "dead"]


def _curves(
    problem: Problem, norms: dict[str, Array], headline: Sequence[str], thresholds: Thresholds
) -> tuple[Verdict, Curve, dict[str, StateCurve]]:
    """Return the curve of the headline's states and the verdict on it, and those of each state; norms are used up.

    They are of the sequences that the last loss enters.
    """
    joined, entered = states_of(headline, norms), problem.entered(headline)
    of_headline = [_of_sequences(norms[name], entered) for name in joined]
    curve = curve_of(*of_headline)
    begins = None if problem.begins is None else _of_sequences(problem.begins.steps, entered)
    verdict = judge_sequences(
        curve,
        of_headline,
        begins,
        vanishing=thresholds.vanishing,
        exploding=thresholds.exploding,
    )
    del of_headline
    states = {}
    for name in list(norms):
        # Taken out one by one: over a million steps, norms and curves of all states would be twice as much.
        norm = _of_sequences(norms.pop(name), problem.entered([name.rpartition(".")[0]]))
        median, mean = (curve.median, curve.mean) if joined == [name] else median_and_mean_of(norm)
        del norm
        of_state = judge(mean, vanishing=thresholds.vanishing, exploding=thresholds.exploding)
        states[name] = StateCurve(median, mean, of_state)
    return verdict, curve, states


def _of_sequences(values: Array, sequences: Array | None) -> Array:
    """Return values (..., B) of some sequences; of all where None."""
    return values if sequences is None else values[..., sequences]


def _judged_apart(
    problem: Problem, norms: dict[str, Array], headline: Sequence[str], thresholds: Thresholds
) -> list[Verdict]:
    """Return the verdict on each trial alone, or on each sequence where there is one trial; at most `MOST_APART`."""
    entered = problem.entered(headline)
    joined = [_of_sequences(norms[name], entered) for name in states_of(headline, norms)]
    _, trials, sequences = joined[0].shape
    if trials > 1:
        parts = [[norm[:, i : i + 1] for norm in joined] for i in range(min(trials, MOST_APART))]
    else:
        parts = [[norm[:, :, i : i + 1] for norm in joined] for i in range(min(sequences, MOST_APART))]
    means = (curve_of(*(_of_those_that_begin(norm) for norm in part)).mean for part in parts)
    return [judge(mean, vanishing=thresholds.vanishing, exploding=thresholds.exploding) for mean in means]


def _of_those_that_begin(log2_norm: Array) -> Array:
    """Return the norms (T+1, 1, B) from the first step on that any of these sequences has: before it there is NaN."""
    begun = ~np.isnan(log2_norm).all(axis=(1, 2))
    return log2_norm[int(begun.argmax()) :]


def judge_nonfinite(network: Network, engine: Engine, run: Run) -> Verdict | None:
    """Return the verdict on a run in which a number stopped being finite; None where all were."""
    if run.overflow is not None:
        return nonfinite_verdict(network, engine, run.overflow)
    if run.backward_overflow is not None:
        return derivative_verdict(network, engine, run.backward_overflow)
    return None


def nonfinite_verdict(network: Network, engine: Engine, overflow: Overflow) -> Verdict:
    """Return the verdict on a forward pass that has just stopped being finite."""
    from gradcli.diagnostics.blame import blame_forward

    blame = blame_forward(engine, overflow)
    cause = forward_cause(blame, network.problem.dtype)
    place = f"{_place(network, overflow)}: {_equation(blame)}{_where(cause)}"
    return judge_overflow(place + _among(overflow.trials), cause)


def derivative_verdict(network: Network, engine: Engine, overflow: Overflow) -> Verdict:
    """Return the verdict on a backward pass in which an adjoint is not finite."""
    from gradcli.diagnostics.blame import blame_derivative

    found = blame_derivative(engine, overflow)
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
