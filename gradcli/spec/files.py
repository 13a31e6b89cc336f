"""The files that a run reads, none of which an output of the same run may take the place of."""

from __future__ import annotations

import os
import stat
import sys
from collections.abc import Iterable, Iterator, Mapping
from itertools import combinations
from pathlib import Path
from typing import Any

from gradcli.errors import UsageError
from gradcli.frozen import frozen


@frozen
class NamesFile:
    """Annotates a field of the spec whose text is the path of a file; with `endings`, only where it ends in one."""

    endings: tuple[str, ...] = ("",)


@frozen
class Read:
    """A file that a run reads: as messages call it, what it is to the run ("input.path"), and where it is."""

    name: str
    what: str
    path: Path | int


def files_named(model: Any, trail: str = "") -> Iterator[tuple[str, str]]:
    """Yield (trail of keys, path) of each file that a block of the spec names; paths as they are written."""
    for name, field in type(model).model_fields.items():
        value = getattr(model, name)
        if hasattr(type(value), "model_fields"):
            yield from files_named(value, f"{trail}{name}.")
        elif isinstance(value, str):
            for mark in field.metadata:
                if isinstance(mark, NamesFile) and value.lower().endswith(mark.endings):
                    yield f"{trail}{name}", value


def standard_input() -> Read | None:
    """Return standard input as a file that is read; None where it is none."""
    try:
        return Read("<stdin>", "standard input", sys.stdin.fileno())
    except (AttributeError, OSError, ValueError):  # closed, or not of the system
        return None


def require_apart(outputs: Mapping[str, Path], read: Iterable[Read] = ()) -> None:
    """Raise UsageError where an output is a file that is read, or two outputs are one, however they are spelled.

    outputs: by the option that names each, "-o" say.
    """
    written = {option: (path, _identity(path)) for option, path in outputs.items()}
    for (option, (path, one)), (other, (_, another)) in combinations(written.items(), 2):
        if one is not None and one == another:
            raise UsageError(
                f"{option} and {other} name the same file, {path}, and one would overwrite the other; give them two"
                " names"
            )
    for source in read:
        for option, (path, identity) in written.items():
            if identity is None or identity != _identity(source.path):
                continue
            same = (
                "the run reads this file" if str(path) == source.name else f"it is {source.name}, which the run reads"
            )
            raise UsageError(f"{option} {path}: {same} ({source.what}); give the output another name")


def _identity(path: Path | int) -> object:
    """Return what two paths of one file have in common; None for a pipe or a device, which has nothing to lose."""
    try:
        found = os.stat(path)
    except (OSError, ValueError):
        return os.path.normcase(os.path.realpath(path)) if isinstance(path, Path) else None
    return (found.st_dev, found.st_ino) if stat.S_ISREG(found.st_mode) else None
