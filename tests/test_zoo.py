"""The files of the built-in cells: complete, with parameters counted by hand, and the same as torch.nn's own layers."""

from __future__ import annotations

import re
from fnmatch import fnmatchcase
from importlib import resources
from pathlib import Path

import numpy as np
import pytest
import yaml
from built_in_cells import (
    HIDDEN_SIZE,
    INPUT_SIZE,
    Array,
    adjoints,
    at_sizes,
    constants,
    hidden_size_of,
    parsed,
    run,
)
from late_torch import torch
from reference.framework_cells import gradients_of, module_of, parameters_of
from reference.relative_error import vector_error
from reference.shapes import layer_shapes
from simulated import simulate

from gradcli import cells
from gradcli.engine.loss import SquaredError
from gradcli.sources.initialisers import Parameter, draw_parameter
from gradcli.spec.models import FAMILIES

# Weights and biases at hidden size 5 and input size 3, counted by hand: a gate with both products and a bias has
# 5*3 + 5*5 + 5 = 45, one that sees the input alone 5*3 + 5 = 20.
PARAMETER_COUNTS = {
    "antisymmetric-rnn": 45,
    "antisymmetric-rnn-gated": 45 + 20,  # the gate shares the recurrent matrix
    "atr": 45,
    "batch-norm-lstm": 4 * (45 + 2 * 5) + 2 * 5,  # two gains a gate; gain and shift of the cell state
    "batch-norm-rnn": 45 + 2 * 5,
    "brc": 3 * 15 + 4 * 5,  # two diagonals, two biases
    "cfn": 2 * 45 + 15,
    "cornn": 45 + 25,  # from the position and from the velocity
    "dense-block": 20 + 12 * 25,  # a matrix for each of twelve layers
    "dense-block-bn": 20 + 12 * 25 + 5,
    "fastgrnn": 45 + 5 + 2,  # one pair of matrices, two biases, two numbers
    "fastrnn": 45 + 2,
    "gru": 3 * 45 + 5,  # b_hn
    "gru-textbook": 3 * 45,
    "indrnn": 20 + 5,  # u in place of a matrix
    "indylstm": 4 * (20 + 5),
    "irnn": 45,
    "janet": 2 * 45,
    "jordan-rnn": 45 + 25 + 5,  # and the output's layer
    "layer-norm-lstm": 4 * (45 + 2 * 5) + 2 * 5,
    "leaky-rnn": 45,
    "lem": 4 * 45,
    "light-gru": 2 * 45,
    "lipschitz-rnn": 45 + 25,  # A and W
    "lru": 2 * 15 + 2 * 25 + 2 * 5,  # B, C and the eigenvalues, each of two parts
    "lstm": 4 * 45,
    "lstm-coupled": 3 * 45,
    "lstm-no-forget": 3 * 45,
    "lstm-peephole": 4 * 45 + 3 * 5,
    "lstm-projected": 4 * 45 + 25,
    "mgu": 2 * 45,
    "mingru": 2 * 20,
    "minimalrnn": 20 + 25 + 25 + 5,
    "minlstm": 3 * 20,
    "mlstm": 4 * 45 + 15 + 25,  # and the two factors of m
    "mrnn": 45 + 15 + 25,
    "mut3": 3 * 45,
    "nbrc": 3 * 15 + 2 * 25 + 2 * 5,
    "orthogonal-rnn": 45,
    "plain-stack": 45,
    "plain-stack-bn": 45 + 5,
    "qrnn": 3 * 20,
    "ran": 2 * 45 + 15,
    "residual-rnn": 45,
    "residual-stack": 15 + 2 * (25 + 5),
    "residual-stack-bn": 15 + 2 * (25 + 5 + 5),
    "rhn": 2 * 45 + 4 * 30,  # two more layers of 25 + 5 each for candidate and gate
    "rnn": 45,
    "rnn-lags": 45 + 25,  # the second recurrent matrix
    "rwa": 2 * 40 + 20 + 5,
    "rwkv": 3 * 15 + 2 * 5,
    "scrn": 2 * 15 + 2 * 25,
    "slstm": 4 * 45,
    "slstm-exp": 4 * 45,
    "sru": 4 * 15 + 4 * 5,
    "star": 45 + 20,
    "ugrnn": 2 * 45,
    "unicornn": 15 + 3 * 5,
}


def test_every_cell_in_the_table_of_counts_is_here() -> None:
    assert PARAMETER_COUNTS.keys() <= set(cells.names())


@pytest.mark.parametrize("name", cells.names())
def test_a_file_says_what_the_cell_is(name: str) -> None:
    block = cells.load(name).cell
    assert block.title
    assert block.family in FAMILIES
    assert block.notes
    assert block.year is not None
    assert block.reference is not None
    assert str(block.year) in block.reference, "the year is that of a paper in the reference"


@pytest.mark.parametrize("name", PARAMETER_COUNTS)
def test_parameter_count(name: str) -> None:
    shapes = parsed(name).at_sizes(HIDDEN_SIZE, INPUT_SIZE).shapes.parameters
    assert sum(int(np.prod(shape)) for shape in shapes.values()) == PARAMETER_COUNTS[name]


@pytest.mark.parametrize("name", cells.names())
def test_shapes_are_those_of_the_references_own_reading(name: str) -> None:
    text = (resources.files(cells) / f"{name}.yaml").read_text(encoding="utf-8")
    block = yaml.safe_load(text)
    cell, hidden_size = parsed(name), hidden_size_of(name)
    # A constant that is an array is a parameter that no training changes.
    numbers = {constant: value for constant, value in block.get("constants", {}).items() if constant not in cell.fixed}
    expected = layer_shapes(block | {"constants": numbers}, hidden_size, INPUT_SIZE)
    shapes = cell.at_sizes(hidden_size, INPUT_SIZE).shapes
    assert (shapes.of_states, shapes.parameters) == (expected.states, expected.parameters)


@pytest.mark.parametrize("name", cells.names())
def test_parameters_are_named_as_the_field_does(name: str) -> None:
    assigned = re.findall(r"(?m)^(\w+)", cells.load(name).cell.equations)
    for parameter, shape in at_sizes(name).shapes.parameters.items():
        head, _, tail = parameter.partition("_")
        if head.rstrip("0123456789") in PAPERS_LETTERS or parameter in constants(name).arrays:
            continue
        if len(shape) == 2:
            # W_<source><gate>: from the input, from a state, or from an intermediate such as m, or h1 in a deep step.
            sources = ["x"] if shape[1] == INPUT_SIZE else [source.rstrip("0123456789") for source in assigned]
            assert parameter.startswith(tuple(f"W_{source}" for source in (*sources, *WITHOUT_A_NAME)))
        else:
            assert head in ("b", "w", "g") or tail in ("log", "logit")


#: What papers call parameters that are neither weights nor biases: of state space models and differential equations, of
#: mixed inputs, of decays, rates and steps, of time constants and periods, of synapses.
PAPERS_LETTERS = {
    *("alpha", "beta", "gamma", "delta", "eta", "lambda", "mu", "rho", "sigma", "tau", "theta", "xi", "nu"),
    *("A", "B", "C", "D", "E", "M", "S", "a", "b", "c", "d", "dt", "e", "g", "r", "s", "u", "v", "w", "shift"),
}
#: What a matrix maps from, or to, that has no name in the equations: what is between two products in a row, the start
#: of a memory, and the parts of a matrix that changes itself.
WITHOUT_A_NAME = ("r", "e", "m", "p", "0", "y", "b")


@pytest.mark.parametrize("name", cells.names())
def test_the_initialisation_reaches_every_parameter_and_each_pattern_one(name: str) -> None:
    block = cells.load(name).cell
    parameters = set(parsed(name).parameters) - constants(name).arrays.keys()
    for pattern in block.init:
        assert any(fnmatchcase(parameter, pattern) for parameter in parameters), pattern
    for parameter in parameters:
        assert any(fnmatchcase(parameter, pattern) for pattern in block.init), parameter


@pytest.mark.parametrize("name", cells.names())
def test_the_initialisation_suits_every_parameter(name: str) -> None:
    block = cells.load(name).cell
    arrays, shapes = constants(name).arrays, at_sizes(name).shapes.parameters
    places = [Parameter("layer0", parameter, shape) for parameter, shape in shapes.items() if parameter not in arrays]
    for place in places:
        law = [law for pattern, law in block.init.items() if fnmatchcase(place.name, pattern)][-1]
        drawn = draw_parameter(
            place,
            law,
            cell_parameters=places,
            hidden_size=hidden_size_of(name),
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


@pytest.mark.parametrize("name", cells.names())
def test_a_run_with_the_cells_own_settings_stays_finite_and_alive(name: str, tmp_path: Path) -> None:
    sizes = {"hidden_size": 16, "input_size": 16, "batch_size": 2, "trials": 2}
    simulated = simulate({"cell": name, **sizes}, tmp_path)
    # Blocks that add to their input without normalisation double its variance by layer. Normalised, two sequences
    # are -1 and 1: next to nothing passes the first step of a dense block, and what does grows again. The heads of the
    # NRU are linear in the memory that they add to.
    grows = name in ("residual-stack", "dense-block-bn", "nru")
    expected = ("exploding",) if grows else ("stable", "vanishing", "transient")
    assert simulated.verdict["kind"] in expected
    assert np.isfinite(simulated.curve()).all()


@pytest.mark.torch
@pytest.mark.parametrize("kind", ["rnn", "lstm", "gru"])
def test_states_and_gradients_are_those_of_torch_nn(kind: str) -> None:
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
