"""Bars and heat maps for the terminal: lengths and shades of characters, each with its numbers beside it."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from gradcli.formats.chart_pen import Pen
from gradcli.formats.table import drawn_bar
from gradcli.formats.text import display_width, pad
from gradcli.numbers import CHOSEN, log10_text, significant
from gradcli.results.pictures import Array, Bar, BarChart, HeatMap

_ZERO = "0"
#: Rows of a heat map; of more, so many are shown.
_MOST_ROWS = 20
#: A label has at most one part in so many of the width.
_LABEL = 3


def bar_lines(picture: BarChart, pen: Pen) -> list[str]:
    """Return a bar chart: a bar from 0 for each number; where they are logarithms, points on one line."""
    labels = [pen.plain(bar.label) for bar in picture.bars]
    margin = min(max(map(display_width, labels), default=0), pen.width // _LABEL)
    lines = [pen.styled(line, pen.DIM) for line in pen.wrapped(picture.x.text)]
    draw = _points if picture.x.log10 else _lengths
    group = ""
    for bar, label, drawn in zip(picture.bars, labels, draw(picture, pen, margin), strict=True):
        if bar.group != group:
            group = bar.group
            lines += [pen.styled(line, pen.DIM) for line in pen.wrapped(group)]
        for line in drawn:  # which is too long where the screen is hardly wider than its numbers
            lines += pen.wrapped(f"{pad(pen.shortened(label, margin), margin)} {line}".rstrip())
    if picture.x.log10:
        signs = [f"{sign} {name}" for sign, name in zip(pen.signs.marks, picture.parts, strict=False)]
        lines += pen.wrapped("  ".join(signs))
    return lines


def _lengths(picture: BarChart, pen: Pen, margin: int) -> list[list[str]]:
    values = [value for bar in picture.bars for value in _finite(bar)]
    largest = max(map(abs, values), default=0.0) or 1.0
    numbers = [[_number(value) for value in bar.values] for bar in picture.bars]
    room = max(pen.width - margin - 2 - max((len(text) for row in numbers for text in row), default=0), 1)
    found = []
    for bar, texts in zip(picture.bars, numbers, strict=True):
        plain = [value if value is not None and math.isfinite(value) else 0.0 for value in bar.values]
        bars = [drawn_bar(abs(value) / largest, room, unicode=pen.unicode) for value in plain]
        found.append([f"{drawn} {text}" for drawn, text in zip(bars, texts, strict=True)])
    return found


def _points(picture: BarChart, pen: Pen, margin: int) -> list[list[str]]:
    values = [value for bar in picture.bars for value in _finite(bar)]
    low, high = min(values), max(values)
    numbers = [" -> ".join(map(_logarithm, bar.values)) for bar in picture.bars]
    room = max(pen.width - margin - 2 - max(map(len, numbers)), 1)

    def column(value: float) -> int:
        return round((value - low) / (high - low) * (room - 1)) if high > low else room // 2

    found = []
    for bar, text in zip(picture.bars, numbers, strict=True):
        row = [" "] * room
        places = sorted(column(value) for value in _finite(bar))
        if places:
            row[places[0] : places[-1] + 1] = [pen.signs.bottom] * (places[-1] - places[0] + 1)
        for sign, value in zip(pen.signs.marks, bar.values, strict=False):
            if value is not None and math.isfinite(value):
                row[column(value)] = sign
        found.append([f"{''.join(row)} {text}"])
    return found


def has_numbers(picture: BarChart) -> bool:
    """Tell whether there is anything to draw."""
    return any(_finite(bar) for bar in picture.bars)


def _finite(bar: Bar) -> list[float]:
    return [value for value in bar.values if value is not None and math.isfinite(value)]


def _number(value: float | None) -> str:
    return "no number" if value is None or not math.isfinite(value) else significant(value, digits=3)


def _logarithm(value: float | None) -> str:
    return "no number" if value is None or math.isnan(value) else log10_text(value)


def heat_lines(picture: HeatMap, pen: Pen) -> list[str]:
    """Return a heat map in shades, from the smallest number to the largest; exact zeros are 0, and nothing is blank."""
    labels = [significant(number, CHOSEN) for number in picture.rows]
    margin = max(map(len, labels))
    across = pen.width - margin - 1
    rows, columns = _some(len(picture.rows), _MOST_ROWS), _some(len(picture.columns), across)
    values = picture.values[np.ix_(rows, columns)]
    finite = values[np.isfinite(values)]
    low, high = float(finite.min()), float(finite.max())
    wide = max(1, across // len(columns))
    shades = pen.signs.shades
    lines = [pen.styled(line, pen.DIM) for line in pen.wrapped(f"{picture.y.text}, down; {picture.x.text}, across")]
    for row, of_row in zip(rows, values, strict=True):
        cells = "".join(_cell(value, low, high, shades) * wide for value in of_row)
        lines.append(f"{labels[row].rjust(margin)} {cells}".rstrip())
    ends = [significant(picture.columns[i], CHOSEN) for i in (columns[0], columns[-1])]
    between = max(wide * len(columns) - len(ends[0]) - len(ends[1]), 1)
    lines.append(f"{' ' * margin} {ends[0]}{' ' * between}{ends[1]}")
    legend = f"{picture.scale.text}: {shades} from {log10_text(low)} to {log10_text(high)}"
    return [*lines, *pen.wrapped(legend + (f"  {_ZERO} exactly zero" if np.isneginf(values).any() else ""))]


def _some(count: int, most: int) -> Array:
    """Return the indices of at most so many places, evenly spaced, the first and the last among them."""
    return np.unique(np.linspace(0, count - 1, min(count, most)).round().astype(int))


def _cell(value: float, low: float, high: float, shades: Sequence[str]) -> str:
    if not math.isfinite(value):
        return _ZERO if value == -math.inf else " "
    share = (value - low) / (high - low) if high > low else 1.0
    return shades[min(int(share * len(shades)), len(shades) - 1)]
