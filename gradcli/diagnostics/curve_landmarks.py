"""What can be read off a gradient curve without fitting anything: horizons, peak, zeros, and with them its kind."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

from gradcli.frozen import frozen
from gradcli.spec.verdict_kinds import VerdictKind

Floats = npt.NDArray[np.float64]

LOG10_FLOAT32_EPSILON = math.log10(2.0**-23)
HUMP = math.log10(2.0)
"""A curve has a hump where it rises to at least twice its reference ..."""
COME_BACK = 1.0
"""... and, to have come back, it ends at least a factor 10 below its peak (or below the vanishing threshold)."""
TURN_SHARE = 0.2
MIN_TURN = math.log10(1.3)
"""A curve has turned when it ends this far, and TURN_SHARE of its whole rise (in log10), below its peak."""
ROUNDING = 1e-9
"""Ratios (in log10) closer than this count as equal: 0.1**3 is at the threshold 1e-3, not below it."""


LONGEST_PERIOD = 8
"""Alternations are looked for up to this many steps, ..."""
PERIODS_SEEN = 3
"""... over at least so many periods, ..."""
LAST_STEPS = 64
"""... in this last part of a curve; with dips of at least a factor `HUMP`, as mere scatter rarely has at every one."""


@frozen
class Landmarks:
    """A curve relative to its reference, and the distances at which something happens to it.

    log10_ratio: log10 of r_d = norm at d / norm at `reference`, shape (T+1,); -inf is an exact zero.
    start: the first distance with a gradient; 0 unless the loss does not reach the last step.
    reference: the next distance with a gradient: 1, where the gradient is once in the recurrence. What comes before is
    the read-out's doing as well, and counts for nothing below. `start` where there is no other.
    period: after how many steps the curve's dips come again near its end; 1 where it does not alternate.
    peak, end: log10 of the largest ratio, and of the ratio at T. closing: the largest ratio of the last period: the
    ratio at T where the curve does not alternate.
    zero_from: first distance from which the curve is exactly zero to the end.
    horizon_threshold, horizon_float32: last distance at which the ratio is still above the vanishing threshold, or
    above float32's epsilon; None where the curve ends above it.
    exploding_from: first distance at which the ratio reaches the exploding threshold; None where it never does.
    halved_at: first distance at which the ratio is at most 1/2; None where it never is.
    """

    log10_ratio: Floats
    vanishing: float
    exploding: float
    start: int
    reference: int
    last: int
    period: int
    end: float
    closing: float
    peak: float
    peak_distance: int
    zero_from: int | None
    horizon_threshold: int | None
    horizon_float32: int | None
    exploding_from: int | None
    halved_at: int | None

    @property
    def first_step(self) -> float | None:
        """Return log10 of the norm at `reference` over that at `start`; None where there is but one."""
        return None if self.reference == self.start else -float(self.log10_ratio[self.start])

    @property
    def ends_below_threshold(self) -> bool:
        """Tell whether the curve ends below the vanishing threshold (and so has a horizon)."""
        return self.horizon_threshold is not None

    @property
    def ends_above_exploding(self) -> bool:
        """Tell whether the curve ends at or above the exploding threshold."""
        return self.closing >= math.log10(self.exploding) - ROUNDING

    @property
    def fall(self) -> float:
        """Return how far (log10) the end lies below the peak."""
        return self.peak - self.closing

    @property
    def has_hump(self) -> bool:
        """Tell whether the curve rises well above its reference."""
        return self.peak >= HUMP

    @property
    def has_turned(self) -> bool:
        """Tell whether the curve is past a hump and falling, by more than scatter would explain."""
        return self.has_hump and self.fall >= max(MIN_TURN, TURN_SHARE * self.peak)

    @property
    def last_nonzero(self) -> int:
        """Return the last distance before the zeros that reach the end."""
        return self.last if self.zero_from is None else self.zero_from - 1


def reference_distance(log10_norm: Floats) -> int | None:
    """Return the distance that a curve (T+1,) is relative to: the second one with a gradient, or the only one.

    None where every norm is exactly zero.

    >>> reference_distance(np.array([0.0, -1.0, -2.0])), reference_distance(np.array([-np.inf, 0.0]))
    (1, 1)
    """
    start = first_where(log10_norm > -np.inf)
    if start is None:
        return None
    following = first_where(log10_norm[start + 1 :] > -np.inf)
    return start if following is None else start + 1 + following


def find_landmarks(log10_norm: Floats, *, vanishing: float, exploding: float) -> Landmarks | None:
    """Find the landmarks of a curve of log10 norms (shape (T+1,)); None where every norm is exactly zero."""
    nonzero = log10_norm > -np.inf
    start, reference = first_where(nonzero), reference_distance(log10_norm)
    last_nonzero, last = last_where(nonzero), log10_norm.size - 1
    if start is None or reference is None or last_nonzero is None:
        return None
    log10_ratio = log10_norm - log10_norm[reference]
    inside = log10_ratio[reference:]
    period = _period(inside[-LAST_STEPS:])
    peak = float(inside.max())
    return Landmarks(
        log10_ratio=log10_ratio,
        vanishing=vanishing,
        exploding=exploding,
        start=start,
        reference=reference,
        last=last,
        period=period,
        end=float(inside[-1]),
        closing=float(inside[-period:].max()),
        peak=peak,
        peak_distance=reference + int(np.argmax(inside >= peak - ROUNDING)),
        zero_from=last_nonzero + 1 if last - last_nonzero >= period else None,
        horizon_threshold=_horizon(log10_ratio, reference, math.log10(vanishing), period),
        horizon_float32=_horizon(log10_ratio, reference, LOG10_FLOAT32_EPSILON, period),
        exploding_from=_from(reference, inside >= math.log10(exploding) - ROUNDING),
        halved_at=_from(reference, inside <= -HUMP + ROUNDING),
    )


def _from(first: int, mask: npt.NDArray[np.bool_]) -> int | None:
    """Return the first distance at which `mask`, which begins at the distance `first`, holds."""
    index = first_where(mask)
    return None if index is None else first + index


def _horizon(log10_ratio: Floats, reference: int, log10_threshold: float, period: int) -> int | None:
    """Return the last distance that is not below the threshold; None where that lies in the last period.

    0 where nothing but zeros follows the first distance with a gradient.
    """
    last_above = last_where(log10_ratio >= log10_threshold - ROUNDING)
    assert last_above is not None  # the reference itself
    return last_above if log10_ratio.size - 1 - max(last_above, reference) >= period else None


def _period(log10_ratio: Floats) -> int:
    """Return after how many steps the dips of an alternating curve come again, at most `LONGEST_PERIOD`; else 1.

    A curve that alternates would end above or below a threshold by the parity of T alone.
    """
    if log10_ratio.size <= 2 * PERIODS_SEEN:
        return 1
    finite = log10_ratio[np.isfinite(log10_ratio)]
    if not finite.size:
        return 1
    values = np.maximum(log10_ratio, finite.min() - 1.0)
    inner = values[1:-1]
    tops = np.flatnonzero((inner > values[:-2]) & (inner >= values[2:])) + 1
    if tops.size < PERIODS_SEEN:
        return 1
    gaps = np.diff(tops)
    shortest, longest = int(gaps.min()), int(gaps.max())
    if longest > LONGEST_PERIOD or longest - shortest > (shortest > 2) or values.size - tops[-1] > longest + 1:
        return 1
    dips = np.minimum.reduceat(values, tops)[:-1]
    lower = np.minimum(values[tops[:-1]], values[tops[1:]])
    return longest if bool(np.all(lower - dips >= HUMP)) else 1


def first_where(mask: npt.NDArray[np.bool_]) -> int | None:
    """Return the first index at which `mask` holds; None where it nowhere does.

    Unlike the list of all such indices, it takes no memory: curves may have millions of distances.
    """
    index = int(mask.argmax()) if mask.size else 0
    return index if mask.size and mask[index] else None


def last_where(mask: npt.NDArray[np.bool_]) -> int | None:
    """Return the last index at which `mask` holds; None where it nowhere does."""
    from_end = first_where(mask[::-1])
    return None if from_end is None else mask.size - 1 - from_end


def kind_of(curve: Landmarks) -> VerdictKind:
    """Name what the curve does as far as it was measured; nothing is extrapolated (see `kinds_from`)."""
    if curve.zero_from is not None:
        return "dead"
    below = curve.ends_below_threshold
    return KINDS[int(kinds_from(curve.closing, curve.peak, below, exploding=curve.exploding))]


KINDS: tuple[VerdictKind, ...] = ("stable", "vanishing", "transient", "exploding")


def kinds_from(closing: Any, peak: Any, below: Any, *, exploding: float) -> Any:
    """Return the places in `KINDS` of curves that are nowhere exactly zero to the end.

    exploding: reaches the exploding threshold and has not come back. transient: reaches twice its reference (or the
    exploding threshold) and has come back. vanishing: ends below the vanishing threshold. stable: none of these.

    Args:
        closing, peak: log10 of the last and the largest ratio of each curve. below: whether it ends below the vanishing
            threshold. exploding: the threshold on the ratio.
    """
    limit = math.log10(exploding) - ROUNDING
    came_back = below | (peak - closing >= COME_BACK)
    exploded = peak >= limit
    return np.select(
        [exploded & ((closing >= limit) | ~np.asarray(came_back)), (exploded | (peak >= HUMP)) & came_back, below],
        [3, 2, 1],
        0,
    )
