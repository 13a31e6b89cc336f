"""The way back through both directions of each layer, one after the other; see `gradcli.engine.directions`."""

from __future__ import annotations

from collections.abc import Iterable
from functools import cached_property
from typing import Any

import numpy as np

from gradcli.engine.backward import BackwardPass, Block
from gradcli.engine.directions import DIRECTIONS
from gradcli.engine.exponents import SAFE_EXPONENT, OutOfRange
from gradcli.engine.scaled import NOTHING, exponent_of, scale_by
from gradcli.engine.stack_backward import Backward

Array = np.ndarray[Any, Any]


class StepwiseAdjoint:
    """dL/dh of one direction's outputs, by its own steps; each step, trial and sequence has a power of two of its own.

    Both directions of the layer above add to it, each in blocks whose powers have nothing to do with the other's.

    Args:
        outputs: those of the direction, (T, R, size, B).
    """

    def __init__(self, outputs: Array) -> None:
        steps, trials, _, batch_size = outputs.shape
        self._mantissa = np.zeros(outputs.shape, outputs.dtype)
        self._exponent = np.full((steps, trials, batch_size), NOTHING, np.int64)
        self._safe = SAFE_EXPONENT[outputs.dtype.itemsize]

    def add(self, steps: slice, mantissa: Array, exponent: Array, sequences: Any = slice(None)) -> None:
        """Add mantissa * 2**exponent, (n, R, size, k) and (R, k), at some steps of some sequences."""
        largest = np.abs(mantissa).max(axis=2)
        own = np.where(largest == 0, NOTHING, exponent + exponent_of(largest))
        there = self._exponent[steps, :, sequences]
        chosen = np.maximum(own, there)
        kept = scale_by(self._mantissa[steps, :, :, sequences], (there - chosen)[:, :, None])
        self._mantissa[steps, :, :, sequences] = kept + scale_by(mantissa, (exponent - chosen)[:, :, None])
        self._exponent[steps, :, sequences] = chosen

    def between(self, lo: int, hi: int) -> tuple[Array, Array] | None:
        """Return it at the steps lo+1 .. hi as mantissas (n, R, size, B) at one power of two (R, B); None for zeros.

        Whether one power suited all these steps tells `is_kept`, once they have been gone over.
        """
        exponent = self._exponent[lo:hi]
        top = exponent.max(axis=0)
        if (top == NOTHING).all():
            return None
        return scale_by(self._mantissa[lo:hi], (exponent - top)[:, :, None]), top

    def is_kept(self, lo: int, hi: int, log2_norm: Array) -> bool:
        """Tell whether what entered at the steps lo+1 .. hi is there in the norms of a block, (n, R, B).

        It may be lost beside what is far larger elsewhere in the block. Where the state keeps nothing from step to
        step, nothing else would show it: its adjoint would be an exact zero.

        Args:
            log2_norm: of the mantissas of the output state's adjoint.
        """
        return not ((log2_norm < -2 * self._safe) & (self._exponent[lo:hi] > NOTHING)).any()


class BothWays:
    """The backward pass of a bidirectional stack: from the top layer down, one direction after the other.

    Args:
        backward: where what is found goes.
    """

    def __init__(self, backward: Backward) -> None:
        self._backward, self._engine = backward, backward.engine
        self._steps = backward.engine.problem.seq_len
        self._begins = backward.engine.problem.begins
        self._gone_back = 0

    def run(self) -> bool:
        """Go back over the whole sequence; return whether all adjoints were finite."""
        entering: list[StepwiseAdjoint | None] = [None] * DIRECTIONS
        for first in range(len(self._engine.layers) - DIRECTIONS, -1, -DIRECTIONS):
            below = self._engine.layers[max(first - DIRECTIONS, 0) : first]
            sums = [StepwiseAdjoint(layer.outputs()) for layer in below]
            for direction in range(DIRECTIONS):
                if not self._direction(first + direction, entering[direction], sums):
                    return False
            entering = list(sums)
        self._backward.add_readout(0, self._steps)
        return True

    def _direction(self, index: int, entering: StepwiseAdjoint | None, below: list[StepwiseAdjoint]) -> bool:
        """Go back over one direction of a layer, from its own last step to its first.

        Args:
            entering: what enters from the layer above; None for the top layer, which the loss enters.
            below: what collects the adjoints of this layer's input, for each direction of the layer below.
        """
        backward = self._backward
        for start, end, (block,) in backward.blocks_back().over(
            0, self._steps, lambda start, end: [self._block(index, start, end, entering)]
        ):
            backward.commit_layer(index, block, start, end)
            if backward.run.backward_overflow is not None:
                return False
            self._pass_down(index, block, start, end, below)
            if start and self._begins is not None and len(sequences := self._begins.at(start)):
                backward.begin_sequences(index, start, sequences)
                if backward.run.backward_overflow is not None:
                    return False
            self._gone_back += end - start
            self._engine.progress("backward", self._gone_back // len(self._engine.layers), self._steps)
        return True

    def _block(self, index: int, lo: int, hi: int, entering: StepwiseAdjoint | None) -> Block:
        backward_pass, adjoints = self._backward.passes[index], self._backward.adjoints[index]
        missing = self._engine.missing(hi)
        if entering is None:
            gradient = self._loss_gradient(index, lo, hi)
            exponent = np.zeros(adjoints.exponent.shape[1:], np.int64)
            return backward_pass.run(lo, hi, adjoints, gradient, exponent, more=lo > 0, missing=missing)
        found = entering.between(lo, hi)
        gradient, exponent = found or (None, np.zeros(adjoints.exponent.shape[1:], np.int64))
        block = backward_pass.run(lo, hi, adjoints, gradient, exponent, more=lo > 0, missing=missing)
        if hi - lo > 1 and not entering.is_kept(lo, hi, _mantissa_norm(backward_pass, block)):
            raise OutOfRange
        return block

    def _loss_gradient(self, index: int, lo: int, hi: int) -> Array | None:
        """Return the gradient that the loss has at the outputs of a top direction's own steps lo+1 .. hi."""
        loss, outputs = self._engine.problem.loss, self._engine.outputs
        size = outputs.shape[2] // DIRECTIONS
        if _is_reverse(index) and not loss.final:
            if self._begins is not None:
                found = self._gradient_in_reverse[lo:hi]
                return found if found.any() else None
            first = self._steps - hi
            gradient = loss.gradient(outputs[first : self._steps - lo], first + 1)
            return None if gradient is None else gradient[::-1, :, size:]
        gradient = loss.gradient(outputs[lo:hi], lo + 1)
        if gradient is None:
            return None
        return gradient[:, :, size:] if _is_reverse(index) else gradient[:, :, :size]

    @cached_property
    def _gradient_in_reverse(self) -> Array:
        """What the loss has at the outputs of the top reverse direction, by its own steps, for different lengths."""
        loss, outputs, begins = self._engine.problem.loss, self._engine.outputs, self._begins
        gradient = loss.gradient(outputs, 1)
        assert begins is not None
        assert gradient is not None
        found = begins.in_reverse(gradient[:, :, outputs.shape[2] // DIRECTIONS :])
        missing = begins.not_yet(0, self._steps)
        return found if missing is None else np.where(missing[:, None, None], 0.0, found)

    def _pass_down(self, index: int, block: Block, lo: int, hi: int, below: list[StepwiseAdjoint]) -> None:
        """Add the adjoint of a layer's input, at its own steps lo+1 .. hi, to both directions of the layer below."""
        if not below or block.input_adjoint is None:
            return
        adjoint, exponent = block.input_adjoint, block.input_exponent
        size = adjoint.shape[2] // DIRECTIONS
        shifts: Iterable[tuple[int, Any]] = [(0, slice(None))] if self._begins is None else self._begins.sharing(hi)
        for shift, sequences in shifts:
            # Of sequences that begin after the same step all positions lie equally.
            same, opposite = slice(lo, hi), slice(self._steps + shift - hi, self._steps + shift - lo)
            for direction, rows in enumerate((slice(size), slice(size, None))):
                part = adjoint[:, :, rows, sequences]
                if direction == index % DIRECTIONS:
                    below[direction].add(same, part, exponent[:, sequences], sequences)
                else:
                    below[direction].add(opposite, part[::-1], exponent[:, sequences], sequences)


def _is_reverse(index: int) -> bool:
    return index % DIRECTIONS == 1


def _mantissa_norm(backward_pass: BackwardPass, block: Block) -> Array:
    """Return log2 of the norms of the output state's mantissas, (n, R, B)."""
    plan = backward_pass.plan
    output = plan.cell.output
    exponent: Array = block.adjoints.exponent[plan.frames.of_state[output]]
    return np.asarray(block.log2_norm[output] - exponent)
