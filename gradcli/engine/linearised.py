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

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np

from gradcli.engine.evaluate import evaluate
from gradcli.engine.layer import Layer
from gradcli.engine.step.linearise import Edge, Group, Target
from gradcli.engine.step.plan import LayerPlan
from gradcli.language.across import ACROSS
from gradcli.language.graph import Dependence, Node

Array = np.ndarray[Any, Any]

#: From so many columns on, coefficients are multiplied into the matrices instead of into the columns.
_FOLDED_FROM = 32


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
            node: chosen(layer.slope(node)[lo:hi]) for node in self.plan.across if node in layer.plan.layout.slopes
        }
        nodes = [edge.coefficient for edges in self.plan.edges.values() for edge in edges]
        with np.errstate(all="ignore"):
            evaluate(nodes, self._values, layer.parameters.column_ranges)

    def evaluated(self, nodes: Sequence[Node]) -> list[Any]:
        """Return the values of some expressions, all trials': (n, R, size, b), (R, size, 1), or a number."""
        with np.errstate(all="ignore"):
            evaluate(nodes, self._values, self.layer.parameters.column_ranges)
        return [self._values[node] for node in nodes]

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
        # A copy, as the value may lie on the tape, which the next segment takes again.
        return value[:, trial, ..., None].copy()

    def across(self, node: Node, trial: int) -> tuple[Array, Array | None]:
        """Return the value of a function across, (n, size, b), and its slope, (n, 1, b), if it has one."""
        slope = self.slopes.get(node)
        return self._values[node][:, trial].copy(), None if slope is None else slope[:, trial].copy()

    def matrix(self, group: Group, trial: int) -> Array:
        """Return a group's matrices one below the other, (rows, columns)."""
        known = [self.layer.parameters.known(lane.product.args[0])[trial] for lane in self.plan.lanes(group)]
        return known[0] if len(known) == 1 else np.concatenate(known)


class StepMaps:
    """The maps J_t of the steps of a block, for one trial and one sequence, b = 1, or all that are coupled, b = B.

    Attributes:
        steps: n, how many steps. size: N, entries of the full state, each unit's b sequences side by side.
    """

    def __init__(self, block: LinearisedBlock, trial: int) -> None:
        self.plan = plan = block.plan
        self.steps = block.steps
        self._order = plan.linear.backward_order
        self._slots = full_state(plan)
        self._width = block.width
        self.size = self._slots[-1].stop * block.width
        self._pull = _pull_program(plan)
        self._work: dict[int, _Work] = {}
        self._matrices = {group.index: block.matrix(group, trial) for group in plan.groups}
        self._transposed = {index: matrix.T for index, matrix in self._matrices.items()}
        self._lanes = _lanes(plan)
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

    def pull_back(self, step: int, cotangents: Array, out: Array | None = None) -> Array:
        """Return J_t^T u for the columns u of `cotangents`, (N, K).

        Args:
            step: the step of the block, from 0. cotangents: with respect to S_t, (N, K). out: where the result goes.
        """
        count = cotangents.shape[1]
        found = np.empty((self.size, count)) if out is None else out
        work = self._work.get(count) or self._work.setdefault(count, _Work(self.plan, self._width, count))
        given, before = self._split(cotangents), self._split(found)
        # With many columns it pays to multiply the coefficients into the matrices first, which takes fewer products.
        folds = self._width == 1 and count >= _FOLDED_FROM
        adjoints: dict[Target, Array] = {}
        for name, own in work.now.items():
            np.copyto(own, given[name, 0])
        for key in self._pull.kept:
            np.copyto(before[key], given[key[0], key[1] + 1])
        for key in self._pull.empty:
            before[key].fill(0.0)
        for target, ways in self._pull.order:
            if isinstance(target, str):
                adjoint = work.now[target] if target in work.now else given[target, 0]
            elif isinstance(target, Node):
                adjoint = self._through(target, step, work.across[target])
            elif folds:
                adjoint = work.products[target]
                self._folded_product(step, target, adjoints, work)
            else:
                adjoint = work.products[target]
                lanes = work.lanes[target].reshape(-1, self._width * count)
                np.dot(self._transposed[target], lanes, adjoint.reshape(-1, self._width * count))
            adjoints[target] = adjoint
            for way in ways:
                match way.to:
                    case "lane" if folds:
                        continue
                    case "lane":
                        into = work.lanes[way.key[0]][way.key[1]]
                    case "across":
                        into = work.across[way.key]
                    case "now":
                        into = work.now[way.key]
                    case _:
                        into = before[way.key]
                coefficient = self.coefficient(target, way.source, step)
                if way.first:
                    np.multiply(coefficient, adjoint, into)
                else:
                    term = work.terms[len(into)]
                    np.multiply(coefficient, adjoint, term)
                    np.add(into, term, into)
        return found

    def _folded_product(self, step: int, group: int, adjoints: Mapping[Target, Array], work: _Work) -> None:
        """Write the adjoint of a group's vector: for each target (the sum over lanes of W^T diag(k)) times its own."""
        out = work.products[group][:, 0]
        for number, (target, edges) in enumerate(self._pull.feeders[group]):
            adjoint = adjoints[target][:, 0]
            matrix, term = work.folded(len(out), len(adjoint))
            for i, (source, rows) in enumerate(edges):
                coefficient = self.coefficient(target, source, step)
                factor = coefficient if np.ndim(coefficient) == 0 else coefficient[:, 0, 0]
                np.multiply(self._transposed[group][:, rows], factor, matrix if i == 0 else term)
                if i:
                    np.add(matrix, term, matrix)
            if number == 0:
                np.dot(matrix, adjoint, out)
            else:
                product = work.terms[len(out)][:, 0]
                np.dot(matrix, adjoint, product)
                np.add(out, product, out)
        if not self._pull.feeders[group]:
            out.fill(0.0)

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


@dataclass(frozen=True)
class _Way:
    """Where the adjoint of an edge's source is kept, on the way back through a step.

    to: "lane", "across", "now" for a state at t, "before" for one at an earlier step. key: which of them.
    first: whether it is written there, or added to what is there.
    """

    source: Node
    to: str
    key: Any
    first: bool


@dataclass(frozen=True)
class _Pull:
    """The way back through a step, the same for all steps.

    order: the targets, each after all that takes it, with the ways of its edges.
    feeders: for each group the targets that take its products elementwise, with the products and their rows.
    kept, empty: the parts (state, lag) of S_{t-1} that begin as what S_t has of them, and those that nothing reaches.
    """

    order: tuple[tuple[Target, tuple[_Way, ...]], ...]
    feeders: dict[int, list[tuple[Target, list[tuple[Node, slice]]]]]
    kept: tuple[tuple[str, int], ...]
    empty: tuple[tuple[str, int], ...]


@lru_cache(maxsize=32)
def _pull_program(plan: LayerPlan) -> _Pull:
    lanes = _lanes(plan)
    slots = [(slot.name, slot.lag) for slot in full_state(plan)]
    kept = tuple(key for key in slots if (key[0], key[1] + 1) in slots)
    written: set[Any] = set(kept)
    order = []
    for target in plan.linear.backward_order:
        if isinstance(target, Node) and target not in written:
            continue  # nothing in a step takes it
        ways = []
        for edge in plan.edges[target]:
            source = edge.source
            if source.op == "matmul":
                ways.append(_Way(source, "lane", lanes[source], source not in written))
                written.add(source)
            elif source.op == "across":
                ways.append(_Way(source, "across", source, source not in written))
                written.add(source)
            elif source.data[1] == 0:
                ways.append(_Way(source, "now", source.data[0], False))
            else:
                key = (source.data[0], source.data[1] - 1)
                ways.append(_Way(source, "before", key, key not in written))
                written.add(key)
        order.append((target, tuple(ways)))
    feeders: dict[int, list[tuple[Target, list[tuple[Node, slice]]]]] = {group.index: [] for group in plan.groups}
    for target, found in order:
        taken: dict[int, list[tuple[Node, slice]]] = {}
        for way in found:
            if way.to == "lane":
                taken.setdefault(way.key[0], []).append((way.source, way.key[1]))
        for group, edges in taken.items():
            feeders[group].append((target, edges))
    return _Pull(tuple(order), feeders, kept, tuple(key for key in slots if key not in written))


def _lanes(plan: LayerPlan) -> dict[Node, tuple[int, slice]]:
    """Return for each recurrent product its group and its rows there."""
    return {lane.product: (group.index, slice(lane.start, lane.stop)) for group in plan.groups for lane in plan.lanes(group)}


class _Work:
    """Arrays for the way back through a step with K cotangents, taken again for every step."""

    def __init__(self, plan: LayerPlan, width: int, count: int) -> None:
        def empty(rows: int) -> Array:
            return np.zeros((rows, width, count))

        # A state that others take at t gets their share on top of what is given.
        taken = {
            e.source.data[0]
            for es in plan.edges.values()
            for e in es
            if e.source.op == "state" and not e.source.data[1]
        }
        self.now = {name: empty(size) for name, size in plan.cell.shapes.states.items() if name in taken}
        self.lanes = {group.index: empty(plan.rows(group)) for group in plan.groups}
        self.products = {group.index: empty(plan.size(group.vector)) for group in plan.groups}
        self.across = {node: empty(plan.size(node)) for node in plan.across}
        sizes = {*plan.cell.shapes.states.values(), *(lane.rows for group in plan.groups for lane in plan.lanes(group))}
        sizes |= {plan.size(node) for node in plan.across} | {len(array) for array in self.products.values()}
        self.terms = {rows: empty(rows) for rows in sizes}
        self._folded: dict[tuple[int, int], tuple[Array, Array]] = {}

    def folded(self, rows: int, columns: int) -> tuple[Array, Array]:
        """Return two arrays for matrices with coefficients multiplied in."""
        if (rows, columns) not in self._folded:
            self._folded[rows, columns] = np.empty((rows, columns)), np.empty((rows, columns))
        return self._folded[rows, columns]


def _times(matrix: Array, vectors: Array) -> Array:
    """Return ``matrix @ v`` for vectors (size, b, K), as one product."""
    size, width, count = vectors.shape
    return (matrix @ vectors.reshape(size, width * count)).reshape(-1, width, count)
