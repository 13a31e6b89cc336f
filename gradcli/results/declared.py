"""Numbers of a report, each declared once: the field of a dataclass with what it means and how it is written.

From the declaration come the keys of the JSON (`data_of`), the rows of the CSV (`records_of`), the table on the screen
(`table_of`), and the lists of keys in the documentation (`keys_of`); the field itself is the attribute in Python.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import field, fields, is_dataclass
from itertools import repeat
from math import isfinite
from typing import TYPE_CHECKING, Any

from gradcli.frozen import frozen
from gradcli.results.model import PART, Block, Cell, Column, Deferred, Numbers, Records, Table

if TYPE_CHECKING:
    import numpy as np

    Array = np.ndarray[Any, Any]

_KEY = "key"


@frozen
class Key:
    """What a field means.

    Args:
        doc: what it is, for the documentation: Markdown, with links as seen from its pages.
        column: how it stands in a table; None where no table of rows shows it.
        written: the cell that a value shows there. missing: the one of None.
        of_row: the cell, where it takes the whole row to tell.
        csv: whether it is a field of the CSV.
        optional: left out of the JSON where it is None, instead of being null.
        null: tells of a value that it is null in the JSON, where Python has something empty.
    """

    doc: str
    column: Column | None = None
    written: Callable[[Any], Cell] = str
    missing: Cell = None
    of_row: Callable[[Any], Cell] | None = None
    csv: bool = True
    optional: bool = False
    null: Callable[[Any], bool] | None = None

    def cell(self, row: Any, name: str) -> Cell:
        """Return what stands in a table for the field `name` of a row."""
        if self.of_row is not None:
            return self.of_row(row)
        value = getattr(row, name)
        return self.missing if value is None else self.written(value)


def key(
    doc: str,
    *,
    title: str | None = None,
    written: Callable[[Any], Cell] = str,
    missing: Cell = None,
    of_row: Callable[[Any], Cell] | None = None,
    keep: int = 5,
    text: bool = False,
    csv: bool = True,
    optional: bool = False,
    null: Callable[[Any], bool] | None = None,
    **default: Any,
) -> Any:
    """Declare a field; see `Key`. `title`, `keep` and `text` make its `Column`, `default` is that of the dataclass."""
    column = None if title is None else Column(title, "text" if text else "number", keep=keep)
    return field(metadata={_KEY: Key(doc, column, written, missing, of_row, csv, optional, null)}, **default)


def keys_of(kind: type[Any]) -> Mapping[str, Key]:
    """Return the declared fields of a dataclass by name, in their order."""
    return {each.name: each.metadata[_KEY] for each in fields(kind) if _KEY in each.metadata}


def data_of(value: Any) -> Any:
    """Return a value as plain data: declared fields by their names, long arrays as they are, None for no finite number.

    >>> @frozen
    ... class Point:
    ...     x: float = key("where")
    >>> data_of([Point(1.5), Point(float("inf"))])
    [{'x': 1.5}, {'x': None}]
    """
    if value is None or isinstance(value, str | bool | int | range | Numbers | Deferred):
        return value
    if isinstance(value, float):
        return float(value) if isfinite(value) else None
    if is_dataclass(value):
        return dict(_entries(value))
    if isinstance(value, Mapping):
        return {name: data_of(entry) for name, entry in value.items()}
    if isinstance(value, Sequence):
        return [data_of(entry) for entry in value]
    return Numbers(value) if value.ndim == 1 else [data_of(row) for row in value]


def _entries(value: Any) -> Iterator[tuple[str, Any]]:
    for name, declared in keys_of(type(value)).items():
        entry = getattr(value, name)
        if entry is not None or not declared.optional:
            yield name, None if declared.null is not None and declared.null(entry) else data_of(entry)


def table_of(
    kind: type[Any],
    rows: Sequence[Any],
    *,
    order: Sequence[str] = (),
    title: str = "",
    note: str = "",
    group: Callable[[Any], str] | None = None,
) -> list[Block]:
    """Return the rows under the columns of their declared fields; nothing where there are none.

    order: names of fields, where the columns stand in another order than these.
    group: what stands above a row and those that follow it, where it is another than that of the row before.
    """
    declared = keys_of(kind)
    shown = {name: declared[name] for name in order or declared if declared[name].column is not None}
    columns = [each.column for each in shown.values() if each.column is not None]
    cells = [[each.cell(row, name) for name, each in shown.items()] for row in rows]
    words = [group(row) for row in rows] if group is not None else []
    headings = [(number, word) for number, word in enumerate(words) if words[number - 1 : number] != [word]]
    return [Table(columns, cells, title=title, note=note, headings=headings)] if cells else []


def columns_of(value: Any, prefix: str = "") -> dict[str, Any]:
    """Return the fields of the CSV by their names behind a prefix: a column of many rows each, or what is in all."""
    return {f"{prefix}{name}": getattr(value, name) for name in csv_names(type(value))}


def records_of(kind: type[Any], rows: Sequence[Any]) -> Records:
    """Return one record for each of some rows, of plain fields."""
    header = csv_names(kind)
    return Records(header, [[_plain(getattr(row, name)) for name in header] for row in rows])


def csv_names(kind: type[Any]) -> list[str]:
    """Return the names of the fields that are in the CSV."""
    return [name for name, declared in keys_of(kind).items() if declared.csv]


def _plain(value: Any) -> Cell:
    found: Cell = data_of(value)
    return found


@frozen
class InColumns:
    """Records that are kept as columns, which are arrays: rows are made while they are walked over, maybe millions.

    parts: what stands under each name of the header, in some rows: a column, or one cell that is in all of them.
    """

    header: Sequence[str]
    parts: Sequence[Mapping[str, Any]]

    @property
    def records(self) -> Records:
        return Records(self.header, self)

    def __iter__(self) -> Iterator[Sequence[Cell]]:
        for part in self.parts:
            columns = [part[name] for name in self.header]
            count = max((len(column) for column in columns if _is_column(column)), default=1)
            for start in range(0, count, PART):
                yield from zip(*_slices(columns, start, min(PART, count - start)), strict=True)


def _is_column(value: Any) -> bool:
    return not (value is None or isinstance(value, str | int | float))


def _slices(columns: Sequence[Any], start: int, count: int) -> Iterator[Iterable[Cell]]:
    """Yield some rows of each column; columns that are one array share the numbers made of it."""
    made: dict[int, Sequence[Cell]] = {}
    for column in columns:
        if not _is_column(column):
            yield repeat(_plain(column), count)
            continue
        if id(column) not in made:
            part = column[start : start + count]
            made[id(column)] = part if isinstance(part, range | list | tuple) else Numbers(part)[:]
        yield made[id(column)]
