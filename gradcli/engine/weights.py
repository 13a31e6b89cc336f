"""Gradients of weight matrices and biases: sums over steps and sequences, taken as a few large products.

For z = W v + U x + b with the adjoint delta of z, dL/dW = sum delta v^T, dL/dU = sum delta x^T and dL/db = sum delta.
With the columns of all steps and sequences side by side that is one product, [dL/dW, dL/dU, dL/db] = delta [v; x; 1]^T.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from gradcli.engine.addends import StackedAddends
from gradcli.engine.layer import Layer
from gradcli.engine.plan import Group
from gradcli.engine.scaled import Scaled, scale_by
from gradcli.engine.sizes import window_length
from gradcli.language.graph import Node

Array = np.ndarray[Any, Any]

#: Adjoints whose powers of two differ by more than this are summed apart, by bytes of a float.
_SAFE_SHIFT = {8: 300, 4: 30}


class WeightGradients:
    """The gradients of everything that one group's products and their addends are computed from.

    Args:
        layer: the layer. group: the group of it.
        stacked: the runs of the group's addends whose adjoints are those of their lanes.
        block: the most steps that `add` is given at once.

    Attributes:
        vectors: the nodes whose values `add` needs.
    """

    def __init__(self, layer: Layer, group: Group, stacked: list[StackedAddends], block: int) -> None:
        self.group, self._layer, self._stacked = group, layer, stacked
        plan = layer.plan
        size = plan.size(group.vector)
        self.vectors = [group.vector]
        self._columns = [slice(0, size)]
        if stacked:
            self.vectors.append(stacked[0].vector)
            self._columns.append(slice(size, size + plan.size(stacked[0].vector)))
        width = self._columns[-1].stop
        self._ones = slice(width, width + 1)
        self._steps = window_length(group.rows + width + 1, layer.trials, layer.batch_size, layer.dtype.itemsize, block)
        self._adjoints = self._window(group.rows)
        self._vectors = self._window(width + 1)
        self._vectors[:, self._ones] = 1.0
        self.clear()

    def _window(self, rows: int) -> Array:
        """Return a buffer of columns, (R, rows, steps, B), laid out as the steps come."""
        trials, batch = self._layer.trials, self._layer.batch_size
        if batch == 1:
            return np.empty((trials, self._steps, rows), self._layer.dtype).swapaxes(1, 2)[..., None]
        return np.empty((trials, rows, self._steps, batch), self._layer.dtype)

    def clear(self) -> None:
        """Forget all that was added."""
        self._count = 0
        self._exponent: Array = np.zeros(self._layer.trials, np.int64)
        self._total: Scaled | None = None

    def add(self, lanes: Array, exponent: Array, vectors: list[Array]) -> None:
        """Take note of the adjoints at the steps of a block.

        Args:
            lanes: mantissas of the adjoints of the group's rows, (n, R, rows, B). exponent: theirs, (R, B).
            vectors: the values of `self.vectors`, (n, R, size, B) each.
        """
        n = len(lanes)
        top = exponent.max(axis=1)
        far = np.abs(top - self._exponent).max() > _SAFE_SHIFT[self._layer.dtype.itemsize]
        if self._count and (far or self._count + n > self._steps):
            self._sum_up()
        if not self._count:
            self._exponent = top
        place = slice(self._count, self._count + n)
        weight = scale_by(np.ones((), self._layer.dtype), exponent - self._exponent[:, None])
        np.multiply(lanes.transpose(1, 2, 0, 3), weight[:, None, None, :], out=self._adjoints[:, :, place])
        for vector, rows in zip(vectors, self._columns, strict=True):
            self._vectors[:, rows, place] = vector.transpose(1, 2, 0, 3)
        self._count += n

    def _sum_up(self) -> None:
        columns = self._count * self._layer.batch_size
        left, right = (
            buffer.reshape(buffer.shape[0], buffer.shape[1], -1)[:, :, :columns]
            for buffer in (self._adjoints, self._vectors)
        )
        found = Scaled(summed_products(left, right), self._exponent)
        self._total = found if self._total is None else self._total.add(found)
        self._count = 0

    def gradients(self) -> list[tuple[Node, Scaled]]:
        """Return the sums, as contributions to the gradients of matrices and of the (R, rows, 1) added to them."""
        if self._count:
            self._sum_up()
        if self._total is None:
            return []
        mantissa, exponent = self._total.mantissa, self._total.exponent
        found = [
            (lane.product.args[0], Scaled(mantissa[:, lane.start : lane.stop, self._columns[0]], exponent))
            for lane in self.group.lanes
        ]
        for item in self._stacked:
            for addend in item.addends:
                part = mantissa[:, addend.lane.start : addend.lane.stop]
                found.append((addend.matrix, Scaled(addend.sign * part[:, :, self._columns[1]], exponent)))
                found += [
                    (node, self._layer.parameters.fold_gradient(node, Scaled(sign * part[:, :, self._ones], exponent)))
                    for sign, node in addend.constants
                    if not node.is_number
                ]
        return found


def summed_products(adjoints: Array, vectors: Array) -> Array:
    """Return sum_j delta_j v_j^T for each trial: (R, M, columns) and (R, K, columns) -> (R, M, K)."""
    return np.asarray(np.matmul(adjoints, vectors.swapaxes(1, 2)))
