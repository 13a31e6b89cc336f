"""Arrays in .npz files, of which neither the directory nor a header is believed.

A .npz is a zip with one .npy in it for each array. What an array takes is told by the directory and again by the
array's own header; both have to agree, and to be within the limit, before any of it is unpacked, and no more than that
is unpacked whatever the file goes on with.
"""

from __future__ import annotations

import math
import struct
import tokenize
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import IO

import numpy as np

from gradcli.errors import InputFileError, did_you_mean
from gradcli.frozen import frozen
from gradcli.sources.files import MAX_SERIES_BYTES, FieldError, require_bytes, unreadable

#: A zip whose end says that it has a larger directory is refused before that is read.
MAX_DIRECTORY_BYTES = 2**22
#: NumPy's headers take 128 bytes.
MAX_HEADER_BYTES = 2**16

_END = struct.Struct("<4s4H2LH")  # of the central directory
_END_SIGNATURE = b"PK\x05\x06"
_ENCRYPTED = 0x1
_DAMAGES = (
    zipfile.BadZipFile,
    zlib.error,
    EOFError,
    NotImplementedError,
    RuntimeError,
    struct.error,
    OverflowError,
    ValueError,
)


@frozen
class Header:
    """What a .npy says of its array. nbytes: what its entries take."""

    shape: tuple[int, ...]
    fortran_order: bool
    dtype: np.dtype

    @property
    def nbytes(self) -> int:
        return math.prod(self.shape) * self.dtype.itemsize


def read_header(file: IO[bytes], name: str) -> Header:
    """Return the header of a .npy, and leave `file` where the entries begin; raise InputFileError where it is none."""
    try:
        version = np.lib.format.read_magic(file)
        read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        return Header(*read(file))
    except (ValueError, TypeError, SyntaxError, tokenize.TokenError, RecursionError, MemoryError) as error:
        reason = str(error).split("\n")[0].rstrip(".") or type(error).__name__
        raise InputFileError(f"{name}: is not a .npy file that NumPy can read: {reason}") from None


def read_npz(path: Path, name: str, key: str | None) -> np.ndarray:
    """Return one array of a .npz: the one called `key`, or the only one; of real numbers, at most MAX_SERIES_BYTES.

    Raises InputFileError for a file that is damaged or lies, FieldError for a key that it has not.
    """
    try:
        with _open(path, name) as archive:
            key, entry = _entry(archive, name, key)
            label = f"{name}, array {key!r}"
            _require_plain(entry, label)
            with archive.open(entry) as file:
                return _read(file, entry, label)
    except OSError as error:
        raise InputFileError(unreadable(name, error)) from None
    except _DAMAGES as error:
        raise InputFileError(f"{name}: the zip file is damaged: {error}") from None


def array_bytes(path: Path, key: str | None) -> int:
    """Return how many bytes the array that `read_npz` would read takes; 0 where that would refuse it."""
    try:
        with _open(path, "") as archive:
            return _entry(archive, "", key)[1].file_size
    except (OSError, InputFileError, FieldError, *_DAMAGES):
        return 0


def _open(path: Path, name: str) -> zipfile.ZipFile:
    """Open a zip whose directory is no larger than any .npz needs."""
    with path.open("rb") as file:
        file.seek(max(path.stat().st_size - _END.size, 0))
        end = file.read(_END.size)
    # What NumPy writes ends here, without a comment; a directory of more than 64 bits is for files above the limit.
    if len(end) < _END.size or not end.startswith(_END_SIGNATURE):
        raise InputFileError(f"{name}: is not a .npz file: it does not end as a zip does")
    directory_bytes = _END.unpack(end)[5]
    if directory_bytes > MAX_DIRECTORY_BYTES:
        raise InputFileError(f"{name}: the directory of the zip takes {directory_bytes:,} bytes; it is refused")
    return zipfile.ZipFile(path)


def _entry(archive: zipfile.ZipFile, name: str, key: str | None) -> tuple[str, zipfile.ZipInfo]:
    """Return the wanted array's name and its place in the directory."""
    entries: dict[str, zipfile.ZipInfo] = {}
    for info in archive.infolist():
        array = info.filename.removesuffix(".npy")
        if array in entries:
            raise InputFileError(f"{name}: two arrays are called {array!r}")
        entries[array] = info
    if key is None:
        if len(entries) != 1:
            holds = f"{len(entries)} arrays ({_listed(entries)}); say which with `key:`" if entries else "no array"
            raise FieldError(f"{name} holds {holds}")
        key = next(iter(entries))
    if key not in entries:
        hint = did_you_mean(key, list(entries))
        raise FieldError(f"{name} has no array {key!r}; it holds: {_listed(entries)}{hint}", "key")
    return key, entries[key]


def _listed(entries: Mapping[str, object]) -> str:
    names = list(entries)
    return ", ".join(names[:8]) + (", ..." if len(names) > 8 else "")


def _require_plain(entry: zipfile.ZipInfo, label: str) -> None:
    """Refuse an entry that NumPy would not have written, or that unpacks to more than is accepted."""
    if entry.flag_bits & _ENCRYPTED:
        raise InputFileError(f"{label}: is encrypted")
    if entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise InputFileError(f"{label}: is compressed in a way that NumPy does not write")
    require_bytes(entry.file_size, label, MAX_SERIES_BYTES)


def _read(file: IO[bytes], entry: zipfile.ZipInfo, label: str) -> np.ndarray:
    """Return the array of an open entry, once directory and header agree on what it takes."""
    header = read_header(file, label)
    require_numbers(header, label)
    promised = file.tell() + header.nbytes
    if promised != entry.file_size:
        raise InputFileError(
            f"{label}: shape {header.shape} of {header.dtype} takes {promised} bytes, but {entry.file_size} are there"
        )
    flat: np.ndarray = np.empty(math.prod(header.shape), header.dtype)
    room = flat.view(np.uint8).data
    filled = 0
    while filled < len(room):
        count = file.readinto(room[filled:])  # type: ignore[attr-defined]
        if not count:
            raise InputFileError(f"{label}: the file is cut short: {filled} of {len(room)} bytes are there")
        filled += count
    file.read(1)  # at the end of the entry its checksum is compared
    return flat.reshape(header.shape, order="F" if header.fortran_order else "C")


def require_numbers(header: Header, name: str) -> None:
    """Raise InputFileError unless an array is of real numbers, and holds some."""
    kinds = {"b": "booleans", "c": "complex numbers", "O": "Python objects", "U": "strings", "S": "bytes"}
    if header.dtype.kind not in "iuf":
        what = kinds.get(header.dtype.kind, f"dtype {header.dtype}")
        raise InputFileError(f"{name}: expected real numbers; got an array of {what}")
    if min(header.shape, default=1) < 1:
        raise InputFileError(f"{name}: the array is empty: its shape is {header.shape}")
