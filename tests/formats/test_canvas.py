"""Long curves at the width of a canvas keep their peaks, their dips and their exact zeros."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from gradcli.formats.canvas import kept_points, runs_of, value_range
from gradcli.results.pictures import Axis, Level, LineChart, Series

NUMBERS = st.one_of(st.floats(-1e6, 1e6), st.just(-np.inf), st.just(np.nan))


@given(st.lists(NUMBERS, min_size=1, max_size=200), st.integers(1, 12))
def test_extremes_and_ends_are_kept(values: list[float], columns: int) -> None:
    curve = np.array(values)
    kept = kept_points([curve], columns)
    assert np.array_equal(kept, np.unique(kept))
    assert {0, len(curve) - 1} <= set(kept.tolist())
    assert len(kept) <= max(4 * columns, 8 * columns)
    finite = curve[np.isfinite(curve)]
    if finite.size:
        shown = curve[kept]
        shown = shown[np.isfinite(shown)]
        assert (shown.min(), shown.max()) == (finite.min(), finite.max())
    assert np.isneginf(curve[kept]).any() == np.isneginf(curve).any()


def test_each_stretch_keeps_its_own_peak() -> None:
    curve = np.zeros(10_000)
    peaks = np.arange(137, 10_000, 400)
    curve[peaks] = 1.0
    assert set(peaks.tolist()) <= set(kept_points([curve], 50).tolist())


@given(st.lists(st.booleans(), max_size=30))
def test_runs_are_the_stretches_of_a_mask(mask: list[bool]) -> None:
    found = runs_of(np.array(mask, dtype=bool))
    assert [i for first, last in found for i in range(first, last + 1)] == [i for i, one in enumerate(mask) if one]
    assert all(a[1] + 1 < b[0] for a, b in pairwise(found))


def test_a_level_curve_looks_level() -> None:
    series = [Series("", np.arange(3), np.full(3, 2.0), low=np.full(3, 1.9), high=np.full(3, 2.4))]
    logs = LineChart("", "", Axis(""), Axis("", log10=True), series)
    assert value_range(logs, bands=False) == (1.5, 2.5)
    assert value_range(logs, bands=True) == (1.65, 2.65)
    assert value_range(LineChart("", "", Axis(""), Axis(""), series, [Level(-3.0, "")]), bands=True) == (-3.0, 2.4)
