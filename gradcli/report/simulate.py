"""The report of `gradcli simulate`: verdict first, then the curve, the parameters, and what clipping would do."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from gradcli.diagnostics.clipping import Clipped
from gradcli.diagnostics.curve import Curve
from gradcli.diagnostics.measure import Measured
from gradcli.diagnostics.verdict import Verdict
from gradcli.report.curves import (
    bars,
    flag,
    json_curve,
    log10_text,
    number,
    power_of_ten,
    range_text,
    shown_distances,
)
from gradcli.report.model import Block, Cell, Column, Line, Records, Report, Style, Table, envelope
from gradcli.spec.models import Spec

STYLES: dict[str, Style] = {
    "stable": "good",
    "vanishing": "bad",
    "exploding": "bad",
    "transient": "warn",
    "dead": "bad",
    "nonfinite": "bad",
}

CSV_HEADER = ("label", "distance", "log10_norm", "log10_norm_p10", "log10_norm_p90", "log10_ratio")


def simulation_report(measured: Measured) -> Report:
    """Return the report of one run."""
    groups: list[list[Block]] = [[Line(describe(measured), measured.label, "title")], verdict_lines(measured.verdict)]
    if measured.curve is not None:
        groups += [
            [_curve_table(measured, measured.curve)],
            _parameter_lines(measured),
            _clip_blocks(measured),
        ]
    return Report(
        "simulate",
        [group for group in groups if group],
        envelope("simulate") | {"runs": [run_data(measured)]},
        Records(CSV_HEADER, csv_rows(measured)),
    )


def describe(measured: Measured) -> str:
    """Return the sizes and settings of a run in a line."""
    spec = measured.network.spec
    cell = measured.network.loaded.cell
    activation = spec.activation or cell.activation
    parts = [f"({activation})" if activation else "", cell.title or ""]
    sizes = [f"hidden {spec.hidden_size}"]
    if measured.network.cell.uses_input:
        sizes.append(f"input {measured.network.problem.plans[0].cell.shapes.input_size}")
    if spec.num_layers > 1:
        sizes.append(f"{spec.num_layers} layers")
    sizes += [
        f"T = {spec.seq_len}",
        f"{_count(spec.trials, 'trial')} x {_count(spec.batch_size, 'sequence')}",
        f"loss {loss_words(spec)}",
    ]
    if spec.dtype != "float64":
        sizes.append(spec.dtype)
    return "   ".join([" ".join(part for part in parts if part), ", ".join(sizes)]).strip()


def loss_words(spec: Spec) -> str:
    at = spec.loss.at
    where = "at the last step" if at == "last" else "at every step" if at == "every" else f"at {_steps(at)}"
    return f"{spec.loss.kind} {where}"


def _steps(steps: Sequence[int]) -> str:
    shown = ", ".join(map(str, steps[:4])) + (", ..." if len(steps) > 4 else "")
    return f"step {shown}" if len(steps) == 1 else f"steps {shown}"


def _count(count: int, noun: str) -> str:
    return f"{count} {noun}" + ("" if count == 1 else "s")


def verdict_lines(verdict: Verdict) -> list[Block]:
    """Return the verdict in words."""
    text = "\n".join(part for part in (verdict.headline, verdict.detail) if part)
    return [Line(text, verdict.kind.upper(), STYLES[verdict.kind])]


def _curve_table(measured: Measured, curve: Curve) -> Table:
    verdict = measured.verdict
    also = [d for d in (verdict.horizon_threshold, verdict.peak_distance, verdict.zero_from) if d is not None]
    distances = shown_distances(len(curve.median) - 1, also)
    start = _reference(curve)
    clipped = [c for c in measured.clipped if c.curve is not None]
    ratios = [float(curve.median[d]) - start for d in distances]
    columns = [
        Column("distance", keep=9),
        Column("log10 norm", keep=9),
        Column("10-90 %", keep=4),
        *(Column(f"{_method(c)}", keep=6) for c in clipped),
        Column("", "bar", keep=5),
        Column("relative", keep=8),
        Column("", "flag", keep=7),
    ]
    many = curve.low.shape and measured.network.spec.trials * measured.network.spec.batch_size > 1
    rows: list[list[Cell]] = []
    for d, ratio, bar in zip(distances, ratios, bars(ratios), strict=True):
        spread = range_text(float(curve.low[d]), float(curve.high[d])) if many else None
        rows.append(
            [
                d,
                log10_text(float(curve.median[d])),
                spread,
                *(log10_text(float(c.curve.median[d])) for c in clipped if c.curve is not None),
                bar,
                power_of_ten(ratio),
                flag(ratio, measured.network.spec.thresholds),
            ]
        )
    return Table(columns, rows)


def _reference(curve: Curve) -> float:
    """Return log10 of the norm that others are relative to: at distance 0, or the first that is not zero."""
    return next((float(value) for value in curve.median if math.isfinite(value)), 0.0)


def _method(clipped: Clipped) -> str:
    return f"{clipped.method} {clipped.threshold:g}"


def _parameter_lines(measured: Measured) -> list[Block]:
    several = measured.network.spec.num_layers > 1 or any(n.startswith("readout.") for n in measured.parameters)
    parts = [
        f"{name if several else name.partition('.')[2]} {power_of_ten(norm)}"
        for name, norm in measured.parameters.items()
    ]
    if not parts:
        return []
    return [Line("   ".join(parts) + "   (norm of the batch loss's gradient)", "parameters", "dim")]


def _clip_blocks(measured: Measured) -> list[Block]:
    if not measured.clipped:
        return []
    columns = [
        Column("clipping", "text", keep=9),
        Column("norm before", keep=8),
        Column("after", keep=8),
        Column("scale", keep=6),
        Column("cosine", keep=5),
        Column("clipped", keep=4),
        Column("loss", keep=3),
        Column("after a step", keep=3),
        Column("clipped step", keep=3),
    ]
    rows: list[list[Cell]] = [
        [
            _method(c),
            power_of_ten(c.log10_norm_before),
            power_of_ten(c.log10_norm_after),
            _digits(c.scale),
            _digits(c.cosine),
            _percent(c.fraction_clipped),
            _digits(c.loss_before),
            _digits(c.loss_after_unclipped),
            _digits(c.loss_after_clipped),
        ]
        for c in measured.clipped
    ]
    return [Table(columns, rows), Line(clipping_sentence(measured), style="plain")]


def _percent(fraction: float) -> str:
    """Return a share in percent; what is not quite nothing or all does not round to it."""
    if 0 < fraction < 0.01:
        return "< 1%"
    return "> 99%" if 0.99 < fraction < 1 else f"{fraction:.0%}"


def _digits(value: float | None) -> str:
    if value is None:
        return "not finite"
    return f"{value:.4g}"


def clipping_sentence(measured: Measured) -> str:
    """Say in a sentence what clipping can and cannot do here."""
    verdict = measured.verdict
    changed = [c for c in measured.clipped if c.fraction_clipped > 0]
    falls = verdict.kind in ("vanishing", "dead") or (verdict.kind == "transient" and verdict.horizon_threshold)
    if falls:
        start = "Clipping cannot bring back what has vanished: it only scales gradients down."
        return start if changed else f"No threshold is reached. {start}"
    if not changed:
        return "No threshold is reached: clipping changes nothing here."
    inside = [c for c in changed if c.curve is not None]
    if inside:
        return (
            "Inside BPTT clipping caps the gradient at each step and changes the curve; afterwards it scales all"
            " distances alike."
        )
    return "Clipping after BPTT scales the gradients of all distances alike: the curve keeps its shape."


def run_data(measured: Measured) -> dict[str, Any]:
    """Return a run as `--format json` gives it."""
    spec = measured.network.spec
    data: dict[str, Any] = {
        "label": measured.label,
        "cell": measured.network.loaded.cell.name,
        "status": "nonfinite" if measured.curve is None else "ok",
        "seq_len": spec.seq_len,
        "parameter_count": measured.network.parameter_count,
        "spec": resolved_spec(measured),
        "verdict": verdict_data(measured.verdict),
        "loss": number(float(measured.run.losses.mean())) if measured.curve is not None else None,
    }
    curve = measured.curve
    data["curve"] = None if curve is None else _curve_data(curve) | {"zero_from": measured.verdict.zero_from}
    data["states"] = {name: {"log10_norm": json_curve(values)} for name, values in measured.states.items()}
    data["parameters"] = {
        name: {"shape": list(shape), "log10_norm": number(measured.parameters.get(name))}
        for name, shape in measured.network.shapes.items()
    }
    data["clip"] = [_clip_data(clipped) for clipped in measured.clipped]
    return data


def resolved_spec(measured: Measured) -> dict[str, Any]:
    """Return the spec with every default filled in; read again, it gives the same run."""
    network = measured.network
    spec = network.spec.model_copy(update={"input_size": network.problem.plans[0].cell.shapes.input_size})
    data: dict[str, Any] = spec.model_dump(mode="json", exclude_none=True)
    return data


def verdict_data(verdict: Verdict) -> dict[str, Any]:
    return {
        "kind": verdict.kind,
        "pattern": verdict.pattern,
        "rate_per_step": number(verdict.rate_per_step),
        "half_life": number(verdict.half_life),
        "horizon": {"threshold": verdict.horizon_threshold, "float32": verdict.horizon_float32},
        "peak": {"distance": verdict.peak_distance, "log10_ratio": number(verdict.peak_log10_ratio)},
        "exponent": number(verdict.exponent),
        "exponent_from": verdict.exponent_from,
        "reason": verdict.reason,
    }


def _curve_data(curve: Curve) -> dict[str, Any]:
    return {
        "distance": list(range(len(curve.median))),
        "log10_norm": json_curve(curve.median),
        "log10_norm_p10": json_curve(curve.low),
        "log10_norm_p90": json_curve(curve.high),
    }


def _clip_data(clipped: Clipped) -> dict[str, Any]:
    data: dict[str, Any] = {
        "method": clipped.method,
        "threshold": clipped.threshold,
        "log10_norm_before": number(clipped.log10_norm_before),
        "log10_norm_after": number(clipped.log10_norm_after),
        "scale": number(clipped.scale),
        "cosine": number(clipped.cosine),
        "fraction_clipped": clipped.fraction_clipped,
        "loss_before": clipped.loss_before,
        "loss_after_unclipped": clipped.loss_after_unclipped,
        "loss_after_clipped": clipped.loss_after_clipped,
    }
    if clipped.curve is not None:
        data["curve"] = _curve_data(clipped.curve)
    return data


def csv_rows(measured: Measured) -> list[list[Cell]]:
    """Return the curve as rows of the CSV, full precision."""
    curve = measured.curve
    if curve is None:
        return []
    start = _reference(curve)
    return [
        [measured.label, d, number(m), number(low), number(high), number(m - start)]
        for d, (m, low, high) in enumerate(
            zip(curve.median.tolist(), curve.low.tolist(), curve.high.tolist(), strict=True)
        )
    ]
