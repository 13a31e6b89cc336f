"""Answers that are known without a program for networks in depth, whose steps have weights of their own."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from in_process import gradcli
from numpy.typing import NDArray
from simulated import ONE_SEQUENCE, Simulated, simulate
from test_known_answers import EXACT, LINEAR, assert_log10, scalar

UNTIED = {"tied": False, "clip": [], "input": {"kind": "zeros"}, "input_size": 1}


def squared_ratios(arrays: dict[str, NDArray[Any]], depth: int) -> NDArray[np.float64]:
    """Return ||dL/dh_(T-depth)||^2 / ||dL/dh_T||^2 of each trial, from a saved run with one sequence: (R,)."""
    log2 = arrays["log2_state.layer0.h"][:, :, 0]
    norms = np.log2(np.linalg.norm(arrays["grad_state.layer0.h"][:, :, 0], axis=-1)) + log2
    return np.asarray(np.exp2(2 * (norms[:, -1 - depth] - norms[:, -1])))


# --- weights given by hand -------------------------------------------------------------------------------------------


def test_one_matrix_for_each_step(tmp_path: Path) -> None:
    """h_t = W_t h_(t-1): the gradient at distance d is W_(T-d+1)^T ... W_T^T v, whatever the order of the matrices."""
    rng = np.random.default_rng(2)
    matrices = rng.normal(size=(6, 3, 3))
    vector = [1.0, -2.0, 0.5]
    loss = {"kind": "projection", "vector": vector}
    cell = {"cell": {"equations": LINEAR}, "hidden_size": 3, "seq_len": 6, **UNTIED, **ONE_SEQUENCE}
    found = simulate({**cell, "loss": loss, "params": {"W": matrices.tolist()}}, tmp_path)
    gradients = [np.array(vector)]
    for matrix in matrices[::-1]:
        gradients.append(matrix.T @ gradients[-1])
    assert_log10(found.curve(), np.log10([np.linalg.norm(gradient) for gradient in gradients]))


def test_the_jacobian_of_a_network_in_depth_is_the_product_of_its_matrices(tmp_path: Path) -> None:
    """dh_T/dh_(T-d) = W_T ... W_(T-d+1); what holds for powers of one matrix, or at rest, is not said of it."""
    matrices = np.random.default_rng(3).normal(size=(6, 3, 3))
    spec = {"cell": {"equations": LINEAR}, "hidden_size": 3, "seq_len": 6, **UNTIED, **ONE_SEQUENCE}
    (tmp_path / "spec.yaml").write_text(json.dumps({**spec, "params": {"W": matrices.tolist()}}))
    (run,) = gradcli("jacobian", tmp_path / "spec.yaml", "--format", "json").report()["runs"]
    product, expected = np.eye(3), [0.0]
    for matrix in matrices[::-1]:
        product = product @ matrix
        expected.append(math.log10(np.linalg.norm(product, 2)))
    assert run["singular_values"]["distance"] == list(range(7))
    assert run["singular_values"]["log10_largest"] == pytest.approx(expected, rel=1e-10, abs=1e-12)
    assert (run["matrices"], run["certificate"]) == ([], None)
    assert run["at_rest"] == {"spectral_radius": None, "critical_gain": None}


def test_one_matrix_for_all_steps_is_the_tied_network(tmp_path: Path) -> None:
    """Untied weights of the same value have the same curve, and the tied gradient is the sum of those of the steps."""
    values = {"W_hh": [[0.6, 0.5], [-0.4, 0.9]], "W_xh": [[0.3], [-0.7]], "b_h": [0.1, 0.2]}
    fields = {"hidden_size": 2, "input_size": 1, "seq_len": 7, "batch_size": 3, "trials": 2, "params": values}
    tied = simulate({"cell": "rnn", **fields}, tmp_path, save=True)
    untied = simulate({"cell": "rnn", "tied": False, "input_at": "every", **fields}, tmp_path, save=True)
    np.testing.assert_allclose(untied.curve(), tied.curve(), rtol=0, atol=1e-13)
    for name, value in values.items():
        of_steps = untied.arrays[f"param.layer0.{name}"]
        assert of_steps.shape == (2, 7, *np.shape(value))
        gradients = {
            found: np.ldexp(run.arrays[f"grad_param.layer0.{name}"].T, run.arrays[f"log2_param.layer0.{name}"]).T
            for found, run in (("tied", tied), ("untied", untied))
        }
        np.testing.assert_allclose(gradients["untied"].sum(axis=1), gradients["tied"], rtol=1e-11)
        norms = np.linalg.norm(gradients["untied"].reshape(2, -1), axis=1)
        assert untied.parameter(f"layer0.{name}") == pytest.approx(np.log10(norms).mean(), abs=1e-2)
    assert untied.report["parameters"]["layer0.W_hh"]["shape"] == [7, 2, 2]
    assert untied.report["parameter_count"] == 7 * tied.report["parameter_count"]


def test_gradients_of_steps_far_apart_in_size_keep_their_digits(tmp_path: Path) -> None:
    """h_t = w_t h_(t-1) with L = h_T: dL/dw_t is the product of the other weights, here between 2^-600 and 1."""
    exponents = [0, 0, 0, -200, -200, -200]
    weights = np.exp2(exponents)
    found = scalar(
        tmp_path, "h[t] = w * h[t-1]", 6, save=True, tied=False, h_0=1.0, params={"w": weights[:, None].tolist()}
    )
    expected = sum(exponents) - np.array(exponents)
    assert found.arrays["grad_param.layer0.w"].shape == (1, 6, 1)
    log2 = np.log2(found.arrays["grad_param.layer0.w"][0, :, 0]) + found.arrays["log2_param.layer0.w"]
    np.testing.assert_array_equal(log2, expected)
    assert found.parameter("layer0.w") == pytest.approx(math.log10(math.sqrt(3)) - 400 * math.log10(2), rel=1e-13)


def test_x_enters_at_the_first_step_only(tmp_path: Path) -> None:
    spec = {"cell": "plain-stack", "hidden_size": 4, "input_size": 3, "seq_len": 5, "batch_size": 2, "trials": 2}
    found = simulate(spec, tmp_path, save=True)
    every = simulate({**spec, "input_at": "every"}, tmp_path, save=True)
    assert np.all(found.arrays["x"][:, 1:] == 0)
    assert np.all(every.arrays["x"] != 0)
    np.testing.assert_array_equal(found.arrays["x"][:, 0], every.arrays["x"][:, 0])
    gradient = found.arrays["grad_param.layer0.W_xh"]
    assert np.all(gradient[:, 0] != 0)
    assert np.all(gradient[:, 1:] == 0)
    tied = simulate({**spec, "cell": "rnn", "input_at": "first"}, tmp_path, save=True)
    np.testing.assert_array_equal(tied.arrays["x"], found.arrays["x"])


def test_a_file_needs_no_more_than_the_step_that_enters(tmp_path: Path) -> None:
    (tmp_path / "x.csv").write_text("0.5,-1.0,2.0\n")
    spec = {"cell": "plain-stack", "hidden_size": 4, "seq_len": 5, "input": {"kind": "file", "path": "x.csv"}}
    found = simulate({**spec, **ONE_SEQUENCE}, tmp_path, save=True)
    assert found.arrays["x"].tolist() == [[[[0.5, -1.0, 2.0]], *[[[0.0] * 3]] * 4]]


def test_the_weights_of_a_step_do_not_depend_on_the_depth(tmp_path: Path) -> None:
    spec = {"cell": "plain-stack", "hidden_size": 3, "trials": 2}
    short, long, again, other = (
        simulate({**spec, **more}, tmp_path, save=True).arrays["param.layer0.W_hh"]
        for more in ({"seq_len": 4}, {"seq_len": 9}, {"seq_len": 9}, {"seq_len": 9, "seed": 1})
    )
    np.testing.assert_array_equal(long[:, :4], short)
    np.testing.assert_array_equal(long, again)
    assert len(np.unique(long)) == long.size, "no number is drawn twice"
    assert not np.any(long == other)


def test_a_step_of_gradient_descent_moves_every_step_of_its_own(tmp_path: Path) -> None:
    """The loss after the step is that of a run whose weights are given as moved by hand."""
    spec = {"cell": "plain-stack", "hidden_size": 4, "input_size": 3, "seq_len": 5, "batch_size": 2, "trials": 1}
    spec |= {"learning_rate": 0.5, "clip": [{"norm": 0.1}]}
    found = simulate(spec, tmp_path, save=True)
    (row,) = found.report["clip"]
    gradients, moved, clipped = {}, {}, {}
    for name in ("W_hh", "W_xh", "b_h"):
        log2 = int(found.arrays[f"log2_param.layer0.{name}"][0])
        gradients[name] = np.ldexp(found.arrays[f"grad_param.layer0.{name}"][0], log2)
    norm = math.sqrt(sum(float(np.square(gradient).sum()) for gradient in gradients.values()))
    assert row["log10_norm_before"] == pytest.approx(math.log10(norm), rel=1e-12)
    scale = 0.1 / (norm + 1e-6)  # PyTorch's clip_grad_norm_
    assert row["scale"] == pytest.approx(scale, rel=1e-12)
    for name, gradient in gradients.items():
        start = found.arrays[f"param.layer0.{name}"][0]
        moved[name] = (start - 0.5 * gradient).tolist()
        clipped[name] = (start - 0.5 * gradient * scale).tolist()
    for params, key in ((moved, "loss_after_unclipped"), (clipped, "loss_after_clipped")):
        after = simulate({**spec, "params": params}, tmp_path)
        assert after.report["loss"] == pytest.approx(row[key], rel=1e-12)
        assert after.report["loss"] < found.report["loss"]


# --- residual branches and dense blocks ------------------------------------------------------------------------------


@pytest.mark.parametrize(("length", "growth"), [(100, 2.7048138294), (1000, 2.7169239322)])
def test_a_residual_stack_of_small_branches_grows_by_e(length: int, growth: float, tmp_path: Path) -> None:
    """h_t = h_(t-1) + (a / L) h_(t-1) grows by (1 + a / L)^L."""
    params = {"W_h1": 1.0, "W_h2": 1.0 / length}
    fields = {"cell": "residual-stack", "activation": "identity", "hidden_size": 1, "seq_len": length, "h_0": 1.0}
    found = simulate({**fields, **UNTIED, **ONE_SEQUENCE, "loss": {"kind": "sum"}, "params": params}, tmp_path)
    assert found.ratio()[length] == pytest.approx(growth, rel=EXACT)


@pytest.mark.parametrize(("w", "growth"), [(0.3, 3.1813498119), (1.0, 512.0)])
def test_a_dense_block_sums_over_all_its_paths(w: float, growth: float, tmp_path: Path) -> None:
    """y_t = w (y_0 + ... + y_(t-1)): dy_L/dy_0 = w (1 + w)^(L-1)."""
    fields = {"cell": "dense-block", "activation": "identity", "hidden_size": 1, "seq_len": 10, "h_0": 1.0}
    found = simulate({**fields, **UNTIED, **ONE_SEQUENCE, "loss": {"kind": "sum"}, "params": {"W_hh": w}}, tmp_path)
    assert found.ratio()[10] == pytest.approx(growth, rel=EXACT)


def test_a_dense_block_reaches_twelve_layers_back(tmp_path: Path) -> None:
    """With a weight from the twelfth layer before alone, h_12 is h_0 and h_13 is nothing."""
    weights = [0.0] * 11 + [1.0]
    for length, reached in ((12, 1.0), (13, 0.0)):
        fields = {"cell": "dense-block", "activation": "identity", "hidden_size": 1, "seq_len": length, "h_0": 1.0}
        found = simulate(
            {**fields, **UNTIED, **ONE_SEQUENCE, "loss": {"kind": "sum"}, "params": {"W_hh": [weights]}}, tmp_path
        )
        assert found.ratio()[length] == reached


# --- random weights, drawn anew at every step ------------------------------------------------------------------------


def random_stack(folder: Path, equations: str, hidden_size: int, depth: int, trials: int, **fields: Any) -> Simulated:
    spec = {
        "cell": {"equations": equations},
        "hidden_size": hidden_size,
        "seq_len": depth,
        "trials": trials,
        "batch_size": 1,
        "loss": {"kind": "projection"},
        **UNTIED,
        **fields,
    }
    return simulate(spec, folder, save=True)


def test_a_product_of_independent_matrices_keeps_the_mean_and_loses_the_typical_size(tmp_path: Path) -> None:
    """E||J^k v||^2 = 1, yet E ln||J^k v||^2 = k (ln 2 + psi(N/2) - ln N): the mean hides what one network does."""
    n, depth, trials = 32, 10, 2000
    run = random_stack(tmp_path, LINEAR, n, depth, trials, init={"W": {"normal": 1 / math.sqrt(n)}}, h_0=1.0)
    found = squared_ratios(run.arrays, depth)
    assert found.mean() == pytest.approx(1.0, abs=0.06)
    assert np.log(found).mean() == pytest.approx(-0.3158, abs=0.05)
    assert np.log(found).var() == pytest.approx(0.6449, abs=0.06)


def test_he_initialisation_keeps_the_mean_square_through_relu(tmp_path: Path) -> None:
    """chi = sigma_w^2 / 2 = 1 for every layer of a plain stack of ReLUs."""
    fields = {"init": {"W_hh": "he_normal", "b_h": "zeros"}, "h_0": {"normal": 1.0}}
    equations = "h[t] = relu(W_hh @ h[t-1] + b_h)"
    runs = [random_stack(tmp_path, equations, 128, 10, 10, seed=seed, **fields) for seed in range(10)]
    found = np.concatenate([squared_ratios(run.arrays, 10) for run in runs])
    assert found.mean() == pytest.approx(1.0, abs=0.15)


def test_random_residual_branches_add_their_variance(tmp_path: Path) -> None:
    """h_t = h_(t-1) + s W_t h_(t-1) with entries of W_t of variance 1/N: E ratio^2 = (1 + s^2)^k."""
    n, depth = 64, 20
    run = random_stack(
        tmp_path, "h[t] = h[t-1] + W @ h[t-1]", n, depth, 400, init={"W": {"normal": 0.3 / math.sqrt(n)}}, h_0=1.0
    )
    assert (1 + 0.3**2) ** depth == pytest.approx(5.604, abs=1e-3)
    assert squared_ratios(run.arrays, depth).mean() == pytest.approx(5.604, abs=0.3)


def test_a_leaky_cell_forgets_faster_when_its_weights_are_drawn_anew(tmp_path: Path) -> None:
    """E||Jv||^2 = (1 - a)^2 + a^2 for weights of each step, but the spectral radius of the tied J is near 1."""
    n, depth, a = 64, 40, 0.1
    fields = {"init": {"W": {"normal": 1 / math.sqrt(n)}}, "h_0": 1.0}
    equations = f"h[t] = {1 - a} * h[t-1] + {a} * (W @ h[t-1])"
    untied = random_stack(tmp_path, equations, n, depth, 200, **fields)
    expected = ((1 - a) ** 2 + a**2) ** depth
    assert squared_ratios(untied.arrays, depth).mean() == pytest.approx(expected, rel=0.05)
    tied = random_stack(tmp_path, equations, n, depth, 200, **{**fields, "tied": True})
    # rho = 1 - a + a Re(lambda), the largest real part near 1; sqrt(0.82) = 0.906 if each step had its own weights.
    slope = np.log(squared_ratios(tied.arrays, depth) / squared_ratios(tied.arrays, depth - 10)) / 20
    assert np.exp(slope).mean() > 0.96
    assert math.sqrt((1 - a) ** 2 + a**2) == pytest.approx(0.906, abs=1e-3)
