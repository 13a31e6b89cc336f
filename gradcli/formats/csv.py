"""The report's records as CSV, for spreadsheets and data frames: one header, full precision."""

from __future__ import annotations

import csv
import math
from collections.abc import Iterator, Sequence
from io import StringIO

from gradcli.errors import UsageError
from gradcli.formats.text import printable
from gradcli.report.model import Cell, Report


def render(report: Report, *, width: int | None = None, color: bool = False, unicode: bool = True) -> str:
    """Return `report.records`: floats with all their digits, None as an empty field.

    Raises ValueError on NaN or infinity, which a report states as None, and UsageError for a report without records.
    """
    if not report.records.header:
        raise UsageError(f"'{report.command}' has no CSV form; take another --format")
    out = StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(report.records.header)
    writer.writerows(_fields(row) for row in report.records.rows)
    return out.getvalue()


def _fields(row: Sequence[Cell]) -> Iterator[Cell]:
    for cell in row:
        if isinstance(cell, str):
            yield printable(cell)
        elif isinstance(cell, float) and not math.isfinite(cell):
            raise ValueError(f"a record holds {cell}; it must be finite or None")
        else:
            yield cell
