"""The report of `gradcli jacobian`: singular values against distance, what the weights prove, Lyapunov exponents."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from gradcli.diagnostics.certificate import Certificate
from gradcli.diagnostics.curve import median_of_trials, quantiles
from gradcli.diagnostics.layer_jacobian import JacobianFindings
from gradcli.diagnostics.lyapunov import Lyapunov
from gradcli.diagnostics.verdict import Verdict
from gradcli.diagnostics.verdict_words import grouped, threshold
from gradcli.prepare.build import Network
from gradcli.results.curves import flag, log10_text, plain_number, power_of_ten
from gradcli.results.model import Block, Cell, Column, Line, Numbers, Records, Report, Table, envelope
from gradcli.results.run_data_old import number, resolved_spec, verdict_data
from gradcli.results.simulate import describe, verdict_lines

Array = np.ndarray[Any, Any]

_COMMAND = "jacobian"
_CSV_HEADER = (
    "label",
    "distance",
    "log10_frobenius",
    "log10_largest",
    "log10_median",
    "log10_smallest",
    "log10_condition",
    "effective_rank",
    "surviving",
    "step_spectral_norm",
    "step_spectral_radius",
    "log10_bound",
)
#: Of more exponents than that, the table shows the first ones.
_EXPONENTS = 8


def nonfinite_report(command: str, network: Network, verdict: Verdict) -> Report:
    """Return the report of a forward pass that stopped being finite, for commands that look at its steps."""
    label = network.loaded.label
    blocks: list[list[Block]] = [[Line(describe(network), label, "title")], verdict_lines(verdict)]
    run = {"label": label, "status": "nonfinite", "spec": resolved_spec(network), "verdict": verdict_data(verdict)}
    return Report(command, blocks, envelope(command) | {"runs": [run]})


def jacobian_report(found: JacobianFindings) -> Report:
    """Return the report of one layer's Jacobian."""
    label = found.network.loaded.label
    growth, exponents = _lyapunov_blocks(found)
    answer: list[list[Block]] = [
        [Line(describe(found.network), label, "title"), Line(_what(found), style="dim")],
        verdict_lines(found.verdict),
        [
            growth,
            *_transient(found),
            *([] if found.certificate is None else _certificate_lines(found.certificate)),
            *_at_rest(found),
        ],
        [_product_table(found)],
    ]
    groups: list[list[Block]] = [*answer, [Line("each recurrent matrix, and the exponents: --full", "more", "dim")]]
    full: list[list[Block]] = [*answer, _matrix_table(found), [exponents]]
    data = envelope(_COMMAND) | {"runs": [_data(found)]}
    records = Records(_CSV_HEADER, list(_rows(found)))
    return Report(_COMMAND, groups, data, records, full=[group for group in full if group])


def _what(found: JacobianFindings) -> str:
    plan = found.network.problem.plans[found.network.problem.names.index(found.layer)]
    states = ", ".join(plan.states)
    which = f" of {found.layer}" if len(found.network.problem.names) > 1 else ""
    trials = found.network.spec.trials
    sequence = f"the {'first' if found.network.problem.begins is None else 'longest'} sequence"
    sample = sequence if trials == 1 else f"median over {trials} trials, {sequence} of each"
    size = grouped(found.spectra.size)
    return f"J = dS[T]/dS[T-d], S = ({states}){which}: {size} entries   {sample}   the verdict is on the norm ||J||_F"


def middle(values: Array) -> Array:
    """Return the median over trials, NaN where it is not resolved in some of them."""
    unresolved = np.isnan(values).any(axis=0)
    return np.where(unresolved, np.nan, median_of_trials(np.where(np.isnan(values), 0.0, values)))


def log10_bounds(found: JacobianFindings) -> Array:
    """Return the certificate's bound at each distance, median over trials; infinite where there is none."""
    if found.certificate is None:
        return np.full(len(found.spectra.distances), np.inf)
    return middle(found.certificate.log10_bounds(found.spectra.distances))


def _product_table(found: JacobianFindings) -> Table:
    s, thresholds = found.spectra, found.network.spec.thresholds
    bounds = log10_bounds(found)
    bounded = bool(np.isfinite(bounds).any())
    columns = [
        Column("distance", keep=9),
        Column("largest", keep=9),
        Column("bound", keep=3),
        Column("median", keep=6),
        Column("smallest", keep=7),
        Column("condition", keep=4),
        Column(f">= {threshold(thresholds.vanishing)}", keep=8),
        Column("eff. rank", keep=5),
        Column("step norm", keep=3),
        Column("radius", keep=2),
        Column("", "flag", keep=7),
    ]
    largest, median, smallest, condition = map(middle, (s.largest, s.median, s.smallest, s.condition))
    surviving, rank = np.median(s.surviving, axis=0), np.median(s.effective_rank, axis=0)
    norms, radii = np.median(s.step_norm, axis=0), np.median(s.step_radius, axis=0)
    rows: list[list[Cell]] = [
        [
            d,
            log10_text(float(largest[i])),
            log10_text(float(bounds[i])) if bounded else None,
            _log10_or_unresolved(float(median[i])),
            _log10_or_unresolved(float(smallest[i])),
            "" if math.isnan(condition[i]) else power_of_ten(float(condition[i])),
            f"{surviving[i]:.0f}",
            plain_number(float(rank[i]), digits=3),
            "" if math.isnan(norms[i]) else plain_number(float(norms[i]), digits=3),
            "" if math.isnan(radii[i]) else plain_number(float(radii[i]), digits=3),
            flag(float(largest[i]), thresholds),
        ]
        for i, d in enumerate(s.distances)
    ]
    notes = [
        f"log10 of the singular values; >= {threshold(thresholds.vanishing)}: how many directions keep that much;"
        " eff. rank: effective rank; step norm, radius: of the last factor alone"
    ]
    if np.isnan(median).any() or np.isnan(smallest).any():
        notes.append("~0: too small beside the largest for double precision to tell from rounding")
    return Table(columns, rows, note="\n".join(notes))


def _log10_or_unresolved(value: float) -> str:
    return "~0" if math.isnan(value) else log10_text(value)


def _transient(found: JacobianFindings) -> list[Block]:
    """Return the line on growth before the fall, which a product of non-normal matrices can have."""
    peak = float(np.median(found.spectra.peak))
    distance = int(np.median(found.spectra.peak_distance))
    last = len(found.curve) - 1
    if peak <= math.log10(1.05) or distance == last:
        return []
    text = (
        f"the largest singular value peaks at {power_of_ten(peak)}, {grouped(distance)} steps back: a gain that fades"
        " later, which factors that are not normal matrices can have"
    )
    return [Line(text, "transient", "warn")]


def _certificate_lines(certificate: Certificate) -> list[Block]:
    growth = float(np.median(certificate.growth))
    gammas = ", ".join(
        f"{name} {plain_number(gamma, digits=4)}" if gamma is not None else f"{name} none"
        for name, gamma in certificate.gammas.items()
    )
    slopes = f"; gamma, the largest slope: {gammas}" if gammas else ""
    if math.isinf(growth):
        where = (
            f": that of {certificate.unbounded[0]} by {certificate.unbounded[1]} has none"
            if certificate.unbounded
            else ""
        )
        text = f"none: not every derivative is bounded for every input{where}{slopes}"
        return [Line(text, "certificate", "dim")]
    value = plain_number(growth, digits=4)
    single = certificate.blocks.shape[1] == 1
    name = f"gamma * sigma_max = {value}" if single and certificate.gammas else f"bound a step = {value}"
    if certificate.growth.max() < 1.0:
        text = f"{name} < 1: whatever the input, the gradient cannot explode and falls at least that fast{slopes}"
        return [Line(text, "certificate", "good")]
    text = f"{name}, not below 1: proves nothing; exploding needs more than 1, vanishing is as possible{slopes}"
    return [Line(text, "certificate", "dim")]


def _at_rest(found: JacobianFindings) -> list[Block]:
    if found.at_rest is None:
        return []
    text = f"zero states, no input: spectral radius {plain_number(found.at_rest, digits=4)}"
    if found.critical_gain is not None:
        text += f"; critical, 1, with the recurrent matrices times {plain_number(found.critical_gain, digits=4)}"
    return [Line(text, "at rest", "dim")]


def _matrix_table(found: JacobianFindings) -> list[Block]:
    if not found.matrices:
        return []
    columns = [
        Column("recurrent matrix", "text", keep=9),
        Column("shape", "text", keep=4),
        Column("largest singular value", keep=9),
        Column("spectral radius", keep=8),
        Column("departure from normality", keep=5),
    ]
    rows: list[list[Cell]] = [
        [
            m.name,
            f"{m.shape[0]} x {m.shape[1]}",
            *(_median_text(v) for v in (m.spectral_norm, m.spectral_radius, m.departure)),
        ]
        for m in found.matrices
    ]
    return [Table(columns, rows, note="departure: Henrici's sqrt(||W||_F^2 - sum |lambda|^2), 0 for normal matrices")]


def _median_text(values: Array) -> str:
    value = float(np.median(values))
    return "" if math.isnan(value) else plain_number(value, digits=4)


def _lyapunov_blocks(found: JacobianFindings) -> tuple[Line, Table]:
    """Return the line on the leading exponent, and the table of several."""
    ly = found.lyapunov
    leading = float(np.median(ly.exponents[:, 0]))
    error = _error_of(ly, 0)
    if math.isinf(leading):
        text = "the leading exponent is -infinity: every direction is mapped to exactly zero"
    else:
        size = "" if math.isnan(error) else f" +- {plain_number(error, digits=2)}"
        factor = plain_number(math.exp(leading), digits=4)
        text = f"lambda_1 = {plain_number(leading, digits=4)}{size} nats a step, a factor {factor}"
    parts = [text, _predictability(ly, leading, error), _dimension(ly)]
    mean = f"mean over {grouped(ly.steps)} {'step' if ly.steps == 1 else 'steps'}"
    mean += f" after {grouped(ly.burn_in)} others" if ly.burn_in else ""
    shown = min(_EXPONENTS, ly.exponents.shape[1])
    columns = [Column("", "text", keep=9), *(Column(f"{i + 1}", keep=9 - i) for i in range(shown))]
    middle = median_of_trials(ly.exponents)
    errors = [_error_of(ly, i) for i in range(shown)]
    rows: list[list[Cell]] = [["lambda", *(_exponent_text(float(v)) for v in middle[:shown])]]
    if not all(map(math.isnan, errors)):
        rows.append(["+-", *("" if math.isnan(e) else plain_number(e, digits=2) for e in errors)])
    title = f"Lyapunov exponents, nats a step: {mean}"
    count = ly.exponents.shape[1]
    more = f"{shown} of {grouped(ly.size)}; --exponents all for the rest" if count < ly.size else ""
    if count > shown:
        more = f"the first {shown} of {grouped(count)} computed, all in the JSON"
    return Line("; ".join(part for part in parts if part), "growth"), Table(columns, rows, title=title, note=more)


def _exponent_text(value: float) -> str:
    return "-inf" if math.isinf(value) else plain_number(value, digits=4)


def _error_of(ly: Lyapunov, index: int) -> float:
    """Return the standard error of the median over trials, about: that of one trial, or of their spread."""
    errors = ly.standard_error[:, index]
    known = errors[np.isfinite(errors)]
    return float(np.median(known)) if known.size else math.nan


def _predictability(ly: Lyapunov, leading: float, error: float) -> str:
    if not leading > 0:
        return "no direction grows, so there is no predictability limit"
    if not math.isnan(error) and leading < 2 * error:
        return "not told from zero by its standard error"
    time = float(np.median(ly.predictability_time()))
    return f"predictability time ln 2 / lambda_1 = {plain_number(time, digits=3)} steps, a length for truncated BPTT"


def _dimension(ly: Lyapunov) -> str:
    dimension = ly.kaplan_yorke_dimension()
    if np.isnan(dimension).any():
        return "Kaplan-Yorke dimension: needs more exponents (--exponents all)"
    middle = float(np.median(dimension))
    return f"Kaplan-Yorke dimension {plain_number(middle, digits=4)} of {ly.size}" if middle else ""


def _rows(found: JacobianFindings) -> Iterator[Sequence[Cell]]:
    s = found.spectra
    largest, median, smallest, condition = map(middle, (s.largest, s.median, s.smallest, s.condition))
    bounds = log10_bounds(found)
    columns = [np.median(values, axis=0) for values in (s.effective_rank, s.surviving, s.step_norm, s.step_radius)]
    for i, d in enumerate(s.distances):
        logs = (found.curve[d], largest[i], median[i], smallest[i], condition[i])
        yield (found.network.loaded.label, d, *(map(number, logs)), *(number(c[i]) for c in columns), number(bounds[i]))


def _data(found: JacobianFindings) -> dict[str, Any]:
    s, ly, certificate = found.spectra, found.lyapunov, found.certificate
    low, high = quantiles(s.largest.T, (0.1, 0.9))
    return {
        "label": found.network.loaded.label,
        "cell": found.network.loaded.cell.name,
        "status": "ok",
        "layer": found.layer,
        "seq_len": found.network.spec.seq_len,
        "state_size": s.size,
        "spec": resolved_spec(found.network),
        "verdict": verdict_data(found.verdict),
        "frobenius": {"distance": range(len(found.curve)), "log10_norm": Numbers(found.curve)},
        "singular_values": {
            "distance": list(s.distances),
            "log10_largest": Numbers(middle(s.largest)),
            "log10_largest_p10": Numbers(low),
            "log10_largest_p90": Numbers(high),
            "log10_median": Numbers(middle(s.median)),
            "log10_smallest": Numbers(middle(s.smallest)),
            "log10_condition": Numbers(middle(s.condition)),
            "effective_rank": Numbers(np.median(s.effective_rank, axis=0)),
            "surviving": Numbers(np.median(s.surviving, axis=0)),
            "log10_bound": Numbers(log10_bounds(found)),
        },
        "one_step": {
            "distance": list(s.distances),
            "spectral_norm": Numbers(np.median(s.step_norm, axis=0)),
            "spectral_radius": Numbers(np.median(s.step_radius, axis=0)),
        },
        "peak": {
            "distance": int(np.median(s.peak_distance)),
            "log10_largest": number(float(np.median(s.peak))),
        },
        "matrices": [
            {
                "name": m.name,
                "shape": list(m.shape),
                "spectral_norm": number(float(np.median(m.spectral_norm))),
                "spectral_radius": number(float(np.median(m.spectral_radius))),
                "departure_from_normality": number(float(np.median(m.departure))),
            }
            for m in found.matrices
        ],
        "certificate": None
        if certificate is None
        else {
            "bound_per_step": number(float(np.median(certificate.growth))),
            "proves_vanishing": bool(certificate.growth.max() < 1.0),
            "gamma": dict(certificate.gammas),
            "unbounded": None if certificate.unbounded is None else list(certificate.unbounded),
        },
        "at_rest": {"spectral_radius": number(found.at_rest), "critical_gain": number(found.critical_gain)},
        "lyapunov": {
            "exponents": Numbers(median_of_trials(ly.exponents)),
            "standard_error": [number(_error_of(ly, i)) for i in range(ly.exponents.shape[1])],
            "complete": ly.complete,
            "steps": ly.steps,
            "burn_in": ly.burn_in,
            "predictability_time": number(float(np.median(ly.predictability_time()))),
            "kaplan_yorke_dimension": number(float(np.median(ly.kaplan_yorke_dimension()))),
            "entropy": number(float(np.median(ly.entropy()))),
        },
    }
