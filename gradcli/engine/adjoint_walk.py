"""A walk over the adjoints of every step, from the last to the first, for whoever looks at the steps themselves.

The values of a forward pass are in reach while it goes on (`Layer.array`, `Layer.block_values`), as in
`TrialGroup.walk_back`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from gradcli.engine.backward import BackwardPass, Block
from gradcli.engine.exponents import Adjoints, OutOfRange
from gradcli.engine.group import TrialGroup
from gradcli.engine.scaled import Scaled
from gradcli.engine.stack_backward import batch_gradients

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Visit:
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
    length = longest
    seq_len = group.problem.seq_len
    for first, last in group.walk_back():
        end = last
        while end > first:
            start = group.block_start(first, end, length)
            try:
                with np.errstate(all="ignore"):
                    blocks = _run(group, passes, adjoints, start, end, first)
            except OutOfRange:
                length = max(1, length // 2)
                continue
            adjoints = [block.adjoints for block in blocks]
            yield Visit((start, end), passes, blocks)
            for layer in adjoints:
                group.end_sequences(start, layer)
            length = min(longest, *(block.longest_next for block in blocks))
            end = start
            group.progress("backward", seq_len - end, seq_len)


def _run(
    group: TrialGroup, passes: Sequence[BackwardPass], adjoints: Sequence[Adjoints], start: int, end: int, first: int
) -> list[Block]:
    """Return the steps start+1 .. end of a segment that begins at `first`, a block for each layer from the bottom."""
    problem, lo, hi = group.problem, start - first, end - first
    entering = problem.loss.gradient(group.layers[-1].outputs()[lo:hi], start + 1)
    exponent = np.zeros((problem.trials, problem.batch_size), np.int64)
    missing = group.missing(end)
    blocks = []
    for backward, incoming in zip(reversed(passes), reversed(adjoints), strict=True):
        block = backward.run(lo, hi, incoming, entering, exponent, more=start > 0, missing=missing)
        entering, exponent = block.input_adjoint, block.input_exponent
        blocks.append(block)
    return blocks[::-1]


def walk_gradients(
    group: TrialGroup, layer: int, *, longest: int
) -> Iterator[tuple[tuple[int, int], dict[str, Scaled]]]:
    """Yield blocks of steps, from the last to the first, with the terms of the gradient of every parameter of a layer.

    The k-th term is what the parameter's use at step k alone gives, with the states before it held constant:
    (dL/ds_k) (d+ s_k / d theta), so that the gradient of theta is the sum of the terms over k
    (Pascanu, Mikolov and Bengio 2013, equation 4). It belongs to the batch loss. A block is the steps first+1 .. last;
    its terms are (n, R, ...), in the order of the steps, with exponents (n, R) of their own.

    Args:
        longest: the most steps of a block: n times the parameters are there at once.
    """
    for visit in walk_adjoints(group, longest=longest, by_step=layer):
        backward, (first, last) = visit.passes[layer], visit.steps
        with np.errstate(all="ignore"):
            at_nodes = backward.step_gradients(visit.blocks[layer])
            terms = batch_gradients(backward.layer, at_nodes, group.problem.divisor, steps=last - first)
        yield visit.steps, terms
