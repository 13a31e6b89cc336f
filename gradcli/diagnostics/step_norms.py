"""What a backward step does to the size of a gradient: through activations and gates, then through weight matrices.

The adjoints of all states of a layer at step t go back in moves of two kinds, in turn. First they are multiplied by
derivatives that are no matrices, elementwise ones and those of functions across, until they are the adjoints of the
recurrent products nearest the output (their pre-activations) and, on the direct routes such as f * c[t-1], adjoints of
earlier states. Then those of the products are multiplied by the transposed weight matrices. Where the vectors of these
products are made of others, as in A @ tanh(B @ h[t-1]), the same begins again: products stand in *levels*, and each
level has its own two moves. What stands behind the last matrix, as in W @ softmax(h[t-1]), is one more of the first
kind. Taking all products at once would count a gradient that passes two of them twice.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from gradcli.diagnostics.curve import joined
from gradcli.engine.backward import BackwardPass, Block
from gradcli.engine.evaluate import Values, evaluate, product, through_map
from gradcli.engine.executor import log2_norms
from gradcli.engine.scaled import scale_by
from gradcli.engine.step.linearise import Edge, Target
from gradcli.engine.step.plan import LayerPlan
from gradcli.language.across import ACROSS
from gradcli.language.graph import MAPS, Node

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class StepNorms:
    """log2 of norms at the steps of a block, (n, R, B) each; -inf for an exact zero.

    before, through: for each level of products, of all that goes on into the past before their matrices and after them:
        adjoints of products, of vectors that products were multiplied with, and of earlier states.
    after: of what arrives at earlier states in the end.
    """

    before: tuple[Array, ...]
    through: tuple[Array, ...]
    after: Array


def levels_of(plan: LayerPlan) -> list[list[int]]:
    """Return the numbers of the groups of products by level, those nearest the output first.

    Products on one vector are taken together, once the adjoints of all of them are complete. Those on earlier inputs
    alone are none of these: no gradient comes back through them.
    """
    recurrent = plan.linear.recurrent
    behind: dict[Node, int] = {}
    found: dict[int, int] = {}
    for target in plan.linear.backward_order:
        if isinstance(target, int):
            if recurrent.isdisjoint(plan.groups[target].products):
                continue
            found[target] = level = 1 + max(behind.get(product, 0) for product in plan.groups[target].products)
        else:
            level = behind.get(target, 0) if isinstance(target, Node) else 0
        for edge in plan.edges[target]:
            behind[edge.source] = max(behind.get(edge.source, 0), level)
    return [[number for number, own in found.items() if own == level] for level in sorted(set(found.values()))]


def is_closed(plan: LayerPlan) -> bool:
    """Tell whether all that reaches a state's adjoint through matrices came from the very next step.

    Then what happens between `StepNorms.after` and the adjoints one step earlier needs no matrix. It is not where a
    state enters two steps later (``h[t-2]``), or enters a product in its own step.
    """
    pending: list[Target] = [group.number for group in plan.groups]
    while pending:
        for source in (edge.source for edge in plan.edges[pending.pop()]):
            if source.op == "state" and source.data[1] == 0:
                return False
            if source.op == "across" or source.op in MAPS:
                pending.append(source)
    return plan.lag == 1


def step_norms(backward: BackwardPass, block: Block, values: Values) -> StepNorms:
    """Return the norms inside each step of a block that `backward` has just run over.

    Args:
        backward: the pass, which keeps the adjoints of products at all steps.
        block: what it found. values: of the steps, see `BackwardPass.known_values`.
    """
    walk = _Walk(backward, block, values)
    before, through = [], []
    with np.errstate(all="ignore"):
        for level in levels_of(backward.plan):
            walk.elementwise(level)
            before.append(walk.log2_norm(level))
            walk.multiply(level)
            through.append(walk.log2_norm())
        walk.elementwise([])
        return StepNorms(tuple(before), tuple(through), walk.log2_norm())


class _Walk:
    """Takes a gradient back through a step, move by move.

    Products and states of the same step that are reached through a state of it are left out: a state's adjoint has all
    that enters it.
    """

    def __init__(self, backward: BackwardPass, block: Block, values: Values) -> None:
        self._backward, self._block, self._values = backward, block, values
        self._plan, self._linear = backward.plan, backward.plan.linear
        self._steps = slice(*block.steps)
        self._arrivals = _Arrivals(backward.plan, block)
        # What has not gone on yet: adjoints of states and of the results of functions across and of maps, ...
        self._pending: dict[Target, Array] = {name: total for name, (total, _) in block.totals.items()}
        # ... of what some targets are made of, ...
        self._waiting: list[tuple[Target, Array, int]] = []
        # ... and of products whose turn comes later.
        self._products: dict[Node, Array] = {}

    def elementwise(self, level: list[int]) -> None:
        """Multiply by all derivatives up to the next products, whose groups are given: the pass has their adjoints."""
        waiting, self._waiting = self._waiting, []
        for target, adjoint, frame in waiting:
            for edge in self._plan.edges[target]:
                self._pass_on(edge, adjoint, frame, level)
        for target in self._linear.backward_order:
            if target not in self._pending:
                continue
            adjoint, frame = self._pending.pop(target), self._linear.frame_of(target)
            if isinstance(target, Node):
                adjoint = self._through(target, adjoint)
            for edge in self._plan.edges[target]:
                self._pass_on(edge, adjoint, frame, level)

    def multiply(self, level: list[int]) -> None:
        """Multiply by the transposed matrices of a level.

        What comes out for an earlier state as it is, and for another product, is added to what that has already.
        """
        for number in level:
            group = self._plan.groups[number]
            adjoint = np.asarray(product(self._backward.transposed(number), self._lanes(number)))
            for node in group.products:
                self._products.pop(node, None)
            self._take(number, adjoint, group.frame)

    def log2_norm(self, level: list[int] | None = None) -> Array:
        """Return log2 of the norm of all that is on its way, (n, R, B). level: the groups whose products come next."""
        exponent, frames = self._block.adjoints.exponent, self._plan.frames
        norms = [self._arrivals.log2_norm()]
        norms += [log2_norms(part) + exponent[frame] for _, part, frame in self._waiting]
        norms += [log2_norms(part) + exponent[self._linear.frame_of(target)] for target, part in self._pending.items()]
        # Products that enter the same sum have one adjoint, that of the sum.
        found: set[object] = set()
        for number in level or ():
            stack = self._plan.layout.stacks[number]
            new = [lane for lane in stack.lanes if self._linear.entries(lane.product) not in found]
            found |= {self._linear.entries(lane.product) for lane in new}
            if new:
                rows = np.concatenate([np.arange(lane.start, lane.stop) for lane in new])
                lanes = self._lanes(number)
                part = lanes if len(rows) == stack.rows else lanes[:, :, rows]
                norms.append(log2_norms(part) + exponent[stack.group.frame])
        for node, part in self._products.items():
            is_later = self._linear.group_of[node].number not in (level or ())
            if is_later and self._linear.entries(node) not in found:
                found.add(self._linear.entries(node))
                norms.append(log2_norms(part) + exponent[frames.of_node[node]])
        return joined(norms)

    def _lanes(self, number: int) -> Array:
        lo, hi = self._block.steps
        return self._backward.lanes[number][: hi - lo]

    def _through(self, node: Node, adjoint: Array) -> Array:
        """Return the adjoint of the argument of a function across or a map."""
        if node.op in MAPS:
            return through_map(node, adjoint, self._plan.size(node.args[0]))
        layer, function = self._backward.layer, ACROSS[node.data[0]]
        slope = layer.slope(node)[self._steps] if node in self._plan.layout.slopes else None
        out = np.empty_like(adjoint)
        function.apply_jacobian(2 + function.over_sequences, layer.array(node)[self._steps], slope, adjoint, out)
        return out

    def _take(self, target: Target, adjoint: Array, frame: int) -> None:
        """Pass on the adjoint of what a target is made of where that needs no derivative; else it waits."""
        edges = self._plan.edges[target]
        if not all(edge.coefficient.is_number and edge.coefficient.data == 1.0 for edge in edges):
            self._waiting.append((target, adjoint, frame))
            return
        for edge in edges:
            if not _is_part(edge.source):
                self._pass_on(edge, adjoint, frame, [])
                continue
            # Of several parts of a vector one may be a state as it is, as in W @ [h[t-1], x[t]].
            theirs = self._linear.frame_of(edge.source)
            self._take(edge.source, self._through(edge.source, self._in_frame(adjoint, frame, theirs)), theirs)

    def _pass_on(self, edge: Edge, adjoint: Array, frame: int, level: list[int]) -> None:
        """Add what an edge passes on to its source. level: groups whose products get theirs from the pass."""
        source = edge.source
        is_earlier = source.op == "window" or (source.op == "state" and source.data[1] > 0)
        if source.op == "state" and not is_earlier:
            return
        of_states = source.args if source.op == "window" else (source,)
        if self._linear.recurrent.isdisjoint(of_states):
            return  # an earlier input, and what is made of it
        if source.op == "matmul" and self._linear.group_of[source].number in level:
            return
        evaluate([edge.coefficient], self._values, self._backward.layer.parameters.column_ranges)
        part = self._values[edge.coefficient] * adjoint
        if is_earlier:
            self._arrivals.add_at(source, part, frame)
            return
        sums: dict[Any, Array] = self._products if source.op == "matmul" else self._pending
        part = self._in_frame(part, frame, self._plan.frames.of_node[source])
        sums[source] = sums[source] + part if source in sums else part

    def _in_frame(self, part: Array, frame: int, theirs: int) -> Array:
        if theirs == frame:
            return part
        exponent = self._block.adjoints.exponent
        return scale_by(part, (exponent[frame] - exponent[theirs])[:, None, :])


def _is_part(node: Node) -> bool:
    """Tell whether a map takes entries as they are: a part of a vector, or one beside others."""
    return node.op == "pad" or (node.op == "view" and 0 not in node.data[2])


class _Arrivals:
    """Adjoints of earlier states, from several sources, each state's in its own frame."""

    def __init__(self, plan: LayerPlan, block: Block) -> None:
        self._plan, self._block = plan, block
        self._sums: dict[tuple[str, int], Array] = {}

    def add_at(self, source: Node, part: Array, frame: int) -> None:
        """Add what arrives at a past state, or at several as one vector."""
        if source.op == "state":
            self.add(source.data, part, frame)
            return
        states = source.args
        for state, one in zip(states, np.split(part, len(states), axis=2), strict=True):
            self.add(state.data, one, frame)

    def add(self, state: tuple[str, int], part: Array, frame: int) -> None:
        """Add what arrives at a state, by its name and lag, from a target in some frame."""
        exponent, mine = self._block.adjoints.exponent, self._plan.frames.of_state[state[0]]
        if mine != frame:
            part = scale_by(part, (exponent[frame] - exponent[mine])[:, None, :])
        self._sums[state] = self._sums[state] + part if state in self._sums else part

    def log2_norm(self) -> Array:
        """Return log2 of the norm of all together, (n, R, B)."""
        nothing = np.full_like(next(iter(self._block.log2_norm.values())), -np.inf)
        exponent, frames = self._block.adjoints.exponent, self._plan.frames.of_state
        norms = [log2_norms(part) + exponent[frames[name]] for (name, _), part in self._sums.items()]
        return joined([nothing, *norms])
