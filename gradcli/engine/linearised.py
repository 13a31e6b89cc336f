"""The linear map of each step along a trajectory, from the states before the step to those after it.

Between cut points a cell is elementwise, so one step is a small graph: diagonal edges (a coefficient) and dense edges
(a matrix); see `gradcli.engine.plan`. `StepMaps` walks over it in both directions, with any number of vectors at once:

* backward, cotangents: u -> J_t^T u (the vector-Jacobian product, reverse mode);
* forward, tangents: v -> J_t v (the Jacobian-vector product, forward mode).

The full state S_t joins all states of the layer, each with as many past values as the equations look back at:
S_t = (s_t, s_{t-1}, ..., s_{t-lag+1}) for every state s. J_t = dS_t/dS_{t-1}; the states of the step before are
independent of each other in it, so that products of J_t are the Jacobians over several steps.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from gradcli.engine.backward_loop import backward_order
from gradcli.engine.evaluate import evaluate
from gradcli.engine.layer import Layer
from gradcli.engine.plan import Edge, Group, LayerPlan, Target
from gradcli.language.across import ACROSS
from gradcli.language.graph import Dependence, Node

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class StateSlot:
    """Where a state at t-lag lies within the full state: the rows start .. stop-1."""

    name: str
    lag: int
    start: int
    stop: int


def full_state(plan: LayerPlan) -> list[StateSlot]:
    """Return the parts of the full state S_t of one sequence: states in the order of the equations, lag by lag."""
    slots: list[StateSlot] = []
    start = 0
    for name, size in plan.cell.shapes.states.items():
        for lag in range(plan.lags[name]):
            slots.append(StateSlot(name, lag, start, start + size))
            start += size
    return slots


def full_state_size(plan: LayerPlan, batch_size: int) -> int:
    """Return the number of entries N of the full state: of one sequence, or of all where they are coupled."""
    return full_state(plan)[-1].stop * (batch_size if plan.couples_sequences else 1)


class LinearisedBlock:
    """The coefficients of all edges over the steps lo+1 .. hi of the segment that a layer holds.

    Args:
        layer: after its forward pass over the segment. lo, hi: the steps, counted from the segment's first.
        sequence: which one of the batch; with batch_norm all are taken together, since each depends on all.
    """

    def __init__(self, layer: Layer, lo: int, hi: int, sequence: int = 0) -> None:
        self.layer, self.plan, self.steps = layer, layer.plan, hi - lo
        self.width = layer.batch_size if self.plan.couples_sequences else 1
        only = slice(None) if self.plan.couples_sequences else slice(sequence, sequence + 1)

        def chosen(value: Any) -> Any:
            return value[..., only] if np.ndim(value) == 4 and value.shape[-1] > 1 else value

        self._values = {node: chosen(value) for node, value in layer.block_values(lo, hi).items()}
        self.slopes = {
            node: chosen(layer.slope(node)[lo:hi]) for node in self.plan.across if layer.plan.slope_rows(node)
        }
        nodes = [edge.coefficient for edges in self.plan.edges.values() for edge in edges]
        with np.errstate(all="ignore"):
            evaluate(nodes, self._values, layer.parameters.column_ranges)

    def maps(self, trial: int) -> StepMaps:
        """Return the maps of one trial."""
        return StepMaps(self, trial)

    def coefficient(self, edge: Edge, trial: int) -> Any:
        """Return an edge's coefficient: (n, size, b, 1), (1, size, 1, 1) where all steps have the same, or a number."""
        value = self._values[edge.coefficient]
        if np.ndim(value) == 0:
            return value
        if edge.coefficient.dependence is Dependence.PARAMETERS:
            return value[trial][None, :, :, None]
        return value[:, trial, ..., None]

    def across(self, node: Node, trial: int) -> tuple[Array, Array | None]:
        """Return the value of a function across, (n, size, b), and its slope, (n, 1, b), if it has one."""
        slope = self.slopes.get(node)
        return self._values[node][:, trial], None if slope is None else slope[:, trial]

    def matrix(self, group: Group, trial: int) -> Array:
        """Return a group's matrices one below the other, (rows, columns)."""
        known = [self.layer.parameters.known(lane.product.args[0])[trial] for lane in group.lanes]
        return known[0] if len(known) == 1 else np.concatenate(known)


class StepMaps:
    """The maps J_t of the steps of a block, for one trial and one sequence, b = 1, or all that are coupled, b = B.

    Attributes:
        steps: n, how many steps. size: N, entries of the full state, each unit's b sequences side by side.
    """

    def __init__(self, block: LinearisedBlock, trial: int) -> None:
        self.plan = plan = block.plan
        self.steps = block.steps
        self._order = backward_order(plan)
        self._slots = full_state(plan)
        self._width = block.width
        self.size = self._slots[-1].stop * block.width
        self._buffers: dict[int, dict[int, Array]] = {}
        self._matrices = {group.index: block.matrix(group, trial) for group in plan.groups}
        self._lanes = {
            lane.product: (group.index, slice(lane.start, lane.stop)) for group in plan.groups for lane in group.lanes
        }
        self._across = {node: block.across(node, trial) for node in plan.across}
        self._coefficients: dict[tuple[Target, Node], Any] = {
            (target, edge.source): block.coefficient(edge, trial)
            for target, edges in plan.edges.items()
            for edge in edges
        }

    def coefficient(self, target: Target, source: Node, step: int) -> Any:
        """Return the diagonal derivative of a target by an earlier cut point: (size, b, 1), or a number."""
        value = self._coefficients[target, source]
        if np.ndim(value) == 0:
            return value
        return value[step if len(value) > 1 else 0]

    def _through(self, node: Node, step: int, vectors: Array) -> Array:
        """Return J v for a function across, the same forward and backward: vectors (size, b, K)."""
        y, slope = self._across[node]
        out = np.empty_like(vectors)
        at_step = None if slope is None else slope[step]
        function = ACROSS[node.data[0]]
        function.apply_jacobian(int(function.over_sequences), y[step], at_step, vectors, out)
        return out

    def _split(self, vectors: Array) -> dict[tuple[str, int], Array]:
        """Return the parts of full-state vectors (N, K) as (state, lag) -> (size, b, K)."""
        width = self._width
        return {
            (slot.name, slot.lag): vectors[slot.start * width : slot.stop * width].reshape(
                slot.stop - slot.start, width, -1
            )
            for slot in self._slots
        }

    def _joined(self, parts: Mapping[tuple[str, int], Array | None], shift: int, count: int) -> Array:
        """Return full-state vectors (N, K) from the parts of (state, lag + shift); missing parts are zero."""
        out = np.zeros((self.size, count))
        whole = self._split(out)
        for slot in self._slots:
            part = parts.get((slot.name, slot.lag + shift))
            if part is not None:
                whole[slot.name, slot.lag][...] = part
        return out

    def pull_back(self, step: int, cotangents: Array) -> Array:
        """Return J_t^T u for the columns u of `cotangents`, (N, K).

        Args:
            step: the step of the block, from 0. cotangents: with respect to S_t, (N, K).
        """
        count = cotangents.shape[1]
        adjoints = self._split(cotangents)
        lanes = self._lane_adjoints(count)
        written: set[Node] = set()
        across: dict[Node, Array] = {}
        for target in self._order:
            if isinstance(target, str):
                adjoint = adjoints[target, 0]
            elif isinstance(target, Node):
                if target not in across:
                    continue  # nothing in this step takes it
                adjoint = self._through(target, step, across[target])
            else:
                adjoint = _times(self._matrices[target].T, lanes[target])
            for edge in self.plan.edges[target]:
                source, coefficient = edge.source, self.coefficient(target, edge.source, step)
                if source.op == "matmul":
                    group, rows = self._lanes[source]
                    if source in written:
                        lanes[group][rows] += coefficient * adjoint
                    else:
                        np.multiply(coefficient, adjoint, out=lanes[group][rows])
                        written.add(source)
                elif source.op == "across":
                    term = coefficient * adjoint
                    across[source] = across[source] + term if source in across else term
                elif source.data in adjoints:
                    adjoints[source.data] = adjoints[source.data] + coefficient * adjoint
                else:
                    adjoints[source.data] = coefficient * adjoint
        return self._joined(adjoints, 1, count)

    def _lane_adjoints(self, count: int) -> dict[int, Array]:
        """Return buffers for the adjoints of recurrent products, zero where nothing in a step takes a product."""
        if count not in self._buffers:
            self._buffers[count] = {g.index: np.zeros((g.rows, self._width, count)) for g in self.plan.groups}
        return self._buffers[count]

    def push_forward(self, step: int, tangents: Array) -> Array:
        """Return J_t v for the columns v of `tangents`, (N, K).

        Args:
            step: the step of the block, from 0. tangents: with respect to S_{t-1}, (N, K).
        """
        count = tangents.shape[1]
        known = {(name, lag + 1): part for (name, lag), part in self._split(tangents).items()}
        lanes: dict[int, Array] = {}
        across: dict[Node, Array] = {}

        def gathered(target: Target, size: int) -> Array:
            total = np.zeros((size, self._width, count))
            for edge in self.plan.edges[target]:
                source = edge.source
                if source.op == "matmul":
                    index, rows = self._lanes[source]
                    part: Array | None = lanes[index][rows]
                elif source.op == "across":
                    part = across[source]
                else:
                    part = known.get(source.data)
                if part is not None:
                    total += self.coefficient(target, source, step) * part
            return total

        for target in reversed(self._order):
            if isinstance(target, str):
                known[target, 0] = gathered(target, self.plan.cell.shapes.states[target])
            elif isinstance(target, Node):
                across[target] = self._through(target, step, gathered(target, self.plan.size(target)))
            else:
                vector = gathered(target, self.plan.size(self.plan.groups[target].vector))
                lanes[target] = _times(self._matrices[target], vector)
        return self._joined(known, 0, count)

    def jacobian(self, step: int) -> Array:
        """Return J_t = dS_t/dS_{t-1}, (N, N)."""
        return self.pull_back(step, np.eye(self.size)).T


def _times(matrix: Array, vectors: Array) -> Array:
    """Return ``matrix @ v`` for vectors (size, b, K), as one product."""
    size, width, count = vectors.shape
    return (matrix @ vectors.reshape(size, width * count)).reshape(-1, width, count)
