"""What shrinks or enlarges the gradient most: the main cause of the mean rate, in words, where one is clear."""

from __future__ import annotations

import math
from typing import Literal

import numpy as np

from gradcli.diagnostics.gates import Gate, Gates, Kept
from gradcli.frozen import frozen
from gradcli.numbers import factor, grouped, significant, steps_text

CauseKind = Literal["level", "gates", "activations", "weights", "unclear"]

#: Over all steps together, less than a factor 2 is no change that asks for a cause.
LEVEL = math.log(2.0)
#: ... unless it was far away from there in between.
EVEN = math.log(10.0)
#: It keeps its size where it changes by less than this.
KEPT = math.log(1.25)
#: What is named as the cause accounts for the rate within this factor, in nats ...
WITHIN = 2.0
#: ... a part of it makes up at least this share ...
_MOST = 2 / 3
#: ... and a direct route brings at least this much of its states' gradient, by norm, ...
_CARRIED = 0.5
#: ... which is at least this much of that of all states.
_WEIGHT = 0.1
#: So many activations are named.
_NAMED = 3
#: More matrices than this are not named one by one.
_MOST_MATRICES = 6


@frozen
class Cause:
    """The main cause: its kind and a sentence; "level" where there is nothing to explain, "unclear" where none is.

    rate: what there is to explain, in nats a step: that of the mean norm from distance 1 on. None without a gradient.
    nats: what the named cause alone makes of it, with the sign of the rate; None where none is named.
    """

    kind: CauseKind
    text: str
    rate: float | None = None
    nats: float | None = None


def main_cause(found: Gates) -> Cause:
    """Return the main cause of the mean rate from distance 1 on: what the first step takes is no matter of the rate.

    With r the mean rate and p the mean of a part, in nats a step, a part is the cause if 2/3 <= p / r <= 2: the others
    are small, or work against it. A direct route is, if it brings at least half of what arrives at its states, by norm,
    and what it alone makes of the gradient that goes along it is r within a factor 2.
    """
    rates = found.rates
    assert rates is not None
    if len(rates.total) == 1:
        return Cause(
            "unclear", "one step alone has no rate: what it takes is the read-out's and the recurrence's together"
        )
    counted = rates.total[1:]
    steps = int(np.isfinite(counted).sum())
    if not steps:
        return Cause("unclear", "no sequence has a gradient that is not exactly zero: there is no rate to explain")
    rate, activations, weights = mean(rates.total), mean(rates.activations), mean(rates.weights)
    parts = f"activations and gates {signed(activations)}, weights {signed(weights)}"
    if rates.other is not None:
        parts += f", other {signed(mean(rates.other))}"
    parts += f"; {signed(rate)} nats a step in all"
    if abs(rate) * steps < LEVEL:
        size = f"in {grouped(steps)} step{'s' * (steps > 1)} it changes by a factor {_factor(rate * steps)}"
        if np.ptp(np.cumsum([0.0, *counted[np.isfinite(counted)]])) > EVEN:
            return Cause("unclear", f"no single factor accounts for it: {size}, but not at an even rate; {parts}", rate)
        balance = ", which make up for each other" if min(abs(activations), abs(weights)) * steps > LEVEL else ""
        keeps = "keeps its size" if abs(rate) * steps < KEPT else "changes little"
        return Cause("level", f"none to name, as the gradient {keeps}: {size}; {parts}{balance}", rate)
    route = _route(found, rate)
    if route is not None:
        return Cause("gates", f"{_about_the_route(route)}, of {signed(rate)} in all", rate, route.rate)
    routes = "".join(f"; {_about_the_route(kept)}" for kept in found.kept if math.isfinite(kept.rate))
    # Beside a direct route, growth is what the other routes add to it, whose parts are no causes by themselves.
    alone = rate < 0 or not found.kept
    if alone and _MOST <= activations / rate <= WITHIN:
        text = f"{_elementwise(found)} a factor {_factor(activations)} of the norm a step"
        return Cause("activations", f"{text}{_slopes(found)}; {parts}{routes}", rate, activations)
    if _MOST <= weights / rate <= WITHIN:
        return Cause("weights", f"the weights: {_matrices(found, weights)}; {parts}", rate, weights)
    return Cause("unclear", f"no single factor accounts for it: {parts}{routes}", rate)


def functions_across(found: Gates) -> list[str]:
    """Return the names of the functions across in the recurrence, whose Jacobians count with the activations."""
    return list(dict.fromkeys(str(node.data[0]) for node in found.network.problem.plans[found.layer].across))


def mean(values: np.ndarray[tuple[int, ...], np.dtype[np.float64]]) -> float:
    """Return the mean over the distances from 1 on that have a number (a sequence of one step has 0 only)."""
    counted = values if len(values) == 1 else values[1:]
    some = counted[np.isfinite(counted)]
    return float(some.mean()) if some.size else math.nan


def signed(value: float) -> str:
    """Return nats with their sign and two digits: -0.53, +0.021; 0 where they are nothing.

    >>> signed(-0.531), signed(0.0164), signed(-1e-7), signed(-12.34)
    ('-0.53', '+0.016', '0', '-12')
    """
    if abs(value) < 1e-6:
        return "0"
    return f"{'-' if value < 0 else '+'}{significant(abs(value), digits=2)}"


def _factor(nats: float) -> str:
    return factor(nats / math.log(10.0))


def _route(found: Gates, rate: float) -> Kept | None:
    """Return the direct route that explains the rate, the one with most of the gradient; None where none does."""
    explaining = [
        kept
        for kept in found.kept
        # What lets nothing through at some steps carries no gradient over them.
        if not kept.closed
        and 1 / WITHIN <= kept.rate / rate <= WITHIN
        and mean(kept.share) >= _CARRIED
        and mean(kept.weight) >= _WEIGHT
    ]
    return max(explaining, key=lambda kept: mean(kept.weight), default=None)


def _about_the_route(kept: Kept) -> str:
    """Say what a direct route keeps, by the gradient on it and by unit, and what that is in nats."""
    label, name, nats = kept.route.label, kept.route.name, kept.rate
    is_number = name is None or name.replace(".", "").isdigit()
    what = f"the direct route {label}[t-1] -> {label}[t]: {'' if is_number else f'{name} = '}"
    keeps = f"a factor {_factor(nats)} a step" if is_number else f"{_factor(nats)} a step"
    every = _factor(math.log(abs(kept.mean))) if kept.mean else "0"
    aside = (
        "" if every.lstrip("-") == _factor(nats) else f" ({'-' if kept.mean < 0 else ''}{every} on average over units)"
    )
    return f"{what}{keeps} where the gradient is{steps_closed(kept)}{aside}, alone {signed(nats)} nats a step"


def steps_closed(kept: Kept) -> str:
    """Say at how many steps a direct route lets nothing through; nothing where it always lets something."""
    return f", with nothing at {kept.closed} of {steps_text(kept.steps)}" if kept.closed else ""


def _elementwise(found: Gates) -> str:
    """Name what is no matrix of parameters: the activations where gradient goes through one, else what there is."""
    functions = functions_across(found)
    if functions or any(map(_is_reached, found.gates)):
        return f"{' and '.join(['the activations', *functions])}: they leave"
    if not found.kept:
        return "the elementwise factors: they leave"
    # As the delta rule's S (I - k k^T): nothing but what is taken off the direct route, or added to it.
    states = " and ".join(dict.fromkeys(kept.route.label for kept in found.kept))
    several = len(found.kept) > 1
    return f"what a step does to {states} beside the direct route{'s: all' if several else ': both'} together leave"


def _is_reached(gate: Gate) -> bool:
    return math.isfinite(mean(gate.passed))


def _slopes(found: Gates) -> str:
    """Name the activations through which most gradient goes on, with their slopes where it is."""
    reached = [gate for gate in found.gates if _is_reached(gate)]
    most = sorted(reached, key=lambda gate: -mean(gate.carried))[:_NAMED]
    slopes = ", ".join(
        f"{gate.activation.name} ({gate.activation.function}) {_factor(mean(gate.passed))} of at most"
        f" {significant(gate.activation.gamma, digits=2)}"
        for gate in most
    )
    return f", with the slopes where the gradient is: {slopes}" if slopes else ""


def _matrices(found: Gates, part: float) -> str:
    by_name = found.spectral_norms or {}
    shown = sorted(by_name, key=lambda name: -by_name[name])[:1] if len(by_name) > _MOST_MATRICES else by_name
    norms = ", ".join(f"{name} {significant(by_name[name], digits=2)}" for name in shown)
    which = f"largest spectral norm of {len(by_name)}" if len(shown) < len(by_name) else "spectral norm"
    spectral = f" ({which}: {norms})" if norms else ""
    return f"multiplying by them leaves a factor {_factor(part)} of the norm a step{spectral}"
