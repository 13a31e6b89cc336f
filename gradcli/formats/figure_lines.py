"""Line charts by matplotlib: curves, bands, thresholds, and exact zeros as what they are."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from gradcli.formats.canvas import kept_points, runs_of, value_range
from gradcli.formats.figure_style import INK, LOOKS, ROLE_LOOKS, SOFT, Look, apart, clean, say, shortened, whole_numbers
from gradcli.results.pictures import Array, Level, LineChart, Mark, Series

#: Stretches of the width of which extremes are kept: more would not be seen, and files would be large.
_COLUMNS = 300
#: A curve of so few points shows each of them; of more, about so many markers tell curves apart.
_FEW, _MARKERS = 16, 9
#: Shares of the height: a strip that stands for exact zeros, and what keeps labels apart.
_STRIP, _LABEL = 0.035, 0.06
#: And of the width: half of the shortest strip.
_SHORTEST = 0.002
#: What a file calls the curve of a series.
_CURVE = "curve-{}"
#: A label above the axes is taken to have so much of their width a character.
_CHARACTER = 0.0125
#: Of a label with a note, the legend has so many characters.
_LABEL_LENGTH = 32


def draw_lines(axes: Axes, picture: LineChart) -> None:
    """Draw a line chart; one without a series says why there is none."""
    axes.set_xlabel(clean(picture.x.text))
    axes.set_ylabel(clean(picture.y.text))
    axes.xaxis.set_major_locator(MaxNLocator(nbins=9, integer=True, steps=[1, 2, 5, 10]))
    axes.xaxis.set_major_formatter(whole_numbers())
    if not any(np.isfinite(one.y).any() for one in picture.series):
        say(axes, picture.description)
        return
    bands = sum(one.low is not None for one in picture.series)
    strips = sum(_has_zeros(one) for one in picture.series)
    _set_range(axes, picture, strips)
    looks = looks_of(picture.series)
    for index, (one, look) in enumerate(zip(picture.series, looks, strict=True)):
        kept = _thinned(one)
        _draw(axes, one, kept, look, index)
        _draw_band(axes, one, kept, look, index, alone=bands == 1)
    _draw_zeros(axes, picture.series, looks)
    _draw_levels(axes, picture.levels)
    _draw_marks(axes, picture.marks)


def looks_of(series: Sequence[Series]) -> list[Look]:
    """Return how each series looks: by its role, or as the next of equals."""
    equals = iter(LOOKS * (len(series) // len(LOOKS) + 1))
    return [ROLE_LOOKS.get(one.role) or next(equals) for one in series]


def _thinned(series: Series) -> Array:
    curves = [curve for curve in (series.y, series.low, series.high) if curve is not None]
    return kept_points(curves, _COLUMNS)


def _set_range(axes: Axes, picture: LineChart, strips: int) -> None:
    """Set both ranges: all numbers and thresholds, and below them room for the strips of exact zeros."""
    low, high = value_range(picture, bands=True)
    margin = 0.04 * (high - low)
    below = strips * _STRIP * (high - low) + (_LABEL * (high - low) if strips else 0.0)
    axes.set_ylim(low - margin - below, high + margin)
    first = min(float(one.x[0]) for one in picture.series)
    last = max(float(one.x[-1]) for one in picture.series)
    side = 0.012 * (last - first) if last > first else 0.5
    axes.set_xlim(first - side, last + side)
    axes.ticklabel_format(axis="y", useOffset=False)


def _draw(axes: Axes, series: Series, kept: Array, look: Look, index: int) -> None:
    """Draw a curve; `index`, its number, tells it apart in the file and by where its markers are."""
    x, y = series.x[kept], series.y[kept]
    finite = np.where(np.isfinite(y), y, np.nan)
    few = len(x) <= _FEW
    marker = look.marker or ("o" if few else "")
    label = _legend_text(series)
    if series.role == "points":
        axes.plot(x, finite, gid=_CURVE.format(index), linestyle="", marker="o", markersize=4, color=INK, label=label)
        return
    axes.plot(
        x,
        finite,
        gid=_CURVE.format(index),
        color=look.color,
        linestyle=look.dashes,
        linewidth=look.width,
        marker=marker or None,
        markersize=4.5,
        markeredgewidth=0,
        markevery=_every(len(x), index),
        label=label,
    )
    alone = [first for first, last in runs_of(np.isfinite(y)) if first == last]
    if alone and not few:
        axes.plot(x[alone], y[alone], linestyle="", marker=look.marker or "o", markersize=3, color=look.color)


def _legend_text(series: Series) -> str:
    if not series.note:
        return clean(series.label)
    return f"{shortened(series.label, _LABEL_LENGTH)}: {clean(series.note)}"


def _every(count: int, index: int) -> tuple[int, int]:
    """Return which of so many points have markers, the first and the distance; each series has others."""
    gap = 1 if count <= _FEW else count // _MARKERS
    return index * gap // 4 % gap, gap


def _draw_band(axes: Axes, series: Series, kept: Array, look: Look, index: int, *, alone: bool) -> None:
    """Draw a band as an area; of several, which would cover each other, as bars at some points."""
    if series.low is None or series.high is None:
        return
    x, y = series.x[kept], series.y[kept]
    low, high = (np.where(np.isfinite(edge[kept]), edge[kept], np.nan) for edge in (series.low, series.high))
    if alone:
        label = clean(series.band) or None
        axes.fill_between(x, low, high, color=look.color, alpha=0.18, linewidth=0, label=label)
        return
    start, gap = _every(len(x), index)
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
        side = max(0.4, _SHORTEST * float(x[-1] - x[0]))  # a single zero is seen too
        for first, last in runs_of(zero):
            edges = [float(x[first]) - side, float(x[last]) + side]
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
        align, place = ("right", float(one.x[-1])) if right else ("left", start)
        axes.text(place, height, "exactly zero", transform=across, ha=align, va="bottom", fontsize=8, color=INK)


def _draw_levels(axes: Axes, levels: Sequence[Level]) -> None:
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
