"""The graph of one step of a cell: hash-consed nodes, so that the same expression is one node and is computed once.

A node's arguments always have smaller indices than the node itself; ascending index is an evaluation order.

==============  ===============================================  =======================================
op              arguments                                        data
==============  ===============================================  =======================================
``number``                                                       the value
``parameter``                                                    the name
``input``                                                        how many steps back, None for x[t]
``state``                                                        (name, lag); lag 0 is the value at t
``sum``         terms                                            their signs, +1 or -1
``mul``         two factors
``div``         numerator, denominator
``pow``         base, exponent
``call``        argument                                         the function's name
``maximum``     two alternatives; likewise ``minimum``
``greater``     two numbers; 1 where the first is greater, else 0; likewise ``greater_equal``, ``equal``
``where``       a mask of ones and zeros, what is taken where it is 1, what is taken elsewhere
``stop``        argument, which gets no gradient
``carried``     a value, and what has its gradient in its place
``spike``       argument                                         the surrogate and its k, see `surrogates`
``across``      argument                                         (the function's name, eps), see `across`
``matmul``      matrix, vector
``transpose``   matrix
``columns``     matrix                                           (part, the parts' nodes) of a concatenation
``entries``     a matrix of parameters, as a value               its shape, once sizes are known
``identity``                                                     the node that has as many rows; once sizes are known,
                                                                 their number
``cumsum``      vector
``largest``     argument: the largest entry, without a gradient
==============  ===============================================  =======================================

A value is a number, a vector or a matrix. All are kept as a vector of entries, a matrix row by row; *maps* lead from
one shape to another. While sizes are not known they are

==============  ===============================================  =======================================
``spread``      vector                                           "rows": each row of a matrix is it; or "columns";
                                                                 and the node that has as many
``transposed``  a matrix that changes with the step
``slice``       vector                                           (start, stop), stop may be None
``pad``         a part of a concatenation                        (part, the parts' nodes)
``total``       argument                                         the sum over its "columns", "rows", or all "entries"
``mean``        argument
==============  ===============================================  =======================================

and afterwards (see `sized`), beside ``cumsum`` and ``largest``,

==============  ===============================================  =======================================
``view``        argument                                         (start, shape, strides), of an array over its entries
``pad``         argument                                         (start, size): zeros on both sides
``total``       argument                                         (shape, axis): the sum over an axis
==============  ===============================================  =======================================
"""

from __future__ import annotations

import math
from collections.abc import Container, Iterable, Sequence
from enum import IntEnum
from typing import Any

#: What is taken entry by entry.
ELEMENTWISE_OPS = frozenset(
    {
        *("sum", "mul", "div", "pow", "call", "maximum", "minimum", "greater", "greater_equal", "equal", "where"),
        *("stop", "spike", "carried"),
    }
)
#: Linear maps from one shape to another, once sizes are known.
MAPS = frozenset({"view", "pad", "total", "cumsum"})


#: How many things a view's data are; one more stands behind those of a view that is made inside the loop.
VIEW = 3


class Dependence(IntEnum):
    """What a node's value depends on; the larger includes the smaller."""

    PARAMETERS = 0  # the same at every step
    INPUT = 1  # known for the whole sequence before the loop
    STATE = 2  # only known inside the loop


class Node:
    """One expression. Equal expressions of a graph are the same object."""

    __slots__ = ("args", "data", "dependence", "index", "op")

    def __init__(self, index: int, op: str, args: tuple[Node, ...], data: Any, dependence: Dependence) -> None:
        self.index = index
        self.op = op
        self.args = args
        self.data = data
        self.dependence = dependence

    def __repr__(self) -> str:
        inside = ", ".join([repr(self.data)] * (self.data is not None) + [f"#{arg.index}" for arg in self.args])
        return f"#{self.index} {self.op}({inside})"

    @property
    def is_number(self) -> bool:
        return self.op == "number"


class Graph:
    """The arena of nodes, with constructors that fold what can be folded."""

    def __init__(self) -> None:
        self._nodes: dict[tuple[Any, ...], Node] = {}
        self._by_index: list[Node] = []

    def node(self, op: str, args: Sequence[Node] = (), data: Any = None) -> Node:
        """Return the one node of this operation on these arguments."""
        key = (op, tuple(arg.index for arg in args), data)
        found = self._nodes.get(key)
        if found is None:
            own = {"input": Dependence.INPUT, "state": Dependence.STATE}.get(op, Dependence.PARAMETERS)
            dependence = max((arg.dependence for arg in args), default=own)
            if op == "view" and len(data) > VIEW:
                dependence = Dependence.STATE
            found = self._nodes[key] = Node(len(self._nodes), op, tuple(args), data, dependence)
            self._by_index.append(found)
        return found

    def at(self, index: int) -> Node:
        """Return a node by its index."""
        return self._by_index[index]

    def number(self, value: float) -> Node:
        return self.node("number", (), float(value))

    def parameter(self, name: str) -> Node:
        return self.node("parameter", (), name)

    def input(self, lag: int = 0) -> Node:
        return self.node("input", (), lag or None)

    def state(self, name: str, lag: int) -> Node:
        return self.node("state", (), (name, lag))

    def sum(self, terms: Iterable[tuple[int, Node]]) -> Node:
        """Return the signed sum of terms; numbers are added up, zeros left out, opposite terms cancelled."""
        constant = 0.0
        kept: list[tuple[int, Node]] = []
        for sign, term in terms:
            if term.is_number:
                constant += sign * term.data
            elif (-sign, term) in kept:
                kept.remove((-sign, term))
            else:
                kept.append((sign, term))
        if constant or not kept:
            kept.insert(0, (1, self.number(constant)))
        if len(kept) == 1 and kept[0][0] == 1:
            return kept[0][1]
        return self.node("sum", [term for _, term in kept], tuple(sign for sign, _ in kept))

    def add(self, a: Node, b: Node) -> Node:
        return self.sum([(1, a), (1, b)])

    def sub(self, a: Node, b: Node) -> Node:
        return self.sum([(1, a), (-1, b)])

    def neg(self, a: Node) -> Node:
        if a.op == "sum" and len(a.args) == 1:
            return a.args[0]
        return self.sum([(-1, a)])

    def mul(self, a: Node, b: Node) -> Node:
        if b.is_number or (a.index > b.index and not a.is_number):
            a, b = b, a
        if a.is_number:
            if b.is_number:
                return self.number(a.data * b.data)
            if a.data == 0.0:
                return a
            if a.data == 1.0:
                return b
            if a.data == -1.0:
                return self.neg(b)
        return self.node("mul", (a, b))

    def div(self, a: Node, b: Node) -> Node:
        if b.is_number and b.data != 0.0:
            return self.number(a.data / b.data) if a.is_number else (a if b.data == 1.0 else self.node("div", (a, b)))
        if a.is_number and a.data == 0.0:
            return a
        return self.node("div", (a, b))

    def pow(self, a: Node, b: Node) -> Node:
        if b.is_number and b.data == 1.0:
            return a
        if b.is_number and b.data == 0.0:
            return self.number(1.0)
        if a.is_number and b.is_number:
            # math.pow, unlike **, never leaves the real numbers.
            return self.number(math.pow(a.data, b.data))
        return self.node("pow", (a, b))

    def call(self, function: str, a: Node) -> Node:
        return a if function == "identity" else self.node("call", (a,), function)

    def across(self, function: str, eps: float, a: Node) -> Node:
        return self.node("across", (a,), (function, eps))

    def maximum(self, a: Node, b: Node) -> Node:
        if a.is_number and b.is_number:
            return self.number(max(a.data, b.data))
        return a if a is b else self.node("maximum", (a, b))

    def minimum(self, a: Node, b: Node) -> Node:
        if a.is_number and b.is_number:
            return self.number(min(a.data, b.data))
        return a if a is b else self.node("minimum", (a, b))

    def where(self, mask: Node, a: Node, b: Node) -> Node:
        """Return a where the mask is 1, and b where it is 0."""
        if mask.is_number:
            return a if mask.data else b
        return a if a is b else self.node("where", (mask, a, b))

    def compare(self, op: str, a: Node, b: Node) -> Node:
        """Return 1 where ``a op b``, else 0; op is greater, greater_equal or equal."""
        if a.is_number and b.is_number:
            true = {"greater": a.data > b.data, "greater_equal": a.data >= b.data, "equal": a.data == b.data}[op]
            return self.number(float(true))
        return self.node(op, (a, b))

    # Maps from one shape to another.

    def spread(self, vector: Node, along: str, like: Node) -> Node:
        """Return a matrix whose rows, or columns, are a vector: as many as `like` has, or has entries."""
        return self.node("spread", (vector,), (along, like.index))

    def transposed(self, matrix: Node) -> Node:
        return matrix.args[0] if matrix.op == "transposed" else self.node("transposed", (matrix,))

    def total(self, a: Node, over: str) -> Node:
        return self.node("total", (a,), over)

    def entries(self, matrix: Node) -> Node:
        return self.node("entries", (matrix,))

    def identity(self, like: Node | None) -> Node:
        """Return the identity matrix with as many rows as another node, or as its context says."""
        return self.node("identity", (), -len(self._by_index) if like is None else like.index)

    # Matrices of parameters.

    def transpose(self, matrix: Node) -> Node:
        return matrix.args[0] if matrix.op == "transpose" else self.node("transpose", (matrix,))

    def matmul(self, matrix: Node, vector: Node) -> Node:
        return self.node("matmul", (matrix, vector))

    def columns(self, matrix: Node, part: int, parts: Sequence[Node]) -> Node:
        return self.node("columns", (matrix,), (part, tuple(part.index for part in parts)))


def reachable(roots: Iterable[Node], stop: Container[Node] = ()) -> list[Node]:
    """Return all nodes below `roots`, the roots included, in evaluation order; nodes in `stop` are not entered."""
    seen: set[Node] = set()
    stack = list(roots)
    while stack:
        node = stack.pop()
        if node not in seen:
            seen.add(node)
            if node not in stop:
                stack.extend(node.args)
    return sorted(seen, key=lambda node: node.index)


def users(nodes: Iterable[Node]) -> dict[Node, list[Node]]:
    """Return for each node the nodes among `nodes` that take it as an argument."""
    found: dict[Node, list[Node]] = {}
    for node in nodes:
        for arg in node.args:
            found.setdefault(arg, []).append(node)
    return found
