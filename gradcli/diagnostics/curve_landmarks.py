"""What can be read off a gradient curve without fitting anything: horizons, peak, zeros, and with them its kind."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from gradcli.diagnostics.verdict_kinds import VerdictKind

Floats = npt.NDArray[np.float64]

LOG10_FLOAT32_EPSILON = math.log10(2.0**-23)
HUMP = math.log10(2.0)
"""A curve has a hump where it rises to at least twice its start ..."""
COME_BACK = 1.0
"""... and, to have come back, it ends at least a factor 10 below its peak (or below the vanishing threshold)."""
TURN_SHARE = 0.2
MIN_TURN = math.log10(1.3)
"""A curve has turned when it ends this far, and TURN_SHARE of its whole rise (in log10), below its peak."""
ROUNDING = 1e-9
"""Ratios (in log10) closer than this count as equal: 0.1**3 is at the threshold 1e-3, not below it."""


@dataclass(frozen=True)
class Landmarks:
    """A curve relative to its start, and the distances at which something happens to it.

    log10_ratio: log10 of r_d = norm at d / norm at `reference`, shape (T+1,); -inf is an exact zero.
    reference: the first distance with a gradient; 0 unless the loss does not reach the last step.
    peak, end: log10 of the largest ratio, and of the ratio at T.
    zero_from: first distance from which the curve is exactly zero to the end.
    horizon_threshold, horizon_float32: last distance at which the ratio is still above the vanishing threshold, or
    above float32's epsilon; None where the curve ends above it.
    exploding_from: first distance at which the ratio reaches the exploding threshold; None where it never does.
    """

    log10_ratio: Floats
    vanishing: float
    exploding: float
    reference: int
    last: int
    end: float
    peak: float
    peak_distance: int
    zero_from: int | None
    horizon_threshold: int | None
    horizon_float32: int | None
    exploding_from: int | None

    @property
    def ends_below_threshold(self) -> bool:
        """Tell whether the curve ends below the vanishing threshold (and so has a horizon)."""
        return self.horizon_threshold is not None

    @property
    def ends_above_exploding(self) -> bool:
        """Tell whether the curve ends at or above the exploding threshold."""
        return self.end >= math.log10(self.exploding) - ROUNDING

    @property
    def fall(self) -> float:
        """Return how far (log10) the end lies below the peak."""
        return self.peak - self.end

    @property
    def has_hump(self) -> bool:
        """Tell whether the curve rises well above its start."""
        return self.peak >= HUMP

    @property
    def has_turned(self) -> bool:
        """Tell whether the curve is past a hump and falling, by more than scatter would explain."""
        return self.has_hump and self.fall >= max(MIN_TURN, TURN_SHARE * self.peak)

    @property
    def came_back(self) -> bool:
        """Tell whether the curve has come down again from its peak."""
        return self.ends_below_threshold or self.fall >= COME_BACK

    @property
    def last_nonzero(self) -> int:
        """Return the last distance before the zeros that reach the end."""
        return self.last if self.zero_from is None else self.zero_from - 1


def find_landmarks(log10_norm: Floats, *, vanishing: float, exploding: float) -> Landmarks | None:
    """Find the landmarks of a curve of log10 norms (shape (T+1,)); None where every norm is exactly zero."""
    nonzero = log10_norm > -np.inf
    reference, last_nonzero, last = first_where(nonzero), last_where(nonzero), log10_norm.size - 1
    if reference is None or last_nonzero is None:
        return None
    log10_ratio = log10_norm - log10_norm[reference]
    peak = float(log10_ratio.max())
    return Landmarks(
        log10_ratio=log10_ratio,
        vanishing=vanishing,
        exploding=exploding,
        reference=reference,
        last=last,
        end=float(log10_ratio[-1]),
        peak=peak,
        peak_distance=int(np.argmax(log10_ratio >= peak - ROUNDING)),
        zero_from=last_nonzero + 1 if last_nonzero < last else None,
        horizon_threshold=_horizon(log10_ratio, math.log10(vanishing)),
        horizon_float32=_horizon(log10_ratio, LOG10_FLOAT32_EPSILON),
        exploding_from=first_where(log10_ratio >= math.log10(exploding) - ROUNDING),
    )


def _horizon(log10_ratio: Floats, log10_threshold: float) -> int | None:
    """Return the last distance that is not below the threshold; None where that is the last of all."""
    last_above = last_where(log10_ratio >= log10_threshold - ROUNDING)
    return last_above if last_above != log10_ratio.size - 1 else None


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
    """Name what the curve does as far as it was measured; nothing is extrapolated.

    dead: exact zeros reach the end. exploding: reaches the exploding threshold and has not come back. transient:
    reaches twice its start (or the exploding threshold) and has come back. vanishing: ends below the vanishing
    threshold. stable: none of these.
    """
    if curve.zero_from is not None:
        return "dead"
    exploded = curve.exploding_from is not None
    if exploded and (curve.ends_above_exploding or not curve.came_back):
        return "exploding"
    if (exploded or curve.has_hump) and curve.came_back:
        return "transient"
    return "vanishing" if curve.ends_below_threshold else "stable"
