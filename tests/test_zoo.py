"""The files of the built-in cells: complete, with parameters counted by hand, and the same as torch.nn's own layers."""

from __future__ import annotations

from fnmatch import fnmatchcase
from typing import Any

import numpy as np
import pytest
from built_in_cells import HIDDEN_SIZE, INPUT_SIZE, Array, adjoints, parsed, run
from reference.relative_error import vector_error

from gradcli import cells
from gradcli.engine.loss import SquaredError
from gradcli.sources.initialisers import Parameter, draw_parameter

# Weights and biases at hidden size 5 and input size 3, counted by hand: a gate with both products and a bias has
# 5*3 + 5*5 + 5 = 45, one that sees the input alone 5*3 + 5 = 20.
PARAMETER_COUNTS = {
    "antisymmetric-rnn": 45,
    "batch-norm-lstm": 4 * (45 + 2 * 5) + 2 * 5,  # two gains a gate; gain and shift of the cell state
    "batch-norm-rnn": 45 + 2 * 5,
    "gru": 3 * 45 + 5,  # b_hn
    "gru-textbook": 3 * 45,
    "indrnn": 20 + 5,  # u in place of a matrix
    "janet": 2 * 45,
    "layer-norm-lstm": 4 * (45 + 2 * 5) + 2 * 5,
    "leaky-rnn": 45,
    "lstm": 4 * 45,
    "lstm-coupled": 3 * 45,
    "lstm-peephole": 4 * 45 + 3 * 5,
    "mgu": 2 * 45,
    "mingru": 2 * 20,
    "minlstm": 3 * 20,
    "residual-rnn": 45,
    "rnn": 45,
    "rnn-lags": 45 + 25,  # the second recurrent matrix
}


def test_every_cell_is_in_the_table_of_counts() -> None:
    assert cells.names() == sorted(PARAMETER_COUNTS)


@pytest.mark.parametrize("name", cells.names())
def test_a_file_says_what_the_cell_is(name: str) -> None:
    block = cells.load(name).cell
    assert block.title
    assert block.notes
    assert block.year is not None
    assert block.reference is not None
    assert str(block.year) in block.reference, "the year is that of a paper in the reference"


@pytest.mark.parametrize("name", cells.names())
def test_parameter_count(name: str) -> None:
    shapes = parsed(name).at_sizes(HIDDEN_SIZE, INPUT_SIZE).shapes.parameters
    assert sum(int(np.prod(shape)) for shape in shapes.values()) == PARAMETER_COUNTS[name]


@pytest.mark.parametrize("name", cells.names())
def test_parameters_are_named_as_the_field_does(name: str) -> None:
    for parameter, shape in parsed(name).at_sizes(HIDDEN_SIZE, INPUT_SIZE).shapes.parameters.items():
        if len(shape) == 2:
            assert parameter.startswith("W_x" if shape[1] == INPUT_SIZE else "W_h")
        else:
            assert parameter.startswith(("b_", "g_", "w_c")) or (name, parameter) == ("indrnn", "u")


@pytest.mark.parametrize("name", cells.names())
def test_the_initialisation_reaches_every_parameter_and_each_pattern_one(name: str) -> None:
    block, parameters = cells.load(name).cell, parsed(name).parameters
    for pattern in block.init:
        assert any(fnmatchcase(parameter, pattern) for parameter in parameters), pattern
    for parameter in parameters:
        assert any(fnmatchcase(parameter, pattern) for pattern in block.init), parameter


@pytest.mark.parametrize("name", cells.names())
def test_the_initialisation_suits_every_parameter(name: str) -> None:
    block = cells.load(name).cell
    shapes = parsed(name).at_sizes(HIDDEN_SIZE, INPUT_SIZE).shapes.parameters
    places = [Parameter("layer0", parameter, shape) for parameter, shape in shapes.items()]
    for place in places:
        law = [law for pattern, law in block.init.items() if fnmatchcase(place.name, pattern)][-1]
        drawn = draw_parameter(
            place,
            law,
            cell_parameters=places,
            hidden_size=HIDDEN_SIZE,
            seq_len=100,
            seed=0,
            trial=0,
            chrono_signs=block.chrono,
        )
        assert drawn.shape == place.shape


@pytest.mark.parametrize("name", cells.names())
def test_chrono_is_for_biases_of_the_cell(name: str) -> None:
    chrono = cells.load(name).cell.chrono
    assert chrono.keys() <= {parameter for parameter in parsed(name).parameters if parameter.startswith("b_")}


@pytest.mark.parametrize("kind", ["rnn", "lstm", "gru"])
def test_states_and_gradients_are_those_of_torch_nn(kind: str) -> None:
    torch: Any = pytest.importorskip("torch")
    from reference.framework_cells import gradients_of, module_of, parameters_of

    seq_len, batch_size, states = 12, 4, parsed(kind).states
    torch.manual_seed(3)
    rng = np.random.default_rng(11)
    module = module_of(kind, INPUT_SIZE, HIDDEN_SIZE, 1)
    x = rng.normal(size=(seq_len, batch_size, INPUT_SIZE))
    target = rng.normal(size=(seq_len, batch_size, HIDDEN_SIZE))
    start = {state: rng.normal(0.0, 0.5, (batch_size, HIDDEN_SIZE)) for state in states}

    leaves = {state: torch.tensor(value[None], requires_grad=True) for state, value in start.items()}
    given = (leaves["h"], leaves["c"]) if kind == "lstm" else leaves["h"]
    outputs, _ = module(torch.tensor(x), given)
    (0.5 * (outputs - torch.tensor(target)) ** 2).sum().div(batch_size).backward()
    by_module = {name: value.detach().numpy() for name, value in module.named_parameters()}
    gradients = gradients_of(kind, {name: value.grad.numpy() for name, value in module.named_parameters()}, 1)

    result = run(
        parsed(kind),
        {name.removeprefix("layer0."): value for name, value in parameters_of(kind, by_module, 1).items()},
        x.transpose(0, 2, 1)[:, None],
        SquaredError(range(1, seq_len + 1), target.transpose(0, 2, 1)[:, None]),
        {state: value.T[None] for state, value in start.items()},
    )

    assert result.recording is not None
    found = result.recording.states["layer0.h"][1:, 0].transpose(0, 2, 1)
    np.testing.assert_allclose(found, outputs.detach().numpy(), rtol=1e-11, atol=1e-14)
    assert result.gradients.keys() == gradients.keys()
    for name, gradient in gradients.items():
        assert _agrees(result.gradients[name].value()[0], gradient), name
    for state, leaf in leaves.items():
        # Ours is the gradient of each sequence's own loss, PyTorch's that of their mean.
        assert _agrees(adjoints(result, state)[0, 0].T, batch_size * leaf.grad.numpy()[0]), state


def _agrees(found: Array, expected: Array) -> bool:
    error = vector_error(found, 0, expected)
    return error is not None and error < 1e-12
