"""Spikes: a step forward, and the slope of something smoother backward.

A spike is 1 where a > 0, else 0: it has no gradient to follow. Networks of spiking neurons are trained with that of a
surrogate (Neftci, Mostafa and Zenke 2019); k says how steep it is:

    atan           (k/2) / (1 + (pi/2 k a)^2)     Fang et al. 2021
    fast_sigmoid   1 / (1 + k |a|)^2              Zenke and Ganguli 2018
    sigmoid        k s (1 - s), s = sigmoid(k a)  Bengio, Leonard and Courville 2013
    triangle       max(0, k - k^2 |a|)            Bellec et al. 2018
    rectangle      k where |a| < 1/(2 k)          Wu et al. 2018
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

from gradcli.language.graph import Graph, Node


class Surrogate(NamedTuple):
    """The slope of a surrogate as an expression in the argument, and the largest that it takes, at 0; both by k."""

    slope: Callable[[Graph, Node, float], Node]
    largest: Callable[[float], float]


def _atan(g: Graph, a: Node, k: float) -> Node:
    bent = g.mul(g.number(math.pi / 2 * k), a)
    return g.div(g.number(k / 2), g.add(g.number(1.0), g.mul(bent, bent)))


def _fast_sigmoid(g: Graph, a: Node, k: float) -> Node:
    return g.pow(g.add(g.number(1.0), g.mul(g.number(k), g.call("abs", a))), g.number(-2.0))


def _sigmoid(g: Graph, a: Node, k: float) -> Node:
    s = g.call("sigmoid", g.mul(g.number(k), a))
    return g.mul(g.number(k), g.mul(s, g.sub(g.number(1.0), s)))


def _triangle(g: Graph, a: Node, k: float) -> Node:
    return g.call("relu", g.sub(g.number(k), g.mul(g.number(k * k), g.call("abs", a))))


def _rectangle(g: Graph, a: Node, k: float) -> Node:
    return g.mul(g.number(k), g.compare("greater", g.number(1 / (2 * k)), g.call("abs", a)))


SURROGATES: dict[str, Surrogate] = {
    "atan": Surrogate(_atan, lambda k: k / 2),
    "fast_sigmoid": Surrogate(_fast_sigmoid, lambda k: 1.0),
    "sigmoid": Surrogate(_sigmoid, lambda k: k / 4),
    "triangle": Surrogate(_triangle, lambda k: k),
    "rectangle": Surrogate(_rectangle, lambda k: k),
}


def surrogate_slope(graph: Graph, node: Node) -> Node:
    """Return the slope with which gradients pass a node ``spike(a)``."""
    surrogate, k = node.data
    return SURROGATES[surrogate].slope(graph, node.args[0], k)


def largest_slope(node: Node) -> float:
    """Return the largest slope with which gradients pass a node ``spike(a)``."""
    surrogate, k = node.data
    return SURROGATES[surrogate].largest(k)
