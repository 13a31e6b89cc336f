"""The report of `gradcli gates`: the activations at a few distances, the parts of each step's rate, the main cause."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from gradcli.diagnostics.gate_words import functions_across, main_cause, mean, steps_closed
from gradcli.diagnostics.gates import SATURATED_BELOW, Gate, Gates, Kept, Rates
from gradcli.frozen import frozen
from gradcli.numbers import decimals, percent, significant
from gradcli.results.curves import shown_distances
from gradcli.results.declared import InColumns, columns_of, key
from gradcli.results.model import Block, Cell, Column, Line, Records, Report, Table, filled
from gradcli.results.one_layer import OfOneLayer, spec_fields
from gradcli.results.run import Verdict, verdict_of
from gradcli.results.simulate import describe, loss_lines, verdict_lines

Array = np.ndarray[Any, Any]


@frozen(kw_only=True)
class ActivationValues:
    """The values of an activation over trials, sequences and units, by distance 0 to T-1, each (T,)."""

    function: str = key("the function's name", csv=False)
    gamma: float = key("its largest slope", csv=False)
    mean: Array = key("the mean")
    std: Array = key("the standard deviation")
    slope: Array = key("the mean of the derivative")
    saturated: Array = key(f"the share whose slope is below {percent(SATURATED_BELOW)} of `gamma`")
    slope_on_gradient: Array = key("by what it shrinks the gradient that goes through it; null where there is none")
    p10: Array = key("the 10 % quantile, at the distances of `sampled_distance`", csv=False)
    p90: Array = key("the 90 % quantile, likewise", csv=False)


@frozen(kw_only=True)
class RateParts:
    """The rate of the mean norm from distance d to d+1 in nats, and its parts: d = 0 to T-1, each (T,)."""

    distance: range = key("0 to T-1")
    rate: Array = key("their sum: ln of the mean norm there minus that here; null where it is exactly zero")
    activations: Array = key("what slopes, gates and direct routes make of it")
    weights: Array = key("what the transposed matrices make of it")
    other: Array | None = key("what else arrives; null where nothing but the next step's gradient does")
    direct: Array = key("the norm of what direct routes bring, over that of all that arrives")


@frozen(kw_only=True)
class KeptByRoute:
    """What a direct route keeps, the gates held constant."""

    state: str = key("what it is called: its state, or several of them")
    states: Sequence[str] = key("the states on it")
    factor: str | None = key("what it multiplies by, as the equations write it; null where that has no name")
    mean: float = key("the factor, on average over units, sequences and steps; of several states its modulus")
    nats: float = key("what it makes of the gradient on it, a step; null where none is on it")
    closed: int = key("at how many steps from distance 1 on it passes on nothing of the gradient that is on it")
    share: float = key("what it brings of all that arrives at its states, by norm")


@frozen(kw_only=True)
class MainCause:
    """What the rate is owed to most."""

    kind: str = key("`gates`, `activations`, `weights`, `level` (nothing to explain) or `unclear`")
    nats: float | None = key(
        "what the named cause alone makes of it, with the sign of the rate (negative: a loss); null where none is named"
    )
    rate: float | None = key("what there is to explain, in nats a step: the mean rate from distance 1 on")
    text: str = key("the same as a sentence")


@frozen(kw_only=True, repr=False, eq=False)
class GatesOfLayer(OfOneLayer):
    """What `gates` found of one layer."""

    command = "gates"

    loss_step: int = key("the step whose loss alone is looked at")
    verdict: Verdict = key("the verdict on the mean norm of the layer's states")
    activations: Mapping[str, ActivationValues] = key("each function of the equations, such as `f` or `tanh(c)`")
    sampled_distance: Sequence[int] = key("the distances of the quantiles")
    rates: RateParts = key(
        "the parts of each step's rate; null (Python: empty) where `nonfinite`", null=lambda rates: not rates.distance
    )
    direct_routes: Sequence[KeptByRoute] = key("what direct routes keep")
    spectral_norms: Mapping[str, float] = key(
        "the largest singular value of each recurrent matrix, the median over trials, with `tied: false` over steps too"
    )
    cause: MainCause | None = key("the main cause; null where `nonfinite`")


def gates_of_layer(found: Gates) -> GatesOfLayer:
    """Return the result for one run."""
    network = found.network
    judged = found.verdict or found.judged
    assert judged is not None
    activations = {gate.activation.name: _values_of(gate) for gate in found.gates}
    rates = _parts_of(found.rates)
    return GatesOfLayer(
        **spec_fields(network, finite=found.verdict is None),
        layer=network.problem.names[found.layer],
        loss_step=network.problem.seq_len,
        verdict=verdict_of(judged),
        activations=activations,
        sampled_distance=tuple(found.sampled),
        rates=rates,
        direct_routes=tuple(map(_kept_by_route, found.kept)),
        spectral_norms=dict(found.spectral_norms or {}),
        cause=None if found.rates is None else _cause_of(found),
        shown=_shown(found, _records(network.loaded.label, rates, activations)),
    )


def _values_of(gate: Gate) -> ActivationValues:
    return ActivationValues(
        function=gate.activation.function,
        gamma=gate.activation.gamma,
        mean=gate.mean,
        std=gate.std,
        slope=gate.slope,
        saturated=gate.saturated,
        slope_on_gradient=np.exp(gate.passed),
        p10=gate.low,
        p90=gate.high,
    )


def _parts_of(rates: Rates | None) -> RateParts:
    if rates is None:
        none = np.empty(0)
        return RateParts(distance=range(0), rate=none, activations=none, weights=none, other=None, direct=none)
    return RateParts(
        distance=range(len(rates.total)),
        rate=rates.total,
        activations=rates.activations,
        weights=rates.weights,
        other=rates.other,
        direct=rates.direct,
    )


def _kept_by_route(kept: Kept) -> KeptByRoute:
    return KeptByRoute(
        state=kept.route.label,
        states=tuple(kept.route.states),
        factor=kept.route.name,
        mean=kept.mean,
        nats=kept.rate,
        closed=kept.closed,
        share=mean(kept.share),
    )


def _cause_of(found: Gates) -> MainCause:
    cause = main_cause(found)
    return MainCause(kind=cause.kind, nats=cause.nats, rate=cause.rate, text=cause.text)


def _records(label: str, rates: RateParts, activations: Mapping[str, ActivationValues]) -> Records:
    """Return one row for each distance: the parts of the rate, then every activation's moments."""
    moments = [columns_of(values, f"{name}.") for name, values in activations.items()]
    part = {"label": label, **columns_of(rates), **{name: column for each in moments for name, column in each.items()}}
    return InColumns(list(part), [part]).records


def _shown(found: Gates, records: Records) -> Report:
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
    return Report("gates", filled(groups), records=records, full=filled(full))


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
        f" largest: gamma, its largest value; saturated: |phi'(a)| below {percent(SATURATED_BELOW)} of that"
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
            decimals(gate.mean[d]),
            decimals(gate.std[d]),
            f"{decimals(gate.low[position])} .. {decimals(gate.high[position])}",
            percent(gate.saturated[d]),
            decimals(gate.slope[d]),
            None if math.isnan(gate.passed[d]) else decimals(math.exp(gate.passed[d])),
            significant(activation.gamma, digits=4) if row == 0 else None,
        ]


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
    return "zero" if math.isnan(value) else decimals(value)


def _route_lines(found: Gates) -> list[Block]:
    routes = "\n".join(
        f"{k.route.label}[t-1] -> {k.route.label}[t]: {_factor(k.route.name)}{_kept(k)}" for k in found.kept
    )
    return [Line(routes, "direct routes", "dim")] if routes else []


def _matrix_lines(found: Gates) -> list[Block]:
    norms = "   ".join(f"{name} {significant(n, digits=3)}" for name, n in (found.spectral_norms or {}).items())
    return [Line(f"{norms}   (largest singular value)", "matrices", "dim")] if norms else []


def _kept(kept: Kept) -> str:
    """Return what a route keeps where the gradient is, and over all units alike."""
    weighed = kept.rate
    if math.isnan(weighed):
        return f"{decimals(kept.mean)} on average over units; no gradient is on it"
    where = f"where the gradient is{steps_closed(kept)}"
    return f"{decimals(math.exp(weighed))} a step {where}, {decimals(kept.mean)} on average over units"


def _factor(name: str | None) -> str:
    return "" if name is None or name.replace(".", "").isdigit() else f"{name} = "
