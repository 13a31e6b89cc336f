"""The backward step: adjoints from step t to the steps before it, along the edges.

The adjoint of a target is passed on along each of its edges: times the coefficient, and added to what has reached the
edge's source already. That of a product is multiplied by the transposed matrix, and is then the adjoint of its vector.
"""

from __future__ import annotations

from functools import cached_property
from typing import NamedTuple

from gradcli.engine.step.elementwise import Constants
from gradcli.engine.step.instructions import Buffer, Instruction, Operand, Span
from gradcli.engine.step.linearise import Edge, Target
from gradcli.engine.step.place import Layout, Stack
from gradcli.language.graph import Dependence, Node


class Choices(NamedTuple):
    """What a backward step is written for.

    prefilled: the states whose adjoint buffer already holds something at each step (zero, or a gradient that enters
        there), so that every contribution is added; for the others the first contribution is written.
    clipped: the operation that clips each state's adjoint as soon as it is complete; None where none does.
    kept: whether the adjoints of products and of functions across are kept for all steps of a block; else for one.
    one_frame: whether all adjoints have one power of two, whatever the frames.
    """

    prefilled: frozenset[str] = frozenset()
    clipped: str | None = None
    kept: bool = False
    one_frame: bool = False


class Backward:
    """Writes the backward step of a layout.

    Attributes:
        instructions: in order.
        upward: those for where a frame passes adjoints on to one with a far smaller power of two, as it can where they
            are zero. They name the same buffers.
        adjoints: the buffer of each state's adjoints. lanes: for each group where the adjoints of its products lie.
        across: the buffer of the adjoint of each function across.
        values, slopes: those of what is kept of the forward pass for a function across.
        wanted: the coefficients that change with the step, each with where it is read.
        places: for each target where the coefficients of its edges are read, the others as well.
        factors: for two frames, the buffer of the power of two that brings adjoints of the first to the second;
            `shifts` that of its exponent.
        limits: for each state that at which its adjoint is clipped; counters: how many were.
        transposed: the buffer of each group's transposed matrix.
    """

    def __init__(self, layout: Layout, constants: Constants, choices: Choices) -> None:
        self._layout, self._constants, self._choices = layout, constants, choices
        self._step = step = layout.step
        lag = max(layout.cell.lags.values())
        self.wanted: list[tuple[Node, Operand]] = []
        self.places: dict[tuple[Target, Node], Operand] = {}
        self.adjoints = {
            name: Buffer(f"d{name}", state.size, Span.BLOCK, lag=lag, columns=True)
            for name, state in layout.states.items()
        }
        span = Span.BLOCK if choices.kept else Span.ONCE
        self.lanes = {
            stack.group.number: Buffer(f"dproducts{stack.group.number}", stack.rows, span, columns=True).rows()
            for stack in layout.stacks
        }
        self.across = {
            node: Buffer(f"d{layout.word(node)}", layout.size(node), span, columns=True) for node in step.across
        }
        self.values = {node: Buffer(layout.word(node), layout.size(node), Span.BLOCK) for node in step.across}
        self.slopes = {node: Buffer(slope.name, slope.size, Span.BLOCK) for node, slope in layout.slopes.items()}
        self.factors: dict[tuple[int, int], Buffer] = {}
        self.shifts: dict[tuple[int, int], Buffer] = {}
        clipped = step.states if choices.clipped else ()
        self.limits = {name: Buffer(f"limit of d{name}", 1, Span.ONCE, dtype="float64") for name in clipped}
        self.counters = {name: Buffer(f"d{name} clipped", 1, Span.ONCE, dtype="int64") for name in clipped}
        self.transposed: dict[int, Buffer] = {}
        self._coefficients: dict[tuple[Target, Node], Buffer] = {}
        self._terms: dict[tuple[int, int], Buffer] = {}
        self.instructions = self._written(upward=False)

    @cached_property
    def upward(self) -> list[Instruction]:
        return self._written(upward=True)

    def _written(self, upward: bool) -> list[Instruction]:
        self._upward = upward
        self._found: list[Instruction] = []
        self._rescaled: dict[int, Operand] = {}
        self._reached: set[object] = {(name, 0) for name in self._step.states}
        self._reached |= {(name, 1) for name in self._choices.prefilled}
        self._count = 0
        for target in self._step.backward_order:
            self._rescaled.clear()
            if isinstance(target, str):
                self._write_state(target)
            elif isinstance(target, Node):
                self._write_across(target)
            else:
                self._write_stack(self._layout.stacks[target])
        return self._found

    def _add(self, op: str, args: tuple[Operand, ...], out: Operand, data: object = None) -> None:
        self._found.append(Instruction(op, args, out, data))

    # Targets.

    def _write_state(self, name: str) -> None:
        adjoint = self.adjoints[name].rows()
        if self._choices.clipped:
            self._add(self._choices.clipped, (adjoint, self.limits[name].rows(), self.counters[name].rows()), adjoint)
        self._spread(name, adjoint)

    def _write_across(self, node: Node) -> None:
        """Turn the adjoint of a function across into that of its argument, in place, and pass it on."""
        adjoint = self.across[node].rows()
        if self._first(node):
            self._add("copy", (self._zero(adjoint),), adjoint)  # all its derivatives in this step are zero
        slope = [self.slopes[node].rows()] if node in self.slopes else []
        self._add("jacobian", (self.values[node].rows(), *slope, adjoint), adjoint, node.data)
        self._spread(node, adjoint)

    def _write_stack(self, stack: Stack) -> None:
        index, vector = stack.group.number, stack.group.vector
        lanes = self.lanes[index]
        for lane in stack.lanes:
            rows = self._lane(lane.product)
            if self._first(lane.product):
                self._add("copy", (self._zero(rows),), rows)  # all its derivatives in this step are zero
        edges = self._step.edges[index]
        if not edges:
            return
        size = self._layout.size(vector)
        straight = [edge.source for edge in edges] == [vector] and self._frame_of(vector) == self._frame(
            stack.group.frame
        )
        straight = straight and self._first(_slot(vector))
        adjoint = self._destination(vector) if straight else self._temporary(size)
        matrix = Operand(self._matrix(stack), 0, (size, stack.rows), (stack.rows, 1))
        self._add("product", (matrix, lanes), adjoint)
        if not straight:
            self._spread(index, adjoint)

    def _matrix(self, stack: Stack) -> Buffer:
        index = stack.group.number
        if index not in self.transposed:
            value = self._step.graph.transpose(self._layout.matrix(stack))
            size = stack.rows * self._layout.size(stack.group.vector)
            self.transposed[index] = Buffer(f"matrix{index}.T", size, Span.ONCE, value=value)
        return self.transposed[index]

    # Edges.

    def _spread(self, target: Target, adjoint: Operand) -> None:
        """Pass the adjoint of a target on to everything that its equation takes."""
        edges = self._step.edges[target]
        by_group: dict[int, list[Edge]] = {}
        for edge in edges:
            if edge.source.op == "matmul":
                by_group.setdefault(self._step.group_of[edge.source].number, []).append(edge)
        for index in sorted(by_group):
            side_by_side = sorted(by_group[index], key=lambda edge: self._layout.lane_of[edge.source].start)
            self._pass_on(target, adjoint, side_by_side)
        for edge in edges:
            if edge.source.op != "matmul":
                self._pass_on(target, adjoint, [edge])

    def _pass_on(self, target: Target, adjoint: Operand, edges: list[Edge]) -> None:
        """Pass an adjoint on along some edges that lead to the same frame.

        What lies side by side comes one after the other, first the products and then the sums, so that neighbours can
        become one.
        """
        frame, wanted = self._frame(self._step.frame_of(target)), self._frame_of(edges[0].source)
        going_up = self._upward and frame != wanted
        incoming = adjoint if going_up else self._in_frame(adjoint, frame, wanted)
        sums = []
        for edge, factor in zip(edges, self._factors(target, edges), strict=True):
            out, fresh = self._destination(edge.source), self._first(_slot(edge.source))
            if fresh and not going_up:
                self._times(factor, incoming, out)
            else:
                sums.append((factor, out, fresh))
        if not going_up and len(sums) == 1 and (sign := self._sign(sums[0][0])):
            self._add("add" if sign > 0 else "subtract", (sums[0][1], incoming), sums[0][1])
            return
        terms = self._temporaries([out.shape[0] for _, out, _ in sums])
        for (factor, _, _), term in zip(sums, terms, strict=True):
            self._times(factor, incoming, term)
        for term in terms if going_up else ():
            # Multiplied before it is brought to the other power, to infinity where that is far smaller: zero times a
            # number beyond floats is none, and zero stays zero.
            self._add("ldexp", (term, self._shift(frame, wanted).spread(term.shape[0])), term)
        for (_, out, fresh), term in zip(sums, terms, strict=True):
            self._add("copy" if fresh else "add", (term,) if fresh else (out, term), out)

    def _factors(self, target: Target, edges: list[Edge]) -> list[Operand]:
        """Return the coefficients of edges; those that change with the step lie side by side."""
        changing = [edge for edge in edges if edge.coefficient.dependence > Dependence.PARAMETERS]
        if changing and len(edges) > 1:
            changing = edges  # beside each other, so that one call serves all
        sizes = [self._layout.size(edge.coefficient) for edge in changing]
        if len(edges) > 1:
            sizes = [self._layout.size(edge.source) for edge in changing]
        key = target, edges[0].source
        is_new = key not in self._coefficients
        if is_new:
            source = edges[0].source
            what = self._products(source) if source.op == "matmul" else self._layout.word(source)
            self._coefficients[key] = Buffer(f"d{self._word(target)}/d{what}", sum(sizes), Span.BLOCK)
        buffer = self._coefficients[key]
        found, start = [], 0
        for edge in edges:
            rows = self._layout.size(edge.source)
            if edge in changing:
                place = buffer.rows(start, start + sizes[changing.index(edge)])
                start = place.stop
                if is_new:
                    self.wanted.append((edge.coefficient, place))
            else:
                place = self._constants.operand(edge.coefficient, self._layout.word(edge.coefficient))
            self.places[target, edge.coefficient] = place
            found.append(place.spread(rows))
        return found

    def _times(self, factor: Operand, adjoint: Operand, out: Operand) -> None:
        match self._sign(factor):
            case 1:
                self._add("copy", (adjoint,), out)
            case -1:
                self._add("negative", (adjoint,), out)
            case _:
                self._add("multiply", (factor, adjoint), out)

    def _sign(self, factor: Operand) -> int:
        """Return the factor where it is 1 or -1, else 0."""
        value = factor.buffer.value
        return int(value.data) if value is not None and value.is_number and value.data in (1.0, -1.0) else 0

    def _in_frame(self, adjoint: Operand, frame: int, wanted: int) -> Operand:
        if frame == wanted:
            return adjoint
        if wanted not in self._rescaled:
            self._rescaled[wanted] = self._temporary(adjoint.shape[0])
            factor = self.factors.setdefault((frame, wanted), Buffer(f"2**({frame} to {wanted})", 1, Span.ONCE))
            args = adjoint, factor.rows().spread(adjoint.shape[0])
            self._add("multiply", args, self._rescaled[wanted])
        return self._rescaled[wanted]

    def _shift(self, frame: int, wanted: int) -> Operand:
        return self.shifts.setdefault(
            (frame, wanted), Buffer(f"{frame} to {wanted}", 1, Span.ONCE, dtype="int32")
        ).rows()

    def _frame(self, frame: int) -> int:
        return 0 if self._choices.one_frame else frame

    def _frame_of(self, source: Node) -> int:
        return self._frame(self._step.frame_of_source(source))

    # Places.

    def _destination(self, source: Node) -> Operand:
        """Return where the adjoint of what an edge leads to is gathered."""
        match source.op:
            case "matmul":
                return self._lane(source)
            case "across":
                return self.across[source].rows()
            case "window":
                name, lag = source.args[0].data
                return Operand(self.adjoints[name], 0, (self._layout.size(source),), (1,), lag)
            case _:
                name, lag = source.data
                return self.adjoints[name].rows(lag=lag)

    def _lane(self, product: Node) -> Operand:
        lane = self._layout.lane_of[product]
        return self.lanes[self._step.group_of[product].number]._replace(start=lane.start, shape=(lane.rows,))

    def _zero(self, like: Operand) -> Operand:
        return self._constants.number(0.0).spread(like.shape[0])

    def _temporary(self, rows: int) -> Operand:
        return self._temporaries([rows])[0]

    def _temporaries(self, rows: list[int]) -> list[Operand]:
        """Return memory for some vectors, side by side."""
        self._count += 1
        key = self._count, sum(rows)
        buffer = self._terms.setdefault(key, Buffer(f"term{self._count}", sum(rows), Span.ONCE, columns=True))
        starts = [sum(rows[:i]) for i in range(len(rows))]
        return [buffer.rows(start, start + count) for start, count in zip(starts, rows, strict=True)]

    def _first(self, slot: object) -> bool:
        """Tell whether nothing has been written to a place yet, and take note that something is now."""
        first = slot not in self._reached
        self._reached.add(slot)
        return first

    def _products(self, product: Node) -> str:
        return f"products{self._step.group_of[product].number}"

    def _word(self, target: Target) -> str:
        if isinstance(target, str):
            return target
        return self._layout.word(target if isinstance(target, Node) else self._step.groups[target].vector)


def _slot(source: Node) -> object:
    """Return what tells the places apart that adjoints are gathered in."""
    if source.op in ("state", "window"):
        name, lag = source.data or source.args[0].data
        return name, min(lag, 1)
    return source


def needs_prefill(layout: Layout, name: str) -> bool:
    """Tell whether a state's adjoint at t - 1 may get nothing from step t, or something from later steps as well."""
    sources = [edge.source for edges in layout.step.edges.values() for edge in edges]
    lags = {source.data[1] for source in sources if source.op == "state" and source.data[0] == name} - {0}
    return lags != {1} or max(layout.cell.lags.values()) > 1
