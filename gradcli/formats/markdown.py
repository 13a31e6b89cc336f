"""The report as GitHub-flavoured Markdown, for issues, pull requests and notes."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from gradcli.formats.text import cell_text, filled_columns, printable
from gradcli.results.model import Block, Line, Report, Table, Verbatim

_RIGHT = "---:"
_LEFT = ":---"
# Characters that Markdown or HTML would read instead of show; an underscore inside a word is safe.
_MARKUP = re.compile(r"[\\`*<>\[\]|~&]|(?<![A-Za-z0-9])_|_(?![A-Za-z0-9])")
_BLOCK_START = re.compile(r"^(\s*)(#(?=#*(?:\s|$))|[+-](?=\s|$)|-(?=[- ]*$)|=(?==*$)|\d+(?=[.)](?:\s|$)))")


def render(report: Report, *, width: int | None = None, color: bool = False, unicode: bool = True) -> Iterator[str]:
    """Yield the report's blocks as Markdown: lines as paragraphs, tables as tables, without the bars."""
    parts = [_block(block) for group in report.blocks for block in group]
    yield "".join(f"{part}\n\n" for part in parts).removesuffix("\n")


def _block(block: Block) -> str:
    match block:
        case Line():
            return _paragraph(block)
        case Verbatim():
            return _fence(block.text)
        case Table():
            return _table(block)


def _paragraph(line: Line) -> str:
    text = "<br>\n".join(map(_escape, line.text.split("\n")))
    if not line.label:
        return _escape_start(text)
    return f"**{_escape(line.label)}** {text}"


def _fence(text: str) -> str:
    ticks = "`" * max(3, 1 + max(map(len, re.findall("`+", text)), default=0))
    lines = map(printable, text.rstrip("\n").split("\n"))
    return "\n".join([f"{ticks}text", *lines, ticks])


def _table(table: Table) -> str:
    shown = [index for index in filled_columns(table) if table.columns[index].kind != "bar"]
    columns = [table.columns[index] for index in shown]
    lines = [_row([_escape(column.name) for column in columns])]
    lines.append(_row([_RIGHT if column.kind == "number" else _LEFT for column in columns]))
    headings = dict(table.headings)
    for number, row in enumerate(table.rows):
        if number in headings:
            lines.append(_row([f"**{_escape(headings[number])}**", *[""] * (len(columns) - 1)]))
        lines.append(_row([_escape(cell_text(row[index], table.columns[index])) for index in shown]))
    parts = [f"**{_escape(table.title)}**"] if table.title else []
    parts.append("\n".join(lines))
    if table.note:
        parts.append(_escape_start(_escape(table.note)))
    return "\n\n".join(parts)


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _escape(text: str) -> str:
    return _MARKUP.sub(lambda found: "\\" + found.group(), printable(text).strip())


def _escape_start(text: str) -> str:
    """Keep a paragraph that opens like a heading or a list from becoming one."""
    return _BLOCK_START.sub(lambda m: f"{m[1]}{m[2]}\\" if m[2].isdigit() else f"{m[1]}\\{m[2]}", text)
