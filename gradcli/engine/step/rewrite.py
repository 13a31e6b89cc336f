"""Rewrites of a cell's equations that change no value, and make a step cheaper.

* What is known before the loop becomes one term of a sum: W_h h + W_x x + b is W_h h + (W_x x + b).
* Products with neighbouring past values of one state, W1 @ s[t-1] + W2 @ s[t-2], become one. The steps of a state lie
  side by side in memory, so that s[t-2] and s[t-1] are one vector already: ``[W2 W1] @ window``. The node ``window``
  takes the state nodes from the longest lag to the shortest; ``beside`` joins the matrices. To everything after this,
  that is a product like others.
* Earlier inputs, x[t-1], are past values of a state of the engine's own, x[t] = x[t]: what crosses the border of a
  segment or of a block is then kept as that of states is.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Container
from typing import NamedTuple

from gradcli.language.cell import SizedCell
from gradcli.language.graph import Dependence, Node, reachable
from gradcli.language.parser import INPUT_NAME

#: One product is faster than several up to so many numbers in the joined matrix; of larger ones a call's own time does
#: not count, and the smaller operands stay in a nearer cache.
_MOST_JOINED = 2**14

_Term = tuple[int, Node]


class _Window(NamedTuple):
    """A state, and the neighbouring lags at which it is multiplied, from the longest to the shortest."""

    state: str
    lags: tuple[int, ...]


def rewritten(cell: SizedCell, *, windows: bool) -> tuple[dict[str, Node], dict[Node, str], dict[Node, Node]]:
    """Return the expression of each state, the names that the equations give to what is left, and what nodes became.

    Args:
        windows: whether products with neighbouring past values may become one, where it pays.
    """
    plain = _Rewriting(cell, ())
    paying = [window for window, numbers in plain.joined.items() if numbers <= _MOST_JOINED]
    found = _Rewriting(cell, paying) if windows and paying else plain
    return found.states, found.names, found.became


def _inside(cell: SizedCell) -> set[Node]:
    """Return what is known of the input, but computed in the loop.

    That are matrices, which would take too much memory before it, and what is made of earlier inputs.
    """
    found: set[Node] = set()
    for node in reachable(cell.states.values()):
        if node.dependence is Dependence.INPUT:
            is_matrix = len(cell.shapes.of_nodes.get(node, ())) > 1
            is_earlier = node.op == "input" and node.data is not None
            if is_matrix or is_earlier or not found.isdisjoint(node.args):
                found.add(node)
    return found


class _Rewriting:
    """One pass over the graph.

    Args:
        allowed: the windows of which products become one.

    Attributes:
        states: the expressions. names: those of nodes. became: the new node for each old one.
        joined: how many numbers the joined matrix of each window that was met has.
    """

    def __init__(self, cell: SizedCell, allowed: Container[_Window]) -> None:
        self._cell, self._graph, self._allowed = cell, cell.graph, allowed
        self.joined: Counter[_Window] = Counter()
        new: dict[Node, Node] = {}
        self.became = new
        inside = _inside(cell)
        for node in reachable(cell.states.values()):
            if node.op == "input" and node.data:
                new[node] = self._graph.state(INPUT_NAME, node.data)
                continue
            if (node.dependence < Dependence.STATE and node not in inside) or not node.args:
                new[node] = node
                continue
            args = [new[arg] for arg in node.args]
            if node.op == "view" and all(arg.dependence < Dependence.STATE for arg in args):
                new[node] = self._graph.node("view", args, (*node.data, "inside"))
                continue
            if node.op == "sum":
                new[node] = self._sum(list(zip(node.data, args, strict=True)))
            else:
                new[node] = self._graph.node(node.op, args, node.data)
        self.states = {name: new[node] for name, node in cell.states.items()}
        if any(node.op == "input" and node.data for node in new):
            self.states[INPUT_NAME] = self._graph.input()
        named = ((new[node], name) for name, node in cell.values.items() if node in new and name not in cell.states)
        self.names = dict(named)

    def _sum(self, terms: list[_Term]) -> Node:
        known = [term for term in terms if term[1].dependence < Dependence.STATE]
        terms = self._with_windows([term for term in terms if term[1].dependence is Dependence.STATE])
        if not known:
            return self._graph.sum(terms)
        hoisted = (1, self._graph.sum(known))
        product = next((term for term in terms if term[0] == 1 and term[1].op == "matmul"), None)
        if product is None or len(terms) == 1:
            return self._graph.sum([*terms, hoisted])
        terms.remove(product)
        return self._graph.sum([(1, self._graph.sum([product, hoisted])), *terms])

    def _with_windows(self, terms: list[_Term]) -> list[_Term]:
        """Return the terms with the products of a window as one, which comes first."""
        by_state: dict[str, dict[int, _Term]] = {}
        for term in terms:
            sign, node = term
            if sign == 1 and node.op == "matmul" and node.args[1].op == "state":
                state, lag = node.args[1].data
                if lag:
                    by_state.setdefault(state, {}).setdefault(lag, term)
        state, products = max(by_state.items(), key=lambda item: len(item[1]), default=("", {}))
        lags = tuple(sorted(products, reverse=True))
        if len(lags) < 2 or lags != tuple(range(lags[0], lags[-1] - 1, -1)):
            return terms
        window = _Window(state, lags)
        found = [products[lag] for lag in lags]
        self.joined[window] += sum(self._numbers(node.args[0]) for _, node in found)
        if window not in self._allowed:
            return terms
        matrix = self._graph.node("beside", [node.args[0] for _, node in found])
        vector = self._graph.node("window", [node.args[1] for _, node in found])
        return [(1, self._graph.matmul(matrix, vector)), *(term for term in terms if term not in found)]

    def _numbers(self, matrix: Node) -> int:
        rows, columns = self._cell.shapes.matrices[matrix]
        return rows * columns
