"""Walks back over the path graph of one group of trials, and measures every route and every direct route on the way."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from gradcli.diagnostics.paths_walk import (
    Adjoint,
    Backpropagation,
    StepValues,
    along,
    log2_rounding,
    loss_gradient,
    steps_back,
    together,
)
from gradcli.engine.group import TrialGroup
from gradcli.language.direct import DirectRoute
from gradcli.language.routes import PathGraph, Route

Array = np.ndarray[Any, Any]

#: Routes are listed one by one where there are no more than this, ...
MOST_ROUTES = 400
#: ... over no more steps than this: a longer one says no more than its steps do.
LONGEST_ROUTE = 8
#: The direct route is measured at every distance of sequences up to this length, and at so many of longer ones.
MOST_DISTANCES = 2000


@dataclass
class MeasuredRoutes:
    """The routes to one end in one group of trials: the total, and the log2 norm and cosine of each, (R, B).

    rounding: where the total is nothing but rounding, (R, B), see `Backpropagation`.
    """

    total: Adjoint
    rounding: Array
    parts: dict[Route, tuple[Array, Array]]
    residual: Array


@dataclass
class MeasuredDirect:
    """A direct route in one group of trials: its vectors by state; by distance log2 norms and cosine, (R, B) each.

    start: the distance at which each sequence's begins, -1 where it has not begun (R, B).
    rounding: by distance, where the whole gradient is nothing but rounding, (R, B), see `Backpropagation`.
    """

    route: DirectRoute
    vectors: dict[str, Adjoint]
    start: Array
    distances: list[int]
    log2_direct: list[Array]
    log2_total: list[Array]
    cosine: list[Array]
    rounding: list[Array]


class Tracer:
    """Walks back over one group of trials, and gathers what the tables are made of.

    at: the step that it is at. routes: by end. direct: in the order of the graph's.

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
        self.routes: dict[str, MeasuredRoutes] = {}
        self.direct: list[MeasuredDirect] = []
        self._wanted = set(measured_distances(step))
        self._entering = self._zero(start)
        # For the routes: the values of factors and the adjoints, by the number of steps back.
        self._values: dict[int, StepValues] = {}
        self._adjoints: dict[int, dict[str, Adjoint]] = {}
        self._rounding: dict[str, Array] = {}

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
        last = 0 if self.graph.direct else self.first - self.distance
        for step, values in steps_back(self.graph, self.group, layer, self.first):
            self.at = step
            if whole is None:
                gradient = loss_gradient(self.group, self.layer, step)
                whole = Backpropagation(
                    self.graph, self.graph.cell.output, step, gradient, dtype=self.group.problem.dtype
                )
            whole.step(step, values)
            if chosen is None:
                self._entering = whole.at.get(self.start, self._zero(self.start))
                chosen = Backpropagation(self.graph, self.start, step, self._entering, dtype=self.group.problem.dtype)
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
            self._rounding = chosen.rounding
        self._follow_direct(behind, values, whole)

    def _zero(self, state: str) -> Adjoint:
        return Adjoint.of(np.zeros_like(self.group.layers[self.layer].states[state][0]))

    def _keep(self, behind: int, values: StepValues, adjoints: dict[str, Adjoint]) -> None:
        """Keep what the routes need: of all steps where they are few, else of those around their ends."""
        if self.distance <= LONGEST_ROUTE or behind >= self.distance - self.lag:
            # Copies, as the block that they are views of is much larger.
            self._values[behind] = {node: np.array(value) for node, value in values.items()}
        self._adjoints[behind] = {name: adjoint for name, adjoint in adjoints.items() if name in self.graph.states}
        self._adjoints.pop(behind - self.lag - 1, None)

    def _follow_direct(self, behind: int, values: StepValues, all_routes: Backpropagation) -> None:
        for number, route in enumerate(self.graph.direct):
            whole = {state: all_routes.at.get(state, self._zero(state)) for state in route.states}
            if behind == 0:
                nowhere = np.full(next(iter(whole.values())).exponent.shape, -1)
                vectors = {state: self._zero(state) for state in route.states}
                self.direct.append(MeasuredDirect(route, vectors, nowhere, [], [], [], [], []))
            found = self.direct[number]
            if values:
                # Initial states take nothing from within the step.
                self._within(route, found.vectors, values)
            present = {state: (adjoint.mantissa != 0).any(axis=1) for state, adjoint in whole.items()}
            measured = {state: here & ~all_routes.rounding.get(state, ~here) for state, here in present.items()}
            is_there, is_measured = (np.any(list(where.values()), axis=0) for where in (present, measured))
            self._begin(found, behind, whole, is_measured)
            if behind in self._wanted:
                direct, total = (together([of[state] for state in route.states]) for of in (found.vectors, whole))
                found.distances.append(behind)
                found.log2_direct.append(direct.log2_norm())
                found.log2_total.append(total.log2_norm())
                found.cosine.append(direct.cosine(total))
                found.rounding.append(is_there & ~is_measured)
            if values:
                found.vectors = self._onward(route, found.vectors, values)

    def _begin(self, found: MeasuredDirect, behind: int, whole: dict[str, Adjoint], is_there: Array) -> None:
        """Begin a route in the sequences whose gradient is not zero, exactly or but for rounding, for the first time.

        That need not be at the loss: an output made of earlier states alone, as in h[t] = tanh(W @ m[t-1]), gives the
        states beside it a gradient one step earlier. The total has what comes from within the step already.
        """
        begins = is_there & (found.start < 0)
        if not begins.any():
            return
        found.start = np.where(begins, behind, found.start)
        for state, adjoint in whole.items():
            before = found.vectors[state]
            found.vectors[state] = Adjoint(
                np.where(begins[:, None, :], adjoint.mantissa, before.mantissa),
                np.where(begins, adjoint.exponent, before.exponent),
            )

    def _within(self, route: DirectRoute, vectors: dict[str, Adjoint], values: StepValues) -> None:
        """Add what the states of a route take of each other within a step, the later ones first."""
        for edge in sorted(route.within(0), key=lambda edge: -self.graph.states.index(edge.target)):
            target = vectors[edge.target]
            part = Adjoint(target.mantissa * values[edge.coefficient], target.exponent)
            vectors[edge.source] = (vectors[edge.source] + part).normalised()

    def _onward(self, route: DirectRoute, vectors: dict[str, Adjoint], values: StepValues) -> dict[str, Adjoint]:
        """Return what goes along a route to its states one step earlier."""
        found: dict[str, Adjoint] = {}
        for edge in route.within(1):
            target = vectors[edge.target]
            part = Adjoint(target.mantissa * values[edge.coefficient], target.exponent)
            found[edge.source] = found[edge.source] + part if edge.source in found else part
        return {state: found[state].normalised() if state in found else self._zero(state) for state in route.states}

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

    def _measure(self, end: str) -> MeasuredRoutes:
        total = self.total(end)
        parts: dict[Route, tuple[Array, Array]] = {}
        rest = Adjoint(-total.mantissa, total.exponent)
        for route, vector in self.vectors(end):
            parts[route] = vector.log2_norm(), vector.cosine(total)
            rest = rest + vector
        sizes = total.log2_norm()
        largest = np.max([norm for norm, _ in parts.values()], axis=0, initial=-np.inf) if parts else sizes
        rounding = np.isfinite(sizes) & (sizes < largest + log2_rounding(self.group.problem.dtype))
        rounding |= self._rounding.get(end, np.zeros_like(rounding))
        return MeasuredRoutes(total, rounding, parts, np.exp2(rest.normalised().log2_norm() - sizes))

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
