"""The curve: the gradient's norm against distance back in time, over trials and sequences."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]

LOG10_2 = float(np.log10(2.0))
LOW, HIGH = 0.1, 0.9


@dataclass(frozen=True)
class Curve:
    """Quantiles over trials and sequences of log10 of the norm at distances 0..T, each (T+1,).

    -inf stands for an exact zero.
    """

    median: Array
    low: Array
    high: Array

    @property
    def reference(self) -> float:
        """The log10 norm that others are relative to: at distance 0, or at the first distance with a gradient.

        0 where there is no gradient at all.
        """
        nonzero = np.flatnonzero(np.isfinite(self.median))
        return float(self.median[nonzero[0]]) if nonzero.size else 0.0


def joined(log2_norms: Iterable[Array]) -> Array:
    """Return log2 of the norm of several vectors as one: log2 sqrt(sum 4**l), each l of the same shape."""
    total: Array | None = None
    for norm in log2_norms:
        doubled = 2.0 * norm
        with np.errstate(invalid="ignore"):
            total = doubled if total is None else np.logaddexp2(total, doubled)
    assert total is not None
    return 0.5 * total


def curve_of(log2_norm: Array) -> Curve:
    """Return the curve of norms (T+1, R, B) given by step t: distance d = T - t, so the last step comes first."""
    by_distance = log2_norm[::-1].reshape(len(log2_norm), -1)
    low, median, high = (q * LOG10_2 for q in quantiles(by_distance, (LOW, 0.5, HIGH)))
    return Curve(median, low, high)


def quantiles(values: Array, which: Iterable[float]) -> list[Array]:
    """Return quantiles along the last axis, interpolated linearly; next to an exact zero (-inf), the zero.

    >>> [float(q[0]) for q in quantiles(np.array([[3.0, 1.0, 2.0]]), [0.0, 0.5, 0.75])]
    [1.0, 2.0, 2.5]
    """
    ordered = np.sort(values, axis=-1)
    count = ordered.shape[-1]
    found = []
    for q in which:
        position = q * (count - 1)
        below = int(position)
        above = min(below + 1, count - 1)
        weight = position - below
        lower, upper = ordered[..., below], ordered[..., above]
        if weight == 0.0:
            found.append(lower.copy())
            continue
        with np.errstate(invalid="ignore"):
            found.append(np.where(np.isneginf(lower), -np.inf, lower + weight * (upper - lower)))
    return found
