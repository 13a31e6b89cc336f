"""A run: what was measured of one spec. Each number is declared here, once, for Python, the JSON and the CSV."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from gradcli.frozen import frozen
from gradcli.results.clipping_rows import Clipping, clipping_row
from gradcli.results.declared import InColumns, columns_of, key
from gradcli.results.model import Deferred
from gradcli.results.norm_curve import Curve, curve_fields
from gradcli.spec.verdict_kinds import VERDICT_KINDS

if TYPE_CHECKING:
    import numpy as np

    from gradcli.diagnostics import predictions, verdict
    from gradcli.diagnostics.float32 import Float32 as SeenInFloat32
    from gradcli.diagnostics.measure import Measured, StateCurve
    from gradcli.prepare.build import Network
    from gradcli.results.model import Records

    Array = np.ndarray[Any, Any]


@frozen(kw_only=True)
class Horizon:
    """The largest distance at which the relative norm r is still above a bound; None where it ends above it."""

    threshold: int | None = key("above the vanishing threshold")
    float32: int | None = key("above float32's epsilon, 1.2e-7")


@frozen(kw_only=True)
class Peak:
    """Where r is largest."""

    distance: int = key("the distance")
    log10_ratio: float | None = key("log10 of r there")


@frozen(kw_only=True)
class Ratio:
    """A ratio of two norms."""

    log10_ratio: float | None = key("log10 of the ratio; null for an exact zero, and where there is none")


@frozen(kw_only=True)
class Typical:
    """The verdict on the typical sequence: on the median of the norms."""

    kind: str = key("its kind")
    rate_per_step: float | None = key("its factor a step")
    half_life: float | None = key("its half-life in steps")
    horizon: Horizon = key("its horizon")


@frozen(kw_only=True)
class Verdict:
    """How far the gradient reaches: of the mean of the norms, relative to that at distance 1 (r)."""

    kind: str = key(", ".join(f"`{kind}`" for kind in VERDICT_KINDS))
    pattern: str = key("the law of the tail: `exponential`, `polynomial`, `flat` or `mixed`")
    rate_per_step: float | None = key("the factor a step over the tail")
    half_life: float | None = key("ln 2 / -ln rate in steps; null where the gradient does not fall")
    halved_at: int | None = key("the first distance from 1 on with r <= 1/2")
    horizon: Horizon = key("the largest distance at which r is still above a bound; null where it ends above it")
    forecast: int | None = key(
        "the distance beyond T at which the law of the tail would cross the nearer threshold; null: crossed, or never"
    )
    peak: Peak = key("where r is largest")
    end: Ratio = key("r at T")
    first_step: Ratio = key("what the first step back takes, read-out included: the norm at distance 1 over that at 0")
    exponent: float | None = key("the power p of a polynomial tail")
    exponent_from: str | None = key("what its distances count from: `end` (r ~ d^p) or `beginning`")
    typical: Typical | None = key("the verdict on the median; null of a verdict that is not on sequences, as a state's")
    shares: Mapping[str, float] | None = key(
        "of all sequences, how many have which kind by their own norms; null likewise"
    )
    reason: str = key("why this kind, as a sentence")


@frozen(kw_only=True)
class BatchCurve(Curve):
    """A curve over sequences that may differ in length."""

    sequences: Sequence[int] | None = key(
        "how many sequences reach each distance, where their lengths differ", csv=False, optional=True
    )


@frozen(kw_only=True)
class Headline(BatchCurve):
    """The curve that the verdict is on."""

    zero_from: int | None = key("the first distance from which it is exactly zero to the end", csv=False)
    layers: Sequence[str] = key(
        "the layers whose states it joins: the top one, or its [directions](numbers.md#bidirectional-layers)", csv=False
    )


@frozen(kw_only=True)
class Total:
    """The same from the losses at all steps together, where there are several."""

    log10_norm: Array = key("the median over sequences, (T+1,)")
    log10_norm_mean: Array = key("the mean of the norms, (T+1,)")


@frozen(kw_only=True)
class State:
    """One state of one layer."""

    log10_norm: Array = key("the median over sequences, (T+1,)")
    log10_norm_mean: Array = key("the mean of the norms, (T+1,)")
    verdict: Verdict | None = key(
        "the verdict on that mean; null where it is nothing but rounding of parts that cancel"
    )


@frozen(kw_only=True)
class Parameter:
    """One parameter."""

    shape: Sequence[int] = key("its shape")
    copies: int = key(
        "how many of the framework's it is the sum of: 2 of PyTorch's [two biases](initialisation.md#two-biases), each"
        " with this gradient, 0 of the bias of a readout that has none, else 1"
    )
    log10_norm: float | None = key("log10 of the norm of the batch loss's gradient, the median over trials")


@frozen(kw_only=True)
class Prediction:
    """A rate that theory gives."""

    name: str = key("`rest`, `active`, `mean_field`, or `gates`: that of the slowest units of a direct route")
    rate_per_step: float | None = key("the factor a step")
    state: str | None = key("the state of a direct route", optional=True)
    smallest: float | None = key("the smallest factor among its units", optional=True)
    largest: float | None = key("the largest one", optional=True)


@frozen(kw_only=True)
class Float32:
    """What training in float32 would see."""

    zero_from: int | None = key("the distance from which the gradient is exactly 0")
    nonfinite_from: int | None = key("the distance from which it is Inf or NaN")
    loss: str = key("`finite` or `nonfinite`")
    gradient: str = key("of the parameters: `finite`, `zero` or `nonfinite`")
    norm: str = key("of all of them, as clipping takes it: `finite`, `zero` or `nonfinite`")
    parameters: Mapping[str, str] = key("each parameter's gradient, likewise")


@frozen(kw_only=True)
class Weights:
    """Where trained weights come from."""

    file: str = key("the checkpoint")
    layer: str | None = key("its recurrent layer; null where a map alone gives them")
    description: str = key("what it is")
    notes: Sequence[str] = key("how it was read")


@frozen(kw_only=True, repr=False, eq=False)
class Run:
    """One spec, run and measured."""

    label: str = key("the file's name without its ending, or the cell's; with a number where two are the same")
    cell: str = key("the name of its cell")
    weights: Weights | None = key("where [trained weights](weights.md) come from; null without any")
    status: str = key("`ok`, or `nonfinite`, where there is no gradient")
    seq_len: int = key("T")
    parameter_count: int = key(
        "of the recurrent layers, as the framework counts them: [two biases](initialisation.md#two-biases) are two"
    )
    spec: Mapping[str, Any] = key("the spec with every default filled in; read again, it gives the same run")
    notes: Sequence[str] = key("how files were read, such as the means and standard deviations of their features")
    verdict: Verdict = key("[how far the gradient reaches](numbers.md#the-verdict): of the mean of the norms")
    loss: float | None = key("the batch loss, the mean over trials")
    curve: Headline = key(
        "norms by distance, from the last loss alone; null (Python: empty) where `nonfinite`",
        null=lambda curve: not curve.distance,
    )
    total: Total | None = key(
        "the same from the losses at [all steps together](numbers.md#distance-and-gradient); null where there is one"
    )
    states: Mapping[str, State] = key("each state's own curve, such as `layer0.h`")
    parameters: Mapping[str, Parameter] = key("each parameter, such as `layer0.W_hh`")
    predictions: Sequence[Prediction] = key("rates that theory gives")
    clip: Sequence[Clipping] = key("what clipping would do")
    float32: Float32 | None = key("[what float32 sees](numbers.md#what-float32-sees); null with `dtype: float64`")

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {judged_words(self.label, self.verdict)}>"


def judged_words(label: str, verdict: Verdict | None) -> str:
    """Return a label and the verdict beside it in a few words: "lstm: vanishing, horizon 14"."""
    if verdict is None:
        return label
    horizon = verdict.horizon.threshold
    reach = "" if horizon is None or verdict.kind in ("dead", "nonfinite") else f", horizon {horizon}"
    return f"{label}: {verdict.kind}{reach}"


def run_fields(measured: Measured) -> dict[str, Any]:
    """Return the fields of `Run` for what was measured."""
    network, curve = measured.network, measured.curve
    return {
        "label": measured.label,
        "cell": network.loaded.cell.name,
        "weights": weights_of(network),
        "status": "nonfinite" if curve is None else "ok",
        "seq_len": network.spec.seq_len,
        "parameter_count": network.parameter_count,
        "spec": resolved_spec(network),
        "notes": tuple(network.notes),
        "verdict": verdict_of(measured.verdict),
        "loss": None if curve is None else float(network.problem.loss.of_batch(measured.losses).mean()),
        "curve": _headline(measured),
        "total": None
        if measured.total is None
        else Total(log10_norm=measured.total.median, log10_norm_mean=measured.total.mean),
        "states": {
            name: State(log10_norm=state.median, log10_norm_mean=state.mean, verdict=_state_verdict(state))
            for name, state in measured.states.items()
        },
        "parameters": {
            name: Parameter(
                shape=tuple(shape),
                copies=network.problem.copies.get(name, 1),
                log10_norm=measured.parameters.get(name),
            )
            for name, shape in network.trained_shapes.items()
        },
        "predictions": tuple(map(_prediction, measured.predictions)),
        "clip": tuple(map(clipping_row, measured.clipped)),
        "float32": float32_of(measured.float32),
    }


def _state_verdict(state: StateCurve) -> Verdict | None:
    return None if state.is_rounding else verdict_of(state.verdict)


def run_of(measured: Measured) -> Run:
    """Return what was measured as a run."""
    return Run(**run_fields(measured))


def weights_of(network: Network) -> Weights | None:
    """Return where trained weights come from; None where there are none."""
    trained, weights = network.loaded.trained, network.spec.weights
    if trained is None or weights is None:
        return None
    return Weights(
        file=weights.file, layer=trained.layer_name, description=trained.description, notes=tuple(trained.notes)
    )


def resolved_spec(network: Network) -> Mapping[str, Any]:
    """Return the spec with every default filled in, made when it is looked into."""

    found = {
        "input_size": network.problem.plans[0].cell.shapes.input_size,
        "tied": network.loaded.tied,
        "input_at": network.loaded.input_at,
    }
    spec = network.spec.model_copy(update=found)  # and not the network, with all of its arrays
    return Deferred(partial(spec.model_dump, mode="json", exclude_none=True))


def verdict_of(found: verdict.Verdict) -> Verdict:
    """Return a verdict as the JSON and Python have it."""
    typical = found.typical
    return Verdict(
        kind=found.kind,
        pattern=found.pattern,
        rate_per_step=found.rate_per_step,
        half_life=found.half_life,
        halved_at=found.halved_at,
        horizon=_horizon(found),
        forecast=found.forecast,
        peak=Peak(distance=found.peak_distance, log10_ratio=found.peak_log10_ratio),
        end=Ratio(log10_ratio=found.end_log10_ratio),
        first_step=Ratio(log10_ratio=found.first_step_log10_ratio),
        exponent=found.exponent,
        exponent_from=found.exponent_from,
        typical=None
        if typical is None
        else Typical(
            kind=typical.kind,
            rate_per_step=typical.rate_per_step,
            half_life=typical.half_life,
            horizon=_horizon(typical),
        ),
        shares={str(kind): share for kind, share in found.shares.items()} or None,
        reason=found.reason,
    )


def _horizon(found: verdict.Verdict) -> Horizon:
    return Horizon(threshold=found.horizon_threshold, float32=found.horizon_float32)


def sequences_of(network: Network) -> Sequence[int] | None:
    """Return how many of the sequences that the curve is of reach each distance, where their lengths differ."""
    from gradcli.diagnostics.measure import headline_layers

    problem = network.problem
    if problem.begins is None:
        return None
    found: list[int] = problem.begins.reaching(problem.seq_len, problem.entered(headline_layers(problem))).tolist()
    return found


def _headline(measured: Measured) -> Headline:
    return Headline(
        **curve_fields(measured.curve),
        zero_from=measured.verdict.zero_from,
        layers=tuple(measured.headline),
        sequences=sequences_of(measured.network),
    )


def _prediction(found: predictions.Prediction) -> Prediction:
    low, high = found.spread or (None, None)
    state = None if found.spread is None else found.state
    return Prediction(name=found.name, rate_per_step=found.rate_per_step, state=state, smallest=low, largest=high)


def float32_of(seen: SeenInFloat32 | None) -> Float32 | None:
    """Return what float32 would see; None for a run in float64."""
    if seen is None:
        return None
    return Float32(
        zero_from=seen.zero_from,
        nonfinite_from=seen.nonfinite_from,
        loss=seen.loss,
        gradient=seen.gradient,
        norm=seen.norm,
        parameters=dict(seen.parameters),
    )


def curve_records(runs: Sequence[Run]) -> Records:
    """Return the curves of some runs as the CSV has them, full precision; a run without one has no rows."""
    parts = [{"label": run.label, **columns_of(run.curve)} for run in runs]
    return InColumns(list(parts[0]), parts).records
