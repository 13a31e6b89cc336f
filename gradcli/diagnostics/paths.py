"""Which routes through a cell its gradient takes: all by name, the last steps of all, and the direct one alone.

With g the gradient of the loss at its last step with respect to a variable at that step, the gradient of an earlier
state is the sum over routes of v = (product of the transposed factors on the route) g. Vectors add up, norms do not: a
route's share is its projection on the sum, v . total / |total|^2.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from gradcli.diagnostics.clipping import median
from gradcli.diagnostics.curve import LOG10_2
from gradcli.diagnostics.measure import judge_nonfinite
from gradcli.diagnostics.paths_walk import (
    Adjoint,
    Backpropagation,
    NotFinite,
    StepValues,
    along,
    loss_gradient,
    pull_back,
    steps_back,
)
from gradcli.diagnostics.verdict import Verdict
from gradcli.engine.group import TrialGroup
from gradcli.engine.problem import ForwardOverflow, Overflow, Progress, Run
from gradcli.engine.run import Engine
from gradcli.language.routes import Edge, PathGraph, Route
from gradcli.network.build import Network

Array = np.ndarray[Any, Any]

#: Routes are listed one by one where there are no more than this, ...
MOST_ROUTES = 400
#: ... over no more steps than this: a longer one says no more than its steps do.
LONGEST_ROUTE = 8
#: Up to this distance routes are counted; their number has about as many digits as there are steps.
_COUNTED = 1000
#: The direct route is measured at every distance of sequences up to this length, and at so many of longer ones.
MOST_DISTANCES = 2000
#: The direct route carries the gradient where its projection is at least this.
CARRIES = 0.5


@dataclass(frozen=True)
class Share:
    """What one route passes on. None where no sequence has a gradient.

    log10_norm, log10_relative: of its vector, and relative to the total's; medians over trials and sequences.
    projection: v . total / |total|^2, the mean over trials and sequences; those of all routes add up to 1.
    cosine: of the angle between the two; the median where both are not zero.
    """

    route: Route
    log10_norm: float
    log10_relative: float | None
    projection: float | None
    cosine: float | None


@dataclass(frozen=True)
class RouteTable:
    """The routes from `start` at the last step of the loss back to `end`, `distance` steps before it.

    count: how many there are; None where they were not counted.
    is_complete: whether `shares` has them all. Else it has the last steps of all routes, each the sum of whatever came
        before: from the last state on the way that is later than the end.
    log10_norm: of the total gradient, the median. zeros: the fraction of sequences that have none.
    residual: |sum of the routes - total| / |total|, the largest; None where no sequence has a gradient.
    """

    start: str
    end: str
    distance: int
    count: int | None
    is_complete: bool
    shares: list[Share]
    log10_norm: float
    zeros: float
    residual: float | None


@dataclass(frozen=True)
class DirectCurve:
    """The direct route of a state, entry by entry from step to step, beside the state's whole gradient.

    distances: where it was measured, (D,). log10_direct, log10_total, projection, cosine: (D,), medians over trials and
        sequences; -inf is an exact zero, NaN where no sequence has a gradient.
    carries_to: the largest distance up to which the projection is at least `CARRIES` throughout.
    """

    state: str
    edge: Edge
    distances: Array
    log10_direct: Array
    log10_total: Array
    projection: Array
    cosine: Array
    carries_to: int


@dataclass(frozen=True)
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
    for trials, group in engine.groups():
        tracer = Tracer(graph, group, layer, step, distance, start, ends)
        try:
            tracer.run()
        except ForwardOverflow as error:
            run = Run(np.zeros(0), {}, {}, overflow=_among_all(error.overflow, trials, network))
            return Paths(network, graph, layer, step, verdict=judge_nonfinite(network, engine, run))
        except NotFinite as error:
            overflow = _among_all(Overflow(tracer.at, layer, error.trials), trials, network)
            run = Run(np.zeros(0), {}, {}, backward_overflow=overflow)
            return Paths(network, graph, layer, step, verdict=judge_nonfinite(network, engine, run))
        found.append(tracer)
    tables = [_table(graph, start, end, distance, step, [tracer.routes[end] for tracer in found]) for end in ends]
    curves = [_curve(state, [tracer.direct[state] for tracer in found]) for state in found[0].direct]
    return Paths(network, graph, layer, step, tables, curves)


def formulas_of(network: Network, layer: int) -> Paths:
    """Return the path graph of a layer, with nothing measured."""
    return Paths(network, PathGraph(network.problem.plans[layer].cell), layer, network.problem.loss.last_step)


def _among_all(overflow: Overflow, trials: slice, network: Network) -> Overflow:
    """Return an overflow in some trials as one among all."""
    among = np.zeros(network.problem.trials, dtype=bool)
    among[trials] = overflow.trials
    return Overflow(overflow.step, overflow.layer, among)


@dataclass
class _Measured:
    """The routes to one end in one group of trials: the total, and the log2 norm and cosine of each, (R, B)."""

    total: Adjoint
    parts: dict[Route, tuple[Array, Array]]
    residual: Array


@dataclass
class _Direct:
    """A direct route in one group of trials: its vector, and by distance log2 norms and cosine, (R, B) each."""

    edge: Edge
    vector: Adjoint
    distances: list[int]
    log2_direct: list[Array]
    log2_total: list[Array]
    cosine: list[Array]


class Tracer:
    """Walks back over one group of trials, and gathers what the tables are made of.

    at: the step that it is at. routes: by end. direct: by state.

    Args:
        group: ready for a walk. step: where routes start. The others are those of `trace_paths`.
    """

    def __init__(
        self, graph: PathGraph, group: TrialGroup, layer: int, step: int, distance: int, start: str, ends: Sequence[str]
    ) -> None:
        self.graph, self.group, self.layer = graph, group, layer
        self.first, self.distance = step, distance
        self.start, self.ends = start, ends
        self.lag = max(graph.cell.lags.values())
        self.at = step
        self.routes: dict[str, _Measured] = {}
        self.direct: dict[str, _Direct] = {}
        self._wanted = set(measured_distances(step))
        self._entering = self._zero(start)
        # For the routes: the values of factors and the adjoints, by the number of steps back.
        self._values: dict[int, StepValues] = {}
        self._adjoints: dict[int, dict[str, Adjoint]] = {}

    def run(self) -> None:
        """Go back as far as there is something to see.

        Raises:
            ForwardOverflow: a state stopped being finite. NotFinite: an adjoint did, at step `at`.
        """
        # What is not finite is found where it shows, see `Adjoint.normalised`.
        with np.errstate(all="ignore"):
            self._walk()
            self.routes = {end: self._measure(end) for end in self.ends}

    def _walk(self) -> None:
        layer = self.group.layers[self.layer]
        whole: Backpropagation | None = None
        chosen: Backpropagation | None = None
        last = 0 if any(map(self.graph.direct_edge, self.graph.states)) else self.first - self.distance
        for step, values in steps_back(self.graph, self.group, layer, self.first):
            self.at = step
            if whole is None:
                gradient = loss_gradient(self.group, self.layer, step)
                whole = Backpropagation(self.graph, self.graph.cell.output, step, gradient)
            whole.step(step, values)
            if chosen is None:
                self._entering = whole.at.get(self.start, self._zero(self.start))
                chosen = Backpropagation(self.graph, self.start, step, self._entering)
            self._visit(step, values, whole, chosen)
            if step == last:
                break
        else:
            assert whole is not None, "a sequence has at least one step"
            assert chosen is not None
            self.at = 0
            whole.step(0, {})
            self._visit(0, {}, whole, chosen)

    def _visit(self, step: int, values: StepValues, whole: Backpropagation, chosen: Backpropagation) -> None:
        behind = self.first - step
        if behind <= self.distance:
            chosen.step(step, values)
            self._keep(behind, values, chosen.at)
        self._follow_direct(behind, values, whole.at)

    def _zero(self, state: str) -> Adjoint:
        return Adjoint.of(np.zeros_like(self.group.layers[self.layer].states[state][0]))

    def _keep(self, behind: int, values: StepValues, adjoints: dict[str, Adjoint]) -> None:
        """Keep what the routes need: of all steps where they are few, else of those around their ends."""
        if self.distance <= LONGEST_ROUTE or behind >= self.distance - self.lag:
            # Copies, as the block that they are views of is much larger.
            self._values[behind] = {node: np.array(value) for node, value in values.items()}
        self._adjoints[behind] = {name: adjoint for name, adjoint in adjoints.items() if name in self.graph.states}
        self._adjoints.pop(behind - self.lag - 1, None)

    def _follow_direct(self, behind: int, values: StepValues, totals: dict[str, Adjoint]) -> None:
        for state in self.graph.states:
            edge = self.graph.direct_edge(state)
            if edge is None:
                continue
            if behind == 0:
                self.direct[state] = _Direct(edge, totals.get(state, self._zero(state)), [], [], [], [])
            found = self.direct[state]
            if behind in self._wanted:
                total = totals.get(state, self._zero(state))
                found.distances.append(behind)
                found.log2_direct.append(found.vector.log2_norm())
                found.log2_total.append(total.log2_norm())
                found.cosine.append(found.vector.cosine(total))
            if values:
                found.vector = pull_back(edge, found.vector, values).normalised()

    def total(self, end: str) -> Adjoint:
        """Return the whole gradient at a route's end."""
        return self._adjoints[self.distance].get(end, self._zero(end)).normalised()

    def vectors(self, end: str) -> Iterator[tuple[Route, Adjoint]]:
        """Yield every route to an end, or every last step of routes, with what it passes on of the gradient."""
        if is_listed(self.graph, self.start, end, self.distance, self.first):
            routes = self.graph.routes(self.start, end, self.distance, self.first)
            yield from along(routes, self._entering, self._by_step(0))
            return
        for lag in range(1, self.lag + 1):
            behind = self.distance - lag
            for state, adjoint in self._adjoints.get(behind, {}).items():
                last = last_routes(self.graph, state, end, lag, self.first - behind)
                yield from along(last, adjoint, self._by_step(behind))

    def _measure(self, end: str) -> _Measured:
        total = self.total(end)
        parts: dict[Route, tuple[Array, Array]] = {}
        rest = Adjoint(-total.mantissa, total.exponent)
        for route, vector in self.vectors(end):
            parts[route] = vector.log2_norm(), vector.cosine(total)
            rest = rest + vector
        return _Measured(total, parts, np.exp2(rest.normalised().log2_norm() - total.log2_norm()))

    def _by_step(self, behind: int) -> list[StepValues]:
        """Return the values of factors at the steps from `behind` to the distance."""
        return [self._values.get(b, {}) for b in range(behind, self.distance + 1)]


def is_listed(graph: PathGraph, start: str, end: str, distance: int, steps: int) -> bool:
    """Tell whether routes are so few that they are listed one by one."""
    return distance <= LONGEST_ROUTE and graph.count(start, end, distance, steps) <= MOST_ROUTES


def last_routes(graph: PathGraph, state: str, end: str, lag: int, steps: int) -> list[Route]:
    """Return the routes from a state to `end`, `lag` steps back, on which no other state is later than the end."""
    return [
        route
        for route in graph.routes(state, end, lag, steps)
        if not any(name in graph.states and behind < lag for name, behind in route.vertices[1:])
    ]


def measured_distances(last: int) -> list[int]:
    """Return the distances 0..last at which direct routes are measured: all, or of very many an even choice."""
    if last <= MOST_DISTANCES:
        return list(range(last + 1))
    return sorted(
        {round(i * last / MOST_DISTANCES) for i in range(MOST_DISTANCES + 1)} | set(range(MOST_DISTANCES // 4))
    )


def _table(
    graph: PathGraph, start: str, end: str, distance: int, steps: int, groups: Sequence[_Measured]
) -> RouteTable:
    total = np.concatenate([group.total.log2_norm() for group in groups])
    defined = np.isfinite(total)
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
        float(residual.max()) if residual.size else None,
    )


def _curve(state: str, groups: Sequence[_Direct]) -> DirectCurve:
    def joined(name: str) -> Array:
        """Return the values of all trials, (D, R * B)."""
        parts = [np.stack(getattr(group, name)) for group in groups]
        whole = np.concatenate(parts, axis=1)
        return whole.reshape(len(whole), -1)

    direct, total, cosine = joined("log2_direct"), joined("log2_total"), joined("cosine")
    defined = np.isfinite(total)
    with np.errstate(invalid="ignore", over="ignore", under="ignore"):
        ratio = direct - np.where(defined, total, 0.0)
        projection = np.where(np.isneginf(direct), 0.0, cosine * np.exp2(ratio))
    found = np.array([_median_where(p, d) for p, d in zip(projection, defined, strict=True)])
    distances = np.array(groups[0].distances)
    # Where no sequence has a gradient, there is nothing to carry.
    short = np.flatnonzero(~((found >= CARRIES) | np.isnan(found)))
    return DirectCurve(
        state,
        groups[0].edge,
        distances,
        np.array([median(row) for row in direct]) * LOG10_2,
        np.array([median(row) for row in total]) * LOG10_2,
        found,
        np.array([_median_where(c, np.isfinite(c)) for c in cosine]),
        int(distances[short[0] - 1] if short.size and short[0] else distances[-1] if not short.size else 0),
    )


def _median_where(values: Array, chosen: Array) -> float:
    return median(values[chosen]) if chosen.any() else float("nan")
