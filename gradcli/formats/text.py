"""Text that is safe to print: control characters stripped, widths as a terminal counts them, lines wrapped."""

from __future__ import annotations

import re
import unicodedata

from gradcli.results.model import Cell, Column, Table

# What NFKD leaves without an ASCII form, of the characters that a report may use.
_ASCII_FORMS = str.maketrans(
    {
        "×": "x",
        "·": "*",
        "÷": "/",
        "±": "+-",
        "−": "-",
        "–": "-",
        "—": "-",
        "‘": "'",
        "’": "'",
        "“": '"',
        "”": '"',
        "→": "->",
        "←": "<-",
        "≤": "<=",
        "≥": ">=",
        "≠": "!=",
        "≈": "~",
        "∞": "inf",
        "√": "sqrt",
        "∂": "d",
        "∑": "sum",
        "∏": "prod",
        "ß": "ss",
    }
)
# Controls (C0, ESC, DEL, C1), format characters such as bidirectional overrides, and lone surrogates.
_UNPRINTABLE = {"Cc", "Cf", "Cs"}
_BREAKS = "\t\n\v\f\r\x85\u2028\u2029"


def printable(text: str, *, unicode: bool = True) -> str:
    """Return `text` on one line, without anything that a terminal would obey instead of showing.

    Line breaks and tabs become spaces; other control and format characters go. Without `unicode`, characters beyond
    ASCII become ASCII: letters lose their accents, known symbols are spelled out, and others show as ``\\u4e2d``.
    """
    if text.isascii() and text.isprintable():
        return text
    kept = (" " if char in _BREAKS else char for char in text)
    line = "".join(char for char in kept if unicodedata.category(char) not in _UNPRINTABLE)
    if unicode or line.isascii():
        return line
    plain = unicodedata.normalize("NFKD", line.translate(_ASCII_FORMS)).translate(_ASCII_FORMS)
    letters = "".join(char for char in plain if not unicodedata.combining(char))
    return letters.encode("ascii", "backslashreplace").decode("ascii")


def display_width(text: str) -> int:
    """Return the number of terminal columns that `text` takes: 2 for wide East Asian characters, 0 for combining."""
    if text.isascii():
        return len(text)
    return sum(
        0 if unicodedata.combining(char) else 2 if unicodedata.east_asian_width(char) in "WF" else 1 for char in text
    )


def pad(text: str, width: int, *, right: bool = False) -> str:
    """Return `text` filled with spaces to `width` columns, at its left end if it is to stand `right`."""
    fill = " " * (width - display_width(text))
    return fill + text if right else text + fill


def wrap(text: str, width: int | None, *, keep_parts: bool = True, break_words: bool = False) -> list[str]:
    """Return `text` as lines of at most `width` columns, broken at spaces.

    With `keep_parts`, parts set apart by two or more spaces stay together where they fit on a line. A word longer than
    a line stands on a line of its own, or is broken if `break_words`. Without a width, or where the text fits, it is
    left as it is.
    """
    if width is None or display_width(text) <= width:
        return [text]
    pieces: list[str] = []
    for part in re.findall(r" {2,}\S+(?: \S+)*|^ ?\S+(?: \S+)*", text):
        pieces += [part] if keep_parts and display_width(part.lstrip()) <= width else re.findall(r" *\S+", part)
    lines: list[str] = []
    for piece in pieces:
        if lines and display_width(lines[-1] + piece) <= width:
            lines[-1] += piece
            continue
        word = piece.lstrip() if lines else piece
        while break_words and display_width(word) > width:
            head = _head(word, width)
            lines.append(word[:head])
            word = word[head:]
        lines.append(word)
    return lines


def _head(word: str, width: int) -> int:
    """Return how many characters of `word`, at least one, fit in `width` columns."""
    count = 1
    while count < len(word) and display_width(word[: count + 1]) <= width:
        count += 1
    return count


def cell_text(cell: Cell, column: Column) -> str:
    """Return a cell as text: strings as they are, numbers by the column's `spec`, None as nothing."""
    if cell is None:
        return ""
    return cell if isinstance(cell, str) else format(cell, column.spec)


def filled_columns(table: Table) -> list[int]:
    """Return the indices of the columns that have something to show in any row; all of a table without rows."""
    indices = range(len(table.columns))
    if not table.rows:
        return list(indices)
    return [index for index in indices if any(row[index] not in (None, "") for row in table.rows)]
