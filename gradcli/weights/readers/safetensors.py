"""Files of the safetensors format: a header in JSON, then the tensors' bytes one after the other.

The format's rules are those of https://github.com/huggingface/safetensors#format; all of them are enforced.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from gradcli.errors import InputFileError, ResourceError
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

#: Bytes of JSON: what 100,000 tensors need.
MAX_JSON = 16 << 20
_MAX_OFFSET = 1 << 62

#: The format's names of the dtypes that are read.
_DTYPES = {
    "F64": "float64",
    "F32": "float32",
    "F16": "float16",
    "BF16": "bfloat16",
    "I64": "int64",
    "I32": "int32",
    "I16": "int16",
    "I8": "int8",
    "U64": "uint64",
    "U32": "uint32",
    "U16": "uint16",
    "U8": "uint8",
    "BOOL": "bool",
}


class Safetensors(Checkpoint):
    """An open .safetensors file."""

    FORMAT = "safetensors"

    def __init__(self, file: FileBytes) -> None:
        self._file = file
        header, self._start = _header(file)
        self._spans: dict[str, tuple[int, int]] = {}
        tensors: dict[str, Tensor] = {}
        ignored: list[Ignored] = []
        _require_metadata(header.pop("__metadata__", {}), file.name)
        if len(header) > MAX_TENSORS:
            raise InputFileError(f"{file.name}: it has more than {MAX_TENSORS:,} tensors")
        for name, entry in header.items():
            code, shape, span = _checked(entry, name, file.name)
            self._spans[name] = span
            if code not in _DTYPES:
                ignored.append(Ignored(short(name), f"a tensor of the dtype {short(code)}"))
                continue
            tensor = require_tensor(Tensor(name, shape, _DTYPES[code]), file.name)
            if span[1] - span[0] != tensor.nbytes:
                raise InputFileError(
                    f"{file.name}: the tensor {name} of shape {shape} takes {tensor.nbytes:,} bytes, and the header"
                    f" gives it {span[1] - span[0]:,}"
                )
            tensors[name] = tensor
        self._require_no_holes()
        super().__init__(file.name, tensors, ignored)

    def _require_no_holes(self) -> None:
        end = 0
        for name, span in sorted(self._spans.items(), key=lambda item: item[1]):
            if span[0] != end:
                fault = "overlaps another one" if span[0] < end else "has unused bytes before it"
                raise InputFileError(f"{self._file.name}: refused: the tensor {short(name)} {fault}")
            end = span[1]
        held = self._file.size - self._start
        if end != held:
            raise InputFileError(
                f"{self._file.name}: the file is {'cut off' if held < end else 'damaged'}: its tensors take {end:,}"
                f" bytes, and it holds {held:,}"
            )

    def _read(self, tensor: Tensor) -> Array:
        start = self._start + self._spans[tensor.name][0]
        entries = self._file.array(start, tensor.size, "<" + NUMPY_CODES[tensor.dtype])
        return widened(entries.reshape(tensor.shape), tensor.dtype)

    def close(self) -> None:
        """Let go of the file."""
        self._file.close()


def open_file(path: Path, name: str) -> Safetensors:
    """Return a .safetensors file, open; see `gradcli.weights.formats.open_checkpoint` for arguments and errors."""
    file = FileBytes(path, name)
    try:
        return Safetensors(file)
    except BaseException:
        file.close()
        raise


def parse_json(text: bytes, file: str) -> Any:
    """Return what JSON says, of which no object may have two entries of one name.

    Raises:
        InputFileError: with the file's name, `file`, in front.
    """

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        entries = dict(pairs)
        if len(entries) != len(pairs):
            ((twice, _),) = Counter(name for name, _ in pairs).most_common(1)
            raise InputFileError(f"{file}: refused: {short(twice)} stands twice in one place of the header")
        return entries

    try:
        return json.loads(text.decode("utf-8"), object_pairs_hook=unique)
    except (ValueError, RecursionError):
        raise InputFileError(f"{file}: the header is not valid JSON") from None


def _header(file: FileBytes) -> tuple[dict[str, Any], int]:
    """Return the header of a file, and where its tensors start."""
    if file.size < 8:
        raise InputFileError(f"{file.name}: not a safetensors file: it has {file.size} bytes")
    length = int.from_bytes(file.read(0, 8), "little")
    if length > file.size - 8:
        raise InputFileError(
            f"{file.name}: not a safetensors file, or one that is cut off: it declares a header of {length:,} bytes"
        )
    if length > MAX_JSON:
        raise ResourceError(f"{file.name}: the header takes {length:,} bytes; at most {MAX_JSON:,} are read")
    text = file.read(8, length)
    if not text.startswith(b"{"):
        raise InputFileError(f"{file.name}: not a safetensors file: its header does not start with {{")
    header = parse_json(text, file.name)
    return header, 8 + length


def _require_metadata(metadata: Any, file: str) -> None:
    if not isinstance(metadata, Mapping) or not all(isinstance(note, str) for note in metadata.values()):
        raise InputFileError(f"{file}: __metadata__ in the header is not a table of texts")


def _checked(entry: Any, name: str, file: str) -> tuple[str, tuple[int, ...], tuple[int, int]]:
    """Return dtype, shape and bytes, from and to, that a header gives of a tensor."""
    if not isinstance(entry, dict) or set(entry) != {"dtype", "shape", "data_offsets"}:
        raise InputFileError(f"{file}: the header of the tensor {short(name)} is not a dtype, a shape and data_offsets")
    dtype, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
    if not isinstance(dtype, str) or not _lengths(shape) or not _lengths(offsets) or len(offsets) != 2:
        raise InputFileError(f"{file}: the header of the tensor {short(name)} has an impossible dtype, shape or offset")
    if offsets[0] > offsets[1]:
        raise InputFileError(f"{file}: refused: the tensor {short(name)} ends before it starts")
    return dtype, tuple(shape), (offsets[0], offsets[1])


def _lengths(values: Any) -> bool:
    return isinstance(values, list) and all(type(value) is int and 0 <= value < _MAX_OFFSET for value in values)
