"""Where output goes: standard output as the screen allows, or a file that is there in full or not at all."""

from __future__ import annotations

import errno
import os
import shutil
import stat
import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import BinaryIO

from gradcli.cli.interrupt import unless_finished
from gradcli.errors import OutputError
from gradcli.formats import render_pieces
from gradcli.formats.text import printable
from gradcli.results.model import Report

_DRAWING = "│█▏"


@dataclass(frozen=True)
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
    return Screen(shutil.get_terminal_size().columns, (able or always) and not never, unicode)


def emit(report: Report, format: str, output: Path | None, *, quiet: bool = False) -> None:  # noqa: A002
    """Print the report on standard output, or write it to the file `output`.

    Raises OutputError if it cannot be written. A pipe whose reader has gone is no error.
    """
    screen = standard_screen() if output is None else Screen()
    pieces = render_pieces(report, format, width=screen.width, color=screen.color, unicode=screen.unicode)
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


def check_writable(path: Path) -> None:
    """Raise OutputError unless a file can be written at `path`, so that no work is done for nothing."""
    try:
        if path.is_dir():
            raise OutputError(f"cannot write {path}: it is a directory; give the name of a file")
        if path.exists() and not os.access(path, os.W_OK):
            raise OutputError(f"cannot write {path}: it is write-protected")
        if not _is_special(path):
            temporary = _temporary_beside(_target(path))
            with unless_finished(partial(temporary.unlink, missing_ok=True)):
                os.close(_create(temporary))
                temporary.unlink()
    except OSError as error:
        raise _output_error(path, error) from error


@contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """Give a binary file to write to; when the block ends well, it takes the place of `path` in one step.

    On any error or interrupt, `path` is as it was before. Symbolic links are followed and the mode of an existing file
    is kept. What is no regular file (a pipe, a device, /dev/stdout) is written to directly. Raises OutputError.
    """
    try:
        if _is_special(path):
            # Appending leaves what the shell's >> has in /dev/stdout.
            with os.fdopen(os.open(path, os.O_WRONLY | os.O_APPEND), "wb") as file:
                yield file
            return
        target = _target(path)
        temporary = _temporary_beside(target)
        with unless_finished(partial(temporary.unlink, missing_ok=True)):
            with os.fdopen(_create(temporary), "wb") as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            if target.exists():
                os.chmod(temporary, stat.S_IMODE(target.stat().st_mode))
            os.replace(temporary, target)
    except OSError as error:
        raise _output_error(path, error) from error


def _is_special(path: Path) -> bool:
    """Tell whether renaming over `path` would destroy something other than an ordinary file."""
    if os.path.abspath(path).startswith(("/dev/", "/proc/")):  # /dev/stdout may lead to a regular file
        return path.exists()
    return path.exists() and not path.is_file()


def _target(path: Path) -> Path:
    """Return where `path` leads; raise OSError for links that lead in a circle."""
    target = Path(os.path.realpath(path))
    if target.is_symlink():
        raise OSError(errno.ELOOP, os.strerror(errno.ELOOP))
    return target


def _temporary_beside(target: Path) -> Path:
    """Return a name for a new file in the directory of `target`."""
    return target.with_name(f".gradcli-{os.getpid()}-{time.monotonic_ns()}.tmp")


def _create(path: Path) -> int:
    """Create a file, with the mode that any new file gets, and return its descriptor."""
    return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)


def _output_error(path: Path, error: OSError) -> OutputError:
    if isinstance(error, FileNotFoundError):
        folder, leads = path.parent, ""
        if path.is_symlink():
            target = Path(os.path.realpath(path))
            folder, leads = target.parent, f"it is a link to {target}, and "
        return OutputError(f"cannot write {path}: {leads}the directory {folder} does not exist")
    return OutputError(f"cannot write {path}: {error.strerror}")
