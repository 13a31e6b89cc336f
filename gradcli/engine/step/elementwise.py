"""An elementwise node as instructions."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from math import prod

from gradcli.engine.step.instructions import Buffer, Instruction, Operand, Span, common_shape
from gradcli.language.graph import Graph, Node

#: Functions that differ in their slope alone from one that there is.
_SAME_VALUE = {"_root": "sqrt"}
_ARITHMETIC = {"mul": "multiply", "div": "divide", "pow": "power"}


class Constants:
    """Operands of what is the same at every step: numbers, and vectors of parameters; each has one buffer."""

    def __init__(self, graph: Graph, size: Callable[[Node], int]) -> None:
        self._graph, self._size = graph, size
        self._buffers: dict[Node, Buffer] = {}

    def operand(self, node: Node, word: str = "") -> Operand:
        """Return the operand of a number or of an expression in parameters alone."""
        if node not in self._buffers:
            name = f"{node.data:g}" if node.is_number else word
            self._buffers[node] = Buffer(name, 1 if node.is_number else self._size(node), Span.ONCE, value=node)
        return self._buffers[node].rows()

    def number(self, value: float) -> Operand:
        return self.operand(self._graph.number(value))


def elementwise(node: Node, out: Operand, operand: Callable[[Node], Operand]) -> Iterator[Instruction]:
    """Yield what computes an elementwise node into `out`, which may be the place of an argument read before it.

    Args:
        operand: gives the operand of an argument.
    """

    args = {arg: operand(arg) for arg in node.args}
    # What stands beside a view of a matrix is taken as one, too.
    shape = common_shape(out.shape, *(found.shape for found in args.values()))
    out = out.fit(shape)

    def taken(arg: Node) -> Operand:
        return args[arg].fit(shape)

    match node.op:
        case "sum":
            yield from _sum(in_order_of_sum(node), out, taken)
        case "pow" if node.args[1].is_number and node.args[1].data == 2.0:
            base = taken(node.args[0])
            yield Instruction("multiply", (base, base), out)
        case "mul" | "div" | "pow":
            a, b = map(taken, node.args)
            yield Instruction(_ARITHMETIC[node.op], (a, b), out)
        case "call":
            yield Instruction(_SAME_VALUE.get(node.data, node.data), (taken(node.args[0]),), out)
        case "maximum" | "minimum" | "greater" | "greater_equal" | "equal" | "where":
            yield Instruction(node.op, tuple(map(taken, node.args)), out)
        case "stop" | "carried":
            yield Instruction("copy", (taken(node.args[0]),), out)
        case "spike":
            yield Instruction("_positive", (taken(node.args[0]),), out)
        case _:
            raise AssertionError(f"{node} is not elementwise")


def mapped(node: Node, out: Operand, operand: Callable[[Node], Operand], zero: Operand) -> Iterator[Instruction]:
    """Yield what computes a map from one shape to another, or the largest entry, into `out`.

    Args:
        operand: gives the operand of an argument; of a product that is only summed, of its factors. zero: the number.
    """
    (arg,) = node.args
    match node.op:
        case "total":
            shape, axis = node.data
            yield Instruction("sum_axis", (operand(arg).fit(shape),), out.without(axis, len(shape)), axis)
        case "largest":
            taken = operand(arg)
            yield Instruction("largest", (taken.fit((prod(taken.shape),)),), out, 0)
        case "cumsum":
            yield Instruction("cumsum_reversed" if node.data else "cumsum", (operand(arg),), out, 0)
        case "pad":
            start, size = node.data
            taken = operand(arg)
            count = taken.shape[0]
            for begin, end in ((0, start), (start + count, size)):
                if begin < end:
                    yield Instruction("copy", (zero.fit((end - begin,)),), part_of(out, begin, end))
            yield Instruction("copy", (taken,), part_of(out, start, start + count))
        case "view":
            taken = operand(node)
            yield Instruction("copy", (taken,), out.fit(taken.shape))


def summed_product(node: Node, out: Operand, operand: Callable[[Node], Operand]) -> Instruction:
    """Return what computes the sum over an axis of a product whose entries are not wanted themselves."""
    shape, axis = node.data
    a, b = (operand(factor).fit(shape) for factor in node.args[0].args)
    return Instruction("sum_product", (a, b), out.without(axis, len(shape)), axis)


def part_of(vector: Operand, start: int, stop: int) -> Operand:
    """Return some entries of a vector, or of a number that stands for all of them."""
    (stride,) = vector.strides
    return vector._replace(start=vector.start + start * stride, shape=(stop - start,))


def _sum(terms: list[tuple[int, Node]], out: Operand, taken: Callable[[Node], Operand]) -> Iterator[Instruction]:
    (sign, first), *others = terms
    total = taken(first)
    if sign < 0 or not others:
        yield Instruction("copy" if sign > 0 else "negative", (total,), out)
        total = out
    for sign, term in others:
        yield Instruction("add" if sign > 0 else "subtract", (total, taken(term)), out)
        total = out


def in_order_of_sum(node: Node) -> list[tuple[int, Node]]:
    """Return the signed terms of a sum as they are added up: those to be added first, then those to be taken off."""
    return sorted(zip(node.data, node.args, strict=True), key=lambda term: -term[0])
