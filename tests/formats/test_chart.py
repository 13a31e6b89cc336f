"""A chart for the terminal: it fits its width, its marks are where the numbers are, and zeros are no numbers."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gradcli.formats.chart import chart_lines
from gradcli.formats.text import display_width
from gradcli.results.pictures import Axis, Level, LineChart, Mark, Series

HOSTILE = "a\x1b[2Jb\nc\u202e<script> 中文字 żółć ∂ $x$ and a name that goes on and on and on"
NUMBERS = st.one_of(st.floats(-400, 400), st.just(-np.inf), st.just(np.nan))


def chart(*curves: Any, **fields: Any) -> LineChart:
    series = [Series(f"curve {i}", np.arange(len(y)), np.array(y, dtype=float)) for i, y in enumerate(curves)]
    axes = (Axis("distance", "steps back"), Axis("gradient norm", log10=True))
    return LineChart("curve", "a title", *axes, series, **{"description": "A sentence.", **fields})


def drawn(picture: LineChart, width: int | None = 80, *, unicode: bool = True, color: bool = False) -> list[str]:
    return chart_lines(picture, width=width, color=color, unicode=unicode)


def column_of(x: float, last: float, columns: int) -> int:
    return round(x / last * (columns - 1))


@pytest.mark.parametrize(
    ("unicode", "expected"),
    [
        (
            False,
            """\
a title
log10 gradient norm
   0+**               :
    |  *              :
    |   ***           :
    |      *          :
  -1+       ***       :
    |          ***    :
    |             *** :
  -2+----------------***------ vanishing
    |                 : **
    |                 :   **
    |                 :     **
  -3+                 :       **
zero+                                  *
    +-----------------------------------
     0                2                4
          distance, steps back
: horizon 2""",
        ),
        (
            True,
            """\
a title
log10 gradient norm
   0┤⠑⢄               ┊
    │  ⠑⢄             ┊
    │    ⠉⠢⡀          ┊
    │      ⠈⠢⡀        ┊
  -1┤        ⠈⠢⡀      ┊
    │          ⠈⠑⢄    ┊
    │             ⠑⢄⡀ ┊
  -2┤╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌⠈⠢⡀╌╌╌╌╌╌╌ vanishing
    │                 ⠈⠢⣀
    │                 ┊  ⠑⢄
    │                 ┊    ⠑⢄⡀
  -3┤                 ┊      ⠈⠢⡀
zero┤                                  ●
    └───────────────────────────────────
     0                2                4
          distance, steps back
┊ horizon 2""",
        ),
    ],
)
def test_the_whole_text_of_a_small_chart(unicode: bool, expected: str) -> None:
    levels, marks = [Level(-2.0, "vanishing")], [Mark(2, "horizon 2")]
    picture = chart([0.0, -1.0, -2.0, -3.0, -np.inf], levels=levels, marks=marks)
    assert "\n".join(drawn(picture, 40, unicode=unicode)) == expected


@given(
    st.lists(st.lists(NUMBERS, min_size=1, max_size=30), min_size=1, max_size=9),
    st.one_of(st.none(), st.integers(1, 200)),
    st.booleans(),
    st.booleans(),
)
def test_every_line_fits(curves: list[list[float]], width: int | None, unicode: bool, hostile: bool) -> None:
    picture = chart(*curves, levels=[Level(-3.0, "vanishing 1e-3")], marks=[Mark(0, "horizon 0")])
    if hostile:
        series = [replace(one, label=HOSTILE, note=HOSTILE) for one in picture.series]
        picture = replace(picture, title=HOSTILE, description=HOSTILE, series=series, levels=[Level(1.0, HOSTILE)])
    lines = drawn(picture, width, unicode=unicode)
    assert max(map(display_width, lines)) <= max(width or 80, 24)
    text = "".join(lines)
    assert not any(char in text for char in "\x1b\n\u202e")
    assert unicode or text.isascii()


@given(st.lists(st.floats(-50, 50), min_size=2, max_size=40))
def test_a_sign_stands_where_the_number_is(values: list[float]) -> None:
    """In ASCII each cell is a place: every number of the curve has a sign within half a cell of its own."""
    lines = drawn(chart(values), 80, unicode=False)
    start = lines[2].index("+" if "+" in lines[2] else "|") + 1
    plot = [line[start:].ljust(80 - start) for line in lines[2 : lines.index("log10 gradient norm") + 17]]
    assert len(plot) == 16
    low, high = min(values), max(values)
    if high - low < 1:
        low, high = (low + high - 1) / 2, (low + high + 1) / 2
    for x, y in enumerate(values):
        row = round((high - y) / (high - low) * 15)
        assert plot[row][column_of(x, len(values) - 1, 80 - start)] == "*"


@given(st.lists(NUMBERS, min_size=2, max_size=40))
def test_exact_zeros_have_a_row_of_their_own(values: list[float]) -> None:
    values[0] = 0.0  # a number at least
    lines = drawn(chart(values), 80, unicode=False)
    rows = [line for line in lines if line.startswith("zero+")]
    zeros = [x for x, y in enumerate(values) if y == -np.inf]
    assert len(rows) == bool(zeros)
    if not zeros:
        return
    row = rows[0].ljust(80)[5:]
    columns = {column_of(x, len(values) - 1, 75) for x in zeros}
    others = {column_of(x, len(values) - 1, 75) for x in range(len(values)) if x not in zeros}
    assert all(row[column] == "*" for column in columns)
    assert all(row[column] == " " for column in others - columns)


def test_several_curves_have_signs_of_their_own() -> None:
    curves = [np.full(50, float(-i)) for i in range(8)]
    for unicode in (True, False):
        lines = drawn(chart(*curves), 80, unicode=unicode)
        signs = [line.split(f" curve {i}")[0][-1] for i in range(8) for line in lines if f" curve {i}" in line]
        assert len(set(signs)) == 8
        plot = "".join(lines[2:18])
        assert all(sign in plot for sign in signs)
        assert "curve 0" not in "".join(drawn(chart(curves[0]), 80, unicode=unicode))


def test_curves_that_coincide_are_both_seen() -> None:
    plot = "".join(drawn(chart(np.zeros(50), np.zeros(50)), 80)[2:18])
    assert "●" in plot
    assert "○" in plot


@pytest.mark.parametrize("width", [24, 40, 80])
def test_a_threshold_has_its_name_once(width: int) -> None:
    """On its line where there is room, else in the legend."""
    for curve in ([0.0, -6.0], [-3.0, -3.0], np.linspace(0, -40_000, 100)):
        picture = chart(curve, levels=[Level(-3.0, "vanishing 1e-3"), Level(-3.5, "float32's precision")])
        text = " ".join(" ".join(drawn(picture, width, unicode=False)).split())
        assert text.count("vanishing 1e-3") == 1
        assert text.count("float32's precision") == 1


@pytest.mark.parametrize("curves", [[], [[-np.inf, -np.inf]], [[np.nan]]])
def test_without_a_number_a_chart_says_why(curves: list[list[float]]) -> None:
    assert drawn(chart(*curves), 80) == ["a title", "A sentence."]


def test_colours_come_only_where_they_are_wanted() -> None:
    picture = chart([0.0, -1.0], [0.0, -2.0], levels=[Level(-1.0, "vanishing")], marks=[Mark(1, "horizon 1")])
    coloured = drawn(picture, 60, color=True)
    plain = [re.sub(r"\x1b\[[\d;]*m", "", line) for line in coloured]
    assert plain == drawn(picture, 60)
    assert any("\x1b[34m" in line for line in coloured)


def test_a_peak_of_a_million_steps_is_seen() -> None:
    y = np.zeros(1_000_000)
    y[123_456] = 9.0
    top = drawn(chart(y), 80)[2]
    assert top.rstrip().endswith(tuple(chr(code) for code in range(0x2801, 0x2900)))
