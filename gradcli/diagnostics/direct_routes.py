"""What the direct routes of a layer keep of the gradient: weighed by the gradient that goes along them, and by unit.

With delta_t the adjoints of a route's states at step t and D_t its diagonal blocks (see `gradcli.language.direct`), a
step changes what goes along the route by |D_t' delta_t| / |delta_t|: a cell whose slow units hold 0.99 and whose fast
ones hold 0.1 keeps 0.99 once the gradient is on the slow ones, whatever the mean over its units.

Where the states also take each other within a step, as in y[t] = y[t-1] + dt * z[t], D_t is the map of the states at
t-1 to those at t with that resolved, (I - K_0)^-1 K_1, and delta_t is without what comes from within the step.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from gradcli.diagnostics.curve import joined
from gradcli.engine.evaluate import Values
from gradcli.engine.executor import log2_norms
from gradcli.engine.scaled import scale_by
from gradcli.language.direct import DirectRoute

Array = np.ndarray[Any, Any]


def passed_on(route: DirectRoute, totals: Mapping[str, tuple[Array, Array]], values: Values) -> tuple[Array, Array]:
    """Return log2 of |delta_t| and of |D_t' delta_t| at the steps of a block, (n, R, B) each.

    Args:
        totals: for each state the adjoints (n, R, size, B) and their exponent (R, B). values: of the coefficients.
    """
    exponent = np.max([totals[state][1] for state in route.states], axis=0)
    adjoints = {
        state: mantissa if np.array_equal(own, exponent) else scale_by(mantissa, (own - exponent)[:, None, :])
        for state, (mantissa, own) in ((state, totals[state]) for state in route.states)
    }
    entering = dict(adjoints)
    leaving: dict[str, Array] = {}
    for edge in route.edges:
        part = np.asarray(values[edge.coefficient] * adjoints[edge.target])
        if edge.lag:
            leaving[edge.source] = leaving[edge.source] + part if edge.source in leaving else part
        else:
            entering[edge.source] = entering[edge.source] - part
    norms = (joined(map(log2_norms, parts.values())) for parts in (entering, leaving))
    own, kept = (norm + exponent for norm in norms)
    return own, kept


def unit_factors(route: DirectRoute, values: Values) -> Array:
    """Return what a step does to each unit's states on the route: the coefficient, or the modulus of a block.

    A single state's coefficient as it is, with its sign; of several states the spectral radius of D.
    The shape is that of the coefficients, as they broadcast together.
    """
    if len(route.states) == 1:
        return np.asarray(values[route.edges[0].coefficient])
    place = {state: i for i, state in enumerate(route.states)}
    shape = np.broadcast_shapes(*(np.shape(values[edge.coefficient]) for edge in route.edges))
    count = len(place)
    within, onward = (np.zeros((*shape, count, count)) for _ in range(2))
    for edge in route.edges:
        (onward if edge.lag else within)[..., place[edge.target], place[edge.source]] = values[edge.coefficient]
    blocks = np.linalg.solve(np.eye(count) - within, onward)
    if not np.isfinite(blocks).all():
        return np.full(shape, np.nan)
    return np.asarray(np.abs(np.linalg.eigvals(blocks)).max(axis=-1))
