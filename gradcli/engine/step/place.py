"""Where every value of a step lies.

Products on the same vector are stacked, so that one product computes them all; each is a `Lane` of rows. What is known
before the loop is added to it where it lies, and lanes whose only user is the same function lie side by side, so that
one call serves them all. What the derivatives mention is kept for every step; anything else has memory for one.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from functools import cached_property
from itertools import pairwise, permutations
from math import prod
from typing import NamedTuple

from gradcli.engine.step.instructions import Buffer, Operand, Span
from gradcli.engine.step.linearise import Group, Linearised, Target
from gradcli.language.across import ACROSS
from gradcli.language.cell import SizedCell
from gradcli.language.graph import Dependence, Node, reachable

_MAX_LANES_TO_PERMUTE = 6


class Lane(NamedTuple):
    """One recurrent product among those that are stacked, and what is done to it where it lies.

    value: the sum of the product and `known`, which is known before the loop and has a sign; the product itself where
        there is no such sum. result: the function of it that is its only user, else None.
    negated: whether the forward pass holds the negative, which saves a call of a sigmoid.
    """

    product: Node
    start: int
    rows: int
    value: Node
    known: Node | None
    sign: int
    result: Node | None
    negated: bool

    @property
    def stop(self) -> int:
        return self.start + self.rows


class Stack(NamedTuple):
    """The lanes of a group, one below the other."""

    group: Group
    lanes: tuple[Lane, ...]

    @property
    def rows(self) -> int:
        return self.lanes[-1].stop


class Layout:
    """Where every value of a step lies.

    Args:
        cell: for the sizes. step: its cut points. names: of nodes, for people.
        without: names of optimisations to do without, see `plan`.
        state_sizes: how many entries each state has. lag: how many steps back the equations look.

    Attributes:
        stacks: one for each group. stored: the nodes whose values are kept for every step.
        aliases: the hoisted nodes whose adjoint is that of a lane, because both enter the same sum.
        states: the buffer of each state. places: where the value of each node inside the loop lies.
        summed: the products of which nothing but a sum over an axis is wanted.
        slopes: the buffer of each function across that has a slope.
        known: for each group with such lanes the buffer of what is added to its products.
        hoisted: the buffers of the other nodes that are known before the loop and read in it.
    """

    def __init__(
        self,
        cell: SizedCell,
        step: Linearised,
        names: Mapping[Node, str],
        without: Collection[str],
        state_sizes: Mapping[str, int],
        lag: int,
    ) -> None:
        self.cell, self.step, self.names = cell, step, names
        self._without = without
        self._shapes = dict(cell.shapes.of_nodes)
        takers: dict[Node, list[Node]] = {}
        for node in step.order:
            for arg in node.args:
                takers.setdefault(arg, []).append(node)
        for expression in step.states.values():
            takers.setdefault(expression, []).append(expression)
        self._takers = takers
        stacks = [self._stacked(group, takers) for group in step.groups]
        self.stored = self._stored_nodes(stacks)
        self.summed = self._find_summed()
        self.stacks = [stack._replace(lanes=tuple(map(self._signed, stack.lanes))) for stack in stacks]
        self.lane_of = {lane.product: lane for stack in self.stacks for lane in stack.lanes}
        self.aliases = self._find_aliases()
        self.lag = lag
        self.states = {
            name: Buffer(name, size, Span.SEGMENT, lag=lag, columns=False) for name, size in state_sizes.items()
        }
        self._states_of: dict[Node, list[str]] = {}
        for name, expression in step.states.items():
            self._states_of.setdefault(expression, []).append(name)
        self.slopes = {
            node: Buffer(f"slope of {self.word(node)}", rows, Span.SEGMENT)
            for node in step.across
            if (rows := self.slope_rows(node))
        }
        self.known = {
            stack.group.number: Buffer(f"known{stack.group.number}", stack.rows, Span.BLOCK)
            for stack in self.stacks
            if any(lane.known is not None for lane in stack.lanes)
        }
        self.hoisted: dict[Node, Buffer] = {}
        self.places: dict[Node, Operand] = {}
        self._place_all()

    # Sizes.

    def size(self, node: Node) -> int:
        """Return the number of entries of a value; 1 for a number."""
        return prod(self.shape(node))

    def shape(self, node: Node) -> tuple[int, ...]:
        """Return the shape of a value; () for a number."""
        if node not in self._shapes:
            # Step by step from below: a chain of equations may be deeper than Python's stack.
            for below in reachable([node], stop=self._shapes.keys()):
                if below not in self._shapes:
                    self._shapes[below] = self._shape_of(below)
        return self._shapes[node]

    def _shape_of(self, node: Node) -> tuple[int, ...]:
        """Return the shape of a node whose arguments have theirs."""
        match node.op:
            case "matmul":
                return self.matrix_shape(node.args[0])[:1]
            case "state":
                name = node.data[0]
                return self.cell.shapes.of_states.get(name, (self.cell.shapes.input_size,))
            case "window":
                return (sum(prod(self._shapes[arg]) for arg in node.args),)
            case "view":
                return tuple(node.data[1])
            case "pad":
                return (node.data[1],)
            case "total":
                shape, axis = node.data
                return (*shape[:axis], *shape[axis + 1 :])
            case "largest":
                return ()
            case "entries":
                return tuple(node.data)
            case "identity":
                return node.data, node.data
            case _:
                return max((self._shapes[arg] for arg in node.args), key=len, default=())

    def is_matrix(self, node: Node) -> bool:
        return len(self.shape(node)) > 1

    def base(self, node: Node) -> Node:
        """Return what holds the entries of a node, which may be a view of it."""
        while node.op == "view" and node.dependence is Dependence.STATE and node not in self._copied:
            node = node.args[0]
        return node

    @cached_property
    def _copied(self) -> frozenset[Node]:
        """Views that are copied: of matrices that others are views of, so that a view has one stride to begin with;
        and what is the value of a state, which has a place."""
        states = self.step.states.values()
        views = [node for node in reachable([*states, *self.step.coefficients]) if node.op == "view"]
        of_views = (view.args[0] for view in views if view.args[0].op == "view" and self.is_matrix(view.args[0]))
        return frozenset([*of_views, *(node for node in states if node in views)])

    def is_copied(self, node: Node) -> bool:
        """Tell whether a view has a place of its own."""
        return node in self._copied

    def _find_summed(self) -> dict[Node, Node]:
        """Return the products that are summed over an axis right away and need no place, each with its sum."""
        found = {}
        for node in self.step.order:
            if node.op != "total":
                continue
            (product,) = node.args
            alone = len(self._takers.get(product, ())) == 1 and product not in self.stored
            if product.op == "mul" and alone and product.dependence is Dependence.STATE:
                found[product] = node
        return found

    def matrix_shape(self, matrix: Node) -> tuple[int, int]:
        """Return the rows and columns of a matrix."""
        if matrix.op != "beside":
            rows, columns = self.cell.shapes.matrices[matrix]
            return rows, columns
        parts = [self.matrix_shape(arg) for arg in matrix.args]
        return parts[0][0], sum(columns for _, columns in parts)

    def slope_rows(self, node: Node) -> int:
        """Return how many numbers the slope of a function across has for each sequence; see `Across`."""
        function = ACROSS[node.data[0]]
        if not function.is_norm:
            return 0
        # One a unit, if it is the same for all sequences: kept for each of them, it is an array like others.
        return self.size(node) if function.over_sequences else 1

    def matrix(self, stack: Stack, *, signed: bool = False) -> Node:
        """Return the matrices of a group's products one below the other; `signed` as the forward pass wants them."""
        graph = self.step.graph
        parts = [graph.neg(m) if signed and lane.negated else m for lane in stack.lanes for m in lane.product.args[:1]]
        return graph.node("stack", parts) if len(parts) > 1 else parts[0]

    def word(self, node: Node) -> str:
        """Return what to call a node: as the equations do, or by its number."""
        if node.op == "state":
            name, lag = node.data
            return f"{name}[t-{lag}]" if lag else f"{name}[t]"
        return str(node.data) if node.op == "parameter" else self.names.get(node, f"n{node.index}")

    # Lanes.

    def _stacked(self, group: Group, takers: dict[Node, list[Node]]) -> Stack:
        lanes = [self._lane(product, takers) for product in group.products]
        if "lanes in order" not in self._without:
            lanes = _arranged(lanes, self._targets_of)
        start, placed = 0, []
        for lane in lanes:
            placed.append(lane._replace(start=start))
            start += lane.rows
        return Stack(group, tuple(placed))

    def _lane(self, product: Node, takers: dict[Node, list[Node]]) -> Lane:
        """Find the addition and the function that can be done where the product lies."""
        value, known, sign = product, None, 1
        users = takers.get(product, [])
        if len(users) == 1 and users[0].op == "sum" and len(users[0].args) == 2:
            (total,) = users
            signs = dict(zip(total.args, total.data, strict=True))
            (other,) = (arg for arg in total.args if arg is not product)
            if signs[product] == 1 and other.dependence < Dependence.STATE:
                value, known, sign = total, other, signs[other]
        users = takers.get(value, [])
        result = users[0] if len(users) == 1 and users[0].op == "call" else None
        return Lane(product, 0, self.size(product), value, known, sign, result, negated=False)

    def _signed(self, lane: Lane) -> Lane:
        is_sigmoid = lane.result is not None and lane.result.data == "sigmoid"
        kept = lane.value in self.stored or lane.product in self.stored
        return lane._replace(negated=is_sigmoid and not kept and "negated sigmoids" not in self._without)

    def _targets_of(self, product: Node) -> frozenset[Target]:
        return frozenset(target for target, _ in self.step.entries(product))

    def _stored_nodes(self, stacks: Sequence[Stack]) -> frozenset[Node]:
        """Return the nodes whose values are kept for every step: what the coefficients and weight gradients mention."""
        step, forward = self.step, set(self.step.order)
        lanes = {lane.value for stack in stacks for lane in stack.lanes}
        pending = [*step.coefficients, *(group.vector for group in step.groups), *step.across]
        computed = ("call", "matmul", "across", "total", "pad", "cumsum", "largest")
        kept: set[Node] = set()
        seen: set[Node] = set()
        while pending:
            node = pending.pop()
            if node in seen or node.dependence < Dependence.STATE or node.op in ("state", "window"):
                continue
            seen.add(node)
            if node in forward and (node.op in computed or node in lanes):
                kept.add(node)
            else:
                pending.extend(node.args)
        return frozenset(kept)

    def _find_aliases(self) -> dict[Node, Lane]:
        lanes = {self.step.entries(lane.product): lane for stack in self.stacks for lane in stack.lanes}
        found = {}
        for leaf, pairs in self.step.leaf_edges.items():
            twin = lanes.get(frozenset(pairs))
            if twin is not None and self.size(leaf) == twin.rows:
                found[leaf] = twin
        return found

    # Places.

    def _place_all(self) -> None:
        uses = Counter(taken for node in self.step.order for taken in self._taken(node))
        for node in self.step.order:
            if node in self.summed:
                continue
            if node.op in ("state", "window"):
                self.places[node] = self.read(node)
            elif node.op == "view" and not self.is_copied(node):
                continue  # it is where what it is a view of is
            elif node.op == "matmul" and node not in self.places:
                self._place_stack(self.stacks[self.step.group_of[node].number])
            elif node not in self.places:
                self.places[node] = self._place(node, uses)
            uses.subtract(self._taken(node))
        for node in self.step.order:
            for arg in node.args:
                if arg.dependence is Dependence.INPUT and arg not in self.hoisted and not self._is_added(arg, node):
                    self.hoisted[arg] = Buffer(self.word(arg), self.size(arg), Span.BLOCK)

    def _taken(self, node: Node) -> list[Node]:
        """Return whose places are read where a node is computed."""
        if node in self.summed or (node.op == "view" and not self.is_copied(node)):
            return []
        args = [part for arg in node.args for part in (arg.args if arg in self.summed else (arg,))]
        return [self.base(arg) for arg in args]

    def _is_added(self, arg: Node, node: Node) -> bool:
        """Tell whether a sum adds this to a product where that lies."""
        return any(lane.value is node and lane.known is arg for stack in self.stacks for lane in stack.lanes)

    def read(self, node: Node) -> Operand:
        """Return where the value of a node is found that is not computed inside the loop: a past state, or hoisted."""
        if node.op == "state":
            name, lag = node.data
            return self.states[name].rows(lag=lag)
        if node.op == "window":
            name, lag = node.args[0].data
            return Operand(self.states[name], 0, (self.size(node),), (1,), lag)
        return self.hoisted[node].rows()

    def of_state(self, node: Node) -> Operand | None:
        """Return the place in a state that a node's value is computed into, where it is the state's expression."""
        names = self._states_of.get(node)
        return self.states[names[0]].rows() if names else None

    def states_of(self, node: Node) -> list[Operand]:
        """Return the places of all states whose expression this is."""
        return [self.states[name].rows() for name in self._states_of.get(node, ())]

    def _place_stack(self, stack: Stack) -> None:
        index = stack.group.number
        straight = self.of_state(stack.lanes[0].value) if len(stack.lanes) == 1 else None
        there = [node for lane in stack.lanes for node in (lane.product, lane.value)]
        kept = not self.stored.isdisjoint(there if straight is None else there[:1])
        rows = Buffer(f"products{index}", stack.rows, Span.SEGMENT if kept else Span.ONCE)
        for lane in stack.lanes:
            here = rows.rows(lane.start, lane.stop)
            self.places[lane.value] = straight or here
            self.places.setdefault(lane.product, here)
        for run in _function_runs(stack.lanes):
            results = [lane.result for lane in run if lane.result is not None]
            into = self.of_state(results[0]) if len(results) == 1 else None
            if into is not None:
                self.places[results[0]] = into
                continue
            name = ", ".join(map(self.word, results))
            span = Span.SEGMENT if not self.stored.isdisjoint(results) else Span.ONCE
            buffer = Buffer(name, run[-1].stop - run[0].start, span)
            for lane, result in zip(run, results, strict=True):
                self.places[result] = buffer.rows(lane.start - run[0].start, lane.stop - run[0].start)

    def _place(self, node: Node, uses: Counter[Node]) -> Operand:
        state = self.of_state(node)
        if state is not None:
            return state
        if node in self.stored:
            return Buffer(self.word(node), self.size(node), Span.SEGMENT).rows()
        free = next(self._free_places(node, uses), None)
        return free or Buffer(self.word(node), self.size(node), Span.ONCE).rows()

    def _free_places(self, node: Node, uses: Counter[Node]) -> Iterator[Operand]:
        """Yield the places of arguments that nothing else needs any more: what is read last stays in the cache."""
        if "places again" in self._without or not reads_before_it_writes(node):
            return
        taken = self._taken(node)
        for arg in node.args:
            place = self.places.get(arg)
            if place is None or place.buffer.span is not Span.ONCE or uses[arg] != taken.count(arg):
                continue
            if taken.count(arg) != node.args.count(arg):
                continue  # it is read as a view as well
            if place.buffer.size == place.shape[0] == self.size(node) and arg.op != "matmul":
                yield place


def _function_runs(lanes: Sequence[Lane]) -> list[list[Lane]]:
    """Return the lanes that a function takes, as runs that lie side by side and share it."""
    runs: list[list[Lane]] = []
    for lane in lanes:
        if lane.result is None:
            continue
        last = runs[-1][-1] if runs else None
        same = last is not None and last.result is not None and last.result.data == lane.result.data
        if last is not None and same and last.stop == lane.start and last.negated == lane.negated:
            runs[-1].append(lane)
        else:
            runs.append([lane])
    return runs


def _arranged(lanes: list[Lane], targets_of: Callable[[Node], frozenset[Target]]) -> list[Lane]:
    """Order lanes so that as few runs as possible differ in what is added, in function and in targets."""
    keys = [
        (
            lane.known is not None,
            "" if lane.result is None else lane.result.data,
            tuple(sorted(map(str, targets_of(lane.product)))),
        )
        for lane in lanes
    ]
    if len(lanes) > _MAX_LANES_TO_PERMUTE:
        return [lane for _, _, lane in sorted(zip(keys, range(len(lanes)), lanes, strict=True), key=lambda k: k[:2])]

    def runs(order: tuple[int, ...]) -> int:
        return sum(keys[a][part] != keys[b][part] for a, b in pairwise(order) for part in range(3))

    best = min(permutations(range(len(lanes))), key=runs)
    return [lanes[i] for i in best]


def reads_before_it_writes(node: Node) -> bool:
    """Tell whether all arguments have been read when the output is first written, so that it may take their place."""
    if node.op in ("total", "largest", "pad", "cumsum", "view"):
        return False
    return node.op != "sum" or (len(node.args) <= 2 and max(node.data) > 0)
