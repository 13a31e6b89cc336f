"""`gradcli cells`, through the real zoo."""

from __future__ import annotations

import json
import math
import re
from fractions import Fraction
from itertools import pairwise, zip_longest

import pytest
from built_in_cells import constants, hidden_size_of, parsed
from processes import Run

from gradcli import cells
from gradcli.formats import render
from gradcli.language.cell import parse_cell
from gradcli.results.cell_sizes import parameters_per_unit, state_size, symbolic_shapes
from gradcli.results.cells import cell_in_full, zoo_list
from gradcli.spec.models import FAMILIES


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
    assert report.data["family"] == block.family
    cell, arrays = parsed(name), constants(name).arrays
    assert set(report.data["parameters"]) == set(cell.parameters) - arrays.keys()
    trained = {name for name, found in report.data["parameters"].items() if found["trained"]}
    assert trained == set(cell.parameters) - cell.fixed
    assert arrays.keys() <= report.data["constants"].keys()


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
    assert header == "name,family,title,year,reference,state_size,parameters_per_unit"
    for width in (80, 40):
        lines = render(zoo_list().report, "table", width=width, color=False, unicode=True).splitlines()
        assert max(map(len, lines)) <= width
        assert all(any(line.startswith(name) for line in lines) for name in cells.names())


@pytest.mark.parametrize("width", [None, 80, 40])
def test_the_list_is_grouped_by_family(width: int | None) -> None:
    lines = render(zoo_list().report, "table", width=width, color=False, unicode=True).splitlines()
    headings = [line for before, line in pairwise(lines) if not before and line in FAMILIES]
    assert headings == list(FAMILIES)
    first_words = [line.split(maxsplit=1)[0] if line and not line.startswith(" ") else "" for line in lines]
    for heading, following in zip_longest(headings, headings[1:]):
        part = first_words[lines.index(heading) : lines.index(following) if following else None]
        listed = [word for word in part if word in cells.names()]
        assert listed == [name for name in cells.names() if cells.load(name).cell.family == heading]


@pytest.mark.parametrize("family", FAMILIES)
def test_one_family(family: str, run: Run) -> None:
    expected = [name for name in cells.names() if cells.load(name).cell.family == family]
    for written in (family, family.lower(), family.replace(" ", "-")):
        found = zoo_list(written).report.data["cells"]
        assert [cell["name"] for cell in found] == expected
        assert {cell["family"] for cell in found} == {family}


def test_families_and_texts_on_the_command_line(run: Run) -> None:
    found = json.loads(run("cells", "--family", "matrix-memory", "--find", "forget gate", "--format", "json").stdout)
    listed = {cell["name"]: cell for cell in found["cells"]}
    assert {"matrix-lstm", "gated-retention"} <= listed.keys()
    assert {cell["family"] for cell in listed.values()} == {"matrix memory"}
    lines = run("cells", "--family", "Spiking").stdout.splitlines()
    assert lines[1:3] == ["", "spiking"]
    rows = run("cells", "--find", "(S6)", "--format", "csv").stdout.splitlines()[1:]
    assert [row.split(",")[:2] for row in rows] == [["mamba", "state space"]]


def test_a_text_is_looked_for_in_names_titles_and_notes() -> None:
    def found(text: str) -> list[str]:
        return [cell["name"] for cell in zoo_list(text=text).report.data["cells"]]

    assert "lstm-peephole" in found("with PEEPHOLES")
    assert "rnn" in found("elman")  # what else it is called
    assert found("Eagle") == ["rwkv-5"]  # its title
    assert "lmu" in found("legendre polynomials")  # its notes
    assert set(found("log  space")) == {"mingru", "mingru-log", "minlstm", "minlstm-log"}
    assert found("nosuchword") == []
    shown = zoo_list("plain", "nosuchword").report
    assert "no built-in cell of the family plain has 'nosuchword'" in render(
        shown, "table", width=80, color=False, unicode=True
    )
    assert render(shown, "csv", width=None, color=False, unicode=True).strip().startswith("name,family,")


def test_a_family_that_is_none(run: Run) -> None:
    done = run("cells", "--family", "matrix memori")
    assert (done.returncode, done.stdout) == (2, "")
    assert f"families: {', '.join(FAMILIES)}; did you mean 'matrix memory'?" in done.stderr
    done = run("cells", "rnn", "--find", "decay")
    assert (done.returncode, done.stderr) == (
        2,
        "error: --find: chooses from the list of cells; leave the name 'rnn' out\n",
    )


def test_a_cell_that_is_not_trained_says_so() -> None:
    text = render(cell_in_full("esn").report, "table", width=None, color=False, unicode=True)
    assert "0 per hidden unit, with H hidden units and I inputs; W_xh, W_hh, b_h are not trained" in text
    assert "W_hh       hidden_size x hidden_size" in text


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
    "clockwork-rnn": ("H + 3", "5H/8 + I + 1"),  # of four modules, each on itself and those behind it: 10 of 16 blocks
    "esn": ("H", "0"),  # nothing of it is trained
    "matrix-lstm": ("H^2 + H + 1", "4I + 4 + 2I/H + 2/H"),
}


@pytest.mark.parametrize("name", SIZES)
def test_state_size_and_parameters_per_unit(name: str) -> None:
    listed = {row["name"]: row for row in zoo_list(text=name).report.data["cells"]}
    assert (listed[name]["state_size"], listed[name]["parameters_per_unit"]) == SIZES[name]
    in_full = cell_in_full(name).report.data
    assert (in_full["state_size"], in_full["parameters_per_unit"]) == SIZES[name]


@pytest.mark.parametrize("name", cells.names())
def test_the_formula_gives_the_number_of_parameters(name: str) -> None:
    hidden_size, input_size = hidden_size_of(name, 7), 5
    listed = cell_in_full(name).report.data
    formula = re.sub(r"(?<=[\dH])(?=[HI])", "*", listed["parameters_per_unit"]).replace("^", "**")
    cell = parsed(name)
    every = cell.at_sizes(hidden_size, input_size).shapes.parameters
    shapes = {parameter: shape for parameter, shape in every.items() if parameter not in cell.fixed}
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
    assert [cell.name for cell in zoo_list().cells] == sorted(cells.names())
