"""Curves on a canvas of whatever kind: what they span, and fewer points of long ones, with no peak or zero lost."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np

from gradcli.results.pictures import Array, LineChart

#: Logarithms span at least a decade, and other numbers this share of themselves, so that a level curve looks level.
_SMALLEST_DECADES, _SMALLEST_SHARE = 1.0, 1e-3


def value_range(picture: LineChart, *, bands: bool) -> tuple[float, float]:
    """Return what a chart with at least one number spans: its curves, its levels and, where asked for, its bands."""
    curves = [curve for one in picture.series for curve in ((one.y, one.low, one.high) if bands else (one.y,))]
    values = np.concatenate(
        [curve[np.isfinite(curve)] for curve in curves if curve is not None]
        + [[level.value for level in picture.levels]]
    )
    low, high = float(values.min()), float(values.max())
    smallest = _SMALLEST_DECADES if picture.y.log10 else max(abs(low), abs(high), 1e-300) * _SMALLEST_SHARE
    return (low, high) if high - low >= smallest else ((low + high - smallest) / 2, (low + high + smallest) / 2)


def kept_points(curves: Sequence[Array], columns: int) -> Array:
    """Return which points of curves (n,) over the same places to draw, as ascending indices: all, where they are few.

    Of each of `columns` stretches that follow one another these are the first, the last, the largest and the smallest
    number of each curve, its first and last exact zero (-inf), and the first and last point where nothing is (NaN).
    """
    count = len(curves[0])
    if count <= 4 * columns:
        return np.arange(count)
    borders = np.linspace(0, count, columns + 1).astype(int)
    kept = {0, count - 1}
    for start, stop in pairwise(borders):
        kept |= {int(start), int(stop) - 1}
        for curve in curves:
            kept |= _extremes(curve[start:stop], int(start))
    return np.array(sorted(kept))


def _extremes(part: Array, start: int) -> set[int]:
    finite, zero = np.isfinite(part), np.isneginf(part)
    found: set[int] = set()
    for mask in (zero, ~(finite | zero)):
        places = np.flatnonzero(mask)
        found |= set(places[[0, -1]].tolist()) if places.size else set()
    finite = np.flatnonzero(finite)
    if finite.size:
        found |= {int(finite[np.argmax(part[finite])]), int(finite[np.argmin(part[finite])])}
    return {start + index for index in found}


def runs_of(mask: Array) -> list[tuple[int, int]]:
    """Return the stretches in which a mask holds, as their first and last index.

    >>> runs_of(np.array([True, False, True, True]))
    [(0, 0), (2, 3)]
    """
    edges = np.flatnonzero(np.diff(np.concatenate([[False], mask, [False]]).astype(np.int8)))
    return [(int(first), int(stop) - 1) for first, stop in edges.reshape(-1, 2)]
