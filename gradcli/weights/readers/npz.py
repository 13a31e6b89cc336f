"""Archives of arrays that `numpy.savez` writes, read entry by entry and without unpickling anything.

The format of an entry is NumPy's own (numpy.lib.format, versions 1.0 to 3.0).
"""

from __future__ import annotations

import re
import struct
from dataclasses import dataclass
from pathlib import Path

from gradcli.errors import InputFileError
from gradcli.weights.checkpoint import (
    MAX_TENSORS,
    NUMPY_CODES,
    Array,
    Checkpoint,
    Ignored,
    Tensor,
    require_tensor,
    short,
    widened,
)
from gradcli.weights.readers.file_bytes import FileBytes
from gradcli.weights.readers.zip_directory import Entry, ZipDirectory

_MAGIC = b"\x93NUMPY"
#: Bytes of the text that says dtype and shape: what NumPy itself allows.
_MAX_HEADER = 10_000
_DTYPES = {code: dtype for dtype, code in NUMPY_CODES.items() if dtype not in ("bfloat16", "bool")} | {"b1": "bool"}
_FIELD = r"""["'](descr|fortran_order|shape)["']\s*:\s*(["'][^"']*["']|True|False|\([\d\s,L]*\))"""
_HEADER = re.compile(rf"\s*\{{\s*{_FIELD}\s*,\s*{_FIELD}\s*,\s*{_FIELD}\s*(?:,\s*)?\}}\s*")
_STRUCTURED = re.compile(r"""["']descr["']\s*:\s*\[""")


@dataclass(frozen=True, slots=True)
class _Stored:
    """Where the entries of an array are: in an entry of the archive, from a byte on, in a byte order of "<" or ">"."""

    entry: Entry
    start: int
    descr: str
    fortran_order: bool


class Npz(Checkpoint):
    """An open .npz file."""

    FORMAT = "npz"

    def __init__(self, file: FileBytes) -> None:
        self._file = file
        self._archive = ZipDirectory(file)
        self._stored: dict[str, _Stored] = {}
        tensors: dict[str, Tensor] = {}
        ignored: list[Ignored] = []
        if len(self._archive.entries) > MAX_TENSORS:
            raise InputFileError(f"{file.name}: it has more than {MAX_TENSORS:,} entries")
        for entry in self._archive.entries.values():
            name = entry.name.removesuffix(".npy")
            if name == entry.name:
                ignored.append(Ignored(short(name), "not an array of NumPy's"))
                continue
            found = self._described(entry, name)
            if isinstance(found, Ignored):
                ignored.append(found)
            else:
                tensors[name] = found
        super().__init__(file.name, tensors, ignored)

    def _described(self, entry: Entry, name: str) -> Tensor | Ignored:
        """Return what an entry's header says, with `_stored` brought up to date."""
        text, start = self._header(entry)
        if _STRUCTURED.search(text):
            return Ignored(short(name), "an array of records")
        found = _HEADER.fullmatch(text)
        fields = dict(zip(found.groups()[::2], found.groups()[1::2], strict=True)) if found else {}
        descr = fields.get("descr", "")[1:-1]
        order, kind = descr[:1], descr[1:]
        lengths = fields.get("shape", "").strip("()").replace("L", "").split(",")
        well_formed = len(fields) == 3 and fields["fortran_order"] in ("True", "False")
        well_formed = well_formed and fields["shape"].startswith("(") and fields["descr"][0] in "\"'"
        digits = [length.strip() for length in lengths if length.strip()]
        if not well_formed or not all(length.isascii() and length.isdecimal() for length in digits):
            raise InputFileError(f"{self._file.name}: the array {name} has a header that is not NumPy's")
        if kind not in _DTYPES or order not in ("<", ">", "|", "="):
            what = "Python objects, which are never unpickled" if kind == "O" else f"the dtype {short(descr)}"
            return Ignored(short(name), f"an array of {what}")
        if any(len(length) > 18 for length in digits):
            raise InputFileError(f"{self._file.name}: refused: the array {name} has a shape that no array has")
        tensor = require_tensor(Tensor(name, tuple(map(int, digits)), _DTYPES[kind]), self._file.name)
        if start + tensor.nbytes != entry.size:
            raise InputFileError(
                f"{self._file.name}: the array {name} of shape {tensor.shape} takes {tensor.nbytes:,} bytes, and the"
                f" file holds {entry.size - start:,}"
            )
        self._stored[name] = _Stored(
            entry, start, (">" if order == ">" else "<") + kind, fields["fortran_order"] == "True"
        )
        return tensor

    def _header(self, entry: Entry) -> tuple[str, int]:
        """Return the text of an entry's header, and where the numbers start after it."""
        raw = self._archive.prefix(entry, 12 + _MAX_HEADER)
        version = raw[6:7]
        if not raw.startswith(_MAGIC) or len(raw) < 12 or version not in (b"\x01", b"\x02", b"\x03"):
            raise InputFileError(f"{self._file.name}: the entry {entry.name} is not an array of NumPy's")
        if version == b"\x01":
            (length,), start = struct.unpack_from("<H", raw, 8), 10
        else:
            (length,), start = struct.unpack_from("<I", raw, 8), 12
        if length > _MAX_HEADER or start + length > len(raw):
            raise InputFileError(
                f"{self._file.name}: the entry {entry.name} declares a header of {length:,} bytes, more than it has or"
                f" than the {_MAX_HEADER:,} that are read"
            )
        return raw[start : start + length].decode("utf-8", "replace"), start + length

    def _read(self, tensor: Tensor) -> Array:
        stored = self._stored[tensor.name]
        content = self._archive.content(stored.entry)[stored.start :]
        values = content.view(stored.descr).reshape(tensor.shape, order="F" if stored.fortran_order else "C")
        return widened(values, tensor.dtype)

    def close(self) -> None:
        """Let go of the file."""
        self._file.close()


def open_file(path: Path, name: str) -> Npz:
    """Return an .npz file, open; see `gradcli.weights.formats.open_checkpoint` for arguments and errors."""
    file = FileBytes(path, name)
    try:
        return Npz(file)
    except BaseException:
        file.close()
        raise
