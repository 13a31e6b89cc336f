"""Gradients of weight matrices and biases: sums over steps and sequences, taken as a few large products.

For z = W v + U x + b with the adjoint delta of z, dL/dW = sum delta v^T, dL/dU = sum delta x^T and dL/db = sum delta.
With the columns of all steps and sequences side by side that is one product, [dL/dW, dL/dU, dL/db] = delta [v; x; 1]^T.

Its parts have nothing to do with each other's size. Where a part comes out as zero, or near the ends of the range of
floats, it is summed again column by column: a large adjoint that meets an input of zero must not hide a small one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import accumulate
from typing import Any

import numpy as np

from gradcli.engine.arrays import Extent
from gradcli.engine.factors import Factors
from gradcli.engine.layer import Layer
from gradcli.engine.scaled import (
    NOTHING,
    POWERS,
    SAFE_SPREAD,
    Scaled,
    exponent_of,
    scale_by,
    summed_products_of_columns,
)
from gradcli.engine.sizes import window_length
from gradcli.engine.step.plan import LayerPlan
from gradcli.language.graph import Node

Array = np.ndarray[Any, Any]

#: Adjoints of blocks whose powers of two differ by more than this are summed apart, by bytes of a float.
_SAFE_SHIFT = {8: 300, 4: 30}
#: A part of a sum whose largest entry is within this power of two of 1 stays as it is.
_NEAR_ONE = 30
#: A sum whose largest entry is a power of two outside of this range may have lost digits on the way.
_SURE = {8: (-600, 900), 4: (-90, 100)}


class WeightGradients:
    """The gradients of everything that is a sum of products of the same adjoints.

    Args:
        layer: the layer. factors: what is multiplied, and whose gradients that gives.
        block: the most steps that `add` is given at once.
    """

    def __init__(self, layer: Layer, factors: Factors, block: int) -> None:
        self._layer, self.factors = layer, factors
        heights, widths = factors.heights, _widths(layer.plan, factors)
        self._columns = _places(widths)
        self._ones = self._columns[-1]
        self._rows, self._width = sum(heights), sum(widths)
        self._steps = window_length(
            self._rows + self._width, layer.trials, layer.batch_size, layer.dtype.itemsize, block
        )
        self._adjoints = self._window(self._rows)
        self._vectors = self._window(self._width)
        self._vectors[:, self._ones] = 1.0
        self._parts = [(rows, columns) for rows in _places(heights) for columns in self._columns]
        self._sum = PartedSum(heights, widths)
        self.clear()

    @staticmethod
    def bytes_for(plan: LayerPlan, factors: Factors, extent: Extent, block: int) -> int:
        """Return how many bytes it takes for blocks of so many steps."""
        rows = sum(factors.heights) + sum(_widths(plan, factors))
        steps = window_length(rows, *extent, block)
        return rows * steps * extent.trials * extent.batch_size * extent.itemsize

    def _window(self, rows: int) -> Array:
        """Return a buffer of columns, (R, rows, steps, B), laid out as the steps come."""
        trials, batch = self._layer.trials, self._layer.batch_size
        if batch == 1:
            return np.empty((trials, self._steps, rows), self._layer.dtype).swapaxes(1, 2)[..., None]
        return np.empty((trials, rows, self._steps, batch), self._layer.dtype)

    def clear(self) -> None:
        """Forget all that was added."""
        self._count = 0
        self._exponent: Array = np.full(self._layer.trials, NOTHING, np.int64)
        self._sum.clear()

    def add(self, lanes: Array, exponent: Array, vectors: list[Array]) -> None:
        """Take note of the adjoints at the steps of a block.

        Args:
            lanes: mantissas of the adjoints, (n, R, rows, B). exponent: theirs, (R, B).
            vectors: the values of `Factors.vectors`, (n, R, size, B) each.
        """
        n, itemsize = len(lanes), self._layer.dtype.itemsize
        top = exponent.max(axis=1)
        if (top == NOTHING).all():
            return
        known = (top > NOTHING) & (self._exponent > NOTHING)
        far = known.any() and np.abs(top - self._exponent)[known].max() > _SAFE_SHIFT[itemsize]
        apart = bool(((exponent > NOTHING) & (exponent < (top - SAFE_SPREAD[itemsize])[:, None])).any())
        if self._count and (far or apart or self._count + n > self._steps):
            self._sum_up()
        self._exponent = np.where(self._exponent > NOTHING, self._exponent, top)
        place = slice(self._count, self._count + n)
        weight = scale_by(np.ones((), self._layer.dtype), exponent - self._exponent[:, None])
        np.multiply(lanes.transpose(1, 2, 0, 3), weight[:, None, None, :], out=self._adjoints[:, :, place])
        for vector, rows in zip(vectors, self._columns[:-1], strict=True):
            self._vectors[:, rows, place] = vector.transpose(1, 2, 0, 3)
        self._count += n
        if apart:
            # The weights may have made zeros of some sequences' adjoints: here they are as they were.
            columns = (exponent.shape[0], n, exponent.shape[1])
            as_columns = lanes.transpose(1, 2, 0, 3).reshape(*lanes.shape[1:3], -1)
            self._sum_up((as_columns, np.broadcast_to(exponent[:, None], columns).reshape(len(exponent), -1)))

    def of_steps(self, lanes: Array, exponent: Array, vectors: list[Array]) -> list[tuple[Node, Scaled]]:
        """Return what `gradients` would after each of the steps of a block alone: (n, R, ...), summed over sequences.

        The arguments are those of `add`.
        """
        n, layer = len(lanes), self._layer
        top = exponent.max(axis=1)
        weight = scale_by(np.ones((), layer.dtype), exponent - top[:, None])[:, None, :]
        top = np.broadcast_to(np.where(top > NOTHING, top, 0), (n, layer.trials))
        rows, batch = self._rows, layer.batch_size
        right = np.empty((n, layer.trials, self._width, batch), layer.dtype)
        right[:, :, self._ones] = 1.0
        for vector, part in zip(vectors, self._columns[:-1], strict=True):
            right[:, :, part] = vector
        found = np.matmul(lanes * weight, right.swapaxes(-1, -2))
        sums = {
            number: Scaled(found[..., lane_rows, part], top) for number, (lane_rows, part) in enumerate(self._parts)
        }
        for number in self._doubtful(self._sum.largest(found.reshape(n * layer.trials, rows, -1))):
            lane_rows, part = self._parts[number]
            columns = np.broadcast_to(exponent, (n, *exponent.shape))
            sums[number] = summed_products_of_columns(lanes[:, :, lane_rows], right[:, :, part], columns)
        return self._of_nodes(sums)

    def _sum_up(self, exact: tuple[Array, Array] | None = None) -> None:
        """Add what was taken note of to the sums.

        Args:
            exact: the adjoints (R, rows, columns) with an exponent for each column, where those in the buffer have lost
                something.
        """
        columns = self._count * self._layer.batch_size
        left, right = (
            buffer.reshape(buffer.shape[0], buffer.shape[1], -1)[:, :, :columns]
            for buffer in (self._adjoints, self._vectors)
        )
        exponent = np.where(self._exponent > NOTHING, self._exponent, 0)
        adjoints, exponents = exact or (left, np.broadcast_to(exponent[:, None], (len(exponent), columns)))
        found = summed_products(left, right)
        largest = self._sum.largest(found)
        of_parts = np.repeat(exponent, largest[0].size).reshape(largest.shape)
        if again := self._doubtful(largest):
            for number in again:
                rows, part = self._parts[number]
                summed = summed_products_of_columns(adjoints[:, rows], right[:, part], exponents)
                found[:, rows, part] = summed.mantissa
                of_parts.reshape(len(exponent), -1)[:, number] = summed.exponent
            largest = self._sum.largest(found)
        self._sum.add(found, of_parts, largest)
        self._count = 0
        self._exponent = np.full(len(exponent), NOTHING, np.int64)

    def _doubtful(self, largest: Array) -> list[int]:
        """Return the parts whose sum is zero in a trial, or so small or large that digits may be lost."""
        low, high = _SURE[self._layer.dtype.itemsize]
        sure = ((largest > 2.0**low) & (largest < 2.0**high)).all(axis=0)
        return np.flatnonzero(~sure).tolist()

    def gradients(self) -> list[tuple[Node, Scaled]]:
        """Return the sums, as contributions to the gradients of matrices and of the (R, rows, 1) added to them."""
        if self._count:
            self._sum_up()
        sums = self._sum.scaled()
        if sums is None:
            return []
        mantissa, exponent = sums
        return self._of_nodes(
            {number: Scaled(mantissa[:, *part], exponent[:, number]) for number, part in enumerate(self._parts)}
        )

    def _of_nodes(self, sums: Mapping[int, Scaled]) -> list[tuple[Node, Scaled]]:
        """Return sums of parts, by their number, as those of the nodes that they belong to."""
        kinds, fold = len(self._columns), self._layer.parameters.fold_gradient
        found = []
        for node, sign, lane, vector in self.factors.uses:
            part = sums[lane * kinds + vector]
            found.append((node, fold(node, part if sign > 0 else part.times(sign))))
        return found


def _widths(plan: LayerPlan, factors: Factors) -> list[int]:
    """Return how many columns each vector makes, and that of ones."""
    return [*map(plan.size, factors.vectors), 1]


def _places(sizes: Sequence[int]) -> list[slice]:
    """Return where things of these sizes lie behind each other."""
    return [slice(stop - size, stop) for size, stop in zip(sizes, accumulate(sizes), strict=True)]


class PartedSum:
    """A sum of matrices whose parts have nothing to do with each other's size: each has a power of two of its own.

    Args:
        heights, widths: of the parts, in rows and columns. Largest entries and exponents are (R, heights, widths).
    """

    def __init__(self, heights: Sequence[int], widths: Sequence[int]) -> None:
        self._heights, self._widths = heights, widths
        self._rows, self._columns = (np.cumsum([0, *sizes[:-1]]) for sizes in (heights, widths))
        self.clear()

    def clear(self) -> None:
        self._sum: tuple[Array, Array, Array] | None = None

    def largest(self, mantissa: Array) -> Array:
        """Return the largest absolute value of each part."""
        in_rows = np.maximum.reduceat(np.abs(mantissa), self._rows, axis=1)
        return np.asarray(np.maximum.reduceat(in_rows, self._columns, axis=2))

    def add(self, mantissa: Array, exponent: Array, largest: Array) -> None:
        """Add mantissa * 2**exponent, with the `largest` of the mantissa, whose memory is taken over."""
        if self._sum is not None:
            mine, of_mine = self._near_one(*self._sum)
            mantissa, exponent = self._near_one(mantissa, exponent, largest)
            top = np.maximum(of_mine, exponent)
            # Apart by more than a float's range: beside the larger one, what is lost makes no difference.
            mantissa = self._scaled(mantissa, exponent - top)
            mantissa += self._scaled(mine, of_mine - top)
            exponent, largest = top, self.largest(mantissa)
        self._sum = mantissa, exponent, largest

    def scaled(self) -> tuple[Array, Array] | None:
        """Return the sum, (R, rows, columns) and (R, parts), with zeros at exponent 0; None where nothing was added."""
        if self._sum is None:
            return None
        mantissa, exponent, largest = self._sum
        return mantissa, np.where(largest == 0, 0, exponent).reshape(len(exponent), -1)

    def _near_one(self, mantissa: Array, exponent: Array, largest: Array) -> tuple[Array, Array]:
        """Return a number whose largest mantissa of each part is near 1; where all are 0 its exponent is `NOTHING`."""
        # A power of two that brings what is hardly a float near 1 would not be one; the rest can wait.
        reach = POWERS[mantissa.dtype.itemsize]
        shift = np.clip(exponent_of(largest), -reach, reach)
        if np.abs(shift).max() > _NEAR_ONE:
            mantissa, exponent = self._scaled(mantissa, -shift), exponent + shift
        return mantissa, np.where(largest == 0, NOTHING, exponent)

    def _scaled(self, mantissa: Array, exponent: Array) -> Array:
        """Return the parts times powers of two, in the memory of the mantissa."""
        if exponent.any():
            factor = scale_by(np.ones((), mantissa.dtype), exponent)
            mantissa *= factor.repeat(self._heights, axis=1).repeat(self._widths, axis=2)
        return mantissa


def summed_products(adjoints: Array, vectors: Array) -> Array:
    """Return sum_j delta_j v_j^T for each trial: (R, M, columns) and (R, K, columns) -> (R, M, K)."""
    return np.asarray(np.matmul(adjoints, vectors.swapaxes(1, 2)))
