"""Blocks as HTML: prose, tables, preformatted text. Fragments, for a page (`gradcli.formats.page`) or a notebook.

Every text is taken for hostile: control characters go, and markup is shown instead of read.
"""

from __future__ import annotations

import html
import re
from collections.abc import Iterator, Sequence
from itertools import count, groupby

from gradcli.formats.text import cell_text, filled_columns, printable
from gradcli.results.model import Block, Cell, Column, Line, Table, Verbatim

#: Parts of a line set apart by two or more spaces, which HTML would make one.
_GAP = re.compile(" {2,}")
_WIDE_SPACE = "\N{EM SPACE} "


class Ids:
    """Names of the elements of one document: each is given once."""

    def __init__(self) -> None:
        self._given: set[str] = set()

    def new(self, words: str) -> str:
        """Return a name made of the ASCII letters and digits of `words` that no element has yet."""
        slug = re.sub("[^a-z0-9]+", "-", words.lower()).strip("-") or "part"
        name = next(name for n in count(1) if (name := slug if n == 1 else f"{slug}-{n}") not in self._given)
        self._given.add(name)
        return name


def text(words: str) -> str:
    """Return `words` so that a browser shows them, in an element or a quoted attribute, and obeys nothing in them."""
    return html.escape(printable(words))


def blocks(found: Sequence[Block], ids: Ids, caption: str) -> Iterator[str]:
    """Yield a group of blocks as HTML.

    Args:
        caption: what a table without a title is about.
    """
    for labelled, group in groupby(found, key=lambda block: isinstance(block, Line) and bool(block.label)):
        if labelled:
            yield _labelled([block for block in group if isinstance(block, Line)])
            continue
        for block in group:
            match block:
                case Line():
                    yield f'<p class="{block.style}">{lines(block.text)}</p>\n'
                case Verbatim():
                    yield preformatted(block.text)
                case Table():
                    yield table(block, ids, caption)


def preformatted(source: str) -> str:
    """Return text whose line breaks are its own. Too wide for the screen, it scrolls by itself, by keyboard as well."""
    shown = "\n".join(map(text, source.rstrip("\n").split("\n")))
    return f'<pre tabindex="0"><code>{shown}</code></pre>\n'


def _labelled(found: Sequence[Line]) -> str:
    """Return lines with a leading word as a list of terms and what is said of them."""
    rows = (f'<dt class="{line.style}">{text(line.label)}</dt><dd>{lines(line.text)}</dd>\n' for line in found)
    return f"<dl>\n{''.join(rows)}</dl>\n"


def lines(words: str) -> str:
    """Return prose with its line breaks, and its wide spaces."""
    return "<br>\n".join(text(_GAP.sub(_WIDE_SPACE, line)) for line in words.split("\n"))


def table(found: Table, ids: Ids, caption: str) -> str:
    """Return a table in a box of its own, which scrolls where the screen is too narrow for it."""
    name = ids.new(found.title or caption)
    columns = [(index, found.columns[index]) for index in filled_columns(found)]
    header = "".join(_header(column) for _, column in columns)
    headings = {
        number: f'<tr><th scope="rowgroup" colspan="{len(columns)}">{text(words)}</th></tr>\n'
        for number, words in found.headings
    }
    rows = "".join(
        headings.get(number, "") + _row([(row[index], column) for index, column in columns])
        for number, row in enumerate(found.rows)
    )
    # Without another title, what it is about stands above it already, for who sees the page.
    shown = "" if found.title not in ("", caption) else ' class="said"'
    note, described = "", ""
    if found.note:
        note_name = ids.new(f"{name}-note")
        note = f'<p class="dim" id="{note_name}">{lines(found.note)}</p>\n'
        described = f' aria-describedby="{note_name}"'
    return (
        f'<div class="wide" role="region" tabindex="0" aria-labelledby="{name}">\n<table{described}>\n'
        f'<caption{shown} id="{name}">{text(found.title or caption)}</caption>\n'
        f"<thead>\n<tr>{header}</tr>\n</thead>\n<tbody>\n{rows}</tbody>\n</table>\n</div>\n{note}"
    )


def _header(column: Column) -> str:
    if column.kind == "bar" or not column.name:
        return '<td aria-hidden="true"></td>' if column.kind == "bar" else "<td></td>"
    return f'<th scope="col" class="{column.kind}">{text(column.name)}</th>'


def _row(cells: Sequence[tuple[Cell, Column]]) -> str:
    """Return a row; its first cell names it, unless it goes on with the row above."""
    (first, column), *rest = cells
    name = cell_text(first, column)
    head = f'<th scope="row" class="{column.kind}">{text(name)}</th>' if name else "<td></td>"
    return f"<tr>{head}{''.join(_cell(cell, column) for cell, column in rest)}</tr>\n"


def _cell(cell: Cell, column: Column) -> str:
    if column.kind == "bar" and isinstance(cell, (int, float)):
        share = min(max(cell, 0.0), 1.0)
        return f'<td class="bar" aria-hidden="true"><span style="width:{share:.1%}"></span></td>'
    return f'<td class="{column.kind}">{text(cell_text(cell, column))}</td>'
