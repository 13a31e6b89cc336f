"""A batch of sequences of different lengths against each sequence in a run of its own, for every cell there is."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from built_in_cells import states_without_gradient
from engine_runs import Given, problem_of
from numpy.typing import NDArray
from reference.fixture_file import FOLDER, read_fixture

from gradcli.engine.loss import Linear
from gradcli.engine.problem import Problem, Run
from gradcli.engine.run import Engine

CLOSE = 1e-10


def is_possible(name: str) -> bool:
    """Tell whether the sequences of a cell may differ in length."""
    spec = read_fixture(FOLDER / f"{name}.npz")[0]
    return "batch_norm" not in spec["cell"]["equations"] and spec.get("tied", True)


CELLS = [name for name in sorted(path.stem for path in FOLDER.glob("*.npz")) if is_possible(name)]


def varied(name: str) -> tuple[Problem, list[int]]:
    """Return a stored problem with three sequences, whose numbers are a little different, and their lengths."""
    problem = problem_of(*read_fixture(FOLDER / f"{name}.npz"))
    rng = np.random.default_rng(11)
    seq_len = problem.seq_len

    def three(values: NDArray[Any]) -> NDArray[Any]:
        copies = np.repeat(values[..., :1], 3, axis=-1)
        return copies + 0.1 * rng.normal(size=copies.shape)

    size = problem.plans[-1].cell.shapes.states[problem.plans[-1].cell.output]
    lengths = [seq_len // 2, seq_len, seq_len - 1]
    x = three(problem.source.fill(0, seq_len))
    return replace(
        problem,
        initial=[{state: three(value) for state, value in table.items()} for table in problem.initial],
        source=Given(x),
        loss=Linear(range(1, seq_len + 1), rng.normal(size=(problem.trials, size))),
        batch_size=3,
        starts=seq_len - np.array(lengths),
    ), lengths


def alone(problem: Problem, sequence: int, length: int) -> Run:
    """Run one of the sequences by itself."""
    assert isinstance(problem.loss, Linear)
    own = [{state: value[..., [sequence]] for state, value in table.items()} for table in problem.initial]
    x = problem.source.fill(problem.seq_len - length, problem.seq_len)[..., [sequence]]
    loss = Linear(range(1, length + 1), problem.loss.vector)
    return Engine(
        replace(problem, initial=own, source=Given(x), loss=loss, seq_len=length, batch_size=1, starts=None)
    ).run()


@pytest.mark.parametrize("name", CELLS)
def test_each_sequence_is_as_it_is_alone(name: str) -> None:
    problem, lengths = varied(name)
    references = [alone(problem, sequence, length) for sequence, length in enumerate(lengths)]
    rounding = states_without_gradient(name)
    for choices in ({}, {"segment": 3, "block": 2}, {"segment": 1}):
        run = Engine(problem, **choices).run()
        for sequence, reference in enumerate(references):
            np.testing.assert_allclose(run.losses[:, sequence], reference.losses[:, 0], rtol=CLOSE, atol=0)
            for state, norms in reference.log2_norm.items():
                if state not in rounding:
                    found = run.log2_norm[state][problem.seq_len - lengths[sequence] :, :, sequence]
                    np.testing.assert_allclose(np.exp2(found), np.exp2(norms[..., 0]), rtol=CLOSE, atol=0)
        for parameter, gradient in run.gradients.items():
            parts = [reference.gradients[parameter].value() for reference in references]
            size = max(np.linalg.norm(part) for part in parts) / len(parts)
            assert np.linalg.norm(gradient.value() - np.mean(parts, axis=0)) <= CLOSE * size
