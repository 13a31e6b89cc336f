"""`--save`: the arrays of a run in a file that is there in full or not at all."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from os import PathLike
from pathlib import Path
from typing import TypeVar

from gradcli.frozen import frozen
from gradcli.output_files import check_writable, replacing, will_write
from gradcli.results.result import Result

Kept = TypeVar("Kept", bound=Result)
_OPTION = "--save"


@frozen
class Saving:
    """Where the arrays of a run go; nowhere where no file is given."""

    file: Path | None

    @property
    def wanted(self) -> bool:
        """Whether they are to be kept."""
        return self.file is not None

    def all_of(self, result: Kept) -> Kept:
        """Save the arrays of a result, and return it."""
        if self.file is not None:
            with replacing(self.file) as file:
                result.save_arrays(file)
        return result


@contextmanager
def saved(file: str | PathLike[str] | None) -> Iterator[Saving]:
    """Give what saves arrays to `file`, which the block may not read; told before any work that it cannot be written.

    Raises:
        OutputError: it cannot be written. UsageError: another output is the same file.
    """
    if file is None:
        yield Saving(None)
        return
    path = Path(file)
    with will_write({_OPTION: path}):
        check_writable(path)
        yield Saving(path)
