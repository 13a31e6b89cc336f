"""What theory says about a spec before anything is run: rates in closed form, to set beside the measured one.

* At rest: with zero states and no input the layer is a linear map, whose spectral radius is the factor a step that the
  gradient changes by. For the plain RNN with zero biases that is rho(W_hh), for the LSTM the largest of
  sigmoid(b_f) + sigmoid(b_i) sigmoid(b_o) lambda(W_hg), for the GRU that of z I + (1 - z) r U.
* Gates alone: where a state feeds itself directly, with coefficient f at rest, dc[t]/dc[t-d] = f^d along that route;
  its time scale is 1/(1 - f) steps (Tallec and Ollivier 2018).
* Mean field: many units with independent weights, driven by this input (see `gradcli.diagnostics.mean_field`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from gradcli.diagnostics.mean_field import mean_field
from gradcli.engine.evaluate import Values, evaluate
from gradcli.engine.layer import Layer
from gradcli.engine.linearised import LinearisedBlock, StepMaps, full_state_size
from gradcli.engine.parameters import LayerParameters
from gradcli.engine.plan import LayerPlan
from gradcli.engine.problem import Problem
from gradcli.language.functions import derivative
from gradcli.language.graph import Dependence, Node

Array = np.ndarray[Any, Any]

#: Eigenvalues of larger states would take longer than the run; up to the smaller size all trials are looked at.
_LARGEST_STATE, _ALL_TRIALS = 512, 64
#: Mean field speaks of many units, and of weights that are all alike.
_FEWEST_UNITS, _SHARE_OF_WEIGHTS = 16, 0.9
#: Steps of the input that its size is read from.
_STEPS_OF_INPUT = 32


@dataclass(frozen=True)
class Prediction:
    """A rate that theory gives.

    name: "rest", "gates" or "mean_field". rate_per_step: the factor a step, median over trials.
    state: for "gates" the state that feeds itself. spread: for "gates" the smallest and largest coefficient of a unit.
    """

    name: str
    rate_per_step: float
    state: str = ""
    spread: tuple[float, float] | None = None


def predict(problem: Problem, layer: int) -> list[Prediction]:
    """Return what is known in closed form about a layer; nothing where theory has no answer.

    Args:
        problem: what would be run. layer: its number.
    """
    found: list[Prediction] = []
    plan = problem.plans[layer]
    size = full_state_size(plan)
    if size <= _LARGEST_STATE:
        with np.errstate(all="ignore"):
            found += _at_rest(problem, layer, problem.trials if size <= _ALL_TRIALS else 1)
    if layer == 0:
        field = _mean_field(problem)
        found += [] if field is None else [field]
    return found


def _at_rest(problem: Problem, index: int, trials: int) -> list[Prediction]:
    plan = problem.plans[index]
    parameters = LayerParameters(
        plan,
        {name: values[:trials] for name, values in problem.parameters[index].items()},
        trials=trials,
        dtype=np.dtype(np.float64),
    )
    layer = Layer(plan, parameters, trials=trials, batch_size=1, dtype=np.dtype(np.float64), segment=1)
    nothing = {name: np.zeros((plan.lag, *array.shape[1:])) for name, array in layer.states.items()}
    layer.forward(np.zeros((1, trials, plan.cell.shapes.input_size, 1)), nothing)
    block = LinearisedBlock(layer, 0, 1)
    maps = [block.maps(trial) for trial in range(trials)]
    jacobians = np.array([own.jacobian(0) for own in maps])
    if not np.isfinite(jacobians).all():
        return []
    radius = float(np.median(np.abs(np.linalg.eigvals(jacobians)).max(axis=1)))
    return [Prediction("rest", radius), *_gates(plan, maps)]


def _gates(plan: LayerPlan, maps: list[StepMaps]) -> list[Prediction]:
    """Return the direct routes of states into themselves whose coefficient is more than a plain number."""
    found = []
    for name, edges in plan.edges.items():
        for edge in edges:
            own = isinstance(name, str) and edge.source.op == "state" and edge.source.data == (name, 1)
            if own and not edge.coefficient.is_number:
                values = np.array([np.ravel(each.coefficient(name, edge.source, 0)) for each in maps])
                found.append(
                    Prediction("gates", float(np.median(values)), str(name), (float(values.min()), float(values.max())))
                )
    return found


def _mean_field(problem: Problem) -> Prediction | None:
    """Return the prediction for the bottom layer, if it is h[t] = phi(W h[t-1] + ...) with many weights all alike."""
    plan = problem.plans[0]
    shape = _single_product(plan)
    if shape is None:
        return None
    function, matrix, addend = shape
    parameters = LayerParameters(plan, problem.parameters[0], trials=problem.trials, dtype=np.dtype(np.float64))
    weights = np.asarray(parameters.known(matrix))
    units = weights.shape[1]
    if units < _FEWEST_UNITS or np.count_nonzero(weights) < _SHARE_OF_WEIGHTS * weights.size:
        return None
    variances = np.square(weights).sum(axis=(1, 2)) / units
    noises = _noise(problem, plan, addend, parameters)
    rates = [mean_field(function, float(w), float(s)) for w, s in zip(variances, noises, strict=True)]
    known = [each.rate_per_step for each in rates if each is not None]
    return Prediction("mean_field", float(np.median(known))) if len(known) == len(rates) else None


def _single_product(plan: LayerPlan) -> tuple[str, Node, Node | None] | None:
    """Return phi, W and what is added, of a layer that is h[t] = phi(W h[t-1] + ...) and nothing else."""
    if len(plan.states) != 1 or len(plan.groups) != 1 or len(plan.groups[0].lanes) != 1:
        return None
    ((name, expression),) = plan.states.items()
    (lane,) = plan.groups[0].lanes
    matrix = lane.product.args[0]
    if lane.result is not expression or lane.function is None or plan.groups[0].vector.op != "state":
        return None
    if plan.groups[0].vector.data != (name, 1) or [e.source for e in plan.edges[name]] != [lane.product]:
        return None
    if plan.edges[name][0].coefficient is not derivative(plan.graph, expression):
        return None
    return lane.function, matrix, lane.addend


def _noise(problem: Problem, plan: LayerPlan, addend: Node | None, parameters: LayerParameters) -> Array:
    """Return the mean square of what is added to the product, for each trial."""
    if addend is None:
        return np.zeros(problem.trials)
    values: Values = dict(parameters.values)
    if addend.dependence is Dependence.INPUT:
        values[plan.graph.input()] = problem.source.fill(0, min(_STEPS_OF_INPUT, problem.seq_len))
    evaluate([addend], values, parameters.column_ranges)
    square: Callable[[Array], Array] = np.square
    found = square(np.asarray(values[addend]))
    axes = tuple(axis for axis in range(found.ndim) if axis != found.ndim - 3)
    return np.asarray(np.broadcast_to(found.mean(axis=axes), (problem.trials,)))
