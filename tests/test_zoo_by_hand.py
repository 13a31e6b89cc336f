"""Cells of the zoo against the same cells written by hand from their papers: outputs and parameter gradients."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pytest
from built_in_cells import WITHOUT_GRADIENT, Array, adjoints, drawn, hidden_size_of, parsed, run
from late_torch import torch
from reference import by_hand, by_hand_matrix, by_hand_vector
from reference.relative_error import vector_error

from gradcli.engine.loss import SquaredError
from gradcli.engine.problem import Run

SEQ_LEN, BATCH_SIZE, HIDDEN_SIZE, INPUT_SIZE = 8, 3, 5, 4
STD = 0.5
RELATIVE_ERROR = 1e-10
CELLS = by_hand.CELLS | by_hand_vector.CELLS | by_hand_matrix.CELLS
#: Parameters that are parts of a period, or the logarithm of one that is no shorter than a step.
FROM_0_TO_1 = {"phased-lstm": ("tau_log", "shift", "r_on")}


def numbers(name: str, rng: np.random.Generator) -> tuple[dict[str, Array], Array, Array]:
    """Return parameters, x and target, (T, batch, size)."""
    hidden_size, cell = hidden_size_of(name, HIDDEN_SIZE), parsed(name)
    params = drawn(name, rng, STD, hidden_size=hidden_size, input_size=INPUT_SIZE)
    params |= {parameter: np.abs(params[parameter]) % 1.0 for parameter in FROM_0_TO_1.get(name, ())}
    outputs = cell.at_sizes(hidden_size, INPUT_SIZE).shapes.states[cell.output]
    x = rng.normal(size=(SEQ_LEN, BATCH_SIZE, INPUT_SIZE))
    return params, x, rng.normal(size=(SEQ_LEN, BATCH_SIZE, outputs))


def engine_run(name: str, params: Mapping[str, Array], x: Array, target: Array, **start: float) -> Run:
    """Run the engine on x and target, every state starting at a number, 0 by default."""
    hidden_size = hidden_size_of(name, HIDDEN_SIZE)
    sizes = parsed(name).at_sizes(hidden_size, INPUT_SIZE).shapes.states
    states = {state: np.full((1, size, BATCH_SIZE), start.get(state, 0.0)) for state, size in sizes.items()}
    loss = SquaredError(range(1, SEQ_LEN + 1), target.transpose(0, 2, 1)[:, None])
    return run(parsed(name), params, x.transpose(0, 2, 1)[:, None], loss, states, hidden_size)


@pytest.mark.torch
@pytest.mark.parametrize("name", CELLS)
def test_outputs_and_gradients_are_those_of_the_papers_equations(name: str) -> None:
    params, x, target = numbers(name, np.random.default_rng([2024, *name.encode()]))
    leaves = {parameter: torch.tensor(value, requires_grad=True) for parameter, value in params.items()}
    outputs = CELLS[name](torch.tensor(x), leaves)
    (0.5 * (outputs - torch.tensor(target)) ** 2).sum().div(BATCH_SIZE).backward()
    result = engine_run(name, params, x, target, **(by_hand.START if name.startswith("slstm") else {}))

    assert result.recording is not None
    found = result.recording.states[f"layer0.{parsed(name).output}"][1:, 0].transpose(0, 2, 1)
    # The last unit of the ordered neurons is 0 but for the rounding of sums that are 1.
    rounding = 1e-15 if name == "on-lstm" else 0.0
    np.testing.assert_allclose(found, outputs.detach().numpy(), rtol=RELATIVE_ERROR, atol=rounding)
    trained = leaves.keys() - parsed(name).fixed
    assert {parameter.removeprefix("layer0.") for parameter in result.gradients} == trained
    for parameter in trained:
        expected = leaves[parameter].grad.numpy()
        error = vector_error(result.gradients[f"layer0.{parameter}"].value()[0], 0, expected)
        assert error is not None
        assert error < RELATIVE_ERROR, parameter


@pytest.mark.parametrize("name", WITHOUT_GRADIENT)
def test_a_stabiliser_has_no_gradient_once_the_states_that_it_scales_follow_it(name: str) -> None:
    params, x, target = numbers(name, np.random.default_rng(9))
    result = engine_run(name, params, x, target, **dict.fromkeys(parsed(name).states, 0.3))
    sizes = {state: np.abs(adjoints(result, state)[1:]).max() for state in parsed(name).states}
    assert sizes[WITHOUT_GRADIENT[name]] < 1e-12 * max(sizes.values())


@pytest.mark.parametrize("name", ["slstm", "slstm-exp"])
def test_the_stabiliser_of_the_slstm_has_no_gradient_but_at_the_start(name: str) -> None:
    params, x, target = numbers(name, np.random.default_rng(7))
    result = engine_run(name, params, x, target, c=0.3, n=1.0, m=0.2)
    of_m, of_c = (adjoints(result, state)[:, 0] for state in "mc")
    # m only says on which scale c and n are kept: c exp(m) is the state of the unscaled cell. So its own gradient is
    # 0 once c and n follow it, and at the start, where they do not, that of the scale of both.
    assert np.abs(of_m[1:]).max() < 1e-13 * np.abs(of_c[1:]).max()
    start = 0.3 * of_c[0] + 1.0 * adjoints(result, "n")[0, 0]
    np.testing.assert_allclose(of_m[0], start, rtol=1e-9)


@pytest.mark.parametrize("name", ["slstm", "slstm-exp"])
def test_from_a_zero_start_the_input_bias_of_the_slstm_has_no_gradient(name: str) -> None:
    result = engine_run(name, *numbers(name, np.random.default_rng(8)))
    of_i, of_z = (np.abs(result.gradients[f"layer0.b_{gate}"].value()).max() for gate in "iz")
    assert of_i < 1e-13 * of_z
