"""Where a curve that has crossed no threshold yet would cross one, if it went on by the law of its tail.

    exponential          log10 r = a + b d              crosses L at d = (L - a) / b
    mixed                from r at T on, by its average rate
    polynomial, "end"    log10 r = a + p log10(d + d0)  at d = 10**((L - a) / p) - d0

A power of the time since the beginning says nothing of longer sequences: in those the time is another one.
"""

from __future__ import annotations

import math

from gradcli.diagnostics.curve_fit import TailFit
from gradcli.diagnostics.curve_landmarks import ROUNDING, Landmarks

FARTHEST = 1e9
"""Steps beyond which saying when a threshold would be crossed tells nobody anything."""
FARTHEST_POWER = 10
"""The same for a power, as a multiple of the sequence: over so much longer ones, the law itself is a guess."""


def forecast_of(curve: Landmarks, tail: TailFit | None) -> int | None:
    """Return the first distance at which the law of the tail is beyond the nearer threshold.

    None where a threshold has been crossed already, and where the law never crosses one, or only beyond `FARTHEST`.
    """
    crossed = curve.zero_from is not None or curve.ends_below_threshold or curve.exploding_from is not None
    if tail is None or crossed or tail.pattern == "flat" or not tail.has_trend:
        return None
    threshold = math.log10(curve.vanishing if tail.log10_rate < 0 else curve.exploding)
    steps = (
        curve.last + (threshold - curve.closing) / tail.log10_rate
        if tail.pattern == "mixed"
        else _crossing(tail, threshold)
    )
    farthest = FARTHEST_POWER * curve.last if tail.pattern == "polynomial" else FARTHEST
    if steps is None or steps > farthest:
        return None
    return max(curve.last, math.floor(steps + ROUNDING)) + 1


def _crossing(tail: TailFit, threshold: float) -> float | None:
    if tail.exponent is None:
        return tail.stop + (threshold - tail.log10_end) / tail.log10_rate
    power = (threshold - tail.log10_end) / tail.exponent
    if power > math.log10(FARTHEST) or tail.origin == "beginning":
        return None
    return (tail.stop - tail.counted_from + tail.offset) * math.pow(10.0, power) + tail.counted_from - tail.offset
