"""Matrix states, constants and spikes as users meet them: what is saved, counted, proved, refused and told."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from in_process import gradcli as command_line

import gradcli
from gradcli.errors import ExitCode

SIZES = {"hidden_size": 4, "input_size": 3, "seq_len": 6, "batch_size": 2, "trials": 2}
MEMORY = {
    "equations": (
        "k = W_k @ x[t]\nm[t] = 0.5 * m[t-1] + dot(k, k)\n"
        "S[t] = decay * S[t-1] + outer(W_v @ x[t], k)\nh[t] = S[t] @ (one * k) + m[t]"
    ),
    "constants": {"decay": 0.9, "one": 1},
    "shapes": {"m": [], "one": ["hidden_size"]},
    "init": {"W_*": {"normal": 0.5}},
}


def saved(path: Path, spec: dict[str, Any]) -> dict[str, np.ndarray]:
    gradcli.simulate(spec, save=path)
    with np.load(path) as arrays:
        return dict(arrays)


def test_states_of_all_ranks_are_saved_in_their_shapes(tmp_path: Path) -> None:
    arrays = saved(tmp_path / "run.npz", {"cell": MEMORY, **SIZES})
    assert arrays["state.layer0.m"].shape == arrays["grad_state.layer0.m"].shape == (2, 7, 2)
    assert arrays["state.layer0.h"].shape == (2, 7, 2, 4)
    assert arrays["state.layer0.S"].shape == arrays["grad_state.layer0.S"].shape == (2, 7, 2, 4, 4)
    written = arrays["state.layer0.S"][:, 1:] - 0.9 * arrays["state.layer0.S"][:, :-1]
    keys = np.einsum("rhi,rtbi->rtbh", arrays["param.layer0.W_k"], arrays["x"])
    values = np.einsum("rhi,rtbi->rtbh", arrays["param.layer0.W_v"], arrays["x"])
    np.testing.assert_allclose(written, values[..., :, None] * keys[..., None, :], rtol=1e-12, atol=1e-14)


def test_initial_states_of_all_ranks(tmp_path: Path) -> None:
    start = [[float(4 * row + column) for column in range(4)] for row in range(4)]
    arrays = saved(tmp_path / "run.npz", {"cell": MEMORY, **SIZES, "S_0": start, "m_0": [2.0, 3.0]})
    np.testing.assert_array_equal(arrays["state.layer0.S"][1, 0, 1], start)
    np.testing.assert_array_equal(arrays["state.layer0.m"][:, 0], [[2.0, 3.0]] * 2)
    with pytest.raises(gradcli.GradcliError, match="expected nested lists of 4 x 4, or 2 such lists"):
        gradcli.simulate({"cell": MEMORY, **SIZES, "S_0": [1.0, 2.0]})


def test_what_papers_print_is_what_the_functions_say() -> None:
    plain = (
        "k = W_k @ x[t] + b\nv = W_v @ x[t]\nS[t] = 0.9 * S[t-1] + outer(v, k)\n"
        "h[t] = S[t] @ k + dot(k, v) * v + sum(k[0:1]) * v"
    )
    printed = (
        "k = W_k @ x[t] + b\nv = W_v @ x[t]\nS[t] = 0.9 * S[t-1] + v @ k.T\nh[t] = S[t] @ k + k.T @ v * v + k[0] * v"
    )
    curves = [
        gradcli.simulate({"cell": {"equations": text}, **SIZES}).curve.log10_norm_mean for text in (plain, printed)
    ]
    np.testing.assert_allclose(curves[0], curves[1], rtol=1e-12)


def test_a_number_in_a_concatenation_is_a_column_of_the_matrix(tmp_path: Path) -> None:
    cell = {"equations": "h[t] = W @ [x[t], 1, h[t-1]]", "init": {"W": {"normal": 0.5}}}
    arrays = saved(tmp_path / "run.npz", {"cell": cell, **SIZES})
    W, x, h = arrays["param.layer0.W"], arrays["x"], arrays["state.layer0.h"]
    assert W.shape == (2, 4, 8)
    joined = np.concatenate([x, np.ones((*x.shape[:3], 1)), h[:, :-1]], axis=-1)
    np.testing.assert_allclose(h[:, 1:], np.einsum("rij,rtbj->rtbi", W, joined), rtol=1e-12)


def test_constants_are_neither_counted_nor_given_gradients(tmp_path: Path) -> None:
    run = gradcli.simulate({"cell": MEMORY, **SIZES}).to_dict()["runs"][0]
    assert list(run["parameters"]) == ["layer0.W_k", "layer0.W_v"]
    arrays = saved(tmp_path / "run.npz", {"cell": MEMORY, **SIZES})
    np.testing.assert_array_equal(arrays["param.layer0.one"], np.ones((2, 4)))
    assert "grad_param.layer0.one" not in arrays


def test_a_matrix_of_constants_is_what_the_spec_says(tmp_path: Path) -> None:
    turn = [[0.0, -1.0], [1.0, 0.0]]
    cell = {"equations": "h[t] = A @ h[t-1] + W @ x[t]", "constants": {"A": turn}, "init": {"W": {"normal": 1.0}}}
    arrays = saved(tmp_path / "run.npz", {"cell": cell, **SIZES, "hidden_size": 2})
    np.testing.assert_array_equal(arrays["param.layer0.A"], [turn, turn])
    gradient = np.ldexp(arrays["grad_state.layer0.h"], arrays["log2_state.layer0.h"][..., None])
    np.testing.assert_allclose(
        np.linalg.norm(gradient, axis=-1), np.linalg.norm(gradient[:, -1:], axis=-1).repeat(7, 1)
    )


def test_fixed_parameters_are_drawn_and_stay(tmp_path: Path) -> None:
    cell = {
        "equations": "h[t] = tanh(W_h @ h[t-1] + W_x @ x[t])",
        "fixed": ["W_h"],
        "init": {"W_h": {"spectral_radius": 0.5}, "W_x": {"normal": 1.0}},
    }
    arrays = saved(tmp_path / "run.npz", {"cell": cell, **SIZES})
    np.testing.assert_allclose(np.abs(np.linalg.eigvals(arrays["param.layer0.W_h"])).max(axis=1), 0.5)
    assert [name for name in arrays if name.startswith("grad_param")] == ["grad_param.layer0.W_x"]
    with pytest.raises(gradcli.GradcliError, match="no parameter is called 'W_hh'; did you mean 'W_h'"):
        gradcli.simulate({"cell": {**cell, "fixed": ["W_hh"]}, **SIZES})


def test_a_fixed_decay_is_a_certificate_whatever_the_input() -> None:
    found = gradcli.jacobian("retnet", **SIZES).to_dict()["runs"][0]["certificate"]
    assert found["bound_per_step"] == pytest.approx(1 - 2.0**-5, rel=1e-12)
    assert found["proves_vanishing"] is True


def test_a_decay_of_at_most_one_is_said_not_to_grow() -> None:
    for cell in ("gla", "mamba"):
        result = gradcli.jacobian(cell, **SIZES)
        assert result.to_dict()["runs"][0]["certificate"]["bound_per_step"] == pytest.approx(1.0)
        said = " ".join(result.to_text(width=200).split())
        assert "whatever the input, no step makes the gradient larger once it has left h" in said
        assert "it need not fall" in said


def test_the_bound_holds_for_what_is_measured() -> None:
    """With one carried state the norm of a step's map of it is at most the bound, by the singular values measured."""
    cell = {"equations": "S[t] = 0.9 * S[t-1] + outer(W @ x[t], W @ x[t])", "init": {"W": {"normal": 1.0}}}
    found = gradcli.jacobian({"cell": cell, **SIZES}).to_dict()["runs"][0]
    assert found["certificate"]["bound_per_step"] == pytest.approx(0.9)
    measured = found["singular_values"]
    expected = np.array(measured["distance"]) * np.log10(0.9)
    np.testing.assert_allclose(measured["log10_largest"], expected, atol=1e-12)
    np.testing.assert_allclose(measured["log10_bound"], expected, atol=1e-12)


@pytest.mark.parametrize(
    ("cell", "whole"), [("lstm", "S = (c, h)"), ("retnet", "s = (S, h)"), ("s5", "S = (re, im, h)")]
)
def test_all_states_together_have_a_name_that_none_of_them_has(cell: str, whole: str) -> None:
    letter = whole[0]
    assert f"J = d{letter}[T]/d{letter}[T-d], {whole}:" in gradcli.jacobian(cell, **SIZES).to_text(width=200)


def test_a_derivative_without_a_bound_is_one_by_a_state() -> None:
    """rwkv-7 takes earlier inputs, which are no states; that none was found is no proof that there is no bound."""
    result = gradcli.jacobian("rwkv-7", **SIZES)
    assert result.to_dict()["runs"][0]["certificate"]["unbounded"] == ["S", "S[t-1]"]
    found = "none: no bound that holds for every input was found of every derivative, such as that of S by S[t-1]"
    assert found in result.to_text(width=200)


@pytest.mark.filterwarnings("error")
def test_a_norm_that_is_zero_at_rest_leaves_the_rate_at_rest_out() -> None:
    """k / norm(k) is 0 / 0 without input, and there is a recurrent matrix whose critical gain would be asked for."""
    equations = (
        "k = W_k @ x[t]\nn = k / norm(k)\n"
        "S[t] = S[t-1] @ (I - 0.5 * outer(n, n)) + outer(tanh(W_h @ h[t-1]), n)\nh[t] = S[t] @ n"
    )
    result = gradcli.jacobian({"cell": {"equations": equations}, **SIZES})
    assert result.to_dict()["runs"][0]["at_rest"] == {"spectral_radius": None, "critical_gain": None}
    assert "at rest" not in result.to_text(width=200)


def test_a_jacobian_that_is_too_large_says_what_to_do() -> None:
    done = command_line("jacobian", "gated-deltanet")
    assert (done.code, done.stdout) == (ExitCode.RESOURCE, "")
    assert "S is a matrix of 64 x 64: the Jacobian of the state has 4160 x 4160 entries" in done.stderr
    assert "Make hidden_size (64) smaller, until the state has at most 1100 numbers" in done.stderr


def test_a_spiking_cell_says_whose_gradient_it_shows() -> None:
    for command in (gradcli.simulate, gradcli.gates, gradcli.paths):
        text = command("lif", **SIZES).to_text(width=300)
        assert (
            "a spike has no gradient: all that goes through spike(...) has that of its surrogate, atan with k = 2"
            in text
        )
    assert "surrogate" not in gradcli.simulate("lstm", **SIZES).to_text()


def test_a_parameter_that_became_a_matrix_is_told() -> None:
    cell = {"equations": "S[t] = alpha * S[t-1] + outer(W @ x[t], W @ x[t])\nh[t] = S[t] @ (W @ x[t])"}
    text = gradcli.simulate({"cell": cell, **SIZES}).to_text(width=300)
    assert (
        "alpha stands beside a matrix and is one, 4 x 4, entry by entry; one number instead is shapes: {alpha: []}"
        in text
    )
    declared = {**cell, "shapes": {"alpha": []}}
    assert "stands beside" not in gradcli.simulate({"cell": declared, **SIZES}).to_text(width=300)


def test_routes_through_a_matrix_are_written_as_matrices_are() -> None:
    cell = {
        "equations": "k = W @ x[t]\nS[t] = f * (S[t-1] @ (I - outer(k, k))) + outer(W_v @ x[t], k)\nh[t] = S[t] @ k",
        "shapes": {"f": []},
    }
    text = gradcli.paths({"cell": cell, **SIZES}).to_text(width=200)
    assert "f dS[t-1]" in text
    assert "- f outer(dS[t-1] k, k)" in text


ADDED = {
    "the identity": "S[t] = 0.9 * S[t-1] + 0.1 * I + outer(a, a)",
    "the identity, weighed": "S[t] = S[t-1] - 0.1 * (S[t-1] - I) + outer(a, a) + I * dot(a, a)",
    "a diagonal": "S[t] = 0.5 * S[t-1] + diag(a)",
    "a diagonal of parameters": "S[t] = 0.5 * S[t-1] + diag(u) + outer(a, a)",
    "entry by entry": "S[t] = 0.5 * S[t-1] * I + exp(I) + outer(a, a)",
    "constants": "S[t] = 0.5 * S[t-1] + C * I + outer(a, a)",
}


@pytest.mark.parametrize("what", ADDED)
@pytest.mark.parametrize(("size", "trials"), [(2, 4), (3, 9), (4, 3)])
def test_a_trial_is_what_it_is_whatever_other_trials_there_are(
    what: str, size: int, trials: int, tmp_path: Path
) -> None:
    """The first has the same draws; the equations are redone in NumPy for the last. Sizes may be squares of trials."""
    equations = f"a = sigmoid(W @ x[t])\n{ADDED[what]}\nh[t] = S[t] @ a"
    constants = {"C": [[1.0 + i - j for j in range(size)] for i in range(size)]} if "C" in ADDED[what] else {}
    cell = {"equations": equations, "constants": constants, "shapes": {"S": ["hidden_size", "hidden_size"]}}
    spec = {"cell": cell, **SIZES, "hidden_size": size}
    alone, among = (saved(tmp_path / "run.npz", {**spec, "trials": number}) for number in (1, trials))
    for name in ("loss", "state.layer0.S", "grad_param.layer0.W"):
        np.testing.assert_allclose(among[name][:1], alone[name], rtol=1e-12)

    x, weights = among["x"][-1], among["param.layer0.W"][-1]
    known = {"exp": np.exp, "outer": np.outer, "dot": np.dot, "diag": np.diag, "I": np.eye(size)}
    known |= {"C": np.array(constants.get("C", 0.0)), "u": among.get("param.layer0.u", np.zeros((trials, 1)))[-1]}
    right = ADDED[what].partition("=")[2].replace("S[t-1]", "S")
    for sequence in range(SIZES["batch_size"]):
        state = np.zeros((size, size))
        for step in range(SIZES["seq_len"]):
            a = 1 / (1 + np.exp(-weights @ x[step, sequence]))
            state = eval(right, {**known, "S": state, "a": a})
            np.testing.assert_allclose(among["state.layer0.S"][-1, step + 1, sequence], state, rtol=1e-12)
