"""The verdict in plain words: what the curve does, where it does it, and why it has its kind."""

from __future__ import annotations

import math

import numpy as np

from gradcli.diagnostics.curve_fit import MIN_POINTS_LAW, TailFit
from gradcli.diagnostics.curve_landmarks import HUMP, ROUNDING, Landmarks, last_where
from gradcli.diagnostics.verdict_kinds import VerdictKind

LEVEL_SHIFT = math.log10(1.5)
"""A level tail this far (log10) from the start is reported as a fall or a rise to that level."""
SLOWING = 0.5
"""Growth is slowing when its later slope is below this share of its earlier slope."""
JUMP_SHARE = 0.8
"""A single step that makes up this share of all movement in the tail is named instead of an average rate."""
FARTHEST_FORECAST = 1e9
"""Steps beyond which saying when a threshold would be crossed tells nobody anything."""


def headline(curve: Landmarks, tail: TailFit | None, half_life: float | None) -> str:
    """Say what the curve does, with its rate; and what that rate would lead to beyond a short sequence."""
    if curve.zero_from is not None:
        zero = f"is exactly zero from {_steps(curve.zero_from)} back"
        return f"{zero}; until then it {_describe(curve, tail, half_life)}" if tail else zero
    if tail is None:
        return "has a gradient at one distance only, too few to tell how it changes"
    return _describe(curve, tail, half_life) + _forecast(curve, tail)


def detail(curve: Landmarks, tail: TailFit | None, kind: VerdictKind) -> str:
    """Say where the curve crosses its thresholds, where it peaks, and where it ends."""
    if kind == "dead":
        parts = [_crossings(curve), f"the gradient reaches {_steps(curve.last_nonzero)} back and no further"]
    elif kind == "exploding" and curve.exploding_from is not None:
        parts = [f"above {threshold(curve.exploding)} times its start from {_steps(curve.exploding_from)} back"]
    else:
        parts = [_crossings(curve)]
    if curve.has_hump and curve.peak_distance < curve.last and not _rises_first(curve, tail):
        parts.append(f"at most {_of_start(curve.peak)}, {_steps(curve.peak_distance)} back")
    parts.append(_dip(curve))
    if kind != "dead":
        parts.append(f"at {_steps(curve.last)} {ratio(curve.end) if parts[0] else _of_start(curve.end)}")
    if curve.reference > 0:
        parts.append(f"its start is {_steps(curve.reference)} back, the first distance with a gradient")
    return "; ".join(part for part in parts if part)


def reason(curve: Landmarks, kind: VerdictKind) -> str:
    """Give the sentence that justifies the kind."""
    start = "distance 0" if curve.reference == 0 else f"distance {curve.reference} (the first with a gradient)"
    low, high = threshold(curve.vanishing), threshold(curve.exploding)
    end, peak = ratio(curve.end), f"{ratio(curve.peak)} times its value at {start}"
    match kind:
        case "dead":
            return f"The gradient norm is exactly zero from distance {curve.zero_from} to the beginning, {curve.last}."
        case "exploding" if curve.ends_above_exploding:
            return f"The gradient norm ends at {end} times its value at {start}, above the threshold {high}."
        case "exploding":
            return (
                f"The gradient norm passes {high} times its value at {start} at distance {curve.exploding_from}, and "
                f"has not come back down: it ends at {end} times."
            )
        case "transient":
            return (
                f"The gradient norm rises first, to {peak} at distance {curve.peak_distance}, and then falls back: it "
                f"ends at {end} times."
            )
        case "vanishing":
            return (
                f"The gradient norm falls below {low} of its value at {start} after distance "
                f"{curve.horizon_threshold} and stays below to the beginning of the sequence."
            )
        case _:
            return (
                f"The gradient norm ends at {end} times its value at {start}, between the thresholds {low} and {high}."
            )


def _describe(curve: Landmarks, tail: TailFit, half_life: float | None) -> str:
    """Say how the curve moves: its rise first if it has one, then the law of its tail."""
    if not _rises_first(curve, tail):
        return _law(curve, tail, half_life)
    rise = f"rises to {_of_start(curve.peak)} at {_steps(curve.peak_distance)} back"
    return f"{rise}, then {_law(curve, tail, half_life)}" if curve.has_turned else f"{rise}; the growth is slowing"


def _rises_first(curve: Landmarks, tail: TailFit | None) -> bool:
    """Tell whether the rise to the peak is the first thing to say: the curve has turned, or is about to."""
    if tail is None or not curve.has_hump:
        return False
    slowing = tail.pattern == "mixed" and tail.log10_rate > 0 and tail.drift < SLOWING
    return curve.has_turned or slowing


def _law(curve: Landmarks, tail: TailFit, half_life: float | None) -> str:
    moves = "falls" if tail.log10_rate < 0 else "grows"
    by = f"by a factor {factor(tail.log10_rate)} a step"
    match tail.pattern:
        case "exponential":
            pace = f"half-life {_count(half_life)}" if half_life else f"doubling every {_count(HUMP / tail.log10_rate)}"
            return f"{moves} {by} ({pace}), exponentially"
        case "polynomial":
            return _power(tail, moves, half_life)
        case "flat":
            return f"{_level(curve, tail)} (a factor {factor(tail.log10_rate)} a step)"
        case "mixed":
            return _mixed(curve, tail, f"{moves} {{}}{by}")


def _mixed(curve: Landmarks, tail: TailFit, moves_by: str) -> str:
    if tail.points < MIN_POINTS_LAW:
        return f"{moves_by.format('')}, over too few steps to tell a pattern"
    if not tail.has_trend:
        return f"wanders without a clear trend (a factor {factor(tail.log10_rate)} a step on average)"
    if (jump := _jump(curve, tail)) is not None:
        return jump
    return f"{moves_by.format('unevenly, ')} on average"


def _jump(curve: Landmarks, tail: TailFit) -> str | None:
    """Describe a tail whose whole change happens in a single step."""
    inside = curve.log10_ratio[tail.start : tail.stop + 1]
    if not np.all(np.isfinite(inside)):
        return None
    sizes = np.diff(inside)
    np.abs(sizes, out=sizes)
    largest = int(np.argmax(sizes))
    change = float(inside[largest + 1] - inside[largest])
    if abs(change) < JUMP_SHARE * float(np.sum(sizes)):
        return None
    place = tail.start + largest
    verb = "falls" if change < 0 else "jumps"
    return f"{verb} in one step, by a factor {ratio(change)} between {grouped(place)} and {_steps(place + 1)} back"


def _power(tail: TailFit, moves: str, half_life: float | None) -> str:
    exponent = number(abs(tail.exponent or 0.0))
    half = f" (half of its start after {_count(half_life)})" if half_life else ""
    if tail.origin == "beginning":
        return (
            f"{moves} polynomially, as (steps since the beginning)^{'' if moves == 'falls' else '-'}{exponent}"
            f"{half}: slowly near the last step, steeply near the first"
        )
    return f"{moves} polynomially, as distance^{'-' if moves == 'falls' else ''}{exponent}{half}: at an ever lower rate"


def _level(curve: Landmarks, tail: TailFit) -> str:
    """Describe a level tail, and the fall or rise that led to it."""
    shift = tail.log10_end
    if abs(shift) < LEVEL_SHIFT or curve.has_turned:
        return "stays level"
    gap = curve.log10_ratio[: tail.stop + 1] - shift
    np.abs(gap, out=gap)
    last_away = last_where(gap >= LEVEL_SHIFT)
    assert last_away is not None  # the start lies `shift` away
    arrived = _steps(last_away + 1 - curve.reference)
    if shift < 0:
        return f"falls to {_of_start(shift)} within {arrived}, then stays level"
    return f"rises to {_of_start(shift)} within {arrived}, then stays level"


def _forecast(curve: Landmarks, tail: TailFit) -> str:
    """Say where an exponential would cross its threshold, if that is beyond the end of this sequence."""
    if tail.pattern != "exponential":
        return ""
    falls = tail.log10_rate < 0
    goal, word = (curve.vanishing, "below") if falls else (curve.exploding, "above")
    if (falls and curve.ends_below_threshold) or (not falls and curve.exploding_from is not None):
        return ""
    steps = tail.stop + (math.log10(goal) - tail.log10_end) / tail.log10_rate
    if steps > FARTHEST_FORECAST:
        return ""
    crossing = max(curve.last, math.floor(steps + ROUNDING)) + 1
    return f"; at this rate {word} {threshold(goal)} from {_steps(crossing)} back, beyond this sequence"


def _crossings(curve: Landmarks) -> str | None:
    """Say from where on the curve is below the thresholds (other than by being zero)."""
    below: list[str] = []
    horizons = {f"{threshold(curve.vanishing)} of its start": curve.horizon_threshold}
    horizons["float32's precision"] = curve.horizon_float32
    for name, horizon in horizons.items():
        if horizon is not None and horizon < curve.last_nonzero + (curve.zero_from is None):
            first = grouped(horizon + 1) if below else f"{_steps(horizon + 1)} back"
            below.append(f"below {name} from {first}")
    return ", ".join(below) or None


def _dip(curve: Landmarks) -> str | None:
    """Mention a fall below the vanishing threshold from which the curve recovered."""
    inside = curve.log10_ratio[curve.reference : curve.last_nonzero + 1]
    lowest = int(np.argmin(inside))
    if curve.ends_below_threshold or inside[lowest] >= math.log10(curve.vanishing) - ROUNDING:
        return None
    depth = "exactly zero" if np.isneginf(inside[lowest]) else f"down to {ratio(float(inside[lowest]))}"
    return f"{depth} at {_steps(curve.reference + lowest)} back, but recovers"


def number(value: float) -> str:
    """Write a number with two significant digits, or all of its whole ones: 0.69, 1.9, 36, 687."""
    if value >= 10:
        return grouped(round(value))
    return f"{value:.2g}" if value >= 0.01 or value == 0 else scientific(value, 1)


def scientific(value: float, digits: int) -> str:
    """Write a number as 1e-3 or 2.5e6, without padding."""
    mantissa, exponent = f"{value:.{digits}e}".split("e")
    return f"{mantissa.rstrip('0').rstrip('.') if '.' in mantissa else mantissa}e{int(exponent)}"


def threshold(value: float) -> str:
    """Write a threshold as people do: 1e-3, 0.05, 1e3."""
    return f"{value:.4g}" if 0.01 <= value < 1000 else scientific(value, 3)


def ratio(log10_ratio: float) -> str:
    """Write a ratio from its log10: 0.13, 3.9, 10^-16.1, or 0 where it is exactly zero."""
    if np.isneginf(log10_ratio):
        return "0"
    return number(10.0**log10_ratio) if -2 <= log10_ratio < 4 else _power_of_ten(log10_ratio)


def _power_of_ten(exponent: float) -> str:
    return f"10^{exponent:.1f}".removesuffix(".0")


def _of_start(log10_ratio: float) -> str:
    """Write a ratio to the start: "0.13 of its start", "3.9 times its start"."""
    text = ratio(log10_ratio)
    return "equal to its start" if text == "1" else f"{text} {'times' if log10_ratio > 0 else 'of'} its start"


def factor(log10_rate: float) -> str:
    """Write a factor a step so that its difference from 1 has two digits: 0.69, 0.9981, 1.1, 2."""
    if not -2 <= log10_rate < 4:
        return _power_of_ten(log10_rate) if abs(log10_rate) >= 300 else scientific(10.0**log10_rate, 1)
    rate = 10.0**log10_rate
    gap = abs(1 - rate)
    if gap < 1e-9:
        return "1"
    digits = f"{rate:.{max(0, 1 - math.floor(math.log10(gap)))}f}" if rate >= 0.1 else f"{rate:.2g}"
    return digits.rstrip("0").rstrip(".") if "." in digits else digits


def grouped(count: int) -> str:
    """Write a whole number, with commas from 10,000 on."""
    return f"{count:,}" if count >= 10_000 else str(count)


def _steps(count: int) -> str:
    return f"{grouped(count)} step{'' if count == 1 else 's'}"


def _count(steps: float | None) -> str:
    """Write a time in steps, which need not be whole."""
    text = number(steps or 0.0)
    return f"{text} step{'' if text == '1' else 's'}"
