"""What can be asked of a run by name, by `expect:` blocks and baselines: its figures, each with a sentence on it."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import numpy as np

from gradcli.diagnostics.certificate import Certificate
from gradcli.diagnostics.clipping import Clipped
from gradcli.diagnostics.lyapunov import Lyapunov
from gradcli.diagnostics.verdict import Verdict
from gradcli.frozen import frozen
from gradcli.numbers import CHOSEN, at_most, power_of_ten, significant, steps_text

Value = float | str | bool | None

#: From here on a number is written as a power of ten alone.
_LARGEST_LOG10 = 300.0


@frozen
class Figure:
    """One figure of a run.

    value: a number, infinite where it has no bound; the kind of the verdict; whether something holds; None where there
        is none.
    sentence: what it is, in words and with its unit, or why there is none; without a full stop.
    low, high: the least and the largest value of any trial alone, the run's own among them; None of what is no number,
        and where trials were not looked at one by one.
    """

    value: Value
    sentence: str
    low: float | None = None
    high: float | None = None

    @property
    def number(self) -> float | None:
        """The value as a number; None where it is none."""
        return float(self.value) if isinstance(self.value, int | float) and not isinstance(self.value, bool) else None


def curve_figures(verdict: Verdict, apart: Sequence[Verdict] = ()) -> dict[str, Figure]:
    """Return the figures of a curve, by the names of their checks.

    Args:
        verdict: on the run. apart: on each of its trials alone.
    """
    return {
        name: _with_range(figure(verdict), [figure(one) for one in apart]) for name, figure in CURVE_FIGURES.items()
    }


def _with_range(figure: Figure, apart: Sequence[Figure]) -> Figure:
    numbers = [number for one in (figure, *apart) if (number := one.number) is not None]
    return replace(figure, low=min(numbers), high=max(numbers)) if figure.number is not None and apart else figure


def _verdict(verdict: Verdict) -> Figure:
    return Figure(verdict.kind, f"the verdict is {verdict.kind}. {verdict.reason.removesuffix('.')}")


def _horizon(verdict: Verdict) -> Figure:
    if verdict.kind == "nonfinite":
        return _without("horizon", verdict)
    steps = verdict.horizon_threshold
    if steps is None:
        return Figure(math.inf, "the horizon is unbounded: the curve does not end below the vanishing threshold")
    return Figure(steps, f"the horizon is {steps_text(steps)}")


def _rate(verdict: Verdict) -> Figure:
    rate = verdict.rate_per_step
    if rate is not None:
        return Figure(rate, f"the rate is {number_text(rate)} a step")
    if _has_no_curve(verdict):
        return _without("rate", verdict)
    beyond = verdict.half_life is not None or verdict.kind == "exploding"
    why = "its factor a step is beyond what a number can hold" if beyond else _TOO_FEW
    return Figure(None, f"there is no rate: {why}")


def _half_life(verdict: Verdict) -> Figure:
    steps = verdict.half_life
    if steps is not None:
        return Figure(steps, f"the half-life is {number_text(steps)} {'step' if steps == 1 else 'steps'}")
    if _has_no_curve(verdict):
        return _without("half-life", verdict)
    if verdict.kind == "dead":
        return Figure(None, f"there is no half-life: the gradient is exactly zero from distance {verdict.zero_from} on")
    if verdict.rate_per_step is None and verdict.kind != "exploding":
        return Figure(None, f"there is no half-life: {_TOO_FEW}")
    return Figure(math.inf, "the half-life is unbounded: the gradient does not keep falling")


def _peak(verdict: Verdict) -> Figure:
    if _has_no_curve(verdict):
        return _without("peak", verdict)
    log10 = verdict.peak_log10_ratio
    where = f"at distance {verdict.peak_distance}"
    if log10 >= _LARGEST_LOG10:
        return Figure(math.inf, f"the largest relative norm is {power_of_ten(log10)}, {where}")
    return Figure(10.0**log10, f"the largest relative norm is {number_text(10.0**log10)}, {where}")


def _finite(verdict: Verdict) -> Figure:
    if verdict.kind == "nonfinite":
        return Figure(False, f"the run is not finite: {verdict.headline}")
    return Figure(True, "the run is finite")


_TOO_FEW = "too few distances carry a gradient"

CURVE_FIGURES: Mapping[str, Callable[[Verdict], Figure]] = {
    "verdict": _verdict,
    "horizon": _horizon,
    "rate_per_step": _rate,
    "half_life": _half_life,
    "peak": _peak,
    "finite": _finite,
}


def _has_no_curve(verdict: Verdict) -> bool:
    return verdict.kind == "nonfinite" or verdict.zero_from == 0


def _without(what: str, verdict: Verdict) -> Figure:
    return Figure(None, f"there is no {what}. {verdict.reason.removesuffix('.')}")


def certificate_figure(certificate: Certificate | None, seq_len: int) -> Figure:
    """Return whether the weights of a layer prove that its gradient vanishes; None stands for untied weights."""
    if certificate is None:
        return Figure(False, "the weights prove nothing: every step has weights of its own")
    growth = certificate.worst
    if math.isinf(growth):
        return Figure(False, "the weights prove nothing: no bound for every input was found of every derivative")
    bound = f"their bound is a factor {number_text(growth)} a step"
    if growth < 1.0 <= certificate.of_one_step:
        most = at_most(certificate.log10_most_of_carried(seq_len))
        sentence = (
            f"the weights prove that the gradient vanishes in the long run, whatever the input: {bound} at last;"
            f" before, it may grow, within {steps_text(seq_len)} by no more than a factor {most} in the states that are"
            " carried on"
        )
        return Figure(True, sentence)
    if growth < 1.0:
        bound += "" if certificate.holds_at_every_step else " in the long run"
        return Figure(True, f"the weights prove that the gradient vanishes, whatever the input: {bound}")
    return Figure(False, f"the weights prove nothing: {bound}, not below 1")


def lyapunov_figure(lyapunov: Lyapunov) -> Figure:
    """Return the leading exponent, the median over trials, in nats a step; -infinity where all is mapped to zero.

    Of a measured exponent and what the weights prove it to be at most in the long run it is the smaller: few steps tell
    of a transient, and an exponent is what remains.
    """
    leading = lyapunov.exponents[:, 0]
    middle = float(lyapunov.typical[0])
    if lyapunov.is_of_these_steps:
        measured, middle = number_text(middle), lyapunov.ceiling
        leading = np.minimum(leading, middle)
        limit = "-infinity" if math.isinf(middle) else f"at most {number_text(middle)} nats a step"
        sentence = (
            f"the leading exponent is {limit} in the long run, as the weights prove; over these"
            f" {steps_text(lyapunov.steps)} it is {measured}"
        )
    elif math.isinf(middle):
        sentence = "the leading exponent is -infinity: every direction is mapped to exactly zero"
    else:
        sentence = f"the leading exponent is {number_text(middle)} nats a step"
    return Figure(middle, sentence, float(leading.min()), float(leading.max()))


def lyapunov_of_nonfinite(verdict: Verdict) -> Figure:
    """Return the figure of a run that did not stay finite."""
    return _without("leading exponent", verdict)


#: What a method's fraction is a share of; see `gradcli.diagnostics.clipping.Clipped`.
_CLIPPED = {"norm": "trials", "value": "entries of the gradients"}


def clip_figure(clipped: Sequence[Clipped], verdict: Verdict) -> Figure:
    """Return what the first method clips; of a run without a gradient, nothing."""
    if not clipped:
        return _without("gradient to clip", verdict)
    first = clipped[0]
    if math.isnan(first.log10_norm_before):
        return Figure(None, "there is no gradient to clip: its norm is not finite")
    of = _CLIPPED.get(first.method, "states' gradients at all steps")
    share, method = first.fraction_clipped, f"{first.method} {significant(first.threshold, CHOSEN)}"
    return Figure(
        share,
        f"the share of the {of} that {method} clips is {number_text(share)}",
    )


def number_text(value: float) -> str:
    """Write a number with six digits at most, which tell apart what is compared.

    >>> number_text(0.643612345), number_text(1.0), number_text(2.5e-7), number_text(-0.01)
    ('0.643612', '1', '2.5e-7', '-0.01')
    """
    return significant(float(np.round(value, 12)) if abs(value) >= 1e-3 else value, CHOSEN)
