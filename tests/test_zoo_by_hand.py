"""Cells of the zoo against the same cells written by hand from their papers: outputs and parameter gradients."""

from __future__ import annotations

import numpy as np
import pytest
from built_in_cells import Array, adjoints, parsed, run
from late_torch import torch
from reference.by_hand import CELLS, START
from reference.relative_error import vector_error

from gradcli.engine.loss import SquaredError
from gradcli.engine.problem import Run

SEQ_LEN, BATCH_SIZE, HIDDEN_SIZE, INPUT_SIZE = 8, 3, 5, 4
RELATIVE_ERROR = 1e-10


def drawn(name: str, rng: np.random.Generator) -> dict[str, Array]:
    shapes = parsed(name).at_sizes(HIDDEN_SIZE, INPUT_SIZE).shapes.parameters
    return {parameter: rng.normal(0.0, 0.5, shape) for parameter, shape in shapes.items()}


def engine_run(name: str, params: dict[str, Array], x: Array, target: Array, **start: float) -> Run:
    """Run the engine on x and target (T, batch, size), every state starting at a number, 0 by default."""
    states = {state: np.full((1, HIDDEN_SIZE, BATCH_SIZE), start.get(state, 0.0)) for state in parsed(name).states}
    loss = SquaredError(range(1, SEQ_LEN + 1), target.transpose(0, 2, 1)[:, None])
    return run(parsed(name), params, x.transpose(0, 2, 1)[:, None], loss, states)


@pytest.mark.torch
@pytest.mark.parametrize("name", CELLS)
def test_outputs_and_gradients_are_those_of_the_papers_equations(name: str) -> None:
    rng = np.random.default_rng([2024, *name.encode()])
    params = drawn(name, rng)
    x = rng.normal(size=(SEQ_LEN, BATCH_SIZE, INPUT_SIZE))
    target = rng.normal(size=(SEQ_LEN, BATCH_SIZE, HIDDEN_SIZE))

    leaves = {parameter: torch.tensor(value, requires_grad=True) for parameter, value in params.items()}
    outputs = CELLS[name](torch.tensor(x), leaves)
    (0.5 * (outputs - torch.tensor(target)) ** 2).sum().div(BATCH_SIZE).backward()
    result = engine_run(name, params, x, target, **(START if name.startswith("slstm") else {}))

    assert result.recording is not None
    found = result.recording.states[f"layer0.{parsed(name).output}"][1:, 0].transpose(0, 2, 1)
    np.testing.assert_allclose(found, outputs.detach().numpy(), rtol=RELATIVE_ERROR)
    assert {parameter.removeprefix("layer0.") for parameter in result.gradients} == leaves.keys()
    for parameter, leaf in leaves.items():
        error = vector_error(result.gradients[f"layer0.{parameter}"].value()[0], 0, leaf.grad.numpy())
        assert error is not None
        assert error < RELATIVE_ERROR, parameter


@pytest.mark.parametrize("name", ["slstm", "slstm-exp"])
def test_the_stabiliser_of_the_slstm_has_no_gradient_but_at_the_start(name: str) -> None:
    rng = np.random.default_rng(7)
    params = drawn(name, rng)
    x = rng.normal(size=(SEQ_LEN, BATCH_SIZE, INPUT_SIZE))
    target = rng.normal(size=(SEQ_LEN, BATCH_SIZE, HIDDEN_SIZE))
    result = engine_run(name, params, x, target, c=0.3, n=1.0, m=0.2)
    of_m, of_c = (adjoints(result, state)[:, 0] for state in "mc")
    # m only says on which scale c and n are kept: c exp(m) is the state of the unscaled cell. So its own gradient is
    # 0 once c and n follow it, and at the start, where they do not, that of the scale of both.
    assert np.abs(of_m[1:]).max() < 1e-13 * np.abs(of_c[1:]).max()
    start = 0.3 * of_c[0] + 1.0 * adjoints(result, "n")[0, 0]
    np.testing.assert_allclose(of_m[0], start, rtol=1e-9)


@pytest.mark.parametrize("name", ["slstm", "slstm-exp"])
def test_from_a_zero_start_the_input_bias_of_the_slstm_has_no_gradient(name: str) -> None:
    rng = np.random.default_rng(8)
    params = drawn(name, rng)
    x = rng.normal(size=(SEQ_LEN, BATCH_SIZE, INPUT_SIZE))
    result = engine_run(name, params, x, rng.normal(size=(SEQ_LEN, BATCH_SIZE, HIDDEN_SIZE)))
    of_i, of_z = (np.abs(result.gradients[f"layer0.b_{gate}"].value()).max() for gate in "iz")
    assert of_i < 1e-13 * of_z
