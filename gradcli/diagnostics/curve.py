"""The curve: the gradient's norm against distance back in time, over trials and sequences."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from gradcli.diagnostics.curve_landmarks import first_where

Array = np.ndarray[Any, Any]

LOG10_2 = float(np.log10(2.0))
LOW, HIGH = 0.1, 0.9
#: Norms are taken in parts of about this many, so that what is computed on the way stays small beside the curve.
_PART = 2**16


@dataclass(frozen=True)
class Curve:
    """Quantiles over trials and sequences of log10 of the norm at distances 0..T, each (T+1,).

    Of sequences of different lengths those that reach a distance count there. -inf stands for an exact zero. Of a
    single sequence all three are one and the same array.
    """

    median: Array
    low: Array
    high: Array

    @property
    def reference(self) -> float:
        """The log10 norm that others are relative to: at distance 0, or at the first distance with a gradient.

        0 where there is no gradient at all.
        """
        first = first_where(np.isfinite(self.median))
        return 0.0 if first is None else float(self.median[first])


def joined(log2_norms: Iterable[Array]) -> Array:
    """Return log2 of the norm of several vectors as one: log2 sqrt(sum 4**l), each l of the same shape."""
    total: Array | None = None
    for norm in log2_norms:
        doubled = 2.0 * norm
        with np.errstate(invalid="ignore"):
            total = doubled if total is None else np.logaddexp2(total, doubled)
    assert total is not None
    return 0.5 * total


def curve_of(*log2_norms: Array) -> Curve:
    """Return the curve of one state, or of several as one vector.

    log2_norms: for each state (T+1, R, B) by step t. Distance d = T - t, so the last step comes first.
    """
    median, low, high = _by_distance(log2_norms, (0.5, LOW, HIGH))
    return Curve(median, low, high)


def median_of(log2_norm: Array) -> Array:
    """Return the median of the curve of one state (see `curve_of`), (T+1,)."""
    (median,) = _by_distance([log2_norm], (0.5,))
    return median


def median_of_trials(values: Array) -> Array:
    """Return the median over the first axis of logarithms (R, ...), which may hold -inf for exact zeros."""
    return quantiles(np.moveaxis(values, 0, -1), (0.5,))[0]


def _by_distance(log2_norms: Sequence[Array], which: Sequence[float]) -> list[Array]:
    """Return quantiles over trials and sequences of log10 of the joined norm, each (T+1,) by distance.

    Over the sequences that reach the distance: before a sequence begins, its norm is NaN.
    """
    count, trials, sequences = log2_norms[0].shape
    wanted = which[:1] if trials * sequences == 1 else which  # of one sequence, each quantile is its norm
    found = [np.empty(count) for _ in wanted]
    steps = max(_PART // (trials * sequences), 1)
    for start in range(0, count, steps):
        stop = min(start + steps, count)
        part = joined(norm[start:stop] for norm in log2_norms).reshape(stop - start, -1)
        of_part = quantiles_of_some(part, wanted) if np.isnan(part[0]).any() else quantiles(part, wanted)
        for curve, quantile in zip(found, of_part, strict=True):
            curve[count - stop : count - start] = quantile[::-1] * LOG10_2
    return found * (len(which) // len(wanted))


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


def quantiles_of_some(values: Array, which: Sequence[float]) -> list[Array]:
    """Return quantiles along the last axis of what is not NaN, at least one number of each; see `quantiles`.

    >>> [float(q[0]) for q in quantiles_of_some(np.array([[3.0, np.nan, 2.0]]), [0.0, 0.5])]
    [2.0, 2.5]
    """
    ordered = np.sort(values, axis=-1)  # with the NaN last
    counts = np.count_nonzero(~np.isnan(ordered), axis=-1)
    found = [np.empty(counts.shape) for _ in which]
    for count in np.unique(counts):
        rows = counts == count
        for quantile, part in zip(found, quantiles(ordered[rows][:, :count], which), strict=True):
            quantile[rows] = part
    return found
