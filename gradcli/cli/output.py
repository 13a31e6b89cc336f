"""Where output goes: standard output as the screen allows, or a file."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable
from contextlib import suppress
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING

from gradcli.errors import OutputError
from gradcli.formats import render_pieces
from gradcli.formats.text import printable
from gradcli.frozen import frozen
from gradcli.output_files import replacing
from gradcli.results.model import Report

if TYPE_CHECKING:
    from gradcli.results.pictures import Picture

_DRAWING = "│█▏"


@frozen
class Screen:
    """What the reader's end can show; the default is a file or a pipe, which takes lines of any length."""

    width: int | None = None
    color: bool = False
    unicode: bool = True


def standard_screen() -> Screen:
    """Return what standard output can show: a width if it is a terminal, and then colours as well.

    NO_COLOR takes them away everywhere, FORCE_COLOR gives them to a pipe too (https://no-color.org, force-color.org).
    """
    if sys.stdout is None:
        return Screen()
    try:
        _DRAWING.encode(sys.stdout.encoding)
        unicode = True
    except UnicodeEncodeError:
        unicode = False
    never, always = bool(os.environ.get("NO_COLOR")), bool(os.environ.get("FORCE_COLOR"))
    if not sys.stdout.isatty():
        return Screen(None, always and not never, unicode)
    able = os.environ.get("TERM") != "dumb"
    if os.name == "nt":  # the old console prints the codes instead of obeying them
        able = able and "WT_SESSION" in os.environ
    import shutil

    return Screen(shutil.get_terminal_size().columns, (able or always) and not never, unicode)


def emit(
    report: Report,
    format: str,  # noqa: A002
    output: Path | None,
    *,
    quiet: bool = False,
    chart: Picture | None = None,
) -> None:
    """Print the report on standard output, or write it to the file `output`, below a chart where one is given.

    Raises OutputError if it cannot be written. A pipe whose reader has gone is no error.
    """
    screen = standard_screen() if output is None else Screen()
    pieces = render_pieces(report, format, width=screen.width, color=screen.color, unicode=screen.unicode)
    if chart is not None:
        from gradcli.formats.chart import chart_lines

        above = chart_lines(chart, width=screen.width, color=screen.color, unicode=screen.unicode)
        pieces = chain((f"{line}\n" for line in (*above, "")), pieces)
    emit_text(pieces, output, quiet=quiet)


def emit_text(pieces: Iterable[str], output: Path | None, *, quiet: bool = False) -> None:
    """Print text, piece by piece, on standard output, or write it to the file `output`; raises as `emit` does."""
    if output is None:
        write_standard_output(pieces)
        return
    with replacing(output) as file:
        for piece in pieces:
            file.write(piece.encode("utf-8", "backslashreplace"))
    if not quiet:
        tell(f"wrote {output}")


def write_standard_output(pieces: Iterable[str]) -> None:
    """Write text, piece by piece, and flush. Characters that the encoding lacks show as escapes.

    Raises OutputError if standard output is closed or full. If its reader has gone, the rest of the output is dropped,
    so that the process still ends with the exit code that its result deserves.
    """
    if sys.stdout is None:
        raise OutputError("standard output is closed")
    encoding = sys.stdout.encoding
    try:
        for piece in pieces:
            sys.stdout.write(piece.encode(encoding, "backslashreplace").decode(encoding))
        sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except OSError as error:
        raise OutputError(f"cannot write to standard output: {error.strerror}") from error


def tell(text: str) -> None:
    """Write a line to standard error."""
    if sys.stderr is not None:
        with suppress(OSError):
            print(printable(text), file=sys.stderr, flush=True)  # noqa: T201
