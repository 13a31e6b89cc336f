"""What theory says about a spec before anything is run: rates in closed form, to set beside the measured one.

* At rest: with zero states and no input the layer is a linear map, whose spectral radius is the factor a step that the
  gradient changes by. For the plain RNN with zero biases that is rho(W_hh), for the LSTM the largest of
  sigmoid(b_f) + sigmoid(b_i) sigmoid(b_o) lambda(W_hg), for the GRU that of z I + (1 - z) r U.
* On active units: at a kink, as relu has at zero states and zero biases, there is no slope at rest. Where states just
  above zero keep to themselves and do not turn negative, as with the identity as recurrent matrix, the factor is that
  of the units that are on.
* Gates alone: where a state feeds itself directly, with coefficient f at rest, dc[t]/dc[t-d] = f^d along that route;
  its time scale is 1/(1 - f) steps (Tallec and Ollivier 2018). After enough steps the gradient is on the units that
  keep most of it, so that the largest coefficient is the rate. Of states that turn into each other it is the modulus.
* Mean field: many units with independent weights, driven by this input (see `gradcli.diagnostics.mean_field`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from gradcli.diagnostics.clipping import median
from gradcli.diagnostics.direct_routes import unit_factors
from gradcli.diagnostics.mean_field import mean_field
from gradcli.engine.evaluate import Values, evaluate
from gradcli.engine.layer import Layer
from gradcli.engine.linearised import LinearisedBlock, full_state_size
from gradcli.engine.parameters import LayerParameters
from gradcli.engine.problem import Problem
from gradcli.engine.starts import FilledInput
from gradcli.engine.step.plan import LayerPlan
from gradcli.frozen import frozen
from gradcli.language.direct import direct_routes
from gradcli.language.functions import FUNCTIONS, derivative
from gradcli.language.graph import Dependence, Node, reachable

Array = np.ndarray[Any, Any]

#: Eigenvalues of larger states would take longer than the run; up to the smaller size all trials are looked at.
_LARGEST_STATE, _ALL_TRIALS = 512, 64
#: Mean field speaks of many units, and of weights that are all alike.
_FEWEST_UNITS, _SHARE_OF_WEIGHTS = 16, 0.9
#: Steps, and sequences of all trials, of the input that its size is read from.
_STEPS_OF_INPUT, _SEQUENCES_OF_INPUT = 32, 16
_LARGEST_GAIN, _GAIN_TOLERANCE = 1000.0, 1e-6
_JUST_ABOVE = 1e-9


@frozen
class Prediction:
    """A rate that theory gives.

    name: "rest", "active", "gates" or "mean_field". rate_per_step: the factor a step, median over trials.
    state: for "gates" the state that feeds itself. spread: for "gates" the smallest and largest factor of a unit.
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
    size = full_state_size(plan, 1)
    # A network in depth has no state of rest: every layer is another map.
    if problem.tied and size <= _LARGEST_STATE and not _normalises(plan):
        with np.errstate(all="ignore"):
            found += _at_rest(problem, layer, problem.trials if size <= _ALL_TRIALS else 1)
    if layer == 0:
        field = _mean_field(problem)
        found += [] if field is None else [field]
    return found


def radius_of_constant_step(problem: Problem, layer: int) -> float | None:
    """Return the largest spectral radius of all trials, of a Jacobian that is the same at every step; None of others.

    It is the factor a step in the long run, whatever the input and the states.
    """
    plan = problem.plans[layer]
    changes = any(node.dependence > Dependence.PARAMETERS for node in _coefficients(plan))
    size = full_state_size(plan, 1)
    # What is said of all trials takes all of them: where that is long, nothing is said.
    is_long = size > _LARGEST_STATE or (size > _ALL_TRIALS and problem.trials > _ALL_TRIALS)
    if not problem.tied or changes or plan.across or is_long:
        return None
    with np.errstate(all="ignore"):
        jacobians = _jacobians(_linearised(plan, problem.parameters[layer], problem.trials, 0.0), problem.trials)
    return float(np.abs(np.linalg.eigvals(jacobians)).max()) if np.isfinite(jacobians).all() else None


def critical_gain(problem: Problem, layer: int) -> float | None:
    """Return the factor on the recurrent matrices at which the first trial's layer, at rest, neither grows nor falls.

    g with rho(dS[t]/dS[t-1]) = 1 at zero states and no input, all recurrent matrices multiplied by g: for the plain RNN
    1/rho(W_hh), for the LSTM (1 - f)/(i o)/lambda(W_hg). None where no factor up to a thousand is critical, and where
    weights are not tied.
    """
    plan = problem.plans[layer]
    if not problem.tied or full_state_size(plan, 1) > _LARGEST_STATE or _normalises(plan):
        return None
    recurrent = {
        node.data
        for product in plan.recurrent_products
        for node in reachable([product.args[0]])
        if node.op == "parameter" and len(plan.cell.shapes.parameters[node.data]) == 2
    }

    def excess(gain: float) -> float | None:
        values = {
            name: value[:1] * gain if name in recurrent else value[:1]
            for name, value in problem.parameters[layer].items()
        }
        with np.errstate(all="ignore"):  # a norm at rest is zero, and what is divided by it no number
            block = _linearised(plan, values, 1, 0.0)
            jacobians = _jacobians(block, 1)
        if _has_kink(block, _coefficients(plan)) or not np.isfinite(jacobians).all():
            return None
        return _radius(jacobians) - 1.0

    low, high = 0.0, 1.0
    start = excess(low) if recurrent else None
    if start is None or not start < 0:
        return None
    while not (above := excess(high)) or not above >= 0:
        if above is None:
            return None
        low, high = high, 2.0 * high
        if high > _LARGEST_GAIN:
            return None
    while high - low > _GAIN_TOLERANCE * high:
        middle = 0.5 * (low + high)
        low, high = (low, middle) if (excess(middle) or 0.0) >= 0 else (middle, high)
    return 0.5 * (low + high)


def _normalises(plan: LayerPlan) -> bool:
    """Tell whether a layer divides by a deviation: at rest there is none, and the slope there says nothing."""
    return plan.couples_sequences or bool(plan.layout.slopes)


def _at_rest(problem: Problem, index: int, trials: int) -> list[Prediction]:
    plan = problem.plans[index]
    parameters = {name: values[:trials] for name, values in problem.parameters[index].items()}
    block = _linearised(plan, parameters, trials, 0.0)
    routes = _gates(plan, block)
    if _has_kink(block, _coefficients(plan)):
        return [*_active(plan, parameters, trials), *routes]
    jacobians = _jacobians(block, trials)
    if not np.isfinite(jacobians).all():
        return []
    radius = _radius(jacobians)
    # Without input nothing passes a product with it: the map is zero, and says nothing of a driven layer.
    silent = radius == 0.0 and any(node.dependence is Dependence.INPUT for node in _coefficients(plan))
    return routes if silent else [Prediction("rest", radius), *routes]


def _active(plan: LayerPlan, parameters: Mapping[str, Array], trials: int) -> list[Prediction]:
    """Return the factor of units just above zero, where each keeps to itself and stays there or goes off."""
    jacobians = _jacobians(_linearised(plan, parameters, trials, _JUST_ABOVE), trials)
    own = np.diagonal(jacobians, axis1=1, axis2=2)
    alone = np.array_equal(jacobians, own[:, :, None] * np.eye(jacobians.shape[1]))
    if not alone or not np.isfinite(own).all() or own.min() < 0.0 or own.max() == 0.0:
        return []
    return [Prediction("active", median(own.max(axis=1)))]


def _linearised(plan: LayerPlan, values: Mapping[str, Array], trials: int, state: float) -> LinearisedBlock:
    """Return the linear map of each trial without input, at states that are all the same number."""
    dtype = np.dtype(np.float64)
    parameters = LayerParameters(plan, values, trials=trials, dtype=dtype)
    layer = Layer(plan, parameters, trials=trials, batch_size=1, dtype=dtype, segment=1)
    start = {name: np.full((plan.lag, *array.shape[1:]), state) for name, array in layer.states.items()}
    layer.forward(np.zeros((1, trials, plan.cell.shapes.input_size, 1)), start)
    return LinearisedBlock(layer, 0, 1)


def _jacobians(block: LinearisedBlock, trials: int) -> Array:
    return np.array([block.maps(trial).jacobian(0) for trial in range(trials)])


def _radius(jacobians: Array) -> float:
    """Return the median over trials of the spectral radius."""
    return median(np.abs(np.linalg.eigvals(jacobians)).max(axis=1))


def _coefficients(plan: LayerPlan) -> list[Node]:
    return [edge.coefficient for edges in plan.edges.values() for edge in edges]


def _has_kink(block: LinearisedBlock, coefficients: Sequence[Node]) -> bool:
    """Tell whether a slope among coefficients is taken exactly at a kink, where it might as well be another."""
    jumping = [node for node in reachable(coefficients) if node.op == "call" and FUNCTIONS[node.data].jumps]
    values = block.evaluated([node.args[0] for node in jumping])
    return any(
        np.isin(np.asarray(value), FUNCTIONS[node.data].jumps).any()
        for node, value in zip(jumping, values, strict=True)
    )


def _gates(plan: LayerPlan, block: LinearisedBlock) -> list[Prediction]:
    """Return the direct routes whose factor is more than a plain number, and not zero."""
    found = []
    for route in direct_routes(plan.cell):
        coefficients = [edge.coefficient for edge in route.edges]
        if all(node.is_number for node in coefficients) or _has_kink(block, coefficients):
            continue
        values = dict(zip(coefficients, block.evaluated(coefficients), strict=True))
        units = np.abs(unit_factors(route, values))
        if not np.isfinite(units).all() or not units.any():
            continue
        # A number, (R, size, 1), or of one step (1, R, size, 1): each trial's, or the same for all.
        by_trial = units.reshape(-1, units.shape[-2]) if units.ndim > 1 else units.reshape(1, 1)
        largest = median(by_trial.max(axis=1))
        found.append(Prediction("gates", largest, route.label, (float(units.min()), float(units.max()))))
    return found


def _mean_field(problem: Problem) -> Prediction | None:
    """Return the prediction for the bottom layer, if it is h[t] = phi(W h[t-1] + ...) with many weights all alike."""
    plan = problem.plans[0]
    shape = _single_product(plan)
    if shape is None:
        return None
    function, matrix, addend = shape
    # In depth, the second step's weights stand for all: at the first there is nothing yet for them to act on.
    step = 0 if problem.tied else min(1, problem.seq_len - 1)
    table = {name: values if problem.tied else values[:, step] for name, values in problem.parameters[0].items()}
    parameters = LayerParameters(plan, table, trials=problem.trials, dtype=np.dtype(np.float64))
    weights = np.asarray(parameters.known(matrix))
    units = weights.shape[1]
    if units < _FEWEST_UNITS or np.count_nonzero(weights) < _SHARE_OF_WEIGHTS * weights.size:
        return None
    variances = np.square(weights).sum(axis=(1, 2)) / units
    noises = _noise(problem, plan, addend, parameters, step)
    rates = [mean_field(function, float(w), float(s)) for w, s in zip(variances, noises, strict=True)]
    known = [each.rate_per_step for each in rates if each is not None]
    return Prediction("mean_field", median(np.array(known))) if len(known) == len(rates) else None


def _single_product(plan: LayerPlan) -> tuple[str, Node, Node | None] | None:
    """Return phi, W and what is added, of a layer that is h[t] = phi(W h[t-1] + ...) and nothing else."""
    if len(plan.states) != 1 or len(plan.groups) != 1 or len(plan.groups[0].products) != 1:
        return None
    ((name, expression),) = plan.states.items()
    (lane,) = plan.layout.stacks[0].lanes
    matrix = lane.product.args[0]
    if lane.result is not expression or plan.groups[0].vector.op != "state":
        return None
    if plan.groups[0].vector.data != (name, 1) or [e.source for e in plan.edges[name]] != [lane.product]:
        return None
    if plan.edges[name][0].coefficient is not derivative(plan.graph, expression):
        return None
    return str(expression.data), matrix, lane.known


def _noise(problem: Problem, plan: LayerPlan, addend: Node | None, parameters: LayerParameters, first: int) -> Array:
    """Return the mean square of what is added to the product from a step on, for each trial."""
    if addend is None:
        return np.zeros(problem.trials)
    values: Values = dict(parameters.values)
    if addend.dependence is Dependence.INPUT:
        source = FilledInput(problem.source, problem.begins) if problem.begins else problem.source
        steps = source.fill(first, min(first + _STEPS_OF_INPUT, problem.seq_len))
        values[plan.graph.input()] = steps[..., : max(1, _SEQUENCES_OF_INPUT // problem.trials)]
    evaluate([addend], values, parameters.column_ranges)
    square: Callable[[Array], Array] = np.square
    found = square(np.asarray(values[addend]))
    axes = tuple(axis for axis in range(found.ndim) if axis != found.ndim - 3)
    return np.asarray(np.broadcast_to(found.mean(axis=axes), (problem.trials,)))
