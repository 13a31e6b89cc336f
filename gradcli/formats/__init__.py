"""A report as text: one module a format, each with the same `render`, imported only when it is asked for.

A format is told the width, the colour and the alphabet of the screen; it never looks at the terminal, and it knows no
diagnostic: it walks over the report's blocks, data or records. Its text comes in pieces, as it may be longer than
memory should hold.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from importlib import import_module

from gradcli.errors import UsageError, did_you_mean
from gradcli.results.model import Report

FORMATS = ("table", "json", "csv", "markdown")
#: Formats of commands that derive formulas, beside the others.
FORMULA_FORMATS = ("latex",)
#: Formats of commands that test, in place of the others.
CHECK_FORMATS = ("table", "json", "junit", "github", "markdown")

#: What the ending of a file says of what is to be in it.
FORMAT_OF_ENDING = {
    ".txt": "table",
    ".json": "json",
    ".csv": "csv",
    ".md": "markdown",
    ".tex": "latex",
    ".xml": "junit",
}

#: The endings of pictures.
PICTURE_ENDINGS = (".svg", ".png", ".pdf")

#: Small pieces are put together to at least so many characters: a write for each would cost more than its text.
_PIECE = 2**16


def format_for(name: str | None, ending: str, formats: Sequence[str] = FORMATS) -> str:
    """Return the format of a result: `name` where it is asked for, else what the ending of its file says, else a table.

    formats: that there are of it.
    """
    found = FORMAT_OF_ENDING.get(ending.lower(), FORMATS[0]) if name is None else name
    return found if name is not None or found in formats else FORMATS[0]


def render(report: Report, name: str, *, width: int | None, color: bool, unicode: bool) -> str:
    """Return the report in the format called `name` in one string; see `render_pieces`."""
    return "".join(render_pieces(report, name, width=width, color=color, unicode=unicode))


def render_pieces(report: Report, name: str, *, width: int | None, color: bool, unicode: bool) -> Iterator[str]:
    """Return the report in the format called `name`, one of those that a command has, piece by piece.

    The pieces are made as they are asked for; those of JSON and CSV are short, however long the report.
    width: columns of the screen, None for no limit. color: ANSI colours. unicode: characters beyond ASCII may be used.

    Raises:
        UsageError: there is no such format, or the report has not what it takes.
    """
    known = tuple(dict.fromkeys((*FORMATS, *FORMULA_FORMATS, *CHECK_FORMATS)))
    if name not in known:
        hint = did_you_mean(str(name), known)
        raise UsageError(f"no format is called {name!r}; known: {', '.join(known)}{hint}")
    render_format = import_module(f"gradcli.formats.{name}").render
    return _gathered(render_format(report, width=width, color=color, unicode=unicode))


def _gathered(pieces: Iterable[str]) -> Iterator[str]:
    waiting: list[str] = []
    length = 0
    for piece in pieces:
        waiting.append(piece)
        length += len(piece)
        if length >= _PIECE:
            yield "".join(waiting)
            waiting.clear()
            length = 0
    if waiting:
        yield "".join(waiting)
