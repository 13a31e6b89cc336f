"""The plan of a layer: what is computed where, decided once from the graph.

* What depends on parameters or on the input alone is hoisted out of the loop.
* Recurrent products on the same vector form a `Group`, computed as one product with stacked matrices; each member is a
  `Lane` of rows. Lanes with the same nonlinearity lie side by side, so that one call serves them all.
* The cut points are the states and the results of recurrent products. Between them the cell is elementwise: `Edge`s
  with a diagonal coefficient, an expression. The products are the dense edges.
* A `frame` is the power of two that a cut point's adjoint is carried at. States that depend on each other share one;
  a state that only feeds others (or is only fed) has its own, because its gradient may vanish at another rate.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import cached_property
from graphlib import TopologicalSorter
from itertools import combinations, pairwise, permutations

from gradcli.language.cell import SizedCell
from gradcli.language.derivative import diagonal_derivatives
from gradcli.language.graph import Dependence, Graph, Node, reachable

_MAX_LANES_TO_PERMUTE = 6

#: What an edge leads to: a state by its name, or the vector of a group by the group's index.
Target = str | int


@dataclass
class Lane:
    """One recurrent product within a group, and the elementwise steps that are done on the stacked rows.

    product: the node of ``W @ v``. value: the node that the rows hold after the addition, at first the product.
    rows: how many, and `start` the first of them within the group.
    addend: what depends on the input or the parameters and is added to the product, where that is all that happens.
    addend_sign: +1 or -1.
    function: the elementwise function that is the only user of `value`, else None; `result` is its node.
    """

    product: Node
    value: Node
    rows: int
    start: int = 0
    addend: Node | None = None
    addend_sign: int = 1
    function: str | None = None
    result: Node | None = None

    @property
    def stop(self) -> int:
        return self.start + self.rows


@dataclass
class Group:
    """Recurrent products on the same vector, stacked.

    same_as: where every lane has the adjoint of a lane of an earlier group, because both enter the same sum: that
        group, and its rows.
    """

    index: int
    vector: Node
    frame: int
    lanes: list[Lane] = field(default_factory=list)
    same_as: tuple[Group, tuple[int, int]] | None = None

    @property
    def rows(self) -> int:
        return sum(lane.rows for lane in self.lanes)


@dataclass(frozen=True)
class Edge:
    """The diagonal derivative of a target (a state, or the vector of a group) with respect to an earlier cut point."""

    source: Node
    coefficient: Node


class LayerPlan:
    """Everything about a layer that does not depend on its numbers."""

    def __init__(self, cell: SizedCell) -> None:
        self.cell = cell
        self.graph: Graph = cell.graph
        self.lags = cell.lags
        self.lag = max(cell.lags.values())
        self.states = _Hoisting(cell).states
        self.sizes = dict(cell.shapes.sizes)
        self.order = self._evaluation_order()
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
            or (node.op == "matmul" and node.dependence is Dependence.STATE)
            or (node.dependence < Dependence.STATE and not node.is_number)
        )

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
        vectors = {product.args[1] for product in products}
        derivatives = {vector: self._differentiate(vector) for vector in vectors}
        frames = _Frames(self.states, self.edges, products, derivatives)
        self.frames = frames
        groups: dict[tuple[Node, int], Group] = {}
        for product in products:
            frame = frames.of_product[product]
            vector = product.args[1]
            if (vector, frame) not in groups:
                group = groups[vector, frame] = Group(len(groups), vector, frame)
                self.edges[group.index] = self._split(group.index, derivatives[vector])
            groups[vector, frame].lanes.append(Lane(product, product, self.size(product)))
        self.groups = list(groups.values())
        self.group_of = {lane.product: group for group in self.groups for lane in group.lanes}

    def targets_of(self, product: Node) -> frozenset[Target]:
        """Return the states and groups whose equations take this product elementwise."""
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
        for group in self.groups:
            for lane in group.lanes:
                _fuse(lane, takers)
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
        roots = [*self.coefficients(), *(group.vector for group in self.groups)]
        lanes = {lane.value for group in self.groups for lane in group.lanes}
        kept: set[Node] = set()
        seen: set[Node] = set()
        stack = list(roots)
        while stack:
            node = stack.pop()
            if node in seen or node.dependence < Dependence.STATE or node.op == "state":
                continue
            seen.add(node)
            if node in forward and (node.op in ("call", "matmul") or node in lanes):
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
            return self._graph.sum(terms)
        hoisted = self._graph.sum(known)
        if len(inner) == 1:
            return self._graph.sum([*inner, (1, hoisted)])
        product = next((t for t in inner if t[0] == 1 and t[1].op == "matmul"), None)
        if product is None:
            return self._graph.sum([*inner, (1, hoisted)])
        inner.remove(product)
        return self._graph.sum([(1, self._graph.sum([product, (1, hoisted)])), *inner])


class _Frames:
    """Which cut points share a power of two. Adjoints flow from later to earlier; see the module's docstring.

    of_state, of_product: the frame's number. feeds: for each frame, those that pass adjoints on to it.
    """

    def __init__(
        self,
        states: dict[str, Node],
        edges: dict[Target, list[Edge]],
        products: list[Node],
        derivatives: dict[Node, dict[Node, Node]],
    ) -> None:
        # For each state, the states and products that its equation takes; for products likewise through their vector.
        def sources(nodes: Iterable[Node]) -> set[str | Node]:
            return {n.data[0] if n.op == "state" else n for n in nodes if n.dependence is Dependence.STATE}

        takes: dict[str | Node, set[str | Node]] = {
            name: sources(edge.source for edge in edges[name]) for name in states
        }
        for product in products:
            takes[product] = sources(derivatives[product.args[1]])
        below = {node: _closure(node, takes) for node in takes}
        self.of_state: dict[str, int] = {}
        for name in states:
            twin = next((o for o in self.of_state if o in below[name] and name in below[o]), None)
            self.of_state[name] = self.of_state[twin] if twin else len(set(self.of_state.values()))
        self.count = len(set(self.of_state.values()))
        self.of_product: dict[Node, int] = {}
        users: dict[str | Node, set[str | Node]] = {}
        for user, taken in takes.items():
            for node in taken:
                users.setdefault(node, set()).add(user)
        # Products in reverse order of evaluation: whatever takes a product comes after it.
        for product in reversed(products):
            # One in a cycle of states belongs to their frame, whatever else takes it: its adjoint comes back to it.
            cycle = {self.of_state[name] for name in states if product in below[name] and name in below[product]}
            frames = cycle or {self._frame(user) for user in users.get(product, ())}
            if len(frames) == 1:
                self.of_product[product] = frames.pop()
            else:
                self.of_product[product] = self.count
                self.count += 1
        self.feeds: dict[int, set[int]] = {frame: set() for frame in range(self.count)}
        for user, taken in takes.items():
            for node in taken:
                if self._frame(node) != self._frame(user):
                    self.feeds[self._frame(node)].add(self._frame(user))

    def _frame(self, node: str | Node) -> int:
        return self.of_state[node] if isinstance(node, str) else self.of_product[node]

    @cached_property
    def in_flow_order(self) -> list[int]:
        """The frames so that each comes after those that feed it."""
        return list(TopologicalSorter(self.feeds).static_order())


def _closure(start: str | Node, takes: dict[str | Node, set[str | Node]]) -> set[str | Node]:
    seen: set[str | Node] = set()
    stack = list(takes[start])
    while stack:
        node = stack.pop()
        if node not in seen:
            seen.add(node)
            stack.extend(takes.get(node, ()))
    return seen


def _fuse(lane: Lane, takers: dict[Node, list[Node]]) -> None:
    """Find the addition and the function that can be done on the lane's rows where they lie."""
    users = takers.get(lane.product, [])
    if len(users) == 1 and users[0].op == "sum" and len(users[0].args) == 2:
        signs = dict(zip(users[0].args, users[0].data, strict=True))
        other = next((arg for arg in users[0].args if arg is not lane.product), None)
        if signs[lane.product] == 1 and other is not None and other.dependence < Dependence.STATE:
            lane.addend, lane.addend_sign, lane.value = other, signs[other], users[0]
    users = takers.get(lane.value, [])
    if len(users) == 1 and users[0].op == "call":
        lane.function, lane.result = users[0].data, users[0]


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
