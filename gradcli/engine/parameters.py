"""What is computed from a layer's parameters alone, once for all steps and runs: stacked matrices and constants."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from gradcli.engine.addends import Affine, StackedAddends
from gradcli.engine.evaluate import Values, evaluate
from gradcli.engine.forward_loop import is_negated
from gradcli.engine.plan import Group, Lane, LayerPlan
from gradcli.engine.scaled import Scaled
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
        self._plan, self._trials, self._dtype = plan, trials, dtype
        self.column_ranges = _column_ranges(plan)
        self.values: Values = {}
        for name, shape in plan.cell.shapes.parameters.items():
            # What float32 cannot hold is infinite in it, as in any training: the verdict says so.
            with np.errstate(over="ignore"):
                array = np.ascontiguousarray(parameters[name], dtype=dtype)
            self.values[plan.graph.parameter(name)] = array if len(shape) == 2 else array.reshape(trials, -1, 1)
        self._made: dict[Any, Array] = {}

    def known(self, node: Node) -> Any:
        """Return the value of a node that depends on parameters alone; see `values`."""
        if node not in self.values:
            evaluate([node], self.values, self.column_ranges)
        return self.values[node]

    def stacked(self, group: Group) -> Array:
        """Return a group's matrices one below the other, with the signs of the forward pass, as its loop wants them."""
        key = ("stacked", group.index)
        if key not in self._made:
            signs = [forward_sign(self._plan, lane) for lane in group.lanes]
            self._made[key] = self._without_trials(self._stack(group, signs))
        return self._made[key]

    def transposed(self, group: Group) -> Array:
        """Return the transpose of a group's matrices one below the other, as the backward loop wants it."""
        key = ("transposed", group.index)
        if key not in self._made:
            stacked = self._stack(group, [1] * len(group.lanes))
            self._made[key] = self._without_trials(np.ascontiguousarray(stacked.swapaxes(1, 2)))
        return self._made[key]

    def of_window(self, group: Group) -> Array:
        """Return what `stacked` gives for the groups of a group's window, side by side as their vectors lie."""
        return self._made_of_window("stacked", group, 1)

    def transposed_of_window(self, group: Group) -> Array:
        """Return what `transposed` gives for the groups of a group's window, one below the other."""
        return self._made_of_window("transposed", group, 0)

    def _made_of_window(self, what: str, group: Group, axis: int) -> Array:
        key = (what, "window", group.index)
        if key not in self._made:
            assert group.window is not None
            parts = [getattr(self, what)(member) for member in group.window.groups]
            self._made[key] = np.concatenate(parts, axis=axis)
        return self._made[key]

    def _stack(self, group: Group, signs: list[int]) -> Array:
        matrices = [self.known(lane.product.args[0]) for lane in group.lanes]
        return np.concatenate([-m if sign < 0 else m for sign, m in zip(signs, matrices, strict=True)], axis=1)

    def _without_trials(self, stacked: Array) -> Array:
        return stacked[0] if self._trials == 1 else stacked

    def addend_matrix(self, item: StackedAddends, *, signed: bool) -> Array:
        """Return the matrices of stacked addends, (R, rows, columns); with the forward pass's signs if `signed`."""
        key = ("addends", item.key, signed)
        if key not in self._made:
            parts = [
                addend.sign * (forward_sign(self._plan, addend.lane) if signed else 1) * self.known(addend.matrix)
                for addend in item.addends
            ]
            self._made[key] = np.concatenate(parts, axis=1)
        return self._made[key]

    def addend_constants(self, item: StackedAddends) -> Array:
        """Return what stacked addends add to their products, (R, rows, 1), with the forward pass's signs."""
        key = ("constants", item.key)
        if key not in self._made:
            parts = []
            for addend in item.addends:
                total = np.zeros((self._trials, addend.lane.rows, 1), self._dtype)
                for sign, node in addend.constants:
                    total += sign * forward_sign(self._plan, addend.lane) * self.known(node)
                parts.append(total)
            self._made[key] = np.concatenate(parts, axis=1)
        return self._made[key]

    def affine_matrix(self, affine: Affine) -> Array:
        """Return the signed matrix of what is affine in the input, (R, rows, columns)."""
        key = ("affine", affine)
        if key not in self._made:
            self._made[key] = affine.sign * self.known(affine.matrix)
        return self._made[key]

    def affine_constants(self, affine: Affine) -> Array:
        """Return the sum of the signed constants of what is affine in the input, (R, rows, 1) or a number."""
        key = ("constants", affine)
        if key not in self._made:
            self._made[key] = np.asarray(sum(sign * self.known(node) for sign, node in affine.constants))
        return self._made[key]

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


def forward_sign(plan: LayerPlan, lane: Lane) -> int:
    """Return -1 where the forward pass holds the negative of a lane, or of the sum that it goes into, else +1."""
    return -1 if is_negated(plan, lane.into or lane) else 1


def _column_ranges(plan: LayerPlan) -> dict[Node, tuple[int, int]]:
    ranges = {}
    for node in plan.cell.shapes.matrices:
        if node.op == "columns":
            part, indices = node.data
            sizes = [plan.size(p) for p in plan.cell.concatenations[indices]]
            ranges[node] = (sum(sizes[:part]), sum(sizes[: part + 1]))
    return ranges
