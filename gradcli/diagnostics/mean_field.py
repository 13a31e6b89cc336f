"""Mean field of h[t] = phi(W h[t-1] + noise) for many units with independent Gaussian weights.

The pre-activation's variance q is carried from step to step: q' = sigma_w^2 E[phi(sqrt(q) z)^2] + s^2, z ~ N(0, 1),
with sigma_w^2 = N Var(W_ij) and s^2 what the input and the biases add. At its fixed point q*, a gradient's squared norm
changes by chi = sigma_w^2 E[phi'(sqrt(q*) z)^2] a step, so its norm by sqrt(chi) (Poole et al. 2016; Schoenholz et al.
2017; for recurrent networks Chen, Pennington and Schoenholz 2018). chi = 1 is the critical line between vanishing and
exploding.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import lru_cache
from typing import Any

import numpy as np

from gradcli.engine.evaluate import evaluate
from gradcli.frozen import frozen
from gradcli.language.functions import derivative
from gradcli.language.graph import Graph

Array = np.ndarray[Any, Any]

# Gauss-Hermite nodes lie too far apart for steep functions (chi at gain 10 would be 60 % off). An even number keeps the
# grid off zero, where some functions have their kink.
_NODES, _REACH = 8_000, 10.0
_MOST_ITERATIONS, _TOLERANCE = 200, 1e-13
#: Variances below and above these count as zero and as growing without limit.
_SMALLEST, _LARGEST = 1e-12, 1e12
_VANISHING = 1e-60


@frozen
class MeanField:
    """The fixed point: variance q of the pre-activations, and chi."""

    q: float
    chi: float

    @property
    def rate_per_step(self) -> float:
        """The factor a step that a gradient's norm changes by."""
        return math.sqrt(self.chi)


def mean_field(function: str, weight_variance: float, noise_variance: float) -> MeanField | None:
    """Return the largest fixed point; None where there is none.

    Where the variance grows without limit, q is infinite and chi what it tends to: sigma_w^2/2 for relu, whatever q.

    Args:
        function: phi, by its name in the equations. weight_variance: sigma_w^2. noise_variance: s^2.

    >>> found = mean_field("tanh", 2.0, 0.05)
    >>> round(found.q, 6), round(found.chi, 6)
    (0.721762, 1.047666)
    """

    def excess(q: float) -> float:
        return weight_variance * _moments(function, q)[0] + noise_variance - q

    high = max(1.0, 2.0 * noise_variance)
    while not excess(high) < 0:
        high *= 2.0
        if high > _LARGEST:
            chi = weight_variance * _moments(function, _LARGEST)[1]
            return MeanField(math.inf, chi) if math.isfinite(chi) else None
    low = max(noise_variance, _SMALLEST)
    # Below a rest at q = 0, the map takes every small variance further down.
    q = _root(excess, low, high) if excess(low) > 0 else noise_variance
    # The limit from above: at exactly zero some functions have a kink.
    return MeanField(q, weight_variance * _moments(function, max(q, _VANISHING))[1])


def _root(function: Callable[[float], float], low: float, high: float) -> float:
    """Return a root between `low`, where the value is positive, and `high`, where it is negative (Illinois method)."""
    at_low, at_high = function(low), function(high)
    side = 0
    for _ in range(_MOST_ITERATIONS):
        middle = (low * at_high - high * at_low) / (at_high - at_low)
        value = function(middle)
        if value > 0:
            low, at_low = middle, value
            at_high *= 0.5 if side > 0 else 1.0
            side = 1
        else:
            high, at_high = middle, value
            at_low *= 0.5 if side < 0 else 1.0
            side = -1
        if abs(value) <= _TOLERANCE * middle or high - low <= _TOLERANCE * middle:
            return middle
    return 0.5 * (low + high)


def _moments(function: str, q: float) -> tuple[float, float]:
    """Return E[phi^2] and E[phi'^2] over N(0, q)."""
    nodes, density = _grid()
    with np.errstate(all="ignore"):
        phi, slope = _values(function, math.sqrt(q) * nodes)
        return float(density @ np.square(phi)), float(density @ np.square(slope))


@lru_cache(maxsize=1)
def _grid() -> tuple[Array, Array]:
    nodes = np.linspace(-_REACH, _REACH, _NODES)
    density = np.exp(-0.5 * nodes**2)
    return nodes, density / density.sum()


def _values(function: str, argument: Array) -> tuple[Array, Array]:
    graph = Graph()
    a = graph.input()
    y = graph.call(function, a)
    slope = derivative(graph, y) if y.op == "call" else graph.number(1.0)
    values: dict[Any, Any] = {a: argument}
    evaluate([y, slope], values, {})
    return values[y], np.broadcast_to(values[slope], argument.shape)
