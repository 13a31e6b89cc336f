"""What an HDF5 file holds: its datasets, a few attributes of its groups, and their entries, by a walk of our own.

HDF5 is read by a C library that was not made for hostile files: this module runs in a process of its own, which
`hdf5_process` starts. Followed are hard links alone: a soft or external link, a virtual dataset and one in external
storage name other files or other places, and none of them is in a file of Keras.
"""

from __future__ import annotations

import codecs
import io
import math
import struct
import zipfile
import zlib
from collections.abc import Iterator
from typing import Any, BinaryIO, NamedTuple

import h5py
import numpy as np
from h5py import h5a, h5d, h5l, h5o, h5s, h5t, h5z

from gradcli.errors import InputFileError, ResourceError
from gradcli.weights.checkpoint import ITEM_BYTES, MAX_EXTENT

Array = np.ndarray[Any, Any]

codecs.lookup("cp437")  # zipfile's, which is a file that could not be opened once `hdf5_process` has set its limits

SIGNATURE = b"\x89HDF\r\n\x1a\n"
ZIP_SIGNATURE = b"PK\x03\x04"
#: What is read of a .keras archive, and nothing else of it.
CONFIG_MEMBER, WEIGHTS_MEMBER = "config.json", "model.weights.h5"

MAX_OBJECTS = 100_000
MAX_DEPTH = 64
MAX_NAME = 1000
MAX_TEXT = 16 * 2**20
MAX_TENSOR_BYTES = 2**31
MAX_CHUNK_BYTES = 2**28
MAX_UNPACKED_BYTES = 2**30
#: Deflate makes at most 1,032 bytes of one (zlib's technical notes); nothing else that is allowed makes more.
MAX_RATIO = 1032

_FILTERS = (h5z.FILTER_DEFLATE, h5z.FILTER_SHUFFLE, h5z.FILTER_FLETCHER32, h5z.FILTER_LZF)
_LAYOUTS = (h5d.COMPACT, h5d.CONTIGUOUS, h5d.CHUNKED)
#: The attributes that tell of layers; the lists among them are split over name0, name1, ... where they are long.
_TEXTS = ("name", "backend", "keras_version")
_LISTS = ("layer_names", "weight_names")
#: Not descended into: the variables of the optimizer, in .weights.h5 and in the legacy .h5.
_OPTIMIZER = (b"optimizer", b"optimizer_weights")
#: What h5py and zipfile raise on damaged files: the base classes of all that was seen in fuzzing.
DAMAGE = (
    OSError,
    RuntimeError,
    LookupError,
    ValueError,
    TypeError,
    ArithmeticError,
    EOFError,
    zipfile.BadZipFile,
    zlib.error,
    struct.error,
)


class Listed(NamedTuple):
    """What a file holds, as plain data that JSON can carry.

    tensors: path, shape, dtype. ignored: path, reason. attributes: path of a group, its attributes.
    config: the text of the model's config, or None.
    """

    tensors: list[tuple[str, tuple[int, ...], str]]
    ignored: list[tuple[str, str]]
    attributes: dict[str, dict[str, str | list[str]]]
    config: str | None


class Hdf5File:
    """An open .h5 file, or a .keras archive with one inside.

    Raises:
        InputFileError: the file is none of these, or damaged, or holds what is refused. The text has no file name.
        ResourceError: it would take more memory or time than any checkpoint needs.
    """

    def __init__(self, file: BinaryIO) -> None:
        start = file.read(len(SIGNATURE))
        self._config: str | None = None
        if start.startswith(ZIP_SIGNATURE):
            file, self._config = _unpacked(file)
            start = file.read(len(SIGNATURE))
        if start != SIGNATURE:
            raise InputFileError("no HDF5 file and no .keras archive, or one that is damaged: it begins otherwise")
        self._bytes = file.seek(0, io.SEEK_END)
        file.seek(0)
        self._file = h5py.File(file, "r")
        self._fileno = h5o.get_info(self._file.id).fileno

    def listed(self) -> Listed:
        """Return what the file holds."""
        listed = Listed([], [], {}, None)
        text = 0
        root = h5o.open(self._file.id, b"/")
        if not isinstance(root, h5py.h5g.GroupID):
            raise InputFileError("damaged: it begins with something else than a group")
        seen = {h5o.get_info(root).addr}
        groups = [("", root, 0)]
        count = 0
        config = self._config
        while groups:
            path, group, depth = groups.pop()
            if attributes := _attributes(group):
                listed.attributes[path] = attributes
                text += sum(len("".join(value)) for value in attributes.values())
            if config is None and not path:
                config = _text(group, b"model_config")
            below = []
            for link in _link_names(group, MAX_OBJECTS - count):
                count += 1
                name, problem = _checked(group, link, depth)
                inside = f"{path}/{name}" if path else name
                text += len(inside)
                if len(inside) > MAX_NAME or text > MAX_TEXT:
                    raise ResourceError("names longer than any checkpoint has")
                if problem is None and depth == 0 and link in _OPTIMIZER:
                    problem = "variables of the optimizer, which are no weights"
                if problem is not None:
                    listed.ignored.append((inside, problem))
                    continue
                found = h5o.open(group, link)
                info = h5o.get_info(found)
                if info.fileno != self._fileno:
                    raise InputFileError(f"{inside} leads to another file; only what is in this one is read")
                if isinstance(found, h5py.h5g.GroupID):
                    if info.addr in seen:
                        listed.ignored.append((inside, "a second way to a group that was seen"))
                        continue
                    seen.add(info.addr)
                    below.append((inside, found, depth + 1))
                elif isinstance(found, h5d.DatasetID):
                    dtype, reason = _dtype(found)
                    if dtype is None:
                        listed.ignored.append((inside, reason))
                    else:
                        listed.tensors.append((inside, self._shape(found, inside, dtype), dtype))
                else:
                    listed.ignored.append((inside, "a datatype, which has no entries"))
            groups += reversed(below)
        return listed._replace(config=config)

    def read(self, path: str, shape: tuple[int, ...], dtype: str) -> Array:
        """Return the entries of a dataset that `listed` told of; of bfloat16 their bits, as uint16."""
        needed = math.prod(shape) * ITEM_BYTES[dtype]
        if needed > MAX_TENSOR_BYTES:
            raise ResourceError(f"{path} has {needed:,} bytes; at most {MAX_TENSOR_BYTES:,} can be read")
        found = h5o.open(self._file.id, path.encode())
        if h5o.get_info(found).fileno != self._fileno or not isinstance(found, h5d.DatasetID):
            raise InputFileError(f"{path} has changed since the file was opened")
        if _dtype(found)[0] != dtype or self._shape(found, path, dtype) != shape:
            raise InputFileError(f"{path} has changed since the file was opened")
        entries = np.empty(shape, np.uint16 if dtype == "bfloat16" else dtype)
        if entries.size:
            in_memory = found.get_type() if dtype == "bfloat16" else h5t.py_create(entries.dtype)
            found.read(h5s.ALL, h5s.ALL, entries, in_memory)
        return entries

    def _shape(self, dataset: Any, path: str, dtype: str) -> tuple[int, ...]:
        """Return the shape of a dataset whose entries are in the file, all of them, and nowhere else."""
        created = dataset.get_create_plist()  # before its dataspace, for which a virtual dataset opens other files
        layout = created.get_layout()
        if layout == h5d.VIRTUAL or created.get_external_count():
            raise InputFileError(f"{path} has its entries in other files, which are not read; write them into this one")
        if layout not in _LAYOUTS:
            raise InputFileError(f"{path} is stored in a way that HDF5 does not describe")
        filters = [created.get_filter(index)[0] for index in range(created.get_nfilters())]
        unknown = [str(each) for each in filters if each not in _FILTERS]
        if unknown:
            raise InputFileError(
                f"{path} is compressed by filter {unknown[0]}; those that are read are gzip, lzf, shuffle and"
                " fletcher32: save it with one of these, or uncompressed"
            )
        if dataset.get_space().get_simple_extent_type() == h5s.NULL:
            return (0,)
        shape = tuple(dataset.shape)
        if any(size > MAX_EXTENT for size in shape):
            raise InputFileError(f"{path} claims the shape {shape}, which no tensor has")
        claimed = math.prod(shape) * ITEM_BYTES[dtype]
        stored = dataset.get_storage_size()
        most = stored
        if layout == h5d.CHUNKED:
            chunk = math.prod(created.get_chunk()) * ITEM_BYTES[dtype]
            if chunk > MAX_CHUNK_BYTES and chunk > 2 * claimed:
                raise ResourceError(f"{path} is stored in chunks of {chunk:,} bytes, of which it needs {claimed:,}")
            most = stored * MAX_RATIO if filters else stored
        if claimed > most or min(stored, claimed) > self._bytes * MAX_RATIO or (not filters and claimed > self._bytes):
            raise InputFileError(f"{path} claims {claimed:,} bytes, and the file holds {stored:,} for it")
        return shape


def _link_names(group: Any, most: int) -> Iterator[bytes]:
    names: list[bytes] = []

    def keep(name: bytes) -> bool | None:
        names.append(bytes(name))
        return len(names) > most or None

    group.links.iterate(keep)
    if len(names) > most:
        raise ResourceError(f"it holds more than {MAX_OBJECTS:,} objects, more than any checkpoint")
    return iter(names)


def _checked(group: Any, link: bytes, depth: int) -> tuple[str, str | None]:
    """Return a link's name for people, and why it is not followed; None where it is."""
    name = link.decode("utf-8", "backslashreplace")
    shown = "".join(char if char.isprintable() else repr(char)[1:-1] for char in name)
    if shown.encode() != link:
        return shown, "a name that is no printable UTF-8"
    if not name or b"/" in link or link == b".":
        # HDF5 would take it for a path, and follow whatever links are on it.
        return shown, "a name that is a path"
    if group.links.get_info(link).type != h5l.TYPE_HARD:
        return shown, "a link to another place or file, which is not followed"
    if depth == MAX_DEPTH:
        return shown, f"more than {MAX_DEPTH} groups deep"
    return shown, None


def _dtype(dataset: Any) -> tuple[str | None, str]:
    """Return the dtype of a dataset, a key of `ITEM_BYTES`; None and the reason where it is none of them."""
    stored = dataset.get_type()
    kind = stored.get_class()
    if kind == h5t.OPAQUE and stored.get_size() == 2 and _text(dataset, b"dtype") == "bfloat16":
        return "bfloat16", ""  # as Keras writes it
    if kind not in (h5t.FLOAT, h5t.INTEGER, h5t.ENUM):
        return None, "its entries are no numbers"
    dtype = np.dtype(stored.dtype)
    name = dtype.newbyteorder("=").name
    if name not in ITEM_BYTES or not h5t.py_create(dtype, logical=True).equal(stored):
        return None, "its entries are numbers of a kind that is not read"
    return name, ""


def _attributes(group: Any) -> dict[str, str | list[str]]:
    found: dict[str, str | list[str]] = {}
    for name in _TEXTS:
        if (text := _text(group, name.encode())) is not None:
            found[name] = text
    for name in _LISTS:
        texts = _texts(group, name.encode())
        part = 0
        while (more := _texts(group, f"{name}{part}".encode())) is not None:
            texts = [*(texts or []), *more]
            part += 1
        if texts is not None:
            found[name] = texts
    return found


def _text(of: Any, name: bytes) -> str | None:
    texts = _texts(of, name)
    return texts[0] if texts is not None and len(texts) == 1 else None


def _texts(of: Any, name: bytes) -> list[str] | None:
    """Return an attribute that is a text, or a list of them; None where there is none such."""
    if not h5a.exists(of, name):
        return None
    attribute = h5a.open(of, name)
    shape = attribute.shape
    if attribute.get_space().get_simple_extent_type() == h5s.NULL or 0 in shape:
        return []
    stored = attribute.get_type()
    if stored.get_class() != h5t.STRING or len(shape) > 1:
        return None
    if math.prod(shape) > MAX_OBJECTS or attribute.get_storage_size() > MAX_TEXT:
        raise ResourceError(f"the attribute {name.decode()} is longer than that of any checkpoint")
    variable = stored.is_variable_str()
    entries = np.empty(shape, object if variable else f"S{stored.get_size()}")
    attribute.read(entries, h5t.py_create(h5t.string_dtype()) if variable else h5t.py_create(entries.dtype))
    raw = [each.encode() if isinstance(each, str) else bytes(each) for each in entries.reshape(-1)]
    if sum(map(len, raw)) > MAX_TEXT:
        raise ResourceError(f"the attribute {name.decode()} is longer than that of any checkpoint")
    return [each.decode() for each in raw]


def _unpacked(file: BinaryIO) -> tuple[BinaryIO, str]:
    """Return the weights of a .keras archive, a file in memory or a part of `file`, and the text of its config."""
    archive = zipfile.ZipFile(file)
    members = {member.filename: member for member in archive.infolist()}
    for name in (CONFIG_MEMBER, WEIGHTS_MEMBER):
        if name not in members:
            raise InputFileError(
                f"a zip archive without {name}; expected one that Keras's model.save(...) wrote, not sharded"
            )
    config = _member(archive, members[CONFIG_MEMBER], MAX_TEXT).decode()
    weights = members[WEIGHTS_MEMBER]
    if weights.compress_type != zipfile.ZIP_STORED:
        return io.BytesIO(_member(archive, weights, MAX_UNPACKED_BYTES)), config
    with archive.open(weights):  # checks the member's own header
        pass
    whole = file.seek(0, io.SEEK_END)
    file.seek(weights.header_offset + 26)
    lengths = file.read(4)
    start = weights.header_offset + 30 + int.from_bytes(lengths[:2], "little") + int.from_bytes(lengths[2:], "little")
    if start + weights.file_size > whole:
        raise InputFileError(f"{WEIGHTS_MEMBER} is cut short")
    return io.BufferedReader(_Part(file, start, weights.file_size)), config


def _member(archive: zipfile.ZipFile, member: zipfile.ZipInfo, most: int) -> bytes:
    if member.file_size > most:
        raise ResourceError(f"{member.filename} unpacks to {member.file_size:,} bytes; at most {most:,} are read")
    with archive.open(member) as packed:
        content = packed.read(most + 1)  # zipfile inflates no more than the size that it claims
    if len(content) != member.file_size:
        raise InputFileError(f"{member.filename} is cut short")
    return content


class _Part(io.RawIOBase):
    """Some bytes of a file, as a file."""

    def __init__(self, file: BinaryIO, start: int, size: int) -> None:
        self._inside = file
        self._start = start
        self._size = size
        self._at = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self._at = offset + {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._size}[whence]
        return self._at

    def readinto(self, buffer: Any) -> int:
        room = memoryview(buffer)[: max(0, self._size - self._at)]
        self._inside.seek(self._start + self._at)
        count = self._inside.readinto(room)  # type: ignore[attr-defined]
        self._at += count
        return int(count)
