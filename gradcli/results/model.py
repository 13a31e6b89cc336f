"""What a command found, ready to be shown: lines, tables, and the same as data. No format, width or colour here.

A format walks over `blocks` (for people) or takes `data` or `records` (for programs); it knows no diagnostic by name,
so a new diagnostic adds blocks and keys here and changes no format.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import field, replace
from functools import cached_property
from itertools import chain
from math import isfinite
from typing import TYPE_CHECKING, Any, Literal, overload

from gradcli.frozen import frozen
from gradcli.results.suites import Suites

if TYPE_CHECKING:
    import numpy as np

#: Long lists and tables are made plain, and written, so many numbers or rows at a time.
PART = 2048

Style = Literal["plain", "title", "good", "warn", "bad", "dim"]
Cell = str | float | int | None


@frozen
class Column:
    """A column of a table.

    kind: "number" and "text" show the value; "bar" draws a number in [0, 1] as a bar, next to the column that states it
    (a format that cannot draw leaves bars out); "flag" shows a short warning in the style "warn". `spec` formats
    numbers (as in ``format(value, spec)``); None in a cell shows as an empty cell, and a column of empty cells is
    not shown. `keep` orders columns by importance: where the screen is too narrow, those with the lowest `keep` go
    first, and never those with 9.
    """

    name: str
    kind: Literal["number", "text", "bar", "flag"] = "number"
    spec: str = ""
    keep: int = 5


@frozen
class Table:
    """Rows under columns; `title` stands above, `note` below.

    headings: (the number of a row, what stands above it), of rows in groups.
    """

    columns: Sequence[Column]
    rows: Sequence[Sequence[Cell]]
    title: str = ""
    note: str = ""
    headings: Sequence[tuple[int, str]] = ()


@frozen
class Line:
    """A line of prose. `label` is a leading word in the line's style ("VANISHING"); the text follows it, unstyled.

    Without a label, the style is the text's. The texts of a group's labelled lines start in the same column. Too long
    for the screen, the text wraps below its own start, and a line break in it continues there too; parts set apart by
    two or more spaces stay together.
    """

    text: str
    label: str = ""
    style: Style = "plain"


@frozen
class Verbatim:
    """Text whose line breaks and alignment are its own: equations, formulas."""

    text: str


Block = Line | Table | Verbatim


def filled(groups: Sequence[Sequence[Block]]) -> list[Sequence[Block]]:
    """Return the groups in which there is something."""
    return [group for group in groups if group]


@frozen
class Records:
    """The rows of the CSV: full precision, one header. `rows` may be made while they are walked over."""

    header: Sequence[str]
    rows: Iterable[Sequence[Cell]]


class Numbers(Sequence[float | None]):
    """A long list of numbers that stays the array it is: plain ones are made as they are taken, slice by slice.

    What is not finite reads as None.
    """

    def __init__(self, values: np.ndarray[Any, Any]) -> None:
        """Take an array of shape (n,), which must not change any more."""
        self._values = values

    def __len__(self) -> int:
        return len(self._values)

    @overload
    def __getitem__(self, key: int) -> float | None: ...

    @overload
    def __getitem__(self, key: slice) -> list[float | None]: ...

    def __getitem__(self, key: int | slice) -> float | list[float | None] | None:
        found: Any = self._values[key].tolist()
        if not isinstance(key, slice):
            return found if isfinite(found) else None
        return found if all(map(isfinite, found)) else [value if isfinite(value) else None for value in found]

    def __iter__(self) -> Iterator[float | None]:
        return chain.from_iterable(self[i : i + PART] for i in range(0, len(self), PART))


class Deferred(Mapping[str, Any]):
    """A mapping made when it is first looked into: a table needs no lists of a million distances."""

    def __init__(self, make: Callable[[], Mapping[str, Any]]) -> None:
        self._make = make

    @cached_property
    def _made(self) -> Mapping[str, Any]:
        return self._make()

    def __getitem__(self, key: str) -> Any:
        return self._made[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self._made)

    def __len__(self) -> int:
        return len(self._made)

    def __repr__(self) -> str:
        return repr(self._made)

    def __reduce__(self) -> tuple[Any, ...]:
        # What makes it may hold anything; a copy has what is made.
        return dict, (plain(self),)


def plain(value: Any) -> Any:
    """Return data of a report as dicts, lists, and what they hold, all of it made.

    >>> plain(Deferred(lambda: {"distance": range(3)}))
    {'distance': [0, 1, 2]}
    """
    if isinstance(value, Mapping):
        return {name: plain(entry) for name, entry in value.items()}
    if isinstance(value, Numbers):
        return value[:]
    return [plain(entry) for entry in value] if isinstance(value, Sequence) and not isinstance(value, str) else value


@frozen
class Report:
    """The result of one command.

    blocks: what a person reads, in order; between groups of blocks stands one empty line.
    data: what `--format json` prints; finite numbers, strings, sequences, mappings and None only.
    records: what `--format csv` prints. latex: what `--format latex` prints, of commands that derive formulas.
    full: the blocks that `--full` prints in place of `blocks`; none where there is no more to say.
    suites: what `--format junit` and `--format github` print, of commands that test.
    """

    command: str
    blocks: Sequence[Sequence[Block]]
    data: Mapping[str, Any] = field(default_factory=dict)
    records: Records = field(default_factory=lambda: Records((), ()))
    latex: str = ""
    full: Sequence[Sequence[Block]] = ()
    suites: Suites | None = None

    def in_full(self) -> Report:
        """Return the same report with all that a person may read of it."""
        return replace(self, blocks=self.full or self.blocks, full=())
