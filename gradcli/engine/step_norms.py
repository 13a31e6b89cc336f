"""What a backward step does to the size of a gradient: through activations and gates, then through weight matrices.

The adjoints of all states of a layer at step t go back in two moves. First they are multiplied by the elementwise
derivatives: that gives the adjoints of the recurrent products (their pre-activations) and, on the direct routes such as
f * c[t-1], adjoints of earlier states. Then those of the products are multiplied by the transposed weight matrices.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from gradcli.engine.backward import BackwardPass, Block
from gradcli.engine.evaluate import Values, evaluate, product
from gradcli.engine.plan import LayerPlan, Target
from gradcli.engine.scaled import log2_norm, scale_by

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


def is_closed(backward: BackwardPass) -> bool:
    """Tell whether all that reaches a state's adjoint through matrices came from the very next step.

    Then what happens between `StepNorms.after` and the adjoints one step earlier is elementwise. It is not where a
    state enters two steps later (``h[t-2]``), or enters a product in its own step.
    """
    plan = backward.plan
    within = (e.source for group in plan.groups for e in plan.edges[group.index] if e.source.op == "state")
    return plan.lag == 1 and all(source.data[1] > 0 for source in within)


def step_norms(backward: BackwardPass, block: Block) -> StepNorms:
    """Return the norms inside each step of a block that `backward` has just run over.

    Args:
        backward: the pass, made with `parameters`, so that it holds the adjoints of products at all steps.
        block: what it found.
    """
    plan, layer = backward.plan, backward.layer
    lo, hi = block.steps
    exponent = block.adjoints.exponent
    values = layer.block_values(lo, hi)
    columns = layer.parameters.column_ranges
    direct, through = _Arrivals(plan, block), _Arrivals(plan, block)
    before = []
    with np.errstate(all="ignore"):
        for name in plan.states:
            total, _ = block.totals[name]
            direct.add(_leaving(backward, name, total, values, columns), plan.frames.of_state[name])
        for group in plan.groups:
            lanes = backward.lanes[group.index][: hi - lo]
            if not group.same_as:  # else it is the same adjoint, of the one sum that both products are in
                before.append(log2_norm(lanes, axis=2) + exponent[group.frame])
            transposed = layer.parameters.transposed(group)
            adjoint = product(transposed[None] if layer.trials == 1 else transposed, lanes)
            through.add(_leaving(backward, group.index, adjoint, values, columns), group.frame)
        along = direct.log2_norm()
        return StepNorms(joint_log2([*before, along]), direct.joined(through).log2_norm(), along)


def _leaving(
    backward: BackwardPass, target: Target, adjoint: Array, values: Values, columns: Any
) -> dict[tuple[str, int], Array]:
    """Return what a target's adjoint passes on elementwise to earlier states: (name, lag) -> (n, R, size, B)."""
    found = {}
    for edge in backward.plan.edges[target]:
        if edge.source.op == "state" and edge.source.data[1] > 0:
            evaluate([edge.coefficient], values, columns)
            found[edge.source.data] = values[edge.coefficient] * adjoint
    return found


class _Arrivals:
    """Adjoints of earlier states, from several sources, each state's in its own frame."""

    def __init__(self, plan: LayerPlan, block: Block) -> None:
        self._plan, self._block = plan, block
        self._sums: dict[tuple[str, int], Array] = {}

    def add(self, parts: dict[tuple[str, int], Array], frame: int) -> None:
        exponent = self._block.adjoints.exponent
        for (name, lag), part in parts.items():
            mine = self._plan.frames.of_state[name]
            shifted = part if mine == frame else scale_by(part, (exponent[frame] - exponent[mine])[:, None, :])
            self._sums[name, lag] = self._sums[name, lag] + shifted if (name, lag) in self._sums else shifted

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
        norms = [log2_norm(part, axis=2) + exponent[frames[name]] for (name, _), part in self._sums.items()]
        return joint_log2([nothing, *norms])


def joint_log2(parts: list[Array]) -> Array:
    """Return log2 of the norm of several vectors as one, from log2 of their norms."""
    joint = parts[0]
    for part in parts[1:]:
        with np.errstate(invalid="ignore"):
            joint = 0.5 * np.logaddexp2(2.0 * joint, 2.0 * part)
    return joint
