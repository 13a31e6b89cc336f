"""States whose gradient is nothing but rounding, as that of a stabiliser: nothing depends on it, yet it is not zero.

The largest exponent that xLSTM and ABC keep beside their sums is one: whatever it is, the output is the same, and the
parts of its gradient cancel. What rounding leaves of them falls, grows and has a half-life like any curve.

Two things tell it. At every distance between the two ends the gradient is below some 45 units of the last place of that
of another state of its layer; and where it is made, at the steps next to the loss, its parts are that much larger than
their sum. The first alone would swallow a state on a scale of its own, whose small gradient is real: no parts of it
cancel. The second is looked at for such states only, as it needs a walk over the routes of the cell.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from gradcli.engine.run import Engine

Array = np.ndarray[Any, Any]

#: log10 of so many units of the last place: 1e-14 in float64.
_UNITS = math.log10(45.0)
#: So many steps next to the loss are looked at.
_STEPS = 8


def states_of_rounding(engine: Engine, means: Mapping[str, Array]) -> frozenset[str]:
    """Return the names of the states whose gradient is nothing but rounding.

    Args:
        engine: of a run of which all numbers were finite. means: log10 of each state's mean norm by distance, (T+1,).
    """
    problem = engine.problem
    if problem.bidirectional or problem.begins is not None:
        return frozenset()  # there are no routes to walk over, or none that all sequences share
    found: set[str] = set()
    for index, layer in enumerate(problem.names):
        own = {name: mean for name, mean in means.items() if name.rpartition(".")[0] == layer}
        suspects = _far_below_the_others(own, problem.dtype)
        if suspects:
            found |= {f"{layer}.{state}" for state in _cancelling(engine, index) if f"{layer}.{state}" in suspects}
    return frozenset(found)


def _far_below_the_others(means: Mapping[str, Array], dtype: Any) -> set[str]:
    """Return the states of a layer whose gradient may be rounding beside the largest, by its size."""
    limit = math.log10(float(np.finfo(dtype).eps)) + _UNITS
    # At the ends it may be more: initial states have no step behind them in which the parts would meet.
    inner = {name: mean[1:-1] if len(mean) > 2 else mean[1:] for name, mean in means.items()}
    largest = np.max(list(inner.values()), axis=0)
    return {
        name
        for name, mean in inner.items()
        if np.isfinite(mean).any() and (np.isneginf(mean) | (mean < largest + limit)).all()
    }


def _cancelling(engine: Engine, layer: int) -> set[str]:
    """Return the states of a layer whose gradient cancels at each of the steps next to the loss, in some trials."""
    # Few runs have a state that is looked at, and what walks over routes is loaded for these alone.
    from gradcli.diagnostics.paths_walk import Backpropagation, loss_gradient, steps_back
    from gradcli.language.routes import PathGraph

    problem = engine.problem
    graph = PathGraph(problem.plans[layer].cell)
    last = problem.loss.last_step
    _, group = next(engine.groups())
    walk: Backpropagation | None = None
    cancels: set[str] = set()
    fails: set[str] = set()
    with np.errstate(all="ignore"):
        for step, values in steps_back(graph, group, group.layers[layer], last):
            if walk is None:
                gradient = loss_gradient(group, layer, step)
                walk = Backpropagation(graph, graph.cell.output, step, gradient, dtype=problem.dtype)
            walk.step(step, values)
            for state in graph.states:
                if state not in walk.at:
                    continue
                is_there = (walk.at[state].mantissa != 0).any(axis=1)
                if is_there.any():
                    cancels.add(state)
                if (is_there & ~walk.rounding[state]).any():
                    fails.add(state)
            if last - step == _STEPS:
                break
    return cancels - fails
