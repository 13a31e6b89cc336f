"""The report's records as CSV, for spreadsheets and data frames: one header, full precision."""

from __future__ import annotations

import csv
import math
from collections.abc import Iterator, Sequence
from io import StringIO
from itertools import islice
from operator import is_

from gradcli.errors import UsageError
from gradcli.formats.text import printable
from gradcli.results.model import PART, Cell, Report

#: What a formula begins with, also in the wide forms of East Asian keyboards.
_FORMULA_SIGNS = tuple("=+-@＝＋－＠")


def render(report: Report, *, width: int | None = None, color: bool = False, unicode: bool = True) -> Iterator[str]:
    """Yield `report.records`, some rows a piece: floats with all their digits, None as an empty field.

    Raises ValueError on NaN or infinity, which a report states as None, and UsageError for a report without records.
    """
    header = report.records.header
    if not header:
        raise UsageError(f"'{report.command}' has no CSV form; take another --format")
    yield _lines([header])
    rows = iter(report.records.rows)
    while some := list(islice(rows, PART)):
        yield _lines(some)


def _lines(rows: Sequence[Sequence[Cell]]) -> str:
    """Return rows as lines, made column by column: there may be millions of rows, and csv.writer is slow on numbers."""
    columns: list[Sequence[Cell]] = list(zip(*rows, strict=True))
    texts: list[list[str]] = []
    for number, column in enumerate(columns):
        # The quantiles of a single sequence are the same objects, and most of the time goes into writing floats.
        same = number > 0 and all(map(is_, column, columns[number - 1]))
        texts.append(texts[-1] if same else _texts(column))
    if len(texts) == 1:  # an empty line would be no row
        texts[0] = [text or '""' for text in texts[0]]
    return "\n".join([*map(",".join, zip(*texts, strict=True)), ""])


def _texts(column: Sequence[Cell]) -> list[str]:
    kinds = set(map(type, column))
    if kinds == {float} and all(map(math.isfinite, column)):  # type: ignore[arg-type]
        return list(map(repr, column))
    if kinds == {int}:
        return list(map(str, column))
    words = {cell: _quoted(_plain(printable(cell))) for cell in set(column) if isinstance(cell, str)}
    return [words[cell] if isinstance(cell, str) else _number(cell) for cell in column]


def _number(cell: float | int | None) -> str:
    if cell is None:
        return ""
    if not math.isfinite(cell):
        raise ValueError(f"a record holds {cell}; it must be finite or None")
    return str(cell)


def _plain(text: str) -> str:
    """Return a text that no spreadsheet runs: behind an apostrophe where it begins as a formula does.

    A label is a file's name, and files come from anywhere ("=HYPERLINK(...).yaml"). Numbers never come this way, except
    as the text of one, which is left alone.
    """
    if text.lstrip()[:1] not in _FORMULA_SIGNS:
        return text
    try:
        float(text)
    except ValueError:
        return f"'{text}"
    return text


def _quoted(text: str) -> str:
    """Return a field in quotation marks if it needs them."""
    out = StringIO()
    csv.writer(out, lineterminator="\n").writerow((text, ""))
    return out.getvalue().removesuffix(",\n")
