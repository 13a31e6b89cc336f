"""JSON, CSV and Markdown: what must survive, what must be refused, what must be escaped."""

from __future__ import annotations

import csv
import json
import math
import os
import subprocess
import sys
from collections.abc import Mapping
from io import StringIO
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import gradcli
from gradcli.errors import UsageError
from gradcli.formats import csv as csv_format
from gradcli.formats import json as json_format
from gradcli.formats import markdown
from gradcli.formats.html import Ids, blocks
from gradcli.results.model import Block, Column, Line, Records, Report, Table, Verbatim


def as_json(data: Mapping[str, Any]) -> str:
    return "".join(json_format.render(Report("test", [], data)))


def as_csv(*rows: tuple[Any, ...]) -> str:
    header = [f"c{i}" for i in range(len(rows[0]))]
    return "".join(csv_format.render(Report("test", [], {}, Records(header, rows))))


def as_markdown(*blocks: Block) -> str:
    return "".join(markdown.render(Report("test", [blocks], {})))


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


@pytest.mark.slow
@given(st.dictionaries(st.text(), VALUES))
def test_json_says_what_the_data_says(data: dict[str, Any]) -> None:
    text = as_json(data)
    assert json.loads(text) == data
    assert text.isascii()
    assert text.endswith("\n")


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("place", [lambda v: v, lambda v: [1.0, v], lambda v: {"k": [{"m": v}]}])
def test_json_refuses_what_json_does_not_have(value: float, place: Any) -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        as_json({"x": place(value)})


def test_json_refuses_objects_without_a_form() -> None:
    with pytest.raises(TypeError, match="no form for ndarray"):
        as_json({"x": np.zeros(3)})


def test_json_takes_read_only_mappings_and_tuples() -> None:
    assert json.loads(as_json(MappingProxyType({"a": MappingProxyType({"b": (1, 2)})}))) == {"a": {"b": [1, 2]}}


def test_a_long_curve_stands_on_one_line() -> None:
    lines = as_json({"curve": {"norm": [0.1] * 1000, "status": "ok"}}).splitlines()
    assert len(lines) == 6
    assert lines[2] == '    "norm": [' + ", ".join(["0.1"] * 1000) + "],"


def test_csv_keeps_every_digit_and_leaves_missing_values_empty() -> None:
    assert as_csv(("a,b", 0.1 + 0.2, None), ('q"', -5e-324, 7)) == (
        'c0,c1,c2\n"a,b",0.30000000000000004,\n"q""",-5e-324,7\n'
    )


@given(st.lists(st.floats(allow_nan=False, allow_infinity=False), min_size=1))
def test_csv_floats_read_back_exactly(values: list[float]) -> None:
    rows = list(csv.reader(StringIO(as_csv(*((value,) for value in values)))))
    assert [float(row[0]) for row in rows[1:]] == values


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, np.float64("-inf")])
def test_csv_refuses_what_is_not_finite(value: float) -> None:
    with pytest.raises(ValueError, match="must be finite or None"):
        as_csv(("a", value))


def test_csv_of_a_report_without_records_is_a_usage_error() -> None:
    with pytest.raises(UsageError, match="'schema' has no CSV form"):
        next(csv_format.render(Report("schema", [], {})))


@pytest.mark.parametrize("start", ["=", "+", "-", "@", "  =", "\t=", "\x01=", "＝", "－"])
def test_csv_starts_no_formula_in_a_spreadsheet(start: str) -> None:
    (row,) = list(csv.reader(StringIO(as_csv((f"{start}cmd|' /C calc'!A0",)))))[1:]
    assert row[0].startswith("'")
    assert row[0].endswith("cmd|' /C calc'!A0")


def test_csv_leaves_numbers_and_ordinary_labels_alone() -> None:
    row = ("-1.5", "+3e-7", -2, -0.25, "a-b", "lstm", "c -> f -> c", "")
    assert as_csv(row) == "c0,c1,c2,c3,c4,c5,c6,c7\n-1.5,+3e-7,-2,-0.25,a-b,lstm,c -> f -> c,\n"


def test_csv_has_no_control_characters() -> None:
    assert as_csv(("a\x1b[31m\nb",)) == "c0\na[31m b\n"


@pytest.mark.parametrize(
    ("text", "escaped"),
    [
        ("a|b", r"a\|b"),
        ("<b>*bold*</b>", r"\<b\>\*bold\*\</b\>"),
        ("W_hh stays, __init__ not", r"W_hh stays, \_\_init\_\_ not"),
        ("`code` [link](x)", r"\`code\` \[link\](x)"),
        ("# no heading", r"\# no heading"),
        ("1. no list", r"1\. no list"),
        ("- no list", r"\- no list"),
        ("---", r"\---"),
        ("0.5 is a number", "0.5 is a number"),
        ("-0.5 is a number", "-0.5 is a number"),
        ("back\\slash \x1b[1m", r"back\\slash \[1m"),
    ],
)
def test_markdown_shows_text_literally(text: str, escaped: str) -> None:
    assert as_markdown(Line(text)) == f"{escaped}\n"


def test_markdown_table_cells_are_escaped_and_bars_left_out() -> None:
    columns = [Column("a|b", "text"), Column("n", spec=".1f"), Column("", "bar"), Column("", "flag")]
    assert as_markdown(Table(columns, [("x|y\nz", 1.25, 0.5, None)])) == (
        "| a\\|b | n |\n| :--- | ---: |\n| x\\|y z | 1.2 |\n"
    )


def test_headings_of_groups_of_rows() -> None:
    table = Table([Column("a", "text"), Column("n")], [("x", 1), ("y", 2)], headings=[(0, "so|me"), (1, "rest")])
    assert as_markdown(table) == (
        "| a | n |\n| :--- | ---: |\n| **so\\|me** |  |\n| x | 1 |\n| **rest** |  |\n| y | 2 |\n"
    )
    found = "".join(blocks([table], Ids(), "about"))
    assert found.count('<tr><th scope="rowgroup" colspan="2">') == 2
    assert found.index(">so|me<") < found.index(">x<") < found.index(">rest<") < found.index(">y<")


def test_markdown_fence_is_longer_than_any_inside() -> None:
    assert as_markdown(Verbatim("a\n````\nb")) == "`````text\na\n````\nb\n`````\n"


@pytest.mark.parametrize("name", ["table", "json", "csv", "markdown"])
def test_formats_import_neither_rich_nor_typer_nor_numpy(name: str) -> None:
    code = (
        "import sys; from gradcli.formats import render; from gradcli.results.model import Records, Report;"
        f"render(Report('t', [], {{}}, Records(['a'], [])), {name!r}, width=None, color=False, unicode=True);"
        "print(sorted({'rich', 'typer', 'numpy', 'pydantic'} & set(sys.modules)))"
    )
    env = os.environ | {"PYTHONPATH": str(Path(gradcli.__file__).parents[1])}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=env)
    assert done.stdout == "[]\n"
