"""How far back does the gradient reach? One curve of gradient norms in, one verdict out.

The curve is read in three steps: its landmarks (where it crosses, peaks, ends), the law of its tail, and the words.
Everything stays in log10, so that 1e-39487 is as good a number as any.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import field, replace
from typing import Any

import numpy as np

from gradcli.diagnostics import verdict_words as words
from gradcli.diagnostics.curve import Curve
from gradcli.diagnostics.curve_fit import Floats, Origin, Pattern, TailFit, fit_tail
from gradcli.diagnostics.curve_landmarks import KINDS, Landmarks, find_landmarks, kind_of
from gradcli.diagnostics.forecast import forecast_of
from gradcli.diagnostics.nonfinite import Cause
from gradcli.diagnostics.shares import shares_of
from gradcli.frozen import frozen
from gradcli.spec.verdict_kinds import VerdictKind

Array = np.ndarray[Any, Any]


@frozen
class Verdict:
    """What a gradient curve does, in numbers and in words. Distances are steps back from the last step.

    r_d is the norm at d over that at the reference: distance 1, the first at which the gradient is in the recurrence.

    kind: what the curve does as far as it was measured (see `kind_of`).
    pattern: the law of its tail; it says how to read the next three.
    rate_per_step: the factor a step, from the line through the tail; the law itself where the pattern is
    "exponential", an average over the tail where it is "polynomial" or "mixed"; None where too few distances carry a
    gradient, or the factor is beyond a float.
    exponent, exponent_from: p of the polynomial r ~ d**p ("end") or r ~ (T/t)**p with t = T - d ("beginning").
    half_life: -ln 2 / ln(rate) in steps; None where the curve does not fall: its rate is not below 1, or it is
    level, or it wanders.
    halved_at: the first distance from the reference on with r <= 1/2; None where there is none.
    forecast: where no threshold has been crossed, the first distance beyond T at which the law of the tail crosses the
    nearer one; None where it never does.
    horizon_threshold, horizon_float32: the largest distance at which r is still above the vanishing threshold, or
    above float32's epsilon, and after which it never is again; None where the curve ends above it. 0 where there is
    no gradient at all.
    peak_distance, peak_log10_ratio: where r is largest, and log10 of it there.
    end_log10_ratio: log10 r at T; None for an exact zero, and where there is no curve.
    first_step_log10_ratio: log10 of the norm at the reference over that at the first distance with a gradient: what the
    read-out and one step of the recurrence take together; None where there is no such step.
    zero_from: first distance from which the curve is exactly zero to the end.
    left: what is left at the beginning, where it is reached; "" elsewhere.
    headline, detail: what it does, and where, for people; reason: why this kind, as a sentence.
    typical: the verdict on the median over sequences, where the curve is a mean over them. shares: of all sequences,
    how many have which kind by their own curves. aside: what these two say where they differ from the verdict.
    """

    kind: VerdictKind
    pattern: Pattern
    rate_per_step: float | None
    exponent: float | None
    exponent_from: Origin | None
    half_life: float | None
    halved_at: int | None
    forecast: int | None
    horizon_threshold: int | None
    horizon_float32: int | None
    peak_distance: int
    peak_log10_ratio: float
    end_log10_ratio: float | None
    first_step_log10_ratio: float | None
    zero_from: int | None
    left: str
    headline: str
    detail: str
    reason: str
    typical: Verdict | None = None
    shares: Mapping[VerdictKind, float] = field(default_factory=dict)
    aside: str = ""


def judge(log10_norm: Floats, *, vanishing: float, exploding: float) -> Verdict:
    """Judge a curve of gradient norms by r_d = norm at d / norm at 1.

    log10_norm: shape (T+1,), index = distance d back from the last step; -inf is an exact zero.
    vanishing, exploding: thresholds on r, below and above 1.
    Raises ValueError for an empty curve, or one with NaN or +inf.

    >>> halving = np.arange(21) * np.log10(0.5)
    >>> verdict = judge(halving, vanishing=1e-3, exploding=1e3)
    >>> verdict.kind, verdict.pattern, round(verdict.half_life, 6), verdict.horizon_threshold
    ('vanishing', 'exponential', 1.0, 10)
    """
    curve = _landmarks(log10_norm, vanishing, exploding)
    return _judge_all_zero() if curve is None else _judged(curve)


def judge_sequences(
    curve: Curve,
    log2_norms: Sequence[Array],
    starts: Array | None = None,
    *,
    vanishing: float,
    exploding: float,
) -> Verdict:
    """Judge the mean of the norms over sequences, and tell how the typical one and the shares differ from it.

    Args:
        curve: of the norms. log2_norms, starts: as for `gradcli.diagnostics.shares.shares_of`.
        vanishing, exploding: as for `judge`.
    """
    of_mean = _landmarks(curve.mean, vanishing, exploding)
    if of_mean is None:
        zero = _judge_all_zero()
        return replace(zero, typical=zero, shares={kind: float(kind == "dead") for kind in (*KINDS, "dead")})
    verdict, shares = _judged(of_mean), shares_of(log2_norms, of_mean, starts)
    if curve.median is curve.mean:
        return replace(verdict, typical=verdict, shares=shares)
    typical = judge(curve.median, vanishing=vanishing, exploding=exploding)
    found = replace(verdict, typical=typical, shares=shares)
    return replace(found, aside=words.aside(found, typical))


def _landmarks(log10_norm: Floats, vanishing: float, exploding: float) -> Landmarks | None:
    log10_norm = np.asarray(log10_norm, dtype=np.float64)
    if log10_norm.ndim != 1 or log10_norm.size == 0 or not np.all(log10_norm < np.inf):
        raise ValueError("a gradient curve is a non-empty vector of finite numbers or -inf")
    return find_landmarks(log10_norm, vanishing=vanishing, exploding=exploding)


def _judged(curve: Landmarks) -> Verdict:
    tail = None
    if curve.last_nonzero > curve.reference:
        measured = curve.log10_ratio[: curve.last_nonzero + 1]
        tail = fit_tail(measured, first=curve.reference, settled=_settled(curve), counted_from=curve.start)
    kind, half_life, forecast = kind_of(curve), _half_life(tail), forecast_of(curve, tail)
    return Verdict(
        kind=kind,
        pattern=tail.pattern if tail else "mixed",
        rate_per_step=_as_factor(tail.log10_rate) if tail else None,
        exponent=tail.exponent if tail else None,
        exponent_from=tail.origin if tail else None,
        half_life=half_life,
        halved_at=curve.halved_at,
        forecast=forecast,
        horizon_threshold=curve.horizon_threshold,
        horizon_float32=curve.horizon_float32,
        peak_distance=curve.peak_distance,
        peak_log10_ratio=curve.peak,
        end_log10_ratio=None if math.isinf(curve.end) else curve.end,
        first_step_log10_ratio=curve.first_step,
        zero_from=curve.zero_from,
        left=words.left(curve, kind),
        headline=words.headline(curve, tail, half_life, forecast),
        detail=words.detail(curve, tail, kind),
        reason=words.reason(curve, kind),
    )


def _settled(curve: Landmarks) -> int | None:
    """Return where the tail begins after a hump: halfway between the peak and the end."""
    return (curve.peak_distance + curve.last_nonzero) // 2 if curve.has_turned else None


def _as_factor(log10_rate: float) -> float | None:
    """Return 10**log10_rate, or None where that is no positive finite float."""
    return float(10.0**log10_rate) if abs(log10_rate) < 307 else None


def _half_life(tail: TailFit | None) -> float | None:
    """Return the steps in which the gradient halves; None where it does not fall."""
    if tail is None or tail.pattern == "flat" or not tail.has_trend or tail.log10_rate >= 0:
        return None
    return -math.log10(2) / tail.log10_rate


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
        halved_at=None,
        forecast=None,
        horizon_threshold=horizon,
        horizon_float32=horizon,
        peak_distance=0,
        peak_log10_ratio=0.0,
        end_log10_ratio=None,
        first_step_log10_ratio=None,
        zero_from=0 if kind == "dead" else None,
        left="",
        headline=headline,
        detail=detail,
        reason=reason,
    )
