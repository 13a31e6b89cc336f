"""How far back does the gradient reach? One curve of gradient norms in, one verdict out.

The curve is read in three steps: its landmarks (where it crosses, peaks, ends), the law of its tail, and the words.
Everything stays in log10, so that 1e-39487 is as good a number as any.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from gradcli.diagnostics import verdict_words as words
from gradcli.diagnostics.curve_fit import Floats, Origin, Pattern, TailFit, fit_tail
from gradcli.diagnostics.curve_landmarks import Landmarks, find_landmarks, first_where, kind_of
from gradcli.diagnostics.nonfinite import Cause
from gradcli.diagnostics.verdict_kinds import VerdictKind


@dataclass(frozen=True)
class Verdict:
    """What a gradient curve does, in numbers and in words. Distances are steps back from the last step.

    kind: what the curve does as far as it was measured (see `kind_of`).
    pattern: the law of its tail; it says how to read the next four.
    rate_per_step: the factor a step, from the line through the tail; the law itself where the pattern is
    "exponential", an average over the tail where it is "polynomial" or "mixed"; None where too few distances carry a
    gradient, or the factor is beyond a float.
    exponent, exponent_from: p of the polynomial r ~ d**p ("end") or r ~ (T/t)**p with t = T - d ("beginning").
    half_life: steps. Exponential: -ln 2 / ln(rate). Polynomial or mixed: to the first distance with r <= 1/2.
    None where the tail is level or grows.
    horizon_threshold, horizon_float32: the largest distance at which r is still above the vanishing threshold, or
    above float32's epsilon, and after which it never is again; None where the curve ends above it. 0 where there is
    no gradient at all.
    peak_distance, peak_log10_ratio: where the curve is largest, and log10 of its ratio to the start there.
    zero_from: first distance from which the curve is exactly zero to the end.
    headline, detail: what it does, and where, for people; reason: why this kind, as a sentence.
    """

    kind: VerdictKind
    pattern: Pattern
    rate_per_step: float | None
    exponent: float | None
    exponent_from: Origin | None
    half_life: float | None
    horizon_threshold: int | None
    horizon_float32: int | None
    peak_distance: int
    peak_log10_ratio: float
    zero_from: int | None
    headline: str
    detail: str
    reason: str


def judge(log10_norm: Floats, *, vanishing: float, exploding: float) -> Verdict:
    """Judge a curve of gradient norms by r_d = norm at d / norm at 0.

    log10_norm: shape (T+1,), index = distance d back from the last step; -inf is an exact zero.
    vanishing, exploding: thresholds on r, below and above 1.
    Raises ValueError for an empty curve, or one with NaN or +inf.

    >>> halving = np.arange(21) * np.log10(0.5)
    >>> verdict = judge(halving, vanishing=1e-3, exploding=1e3)
    >>> verdict.kind, verdict.pattern, round(verdict.half_life, 6), verdict.horizon_threshold
    ('vanishing', 'exponential', 1.0, 9)
    """
    log10_norm = np.asarray(log10_norm, dtype=np.float64)
    if log10_norm.ndim != 1 or log10_norm.size == 0 or not np.all(log10_norm < np.inf):
        raise ValueError("a gradient curve is a non-empty vector of finite numbers or -inf")
    curve = find_landmarks(log10_norm, vanishing=vanishing, exploding=exploding)
    if curve is None:
        return _judge_all_zero()
    tail = fit_tail(curve.log10_ratio[: curve.last_nonzero + 1], first=curve.reference, settled=_settled(curve))
    kind, half_life = kind_of(curve), _half_life(curve, tail)
    return Verdict(
        kind=kind,
        pattern=tail.pattern if tail else "mixed",
        rate_per_step=_as_factor(tail.log10_rate) if tail else None,
        exponent=tail.exponent if tail else None,
        exponent_from=tail.origin if tail else None,
        half_life=half_life,
        horizon_threshold=curve.horizon_threshold,
        horizon_float32=curve.horizon_float32,
        peak_distance=curve.peak_distance,
        peak_log10_ratio=curve.peak,
        zero_from=curve.zero_from,
        headline=words.headline(curve, tail, half_life),
        detail=words.detail(curve, tail, kind),
        reason=words.reason(curve, kind),
    )


def _settled(curve: Landmarks) -> int | None:
    """Return where the tail begins after a hump: halfway between the peak and the end."""
    return (curve.peak_distance + curve.last_nonzero) // 2 if curve.has_turned else None


def _as_factor(log10_rate: float) -> float | None:
    """Return 10**log10_rate, or None where that is no positive finite float."""
    return float(10.0**log10_rate) if abs(log10_rate) < 307 else None


def _half_life(curve: Landmarks, tail: TailFit | None) -> float | None:
    """Return the steps in which the gradient halves (see `Verdict`); None where it does not fall."""
    if tail is None or tail.pattern == "flat" or tail.log10_rate >= 0:
        return None
    if tail.pattern == "exponential":
        return -math.log10(2) / tail.log10_rate
    halved = first_where(curve.log10_ratio[curve.reference :] <= -math.log10(2))
    return None if halved is None else float(halved)


def judge_overflow(place: str, cause: Cause = Cause()) -> Verdict:
    """Return the verdict on a forward pass that left the finite numbers at `place`: "step 17, layer0: c[t] = ..."."""
    does = "overflows" if cause.overflows else "leaves the finite numbers"
    return _without_curve(
        kind="nonfinite",
        horizon=None,
        headline=f"the forward pass {does} at {place}",
        detail=f"there is no gradient from a loss that is not a number; {cause.advice}",
        reason=f"The forward pass gives a number that is not finite at {place}, so no gradient exists.",
    )


def judge_backward_overflow(place: str, cause: Cause | None = None) -> Verdict:
    """Return the verdict on a backward pass in which a derivative is not finite at `place`: "step 17, layer0"."""
    if cause is None:
        why = "a function in it has no finite derivative where it is evaluated, such as sqrt at 0"
    elif cause.operation:
        why = f"the derivative of {cause.operation} is not" + (f"; {cause.advice}" if cause.advice else "")
    else:
        why = "its derivatives are too large to be multiplied"
    return _without_curve(
        kind="nonfinite",
        horizon=None,
        headline=f"a derivative is not finite at {place}",
        detail=f"the forward pass is finite, but {why}",
        reason=f"A derivative of the forward pass is not finite at {place}, so no gradient reaches further back.",
    )


def _judge_all_zero() -> Verdict:
    return _without_curve(
        kind="dead",
        horizon=0,
        headline="is exactly zero at every distance, the last step included",
        detail="the loss does not depend on this output, or its own gradient is zero where it starts",
        reason="Every gradient norm is exactly zero, already at distance 0: the loss does not depend on the output, or "
        "its gradient with respect to the output is zero.",
    )


def _without_curve(*, kind: VerdictKind, horizon: int | None, headline: str, detail: str, reason: str) -> Verdict:
    """Return a verdict for a run that has no curve to measure."""
    return Verdict(
        kind=kind,
        pattern="flat" if kind == "dead" else "mixed",
        rate_per_step=None,
        exponent=None,
        exponent_from=None,
        half_life=None,
        horizon_threshold=horizon,
        horizon_float32=horizon,
        peak_distance=0,
        peak_log10_ratio=0.0,
        zero_from=0 if kind == "dead" else None,
        headline=headline,
        detail=detail,
        reason=reason,
    )
