"""A run as programs read it: the keys of the JSON, and the rows of the CSV."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import count, repeat
from typing import Any

from gradcli.diagnostics.clipping import Clipped
from gradcli.diagnostics.curve import Curve
from gradcli.diagnostics.measure import Measured
from gradcli.diagnostics.predictions import Prediction
from gradcli.diagnostics.verdict import Verdict
from gradcli.prepare.build import Network
from gradcli.results.model import PART, Cell, Numbers, Records

CSV_HEADER = (
    "label",
    "distance",
    "log10_norm",
    "log10_norm_p10",
    "log10_norm_p90",
    "log10_norm_mean",
    "log10_ratio",
)


def run_data(measured: Measured) -> dict[str, Any]:
    """Return a run as `--format json` gives it."""
    spec, curve = measured.network.spec, measured.curve
    return {
        "label": measured.label,
        "cell": measured.network.loaded.cell.name,
        "weights": weights_data(measured.network),
        "status": "nonfinite" if curve is None else "ok",
        "seq_len": spec.seq_len,
        "parameter_count": measured.network.parameter_count,
        "spec": resolved_spec(measured.network),
        "notes": list(measured.network.notes),
        "verdict": verdict_data(measured.verdict),
        "loss": None if curve is None else number(float(measured.losses.mean())),
        "curve": None
        if curve is None
        else curve_data(curve)
        | {"zero_from": measured.verdict.zero_from, "layers": list(measured.headline)}
        | sequences_data(measured.network),
        "total": None
        if measured.total is None
        else {"log10_norm": Numbers(measured.total.median), "log10_norm_mean": Numbers(measured.total.mean)},
        "states": {
            name: {
                "log10_norm": Numbers(state.median),
                "log10_norm_mean": Numbers(state.mean),
                "verdict": verdict_data(state.verdict),
            }
            for name, state in measured.states.items()
        },
        "parameters": {
            name: {
                "shape": list(shape),
                "copies": measured.network.problem.copies.get(name, 1),
                "log10_norm": number(measured.parameters.get(name)),
            }
            for name, shape in measured.network.shapes.items()
        },
        "predictions": [_prediction_data(prediction) for prediction in measured.predictions],
        "clip": [_clip_data(clipped) for clipped in measured.clipped],
        "float32": None,
    }


def weights_data(network: Network) -> dict[str, Any] | None:
    """Return where trained weights come from; None where there are none."""
    trained, weights = network.loaded.trained, network.spec.weights
    if trained is None or weights is None:
        return None
    return {
        "file": weights.file,
        "layer": trained.layer_name,
        "description": trained.description,
        "notes": list(trained.notes),
    }


def resolved_spec(network: Network) -> dict[str, Any]:
    """Return the spec with every default filled in; read again, it gives the same run."""
    found = {
        "input_size": network.problem.plans[0].cell.shapes.input_size,
        "tied": network.loaded.tied,
        "input_at": network.loaded.input_at,
    }
    spec = network.spec.model_copy(update=found)
    data: dict[str, Any] = spec.model_dump(mode="json", exclude_none=True)
    return data


def verdict_data(verdict: Verdict) -> dict[str, Any]:
    """Return a verdict as `--format json` gives it."""
    typical = verdict.typical
    return {
        "kind": verdict.kind,
        "pattern": verdict.pattern,
        "rate_per_step": number(verdict.rate_per_step),
        "half_life": number(verdict.half_life),
        "halved_at": verdict.halved_at,
        "horizon": _horizon_data(verdict),
        "forecast": verdict.forecast,
        "peak": {"distance": verdict.peak_distance, "log10_ratio": number(verdict.peak_log10_ratio)},
        "end": {"log10_ratio": number(verdict.end_log10_ratio)},
        "first_step": {"log10_ratio": number(verdict.first_step_log10_ratio)},
        "exponent": number(verdict.exponent),
        "exponent_from": verdict.exponent_from,
        "typical": None
        if typical is None
        else {
            "kind": typical.kind,
            "rate_per_step": number(typical.rate_per_step),
            "half_life": number(typical.half_life),
            "horizon": _horizon_data(typical),
        },
        "shares": dict(verdict.shares) or None,
        "reason": verdict.reason,
    }


def _horizon_data(verdict: Verdict) -> dict[str, int | None]:
    return {"threshold": verdict.horizon_threshold, "float32": verdict.horizon_float32}


def curve_data(curve: Curve) -> dict[str, Any]:
    return {
        "distance": range(len(curve.median)),
        "log10_norm": Numbers(curve.median),
        "log10_norm_p10": Numbers(curve.low),
        "log10_norm_p90": Numbers(curve.high),
        "log10_norm_mean": Numbers(curve.mean),
    }


def sequences_data(network: Network) -> dict[str, Any]:
    """Return how many sequences reach each distance, where their lengths differ."""
    begins = network.problem.begins
    return {} if begins is None else {"sequences": begins.reaching(network.problem.seq_len).tolist()}


def _prediction_data(prediction: Prediction) -> dict[str, Any]:
    data: dict[str, Any] = {"name": prediction.name, "rate_per_step": number(prediction.rate_per_step)}
    if prediction.spread is not None:
        low, high = prediction.spread
        data |= {"state": prediction.state, "smallest": number(low), "largest": number(high)}
    return data


def _clip_data(clipped: Clipped) -> dict[str, Any]:
    data: dict[str, Any] = {
        "method": clipped.method,
        "threshold": clipped.threshold,
        "log10_norm_before": number(clipped.log10_norm_before),
        "log10_norm_after": number(clipped.log10_norm_after),
        "scale": number(clipped.scale),
        "cosine": number(clipped.cosine),
        "fraction_clipped": clipped.fraction_clipped,
        "loss_before": number(clipped.loss_before),
        "loss_after_unclipped": number(clipped.loss_after_unclipped),
        "loss_after_clipped": number(clipped.loss_after_clipped),
    }
    if clipped.curve is not None:
        data["curve"] = curve_data(clipped.curve)
    return data


def number(value: float | None) -> float | None:
    """Return a number as JSON takes it: null for what is missing or not finite."""
    return None if value is None or not math.isfinite(value) else float(value)


def records(runs: Sequence[Measured]) -> Records:
    """Return the curves of some runs as the CSV has them, full precision."""
    return Records(CSV_HEADER, _Rows(runs))


@dataclass(frozen=True)
class _Rows:
    """One row for each distance and run, made while they are walked over: there may be millions."""

    runs: Sequence[Measured]

    def __iter__(self) -> Iterator[Sequence[Cell]]:
        for measured in self.runs:
            if measured.curve is not None:
                yield from _csv_rows(measured.label, measured.curve)


def _csv_rows(label: str, curve: Curve) -> Iterator[Sequence[Cell]]:
    reference = curve.reference
    for start in range(0, len(curve.median), PART):
        part = slice(start, start + PART)
        ratio = Numbers(curve.mean[part] - reference)[:]
        median = Numbers(curve.median)[part]
        # The curves of a single sequence are one array: their rows share the numbers made of it.
        low, high, mean = (
            median if q is curve.median else Numbers(q)[part] for q in (curve.low, curve.high, curve.mean)
        )
        yield from zip(repeat(label), count(start), median, low, high, mean, ratio, strict=False)
