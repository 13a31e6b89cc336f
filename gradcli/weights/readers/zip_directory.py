"""The directory of a zip file (PKWARE's APPNOTE 6.3.10), as .npz and PyTorch files are, and the bytes of its entries.

Read here and not by `zipfile`, which trusts the sizes that a file declares and lets entries share their bytes.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import PurePosixPath
from typing import Any

import numpy as np

from gradcli.errors import InputFileError, ResourceError
from gradcli.weights.readers.file_bytes import FileBytes

Array = np.ndarray[Any, Any]

#: Bytes of a directory: what 150,000 entries of PyTorch's take.
MAX_DIRECTORY = 16 << 20
#: An entry that would grow by more than this factor when inflated, and to more than these bytes, is a bomb. Weights
#: hardly shrink at all; only constant ones shrink a thousandfold, and few of those are large.
MAX_RATIO = 100
MAX_UNQUESTIONED = 64 << 20

_END = struct.Struct("<4s4H2IH")
_END_64 = struct.Struct("<4sQ2H2I4Q")
_LOCATOR_64 = struct.Struct("<4sIQI")
_CENTRAL = struct.Struct("<4s6H3I5H2I")
_LOCAL = struct.Struct("<4s5H3I2H")
_STORED, _DEFLATED = 0, 8
_ENCRYPTED, _UTF8 = 0x1, 0x800
#: Bytes that are read or inflated at a time.
CHUNK = 1 << 18


@dataclass(frozen=True, slots=True)
class Entry:
    """An entry of a zip file. size: of its content, in bytes; stored_size: of what the file holds of it.

    header: where its own header starts. limit: where whatever follows it starts.
    """

    name: str
    raw_name: bytes
    deflated: bool
    crc: int
    stored_size: int
    size: int
    header: int
    limit: int


class ZipDirectory:
    """The entries of a zip file, by name, in the order of its directory.

    Raises:
        InputFileError: not a zip file; one that is damaged or lies; entries that are encrypted, of one name,
            overlapping, compressed in an unusual way, or with a name that leads out of a folder.
        ResourceError: a directory that is too large, or entries that grow too much when inflated.
    """

    def __init__(self, file: FileBytes) -> None:
        self._file = file
        start, size, count = self._find_directory()
        if size > MAX_DIRECTORY:
            raise ResourceError(
                f"{file.name}: the directory of the zip file takes {size:,} bytes; at most {MAX_DIRECTORY:,} are read"
            )
        self.entries: dict[str, Entry] = {}
        fields = list(self._fields(file.read(start, size)))
        if len(fields) != count:
            raise self._damaged(f"it declares {count:,} entries and lists {len(fields):,}")
        starts = sorted({header for *_, header in fields} | {start})
        limits = dict(pairwise(starts))
        for raw_name, flags, method, crc, stored_size, size, header in fields:
            name = self._decoded(raw_name, flags)
            self._require_plain(name, flags, method)
            if header not in limits or header + _LOCAL.size + len(raw_name) + stored_size > limits[header]:
                raise self._damaged(f"the entry {name} lies outside of it or overlaps another one")
            if name in self.entries:
                raise InputFileError(f"{file.name}: refused: two entries of the zip file have the name {name}")
            if method == _STORED and stored_size != size:
                raise self._damaged(f"the entry {name} declares two sizes")
            if size > MAX_UNQUESTIONED and size > MAX_RATIO * stored_size:
                raise ResourceError(
                    f"{file.name}: the entry {name} would grow from {stored_size:,} bytes to {size:,} when inflated;"
                    f" at most {MAX_RATIO} times as many are allowed"
                )
            self.entries[name] = Entry(
                name, raw_name, method == _DEFLATED, crc, stored_size, size, header, limits[header]
            )
        if len({entry.header for entry in self.entries.values()}) != len(self.entries):
            raise self._damaged("two of its entries share their bytes")

    def data_start(self, entry: Entry) -> int:
        """Return where in the file the stored bytes of an entry start."""
        raw = self._file.read(entry.header, _LOCAL.size + len(entry.raw_name))
        signature, _, flags, method, *_, name_length, extra_length = _LOCAL.unpack_from(raw)
        agrees = (
            signature == b"PK\x03\x04"
            and not flags & _ENCRYPTED
            and method == (_DEFLATED if entry.deflated else _STORED)
            and name_length == len(entry.raw_name)
            and raw[_LOCAL.size :] == entry.raw_name
        )
        start: int = entry.header + _LOCAL.size + name_length + extra_length
        if not agrees or start + entry.stored_size > entry.limit:
            raise self._damaged(f"the directory and the entry {entry.name} disagree")
        return start

    def prefix(self, entry: Entry, count: int) -> bytes:
        """Return the first `count` bytes of an entry's content, or all of it where it is shorter."""
        pieces: list[bytes] = []
        missing = min(count, entry.size)
        for piece in self._content(entry, missing):
            pieces.append(piece)
            missing -= len(piece)
        if missing:
            raise self._damaged(f"the entry {entry.name} is shorter than declared")
        return b"".join(pieces)

    def content(self, entry: Entry) -> Array:
        """Return an entry's content as uint8, in memory of its own; its length and its checksum are as declared."""
        room = np.empty(entry.size, np.uint8)
        filled = crc = 0
        for piece in self._content(entry, entry.size + 1):
            if filled + len(piece) > entry.size:
                raise self._damaged(f"the entry {entry.name} is longer than declared")
            room[filled : filled + len(piece)] = np.frombuffer(piece, np.uint8)
            filled += len(piece)
            crc = zlib.crc32(piece, crc)
        if filled < entry.size:
            raise self._damaged(f"the entry {entry.name} is shorter than declared")
        if crc != entry.crc:
            raise self._damaged(f"the checksum of the entry {entry.name} is wrong")
        return room

    def _content(self, entry: Entry, wanted: int) -> Iterator[bytes]:
        """Yield an entry's content in pieces, `wanted` bytes of it at most."""
        start, left = self.data_start(entry), entry.stored_size
        inflater = zlib.decompressobj(-zlib.MAX_WBITS) if entry.deflated else None
        waiting = b""
        ended = False
        while wanted > 0 and not ended:
            if left and not waiting:
                waiting = self._file.read(start, min(left, CHUNK))
                start, left = start + len(waiting), left - len(waiting)
            if inflater is None:
                piece, waiting, ended = waiting[:wanted], b"", not left
            else:
                try:
                    piece = inflater.decompress(waiting, min(wanted, CHUNK))
                except zlib.error:
                    raise self._damaged(f"the entry {entry.name} cannot be inflated") from None
                waiting = inflater.unconsumed_tail
                # All of the input may have been taken in before all of the output has come out.
                ended = inflater.eof or not (piece or waiting or left)
            wanted -= len(piece)
            yield piece

    def _find_directory(self) -> tuple[int, int, int]:
        """Return where the directory starts, its bytes, and the number of its entries."""
        file = self._file
        tail_start = max(0, file.size - _END.size - 0xFFFF)
        tail = file.read(tail_start, file.size - tail_start)
        place = tail.rfind(b"PK\x05\x06")
        while place >= 0:
            # The comment of a zip file may hold anything, but it ends where the file does.
            if place + _END.size <= len(tail):
                _, disk, first_disk, here, count, size, start, comment = _END.unpack_from(tail, place)
                if place + _END.size + comment == len(tail):
                    break
            place = tail.rfind(b"PK\x05\x06", 0, place + 3)
        else:
            raise InputFileError(f"{file.name}: not a zip file, or one that is cut off")
        end = tail_start + place
        narrow = (disk, first_disk, here, count, size, start)
        (disk, first_disk, here, count, size, start), end = self._wide_fields(narrow, end)
        if disk or first_disk or here != count or start + size != end:
            raise self._damaged("its end does not tell where its directory is")
        return start, size, count

    def _wide_fields(self, fields: tuple[int, ...], end: int) -> tuple[tuple[int, ...], int]:
        """Return the fields of the end of a zip file and where it starts, those of zip64 where there are any."""
        if end < _LOCATOR_64.size + _END_64.size:
            return fields, end
        signature, _, record, disks = _LOCATOR_64.unpack(self._file.read(end - _LOCATOR_64.size, _LOCATOR_64.size))
        if signature != b"PK\x06\x07":
            return fields, end
        if disks != 1 or record + _END_64.size > end - _LOCATOR_64.size:
            raise self._damaged("its zip64 record is misplaced")
        signature, *_, disk, first_disk, here, count, size, start = _END_64.unpack(
            self._file.read(record, _END_64.size)
        )
        wide = (disk, first_disk, here, count, size, start)
        unknown = (0xFFFF,) * 4 + (0xFFFFFFFF,) * 2
        if signature != b"PK\x06\x06" or any(
            narrow not in (full, mark) for narrow, full, mark in zip(fields, wide, unknown, strict=True)
        ):
            raise self._damaged("its zip64 record disagrees with the end of the file")
        return wide, record

    def _fields(self, directory: bytes) -> Iterator[tuple[bytes, int, int, int, int, int, int]]:
        """Yield name, flags, method, checksum, stored size, size and place of the header of every entry."""
        at = 0
        while at < len(directory):
            if at + _CENTRAL.size > len(directory):
                raise self._damaged("its directory is cut off")
            (signature, _, _, flags, method, _, _, crc, stored_size, size, name_length, extra_length, comment_length,
             disk, _, _, header) = _CENTRAL.unpack_from(directory, at)  # fmt: skip
            name_end = at + _CENTRAL.size + name_length
            next_at = name_end + extra_length + comment_length
            if signature != b"PK\x01\x02" or disk not in (0, 0xFFFF) or next_at > len(directory):
                raise self._damaged("its directory is damaged")
            extra = directory[name_end : name_end + extra_length]
            size, stored_size, header = self._wide_sizes((size, stored_size, header), extra)
            yield directory[at + _CENTRAL.size : name_end], flags, method, crc, stored_size, size, header
            at = next_at

    def _wide_sizes(self, narrow: tuple[int, ...], extra: bytes) -> tuple[int, ...]:
        """Return size, stored size and place of the header, from the zip64 field where the narrow ones have no room."""
        missing = sum(field == 0xFFFFFFFF for field in narrow)
        at = 0
        while missing and at + 4 <= len(extra):
            kind, length = struct.unpack_from("<HH", extra, at)
            if kind == 1 and 8 * missing <= length <= len(extra) - at - 4:
                wide = iter(struct.unpack_from(f"<{missing}Q", extra, at + 4))
                return tuple(next(wide) if field == 0xFFFFFFFF else field for field in narrow)
            at += 4 + length
        if missing:
            raise self._damaged("a zip64 field is missing in its directory")
        return narrow

    def _decoded(self, raw_name: bytes, flags: int) -> str:
        try:
            return raw_name.decode("utf-8" if flags & _UTF8 else "cp437")
        except UnicodeDecodeError:
            raise self._damaged("the name of an entry is not valid UTF-8") from None

    def _require_plain(self, name: str, flags: int, method: int) -> None:
        file = self._file.name
        parts = PurePosixPath(name).parts
        if not name.isprintable() or not parts or ".." in parts or name.startswith("/") or "\\" in name:
            raise InputFileError(f"{file}: refused: the zip file has an entry with the unsafe name {name[:200]!r}")
        if flags & _ENCRYPTED:
            raise InputFileError(f"{file}: the entry {name} of the zip file is encrypted")
        if method not in (_STORED, _DEFLATED):
            raise InputFileError(f"{file}: the entry {name} of the zip file is compressed in a way that is not read")

    def _damaged(self, what: str) -> InputFileError:
        return InputFileError(f"{self._file.name}: the zip file is damaged: {what}")
