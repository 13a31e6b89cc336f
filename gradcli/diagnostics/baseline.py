"""A run held against an earlier one: whether its figures lie where those of the earlier trials lay.

The same spec and seed draw the same numbers, so a figure moves when the cell, its initialisation, the data or a size
does. Whether it moved by more than chance would have it is asked of the trials: each is a draw of the weights, and a
figure within the range of their own, from the least to the largest, is not told from the earlier one. Where there was a
single trial, its sequences take their place; a single sequence has no range, and its figures are to be the same.
"""

from __future__ import annotations

import math

from gradcli.diagnostics.expectations import CheckOutcome, plain_value
from gradcli.diagnostics.figures import Figure, Value, number_text
from gradcli.frozen import frozen
from gradcli.numbers import CHOSEN, significant

#: Bounds are this much wider (relatively): what another machine's rounding may do to them.
ROUNDING = 1e-6
#: Figures of which a difference means the same wherever they lie: a logarithm, and a share.
_ABSOLUTE = ("lyapunov", "clip_fraction")


@frozen
class Recorded:
    """A figure as it once was; see `gradcli.diagnostics.figures.Figure`."""

    value: Value
    low: float | None = None
    high: float | None = None


def record(figure: Figure) -> Recorded:
    """Return what a baseline keeps of a figure."""
    return Recorded(figure.value, figure.low, figure.high)


def compare_with_baseline(name: str, before: Recorded, figure: Figure, tolerance: float | None = None) -> CheckOutcome:
    """Hold a figure against the one of a baseline.

    Args:
        name: the figure's. tolerance: how far it may be from the earlier value in place of the range over trials:
            relative to it, but for the Lyapunov exponent and shares, of which it is the difference. None for the range.
    """
    was, now = _number(before.value), figure.number
    if was is None or now is None:
        met, missed = figure.value == before.value, ""
    else:
        low, high = _bounds(name, before, was, tolerance)
        met = low <= now <= high
        away = max(low - now, now - high)
        missed = f" ({number_text(away)} away)" if math.isfinite(away) else ""
    expected = _expected(before, was, tolerance)
    message = figure.sentence if met else f"the baseline has {expected}, but {figure.sentence}{missed}"
    return CheckOutcome(f"baseline.{name}", "passed" if met else "failed", expected, plain_value(figure.value), message)


def _number(value: Value) -> float | None:
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None


def _bounds(name: str, before: Recorded, was: float, tolerance: float | None) -> tuple[float, float]:
    if tolerance is None or math.isinf(was):
        low, high = (was if end is None or tolerance is not None else end for end in (before.low, before.high))
    else:
        away = tolerance * (1.0 if name in _ABSOLUTE else abs(was))
        low, high = was - away, was + away
    return _wider(low, -1.0), _wider(high, 1.0)


def _wider(bound: float, sign: float) -> float:
    return bound + sign * ROUNDING * abs(bound) if math.isfinite(bound) else bound


def _expected(before: Recorded, was: float | None, tolerance: float | None) -> str:
    if was is None:
        return "none" if before.value is None else str(before.value).lower()
    text = bound_text(was)
    if tolerance is not None:
        return f"{text}, with a tolerance of {significant(tolerance, CHOSEN)}"
    if before.low is None or before.high is None or before.low == before.high:
        return text
    return f"{text}, from {bound_text(before.low)} to {bound_text(before.high)} over its trials"


def bound_text(value: float) -> str:
    """Write a number that may have no bound."""
    if math.isinf(value):
        return "unbounded" if value > 0 else "-infinity"
    return number_text(value)
