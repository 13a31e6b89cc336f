"""The functions across entries or sequences: layer_norm, batch_norm, softmax. Their values and their Jacobians.

An elementwise function has a diagonal Jacobian; these have full ones, across the features of a vector or, for
batch_norm, across the sequences of a batch. All of them are symmetric, J^T = J, so that one product pulls adjoints back
and pushes tangents forward:

    norm:     y = (a - mean(a)) / s,  s = sqrt(var(a) + eps),  J v = (v - mean(v) - y mean(y v)) / s
    softmax:  y = exp(a) / sum(exp(a)),                        J v = y (v - sum(y v))

with the biased variance. See Ba, Kiros and Hinton 2016 (layer normalisation) and Cooijmans et al. 2016 (recurrent batch
normalisation, with the statistics of each step alone).
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from gradcli.frozen import frozen

Array = np.ndarray[Any, Any]

#: What is added to a variance where the equation does not say; PyTorch's default.
DEFAULT_EPS = 1e-5


@frozen
class Across:
    """A function across an axis.

    over_sequences: whether that is the axis of the sequences, and not that of the features.
    is_norm: whether it divides by a standard deviation: then it takes an eps, and its `slope` is 1 / s.
    """

    name: str
    over_sequences: bool = False
    is_norm: bool = True

    def gamma(self, eps: float) -> float:
        """Return a bound on the spectral norm of the Jacobian: 1 / sqrt(eps) for a norm, 1/2 for the softmax."""
        if not self.is_norm:
            return 0.5
        return 1.0 / math.sqrt(eps) if eps else math.inf

    def evaluate(self, a: Array, eps: float, axis: int) -> tuple[Array, Array | None]:
        """Return y and, for a norm, the slope 1 / s, with length 1 along the axis; None for others."""
        y = np.empty_like(a)
        if not self.is_norm:
            self.write_value(eps, axis, a, y)
            return y, None
        shape = list(a.shape)
        shape[axis] = 1
        slope = np.empty(shape, a.dtype)
        self.write_value(eps, axis, a, y, slope)
        return y, slope

    def write_value(self, eps: float, axis: int, a: Array, y: Array, slope: Array | None = None) -> None:
        """Write y, and a norm's slope, into buffers; the slope's may have the full length along the axis."""
        if slope is None:
            _write_softmax(axis, a, y)
        else:
            _write_norm(eps, axis, a, y, slope)

    def apply_jacobian(self, axis: int, y: Array, slope: Array | None, v: Array, out: Array) -> None:
        """Write J v into `out`, which may be `v` itself.

        Args:
            axis: counted from the front. y, slope: the function's value, as `evaluate` gives it.
            v: vectors of the shape of y, which may have further axes behind it: one vector for each entry there.
        """
        behind = v.ndim - y.ndim
        if behind:
            y = y.reshape(y.shape + (1,) * behind)
            slope = None if slope is None else slope.reshape(slope.shape + (1,) * behind)
        product = y * v
        total = np.add.reduce(product, axis=axis, keepdims=True)
        if slope is None:
            np.subtract(v, total, out)
            np.multiply(out, y, out)
            return
        share = 1.0 / v.shape[axis]
        mean = np.add.reduce(v, axis=axis, keepdims=True)
        mean *= share
        total *= share
        np.subtract(v, mean, out)
        np.multiply(y, total, product)
        np.subtract(out, product, out)
        np.multiply(out, slope, out)


def _write_norm(eps: float, axis: int, a: Array, y: Array, slope: Array) -> None:
    share = 1.0 / a.shape[axis]
    mean = np.add.reduce(a, axis=axis, keepdims=True)
    mean *= share
    np.subtract(a, mean, y)
    variance = np.add.reduce(y * y, axis=axis, keepdims=True)
    variance *= share
    variance += eps
    # sqrt(v) / v and not 1 / sqrt(v): where the squares overflow, y is then not a number, and not 0.
    np.divide(np.sqrt(variance), variance, slope)
    np.multiply(y, slope, y)


def _write_softmax(axis: int, a: Array, y: Array) -> None:
    np.subtract(a, np.maximum.reduce(a, axis=axis, keepdims=True), y)
    np.exp(y, y)
    np.divide(y, np.add.reduce(y, axis=axis, keepdims=True), y)


ACROSS: dict[str, Across] = {
    function.name: function
    for function in (
        Across("layer_norm"),
        Across("batch_norm", over_sequences=True),
        Across("softmax", is_norm=False),
    )
}
