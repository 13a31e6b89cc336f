"""Numbers beyond the range of floats: a mantissa array and one power of two for each trial.

Value = mantissa * 2**exponent. Scaling by powers of two is exact, so nothing is lost by it.

One rule holds wherever such numbers are added: an exact zero has no exponent. Beside a zero that was carried at a large
power, a number of 2**-2000 is all there is, and keeps its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]

#: The exponent of an exact zero in a sum: smaller than any other, so that it never decides.
NOTHING = -(10**15)

#: Numbers near 1 whose powers of two differ by no more than this are added as they are, by bytes of a float.
SAFE_SPREAD = {8: 500, 4: 40}

#: Powers of two that floats of so many bytes have; and with how many numbers to each it pays to multiply by them.
POWERS = {8: 1000, 4: 120}
_MANY = 256

#: A mantissa whose largest entry lies between these needs no other exponent.
_NEAR_ONE = (2.0**-100, 2.0**100)


@dataclass
class Scaled:
    """mantissa * 2**exponent; the mantissa has the trials on its first axis, the exponent is (trials,) integers.

    Of several steps, both have the steps before the trials: the exponent says which axes of the mantissa share one.
    """

    mantissa: Array
    exponent: Array

    def add(self, other: Scaled) -> Scaled:
        """Return the sum; what is far below the other, as 2**-1000 beside 1, is lost, but nothing beside a zero."""
        if np.array_equal(self.exponent, other.exponent):
            return Scaled(self.mantissa + other.mantissa, self.exponent)
        mine, theirs = self.normalised(), other.normalised()
        exponent = common_exponent([mine, theirs])
        return Scaled(mine.at(exponent) + theirs.at(exponent), exponent)

    def nonzero(self) -> Array:
        """Return for each trial whether any entry is not zero."""
        return np.asarray(np.any(self.mantissa != 0, axis=self._entries))

    @property
    def _entries(self) -> tuple[int, ...]:
        """The axes of the entries that share an exponent."""
        return tuple(range(self.exponent.ndim, self.mantissa.ndim))

    def normalised(self) -> Scaled:
        """Return the same value with the largest mantissa of each trial near 1, and zeros at exponent 0."""
        entries = self._entries
        largest = np.maximum.reduce(np.abs(self.mantissa), axis=entries, initial=0.0)
        if not largest.size or (_NEAR_ONE[0] < largest.min() and largest.max() < _NEAR_ONE[1]):
            return self
        shift = exponent_of(largest)
        exponent = np.where(largest != 0, self.exponent + shift, 0)
        return Scaled(scale_by(self.mantissa, _expand(-shift, self.mantissa)), exponent)

    def times(self, factor: float) -> Scaled:
        """Return the product with a number of ordinary size."""
        return Scaled(factor * self.mantissa, self.exponent)

    def at(self, exponent: Array) -> Array:
        """Return the mantissas at other exponents."""
        return scale_by(self.mantissa, _expand(self.exponent - exponent, self.mantissa))

    def log2_norm(self) -> Array:
        """Return log2 of the Euclidean norm for each trial, (trials,); -inf for an exact zero."""
        flat = self.mantissa.reshape(*self.exponent.shape, -1)
        return log2_norm(flat, axis=self.exponent.ndim) + self.exponent

    def value(self) -> Array:
        """Return the number itself, infinite or zero where it lies beyond the range of floats."""
        with np.errstate(over="ignore", under="ignore"):
            return scale_by(self.mantissa, _expand(self.exponent, self.mantissa))


def common_exponent(parts: Sequence[Scaled]) -> Array:
    """Return the exponents at which to add numbers up: for each trial the largest of those not zero, or 0."""
    largest = np.max([np.where(part.nonzero(), part.exponent, NOTHING) for part in parts], axis=0)
    return np.where(largest == NOTHING, 0, largest)


def summed_products_of_columns(left: Array, right: Array, exponents: Array) -> Scaled:
    """Return sum_j 2**e_j l_j r_j^T for columns of any size: (..., M, C) and (..., K, C) -> (..., M, K).

    Each column is brought near 1, and those that are not zero are summed from the largest down, until the rest makes no
    difference.

    Args:
        exponents: e, (..., C).
    """
    sizes = [np.abs(columns).max(axis=-2, initial=0.0) for columns in (left, right)]
    if not all(np.isfinite(size).all() for size in sizes):
        return Scaled(np.matmul(left, right.swapaxes(-1, -2)), exponents.max(axis=-1, initial=0))
    of_left, of_right = map(exponent_of, sizes)
    left = scale_by(left, -of_left[..., None, :])
    right = scale_by(right, -of_right[..., None, :])
    exponent = np.where((sizes[0] > 0) & (sizes[1] > 0), exponents + of_left + of_right, NOTHING)
    shape = (*left.shape[:-1], right.shape[-2])
    total = Scaled(np.zeros(shape, left.dtype), np.zeros(exponent.shape[:-1], np.int64))
    reach = SAFE_SPREAD[left.dtype.itemsize]
    while (exponent > NOTHING).any():
        top = exponent.max(axis=-1)
        now = (exponent > NOTHING) & (exponent >= (top - reach)[..., None])
        weight = np.where(now, scale_by(np.ones((), left.dtype), exponent - top[..., None]), 0).astype(left.dtype)
        found = np.matmul(left * weight[..., None, :], right.swapaxes(-1, -2))
        total = total.add(Scaled(found, np.where(top > NOTHING, top, 0)))
        # What has a sum needs nothing that is smaller; where the largest columns cancel, the next ones count.
        exponent = np.where(now | total.nonzero()[..., None], NOTHING, exponent)
    return total


def _expand(exponent: Array, like: Array) -> Array:
    return exponent.reshape(exponent.shape + (1,) * (like.ndim - exponent.ndim))


def scale_by(values: Array, exponent: Array) -> Array:
    """Return values * 2**exponent, exactly; exponents beyond the range of floats give 0 or infinity."""
    # ldexp takes C ints: anything beyond +-5000 over- or underflows every float anyway.
    exponent = np.minimum(np.maximum(exponent, -5000), 5000).astype(np.int32)
    if values.size >= _MANY * exponent.size:
        # A product with a power of two is ldexp's result, rounding included, and takes a tenth of its time.
        reach = POWERS[values.dtype.itemsize]
        if -reach <= exponent.min(initial=0) and exponent.max(initial=0) <= reach:
            return np.asarray(values * np.ldexp(np.ones((), values.dtype), exponent))
    return np.asarray(np.ldexp(values, exponent))


def exponent_of(largest: Array) -> Array:
    """Return e with largest in [2**(e-1), 2**e), and 0 for zeros and for what is not finite."""
    with np.errstate(invalid="ignore"):
        exponent = np.frexp(largest)[1].astype(np.int64)
    return np.where(np.isfinite(largest) & (largest > 0), exponent, 0)


def log2_norm(values: Array, axis: int) -> Array:
    """Return log2 of the Euclidean norm along an axis; -inf for exact zeros, NaN where an entry is not finite.

    Squares of small numbers vanish long before the numbers do: where that could happen the vector is scaled first.
    """
    values = values.astype(np.float64, copy=False)
    with np.errstate(over="ignore", under="ignore", invalid="ignore", divide="ignore"):
        squares = _sum_of_squares(values, axis)
        result = np.asarray(0.5 * np.log2(squares))
        if not (squares.size and squares.min() > 1e-200 and squares.max() < 1e200):
            doubtful = ~((squares > 1e-200) & (squares < 1e200))
            vectors = np.moveaxis(values, axis, -1)[doubtful]
            largest = np.abs(vectors).max(axis=-1, initial=0.0)
            shift = exponent_of(largest)
            scaled = scale_by(vectors, -shift[:, None])
            careful = np.where(largest == 0, -np.inf, 0.5 * np.log2(np.square(scaled).sum(axis=-1)) + shift)
            result[doubtful] = np.where(np.isfinite(largest), careful, np.nan)
    return result


def _sum_of_squares(values: Array, axis: int) -> Array:
    return np.asarray(np.einsum(_subscripts(values.ndim, axis), values, values))


@lru_cache(maxsize=16)
def _subscripts(axes: int, axis: int) -> str:
    letters = "abcdefgh"[:axes]
    return f"{letters},{letters}->{letters.replace(letters[axis], '')}"
