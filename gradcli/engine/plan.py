"""The plan of a layer: what is computed where, decided once from the graph.

* What depends on parameters or on the input alone is hoisted out of the loop.
* Recurrent products on the same vector form a `Group`, computed as one product with stacked matrices; each member is a
  `Lane` of rows. Lanes with the same nonlinearity lie side by side, so that one call serves them all.
* The cut points are the states, the results of recurrent products, and those of functions across entries or sequences.
  Between them the cell is elementwise: `Edge`s with a diagonal coefficient, an expression. The products are the dense
  edges; a function across has a Jacobian of its own (see `gradcli.language.across`), and edges from its argument on.
* A `frame` is the power of two that a cut point's adjoint is carried at. States that depend on each other share one;
  a state that only feeds others (or is only fed) has its own, because its gradient may vanish at another rate.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from itertools import combinations, pairwise, permutations

from gradcli.engine.frames import Frames, over_sequences
from gradcli.engine.windows import Window, find_windows, with_windows_apart
from gradcli.language.across import ACROSS
from gradcli.language.cell import SizedCell
from gradcli.language.derivative import diagonal_derivatives
from gradcli.language.graph import Dependence, Graph, Node, reachable

_MAX_LANES_TO_PERMUTE = 6

#: What an edge leads to: a state by its name, the vector of a group by the group's index, or the argument of a function
#: across by the function's node.
Target = str | int | Node


@dataclass
class Lane:
    """One recurrent product within a group, and the elementwise steps that are done on the stacked rows.

    product: the node of ``W @ v``. value: the node that the rows hold after the addition, at first the product.
    rows: how many, and `start` the first of them within the group.
    addend: what depends on the input or the parameters and is added to the product, where that is all that happens.
    addend_sign: +1 or -1.
    function: the elementwise function that is the only user of `value`, else None; `result` is its node.
    into: where the group belongs to a window, the lane of its first group whose rows hold the sum, else None.
    """

    product: Node
    value: Node
    rows: int
    start: int = 0
    addend: Node | None = None
    addend_sign: int = 1
    function: str | None = None
    result: Node | None = None
    into: Lane | None = None

    @property
    def stop(self) -> int:
        return self.start + self.rows


@dataclass
class Group:
    """Recurrent products on the same vector, stacked.

    same_as: where every lane has the adjoint of a lane of an earlier group, because both enter the same sum: that
        group, and its rows.
    window: where products with other past values of the same state are added to those of this group, and all of them
        may be one product.
    """

    index: int
    vector: Node
    frame: int
    lanes: list[Lane] = field(default_factory=list)
    same_as: tuple[Group, tuple[int, int]] | None = None
    window: Window | None = None

    @property
    def rows(self) -> int:
        return sum(lane.rows for lane in self.lanes)


@dataclass(frozen=True)
class Edge:
    """The diagonal derivative of a target with respect to an earlier cut point."""

    source: Node
    coefficient: Node


class LayerPlan:
    """Everything about a layer that does not depend on its numbers.

    across: the functions across that are evaluated within the loop, in order.
    couples_sequences: whether the sequences of a batch depend on each other. The gradient kept for a sequence's state
        is then that of the sum of all sequences' losses.
    couples_hoisted: whether they do so outside of the loop already.
    """

    def __init__(self, cell: SizedCell) -> None:
        self.cell = cell
        self.graph: Graph = cell.graph
        self.lags = cell.lags
        self.lag = max(cell.lags.values())
        self.states = _Hoisting(cell).states
        self.sizes = dict(cell.shapes.sizes)
        self.order = self._evaluation_order()
        self.across = [node for node in self.order if node.op == "across"]
        coupling = [node for node in reachable(self.states.values()) if over_sequences(node)]
        self.couples_sequences = bool(coupling)
        self.couples_hoisted = any(node.dependence is Dependence.INPUT for node in coupling)
        self.edges: dict[Target, list[Edge]] = {}
        self.leaf_edges: dict[Node, list[tuple[Target, Node]]] = {}
        self.groups: list[Group] = []
        self._derive_states()
        self._form_groups()
        self._shape_lanes()
        self._share_adjoints()
        self.stored = self._stored_nodes()
        self.aliases = self._find_aliases()

    @cached_property
    def signature(self) -> tuple[object, ...]:
        """What is equal for the plans of equal equations at equal sizes."""
        cell = self.cell
        nodes = [(n.index, n.op, n.data, tuple(arg.index for arg in n.args)) for n in reachable(cell.states.values())]
        roots = [(name, node.index) for name, node in cell.states.items()]
        shapes = cell.shapes
        sizes = (*shapes.states.items(), *shapes.parameters.items(), shapes.input_size)
        return (*nodes, *roots, *sizes, cell.output)

    def size(self, node: Node) -> int:
        """Return the number of entries of a vector node; 1 for a scalar."""
        if node not in self.sizes:
            if node.op == "matmul":
                matrix = node.args[0]
                self.sizes[node] = self.cell.shapes.matrices[matrix][0]
            elif node.op == "state":
                self.sizes[node] = self.cell.shapes.states[node.data[0]]
            else:
                self.sizes[node] = max((self.size(arg) for arg in node.args), default=1)
        return self.sizes[node]

    def is_cut(self, node: Node) -> bool:
        """Tell whether elementwise differentiation stops at a node."""
        return (
            node.op == "state"
            or (node.op in ("matmul", "across") and node.dependence is Dependence.STATE)
            or (node.dependence < Dependence.STATE and not node.is_number)
        )

    def slope_rows(self, node: Node) -> int:
        """Return how many numbers the slope of a function across has for each sequence; see `Across`."""
        function = ACROSS[node.data[0]]
        if not function.is_norm:
            return 0
        # One a unit, if it is the same for all sequences: kept for each of them, it is an array like others.
        return self.size(node) if function.over_sequences else 1

    def _evaluation_order(self) -> list[Node]:
        """Return the nodes inside the loop, each after all that it needs; a state's [t] needs its equation."""
        done: dict[Node, None] = {}
        for expression in self.states.values():
            stack = [(expression, False)]
            while stack:
                node, ready = stack.pop()
                if node in done or node.dependence < Dependence.STATE:
                    continue
                if ready:
                    done[node] = None
                    continue
                stack.append((node, True))
                needs = [self.states[node.data[0]]] if node.op == "state" and node.data[1] == 0 else node.args
                stack.extend((arg, False) for arg in reversed(needs))
        return list(done)

    # Edges between cut points.

    def _derive_states(self) -> None:
        for name, expression in self.states.items():
            derivatives = self._differentiate(expression)
            self.edges[name] = self._split(name, derivatives)

    def _differentiate(self, target: Node) -> dict[Node, Node]:
        return diagonal_derivatives(self.graph, target, self.is_cut)

    def _split(self, target: Target, derivatives: dict[Node, Node]) -> list[Edge]:
        """Return the edges from recurrent cut points; those from hoisted nodes are kept as `leaf_edges`."""
        edges = []
        for source, coefficient in derivatives.items():
            if source.dependence is Dependence.STATE:
                edges.append(Edge(source, coefficient))
            else:
                self.leaf_edges.setdefault(source, []).append((target, coefficient))
        return edges

    # Groups of products.

    def _form_groups(self) -> None:
        products = [node for node in self.order if node.op == "matmul"]
        # What the cut points within a step are computed from, elementwise: vectors of products, arguments of functions.
        operands = {node: node.args[-1] for node in self.order if node.op in ("matmul", "across")}
        derivatives = {operand: self._differentiate(operand) for operand in operands.values()}
        for node in self.across:
            self.edges[node] = self._split(node, derivatives[node.args[0]])
        frames = self.frames = Frames(
            {name: [edge.source for edge in self.edges[name]] for name in self.states},
            {node: derivatives[operand] for node, operand in operands.items()},
        )
        groups: dict[tuple[Node, int], Group] = {}
        for product in products:
            frame = frames.of_node[product]
            vector = product.args[1]
            if (vector, frame) not in groups:
                group = groups[vector, frame] = Group(len(groups), vector, frame)
                self.edges[group.index] = self._split(group.index, derivatives[vector])
            groups[vector, frame].lanes.append(Lane(product, product, self.size(product)))
        self.groups = list(groups.values())
        self.group_of = {lane.product: group for group in self.groups for lane in group.lanes}

    def targets_of(self, product: Node) -> frozenset[Target]:
        """Return the targets that take this product elementwise."""
        return frozenset(
            target for target, edges in self.edges.items() if any(edge.source is product for edge in edges)
        )

    def _shape_lanes(self) -> None:
        takers: dict[Node, list[Node]] = {}
        for node in self.order:
            for arg in node.args:
                takers.setdefault(arg, []).append(node)
        for expression in self.states.values():
            takers.setdefault(expression, []).append(expression)
        for window in find_windows(self.groups, takers):
            for group in window.groups:
                group.window = window
        for group in self.groups:
            if group.window is not None and group.window.first is not group:
                _follow(group, group.window.first, takers)
            else:
                for lane in group.lanes:
                    _fuse(lane, takers, group.window)
                group.lanes = _arrange(group.lanes, self.targets_of)
            start = 0
            for lane in group.lanes:
                lane.start = start
                start += lane.rows

    def _entries(self, node: Node) -> frozenset[tuple[Target, Node]]:
        """Return where a cut point enters elementwise, and with which coefficients."""
        return frozenset(
            (target, edge.coefficient) for target, edges in self.edges.items() for edge in edges if edge.source is node
        )

    def _share_adjoints(self) -> None:
        """Find the groups whose adjoints are those of another group's rows: W h + U c, both in the same sums."""
        entries = [[self._entries(lane.product) for lane in group.lanes] for group in self.groups]
        for later, earlier in combinations(reversed(self.groups), 2):
            wanted, found = entries[later.index], entries[earlier.index]
            if later.same_as or later.frame != earlier.frame or not all(wanted):
                continue
            for first in range(len(found) - len(wanted) + 1):
                lanes = earlier.lanes[first : first + len(wanted)]
                sizes = [lane.rows for lane in later.lanes]
                if found[first : first + len(wanted)] == wanted and [lane.rows for lane in lanes] == sizes:
                    later.same_as = earlier, (lanes[0].start, lanes[-1].stop)
                    break

    # What the backward pass needs of the forward pass.

    def coefficients(self) -> list[Node]:
        """Return the diagonal derivatives of all targets, with respect to recurrent and to hoisted nodes."""
        recurrent = [edge.coefficient for edges in self.edges.values() for edge in edges]
        return recurrent + [coefficient for pairs in self.leaf_edges.values() for _, coefficient in pairs]

    def _stored_nodes(self) -> frozenset[Node]:
        """Return the nodes whose values are kept for every step: what the coefficients and weight gradients mention."""
        forward = set(self.order)
        roots = [*self.coefficients(), *(group.vector for group in self.groups), *self.across]
        lanes = {lane.value for group in self.groups for lane in group.lanes}
        kept: set[Node] = set()
        seen: set[Node] = set()
        stack = list(roots)
        while stack:
            node = stack.pop()
            if node in seen or node.dependence < Dependence.STATE or node.op == "state":
                continue
            seen.add(node)
            if node in forward and (node.op in ("call", "matmul", "across") or node in lanes):
                kept.add(node)
            else:
                stack.extend(node.args)
        return frozenset(kept)

    def _find_aliases(self) -> dict[Node, Lane]:
        """Return the hoisted nodes whose adjoint is that of a lane, because both enter the same sum."""
        lanes: dict[frozenset[tuple[Target, Node]], Lane] = {}
        for group in self.groups:
            for lane in group.lanes:
                lanes[self._entries(lane.product)] = lane
        found = {}
        for leaf, pairs in self.leaf_edges.items():
            twin = lanes.get(frozenset(pairs))
            if twin is not None and self.size(leaf) == twin.rows:
                found[leaf] = twin
        return found


class _Hoisting:
    """Rewrites sums so that all that is known before the loop is one term: W_h h + (W_x x + b)."""

    def __init__(self, cell: SizedCell) -> None:
        self._graph = cell.graph
        self._memo: dict[Node, Node] = {}
        nodes = reachable(cell.states.values())
        for node in nodes:
            self._memo[node] = self._rewrite(node)
        self.states = {name: self._memo[node] for name, node in cell.states.items()}

    def _rewrite(self, node: Node) -> Node:
        if node.dependence < Dependence.STATE or not node.args:
            return node
        args = [self._memo[arg] for arg in node.args]
        if node.op != "sum":
            return self._graph.node(node.op, args, node.data)
        terms = list(zip(node.data, args, strict=True))
        known = [(sign, arg) for sign, arg in terms if arg.dependence < Dependence.STATE]
        inner = [(sign, arg) for sign, arg in terms if arg.dependence is Dependence.STATE]
        if not known:
            return with_windows_apart(self._graph, inner, []) or self._graph.sum(terms)
        hoisted = self._graph.sum(known)
        apart = with_windows_apart(self._graph, inner, [(1, hoisted)])
        if apart is not None:
            return apart
        if len(inner) == 1:
            return self._graph.sum([*inner, (1, hoisted)])
        product = next((t for t in inner if t[0] == 1 and t[1].op == "matmul"), None)
        if product is None:
            return self._graph.sum([*inner, (1, hoisted)])
        inner.remove(product)
        return self._graph.sum([(1, self._graph.sum([product, (1, hoisted)])), *inner])


def _fuse(lane: Lane, takers: dict[Node, list[Node]], window: Window | None) -> None:
    """Find the additions and the function that can be done on the lane's rows where they lie."""
    users = takers.get(lane.product, [])
    if len(users) == 1 and users[0].op == "sum":
        (total,) = users
        beside = window.products_beside(total) if window else []
        signs = dict(zip(total.args, total.data, strict=True))
        others = [arg for arg in total.args if arg is not lane.product and arg not in beside]
        if signs[lane.product] == 1 and len(others) == 1 and others[0].dependence < Dependence.STATE:
            lane.addend, lane.addend_sign, lane.value = others[0], signs[others[0]], total
        elif beside and not others:
            lane.value = total
    users = takers.get(lane.value, [])
    if len(users) == 1 and users[0].op == "call":
        lane.function, lane.result = users[0].data, users[0]


def _follow(group: Group, first: Group, takers: dict[Node, list[Node]]) -> None:
    """Put the lanes of a group of a window into the order of the first group's, which hold the sums."""
    holders = {takers[lane.product][0]: lane for lane in first.lanes}
    for lane in group.lanes:
        lane.into = holders[takers[lane.product][0]]
    group.lanes.sort(key=lambda lane: lane.into.start if lane.into else 0)


def _arrange(lanes: list[Lane], targets_of: Callable[[Node], frozenset[Target]]) -> list[Lane]:
    """Order lanes so that as few runs as possible differ in addend, function and target."""
    targets = {id(lane): targets_of(lane.product) for lane in lanes}
    keys = [
        (lane.addend is not None, lane.function or "", tuple(sorted(map(str, targets[id(lane)])))) for lane in lanes
    ]
    if len(lanes) > _MAX_LANES_TO_PERMUTE:
        return [lane for _, _, lane in sorted(zip(keys, range(len(lanes)), lanes, strict=True), key=lambda k: k[:2])]

    def runs(order: tuple[int, ...]) -> int:
        pairs = list(pairwise(order))
        return sum(keys[a][part] != keys[b][part] for a, b in pairs for part in range(3))

    best = min(permutations(range(len(lanes))), key=runs)
    return [lanes[i] for i in best]
