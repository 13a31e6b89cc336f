"""The report of `gradcli simulate`: verdict first, then the curves, the parameters, and what clipping would do."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

import numpy as np

from gradcli.diagnostics.curve import Curve
from gradcli.diagnostics.curve_landmarks import reference_distance
from gradcli.diagnostics.measure import Measured
from gradcli.diagnostics.predictions import Prediction
from gradcli.diagnostics.remedies import NO_REMEDIES, Remedies
from gradcli.diagnostics.verdict import Verdict
from gradcli.diagnostics.verdict_words import KIND_WORDS
from gradcli.frozen import frozen
from gradcli.numbers import duration, factor, grouped, log10_text, power_of_ten, significant
from gradcli.prepare.build import Network
from gradcli.results.clipping import clip_blocks, clip_lines
from gradcli.results.clipping_rows import method_text
from gradcli.results.curves import (
    FEW_ROWS,
    ROWS,
    bars,
    flag,
    half_life_text,
    horizon_text,
    range_text,
    rate_text,
    shown_distances,
)
from gradcli.results.declared import key
from gradcli.results.directions import direction_hint, headline_note
from gradcli.results.float32 import float32_lines
from gradcli.results.model import Block, Cell, Column, Line, Records, Report, Style, Table, filled
from gradcli.results.remedies import RemedyThatHelped, next_line, remedies_that_helped, remedy_blocks
from gradcli.results.result import OneRun
from gradcli.results.run import Run, curve_records, run_fields
from gradcli.spec.losses import DRAWN_READOUT, GivenLoss
from gradcli.spec.models import Spec
from gradcli.spec.shown import printable
from gradcli.spec.verdict_kinds import VerdictKind

Array = np.ndarray[Any, Any]

STYLES: dict[VerdictKind, Style] = {
    "stable": "good",
    "vanishing": "bad",
    "exploding": "bad",
    "transient": "warn",
    "dead": "bad",
    "nonfinite": "bad",
}

#: Of more states or layers than that, the first and the last are shown.
_STATES, _LAYERS = 12, 6
#: The first step back is told where it differs from the rate of the others by this factor (log10) or more.
_FIRST_STEP_TELLS = 1.0


@frozen(kw_only=True, repr=False, eq=False)
class Simulation(Run, OneRun):
    """What `simulate` found of one spec."""

    command = "simulate"

    remedies: Sequence[RemedyThatHelped] = key(
        "[what was run and helped](remedies.md#what-simulate-tries), the best first"
    )


def simulation(
    measured: Measured, remedies: Remedies = NO_REMEDIES, arrays: Mapping[str, Array] = MappingProxyType({})
) -> Simulation:
    """Return the result for one run: the verdict, the curve and what would help; in full all that was measured."""
    fields, helped = run_fields(measured), remedies_that_helped(remedies)
    shown = _shown(measured, remedies, curve_records([Run(**fields)]))
    return Simulation(**fields, remedies=helped, shown=shown, arrays=arrays)


def _shown(measured: Measured, remedies: Remedies, records: Records) -> Report:
    head: list[list[Block]] = [
        [Line(describe(measured.network), measured.label, "title"), *note_lines(measured.network)],
        [*verdict_lines(measured.verdict), *float32_lines(measured.float32)],
    ]
    curve, seq_len = measured.curve, measured.network.spec.seq_len
    best, all_that_helped = (remedy_blocks(remedies, seq_len, full=full) for full in (False, True))
    if curve is None:
        every = filled([*head, all_that_helped])
        return Report("simulate", filled([*head, best]), records=records, full=every)
    lengths, clipping = length_lines(measured.network), clip_blocks(measured)
    then = [*direction_hint(measured), *next_line(measured)]
    first_look = [
        *head,
        [_curve_table(measured, curve, rows=FEW_ROWS), *lengths],
        clipping if _asked_for_clipping(measured) else clip_lines(measured),
        [*best, *then],
    ]
    full = [
        *head,
        [_curve_table(measured, curve, rows=ROWS), *lengths],
        _state_table(measured),
        _predictions(measured),
        _parameter_blocks(measured),
        clipping,
        [*all_that_helped, *then],
    ]
    return Report("simulate", filled(first_look), records=records, full=filled(full))


def _asked_for_clipping(measured: Measured) -> bool:
    return "clip" in measured.network.spec.model_fields_set


def describe(network: Network) -> str:
    """Return what is run, and below it the sizes and settings."""
    spec, cell = network.spec, network.loaded.cell
    activation = spec.activation or cell.activation
    name = " ".join(part for part in (cell.title or "", f"({activation})" if activation else "") if part)
    sizes = [f"hidden {spec.hidden_size}"]
    if network.cell.uses_input:
        sizes.append(f"input {network.problem.plans[0].cell.shapes.input_size}")
    if spec.num_layers > 1:
        sizes.append(f"{spec.num_layers} layers")
    if spec.bidirectional:
        sizes.append("bidirectional")
    sizes.append(f"T = {grouped(spec.seq_len)}")
    if not network.loaded.tied:
        sizes.append("untied weights")
    if network.cell.uses_input and network.loaded.input_at == "first":
        sizes.append("x at step 1 only")
    if spec.dtype != "float64":
        sizes.append(spec.dtype)
    lines = (name, f"{', '.join(sizes)}   {sample_words(spec)}", weights_words(network), *network.notes)
    return "\n".join(part for part in lines if part)


def weights_words(network: Network) -> str:
    """Return where trained weights come from; "" where there are none."""
    trained = network.loaded.trained
    return "" if trained is None else f"weights of {trained.description}"


def note_lines(network: Network) -> list[Block]:
    """Return what to know of how trained weights were read."""
    trained = network.loaded.trained
    return [] if trained is None else [Line(note, style="dim") for note in trained.notes]


def loss_lines(network: Network, loss_steps: int) -> list[Block]:
    """Return what to know of the loss where only its last step is looked at, or where the sequence goes on after it.

    Args:
        network: with the loss at its last step alone. loss_steps: at how many steps the spec's counts.
    """
    last = network.problem.seq_len
    if loss_steps == 1 and last == network.spec.seq_len:
        return []
    of = f", the last of its {grouped(loss_steps)} steps" if loss_steps > 1 else ""
    text = f"The loss at step {grouped(last)} alone{of}: distance is steps back from there."
    return [Line(text, style="warn" if loss_steps > 1 else "dim")]


def length_lines(network: Network) -> list[Block]:
    """Return what to know of sequences of different lengths: how many of them a distance is about."""
    problem = network.problem
    if problem.begins is None:
        return []
    reaching = problem.begins.reaching(problem.seq_len)
    count = problem.batch_size
    middle = int(np.count_nonzero(2 * reaching >= count)) - 1  # the last distance that half of them reach
    shortest = int(np.count_nonzero(reaching == count)) - 1
    text = (
        f"sequences of {grouped(shortest)} to {grouped(problem.seq_len)} steps; distance is counted from each one's own"
        f" end: {grouped(int(reaching[middle]))} of {grouped(count)} reach {grouped(middle)}"
    )
    return [Line(text, style="dim")]


def sample_words(spec: Spec) -> str:
    """Return over how many sequences was measured, and with which loss."""
    if isinstance(spec.loss.at, list):
        where = f"at {_steps(spec.loss.at)}"
    elif spec.loss.at == "final" and spec.bidirectional:
        where = "at each direction's last step"
    elif isinstance(spec.loss, GivenLoss):
        where = f"by {printable(str(spec.loss.file))}"
    else:
        where = "at every step" if spec.loss.at == "every" else "at the last step"
    count = f"{_count(spec.trials, 'trial')} x {_count(spec.batch_size, 'sequence')}"
    readout = getattr(spec.loss, "readout", None)
    through = f" through {readout}" if readout not in (None, DRAWN_READOUT) else ""
    mean = " (mean)" if spec.loss.reduction == "mean" else ""
    return f"{count}   loss {spec.loss.kind}{mean}{through} {where}"


def _steps(steps: Sequence[int]) -> str:
    shown = ", ".join(map(str, steps[:4])) + (", ..." if len(steps) > 4 else "")
    return f"step {shown}" if len(steps) == 1 else f"steps {shown}"


def _count(count: int, noun: str) -> str:
    return f"{grouped(count)} {noun}" + ("" if count == 1 else "s")


def verdict_lines(verdict: Verdict) -> list[Block]:
    """Return the verdict in words."""
    first_step, rate = verdict.first_step_log10_ratio, verdict.rate_per_step
    read_out = (
        ""
        if first_step is None or abs(first_step - math.log10(rate or 1.0)) < _FIRST_STEP_TELLS
        else f"the first step back, read-out included, changes it by a factor {power_of_ten(first_step)}, once:"
        " not counted"
    )
    parts = (verdict.left, verdict.headline, verdict.detail, verdict.aside, read_out)
    text = "\n".join(part for part in parts if part)
    return [Line(text, KIND_WORDS[verdict.kind].upper(), STYLES[verdict.kind])]


def _curve_table(measured: Measured, curve: Curve, *, rows: int) -> Table:
    verdict, spec = measured.verdict, measured.network.spec
    also = [d for d in (verdict.horizon_threshold, verdict.peak_distance) if d is not None]
    last = len(curve.mean) - 1
    distances = shown_distances(last, also, verdict.zero_from, rows=rows)
    clipped = [(method_text(c), c.curve) for c in measured.clipped if c.curve is not None]
    start = curve.reference
    ratios = [float(curve.mean[d]) - start for d in distances]
    counts_from = reference_distance(curve.mean) or 0  # what comes before crosses no threshold, whatever its size
    several = spec.trials * spec.batch_size > 1
    total = measured.total
    columns = [
        Column("distance", keep=9),
        Column("log10 mean norm" if several else "log10 norm", keep=9),
        Column("median", keep=4),
        Column("10-90 %", keep=4),
        *([Column("all losses", keep=5)] if total is not None else []),
        *(Column(method, keep=6) for method, _ in clipped),
        Column("", "bar", keep=5),
        Column("relative", keep=8),
        Column("", "flag", keep=7),
    ]
    cells: list[list[Cell]] = [
        [
            d,
            log10_text(float(curve.mean[d])),
            log10_text(float(curve.median[d])) if several else None,
            range_text(float(curve.low[d]), float(curve.high[d])) if several else None,
            *([log10_text(float(total.mean[d]))] if total is not None else []),
            *(log10_text(float(other.mean[d])) for _, other in clipped),
            bar,
            power_of_ten(relative),
            flag(relative, spec.thresholds) if d >= counts_from or math.isinf(relative) else "",
        ]
        for d, relative, bar in zip(distances, ratios, bars(ratios), strict=True)
    ]
    return Table(columns, cells, note=_curve_note(measured))


def _curve_note(measured: Measured) -> str:
    """Say what the columns of the curve are, where that is not plain."""
    counts_from = None if measured.curve is None else reference_distance(measured.curve.mean)
    notes = ["" if counts_from is None else f"relative: to the norm {_count(counts_from, 'step')} back"]
    steps = len(measured.network.problem.loss.steps)
    if measured.total is not None:
        notes.append(
            f"from the last of the {grouped(steps)} losses alone"
            + (", of each direction" if len(measured.headline) > 1 else "")
            + "; all losses: from all of them together"
            + (", where the one at the step itself rules" if steps == measured.network.spec.seq_len else "")
        )
    notes.append(headline_note(measured))
    return "; ".join(note for note in notes if note)


def _state_table(measured: Measured) -> list[Block]:
    """Return each state's own curve in a row, where there are several."""
    states, last = measured.states, measured.network.spec.seq_len
    if len(states) < 2:
        return []
    columns = [
        Column("state", "text", keep=9),
        Column("log10 mean norm at 1", keep=6),
        Column(f"at {last}", keep=6),
        Column("rate a step", keep=8),
        Column("half-life", keep=5),
        Column("horizon", keep=8),
    ]
    several = len(measured.network.problem.names) > 1
    rows: list[list[Cell]] = [
        [
            name if several else name.rpartition(".")[2],
            log10_text(float(states[name].mean[1])),
            log10_text(float(states[name].mean[-1])),
            *(
                [None, None, "rounding"]
                if states[name].is_rounding
                else [
                    rate_text(states[name].verdict),
                    half_life_text(states[name].verdict),
                    horizon_text(states[name].verdict, last),
                ]
            ),
        ]
        for name in first_and_last(list(states), _STATES)
    ]
    left_out = len(states) - len(rows)
    notes = [f"and {left_out} more between them, in the JSON"] if left_out else []
    if any(state.is_rounding for state in states.values()):
        notes.append("rounding: the parts of its gradient cancel, and what is left of them is no measurement")
    return [Table(columns, rows, note="; ".join(notes))]


def _predictions(measured: Measured) -> list[Block]:
    """Return the rates that theory gives, beside the measured one."""
    texts = [_prediction_text(prediction) for prediction in measured.predictions]
    if not texts:
        return []
    rate = rate_text(measured.verdict)
    if rate is not None:
        texts.append(f"measured: {rate}")
    return [Line("\n".join(texts), "predicted", "dim")]


def _prediction_text(prediction: Prediction) -> str:
    rate = _rate(prediction.rate_per_step)
    if prediction.name == "rest":
        return f"{rate} a step at rest: spectral radius with zero states and no input"
    if prediction.name == "mean_field":
        return f"{rate} a step by mean field: many independent weights, with this input"
    if prediction.name == "active":
        return f"{rate} a step on the units that are on (at rest, exactly at the kink, there is no slope)"
    low, high = (significant(value, digits=2) for value in prediction.spread or ())
    units = f", on the slowest units ({low} to {high} among all)" if low != high else ""
    scale = 1.0 - prediction.rate_per_step
    steps = duration(1.0 / scale) if scale > 1e-9 else ""
    memory = f": a memory of {steps} steps" if steps and scale < 1.0 else ""
    return f"{rate} a step through {prediction.state} alone at rest{units}{memory}"


def _rate(value: float) -> str:
    """Return a factor a step to four digits, or to so many that it is not taken for 1."""
    text = significant(value, digits=4)
    return factor(math.log10(value)) if text == "1" else text


def _parameter_blocks(measured: Measured) -> list[Block]:
    """Return the norms of the parameters' gradients: a line, or a column for each of several layers."""
    by_layer: dict[str, dict[str, float]] = {}
    for name, norm in measured.parameters.items():
        layer, _, short = name.rpartition(".")
        by_layer.setdefault(layer, {})[short] = norm
    layers = {layer: by_layer.get(layer, {}) for layer in measured.network.problem.names}
    readout = {f"{layer}.{name}": n for layer, t in by_layer.items() if layer not in layers for name, n in t.items()}
    if len(layers) == 1:
        norms = {**layers["layer0"], **readout}
        text = f"{_norms(norms)}   (norm of the batch loss's gradient)"
        return [Line(text, "parameters", "dim")] if norms else []
    if not any(layers.values()):
        return []
    table = _layer_table(layers)
    return [table, Line(_norms(readout), style="dim")] if readout else [table]


def _norms(norms: Mapping[str, float]) -> str:
    return "   ".join(f"{name} {power_of_ten(norm)}" for name, norm in norms.items())


def _layer_table(layers: Mapping[str, Mapping[str, float]]) -> Table:
    shown = first_and_last(list(layers), _LAYERS)
    columns = [
        Column("parameter", "text", keep=9),
        *(Column(layer, keep=8 if layer in (shown[0], shown[-1]) else 5) for layer in shown),
    ]
    rows: list[list[Cell]] = [
        [name, *(power_of_ten(layers[layer][name]) for layer in shown)] for name in layers[shown[0]]
    ]
    left_out = len(layers) - len(shown)
    more = f"; {left_out} more layers between them, in the JSON" if left_out else ""
    return Table(columns, rows, note=f"norm of the batch loss's gradient{more}")


def first_and_last(names: Sequence[str], most: int) -> list[str]:
    """Return all names, or of more than `most` the first and last ones."""
    return list(names) if len(names) <= most else [*names[: most // 2], *names[-(most // 2) :]]
