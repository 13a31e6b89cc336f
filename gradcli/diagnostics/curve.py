"""The curve: the gradient's norm against distance back in time, over trials and sequences."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from gradcli.diagnostics.curve_landmarks import reference_distance
from gradcli.frozen import frozen

Array = np.ndarray[Any, Any]

LOG10_2 = float(np.log10(2.0))
LOW, HIGH = 0.1, 0.9
#: Norms are taken in parts of about this many, so that what is computed on the way stays small beside the curve.
_PART = 2**16


@frozen
class Curve:
    """The norm at distances 0..T, over trials and sequences: log10 of quantiles and of the mean, each (T+1,).

    mean: log10 of sum_i |g_i| / N, the mean of the norms. A batch's gradient is a mean over sequences as well, so that
    a few large ones rule it as they rule this, and not the median.

    Of sequences of different lengths those that reach a distance count there. -inf stands for an exact zero: of the
    mean, for zeros in all sequences. Of a single sequence all four are one and the same array.
    """

    median: Array
    low: Array
    high: Array
    mean: Array

    @property
    def reference(self) -> float:
        """The log10 mean norm that others are relative to (see `reference_distance`); 0 where all are zero."""
        first = reference_distance(self.mean)
        return 0.0 if first is None else float(self.mean[first])


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
    (median, low, high), mean = _by_distance(log2_norms, (0.5, LOW, HIGH))
    return Curve(median, low, high, mean)


def median_and_mean_of(log2_norm: Array) -> tuple[Array, Array]:
    """Return the median and the mean of the curve of one state (see `Curve`), (T+1,) each."""
    (median,), mean = _by_distance([log2_norm], (0.5,))
    return median, mean


def median_of_trials(values: Array) -> Array:
    """Return the median over the first axis of logarithms (R, ...), which may hold -inf for exact zeros."""
    return quantiles(np.moveaxis(values, 0, -1), (0.5,))[0]


def mean_of_trials(values: Array) -> Array:
    """Return the logarithm of the mean over the first axis of numbers whose log10 is given, (R, ...); see `Curve`."""
    return log2_of_mean(np.moveaxis(values, 0, -1) / LOG10_2, some_missing=False) * LOG10_2


def _by_distance(log2_norms: Sequence[Array], which: Sequence[float]) -> tuple[list[Array], Array]:
    """Return quantiles over trials and sequences of log10 of the joined norm, and log10 of its mean, by distance.

    Over the sequences that reach the distance: before a sequence begins, its norm is NaN.
    """
    count, trials, sequences = log2_norms[0].shape
    alone = trials * sequences == 1
    wanted = which[:1] if alone else which  # of one sequence, each quantile is its norm, and so is the mean
    found = [np.empty(count) for _ in wanted]
    mean = found[0] if alone else np.empty(count)
    steps = max(_PART // (trials * sequences), 1)
    for start in range(0, count, steps):
        stop = min(start + steps, count)
        place = slice(count - stop, count - start)
        part = joined(norm[start:stop] for norm in log2_norms).reshape(stop - start, -1)
        some = bool(np.isnan(part[0]).any())
        of_part = quantiles_of_some(part, wanted) if some else quantiles(part, wanted)
        for curve, quantile in zip(found, of_part, strict=True):
            curve[place] = quantile[::-1] * LOG10_2
        if not alone:
            mean[place] = log2_of_mean(part, some)[::-1] * LOG10_2
    return found * (len(which) // len(wanted)), mean


def log2_of_mean(log2: Array, some_missing: bool) -> Array:
    """Return log2 of the mean of 2**log2 along the last axis; -inf where all are zeros.

    some_missing: whether there is NaN, which does not count.
    """
    largest = np.fmax.reduce(log2, axis=-1)
    unit = np.where(np.isneginf(largest), 0.0, largest)
    scaled = log2 - unit[..., None]
    np.exp2(scaled, out=scaled)
    mean = np.nanmean(scaled, axis=-1) if some_missing else scaled.mean(axis=-1)
    with np.errstate(divide="ignore"):
        return np.asarray(np.log2(mean) + unit)


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
