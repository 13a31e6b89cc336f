"""What the weights alone prove: a bound on the Jacobian for every input, and the spectrum of each recurrent matrix.

For h[t] = phi(W h[t-1] + ...) it is the condition of Pascanu, Mikolov and Bengio (2013): with gamma = sup abs(phi'),
||dh_t/dh_{t-1}|| <= gamma sigma_max(W), so that gamma sigma_max(W) < 1 is sufficient for vanishing. Hence > 1 is
necessary for exploding and sufficient for nothing. For other cells the same is done edge by edge, see `Certificate`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from gradcli.engine.backward_loop import backward_order
from gradcli.engine.parameters import LayerParameters
from gradcli.engine.plan import LayerPlan, Target
from gradcli.language.bounds import Bounds, Interval
from gradcli.language.functions import FUNCTIONS
from gradcli.language.graph import Node, reachable

Array = np.ndarray[Any, Any]
_Source = tuple[str, int]


@dataclass(frozen=True)
class MatrixSpectrum:
    """A recurrent matrix, for each of R trials.

    spectral_norm: sigma_max, the largest singular value. spectral_radius: the largest absolute eigenvalue, and
    departure: Henrici's departure from normality, sqrt(||W||_F^2 - sum abs(lambda_i)^2), 0 for normal matrices; both
    NaN for a matrix that is not square. All (R,).
    """

    name: str
    shape: tuple[int, int]
    spectral_norm: Array
    spectral_radius: Array
    departure: Array


@dataclass(frozen=True)
class Certificate:
    """Bounds on the Jacobian that hold for every input, for R trials.

    blocks: M, (R, m, m): bounds on the norms of the blocks ds_t/ds'_{t-1} of the full state's Jacobian; infinite where
        a derivative has none. ||dS_T/dS_{T-d}|| <= ||M^d||. With one state M is gamma sigma_max(W).
    gammas: the largest slope of each activation that the recurrence passes through, by name; None where it has none.
    unbounded: the state, and the matrix or state, of the first derivative without a bound; None where all have one.
    """

    blocks: Array
    gammas: Mapping[str, float | None]
    unbounded: tuple[str, str] | None

    @property
    def growth(self) -> Array:
        """The factor a step that the bound grows by in the end, rho(M), (R,); infinite where there is no bound."""
        known = np.isfinite(self.blocks).all(axis=(1, 2))
        found = np.full(len(self.blocks), np.inf)
        found[known] = np.abs(np.linalg.eigvals(self.blocks[known])).max(axis=1)
        return found

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


def matrix_label(node: Node) -> str:
    """Return the name of a matrix as the equations write it: W_hh, W.T, W[part 2] of a concatenation's columns."""
    match node.op:
        case "parameter":
            return str(node.data)
        case "transpose":
            return f"{matrix_label(node.args[0])}.T"
        case "columns":
            return f"{matrix_label(node.args[0])}[part {node.data[0] + 1}]"
        case "number":
            return f"{node.data:g}"
        case "sum":
            terms = [f"{'+-'[sign < 0]} {matrix_label(arg)}" for sign, arg in zip(node.data, node.args, strict=True)]
            return f"({' '.join(terms).removeprefix('+ ')})"
        case "mul":
            return " * ".join(map(matrix_label, node.args))
        case "div":
            return " / ".join(map(matrix_label, node.args))
        case _:
            return f"{node.data}({', '.join(map(matrix_label, node.args))})"


def matrix_spectra(plan: LayerPlan, parameters: LayerParameters) -> list[MatrixSpectrum]:
    """Return the spectrum of every recurrent matrix of a layer, in the order of the equations."""
    matrices = dict.fromkeys(node.args[0] for node in plan.order if node.op == "matmul")
    return [_spectrum(matrix_label(node), np.asarray(parameters.known(node))) for node in matrices]


def _spectrum(name: str, values: Array) -> MatrixSpectrum:
    """Return the spectrum of matrices (R, rows, columns)."""
    norms = np.linalg.norm(values, 2, axis=(1, 2))
    radius = departure = np.full(len(values), np.nan)
    if values.shape[1] == values.shape[2]:
        magnitudes = np.abs(np.linalg.eigvals(values))
        radius = magnitudes.max(axis=1)
        rest = np.square(values).sum(axis=(1, 2)) - np.square(magnitudes).sum(axis=1)
        departure = np.sqrt(np.maximum(rest, 0.0))
    return MatrixSpectrum(name, (values.shape[1], values.shape[2]), norms, radius, departure)


def certify(plan: LayerPlan, parameters: LayerParameters, initial: Mapping[str, Array], trials: int) -> Certificate:
    """Return what the parameters prove about a layer's gradient, whatever its input.

    Args:
        plan, parameters: the layer's. initial: its initial states, (R, size, B). trials: R.
    """
    in_loop = set(plan.order)
    calls = [node for node in reachable(plan.states.values()) if node.op == "call" and node in in_loop]
    found = [
        _Blocks(plan, parameters, {name: value[trial] for name, value in initial.items()}, trial)
        for trial in range(trials)
    ]
    gammas = {node.data: FUNCTIONS[node.data].gamma for node in calls}
    return Certificate(np.array([blocks.matrix() for blocks in found]), gammas, found[0].unbounded)


class _Blocks:
    """Bounds on the norms of the blocks of one trial's full-state Jacobian."""

    def __init__(self, plan: LayerPlan, parameters: LayerParameters, initial: Mapping[str, Array], trial: int) -> None:
        self._plan = plan
        self.unbounded: tuple[str, str] | None = None

        def known(node: Node) -> Any:
            value = parameters.known(node)
            return value if np.ndim(value) == 0 else value[trial]

        self._known = known
        expressions = list(plan.states.values())
        free = Bounds(plan.graph, expressions, known, {})
        states: dict[str, Interval] = {}
        for name, expression in plan.states.items():
            low, high = free.interval(expression)
            start = initial[name]
            states[name] = min(low, float(start.min())), max(high, float(start.max()))
        self._bounds = Bounds(plan.graph, expressions, known, states)
        self._reach: dict[Target, dict[_Source, float]] = {}
        for target in reversed(backward_order(plan)):
            self._reach[target] = self._from(target)

    def _from(self, target: Target) -> dict[_Source, float]:
        """Return for each earlier state a bound on the norm of the target's Jacobian with respect to it."""
        plan = self._plan
        total: dict[_Source, float] = {}
        for edge in plan.edges[target]:
            slope = self._bounds.magnitude(edge.coefficient)
            source = edge.source
            if source.op == "matmul":
                group = plan.group_of[source]
                factor = slope * float(np.linalg.norm(self._known(source.args[0]), 2)) if slope else 0.0
                parts = self._reach[group.index]
            else:
                factor, parts = slope, {source.data: 1.0}
                if source.data[1] == 0:
                    parts = self._reach[source.data[0]]
            if math.isinf(factor) and not self.unbounded and isinstance(target, str):
                what = (
                    matrix_label(source.args[0]) if source.op == "matmul" else f"{source.data[0]}[t-{source.data[1]}]"
                )
                self.unbounded = target, what
            for key, bound in parts.items():
                total[key] = total.get(key, 0.0) + (factor * bound if bound else 0.0)
        return total

    def matrix(self) -> Array:
        """Return M, with the states that the equations look back at further as blocks of their own."""
        plan = self._plan
        slots = [(name, lag) for name in plan.states for lag in range(plan.lags[name])]
        matrix = np.zeros((len(slots), len(slots)))
        for row, (name, lag) in enumerate(slots):
            for column, (other, back) in enumerate(slots):
                if lag == 0:
                    matrix[row, column] = self._reach[name].get((other, back + 1), 0.0)
                elif name == other and back == lag - 1:
                    matrix[row, column] = 1.0
        return matrix
