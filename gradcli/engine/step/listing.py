"""A program for people: one instruction a line, with the names of the equations.

    products0[0:96]            = matrix0 @ h[t-1]

``d`` before a name is the adjoint of what it names, ``[a:b]`` are the numbers a .. b-1 of each sequence.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

from gradcli.engine.step.backward import Choices
from gradcli.engine.step.instructions import Buffer, Instruction, Instructions, Operand
from gradcli.engine.step.place import Layout
from gradcli.engine.step.plan import LayerPlan

_SIGNS = {"add": "+", "subtract": "-", "multiply": "*", "divide": "/", "power": "**", "product": "@"}


def listing(plan: LayerPlan) -> Iterator[tuple[str, list[tuple[str, str]]]]:
    """Yield the parts of a plan's program, each with its heading and its instructions: what is written, and from what.

    Of the way back it is the one for a loss at the last step alone, without gradients of parameters.
    """
    plan = plan.windowed
    back = plan.backward(Choices(plan.prefilled))
    writer = _Writer(plan.layout)
    yield "forward, at each step", writer.lines(plan.forward)
    if back.coefficients:
        yield "derivatives, for a block of steps at once", writer.lines(back.coefficients)
    yield "backward, at each step", writer.lines(back.step)


class _Writer:
    """Writes instructions with the names of a layout."""

    def __init__(self, layout: Layout) -> None:
        self._names: dict[Buffer, dict[int, tuple[int, str]]] = {}
        for node, place in layout.places.items():
            if node in layout.names and len(place.shape) == 1:
                self._names.setdefault(place.buffer, {})[place.start] = place.stop, layout.names[node]

    def lines(self, instructions: Instructions) -> list[tuple[str, str]]:
        return [(self._place(instruction.out), self._expression(instruction)) for instruction in instructions]

    def _expression(self, instruction: Instruction) -> str:
        places = [self._place(operand) for operand in instruction.args]
        match instruction.op:
            case "copy":
                return places[0]
            case "negative":
                return f"-{places[0]}"
            case "sigmoid_of_negated":
                return f"sigmoid(-{places[0]})"
            case "across":
                return f"{instruction.data[0]}({places[0]})"
            case "jacobian":
                return f"jacobian of {instruction.data[0]} at {places[0]} times {places[-1]}"
            case op if op in _SIGNS:
                return f" {_SIGNS[op]} ".join(places)
            case op:
                return f"{op}({', '.join(places)})"

    def _place(self, operand: Operand) -> str:
        buffer = operand.buffer
        if buffer.value is not None and (buffer.value.is_number or len(operand.shape) == 2):
            return buffer.name
        numbers = [length for length, stride in zip(operand.shape, operand.strides, strict=True) if stride]
        spread = " for each" if len(operand.shape) == 2 and 0 in operand.strides else ""
        first, last = operand.start, operand.start + math.prod(numbers)
        named = self._named(buffer, first, last)
        if named and not buffer.lag:
            return named + spread
        name = buffer.name
        if buffer.lag:  # a state, or its adjoint: known at several steps
            name += f"[t-{operand.lag}]" if operand.lag else "[t]"
        return name + spread if (first, last) == (0, buffer.size) else f"{name}[{first}:{last}]{spread}"

    def _named(self, buffer: Buffer, first: int, last: int) -> str:
        """Return the names of all that lies in some rows of a buffer; empty where something has none."""
        found, names = [], self._names.get(buffer, {})
        while first < last and first in names:
            first, name = names[first]
            found.append(name)
        if first != last or not found:
            return ""
        return found[0] if len(found) == 1 else f"({', '.join(found)})"
