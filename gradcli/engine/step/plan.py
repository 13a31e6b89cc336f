"""The plan of a layer: its step as programs, made once from the graph, whatever the numbers."""

from __future__ import annotations

from collections.abc import Collection
from functools import cached_property
from typing import NamedTuple

from gradcli.engine.step.backward import Backward, Choices, needs_prefill
from gradcli.engine.step.coefficients import Coefficients, is_given
from gradcli.engine.step.elementwise import Constants
from gradcli.engine.step.forward import Forward
from gradcli.engine.step.frames import Frames, over_sequences
from gradcli.engine.step.instructions import Buffer, Instruction, Span
from gradcli.engine.step.linearise import Edge, Group, Linearised, Target
from gradcli.engine.step.peephole import merged
from gradcli.engine.step.place import Lane, Layout
from gradcli.engine.step.rewrite import rewritten
from gradcli.language.cell import SizedCell
from gradcli.language.graph import Dependence, Graph, Node, reachable
from gradcli.language.parser import INPUT_NAME

#: What may be switched off by name, to see what it saves.
OPTIMISATIONS = {
    "stacked products": "products on one vector are one product",
    "windows": "products with neighbouring past values of a state are one product",
    "lanes in order": "products with the same function or target lie side by side",
    "negated sigmoids": "the matrix of a sigmoid's argument carries its minus sign",
    "places again": "memory is taken again as soon as nothing needs its value",
    "neighbours": "neighbouring instructions of one operation are one",
}


class BackwardProgram(NamedTuple):
    """The way back through a step.

    coefficients: what is computed for a block of steps first. at_step: what, of matrices, at each step first.
    step: the instructions of each step. parts: the buffers of both.
    hoisted: what they read of what is known before the forward loop, and where.
    vectors: where the vectors of products lie that are computed with the coefficients, as nothing else keeps them.
    """

    coefficients: list[Instruction]
    at_step: list[Instruction]
    step: list[Instruction]
    parts: Backward
    hoisted: list[tuple[Node, Buffer]]
    vectors: dict[Node, Buffer]


class LayerPlan:
    """Everything about a layer that does not depend on its numbers.

    Args:
        cell: the cell at its sizes. windows: see `rewrite`. without: names of `OPTIMISATIONS` to do without.

    Attributes:
        couples_sequences: whether the sequences of a batch depend on each other. The gradient kept for a sequence's
            state is then that of the sum of all sequences' losses.
        couples_hoisted: whether they do so outside of the loop already.
        became: for each node of the equations the one that is computed in its place.
        states: the expressions of the states; where the equations take earlier inputs, x is one. state_sizes: how many
            entries each has. lags: how far back each is looked at.
    """

    def __init__(self, cell: SizedCell, *, windows: bool = False, without: Collection[str] = ()) -> None:
        self.cell, self.without = cell, frozenset(without)
        self.graph: Graph = cell.graph
        self.states, self._names, self.became = rewritten(cell, windows=windows)
        self.lags = dict(cell.lags)
        self.state_sizes = dict(cell.shapes.states)
        if INPUT_NAME in self.states:
            self.lags[INPUT_NAME] = max(node.data for node in self.became if node.op == "input" and node.data)
            self.state_sizes[INPUT_NAME] = cell.shapes.input_size
        self.lag = max(self.lags.values())
        coupling = [node for node in reachable(self.states.values()) if over_sequences(node)]
        self.couples_sequences = bool(coupling)
        self.couples_hoisted = any(node.dependence is Dependence.INPUT for node in coupling)
        self.linear = Linearised(self.graph, self.states, stacked="stacked products" not in without)
        self._backward: dict[tuple[Choices, bool], BackwardProgram] = {}

    @cached_property
    def windowed(self) -> LayerPlan:
        """The plan for one trial, whose steps lie side by side in memory."""
        if "windows" in self.without or rewritten(self.cell, windows=True)[0] == self.states:
            return self
        return LayerPlan(self.cell, windows=True, without=self.without)

    @cached_property
    def signature(self) -> tuple[object, ...]:
        """What is equal for the plans of equal equations at equal sizes."""
        cell = self.cell
        nodes = [(n.index, n.op, n.data, tuple(arg.index for arg in n.args)) for n in reachable(cell.states.values())]
        roots = [(name, node.index) for name, node in cell.states.items()]
        shapes = cell.shapes
        sizes = (*shapes.states.items(), *shapes.parameters.items(), shapes.input_size)
        return (*nodes, *roots, *sizes, cell.output)

    @cached_property
    def layout(self) -> Layout:
        """Where every value lies."""
        return Layout(self.cell, self.linear, self._names, self.without, self.state_sizes, self.lag)

    @cached_property
    def constants(self) -> Constants:
        """The operands that are the same at every step."""
        return Constants(self.graph, self.layout.size)

    @cached_property
    def forward(self) -> list[Instruction]:
        """The forward step."""
        return self.merged(Forward(self.layout, self.constants).instructions)

    @cached_property
    def prefilled(self) -> frozenset[str]:
        """The states whose adjoint gets something from several steps, or nothing from some."""
        return frozenset(name for name in self.states if needs_prefill(self.layout, name))

    def backward(self, choices: Choices, vectors: bool = False) -> BackwardProgram:
        """Return the way back; it is made once for the same choices.

        Args:
            vectors: whether the vectors of recurrent products are wanted as well, for gradients of weights.
        """
        key = choices, vectors
        if key not in self._backward:
            self._backward[key] = self._made_backward(choices, vectors)
        return self._backward[key]

    def _made_backward(self, choices: Choices, vectors: bool) -> BackwardProgram:
        layout = self.layout
        parts = Backward(layout, self.constants, choices)
        made: dict[Node, Buffer] = {}
        for group in self.linear.groups if vectors else ():
            if not is_given(layout, group.vector):
                made[group.vector] = Buffer(layout.word(group.vector), layout.size(group.vector), Span.BLOCK)
        wanted = [*parts.wanted, *((node, buffer.rows()) for node, buffer in made.items())]
        first = Coefficients(layout, self.constants, wanted)
        at_step = Coefficients(layout, self.constants, parts.at_step, Span.ONCE)
        step = self.merged([*at_step.instructions, *parts.instructions])
        hoisted = [first.hoisted, at_step.hoisted, parts.hoisted]
        known = [(node, buffer) for found in hoisted for node, buffer in found.items()]
        return BackwardProgram(self.merged(first.instructions), at_step.instructions, step, parts, known, made)

    def upward(self, program: BackwardProgram) -> list[Instruction]:
        """Return the step of a way back for frames that pass adjoints on to ones with far smaller powers of two."""
        return self.merged([*program.at_step, *program.parts.upward])

    def merged(self, instructions: list[Instruction]) -> list[Instruction]:
        """Return instructions with neighbours as one, unless that is switched off."""
        return instructions if "neighbours" in self.without else merged(instructions)

    # What others ask of the step.

    @property
    def frames(self) -> Frames:
        return self.linear.frames

    @property
    def order(self) -> list[Node]:
        return self.linear.order

    @property
    def across(self) -> list[Node]:
        return self.linear.across

    @property
    def edges(self) -> dict[Target, list[Edge]]:
        return self.linear.edges

    @property
    def groups(self) -> list[Group]:
        return self.linear.groups

    @property
    def recurrent_products(self) -> list[Node]:
        """The products that depend on a state of the equations, in order: those of earlier inputs are in no route."""
        return [product for group in self.groups for product in group.products if product in self.linear.recurrent]

    def size(self, node: Node) -> int:
        """Return the number of entries of a vector node; 1 for a scalar."""
        return self.layout.size(node)

    def rows(self, group: Group) -> int:
        """Return how many rows the stacked matrices of a group have."""
        return self.layout.stacks[group.number].rows

    def lanes(self, group: Group) -> tuple[Lane, ...]:
        """Return where the products of a group lie among its rows."""
        return self.layout.stacks[group.number].lanes
