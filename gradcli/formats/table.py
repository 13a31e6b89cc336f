"""The report as a person likes to read it in a terminal: prose, light tables, bars.

Plain string building with a handful of ANSI codes: the import of rich alone would cost more than most runs.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from gradcli.formats.text import cell_text, display_width, filled_columns, pad, printable, wrap
from gradcli.frozen import frozen
from gradcli.results.model import Cell, Column, Line, Report, Style, Table, Verbatim

_CODES: dict[Style, str] = {"title": "1", "good": "32", "warn": "33", "bad": "1;31", "dim": "2"}
_GAP = "  "
_LABEL_GAP = 3
_LABEL_SHARE = 0.4  # of the screen; a longer label stands on a line of its own
_NARROWEST = 20  # a screen is taken to have at least so many columns
_NEVER_DROPPED = 9
_TEXT_FLOOR = 24  # text cells wrap to this before a column is dropped
_LONGEST_NAME = 32  # and a word of up to this, such as the name of a cell, is not broken before that
_TEXT_MINIMUM = 8  # and to this where no column can be dropped
_BAR_FLOOR, _BAR_USUAL, _BAR_MAXIMUM = 9, 21, 41
_EIGHTHS = " ▏▎▍▌▋▊▉█"


def render(report: Report, *, width: int | None, color: bool, unicode: bool) -> Iterator[str]:
    """Yield the report's blocks as text at most `width` columns wide; without a width, nothing wraps or is left out.

    Where the screen is too narrow for a table, bars shrink first, then headers and text cells wrap, then columns go in
    the order of `keep`, named in a line below. No cell is ever cut.
    """
    pen = _Pen(None if width is None else max(width, _NARROWEST), color, unicode)
    groups = ["".join(f"{line.rstrip()}\n" for line in pen.group(group)) for group in report.blocks]
    yield "\n".join(group for group in groups if group)


@frozen
class _Pen:
    """What the screen can show, and how blocks are drawn on it: each as a list of lines."""

    width: int | None
    color: bool
    unicode: bool

    def group(self, blocks: Sequence[Line | Table | Verbatim]) -> list[str]:
        labels = [display_width(self.plain(block.label)) for block in blocks if isinstance(block, Line)]
        indent = max((label + _LABEL_GAP for label in labels if label and self.in_margin(label)), default=0)
        lines: list[str] = []
        for block in blocks:
            match block:
                case Line():
                    lines += self.prose(block, indent)
                case Verbatim():
                    lines += self.verbatim(block)
                case Table():
                    lines += self.table(block)
        return lines

    def in_margin(self, label: int) -> bool:
        return self.width is None or label + _LABEL_GAP <= _LABEL_SHARE * self.width

    def plain(self, text: str) -> str:
        return printable(text, unicode=self.unicode)

    def styled(self, text: str, style: Style) -> str:
        if not self.color or style not in _CODES or not text.strip():
            return text
        body = text.strip(" ")
        start = text.index(body)
        return f"{text[:start]}\x1b[{_CODES[style]}m{body}\x1b[0m{text[start + len(body) :]}"

    def wrapped(self, text: str, indent: int) -> list[str]:
        """Return the lines of `text` on what the indentation leaves of the screen, without the indentation."""
        room = None if self.width is None else self.width - indent
        return [line for part in text.split("\n") for line in wrap(self.plain(part), room)]

    def prose(self, line: Line, indent: int) -> list[str]:
        if not line.label:
            return [self.styled(text, line.style) for text in self.wrapped(line.text, 0)]
        label = self.plain(line.label)
        if not self.in_margin(display_width(label)):
            body = [f"{_GAP}{text}" for text in self.wrapped(line.text, len(_GAP))] if line.text else []
            return [*(self.styled(part, line.style) for part in wrap(label, self.width)), *body]
        margins = [self.styled(pad(label, indent), line.style)]
        texts = self.wrapped(line.text, indent)
        margins += [" " * indent] * (len(texts) - 1)
        return [margin + text for margin, text in zip(margins, texts, strict=True)]

    def verbatim(self, block: Verbatim) -> list[str]:
        room = None if self.width is None else self.width - len(_GAP)
        lines: list[str] = []
        for text in map(self.plain, block.text.rstrip("\n").split("\n")):
            first, *rest = wrap(text, room, keep_parts=False)
            if rest and room is not None:  # the continuation stands deeper, so that it is not taken for a new line
                rest = wrap(text[len(first) :].strip(), room - 2 * len(_GAP), keep_parts=False)
            lines += [_GAP + first, *(3 * _GAP + part for part in rest)]
        return lines

    def table(self, table: Table) -> list[str]:
        title = [self.styled(text, "title") for text in self.wrapped(table.title, 0)] if table.title else []
        columns = [_Drawn(self, table.columns[i], [row[i] for row in table.rows]) for i in filled_columns(table)]
        shown = self.fit(columns)
        header = [column.header() for column in shown]
        height = max(map(len, header), default=0)
        lines = [*title, *_beside([[""] * (height - len(cell)) + cell for cell in header], shown, "dim")]
        headings = dict(table.headings)
        for index in range(len(table.rows)):
            if index in headings:
                lines += ["", *(self.styled(text, "title") for text in self.wrapped(headings[index], 0))]
            lines += _beside([column.lines(index) for column in shown], shown)
        notes = [table.note] if table.note else []
        hidden = [column.column.name for column in columns if column not in shown and column.column.name]
        if hidden:
            notes.append(f"no room for: {', '.join(hidden)}")
        return lines + [self.styled(text, "dim") for note in notes for text in self.wrapped(note, 0)]

    def fit(self, columns: Sequence[_Drawn]) -> list[_Drawn]:
        """Return the columns that the screen has room for, with their widths set."""
        shown = list(columns)
        for column in shown:
            column.width = column.usual if self.width is None else column.floor
        if self.width is None:
            return shown
        while _room(shown, self.width) < 0:
            droppable = [column for column in shown if column.column.keep < _NEVER_DROPPED]
            if not droppable:
                break
            # of equals, the rightmost goes
            shown.remove(min(reversed(droppable), key=lambda column: column.column.keep))
        texts = [column for column in shown if column.column.kind == "text"]
        while _room(shown, self.width) < 0 and any(column.width > _TEXT_MINIMUM for column in texts):
            max(texts, key=lambda column: column.width).width -= 1
        for column in shown:  # the fewest lines of header that the room allows, and no wider than that takes
            room = max(0, _room(shown, self.width))
            if column.fixed:
                widths = range(column.width, min(column.usual, column.width + room) + 1)
                column.width = min(widths, key=lambda width: len(wrap(column.name, width)))
        for most in ("usual", "maximum"):
            while growing := [column for column in shown if not column.fixed and column.width < getattr(column, most)]:
                for column in growing[: max(0, _room(shown, self.width))]:
                    column.width += 1
                if _room(shown, self.width) <= 0:
                    break
        return shown


class _Drawn:
    """A column as it is drawn: its texts, and the widths between which it can be set."""

    def __init__(self, pen: _Pen, column: Column, cells: Sequence[Cell]) -> None:
        self.pen, self.column, self.cells = pen, column, cells
        self.name = pen.plain(column.name)
        self.fixed = column.kind in ("number", "flag")
        self.texts = [pen.plain(cell_text(cell, column)) if not self.is_bar(cell) else "" for cell in cells]
        content = max(map(display_width, self.texts), default=0)
        words = max(map(display_width, self.name.split()), default=0)
        title = display_width(self.name)
        self.usual = self.maximum = max(content, title)
        self.floor = max(content, words)
        if column.kind == "text":
            parts = [display_width(word) for text in self.texts for word in text.split()]
            name = max((part for part in parts if part <= _LONGEST_NAME), default=0)
            self.floor = min(self.usual, max(words, name, _TEXT_FLOOR))
        elif column.kind == "bar":
            self.floor = max(self.floor, _BAR_FLOOR)
            self.usual, self.maximum = max(self.usual, _BAR_USUAL), max(self.usual, _BAR_MAXIMUM)
        self.width = self.usual

    def is_bar(self, cell: Cell) -> bool:
        return self.column.kind == "bar" and isinstance(cell, (int, float))

    def header(self) -> list[str]:
        return wrap(self.name, self.width, break_words=True)

    def lines(self, index: int) -> list[str]:
        cell = self.cells[index]
        if self.column.kind == "bar" and isinstance(cell, (int, float)):
            return [drawn_bar(cell, self.width, unicode=self.pen.unicode)]
        if self.fixed:
            return [self.texts[index]]
        return wrap(self.texts[index], self.width, break_words=True)


def _room(columns: Sequence[_Drawn], width: int) -> int:
    return width - sum(column.width for column in columns) - len(_GAP) * (len(columns) - 1)


def _beside(cells: Sequence[Sequence[str]], columns: Sequence[_Drawn], style: Style = "plain") -> list[str]:
    """Return one row of the table as lines: its cells, themselves lines, next to each other."""
    lines = []
    for index in range(max(map(len, cells), default=0)):
        parts = []
        for cell, column in zip(cells, columns, strict=True):
            text = pad(cell[index] if index < len(cell) else "", column.width, right=column.column.kind == "number")
            own: Style = "warn" if column.column.kind == "flag" and style == "plain" else style
            parts.append(column.pen.styled(text, own))
        lines.append(_GAP.join(parts))
    return lines


def drawn_bar(value: float, width: int, *, unicode: bool) -> str:
    """Return an axis and a bar of length `value` in [0, 1], in eighths of a column where Unicode allows it."""
    share = min(max(value, 0.0), 1.0)
    if not unicode:
        return "|" + "#" * round(share * (width - 1))
    full, eighths = divmod(round(share * (width - 1) * 8), 8)
    return "│" + "█" * full + (_EIGHTHS[eighths] if eighths else "")
