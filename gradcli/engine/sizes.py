"""How much of a problem is taken at once: trials, steps of the tape, steps of the backward pass.

Nothing here changes a result beyond rounding; it is what the machine does best with, and what bounds the memory.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

import numpy as np

from gradcli.engine.step.instructions import Span, buffers_of
from gradcli.engine.step.plan import LayerPlan
from gradcli.frozen import frozen
from gradcli.language.graph import Dependence

#: Trials run together while their weights fit into the cache of a core (1 to 2 MiB on today's machines),
_CACHE_BYTES = 5 * 2**18
#: and while a state has no more numbers than this: with more, a call's own time no longer counts, but memory does.
_NUMBERS_A_CALL = 1024
#: A tape up to this size is kept whole: to compute it again costs more than its memory's first touch.
_WHOLE_TAPE_BYTES = 2**30
#: A longer one is kept in segments of about this size, which stay near the cache.
_SEGMENT_BYTES = 32 * 2**20
_LONGEST_SEGMENT = 1024
#: Computed again, it is cut into at most so many stretches that run side by side.
_MOST_STRETCHES = 16
#: The adjoints and coefficients of a block take about so many bytes, and stay in the cache.
_BLOCK_BYTES = 3 * 2**20
_SHORTEST_BLOCK, _LONGEST_BLOCK = 8, 512
#: What is added to the recurrent products is computed for so many bytes of steps at once, and stays in the cache.
CHUNK_BYTES = 2**20
#: Weight gradients are summed by products of so many columns (steps times sequences), which are about as fast as any,
_COLUMNS = 256
#: or of fewer, that fit here.
_WINDOW_BYTES = 8 * 2**20
#: A step that keeps no more than this is computed in arrays of its own, so many at once, and copied to the tape.
_COPIED_STEP_BYTES = 2**14
_COPIED_STEPS = 128


def chunk_length(kept: int, added: int, segment: int) -> tuple[int, bool]:
    """Return how many steps the forward loop takes at once, and whether what it keeps of them is copied to the tape.

    The loop holds a view for each array and step. Small steps are computed in a few arrays of their own, again and
    again: to make and visit views of a whole tape would cost more than to copy them. Large ones go to the tape at once.

    Args:
        kept: bytes that a step leaves on the tape. added: bytes of what is added to its recurrent products.
        segment: steps on the tape.
    """
    fitting = int(np.clip(CHUNK_BYTES // max(added, 1), 1, segment))
    if kept > _COPIED_STEP_BYTES or segment <= _COPIED_STEPS:
        return fitting, False
    return min(fitting, _COPIED_STEPS), True


def window_length(rows: int, trials: int, batch_size: int, itemsize: int, block: int) -> int:
    """Return for how many steps weight gradients are summed in one product; a block is always taken whole."""
    fitting = _WINDOW_BYTES // (rows * trials * batch_size * itemsize)
    return max(block, min(fitting, -(-_COLUMNS // batch_size)))


@frozen
class Sizes:
    """What the choice depends on.

    plans: one a layer. itemsize: bytes of a number. tape_bytes: the most memory that the tape may take, about.
    tied: whether all steps share their parameters; if not, steps are taken one by one, each with its own.
    whole_sequence: whether the tape has to hold every step, as with two directions, each of which ends where the
        other begins.
    """

    plans: Sequence[LayerPlan]
    seq_len: int
    trials: int
    batch_size: int
    itemsize: int
    tape_bytes: int
    tied: bool = True
    whole_sequence: bool = False

    @cached_property
    def trials_at_once(self) -> int:
        """How many trials run together, at most all."""
        weights = sum(s.rows * plan.size(s.group.vector) for plan in self.plans for s in plan.layout.stacks)
        fitting = _CACHE_BYTES // (max(weights, 1) * self.itemsize)
        return int(np.clip(min(fitting, _NUMBERS_A_CALL // (self._widest * self.batch_size)), 1, self.trials))

    @cached_property
    def _widest(self) -> int:
        """The size of the largest state."""
        return max(max(plan.state_sizes.values()) for plan in self.plans)

    @cached_property
    def block(self) -> int:
        """How many steps the backward pass takes at once."""
        if not self.tied:
            return 1
        rows = 0
        for plan in self.plans:
            rows += sum(stack.rows for stack in plan.layout.stacks) + sum(plan.state_sizes.values())
            rows += sum(map(plan.size, plan.across)) + sum(map(plan.size, plan.linear.maps))
        step = 2 * rows * self.trials * self.batch_size * self.itemsize
        return min(int(np.clip(_BLOCK_BYTES // step, _SHORTEST_BLOCK, _LONGEST_BLOCK)), self.seq_len)

    @cached_property
    def segment(self) -> int:
        """How many steps of the tape are kept at once: all, where that pays, else a whole number of blocks."""
        if not self.tied:
            return 1
        step = self._step
        # The more stretches of a segment are computed again at once, the less it costs.
        fitting = min(_WHOLE_TAPE_BYTES // self._wanted_stretches, self.tape_bytes)
        if self.whole_sequence or self.seq_len * step <= fitting:
            return self.seq_len
        length = int(np.clip(min(_SEGMENT_BYTES, self.tape_bytes) // step, _SHORTEST_BLOCK, _LONGEST_SEGMENT))
        whole = self._wanted_stretches if self._wanted_stretches > 1 else self.block
        return min(max(length - length % whole, 1), self.seq_len)

    def stretches(self, segment: int) -> int:
        """Return into how many stretches of equal length a segment is cut where it is computed again."""
        return next(count for count in range(self._wanted_stretches, 0, -1) if segment % count == 0)

    @cached_property
    def _wanted_stretches(self) -> int:
        """As many as make the numbers of a call worth the call; one where stretches would share batch statistics."""
        if any(plan.couples_sequences for plan in self.plans):
            return 1
        fitting = _NUMBERS_A_CALL // (self._widest * self.trials * self.batch_size)
        return int(np.clip(fitting, 1, _MOST_STRETCHES))

    @cached_property
    def _step(self) -> int:
        """Bytes of numbers that one more step of a segment takes."""
        return sum(map(_rows, self.plans)) * self.trials * self.batch_size * self.itemsize


def hoisted_rows(plan: LayerPlan) -> int:
    """Return the numbers of a step and sequence known before the loop, beside what is added to products."""
    added = {lane.known for stack in plan.layout.stacks for lane in stack.lanes}
    leaves = [leaf for leaf in plan.linear.leaf_edges if leaf.dependence is Dependence.INPUT and leaf not in added]
    return sum(map(plan.size, leaves))


def _rows(plan: LayerPlan) -> int:
    """Return about how many numbers a sequence has in one step of a segment."""
    # What is hoisted exists twice while it is computed.
    return kept_rows(plan) + plan.cell.shapes.input_size + 2 * hoisted_rows(plan)


def kept_rows(plan: LayerPlan) -> int:
    """Return how many numbers of a sequence are kept of a step of a segment."""
    buffers = {*buffers_of(plan.forward), *plan.layout.states.values()}
    return sum(buffer.size for buffer in buffers if buffer.span is Span.SEGMENT)
