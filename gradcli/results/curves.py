"""How curves are shown: which distances, how numbers are written, bars and flags."""

from __future__ import annotations

import math
from collections.abc import Sequence

from gradcli.diagnostics.curve_landmarks import LOG10_FLOAT32_EPSILON
from gradcli.diagnostics.verdict import Verdict
from gradcli.numbers import significant, threshold
from gradcli.spec.models import Thresholds

#: Leading digits of the distances shown, from dense to sparse, how many rows fit a screen, and how many a first look.
_MANTISSAS = ((1, 1.5, 2, 3, 5, 7), (1, 2, 3, 5), (1, 2, 5), (1, 3), (1,))
ROWS = 16
FEW_ROWS = 9


def shown_distances(
    last: int, also: Sequence[int] = (), zero_from: int | None = None, *, rows: int = ROWS
) -> list[int]:
    """Return the distances 0..last that a table shows: close together near 0, the last, and those in `also`.

    From `zero_from` on the curve is zero, so nothing is shown between there and the last.
    rows: about how many.
    """
    chosen = set(_spaced(last, rows)) | {d for d in also if 0 <= d <= last}
    if zero_from is not None:
        chosen = {d for d in chosen if d < zero_from} | {zero_from, last}
    return sorted(chosen)


def _spaced(last: int, rows: int) -> list[int]:
    if last < rows:
        return list(range(last + 1))
    for mantissas in _MANTISSAS:
        powers = range(len(str(last)))
        chosen = {int(m * 10**p) for m in mantissas for p in powers if m * 10**p == int(m * 10**p)}
        chosen = {d for d in chosen if 0 < d <= last}
        if len(chosen) + 2 <= rows:
            break
    return sorted(chosen | {0, last})


def range_text(low: float, high: float) -> str | None:
    """Return the range of two log10 norms as text; None where both are exact zeros."""
    return None if math.isinf(low) and math.isinf(high) else f"{_short(low)} .. {_short(high)}"


def _short(value: float) -> str:
    if math.isinf(value):
        return "zero"
    text = f"{value:.1f}"
    return "0.0" if text == "-0.0" else text


def horizon_text(verdict: Verdict, seq_len: int) -> str:
    """Return how far back the gradient is above the threshold: 95, or >= 100 where it is to the beginning."""
    if verdict.kind == "nonfinite":
        return "-"
    horizon = verdict.horizon_threshold
    return f">= {seq_len}" if horizon is None else str(horizon)


def rate_text(verdict: Verdict) -> str | None:
    """Return the factor a step; None where there is none."""
    return None if verdict.rate_per_step is None else significant(verdict.rate_per_step, digits=4)


def half_life_text(verdict: Verdict) -> str | None:
    """Return the half-life in steps; None where the gradient does not fall."""
    return None if verdict.half_life is None else significant(verdict.half_life, digits=3)


def flag(log10_ratio: float, thresholds: Thresholds) -> str:
    """Return the warning for a norm relative to distance 1."""
    if log10_ratio == -math.inf:
        return "exact zero"
    if log10_ratio < LOG10_FLOAT32_EPSILON:
        return "< float32"
    if log10_ratio < math.log10(thresholds.vanishing):
        return f"< {threshold(thresholds.vanishing)}"
    if log10_ratio > math.log10(thresholds.exploding):
        return f"> {threshold(thresholds.exploding)}"
    return ""


def bars(log10_values: Sequence[float]) -> list[float | None]:
    """Return bar lengths in [0, 1], linear in log10, from the smallest finite value shown to the largest.

    Values that differ by less than a factor of 10 in all give nearly full bars, so that a flat curve looks flat.
    """
    finite = [value for value in log10_values if math.isfinite(value)]
    if not finite:
        return [None] * len(log10_values)
    high = max(finite)
    low = min(min(finite), high - 1.0)
    return [(value - low) / (high - low) if math.isfinite(value) else 0.0 for value in log10_values]
