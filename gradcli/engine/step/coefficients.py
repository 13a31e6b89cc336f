"""The derivatives of a step, computed outside the backward loop, for a block of steps at once.

Most of them share factors (the value of a gate, one minus it), so all are one list of instructions: each shared factor
is computed once, and its memory is taken again as soon as nothing needs its value any more.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from gradcli.engine.step.elementwise import Constants, elementwise
from gradcli.engine.step.instructions import Buffer, Instruction, Operand, Span
from gradcli.engine.step.place import Layout, reads_before_it_writes
from gradcli.language.graph import Dependence, Node, reachable


def is_given(layout: Layout, node: Node) -> bool:
    """Tell whether a node's values come from the forward pass, or from what was known before it."""
    return node.dependence < Dependence.STATE or node.op in ("state", "window") or node in layout.stored


class Coefficients:
    """Writes what computes some expressions from what the forward pass has kept.

    Args:
        wanted: the expressions, each with where it goes; some may be the same.

    Attributes:
        instructions: in order. hoisted: the buffers of what they take that was known before the forward loop.
    """

    def __init__(self, layout: Layout, constants: Constants, wanted: Iterable[tuple[Node, Operand]]) -> None:
        self._layout, self._constants = layout, constants
        self.hoisted: dict[Node, Buffer] = {}
        self._places: dict[Node, Operand] = {}
        self._free: dict[int, list[Buffer]] = {}
        self._made = 0
        self.instructions: list[Instruction] = []
        self._write(wanted)

    def _write(self, wanted: Iterable[tuple[Node, Operand]]) -> None:
        outputs: dict[Node, list[Operand]] = {}
        for node, out in wanted:
            outputs.setdefault(node, []).append(out)
        given = {node for node in reachable(outputs) if is_given(self._layout, node)}
        order = [node for node in reachable(outputs, stop=given) if node not in given]
        uses = Counter(arg for node in order for arg in node.args)
        for node in order:
            if node.is_number:
                continue
            ends = [arg for arg in dict.fromkeys(node.args) if arg in self._places and arg not in outputs]
            uses.subtract(node.args)
            ends = [arg for arg in ends if not uses[arg]]
            at_once = ends if reads_before_it_writes(node) else []
            self._release(at_once)
            size = self._layout.size(node)
            out = outputs[node][0] if node in outputs else self._temporary(size)
            # Of a number for all entries one is computed, and then copied to all.
            narrow = out if out.shape == (size,) else self._temporary(size)
            self.instructions += elementwise(node, narrow, self._operand)
            self._release([arg for arg in ends if arg not in at_once])
            self._places[node] = narrow
        for node, places in outputs.items():
            for out in places:
                if self._places.get(node) != out:
                    self.instructions.append(Instruction("copy", (self._operand(node).spread(out.shape[0]),), out))

    def _release(self, nodes: Iterable[Node]) -> None:
        for node in nodes:
            buffer = self._places[node].buffer
            self._free.setdefault(buffer.size, []).append(buffer)

    def _temporary(self, size: int) -> Operand:
        free = self._free.get(size)
        if free:
            return free.pop().rows()
        self._made += 1
        return Buffer(f"factor{self._made}", size, Span.BLOCK).rows()

    def _operand(self, node: Node) -> Operand:
        if node.is_number or node.dependence is Dependence.PARAMETERS:
            return self._constants.operand(node, self._layout.word(node))
        if node in self._places:
            return self._places[node]
        if node.dependence is Dependence.INPUT:
            if node not in self.hoisted:
                self.hoisted[node] = Buffer(self._layout.word(node), self._layout.size(node), Span.BLOCK)
            return self.hoisted[node].rows()
        return self._layout.places[node]
