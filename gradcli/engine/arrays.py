"""The memory behind the buffers of a step's programs: one table, and views of it as operands ask for them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

import numpy as np

from gradcli.engine.step.instructions import Buffer, Operand, Span

Array = np.ndarray[Any, Any]


class Arrays:
    """One array for each buffer: (n, R, size, B), with n = 1 where all steps share it.

    Of a matrix of cotangents with K columns, what belongs to each column is (n, R, size, B, K).

    Args:
        trials, batch_size: R and B. dtype: float64 or float32. columns: K, where adjoints have columns.

    Attributes:
        version: changes whenever the constants do.
        moving: buffers whose steps are counted from the first of a segment, though they last for a block.
    """

    def __init__(self, trials: int, batch_size: int, dtype: np.dtype[Any], columns: int | None = None) -> None:
        self.trials, self.batch_size, self.dtype, self.columns = trials, batch_size, dtype, columns
        self.version = 0
        self.moving: set[Buffer] = set()
        self._arrays: dict[Buffer, Array] = {}

    def allocate(self, buffers: Iterable[Buffer], *, segment: int, block: int) -> None:
        """Take memory for the buffers that have none: for as many steps as a segment or a block has, or for one."""
        for buffer in buffers:
            if buffer not in self._arrays:
                self._arrays[buffer] = self.empty(buffer, _steps(buffer, segment, block))

    def empty(self, buffer: Buffer, steps: int) -> Array:
        """Return an array for a buffer at so many steps."""
        if buffer.value is not None:
            return np.zeros((1, self.trials, buffer.size, 1), self.dtype)
        if buffer.dtype is not None:
            return np.zeros((steps, self.trials, buffer.size, self.batch_size), buffer.dtype)
        shape: tuple[int, ...] = (steps, self.trials, buffer.size, self.batch_size)
        if self.columns is not None and buffer.columns:
            shape = (*shape, self.columns)
        return np.empty(shape, self.dtype)

    def __getitem__(self, buffer: Buffer) -> Array:
        return self._arrays[buffer]

    def __setitem__(self, buffer: Buffer, array: Array) -> None:
        self._arrays[buffer] = array

    def __contains__(self, buffer: Buffer) -> bool:
        return buffer in self._arrays

    def first_of(self, buffer: Buffer, first: int) -> int:
        """Return where the steps of a buffer begin that run together, if they begin at a step of the segment."""
        return first if buffer.span is Span.SEGMENT or buffer in self.moving else 0

    def of(self, operand: Operand) -> Array:
        """Return a vector's numbers at all steps, (n, R, size, B), those before the first step not among them."""
        array, buffer = self._arrays[operand.buffer], operand.buffer
        first = buffer.lag - operand.lag
        return array[first : len(array) - operand.lag, :, operand.start : operand.stop]

    def view(self, operand: Operand) -> Array:
        """Return what an operand is at every step: (n, R, *shape, B), and K behind it where there are columns."""
        array, buffer = self._arrays[operand.buffer], operand.buffer
        if operand.strides == (1,) and operand.stop <= buffer.size:  # not a window over several steps
            found = self.of(operand)
        else:
            step, trial, number, *behind = array.strides
            origin = array[buffer.lag - operand.lag :, :, operand.start :]
            shape = (len(array) - buffer.lag, self.trials, *operand.shape, *array.shape[3:])
            strides = (step, trial, *(number * stride for stride in operand.strides), *behind)
            found = np.lib.stride_tricks.as_strided(origin, shape, strides)
        return found[..., None] if self.columns is not None and not buffer.columns else found


class Extent(NamedTuple):
    """How much there is of everything: R trials, B sequences, numbers of so many bytes."""

    trials: int
    batch_size: int
    itemsize: int

    def bytes_of(self, buffers: Iterable[Buffer], *, segment: int, block: int) -> int:
        """Return how many bytes `Arrays.allocate` takes."""
        numbers = sum(
            _steps(buffer, segment, block) * buffer.size * (1 if buffer.value is not None else self.batch_size)
            for buffer in set(buffers)
        )
        return numbers * self.trials * self.itemsize


def _steps(buffer: Buffer, segment: int, block: int) -> int:
    return buffer.lag + {Span.ONCE: 1, Span.BLOCK: block, Span.SEGMENT: segment}[buffer.span]
