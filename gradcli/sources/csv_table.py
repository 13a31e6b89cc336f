"""CSV files as tables of numbers: a row a line, an optional header, every mistake told with its row and column."""

from __future__ import annotations

import math
from array import array
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from gradcli.errors import InputFileError, did_you_mean
from gradcli.sources.files import FieldError, not_utf8, unreadable

Columns = Sequence[str | int]


def read_csv(path: Path, name: str, columns: Columns | None = None) -> np.ndarray:
    """Return the rows of numbers of a CSV file, finite float64 (rows, columns), after an optional header line.

    The header is a first line without a number in it.

    columns: those to take, by their name in the header or their number from 1; what stands in the others is not read,
    and the header is then a first line without a number in those. None takes all.

    Raises InputFileError, and FieldError for a column that there is not.
    """
    import csv

    header: list[str] = []
    width = 0
    chosen: Sequence[int] = ()
    values = array("d")
    lines = 0
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.reader(file, strict=True)
            for row in reader:
                if not any(map(str.strip, row)):
                    continue  # an empty line
                if not width:
                    width = len(row)
                    titles = [cell.strip() for cell in row]
                    chosen = range(width) if columns is None else _places(columns, titles, name)
                    if not any(_is_number(row[column]) for column in chosen):
                        header = titles
                        continue
                    _require_numbers(columns, name)
                if len(row) != width:
                    raise InputFileError(
                        f"{name}: row {reader.line_num}, column {min(len(row), width) + 1}: "
                        f"expected {width} column{'s' * (width > 1)} as in the first row; got {len(row)}"
                    )
                for column in chosen:
                    values.append(_cell(row[column], name, reader.line_num, column, header))
                lines += 1
    except UnicodeDecodeError as error:
        raise InputFileError(not_utf8(name, error)) from None
    except csv.Error as error:
        raise InputFileError(f"{name}: row {reader.line_num}, column 1: is not CSV: {error}") from None
    except OSError as error:
        raise InputFileError(unreadable(name, error)) from None
    if not lines:
        raise InputFileError(f"{name}: holds no numbers" + (", only a header line" if header else ""))
    return np.frombuffer(values, dtype=np.float64).reshape(lines, len(chosen))


def column_number(column: int, width: int, name: str, index: int) -> int:
    """Return the place, from 0, of a column that is given by its number from 1 as entry `index` of `columns`.

    Raises FieldError where there is no such column.
    """
    if column > width:
        raise FieldError(f"{name} has {width} column{'s' * (width > 1)}; got {column}", "columns", index)
    return column - 1


def add_column(places: list[int], place: int, index: int) -> None:
    """Add the place of entry `index` of `columns` to those before it; raise FieldError where it is among them."""
    if place in places:
        raise FieldError(f"column {place + 1} is given twice", "columns", index)
    places.append(place)


def _places(columns: Columns, titles: Sequence[str], name: str) -> list[int]:
    """Return where each of the wanted columns stands in the rows of a file, whose first line has `titles`."""
    found: list[int] = []
    for index, column in enumerate(columns):
        if isinstance(column, int):
            add_column(found, column_number(column, len(titles), name, index), index)
            continue
        if titles.count(column) > 1:
            raise FieldError(
                f"{name} has {titles.count(column)} columns that are called {column!r}; give the number of the one"
                " that is meant, from 1",
                "columns",
                index,
            )
        if column not in titles:
            raise FieldError(
                f"no column is called {column!r} in the first line of {name}{did_you_mean(column, titles)}",
                "columns",
                index,
            )
        add_column(found, titles.index(column), index)
    return found


def _require_numbers(columns: Columns | None, name: str) -> None:
    """Refuse names of columns where the file has no header to take them from."""
    for index, column in enumerate(columns or ()):
        if isinstance(column, str):
            raise FieldError(f"{name} has no header line; give the number of the column, from 1", "columns", index)


def _is_number(cell: str) -> bool:
    try:
        _parse(cell)
    except ValueError:
        return False
    return True


def _parse(cell: str) -> float:
    # float() also takes Python's own 1_000 and the digits of every script.
    if "_" in cell or not cell.isascii():
        raise ValueError(cell)
    return float(cell)


def _cell(cell: str, name: str, line: int, column: int, header: list[str]) -> float:
    try:
        number = _parse(cell)
        if math.isfinite(number):
            return number
        expected = "a finite number"
    except ValueError:
        expected = "a number"
    title = f" ({header[column]!r})" if header else ""
    got = repr(cell if len(cell) <= 40 else cell[:40] + "...") if cell.strip() else "an empty cell"
    hint = "; columns are separated by commas" if any(mark in cell for mark in ";\t") else ""
    raise InputFileError(f"{name}: row {line}, column {column + 1}{title}: expected {expected}; got {got}{hint}")
