"""The direct routes of a cell: from a state at t-1 to a state at t entry by entry, with the gates held constant.

Matrix products, functions across and gates stand still; what is left of d s[t] / d s'[t-1] is a coefficient for each
unit, such as f in c[t] = f * c[t-1] + i * g. A gate is what a more linear expression is multiplied by. In a product of
two that change with the step, the factor that is bent more is held constant:

    0  linear in a state, the input or a matrix product: c[t-1], W @ h[t-1]
    1  through a function such as tanh or relu: tanh(a * h[t-1]), 1 + tanh(a)
    2  through one that only lets more or less through: sigmoid, hard_sigmoid, exp

So it does not matter whether a gate has a name, is written in place, or sees the state itself (a peephole): in
sigmoid(p * c[t-1]) * c[t-1] the route keeps sigmoid(p * c[t-1]). A function that multiplies nothing is no gate:
h[t] = relu(u * h[t-1] + ...) keeps u * relu'(...).

States that feed each other, such as the real and the imaginary part of a rotating one, have one route together:

    (re, im)[t-1] -> (re, im)[t]:  D = [[r cos, -r sin], [r sin, r cos]]
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from gradcli.frozen import frozen
from gradcli.language.cell import SizedCell
from gradcli.language.derivative import slopes
from gradcli.language.graph import MAPS, Dependence, Graph, Node, reachable

#: Functions that only let more or less of something through.
_PASSING = ("sigmoid", "hard_sigmoid", "exp")
_LINEAR, _BENT, _GATE = range(3)


@frozen
class DirectEdge:
    """d target[t] / d source[t-lag] = diag(coefficient), gates held constant; lag is 1, or 0 within a step."""

    target: str
    source: str
    lag: int
    coefficient: Node


@frozen
class DirectRoute:
    """States that are handed on entry by entry, alone or together.

    states: in the order of the equations. edges: those among them. name: how the equations call the coefficient of a
    single state, such as ``f`` or ``1 - z``; None where they have no short name for it.
    """

    states: tuple[str, ...]
    edges: tuple[DirectEdge, ...]
    name: str | None

    @property
    def label(self) -> str:
        """The states as they are printed: c, or (re, im).

        >>> DirectRoute(("re", "im"), (), None).label
        '(re, im)'
        """
        return self.states[0] if len(self.states) == 1 else f"({', '.join(self.states)})"

    def within(self, lag: int) -> list[DirectEdge]:
        """Return the edges of one lag."""
        return [edge for edge in self.edges if edge.lag == lag]


def direct_routes(cell: SizedCell) -> list[DirectRoute]:
    """Return the direct routes of a cell, in the order of its equations; see the module."""
    edges = direct_edges(cell)
    named = {cell.values[equation.name]: equation.name for equation in cell.equations}
    routes = []
    for states in _together(list(cell.states), edges):
        inside = tuple(edge for edge in edges if edge.target in states and edge.source in states)
        if any(edge.lag for edge in inside):
            routes.append(DirectRoute(states, inside, _name(inside, named)))
    return routes


def direct_edges(cell: SizedCell) -> list[DirectEdge]:
    """Return what each state at t takes of states at t-1, and of others at t, entry by entry with gates held."""
    found = []
    size = cell.shapes.states
    for target, expression in cell.states.items():
        for node, coefficient in _derivatives(cell.graph, expression).items():
            source, lag = node.data
            if lag <= 1 and size[source] == size[target]:
                found.append(DirectEdge(target, source, lag, coefficient))
    return found


def _derivatives(graph: Graph, target: Node) -> dict[Node, Node]:
    """Return d target / d s for every state node s, by reverse accumulation that goes round gates."""
    bends = _bends(reachable([target]))
    stop = {node for node in reachable([target]) if node.op in ("state", "matmul", "across", *MAPS)}
    cotangents: dict[Node, Node] = {target: graph.number(1.0)}
    for node in reversed(reachable([target], stop=stop)):
        if node in stop or node not in cotangents or node.dependence < Dependence.STATE:
            continue
        for arg, slope in slopes(graph, node):
            if arg.dependence < Dependence.STATE or _is_held(arg, node, bends):
                continue
            term = graph.mul(cotangents[node], slope)
            cotangents[arg] = graph.add(cotangents[arg], term) if arg in cotangents else term
    return {
        node: cotangents[node]
        for node in sorted(stop, key=lambda node: node.index)
        if node.op == "state" and node in cotangents and not _is_zero(cotangents[node])
    }


def _is_zero(node: Node) -> bool:
    return node.is_number and node.data == 0.0


def _is_held(arg: Node, node: Node, bends: Mapping[Node, int | None]) -> bool:
    """Tell whether an argument of a product or quotient is a gate on the other one."""
    if node.op not in ("mul", "div"):
        return False
    (mine, *theirs) = [bends[arg]] + [bends[other] for other in node.args if other is not arg]
    return mine is not None and any(other is not None and mine > other for other in theirs)


def _bends(nodes: Iterable[Node]) -> dict[Node, int | None]:
    """Return how much each expression is bent (see the module); None for what is the same at every step."""
    found: dict[Node, int | None] = {}
    for node in nodes:
        if node.dependence is Dependence.PARAMETERS:
            found[node] = None
        elif node.op in ("state", "input", "matmul", "across", "total", "cumsum"):
            found[node] = _LINEAR
        elif node.op in MAPS:
            found[node] = found[node.args[0]]  # a gate stays one, however many entries it stands beside
        else:
            inner = min(bend for arg in node.args if (bend := found[arg]) is not None)
            if node.op == "call":
                inner = _GATE if node.data in _PASSING else max(inner, _BENT)
            elif node.op in ("maximum", "minimum", "where", "spike"):
                inner = max(inner, _BENT)
            found[node] = inner
    return found


def _together(states: list[str], edges: Iterable[DirectEdge]) -> list[tuple[str, ...]]:
    """Return the states in groups that feed each other (strongly connected), each in the order given."""
    onward: dict[str, set[str]] = {state: {state} for state in states}
    for edge in edges:
        onward[edge.source].add(edge.target)
    for middle in states:  # Warshall: a cell has a handful of states
        for state in states:
            if middle in onward[state]:
                onward[state] |= onward[middle]
    groups = []
    for state in states:
        group = tuple(other for other in states if other in onward[state] and state in onward[other])
        if group[0] == state:
            groups.append(group)
    return groups


def _name(edges: tuple[DirectEdge, ...], named: Mapping[Node, str]) -> str | None:
    """Return a coefficient as the equations would write it, where it is a name, a number, or one minus a name."""
    if len(edges) > 1:
        return None
    factor = _unlaid(edges[0].coefficient)
    if factor in named:
        return named[factor]
    if factor.is_number:
        return f"{factor.data:g}"
    if factor.op == "parameter":
        return str(factor.data)
    if factor.op == "sum" and factor.data == (1, -1) and factor.args[0].is_number:
        gate = _unlaid(factor.args[1])
        return f"{factor.args[0].data:g} - {named[gate]}" if gate in named else None
    return None


def _unlaid(node: Node) -> Node:
    """Return what stands beside the entries of a matrix or a vector, as the equations have it."""
    while node.op == "view":
        node = node.args[0]
    return node
