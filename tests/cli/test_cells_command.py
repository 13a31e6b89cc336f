"""`gradcli cells`, through the real zoo."""

from __future__ import annotations

import json

import pytest
from processes import Run

from gradcli import cells
from gradcli.language.cell import parse_cell
from gradcli.report.cells import cell_report, symbolic_shapes, zoo_report


def test_the_list_has_every_cell(run: Run) -> None:
    done = run("cells", "--format", "json")
    assert done.returncode == 0
    listed = json.loads(done.stdout)
    assert [cell["name"] for cell in listed["cells"]] == cells.names()
    assert listed["command"] == "cells"


@pytest.mark.parametrize("name", cells.names())
def test_one_cell_in_full(name: str) -> None:
    report = cell_report(name)
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


def test_list_is_sorted_and_has_records() -> None:
    report = zoo_report()
    assert [row[0] for row in report.records.rows] == sorted(cells.names())
