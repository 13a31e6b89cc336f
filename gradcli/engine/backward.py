"""The backward pass of a layer over a block of steps: exact adjoints, at every distance, whatever their size.

An adjoint is a mantissa times a power of two, one power for each frame, trial and sequence (see
`gradcli.engine.step.frames`). Within a block the mantissas are ordinary floats; at its border they are brought back
to where they have room (`gradcli.engine.exponents`), which is exact. A block in which they leave the safe range is
refused with `OutOfRange`, and the caller takes a shorter one.
"""

from __future__ import annotations

from collections.abc import Container, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from gradcli.engine import executor
from gradcli.engine.arrays import Extent
from gradcli.engine.evaluate import Values, evaluate, over_argument, product
from gradcli.engine.exponents import Adjoints, Exponents, PlainExponents
from gradcli.engine.factors import Factors, factors_of
from gradcli.engine.layer import Layer
from gradcli.engine.outside import BlockAdjoints, Outside
from gradcli.engine.scaled import NOTHING, Scaled, scale_by
from gradcli.engine.step.backward import Choices
from gradcli.engine.step.instructions import Buffer, Instructions, Span, buffers_of
from gradcli.engine.step.linearise import Target
from gradcli.engine.step.place import Stack
from gradcli.engine.step.plan import BackwardProgram, LayerPlan
from gradcli.engine.step_clip import StepClip
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


class Products(NamedTuple):
    """What is multiplied for some gradients, sum_t delta_t v_t^T, over a block of n steps.

    adjoints: mantissas of delta, (n, R, rows, B). exponent: theirs, (R, B). vectors: v, (n, R, size, B) each.
    """

    adjoints: Array
    exponent: Array
    vectors: list[Array]


def pass_bytes(plan: LayerPlan, extent: Extent, block: int) -> int:
    """Return how many bytes a `BackwardPass` takes for blocks of so many steps, with gradients of parameters."""
    plan = plan.windowed if extent.trials == 1 else plan
    program = plan.backward(Choices(plan.prefilled | {plan.cell.output}, kept=True), vectors=True)
    buffers = [*_of_program(program), *buffers_of(program.step)]
    summed = sum(WeightGradients.bytes_for(plan, factors, extent, block) for factors in factors_of(plan))
    return extent.bytes_of(buffers, segment=0, block=block) + summed


def _of_program(program: BackwardProgram) -> list[Buffer]:
    """Return the buffers of a way back, but those that only its steps name."""
    parts = program.parts
    of_nodes = [parts.across, parts.values, parts.slopes, program.vectors]
    lanes = [lanes.buffer for lanes in parts.lanes.values()]
    found = [*buffers_of(program.coefficients), *parts.adjoints.values(), *lanes]
    found += [buffer for _, buffer in program.hoisted]
    return found + [buffer for buffers in of_nodes for buffer in buffers.values()]


class BackwardPass:
    """Backward over the blocks of a layer.

    Args:
        layer: the layer, whose forward pass has just run over the segment.
        per_step: whether gradients enter at every step (a loss at several steps, a layer above), not only at the last.
        clipped: the operation that clips every state's adjoint as soon as it is complete, see `StepClip`.
        block: the largest number of steps of a block.
        parameters: whether parameter gradients are wanted. to_input: whether dL/dx is, for a layer below.
        plain: whether adjoints are plain floats, without powers of two of their own, those of the batch loss whose sum
            over sequences has this `divisor`.
        by_step: whether they are wanted for each step by itself, see `step_gradients`.
        kept: whether the adjoints of products at all steps of a block are wanted for others.

    Attributes:
        weights: the sums of products that `collect` adds to.
        missing: the sequences that had none of the steps of the block that was gone over last.
    """

    def __init__(
        self,
        layer: Layer,
        *,
        per_step: bool,
        block: int,
        clipped: str | None = None,
        parameters: bool = True,
        to_input: bool = False,
        plain: bool = False,
        divisor: int = 1,
        by_step: bool = False,
        kept: bool = False,
    ) -> None:
        self.layer = layer
        self.plan = plan = layer.plan
        self.step_clip: StepClip | None = None
        output = plan.cell.output
        self.prefilled = plan.prefilled | ({output} if per_step else frozenset())
        # What lies outside the loop takes the adjoints of products at all steps; without it one step's are enough.
        self._program = program = plan.backward(
            Choices(self.prefilled, clipped, kept=kept or parameters or to_input), parameters
        )
        self._parts = parts = program.parts
        self._block = block
        layer.allocate(_of_program(program), block)
        arrays = layer.arrays
        self.totals = {name: arrays[buffer] for name, buffer in parts.adjoints.items()}
        self.lanes = {index: arrays.of(lanes) for index, lanes in parts.lanes.items()}
        self.coefficients = executor.program(program.coefficients, arrays, whole=True)
        self.step = self._compiled(program.step)
        self._upward: executor.Program | None = None
        #: What is computed of a block before the way back, or taken from the forward pass.
        taken = {place.buffer for _, place in parts.wanted} | set(program.vectors.values())
        self._reads_the_tape = any(buffer.span is Span.SEGMENT for buffer in buffers_of(program.step))
        self._of_block = [arrays[buffer] for buffer in (*taken, *parts.values.values(), *parts.slopes.values())]
        found = factors_of(plan) if parameters else []
        self.weights = [WeightGradients(layer, factors, block) for factors in found]
        self._outside = Outside(layer, to_input=to_input, parameters=parameters, by_step=by_step, besides=found)
        itemsize = layer.dtype.itemsize
        self._exponents = PlainExponents(plan, itemsize, divisor) if plain else Exponents(plan, itemsize)
        self.missing: Array | None = None
        self._exponent = np.zeros((plan.frames.count, layer.trials, layer.batch_size), np.int64)

    def _compiled(self, step: Instructions) -> executor.Program:
        self.layer.allocate(buffers_of(step), self._block)
        return executor.program(step, self.layer.arrays)

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
        self._take_block(lo, n)
        self.missing = missing
        if missing is not None:
            # A derivative need not be finite there, and its product with an adjoint of zero then is not zero.
            for array in self._of_block:
                array[:n, ..., missing] = 0.0
        exponent = self._exponents.choose(n, adjoints, entering, entering_exponent)
        norms = self._go_back(lo, n, adjoints, exponent, entering, entering_exponent)
        lifted: Array | None = None
        while (more_lifted := self._exponents.to_be_lifted(norms, exponent)) is not None:
            if self.step_clip is not None:
                self.step_clip.settle(kept=False)
            lifted = more_lifted if lifted is None else lifted | more_lifted
            exponent = self._exponents.choose(n, adjoints, entering, entering_exponent, lifted)
            norms = self._go_back(lo, n, adjoints, exponent, entering, entering_exponent)
        joint = self._exponents.check(norms, n)
        frames = plan.frames
        carry = {name: total[:lag].copy() for name, total in self.totals.items()}
        ending = self._exponents.ending(joint, exponent, carry) if more else Adjoints(carry, exponent)
        lanes = {number: array[:n] for number, array in self.lanes.items()}
        inside = BlockAdjoints(exponent, lanes, partial(self.target_adjoint, n=n), missing)
        gradients, to_input, to_input_exponent = self._outside.carry(lo, hi, inside)
        return Block(
            (lo, hi),
            ending,
            {name: norms[name] + exponent[frames.of_state[name]] for name in plan.cell.states},
            gradients,
            to_input,
            to_input_exponent,
            {name: (self.totals[name][lag : lag + n], exponent[frames.of_state[name]]) for name in plan.cell.states},
            self._exponents.longest_next(n, joint, adjoints, ending) if more else 1,
        )

    def _go_back(
        self, lo: int, n: int, adjoints: Adjoints, exponent: Array, entering: Array | None, entering_exponent: Array
    ) -> dict[str, Array]:
        """Run the loop over a block, and return log2 of the norms of each state's mantissas, (n, R, B)."""
        self._exponent = exponent
        self._fill_totals(n, adjoints, exponent, entering, entering_exponent)
        self._fill_powers(exponent)
        step = self.step
        if self._exponents.goes_up(exponent):
            if self._upward is None:
                self._upward = self._with_shifts()
                self._fill_powers(exponent)
            step = self._upward
        self._fill_limits(exponent)
        step.run(lo, n, reverse=True)
        self._clear_missing(n)
        self._count_clipped(n)
        lag = self.layer.lag
        return {name: executor.log2_norms(total[lag : lag + n]) for name, total in self.totals.items()}

    def _clear_missing(self, n: int) -> None:
        """Make zero what came of sequences that had none of the steps: a derivative of theirs need not be finite."""
        if self.missing is None or not self._reads_the_tape:
            return
        kept = [*self._parts.lanes.values(), *(buffer.rows() for buffer in self._parts.across.values())]
        for array in (*self.totals.values(), *(self.layer.arrays[place.buffer] for place in kept)):
            array[..., self.missing] = 0.0

    def _with_shifts(self) -> executor.Program:
        """Return the step for frames that pass adjoints on to ones with far smaller powers of two."""
        return self._compiled(self.plan.upward(self._program))

    def _take_block(self, lo: int, n: int) -> None:
        """Take what the way back needs of n steps of the forward pass."""
        layer, arrays = self.layer, self.layer.arrays
        for node, buffer in self._program.hoisted:
            np.copyto(arrays[buffer][:n], layer.array(node)[lo : lo + n])
        self.coefficients.run(lo, n)
        for node, buffer in self._parts.values.items():
            np.copyto(arrays[buffer][:n], layer.array(node)[lo : lo + n])
        for node, buffer in self._parts.slopes.items():
            np.copyto(arrays[buffer][:n], layer.slope(node)[lo : lo + n])

    def _fill_powers(self, exponent: Array) -> None:
        """Set the powers of two that bring adjoints from one frame to another."""
        arrays, one = self.layer.arrays, np.ones((), self.layer.dtype)
        for (frame, wanted), buffer in self._parts.factors.items():
            shift = np.clip(exponent[frame] - exponent[wanted], -5000, 0)
            arrays[buffer][0] = scale_by(one, shift)[:, None, :]
        for (frame, wanted), buffer in self._parts.shifts.items():
            if buffer in arrays:
                arrays[buffer][0] = np.clip(exponent[frame] - exponent[wanted], -5000, 5000)[:, None, :]

    def collect(self, block: Block) -> None:
        """Add the weight gradients of the block that `run` has just gone over; call it once the block is accepted."""
        products = self.products(block, [weights.factors for weights in self.weights])
        for weights, (adjoints, exponent, vectors) in zip(self.weights, products, strict=True):
            weights.add(adjoints, exponent, vectors)

    def products(self, block: Block, found: Iterable[Factors]) -> Iterator[Products]:
        """Yield what gradients are sums of products of, at the steps of the block just gone over.

        Args:
            found: of the plan, see `gradcli.engine.factors`; for a pass made with `parameters`.
        """
        lo, hi = block.steps
        made, arrays, layer = self._program.vectors, self.layer.arrays, self.layer
        for factors in found:
            vectors = [
                arrays[made[node]][: hi - lo] if node in made else layer.array(node)[lo:hi] for node in factors.vectors
            ]
            yield Products(self._adjoints_of(block, factors.source), block.adjoints.exponent[factors.frame], vectors)

    def _adjoints_of(self, block: Block, source: Stack | Node) -> Array:
        """Return the adjoints of lanes, or of a hoisted node, over the block."""
        lo, hi = block.steps
        layer = self.layer
        if isinstance(source, Stack):
            return self.lanes[source.group.number][: hi - lo]
        pairs, values = self.plan.linear.leaf_edges[source], layer.block_values(lo, hi)
        evaluate([coefficient for _, coefficient in pairs], values, layer.parameters.column_ranges)
        parts = [self.target_adjoint(target, hi - lo) * values[coefficient] for target, coefficient in pairs]
        adjoint = np.asarray(sum(parts[1:], parts[0]))
        if self.missing is not None:
            adjoint[..., self.missing] = 0.0
        return adjoint

    def step_gradients(self, block: Block, besides: Container[Node] = ()) -> dict[Node, Scaled]:
        """Return the gradients of parameter nodes at each step of the block just gone over, (n, R, ...).

        Args:
            besides: nodes whose gradients are not asked for; they may be among those returned.
        """
        found = dict(block.gradients)
        asked = [weights for weights in self.weights if any(use.node not in besides for use in weights.factors.uses)]
        products = self.products(block, [weights.factors for weights in asked])
        for weights, (adjoints, exponent, vectors) in zip(asked, products, strict=True):
            for node, gradient in weights.of_steps(adjoints, exponent, vectors):
                found[node] = found[node].add(gradient) if node in found else gradient
        return found

    def weight_gradients(self) -> list[tuple[Node, Scaled]]:
        """Return the sums of what `collect` has added, contributions to the gradients of parameter nodes."""
        return [pair for weights in self.weights for pair in weights.gradients()]

    def clear_weights(self) -> None:
        """Forget what `collect` has added."""
        for weights in self.weights:
            weights.clear()

    def _fill_totals(
        self, n: int, adjoints: Adjoints, exponent: Array, entering: Array | None, entering_exponent: Array
    ) -> None:
        lag, plan = self.layer.lag, self.plan
        for name, total in self.totals.items():
            frame = plan.frames.of_state[name]
            if name in self.prefilled or name not in plan.cell.states:
                total[:n] = 0.0  # the step adds to it, or leaves it alone: nobody may want those of earlier inputs
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

    def _fill_limits(self, exponent: Array) -> None:
        """Set the limits that adjoints are clipped at, in units of their powers of two."""
        arrays = self.layer.arrays
        for name, buffer in self._parts.limits.items():
            assert self.step_clip is not None
            arrays[buffer][0] = self.step_clip.limit(exponent[self.plan.frames.of_state[name]])[:, None, :]
            arrays[self._parts.counters[name]][...] = 0

    def _count_clipped(self, n: int) -> None:
        if self.step_clip is not None:
            counters = [self.layer.arrays[counter] for counter in self._parts.counters.values()]
            missing = 0 if self.missing is None else len(self.missing)
            seen = n * self.layer.trials * (self.layer.batch_size - missing) * len(counters)
            self.step_clip.count(seen, sum(int(counter.sum()) for counter in counters))

    def known_values(self, block: Block) -> Values:
        """Return what is known of the steps of a block without computing, by nodes of the equations too."""
        lo, hi = block.steps
        values = self.layer.block_values(lo, hi)
        for (_, coefficient), place in self._parts.places.items():
            if coefficient not in values and place.buffer.span is Span.BLOCK and len(place.shape) == 1:
                values[coefficient] = self.layer.arrays.view(place)[: hi - lo]
        return values | {old: values[new] for old, new in self.plan.became.items() if new in values}

    def target_adjoint(self, target: Target, n: int) -> Array:
        """Return the adjoint of a target over the block."""
        lag = self.layer.lag
        if isinstance(target, str):
            return self.totals[target][lag : lag + n]
        if isinstance(target, Node):
            adjoint = self.layer.arrays[self._parts.across[target]][:n]
            return over_argument(target, adjoint) if target.op == "total" else adjoint
        return product(self.transposed(target), self.lanes[target][:n])

    def transposed(self, group: int) -> Array:
        """Return the transpose of a group's matrices one below the other, (R, columns, rows)."""
        layout = self.plan.layout
        matrix = self.layer.parameters.known(layout.matrix(layout.stacks[group]))
        return np.asarray(matrix.swapaxes(-1, -2))
