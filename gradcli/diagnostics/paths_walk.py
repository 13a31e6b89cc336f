"""Adjoints on the path graph of a layer: pulled back edge by edge, step by step, with a power of two each.

The engine's own backward pass knows cut points only; here every named variable has its adjoint, so that what flows
through it can be told apart. Arrays are (R, size, B): R trials, B sequences.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from gradcli.engine.evaluate import evaluate, through_across, through_map
from gradcli.engine.group import TrialGroup
from gradcli.engine.layer import Layer
from gradcli.engine.scaled import NOTHING, exponent_of, log2_norm, scale_by
from gradcli.frozen import frozen
from gradcli.language.graph import Node
from gradcli.language.routes import AcrossJacobian, Diagonal, Edge, Factor, Map, Matrix, PathGraph, Route

Array = np.ndarray[Any, Any]

#: The values of factors at one step, by node.
StepValues = Mapping[Node, Any]

#: Mantissas between these are left as they are.
_SAFE = (2.0**-100, 2.0**100)
#: The values of a block of steps take about so many bytes.
_BLOCK_BYTES = 32 * 2**20

#: A sum below so many units of the last place of the largest of its parts is what rounding leaves of an exact zero.
_ROUNDING_UNITS = 450.0


def log2_rounding(dtype: Any) -> float:
    """Return log2 of the share of its parts below which a sum is rounding: about 1e-13 in float64, 5e-5 in float32."""
    return float(np.log2(_ROUNDING_UNITS * np.finfo(dtype).eps))


class NotFinite(ArithmeticError):
    """An adjoint is not finite; `trials` (R,) tells in which trials."""

    def __init__(self, trials: Array) -> None:
        super().__init__("an adjoint is not finite")
        self.trials = trials


@frozen
class Adjoint:
    """The gradient at one variable: mantissa (R, size, B) times 2**exponent, the exponent (R, B) integers."""

    mantissa: Array
    exponent: Array

    @classmethod
    def of(cls, gradient: Array, exponent: Array | int = 0) -> Adjoint:
        """Return a gradient (R, size, B), or its mantissas, as an adjoint."""
        mantissa = gradient.astype(np.float64)
        return cls(mantissa, np.zeros((len(mantissa), mantissa.shape[2]), np.int64) + exponent).normalised()

    def __add__(self, other: Adjoint) -> Adjoint:
        if np.array_equal(self.exponent, other.exponent):
            return Adjoint(self.mantissa + other.mantissa, self.exponent)
        exponent = np.maximum(self._of_nonzero(), other._of_nonzero())
        mine, theirs = (scale_by(part.mantissa, (part.exponent - exponent)[:, None, :]) for part in (self, other))
        return Adjoint(mine + theirs, exponent)

    def _of_nonzero(self) -> Array:
        """Return the exponents, `NOTHING` where all is zero."""
        return np.where((self.mantissa != 0).any(axis=1), self.exponent, NOTHING)

    def aligned(self) -> Adjoint:
        """Return the same with one exponent for all sequences of a trial."""
        exponent = np.broadcast_to(self._of_nonzero().max(axis=1, keepdims=True), self.exponent.shape)
        return Adjoint(scale_by(self.mantissa, (self.exponent - exponent)[:, None, :]), exponent)

    def normalised(self) -> Adjoint:
        """Return the same with mantissas far from the ends of the range of floats.

        Raises:
            NotFinite: an entry is infinite or not a number.
        """
        largest = np.abs(self.mantissa).max(axis=1)
        if _SAFE[0] < largest.min() and largest.max() < _SAFE[1]:
            return self
        if not np.isfinite(largest).all():
            raise NotFinite(~np.isfinite(largest).all(axis=1))
        shift = exponent_of(largest)
        exponent = np.where(largest > 0, self.exponent + shift, NOTHING)
        return Adjoint(scale_by(self.mantissa, -shift[:, None, :]), exponent)

    def log2_norm(self) -> Array:
        """Return log2 of the norm, (R, B); -inf for an exact zero."""
        return log2_norm(self.mantissa, axis=1) + self.exponent

    def cosine(self, other: Adjoint) -> Array:
        """Return the cosine of the angle to another adjoint, (R, B); NaN where one of the two is zero."""
        with np.errstate(invalid="ignore", divide="ignore"):
            dot = np.einsum("rsb,rsb->rb", self.mantissa, other.mantissa)
            # Mantissas are not far from 1, so that neither their squares nor these norms leave the range of floats.
            return np.asarray(dot / (_norm(self.mantissa) * _norm(other.mantissa)))


def together(adjoints: Sequence[Adjoint]) -> Adjoint:
    """Return the gradients at several variables as one vector."""
    exponent = np.max([adjoint.exponent for adjoint in adjoints], axis=0)
    parts = [scale_by(a.mantissa, (a.exponent - exponent)[:, None, :]) for a in adjoints]
    return Adjoint(np.concatenate(parts, axis=1), exponent)


def _norm(mantissa: Array) -> Array:
    return np.asarray(np.sqrt(np.einsum("rsb,rsb->rb", mantissa, mantissa)))


def pull_back(edge: Edge, adjoint: Adjoint, values: StepValues) -> Adjoint:
    """Return what an edge's target passes on to its source: the transposes of its factors, applied one by one."""
    for factor in edge.factors:
        adjoint = _pull(factor, adjoint, values)
    return adjoint


def _log2_size(edge: Edge, adjoint: Adjoint, values: StepValues) -> Array:
    """Return log2 of the norm of what an edge passes on, as it were if no sum over entries on it cancelled, (R, B)."""
    for factor in edge.factors:
        if isinstance(factor, Map):
            adjoint = Adjoint(np.abs(adjoint.mantissa), adjoint.exponent)
        adjoint = _pull(factor, adjoint, values)
    return adjoint.log2_norm()


def _pull(factor: Factor, adjoint: Adjoint, values: StepValues) -> Adjoint:
    if isinstance(factor, Map):
        return Adjoint(through_map(factor.node, adjoint.mantissa, factor.size), adjoint.exponent)
    value = values[value_node(factor)]
    match factor:
        case Diagonal():
            return Adjoint(adjoint.mantissa * value, adjoint.exponent)
        case Matrix():
            return Adjoint(np.matmul(value.swapaxes(-1, -2), adjoint.mantissa), adjoint.exponent)
        case AcrossJacobian():
            # Sequences that mix have one exponent.
            adjoint = adjoint.aligned() if factor.over_sequences else adjoint
            return Adjoint(through_across(factor.node, value, adjoint.mantissa), adjoint.exponent)


def value_node(factor: Diagonal | Matrix | AcrossJacobian) -> Node:
    """Return the node whose value a factor is made of; a map has none."""
    match factor:
        case Diagonal():
            return factor.coefficient
        case Matrix():
            return factor.matrix
        case AcrossJacobian():
            return factor.argument


def factor_nodes(graph: PathGraph) -> list[Node]:
    """Return the nodes whose values the factors of a path graph are made of, those of its direct routes included."""
    direct = (edge.coefficient for route in graph.direct for edge in route.edges)
    valued = (value_node(factor) for factor in graph.factors() if not isinstance(factor, Map))
    return list(dict.fromkeys([*valued, *direct]))


def steps_back(graph: PathGraph, group: TrialGroup, layer: Layer, last: int) -> Iterator[tuple[int, StepValues]]:
    """Yield the steps last, last - 1, ..., 1, each with the values of all factors at it.

    Raises:
        ForwardOverflow: a state stopped being finite.
    """
    nodes = factor_nodes(graph)
    # What is evaluated on the way to them counts too: about twice as much.
    step_bytes = 2 * len(nodes) * layer.trials * layer.batch_size * 8 * max(graph.cell.shapes.states.values())
    length = max(1, _BLOCK_BYTES // max(step_bytes, 1))
    for lo, hi in group.walk_back():
        end = min(hi, last)
        while end > lo:
            start = max(lo, end - length)
            values = layer.block_values(start - lo, end - lo)
            evaluate(nodes, values, layer.parameters.column_ranges)
            block = {node: values[node] for node in nodes}
            for index in reversed(range(end - start)):
                yield start + index + 1, {node: _at(value, index) for node, value in block.items()}
            end = start
            group.progress("backward", last - end, last)


def _at(value: Any, index: int) -> Any:
    return value[index] if np.ndim(value) == 4 else value


def loss_gradient(group: TrialGroup, layer: int, step: int) -> Adjoint:
    """Return the gradient of the loss at `step` alone that enters a layer's output there.

    Through the layers above, the engine's own backward pass takes it, over this one step.
    """
    problem = group.problem
    lo = (step - 1) // group.segment * group.segment
    index = step - 1 - lo
    gradient = problem.loss.gradient(group.layers[-1].outputs()[index : index + 1], step)
    assert gradient is not None, "the loss counts at this step"
    exponent = np.zeros((problem.trials, problem.batch_size), np.int64)
    passes = group.passes(parameters=False)
    for above in reversed(passes[layer + 1 :]):
        block = above.run(index, index + 1, above.start(None), gradient, exponent, more=False)
        if block.input_adjoint is None:
            return Adjoint.of(np.zeros_like(group.layers[layer].outputs()[0]))
        gradient, exponent = block.input_adjoint, block.input_exponent
    return Adjoint.of(gradient[0], exponent)


class Backpropagation:
    """Back-propagation over a path graph: the sum over all routes, variable by variable, step by step.

    at: the adjoints at the step that was taken last, by variable.
    rounding: where they are nothing but rounding, (R, B): parts of the sum that are far larger cancel.
        What such an adjoint passes on counts with the size of the parts that it is left of: it is no measurement
        farther back either. The size alone would not tell: a state on a scale of its own has a small gradient too.

    Args:
        start: the variable and the step at which `gradient` enters. dtype: of the values of the run.
    """

    def __init__(self, graph: PathGraph, start: str, step: int, gradient: Adjoint, *, dtype: Any) -> None:
        self._graph = graph
        self._threshold = log2_rounding(dtype)
        self._coming: dict[int, dict[str, Adjoint]] = {step: {start: gradient}}
        self._parts: dict[int, dict[str, Array]] = {step: {start: gradient.log2_norm()}}
        self._largest: dict[str, Array] = {}
        self.at: dict[str, Adjoint] = {}
        self.rounding: dict[str, Array] = {}

    def step(self, step: int, values: StepValues) -> None:
        """Take one step: complete its adjoints, and pass them on. At step 0 there is nothing to pass them on to.

        Raises:
            NotFinite: a derivative is not finite.
        """
        self.at = self._coming.pop(step, {})
        self._largest = self._parts.pop(step, {})
        self.rounding = {}
        for name in reversed(self._graph.variables):
            if name not in self.at:
                continue
            adjoint = self.at[name] = self.at[name].normalised()
            norm, largest = adjoint.log2_norm(), self._largest[name]
            rounding = self.rounding[name] = np.isfinite(norm) & (norm < largest + self._threshold)
            # What is left of larger parts counts as large as they are: within the step always, farther back where
            # nothing but rounding is left, as what cancels a little at every step is no error that grows.
            lost = np.subtract(largest, norm, out=np.zeros(norm.shape), where=np.isfinite(norm))
            for edge in self._graph.edges[name] if step else ():
                part = pull_back(edge, adjoint, values)
                sums = any(isinstance(factor, Map) for factor in edge.factors)
                size = _log2_size(edge, adjoint, values) if sums else part.log2_norm()
                self._receive(edge, step, part, size + np.where(rounding | (edge.lag == 0), lost, 0.0))

    def _receive(self, edge: Edge, step: int, part: Adjoint, size: Array) -> None:
        there = self._coming.setdefault(step - edge.lag, {}) if edge.lag else self.at
        there[edge.source] = there[edge.source] + part if edge.source in there else part
        parts = self._parts.setdefault(step - edge.lag, {}) if edge.lag else self._largest
        parts[edge.source] = np.maximum(parts[edge.source], size) if edge.source in parts else size


def along(routes: Iterable[Route], start: Adjoint, values: Sequence[StepValues]) -> Iterator[tuple[Route, Adjoint]]:
    """Yield each route with what it alone passes on of the gradient at its start.

    Args:
        routes: from one variable; what follows each other's first edges shares them.
        values: by the number of steps behind the start, the factors there.
    """
    taken: tuple[Edge, ...] = ()
    vectors = [start]
    for route in routes:
        common = 0
        while common < min(len(taken), len(route.edges)) and taken[common] is route.edges[common]:
            common += 1
        del vectors[common + 1 :]
        for edge, (_, behind) in zip(route.edges[common:], route.vertices[common:], strict=False):
            vectors.append(pull_back(edge, vectors[-1], values[behind]).normalised())
        taken = route.edges
        yield route, vectors[-1]
