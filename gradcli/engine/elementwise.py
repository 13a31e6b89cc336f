"""Elementwise nodes as NumPy calls, for the loops and the block programs alike."""

from __future__ import annotations

from collections.abc import Callable

from gradcli.engine.loop import LoopWriter
from gradcli.language.graph import Node


class ElementwiseWriter:
    """Writes the calls that compute one elementwise node from variables that hold its arguments.

    Args:
        writer: where the calls go.
        operand: ``operand(arg, node)`` gives the variable of an argument of a node.
        number: ``number(value, rows)`` gives the variable of a constant, as an operand for that many rows.
    """

    def __init__(
        self,
        writer: LoopWriter,
        operand: Callable[[Node, Node], str],
        number: Callable[[float, int], str],
    ) -> None:
        self._writer = writer
        self._operand = operand
        self._number = number

    def write(self, node: Node, out: str, rows: int) -> None:
        """Write the value of a node of so many rows into `out`, which may be the variable of its first argument."""
        w = self._writer
        match node.op:
            case "sum":
                self._sum(node, out)
            case "mul" | "div":
                a, b = (self._operand(arg, node) for arg in node.args)
                w.call("multiply" if node.op == "mul" else "divide", a, b, out)
            case "pow":
                base, exponent = node.args
                a = self._operand(base, node)
                if exponent.is_number and exponent.data == 2.0:
                    w.call("multiply", a, a, out)
                else:
                    w.call("power", a, self._operand(exponent, node), out)
            case "call":
                self.function(node.data, self._operand(node.args[0], node), out, rows)
            case _:
                raise AssertionError(f"{node} is not elementwise")

    def function(self, name: str, argument: str, out: str, rows: int, negated: bool = False) -> None:
        """Write phi(argument) into `out`; of a sigmoid the argument may be there negated already, saving a call."""
        w = self._writer
        if name == "sigmoid":
            # 1 / (1 + exp(-a)), spelled out so that constants are operands like others.
            if not negated:
                w.call("negative", argument, out)
            w.call("exp", argument if negated else out, out)
            w.call("add", out, self._number(1.0, rows), out)
            w.call("reciprocal", out, out)
        elif name == "relu":
            w.call("maximum", argument, self._number(0.0, rows), out)
        else:
            w.call(name, argument, out)

    def _sum(self, node: Node, out: str) -> None:
        w = self._writer
        terms = in_order_of_sum(node)
        refs = [(sign, self._operand(arg, node)) for sign, arg in terms]
        sign, first = refs[0]
        if sign < 0:
            w.call("negative", first, out)
            first = out
        elif len(refs) == 1:
            w.call("copyto", out, first)
        for sign, ref in refs[1:]:
            w.call("add" if sign > 0 else "subtract", first, ref, out)
            first = out


def in_order_of_sum(node: Node) -> list[tuple[int, Node]]:
    """Return the signed terms of a sum as they are added up: those to be added first, then those to be taken off."""
    return sorted(zip(node.data, node.args, strict=True), key=lambda term: -term[0])


def reads_before_it_writes(node: Node) -> bool:
    """Tell whether all arguments have been read when the output is first written, so that it may take their place."""
    return node.op != "sum" or (len(node.args) <= 2 and max(node.data) > 0)
