"""One layer at work: its buffers, the forward pass over a segment, and the values that the backward pass needs.

Layouts, with n steps, R trials and B sequences: states and everything that changes with the step are (n, R, size, B),
the features before the sequences, as the equations write ``W @ h``. The loops see the same memory without axes of
length 1.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from gradcli.engine.addends import StackedAddends, stacked_addends
from gradcli.engine.evaluate import Values, evaluate, product_into
from gradcli.engine.forward_loop import ForwardWriter, is_negated
from gradcli.engine.loop import Key
from gradcli.engine.plan import Group, Lane, LayerPlan
from gradcli.language.graph import Dependence, Node
from gradcli.language.parser import Equation

Array = np.ndarray[Any, Any]

#: Up to this many entries a constant operand is a full array, which NumPy handles faster than a scalar.
_FULL_CONSTANT = 4096


class Layer:
    """A layer with numbers: parameters for each trial, buffers for a segment.

    Args:
        plan: what is computed where.
        parameters: name -> (R, ...) arrays of the plan's shapes.
        trials, batch_size: R and B.
        dtype: float64 or float32.
        segment: the largest number of steps that `forward` will be given.
    """

    def __init__(
        self,
        plan: LayerPlan,
        parameters: Mapping[str, Array],
        *,
        trials: int,
        batch_size: int,
        dtype: np.dtype[Any],
        segment: int,
    ) -> None:
        self.plan = plan
        self.trials, self.batch_size, self.dtype, self.segment = trials, batch_size, dtype, segment
        self.lag = plan.lag
        self.column_ranges = _column_ranges(plan)
        self.forward_code = ForwardWriter(plan, trials > 1)
        self.parameters: Values = {}
        self.set_parameters(parameters)
        self.states = {name: self.empty(segment + self.lag, plan.cell.shapes.states[name]) for name in plan.states}
        self.tape = {name: self.empty(segment, rows) for name, rows in self.forward_code.buffers.items()}
        self.addends = {
            group.index: np.zeros((segment, trials, group.rows, batch_size), dtype)
            for group in plan.groups
            if any(lane.addend is not None for lane in group.lanes)
        }
        self.stacked = stacked_addends(plan)
        self._hoisted = self._hoisted_nodes()
        self._scratch: dict[Any, Array] = {}
        self._views: dict[Key, list[Array]] = {}
        self.values: Values = {}
        self.steps = 0

    def empty(self, steps: int, rows: int) -> Array:
        return np.empty((steps, self.trials, rows, self.batch_size), self.dtype)

    def set_parameters(self, parameters: Mapping[str, Array]) -> None:
        """Take new parameter values; everything that depends on parameters alone is computed anew."""
        graph = self.plan.graph
        values: Values = {}
        for name, shape in self.plan.cell.shapes.parameters.items():
            array = np.ascontiguousarray(parameters[name], dtype=self.dtype)
            node = graph.parameter(name)
            values[node] = array if len(shape) == 2 else array.reshape(self.trials, -1, 1)
        self.parameters = values

    def squeeze(self, array: Array, lead: int) -> Array:
        """Return a view without the axes of trials and sequences where they have length 1, as the loops want it."""
        if self.trials > 1:
            return array
        array = array[(slice(None),) * lead + (0,)]
        return array[..., 0] if self.batch_size == 1 else array

    # Hoisting.

    def _hoisted_nodes(self) -> list[Node]:
        """Return the hoisted nodes that the loop reads and that no stacked product fills in."""
        stacked = {product for item in self.stacked for product in item.products}
        lanes = [lane for group in self.plan.groups for lane in group.lanes if lane.product not in stacked]
        wanted = [lane.addend for lane in lanes if lane.addend is not None]
        wanted += [key[1] for key in self.forward_code.loop.columns if key[0] == "hoisted"]
        wanted += [e for e in self.plan.states.values() if e.dependence < Dependence.STATE]
        return list(dict.fromkeys(wanted))

    def _fill_addends(self, steps: int) -> None:
        stacked = set()
        for item in self.stacked:
            stacked.update(item.products)
            rows = self.addends[item.group][:steps, :, slice(*item.rows)]
            product_into(rows, self.stacked_matrix(item, signed=True), self.values[item.vector])
            if any(addend.constants for addend in item.addends):
                np.add(rows, self._stacked_constants(item), out=rows)
        for group in self.plan.groups:
            for lane in group.lanes:
                if lane.addend is None or lane.product in stacked:
                    continue
                rows = self.addends[group.index][:steps, :, lane.start : lane.stop]
                np.multiply(
                    self.values[lane.addend], self.dtype.type(lane.addend_sign * self._forward_sign(lane)), out=rows
                )

    def _forward_sign(self, lane: Lane) -> int:
        return -1 if is_negated(self.plan, lane) else 1

    def stacked_matrix(self, item: StackedAddends, signed: bool) -> Array:
        """Return the matrices of stacked addends, (R, rows, columns); with the forward pass's signs if `signed`."""
        parts = [
            addend.sign * (self._forward_sign(addend.lane) if signed else 1) * self._known(addend.matrix)
            for addend in item.addends
        ]
        return np.concatenate(parts, axis=1)

    def _stacked_constants(self, item: StackedAddends) -> Array:
        parts = []
        for addend in item.addends:
            total = np.zeros((self.trials, addend.lane.rows, 1), self.dtype)
            for sign, node in addend.constants:
                total += sign * self._forward_sign(addend.lane) * self._known(node)
            parts.append(total)
        return np.concatenate(parts, axis=1)

    def _known(self, node: Node) -> Any:
        """Return the value of a node that depends on parameters alone."""
        evaluate([node], self.parameters, self.column_ranges)
        return self.parameters[node]

    # The forward pass.

    def forward(self, x: Array, history: Mapping[str, Array]) -> None:
        """Run over the steps of one segment.

        Args:
            x: the input, (n, R, input_size, B).
            history: for each state the values at the last `lag` steps before the segment, (lag, R, size, B).
        """
        steps = self.steps = len(x)
        for name, past in history.items():
            self.states[name][: self.lag] = past
        self.values = dict(self.parameters)
        self.values[self.plan.graph.input()] = x
        evaluate(self._hoisted, self.values, self.column_ranges)
        self._fill_addends(steps)
        for name, expression in self.plan.states.items():
            if expression.dependence < Dependence.STATE:
                self.states[name][self.lag : self.lag + steps] = self.values[expression]
        loop = self.forward_code.loop
        loop.run([self._column(key)[:steps] for key in loop.columns], [self._fixed(key) for key in loop.fixed])
        self._remember(steps)

    def _remember(self, steps: int) -> None:
        """Add what the loop has computed to the values that coefficients are evaluated from."""
        graph = self.plan.graph
        for name in self.plan.states:
            for lag in range(self.plan.lags[name] + 1):
                self.values[graph.state(name, lag)] = self.states[name][self.lag - lag : self.lag - lag + steps]
        for node in self.plan.stored:
            self.values[node] = self.at(self.forward_code.locations[node])[:steps]

    def at(self, key: Key) -> Array:
        """Return the array over all steps of the segment that a key of the forward loop names."""
        match key:
            case ("state", name, lag):
                return self.states[name][self.lag - lag : self.lag - lag + self.segment]
            case ("tape", buffer, (lo, hi)):
                return self.tape[buffer][:, :, lo:hi]
            case ("addend", group, (lo, hi)):
                return self.addends[group][:, :, lo:hi]
            case ("hoisted", node):
                return np.asarray(self.values[node])
            case _:
                raise AssertionError(f"no array is called {key}")

    def _column(self, key: Key) -> list[Array]:
        """Return one view a step; the views of lasting buffers are made once."""
        if key[0] == "hoisted":
            return list(self.squeeze(self.at(key), 1))
        if key not in self._views:
            self._views[key] = list(self.squeeze(self.at(key), 1))
        return self._views[key]

    def _fixed(self, key: Key) -> Any:
        match key:
            case ("matrix", group):
                return self._stacked(self.plan.groups[group], signed=True)
            case ("scratch", name, rows, (lo, hi)):
                return self.squeeze(self.scratch(name, rows)[:, lo:hi], 0)
            case ("scratch", name, rows):
                return self.squeeze(self.scratch(name, rows), 0)
            case ("number", value, rows):
                return self.constant(value, rows)
            case ("leaf", node):
                return self.leaf(node)
            case _:
                raise AssertionError(f"no array is called {key}")

    def scratch(self, name: str, rows: int) -> Array:
        if name not in self._scratch:
            self._scratch[name] = np.empty((self.trials, rows, self.batch_size), self.dtype)
        return self._scratch[name]

    def constant(self, value: float, rows: int) -> Array:
        """Return a constant operand: a full array where that is small, else a 0-dimensional one."""
        if self.trials * rows * self.batch_size <= _FULL_CONSTANT:
            return self.squeeze(np.full((self.trials, rows, self.batch_size), value, self.dtype), 0)
        return np.asarray(value, self.dtype)

    def leaf(self, node: Node) -> Array:
        """Return the value of a node that depends on parameters alone, as an operand of the loops."""
        return self.squeeze(np.asarray(self._known(node), self.dtype), 0)

    def _stacked(self, group: Group, signed: bool) -> Array:
        """Return the matrices of a group's lanes, one below the other; with the forward pass's signs if `signed`."""
        parts = []
        for lane in group.lanes:
            matrix = self._known(lane.product.args[0])
            parts.append(-matrix if signed and is_negated(self.plan, lane) else matrix)
        stacked = np.concatenate(parts, axis=1)
        return stacked[0] if self.trials == 1 else stacked

    def transposed(self, group: Group) -> Array:
        """Return the transpose of a group's stacked matrices."""
        return np.ascontiguousarray(self._stacked(group, signed=False).swapaxes(-1, -2))

    def history(self) -> dict[str, Array]:
        """Return a copy of the last `lag` values of each state, for the segment that follows."""
        return {name: array[self.steps : self.steps + self.lag].copy() for name, array in self.states.items()}

    def outputs(self) -> Array:
        """Return the output state over the segment, (n, R, size, B); a view."""
        return self.states[self.plan.cell.output][self.lag : self.lag + self.steps]

    def first_nonfinite(self) -> int | None:
        """Return the first step of the segment, counted from 0, at which a state is not finite."""
        bad = np.zeros(self.steps, dtype=bool)
        for array in self.states.values():
            bad |= ~np.isfinite(array[self.lag : self.lag + self.steps]).all(axis=(1, 2, 3))
        return int(np.argmax(bad)) if bad.any() else None

    def first_nonfinite_equation(self, index: int) -> Equation:
        """Return the first equation, in the order of the text, whose value is not finite at a step of the segment."""
        cell, graph = self.plan.cell, self.plan.graph
        known = {n: v for n, v in self.values.items() if n.dependence is Dependence.PARAMETERS}
        known[graph.input()] = self.values[graph.input()][index : index + 1]
        for name in self.plan.states:
            for lag in range(1, self.plan.lags[name] + 1):
                row = self.lag - lag + index
                known[graph.state(name, lag)] = self.states[name][row : row + 1]
        for equation in cell.equations:
            node = cell.values[equation.name]
            if node in cell.shapes.matrices:
                continue
            evaluate([node], known, self.column_ranges)
            # In the precision of the run, where a number may be infinite that is finite in the text.
            value = np.asarray(known[node], self.dtype)
            if equation.is_state:
                known[graph.state(equation.name, 0)] = np.broadcast_to(value, self.states[equation.name][:1].shape)
            if not np.isfinite(value).all():
                return equation
        raise AssertionError("every equation is finite at this step")


def _column_ranges(plan: LayerPlan) -> dict[Node, tuple[int, int]]:
    """Return for each ``columns`` node the columns of its matrix that it takes."""
    ranges = {}
    for node in plan.cell.shapes.matrices:
        if node.op == "columns":
            part, indices = node.data
            sizes = [plan.size(p) for p in plan.cell.concatenations[indices]]
            ranges[node] = (sum(sizes[:part]), sum(sizes[: part + 1]))
    return ranges
