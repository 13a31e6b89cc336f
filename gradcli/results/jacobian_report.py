"""What a person reads of `gradcli jacobian`: singular values by distance, what the weights prove, and exponents."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from gradcli.diagnostics import verdict
from gradcli.diagnostics.certificate import Certificate
from gradcli.diagnostics.layer_jacobian import JacobianFindings
from gradcli.diagnostics.lyapunov import Lyapunov
from gradcli.numbers import (
    at_most,
    factor,
    grouped,
    log10_text,
    power_of_ten,
    significant,
    steps_text,
    threshold,
)
from gradcli.prepare.build import Network
from gradcli.results.curves import flag
from gradcli.results.declared import InColumns, columns_of, table_of
from gradcli.results.jacobian import (
    FrobeniusNorms,
    JacobianOfLayer,
    LastFactor,
    RecurrentMatrix,
    SingularValues,
    error_of,
    fields_without_jacobian,
    full_state_of,
    jacobian_fields,
)
from gradcli.results.model import Block, Cell, Column, Line, Records, Report, Table, filled
from gradcli.results.simulate import describe, verdict_lines
from gradcli.spec.models import Thresholds

#: Of more exponents than that, the table shows the first ones.
_EXPONENTS = 8


def jacobian_of_layer(found: JacobianFindings) -> JacobianOfLayer:
    """Return the result for one layer's Jacobian."""
    fields = jacobian_fields(found)
    label = found.network.loaded.label
    growth, exponents = _lyapunov_blocks(found)
    product = _product_table(fields["singular_values"], fields["one_step"], found)
    answer: list[list[Block]] = [
        [Line(describe(found.network), label, "title"), Line(_what(found), style="dim")],
        verdict_lines(found.verdict),
        [
            growth,
            *_transient(found),
            *([] if found.certificate is None else _certificate_lines(found.certificate, found)),
            *_at_rest(found),
        ],
        [product],
    ]
    groups: list[list[Block]] = [*answer, [Line("each recurrent matrix, and the exponents: --full", "more", "dim")]]
    note = "departure: Henrici's sqrt(||W||_F^2 - sum |lambda|^2), 0 for normal matrices"
    matrices = table_of(RecurrentMatrix, fields["matrices"], note=note)
    full = filled([*answer, matrices, [exponents]])
    return JacobianOfLayer(**fields, shown=Report("jacobian", groups, records=_records(fields), full=full))


def jacobian_not_finite(network: Network, index: int, found: verdict.Verdict) -> JacobianOfLayer:
    """Return the result where a number was not finite, which is the verdict alone.

    Args:
        index: of the layer. found: the verdict that says so.
    """
    fields = fields_without_jacobian(network, index, found)
    blocks: list[list[Block]] = [[Line(describe(network), network.loaded.label, "title")], verdict_lines(found)]
    return JacobianOfLayer(**fields, shown=Report("jacobian", blocks, records=_records(fields)))


def _records(fields: Mapping[str, Any]) -> Records:
    frobenius: FrobeniusNorms = fields["frobenius"]
    values: SingularValues = fields["singular_values"]
    part = {
        "label": fields["label"],
        "distance": values.distance,
        "log10_frobenius": frobenius.log10_norm[list(values.distance)],
        **columns_of(values),
        **columns_of(fields["one_step"], "step_"),
        "log10_bound": values.log10_bound,
    }
    return InColumns(list(part), [part]).records


def _what(found: JacobianFindings) -> str:
    plan = found.network.problem.plans[found.network.problem.names.index(found.layer)]
    states = ", ".join(plan.cell.states)
    which = f" of {found.layer}" if len(found.network.problem.names) > 1 else ""
    trials = found.network.spec.trials
    sequence = f"the {'first' if found.network.problem.begins is None else 'longest'} sequence"
    sample = sequence if trials == 1 else f"median over {trials} trials, {sequence} of each"
    size = grouped(found.spectra.size)
    name, jacobian = full_state_of(found)
    judged = "the norm" if trials == 1 else "the mean of the norm"
    return f"J = {jacobian}, {name} = ({states}){which}: {size} entries   {sample}   the verdict is on {judged} ||J||_F"


def _product_table(values: SingularValues, last: LastFactor, found: JacobianFindings) -> Table:
    thresholds: Thresholds = found.network.spec.thresholds
    bounded = bool(np.isfinite(values.log10_bound).any())
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
    rows: list[list[Cell]] = [
        [
            d,
            log10_text(float(values.log10_largest[i])),
            log10_text(float(values.log10_bound[i])) if bounded else None,
            _log10_or_unresolved(float(values.log10_median[i])),
            _log10_or_unresolved(float(values.log10_smallest[i])),
            "" if math.isnan(values.log10_condition[i]) else power_of_ten(float(values.log10_condition[i])),
            f"{values.surviving[i]:.0f}",
            significant(float(values.effective_rank[i]), digits=3),
            "" if math.isnan(last.spectral_norm[i]) else significant(float(last.spectral_norm[i]), digits=3),
            "" if math.isnan(last.spectral_radius[i]) else significant(float(last.spectral_radius[i]), digits=3),
            flag(float(values.log10_largest[i]), thresholds),
        ]
        for i, d in enumerate(values.distance)
    ]
    notes = [
        f"log10 of the singular values; >= {threshold(thresholds.vanishing)}: how many directions keep that much;"
        " eff. rank: effective rank; step norm, radius: of the last factor alone"
    ]
    if np.isnan(values.log10_median).any() or np.isnan(values.log10_smallest).any():
        notes.append("~0: too small beside the largest for double precision to tell from rounding")
    if found.read_out:
        entries = grouped(found.spectra.size - found.lyapunov.carried)
        notes.append(f"no later step sends {_named(found.read_out)} a gradient: {entries} directions end in exactly 0")
    return Table(columns, rows, note="\n".join(notes))


def _named(states: Sequence[str]) -> str:
    return " and ".join(part for part in (", ".join(states[:-1]), states[-1]) if part)


def _log10_or_unresolved(value: float) -> str:
    return "~0" if math.isnan(value) else log10_text(value)


def _transient(found: JacobianFindings) -> list[Block]:
    """Return the line on growth before the fall, which a product of non-normal matrices can have."""
    spectra = found.spectra
    trial = spectra.middle_peak
    peak, distance = float(spectra.peak[trial]), int(spectra.peak_distance[trial])
    last, left = spectra.distances[-1], float(spectra.largest[trial, -1])
    shown = float(np.median(spectra.largest, axis=0).max())
    # Where the peaks of trials lie apart, that of the middle one need not be in the table.
    if min(peak, shown) <= math.log10(1.05) or distance == last:
        return []
    told = {(power_of_ten(float(p)), int(d)) for p, d in zip(spectra.peak, spectra.peak_distance, strict=True)}
    which = f" in trial {trial + 1}" if len(told) > 1 else ""
    text = f"the largest singular value{which} peaks at {power_of_ten(peak)}, {steps_text(distance)} back"
    if left < 0.0:
        text += ": a gain that fades later, which factors that are not normal matrices can have"
    else:
        text += f", and is {power_of_ten(left)} at {steps_text(last)} back: a gain that has not faded there"
    return [Line(text, "transient", "warn")]


def _certificate_lines(certificate: Certificate, found: JacobianFindings) -> list[Block]:
    growth = float(np.median(certificate.growth))
    gammas = ", ".join(
        f"{name} {significant(gamma, digits=4)}" if gamma is not None else f"{name} none"
        for name, gamma in certificate.gammas.items()
    )
    slopes = f"; gamma, the largest slope: {gammas}" if gammas else ""
    if math.isinf(growth):
        where = f", such as that of {' by '.join(certificate.unbounded)}" if certificate.unbounded else ""
        text = f"none: no bound that holds for every input was found of every derivative{where}{slopes}"
        return [Line(text, "certificate", "dim")]
    value, most = _below_one(growth), _below_one(certificate.worst)
    if most != value and min(growth, certificate.of_one_step) <= 1.0:
        value = f"{most} in the worst trial ({value} in the median one)"  # what is proven holds in all of them
    single = len(certificate.carried) == 1
    name = f"gamma * sigma_max = {value}" if single and certificate.gammas else f"bound a step = {value}"
    seq_len, one_step = len(found.curve) - 1, certificate.of_one_step
    if certificate.worst < 1.0:
        if certificate.holds_at_every_step:
            proves = "the gradient cannot explode and falls at least that fast"
        elif one_step < 1.0:
            proves = (
                f"the gradient cannot explode and falls at every step, to {math.ceil(1e4 * one_step) / 1e4:g} or less"
            )
        else:
            proves = f"the gradient vanishes; before, it may grow, {_at_most(certificate, seq_len)}"
        in_the_end = "" if certificate.holds_at_every_step else " in the long run"
        held = _out_of_read_outs(certificate, seq_len, found.read_out)
        text = f"{name} < 1{in_the_end}: whatever the input, {proves}{held}{slopes}"
        return [Line(text, "certificate", "good")]
    if one_step <= 1.0:
        held = _out_of_read_outs(certificate, seq_len, found.read_out)
        text = f"{name}: whatever the input, no step makes the gradient larger{held}; it need not fall{slopes}"
        return [Line(text, "certificate", "good")]
    text = f"{name}, not below 1: proves nothing; exploding needs more than 1, vanishing is as possible{slopes}"
    return [Line(text, "certificate", "dim")]


def _below_one(rate: float) -> str:
    """Write a factor, so that one just below 1 is not 1."""
    text = significant(rate, digits=4)
    return factor(math.log10(rate)) if rate < 1.0 and text == "1" else text


def _at_most(certificate: Certificate, seq_len: int) -> str:
    most = at_most(certificate.log10_most_of_carried(seq_len))
    return f"within {steps_text(seq_len)} by no more than a factor {most}"


def _out_of_read_outs(certificate: Certificate, seq_len: int, read_out: Sequence[str]) -> str:
    """Return from where on what is said holds: a read-out may hand on a gradient that is larger than its own."""
    most, carried = certificate.log10_most(seq_len), certificate.log10_most_of_carried(seq_len)
    if not read_out or most <= carried + 1e-9:
        return ""
    with_it = (
        f"a factor {at_most(most)} at most with it" if math.isfinite(most) else "of whose slope no bound was found"
    )
    return f" once it has left {_named(read_out)}, where no later step sends one ({with_it})"


def _at_rest(found: JacobianFindings) -> list[Block]:
    if found.at_rest is None:
        return []
    text = f"zero states, no input: spectral radius {significant(found.at_rest, digits=4)}"
    if found.critical_gain is not None:
        text += f"; critical, 1, with the recurrent matrices times {significant(found.critical_gain, digits=4)}"
    return [Line(text, "at rest", "dim")]


def _lyapunov_blocks(found: JacobianFindings) -> tuple[Line, Table]:
    """Return the line on the leading exponent, and the table of several."""
    ly = found.lyapunov
    leading = float(ly.typical[0])
    error = error_of(ly, 0)
    if math.isinf(leading):
        text = "the leading exponent is -infinity: every direction is mapped to exactly zero"
    else:
        size = "" if math.isnan(error) else f" +- {significant(error, digits=2)}"
        rate = significant(math.exp(leading), digits=4)
        text = f"lambda_1 = {significant(leading, digits=4)}{size} nats a step, a factor {rate}"
    says = _of_dynamics(ly, leading, error) if ly.of_dynamics else [_OF_THE_GRADIENT[ly.substitutes[0]]]
    parts = [text, *_finite_time(ly), *says]
    mean = f"mean over {steps_text(ly.steps)}"
    mean += f" after {grouped(ly.burn_in)} others" if ly.burn_in else ""
    shown = min(_EXPONENTS, ly.exponents.shape[1])
    columns = [Column("", "text", keep=9), *(Column(f"{i + 1}", keep=9 - i) for i in range(shown))]
    middle = ly.typical
    errors = [error_of(ly, i) for i in range(shown)]
    rows: list[list[Cell]] = [["lambda", *(_exponent_text(float(v)) for v in middle[:shown])]]
    if not all(map(math.isnan, errors)):
        rows.append(["+-", *("" if math.isnan(e) else significant(e, digits=2) for e in errors)])
    title = f"Lyapunov exponents, nats a step: {mean}"
    count = ly.exponents.shape[1]
    more = f"{shown} of {grouped(ly.size)}; --exponents all for the rest" if count < ly.size else ""
    if count > shown:
        more = f"the first {shown} of {grouped(count)} computed, all in the JSON"
    return Line("; ".join(part for part in parts if part), "growth"), Table(columns, rows, title=title, note=more)


def _exponent_text(value: float) -> str:
    return "-inf" if math.isinf(value) else significant(value, digits=4)


#: Of the gradient's own Jacobian, in place of what would be said of the dynamics.
_OF_THE_GRADIENT = {
    "spike": "of the surrogate's Jacobian, not of the dynamics: it tells nothing of how predictable the spikes are",
    "stop": "of the Jacobian without what stop(...) holds back, not of the dynamics: it tells nothing of how"
    " predictable the states are",
}


def _finite_time(ly: Lyapunov) -> list[str]:
    """Return what keeps an exponent above its proven bound from being read as the one in the long run."""
    if not ly.is_of_these_steps:
        return []
    most = "it is -infinity"
    if math.isfinite(ly.ceiling):
        limit = significant(ly.ceiling if abs(ly.ceiling) > 1e-12 else 0.0, digits=4)
        most = f"it is at most {limit}, a factor {significant(math.exp(ly.ceiling), digits=4)}"
    return [f"over these {steps_text(ly.steps)} only: in the long run, the weights prove, {most}"]


def _of_dynamics(ly: Lyapunov, leading: float, error: float) -> list[str]:
    if not ly.grows:
        at_last = " in the long run" if leading > 0 else ""
        return [f"no direction grows{at_last}, so there is no predictability limit", *_dimension(ly)]
    if not math.isnan(error) and leading < 2 * error:
        return ["not told from zero by its standard error", *_dimension(ly)]
    if math.isnan(error) and math.isinf(ly.ceiling):
        return [f"over {steps_text(ly.steps)}, too few for a standard error, so that it may be a transient's"]
    time = significant(ly.predictability_time(), digits=3)
    return [f"predictability time ln 2 / lambda_1 = {time} steps, a length for truncated BPTT", *_dimension(ly)]


def _dimension(ly: Lyapunov) -> list[str]:
    dimension = ly.kaplan_yorke_dimension()
    if ly.is_of_these_steps:
        return []
    if math.isnan(dimension):
        return ["Kaplan-Yorke dimension: needs more exponents (--exponents all)"]
    return [f"Kaplan-Yorke dimension {significant(dimension, digits=4)} of {grouped(ly.carried)}"] if dimension else []
