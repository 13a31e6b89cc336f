"""Bars and heat maps for the terminal: they fit, their lengths and shades are those of the numbers, zeros are zeros."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gradcli.formats.chart import chart_lines
from gradcli.formats.text import display_width
from gradcli.results.pictures import Axis, Bar, BarChart, HeatMap

NUMBERS = st.one_of(st.floats(-40, 40), st.just(-np.inf), st.just(np.nan))
HOSTILE = "a\x1b[2Jb\nc\u202e<script> 中文字 żółć ∂ and a name that goes on and on"


def bars(*rows: tuple[str, Any], log10: bool = False, parts: tuple[str, ...] = ("before", "after")) -> BarChart:
    found = [Bar(label, values, "a group") for label, values in rows]
    return BarChart("routes", "a title", Axis("share", log10=log10), parts, found, description="A sentence.")


def heat(values: Any) -> HeatMap:
    grid = np.array(values, dtype=float)
    axes = (Axis("step s"), Axis("step t"), Axis("norm", log10=True))
    return HeatMap(
        "m", "a title", *axes, np.arange(grid.shape[1]), np.arange(1, len(grid) + 1), grid, "", "A sentence."
    )


def drawn(picture: Any, width: int | None = 60, *, unicode: bool = False) -> list[str]:
    return chart_lines(picture, width=width, color=False, unicode=unicode)


@given(
    st.lists(st.tuples(st.sampled_from(["one", HOSTILE]), st.tuples(NUMBERS, NUMBERS)), min_size=1, max_size=9),
    st.booleans(),
    st.booleans(),
    st.one_of(st.none(), st.integers(1, 120)),
)
def test_bars_fit(rows: list[Any], log10: bool, unicode: bool, width: int | None) -> None:
    lines = drawn(bars(*rows, log10=log10), width, unicode=unicode)
    assert max(map(display_width, lines)) <= max(width or 80, 24)
    text = "".join(lines)
    assert not any(char in text for char in "\x1b\n\u202e")
    assert unicode or text.isascii()


@given(st.integers(1, 70), st.integers(1, 90), st.booleans(), st.one_of(st.none(), st.integers(1, 120)), st.data())
def test_a_heat_map_fits(rows: int, columns: int, unicode: bool, width: int | None, data: st.DataObject) -> None:
    some = data.draw(st.lists(NUMBERS, min_size=1, max_size=7))
    lines = drawn(heat(np.resize(some, (rows, columns))), width, unicode=unicode)
    assert max(map(display_width, lines)) <= max(width or 80, 24)
    assert unicode or "".join(lines).isascii()


def test_a_bar_is_as_long_as_its_number() -> None:
    lines = drawn(bars(("one", [0.5]), ("two", [-0.25]), ("three", [None]), parts=("",)))
    rows = {line.split()[0]: line for line in lines if "|" in line}
    assert {name: line.split()[-1] for name, line in rows.items()} == {"one": "0.5", "two": "-0.25", "three": "number"}
    lengths = {name: line.count("#") for name, line in rows.items()}
    assert lengths["three"] == 0
    assert lengths["one"] > 30
    assert lengths["two"] == pytest.approx(lengths["one"] / 2, abs=1)
    assert lines.count("a group") == 1


def test_logarithms_are_points_on_a_line() -> None:
    lines = drawn(bars(("one", [4.0, 0.0]), ("two", [2.0, -np.inf]), ("three", [None, np.nan]), log10=True))
    one, two, three = (next(line for line in lines if line.startswith(name)) for name in ("one", "two", "three"))
    assert one.endswith("4.00 -> 0.00")
    assert two.endswith("2.00 -> 0 exactly")
    assert three.endswith("no number -> no number")
    before, after = one.index("*"), one.rindex("o", 4)
    assert set(one[after + 1 : before]) == {"-"}
    assert two.index("*") == pytest.approx((before + after) / 2, abs=0.5)
    assert lines[-1] == "* before  o after"


def test_shades_go_from_the_smallest_to_the_largest_and_zero_is_zero() -> None:
    lines = drawn(heat([[0.0, np.nan, np.nan], [-9.0, -1.0, np.nan], [-np.inf, -5.0, -3.0]]), 40)
    shown = [line[2:] for line in lines[2:5]]
    wide = len(shown[2]) // 3
    cells = [[line.ljust(3 * wide)[i * wide] for i in range(3)] for line in shown]
    assert cells == [["#", " ", " "], [".", "#", " "], ["0", ":", "*"]]
    assert " ".join(lines[6:]) == "log10 norm: .:*# from -9.00 to 0.00 0 exactly zero"


@pytest.mark.parametrize(
    "picture", [bars(("one", [None, -np.inf])), heat([[np.nan, -np.inf]]), bars(("one", [np.nan, None]), log10=True)]
)
def test_without_a_number_it_says_why(picture: Any) -> None:
    assert drawn(picture) == ["a title", "A sentence."]
