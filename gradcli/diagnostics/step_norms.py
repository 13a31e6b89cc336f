"""What a backward step does to the size of a gradient: through activations and gates, then through weight matrices.

The adjoints of all states of a layer at step t go back in two moves. First they are multiplied by all derivatives but
the matrices, elementwise ones and those of functions across: that gives the adjoints of the recurrent products (their
pre-activations) and, on the direct routes such as f * c[t-1], adjoints of earlier states. Then those of the products
are multiplied by the transposed weight matrices. Functions across on the vector of a product, W @ softmax(h[t-1]), come
after its matrix.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from gradcli.diagnostics.curve import joined
from gradcli.engine.backward import BackwardPass, Block
from gradcli.engine.evaluate import Values, evaluate, product, through_map
from gradcli.engine.executor import log2_norms
from gradcli.engine.scaled import scale_by
from gradcli.engine.step.linearise import Target
from gradcli.engine.step.plan import LayerPlan
from gradcli.language.across import ACROSS
from gradcli.language.graph import MAPS, Node

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class StepNorms:
    """log2 of norms at the steps of a block, (n, R, B) each; -inf for an exact zero.

    before: of all that leaves the step, before the matrices: adjoints of recurrent products and of direct routes.
    after: of what arrives at earlier states, after them. direct: of the direct routes' part of it alone.
    """

    before: Array
    after: Array
    direct: Array


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
    plan = backward.plan
    lo, hi = block.steps
    exponent = block.adjoints.exponent
    before = []
    with np.errstate(all="ignore"):
        arriving = partial(_arriving, backward, block, values)
        direct = arriving({name: total for name, (total, _) in block.totals.items()})
        adjoints: dict[Target, Array] = {}
        found: set[object] = set()
        for stack in plan.layout.stacks:
            group = stack.group
            lanes = backward.lanes[group.number][: hi - lo]
            adjoints[group.number] = product(backward.transposed(group.number), lanes)
            # Products that enter the same sum have one adjoint, that of the sum.
            new = [lane for lane in stack.lanes if plan.linear.entries(lane.product) not in found]
            found |= {plan.linear.entries(lane.product) for lane in new}
            if new:
                rows = np.concatenate([np.arange(lane.start, lane.stop) for lane in new])
                part = lanes if len(rows) == stack.rows else lanes[:, :, rows]
                before.append(log2_norms(part) + exponent[group.frame])
        through = arriving(adjoints)
        along = direct.log2_norm()
        return StepNorms(joined([*before, along]), direct.joined(through).log2_norm(), along)


def _arriving(backward: BackwardPass, block: Block, values: Values, adjoints: dict[Target, Array]) -> _Arrivals:
    """Return what arrives at earlier states from the adjoints of some targets, by edges and functions across.

    Products and states of the same step that an edge leads to are left out: they are targets of their own.
    """
    plan, layer = backward.plan, backward.layer
    lo, hi = block.steps
    exponent = block.adjoints.exponent
    arrivals = _Arrivals(plan, block)
    pending = dict(adjoints)
    for target in plan.linear.backward_order:
        if target not in pending:
            continue
        adjoint = pending.pop(target)
        frame = plan.linear.frame_of(target)
        if isinstance(target, Node) and target.op in MAPS:
            adjoint = through_map(target, adjoint, plan.size(target.args[0]))
        elif isinstance(target, Node):
            function = ACROSS[target.data[0]]
            slope = layer.slope(target)[lo:hi] if target in plan.layout.slopes else None
            out = np.empty_like(adjoint)
            function.apply_jacobian(2 + function.over_sequences, layer.array(target)[lo:hi], slope, adjoint, out)
            adjoint = out
        for edge in plan.edges[target]:
            source = edge.source
            is_earlier = source.op == "window" or (source.op == "state" and source.data[1] > 0)
            if source.op == "state" and source.data[0] not in plan.cell.states:
                continue  # an earlier input
            if not is_earlier and source.op != "across" and source.op not in MAPS:
                continue
            evaluate([edge.coefficient], values, layer.parameters.column_ranges)
            part = values[edge.coefficient] * adjoint
            if is_earlier:
                arrivals.add_at(source, part, frame)
                continue
            theirs = plan.frames.of_node[source]
            if theirs != frame:
                part = scale_by(part, (exponent[frame] - exponent[theirs])[:, None, :])
            pending[source] = pending[source] + part if source in pending else part
    return arrivals


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

    def joined(self, other: _Arrivals) -> _Arrivals:
        """Return the sum of both."""
        found = _Arrivals(self._plan, self._block)
        for sums in (self._sums, other._sums):
            for key, part in sums.items():
                found._sums[key] = found._sums[key] + part if key in found._sums else part
        return found

    def log2_norm(self) -> Array:
        """Return log2 of the norm of all together, (n, R, B)."""
        nothing = np.full_like(next(iter(self._block.log2_norm.values())), -np.inf)
        exponent, frames = self._block.adjoints.exponent, self._plan.frames.of_state
        norms = [log2_norms(part) + exponent[frames[name]] for (name, _), part in self._sums.items()]
        return joined([nothing, *norms])
