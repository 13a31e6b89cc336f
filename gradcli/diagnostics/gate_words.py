"""What shrinks or enlarges the gradient most: the main cause of the mean rate, in words, where one is clear."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np

from gradcli.diagnostics.gates import Gates, Kept, Rates
from gradcli.diagnostics.verdict_words import number

CauseKind = Literal["level", "gates", "activations", "weights", "unclear"]

#: A mean rate below this, in nats a step, is none: 2 % a step.
LEVEL = 0.02
#: A part is the main cause if it makes up at least this share of the rate ...
_MOST = 2 / 3
#: ... and the direct routes carry the gradient if they bring at least this much of what arrives, by norm.
_CARRIED = 0.5
#: So many activations are named.
_NAMED = 3


@dataclass(frozen=True)
class Cause:
    """The main cause: its kind and a sentence; "level" where there is nothing to explain, "unclear" where none is."""

    kind: CauseKind
    text: str


def main_cause(found: Gates) -> Cause:
    """Return the main cause of the mean rate over all distances.

    With r the mean rate and p the mean of a part, in nats a step: a part is the cause if p / r is at least 2/3 (the
    others are then at most 1/3, or work against it). A direct route is the cause if it brings at least half of what
    arrives, by norm, and its mean factor f alone would account for 2/3 of the fall, ln f / r >= 2/3.
    """
    rates = found.rates
    assert rates is not None
    if not np.isfinite(rates.total).any():
        return Cause("unclear", "no sequence has a gradient that is not exactly zero: there is no rate to explain")
    rate, activations, weights = mean(rates.total), mean(rates.activations), mean(rates.weights)
    parts = f"activations and gates {signed(activations)}, weights {signed(weights)}"
    if rates.other is not None:
        parts += f", other {signed(mean(rates.other))}"
    parts += f" nats a step, {signed(rate)} in all"
    if abs(rate) < LEVEL:
        balance = ", which make up for each other" if min(abs(activations), abs(weights)) > LEVEL else ""
        return Cause("level", f"none to name: the gradient keeps its size: {parts}{balance}")
    route = _route(found, rates, rate)
    if route is not None:
        return Cause("gates", _about_the_route(route, rate))
    if not np.any(rates.weights) and not found.spectral_norms:
        return Cause(
            "activations", f"the elementwise factors, for nothing passes a recurrent matrix{_slopes(found)}; {parts}"
        )
    if activations / rate >= _MOST:
        names = " and ".join(["the activations", *functions_across(found)])
        return Cause("activations", f"{names}{_slopes(found)}; {parts}")
    if weights / rate >= _MOST:
        return Cause("weights", f"the weights: {_matrices(found, weights)}; {parts}")
    return Cause("unclear", f"no single cause stands out: {parts}")


def functions_across(found: Gates) -> list[str]:
    """Return the names of the functions across in the recurrence, whose Jacobians count with the activations."""
    return list(dict.fromkeys(str(node.data[0]) for node in found.network.problem.plans[found.layer].across))


def mean(values: np.ndarray[tuple[int, ...], np.dtype[np.float64]]) -> float:
    """Return the mean over the distances that have a number."""
    some = values[np.isfinite(values)]
    return float(some.mean()) if some.size else math.nan


def signed(value: float) -> str:
    """Return nats with their sign: -0.53, +0.02; 0 where it rounds to that.

    >>> signed(-0.531), signed(0.0164), signed(-0.0001)
    ('-0.53', '+0.02', '0')
    """
    text = f"{value:+.2f}"
    return "0" if float(text) == 0 else text


def _route(found: Gates, rates: Rates, rate: float) -> Kept | None:
    """Return the direct route that explains a fall, the one with the smallest factor; None where none does."""
    if rate > 0 or mean(rates.direct) < _CARRIED:
        return None
    falling = [kept for kept in found.kept if 0 < kept.mean < 1 and math.log(kept.mean) / rate >= _MOST]
    return min(falling, key=lambda kept: kept.mean, default=None)


def _about_the_route(kept: Kept, rate: float) -> str:
    state, name = kept.retention.state, kept.retention.name
    is_number = name is not None and name[0].isdigit() and " " not in name
    factor = "a factor" if name is None or is_number else f"{name},"
    alone = -math.log(kept.mean)
    cost = f"alone that costs {number(alone)} nats a step, where the gradient loses {number(-rate)}"
    return f"the direct route {state}[t-1] -> {state}[t]: {factor} {kept.mean:.2f} on average; {cost}"


def _slopes(found: Gates) -> str:
    """Name the activations with the smallest slopes relative to the largest they could have."""
    flattest = sorted(found.gates, key=lambda gate: mean(gate.slope) / gate.activation.gamma)[:_NAMED]
    slopes = ", ".join(
        f"{gate.activation.name} ({gate.activation.function}) {mean(gate.slope):.2f} of at most"
        f" {number(gate.activation.gamma)}"
        for gate in flattest
    )
    return f": mean slope of {slopes}" if slopes else ""


def _matrices(found: Gates, part: float) -> str:
    norms = ", ".join(f"{name} {number(norm)}" for name, norm in (found.spectral_norms or {}).items())
    spectral = f" (spectral norm: {norms})" if norms else ""
    return f"multiplying by them leaves a factor {number(math.exp(part))} of the norm on average{spectral}"
