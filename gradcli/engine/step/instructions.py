"""The instructions that a step consists of: an operation, what it takes, and where its result goes.

An operand is a part of a buffer: some of the numbers that the buffer has at one step. Its shape and strides are those
of an array over them, in numbers: a vector of n entries from the third on is ``start 2, shape (n,), strides (1,)``, the
same number for all n entries ``strides (0,)``, and the adjoint that several gates share ``shape (gates, n), strides
(0, 1)``. So a state that is a matrix, (m, n), has ``strides (n, 1)``; a vector beside it, spread along one of its
axes, has ``strides (0, 1)`` or ``(1, 0)``; and the output of a sum over an axis has length 1 along it.

Trials, sequences and columns of cotangents are axes that every operand has: they belong to the executors alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import Enum, auto
from math import prod
from typing import Any, NamedTuple

from gradcli.language.graph import Node


class Span(Enum):
    """How long a buffer's values last."""

    #: One memory for all steps: matrices, constants, and what is of use within a step only.
    ONCE = auto()
    #: A memory for each of the steps that run together, counted from the first of them.
    BLOCK = auto()
    #: A memory for each step of a segment, counted from the first step of the segment.
    SEGMENT = auto()


class Buffer:
    """Memory for some numbers of each trial and sequence, at one step or at each of several; equal to itself alone.

    Args:
        name: for people. size: how many numbers. span: at how many steps.
        lag: for how many steps before the first there is memory as well.
        value: what fills it before the loop, where it depends on parameters alone: a matrix, a vector, a number.
        columns: whether each column of a matrix of cotangents has numbers of its own in it.
        dtype: of its numbers, where that is not the run's.
    """

    __slots__ = ("columns", "dtype", "lag", "name", "size", "span", "value")

    def __init__(
        self,
        name: str,
        size: int,
        span: Span,
        *,
        lag: int = 0,
        value: Node | None = None,
        columns: bool = False,
        dtype: str | None = None,
    ) -> None:
        self.name, self.size, self.span, self.lag = name, size, span, lag
        self.value, self.columns, self.dtype = value, columns, dtype

    def __repr__(self) -> str:
        return f"<{self.name}: {self.size}, {self.span.name.lower()}>"

    def rows(self, start: int = 0, stop: int | None = None, lag: int = 0) -> Operand:
        """Return the numbers start .. stop-1 at the step that lies `lag` steps back, as a vector."""
        return Operand(self, start, ((self.size if stop is None else stop) - start,), (1,), lag)


class Operand(NamedTuple):
    """An array over numbers of a buffer at one step; see the module."""

    buffer: Buffer
    start: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]
    lag: int = 0

    def spread(self, rows: int) -> Operand:
        """Return a vector of one entry as one of `rows` equal entries; any other as it is."""
        return self._replace(shape=(rows,), strides=(0,)) if self.shape == (1,) != (rows,) else self

    def fit(self, shape: tuple[int, ...]) -> Operand:
        """Return a vector as an array of so many entries in a shape, or one entry as all of them."""
        if self.shape == shape:
            return self
        if self.shape == (1,):
            return self._replace(shape=shape, strides=(0,) * len(shape))
        (stride,) = self.strides
        behind = [prod(shape[axis + 1 :]) * stride for axis in range(len(shape))]
        return self._replace(shape=shape, strides=tuple(behind))

    def viewed(self, start: int, shape: tuple[int, ...], strides: tuple[int, ...]) -> Operand:
        """Return an array over the entries of a vector."""
        (stride,) = self.strides
        return self._replace(
            start=self.start + start * stride, shape=shape, strides=tuple(stride * inner for inner in strides)
        )

    def without(self, axis: int, axes: int) -> Operand:
        """Return the place of the sums over one of some axes: a vector or one entry, with that axis of length 1."""
        if axes == 1:
            return self
        shape, strides = list(self.shape), list(self.strides)
        shape.insert(axis, 1)
        strides.insert(axis, 0)
        return self._replace(shape=tuple(shape), strides=tuple(strides))

    @property
    def stop(self) -> int:
        """The number behind the last one of a vector."""
        return self.start + self.shape[0]


def common_shape(*shapes: tuple[int, ...]) -> tuple[int, ...]:
    """Return the shape that operands are taken in together: an array's, where one is one, or the longest vector's."""
    return max(shapes, key=lambda shape: (len(shape), prod(shape)))


class Instruction(NamedTuple):
    """An operation on some operands.

    op: ``add``, ``multiply``, ..., a function of `gradcli.language.functions`, ``product`` of a matrix and a vector,
        ``across`` and ``jacobian`` for a function of `gradcli.language.across`, ``clip_norm`` and ``clip_value``;
        ``sum_axis``, ``sum_product`` of two, ``largest``, ``cumsum`` and ``cumsum_reversed`` along an axis.
    data: what else the operation needs to know: the function across and its eps; the axis.
    """

    op: str
    args: tuple[Operand, ...]
    out: Operand
    data: Any = None

    @property
    def written(self) -> tuple[Operand, ...]:
        """All that the operation writes: of a function across its slope as well, of clipping what it counts."""
        beside = {"across": 1, "clip_norm": 2, "clip_value": 2}.get(self.op)
        return (self.out,) if beside is None else (self.out, *self.args[beside:])


Instructions = Sequence[Instruction]


def buffers_of(instructions: Instructions) -> list[Buffer]:
    """Return the buffers that instructions read or write, in the order in which they come."""
    found: dict[Buffer, None] = {}
    for instruction in instructions:
        for operand in (*instruction.args, instruction.out):
            found[operand.buffer] = None
    return list(found)
