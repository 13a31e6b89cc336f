"""What is computed from a layer's parameters alone, once for all steps and runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from gradcli.engine.evaluate import Values, evaluate
from gradcli.engine.scaled import Scaled
from gradcli.engine.step.plan import LayerPlan
from gradcli.language.graph import Node

Array = np.ndarray[Any, Any]


class LayerParameters:
    """The parameters of a layer for some trials, and all that follows from them; each thing is made when first asked.

    Args:
        plan: what is computed where.
        parameters: name -> (R, ...) arrays of the plan's shapes.
        trials: R. dtype: float64 or float32.

    Attributes:
        values: node -> value; (R, rows, columns), (R, size, 1), or a number.
        column_ranges: for each ``columns`` node the columns of its matrix that it takes.
    """

    def __init__(self, plan: LayerPlan, parameters: Mapping[str, Array], *, trials: int, dtype: np.dtype[Any]) -> None:
        self._trials, self._dtype = trials, dtype
        self.column_ranges = _column_ranges(plan)
        self.values: Values = {}
        for name, shape in plan.cell.shapes.parameters.items():
            # What float32 cannot hold is infinite in it, as in any training: the verdict says so.
            with np.errstate(over="ignore"):
                array = np.ascontiguousarray(parameters[name], dtype=dtype)
            self.values[plan.graph.parameter(name)] = array if len(shape) == 2 else array.reshape(trials, -1, 1)

    def known(self, node: Node) -> Any:
        """Return the value of a node that depends on parameters alone; see `values`."""
        if node not in self.values:
            evaluate([node], self.values, self.column_ranges)
        return self.values[node]

    def stacked(self, parts: Sequence[tuple[int, Node]]) -> Array:
        """Return vectors one below the other, (R, rows, 1): each with its number of rows, for which a scalar counts."""
        found = [np.broadcast_to(self.known(node), (self._trials, rows, 1)) for rows, node in parts]
        return np.concatenate(found, axis=1, dtype=self._dtype)

    def fold_gradient(self, node: Node, gradient: Scaled) -> Scaled:
        """Return the gradient of a node from one with a row for each entry that it was broadcast to, if it was."""
        shape = np.shape(self.known(node))
        if len(shape) == 3 and shape[1] == 1 < gradient.mantissa.shape[-2]:
            return Scaled(gradient.mantissa.sum(axis=-2, keepdims=True), gradient.exponent)
        return gradient


class ParametersOfSteps:
    """The parameters of all layers at each step: the same at all, or those of one step at a time, made when asked for.

    Args:
        plans: one a layer. tables: one a layer, name -> (R, ...), or (R, T, ...) where not `tied`.
        trials: R. dtype: float64 or float32. tied: whether all steps share their parameters.
    """

    def __init__(
        self,
        plans: Sequence[LayerPlan],
        tables: Sequence[Mapping[str, Array]],
        *,
        trials: int,
        dtype: np.dtype[Any],
        tied: bool,
    ) -> None:
        self._plans, self._tables, self._trials, self._dtype = plans, tables, trials, dtype
        self.tied = tied
        self._step = 0
        self._made = self._of_step(0)

    def at(self, step: int) -> list[LayerParameters]:
        """Return the parameters of each layer at a step, counted from 0."""
        if not self.tied and step != self._step:
            self._step, self._made = step, self._of_step(step)
        return self._made

    def _of_step(self, step: int) -> list[LayerParameters]:
        return [
            LayerParameters(
                plan,
                table if self.tied else {name: values[:, step] for name, values in table.items()},
                trials=self._trials,
                dtype=self._dtype,
            )
            for plan, table in zip(self._plans, self._tables, strict=True)
        ]


def _column_ranges(plan: LayerPlan) -> dict[Node, tuple[int, int]]:
    ranges = {}
    for node in plan.cell.shapes.matrices:
        if node.op == "columns":
            part, indices = node.data
            sizes = [plan.size(p) for p in plan.cell.concatenations[indices]]
            ranges[node] = (sum(sizes[:part]), sum(sizes[: part + 1]))
    return ranges
