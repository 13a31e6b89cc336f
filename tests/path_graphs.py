"""Path graphs of cells, and the vectors of routes through them."""

from __future__ import annotations

from typing import Any

import numpy as np
from built_in_cells import HIDDEN_SIZE, INPUT_SIZE, at_sizes
from measured import loaded
from numpy.typing import NDArray

from gradcli.diagnostics.paths_tracer import Tracer
from gradcli.diagnostics.paths_walk import Adjoint
from gradcli.engine.problem import Problem
from gradcli.engine.run import Engine
from gradcli.language.cell import parse_cell
from gradcli.language.formula import StepJacobian, step_jacobian
from gradcli.language.notation import Text
from gradcli.language.routes import PathGraph, Route
from gradcli.prepare.build import Network, build

Array = NDArray[np.float64]


def built_in(name: str) -> PathGraph:
    """Return the graph of a built-in cell, at a size that suits it."""
    return PathGraph(at_sizes(name))


def graph_of(equations: str, **settings: Any) -> PathGraph:
    return PathGraph(parse_cell(equations, **settings).at_sizes(HIDDEN_SIZE, INPUT_SIZE))


def written(graph: PathGraph, notation: Text | None = None) -> dict[str, list[str]]:
    """Return the Jacobian of one step: the name of each block and its signed terms; totals are marked."""
    return {
        block.name + (" in all" if block.is_total else ""): [
            f"{'-' if term.sign < 0 else '+'} {term.text}" for term in block.terms
        ]
        for block in jacobian(graph, notation).blocks
    }


def jacobian(graph: PathGraph, notation: Text | None = None) -> StepJacobian:
    return step_jacobian(graph, notation or Text())


def network(cell: Any, **fields: object) -> Network:
    return build(loaded(cell, **fields))


def traced(net: Network, distance: int, *, start: str | None = None, layer: int = -1) -> Tracer:
    """Walk back over all trials of a network together; `layer` as an index."""
    return traced_problem(net.problem, distance, start=start, layer=layer)


def traced_problem(problem: Problem, distance: int, *, start: str | None = None, layer: int = -1) -> Tracer:
    index = range(len(problem.plans))[layer]
    graph = PathGraph(problem.plans[index].cell)
    [(_, group)] = Engine(problem, at_once=problem.trials).groups()
    tracer = Tracer(graph, group, index, problem.loss.last_step, distance, start or graph.cell.output, ())
    tracer.run()
    return tracer


def vectors(tracer: Tracer, end: str) -> dict[Route, Array]:
    """Return what each route passes on, (R, size, B), as plain floats."""
    return {route: plain(vector) for route, vector in tracer.vectors(end)}


def plain(adjoint: Adjoint) -> Array:
    """Return an adjoint as plain floats."""
    return np.asarray(np.ldexp(adjoint.mantissa, np.maximum(adjoint.exponent, -5000)[:, None, :]))


def error_of_sum(found: list[Array], expected: Array) -> float:
    """Return the largest |sum of routes - expected| relative to the sum of the routes' norms: routes may cancel.

    Without a route, or where all of them are zero, there must be an exact zero.
    """
    error = np.linalg.norm(np.sum([np.zeros_like(expected), *found], axis=0) - expected, axis=1)
    scale = np.sum([np.zeros_like(error), *(np.linalg.norm(vector, axis=1) for vector in found)], axis=0)
    return float(np.where(scale > 0, error / np.where(scale > 0, scale, 1.0), np.where(error > 0, np.inf, 0.0)).max())


def relative_error(found: Array, expected: Array) -> float:
    """Return the largest |found - expected| / |expected| over trials and sequences; an exact zero must be one."""
    error, norm = np.linalg.norm(found - expected, axis=1), np.linalg.norm(expected, axis=1)
    assert norm.max() > 0, "nothing to compare with"
    return float(np.where(norm > 0, error / np.where(norm > 0, norm, 1.0), np.where(error > 0, np.inf, 0.0)).max())
