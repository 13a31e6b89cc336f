"""Line charts by matplotlib: curves, bands, thresholds, and exact zeros as what they are."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from gradcli.formats.figure_style import INK, LOOKS, ROLE_LOOKS, SOFT, Look, apart, clean, say, shortened, whole_numbers
from gradcli.formats.thinning import kept_points, runs_of
from gradcli.results.pictures import Array, Level, LineChart, Mark, Series

#: Stretches of the width of which extremes are kept: more would not be seen, and files would be large.
_COLUMNS = 300
#: A curve of so few points shows each of them; of more, about so many markers tell curves apart.
_FEW, _MARKERS = 16, 9
#: Logarithms span at least a decade, so that a level curve looks level.
_SMALLEST_SPAN = 1.0
#: Shares of the height: a strip that stands for exact zeros, and what keeps labels apart.
_STRIP, _LABEL = 0.035, 0.06
#: A label above the axes is taken to have so much of their width a character.
_CHARACTER = 0.0125
#: Of a label with a note, the legend has so many characters.
_LABEL_LENGTH = 32


def draw_lines(axes: Axes, picture: LineChart) -> None:
    """Draw a line chart; one without a series says why there is none."""
    drawn = [(one, _thinned(one)) for one in picture.series]
    some = [one for one in picture.series if np.isfinite(one.y).any()]
    axes.set_xlabel(clean(picture.x.text))
    axes.set_ylabel(clean(picture.y.text))
    axes.xaxis.set_major_locator(MaxNLocator(nbins=9, integer=True, steps=[1, 2, 5, 10]))
    axes.xaxis.set_major_formatter(whole_numbers())
    if not some:
        say(axes, picture.description)
        return
    bands = sum(one.low is not None for one in picture.series)
    strips = sum(_has_zeros(one) for one in picture.series)
    low, high = _set_range(axes, picture, strips)
    looks = looks_of(picture.series)
    for index, (one, look) in enumerate(zip(picture.series, looks, strict=True)):
        _draw(axes, one, drawn[index][1], look, offset=index)
        _draw_band(axes, one, drawn[index][1], look, offset=index, alone=bands == 1)
    _draw_zeros(axes, picture.series, looks)
    _draw_levels(axes, [level for level in picture.levels if low <= level.value <= high], low, high)
    _draw_marks(axes, picture.marks)


def looks_of(series: Sequence[Series]) -> list[Look]:
    """Return how each series looks: by its role, or as the next of equals."""
    equals = iter(LOOKS * (len(series) // len(LOOKS) + 1))
    return [ROLE_LOOKS.get(one.role) or next(equals) for one in series]


def _thinned(series: Series) -> Array:
    curves = [curve for curve in (series.y, series.low, series.high) if curve is not None]
    return kept_points(curves, _COLUMNS)


def _set_range(axes: Axes, picture: LineChart, strips: int) -> tuple[float, float]:
    """Set both ranges: all numbers and thresholds, and below them room for the strips of exact zeros."""
    curves = [c for one in picture.series for c in (one.y, one.low, one.high) if c is not None]
    values = np.concatenate([curve[np.isfinite(curve)] for curve in curves])
    values = np.concatenate([values, [level.value for level in picture.levels]])
    low, high = float(values.min()), float(values.max())
    smallest = _SMALLEST_SPAN if picture.y.log10 else max(abs(low), abs(high), 1e-300) * 1e-3
    if high - low < smallest:
        low, high = (low + high - smallest) / 2, (low + high + smallest) / 2
    margin = 0.04 * (high - low)
    below = strips * _STRIP * (high - low) + (_LABEL * (high - low) if strips else 0.0)
    axes.set_ylim(low - margin - below, high + margin)
    first = min(float(one.x[0]) for one in picture.series)
    last = max(float(one.x[-1]) for one in picture.series)
    side = 0.012 * (last - first) if last > first else 0.5
    axes.set_xlim(first - side, last + side)
    return low - margin, high + margin


def _draw(axes: Axes, series: Series, kept: Array, look: Look, *, offset: int) -> None:
    x, y = series.x[kept], series.y[kept]
    finite = np.where(np.isfinite(y), y, np.nan)
    few = len(x) <= _FEW
    marker = look.marker or ("o" if few else "")
    if series.role == "points":
        axes.plot(x, finite, linestyle="", marker="o", markersize=4, color=INK, label=_legend_text(series))
        return
    every = _every(len(x), offset)
    axes.plot(
        x,
        finite,
        color=look.color,
        linestyle=look.dashes,
        linewidth=look.width,
        marker=marker or None,
        markersize=4.5,
        markeredgewidth=0,
        markevery=every,
        label=_legend_text(series),
    )
    alone = [first for first, last in runs_of(np.isfinite(y)) if first == last]
    if alone and not few:
        axes.plot(x[alone], y[alone], linestyle="", marker=look.marker or "o", markersize=3, color=look.color)


def _legend_text(series: Series) -> str:
    if not series.note:
        return clean(series.label)
    return f"{shortened(series.label, _LABEL_LENGTH)}: {clean(series.note)}"


def _every(count: int, offset: int) -> tuple[int, int]:
    """Return which of so many points have markers, the first and the distance; each series has others."""
    gap = 1 if count <= _FEW else count // _MARKERS
    return offset * gap // 4 % gap, gap


def _draw_band(axes: Axes, series: Series, kept: Array, look: Look, *, offset: int, alone: bool) -> None:
    """Draw a band as an area; of several, which would cover each other, as bars at some points."""
    if series.low is None or series.high is None:
        return
    x, y = series.x[kept], series.y[kept]
    low, high = (np.where(np.isfinite(edge[kept]), edge[kept], np.nan) for edge in (series.low, series.high))
    if alone:
        label = clean(series.band) or None
        axes.fill_between(x, low, high, color=look.color, alpha=0.18, linewidth=0, label=label)
        return
    start, gap = _every(len(x), offset)
    axes.errorbar(
        x[start::gap],
        y[start::gap],
        [(y - low)[start::gap], (high - y)[start::gap]],
        fmt="none",
        ecolor=look.color,
        elinewidth=0.9,
        capsize=2.5,
    )


def _has_zeros(series: Series) -> bool:
    return bool(np.isneginf(series.y).any())


def _draw_zeros(axes: Axes, series: Sequence[Series], looks: Sequence[Look]) -> None:
    """Draw a strip along the lower edge where a curve is exactly zero: of a logarithm that is no value."""
    across = axes.get_xaxis_transform()
    with_zeros = [(one, look) for one, look in zip(series, looks, strict=True) if _has_zeros(one)]
    for row, (one, look) in enumerate(with_zeros):
        height = _STRIP * (row + 0.5)
        kept = _thinned(one)
        x, zero = one.x[kept], np.isneginf(one.y[kept])
        for first, last in runs_of(zero):
            # A single zero has a length too: that of half a step to both sides.
            edges = [float(x[first]) - 0.4, float(x[last]) + 0.4]
            axes.plot(edges, [height] * 2, transform=across, color=look.color, linewidth=4, solid_capstyle="butt")
            before = first - 1
            if before >= 0 and np.isfinite(one.y[kept][before]):
                axes.plot(
                    x[before], one.y[kept][before], marker="o", markersize=5, markerfacecolor="white", color=look.color
                )
    if with_zeros:
        one = with_zeros[0][0]
        start = float(one.x[np.argmax(np.isneginf(one.y))])
        height = _STRIP * len(with_zeros) + 0.01
        right = start > (one.x[0] + one.x[-1]) / 2
        side = "right" if right else "left"
        place = float(one.x[-1]) if right else start
        axes.text(place, height, "exactly zero", transform=across, ha=side, va="bottom", fontsize=8, color=INK)


def _draw_levels(axes: Axes, levels: Sequence[Level], low: float, high: float) -> None:
    """Draw thresholds, each with its name to the right of the axes, where no curve is."""
    bottom, top = axes.get_ylim()
    places = apart([(level.value - bottom) / (top - bottom) for level in levels], _LABEL)
    for level, place in zip(levels, places, strict=True):
        axes.axhline(level.value, color=SOFT, linewidth=0.8, linestyle=(0, (2, 2)), zorder=1)
        axes.text(
            1.01, place, clean(level.label), transform=axes.transAxes, va="center", ha="left", fontsize=8, color=SOFT
        )


def _draw_marks(axes: Axes, marks: Sequence[Mark]) -> None:
    """Draw places on the axis, each with its name above the axes; names that would touch go one above the other."""
    left, right = axes.get_xlim()
    taken: list[tuple[float, float]] = []
    for mark in sorted(marks, key=lambda one: one.position):
        place = (mark.position - left) / (right - left)
        label = clean(mark.label)
        width = _CHARACTER * len(label)
        start = min(max(place - width / 2, 0.0), max(1.0 - width, 0.0))
        row = 0
        while any(taken_row == row and end > start for taken_row, end in taken):
            row += 1
        taken.append((row, start + width))
        axes.axvline(mark.position, color=SOFT, linewidth=0.8, linestyle=(0, (1, 2)), zorder=1)
        axes.annotate(
            label,
            (start + width / 2, 1.0),
            xycoords="axes fraction",
            xytext=(0, 2 + 10 * row),
            textcoords="offset points",
            ha="center",
            va="bottom",
            fontsize=8,
            color=SOFT,
        )
