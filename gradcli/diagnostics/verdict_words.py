"""The verdict in plain words: what the curve does, where it does it, and why it has its kind."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from gradcli.diagnostics.curve_fit import MIN_POINTS_LAW, TailFit
from gradcli.diagnostics.curve_landmarks import HUMP, MIN_TURN, ROUNDING, Landmarks, last_where
from gradcli.diagnostics.shares import largest_first
from gradcli.numbers import duration, factor, grouped, percent, power_of_ten, significant, steps_text, threshold
from gradcli.spec.verdict_kinds import VerdictKind

if TYPE_CHECKING:
    from gradcli.diagnostics.verdict import Verdict

LEVEL_SHIFT = math.log10(1.5)
"""A level tail this far (log10) from the start is reported as a fall or a rise to that level."""
SLOWING = 0.5
"""Growth is slowing when its later slope is below this share of its earlier slope."""
JUMP_SHARE = 0.8
"""A single step that makes up this share of all movement in the tail is named instead of an average rate."""
HEAD_SHIFT = math.log10(3.0)
"""What comes before a law is told where the law, led back to the reference, misses it by this (log10).

Before an average, which is no law, it is told already where the average misses it by `LEVEL_SHIFT`.
"""
MIN_STEPS_PACE = 5
"""Over so many steps, what comes before an exponential is given a rate of its own."""
PACE_DIFFERS = 0.15
"""... which is told where it differs from the exponential's by this share (of the logarithms)."""
HORIZON_DIFFERS = 1.5
"""The typical sequence's horizon is told where it differs by this factor from that of the mean."""

#: The word for each kind at the head of a report: of "stable" that it reaches the beginning, and not that it is steady.
KIND_WORDS: dict[VerdictKind, str] = {
    "stable": "reaches the beginning",
    "vanishing": "vanishing",
    "exploding": "exploding",
    "transient": "transient",
    "dead": "dead",
    "nonfinite": "nonfinite",
}
_VERB: dict[VerdictKind, str] = {
    "stable": "reaches the beginning",
    "vanishing": "vanishes",
    "exploding": "explodes",
    "transient": "rises and falls back",
    "dead": "is exactly zero",
    "nonfinite": "is not finite",
}
_VERBS: dict[VerdictKind, str] = {
    "stable": "reach the beginning",
    "vanishing": "vanish",
    "exploding": "explode",
    "transient": "rise and fall back",
    "dead": "are exactly zero",
    "nonfinite": "are not finite",
}


def headline(curve: Landmarks, tail: TailFit | None, half_life: float | None, forecast: int | None) -> str:
    """Say what the curve does, with its rate, and what that would lead to beyond this sequence."""
    if curve.zero_from is not None:
        zero = f"is exactly zero from {steps_text(curve.zero_from)} back"
        return f"{zero}; until then it {_describe(curve, tail, half_life)}" if tail else zero
    if tail is None:
        return "one step back is as far as this goes: too few to tell how the gradient changes"
    return _describe(curve, tail, half_life) + _forecast_words(curve, tail, forecast)


def detail(curve: Landmarks, tail: TailFit | None, kind: VerdictKind) -> str:
    """Say where the curve crosses its thresholds, where it peaks, and where it ends."""
    parts: list[str | None] = [None if kind == "exploding" else _crossings(curve)]
    if kind == "exploding":
        parts = [f"above {threshold(curve.exploding)} from {steps_text(curve.exploding_from or 0)} back"]
    elif kind == "dead":
        parts.append(f"the gradient reaches {steps_text(curve.last_nonzero)} back and no further")
    if curve.has_hump and curve.fall >= MIN_TURN and not _rises_first(curve, tail):
        parts.append(f"at most {_times(curve.peak)}, {steps_text(curve.peak_distance)} back")
    parts.append(_dip(curve))
    if kind not in ("dead", "stable"):
        parts.append(f"at {steps_text(curve.last)} {power_of_ten(curve.end)}")
    if curve.period > 1:
        parts.append(f"it alternates: it dips every {steps_text(curve.period)}, and is judged between the dips")
    if curve.start > 0:
        parts.append(f"the loss enters {steps_text(curve.start)} back, the first distance with a gradient")
    return "; ".join(part for part in parts if part)


def aside(verdict: Verdict, typical: Verdict) -> str:
    """Say how the sequences differ from their mean, where the typical one or a share of them has another verdict."""
    others = [kind for kind, share in verdict.shares.items() if share > 0 and kind != verdict.kind]
    telling = {"exploding", "dead"} & set(others)
    if typical.kind == verdict.kind and not telling and not _reaches_otherwise(verdict, typical):
        return ""
    counted = ", ".join(f"{percent(share)} {_VERBS[kind]}" for kind, share in largest_first(verdict.shares))
    return f"that is the mean of the norms; of the sequences {counted}; the typical one {_typical(typical)}"


def _reaches_otherwise(verdict: Verdict, typical: Verdict) -> bool:
    """Tell whether the typical sequence's horizon is another one than that of the mean."""
    of_mean, of_typical = verdict.horizon_threshold, typical.horizon_threshold
    if of_mean is None or of_typical is None:
        return of_mean is not of_typical
    return not of_mean / HORIZON_DIFFERS <= of_typical <= of_mean * HORIZON_DIFFERS


def _typical(typical: Verdict) -> str:
    found = _VERB[typical.kind]
    known = []
    if typical.zero_from is not None:
        known.append(f"from {steps_text(typical.zero_from)} back")
    elif typical.rate_per_step is not None:
        known.append(f"{factor(math.log10(typical.rate_per_step))} a step")
    if typical.horizon_threshold is not None and typical.kind in ("vanishing", "transient"):
        known.append(f"horizon {steps_text(typical.horizon_threshold)}")
    return f"{found} ({', '.join(known)})" if known else found


def reason(curve: Landmarks, kind: VerdictKind) -> str:
    """Give the sentence that justifies the kind."""
    where = f"distance {grouped(curve.reference)}"
    low, high = threshold(curve.vanishing), threshold(curve.exploding)
    end, peak = power_of_ten(curve.end), f"{power_of_ten(curve.peak)} times its value at {where}"
    match kind:
        case "dead":
            return f"The gradient norm is exactly zero from distance {curve.zero_from} to the beginning, {curve.last}."
        case "exploding" if curve.ends_above_exploding:
            return f"The gradient norm ends at {end} times its value at {where}, above the threshold {high}."
        case "exploding":
            return (
                f"The gradient norm passes {high} times its value at {where} at distance {curve.exploding_from}, and "
                f"has not come back down: it ends at {end} times."
            )
        case "transient":
            return (
                f"The gradient norm rises first, to {peak} at distance {curve.peak_distance}, and then falls back: it "
                f"ends at {end} times."
            )
        case "vanishing":
            return (
                f"The gradient norm falls below {low} of its value at {where} after distance "
                f"{curve.horizon_threshold} and stays below to the beginning of the sequence."
            )
        case _:
            return (
                f"The gradient norm ends at {end} times its value at {where}: no threshold, {low} or {high}, has been "
                f"crossed for good."
            )


def left(curve: Landmarks, kind: VerdictKind) -> str:
    """Say what is left at the beginning of a gradient that reaches it; "" of others.

    "It" is the gradient at the distance that the ratios are relative to, one step back.
    """
    if kind != "stable" or curve.reference == curve.last:
        return ""
    back, at_end = f"{steps_text(curve.last)} back", curve.closing
    if power_of_ten(at_end) == "1":
        return f"{back} all of it is left"
    return (
        f"{back} it is {power_of_ten(at_end)} times as large"
        if at_end > 0
        else f"{back} {power_of_ten(at_end)} of it is left"
    )


def _describe(curve: Landmarks, tail: TailFit | None, half_life: float | None) -> str:
    """Say how the curve moves: its rise first if it has one, then the law of its tail."""
    assert tail is not None
    if not _rises_first(curve, tail):
        return _law(curve, tail, half_life)
    rise = f"rises to {_times(curve.peak)} at {steps_text(curve.peak_distance)} back"
    if curve.has_turned or (tail.has_trend and tail.log10_rate < 0):
        return f"{rise}, then {_law(curve, tail, half_life, after_peak=True)}"
    if tail.has_trend:
        return f"{rise}; the growth is slowing"
    if curve.peak_distance > (curve.reference + curve.last) // 2:  # there is little left to change in
        return rise.replace("rises", "rises unevenly", 1)
    return f"{rise}, and changes little from there on"


def _rises_first(curve: Landmarks, tail: TailFit | None) -> bool:
    """Tell whether the rise to the peak is the first thing to say: it has turned, is about to, or stays there."""
    if tail is None or not curve.has_hump:
        return False
    at_its_peak = curve.fall < MIN_TURN and curve.peak_distance > curve.last - SLOWING * (curve.last - curve.reference)
    slowing = tail.pattern == "mixed" and tail.log10_rate > 0 and 0 < tail.drift < SLOWING
    if tail.pattern == "mixed" and (tail.log10_rate < 0 or not tail.has_trend):
        return True  # a tail that falls, or wanders, does not tell of the rise before it
    return curve.has_turned or (slowing and at_its_peak)


def _law(curve: Landmarks, tail: TailFit, half_life: float | None, after_peak: bool = False) -> str:
    moves = "falls" if tail.log10_rate < 0 else "grows"
    by = f"by a factor {factor(tail.log10_rate)} a step"
    match tail.pattern:
        case "exponential":
            pace = f"half-life {_count(half_life)}" if half_life else f"doubling every {_count(HUMP / tail.log10_rate)}"
            before = "" if after_peak else _before(curve, tail)
            return f"{before}{moves} {by} ({pace}), exponentially"
        case "polynomial":
            before = "" if after_peak else _before(curve, tail)
            return before + _power(tail, moves, curve.halved_at if moves == "falls" and not before else None)
        case "flat":
            return f"{_level(curve, tail)} (a factor {factor(tail.log10_rate)} a step)"
        case "mixed":
            return _mixed(curve, tail, f"{moves} {{}}{by}", after_peak)


def _before(curve: Landmarks, tail: TailFit, shift: float = HEAD_SHIFT, least: float = 0.0) -> str:
    """Describe what comes before the law of a tail, where that law misses the reference by a shift; else "".

    least: how large a change is told.
    """
    if abs(_gap_at_reference(curve, tail)) < shift:
        return ""
    distance = np.arange(curve.reference, tail.stop + 1)
    gap = curve.log10_ratio[curve.reference : tail.stop + 1] - tail.law(distance, curve.last)
    last_away = last_where(np.abs(gap, out=gap) >= LEVEL_SHIFT)
    arrived = curve.reference + (0 if last_away is None else last_away + 1)
    if arrived > (tail.start + tail.stop) // 2:
        return ""
    value, steps = float(curve.log10_ratio[arrived]), arrived - curve.reference
    if abs(value) < least:
        return ""
    pace = ""
    if steps >= MIN_STEPS_PACE:
        if abs(value / steps - tail.log10_rate) < PACE_DIFFERS * abs(tail.log10_rate):
            return ""
        pace = f" ({factor(value / steps)} a step)"
    return f"{'falls' if value < 0 else 'rises'} to {_times(value)} at {steps_text(arrived)} back{pace}, then "


def _gap_at_reference(curve: Landmarks, tail: TailFit) -> float:
    """Return log10 of the ratio that the law of the tail, led back to the reference, gives where the ratio is 1."""
    return float(tail.law(np.array([curve.reference]), curve.last)[0])


def _mixed(curve: Landmarks, tail: TailFit, moves_by: str, after_peak: bool) -> str:
    if tail.points < MIN_POINTS_LAW:
        return f"{moves_by.format('')}, over too few steps to tell a pattern"
    if not tail.has_trend:
        return f"wanders without a clear trend (a factor {factor(tail.log10_rate)} a step on average)"
    if (jump := _jump(curve, tail)) is not None:
        return jump
    if after_peak:
        return f"{moves_by.format('unevenly, ')} on average"
    if before := _fall_before_growth(curve, tail) or _before(curve, tail, LEVEL_SHIFT, LEVEL_SHIFT):
        return f"{before}{moves_by.format('unevenly, ')} on average"
    against = curve.end * tail.log10_rate < 0  # the tail goes one way, and the curve ends on the other side of 1
    far = against or abs(_gap_at_reference(curve, tail)) >= LEVEL_SHIFT
    since = f" from {steps_text(tail.start)} back on" if far else ""
    return f"{moves_by.format('unevenly, ')} on average{since}"


def _fall_before_growth(curve: Landmarks, tail: TailFit) -> str:
    """Describe the fall that an uneven growth comes after, where there is one; else ""."""
    if tail.log10_rate < 0:
        return ""
    inside = curve.log10_ratio[curve.reference : tail.stop + 1]
    lowest = int(np.argmin(np.where(np.isneginf(inside), np.inf, inside)))
    if inside[lowest] > -HUMP:
        return ""
    return f"falls to {_times(float(inside[lowest]))} at {steps_text(curve.reference + lowest)} back, then "


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
    where = f"between {grouped(place)} and {steps_text(place + 1)} back"
    return f"{verb} in one step, by a factor {power_of_ten(change)} {where}"


def _power(tail: TailFit, moves: str, halved: int | None) -> str:
    exponent = significant(abs(tail.exponent or 0.0), digits=2)
    half = "" if halved is None else f" (half is gone {steps_text(halved)} back)"
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
    if last_away >= (tail.start + tail.stop) // 2:
        return f"wanders about {_times(shift)}"
    arrived = steps_text(last_away + 1)
    return f"{'falls' if shift < 0 else 'rises'} to {_times(shift)} at {arrived} back, then stays level"


def _forecast_words(curve: Landmarks, tail: TailFit, forecast: int | None) -> str:
    """Say where the curve would cross its threshold, beyond the end of this sequence."""
    if forecast is None or tail.pattern != "exponential":
        return ""  # an average over a tail without a law promises nothing, and a power little
    goal, word = (curve.vanishing, "below") if tail.log10_rate < 0 else (curve.exploding, "above")
    return f"; at this rate {word} {threshold(goal)} from {steps_text(forecast)} back, beyond this sequence"


def _crossings(curve: Landmarks) -> str | None:
    """Say from where on the curve is below the thresholds (other than by being zero)."""
    below: list[str] = []
    horizons = {threshold(curve.vanishing): curve.horizon_threshold}
    horizons["float32's precision"] = curve.horizon_float32
    for name, horizon in horizons.items():
        if horizon is not None and horizon < curve.last_nonzero + (curve.zero_from is None):
            first = grouped(horizon + 1) if below else f"{steps_text(horizon + 1)} back"
            below.append(f"below {name} from {first}")
    return ", ".join(below) or None


def _dip(curve: Landmarks) -> str | None:
    """Mention a fall below the vanishing threshold from which the curve recovered."""
    inside = curve.log10_ratio[curve.reference : curve.last_nonzero + 1]
    lowest = int(np.argmin(inside))
    if curve.period > 1 or curve.ends_below_threshold or inside[lowest] >= math.log10(curve.vanishing) - ROUNDING:
        return None
    depth = "exactly zero" if np.isneginf(inside[lowest]) else f"down to {power_of_ten(float(inside[lowest]))}"
    return f"{depth} at {steps_text(curve.reference + lowest)} back, but recovers"


def _times(log10_ratio: float) -> str:
    """Write a ratio to the gradient one step back: "0.13 of its size", "3.9 times its size"."""
    text = power_of_ten(log10_ratio)
    return "its own size" if text == "1" else f"{text} {'times' if log10_ratio > 0 else 'of'} its size"


def _count(steps: float | None) -> str:
    """Write a time in steps, which need not be whole."""
    text = duration(steps or 0.0)
    return f"{text} step{'' if text == '1' else 's'}"
