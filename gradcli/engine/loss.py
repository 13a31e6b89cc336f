"""The losses: one number for each sequence, and its gradient at the output state.

Arrays over steps are (n, R, size, B): n steps, R trials, B sequences. A loss is summed over its steps `at`, each step's
times a `scale` that is the same for all sequences; the batch loss, to which parameter gradients belong, is the mean
over sequences, or their sum where a loss is not `averaged`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from copy import copy
from typing import Any, Protocol, Self

import numpy as np

Array = np.ndarray[Any, Any]
Steps = Sequence[int] | Array


class GradientOfSteps(Protocol):
    """The gradient that enters the output, which is given: `at(steps)` is that at steps 1..T, (n, size, B)."""

    def at(self, steps: Array) -> Array: ...


class Loss(ABC):
    """A loss at some steps.

    averaged: whether the batch loss is the mean over sequences; else it is their sum.

    Args:
        steps: the steps 1..T at which the output counts, in the order of the targets.
    """

    averaged = True

    def __init__(self, steps: Steps) -> None:
        self.steps = np.asarray(steps, dtype=np.int64)
        self._order = np.argsort(self.steps)
        self._sorted = self.steps[self._order]
        self._starts: Array | None = None
        self.scale = 1.0
        self.final = False
        self._firsts_alone = False

    def scaled(self, scale: float) -> Self:
        """Return `scale` times this loss: the mean over its steps, say, where the scale is one over their number."""
        found = copy(self)
        found.scale = self.scale * scale
        return found

    def of_final_states(self) -> Self:
        """Return this loss as one of both directions, each at its own last step: it reads [h[T], g[T]].

        With h and g the outputs of the forward and the reverse direction by their own steps, `outputs` are then [h, g]
        at each of these, and not at a position of the sequence; see `gradcli.engine.directions`.
        """
        found = copy(self)
        found.final = True
        return found

    def counted_from(self, starts: Array | None) -> Self:
        """Return this loss for sequences that begin after the steps `starts`, (B,); before that nothing counts."""
        if starts is self._starts:
            return self
        found = copy(self)
        found._starts = starts
        return found

    def _counts(self, steps: Array) -> Array | None:
        """Return which sequences have which of the steps, (k, 1, B) booleans; None where all have all."""
        if self._starts is None or not len(steps):
            return None
        if self._firsts_alone:
            return np.asarray(
                steps[:, None, None] == self._sorted[np.searchsorted(self._sorted, self._starts, "right")]
            )
        if steps.min() > self._starts.max():
            return None
        return np.asarray(steps[:, None, None] > self._starts)

    def of_batch(self, losses: Array) -> Array:
        """Return the batch loss (R,), of those of its sequences, (R, B)."""
        return np.asarray(losses.mean(axis=1) if self.averaged else losses.sum(axis=1))

    def entered(self) -> Array | None:
        """Return into which sequences it sends a gradient whatever the output is, (B,) booleans; None for all."""
        return None

    @property
    def last_step(self) -> int:
        """The last step that counts."""
        return int(self._sorted[-1])

    @property
    def first_step(self) -> int:
        """The first step that counts."""
        return int(self._sorted[0])

    def between(self, first: int, last: int) -> tuple[Array, Array]:
        """Return the steps that count among first..last, and their places in the order of the targets."""
        lo, hi = self._sorted.searchsorted((first, last + 1))
        return self._sorted[lo:hi], self._order[lo:hi]

    def values(self, outputs: Array, first: int) -> Array:
        """Return the loss (R, B) that the steps first..first+n-1 contribute; outputs is (n, R, size, B)."""
        steps, places = self.between(first, first + len(outputs) - 1)
        values, counts = self._values(outputs[steps - first], places), self._counts(steps)
        total = (values if counts is None else np.where(counts, values, 0.0)).sum(axis=0)
        return np.asarray(total if self.scale == 1.0 else self.scale * total)

    def gradient(self, outputs: Array, first: int) -> Array | None:
        """Return dL/dh (n, R, size, B) at the steps first..first+n-1, or None where none of them counts."""
        last = first + len(outputs) - 1
        if last < self._sorted[0] or self._sorted[-1] < first:
            return None  # most blocks, where the last step counts alone
        steps, places = self.between(first, last)
        if not len(steps):
            return None
        gradient = np.zeros_like(outputs)
        found, counts = self._gradient(outputs[steps - first], places), self._counts(steps)
        gradient[steps - first] = found if counts is None else np.where(counts[:, :, None], found, 0.0)
        return gradient if self.scale == 1.0 else self.scale * gradient

    def of_trials(self, first: int, last: int) -> Self:
        """Return the loss of the trials first .. last-1 alone."""
        return self._like(self._part(slice(first, last)))

    def last_alone(self) -> Self:
        """Return the loss of the last step that counts, without the others.

        It is the part that this step has in the sum: of a mean over n steps, still one n-th of that step's loss.
        """
        return self._alone(-1)

    def first_alone(self) -> Self:
        """Return the loss of the first step that counts alone: of a reverse direction, the last one of its own.

        Where sequences begin after different steps, it is the first one that counts of each.
        """
        if self._starts is None or self.first_step > self._starts.max():
            return self._alone(0)
        found = copy(self)
        found._firsts_alone = True
        return found

    def alone_at(self, step: int) -> Self:
        """Return the loss of one step alone: of one that counts its own part in the sum, else the last one's, moved.

        Moved, it is the same function of the output at `step`, with the same target, that the last one is of its own.
        """
        index = int(np.searchsorted(self._sorted, step))
        counts = index < len(self._sorted) and self._sorted[index] == step
        return self._alone(index if counts else -1, step)

    def _alone(self, index: int, step: int | None = None) -> Self:
        """Return the loss of one of the steps that count, by its place in their order, alone; at another `step`."""
        place = int(self._order[index])
        return self._like(self._step_part(int(self.steps[place]) if step is None else step, slice(place, place + 1)))

    def can_join(self, other: Loss) -> bool:
        """Tell whether another loss differs from this one in nothing but numbers."""
        return (
            type(self) is type(other)
            and (self.scale, self.final, self._firsts_alone) == (other.scale, other.final, other._firsts_alone)
            and np.array_equal(self.steps, other.steps)
        )

    def _like(self, found: Self) -> Self:
        """Return a loss with the settings of this one."""
        found.scale, found.final, found._firsts_alone = self.scale, self.final, self._firsts_alone
        return found

    @abstractmethod
    def _part(self, trials: slice) -> Self:
        """Return the loss of some trials, its settings aside."""

    @abstractmethod
    def _step_part(self, step: int, place: slice) -> Self:
        """Return the loss of one step, its settings aside; `place` is its own among the targets."""

    def joined(self, others: Sequence[Self]) -> Self:
        """Return this loss and others that `can_join` as one, trial after trial."""
        return self._like(self._joined([self, *others]))

    @abstractmethod
    def _joined(self, losses: Sequence[Self]) -> Self:
        """Return some losses as one, their settings aside."""

    def saved(self) -> dict[str, Array]:
        """Return what is needed, beside the outputs, to compute the loss elsewhere."""
        return {}

    @abstractmethod
    def _values(self, outputs: Array, places: Array) -> Array:
        """Return the loss at each of the steps, (k, R, B)."""

    @abstractmethod
    def _gradient(self, outputs: Array, places: Array) -> Array:
        """Return its gradient, (k, R, size, B)."""


class SquaredError(Loss):
    """L = sum (h - target)^2 / 2; target is (steps, R, size, B)."""

    def __init__(self, steps: Steps, target: Array) -> None:
        super().__init__(steps)
        self.target = target

    def _part(self, trials: slice) -> Self:
        return type(self)(self.steps, self.target[:, trials])

    def _step_part(self, step: int, place: slice) -> Self:
        return type(self)([step], self.target[place])

    def _joined(self, losses: Sequence[Self]) -> Self:
        return type(self)(self.steps, np.concatenate([loss.target for loss in losses], axis=1))

    def _values(self, outputs: Array, places: Array) -> Array:
        return np.asarray(0.5 * np.square(outputs - self.target[places]).sum(axis=2))

    def _gradient(self, outputs: Array, places: Array) -> Array:
        return outputs - self.target[places]

    def saved(self) -> dict[str, Array]:
        return {"target": self.target.transpose(1, 0, 3, 2)}


class Linear(Loss):
    """L = v . h; vector is (R, size)."""

    def __init__(self, steps: Steps, vector: Array) -> None:
        super().__init__(steps)
        self.vector = vector

    def _part(self, trials: slice) -> Self:
        return type(self)(self.steps, self.vector[trials])

    def _step_part(self, step: int, place: slice) -> Self:
        return type(self)([step], self.vector)

    def _joined(self, losses: Sequence[Self]) -> Self:
        return type(self)(self.steps, np.concatenate([loss.vector for loss in losses]))

    def _values(self, outputs: Array, places: Array) -> Array:
        return np.asarray((outputs * self.vector[:, :, None]).sum(axis=2))

    def _gradient(self, outputs: Array, places: Array) -> Array:
        return np.broadcast_to(self.vector[:, :, None], outputs.shape)

    def saved(self) -> dict[str, Array]:
        return {"vector": self.vector}


class GivenGradient(Loss):
    """L = sum of g[t] . h[t] over steps, of which the gradient g[t] = dL/dh[t] is given, the same in all trials.

    It is that of a whole batch's loss, to which every sequence adds its part: nothing is left to average.
    """

    averaged = False

    def __init__(self, steps: Steps, given: GradientOfSteps) -> None:
        super().__init__(steps)
        self.given = given

    def _part(self, trials: slice) -> Self:
        return type(self)(self.steps, self.given)

    def _step_part(self, step: int, place: slice) -> Self:
        return type(self)([step], self.given)

    def can_join(self, other: Loss) -> bool:
        return super().can_join(other) and isinstance(other, GivenGradient) and self.given is other.given

    def _joined(self, losses: Sequence[Self]) -> Self:
        return type(self)(self.steps, self.given)

    def _values(self, outputs: Array, places: Array) -> Array:
        return np.asarray((outputs * self._at(places, outputs)).sum(axis=2))

    def _gradient(self, outputs: Array, places: Array) -> Array:
        return np.broadcast_to(self._at(places, outputs), outputs.shape)

    def _at(self, places: Array, outputs: Array) -> Array:
        return self.given.at(self.steps[places])[:, None].astype(outputs.dtype)

    def entered(self) -> Array | None:
        found: Array = np.asarray(False)
        for step in self.steps:
            gradient, counts = self.given.at(np.asarray([step])), self._counts(np.asarray([step]))
            found = found | (gradient.any(axis=(0, 1)) & (True if counts is None else counts[0, 0]))
            if found.all():
                break
        return found

    def saved(self) -> dict[str, Array]:
        return {"output_gradient": self.given.at(self._sorted).transpose(2, 0, 1)}


class ReadoutLoss(Loss):
    """A loss on a linear readout of the output, y = W_hy @ h + b_y, whose parameters get a gradient as well.

    W_hy is (R, outputs, size), b_y (R, outputs).
    """

    def __init__(self, steps: Steps, target: Array, W_hy: Array, b_y: Array) -> None:
        super().__init__(steps)
        self.target = target
        self.W_hy, self.b_y = W_hy, b_y

    def _part(self, trials: slice) -> Self:
        return type(self)(self.steps, self.target[:, trials], self.W_hy[trials], self.b_y[trials])

    def _step_part(self, step: int, place: slice) -> Self:
        return type(self)([step], self.target[place], self.W_hy, self.b_y)

    def can_join(self, other: Loss) -> bool:
        outputs = other.b_y.shape[1] if isinstance(other, ReadoutLoss) else 0
        return super().can_join(other) and self.b_y.shape[1] == outputs

    def _joined(self, losses: Sequence[Self]) -> Self:
        return type(self)(
            self.steps,
            np.concatenate([loss.target for loss in losses], axis=1),
            np.concatenate([loss.W_hy for loss in losses]),
            np.concatenate([loss.b_y for loss in losses]),
        )

    def readout(self, outputs: Array) -> Array:
        """Return y, (k, R, outputs, B)."""
        return np.asarray(np.matmul(self.W_hy, outputs) + self.b_y[:, :, None])

    @abstractmethod
    def _error(self, outputs: Array, places: Array) -> Array:
        """Return dL/dy, (k, R, outputs, B)."""

    def _gradient(self, outputs: Array, places: Array) -> Array:
        return np.asarray(np.matmul(self.W_hy.swapaxes(-1, -2), self._error(outputs, places)))

    def readout_gradient(self, outputs: Array, first: int) -> dict[str, Array]:
        """Return the gradient of the summed sequence losses for W_hy and b_y, from the steps first..first+n-1."""
        steps, places = self.between(first, first + len(outputs) - 1)
        counted = outputs[steps - first]
        error, counts = self._error(counted, places), self._counts(steps)
        if counts is not None:
            error = np.where(counts[:, :, None], error, 0.0)
        if self.scale != 1.0:
            error = self.scale * error
        return {
            "W_hy": np.matmul(error, counted.swapaxes(-1, -2)).sum(axis=0),
            "b_y": error.sum(axis=(0, 3)),
        }


class CrossEntropy(ReadoutLoss):
    """L = -log softmax(y)[target] with y = W_hy @ h + b_y; target is (steps, R, B) integers."""

    def _log_probabilities(self, outputs: Array) -> Array:
        logits = self.readout(outputs)
        logits = logits - logits.max(axis=2, keepdims=True)
        return np.asarray(logits - np.log(np.exp(logits).sum(axis=2, keepdims=True)))

    def _values(self, outputs: Array, places: Array) -> Array:
        log_p = self._log_probabilities(outputs)
        return -np.take_along_axis(log_p, self.target[places][:, :, None], axis=2)[:, :, 0]

    def _error(self, outputs: Array, places: Array) -> Array:
        """Return dL/dy = softmax - one-hot target."""
        error = np.exp(self._log_probabilities(outputs))
        index = self.target[places][:, :, None]
        np.put_along_axis(error, index, np.take_along_axis(error, index, axis=2) - 1.0, axis=2)
        return error

    def saved(self) -> dict[str, Array]:
        return {"target": self.target.transpose(1, 0, 2)}


class SquaredErrorOfReadout(ReadoutLoss):
    """L = sum (y - target)^2 / 2 with y = W_hy @ h + b_y; target is (steps, R, outputs, B)."""

    def _values(self, outputs: Array, places: Array) -> Array:
        return np.asarray(0.5 * np.square(self._error(outputs, places)).sum(axis=2))

    def _error(self, outputs: Array, places: Array) -> Array:
        return np.asarray(self.readout(outputs) - self.target[places])

    def saved(self) -> dict[str, Array]:
        return {"target": self.target.transpose(1, 0, 3, 2)}


class BinaryCrossEntropy(ReadoutLoss):
    """L = -sum [target log p + (1 - target) log(1 - p)], p = sigmoid(y), y = W_hy @ h + b_y.

    Each output is a choice of its own between 0 and 1; target is (steps, R, outputs, B), from 0 to 1. In terms of y the
    summand is max(y, 0) - y target + log(1 + exp(-|y|)), where no logarithm meets a zero.
    """

    def _values(self, outputs: Array, places: Array) -> Array:
        y = self.readout(outputs)
        losses = np.maximum(y, 0.0) - y * self.target[places] + np.log1p(np.exp(-np.abs(y)))
        return np.asarray(losses.sum(axis=2))

    def _error(self, outputs: Array, places: Array) -> Array:
        """Return dL/dy = (1 - target) sigmoid(y) - target sigmoid(-y).

        That is sigmoid(y) - target, without the difference of two nearly equal numbers where y has the right sign.
        """
        y, target = self.readout(outputs), self.target[places]
        small = np.exp(-np.abs(y))
        larger = 1.0 / (1.0 + small)
        smaller = small * larger
        p, q = np.where(y < 0, smaller, larger), np.where(y < 0, larger, smaller)
        return np.asarray((1.0 - target) * p - target * q)

    def saved(self) -> dict[str, Array]:
        return {"target": self.target.transpose(1, 0, 3, 2)}
