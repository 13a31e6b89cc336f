"""What the weights alone prove: a bound on the Jacobian for every input.

For h[t] = phi(W h[t-1] + ...) it is the condition of Pascanu, Mikolov and Bengio (2013): with gamma = sup abs(phi'),
||dh_t/dh_{t-1}|| <= gamma sigma_max(W), so that gamma sigma_max(W) < 1 is sufficient for vanishing. Hence > 1 is
necessary for exploding and sufficient for nothing. For other cells the same is done edge by edge, see `Certificate`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from gradcli.diagnostics.spectra import matrix_label
from gradcli.engine.linearised import carried_states
from gradcli.engine.parameters import LayerParameters
from gradcli.engine.step.linearise import Target
from gradcli.engine.step.plan import LayerPlan
from gradcli.frozen import frozen
from gradcli.language.across import ACROSS
from gradcli.language.bounds import Bounds, Interval
from gradcli.language.functions import FUNCTIONS
from gradcli.language.graph import MAPS, VIEW, Node, reachable
from gradcli.language.parser import INPUT_NAME

Array = np.ndarray[Any, Any]
#: Of norms and eigenvalues of small matrices, relatively.
_ROUNDING = 1e-12
_Source = tuple[str, int]


@frozen
class Certificate:
    """Bounds on the Jacobian that hold for every input, for R trials.

    blocks: M, (R, m, m): bounds on the norms of the blocks ds_t/ds'_{t-1} of the full state's Jacobian; infinite where
        a derivative has none. ||dS_T/dS_{T-d}|| <= ||M^d||. With one state M is gamma sigma_max(W).
    carried: which of its rows are states that a later step reads; the others are passed through once.
    gammas: the largest slope of each activation that the recurrence passes through, by name; None where it has none.
    unbounded: the state, and the matrix or state, of the first derivative without a bound; None where all have one.
    """

    blocks: Array
    carried: tuple[int, ...]
    gammas: Mapping[str, float | None]
    unbounded: tuple[str, str] | None

    @property
    def of_carried(self) -> Array:
        """The bounds between states that a later step reads, (R, n, n)."""
        return np.asarray(self.blocks[:, self.carried][:, :, self.carried])

    @property
    def growth(self) -> Array:
        """The factor a step that the bound grows by in the end, rho(M), (R,); infinite where there is no bound."""
        # What no step reads has a column of zeros, which adds nothing to the eigenvalues.
        blocks = self.of_carried
        known = np.isfinite(blocks).all(axis=(1, 2))
        found = np.full(len(blocks), np.inf)
        found[known] = np.abs(np.linalg.eigvals(blocks[known])).max(axis=1, initial=0.0)
        return found

    @property
    def worst(self) -> float:
        """The largest growth of any trial: what is proven of all."""
        return float(self.growth.max())

    @property
    def of_one_step(self) -> float:
        """A bound on what one step makes of any gradient at the carried states, ||M||_2 between them, of all trials.

        growth is a matter of many steps: M = [[0.9, 1], [0, 0.9]] grows by 0.9 at last, but by 1.5 at first.
        """
        blocks = self.of_carried
        return float(np.linalg.norm(blocks, 2, axis=(1, 2)).max(initial=0.0)) if np.isfinite(blocks).all() else math.inf

    @property
    def holds_at_every_step(self) -> bool:
        """Whether no step of any trial makes more of a gradient at the carried states than the worst growth."""
        return self.of_one_step <= self.worst * (1.0 + _ROUNDING)

    def log10_most(self, seq_len: int) -> float:
        """Return log10 of the most that ||M^d|| comes to at the distances 1 to `seq_len`, in any trial."""
        return max(_log10_largest_power(blocks, seq_len) for blocks in self.blocks)

    def log10_most_of_carried(self, seq_len: int) -> float:
        """Return the same between the carried states alone, for a gradient that has left the others."""
        return max(_log10_largest_power(blocks, seq_len) for blocks in self.of_carried)

    def log10_bounds(self, distances: Sequence[int]) -> Array:
        """Return log10 ||M^d|| for ascending distances, (R, D); infinite where there is no bound."""
        return np.array([_log10_norms_of_powers(blocks, distances) for blocks in self.blocks])


def _log10_norms_of_powers(matrix: Array, distances: Sequence[int]) -> list[float]:
    if not np.isfinite(matrix).all():
        return [math.inf] * len(distances)
    power, log10, done, found = np.eye(len(matrix)), 0.0, 0, []
    for distance in distances:
        while done < distance:
            power = power @ matrix
            size = float(np.abs(power).max())
            if size == 0.0:
                break
            power, log10, done = power / size, log10 + math.log10(size), done + 1
        norm = float(np.linalg.norm(power, 2))
        found.append(math.log10(norm) + log10 if norm else -math.inf)
    return found


def _log10_largest_power(matrix: Array, most: int) -> float:
    if not np.isfinite(matrix).all():
        return math.inf
    power, log10, found = np.eye(len(matrix)), 0.0, -math.inf
    for _ in range(most):
        power = power @ matrix
        size = float(np.linalg.norm(power, 2))
        if size == 0.0:
            break
        power, log10 = power / size, log10 + math.log10(size)
        found = max(found, log10)
        if log10 < 0.0:
            break  # further powers are products of this one and of earlier ones, so none of them is larger
    return found


def certify(plan: LayerPlan, parameters: LayerParameters, initial: Mapping[str, Array], trials: int) -> Certificate:
    """Return what the parameters prove about a layer's gradient, whatever its input.

    Args:
        plan, parameters: the layer's. initial: its initial states, (R, size, B). trials: R.
    """
    calls = sorted((node for node in plan.linear.recurrent if node.op == "call"), key=lambda node: node.index)
    found = [
        _Blocks(plan, parameters, {name: value[trial] for name, value in initial.items()}, trial)
        for trial in range(trials)
    ]
    gammas = {node.data: FUNCTIONS[node.data].gamma for node in calls if not node.data.startswith("_")}
    first = found[0]
    return Certificate(np.array([blocks.matrix() for blocks in found]), first.carried, gammas, first.unbounded)


class _Blocks:
    """Bounds on the norms of the blocks of one trial's full-state Jacobian."""

    def __init__(self, plan: LayerPlan, parameters: LayerParameters, initial: Mapping[str, Array], trial: int) -> None:
        self._plan = plan
        self.unbounded: tuple[str, str] | None = None

        def known(node: Node) -> Any:
            value = parameters.known(node)
            return value if np.ndim(value) == 0 else value[trial]

        self._known = known
        # A state that no later step reads is passed through once, not at every step.
        self._read = carried_states(plan)
        expressions = list(plan.states.values())
        free = Bounds(plan.graph, expressions, known, {})
        states: dict[str, Interval] = {}
        for name in plan.cell.states:
            expression = plan.states[name]
            low, high = free.interval(expression)
            start = initial[name]
            states[name] = min(low, float(start.min())), max(high, float(start.max()))
        self._bounds = Bounds(plan.graph, expressions, known, states)
        self._reach: dict[Target, dict[_Source, float]] = {}
        for target in reversed(plan.linear.backward_order):
            self._reach[target] = self._from(target)

    @property
    def _slots(self) -> list[tuple[str, int]]:
        plan = self._plan
        return [(name, lag) for name in plan.cell.states for lag in range(plan.lags[name])]

    @property
    def carried(self) -> tuple[int, ...]:
        """The rows of `matrix` that are states that a later step reads."""
        return tuple(row for row, (name, _) in enumerate(self._slots) if name in self._read)

    def _from(self, target: Target) -> dict[_Source, float]:
        """Return for each earlier state a bound on the norm of the target's Jacobian with respect to it."""
        plan = self._plan
        total: dict[_Source, float] = {}
        for edge in plan.edges[target]:
            if edge.source not in plan.linear.recurrent and edge.source.op != "window":
                continue  # of the input alone
            slope = self._bounds.magnitude(edge.coefficient)
            source = edge.source
            if source.op == "matmul":
                group = plan.linear.group_of[source]
                factor = slope * float(np.linalg.norm(self._known(source.args[0]), 2)) if slope else 0.0
                parts = self._reach[group.number]
            elif source.op in MAPS:
                factor, parts = slope * _norm_of_map(plan, source) if slope else 0.0, self._reach[source]
            elif source.op == "across":
                name, eps = source.data
                factor = slope * ACROSS[name].gamma(eps) if slope else 0.0
                parts = self._reach[source]
            else:
                factor, parts = slope, {source.data: 1.0}
                if source.data[1] == 0:
                    parts = self._reach[source.data[0]]
            if math.isinf(factor) and not self.unbounded and isinstance(target, str) and target in self._read:
                self.unbounded = target, _label(source)
            for key, bound in parts.items():
                total[key] = total.get(key, 0.0) + (factor * bound if bound else 0.0)
        return total

    def matrix(self) -> Array:
        """Return M, with the states that the equations look back at further as blocks of their own."""
        slots = self._slots
        matrix = np.zeros((len(slots), len(slots)))
        for row, (name, lag) in enumerate(slots):
            for column, (other, back) in enumerate(slots):
                if lag == 0:
                    matrix[row, column] = self._reach[name].get((other, back + 1), 0.0)
                elif name == other and back == lag - 1:
                    matrix[row, column] = 1.0
        return matrix


def _norm_of_map(plan: LayerPlan, node: Node) -> float:
    """Return the spectral norm of a map from one shape to another."""
    match node.op:
        case "view":
            _, shape, strides = node.data[:VIEW]
            return math.sqrt(math.prod(size for size, stride in zip(shape, strides, strict=True) if stride == 0))
        case "total":
            shape, axis = node.data
            return math.sqrt(shape[axis])
        case "cumsum":
            # Of the triangular matrix of ones, whose inverse has the differences of neighbours.
            return 1.0 / (2.0 * math.sin(math.pi / (4 * plan.size(node) + 2)))
    return 1.0


def _label(source: Node) -> str:
    """Return a cut point in words: W_hh, h[t-1] or layer_norm."""
    if source.op == "matmul":
        return matrix_label(source.args[0])
    if source.op in MAPS:
        # What it is a map of, by the state that it is made of.
        states = [node for node in reachable([source]) if node.op == "state" and node.data[0] != INPUT_NAME]
        return _label(states[-1]) if states else "a value"
    if source.op == "across":
        return str(source.data[0])
    name, lag = source.data
    return f"{name}[t-{lag}]" if lag else f"{name}[t]"
