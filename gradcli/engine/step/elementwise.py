"""An elementwise node as instructions."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from gradcli.engine.step.instructions import Buffer, Instruction, Operand, Span
from gradcli.language.graph import Graph, Node

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

    def taken(arg: Node) -> Operand:
        return operand(arg).spread(out.shape[0])

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
            yield Instruction(node.data, (taken(node.args[0]),), out)
        case _:
            raise AssertionError(f"{node} is not elementwise")


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
