"""Which routes through a cell its gradient takes: all by name, the last steps of all, and the direct one alone.

With g the gradient of the loss at its last step with respect to a variable at that step, the gradient of an earlier
state is the sum over routes of v = (product of the transposed factors on the route) g. Vectors add up, norms do not: a
route's share is its projection on the sum, v . total / |total|^2.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import field
from typing import Any

import numpy as np

from gradcli.diagnostics.clipping import median
from gradcli.diagnostics.curve import LOG10_2
from gradcli.diagnostics.measure import judge_nonfinite
from gradcli.diagnostics.paths_tracer import MeasuredDirect, MeasuredRoutes, Tracer, is_listed
from gradcli.diagnostics.paths_walk import NotFinite
from gradcli.diagnostics.verdict import Verdict
from gradcli.engine.problem import ForwardOverflow, Overflow, Progress, Run
from gradcli.engine.run import Engine
from gradcli.frozen import frozen
from gradcli.language.direct import DirectRoute
from gradcli.language.routes import PathGraph, Route
from gradcli.prepare.build import Network

Array = np.ndarray[Any, Any]

#: Up to this distance routes are counted; their number has about as many digits as there are steps.
_COUNTED = 1000
#: The direct route carries the gradient where its projection is at least this.
CARRIES = 0.5


@frozen
class Share:
    """What one route passes on. None where no sequence has a gradient, or none that is more than rounding.

    log10_norm, log10_relative: of its vector, and relative to the total's; medians over trials and sequences.
    projection: v . total / |total|^2, the mean over trials and sequences; those of all routes add up to 1.
    cosine: of the angle between the two; the median where both are not zero.
    """

    route: Route
    log10_norm: float
    log10_relative: float | None
    projection: float | None
    cosine: float | None


@frozen
class RouteTable:
    """The routes from `start` at the last step of the loss back to `end`, `distance` steps before it.

    count: how many there are; None where they were not counted.
    is_complete: whether `shares` has them all. Else it has the last steps of all routes, each the sum of whatever came
        before: from the last state on the way that is later than the end.
    log10_norm: of the total gradient, the median. zeros: the fraction of sequences that have none.
    rounding: the fraction in which the routes cancel, so that the total is nothing but rounding: they have no shares.
    residual: |sum of the routes - total| / |total|, the largest; None where no sequence has shares.
    """

    start: str
    end: str
    distance: int
    count: int | None
    is_complete: bool
    shares: list[Share]
    log10_norm: float
    zeros: float
    rounding: float
    residual: float | None


@frozen
class DirectCurve:
    """A direct route, entry by entry from step to step with gates held, beside the whole gradient of its states.

    distances: where it was measured, (D,). log10_direct, log10_total, projection, cosine: (D,), medians over trials and
        sequences; -inf is an exact zero, NaN where no sequence has a gradient that is more than rounding.
    rounding: the fraction of sequences in which the whole gradient is nothing but rounding, (D,).
    carries_to: the largest distance up to which the projection is at least `CARRIES` throughout.
    start: the distance at which it begins, in the sequences where that is nearest the loss: where the gradient of its
        states first is not exactly zero. None where it is nowhere.
    """

    route: DirectRoute
    distances: Array
    log10_direct: Array
    log10_total: Array
    projection: Array
    cosine: Array
    rounding: Array
    carries_to: int
    start: int | None


@frozen
class Paths:
    """What was found about one layer.

    step: where routes start: the last step at which the loss counts.
    verdict: set where a number was not finite; then there is nothing else.
    """

    network: Network
    graph: PathGraph
    layer: int
    step: int
    tables: list[RouteTable] = field(default_factory=list)
    direct: list[DirectCurve] = field(default_factory=list)
    verdict: Verdict | None = None


def trace_paths(
    network: Network,
    *,
    layer: int,
    distance: int,
    start: str,
    ends: Sequence[str],
    progress: Progress | None = None,
) -> Paths:
    """Return the routes of a layer's gradient.

    Args:
        layer: its number. distance: from the last step at which the loss counts back to the routes' ends.
        start: the state at that step from which they start. ends: the states at which they end.
        progress: called while the engine runs.
    """
    engine = Engine(network.problem, progress=progress)
    graph = PathGraph(network.problem.plans[layer].cell)
    step = network.problem.loss.last_step
    found = []
    broken: list[Overflow] = []
    for trials, group in engine.groups():
        tracer = Tracer(graph, group, layer, step, distance, start, ends)
        try:
            tracer.run()
        except ForwardOverflow:
            # Other groups may overflow as well, or earlier: a run of all tells.
            run = Run(np.zeros(0), {}, {}, overflow=engine.overflow())
            return Paths(network, graph, layer, step, verdict=judge_nonfinite(network, engine, run))
        except NotFinite as error:
            broken.append(_among_all(Overflow(tracer.at, layer, error.trials), trials, network))
        found.append(tracer)
    if broken:
        latest = max(overflow.step for overflow in broken)
        among = np.any([overflow.trials for overflow in broken if overflow.step == latest], axis=0)
        run = Run(np.zeros(0), {}, {}, backward_overflow=Overflow(latest, layer, among))
        return Paths(network, graph, layer, step, verdict=judge_nonfinite(network, engine, run))
    tables = [_table(graph, start, end, distance, step, [tracer.routes[end] for tracer in found]) for end in ends]
    curves = [_curve(groups) for groups in zip(*(tracer.direct for tracer in found), strict=True)]
    return Paths(network, graph, layer, step, tables, curves)


def formulas_of(network: Network, layer: int) -> Paths:
    """Return the path graph of a layer, with nothing measured."""
    return Paths(network, PathGraph(network.problem.plans[layer].cell), layer, network.problem.loss.last_step)


def _among_all(overflow: Overflow, trials: slice, network: Network) -> Overflow:
    """Return an overflow in some trials as one among all."""
    among = np.zeros(network.problem.trials, dtype=bool)
    among[trials] = overflow.trials
    return Overflow(overflow.step, overflow.layer, among)


def _table(
    graph: PathGraph, start: str, end: str, distance: int, steps: int, groups: Sequence[MeasuredRoutes]
) -> RouteTable:
    total = np.concatenate([group.total.log2_norm() for group in groups])
    rounding = np.concatenate([group.rounding for group in groups])
    defined = np.isfinite(total) & ~rounding
    shares = []
    for route in dict.fromkeys(route for group in groups for route in group.parts):
        norm, cosine = (np.concatenate([group.parts[route][i] for group in groups]) for i in (0, 1))
        ratio = (norm - np.where(defined, total, 0.0))[defined]
        with np.errstate(invalid="ignore", over="ignore", under="ignore"):
            projection = np.where(np.isneginf(ratio), 0.0, cosine[defined] * np.exp2(ratio))
        angles = cosine[defined & np.isfinite(norm)]
        shares.append(
            Share(
                route,
                median(norm.ravel()) * LOG10_2,
                median(ratio) * LOG10_2 if ratio.size else None,
                float(projection.mean()) if ratio.size else None,
                median(angles) if angles.size else None,
            )
        )
    residual = np.concatenate([group.residual for group in groups])[defined]
    return RouteTable(
        start,
        end,
        distance,
        graph.count(start, end, distance, steps) if distance <= _COUNTED else None,
        is_listed(graph, start, end, distance, steps),
        shares,
        median(total.ravel()) * LOG10_2,
        float(np.isneginf(total).mean()),
        float(rounding.mean()),
        float(residual.max()) if residual.size else None,
    )


def _curve(groups: Sequence[MeasuredDirect]) -> DirectCurve:
    def joined(name: str) -> Array:
        """Return the values of all trials, (D, R * B)."""
        parts = [np.stack(getattr(group, name)) for group in groups]
        whole = np.concatenate(parts, axis=1)
        return whole.reshape(len(whole), -1)

    direct, total, cosine = joined("log2_direct"), joined("log2_total"), joined("cosine")
    rounding = joined("rounding")
    defined = np.isfinite(total) & ~rounding
    with np.errstate(invalid="ignore", over="ignore", under="ignore"):
        ratio = direct - np.where(defined, total, 0.0)
        projection = np.where(np.isneginf(direct), 0.0, cosine * np.exp2(ratio))
    found = np.array([_median_where(p, d) for p, d in zip(projection, defined, strict=True)])
    distances = np.array(groups[0].distances)
    starts = np.concatenate([group.start.ravel() for group in groups])
    # Where no sequence has a gradient, there is nothing to carry.
    short = np.flatnonzero(~((found >= CARRIES) | np.isnan(found)))
    return DirectCurve(
        groups[0].route,
        distances,
        np.array([median(row) for row in direct]) * LOG10_2,
        np.array([median(row) for row in total]) * LOG10_2,
        found,
        np.array([_median_where(c, np.isfinite(c) & d) for c, d in zip(cosine, defined, strict=True)]),
        rounding.mean(axis=1),
        int(distances[short[0] - 1] if short.size and short[0] else distances[-1] if not short.size else 0),
        int(starts[starts >= 0].min()) if (starts >= 0).any() else None,
    )


def _median_where(values: Array, chosen: Array) -> float:
    return median(values[chosen]) if chosen.any() else float("nan")
