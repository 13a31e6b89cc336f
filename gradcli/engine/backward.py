"""The backward pass of a layer over a block of steps: exact adjoints, at every distance, whatever their size.

An adjoint is a mantissa times a power of two, one power for each frame, trial and sequence (see `gradcli.engine.plan`).
Within a block the mantissas are ordinary floats; at its border they are brought back near 1, which is exact. A block in
which they leave the safe range is refused with `OutOfRange`, and the caller takes a shorter one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from gradcli.engine.backward_loop import backward_loop, needs_prefill, runs_of
from gradcli.engine.coefficients import coefficient_program
from gradcli.engine.evaluate import HoistedAdjoints, Values, evaluate, product
from gradcli.engine.exponents import Adjoints, Exponents, PlainExponents, from_the_top, near_each_other, summed
from gradcli.engine.layer import Layer
from gradcli.engine.loop import Key
from gradcli.engine.plan import Target
from gradcli.engine.scaled import NOTHING, Scaled, log2_norm, scale_by
from gradcli.engine.views import one_for_all, split_rows, window_view
from gradcli.engine.weights import WeightGradients
from gradcli.language.graph import Node

Array = np.ndarray[Any, Any]


@dataclass
class Block:
    """What the backward pass over one block found.

    steps: lo and hi, for the steps lo+1 .. hi of the segment.
    log2_norm: for each state (n, R, B), for the steps of the block.
    gradients: of nodes that depend on parameters alone, to be added up over blocks; those of weights are not among
        them, see `BackwardPass.collect`.
    input_adjoint, input_exponent: dL/dx, (n, R, input_size, B) mantissas and (R, B); None where x plays no part.
    totals: for each state the mantissas of its adjoint (n, R, size, B), a view, with the exponent (R, B).
    longest_next: how many steps the next block may have, by the rate at which the norms change.
    """

    steps: tuple[int, int]
    adjoints: Adjoints
    log2_norm: dict[str, Array]
    gradients: dict[Node, Scaled]
    input_adjoint: Array | None
    input_exponent: Array
    totals: dict[str, tuple[Array, Array]]
    longest_next: int


class StepClip(Protocol):
    """Clips adjoints inside the backward pass."""

    def __call__(self, adjoint: Array, exponent: Array) -> None:
        """Clip one state's adjoint in place: mantissas (R, size, B) and exponents (R, 1, B)."""

    def settle(self, kept: bool) -> None:
        """Take note that the block just clipped counts, or that it was refused and comes again in shorter ones."""


class BackwardPass:
    """Backward over the blocks of a layer.

    Args:
        layer: the layer, whose forward pass has just run over the segment.
        per_step: whether gradients enter at every step (a loss at several steps, a layer above), not only at the last.
        clipped: whether `step_clip` is to be applied to every state's adjoint as soon as it is complete.
        block: the largest number of steps of a block.
        parameters: whether parameter gradients are wanted. to_input: whether dL/dx is, for a layer below.
        plain: whether adjoints are plain floats, without powers of two of their own, those of the batch loss whose sum
            over sequences has this `divisor`.
        by_step: whether they are wanted for each step by itself, see `step_gradients`.
    """

    def __init__(
        self,
        layer: Layer,
        *,
        per_step: bool,
        block: int,
        clipped: bool = False,
        parameters: bool = True,
        to_input: bool = False,
        plain: bool = False,
        divisor: int = 1,
        by_step: bool = False,
    ) -> None:
        self._by_step = by_step
        self.layer = layer
        self.plan = plan = layer.plan
        self.step_clip: StepClip | None = None
        self.parameters, self.to_input = parameters, to_input
        output = plan.cell.output
        self.prefilled = frozenset(
            name for name in plan.states if needs_prefill(plan, name) or (per_step and name == output)
        )
        self._clipped = clipped
        self.code = backward_loop(plan, layer.trials > 1, self.prefilled, clipped)
        self.totals = {
            name: np.zeros((block + layer.lag, *a.shape[1:]), layer.dtype) for name, a in layer.states.items()
        }
        self._name_hoisted()
        # What lies outside the loop takes the adjoints of products at all steps; without it one step's are enough.
        outside = parameters or to_input
        self.lanes: dict[int, Array] = {}
        for group in plan.groups:
            if group.same_as:
                earlier, (first, last) = group.same_as
                self.lanes[group.index] = self.lanes[earlier.index][:, :, first:last]
            elif outside:
                self.lanes[group.index] = layer.empty(block, group.rows)
            else:
                self.lanes[group.index] = one_for_all(layer.empty(1, group.rows), block)
        # Functions across: the adjoint, and what the forward pass has kept of the block.
        self.across: dict[Node, Array] = {}
        self._kept: dict[Key, Array] = {}
        for node in plan.across:
            size, slope_rows = plan.size(node), plan.slope_rows(node)
            self.across[node] = layer.empty(block, size) if outside else one_for_all(layer.empty(1, size), block)
            self._kept["value", node] = layer.empty(block, size)
            if slope_rows:
                self._kept["slope", node] = layer.empty(block, slope_rows)
        self._weights = [
            WeightGradients(layer, group, [item for item in self._stacked if item.group == group.index], block)
            for group in (plan.groups if parameters else [])
        ]
        self._program = coefficient_program(plan, parameters)
        self._buffers: dict[Key, Array] = {}
        for target, edges in plan.edges.items():
            for number, run in enumerate(runs_of(plan, edges)[0]):
                if not run.group.same_as:
                    self._buffers["run", target, number] = layer.empty(block, run.rows[1] - run.rows[0])
        for key in self._program.columns:
            match key:
                case ("output", "edge" | "vector", *_, Node() as node):
                    self._buffers[key[1:]] = layer.empty(block, plan.size(node))
                case ("temporary", rows, _):
                    self._buffers[key] = layer.empty(block, rows)
        self._views: dict[Key, list[Array]] = {}
        itemsize = layer.dtype.itemsize
        self._exponents = PlainExponents(plan, itemsize, divisor) if plain else Exponents(plan, itemsize)
        self._missing: Array | None = None
        self._exponent = np.zeros((plan.frames.count, layer.trials, layer.batch_size), np.int64)

    def _name_hoisted(self) -> None:
        """Decide by which way each hoisted node gets its gradient."""
        plan, layer = self.plan, self.layer
        # Stacked addends whose adjoints are those of their lanes are passed on together, the other aliases one by one.
        of_lane = {lane.product: leaf for leaf, lane in plan.aliases.items()}
        self._stacked = [
            item
            for item in layer.stacked
            if all(of_lane.get(addend.lane.product) is addend.lane.addend for addend in item.addends)
        ]
        together = {addend.lane.addend for item in self._stacked for addend in item.addends}
        self._aliases = {leaf: lane for leaf, lane in plan.aliases.items() if leaf not in together}
        self._leaves = {leaf: pairs for leaf, pairs in plan.leaf_edges.items() if leaf not in plan.aliases}

    def start(self, step_clip: StepClip | None) -> Adjoints:
        """Begin a run: return the adjoints before anything has entered, which are zero.

        Args:
            step_clip: what to clip with, for a pass made with `clipped`.
        """
        self.step_clip = step_clip
        self.clear_weights()
        layer = self.layer
        shape = (self.plan.frames.count, layer.trials, layer.batch_size)
        carry = {name: np.zeros((layer.lag, *a.shape[1:]), layer.dtype) for name, a in layer.states.items()}
        return Adjoints(carry, np.full(shape, NOTHING, np.int64), nothing=True)

    def run(
        self,
        lo: int,
        hi: int,
        adjoints: Adjoints,
        entering: Array | None,
        entering_exponent: Array,
        more: bool = True,
        missing: Array | None = None,
    ) -> Block:
        """Go back over the steps lo+1 .. hi of the segment.

        Args:
            lo, hi: the block, as steps of the segment.
            adjoints: those at step hi.
            entering: the gradient that enters at the output state, (hi-lo, R, size, B) mantissas, or None.
            entering_exponent: its exponent, (R, B).
            more: whether another block follows, which needs to know how this one ends.
            missing: the sequences that have none of these steps, whose adjoints are zero.

        Raises:
            OutOfRange: mantissas left the safe range; nothing was changed.
        """
        plan, n, lag = self.plan, hi - lo, self.layer.lag
        if entering is not None and plan.cell.output not in self.prefilled:
            entering = entering[n - 1 :]  # nothing enters at other steps
        program = self._program
        program.run(
            [self._block_array(key, lo, hi) for key in program.columns], [self._fixed(key) for key in program.fixed]
        )
        for (what, node), buffer in self._kept.items():
            np.copyto(buffer[:n], self.layer.array(node)[lo:hi] if what == "value" else self.layer.slope(node)[lo:hi])
        self._missing = missing
        if missing is not None:
            # A derivative need not be finite there, and its product with an adjoint of zero then is not zero.
            for buffer in (*self._buffers.values(), *self._kept.values()):
                buffer[:n, ..., missing] = 0.0
        exponent = self._exponents.choose(n, adjoints, entering, entering_exponent)
        norms = self._go_back(n, adjoints, exponent, entering, entering_exponent)
        lifted: Array | None = None
        while (more_lifted := self._exponents.to_be_lifted(norms, exponent)) is not None:
            if self.step_clip is not None:
                self.step_clip.settle(kept=False)
            lifted = more_lifted if lifted is None else lifted | more_lifted
            exponent = self._exponents.choose(n, adjoints, entering, entering_exponent, lifted)
            norms = self._go_back(n, adjoints, exponent, entering, entering_exponent)
        joint = self._exponents.check(norms, n)
        near_one, ending = self._exponents.ending(joint, exponent) if more else (False, [])
        frames = plan.frames
        carry = {name: total[:lag].copy() for name, total in self.totals.items()}
        gradients, to_input, to_input_exponent = self._hoisted(lo, hi, exponent)
        return Block(
            (lo, hi),
            Adjoints(carry, exponent, near_one, ending),
            {name: norm + exponent[frames.of_state[name]] for name, norm in norms.items()},
            gradients,
            to_input,
            to_input_exponent,
            {name: (t[lag : lag + n], exponent[frames.of_state[name]]) for name, t in self.totals.items()},
            self._exponents.longest_next(n, joint, adjoints.log2_norm, ending) if more else 1,
        )

    def _go_back(
        self, n: int, adjoints: Adjoints, exponent: Array, entering: Array | None, entering_exponent: Array
    ) -> dict[str, Array]:
        """Run the loop over a block, and return log2 of the norms of each state's mantissas, (n, R, B)."""
        self._exponent = exponent
        self._fill_totals(n, adjoints, exponent, entering, entering_exponent)
        loop = self.code
        if self._exponents.goes_up(exponent):
            loop = backward_loop(self.plan, self.layer.trials > 1, self.prefilled, self._clipped, upward=True)
        # Backwards in time: the last step of the block first.
        columns = [self._column(key, n)[::-1] for key in loop.columns]
        loop.run(columns, [self._fixed(key) for key in loop.fixed])
        lag = self.layer.lag
        return {name: log2_norm(total[lag : lag + n], axis=2) for name, total in self.totals.items()}

    def collect(self, block: Block) -> None:
        """Add the weight gradients of the block that `run` has just gone over; call it once the block is accepted."""
        for weights, lanes, exponent, vectors in self._factors(block):
            weights.add(lanes, exponent, vectors)

    def _factors(self, block: Block) -> Iterator[tuple[WeightGradients, Array, Array, list[Array]]]:
        """Yield for each group what its weight gradients are products of: see `WeightGradients.add`."""
        lo, hi = block.steps
        for weights in self._weights:
            group = weights.group
            vectors = [
                self._buffers["vector", node][: hi - lo]
                if ("vector", node) in self._buffers
                else self.layer.array(node)[lo:hi]
                for node in weights.vectors
            ]
            yield weights, self.lanes[group.index][: hi - lo], block.adjoints.exponent[group.frame], vectors

    def step_gradients(self, block: Block) -> dict[Node, Scaled]:
        """Return the gradients of parameter nodes at each step of the block just gone over, (n, R, ...)."""
        found = dict(block.gradients)
        for weights, lanes, exponent, vectors in self._factors(block):
            for node, gradient in weights.of_steps(lanes, exponent, vectors):
                found[node] = found[node].add(gradient) if node in found else gradient
        return found

    def weight_gradients(self) -> list[tuple[Node, Scaled]]:
        """Return the sums of what `collect` has added, contributions to the gradients of parameter nodes."""
        return [pair for weights in self._weights for pair in weights.gradients()]

    def clear_weights(self) -> None:
        """Forget what `collect` has added."""
        for weights in self._weights:
            weights.clear()

    def _fill_totals(
        self, n: int, adjoints: Adjoints, exponent: Array, entering: Array | None, entering_exponent: Array
    ) -> None:
        lag, plan = self.layer.lag, self.plan
        for name, total in self.totals.items():
            frame = plan.frames.of_state[name]
            if name in self.prefilled:
                total[:n] = 0.0
            if exponent is adjoints.exponent or adjoints.nothing:
                total[n : n + lag] = adjoints.carry[name]
            else:
                shift = (adjoints.exponent[frame] - exponent[frame])[:, None, :]
                total[n : n + lag] = scale_by(adjoints.carry[name], shift)
            if name == plan.cell.output and entering is not None:
                shift = (entering_exponent - exponent[frame])[:, None, :]
                if name in self.prefilled:
                    total[lag : lag + n] += scale_by(entering, shift)
                else:
                    total[lag + n - 1] += scale_by(entering[0], shift)

    # Arrays.

    def _block_array(self, key: Key, lo: int, hi: int) -> Array:
        """Return the array of a block that a key of the coefficient program names."""
        n = hi - lo
        match key:
            case ("given", node):
                return self.layer.array(node)[lo:hi]
            case ("output", "lane", target, number, (first, last)):
                return self._buffers["run", target, number][:n, :, first:last]
            case ("output", *rest):
                return self._buffers[tuple(rest)][:n]
            case _:
                return self._buffers[key][:n]

    def _column(self, key: Key, n: int) -> list[Array]:
        """Return a view for each of the first n steps of the block."""
        if key not in self._views:
            self._views[key] = list(self.layer.squeeze(self._buffer(key), 1))
        return self._views[key][:n]

    def _buffer(self, key: Key) -> Array:
        match key:
            case ("adjoint", name, lag):
                return self.totals[name][self.layer.lag - lag :]
            case ("window", name, (longest, shortest)):
                total = self.totals[name]
                last = len(total) - shortest
                return window_view(total[self.layer.lag - longest : last], longest - shortest + 1)
            case ("across", node):
                return self.across[node]
            case ("value" | "slope", _):
                return self._kept[key]
            case ("coefficient", target, Node() as source):
                return self._buffers["edge", target, source]
            case ("coefficient", target, number, parts):
                return split_rows(self._buffers["run", target, number], parts)
            case ("lanes", group, (lo, hi), *split):
                return split_rows(self.lanes[group][:, :, lo:hi], split[0] if split else 0)
            case _:
                raise AssertionError(f"no array is called {key}")

    def _fixed(self, key: Key) -> Any:
        layer = self.layer
        match key:
            case ("rescale", source, target):
                shift = np.clip(self._exponent[source] - self._exponent[target], -5000, 0)
                return layer.squeeze(scale_by(np.ones((), layer.dtype), shift)[:, None, :], 0)
            case ("shift", source, target):
                shift = np.clip(self._exponent[source] - self._exponent[target], -5000, 5000).astype(np.int32)
                return layer.squeeze(shift[:, None, :], 0)
            case ("clip", name):
                return self._clip_of(name)
            case ("scratch", name, rows, _, parts):
                return layer.squeeze(split_rows(layer.scratch(name, rows)[None], parts)[0], 0)
            case ("transposed", group):
                return layer.parameters.transposed(self.plan.groups[group])
            case ("transposed of window", group):
                return layer.parameters.transposed_of_window(self.plan.groups[group])
            case ("number", value, rows):
                return layer.constant(value, rows)
            case ("scalar", value):
                return value
            case ("leaf", node):
                return layer.leaf(node)
            case ("known", node):
                return layer.known(node)
            case _:
                raise AssertionError(f"no array is called {key}")

    def _clip_of(self, name: str) -> Callable[[Array], None]:
        assert self.step_clip is not None
        clip, layer = self.step_clip, self.layer
        exponent = self._exponent[self.plan.frames.of_state[name]][:, None, :]
        if self._missing is None:
            return lambda adjoint: clip(adjoint.reshape(layer.trials, -1, layer.batch_size), exponent)
        there = np.delete(np.arange(layer.batch_size), self._missing)

        def clip_those_there(adjoint: Array) -> None:
            whole = adjoint.reshape(layer.trials, -1, layer.batch_size)
            part = whole[..., there]
            clip(part, exponent[..., there])
            whole[..., there] = part

        return clip_those_there

    # What lies outside the loop.

    def _hoisted(self, lo: int, hi: int, exponent: Array) -> tuple[dict[Node, Scaled], Array | None, Array]:
        """Return the block's contributions to the gradients of hoisted nodes, and the adjoint of the input.

        Raises:
            OutOfRange: at some step the adjoint of the input is small, and lost beside what it is at others.
        """
        wanted = self.to_input or (self.parameters and (self._leaves or self._aliases))
        if not wanted:
            return {}, None, self._common(exponent)
        layer, n = self.layer, hi - lo
        itemsize = layer.dtype.itemsize
        values = layer.block_values(lo, hi)
        evaluate([c for pairs in self._leaves.values() for _, c in pairs], values, layer.parameters.column_ranges)
        gradients: dict[Node, Scaled] = {}
        found: list[tuple[Array, Array]] = []
        for frames in near_each_other(exponent, itemsize):
            common = self._common(exponent[frames])
            for exponents in from_the_top(common, itemsize):
                hoisted = self._through_hoisted(n, values, exponent, frames, common, exponents)
                for node, gradient in hoisted.gradients.items():
                    gradients[node] = gradients[node].add(gradient) if node in gradients else gradient
                # A trial that has a sum of every kind needs nothing that is smaller.
                if all(gradient.nonzero().all() for gradient in hoisted.gradients.values()):
                    break
            adjoint = hoisted.adjoints.get(self.plan.graph.input())
            if adjoint is not None:
                found.append((adjoint, common))
        to_input, common = summed(found, n) if found else (None, self._common(exponent))
        return gradients if self.parameters else {}, to_input, common

    def _common(self, exponent: Array) -> Array:
        """Return the exponents (R, B) at which the adjoints of some frames, (frames, R, B), come together."""
        common: Array = exponent.max(axis=0)
        return np.broadcast_to(common.max(axis=1, keepdims=True), common.shape) if self.plan.couples_hoisted else common

    def _through_hoisted(
        self, n: int, values: Values, exponent: Array, frames: list[int], common: Array, counted: Array
    ) -> HoistedAdjoints:
        """Carry the adjoints of some frames down to the input and to parameters.

        Args:
            values: of the block. exponent: of each frame. common: that of the adjoints, (R, B).
            counted: the same for the sequences that the sums go over, `NOTHING` for others.
        """
        plan, layer = self.plan, self.layer
        top = counted.max(axis=1)
        weight = scale_by(np.ones((), layer.dtype), counted - top[:, None])
        weight = np.where(counted > NOTHING, weight, 0).astype(layer.dtype)[:, None, :]
        top = np.where(top > NOTHING, top, 0)
        hoisted = HoistedAdjoints(
            plan.graph,
            values,
            layer.parameters.column_ranges,
            weight,
            top,
            to_input=self.to_input,
            by_step=self._by_step,
        )

        def in_common(adjoint: Array, frame: int) -> Array:
            if plan.frames.count == 1 and not plan.couples_hoisted:
                return adjoint
            return scale_by(adjoint, (exponent[frame] - common)[:, None, :])

        for group in plan.groups:
            if group.frame not in frames:
                continue
            lanes = in_common(self.lanes[group.index][:n], group.frame)
            for item in self._stacked:
                if item.group == group.index and self.to_input:
                    matrix = layer.parameters.addend_matrix(item, signed=False).swapaxes(-1, -2)
                    hoisted.receive(item.vector, product(matrix, lanes[:, :, slice(*item.rows)]))
            for leaf, lane in self._aliases.items():
                if plan.group_of[lane.product] is group:
                    hoisted.receive(leaf, lanes[:, :, lane.start : lane.stop])
        for leaf, pairs in self._leaves.items():
            for target, coefficient in pairs:
                if self._frame_of(target) not in frames:
                    continue
                through = in_common(self._target_adjoint(target, n), self._frame_of(target)) * values[coefficient]
                if self._missing is not None:
                    through[..., self._missing] = 0.0
                hoisted.receive(leaf, through)
        hoisted.propagate()
        return hoisted

    def _frame_of(self, target: Target) -> int:
        frames = self.plan.frames
        if isinstance(target, str):
            return frames.of_state[target]
        return frames.of_node[target] if isinstance(target, Node) else self.plan.groups[target].frame

    def _target_adjoint(self, target: Target, n: int) -> Array:
        """Return the adjoint of a target over the block."""
        lag = self.layer.lag
        if isinstance(target, str):
            return self.totals[target][lag : lag + n]
        if isinstance(target, Node):
            return self.across[target][:n]
        transposed = self.layer.parameters.transposed(self.plan.groups[target])
        return product(transposed[None] if self.layer.trials == 1 else transposed, self.lanes[target][:n])
