"""The functions of the language of equations on complex numbers, for derivatives without a rule of differentiation.

For a real analytic f, f(a + ih) = f(a) + ih f'(a) - O(h^2): with h = 1e-100 the imaginary part is h f'(a) to the last
digit, as nothing is subtracted. Functions with pieces choose the piece by the real part, and at a kink that of PyTorch.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.complex128]
_ERF = np.vectorize(math.erf, otypes=[np.float64])


def _sigmoid(a: Array) -> Array:
    return np.asarray(0.5 * (1 + np.tanh(a / 2)))


def _erf(a: Array) -> Array:
    # The one function that NumPy has not on complex numbers: by its power series' first two terms about the real part.
    return np.asarray(_ERF(a.real) + 1j * a.imag * 2 / math.sqrt(math.pi) * np.exp(-(a.real**2)))


def _softplus(a: Array) -> Array:
    return np.asarray(np.where(a.real > 0, a, 0) + np.log1p(np.exp(np.where(a.real > 0, -a, a))))


def _elu(a: Array, alpha: float = 1.0) -> Array:
    below = np.where(a.real > 0, 0, a)
    return np.asarray(np.where(a.real > 0, a, alpha * np.expm1(below)))


def _log_sigmoid(a: Array) -> Array:
    return np.asarray(-_softplus(-a))


def _larger(a: Array, b: Array) -> Array:
    """Return the larger of two; where they are the same, half of either, for PyTorch's slope there."""
    return np.asarray(np.where(a.real > b.real, a, np.where(a.real < b.real, b, (a + b) / 2)))


def _largest(a: Array) -> Array:
    """Return the largest entry; where there are several, the same share of each."""
    found = a.real == a.real.max(axis=0)
    return np.asarray(np.where(found, a, 0).sum(axis=0) / found.sum(axis=0))


def _norm(a: Array) -> Array:
    """Return the Euclidean norm, with the slope 0 at 0."""
    is_zero = ~a.real.any(axis=0)
    return np.asarray(np.where(is_zero, 0, np.sqrt(np.where(is_zero, 1, (a**2).sum(axis=0)))))


def _softmax(a: Array) -> Array:
    powers = np.exp(a - a.real.max(axis=0))
    return np.asarray(powers / powers.sum(axis=0))


def _standardised(a: Array, axis: int, eps: float) -> Array:
    """Return (a - mean) / sqrt(variance + eps), the variance that of all entries, not of a sample."""
    centred = a - a.mean(axis=axis, keepdims=True)
    return np.asarray(centred / np.sqrt((centred**2).mean(axis=axis, keepdims=True) + eps))


class ComplexLibrary:
    """What `equations.evaluate` asks of NumPy."""

    functions: Mapping[str, Callable[[Array], Array]] = {
        "sigmoid": _sigmoid,
        "tanh": np.tanh,
        "relu": lambda a: np.where(a.real > 0, a, 0),
        "leaky_relu": lambda a: np.where(a.real > 0, a, 0.01 * a),
        "elu": _elu,
        # Klambauer et al. 2017: the fixed point of mean 0 and variance 1.
        "selu": lambda a: 1.0507009873554804934193349852946 * _elu(a, 1.6732632423543772848170429916717),
        "gelu": lambda a: a * 0.5 * (1 + _erf(a / math.sqrt(2))),
        "silu": lambda a: a * _sigmoid(a),
        "softplus": _softplus,
        "softsign": lambda a: a / (1 + np.where(a.real < 0, -a, a)),
        "hard_sigmoid": lambda a: np.where(np.abs(a.real) < 3, a / 6 + 0.5, (a.real >= 3).astype(float)),
        "hard_tanh": lambda a: np.where(np.abs(a.real) < 1, a, np.sign(a.real)),
        "erf": _erf,
        "exp": np.exp,
        "log": np.log,
        "sqrt": np.sqrt,
        "sin": np.sin,
        "cos": np.cos,
        "abs": lambda a: a * np.sign(a.real),
        "identity": lambda a: a,
        "log_sigmoid": _log_sigmoid,
    }
    across: Mapping[str, Callable[..., Array]] = {
        "softmax": _softmax,
        "cumsum": lambda a: np.cumsum(a, axis=0),
        "layer_norm": lambda a, eps=1e-5: _standardised(a, 0, eps),
        "batch_norm": lambda a, eps=1e-5: _standardised(a, 1, eps),
    }
    with_eps: Sequence[str] = ("layer_norm", "batch_norm")
    reductions: Mapping[str, Callable[[Array], Array]] = {
        "sum": lambda a: a.sum(axis=0),
        "mean": lambda a: a.mean(axis=0),
        "norm": _norm,
        "max": _largest,
        "min": lambda a: -_largest(-a),
    }
    pairs: Mapping[str, Callable[[Array, Array], Array]] = {
        "max": _larger,
        "min": lambda a, b: -_larger(-a, -b),
    }

    def number(self, value: float) -> Any:
        return np.float64(value)

    def zeros_like(self, value: Array) -> Array:
        return np.zeros_like(value)

    def identity(self, size: int) -> Array:
        return np.eye(size, dtype=complex)[:, :, None]

    def einsum(self, axes: str, a: Array, b: Array) -> Array:
        return np.asarray(np.einsum(axes, a, b))

    def transposed(self, matrix: Array) -> Array:
        return matrix.swapaxes(0, 1)

    def where(self, condition: Any, chosen: Array, other: Array) -> Array:
        return np.where(condition, chosen, other)

    def stop(self, value: Array) -> Array:
        raise ValueError("complex steps go through stop: its slope is not that of its value; take PyTorch")

    def spike(self, value: Array, surrogate: str, sharpness: float) -> Array:
        raise ValueError("complex steps know no surrogate of the slope of spike; take PyTorch")

    def columns(self, value: Array, batch_size: int) -> Array:
        vector = value if np.ndim(value) == 2 else np.reshape(value, (1, -1))
        return np.broadcast_to(vector, (vector.shape[0], batch_size))

    def concatenated(self, parts: Sequence[Array]) -> Array:
        return np.concatenate(parts)


COMPLEX = ComplexLibrary()
