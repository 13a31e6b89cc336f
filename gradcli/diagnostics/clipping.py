"""What clipping would do to this gradient, and to the step that gradient descent takes with it.

`norm` and `value` act on the parameter gradients of the batch loss, as training loops do; `step_norm` and `step_value`
act inside BPTT, on each state's total gradient at each step as soon as it is complete, and so change the curve.

Where a parameter b is the sum of n parameters of a framework's, as b_h of nn.RNN is of bias_ih and bias_hh, all n have
the gradient dL/db: the norm counts it n times, and a step of gradient descent moves b by n times the step of each.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from gradcli.diagnostics.curve import LOG10_2, Curve, curve_of, joined, quantiles
from gradcli.engine.loss import ReadoutLoss
from gradcli.engine.problem import READOUT, Run
from gradcli.engine.run import Engine
from gradcli.engine.scaled import Scaled
from gradcli.engine.step_clip import StepClip
from gradcli.frozen import frozen

Array = np.ndarray[Any, Any]
Gradients = Mapping[str, Scaled]
#: How often each parameter counts, where that is not once; see `Problem.copies`.
Copies = Mapping[str, int]

#: What PyTorch adds to the norm that it divides by.
_ADDED_TO_NORM = 1e-6


@frozen
class Clipped:
    """The outcome of one clipping method; medians over trials. None where a number is not finite or has no meaning.

    log10_norm_before, log10_norm_after: of all parameter gradients together; -inf for an exact zero.
    scale: norm after / norm before. cosine: of the angle between the two gradients.
    fraction_clipped: `norm`: of the trials; `value`: of the entries; inside BPTT: of the states at all steps.
    loss_before: of the batch; loss_after_unclipped, loss_after_clipped: after one step of gradient descent.
    curve: the headline curve as clipped, where the method changes it.
    """

    method: str
    threshold: float
    log10_norm_before: float
    log10_norm_after: float
    scale: float | None
    cosine: float | None
    fraction_clipped: float
    loss_before: float | None
    loss_after_unclipped: float | None
    loss_after_clipped: float | None
    curve: Curve | None = None


def clip_all(
    engine: Engine, run: Run, methods: Sequence[tuple[str, float]], learning_rate: float, headline: Sequence[str]
) -> list[Clipped]:
    """Return what each (method, threshold) does to the gradients of a run.

    Args:
        engine: the engine that made the run; its parameters are changed meanwhile and put back.
        run: with parameter gradients.
        learning_rate: of the step of gradient descent.
        headline: the states that make the curve, such as "layer0.h".
    """
    if not methods:
        return []
    descent = _Descent(engine, learning_rate)
    copies = engine.problem.copies
    before = _batch_loss(engine, run.losses)
    unclipped = descent.loss_after(run.gradients)
    found = []
    for method, threshold in methods:
        curve = None
        if method in ("norm", "value"):
            clip = _clip_norm if method == "norm" else _clip_value
            gradients, fraction = clip(run.gradients, threshold, copies)
        else:
            gradients, fraction, curve = _clip_inside(engine, method, threshold, headline)
        same = gradients is run.gradients
        found.append(
            _outcome(
                method,
                threshold,
                run.gradients,
                gradients,
                copies,
                fraction,
                before,
                unclipped,
                unclipped if same else descent.loss_after(gradients),
                curve,
            )
        )
    return found


def _outcome(
    method: str,
    threshold: float,
    before: Gradients,
    after: Gradients,
    copies: Copies,
    fraction: float,
    loss: float | None,
    loss_unclipped: float | None,
    loss_clipped: float | None,
    curve: Curve | None,
) -> Clipped:
    norm_before, norm_after = total_log2_norm(before, copies), total_log2_norm(after, copies)
    nothing = np.isneginf(norm_before)
    with np.errstate(invalid="ignore", over="ignore", under="ignore"):
        scale = np.where(nothing, np.nan, np.exp2(norm_after - norm_before))
    return Clipped(
        method,
        threshold,
        median(norm_before) * LOG10_2,
        median(norm_after) * LOG10_2,
        _median_of_defined(scale),
        # Not computed where nothing changed: rounding would show.
        _median_of_defined(np.where(nothing, np.nan, 1.0) if after is before else _cosine(before, after, copies)),
        fraction,
        loss,
        loss_unclipped,
        loss_clipped,
        curve,
    )


def total_log2_norm(gradients: Gradients, copies: Copies) -> Array:
    """Return log2 of the norm of all parameter gradients together, for each trial; of none at all, one -inf.

    The norm is sqrt(sum_i n_i |g_i|^2), n_i the number of copies.
    """
    counted = {name: n for name in gradients if (n := copies.get(name, 1))}
    if not counted:
        return np.array([-np.inf])
    return joined(gradients[name].log2_norm() + 0.5 * math.log2(n) for name, n in counted.items())


def median(values: Array) -> float:
    """Return the median over trials; an exact zero (-inf) beside the middle counts as it is."""
    return float(quantiles(values, (0.5,))[0])


def _median_of_defined(values: Array) -> float | None:
    """Return the median over the trials that have a gradient; None where none has."""
    defined = values[~np.isnan(values)]
    return _finite(median(defined)) if defined.size else None


def _finite(value: float) -> float | None:
    return value if np.isfinite(value) else None


def _clip_norm(gradients: Gradients, threshold: float, copies: Copies) -> tuple[Gradients, float]:
    """g <- g min(1, threshold / (||g|| + 1e-6)), the norm over all parameters, as torch.nn.utils.clip_grad_norm_ does.

    Source: Pascanu et al. 2013, algorithm 1; the 1e-6 is PyTorch's.
    """
    with np.errstate(invalid="ignore"):  # a norm that is no number is none with 1e-6 added
        excess = np.logaddexp2(total_log2_norm(gradients, copies), math.log2(_ADDED_TO_NORM)) - math.log2(threshold)
    clipped = excess > 0
    if not clipped.any():
        return gradients, 0.0
    # The whole part of the excess goes into the exponent, so that no norm is too large to be scaled down.
    whole = np.where(clipped, np.floor(excess), 0.0).astype(np.int64)
    part = np.where(clipped, np.exp2(-(np.where(clipped, excess, 0.0) - whole)), 1.0)
    return {
        name: Scaled(g.mantissa * part.reshape(-1, *[1] * (g.mantissa.ndim - 1)), g.exponent - whole)
        for name, g in gradients.items()
    }, float(clipped.mean())


def _clip_value(gradients: Gradients, threshold: float, copies: Copies) -> tuple[Gradients, float]:
    """g_i <- min(max(g_i, -threshold), threshold) for each entry."""
    count = clipped = 0
    found: dict[str, Scaled] = {}
    for name, gradient in gradients.items():
        value = gradient.value()
        over = np.abs(value) > threshold
        count += copies.get(name, 1) * over.size
        clipped += copies.get(name, 1) * int(over.sum())
        # A trial in which nothing is clipped keeps its mantissa and exponent, which the plain value might not hold.
        touched = over.reshape(len(over), -1).any(axis=1)
        kept = touched.reshape(-1, *[1] * (value.ndim - 1))
        mantissa = np.where(kept, np.clip(value, -threshold, threshold), gradient.mantissa)
        found[name] = Scaled(mantissa, np.where(touched, 0, gradient.exponent))
    return (found, clipped / count) if clipped else (gradients, 0.0)


def _clip_inside(
    engine: Engine, method: str, threshold: float, headline: Sequence[str]
) -> tuple[Gradients, float, Curve]:
    clipper = StepClip(method, threshold)
    run = engine.run(step_clip=clipper)
    fraction = clipper.changed / clipper.seen if clipper.seen else 0.0
    return run.gradients, fraction, curve_of(*(run.log2_norm[name] for name in headline))


def _cosine(a: Gradients, b: Gradients, copies: Copies) -> Array:
    """Return the cosine of the angle between two sets of gradients, for each trial; NaN where one is zero."""
    norm_a, norm_b = total_log2_norm(a, copies), total_log2_norm(b, copies)
    dot: Array = np.zeros(len(norm_a))
    with np.errstate(invalid="ignore", over="ignore", under="ignore"):
        for name, gradient in a.items():
            mine, theirs = gradient.normalised(), b[name].normalised()
            product = (mine.mantissa * theirs.mantissa).reshape(len(dot), -1).sum(axis=1)
            scale = copies.get(name, 1) * np.exp2(mine.exponent + theirs.exponent - norm_a - norm_b)
            # The exponent of an exact zero says nothing.
            dot = dot + np.where(product == 0, 0.0, product * scale)
        return np.where(np.isneginf(norm_a) | np.isneginf(norm_b), np.nan, np.clip(dot, -1.0, 1.0))


class _Descent:
    """One step of gradient descent from the parameters of an engine."""

    def __init__(self, engine: Engine, learning_rate: float) -> None:
        self._engine, self._rate = engine, learning_rate
        self._start = [dict(table) for table in engine.problem.parameters]

    def loss_after(self, gradients: Gradients) -> float | None:
        """Return the batch loss at parameters - learning_rate * gradients; None where it is not finite."""
        engine = self._engine
        loss = engine.problem.loss
        readout = (loss.W_hy, loss.b_y) if isinstance(loss, ReadoutLoss) else None
        with np.errstate(all="ignore"):
            moved = [
                {name: value - self._step(gradients, f"{layer}.{name}") for name, value in table.items()}
                for layer, table in zip(engine.problem.names, self._start, strict=True)
            ]
            if isinstance(loss, ReadoutLoss):
                loss.W_hy = loss.W_hy - self._step(gradients, f"{READOUT}.W_hy")
                loss.b_y = loss.b_y - self._step(gradients, f"{READOUT}.b_y")
            try:
                engine.set_parameters(moved)
                losses, overflow = engine.losses()
            finally:
                engine.set_parameters(self._start)
                if isinstance(loss, ReadoutLoss) and readout is not None:
                    loss.W_hy, loss.b_y = readout
        return None if overflow is not None else _batch_loss(engine, losses)

    def _step(self, gradients: Gradients, name: str) -> Array:
        """Return what a parameter moves by: the sum of the steps of its copies; a constant stays where it is."""
        if name not in gradients:
            return np.zeros(())
        return self._rate * self._engine.problem.copies.get(name, 1) * gradients[name].value()


def _batch_loss(engine: Engine, losses: Array) -> float | None:
    """Return the median over trials of the batch loss."""
    return _finite(median(engine.problem.loss.of_batch(losses)))
