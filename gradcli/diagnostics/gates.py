"""Gates and activations: how open, how saturated, how steep; and what they and the weights do to the gradient.

The rate of a step, in nats, is ln <|delta_(t-1)|> - ln <|delta_t|>, with delta_t the adjoints dL/ds_t of all states of
the layer as one vector and <> the mean over trials and sequences: the slope of the curve that the verdict is about. It
is the sum of parts, exactly (see `gradcli.diagnostics.step_norms`):

    weights      the sum over levels of products of ln <|u_t|> - ln <|m_t|>
    activations  all between: ln <|m_t|> - ln <|delta_t|> for the first level, ...  ln <|delta_(t-1)|> - ln <|u_t|>

where m_t is all that leads into the past before the matrices of a level, the adjoints of its products and of the direct
routes, and u_t the same after its transposed matrices. For h = phi(W h + ...) there is one level, and that is
ln |phi' * delta| / |delta| and ln |W' (phi' * delta)| / |phi' * delta|. Where something else than what arrives at the
states of step t - 1 enters delta_(t-1) as well (a layer above, ``h[t-2]``, a product within the step), the last
difference is a third part, `other`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from gradcli.diagnostics.activation_slopes import ActivationSlopes
from gradcli.diagnostics.contributions import of_last_loss
from gradcli.diagnostics.curve import LOG10_2, joined
from gradcli.diagnostics.direct_routes import passed_on, unit_factors
from gradcli.diagnostics.gate_names import Activation, activations_of
from gradcli.diagnostics.measure import judge_nonfinite
from gradcli.diagnostics.step_norms import is_closed, levels_of, step_norms
from gradcli.diagnostics.verdict import Verdict, judge
from gradcli.engine.blocks import Visit
from gradcli.engine.evaluate import evaluate
from gradcli.engine.problem import Progress
from gradcli.engine.run import Engine
from gradcli.engine.sizes import Sizes
from gradcli.engine.step.plan import LayerPlan
from gradcli.frozen import frozen
from gradcli.language.direct import DirectRoute, direct_routes
from gradcli.language.graph import Node
from gradcli.prepare.build import Network

Array = np.ndarray[Any, Any]

#: An activation is saturated where its slope is below this share of its largest.
SATURATED_BELOW = 0.05
#: The quantiles of an activation's values.
_LOW, _HIGH = 0.1, 0.9
_LN2 = math.log(2.0)


@frozen
class Gate:
    """The values of one activation over trials, sequences and units, by distance 0 .. T-1 from the last step.

    mean, std: of the values phi(a), (T,). slope: mean of phi'(a). saturated: the share with |phi'(a)| below
    `SATURATED_BELOW` of gamma. low, high: the 10 % and 90 % quantiles at the distances of `Gates.sampled`.
    passed: ln <|phi' g|> - ln <|g|>, (T,), with g the gradient with respect to the values: the slope where the gradient
        is. NaN where none reaches it, as where no state goes into it. carried: log2 of <|phi' g|>, (T,).
    """

    activation: Activation
    mean: Array
    std: Array
    slope: Array
    saturated: Array
    low: Array
    high: Array
    passed: Array
    carried: Array


@frozen
class Kept:
    """What a direct route keeps (see `gradcli.diagnostics.direct_routes`).

    nats: ln <|D' delta|> - ln <|delta|> by distance, (T,): what goes along the route changes by so much. NaN where no
        gradient is on the route, or where it ends.
    rate: that for all steps, from distance 1 on: the mean of `nats`. Where some of them let nothing through, as those
        at which a part of a clockwork network is computed anew, it is ln of the ratio of the sums over steps,
        ln sum <|D' delta|> / sum <|delta|>. NaN where no gradient is on the route.
    closed: at how many of these steps a gradient is on the route and nothing of it goes along; steps: of how many.
    share: of its states' adjoints one step earlier, by norm, what it brings, (T,). weight: its states' adjoints, by
        norm, in those of all states, (T,).
    mean: of the factor over all units, sequences and steps, whatever gradient they carry; of a route of several states,
        of the modulus at the distances of `Gates.sampled`.
    """

    route: DirectRoute
    nats: Array
    rate: float
    closed: int
    steps: int
    share: Array
    weight: Array
    mean: float


@frozen
class Rates:
    """Rates of the mean norm in nats a step, from distance d to d+1, d = 0 .. T-1, (T,) each.

    The mean is over all trials and sequences. NaN where it is exactly zero at either distance, or in between: with
    ``h[t-2]`` a gradient may go around a step that passes nothing on.

    total = activations + weights + other.
    other: None where nothing but the next step's adjoints enters. direct: the norm of what the direct routes bring over
        the norm of all that arrives; 0 where there is no direct route.
    """

    total: Array
    activations: Array
    weights: Array
    other: Array | None
    direct: Array


@frozen
class Gates:
    """What `gradcli gates` finds; `verdict` is set where a number was not finite, and then nothing else is there.

    network: with the loss at its last step alone, and no step after that. sampled: the distances of the quantiles.
    judged: the verdict on the mean norm of the layer's states, whose slope `rates` is.
    spectral_norms: of each recurrent matrix that is a parameter, the largest singular value; the median over trials,
        and over steps where weights are not tied.
    """

    network: Network
    layer: int
    loss_steps: int
    verdict: Verdict | None
    sampled: Sequence[int] = ()
    gates: Sequence[Gate] = ()
    kept: Sequence[Kept] = ()
    rates: Rates | None = None
    spectral_norms: dict[str, float] | None = None
    judged: Verdict | None = None


def sampled_distances(count: int) -> list[int]:
    """Return a few of the distances 0 .. count-1: the first, powers of ten, the last.

    >>> sampled_distances(1), sampled_distances(3), sampled_distances(500)
    ([0], [0, 1, 2], [0, 1, 10, 100, 499])
    """
    powers = (10**p for p in range(len(str(count))))
    return sorted({0, *(d for d in powers if d < count), count - 1})


def measure_gates(network: Network, layer: int, *, progress: Progress | None = None) -> Gates:
    """Run a network, look at every activation of a layer, and take each step's rate apart.

    Args:
        network: what to run. layer: its number, from 0. progress: called while it is under way.
    """
    loss_steps = len(network.problem.loss.steps)
    network = of_last_loss(network)
    problem = network.problem
    engine = Engine(problem, progress=progress)
    cell = problem.plans[layer].cell
    sampled = sampled_distances(problem.seq_len)
    steps = (problem.seq_len, problem.trials, problem.batch_size)
    activations = activations_of(cell)
    slopes = ActivationSlopes(cell, activations)
    looking = [_Looking(activation, steps, sampled) for activation in activations]
    keeping = [_Keeping(route, steps, sampled) for route in direct_routes(cell)]
    nodes = [node for one in looking for node in one.nodes] + slopes.nodes
    nodes += [edge.coefficient for other in keeping for edge in other.route.edges]
    levels = len(levels_of(problem.plans[layer]))
    before, through = (np.empty((levels, *steps)) for _ in range(2))
    after = np.empty(steps)

    columns: dict[Node, tuple[int, int]] = {}

    def look(trials: slice, visit: Visit) -> None:
        first, last = visit.steps
        backward, block = visit.passes[layer], visit.blocks[layer]
        columns.update(backward.layer.parameters.column_ranges)
        values = backward.known_values(block)
        norms = step_norms(backward, block, values)
        for whole, parts in ((before, norms.before), (through, norms.through), ([after], [norms.after])):
            for kept, part in zip(whole, parts, strict=True):
                kept[first:last, trials] = part
        at = _Place(problem.seq_len - last, last - first, trials, problem.batch_size)
        evaluate(nodes, values, backward.layer.parameters.column_ranges)
        passed = slopes.look(block.totals, values)
        for one in looking:
            one.look(values, at)
            if one.activation.name in passed:
                one.follow(passed[one.activation.name], slice(first, last), trials)
        for other in keeping:
            other.look(values, at)
            other.follow(block.totals, values, slice(first, last), trials)

    run = engine.run(parameters=False, visit=look)
    verdict = judge_nonfinite(network, engine, run)
    if verdict is not None:
        return Gates(network, layer, loss_steps, verdict)
    closed = layer >= problem.top and is_closed(problem.plans[layer])
    prefix = f"{problem.names[layer]}."
    by_state = {name.removeprefix(prefix): norm for name, norm in run.log2_norm.items() if name.startswith(prefix)}
    total = log2_mean(joined(by_state.values()))
    thresholds = network.spec.thresholds
    return Gates(
        network,
        layer,
        loss_steps,
        None,
        sampled,
        [item.gate() for item in looking],
        [item.kept(by_state, total) for item in keeping],
        _rates(total, before, through, after, [item.arrived for item in keeping], closed),
        _spectral_norms(network, layer, columns),
        judge(total[::-1] * LOG10_2, vanishing=thresholds.vanishing, exploding=thresholds.exploding),
    )


def bytes_kept(plan: LayerPlan, sizes: Sizes) -> int:
    """Return about how many bytes `measure_gates` needs beside the run: norms and moments of every step.

    Args:
        plan: of the layer. sizes: of the problem.
    """
    activations = len(activations_of(plan.cell))
    moments = activations * sizes.trials * 4
    sequences = sizes.trials * sizes.batch_size
    width = max(plan.cell.shapes.states.values())
    sampled = len(sampled_distances(sizes.seq_len)) * sequences * width * activations
    # Norms by sequence: three, and two of each level, their differences, and the values of a block.
    block = sizes.block * sizes.trials_at_once * sizes.batch_size * width * 4 * activations
    followed = 2 * (len(direct_routes(plan.cell)) + activations)
    norms = 10 + 2 * len(levels_of(plan))
    return 8 * (sizes.seq_len * (moments + (norms + followed) * sequences) + 2 * sampled + 2 * block)


@frozen
class _Place:
    """Where a block lies: the distance of its last step, how many steps it has, and which trials."""

    distance: int
    steps: int
    trials: slice
    batch_size: int

    def values(self, value: Any) -> Array:
        """Return values of a block, (n, R, size, B) or what broadcasts to it, from the last step to the first."""
        array = np.asarray(value, np.float64)
        array = array.reshape((1,) * (4 - array.ndim) + array.shape)
        shape = (self.steps, self.trials.stop - self.trials.start, array.shape[2], self.batch_size)
        return np.broadcast_to(array, shape)[::-1]


class _Looking:
    """Gathers one activation's values: moments by distance and trial, and all of them at the sampled distances."""

    def __init__(self, activation: Activation, steps: tuple[int, int, int], sampled: Sequence[int]) -> None:
        self.activation = activation
        count, trials, _ = steps
        self._entered, self._passed = (np.full(steps, -np.inf) for _ in range(2))
        self.nodes: list[Node] = [activation.node, activation.slope]
        self._mean, self._variance, self._slope, self._saturated = (np.empty((count, trials)) for _ in range(4))
        self._sampled: dict[int, list[Array]] = {d: [] for d in sampled}

    def look(self, values: dict[Node, Any], at: _Place) -> None:
        found, slope = (at.values(values[node]) for node in self.nodes)
        place = (slice(at.distance, at.distance + at.steps), at.trials)
        self._mean[place] = found.mean(axis=(2, 3))
        self._variance[place] = found.var(axis=(2, 3))
        self._slope[place] = slope.mean(axis=(2, 3))
        limit = SATURATED_BELOW * self.activation.gamma
        self._saturated[place] = (np.abs(slope) < limit).mean(axis=(2, 3))
        for d, kept in self._sampled.items():
            if 0 <= d - at.distance < at.steps:
                kept.append(found[d - at.distance].ravel().copy())

    def follow(self, norms: tuple[Array, ...], steps: slice, trials: slice) -> None:
        self._entered[steps, trials], self._passed[steps, trials] = norms

    def gate(self) -> Gate:
        pooled = [np.concatenate(kept) for kept in self._sampled.values()]
        low, high = (np.array([np.quantile(values, q) for values in pooled]) for q in (_LOW, _HIGH))
        entered, carried = log2_mean(self._entered), log2_mean(self._passed)
        with np.errstate(invalid="ignore"):
            passed = _LN2 * (carried - entered)
            passed[~np.isfinite(passed)] = np.nan
        return Gate(
            self.activation,
            mean=self._mean.mean(axis=1),
            # Within trials and between them: as many values in each.
            std=np.sqrt(self._variance.mean(axis=1) + self._mean.var(axis=1)),
            slope=self._slope.mean(axis=1),
            saturated=self._saturated.mean(axis=1),
            low=low,
            high=high,
            passed=passed[::-1],
            carried=carried[::-1],
        )


class _Keeping:
    """Gathers what a direct route keeps: of each sequence's gradient at every step, and on average over units.

    arrived: log2 of the norm of what it brings to its states one step earlier, (T, R, B).
    """

    def __init__(self, route: DirectRoute, steps: tuple[int, int, int], sampled: Sequence[int]) -> None:
        self.route = route
        self.entered, self.arrived = (np.empty(steps) for _ in range(2))
        self._sampled = sampled
        self._sum, self._count = 0.0, 0

    def look(self, values: dict[Node, Any], at: _Place) -> None:
        wanted: Any = slice(None)
        if len(self.route.states) > 1:
            # Of blocks there are eigenvalues to be found: at a few distances only.
            wanted = [d - at.distance for d in self._sampled if 0 <= d - at.distance < at.steps]
            if not wanted:
                return
        factors = {edge.coefficient: at.values(values[edge.coefficient])[wanted] for edge in self.route.edges}
        found = unit_factors(self.route, factors)
        self._sum += float(found.sum())
        self._count += found.size

    def follow(
        self, totals: dict[str, tuple[Array, Array]], values: dict[Node, Any], steps: slice, trials: slice
    ) -> None:
        self.entered[steps, trials], self.arrived[steps, trials] = passed_on(self.route, totals, values)

    def kept(self, norms: dict[str, Array], total: Array) -> Kept:
        """Return what was found. norms: log2 of each state's, (T+1, R, B); total: of their mean as one, (T+1,)."""
        entered, arrived = log2_mean(self.entered), log2_mean(self.arrived)
        own = log2_mean(joined(norms[state] for state in self.route.states))
        with np.errstate(invalid="ignore"):
            nats = _LN2 * (arrived - entered)
            nats[~np.isfinite(nats)] = np.nan
            # At step t - 1 too, what comes from within the step is left out; initial states take nothing from there.
            share, weight = np.exp2(arrived - np.r_[own[:1], entered[:-1]]), np.exp2(own - total)[1:]
            counted = slice(None, -1) if len(nats) > 1 else slice(None)  # by step: the last is at distance 0
            on_it, along = entered[counted], arrived[counted]
            there = np.isfinite(on_it)
            closed = int(np.isneginf(along[there]).sum())
            if closed:
                rate = _LN2 * float(np.logaddexp2.reduce(along[there]) - np.logaddexp2.reduce(on_it[there]))
            else:
                rate = float(nats[counted][there].mean()) if there.any() else math.nan
        steps = int(there.sum())
        return Kept(self.route, nats[::-1], rate, closed, steps, share[::-1], weight[::-1], self._sum / self._count)


def log2_mean(log2: Array) -> Array:
    """Return log2 of the mean over trials and sequences of 2**log2, (n, R, B) -> (n,); -inf where all are zero."""
    flat = log2.reshape(len(log2), -1)
    with np.errstate(invalid="ignore"):
        return np.asarray(np.logaddexp2.reduce(flat, axis=1)) - math.log2(flat.shape[1])


def _rates(total: Array, before: Array, through: Array, after: Array, direct: Sequence[Array], closed: bool) -> Rates:
    """Return the parts of the rates from log2 of norms.

    Args:
        total: of the mean, (T+1,), by step. before, through: of what is there before and after the matrices of each
            level, (levels, T, R, B). after: of what arrives in the end, direct: of what direct routes bring, (T, R, B).
    """
    later, earlier, arriving = total[1:], total[:-1], log2_mean(after)
    moves = [(log2_mean(leaving), log2_mean(coming)) for leaving, coming in zip(before, through, strict=True)]
    valid = np.all(np.isfinite([later, earlier, arriving, *(norm for move in moves for norm in move)]), axis=0)

    def nats(log2: Array) -> Array:
        """Return nats by distance."""
        return np.where(valid, _LN2 * log2, np.nan)[::-1]

    with np.errstate(invalid="ignore"):
        by_matrices = np.sum([coming - leaving for leaving, coming in moves], axis=0)
        weights, arrival = nats(by_matrices + np.zeros(len(later))), nats(earlier - arriving)
        inside = nats(arriving - later) - weights
        brought = np.exp2(log2_mean(joined(direct)) - arriving) if direct else np.zeros(len(later))
        return Rates(
            total=nats(earlier - later),
            activations=inside + arrival if closed else inside,
            weights=weights,
            other=None if closed else arrival,
            direct=np.where(valid, brought, np.nan)[::-1],
        )


def _spectral_norms(network: Network, layer: int, columns: Mapping[Node, tuple[int, int]]) -> dict[str, float]:
    """Return the spectral norm of each recurrent matrix that is a parameter, median over trials (and untied steps).

    Args:
        columns: the range that each part of a matrix takes of it: of W @ [x[t], h[t-1]] what is multiplied with h[t-1].
    """
    problem = network.problem
    steps = slice(None) if problem.tied else (slice(None), slice(problem.seq_len))
    found: dict[str, float] = {}
    for product in problem.plans[layer].recurrent_products:
        matrix, vector = product.args
        is_part = matrix.op == "columns"
        whole = matrix.args[0] if is_part else matrix
        if whole.op != "parameter":
            continue
        start, stop = columns[matrix] if is_part else (0, None)
        table = problem.parameters[layer][whole.data][steps][..., start:stop]
        name = f"{whole.data} on {_vector_name(vector, start, stop)}" if is_part else whole.data
        found[name] = float(np.median(np.linalg.norm(table, 2, axis=(-2, -1))))
    return found


def _vector_name(vector: Node, start: int, stop: int | None) -> str:
    if vector.op == "state":
        state, lag = vector.data
        return f"{state}[t-{lag}]" if lag else f"{state}[t]"
    return f"entries {start + 1} to {stop}"
