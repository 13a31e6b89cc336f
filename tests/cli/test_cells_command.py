"""`gradcli cells`, through the real zoo."""

from __future__ import annotations

import json
import math
import re
from fractions import Fraction

import pytest
from processes import Run

from gradcli import cells
from gradcli.formats import render
from gradcli.language.cell import parse_cell
from gradcli.results.cell_sizes import parameters_per_unit, state_size, symbolic_shapes
from gradcli.results.cells import cell_in_full, zoo_list


def test_the_list_has_every_cell(run: Run) -> None:
    done = run("cells", "--format", "json")
    assert done.returncode == 0
    listed = json.loads(done.stdout)
    assert [cell["name"] for cell in listed["cells"]] == cells.names()
    assert listed["command"] == "cells"


@pytest.mark.parametrize("name", cells.names())
def test_one_cell_in_full(name: str) -> None:
    report = cell_in_full(name).report
    block = cells.load(name).cell
    assert report.data["equations"] == block.equations
    assert report.data["reference"] == block.reference
    parsed = parse_cell(
        block.equations,
        output=block.output,
        constants=block.constants,
        shapes=block.shapes,
        activation=block.activation,
    )
    assert set(report.data["parameters"]) == set(parsed.parameters)


def test_one_cell_for_people(run: Run) -> None:
    done = run("cells", "lstm")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("lstm   Long short-term memory")
    assert "  c[t] = f * c[t-1] + i * g\n" in done.stdout
    assert "W_xf       hidden_size x input_size\n" in done.stdout


def test_the_list_on_a_screen_and_in_a_pipe(run: Run) -> None:
    piped = run("cells").stdout.splitlines()
    assert piped[0].split() == ["name", "state", "parameters", "per", "unit", "year", "title", "reference"]
    assert any(
        "Hochreiter and Schmidhuber 1997; forget gate Gers, Schmidhuber and Cummins 2000" in line for line in piped
    )
    header = run("cells", "--format", "csv").stdout.splitlines()[0]
    assert header == "name,title,year,reference,state_size,parameters_per_unit"
    for width in (80, 40):
        lines = render(zoo_list().report, "table", width=width, color=False, unicode=True).splitlines()
        assert max(map(len, lines)) <= width
        assert all(any(line.startswith(name) for line in lines) for name in cells.names())


def test_shapes_in_terms_of_the_sizes() -> None:
    cell = parse_cell(
        "f = sigmoid(W_f @ [h[t-1], x[t]] + b_f)\nh[t] = f * h[t-1] + W_p @ (W_m @ x[t])",
        shapes={"W_m": [3, "input_size"]},
    )
    assert symbolic_shapes(cell) == {
        "W_f": ("hidden_size", "hidden_size + input_size"),
        "W_m": ("3", "input_size"),
        "W_p": ("hidden_size", "3"),
        "b_f": ("hidden_size",),
    }
    residual = parse_cell("h[t] = h[t-1] + tanh(W_hh @ h[t-1]) + x[t]")
    assert symbolic_shapes(residual) == {"W_hh": ("hidden_size", "hidden_size")}


# At hidden size H and input size I, by hand.
SIZES = {
    "lstm": ("2H", "4H + 4I + 8"),  # two biases a gate, as in PyTorch
    "gru": ("H", "3H + 3I + 6"),
    "rnn-lags": ("2H", "2H + I + 1"),  # h[t-2] too
    "fastgrnn": ("H", "H + I + 2 + 2/H"),  # two numbers for the whole layer
    "unicornn": ("2H", "I + 3"),
    "lru": ("2H", "2H + 2I + 2"),  # the output h is not carried on
    "sru": ("H", "4I + 4"),
    "slstm": ("4H", "4H + 4I + 4"),
}


@pytest.mark.parametrize("name", SIZES)
def test_state_size_and_parameters_per_unit(name: str) -> None:
    listed = {row["name"]: row for row in zoo_list().report.data["cells"]}
    assert (listed[name]["state_size"], listed[name]["parameters_per_unit"]) == SIZES[name]
    in_full = cell_in_full(name).report.data
    assert (in_full["state_size"], in_full["parameters_per_unit"]) == SIZES[name]


@pytest.mark.parametrize("name", cells.names())
def test_the_formula_gives_the_number_of_parameters(name: str) -> None:
    hidden_size, input_size = 7, 5
    listed = next(row for row in zoo_list().report.data["cells"] if row["name"] == name)
    formula = re.sub(r"(?<=\d)(?=[HI])", "*", listed["parameters_per_unit"])
    block = cells.load(name).cell
    parsed = parse_cell(block.equations, constants=block.constants, shapes=block.shapes, activation=block.activation)
    shapes = parsed.at_sizes(hidden_size, input_size).shapes.parameters
    twice = {"lstm": 4, "lstm-projected": 4, "gru": 2, "rnn": 1}  # biases of which PyTorch has two
    count = sum(math.prod(shape) for shape in shapes.values()) + twice.get(name, 0) * hidden_size
    values = {"H": Fraction(hidden_size), "I": Fraction(input_size)}
    assert hidden_size * eval(formula, values) == count


def test_formulas_of_other_sizes() -> None:
    cell = parse_cell(
        "m = W_m @ x[t]\nh[t] = a * h[t-1] + W_h @ m + W_k @ (W_l @ o[t-1])\no[t] = W_o @ h[t-3]",
        shapes={"W_m": ["input_size", "input_size"], "W_l": [3, 3], "o": [3], "a": []},
    )
    # h three steps back and o: 3H + 3. W_m I^2, W_h HI, W_k 3H, W_l 9, W_o 3H, a 1.
    assert state_size(cell) == "3H + 3"
    assert parameters_per_unit(cell) == "I + 6 + I^2/H + 10/H"
    assert state_size(parse_cell("h[t] = W @ x[t]")) == "0"


def test_list_is_sorted_and_has_records() -> None:
    report = zoo_list().report
    assert [row[0] for row in report.records.rows] == sorted(cells.names())
