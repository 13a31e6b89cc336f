"""The forward step: the values of all nodes inside the loop, where the layout has a place for them."""

from __future__ import annotations

from gradcli.engine.step.elementwise import Constants, elementwise, mapped, summed_product
from gradcli.engine.step.instructions import Buffer, Instruction, Operand, Span
from gradcli.engine.step.place import Lane, Layout, Stack
from gradcli.language.graph import MAPS, VIEW, Dependence, Node


class Forward:
    """Writes the forward step of a layout.

    Attributes:
        instructions: in order.
    """

    def __init__(self, layout: Layout, constants: Constants) -> None:
        self._layout, self._constants = layout, constants
        self._done: set[Node] = set()
        self.instructions: list[Instruction] = []
        for node in layout.step.order:
            if node not in self._done:
                self._write(node)

    def _matrix(self, stack: Stack) -> Buffer:
        numbers = stack.rows * self._layout.size(stack.group.vector)
        value = self._layout.matrix(stack, signed=True)
        return Buffer(f"matrix{stack.group.number}", numbers, Span.ONCE, value=value)

    def _add(self, op: str, args: tuple[Operand, ...], out: Operand, data: object = None) -> None:
        self.instructions.append(Instruction(op, args, out, data))

    def _write(self, node: Node) -> None:
        layout = self._layout
        if node.op == "matmul":
            self._write_stack(layout.stacks[layout.step.group_of[node].number])
            return
        if node in layout.summed or (node.op == "view" and not layout.is_copied(node)):
            return  # it has no place of its own
        place = layout.places[node]
        if node.op in ("state", "window"):
            pass  # it is there
        elif node.op in MAPS or node.op == "largest":
            if node.args[0] in layout.summed:
                self.instructions.append(summed_product(node, place, self.operand))
            else:
                self.instructions += mapped(node, place, self._operand_of_map, self._constants.number(0.0))
        elif node.op == "across":
            slope = [layout.slopes[node].rows()] if node in layout.slopes else []
            self._add("across", (self.operand(node.args[0]), *slope), place, node.data)
        else:
            self.instructions += elementwise(node, place, self.operand)
        self._finish(node)

    def _finish(self, node: Node) -> None:
        """Take note that a node's value is there, and bring it to the states that it is the expression of."""
        self._done.add(node)
        place = self._layout.places[node]
        for state in self._layout.states_of(node):
            if state != place:
                self._add("copy", (place,), state)

    def operand(self, node: Node) -> Operand:
        """Return where the value of a node is read."""
        if node.is_number or node.dependence is Dependence.PARAMETERS:
            return self._constants.operand(node, self._layout.word(node))
        if node in self._layout.places:
            return self._layout.places[node]
        if node.op == "view" and node.dependence is Dependence.STATE:
            return self.operand(node.args[0]).viewed(*node.data[:VIEW])
        return self._layout.read(node)

    def _operand_of_map(self, node: Node) -> Operand:
        """Return where an argument is read; for a view that is copied, where it is copied from."""
        if node.op == "view" and self._layout.is_copied(node) and node not in self._done:
            return self.operand(node.args[0]).viewed(*node.data[:VIEW])
        return self.operand(node)

    def _write_stack(self, stack: Stack) -> None:
        layout = self._layout
        index, vector = stack.group.number, stack.group.vector
        rows = layout.places[stack.lanes[0].product]._replace(shape=(stack.rows,))
        columns = layout.size(vector)
        matrix = Operand(self._matrix(stack), 0, (stack.rows, columns), (columns, 1))
        self._add("product", (matrix, self.operand(vector)), rows)
        for lane in stack.lanes:
            self._finish(lane.product)
            if lane.known is not None:
                known = layout.known[index].rows(lane.start, lane.stop)
                self._add("add", (layout.places[lane.product], known), layout.places[lane.value])
        for lane in stack.lanes:
            if lane.value not in self._done:
                self._finish(lane.value)
        for lane in stack.lanes:
            if lane.result is not None:
                self._write_function(lane, lane.result)
        for lane in stack.lanes:
            if lane.result is not None:
                self._finish(lane.result)

    def _write_function(self, lane: Lane, result: Node) -> None:
        name = "sigmoid_of_negated" if lane.negated else result.data
        self._add(name, (self._layout.places[lane.value],), self._layout.places[result])
