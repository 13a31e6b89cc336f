"""How curves are shown: which distances, how numbers are written, bars and flags."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from gradcli.spec.models import Thresholds

LOG10_FLOAT32_EPSILON = math.log10(float(np.finfo(np.float32).eps))

#: Leading digits of the distances shown, from dense to sparse, and how many rows fit a screen.
_MANTISSAS = ((1, 1.5, 2, 3, 5, 7), (1, 2, 3, 5), (1, 2, 5), (1, 3), (1,))
_ROWS = 16


def shown_distances(last: int, also: Sequence[int] = ()) -> list[int]:
    """Return the distances 0..last that a table shows: close together near 0, the last, and those in `also`."""
    if last < _ROWS:
        return list(range(last + 1))
    for mantissas in _MANTISSAS:
        powers = range(len(str(last)))
        chosen = {int(m * 10**p) for m in mantissas for p in powers if m * 10**p == int(m * 10**p)}
        chosen = {d for d in chosen if 0 < d <= last}
        if len(chosen) + 2 <= _ROWS:
            break
    return sorted(chosen | {0, last} | {d for d in also if 0 <= d <= last})


def log10_text(value: float) -> str:
    """Return a log10 norm as text: -0.42, -16.5, -30103.0; "0 exactly" for the logarithm of an exact zero.

    >>> log10_text(-30102.9996), log10_text(-0.4213), log10_text(-math.inf)
    ('-30103.0', '-0.42', '0 exactly')
    """
    if math.isinf(value):
        return "0 exactly"
    text = f"{value:.2f}" if abs(value) < 10 else f"{value:.1f}"
    return text.removeprefix("-") if float(text) == 0 else text


def power_of_ten(log10: float) -> str:
    """Return 10**log10 as text, however large or small: 0.15, 5.9e-04, 10^-39487.0.

    >>> power_of_ten(math.log10(0.15)), power_of_ten(-39487.0), power_of_ten(-math.inf)
    ('0.15', '10^-39487.0', '0')
    """
    if math.isinf(log10):
        return "0"
    if abs(log10) >= 100:
        return f"10^{log10:.1f}"
    value = 10.0**log10
    return f"{value:.2g}" if 1e-3 <= value < 1e4 else f"{value:.1e}"


def range_text(low: float, high: float) -> str:
    """Return the range of two log10 norms as text."""
    return f"{_short(low)} .. {_short(high)}"


def _short(value: float) -> str:
    if math.isinf(value):
        return "zero"
    text = f"{value:.1f}"
    return "0.0" if text == "-0.0" else text


def flag(log10_ratio: float, thresholds: Thresholds) -> str:
    """Return the warning for a norm relative to distance 0."""
    if math.isinf(log10_ratio) and log10_ratio < 0:
        return "exact zero"
    if log10_ratio < LOG10_FLOAT32_EPSILON:
        return "< float32"
    if log10_ratio < math.log10(thresholds.vanishing):
        return f"< {thresholds.vanishing:g}"
    if log10_ratio > math.log10(thresholds.exploding):
        return f"> {thresholds.exploding:g}"
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


def json_curve(values: np.ndarray) -> list[float | None]:
    """Return log10 norms as JSON takes them: null for what is not finite."""
    return [value if math.isfinite(value) else None for value in values.tolist()]


def number(value: float | None) -> float | None:
    """Return a number as JSON takes it: null for what is missing or not finite."""
    return None if value is None or not math.isfinite(value) else float(value)
