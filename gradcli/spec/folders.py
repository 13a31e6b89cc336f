"""Spec files by name, by folder and by glob: which files a command that takes many of them means."""

from __future__ import annotations

import glob
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from gradcli.errors import InputFileError, SpecError, UsageError
from gradcli.frozen import frozen
from gradcli.spec import yaml12
from gradcli.spec.shown import counted, printable

ENDINGS = (".yaml", ".yml")


@frozen
class Gathered:
    """The files that some targets mean.

    files: as they are called, in the order of the targets, each once; a folder's by name. skipped: of folders and
        globs, how many YAML files do not have the keys that are looked for.
    """

    files: Sequence[str]
    skipped: int


def gather_specs(targets: Iterable[str], keys: Sequence[str]) -> Gathered:
    """Return the spec files that names, folders and globs mean.

    What is named itself is taken. A folder means the .yaml and .yml files in it and below, hidden folders left out, a
    glob (`**` for any number of folders) the files that it matches; of both, only those with one of `keys` at the top
    count, because YAML is written for many a purpose.

    Raises:
        UsageError: no targets, standard input, a folder or glob without any YAML file.
        InputFileError: a folder that cannot be read.
    """
    found: dict[str, str] = {}
    passed_over: set[str] = set()
    for target in targets:
        if target == "-":
            raise UsageError("standard input has no name to report under, so nothing there is checked; name a file")
        if os.path.isdir(target):
            files = _files_below(target)
            where = f"there is no {' or '.join(ENDINGS)} file in {printable(target, limit=4096)} or below"
        elif os.path.lexists(target) or not glob.has_magic(target):
            found.setdefault(os.path.realpath(target), target)  # one that is not there is told like other mistakes
            continue
        else:
            files = [name for name in sorted(glob.iglob(target, recursive=True)) if _is_yaml_file(name)]
            where = f"no {' or '.join(ENDINGS)} file matches {printable(target, limit=4096)!r}"
        if not files:
            raise UsageError(where)
        for name in files:
            if has_any_key(name, keys):
                found.setdefault(os.path.realpath(name), name)
            else:
                passed_over.add(os.path.realpath(name))
    if not found:
        of = counted(len(passed_over), "YAML file")
        wanted = " or ".join(f"`{key}:`" for key in keys)
        raise UsageError(f"nothing to check: of {of}, none has {wanted}" if passed_over else "nothing to check")
    return Gathered(list(found.values()), len(passed_over - set(found)))


def _files_below(folder: str) -> list[str]:
    return sorted(_walk(folder))


def _walk(folder: str) -> Iterator[str]:
    def refuse(error: OSError) -> None:
        name = printable(str(error.filename), limit=4096)
        raise InputFileError(f"{name}: the folder cannot be read: {error.strerror}")

    for below, folders, names in os.walk(folder, onerror=refuse):
        folders[:] = [name for name in folders if not name.startswith(".")]
        for name in names:
            path = os.path.join(below, name)
            if not name.startswith(".") and _is_yaml_file(path):
                yield os.path.normpath(path)


def _is_yaml_file(path: str) -> bool:
    return path.lower().endswith(ENDINGS) and not os.path.isdir(path)


def has_any_key(path: str, keys: Sequence[str]) -> bool:
    """Tell whether a YAML file has one of these keys at its top.

    What cannot be read, and what is no YAML but speaks of one of them, counts as well: its mistakes are to be told.
    """
    try:
        with Path(path).open("rb") as file:
            raw = file.read(yaml12.MAX_BYTES + 1)
    except OSError:
        return True
    try:
        data = yaml12.read(raw, path).data
    except SpecError:
        spoken_of = "|".join(map(re.escape, keys))
        return re.search(rf"(^|[{{,\s\"'])({spoken_of})[\"']?\s*:".encode(), raw) is not None
    except InputFileError:
        return False
    return isinstance(data, dict) and any(key in data for key in keys)
