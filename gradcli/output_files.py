"""Files that are written: each is there in full or not at all, whatever ends the process; none is one that is read."""

from __future__ import annotations

import atexit
import errno
import os
import stat
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from functools import partial
from pathlib import Path
from typing import BinaryIO

from gradcli.errors import OutputError
from gradcli.spec.files import Read, require_apart

_outputs: ContextVar[Mapping[str, Path]] = ContextVar("outputs", default={})  # noqa: B039 - it is never changed

_last_acts: dict[object, Callable[[], object]] = {}


@contextmanager
def unless_finished(act: Callable[[], object]) -> Iterator[None]:
    """Have `act` done if the block does not come to its end, even where the process ends in the middle of it."""
    key = object()
    _last_acts[key] = act
    try:
        yield
    except BaseException:
        with suppress(OSError):  # what stopped the block is the news
            act()
        del _last_acts[key]
        raise
    del _last_acts[key]


@atexit.register
def act_now() -> None:
    """Do what `unless_finished` has been asked to: the end has come."""
    for act in list(_last_acts.values()):
        with suppress(Exception):  # the others must still be done, and there is nobody left to tell
            act()


@contextmanager
def will_write(outputs: Mapping[str, Path]) -> Iterator[None]:
    """Have files, by the option that names each, count as outputs while the block runs; see `require_unwritten`.

    Raises:
        UsageError: two of them, or one of them and one of an enclosing block, are one.
    """
    all_of_them = {**_outputs.get(), **outputs}
    require_apart(all_of_them)
    token = _outputs.set(all_of_them)
    try:
        yield
    finally:
        _outputs.reset(token)


def require_unwritten(read: Iterable[Read]) -> None:
    """Raise UsageError where a file that is read is to be written as well."""
    require_apart(_outputs.get(), read)


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


def written(option: str) -> Path | None:
    """Return the file that an option names as an output; None where there is none."""
    return _outputs.get().get(option)


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
