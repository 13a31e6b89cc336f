"""A checkpoint whose tensors are arrays in memory: layouts can be tested without any reader."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gradcli.weights.checkpoint import Checkpoint, Tensor


class FakeCheckpoint(Checkpoint):
    """A checkpoint of arrays, by name.

    Args:
        read_none: whether reading a number is a mistake, as it is while layouts are told.
    """

    FORMAT = "fake"

    def __init__(self, arrays: Mapping[str, NDArray[Any]], *, read_none: bool = False) -> None:
        super().__init__("fake", {name: Tensor(name, a.shape, a.dtype.name) for name, a in arrays.items()})
        self._arrays = arrays
        self._read_none = read_none

    def _read(self, tensor: Tensor) -> NDArray[Any]:
        assert not self._read_none, f"{tensor.name} was read"
        entries = self._arrays[tensor.name]
        return entries.astype(np.float32) if tensor.dtype in ("bfloat16", "float16") else entries

    def close(self) -> None:
        pass


def of_shapes(shapes: Mapping[str, tuple[int, ...]], dtype: str = "float32") -> FakeCheckpoint:
    """Return a checkpoint of tensors of these names and shapes, none of which may be read."""
    arrays = {name: np.broadcast_to(np.zeros((), dtype), shape) for name, shape in shapes.items()}
    return FakeCheckpoint(arrays, read_none=True)
