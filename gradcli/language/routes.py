"""The path graph of a cell: its named variables, what each takes directly of which, and the routes through it.

The vertices are the names of the equations: states (h, c) and what is assigned on the way (gates f, i, n, ...). An edge
is the direct dependence of one variable on another, with all other variables held fixed, as a product of factors:

    c[t] <- f         diag(c[t-1])
    f    <- h[t-1]    diag(f (1 - f)) W_hf

By the chain rule the derivative of a variable with respect to an earlier one is the sum over all routes between them
of the product of the factors on the way. See Hochreiter and Schmidhuber 1997, appendix A.2, for such sums by hand.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cached_property

from gradcli.frozen import frozen
from gradcli.language.across import ACROSS
from gradcli.language.cell import SizedCell
from gradcli.language.derivative import diagonal_derivatives
from gradcli.language.direct import DirectRoute, direct_routes
from gradcli.language.graph import MAPS, Dependence, Node, reachable


@frozen
class Diagonal:
    """diag(coefficient): entry by entry."""

    coefficient: Node


@frozen
class Matrix:
    """A matrix of parameters."""

    matrix: Node


@frozen
class AcrossJacobian:
    """The Jacobian of a function across entries or sequences, such as layer_norm, at its argument. It is symmetric.

    node: the function's value.
    """

    node: Node

    @property
    def argument(self) -> Node:
        return self.node.args[0]

    @property
    def over_sequences(self) -> bool:
        return ACROSS[self.node.data[0]].over_sequences


@frozen
class Map:
    """A fixed map from one shape to another: a vector laid along a matrix, a sum over an axis, a slice.

    node: its value. size: how many entries its argument has.
    """

    node: Node
    size: int


#: A kind of factor is one class here, one case where it is written (`formula`), and one where an adjoint passes it.
Factor = Diagonal | Matrix | AcrossJacobian | Map


@frozen
class Edge:
    """The direct dependence of `target` at a step t on `source` at t - lag.

    factors: from left to right, so that d target / d source is their product; none stands for the identity.
    """

    target: str
    source: str
    lag: int
    factors: tuple[Factor, ...]

    @property
    def is_elementwise(self) -> bool:
        return all(isinstance(factor, Diagonal) for factor in self.factors)

    @property
    def is_own(self) -> bool:
        """Whether it leads from a state to its own last value, entry by entry."""
        return self.target == self.source and self.lag == 1 and self.is_elementwise


@frozen
class Route:
    """A way back through the unrolled path graph, from a later variable to an earlier one."""

    edges: tuple[Edge, ...]

    @property
    def distance(self) -> int:
        """The number of steps from its start back to its end."""
        return sum(edge.lag for edge in self.edges)

    @cached_property
    def vertices(self) -> tuple[tuple[str, int], ...]:
        """The variables on the way, each with how many steps it lies behind the start."""
        found = [(self.edges[0].target, 0)]
        for edge in self.edges:
            found.append((edge.source, found[-1][1] + edge.lag))
        return tuple(found)


class PathGraph:
    """The path graph of a cell.

    variables: its vertices, in the order of the equations: within a step, each takes earlier ones only.
    states: those of them that are states, in the same order.
    edges: for each variable the edges that lead back from it.
    named: the nodes that stand for a variable, each with its name.

    Args:
        named: the nodes that are to be variables beside the states; what the equations give a name to, unless given.
    """

    def __init__(self, cell: SizedCell, named: Mapping[Node, str] | None = None) -> None:
        self.cell = cell
        self.states = tuple(cell.states)
        self.named: dict[Node, str] = {}
        for name, node in cell.values.items() if named is None else ((name, node) for node, name in named.items()):
            is_expression = node.args and node.dependence is Dependence.STATE
            if name not in cell.states and is_expression:
                self.named.setdefault(node, name)
        expressions = {name: node for node, name in self.named.items()} | cell.states
        self.variables = tuple(name for name in (cell.values if named is None else expressions) if name in expressions)
        self.edges = {name: self._edges(name, expressions[name]) for name in self.variables}

    def _edges(self, name: str, expression: Node) -> tuple[Edge, ...]:
        own = None if name in self.states else expression
        edges = []
        for factors, source in self._chains(expression, own):
            variable, lag = source.data if source.op == "state" else (self.named[source], 0)
            edges.append(Edge(name, variable, lag, factors))
        # What acts entry by entry on the variable itself comes first, as in dc[t]/dc[t-1] = f + ...
        return tuple(sorted(edges, key=lambda edge: not edge.is_own))

    def _chains(self, target: Node, own: Node | None) -> Iterator[tuple[tuple[Factor, ...], Node]]:
        """Yield the variables that an expression takes directly, each behind the factors that lead to it.

        own: the node that `target` itself stands for, which is no place to stop at.
        """

        def is_boundary(node: Node) -> bool:
            return (
                (node in self.named and node is not own)
                or node.op in ("state", "matmul", "across", *MAPS)
                or (node.dependence < Dependence.STATE and not node.is_number)
            )

        for source, coefficient in diagonal_derivatives(self.cell.graph, target, is_boundary).items():
            if source.dependence < Dependence.STATE:
                continue
            first: tuple[Factor, ...] = ()
            if not (coefficient.is_number and coefficient.data == 1.0):
                first = (Diagonal(coefficient),)
            if source.op == "state" or (source in self.named and source is not own):
                yield first, source
                continue
            for factors, variable in self._chains(source.args[-1], None):
                yield (*first, self._through(source), *factors), variable

    def _through(self, source: Node) -> Factor:
        """Return the derivative of a cut point with respect to what it is made of."""
        match source.op:
            case "across":
                return AcrossJacobian(source)
            case "matmul":
                return Matrix(source.args[0])
            case _:
                return Map(source, self.cell.shapes.sizes[source.args[0]])

    def factors(self) -> Iterator[Factor]:
        """Yield the factors of all edges."""
        for edges in self.edges.values():
            for edge in edges:
                yield from edge.factors

    @cached_property
    def direct(self) -> list[DirectRoute]:
        """The direct routes, with the gates held constant whether they are variables or not."""
        return direct_routes(self.cell)

    def routes(self, start: str, end: str, distance: int, steps: int | None = None) -> Iterator[Route]:
        """Yield all routes from `start` at a step back to `end` at `distance` steps before it.

        Args:
            steps: how many steps there are up to the start; at those before, initial states take nothing.
        """
        counts = self._counts(end, distance, steps)

        def onwards(name: str, behind: int, taken: tuple[Edge, ...]) -> Iterator[Route]:
            if (name, behind) == (end, distance):
                yield Route(taken)
            else:
                for edge in self.edges[name]:
                    if counts.get((edge.source, behind + edge.lag)):
                        yield from onwards(edge.source, behind + edge.lag, (*taken, edge))

        if counts.get((start, 0)):
            yield from onwards(start, 0, ())

    def count(self, start: str, end: str, distance: int, steps: int | None = None) -> int:
        """Return the number of routes between two variables; see `routes`."""
        return self._counts(end, distance, steps).get((start, 0), 0)

    def _counts(self, end: str, distance: int, steps: int | None) -> dict[tuple[str, int], int]:
        """Return from how many routes `end` is reached, by (variable, steps behind the start)."""
        found: dict[tuple[str, int], int] = {}
        for behind in range(distance, -1, -1):
            for name in self.variables:
                if (name, behind) == (end, distance):
                    found[name, behind] = 1
                elif steps is None or behind < steps:
                    ways = (found.get((edge.source, behind + edge.lag), 0) for edge in self.edges[name])
                    found[name, behind] = sum(ways)
        return found

    def one_step(self, state: str) -> dict[tuple[str, int], int]:
        """Return what a state at t takes of earlier steps, all states of those being independent.

        Result: by (state, lag) the number of routes to it, of which the last edge alone leaves step t.
        """
        found: dict[str, dict[tuple[str, int], int]] = {}
        for name in self.variables:
            ways: dict[tuple[str, int], int] = {}
            for edge in self.edges[name]:
                reached = {(edge.source, edge.lag): 1} if edge.lag else found[edge.source]
                for key, count in reached.items():
                    ways[key] = ways.get(key, 0) + count
            found[name] = ways
        return {key: found[state][key] for key in sorted(found[state], key=lambda key: (key[1], self._place(key[0])))}

    def one_step_routes(self, state: str, source: str, lag: int) -> Iterator[Route]:
        """Yield the routes that `one_step` counts."""

        def onwards(name: str, taken: tuple[Edge, ...]) -> Iterator[Route]:
            for edge in self.edges[name]:
                if not edge.lag:
                    yield from onwards(edge.source, (*taken, edge))
                elif (edge.source, edge.lag) == (source, lag):
                    yield Route((*taken, edge))

        return onwards(state, ())

    def _place(self, name: str) -> int:
        return self.variables.index(name)

    @cached_property
    def names_in_use(self) -> frozenset[str]:
        """Every name of the equations."""
        nodes = reachable(self.cell.values.values())
        return frozenset(self.cell.values) | {node.data for node in nodes if node.op == "parameter"} | {"x", "t"}
