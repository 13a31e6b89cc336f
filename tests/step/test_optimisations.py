"""What the optimisations of a step save, and that no result depends on them."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace

import pytest
from engine_runs import ROUNDING, problem_of, recorded, vectors_of
from reference.fixture_file import FOLDER, read_fixture
from step_programs import calls_of_step, plan_of

from gradcli import cells
from gradcli.engine.problem import Problem
from gradcli.engine.step.backward import Choices
from gradcli.engine.step.instructions import Span, buffers_of
from gradcli.engine.step.plan import OPTIMISATIONS, LayerPlan

#: NumPy calls a step of every built-in cell, forward and back, in all.
ALL_CALLS = 4476
#: And those of some, with what each optimisation saves of them.
CALLS = {"lstm": 17, "gru": 16, "rnn": 5, "rnn-lags": 6, "lstm-peephole": 32, "layer-norm-lstm": 51, "mlstm": 21}
SAVED = {
    "stacked products": {"lstm": 20, "gru": 13},
    "windows": {"rnn-lags": 5, "dense-block": 55},
    "lanes in order": {"lstm": 3, "mlstm": 3},
    "negated sigmoids": {"lstm": 1, "rhn": 3},
    "neighbours": {"lstm": 11, "gru": 7},
}


def test_no_cell_has_become_more_expensive() -> None:
    calls = {name: calls_of_step(plan_of(name)) for name in cells.names()}
    assert {name: calls[name] for name in CALLS} == CALLS
    assert sum(calls.values()) <= ALL_CALLS


@pytest.mark.parametrize("name", SAVED)
def test_an_optimisation_saves_calls(name: str) -> None:
    saved = {cell: calls_of_step(plan_of(cell, {name})) - calls_of_step(plan_of(cell)) for cell in SAVED[name]}
    assert saved == SAVED[name]


def numbers_of_one_step(plan: LayerPlan) -> int:
    """Return how many numbers a step has memory for that no later one needs."""
    programs = (plan.forward, plan.backward(Choices(plan.prefilled)).coefficients)
    return sum(b.size for program in programs for b in buffers_of(program) if b.span is not Span.SEGMENT)


def test_memory_is_taken_again() -> None:
    assert numbers_of_one_step(plan_of("gru")) < numbers_of_one_step(plan_of("gru", {"places again"}))


def test_every_optimisation_has_a_test_of_what_it_saves() -> None:
    assert set(OPTIMISATIONS) == {*SAVED, "places again"}


def without(problem: Problem, names: Collection[str]) -> Problem:
    """Return a problem whose plans do without some optimisations."""
    return replace(problem, plans=[LayerPlan(plan.cell, without=names) for plan in problem.plans])


@pytest.mark.parametrize("names", [*([name] for name in OPTIMISATIONS), list(OPTIMISATIONS)], ids=", ".join)
@pytest.mark.parametrize(
    "cell", ["neighbouring-lags", "zoo-lstm", "zoo-gru", "zoo-lem", "norm-of-norms", "structurally-constrained"]
)
def test_no_result_depends_on_an_optimisation(cell: str, names: list[str]) -> None:
    problem = problem_of(*read_fixture(FOLDER / f"{cell}.npz"))
    found, expected = recorded(without(problem, names)), recorded(problem)
    errors = vectors_of(found).errors(vectors_of(expected))
    assert max(errors.values()) < ROUNDING
