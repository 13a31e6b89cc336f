"""What training in plain float32 would see: numbers without exponents of their own, and sums of squares.

gradcli carries every adjoint as mantissa * 2**e. A framework in float32 has the adjoints of the batch loss as plain
numbers: below 2**-150 they are 0, from 2**128 on Inf, and what Inf leads to is Inf or NaN. So the backward pass runs
once more with one e for all. A gradient norm is the root of a sum of squares, which is 0 or Inf while the gradient
itself is far from it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import field, replace
from typing import Any, Literal

import numpy as np

from gradcli.engine.problem import Run
from gradcli.engine.run import Engine
from gradcli.engine.scaled import Scaled
from gradcli.frozen import frozen

Array = np.ndarray[Any, Any]
Seen = Literal["finite", "zero", "nonfinite"]

#: log2 of the norms at which no entry is lost yet, nor any infinite: there is room for entries far from the largest.
_SAFE_LOG2 = (-110.0, 100.0)


@frozen
class Float32:
    """What float32 would show of a run. Of several trials: "zero" in all of them, "nonfinite" in one at least.

    zero_from: the first distance from which dL/ds_t of the states of the curve is exactly 0 to the beginning, in all
        sequences; None where it is not. nonfinite_from: the first distance at which one of any layer is Inf or NaN.
    loss: of the batch. parameters: "layer0.W_hh" -> its gradient. norm: that of all gradients together, from the sum
        of their squares, which clip_grad_norm_ scales by.
    """

    zero_from: int | None
    nonfinite_from: int | None
    loss: Seen
    parameters: Mapping[str, Seen] = field(default_factory=dict)
    norm: Seen = "finite"

    @property
    def gradient(self) -> Seen:
        """The gradients of all parameters together."""
        found = set(self.parameters.values())
        if "nonfinite" in found:
            return "nonfinite"
        return "zero" if found == {"zero"} else "finite"


def see_in_float32(engine: Engine, run: Run, headline: Sequence[str]) -> Float32:
    """Return what float32 shows of a run with parameter gradients.

    Args:
        engine: that made it, with the loss that training has. run: finite, with exact norms.
        headline: the states that make the curve, such as "layer0.h", whose zeros are told.
    """
    losses = engine.problem.loss.of_batch(run.losses)
    distances, again = _distances(engine, run.log2_norm, headline, parameters=True)
    found = Float32(*distances, _seen(losses[:, None]))
    if again is None or (again.backward_overflow is not None and again.backward_overflow.step == 0):
        return _with_gradients(found, run.gradients)
    if again.backward_overflow is None:
        return _with_gradients(found, again.gradients)
    # Whatever enters a sum as Inf or NaN stays in it: in the layer where it arose, and below.
    names = engine.problem.names
    spoilt = names[: again.backward_overflow.layer + 1]
    exact = {name: _seen_value(gradient) for name, gradient in run.gradients.items()}
    seen: dict[str, Seen] = {
        name: "nonfinite" if name.rpartition(".")[0] in spoilt else of_exact for name, of_exact in exact.items()
    }
    return replace(found, parameters=seen, norm="nonfinite" if "nonfinite" in seen.values() else "finite")


def distances_of_last_loss(
    seen: Float32, engine: Engine, log2_norm: Mapping[str, Array], layers: Sequence[str], headline: Sequence[str]
) -> Float32:
    """Return the same with the distances of the last loss alone, which `engine` has now.

    layers: those that it is the last one for. Of two directions the farther zero and the nearer Inf are told.
    headline: as for `see_in_float32`.
    """
    counted = [name for name in headline if name.rpartition(".")[0] in layers]
    if not counted:
        return seen
    zero_from, nonfinite_from = _distances(engine, log2_norm, counted, parameters=False)[0]
    if layers[0] == engine.problem.names[0]:
        return replace(seen, zero_from=zero_from, nonfinite_from=nonfinite_from)
    ends = [distance for distance in (seen.nonfinite_from, nonfinite_from) if distance is not None]
    zeros = None if zero_from is None or seen.zero_from is None else max(zero_from, seen.zero_from)
    return replace(seen, zero_from=zeros, nonfinite_from=min(ends, default=None))


def _distances(
    engine: Engine, log2_norm: Mapping[str, Array], counted: Sequence[str], *, parameters: bool
) -> tuple[tuple[int | None, int | None], Run | None]:
    """Return from where all adjoints are zero and one is not finite, and the run in float32 where one was needed."""
    problem = engine.problem
    batch = float(np.log2(problem.divisor))
    low, high = _SAFE_LOG2
    if all(_within(norm, low + batch, high + batch) for norm in log2_norm.values()):
        return (_zero_from(log2_norm[name] for name in counted), None), None
    again = engine.run(parameters=parameters, plain=True)
    if again.backward_overflow is not None:
        return (None, problem.seq_len - again.backward_overflow.step), again
    return (_zero_from(again.log2_norm[name] for name in counted), None), again


def _within(log2: Array, low: float, high: float) -> bool:
    """Tell whether all norms are between two others or exactly zero; those that are missing count for nothing."""
    # A part at a time: over a million steps the norms of all sequences are large.
    step = max(1, 2**20 // max(1, log2[0].size))
    parts = (log2[start : start + step] for start in range(0, len(log2), step))
    return all(bool((((low < part) & (part < high)) | np.isneginf(part) | np.isnan(part)).all()) for part in parts)


def _zero_from(log2_norms: Iterable[Array]) -> int | None:
    """Return the first distance from which norms (T+1, R, B) of all states are exactly zero to the beginning."""
    alive: Any = False
    for norm in log2_norms:
        alive = alive | (norm > -np.inf).any(axis=(1, 2))
    last_step = len(alive) - 1
    first_alive = int(np.argmax(alive)) if alive.any() else last_step + 1
    return last_step - first_alive + 1 if first_alive > 0 else None


def _with_gradients(seen: Float32, gradients: Mapping[str, Scaled]) -> Float32:
    """Return what is seen with the gradients of the batch loss, and the root of the sum of their squares."""
    squares: Any = np.float32(0.0)
    with np.errstate(over="ignore", under="ignore", invalid="ignore"):
        for gradient in gradients.values():
            value = gradient.value().astype(np.float32)
            squares = squares + np.square(value.reshape(len(value), -1)).sum(axis=1, dtype=np.float32)
    norm = _seen(np.atleast_1d(squares)[:, None]) if gradients else "finite"
    return replace(seen, parameters={name: _seen_value(g) for name, g in gradients.items()}, norm=norm)


def _seen_value(gradient: Scaled) -> Seen:
    return _seen(gradient.value().reshape(len(gradient.mantissa), -1))


def _seen(values: Array) -> Seen:
    """Return what float32 shows of some numbers (R, n)."""
    with np.errstate(over="ignore", under="ignore"):
        rounded = values.astype(np.float32)
    if not np.isfinite(rounded).all():
        return "nonfinite"
    return "finite" if rounded.any() else "zero"
