"""The table format where screens are narrow, strings hostile, and columns odd."""

from __future__ import annotations

import pytest

from gradcli.formats import render
from gradcli.formats.text import display_width
from gradcli.results.model import Block, Column, Line, Report, Table, Verbatim


def text_of(*blocks: Block, width: int | None = None, color: bool = False, unicode: bool = True) -> str:
    return render(Report("test", [blocks], {}), "table", width=width, color=color, unicode=unicode)


@pytest.mark.parametrize("unicode", [True, False])
@pytest.mark.parametrize("width", range(40, 130, 3))
def test_nothing_is_wider_than_the_screen_or_cut_short(report: Report, width: int, unicode: bool) -> None:
    text = render(report, "table", width=width, color=False, unicode=unicode)
    assert max(map(display_width, text.splitlines())) <= width
    assert "…" not in text
    assert "..." not in text
    for number in ("-16.50", "8.3e-17", "< float32"):
        assert number in text


def test_without_color_there_is_no_escape_code_and_ascii_is_ascii(report: Report) -> None:
    assert "\x1b" not in render(report, "table", width=80, color=False, unicode=True)
    assert render(report, "table", width=80, color=False, unicode=False).isascii()


def test_color_changes_nothing_but_the_color(report: Report) -> None:
    colored = render(report, "table", width=60, color=True, unicode=True)
    for code in ("0", "1", "2", "33", "1;31"):
        assert f"\x1b[{code}m" in colored
        colored = colored.replace(f"\x1b[{code}m", "")
    assert colored == render(report, "table", width=60, color=False, unicode=True)


def test_columns_go_in_the_order_of_keep_and_are_named() -> None:
    columns = [Column("alpha", keep=9), Column("beta", keep=3), Column("gamma", keep=6), Column("delta", keep=3)]
    table = Table(columns, [(1, 2, 3, 4)])
    assert text_of(table, width=26) == "alpha  beta  gamma  delta\n    1     2      3      4\n"
    assert text_of(table, width=24) == "alpha  beta  gamma\n    1     2      3\nno room for: delta\n"
    wide = Table([Column("k" * 15, keep=9), *columns], [(0, 1, 2, 3, 4)])
    assert text_of(wide, width=24).splitlines()[0] == "k" * 15 + "  alpha"
    assert text_of(wide, width=24).splitlines()[-2:] == ["no room for: beta,", "gamma, delta"]


def test_headers_wrap_before_columns_go() -> None:
    table = Table([Column("a long header", keep=5), Column("another one", keep=5)], [(1, 2)])
    assert text_of(table, width=30) == "a long header  another one\n            1            2\n"
    assert text_of(table, width=20) == "a long\nheader  another one\n     1            2\n"


def test_text_cells_wrap_and_words_break_only_where_they_must() -> None:
    table = Table([Column("name", "text", keep=9), Column("n", keep=9)], [("a" * 30, 1), ("some words of text", 2)])
    assert text_of(table, width=20).splitlines() == [
        "name               n",
        "aaaaaaaaaaaaaaaaa  1",
        "aaaaaaaaaaaaa",
        "some words of      2",
        "text",
    ]


def test_names_are_not_broken_before_columns_go() -> None:
    columns = [Column("name", "text", keep=9), Column("text", "text", keep=8), Column("n", keep=3)]
    name = "-".join(["name"] * 6)
    shown = text_of(Table(columns, [(name, "a few words of text that wrap", 1)]), width=55).splitlines()
    assert shown == [f"{'name':29}  text", f"{name}  a few words of text that", f"{'':29}  wrap", "no room for: n"]


def test_groups_of_rows_have_headings() -> None:
    table = Table(
        [Column("a", "text"), Column("n")], [("x", 1), ("y", 2), ("z", 3)], headings=[(0, "some"), (2, "rest")]
    )
    assert text_of(table, width=20).splitlines() == ["a  n", "", "some", "x  1", "y  2", "", "rest", "z  3"]
    assert "\x1b[1msome\x1b[0m" in text_of(table, width=20, color=True)


def test_numbers_that_fit_no_screen_are_shown_in_full() -> None:
    table = Table([Column("n", keep=9), Column("m", keep=9)], [("1" * 30, "2" * 30)])
    assert "1" * 30 + "  " + "2" * 30 in text_of(table, width=20)


@pytest.mark.parametrize(
    ("value", "unicode", "bar"),
    [
        (0.0, True, "│"),
        (1.0, True, "│" + "█" * 20),
        (0.5, True, "│" + "█" * 10),
        (0.50625, True, "│" + "█" * 10 + "▏"),
        (0.04375, True, "│▉"),
        (1.5, True, "│" + "█" * 20),
        (0.5, False, "|" + "#" * 10),
        (None, True, ""),
    ],
)
def test_bars(value: float | None, unicode: bool, bar: str) -> None:
    table = Table([Column("n", keep=9), Column("", "bar")], [(1, value), (2, 0.0)])
    assert text_of(table, unicode=unicode).splitlines()[1] == f"1  {bar}".rstrip()


def test_columns_of_empty_cells_are_left_out() -> None:
    table = Table([Column("n"), Column("", "flag"), Column("gone", "text")], [(1, None, ""), (2, "", None)])
    assert text_of(table) == "n\n1\n2\n"


def test_table_without_rows_shows_its_header() -> None:
    assert text_of(Table([Column("a"), Column("b", "text")], [], title="none")) == "none\na  b\n"


def test_empty_report_is_empty_text() -> None:
    assert render(Report("test", [], {}), "table", width=80, color=True, unicode=True) == ""
    assert render(Report("test", [[], [Line("x")]], {}), "table", width=80, color=False, unicode=True) == "x\n"


HOSTILE = "[/red][bold]x\x1b[31m\x07\x9b2J\u202ey\r\nz"
ONE_LINE = HOSTILE.replace("\r\n", "\t\v")  # in prose a line break is a line break
TAMED = "[/red][bold]x[31m2Jy  z"


@pytest.mark.parametrize("color", [True, False])
def test_markup_is_literal_and_control_characters_are_gone(color: bool) -> None:
    blocks = [
        Line("t", label=HOSTILE),
        Table([Column(HOSTILE, "text"), Column("f", "flag")], [(HOSTILE, HOSTILE)], title=ONE_LINE, note=ONE_LINE),
    ]
    text = text_of(*blocks, color=color)
    assert text.count(TAMED) == 6
    assert "\x1b[31m" not in text
    assert not any(char in text for char in "\x07\x9b\u202e\r")
    assert ("\x1b" in text) == color


def test_long_label_stands_on_its_own_line() -> None:
    line = Line("it vanishes within a few steps", label="experiments/a-long-name.yaml")
    assert text_of(line, width=40) == "experiments/a-long-name.yaml\n  it vanishes within a few steps\n"


def test_wide_characters_keep_columns_straight() -> None:
    table = Table([Column("name", "text"), Column("n")], [("中文", 1), ("abcd", 2), ("e\u0301", 3)])
    assert text_of(table) == "name  n\n中文  1\nabcd  2\ne\u0301     3\n"


def test_verbatim_keeps_its_alignment_and_wraps_deeper() -> None:
    block = Verbatim("f    = sigmoid(W_xf @ x[t] + W_hf @ h[t-1])\nh[t] = f")
    assert text_of(block) == "  f    = sigmoid(W_xf @ x[t] + W_hf @ h[t-1])\n  h[t] = f\n"
    assert text_of(block, width=30) == "  f    = sigmoid(W_xf @ x[t] +\n      W_hf @ h[t-1])\n  h[t] = f\n"
