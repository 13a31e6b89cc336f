"""The linear map of each step along a trajectory, from the states before the step to those after it.

The backward step of a plan maps adjoints after a step to those before it, and that is the transposed map. `StepMaps`
runs the same instructions with many columns at once; the map itself goes along the same edges the other way:

* backward, cotangents: u -> J_t^T u (the vector-Jacobian product, reverse mode);
* forward, tangents: v -> J_t v (the Jacobian-vector product, forward mode).

The full state S_t joins all states of the layer, each with as many past values as the equations look back at:
S_t = (s_t, s_{t-1}, ..., s_{t-lag+1}) for every state s. J_t = dS_t/dS_{t-1}; the states of the step before are
independent of each other in it, so that products of J_t are the Jacobians over several steps.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from gradcli.engine import executor
from gradcli.engine.arrays import Arrays
from gradcli.engine.evaluate import evaluate, mapped
from gradcli.engine.layer import Layer
from gradcli.engine.step.backward import Choices
from gradcli.engine.step.instructions import Operand, Span, buffers_of
from gradcli.engine.step.linearise import Target
from gradcli.engine.step.plan import LayerPlan
from gradcli.frozen import frozen
from gradcli.language.across import ACROSS
from gradcli.language.graph import MAPS, Node

Array = np.ndarray[Any, Any]


@frozen
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


def carried_states(plan: LayerPlan) -> frozenset[str]:
    """Return the states that the Jacobian carries on: the others end in read-outs, which no later step has a slope in.

    What is read only by a read-out is one as well, a step later. All others together are a map of their own, and to its
    eigenvalues and Lyapunov exponents a read-out adds zeros and minus infinities, nothing else.
    """
    reach: dict[Target, frozenset[str]] = {}
    for target in reversed(plan.linear.backward_order):
        found: set[str] = set()
        for edge in plan.edges[target]:
            source = edge.source
            if source.op in ("state", "window"):
                for name, lag in (node.data for node in (source.args or (source,))):
                    found.update({name} if lag else reach[name])
            elif source in plan.linear.recurrent:
                found.update(reach[plan.linear.group_of[source].number if source.op == "matmul" else source])
        reach[target] = frozenset(found)
    carried = frozenset(plan.cell.states)
    while (read := frozenset(name for state in carried for name in reach[state] if name in carried)) != carried:
        carried = read
    return carried


class LinearisedBlock:
    """The coefficients of all edges over the steps lo+1 .. hi of the segment that a layer holds.

    Args:
        layer: after its forward pass over the segment. lo, hi: the steps, counted from the segment's first.
        sequence: which one of the batch; with batch_norm all are taken together, since each depends on all.
    """

    def __init__(self, layer: Layer, lo: int, hi: int, sequence: int = 0) -> None:
        self.layer, self.plan, self.steps = layer, layer.plan, hi - lo
        self.width = layer.batch_size if self.plan.couples_sequences else 1
        self._lo = self.first = lo
        self._only = slice(None) if self.plan.couples_sequences else slice(sequence, sequence + 1)
        self.program = self.plan.backward(Choices(self.plan.prefilled, one_frame=True))
        self.arrays = self._filled()
        layout = self.plan.layout
        self.matrices = [layer.parameters.known(layout.matrix(stack)) for stack in layout.stacks]

    def _filled(self) -> Arrays:
        """Return the memory of the coefficients, of all trials, with what they are computed from."""
        layer, program, lo, n = self.layer, self.program, self._lo, self.steps
        arrays = Arrays(layer.trials, self.width, layer.dtype)
        buffers = [*buffers_of(program.coefficients), *buffers_of(program.step)]
        layer.allocate([buffer for buffer in buffers if buffer.value is not None], block=n)
        for buffer in buffers:
            if buffer.value is not None:
                arrays[buffer] = layer.arrays[buffer].copy()  # other parameters may take their place
            elif buffer.span is Span.SEGMENT:
                arrays[buffer] = layer.arrays[buffer][..., self._only]
        wanted = [place.buffer for _, place in program.parts.wanted]
        arrays.allocate([*buffers_of(program.coefficients), *wanted], segment=n, block=n)
        arrays.allocate([buffer for _, buffer in program.hoisted], segment=n, block=n)
        for node, buffer in program.hoisted:
            arrays[buffer][...] = layer.array(node)[lo : lo + n, ..., self._only]
        for node, buffer in program.parts.values.items():
            arrays[buffer] = layer.array(node)[lo : lo + n, ..., self._only].copy()
        for node, buffer in program.parts.slopes.items():
            arrays[buffer] = layer.slope(node)[lo : lo + n, ..., self._only].copy()
        with np.errstate(all="ignore"):
            executor.program(program.coefficients, arrays, whole=True).run(lo, n)
        return arrays

    def evaluated(self, nodes: Sequence[Node]) -> list[Any]:
        """Return the values of some expressions, all trials': (n, R, size, b), (R, size, 1), or a number."""
        values = {
            node: value[..., self._only] if np.ndim(value) == 4 and value.shape[-1] > 1 else value
            for node, value in self.layer.block_values(self._lo, self._lo + self.steps).items()
        }
        with np.errstate(all="ignore"):
            evaluate(nodes, values, self.layer.parameters.column_ranges)
        return [values[node] for node in nodes]

    def maps(self, trial: int) -> StepMaps:
        """Return the maps of one trial."""
        return StepMaps(self, trial)


class StepMaps:
    """The maps J_t of the steps of a block, for one trial and one sequence, b = 1, or all that are coupled, b = B.

    Attributes:
        steps: n, how many steps. size: N, entries of the full state, each unit's b sequences side by side.
    """

    def __init__(self, block: LinearisedBlock, trial: int) -> None:
        self.plan, self.steps = block.plan, block.steps
        self._block, self._trial = block, trial
        self._slots = full_state(block.plan)
        self._width = block.width
        self.size = self._slots[-1].stop * block.width
        self._columns: dict[int, _Columns] = {}
        self._tangents: _Tangents | None = None

    def _split(self, vectors: Array) -> dict[tuple[str, int], Array]:
        """Return the parts of full-state vectors (N, K) as (state, lag) -> (size, b, K)."""
        width = self._width
        return {
            (slot.name, slot.lag): vectors[slot.start * width : slot.stop * width].reshape(
                slot.stop - slot.start, width, -1
            )
            for slot in self._slots
        }

    def pull_back(self, step: int, cotangents: Array, out: Array | None = None) -> Array:
        """Return J_t^T u for the columns u of `cotangents`, (N, K).

        Args:
            step: the step of the block, from 0. cotangents: with respect to S_t, (N, K). out: where the result goes.
        """
        count = cotangents.shape[1]
        if count not in self._columns:
            self._columns[count] = _Columns(self._block, self._trial, count)
        found = np.empty((self.size, count)) if out is None else out
        self._columns[count].pull_back(step, self._split(cotangents), self._split(found))
        return found

    def push_forward(self, step: int, tangents: Array) -> Array:
        """Return J_t v for the columns v of `tangents`, (N, K).

        Args:
            step: the step of the block, from 0. tangents: with respect to S_{t-1}, (N, K).
        """
        if self._tangents is None:
            self._tangents = _Tangents(self._block, self._trial)
        before = {(name, lag + 1): part for (name, lag), part in self._split(tangents).items()}
        after = self._tangents.push_forward(step, before, tangents.shape[1])
        out = np.zeros((self.size, tangents.shape[1]))
        for key, into in self._split(out).items():
            if key in after:
                into[...] = after[key]
        return out

    def jacobian(self, step: int) -> Array:
        """Return J_t = dS_t/dS_{t-1}, (N, N)."""
        return self.pull_back(step, np.eye(self.size)).T


class _Columns:
    """The backward step of one trial with K columns of cotangents."""

    def __init__(self, block: LinearisedBlock, trial: int, count: int) -> None:
        plan, program, of_all = block.plan, block.program, block.arrays
        self._lag = plan.lag
        arrays = Arrays(1, block.width, np.dtype(np.float64), columns=count)
        for buffer in buffers_of(program.step):
            if not buffer.columns:
                if buffer not in of_all:
                    continue  # what is computed at each step has no value yet
                # The tape is that of the segment, of which the block is a part.
                first = block.first if buffer.span is Span.SEGMENT else 0
                arrays[buffer] = np.asarray(of_all[buffer][first:, trial : trial + 1], np.float64)
                if buffer.span is Span.BLOCK:
                    arrays.moving.add(buffer)
        parts = program.parts
        arrays.allocate([*buffers_of(program.step), *parts.adjoints.values()], segment=1, block=1)
        self._adjoints = {name: arrays[buffer][:, 0] for name, buffer in parts.adjoints.items()}
        self._program = executor.program(program.step, arrays)

    def pull_back(self, step: int, after: dict[tuple[str, int], Array], before: dict[tuple[str, int], Array]) -> None:
        """Write the adjoints before a step from those after it, both as (state, lag) -> (size, b, K)."""
        lag = self._lag
        for adjoint in self._adjoints.values():
            adjoint[...] = 0.0
        for (name, back), part in after.items():
            self._adjoints[name][lag - back] = part
        self._program.run(step, 1, reverse=True)
        for (name, back), part in before.items():
            part[...] = self._adjoints[name][lag - 1 - back]


class _Tangents:
    """The step of one trial the other way: what each cut point takes of the ones before it."""

    def __init__(self, block: LinearisedBlock, trial: int) -> None:
        self._plan, self._width = block.plan, block.width
        arrays, self._parts = block.arrays, block.program.parts
        parts = self._parts
        self._coefficients = {
            key: _entries(arrays.view(place)[:, trial], place)
            for key, place in parts.places.items()
            if not key[1].is_number and place.buffer.span is not Span.SEGMENT and place.buffer in arrays
        }
        # What the backward step reads on the tape, or computes at each step, is computed for the block here.
        others = [key for key in parts.places if not key[1].is_number and key not in self._coefficients]
        for key, values in zip(others, block.evaluated([node for _, node in others]), strict=True):
            self._coefficients[key] = np.asarray(values)[:, trial]
        self._matrices = [matrix[trial] for matrix in block.matrices]
        self._across = {node: arrays[buffer][:, trial] for node, buffer in parts.values.items()}
        self._slopes = {node: arrays[buffer][:, trial] for node, buffer in parts.slopes.items()}

    def _coefficient(self, target: Target, node: Node, step: int) -> Any:
        """Return a derivative, (size, b, 1), or a number."""
        if node.is_number:
            return node.data
        values = self._coefficients[target, node]
        return values[step if len(values) > 1 else 0][..., None]

    def push_forward(self, step: int, before: dict[tuple[str, int], Array], count: int) -> dict[tuple[str, int], Array]:
        """Return the tangents of the states at t and before it, from those before t, (state, lag) -> (size, b, K)."""
        plan, width = self._plan, self._width
        known: dict[tuple[str, int], Array] = dict(before)
        inner: dict[Node, Array] = {}

        def gathered(target: Target, size: int) -> Array:
            total = np.zeros((size, width, count))
            for edge in self._parts.wanted_edges(target):
                part = self._part(edge.source, known, inner)
                if part is not None:
                    total += self._coefficient(target, edge.coefficient, step) * part
            return total

        for target in reversed(plan.linear.backward_order):
            if not self._parts.is_wanted(target):
                continue
            if isinstance(target, str):
                known[target, 0] = gathered(target, plan.state_sizes[target])
            elif isinstance(target, Node):
                size = plan.size(target.args[0])
                inner[target] = self._through(target, step, gathered(target, size))
            else:
                size = plan.size(plan.groups[target].vector)
                product = self._matrices[target] @ gathered(target, size).reshape(size, width * count)
                for lane in plan.lanes(plan.groups[target]):
                    inner[lane.product] = product[lane.start : lane.stop].reshape(-1, width, count)
        return known

    def _part(self, source: Node, known: dict[tuple[str, int], Array], inner: dict[Node, Array]) -> Array | None:
        if source.op == "state":
            return known.get(source.data)
        if source.op == "window":
            return np.concatenate([known[state.data] for state in source.args])
        return inner.get(source)

    def _through(self, node: Node, step: int, vectors: Array) -> Array:
        """Return J v for a function across, or L v for a map from one shape to another: vectors (size, b, K)."""
        if node.op in MAPS:
            flat = vectors.reshape(len(vectors), -1)
            return mapped(node, flat).reshape(-1, *vectors.shape[1:])
        function, slope = ACROSS[node.data[0]], self._slopes.get(node)
        out = np.empty_like(vectors)
        at_step = None if slope is None else slope[step]
        function.apply_jacobian(int(function.over_sequences), self._across[node][step], at_step, vectors, out)
        return out


def _entries(values: Array, place: Operand) -> Array:
    """Return what is read as an array at each step, (n, *shape, b), as its entries: (n, size, b)."""
    return values if len(place.shape) == 1 else values.reshape(len(values), -1, values.shape[-1])
