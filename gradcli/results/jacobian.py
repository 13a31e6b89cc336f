"""What `gradcli jacobian` finds of one layer, each number declared once; `jacobian_report` is what a person reads."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from gradcli.diagnostics import verdict
from gradcli.diagnostics.certificate import Certificate
from gradcli.diagnostics.curve import median_of_trials, quantiles
from gradcli.diagnostics.layer_jacobian import JacobianFindings
from gradcli.diagnostics.lyapunov import Lyapunov
from gradcli.diagnostics.spectra import MatrixSpectrum
from gradcli.engine.linearised import full_state_size
from gradcli.frozen import frozen
from gradcli.numbers import shape_text, significant
from gradcli.prepare.build import Network
from gradcli.results.declared import key, keys_of
from gradcli.results.one_layer import OfOneLayer, spec_fields
from gradcli.results.run import Verdict, verdict_of

Array = np.ndarray[Any, Any]


@frozen(kw_only=True)
class FrobeniusNorms:
    """The Frobenius norm of J = dS[T]/dS[T-d] by distance d; the verdict is on the mean over trials."""

    distance: range = key("0 to T")
    log10_norm: Array = key("log10 ||J||_F, the median over trials, (T+1,)")
    log10_norm_mean: Array = key("log10 of its mean over trials, which the verdict is on")


@frozen(kw_only=True)
class SingularValues:
    """The singular values of J at D distances, each (D,); medians over trials, null where rounding hides them."""

    distance: Sequence[int] = key("the distances", csv=False)
    log10_largest: Array = key("log10 of the largest")
    log10_largest_p10: Array = key("its 10 % quantile over trials", csv=False)
    log10_largest_p90: Array = key("its 90 % quantile", csv=False)
    log10_median: Array = key("log10 of the median one")
    log10_smallest: Array = key("log10 of the smallest")
    log10_condition: Array = key("log10 of largest / smallest")
    effective_rank: Array = key("the exponential of their entropy")
    surviving: Array = key("how many are at least the vanishing threshold")
    log10_bound: Array = key("what the weights prove of the largest, whatever the input; null: nothing", csv=False)


@frozen(kw_only=True)
class LastFactor:
    """The last factor of J at the same distances, J_(T-d+1) alone, each (D,); null at distance 0, which has none."""

    distance: Sequence[int] = key("the distances", csv=False)
    spectral_norm: Array = key("its largest singular value")
    spectral_radius: Array = key("its largest |eigenvalue|")


@frozen(kw_only=True)
class LargestPeak:
    """Where the largest singular value is largest, in the trial whose peak is the median one, the lower of two."""

    distance: int = key("the distance, in the trial whose peak is the median one (of two, the lower)")
    log10_largest: float = key("log10 of it there")


def _median_text(value: float) -> str:
    return "" if math.isnan(value) else significant(value, digits=4)


@frozen(kw_only=True)
class RecurrentMatrix:
    """A recurrent matrix; medians over trials."""

    name: str = key("its name", title="recurrent matrix", text=True, keep=9)
    shape: Sequence[int] = key("its shape", title="shape", written=shape_text, text=True, keep=4)
    spectral_norm: float = key(
        "the largest singular value", title="largest singular value", written=_median_text, keep=9
    )
    spectral_radius: float = key(
        "the largest |eigenvalue|; null where it is not square", title="spectral radius", written=_median_text, keep=8
    )
    departure_from_normality: float = key(
        "sqrt(||W||_F^2 - sum |lambda|^2), 0 for normal matrices",
        title="departure from normality",
        written=_median_text,
    )


@frozen(kw_only=True)
class ProvenBound:
    """What the weights prove for every input."""

    bound_per_step: float = key("the factor a step that the bound grows by in the long run; null: there is none")
    proves_vanishing: bool = key("whether that is below 1 in every trial")
    gamma: Mapping[str, float | None] = key("the largest slope of each activation; null where it has none")
    unbounded: Sequence[str] | None = key("state, and matrix or state, of the first derivative without a bound")


@frozen(kw_only=True)
class AtRest:
    """The step with zero states and no input."""

    spectral_radius: float | None = key("of its Jacobian; null where theory has no answer")
    critical_gain: float | None = key("the recurrent matrices times this make it 1")


@frozen(kw_only=True)
class LyapunovExponents:
    """Lyapunov exponents lambda_1 >= lambda_2 >= ... in nats a step; medians over trials."""

    exponents: Array = key("those computed; null for minus infinity: a direction that is mapped to zero, a read-out")
    standard_error: Array = key("of each; null where there are too few steps")
    complete: bool = key("whether these are all")
    steps: int = key("over how many steps they are the mean")
    burn_in: int = key("how many steps before those were left out")
    long_run_bound: float = key("at most that is lambda_1 in the long run, as the weights prove; null: they do not")
    of_dynamics: bool = key("false where spikes or `stop(...)` make them exponents of the gradient alone")
    predictability_time: float = key("ln 2 / lambda_1 in steps; null where nothing grows, and without `of_dynamics`")
    kaplan_yorke_dimension: float = key("null where it needs more exponents or steps, and without `of_dynamics`")
    entropy: float = key("the sum of the positive ones; null where it needs more, and without `of_dynamics`")


@frozen(kw_only=True, repr=False, eq=False)
class JacobianOfLayer(OfOneLayer):
    """What `jacobian` found of one layer. Where it is `nonfinite`, only the verdict is there."""

    command = "jacobian"

    state_size: int = key("the size N of the full state S, so that J is N x N")
    verdict: Verdict = key("the verdict on ||J||_F")
    frobenius: FrobeniusNorms = key("||J||_F at every distance", null=lambda norms: not norms.distance)
    singular_values: SingularValues = key("the singular values of J", null=lambda values: not values.distance)
    one_step: LastFactor = key("the last factor of J alone", null=lambda factor: not factor.distance)
    peak: LargestPeak = key("where the largest singular value peaks", null=lambda peak: math.isnan(peak.log10_largest))
    matrices: Sequence[RecurrentMatrix] = key("the recurrent matrices")
    certificate: ProvenBound | None = key("what the weights prove; null where they are not tied")
    at_rest: AtRest = key("the step at rest")
    lyapunov: LyapunovExponents = key("Lyapunov exponents", null=lambda found: not len(found.exponents))


def jacobian_fields(found: JacobianFindings) -> dict[str, Any]:
    """Return the fields of `JacobianOfLayer` for what was found."""
    network, s = found.network, found.spectra
    low, high = quantiles(s.largest.T, (0.1, 0.9))
    return {
        **spec_fields(network, finite=True),
        "layer": found.layer,
        "state_size": s.size,
        "verdict": verdict_of(found.verdict),
        "frobenius": FrobeniusNorms(
            distance=range(len(found.curve)), log10_norm=found.curve, log10_norm_mean=found.mean
        ),
        "singular_values": SingularValues(
            distance=tuple(s.distances),
            log10_largest=middle(s.largest),
            log10_largest_p10=low,
            log10_largest_p90=high,
            log10_median=middle(s.median),
            log10_smallest=middle(s.smallest),
            log10_condition=middle(s.condition),
            effective_rank=np.median(s.effective_rank, axis=0),
            surviving=np.median(s.surviving, axis=0),
            log10_bound=log10_bounds(found),
        ),
        "one_step": LastFactor(
            distance=tuple(s.distances),
            spectral_norm=np.median(s.step_norm, axis=0),
            spectral_radius=np.median(s.step_radius, axis=0),
        ),
        "peak": LargestPeak(distance=int(s.peak_distance[s.middle_peak]), log10_largest=float(s.peak[s.middle_peak])),
        "matrices": tuple(map(_matrix, found.matrices)),
        "certificate": None if found.certificate is None else _proven(found.certificate),
        "at_rest": AtRest(spectral_radius=found.at_rest, critical_gain=found.critical_gain),
        "lyapunov": _exponents(found.lyapunov),
    }


def fields_without_jacobian(network: Network, index: int, found: verdict.Verdict) -> dict[str, Any]:
    """Return the same where a number was not finite.

    Args:
        index: of the layer. found: the verdict that says so.
    """
    none, problem = np.empty(0), network.problem
    values = {name: none for name in keys_of(SingularValues) if name != "distance"}
    return {
        **spec_fields(network, finite=False),
        "layer": problem.names[index],
        "state_size": full_state_size(problem.plans[index], problem.batch_size),
        "verdict": verdict_of(found),
        "frobenius": FrobeniusNorms(distance=range(0), log10_norm=none, log10_norm_mean=none),
        "singular_values": SingularValues(**values, distance=()),
        "one_step": LastFactor(distance=(), spectral_norm=none, spectral_radius=none),
        "peak": LargestPeak(distance=0, log10_largest=math.nan),
        "matrices": (),
        "certificate": None,
        "at_rest": AtRest(spectral_radius=None, critical_gain=None),
        "lyapunov": LyapunovExponents(
            exponents=none,
            standard_error=none,
            complete=False,
            steps=0,
            burn_in=0,
            long_run_bound=math.nan,
            of_dynamics=False,
            predictability_time=math.nan,
            kaplan_yorke_dimension=math.nan,
            entropy=math.nan,
        ),
    }


def _matrix(found: MatrixSpectrum) -> RecurrentMatrix:
    return RecurrentMatrix(
        name=found.name,
        shape=tuple(found.shape),
        spectral_norm=float(np.median(found.spectral_norm)),
        spectral_radius=float(np.median(found.spectral_radius)),
        departure_from_normality=float(np.median(found.departure)),
    )


def _proven(certificate: Certificate) -> ProvenBound:
    return ProvenBound(
        bound_per_step=float(np.median(certificate.growth)),
        proves_vanishing=certificate.worst < 1.0,
        gamma=dict(certificate.gammas),
        unbounded=certificate.unbounded,
    )


def _exponents(ly: Lyapunov) -> LyapunovExponents:
    return LyapunovExponents(
        exponents=ly.typical,
        standard_error=np.array([error_of(ly, i) for i in range(ly.exponents.shape[1])]),
        complete=ly.complete,
        steps=ly.steps,
        burn_in=ly.burn_in,
        long_run_bound=ly.ceiling,
        of_dynamics=ly.of_dynamics,
        predictability_time=ly.predictability_time(),
        kaplan_yorke_dimension=ly.kaplan_yorke_dimension(),
        entropy=ly.entropy(),
    )


def middle(values: Array) -> Array:
    """Return the median over trials, NaN where it is not resolved in some of them."""
    unresolved = np.isnan(values).any(axis=0)
    return np.where(unresolved, np.nan, median_of_trials(np.where(np.isnan(values), 0.0, values)))


def log10_bounds(found: JacobianFindings) -> Array:
    """Return the certificate's bound at each distance, median over trials; infinite where there is none."""
    if found.certificate is None:
        return np.full(len(found.spectra.distances), np.inf)
    return middle(found.certificate.log10_bounds(found.spectra.distances))


def error_of(ly: Lyapunov, index: int) -> float:
    """Return the standard error of the median over trials, about: that of one trial, or of their spread."""
    errors = ly.standard_error[:, index]
    known = errors[np.isfinite(errors)]
    return float(np.median(known)) if known.size else math.nan


def full_state_of(found: JacobianFindings) -> tuple[str, str]:
    """Return a name for all states of a step together that none of them has, and the Jacobian in it: dS[T]/dS[T-d]."""
    states = found.network.problem.plans[found.network.problem.names.index(found.layer)].cell.states
    name = next(letter for letter in ("S", "s", "Z", "z", "full_state") if letter not in states)
    return name, f"d{name}[T]/d{name}[T-d]"
