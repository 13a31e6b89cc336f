"""Cells of every form, made-up ones among them: their routes add up, and their formulas can be written."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from built_in_cells import in_turn
from engine_runs import problem_of
from measured import loaded
from numpy.typing import NDArray
from path_graphs import error_of_sum, plain, traced_problem, vectors, written
from test_random_cells import made_up

from gradcli.diagnostics.paths_tracer import Tracer
from gradcli.engine.problem import Problem
from gradcli.engine.run import Engine
from gradcli.language.notation import Latex
from gradcli.prepare.build import build

FOLDER = Path(__file__).parent.parent / "cells"
TEST_CELLS = {path.stem: path for path in sorted(FOLDER.glob("*.yaml"))}
#: Made-up formulas cancel: what is lost is measured against the sum of the routes' norms.
ROUNDING = 1e-12
MADE_UP = [seed for seed in range(120) if made_up(seed)[0]["loss"]["at"] == "last"]


def check_sums(problem: Problem, distance: int) -> None:
    """Compare the sum of all routes to every state with the gradient of the engine's own backward pass."""
    recording = Engine(problem).run(record=True).recording
    assert recording is not None
    tracer = traced_problem(problem, distance)
    layer = f"layer{len(problem.plans) - 1}"
    for state in tracer.graph.states:
        step = tracer.first - distance
        exponents = recording.exponents[f"{layer}.{state}"][step]
        expected = np.ldexp(recording.adjoints[f"{layer}.{state}"][step], exponents[:, None, :])
        _compare(tracer, state, expected)


def _compare(tracer: Tracer, state: str, expected: NDArray[Any]) -> None:
    found = list(vectors(tracer, state).values())
    assert error_of_sum(found, expected) <= ROUNDING, state
    scale = np.sum([np.linalg.norm(vector, axis=1) for vector in found], axis=0)
    assert (np.linalg.norm(plain(tracer.total(state)) - expected, axis=1) <= ROUNDING * scale).all()


@pytest.mark.parametrize("distance", [1, 2])
@pytest.mark.parametrize("seed", MADE_UP)
def test_made_up_cells(seed: int, distance: int) -> None:
    problem = problem_of(*made_up(seed))
    check_sums(problem, distance)


@pytest.mark.parametrize(("name", "distance"), in_turn(TEST_CELLS, [3, 1, 9]))
def test_cells_of_the_tests(name: str, distance: int) -> None:
    spec = yaml.safe_load(TEST_CELLS[name].read_text(encoding="utf-8"))
    fields = {key: value for key, value in spec.items() if key not in ("cell", "clip", "num_layers")}
    # Three sequences: of two a batch norm leaves opposite numbers, whose gradient is rounding alone.
    sizes = {"seq_len": 10, "batch_size": 3, "trials": 2, "loss": {"kind": "projection"}}
    check_sums(build(loaded(spec["cell"], **{**fields, **sizes})).problem, distance)


@pytest.mark.parametrize("seed", MADE_UP)
def test_made_up_cells_can_be_written(seed: int) -> None:
    from language.test_latex import check

    graph = traced_problem(problem_of(*made_up(seed)), 1).graph
    assert len(written(graph)) == len(written(graph, Latex()))
    for terms in written(graph, Latex()).values():
        for term in terms:
            check(term)
