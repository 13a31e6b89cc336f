"""Runs of every test cell as PyTorch's autograd made them, redone without PyTorch: all numbers agree to 1e-10."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from built_in_cells import constants, states_without_gradient, without_gradients_of
from engine_runs import problem_of, recorded, vectors_of, vectors_saved
from reference.fixture_file import FOLDER, read_fixture
from simulated import simulate

from gradcli import cells

RELATIVE_ERROR = 1e-10
STORED = sorted(FOLDER.glob("*.npz"))
ZOO = "zoo-"
CELLS = sorted((Path(__file__).parent / "cells").glob("*.yaml"))


def errors_of(path: Path) -> dict[tuple[object, ...], float]:
    """Return the relative errors of losses, states, adjoints and parameter gradients against a stored run."""
    spec, stored = read_fixture(path)
    errors = vectors_of(recorded(problem_of(spec, stored))).errors(vectors_saved(stored))
    return without_gradients_of(states_without_gradient(path.stem), errors)


def largest_error(path: Path) -> float:
    """Return the largest of these errors."""
    return max(errors_of(path).values())


@pytest.mark.parametrize("path", STORED, ids=lambda path: path.stem)
def test_a_stored_run_comes_out_again(path: Path) -> None:
    errors = errors_of(path)
    assert {key: error for key, error in errors.items() if not error < RELATIVE_ERROR} == {}
    kinds = {key[0] for key in errors}
    assert kinds == {"loss", "state", "grad_state", "norm", "grad_param"}


def test_every_cell_of_the_tests_has_a_stored_run() -> None:
    assert {path.stem for path in CELLS} <= {path.stem for path in STORED}


@pytest.mark.parametrize("name", cells.names())
def test_every_built_in_cell_has_a_stored_run_of_its_equations(name: str) -> None:
    block = cells.load(name).cell
    spec = read_fixture(FOLDER / f"{ZOO}{name}.npz")[0]
    stored = spec["cell"]
    assert spec.get("tied", True) == (block.tied is not False)
    assert stored["equations"] == block.equations
    assert stored.get("output") == block.output
    assert stored.get("activation") == block.activation
    assert stored.get("constants", {}) == constants(name).numbers


@pytest.mark.parametrize("name", ["smooth-functions", "builtin-names", "second-order", "structurally-constrained"])
def test_a_stored_run_comes_out_of_the_command_again(name: str, tmp_path: Path) -> None:
    spec, stored = read_fixture(FOLDER / f"{name}.npz")
    sequence = slice(0, 1)
    states = [key.removeprefix("state.layer0.") for key in stored if key.startswith("state.layer0.")]
    np.save(tmp_path / "x.npy", stored["x"][0, :, 0])
    loss = dict(spec["loss"])
    if loss["kind"] == "mse":
        loss["target"] = {"values": stored["target"][0, :, 0].tolist()}
    given = {
        key: value
        for key, value in spec.items()
        if key in ("cell", "hidden_size", "seq_len", "activation", "constants")
    }
    simulated = simulate(
        {
            **given,
            "batch_size": 1,
            "trials": 1,
            "input": {"kind": "file", "path": "x.npy"},
            "params": {k.removeprefix("param."): v[0].tolist() for k, v in stored.items() if k.startswith("param.")},
            **{f"{state}_0": stored[f"state.layer0.{state}"][0, 0, 0].tolist() for state in states},
            "loss": loss,
        },
        tmp_path,
        save=True,
    )
    first = {
        key: value[:, :, sequence] if key.startswith(("state.", "grad_state.", "log2_state.")) else value[:, sequence]
        for key, value in stored.items()
        if key.startswith(("state.", "grad_state.", "log2_state.")) or key == "loss"
    }
    found = {
        key: value for key, value in simulated.arrays.items() if not key.startswith(("grad_param.", "log2_param."))
    }
    errors = vectors_saved(found).errors(vectors_saved(first))
    assert {key: error for key, error in errors.items() if not error < RELATIVE_ERROR} == {}
    norms = {s: np.linalg.norm(first[f"grad_state.layer0.{s}"][0, ::-1, 0], axis=1) for s in states}
    if simulated.report["total"] is None:
        for state, expected in norms.items():
            printed = 10.0 ** simulated.curve(f"layer0.{state}")
            np.testing.assert_allclose(printed, expected, rtol=RELATIVE_ERROR)
    else:
        # The curves of states are those of the last loss alone; what is stored is the gradient of all losses together.
        expected = np.sqrt(sum(np.square(norm) for norm in norms.values()))
        printed = 10.0 ** np.array(simulated.report["total"]["log10_norm"])
        np.testing.assert_allclose(printed, expected, rtol=RELATIVE_ERROR)
