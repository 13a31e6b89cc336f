"""A long report is written in many short pieces, and no format ever holds all of it."""

from __future__ import annotations

import csv
import json
import tracemalloc
from collections.abc import Iterator, Sequence
from io import StringIO
from typing import Any

import numpy as np
import pytest

from gradcli.formats import render_pieces
from gradcli.results.model import PART, Cell, Numbers, Records, Report

pytestmark = pytest.mark.slow

COUNT = 200_000
LONGEST_PIECE = 2**18
KEPT_BYTES = 2 * 2**20
"""Far less than the texts below, which have 8 and 10 MB; any Python list of the numbers alone takes 6 MB."""

VALUES = np.random.default_rng(0).normal(size=COUNT) * 1e4
VALUES[[0, PART - 1, PART, COUNT - 1]] = -np.inf
PLAIN = [None if np.isinf(value) else value for value in VALUES.tolist()]


class Rows:
    """The rows of the CSV, made while they are walked over."""

    def __iter__(self) -> Iterator[Sequence[Cell]]:
        for index in range(COUNT):
            value = float(VALUES[index])
            yield f"arm, {index % 2}", index, None if np.isinf(value) else value, 0.5


@pytest.fixture
def long() -> Report:
    data = {"curve": {"distance": range(COUNT), "log10_norm": Numbers(VALUES)}, "list": Numbers(VALUES), "kind": "dead"}
    return Report("test", [], data, Records(("label", "distance", "log10_norm", "half"), Rows()))


def pieces_of(report: Report, kind: str) -> Iterator[str]:
    return render_pieces(report, kind, width=None, color=False, unicode=True)


@pytest.mark.parametrize("kind", ["json", "csv"])
def test_the_pieces_are_many_and_short(long: Report, kind: str) -> None:
    lengths = list(map(len, pieces_of(long, kind)))
    assert max(lengths) < LONGEST_PIECE
    assert sum(lengths) > 20 * LONGEST_PIECE


@pytest.mark.parametrize("kind", ["json", "csv"])
def test_writing_holds_a_few_pieces_at_most(long: Report, kind: str) -> None:
    tracemalloc.start()
    try:
        length = sum(map(len, pieces_of(long, kind)))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < KEPT_BYTES < length


def test_the_json_is_complete_and_laid_out_as_if_it_were_short(long: Report) -> None:
    text = "".join(pieces_of(long, "json"))
    expected = {"curve": {"distance": list(range(COUNT)), "log10_norm": PLAIN}, "list": PLAIN, "kind": "dead"}
    assert json.loads(text) == expected
    assert text == "".join(pieces_of(Report("test", [], expected), "json"))
    assert text.splitlines()[3] == f'    "log10_norm": {json.dumps(PLAIN)}'


def test_the_csv_is_what_the_csv_module_writes(long: Report) -> None:
    expected = StringIO()
    csv.writer(expected, lineterminator="\n").writerows([long.records.header, *long.records.rows])
    assert "".join(pieces_of(long, "csv")) == expected.getvalue()


@pytest.mark.parametrize(
    "rows",
    [
        [(1.0, 1.0), (2.0, 2.0)],
        [(0.0, -0.0), (-0.0, 0.0)],
        [(1, 1.0), (None, 1)],
        [("", None), ('"', "a,b"), ("x", 1e300)],
        [(np.float64(0.1), 2), (0.1, 2)],
    ],
)
def test_equal_columns_keep_their_own_text(rows: list[tuple[Any, ...]]) -> None:
    expected = StringIO()
    csv.writer(expected, lineterminator="\n").writerows([("a", "b"), *rows])
    assert "".join(pieces_of(Report("test", [], {}, Records(("a", "b"), rows)), "csv")) == expected.getvalue()


def test_a_lone_empty_field_is_still_a_row() -> None:
    report = Report("test", [], {}, Records(("a",), [(None,), ("",), (1,)]))
    assert "".join(pieces_of(report, "csv")) == 'a\n""\n""\n1\n'


def test_numbers_are_a_sequence_without_what_is_not_finite() -> None:
    numbers = Numbers(np.array([1.5, -np.inf, np.nan, 2.0]))
    assert len(numbers) == 4
    assert list(numbers) == numbers[:] == [1.5, None, None, 2.0]
    assert (numbers[0], numbers[1], numbers[-1], numbers[1:]) == (1.5, None, 2.0, [None, None, 2.0])
    assert list(Numbers(VALUES)) == PLAIN
