"""The derivatives of a step, computed outside the backward loop, for a block of steps at once.

Most of them share factors (the value of a gate, one minus it), so all are one list of instructions: each shared factor
is computed once, and its memory is taken again as soon as nothing needs its value any more.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator

from gradcli.engine.step.elementwise import Constants, elementwise, mapped
from gradcli.engine.step.instructions import Buffer, Instruction, Operand, Span, common_shape
from gradcli.engine.step.place import Layout, reads_before_it_writes
from gradcli.language.graph import MAPS, VIEW, Dependence, Node, reachable


def is_given(layout: Layout, node: Node) -> bool:
    """Tell whether a node's values come from the forward pass, or from what was known before it."""
    return node.dependence < Dependence.STATE or node.op in ("state", "window") or node in layout.stored


class Coefficients:
    """Writes what computes some expressions from what the forward pass has kept.

    Args:
        wanted: the expressions, each with where it goes; some may be the same.
        span: how long what is computed on the way lasts; ONCE where it is computed step by step.

    Attributes:
        instructions: in order. hoisted: the buffers of what they take that was known before the forward loop.
    """

    def __init__(
        self,
        layout: Layout,
        constants: Constants,
        wanted: Iterable[tuple[Node, Operand]],
        span: Span = Span.BLOCK,
    ) -> None:
        self._layout, self._constants, self._span = layout, constants, span
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
        taken = {node: self._taken(node) for node in order}
        uses = Counter(arg for args in taken.values() for arg in args)
        # What is wanted is there in the end, and so is what something wanted is a view of.
        kept = {*outputs, *map(self._layout.base, outputs)}
        for node in order:
            if node.is_number or (node.op == "view" and not self._layout.is_copied(node)):
                continue
            ends = [arg for arg in dict.fromkeys(taken[node]) if arg in self._places and arg not in kept]
            uses.subtract(taken[node])
            ends = [arg for arg in ends if not uses[arg]]
            # What is read as a view as well is not read entry by entry.
            plain = [arg for arg in ends if taken[node].count(arg) == node.args.count(arg)]
            at_once = plain if reads_before_it_writes(node) else []
            self._release(at_once)
            size = self._layout.size(node)
            out = outputs[node][0] if node in outputs else self._temporary(size)
            # Of a number for all entries one is computed, and then copied to all.
            narrow = out if out.shape == (size,) else self._temporary(size)
            self.instructions += self._written(node, narrow)
            self._release([arg for arg in ends if arg not in at_once])
            self._places[node] = narrow
        for node, places in outputs.items():
            for out in places:
                if self._places.get(node) != out:
                    place = self._operand(node)
                    shape = common_shape(place.shape, out.shape)
                    self.instructions.append(Instruction("copy", (place.fit(shape),), out.fit(shape)))

    def _taken(self, node: Node) -> list[Node]:
        """Return whose places are read where a node is computed."""
        if node.op == "view" and not self._layout.is_copied(node):
            return []
        return [self._layout.base(arg) for arg in node.args]

    def _written(self, node: Node, out: Operand) -> Iterator[Instruction]:
        if node.op in MAPS or node.op == "largest":
            return mapped(node, out, self._operand, self._constants.number(0.0))
        return elementwise(node, out, self._operand)

    def _release(self, nodes: Iterable[Node]) -> None:
        for node in nodes:
            buffer = self._places[node].buffer
            self._free.setdefault(buffer.size, []).append(buffer)

    def _temporary(self, size: int) -> Operand:
        free = self._free.get(size)
        if free:
            return free.pop().rows()
        self._made += 1
        return Buffer(f"factor{self._made}", size, self._span).rows()

    def _operand(self, node: Node) -> Operand:
        if node.is_number or node.dependence is Dependence.PARAMETERS:
            return self._constants.operand(node, self._layout.word(node))
        if node in self._places:
            return self._places[node]
        if node.op == "view" and node.dependence is Dependence.STATE:
            return self._operand(node.args[0]).viewed(*node.data[:VIEW])
        if node.dependence is Dependence.INPUT:
            if node not in self.hoisted:
                self.hoisted[node] = Buffer(self._layout.word(node), self._layout.size(node), Span.BLOCK)
            return self.hoisted[node].rows()
        return self._layout.places[node]
