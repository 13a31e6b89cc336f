"""Long curves at the width of a canvas: fewer points, and no peak, dip or exact zero lost."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np

from gradcli.results.pictures import Array


def kept_points(curves: Sequence[Array], columns: int) -> Array:
    """Return which points of curves (n,) over the same places to draw, as ascending indices: all, where they are few.

    Of each of `columns` stretches that follow one another these are the first, the last, the largest and the smallest
    number of each curve, and the first and last point that is none (-inf, NaN).
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
    finite = np.flatnonzero(np.isfinite(part))
    missing = np.flatnonzero(~np.isfinite(part))
    found = set(missing[[0, -1]].tolist()) if missing.size else set()
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
