"""A run of some trials: forward through the stack of layers, then exact BPTT, segment by segment and block by block.

A segment is what the tape holds; where the sequence is longer, the states at segment borders are kept and everything
inside is computed again. A block is what the backward pass takes at once; see `gradcli.engine.backward`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np

from gradcli.engine.backward import BackwardPass
from gradcli.engine.directions import forward_both_ways
from gradcli.engine.exponents import Adjoints
from gradcli.engine.layer import Layer
from gradcli.engine.parameters import ParametersOfSteps
from gradcli.engine.problem import ForwardOverflow, Overflow, Problem, Progress
from gradcli.engine.recomputation import Recomputation, may_be_cut
from gradcli.engine.starts import Start

Array = np.ndarray[Any, Any]


class TrialGroup:
    """Runs the trials of one problem together; buffers and compiled loops are kept for further runs.

    Args:
        problem: what to run. parameters: its parameters, step by step.
        segment: steps a segment, chosen from the sizes unless given. block: steps a block, likewise. Where weights are
            not tied, both are one step: the parameters of another step are then loaded for it.
        progress: called after every segment of a forward pass and every block of a backward pass.
    """

    def __init__(
        self,
        problem: Problem,
        parameters: ParametersOfSteps,
        *,
        segment: int | None = None,
        block: int | None = None,
        progress: Progress | None = None,
    ) -> None:
        self.problem, self._parameters = problem, parameters
        self.progress: Progress = progress or (lambda stage, done, total: None)
        longest = problem.seq_len if problem.tied else 1
        self.block = min(block or problem.sizes.block, longest)
        # Each direction of a layer ends where the other begins, so that both need the whole sequence.
        wanted = problem.seq_len if problem.bidirectional else segment or problem.sizes.segment
        self.segment = min(wanted, longest)
        self.layers = [
            Layer(
                plan,
                values,
                trials=problem.trials,
                batch_size=problem.batch_size,
                dtype=problem.dtype,
                segment=self.segment,
            )
            for plan, values in zip(problem.plans, parameters.at(0), strict=True)
        ]
        #: What the top layer put out over the segment, (n, R, size, B); see `forward_both_ways` for two directions.
        self.outputs: Array = np.empty(0)
        # Whether the layers hold all steps of what was last run: then there is nothing to be computed again for a walk.
        self._holds_all = False
        again = self.segment < problem.seq_len and all(map(may_be_cut, problem.plans))
        stretches = problem.sizes.stretches(self.segment) if again else 1
        self._recomputation = Recomputation(self.layers, stretches) if stretches > 1 else None
        self._passes: dict[tuple[bool, str | None, bool, int | None, bool, tuple[int, ...]], list[BackwardPass]] = {}

    def load(self, problem: Problem, parameters: ParametersOfSteps) -> None:
        """Take other trials of the same problem, as many as before, or other parameters."""
        self._holds_all &= problem is self.problem and parameters is self._parameters
        self.problem, self._parameters = problem, parameters
        if self._recomputation:
            self._recomputation.load(parameters.at(0))

    # Forward.

    def losses(self) -> tuple[Array, Overflow | None]:
        """Return the loss of each sequence (R, B), and where the forward pass overflowed, if it did."""
        with np.errstate(all="ignore"):
            losses, _, overflow = self.forward(again=False)
        return losses, overflow

    def forward(
        self, *, on_segment: Callable[[int, int], None] | None = None, again: bool = True, to_the_end: bool = False
    ) -> tuple[Array, list[list[dict[str, Array]]], Overflow | None]:
        """Run forward; return the losses, what each segment can be computed again from, and where it overflowed.

        Args:
            on_segment: called after each segment. again: whether segments are to be computed again.
            to_the_end: go on where it overflowed: other trials are as good as before.
        """
        p = self.problem
        self._holds_all = False
        losses = np.zeros((p.trials, p.batch_size))
        histories = self._first_histories()
        checkpoints: list[list[dict[str, Array]]] = []
        overflow: Overflow | None = None
        for lo in range(0, p.seq_len, self.segment):
            hi = min(lo + self.segment, p.seq_len)
            last = hi == p.seq_len
            self._forward_segment(lo, hi, histories)
            overflow = overflow or self._find_overflow(lo)
            if overflow is not None and not to_the_end:
                return losses, checkpoints, overflow
            losses += p.loss.values(self.outputs, lo + 1)
            if on_segment is not None:
                on_segment(lo, hi)
            self.progress("forward", hi, p.seq_len)
            if again and not last:
                checkpoints.append(self._recomputation.checkpoints() if self._recomputation else histories)
            histories = [layer.history() for layer in self.layers]
        self._holds_all = overflow is None and self.segment >= p.seq_len
        return losses, checkpoints, overflow

    def _first_histories(self) -> list[dict[str, Array]]:
        """Return for each layer the states before step 1."""
        found = [_history(layer, start) for layer, start in zip(self.layers, self.problem.initial, strict=True)]
        begins = self.problem.begins
        return found if begins is None else [begins.begun(history) for history in found]

    def _starts_within(self, lo: int, hi: int) -> list[list[Start]]:
        """Return for each layer the sequences that begin within the segment of the steps lo+1 .. hi."""
        begins = self.problem.begins
        if begins is None:
            return [[] for _ in self.layers]
        return [
            begins.within(lo, hi, _history(layer, initial))
            for layer, initial in zip(self.layers, self.problem.initial, strict=True)
        ]

    def _forward_segment(self, lo: int, hi: int, histories: Sequence[Mapping[str, Array]]) -> None:
        x = self._input(lo, hi)
        if self.problem.bidirectional:
            for layer, parameters in zip(self.layers, self._parameters.at(lo), strict=True):
                layer.parameters = parameters
            self.outputs = forward_both_ways(
                self.layers,
                x,
                histories,
                begins=self.problem.begins,
                starts=self._starts_within(lo, hi),
                final=self.problem.loss.final,
            )
            return
        begins = self.problem.begins
        found = zip(self.layers, histories, self._parameters.at(lo), self._starts_within(lo, hi), strict=True)
        for layer, history, parameters, starts in found:
            layer.parameters = parameters
            layer.forward(x, history, starts=starts)
            x = layer.outputs() if begins is None else begins.filled(layer.outputs(), lo)
        self.outputs = self.layers[-1].outputs()

    def _input(self, lo: int, hi: int) -> Array:
        """Return the input of a segment, for which that of the one before makes room."""
        for layer in self.layers:
            layer.values = {}
        return self.problem.source.fill(lo, hi)

    def _recompute(self, lo: int, hi: int, start: Sequence[Mapping[str, Array]]) -> None:
        """Compute a segment before the last one again, from what the first pass left of it."""
        if self._recomputation and not self._recomputation.strays:
            x, begins = self._input(lo, hi), self.problem.begins
            filled = partial(begins.filled, lo=lo) if begins and begins.not_yet(lo, hi) is not None else None
            self._recomputation.forward(x, start, self._starts_within(lo, hi), filled)
            if not self._recomputation.strays:
                self.outputs = self.layers[-1].outputs()
                return
        batch_size = self.problem.batch_size
        before = [{name: past[..., :batch_size] for name, past in history.items()} for history in start]
        self._forward_segment(lo, hi, before)

    def _find_overflow(self, lo: int) -> Overflow | None:
        found = [(step, i) for i, layer in enumerate(self.layers) if (step := layer.first_nonfinite()) is not None]
        if not found:
            return None
        step, index = min(found, key=lambda place: self.problem.order_of(*place))
        layer = self.layers[index]
        bad = [~np.isfinite(a[layer.lag + step]).all(axis=(1, 2)) for a in layer.states.values()]
        return Overflow(lo + step + 1, index, np.any(bad, axis=0))

    # Walks: the values of every step once, for whoever looks at the steps themselves.

    def walk_forward(self) -> Iterator[tuple[int, int]]:
        """Yield the segments from the first to the last, as (lo, hi) for the steps lo+1 .. hi.

        While a segment is being visited, the layers' buffers hold its values (`Layer.array`, `Layer.block_values`).

        Raises:
            ForwardOverflow: a state stopped being finite.
        """
        p = self.problem
        histories = self._first_histories()
        for lo in range(0, p.seq_len, self.segment):
            hi = min(lo + self.segment, p.seq_len)
            with np.errstate(all="ignore"):
                self._forward_segment(lo, hi, histories)
                overflow = self._find_overflow(lo)
            if overflow is not None:
                raise ForwardOverflow(overflow)
            histories = [layer.history() for layer in self.layers]
            yield lo, hi

    def walk_back(self) -> Iterator[tuple[int, int]]:
        """Yield the segments from the last to the first; see `walk_forward`."""
        if self._holds_all:
            yield from self.segments_back([])
            return
        with np.errstate(all="ignore"):
            _, checkpoints, overflow = self.forward()
        if overflow is not None:
            raise ForwardOverflow(overflow)
        yield from self.segments_back(checkpoints)

    def segments_back(self, checkpoints: Sequence[Sequence[Mapping[str, Array]]]) -> Iterator[tuple[int, int]]:
        """Yield the segments from the last to the first after `forward`, which gave `checkpoints`."""
        last = self.problem.seq_len
        for lo in reversed(range(0, last, self.segment)):
            hi = min(lo + self.segment, last)
            if hi < last:
                with np.errstate(all="ignore"):
                    self._recompute(lo, hi, checkpoints[lo // self.segment])
            yield lo, hi

    # Backward.

    def block_start(self, lo: int, end: int, length: int) -> int:
        """Return where a block begins that ends at a step, of at most so many steps and within a segment from `lo` on.

        A sequence has all steps of a block or none.
        """
        begins = self.problem.begins
        return max(lo, end - length, begins.last_before(end) if begins else 0)

    def end_sequences(self, step: int, adjoints: Adjoints) -> None:
        """Let nothing go further back of the sequences that begin after a step."""
        begins = self.problem.begins
        if step and begins is not None:
            adjoints.clear(begins.at(step))

    def missing(self, end: int) -> Array | None:
        """Return the sequences that have none of the steps of a block that ends at a step; None where all have."""
        begins = self.problem.begins
        return begins.missing(end) if begins else None

    def passes(
        self,
        parameters: bool,
        clipped: str | None = None,
        plain: bool = False,
        by_step: int | None = None,
        kept: bool = False,
    ) -> list[BackwardPass]:
        """Return the backward passes of the layers, kept from run to run.

        Args:
            clipped: the operation that clips the adjoint of every state, see `StepClip`; None where none does.
            plain: see `Engine.run`.
            by_step: the layer whose parameter gradients alone are wanted, for each step by itself.
            kept: whether the adjoints of products at all steps of a block are wanted as well.
        """
        p = self.problem
        at_last_only = len(p.loss.steps) == 1 and p.loss.last_step == p.seq_len
        # A reverse direction meets position T at its first step.
        at_end = (p.top, *((p.top + 1,) if p.loss.final else ())) if at_last_only else ()
        # The loss may be another one than in the run before.
        key = (parameters, clipped, plain, by_step, kept, at_end)
        if key not in self._passes:
            self._passes[key] = [
                BackwardPass(
                    layer,
                    per_step=i not in at_end,
                    block=self.block,
                    clipped=clipped,
                    parameters=parameters if by_step is None else i == by_step,
                    to_input=i >= (2 if p.bidirectional else 1),
                    plain=plain,
                    divisor=p.divisor,
                    by_step=i == by_step,
                    kept=kept,
                )
                for i, layer in enumerate(self.layers)
            ]
        return self._passes[key]


def _history(layer: Layer, initial: Mapping[str, Array]) -> dict[str, Array]:
    """Return the values before the first step: the initial state, and zeros for the steps before it."""
    history = {name: np.zeros((layer.lag, *a.shape[1:]), layer.dtype) for name, a in layer.states.items()}
    for name, value in initial.items():
        history[name][-1] = value
    return history
