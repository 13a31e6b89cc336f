"""An open checkpoint: what tensors a file holds, told at once; their numbers, read when they are asked for."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, ClassVar, Self

import numpy as np

from gradcli.errors import InputFileError, ResourceError
from gradcli.frozen import frozen

Array = np.ndarray[Any, Any]

#: Bytes of an entry of each dtype that a checkpoint may hold and gradcli reads.
ITEM_BYTES: Mapping[str, int] = {
    "float64": 8,
    "float32": 4,
    "float16": 2,
    "bfloat16": 2,
    "int64": 8,
    "int32": 4,
    "int16": 2,
    "int8": 1,
    "uint64": 8,
    "uint32": 4,
    "uint16": 2,
    "uint8": 1,
    "bool": 1,
}
#: What NumPy calls the bits of each of them, but for the byte order.
NUMPY_CODES: Mapping[str, str] = {
    dtype: "u2" if dtype == "bfloat16" else "?" if dtype == "bool" else f"{dtype[0]}{width}"
    for dtype, width in ITEM_BYTES.items()
}
#: The dtypes of weights.
FLOATS = ("float64", "float32", "float16", "bfloat16")

#: More tensors than any checkpoint has; a file that claims more is refused before they are listed.
MAX_TENSORS = 1_000_000
#: More dimensions than any tensor has.
MAX_DIMENSIONS = 32
#: More characters than any tensor's name has.
MAX_NAME = 1_000
#: A longer dimension than any tensor has; beyond it not even one without entries could be an array.
MAX_EXTENT = 2**40


@frozen
class Tensor:
    """What a checkpoint says of one of its tensors. dtype: a key of `ITEM_BYTES`."""

    name: str
    shape: tuple[int, ...]
    dtype: str

    @property
    def size(self) -> int:
        """The number of its entries."""
        return math.prod(self.shape)

    @property
    def nbytes(self) -> int:
        """The bytes that its entries take, as stored."""
        return self.size * ITEM_BYTES[self.dtype]


@frozen
class Ignored:
    """Something in a file that is no tensor that gradcli reads, and why. `name` is as the file has it."""

    name: str
    reason: str


def require_tensor(tensor: Tensor, file: str) -> Tensor:
    """Return a tensor whose name can be printed and whose shape NumPy can hold, even where the file lies about both.

    Raises:
        InputFileError: with the file's name, `file`, in front.
    """
    if len(tensor.name) > MAX_NAME or not tensor.name.isprintable():
        raise InputFileError(f"{file}: refused: a tensor's name is too long or cannot be printed: {short(tensor.name)}")
    if len(tensor.shape) > MAX_DIMENSIONS:
        raise InputFileError(
            f"{file}: the tensor {tensor.name} has {len(tensor.shape)} dimensions; at most {MAX_DIMENSIONS} are read"
        )
    # A tensor without entries may claim any length along its other dimensions, and NumPy multiplies those.
    if min(tensor.shape, default=0) < 0 or math.prod(max(length, 1) for length in tensor.shape) >= 1 << 59:
        raise InputFileError(f"{file}: refused: the tensor {tensor.name} has a shape that no tensor has")
    return tensor


def short(name: str) -> str:
    """Return a name as messages and lists show it: on one line, printable, of bounded length."""
    shown = name if len(name) <= 80 else f"{name[:77]}..."
    return shown if shown.isprintable() else repr(shown)[1:-1]


class Checkpoint(ABC):
    """An open checkpoint; a context manager.

    name: what messages call the file, as the user wrote it.
    tensors: by name, in the order of the file. ignored: what the file holds besides.
    """

    #: What the format is called, as in "safetensors".
    FORMAT: ClassVar[str]
    #: The other files that are read beside the one that was named.
    beside: tuple[Path, ...] = ()

    def __init__(self, name: str, tensors: Mapping[str, Tensor], ignored: Sequence[Ignored] = ()) -> None:
        self.name = name
        self.tensors = tensors
        self.ignored = tuple(ignored)

    def read(self, tensor: str) -> Array:
        """Return the entries of a tensor, in its shape; of bfloat16 and float16 as float32, else in its dtype.

        Raises:
            InputFileError: the file does not hold what it promised, or a number that is NaN or infinite.
            ResourceError: the memory does not suffice.
        """
        info = self.tensors[tensor]
        try:
            values = self._read(info)
            finite = info.dtype not in FLOATS or bool(np.isfinite(values).all())
        except MemoryError:
            raise ResourceError(
                f"{self.name}: the tensor {tensor} takes {info.nbytes:,} bytes, more than there is memory for"
            ) from None
        if not finite:
            place = np.unravel_index(int(np.argmin(np.isfinite(values))), values.shape)
            raise InputFileError(
                f"{self.name}: the tensor {tensor} is {values[place]} at [{', '.join(map(str, place))}]; gradients of"
                " weights that are not finite have no meaning"
            )
        return values

    def not_finite(self, tensor: str) -> tuple[int, int]:
        """Return how many entries of a tensor are NaN, and how many are infinite.

        Raises:
            InputFileError, ResourceError: as for `read`.
        """
        info = self.tensors[tensor]
        if info.dtype not in FLOATS:
            return 0, 0
        try:
            values = self._read(info)
            return int(np.isnan(values).sum()), int(np.isinf(values).sum())
        except MemoryError:
            raise ResourceError(f"{self.name}: there is not enough memory to read the tensor {tensor}") from None

    @abstractmethod
    def _read(self, tensor: Tensor) -> Array:
        """Return the entries of a tensor, whether finite or not; see `read`."""

    @abstractmethod
    def close(self) -> None:
        """Let go of the file."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def widened(entries: Array, dtype: str) -> Array:
    """Return entries as `Checkpoint.read` gives them; those of a bfloat16 come as their bits, uint16.

    A bfloat16 is the upper half of a float32 (Kalamkar et al. 2019).

    >>> widened(np.array([0x3F80, 0xC000], np.uint16), "bfloat16")
    array([ 1., -2.], dtype=float32)
    """
    if dtype == "bfloat16":
        bits = entries.astype(np.uint32)
        bits <<= 16
        return bits.view(np.float32)
    if dtype == "float16":
        return entries.astype(np.float32)
    return entries.astype(entries.dtype.newbyteorder("="), copy=False)
