"""The report of `gradcli gates`: the activations at a few distances, the parts of each step's rate, the main cause."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from gradcli.diagnostics.gate_words import functions_across, main_cause, mean
from gradcli.diagnostics.gates import SATURATED_BELOW, Gate, Gates, Kept, Rates
from gradcli.results.curves import plain_number, shown_distances
from gradcli.results.model import Block, Cell, Column, Deferred, Line, Numbers, Records, Report, Table, envelope
from gradcli.results.run_data_old import number, resolved_spec, verdict_data
from gradcli.results.simulate import describe, loss_lines, verdict_lines

_COMMAND = "gates"
_OF_RATES = ("rate", "activations", "weights", "other", "direct")
_OF_GATES = ("mean", "std", "slope", "saturated", "slope_on_gradient")


def gates_report(found: Gates) -> Report:
    """Return the report of one run."""
    label = found.network.loaded.label
    head: list[Block] = [Line(describe(found.network), label, "title"), *loss_lines(found.network, found.loss_steps)]
    groups, full = [head], [head]
    if found.verdict is not None:
        groups.append(verdict_lines(found.verdict))
        full = []
    elif found.rates is not None and found.judged is not None:
        answer: list[Block] = [*verdict_lines(found.judged), *cause_lines(found)]
        seen = found.sampled
        groups += [
            answer,
            _route_lines(found),
            [_rate_table(found, found.rates, list(seen))],
            [_gate_table(found, seen[len(seen) // 2 :][:1])] if found.gates else [],
            [Line("all distances, and each matrix: --full", "more", "dim")],
        ]
        full += [
            answer,
            _route_lines(found),
            [_rate_table(found, found.rates, shown_distances(len(found.rates.total) - 1))],
            [_gate_table(found, seen)] if found.gates else [Line("The layer calls no function that can saturate.")],
            _matrix_lines(found),
        ]
    header = ["label", "distance", *_OF_RATES]
    header += [f"{gate.activation.name}.{what}" for gate in found.gates for what in _OF_GATES]
    data = Deferred(lambda: envelope(_COMMAND) | {"runs": [_data(found)]})
    records = Records(header, _Rows(found))
    return Report(_COMMAND, list(filter(None, groups)), data, records, full=list(filter(None, full)))


def cause_lines(found: Gates) -> list[Block]:
    """Return the main cause in words; nothing where a number was not finite."""
    return [] if found.verdict is not None else [Line(main_cause(found).text, "main cause", "title")]


def _gate_table(found: Gates, distances: Sequence[int]) -> Table:
    columns = [
        Column("activation", "text", keep=9),
        Column("distance", keep=8),
        Column("mean", keep=8),
        Column("std", keep=6),
        Column("10-90 %", keep=4),
        Column("saturated", keep=7),
        Column("mean slope", keep=8),
        Column("on gradient", keep=8),
        Column("largest", keep=5),
    ]
    rows = [row for gate in found.gates for row in _gate_rows(gate, found.sampled, distances)]
    note = (
        f"slope: the derivative phi'(a), its mean over units, and by what it shrinks the gradient that goes through it;"
        f" largest: gamma, its largest value; saturated: |phi'(a)| below {SATURATED_BELOW:.0%} of that"
    )
    return Table(columns, rows, note=note)


def _gate_rows(gate: Gate, sampled: Sequence[int], distances: Sequence[int]) -> Iterator[list[Cell]]:
    activation = gate.activation
    same = activation.name.startswith(activation.function)
    title = activation.name if same else f"{activation.name} ({activation.function})"
    for row, d in enumerate(distances):
        position = sampled.index(d)
        yield [
            title if row == 0 else "",
            d,
            _short(gate.mean[d]),
            _short(gate.std[d]),
            f"{_short(gate.low[position])} .. {_short(gate.high[position])}",
            f"{gate.saturated[d]:.0%}",
            _short(gate.slope[d]),
            None if math.isnan(gate.passed[d]) else _short(math.exp(gate.passed[d])),
            plain_number(activation.gamma, digits=4) if row == 0 else None,
        ]


def _short(value: float) -> str:
    text = plain_number(float(value), digits=2) if abs(value) >= 10 else f"{value:.3f}"
    return "0.000" if text == "-0.000" else text


def _rate_table(found: Gates, rates: Rates, distances: Sequence[int]) -> Table:
    has_direct = bool(np.nanmax(rates.direct, initial=0.0) > 0)
    parts = [rates.total, rates.activations, rates.weights, rates.other, rates.direct if has_direct else None]
    columns = [
        Column("distance", "text", keep=9),
        Column("rate", keep=9),
        Column("activations", keep=8),
        Column("weights", keep=8),
        Column("other", keep=7),
        Column("direct", keep=5),
    ]
    rows: list[list[Cell]] = [[str(d), *(None if p is None else _nats(float(p[d])) for p in parts)] for d in distances]
    if len(distances) > 1:
        rows.append(["mean from 1", *(None if p is None else _nats(mean(p)) for p in parts)])
    other = (
        "; other: what else arrives there (a layer above, earlier lags, products within the step)"
        if rates.other is not None
        else ""
    )
    direct = "; direct: norm of what direct routes bring, over the norm of all that arrives" if has_direct else ""
    across = "".join(f", {name}" for name in functions_across(found))
    note = (
        "rate: ln of the mean norm |dL/ds| at the next distance minus that at this one, nats ="
        f" activations (elementwise factors: slopes, gates, direct routes{across}) + weights (multiplication by"
        f" the transposed matrices){other}{direct}"
    )
    return Table(columns, rows, title="parts of the rate", note=note)


def _nats(value: float) -> str:
    if math.isnan(value):
        return "zero"
    text = f"{value:.3f}"
    return "0.000" if text == "-0.000" else text


def _route_lines(found: Gates) -> list[Block]:
    routes = "\n".join(
        f"{k.route.label}[t-1] -> {k.route.label}[t]: {_factor(k.route.name)}{_kept(k)}" for k in found.kept
    )
    return [Line(routes, "direct routes", "dim")] if routes else []


def _matrix_lines(found: Gates) -> list[Block]:
    norms = "   ".join(f"{name} {plain_number(n, digits=3)}" for name, n in (found.spectral_norms or {}).items())
    return [Line(f"{norms}   (largest singular value)", "matrices", "dim")] if norms else []


def _kept(kept: Kept) -> str:
    """Return what a route keeps where the gradient is, and over all units alike."""
    weighed = mean(kept.nats)
    if math.isnan(weighed):
        return f"{kept.mean:.3f} on average over units; no gradient is on it"
    return f"{math.exp(weighed):.3f} a step where the gradient is, {kept.mean:.3f} on average over units"


def _factor(name: str | None) -> str:
    return "" if name is None or name.replace(".", "").isdigit() else f"{name} = "


# For programs.


def _data(found: Gates) -> dict[str, Any]:
    ok, rates = found.verdict is None, found.rates
    cause = main_cause(found) if ok else None
    judged = found.judged if ok else found.verdict
    return {
        "label": found.network.loaded.label,
        "cell": found.network.loaded.cell.name,
        "status": "ok" if ok else "nonfinite",
        "seq_len": found.network.spec.seq_len,
        "layer": found.network.problem.names[found.layer],
        "loss_step": found.network.problem.seq_len,
        "spec": resolved_spec(found.network),
        "verdict": None if judged is None else verdict_data(judged),
        "activations": {gate.activation.name: _gate_data(gate) for gate in found.gates},
        "sampled_distance": list(found.sampled),
        "rates": None if rates is None else {"distance": range(len(rates.total)), **_rate_data(rates)},
        "direct_routes": [
            {
                "state": k.route.label,
                "states": list(k.route.states),
                "factor": k.route.name,
                "mean": number(k.mean),
                "nats": number(mean(k.nats)),
                "share": number(mean(k.share)),
            }
            for k in found.kept
        ],
        "spectral_norms": {name: number(norm) for name, norm in (found.spectral_norms or {}).items()},
        "cause": None
        if cause is None
        else {
            "kind": cause.kind,
            "nats": number(cause.nats),
            "rate": number(cause.rate),
            "text": cause.text,
        },
    }


def _gate_data(gate: Gate) -> dict[str, Any]:
    columns = dict(zip(_OF_GATES, map(Numbers, _gate_columns(gate)), strict=True))
    sampled = {"p10": Numbers(gate.low), "p90": Numbers(gate.high)}
    return {"function": gate.activation.function, "gamma": gate.activation.gamma, **columns, **sampled}


def _gate_columns(gate: Gate) -> Sequence[np.ndarray[Any, Any]]:
    return gate.mean, gate.std, gate.slope, gate.saturated, np.exp(gate.passed)


def _rate_data(rates: Rates) -> dict[str, Any]:
    parts = (rates.total, rates.activations, rates.weights, rates.other, rates.direct)
    return {name: None if p is None else Numbers(p) for name, p in zip(_OF_RATES, parts, strict=True)}


@dataclass(frozen=True)
class _Rows:
    """One row for each distance: the parts of the rate, then every activation's moments."""

    found: Gates

    def __iter__(self) -> Iterator[Sequence[Cell]]:
        rates = self.found.rates
        if rates is None:
            return
        label = self.found.network.loaded.label
        parts = [column or [None] * len(rates.total) for column in _rate_data(rates).values()]
        moments = [Numbers(column) for gate in self.found.gates for column in _gate_columns(gate)]
        for d, row in enumerate(zip(*parts, *moments, strict=True)):
            yield label, d, *row
