"""The backward pass of a stack of layers: block by block, and what the blocks find, put together."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from typing import Any

import numpy as np

from gradcli.engine import executor
from gradcli.engine.backward import Block
from gradcli.engine.blocks import BlocksBack, Visit, blocks_of_stack
from gradcli.engine.exponents import Adjoints
from gradcli.engine.group import TrialGroup
from gradcli.engine.loss import ReadoutLoss
from gradcli.engine.parameter_gradients import StepGradients, batch_gradients
from gradcli.engine.problem import READOUT, Overflow, Run
from gradcli.engine.recorder import Recorder
from gradcli.engine.scaled import Scaled
from gradcli.engine.step_clip import StepClip
from gradcli.language.graph import Node

Array = np.ndarray[Any, Any]

#: The backward pass begins with a block of at most so many steps, whatever the rate.
_FIRST_BLOCK = 128


class Backward:
    """The backward pass of all layers: blocks from the last step to the first, layers from the top to the bottom.

    Of two directions `gradcli.engine.bidirectional.BothWays` takes one after the other.
    """

    def __init__(
        self,
        engine: TrialGroup,
        run: Run,
        recorder: Recorder | None,
        step_clip: StepClip | None,
        parameters: bool,
        plain: bool = False,
        visit: Callable[[Visit], None] | None = None,
    ) -> None:
        self._visit = visit
        self.engine, self.run, self.recorder = engine, run, recorder
        clipped = step_clip.operation if step_clip else None
        self.passes = engine.passes(parameters, clipped=clipped, plain=plain, kept=visit is not None)
        self.adjoints: list[Adjoints] = [backward.start(step_clip) for backward in self.passes]
        self.gradients: list[dict[Node, Scaled]] = [{} for _ in engine.layers]
        self.of_steps = StepGradients(engine.problem.seq_len)
        self.readout: dict[str, Array] = {}
        self.parameters = parameters
        self.step_clip = step_clip
        self._back = self.blocks_back()

    def blocks_back(self) -> BlocksBack:
        """Return what goes back in blocks, from the last step on."""
        settled = (lambda kept: None) if self.step_clip is None else self.step_clip.settle
        return BlocksBack(self.engine, self.engine.block, _FIRST_BLOCK, settled)

    def segment(self, lo: int, hi: int) -> bool:
        """Go back over one segment; return whether all adjoints were finite."""
        take = partial(blocks_of_stack, self.engine, self.passes, self.adjoints)
        seq_len = self.engine.problem.seq_len
        for start, end, blocks in self._back.over(lo, hi, take):
            if not self._commit(blocks, start, end):
                return False
            if self._visit is not None:
                self._visit(Visit((start, end), self.passes, blocks))
            self.engine.progress("backward", seq_len - start, seq_len)
        return True

    def settle(self, kept: bool) -> None:
        """Tell the step clip whether what it clipped since the last call counts."""
        if self.step_clip is not None:
            self.step_clip.settle(kept)

    def _commit(self, blocks: Sequence[Block], start: int, end: int) -> bool:
        for index in reversed(range(len(blocks))):
            self.commit_layer(index, blocks[index], start, end)
        if self.run.backward_overflow is not None:
            return False
        if self.parameters and not self.engine.problem.tied:
            self._keep_step(start)
        self.add_readout(start, end)
        begins = self.engine.problem.begins
        if start and begins is not None and len(sequences := begins.at(start)):
            for index in range(len(self.passes)):
                self.begin_sequences(index, start, sequences)
        return self.run.backward_overflow is None

    def commit_layer(self, index: int, block: Block, start: int, end: int) -> None:
        """Take over what a block of a layer's steps start+1 .. end found; see `Run.backward_overflow` after it."""
        run, layer = self.run, self.engine.problem.names[index]
        self.adjoints[index] = block.adjoints
        missing = self.engine.missing(end)
        there: Any = slice(None) if missing is None else np.delete(np.arange(block.input_exponent.shape[1]), missing)
        for state, norm in block.log2_norm.items():
            run.log2_norm[f"{layer}.{state}"][start + 1 : end + 1, :, there] = norm[..., there]
            # Longer blocks were found to be finite.
            if end - start == 1 and np.isnan(norm).any():
                step = start + 1 + int(np.flatnonzero(np.isnan(norm).any(axis=(1, 2)))[-1])
                run.backward_overflow = Overflow(step, index, np.asarray(np.isnan(norm).any(axis=(0, 2))))
        self.passes[index].collect(block)
        self._add(index, block.gradients.items())
        if self.recorder:
            for state, (mantissa, exponent) in block.totals.items():
                kept = mantissa[..., there], exponent[..., there], there
                self.recorder.keep_adjoints(f"{layer}.{state}", start + 1, end + 1, *kept)

    def add_readout(self, start: int, end: int) -> None:
        """Add the gradient that the readout gets at the positions start+1 .. end, where there is one."""
        loss = self.engine.problem.loss
        if self.parameters and isinstance(loss, ReadoutLoss):
            segment_start = start - (start % self.engine.segment)
            outputs = self.engine.outputs[start - segment_start : end - segment_start]
            for name, part in loss.readout_gradient(outputs, start + 1).items():
                self.readout[name] = self.readout[name] + part if name in self.readout else part

    def _add(self, index: int, gradients: Iterable[tuple[Node, Scaled]]) -> None:
        sums = self.gradients[index]
        for node, gradient in gradients:
            sums[node] = sums[node].add(gradient) if node in sums else gradient

    def _keep_step(self, step: int) -> None:
        """Put away the gradients of the weights that this step has for itself, and begin the sums anew."""
        for index, backward in enumerate(self.passes):
            for name, gradient in self._parameter_gradients(index):
                self.of_steps.keep(name, step, gradient)
            self.gradients[index].clear()
            backward.clear_weights()

    def _parameter_gradients(self, index: int) -> Iterator[tuple[str, Scaled]]:
        """Yield what a layer's sums make of each of its parameters, as gradients of the batch loss."""
        self._add(index, self.passes[index].weight_gradients())
        divisor = self.engine.problem.divisor
        for name, gradient in batch_gradients(self.passes[index].layer, self.gradients[index], divisor).items():
            yield f"{self.engine.problem.names[index]}.{name}", gradient

    def begin_sequences(self, index: int, step: int, sequences: Array) -> None:
        """Take what has reached the initial states of sequences that begin after a step, as the last of a layer."""
        self._take_initial(index, step, sequences)
        self.engine.end_sequences(step, self.adjoints[index])

    def _take_initial(self, index: int, step: int, sequences: Any) -> None:
        """Take the adjoints of the initial states that a layer has of sequences that begin after a step."""
        run, name, adjoints = self.run, self.engine.problem.names[index], self.adjoints[index]
        plan = self.passes[index].plan
        for state in plan.cell.states:
            exponent = adjoints.exponent[plan.frames.of_state[state]][:, sequences]
            initial = adjoints.carry[state][-1][..., sequences]
            if self.step_clip is not None:
                self.step_clip(initial, exponent[:, None, :])
            norm = executor.log2_norms(initial[None])[0] + exponent
            run.log2_norm[f"{name}.{state}"][step][:, sequences] = norm
            if np.isnan(norm).any():
                run.backward_overflow = Overflow(step, index, np.asarray(np.isnan(norm).any(axis=1)))
            if self.recorder:
                kept = initial[None], exponent, sequences
                self.recorder.keep_adjoints(f"{name}.{state}", step, step + 1, *kept)

    def finish(self) -> None:
        """Take the adjoints of the initial states, and turn the sums into gradients of the batch loss."""
        p, run = self.engine.problem, self.run
        for index in range(len(self.passes)):
            self._take_initial(index, 0, slice(None) if p.begins is None else p.begins.at(0))
        if self.parameters and p.tied:
            for index in range(len(self.passes)):
                run.gradients.update(self._parameter_gradients(index))
        if self.parameters and not p.tied:
            run.gradients |= self.of_steps.joined()
        self.settle(kept=True)
        for name, value in self.readout.items():
            scaled = Scaled(np.asarray(value / p.divisor, np.float64), np.zeros(p.trials, np.int64))
            run.gradients[f"{READOUT}.{name}"] = scaled.normalised()
