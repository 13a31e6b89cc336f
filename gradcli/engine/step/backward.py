"""The backward step: adjoints from step t to the steps before it, along the edges.

The adjoint of a target is passed on along each of its edges: times the coefficient, and added to what has reached the
edge's source already. That of a product is multiplied by the transposed matrix, and is then the adjoint of its vector.
"""

from __future__ import annotations

from functools import cached_property
from math import prod
from typing import NamedTuple

from gradcli.engine.step.elementwise import Constants, part_of
from gradcli.engine.step.instructions import Buffer, Instruction, Operand, Span, common_shape
from gradcli.engine.step.linearise import Edge, Target
from gradcli.engine.step.place import Layout, Stack
from gradcli.language.graph import MAPS, VIEW, Dependence, Node


class Choices(NamedTuple):
    """What a backward step is written for.

    prefilled: the states whose adjoint buffer already holds something at each step (zero, or a gradient that enters
        there), so that every contribution is added; for the others the first contribution is written.
    clipped: the operation that clips each state's adjoint as soon as it is complete; None where none does.
    kept: whether the adjoints of products and of functions across are kept for all steps of a block; else for one, and
        what is made of the input alone has none.
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
        across: the buffer of the adjoint of each function across, and of each map: of its argument where that is
            smaller than what it makes of it, and of its result otherwise.
        values, slopes: those of what is kept of the forward pass for a function across.
        wanted: the coefficients that are computed for a block of steps, each with where it is read.
        at_step: those of matrices, which are computed step by step: for a block they would take too much memory.
        places: for each target where the coefficients of its edges are read, the others as well.
        factors: for two frames, the buffer of the power of two that brings adjoints of the first to the second;
            `shifts` that of its exponent.
        limits: for each state that at which its adjoint is clipped; counters: how many were.
        transposed: the buffer of each group's transposed matrix.
    """

    def __init__(self, layout: Layout, constants: Constants, choices: Choices) -> None:
        self._layout, self._constants, self._choices = layout, constants, choices
        self._step = step = layout.step
        lag = layout.lag
        self.wanted: list[tuple[Node, Operand]] = []
        self.at_step: list[tuple[Node, Operand]] = []
        self.hoisted: dict[Node, Buffer] = {}
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
        for node in step.maps:
            kept = node if node.op in ("total", "cumsum") else node.args[0]
            self.across[node] = Buffer(f"d{layout.word(kept)}", layout.size(kept), span, columns=True)
        self.values = {node: Buffer(layout.word(node), layout.size(node), Span.BLOCK) for node in step.across}
        self.slopes = {node: Buffer(slope.name, slope.size, Span.BLOCK) for node, slope in layout.slopes.items()}
        self.factors: dict[tuple[int, int], Buffer] = {}
        self.shifts: dict[tuple[int, int], Buffer] = {}
        clipped = layout.cell.states if choices.clipped else ()
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
            if not self.is_wanted(target):
                continue
            self._rescaled.clear()
            if isinstance(target, str):
                self._write_state(target)
            elif isinstance(target, Node) and target.op in MAPS:
                self._write_map(target)
            elif isinstance(target, Node):
                self._write_across(target)
            else:
                self._write_stack(self._layout.stacks[target])
        return self._found

    def is_wanted(self, target: Target) -> bool:
        """Tell whether adjoints of a target go anywhere."""
        if self._choices.kept:
            return True
        if isinstance(target, str):
            return target in self._layout.cell.states
        argument = target.args[0] if isinstance(target, Node) else self._step.groups[target].vector
        return argument in self._step.recurrent

    def wanted_edges(self, target: Target) -> list[Edge]:
        """Return the edges along which adjoints of a target go on."""
        edges = self._step.edges[target]
        if self._choices.kept:
            return edges
        return [edge for edge in edges if edge.source in self._step.recurrent or edge.source.op == "window"]

    def _add(self, op: str, args: tuple[Operand, ...], out: Operand, data: object = None) -> None:
        self._found.append(Instruction(op, args, out, data))

    # Targets.

    def _write_state(self, name: str) -> None:
        adjoint = self.adjoints[name].rows()
        if self._choices.clipped and name in self.limits:
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

    def _write_map(self, node: Node) -> None:
        """Pass the adjoint of a map's result on as that of its argument."""
        adjoint = self.across[node].rows()
        if self._first(node):
            self._add("copy", (self._zero(adjoint),), adjoint)
        if node.op == "cumsum":
            self._add("cumsum" if node.data else "cumsum_reversed", (adjoint,), adjoint, 0)
        self._spread(node, _argument_adjoint(node, adjoint))

    def _write_stack(self, stack: Stack) -> None:
        index, vector = stack.group.number, stack.group.vector
        lanes = self.lanes[index]
        for lane in stack.lanes:
            rows = self._lane(lane.product)
            if self._first(lane.product):
                self._add("copy", (self._zero(rows),), rows)  # all its derivatives in this step are zero
        edges = self.wanted_edges(index)
        if not edges:
            return
        size = self._layout.size(vector)
        straight = [edge.source for edge in edges] == [vector] and vector.op != "view" and vector.op != "pad"
        straight = straight and self._frame_of(vector) == self._frame(stack.group.frame)
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
        edges = self.wanted_edges(target)
        by_group: dict[int, list[Edge]] = {}
        for edge in edges:
            if edge.source.op == "matmul":
                by_group.setdefault(self._step.group_of[edge.source].number, []).append(edge)
        for index in sorted(by_group):
            side_by_side = sorted(by_group[index], key=lambda edge: self._layout.lane_of[edge.source].start)
            self._pass_on(target, adjoint, side_by_side)
        for edge in edges:
            if edge.source.op == "matmul":
                continue
            shapes = (adjoint.shape, self._layout.shape(edge.source))
            if edge.source.op in MAPS or max(map(len, shapes)) > 1:
                self._pass_to(target, adjoint, edge)
            else:
                self._pass_on(target, adjoint, [edge])

    # To maps, and of matrices.

    def _pass_to(self, target: Target, adjoint: Operand, edge: Edge) -> None:
        """Pass an adjoint on along one edge, to a map or to a matrix."""
        source = edge.source
        frame, wanted = self._frame(self._step.frame_of(target)), self._frame_of(source)
        going_up = self._upward and frame != wanted
        factor, incoming = self._coefficient(target, edge), adjoint
        shape = common_shape(factor.shape, incoming.shape, self._layout.shape(source))
        factor, incoming = factor.fit(shape), incoming.fit(shape)
        if not going_up:
            incoming = self._matrix_in_frame(incoming, frame, wanted)
        if source.op == "pad":
            size = self._layout.size(source.args[0])
            start = source.data[0]
            factor, incoming = part_of(factor, start, start + size), part_of(incoming, start, start + size)
        out, summed = self._gathered(source, shape)
        if going_up:
            # See `_pass_on`: the power of two comes after the product.
            term = self._temporary(prod(incoming.shape)).fit(incoming.shape)
            self._times(factor, incoming, term)
            power = self._shift(frame, wanted).fit(incoming.shape)
            self._add("ldexp", (term, power), term)
            factor, incoming = self._constants.number(1.0).fit(term.shape), term
        fresh = self._first(_slot(source))
        if fresh and not self._covers(source):
            whole = self.across[source].rows()
            self._add("copy", (self._zero(whole),), whole)
            fresh = False
        if len(summed) == 2:
            between = self._temporary(incoming.shape[0])
            self._sum_products(factor, incoming, between, 1)
            factor, incoming, summed = self._constants.number(1.0).fit(between.shape), between, (0,)
        if summed:
            total = out if fresh else self._temporary(out.shape[0])
            self._sum_products(factor, incoming, total, *summed)
            if not fresh:
                self._add("add", (out, total), out)
        elif fresh:
            self._times(factor, incoming, out)
        elif sign := self._sign(factor):
            self._add("add" if sign > 0 else "subtract", (out, incoming), out)
        else:
            term = self._temporary(prod(out.shape)).fit(out.shape)
            self._times(factor, incoming, term)
            self._add("add", (out, term), out)

    def _gathered(self, source: Node, shape: tuple[int, ...]) -> tuple[Operand, tuple[int, ...]]:
        """Return where the adjoint of a source is gathered, and over which axes it is summed on the way there."""
        if source.op != "view":
            place = self._destination(source)
            return (place if source.op == "pad" else place.fit(shape)), ()
        start, shape, strides = source.data[:VIEW]
        rows = self.across[source].rows()
        summed = tuple(axis for axis, stride in enumerate(strides) if stride == 0)
        left = [axis for axis in range(len(shape)) if axis not in summed]
        place = rows.viewed(start, tuple(shape[axis] for axis in left), tuple(strides[axis] for axis in left))
        return (place if left else rows), summed

    def _covers(self, source: Node) -> bool:
        """Tell whether a map takes all entries of its argument, so that all of its adjoint is written at once."""
        if source.op != "view":
            return True
        _, shape, strides = source.data[:VIEW]
        taken = prod(size for size, stride in zip(shape, strides, strict=True) if stride)
        return bool(taken == self._layout.size(source.args[0]))

    def _sum_products(self, factor: Operand, incoming: Operand, out: Operand, axis: int) -> None:
        into = out.without(axis, len(incoming.shape))
        sign = self._sign(factor)
        if sign:
            self._add("sum_axis", (incoming,), into, axis)
            if sign < 0:
                self._add("negative", (out,), out)
        else:
            self._add("sum_product", (factor, incoming), into, axis)

    def _matrix_in_frame(self, adjoint: Operand, frame: int, wanted: int) -> Operand:
        if frame == wanted:
            return adjoint
        # Of a vector that is spread over a matrix, the vector.
        kept = [axis for axis, stride in enumerate(adjoint.strides) if stride]
        shape = tuple(adjoint.shape[axis] for axis in kept) or (1,)
        strides = tuple(adjoint.strides[axis] for axis in kept) or (1,)
        spread = adjoint._replace(shape=shape, strides=strides)
        scaled = self._temporary(prod(shape))
        factor = self.factors.setdefault((frame, wanted), Buffer(f"2**({frame} to {wanted})", 1, Span.ONCE))
        self._add("multiply", (spread, factor.rows().fit(shape)), scaled.fit(shape))
        along = scaled.fit(shape).strides if kept else ()
        found = [0] * len(adjoint.shape)
        for axis, stride in zip(kept, along, strict=True):
            found[axis] = stride
        return scaled._replace(shape=adjoint.shape, strides=tuple(found))

    def _coefficient(self, target: Target, edge: Edge) -> Operand:
        """Return where the coefficient of an edge is read: where it is already, or where it is computed."""
        node, layout = edge.coefficient, self._layout
        key = target, node
        if key not in self.places:
            if node.dependence is Dependence.PARAMETERS:
                self.places[key] = self._constants.operand(node, layout.word(node))
            elif (there := self._there(node)) is not None:
                self.places[key] = there
            else:
                size, word = layout.size(node), f"d{self._word(target)}/d{layout.word(edge.source)}"
                is_matrix = layout.is_matrix(node)
                place = Buffer(word, size, Span.ONCE if is_matrix else Span.BLOCK).rows()
                (self.at_step if is_matrix else self.wanted).append((node, place))
                self.places[key] = place
        return self.places[key]

    def _there(self, node: Node) -> Operand | None:
        """Return where an expression is found that is no more than a view of what the forward pass has kept."""
        base = self._layout.base(node)
        if base.op == "state" or base in self._layout.stored:
            found = self._layout.places[base] if base in self._layout.places else self._layout.read(base)
        elif base.dependence is Dependence.INPUT:
            found = self.hoisted.setdefault(
                base, Buffer(self._layout.word(base), self._layout.size(base), Span.BLOCK)
            ).rows()
        elif base.dependence is Dependence.PARAMETERS:
            found = self._constants.operand(base, self._layout.word(base))
        else:
            return None
        views = []
        while node is not base:
            views.append(node.data[:VIEW])
            node = node.args[0]
        for view in reversed(views):
            found = found.viewed(*view)
        return found

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
            case "across" | "total" | "cumsum" | "pad":
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
        return self._constants.number(0.0).fit(like.shape)

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


def _argument_adjoint(node: Node, adjoint: Operand) -> Operand:
    """Return the adjoint of a map's argument, from what `Backward.across` holds: of a sum, the same for all entries."""
    if node.op != "total":
        return adjoint
    shape, axis = node.data
    strides = [0] * len(shape)
    if len(shape) > 1:
        strides[1 - axis] = 1
    return adjoint._replace(shape=tuple(shape), strides=tuple(strides))


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
    return lags != {1} or layout.lag > 1
