"""The way back in blocks of steps: each as long as the range of floats allows.

`walk_adjoints` goes over the adjoints of every step, for whoever looks at the steps themselves. The values of the
forward pass are in reach meanwhile (`Layer.array`, `Layer.block_values`), as in `TrialGroup.walk_back`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import numpy as np

from gradcli.engine.backward import BackwardPass, Block
from gradcli.engine.exponents import Adjoints, OutOfRange
from gradcli.engine.group import TrialGroup


class Accepted(NamedTuple):
    """Blocks of the steps start+1 .. end, one of each layer that was gone over."""

    start: int
    end: int
    blocks: Sequence[Block]


class BlocksBack:
    """Goes back over steps in blocks, as many at once as their adjoints' range lets it.

    Args:
        group: whose steps they are. longest: the most steps of a block. first: those of the first one.
        settled: told of each block whether it counts; one that does not comes again in shorter ones.
    """

    def __init__(
        self, group: TrialGroup, longest: int, first: int, settled: Callable[[bool], None] = lambda kept: None
    ) -> None:
        self._group, self._longest, self._settled = group, longest, settled
        self._length = min(first, longest)

    def over(self, lo: int, hi: int, take: Callable[[int, int], Sequence[Block]]) -> Iterator[Accepted]:
        """Yield the blocks of the steps lo+1 .. hi, the last one first.

        Args:
            take: ``take(start, end)`` gives the blocks of the steps start+1 .. end, and may raise `OutOfRange`.
        """
        end = hi
        while end > lo:
            start = self._group.block_start(lo, end, self._length)
            try:
                with np.errstate(all="ignore"):
                    blocks = take(start, end)
            except OutOfRange:
                self._length = max(1, (end - start) // 2)
                self._settled(False)
                continue
            self._settled(True)
            yield Accepted(start, end, blocks)
            self._length = min(self._longest, *(block.longest_next for block in blocks))
            end = start


def blocks_of_stack(
    group: TrialGroup, passes: Sequence[BackwardPass], adjoints: Sequence[Adjoints], start: int, end: int
) -> list[Block]:
    """Return the blocks of the steps start+1 .. end of all layers, the lowest first; nothing is changed.

    Args:
        adjoints: of each layer at step `end`.

    Raises:
        OutOfRange: a shorter block is needed.
    """
    problem = group.problem
    first = start - start % group.segment
    lo, hi = start - first, end - first
    entering = problem.loss.gradient(group.outputs[lo:hi], start + 1)
    exponent = np.zeros((problem.trials, problem.batch_size), np.int64)
    missing = group.missing(end)
    blocks = []
    for backward, incoming in zip(reversed(passes), reversed(adjoints), strict=True):
        block = backward.run(lo, hi, incoming, entering, exponent, more=start > 0, missing=missing)
        entering, exponent = block.input_adjoint, block.input_exponent
        blocks.append(block)
    return blocks[::-1]


class Visit(NamedTuple):
    """A block of steps of all layers, on the way back.

    steps: the block is the steps first+1 .. last of the sequence.
    passes, blocks: of each layer, the lowest first. What they hold is overwritten when the walk goes on.
    """

    steps: tuple[int, int]
    passes: Sequence[BackwardPass]
    blocks: Sequence[Block]


def walk_adjoints(group: TrialGroup, *, longest: int | None = None, by_step: int | None = None) -> Iterator[Visit]:
    """Yield blocks of steps with the exact adjoints of everything in them, from the last step to the first.

    Args:
        group: the trials; adjoints are those of each sequence's own loss.
        longest: the most steps of a block, as many as the buffers have unless given.
        by_step: a layer; of the parameter gradients its own alone are there, those of each step by itself.

    Raises:
        ForwardOverflow: a state stopped being finite.
    """
    passes = group.passes(parameters=True, by_step=by_step)
    adjoints = [backward.start(None) for backward in passes]
    longest = min(longest or group.block, group.block)
    back = BlocksBack(group, longest, longest)
    seq_len = group.problem.seq_len
    for lo, hi in group.walk_back():
        for start, end, blocks in back.over(lo, hi, lambda s, e: blocks_of_stack(group, passes, adjoints, s, e)):
            adjoints[:] = [block.adjoints for block in blocks]
            yield Visit((start, end), passes, blocks)
            for of_layer in adjoints:
                group.end_sequences(start, of_layer)
            group.progress("backward", seq_len - start, seq_len)
