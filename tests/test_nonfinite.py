"""Runs that leave the finite numbers: every command says where, in which operation, and on what; the gate closes."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from in_process import Finished, gradcli

COMMANDS = ("simulate", "jacobian", "paths", "contributions", "gates")
SIZES = {"hidden_size": 4, "input_size": 2, "seq_len": 9, "batch_size": 2, "trials": 4}

FORWARD: dict[str, tuple[dict[str, Any], str, str]] = {
    "a product": (
        {"cell": {"equations": "h[t] = W @ h[t-1]"}, "params": {"W": 1e200}, "h_0": 1},
        "overflows at step 2, layer0: h[t] = W @ h[t-1], where the product with W is beyond the largest float64",
        "smaller weights",
    ),
    "exp": (
        {"cell": {"equations": "a = 2 * h[t-1]\nh[t] = exp(a)"}, "h_0": 400},
        "overflows at step 1, layer0: h[t] = exp(a), where exp takes 800",
        "smaller weights",
    ),
    "a factor": (
        {"cell": {"equations": "h[t] = h[t-1] * h[t-1]"}, "h_0": 1e200},
        "overflows at step 1, layer0: h[t] = h[t-1] * h[t-1], where 1e200 is multiplied by 1e200",
        "smaller weights",
    ),
    "log": (
        {"cell": {"equations": "h[t] = log(h[t-1])"}, "h_0": 0.5},
        "leaves the finite numbers at step 2, layer0: h[t] = log(h[t-1]), where log takes -0.6931",
        "a negative number has no logarithm",
    ),
    "log of zero": (
        {"cell": {"equations": "h[t] = log(h[t-1])"}, "h_0": 1},
        "leaves the finite numbers at step 2, layer0: h[t] = log(h[t-1]), where log takes 0",
        "zero has no logarithm",
    ),
    "sqrt": (
        {"cell": {"equations": "h[t] = sqrt(h[t-1] - 2)"}, "h_0": 3},
        "leaves the finite numbers at step 2, layer0: h[t] = sqrt(h[t-1] - 2), where sqrt takes -1",
        "a negative number has no square root",
    ),
    "a quotient": (
        {"cell": {"equations": "h[t] = 1 / h[t-1] - 1"}, "h_0": 1},
        "leaves the finite numbers at step 2, layer0: h[t] = 1 / h[t-1] - 1, where 1 is divided by 0",
        "a divisor that cannot become zero",
    ),
    "a power": (
        {"cell": {"equations": "h[t] = h[t-1] ** 0.5 - 2"}, "h_0": 1},
        "leaves the finite numbers at step 2, layer0: h[t] = h[t-1] ** 0.5 - 2, where -1 is raised to the power 0.5",
        "a base that stays above zero",
    ),
    "a weight in float32": (
        {"cell": "rnn", "params": {"W_hh": 1e300}, "dtype": "float32"},
        "where W_hh is beyond the largest float32 (3.4e38)",
        "float64",
    ),
    "an input in float32": (
        {"cell": "rnn", "input": {"kind": "normal", "std": 1e300}, "dtype": "float32"},
        "where x[t] is beyond the largest float32 (3.4e38)",
        "float64",
    ),
}
BACKWARD: dict[str, tuple[dict[str, Any], str, str]] = {
    "sqrt at zero": (
        {"cell": {"equations": "h[t] = sqrt(h[t-1]) + A @ x[t] * 0"}},
        "at step 9, layer0: h[t] = sqrt(h[t-1]) + A @ x[t] * 0, that of sqrt at 0",
        "the derivative of sqrt at 0 is not",
    ),
    "a divisor of zero": (
        {"cell": {"equations": "h[t] = tanh(A @ x[t] / h[t-1])"}},
        "at step 1, layer0: h[t] = tanh(A @ x[t] / h[t-1]), that of a quotient whose divisor is 0",
        "the derivative of a quotient whose divisor is 0 is not",
    ),
    "a root written as a power": (
        {"cell": {"equations": "h[t] = h[t-1] ** 0.5 + A @ x[t] * 0"}},
        "that of 0 ** 0.5",
        "a base that stays above zero",
    ),
}


def run(command: str, folder: Path, fields: dict[str, Any], *options: object) -> Finished:
    spec = folder / "spec.yaml"
    cell = fields["cell"]
    cell = {"name": "own", **cell} if isinstance(cell, dict) else cell
    spec.write_text(json.dumps({**SIZES, **fields, "cell": cell}), encoding="utf-8")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return gradcli(command, spec, *options)


def words(finished: Finished) -> str:
    return " ".join(finished.stdout.split())


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("kind", [*FORWARD, *BACKWARD])
def test_every_command_names_the_operation_and_its_argument(kind: str, command: str, tmp_path: Path) -> None:
    fields, place, advice = (FORWARD | BACKWARD)[kind]
    finished = run(command, tmp_path, fields)
    assert finished.code == 0, finished.stderr
    assert finished.stderr == ""
    assert "NONFINITE" in finished.stdout
    assert place in words(finished)
    assert advice in words(finished)
    assert ("smaller weights" in words(finished)) == (advice == "smaller weights")
    assert "in all 4 trials" in words(finished)


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("kind", ["a product", "sqrt at zero"])
def test_where_trials_run_one_by_one_all_of_them_are_counted(
    kind: str, command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from gradcli.engine import sizes

    monkeypatch.setattr(sizes, "_NUMBERS_A_CALL", 1)
    finished = run(command, tmp_path, (FORWARD | BACKWARD)[kind][0])
    assert "in all 4 trials" in words(finished), finished.stdout


@pytest.mark.parametrize("at_once", [1, 4])
@pytest.mark.parametrize("kind", [*FORWARD, *BACKWARD])
def test_simulate_saves_what_exists_and_the_gate_closes(
    kind: str, at_once: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from gradcli.engine import sizes

    if at_once == 1:
        monkeypatch.setattr(sizes, "_NUMBERS_A_CALL", 1)
    fields = (FORWARD | BACKWARD)[kind][0]
    finished = run("simulate", tmp_path, fields, "--save", tmp_path / "run.npz")
    assert finished.code == 0, finished.stderr
    with np.load(tmp_path / "run.npz") as file:
        arrays = dict(file)
    assert arrays["x"].shape == (4, 9, 2, 2)
    states = arrays["state.layer0.h"]
    assert states.shape == (4, 10, 2, 4)
    assert np.isfinite(states[:, 0]).all() or "float32" in kind
    assert arrays["loss"].shape == (4, 2)
    assert not any(name.startswith("grad_") for name in arrays)
    assert np.isfinite(states).all() == (kind in BACKWARD)
    assert np.isfinite(arrays["loss"]).all() == np.isfinite(states[:, -1]).all()
    gated = run("simulate", tmp_path, fields, "--save", tmp_path / "again.npz", "--fail-on", "nonfinite")
    assert gated.code == 3
    assert (tmp_path / "again.npz").stat().st_size > 0


def test_the_other_trials_of_a_saved_run_are_as_good_as_before(tmp_path: Path) -> None:
    fields = {"cell": {"equations": "h[t] = h[t-1] * h[t-1]"}, "h_0": {"uniform": 1.5}}
    fields |= {"hidden_size": 1, "input_size": 1, "batch_size": 1, "trials": 8, "seq_len": 14}
    finished = run("simulate", tmp_path, fields, "--save", tmp_path / "run.npz")
    assert finished.code == 0, finished.stderr
    with np.load(tmp_path / "run.npz") as file:
        states = file["state.layer0.h"][:, :, 0, 0]
    first = np.abs(states[:, 0])
    with np.errstate(over="ignore", under="ignore"):
        expected = first[:, None] ** (2.0 ** np.arange(15))
    assert 0 < np.isinf(expected[:, -1]).sum() < 8
    small = first < 1
    np.testing.assert_allclose(states[small, 1:], expected[small, 1:], rtol=1e-6)
    assert np.isinf(states[~small, -1]).all()


@pytest.mark.parametrize("kind", ["a product", "sqrt at zero"])
def test_compare_with_one_such_arm_ranks_the_other(kind: str, tmp_path: Path) -> None:
    fields = (FORWARD | BACKWARD)[kind][0]
    finished = run("compare", tmp_path, fields, "rnn", "--save", tmp_path / "both.npz", "--fail-on", "nonfinite")
    assert finished.code == 3
    assert "farthest in rnn" in words(finished)
    with np.load(tmp_path / "both.npz") as file:
        assert {"spec/x", "spec/loss", "spec/state.layer0.h", "rnn/x", "rnn/grad_param.layer0.W_hh"} <= set(file)


@pytest.mark.parametrize("shape", ["[]", "[1]", "[2]", "[hidden_size]"])
@pytest.mark.parametrize("equation", ["A @ B @ h[t-1]", "A @ h[t-1]", "B @ A @ h[t-1]", "(2 * A) @ [h[t-1], x[t]]"])
def test_a_matrix_has_two_sizes(equation: str, shape: str, tmp_path: Path) -> None:
    spec = tmp_path / "spec.yaml"
    spec.write_text(
        f"cell:\n  name: own\n  equations: h[t] = tanh({equation})\n  shapes: {{A: {shape}}}\nhidden_size: 4\n",
        encoding="utf-8",
    )
    finished = gradcli("simulate", spec)
    assert finished.refused(), finished.stderr
    assert finished.code == 2
    assert "A is a matrix, with two sizes: [rows, columns]" in finished.stderr
