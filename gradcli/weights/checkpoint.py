"""An open checkpoint: what tensors a file holds, told at once; their numbers, read when they are asked for."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any, ClassVar, Self

import numpy as np

from gradcli.errors import InputFileError

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
#: The dtypes of weights.
FLOATS = ("float64", "float32", "float16", "bfloat16")

#: More tensors than any checkpoint has; a file that claims more is refused before they are listed.
MAX_TENSORS = 1_000_000
#: More dimensions than any tensor has.
MAX_DIMENSIONS = 32
#: A longer dimension than any tensor has; beyond it not even one without entries could be an array.
MAX_EXTENT = 2**40


@dataclass(frozen=True)
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


@dataclass(frozen=True)
class Ignored:
    """Something in a file that is no tensor that gradcli reads, and why. `name` is as the file has it."""

    name: str
    reason: str


class Checkpoint(ABC):
    """An open checkpoint; a context manager.

    name: what messages call the file, as the user wrote it.
    tensors: by name, in the order of the file. ignored: what the file holds besides.
    """

    #: What the format is called, as in "safetensors".
    FORMAT: ClassVar[str]

    def __init__(self, name: str, tensors: Mapping[str, Tensor], ignored: Sequence[Ignored] = ()) -> None:
        self.name = name
        self.tensors = tensors
        self.ignored = tuple(ignored)

    def read(self, tensor: str) -> Array:
        """Return the entries of a tensor, in its shape; of bfloat16 and float16 as float32, else in its dtype.

        Raises:
            InputFileError: the file does not hold what it promised, or a number that is NaN or infinite.
        """
        info = self.tensors[tensor]
        values = self._read(info)
        if info.dtype in FLOATS and not np.isfinite(values).all():
            place = np.unravel_index(int(np.argmin(np.isfinite(values))), values.shape)
            raise InputFileError(
                f"{self.name}: the tensor {tensor} is {values[place]} at [{', '.join(map(str, place))}]; gradients of"
                " weights that are not finite have no meaning"
            )
        return values

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
        return (entries.astype(np.uint32) << 16).view(np.float32)
    if dtype == "float16":
        return entries.astype(np.float32)
    return entries.astype(entries.dtype.newbyteorder("="), copy=False)
