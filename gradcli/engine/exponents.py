"""The powers of two that adjoints are carried at, and how far a block of the backward pass may go with them.

Each frame of a plan, trial and sequence has a power of its own (see `gradcli.engine.plan`). Scaling by it is exact.
Where the sequences of a batch pass adjoints on to each other, those of a trial share one.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import reduce
from typing import Any

import numpy as np

from gradcli.engine.scaled import NOTHING, SAFE_SPREAD, exponent_of, scale_by
from gradcli.engine.step.plan import LayerPlan

Array = np.ndarray[Any, Any]

#: How far from 1 the norm of the mantissas may wander within a block, as a power of two.
SAFE_EXPONENT = {8: 400.0, 4: 50.0}
#: And how far it may be at the start of one.
_NEAR_EXPONENT = {8: 100.0, 4: 10.0}
#: So many safe ranges below the largest, a mantissa may not be an ordinary float any more.
_LOST = 2.2
#: The share of the safe range that a block is meant to run through: some rates change.
_WANTED_SPAN = 0.7


class OutOfRange(Exception):
    """The adjoints grew or shrank too far within one block; a shorter block is needed."""


@dataclass
class Adjoints:
    """The adjoints at a border: what later steps pass to the last `lag` steps before it.

    carry: for each state (lag, R, size, B) mantissas. exponent: for each frame (R, B).
    near_one: whether the mantissas one step later are so near 1, or zero, that the next block can begin with the same
        exponents.
    log2_norm: for each frame with states log2 of the norm of their adjoints one step later, (R, B); none at the start.
    nothing: whether nothing has entered yet, so that all is zero.
    """

    carry: dict[str, Array]
    exponent: Array
    near_one: bool = False
    log2_norm: list[Array] = field(default_factory=list)
    nothing: bool = False

    def clear(self, sequences: Array) -> None:
        """Make the adjoints of some sequences zero."""
        for carry in self.carry.values():
            carry[..., sequences] = 0.0


class Exponents:
    """Chooses the powers of two of a layer's frames for each block, and watches the range of the mantissas.

    Args:
        plan: the plan of the layer. itemsize: bytes of a number.
    """

    def __init__(self, plan: LayerPlan, itemsize: int) -> None:
        self._plan = plan
        self._safe, self._near = SAFE_EXPONENT[itemsize], _NEAR_EXPONENT[itemsize]
        self._far = self._safe / 2
        self._with_states = set(plan.frames.of_state.values())
        self._states_of_frames = [
            (frame, [name for name, of in plan.frames.of_state.items() if of == frame])
            for frame in sorted(set(plan.frames.of_state.values()))
        ]

    def choose(
        self,
        n: int,
        adjoints: Adjoints,
        entering: Array | None,
        entering_exponent: Array,
        lifted: Array | None = None,
    ) -> Array:
        """Return for each frame the power of two (R, B) at which the block's adjoints start near 1.

        What a frame gets from others may make that of its own small beside it, and then it has theirs; but it may also
        get nothing but zeros. So one that is far smaller keeps its own, until `to_be_lifted` tells otherwise.

        Args:
            n: the steps of the block. adjoints: those at its last step.
            entering: the gradient that enters at the output state, (k, R, size, B) mantissas, or None.
            entering_exponent: its exponent, (R, B).
            lifted: which frames take those of others in any case, (frames, R, B).

        Raises:
            OutOfRange: what enters is so large that what is there would be lost beside it, at steps where it is all.
        """
        # One step may lead anywhere: a block of one, which nobody can shorten, begins with what is there.
        if n > 1 and adjoints.near_one and entering is None and lifted is None:
            return adjoints.exponent
        plan = self._plan
        carried: list[tuple[int, Array]] = []
        chosen = np.full_like(adjoints.exponent, NOTHING)
        for frame in plan.frames.in_flow_order:
            for name, of in plan.frames.of_state.items():
                if of == frame:
                    if not adjoints.nothing:
                        own = _exponent_with(adjoints.carry[name], adjoints.exponent[frame])
                        carried.append((frame, own))
                        chosen[frame] = np.maximum(chosen[frame], own)
                    if name == plan.cell.output and entering is not None:
                        chosen[frame] = np.maximum(chosen[frame], _exponent_with(entering, entering_exponent))
            mine = chosen[frame].copy()
            for feeder in plan.frames.feeds[frame]:
                chosen[frame] = np.maximum(chosen[frame], chosen[feeder])
            if frame in self._with_states and plan.frames.feeds[frame]:
                alone = (mine > NOTHING) & (chosen[frame] - mine > self._far)
                if lifted is not None:
                    alone &= ~lifted[frame]
                chosen[frame] = np.where(alone, mine, chosen[frame])
            if frame in plan.frames.coupled:
                chosen[frame] = chosen[frame].max(axis=-1, keepdims=True)
        if n > 1 and entering is not None:
            for frame, own in carried:
                if ((own > NOTHING) & (chosen[frame] - own > _LOST * self._safe)).any():
                    raise OutOfRange
        return chosen

    def goes_up(self, exponent: Array) -> bool:
        """Tell whether a frame passes adjoints on to one with a smaller power of two, where they have to be zeros."""
        return any(
            bool((exponent[feeder] > exponent[frame]).any())
            for frame, feeders in self._plan.frames.feeds.items()
            for feeder in feeders
        )

    def to_be_lifted(self, norms: dict[str, Array], exponent: Array) -> Array | None:
        """Return which frames got more than zeros from one with a larger power, (frames, R, B); None where none did.

        Args:
            norms: as for `check`. exponent: the powers of the block.
        """
        found = np.zeros(exponent.shape, dtype=bool)
        for frame, members in self._states_of_frames:
            smaller = np.zeros(exponent.shape[1:], dtype=bool)
            for feeder in self._plan.frames.feeds[frame]:
                smaller |= exponent[feeder] > exponent[frame]
            if smaller.any():
                largest = reduce(np.maximum, [norms[name].max(axis=0) for name in members])
                found[frame] = smaller & ~(largest < self._safe)
        return found if found.any() else None

    def check(self, norms: dict[str, Array], n: int) -> list[Array]:
        """Refuse a block whose mantissas left the safe range, unless it is as short as can be.

        Args:
            norms: log2 of the norm of each state's mantissas, (n, R, B).

        Returns:
            the norms of the states of each frame together.

        Raises:
            OutOfRange: it is to be taken in shorter blocks.
        """
        joint = [reduce(np.maximum, [norms[name] for name in members]) for _, members in self._states_of_frames]
        if n > 1 and not all(_within(norm, self._safe) for norm in joint):
            raise OutOfRange
        return joint

    def ending(self, joint: list[Array], exponent: Array) -> tuple[bool, list[Array]]:
        """Return whether the mantissas end near 1, and for each frame log2 of the norms at the block's first step."""
        return (
            all(_within(norm[0], self._near) for norm in joint),
            [norm[0] + exponent[frame] for norm, (frame, _) in zip(joint, self._states_of_frames, strict=True)],
        )

    def longest_next(self, n: int, joint: list[Array], before: list[Array], after: list[Array]) -> int:
        """Return how many steps the next block may have, if the norms go on as they did over this one of n steps."""
        span = max(_span(norm) for norm in joint)
        if before:
            span = max(span, *(_largest(np.abs(b - a)) for b, a in zip(before, after, strict=True)))
        wanted = _WANTED_SPAN * self._safe
        return max(1, int(min(2 * n, wanted * n / span if span else 2 * n)))


class PlainExponents(Exponents):
    """One power of two for everything: adjoints then are plain floats, which under- and overflow as a framework's do.

    Where the batch loss is a mean over B sequences, a framework's adjoints are smaller by as much: a mantissa is the
    adjoint over 2**round(log2 divisor), with the divisor B there, and 1 where the batch loss is a sum.
    """

    def __init__(self, plan: LayerPlan, itemsize: int, divisor: int) -> None:
        super().__init__(plan, itemsize)
        self._power = round(math.log2(divisor))

    def choose(
        self,
        n: int,
        adjoints: Adjoints,
        entering: Array | None,
        entering_exponent: Array,
        lifted: Array | None = None,
    ) -> Array:
        return np.full_like(adjoints.exponent, self._power)

    def check(self, norms: dict[str, Array], n: int) -> list[Array]:
        """Refuse a block in which a number is not finite, unless it is as short as can be, and tells the step.

        Raises:
            OutOfRange: it is to be taken in shorter blocks.
        """
        if n > 1 and any(np.isnan(norm).any() for norm in norms.values()):
            raise OutOfRange
        return list(norms.values())

    def ending(self, joint: list[Array], exponent: Array) -> tuple[bool, list[Array]]:
        return False, []

    def longest_next(self, n: int, joint: list[Array], before: list[Array], after: list[Array]) -> int:
        return 2 * n


def _exponent_with(mantissa: Array, exponent: Array) -> Array:
    """Return the exponent (R, B) that brings mantissa * 2**exponent near 1; `NOTHING` where all is zero."""
    largest = np.maximum.reduce(np.abs(mantissa), axis=(0, 2), initial=0.0)
    return np.where(largest == 0, NOTHING, exponent + exponent_of(largest))


def _within(log2: Array, bound: float) -> bool:
    """Tell whether all log2 lie within +-bound or belong to exact zeros; never where one is not a number."""
    if -bound < log2.min() and log2.max() < bound:
        return True
    # A fall from within the range to nothing in one step is no underflow.
    return bool(((np.abs(log2) < bound) | (log2 == -np.inf)).all())


def _span(log2: Array) -> float:
    """Return the largest range that log2 runs through along its first axis; zeros aside."""
    return _largest(np.maximum.reduce(log2, axis=0) - np.minimum.reduce(log2, axis=0))


def _largest(values: Array) -> float:
    """Return the largest of the finite values; 0 where there is none."""
    largest = float(values.max())
    return largest if math.isfinite(largest) else float(np.max(values, where=np.isfinite(values), initial=0.0))


def near_each_other(exponent: Array, itemsize: int) -> list[list[int]]:
    """Return the frames, all together unless some of them are too small beside others to be added to them.

    Args:
        exponent: of each frame, (frames, R, B).
    """
    frames = list(range(len(exponent)))
    if len(frames) > 1:
        top = exponent.max(axis=0)
        lowest = np.where(exponent > NOTHING, exponent, top).min(axis=0)
        if (top - lowest > SAFE_SPREAD[itemsize]).any():
            return [[frame] for frame in frames]
    return [frames]


def from_the_top(exponent: Array, itemsize: int) -> Iterator[Array]:
    """Yield exponents of the sequences, (R, B), the largest ones first, and `NOTHING` for those not among them."""
    left = exponent
    while True:
        now = left >= left.max(axis=1, keepdims=True) - SAFE_SPREAD[itemsize]
        yield np.where(now, left, NOTHING)
        left = np.where(now, NOTHING, left)
        if (left == NOTHING).all():
            return


def summed(parts: list[tuple[Array, Array]], n: int) -> tuple[Array, Array]:
    """Return the sum of mantissas (n, R, size, B) with exponents (R, B), at one exponent of all.

    Raises:
        OutOfRange: a part that is far below the others is all there is at some of several steps.
    """
    if len(parts) == 1:
        return parts[0]
    some = [(mantissa != 0).any(axis=2) for mantissa, _ in parts]
    exponents = [np.where(at.any(axis=0), exponent, NOTHING) for at, (_, exponent) in zip(some, parts, strict=True)]
    top = np.max(exponents, axis=0)
    total = np.sum([scale_by(mantissa, (exponent - top)[:, None, :]) for mantissa, exponent in parts], axis=0)
    if n > 1 and (np.any(some, axis=0) & ~(total != 0).any(axis=2)).any():
        raise OutOfRange
    return total, top
