"""The file of `--baseline`: read before any work, and written after all of it, in full or not at all."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from os import PathLike
from pathlib import Path

from gradcli.errors import InputFileError
from gradcli.frozen import frozen
from gradcli.output_files import check_writable, replacing, require_unwritten, will_write
from gradcli.results.baseline import Entry, parse_baseline, write_baseline
from gradcli.spec.files import Read
from gradcli.spec.shown import printable

OPTION = "--baseline"
#: Bytes of a baseline.
_LARGEST = 2**26
#: So many of the files that are gone are named.
_NAMED = 3


@frozen
class BaselineFile:
    """A baseline, whose entries go by the paths of their specs from its own folder."""

    path: Path
    entries: Mapping[str, Entry]

    def entry_of(self, file: str) -> Entry | None:
        """Return what it has of a spec file; None where it has nothing."""
        return self.entries.get(self._key(file))

    def write(self, measured: Mapping[str, Entry]) -> None:
        """Write what was measured now, by file, and of the files that were not measured what there was.

        Raises:
            OutputError: it cannot be written.
        """
        kept = {key: entry for key, entry in self.entries.items() if self._is_there(key)}
        now = {self._key(file): entry for file, entry in measured.items()}
        with replacing(self.path) as file:
            file.write(write_baseline({**kept, **now}).encode())

    def warnings(self, *, update: bool) -> list[str]:
        """Return what is to be told of entries whose files are gone. update: whether they are left out now."""
        gone = sorted(key for key in self.entries if not self._is_there(key))
        if not gone:
            return []
        names = ", ".join(map(printable, gone[:_NAMED])) + (", ..." if len(gone) > _NAMED else "")
        what, them = ("a file that is", "it") if len(gone) == 1 else (f"{len(gone):,} files that are", "them")
        return [f"the baseline has {what} gone: {names}; {'left out now' if update else f'--update leaves {them} out'}"]

    def _key(self, file: str) -> str:
        return os.path.relpath(os.path.abspath(file), os.path.abspath(self.path.parent)).replace(os.sep, "/")

    def _is_there(self, key: str) -> bool:
        return os.path.exists(os.path.join(self.path.parent, key))


@contextmanager
def baseline_file(
    path: str | PathLike[str] | None, specs: Sequence[Read], *, update: bool
) -> Iterator[BaselineFile | None]:
    """Give a baseline; with `update` it is written in the block, which may not read it, and need not be there.

    Args:
        specs: what will be measured.

    Raises:
        InputFileError: it cannot be read, or is none. OutputError: it cannot be written.
        UsageError: it is one of the specs.
    """
    if path is None:
        yield None
        return
    file = Path(path)
    if not update:
        yield BaselineFile(file, _entries(file))
        return
    with will_write({OPTION: file}):
        require_unwritten(specs)
        check_writable(file)
        yield BaselineFile(file, _entries(file) if file.exists() else {})


def _entries(path: Path) -> Mapping[str, Entry]:
    name = printable(str(path), limit=4096)
    try:
        with path.open("rb") as file:
            raw = file.read(_LARGEST + 1)
    except FileNotFoundError:
        raise InputFileError(f"{name}: there is no such baseline; --update writes it") from None
    except OSError as error:
        raise InputFileError(f"{name}: cannot be read: {error.strerror}") from None
    if len(raw) > _LARGEST:
        raise InputFileError(f"{name}: larger than {_LARGEST:,} bytes, the most that a baseline may have")
    return parse_baseline(raw.decode("utf-8", "replace"), name)
