"""Gradients of weight matrices and biases: sums over steps and sequences, taken as a few large products.

For z = W v + U x + b with the adjoint delta of z, dL/dW = sum delta v^T, dL/dU = sum delta x^T and dL/db = sum delta.
With the columns of all steps and sequences side by side that is one product, [dL/dW, dL/dU, dL/db] = delta [v; x; 1]^T.

Its parts have nothing to do with each other's size. Where a part comes out as zero, or near the ends of the range of
floats, it is summed again column by column: a large adjoint that meets an input of zero must not hide a small one.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from gradcli.engine.arrays import Extent
from gradcli.engine.known import Affine
from gradcli.engine.layer import Layer
from gradcli.engine.scaled import NOTHING, SAFE_SPREAD, Scaled, scale_by, summed_products_of_columns
from gradcli.engine.sizes import window_length
from gradcli.engine.step.place import Stack
from gradcli.engine.step.plan import LayerPlan
from gradcli.language.graph import Node

Array = np.ndarray[Any, Any]

#: Adjoints of blocks whose powers of two differ by more than this are summed apart, by bytes of a float.
_SAFE_SHIFT = {8: 300, 4: 30}
#: A sum whose largest entry is a power of two outside of this range may have lost digits on the way.
_SURE = {8: (-600, 900), 4: (-90, 100)}


class Use(NamedTuple):
    """A parameter node that takes the sum of one part of a group, delta v^T, times a sign, as gradient.

    lane: which of the group's. vector: which of `WeightGradients.vectors`; as many as there are stands for ones.
    """

    node: Node
    sign: int
    lane: int
    vector: int


class WeightGradients:
    """The gradients of everything that one group's products, and what is added to them, are computed from.

    Args:
        layer: the layer. stack: the lanes of the group.
        added: by product, what is added to it and has its adjoint, where that is affine in the input.
        block: the most steps that `add` is given at once.

    Attributes:
        vectors: the nodes whose values `add` needs. lanes: of the group.
        uses: what becomes of the sums of its parts.
    """

    def __init__(self, layer: Layer, stack: Stack, added: Mapping[Node, Affine], block: int) -> None:
        self.group, self._layer, self._added = stack.group, layer, added
        self.lanes, self._rows = stack.lanes, stack.rows
        plan = layer.plan
        size = plan.size(stack.group.vector)
        self.vectors = [stack.group.vector]
        self._columns = [slice(0, size)]
        if added:
            vector = next(iter(added.values())).vector
            self.vectors.append(vector)
            self._columns.append(slice(size, size + plan.size(vector)))
        width = self._columns[-1].stop
        self._ones = slice(width, width + 1)
        self._steps = window_length(stack.rows + width + 1, layer.trials, layer.batch_size, layer.dtype.itemsize, block)
        self._adjoints = self._window(stack.rows)
        self._vectors = self._window(width + 1)
        self._vectors[:, self._ones] = 1.0
        columns = [*self._columns, self._ones]
        self._parts = [(slice(lane.start, lane.stop), part) for lane in stack.lanes for part in columns]
        self._first_rows = [lane.start for lane in stack.lanes]
        self._first_columns = [part.start for part in columns]
        self.uses = [use for number in range(len(stack.lanes)) for use in self._uses_of(number)]
        self.clear()

    @staticmethod
    def bytes_for(plan: LayerPlan, stack: Stack, extent: Extent, block: int) -> int:
        """Return how many bytes it takes at most for blocks of so many steps."""
        rows = stack.rows + plan.size(stack.group.vector) + plan.cell.shapes.input_size + 1
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
        # What was summed at powers of two near each other, all parts as one; and each part's sum of all before.
        self._total: Scaled | None = None
        self._earlier: dict[int, Scaled] = {}

    def add(self, lanes: Array, exponent: Array, vectors: list[Array]) -> None:
        """Take note of the adjoints at the steps of a block.

        Args:
            lanes: mantissas of the adjoints of the group's rows, (n, R, rows, B). exponent: theirs, (R, B).
            vectors: the values of `self.vectors`, (n, R, size, B) each.
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
        for vector, rows in zip(vectors, self._columns, strict=True):
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
        right = np.empty((n, layer.trials, self._ones.stop, batch), layer.dtype)
        right[:, :, self._ones] = 1.0
        for vector, part in zip(vectors, self._columns, strict=True):
            right[:, :, part] = vector
        found = np.matmul(lanes * weight, right.swapaxes(-1, -2))
        sums = {
            number: Scaled(found[..., lane_rows, part], top) for number, (lane_rows, part) in enumerate(self._parts)
        }
        for number in self._doubtful(found.reshape(n * layer.trials, rows, -1)):
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
        found = Scaled(summed_products(left, right), exponent)
        again = self._doubtful(found.mantissa)
        self._take(found, again)
        for number in again:
            rows, part = self._parts[number]
            self._add_part(number, summed_products_of_columns(adjoints[:, rows], right[:, part], exponents))
        self._count = 0
        self._exponent = np.full(len(exponent), NOTHING, np.int64)

    def _doubtful(self, mantissa: Array) -> list[int]:
        """Return the parts whose sum is zero in a trial, or so small or large that digits may be lost."""
        low, high = _SURE[self._layer.dtype.itemsize]
        largest = np.maximum.reduceat(np.abs(mantissa), self._first_rows, axis=1)
        largest = np.maximum.reduceat(largest, self._first_columns, axis=2)
        sure = ((largest > 2.0**low) & (largest < 2.0**high)).all(axis=0)
        return np.flatnonzero(~sure).tolist()

    def _take(self, found: Scaled, but: list[int]) -> None:
        """Add a sum of all parts but some."""
        for number in but:
            rows, part = self._parts[number]
            found.mantissa[:, rows, part] = 0.0
        total = self._total
        if total is not None:
            shift = np.abs(found.exponent - total.exponent).max()
            if shift <= _SAFE_SHIFT[self._layer.dtype.itemsize]:
                exponent = np.maximum(found.exponent, total.exponent)
                self._total = Scaled(total.at(exponent) + found.at(exponent), exponent)
                return
            self._settle()
        self._total = found

    def _settle(self) -> None:
        """Put the sum of all parts away, each part by itself."""
        if self._total is not None:
            for number, (rows, part) in enumerate(self._parts):
                self._add_part(number, Scaled(self._total.mantissa[:, rows, part], self._total.exponent))
            self._total = None

    def _add_part(self, number: int, found: Scaled) -> None:
        earlier = self._earlier.get(number)
        self._earlier[number] = found if earlier is None else earlier.add(found)

    def gradients(self) -> list[tuple[Node, Scaled]]:
        """Return the sums, as contributions to the gradients of matrices and of the (R, rows, 1) added to them."""
        if self._count:
            self._sum_up()
        self._settle()
        return self._of_nodes(self._earlier) if self._earlier else []

    def _of_nodes(self, sums: Mapping[int, Scaled]) -> list[tuple[Node, Scaled]]:
        """Return sums of parts, by their number, as those of the nodes that they belong to."""
        kinds, fold = len(self._columns) + 1, self._layer.parameters.fold_gradient
        found = []
        for node, sign, lane, vector in self.uses:
            part = sums[lane * kinds + vector]
            found.append((node, fold(node, part if sign > 0 else part.times(sign))))
        return found

    def _uses_of(self, number: int) -> list[Use]:
        """Return what takes the sums of a lane."""
        product = self.lanes[number].product
        found = [Use(product.args[0], 1, number, 0)]
        affine = self._added.get(product)
        if affine is not None:
            ones = len(self.vectors)
            found.append(Use(affine.matrix, affine.sign, number, 1))
            found += [Use(node, sign, number, ones) for sign, node in affine.constants if not node.is_number]
        return found


def summed_products(adjoints: Array, vectors: Array) -> Array:
    """Return sum_j delta_j v_j^T for each trial: (R, M, columns) and (R, K, columns) -> (R, M, K)."""
    return np.asarray(np.matmul(adjoints, vectors.swapaxes(1, 2)))
