"""Clipping inside BPTT: each sequence's adjoint of a state, as soon as it is complete, before it is passed on.

step_norm:   delta <- delta min(1, c / |delta|)
step_value:  delta_i <- min(max(delta_i, -c), c)
"""

from __future__ import annotations

from typing import Any

import numpy as np

from gradcli.engine.scaled import scale_by

Array = np.ndarray[Any, Any]


class StepClip:
    """A method and its threshold, and how many adjoints it has changed.

    method: "step_norm" or "step_value". threshold: c.
    seen, changed: the adjoints of single sequences met so far, and those of them that were over the threshold.
    """

    def __init__(self, method: str, threshold: float) -> None:
        self.method, self.threshold = method, threshold
        self.seen = self.changed = 0
        self._seen = self._changed = 0

    @property
    def operation(self) -> str:
        """The operation of a step's program that does it."""
        return self.method.replace("step_", "clip_")

    def limit(self, exponent: Array) -> Array:
        """Return the threshold in units of 2**exponent."""
        return scale_by(np.asarray(self.threshold, np.float64), -exponent)

    def __call__(self, adjoint: Array, exponent: Array) -> None:
        """Clip the mantissas of one state's adjoint, (R, size, B), in place; its exponents are (R, 1, B)."""
        limit = self.limit(exponent)
        counter = np.zeros(limit.shape, np.int64)
        OPERATIONS[self.operation](1, adjoint, limit, counter)
        self.count(counter.size, int(counter.sum()))

    def count(self, seen: int, changed: int) -> None:
        """Take note of adjoints that were met, and of those among them that were changed."""
        self._seen += seen
        self._changed += changed

    def settle(self, kept: bool) -> None:
        """Count what was clipped since the last call, if it is kept: a block may be refused, and comes again."""
        if kept:
            self.seen += self._seen
            self.changed += self._changed
        self._seen = self._changed = 0


def clip_norm(axis: int, adjoint: Array, limit: Array, counter: Array) -> None:
    """Bring vectors along an axis to a norm of at most `limit`, in place; `counter` counts those that are longer."""
    # Scaled by its largest entry first: the square of a mantissa may leave the range of floats.
    largest = np.abs(adjoint).max(axis=axis, keepdims=True)
    unit = np.where(largest > 0, largest, 1.0)
    norm = unit * np.sqrt(np.square(adjoint / unit).sum(axis=axis, keepdims=True))
    over = norm > limit
    np.multiply(adjoint, np.where(over, limit / np.where(over, norm, 1.0), 1.0), out=adjoint)
    counter += over


def clip_value(axis: int, adjoint: Array, limit: Array, counter: Array) -> None:
    """Bring entries to at most `limit` in magnitude, in place; `counter` counts vectors with a larger one."""
    counter += np.abs(adjoint).max(axis=axis, keepdims=True) > limit
    np.clip(adjoint, -limit, limit, out=adjoint)


OPERATIONS = {"clip_norm": clip_norm, "clip_value": clip_value}
