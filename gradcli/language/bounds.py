"""Bounds on elementwise expressions that hold for every input and every state: interval arithmetic on the graph.

What an activation's derivative is bounded by is its gamma from the table of functions, because interval arithmetic of
y (1 - y) alone would give 1 for the sigmoid in place of 1/4.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from itertools import product

import numpy as np

from gradcli.language.functions import FUNCTIONS, derivative, value_at
from gradcli.language.graph import Graph, Node, reachable

Interval = tuple[float, float]
UNBOUNDED: Interval = (-math.inf, math.inf)


class Bounds:
    """Intervals that hold every value a node can take.

    Args:
        graph: the cell's. expressions: those of its states; the calls in them are the activations.
        known: the value of a node that depends on parameters alone, any array or number.
        states: intervals of states, by name; any other state can take any value.
    """

    def __init__(
        self,
        graph: Graph,
        expressions: Iterable[Node],
        known: Callable[[Node], object],
        states: Mapping[str, Interval],
    ) -> None:
        self._known, self._states = known, states
        self._memo: dict[Node, Interval] = {}
        self._slopes: dict[Node, float] = {}
        for node in reachable(expressions):
            gamma = FUNCTIONS[node.data].gamma if node.op == "call" else None
            if gamma is not None:
                self._slopes[derivative(graph, node)] = gamma

    def magnitude(self, node: Node) -> float:
        """Return a bound on abs(node); infinite where there is none."""
        low, high = self.interval(node)
        return max(abs(low), abs(high))

    def interval(self, node: Node) -> Interval:
        """Return an interval that holds the node's value."""
        for below in reachable([node]):
            if below not in self._memo:
                self._memo[below] = self._interval(below)
        return self._memo[node]

    def _interval(self, node: Node) -> Interval:
        found = self._by_rule(node)
        gamma = self._slopes.get(node)
        return found if gamma is None else (max(found[0], -gamma), min(found[1], gamma))

    def _by_rule(self, node: Node) -> Interval:
        args = [self._memo[arg] for arg in node.args]
        match node.op:
            case "number":
                return node.data, node.data
            case "parameter":
                value = np.asarray(self._known(node))
                return float(value.min(initial=math.inf)), float(value.max(initial=-math.inf))
            case "state":
                return self._states.get(node.data[0], UNBOUNDED)
            case "sum":
                ends = [arg if sign > 0 else (-arg[1], -arg[0]) for sign, arg in zip(node.data, args, strict=True)]
                return _sum(end[0] for end in ends), _sum(end[1] for end in ends)
            case "mul" if node.args[0] is node.args[1]:
                squares = [_times(end, end) for end in args[0]]
                return (0.0 if args[0][0] <= 0.0 <= args[0][1] else min(squares)), max(squares)
            case "mul":
                corners = [_times(a, b) for a, b in product(*args)]
                return min(corners), max(corners)
            case "div" if args[1][0] > 0 or args[1][1] < 0:
                corners = [_times(a, 1.0 / b) for a, b in product(*args)]
                return min(corners), max(corners)
            case "call" if node.args[0].op == "call" and (node.data, node.args[0].data) == ("exp", "_negative_part"):
                return 0.0, 1.0
            case "call" if node.data in _INCREASING:
                low, high = (_value_at(node.data, end) for end in args[0])
                least, most = FUNCTIONS[node.data].values or UNBOUNDED
                return max(low, least), min(high, most)
            case "call":
                return FUNCTIONS[node.data].values or UNBOUNDED
            case "view" | "entries" | "transpose" | "columns" | "stop" | "largest" | "carried":
                return args[0]
            case "maximum":
                return max(args[0][0], args[1][0]), max(args[0][1], args[1][1])
            case "minimum":
                return min(args[0][0], args[1][0]), min(args[0][1], args[1][1])
            case "where":
                return min(args[1][0], args[2][0]), max(args[1][1], args[2][1])
            case "greater" | "greater_equal" | "equal" | "spike" | "identity":
                return 0.0, 1.0
            case "pad":
                return min(args[0][0], 0.0), max(args[0][1], 0.0)
            case "total":
                shape, axis = node.data
                return shape[axis] * args[0][0], shape[axis] * args[0][1]
            case "across" if node.data[0] == "softmax":
                return 0.0, 1.0
            case _:
                return UNBOUNDED


#: Functions that never fall, so that the ends of an interval give those of its image.
_INCREASING = frozenset(
    {
        *("exp", "sigmoid", "tanh", "relu", "leaky_relu", "elu", "selu", "softplus", "log_sigmoid", "softsign"),
        *("hard_sigmoid", "hard_tanh", "erf", "identity", "_root"),
    }
)


def _value_at(function: str, argument: float) -> float:
    """Return phi(a), with an argument that may be infinite; infinite where there is no bound."""
    if math.isfinite(argument):
        value = value_at(function, argument)
        return value if not math.isnan(value) else (-math.inf if argument < 0 else math.inf)
    if argument < 0:
        return {"exp": 0.0, "sigmoid": 0.0, "softplus": 0.0, "relu": 0.0, "tanh": -1.0}.get(function, -math.inf)
    return math.inf


def _times(a: float, b: float) -> float:
    """Return a * b; zero times infinity is zero here, since every value that is taken is finite."""
    return 0.0 if a == 0.0 or b == 0.0 else a * b


def _sum(values: Iterable[float]) -> float:
    total = math.fsum(found) if all(map(math.isfinite, found := list(values))) else sum(found)
    return math.inf if math.isnan(total) else total
