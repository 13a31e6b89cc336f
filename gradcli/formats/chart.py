"""Charts for the terminal: curves in Braille dots, or in letters and signs where there is nothing but ASCII.

Own code, because what exists tells several curves apart by their colour alone, and draws an exact zero as some number.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from itertools import groupby

import numpy as np

from gradcli.formats.canvas import kept_points, runs_of, value_range
from gradcli.formats.chart_grids import bar_lines, has_numbers, heat_lines
from gradcli.formats.chart_pen import Pen
from gradcli.formats.text import display_width, pad
from gradcli.numbers import CHOSEN, grouped, significant
from gradcli.results.pictures import BarChart, HeatMap, LineChart, Picture, Series

#: Of a pipe, which has no width.
_USUAL_WIDTH = 80
_NARROWEST = 24
#: Rows of the plot: on a narrow screen fewer.
_ROWS, _FEW_ROWS, _NARROW = 16, 12, 60
#: A label of the axis below takes about so many columns, one at the side so many rows.
_TICK_COLUMNS, _TICK_ROWS = 12, 3
_MARKERS = 8
_BRAILLE = 0x2800
#: The dots of a Braille cell by row and column, as bits.
_DOTS = ((0x01, 0x08), (0x02, 0x10), (0x04, 0x20), (0x40, 0x80))
_DOTS_DOWN, _DOTS_ACROSS = 4, 2
_COLOURS = ("34", "33", "32", "35", "36", "31", "94", "37")
_ZERO = "zero"
#: A space within a label: no other line goes through it.
_BLANK = "\xa0"


def chart_lines(picture: Picture, *, width: int | None, color: bool, unicode: bool) -> list[str]:
    """Return a picture as lines of at most `width` columns; without a width, of a usual screen.

    Args:
        color: whether ANSI colours may be used. unicode: whether characters beyond ASCII may.
    """
    pen = Pen(max(width or _USUAL_WIDTH, _NARROWEST), color, unicode)
    title = [pen.styled(line, pen.BOLD) for line in pen.wrapped(picture.title)]
    match picture:
        case LineChart() if any(np.isfinite(one.y).any() for one in picture.series):
            return [*title, *_Plot(picture, pen).lines()]
        case BarChart() if has_numbers(picture):
            return [*title, *bar_lines(picture, pen)]
        case HeatMap() if np.isfinite(picture.values).any():
            return [*title, *heat_lines(picture, pen)]
    return [*title, *pen.wrapped(picture.description)]


@dataclass
class _Cells:
    """The characters of the plot, row by row, and the codes of their colours."""

    rows: int
    columns: int
    chars: list[list[str]] = field(init=False)
    codes: list[list[str]] = field(init=False)

    def __post_init__(self) -> None:
        self.chars = [[" "] * self.columns for _ in range(self.rows)]
        self.codes = [[""] * self.columns for _ in range(self.rows)]

    def put(self, row: int, column: int, char: str, code: str, *, over: bool = True) -> None:
        if over or self.chars[row][column] == " ":
            self.chars[row][column], self.codes[row][column] = char, code

    def is_free(self, row: int, columns: range) -> bool:
        return all(self.chars[row][column] == " " for column in columns)

    def text(self, row: int, pen: Pen) -> str:
        """Return a row, what is alike in colour together."""
        found = ""
        for code, cells in groupby(zip(self.chars[row], self.codes[row], strict=True), key=lambda cell: cell[1]):
            part = "".join(char for char, _ in cells).replace(_BLANK, " ")
            found += pen.styled(part, code) if code else part
        return found


class _Plot:
    """One chart: what it spans, and where things lie on it."""

    def __init__(self, picture: LineChart, pen: Pen) -> None:
        self.picture, self.pen, self.signs = picture, pen, pen.signs
        self.rows = _FEW_ROWS if pen.width < _NARROW else _ROWS
        self.low, self.high = value_range(picture, bands=False)
        self.ticks = _nice(self.low, self.high, self.rows // _TICK_ROWS)
        self.zeros = [i for i, one in enumerate(picture.series) if np.isneginf(one.y).any()]
        labels = [_short(tick) for tick in self.ticks] + ([_ZERO] if self.zeros else [])
        self.margin = max(map(len, labels))
        self.columns = pen.width - self.margin - 1
        self.first = min(float(one.x[0]) for one in picture.series)
        self.last = max(float(one.x[-1]) for one in picture.series)
        self.several = len(picture.series) > 1
        self.unsaid: list[str] = []

    def lines(self) -> list[str]:
        """Return what stands above the plot, the plot, the axis below it, and what the signs mean."""
        cells = _Cells(self.rows, self.columns)
        for index, one in reversed(list(enumerate(self.picture.series))):
            self._curve(cells, one, index)  # the first one last, over the others
        if self.several and self.pen.unicode:
            for index, one in enumerate(self.picture.series):
                self._put_marks(cells, one, index)
        self._levels(cells)
        self._marks(cells)
        labels = {self._row(tick): _short(tick) for tick in self.ticks}
        found = [self.pen.styled(line, Pen.DIM) for line in self.pen.wrapped(self.picture.y.text)]
        for row in range(self.rows):
            label = labels.get(row, "")
            sign = self.signs.tick if label else self.signs.side
            found.append(f"{pad(label, self.margin, right=True)}{sign}{cells.text(row, self.pen)}".rstrip())
        found += self._zero_rows()
        found += self._axis_below()
        return found + self._legend()

    def _column(self, x: float, count: int | None = None) -> int:
        """Return the column of a place on the axis, of all columns or of another count."""
        count = count or self.columns
        if self.last == self.first:
            return count // 2
        return round((x - self.first) / (self.last - self.first) * (count - 1))

    def _row(self, y: float, count: int | None = None) -> int:
        """Return the row of a value, from the top, of all rows or of another count."""
        count = count or self.rows
        return round((self.high - y) / (self.high - self.low) * (count - 1))

    def _curve(self, cells: _Cells, series: Series, index: int) -> None:
        """Draw a curve in Braille dots; in ASCII, and where it is points, in its sign."""
        code = _COLOURS[index % len(_COLOURS)]
        mark = self._sign(index)
        down, across = (_DOTS_DOWN, _DOTS_ACROSS) if self.pen.unicode and series.role != "points" else (1, 1)
        for row, column in self._places(series, self.rows * down, self.columns * across):
            cell = (row // down, column // across)
            if down == 1:
                cells.put(*cell, mark, code)
                continue
            before = cells.chars[cell[0]][cell[1]]
            bits = ord(before) - _BRAILLE if _BRAILLE <= ord(before) < _BRAILLE + 256 else 0
            cells.put(*cell, chr(_BRAILLE + (bits | _DOTS[row % down][column % across])), code)

    def _put_marks(self, cells: _Cells, series: Series, index: int) -> None:
        """Put the sign of a curve on it here and there, at other places than those of the others."""
        gap = max(self.columns // _MARKERS, len(self.picture.series))
        wanted = set(range(index * gap // len(self.picture.series), self.columns, gap))
        down, across = _DOTS_DOWN, _DOTS_ACROSS
        for row, column in self._places(series, self.rows * down, self.columns * across):
            if column // across in wanted:
                wanted.remove(column // across)
                cells.put(row // down, column // across, self._sign(index), _COLOURS[index % len(_COLOURS)])

    def _sign(self, index: int) -> str:
        return self.signs.marks[index % len(self.signs.marks)]

    def _places(self, series: Series, rows: int, columns: int) -> list[tuple[int, int]]:
        """Return where the curve passes on a grid, in the order of the axis; nothing where it has no number."""
        kept = kept_points([series.y], columns)
        found: list[tuple[int, int]] = []
        before: tuple[int, int] | None = None
        for x, y in zip(series.x[kept].tolist(), series.y[kept].tolist(), strict=True):
            if not math.isfinite(y):
                before = None
                continue
            place = (self._row(y, rows), self._column(x, columns))
            found += [place] if before is None or series.role == "points" else _between(before, place)
            before = place
        return found

    def _levels(self, cells: _Cells) -> None:
        """Draw thresholds where no curve is, each with its name where there is room on its row."""
        for level in self.picture.levels:
            row = self._row(level.value)
            label = self.pen.plain(level.label)
            length = display_width(label)
            places = [p for p in (self.columns - length, 1) if 1 <= p <= self.columns - length]
            free = [p for p in places if cells.is_free(row, range(p - 1, min(p + length + 1, self.columns)))]
            if free and length == len(label):
                for offset, char in enumerate(f" {label} "):
                    if free[0] - 1 + offset < self.columns:
                        cells.put(row, free[0] - 1 + offset, _BLANK if char == " " else char, Pen.DIM)
            else:
                self.unsaid.append(f"{self.signs.level} {label}")
            for column in range(self.columns):
                cells.put(row, column, self.signs.level, Pen.DIM, over=False)

    def _marks(self, cells: _Cells) -> None:
        for mark in self.picture.marks:
            column = self._column(mark.position)
            for row in range(self.rows):
                if cells.chars[row][column] in (" ", self.signs.level):
                    cells.put(row, column, self.signs.mark, Pen.DIM)

    def _zero_rows(self) -> list[str]:
        """Return a row for each curve that is exactly zero somewhere, with its sign where it is."""
        found = []
        for index in self.zeros:
            one = self.picture.series[index]
            edges = [(float(one.x[i]), float(one.x[j])) for i, j in runs_of(np.isneginf(one.y))]
            taken = {c for first, last in edges for c in range(self._column(first), self._column(last) + 1)}
            row = "".join(self._sign(index) if column in taken else " " for column in range(self.columns))
            text = self.pen.styled(row.rstrip(), _COLOURS[index % len(_COLOURS)])
            found.append(f"{pad(_ZERO, self.margin, right=True)}{self.signs.tick}{text}")
        return found

    def _axis_below(self) -> list[str]:
        line = f"{' ' * self.margin}{self.signs.corner}{self.signs.bottom * self.columns}"
        labels = [" "] * self.pen.width
        end = 0
        ticks = _nice(self.first, self.last, self.columns // _TICK_COLUMNS, whole=True)
        for tick in ticks:
            text = grouped(round(tick))
            middle = self.margin + 1 + self._column(tick)
            start = min(max(middle - len(text) // 2, 0), self.pen.width - len(text))
            if start > end or not end:
                labels[start : start + len(text)] = text
                end = start + len(text)
        title = self.pen.wrapped(self.picture.x.text)
        centred = [f"{' ' * max((self.pen.width - display_width(part)) // 2, 0)}{part}" for part in title]
        return [line, "".join(labels).rstrip(), *(self.pen.styled(part, Pen.DIM) for part in centred)]

    def _legend(self) -> list[str]:
        """Return what the signs mean; a single curve needs none."""
        found: list[str] = []
        plain: list[str] = []
        for index, one in enumerate(self.picture.series):
            if not self.several and not one.note:
                continue
            text = f"{self._sign(index)} {one.label}"
            if one.note:
                found += self.pen.wrapped(f"{text}: {one.note}")
            else:
                plain.append(text)
        plain += self.unsaid
        plain += [f"{self.signs.mark} {mark.label}" for mark in self.picture.marks]
        if plain:
            found += self.pen.wrapped("  ".join(plain))
        return found


def _between(start: tuple[int, int], end: tuple[int, int]) -> list[tuple[int, int]]:
    """Return the places on the straight line between two, without the first.

    >>> _between((0, 0), (2, 1))
    [(1, 0), (2, 1)]
    """
    steps = max(abs(end[0] - start[0]), abs(end[1] - start[1]))
    return [
        (round(start[0] + (end[0] - start[0]) * i / steps), round(start[1] + (end[1] - start[1]) * i / steps))
        for i in range(1, steps + 1)
    ]


def _nice(low: float, high: float, count: int, *, whole: bool = False) -> list[float]:
    """Return about so many round numbers between two.

    >>> _nice(-19.6, 3.4, 4)
    [-15.0, -10.0, -5.0, 0.0]
    >>> _nice(0, 100, 5, whole=True)
    [0.0, 20.0, 40.0, 60.0, 80.0, 100.0]
    """
    if high <= low:
        return [low]
    rough = (high - low) / max(count, 1)
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * factor for factor in (1, 2, 5, 10) if power * factor >= rough * 0.999)
    if whole:
        step = max(step, 1.0)
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [round(i * step, 12) + 0.0 for i in range(first, last + 1)]


def _short(value: float) -> str:
    """Write a number of the axis as short as it is: -15, 0.5, -40,000."""
    return grouped(round(value)) if value == round(value) and value >= 0 else significant(value, CHOSEN)
