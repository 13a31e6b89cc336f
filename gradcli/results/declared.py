"""Numbers of a report, each declared once: the field of a dataclass with what it means and how it is written.

From the declaration come the keys of the JSON (`data_of`), the rows of the CSV (`records_of`), the table on the screen
(`table_of`), and the lists of keys in the documentation (`keys_of`); the field itself is the attribute in Python.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, is_dataclass
from itertools import repeat
from math import isfinite
from typing import TYPE_CHECKING, Any

from gradcli.results.model import PART, Block, Cell, Column, Deferred, Numbers, Records, Table

if TYPE_CHECKING:
    import numpy as np

    Array = np.ndarray[Any, Any]

_KEY = "key"


@dataclass(frozen=True)
class Key:
    """What a field means.

    Args:
        doc: what it is, in words, for the documentation.
        column: how it stands in a table; None where no table of rows shows it.
        written: the cell that a value shows there.
        csv: whether it is a field of the CSV.
        optional: left out of the JSON where it is None, instead of being null.
        null: tells of a value that it is null in the JSON, where Python has something empty.
    """

    doc: str
    column: Column | None = None
    written: Callable[[Any], Cell] = str
    csv: bool = True
    optional: bool = False
    null: Callable[[Any], bool] | None = None


def key(
    doc: str,
    *,
    title: str | None = None,
    written: Callable[[Any], Cell] = str,
    keep: int = 5,
    text: bool = False,
    csv: bool = True,
    optional: bool = False,
    null: Callable[[Any], bool] | None = None,
    **default: Any,
) -> Any:
    """Declare a field; see `Key`. `title`, `keep` and `text` make its `Column`, `default` is that of the dataclass."""
    column = None if title is None else Column(title, "text" if text else "number", keep=keep)
    return field(metadata={_KEY: Key(doc, column, written, csv, optional, null)}, **default)


def keys_of(kind: type[Any]) -> Mapping[str, Key]:
    """Return the declared fields of a dataclass by name, in their order."""
    return {each.name: each.metadata[_KEY] for each in fields(kind) if _KEY in each.metadata}


def data_of(value: Any) -> Any:
    """Return a value as plain data: declared fields by their names, long arrays as they are, None for no finite number.

    >>> @dataclass(frozen=True)
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


def table_of(kind: type[Any], rows: Sequence[Any], *, title: str = "", note: str = "") -> list[Block]:
    """Return the rows under the columns of their declared fields; nothing where there are none."""
    shown = {name: declared for name, declared in keys_of(kind).items() if declared.column is not None}
    columns = [declared.column for declared in shown.values() if declared.column is not None]
    cells = [[_cell(declared, getattr(row, name)) for name, declared in shown.items()] for row in rows]
    return [Table(columns, cells, title=title, note=note)] if cells else []


def _cell(declared: Key, value: Any) -> Cell:
    return None if value is None else declared.written(value)


def records_of(kind: type[Any], rows: Sequence[Any]) -> Records:
    """Return one record for each of some rows."""
    header = [name for name, declared in keys_of(kind).items() if declared.csv]
    return Records(header, [[_plain(getattr(row, name)) for name in header] for row in rows])


def _plain(value: Any) -> Cell:
    found: Cell = data_of(value)
    return found


@dataclass(frozen=True)
class ByDistance:
    """Records with one row for each distance: runs with a label, and arrays by distance that are declared fields.

    The rows are made while they are walked over: there may be millions.
    """

    kind: type[Any]
    runs: Sequence[tuple[str, Any]]

    @property
    def records(self) -> Records:
        return Records(("label", *self._names), self)

    @property
    def _names(self) -> list[str]:
        return [name for name, declared in keys_of(self.kind).items() if declared.csv]

    def __iter__(self) -> Iterator[Sequence[Cell]]:
        for label, curve in self.runs:
            columns = [getattr(curve, name) for name in self._names]
            for start in range(0, len(columns[0]), PART):
                yield from zip(repeat(label), *_parts(columns, start), strict=False)


def _parts(columns: Sequence[Any], start: int) -> Iterator[Sequence[Cell]]:
    """Yield a part of each column; columns that are one array share the numbers made of it."""
    made: dict[int, Sequence[Cell]] = {}
    for column in columns:
        if id(column) not in made:
            part = column[start : start + PART]
            made[id(column)] = part if isinstance(part, range) else Numbers(part)[:]
        yield made[id(column)]
