"""A report as text: one module a format, each with the same `render`, imported only when it is asked for.

A format is told the width, the colour and the alphabet of the screen; it never looks at the terminal, and it knows no
diagnostic: it walks over the report's blocks, data or records. Its text comes in pieces, as it may be longer than
memory should hold.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from importlib import import_module

from gradcli.report.model import Report

FORMATS = ("table", "json", "csv", "markdown")
#: Formats of commands that derive formulas, beside the others.
FORMULA_FORMATS = ("latex",)

#: Small pieces are put together to at least so many characters: a write for each would cost more than its text.
_PIECE = 2**16


def render(report: Report, name: str, *, width: int | None, color: bool, unicode: bool) -> str:
    """Return the report in the format called `name` in one string; see `render_pieces`."""
    return "".join(render_pieces(report, name, width=width, color=color, unicode=unicode))


def render_pieces(report: Report, name: str, *, width: int | None, color: bool, unicode: bool) -> Iterator[str]:
    """Return the report in the format called `name`, one of `FORMATS` or `FORMULA_FORMATS`, piece by piece.

    The pieces are made as they are asked for; those of JSON and CSV are short, however long the report.
    width: columns of the screen, None for no limit. color: ANSI colours. unicode: characters beyond ASCII may be used.
    """
    if name not in (*FORMATS, *FORMULA_FORMATS):
        raise ValueError(f"no format is called {name!r}")
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
