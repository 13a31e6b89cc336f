"""The powers of two that adjoints are carried at, and how far a block of the backward pass may go with them.

Each frame of a plan, trial and sequence has a power of its own (see `gradcli.engine.step.frames`). Scaling by it is
exact. Where the sequences of a batch pass adjoints on to each other, those of a trial share one.
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

#: How far below 1 the norm of the mantissas may wander within a block, as a power of two, ...
SAFE_EXPONENT = {8: 400.0, 4: 50.0}
#: ... and how far above it.
_CEILING = {8: 400.0, 4: 80.0}
#: Where a block starts, unless norms are known to rise. Gradients fade more often than they grow, and float32 has so
#: little room that a way down from 1 is short.
_LEAD = {8: 0, 4: 60}
#: How far from its start the norm may be where the next block goes on with the same powers of two.
_NEAR_EXPONENT = {8: 100.0, 4: 10.0}
#: Norms rise where they do by more than this share of what is left above the start.
_RISING = 0.2
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
    rising: whether the norms rose on the way here, so that the next block is not to start far above 1.
    settled: whether the mantissas one step later are zero, or so near the start of the next block that it can begin
        with the same exponents.
    log2_norm: for each frame with states log2 of the norm of their adjoints one step later, (R, B); none at the start.
    nothing: whether nothing has entered yet, so that all is zero.
    """

    carry: dict[str, Array]
    exponent: Array
    rising: bool = False
    settled: bool = False
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
        self._safe, self._ceiling = SAFE_EXPONENT[itemsize], _CEILING[itemsize]
        self._lead, self._near = _LEAD[itemsize], _NEAR_EXPONENT[itemsize]
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
        """Return for each frame the power of two (R, B) at which the adjoints of a block have room to go.

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
        if n > 1 and adjoints.settled and entering is None and lifted is None:
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
        if n > 1:
            np.subtract(chosen, self._start(adjoints.rising), out=chosen, where=chosen > NOTHING)
        return chosen

    def _start(self, rising: bool) -> int:
        """Return the power of two that the mantissas of a block start near."""
        return 0 if rising else self._lead

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
        if not self.goes_up(exponent):
            return None
        found = np.zeros(exponent.shape, dtype=bool)
        for frame, members in self._states_of_frames:
            smaller = np.zeros(exponent.shape[1:], dtype=bool)
            for feeder in self._plan.frames.feeds[frame]:
                smaller |= exponent[feeder] > exponent[frame]
            if smaller.any():
                largest = reduce(np.maximum, [norms[name].max(axis=0) for name in members])
                found[frame] = smaller & ~(largest < self._ceiling)
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
        if n > 1 and not all(_within(norm, -self._safe, self._ceiling) for norm in joint):
            raise OutOfRange
        return joint

    def ending(self, joint: list[Array], exponent: Array, carry: dict[str, Array]) -> Adjoints:
        """Return the adjoints that a block ends with.

        Args:
            joint: log2 of the norms of each frame's mantissas, (n, R, B). exponent: the powers of the block.
            carry: what it passes on.
        """
        limit = _RISING * (self._ceiling - self._lead)
        rising = any(_largest(norm[0] - norm[-1]) > limit for norm in joint)
        start = self._start(rising)
        settled = all(_within(norm[0], start - self._near, start + self._near) for norm in joint)
        norms = [norm[0] + exponent[frame] for norm, (frame, _) in zip(joint, self._states_of_frames, strict=True)]
        return Adjoints(carry, exponent, rising, settled, norms)

    def longest_next(self, n: int, joint: list[Array], before: Adjoints, after: Adjoints) -> int:
        """Return how many steps the next block may have, if the norms go on as they did over this one of n steps."""
        span = max(map(_span, joint))
        for b, a in zip(before.log2_norm, after.log2_norm, strict=False):  # there are none before the first block
            span = max(span, _largest(np.abs(b - a)))
        room = self._ceiling if after.rising else self._safe + self._lead
        return max(1, int(min(2 * n, _WANTED_SPAN * room * n / span if span else 2 * n)))


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

    def ending(self, joint: list[Array], exponent: Array, carry: dict[str, Array]) -> Adjoints:
        return Adjoints(carry, exponent)

    def longest_next(self, n: int, joint: list[Array], before: Adjoints, after: Adjoints) -> int:
        return 2 * n


def _exponent_with(mantissa: Array, exponent: Array) -> Array:
    """Return the exponent (R, B) that brings mantissa * 2**exponent near 1; `NOTHING` where all is zero."""
    largest = np.maximum.reduce(np.abs(mantissa), axis=(0, 2), initial=0.0)
    return np.where(largest == 0, NOTHING, exponent + exponent_of(largest))


def _within(log2: Array, low: float, high: float) -> bool:
    """Tell whether all log2 lie between bounds or belong to exact zeros; never where one is not a number."""
    if low < log2.min() and log2.max() < high:
        return True
    # A fall from within the range to nothing in one step is no underflow.
    return bool((((low < log2) & (log2 < high)) | (log2 == -np.inf)).all())


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
