"""What each cut point of a step takes of which, and with which derivative.

The *cut points* are the states, the results of recurrent products, those of functions across entries or sequences, and
those of maps from one shape to another, such as a vector beside a matrix, or a sum over an axis.
Between them a cell is elementwise, so that the derivative of one with respect to another is diagonal: an `Edge` with a
coefficient, an expression. The products are the dense edges; a function across has a Jacobian of its own (see
`gradcli.language.across`), and edges from its argument on.

A *target* is what adjoints are passed on from: a state (by its name), the vector of a group of products (by the group's
number), or the argument of a function across or of a map (by its node).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import cached_property
from typing import NamedTuple

from gradcli.engine.step.frames import Frames
from gradcli.language.derivative import diagonal_derivatives
from gradcli.language.graph import MAPS, Dependence, Graph, Node
from gradcli.language.parser import INPUT_NAME

Target = str | int | Node


class Edge(NamedTuple):
    """The diagonal derivative of a target with respect to an earlier cut point."""

    source: Node
    coefficient: Node


class Group(NamedTuple):
    """The recurrent products on one vector whose adjoints share a power of two; they are stacked as one product.

    number: its place among the groups. frame: see `Frames`. products: in the order of evaluation.
    """

    number: int
    vector: Node
    frame: int
    products: tuple[Node, ...]


class Linearised:
    """The cut points of a step and the edges between them.

    Args:
        states: the expression of each state. cut: further nodes that are to be cut points, none unless given.
        stacked: whether products on one vector are one group; else each is a group of its own.

    Attributes:
        order: the nodes inside the loop, each after all that it needs; a state's [t] needs its equation.
        across: the functions across among them; maps: the maps from one shape to another.
        groups: the groups of products, in order.
        edges: for each target those from recurrent cut points.
        leaf_edges: for each hoisted node the targets that take it, each with its coefficient.
        frames: which cut points share a power of two.
    """

    def __init__(self, graph: Graph, states: Mapping[str, Node], *, stacked: bool = True) -> None:
        self.graph, self.states = graph, dict(states)
        self.order = _evaluation_order(self.states)
        self.across = [node for node in self.order if node.op == "across"]
        self.maps = [node for node in self.order if node.op in MAPS]
        self.edges: dict[Target, list[Edge]] = {}
        self.leaf_edges: dict[Node, list[tuple[Target, Node]]] = {}
        for name, expression in self.states.items():
            self._add_edges(name, self._differentiate(expression))
        # What the cut points within a step are computed from, elementwise: vectors of products, arguments of functions.
        operands = {node: node.args[-1] for node in self.order if node.op in ("matmul", "across", *MAPS)}
        derivatives = {operand: self._differentiate(operand) for operand in operands.values()}
        for node in (*self.across, *self.maps):
            self._add_edges(node, derivatives[node.args[0]])
        self.frames = Frames(
            {name: [edge.source for edge in self.edges[name]] for name in self.states},
            {node: derivatives[operand] for node, operand in operands.items()},
        )
        self.groups = self._grouped([node for node in self.order if node.op == "matmul"], stacked)
        for group in self.groups:
            self._add_edges(group.number, derivatives[group.vector])

    def _differentiate(self, target: Node) -> dict[Node, Node]:
        return diagonal_derivatives(self.graph, target, is_cut)

    def _add_edges(self, target: Target, derivatives: Mapping[Node, Node]) -> None:
        self.edges[target] = []
        for source, coefficient in derivatives.items():
            if source.dependence is Dependence.STATE:
                self.edges[target].append(Edge(source, coefficient))
            else:
                self.leaf_edges.setdefault(source, []).append((target, coefficient))

    def _grouped(self, products: Iterable[Node], stacked: bool) -> list[Group]:
        found: dict[object, list[Node]] = {}
        for product in products:
            key = (product.args[1], self.frames.of_node[product])
            found.setdefault(key if stacked else product, []).append(product)
        return [
            Group(index, members[0].args[1], self.frames.of_node[members[0]], tuple(members))
            for index, members in enumerate(found.values())
        ]

    @cached_property
    def recurrent(self) -> frozenset[Node]:
        """The nodes inside the loop that depend on a state of the equations; the others are made of the input alone."""
        found: set[Node] = set()
        for node in self.order:
            is_state = node.op == "state" and node.data[0] != INPUT_NAME
            if is_state or not found.isdisjoint(node.args):
                found.add(node)
        return frozenset(found)

    @cached_property
    def group_of(self) -> dict[Node, Group]:
        """The group of each recurrent product."""
        return {product: group for group in self.groups for product in group.products}

    def frame_of(self, target: Target) -> int:
        """Return the frame of a target's adjoint."""
        if isinstance(target, str):
            return self.frames.of_state[target]
        return self.frames.of_node[target] if isinstance(target, Node) else self.groups[target].frame

    def frame_of_source(self, source: Node) -> int:
        """Return the frame of what an edge leads to."""
        if source.op in ("state", "window"):
            state = source if source.op == "state" else source.args[0]
            return self.frames.of_state[state.data[0]]
        return self.frames.of_node[source]

    def entries(self, node: Node) -> frozenset[tuple[Target, Node]]:
        """Return where a cut point enters elementwise, and with which coefficients."""
        return self._entries.get(node, frozenset())

    @cached_property
    def _entries(self) -> dict[Node, frozenset[tuple[Target, Node]]]:
        found: dict[Node, set[tuple[Target, Node]]] = {}
        for target, edges in self.edges.items():
            for edge in edges:
                found.setdefault(edge.source, set()).add((target, edge.coefficient))
        return {node: frozenset(pairs) for node, pairs in found.items()}

    @cached_property
    def coefficients(self) -> list[Node]:
        """The diagonal derivatives of all targets, with respect to recurrent and to hoisted nodes."""
        recurrent = [edge.coefficient for edges in self.edges.values() for edge in edges]
        return recurrent + [coefficient for pairs in self.leaf_edges.values() for _, coefficient in pairs]

    @cached_property
    def backward_order(self) -> list[Target]:
        """The targets so that each comes after everything in the step that takes it."""
        order: list[Target] = []
        names: dict[Node, list[str]] = {}
        for name, expression in self.states.items():
            names.setdefault(expression, []).append(name)
        for node in self.order:
            if node.op == "matmul" and self.group_of[node].number not in order:
                order.append(self.group_of[node].number)
            if node.op == "across" or node.op in MAPS:
                order.append(node)
            order += names.get(node, [])
        hoisted = [name for name, expression in self.states.items() if expression.dependence < Dependence.STATE]
        return [*reversed(order), *hoisted]


def is_cut(node: Node) -> bool:
    """Tell whether elementwise differentiation stops at a node."""
    return (
        node.op in ("state", "window")
        or ((node.op in ("matmul", "across") or node.op in MAPS) and node.dependence is Dependence.STATE)
        or (node.dependence < Dependence.STATE and not node.is_number)
    )


def _evaluation_order(states: Mapping[str, Node]) -> list[Node]:
    done: dict[Node, None] = {}
    for expression in states.values():
        stack = [(expression, False)]
        while stack:
            node, ready = stack.pop()
            if node in done or node.dependence < Dependence.STATE:
                continue
            if ready:
                done[node] = None
                continue
            stack.append((node, True))
            needs = [states[node.data[0]]] if node.op == "state" and node.data[1] == 0 else node.args
            stack.extend((arg, False) for arg in reversed(needs))
    return list(done)
