"""The pictures of `gradcli gates`: the gates' values and slopes by distance, and the parts of each step's rate."""

from __future__ import annotations

from functools import partial

import numpy as np

from gradcli.diagnostics.gate_words import main_cause
from gradcli.diagnostics.gates import Gate, Gates
from gradcli.results.pictures import Axis, Gallery, Level, LineChart, Series
from gradcli.results.pictures_of_run import DISTANCE, MOST_SERIES, distances_of, run_words, verdict_title, without_curve
from gradcli.results.simulate import first_and_last


def pictures_of_gates(found: Gates) -> Gallery:
    """Return the pictures of `gates`."""
    return {
        "curve": partial(gates_picture, found),
        "slopes": partial(slopes_picture, found),
        "rates": partial(rates_picture, found),
    }


def gates_picture(found: Gates) -> LineChart:
    """Return every activation's mean value by distance, with a band of one standard deviation around it."""
    if found.judged is None:
        return _nothing("curve", found)
    series = [
        Series(
            gate.activation.name,
            distances_of(gate.mean),
            gate.mean,
            "other",
            gate.mean - gate.std,
            gate.mean + gate.std,
        )
        for gate in _shown(found)
    ]
    return _picture(
        "curve", found, Axis("value of the activation"), series, "mean over units, ± one standard deviation"
    )


def slopes_picture(found: Gates) -> LineChart:
    """Return by distance how steep every activation is where the gradient goes through it."""
    if found.judged is None:
        return _nothing("slopes", found)
    series = [Series(gate.activation.name, distances_of(gate.passed), np.exp(gate.passed)) for gate in _shown(found)]
    words = "by what factor each activation changes the gradient that goes through it"
    return _picture("slopes", found, Axis("slope on the gradient"), series, words)


def rates_picture(found: Gates) -> LineChart:
    """Return the parts of each step's rate, in nats."""
    rates = found.rates
    if rates is None:
        return _nothing("rates", found)
    x = distances_of(rates.total)
    series = [
        Series("rate", x, rates.total, "mean"),
        Series("activations", x, rates.activations),
        Series("weights", x, rates.weights),
        *([] if rates.other is None else [Series("other", x, rates.other)]),
    ]
    words = f"the rate is the sum of its parts; {main_cause(found).text}"
    levels = [Level(0.0, "neither grows nor falls")]
    return _picture("rates", found, Axis("rate of the gradient norm", "nats a step"), series, words, levels)


def _shown(found: Gates) -> list[Gate]:
    """Return the activations that are drawn: of many, the first and the last."""
    gates = {gate.activation.name: gate for gate in found.gates}
    return [gates[name] for name in first_and_last(list(gates), MOST_SERIES)]


def _picture(
    name: str, found: Gates, y: Axis, series: list[Series], words: str, levels: list[Level] | None = None
) -> LineChart:
    assert found.judged is not None
    left_out = len(found.gates) - MOST_SERIES
    more = f"; {left_out} activations between them are not drawn" if left_out > 0 and name != "rates" else ""
    drawn = ", ".join(s.label for s in series) or "the layer calls no function"
    return LineChart(
        name,
        verdict_title(found.network.loaded.label, found.judged, found.network.problem.seq_len),
        DISTANCE,
        y,
        series,
        levels or (),
        (),
        f"{words}{more}; {run_words(found.network)}",
        f"{y.text[:1].upper()}{y.text[1:]} against distance: {drawn}."
        f" {found.judged.reason} Main cause: {main_cause(found).text}.",
    )


def _nothing(name: str, found: Gates) -> LineChart:
    assert found.verdict is not None
    return without_curve(name, f"{found.network.loaded.label}: nonfinite", found.network, found.verdict)
