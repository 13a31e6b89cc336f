"""Heat maps and bar charts by matplotlib."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.patches import Patch, Rectangle
from matplotlib.ticker import MaxNLocator

from gradcli.formats.figure_style import INK, LOOKS, SOFT, clean, say, shortened
from gradcli.numbers import grouped, significant
from gradcli.results.pictures import Array, Bar, BarChart, HeatMap

#: Its lightness rises evenly, so that it is right in grey and for the colour-blind.
_COLOURS = "cividis"
_TICKS = 9
_LABEL = 48
#: The room for what heads a group, in rows.
_HEADING = 0.9


def draw_heat(figure: Figure, axes: Axes, picture: HeatMap) -> None:
    """Draw a heat map, one even square for each number: hatched where it is exactly zero, empty where there is none."""
    values = picture.values
    finite = values[np.isfinite(values)]
    low, high = (float(finite.min()), float(finite.max())) if finite.size else (0.0, 0.0)
    if high - low < 1.0:
        low, high = (low + high - 1.0) / 2, (low + high + 1.0) / 2
    colours = ScalarMappable(Normalize(low, high), colormaps[_COLOURS])
    image: Array = np.asarray(colours.to_rgba(np.where(np.isfinite(values), values, low)))
    image[np.isneginf(values), 3] = 0.0
    rows, columns = values.shape
    zeros = bool(np.isneginf(values).any())
    image[np.isnan(values)] = (1.0, 1.0, 1.0, float(zeros))  # where there is a hatch, it lies under all of them
    if zeros:
        axes.add_patch(
            Rectangle((-0.5, -0.5), columns, rows, facecolor="white", edgecolor=SOFT, hatch="////", linewidth=0)
        )
    axes.imshow(image, gid="cells", interpolation="none", origin="upper", aspect="auto", zorder=2)
    for axis, places in ((axes.xaxis, picture.columns), (axes.yaxis, picture.rows)):
        # Between two steps that are shown stands a step that is left out.
        shown = _round_steps(float(places[0]), float(places[-1]))
        axis.set_ticks(np.interp(shown, places, range(len(places))).tolist(), labels=list(map(grouped, shown)))
    axes.set_xlabel(clean(picture.x.text))
    axes.set_ylabel(clean(picture.y.text))
    bar = figure.colorbar(colours, ax=axes, pad=0.02)
    bar.set_label(clean(picture.scale.text))
    bar.outline.set_visible(False)
    if zeros:
        patch = Patch(facecolor="white", edgecolor=SOFT, hatch="////", label="exactly zero")
        figure.legend(handles=[patch], loc="outside lower left", frameon=False, fontsize=8)


def _round_steps(first: float, last: float) -> list[int]:
    """Return round whole numbers from `first` to `last`, evenly apart; `first` where there are none."""
    locator = MaxNLocator(nbins=_TICKS, integer=True, steps=[1, 2, 5, 10])
    return [round(step) for step in locator.tick_values(first, last) if first <= step <= last] or [round(first)]


def draw_bars(axes: Axes, picture: BarChart) -> None:
    """Draw a bar chart: bars from 0, or points where the axis has logarithms; without a number it says why."""
    if not any(math.isfinite(_plain(value)) for bar in picture.bars for value in bar.values):
        say(axes, picture.description)
        return
    places = _places(picture.bars)
    for level in picture.levels:
        axes.axvline(level.value, color=SOFT, linewidth=0.8, linestyle=(0, (2, 2)), zorder=1)
    if picture.x.log10:
        _draw_points(axes, picture, places)
    else:
        _draw_lengths(axes, picture, places)
    axes.set_yticks(places.tolist(), labels=[shortened(bar.label, _LABEL) for bar in picture.bars])
    axes.set_ylim(places[-1] + 0.6, -0.6 - (_HEADING if picture.bars[0].group else 0.0))
    for before, bar, place in zip([None, *picture.bars], picture.bars, places, strict=False):
        if bar.group and (before is None or before.group != bar.group):
            at = ("axes fraction", "data")
            text = shortened(bar.group, 2 * _LABEL)
            axes.annotate(text, (0.008, place - 0.65), xycoords=at, fontsize=8, color=SOFT, va="center")
    axes.tick_params(axis="y", length=0)
    axes.set_xlabel(clean(picture.x.text))


def _places(bars: Sequence[Bar]) -> Array:
    """Return where the rows lie, from the top down: a group leaves room for what heads it."""
    heads = [before.group != bar.group for before, bar in pairwise(bars)]
    return np.arange(len(bars)) + _HEADING * np.cumsum([0, *heads])


def _draw_lengths(axes: Axes, picture: BarChart, places: Array) -> None:
    height = 0.7 / len(picture.parts)
    for part, name in enumerate(picture.parts):
        values = [
            value if math.isfinite(value) else 0.0 for value in (_plain(bar.values[part]) for bar in picture.bars)
        ]
        offsets = places + (part - (len(picture.parts) - 1) / 2) * height
        bars = axes.barh(offsets, values, height, color=LOOKS[part].color, label=clean(name) or None)
        for row, bar in enumerate(bars):
            bar.set_gid(f"bar-{part}-{row}")
        axes.bar_label(bars, list(map(_written, _part(picture, part))), padding=3, fontsize=8)
    axes.axvline(0.0, color=INK, linewidth=0.8)
    axes.margins(x=0.12)


def _draw_points(axes: Axes, picture: BarChart, places: Array) -> None:
    """Draw each row's numbers as points on one line; what is no number is said at its end."""
    for row, bar in zip(places, picture.bars, strict=True):
        finite = [value for value in map(_plain, bar.values) if math.isfinite(value)]
        if finite:
            axes.plot([min(finite), max(finite)], [row, row], color=SOFT, linewidth=1.0, zorder=1)
        missing = _missing(picture.parts, bar)
        if missing:
            axes.annotate(missing, (1.0, row), xycoords=("axes fraction", "data"), ha="right", va="bottom", fontsize=8)
    for part, name in enumerate(picture.parts):
        look = LOOKS[part]
        face = "white" if part == 0 and len(picture.parts) > 1 else look.color
        axes.plot(
            [value if math.isfinite(value) else math.nan for value in map(_plain, _part(picture, part))],
            places,
            gid=f"points-{part}",
            linestyle="",
            marker=look.marker,
            markersize=9 if part == 0 else 7,
            markerfacecolor=face,
            markeredgecolor=look.color,
            label=clean(name) or None,
        )
    axes.margins(x=0.1)
    low, high = axes.get_xlim()
    if high - low < 1.0:
        axes.set_xlim((low + high - 1.0) / 2, (low + high + 1.0) / 2)
    axes.grid(axis="x", color="#dddddd", linewidth=0.6)


def _missing(parts: Sequence[str], bar: Bar) -> str:
    """Say of which parts a row has no point, and why."""
    found = []
    for name, value in zip(parts, bar.values, strict=True):
        if not math.isfinite(_plain(value)):
            found.append(f"{clean(name)} {'exactly zero' if value == -math.inf else 'not finite'}".strip())
    return ", ".join(found)


def _part(picture: BarChart, part: int) -> list[float | None]:
    return [bar.values[part] for bar in picture.bars]


def _plain(value: float | None) -> float:
    return math.nan if value is None else value


def _written(value: float | None) -> str:
    return "no number" if value is None or math.isnan(value) else significant(value, digits=3)
