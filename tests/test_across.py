"""layer_norm, batch_norm and softmax: their Jacobians, what is known of recurrences with them, PyTorch's gradients."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from engine_runs import problem_of, recorded, vectors_of, vectors_saved
from in_process import gradcli
from numpy.typing import NDArray
from reference.fixture_file import FOLDER, read_fixture
from reference.make_fixtures import fixture
from simulated import simulate

from gradcli.errors import ExitCode
from gradcli.language.across import ACROSS, DEFAULT_EPS

Array = NDArray[np.float64]
CELLS = [path.stem for path in FOLDER.glob("*norm*.npz") if path.stem != "normalised-average"] + ["softmax-gate"]
OVER_SEQUENCES = [n for n in CELLS if "batch_norm" in read_fixture(FOLDER / f"{n}.npz")[0]["cell"]["equations"]]


# --- the functions ---------------------------------------------------------------------------------------------------


def jacobian(name: str, a: Array, eps: float = DEFAULT_EPS) -> Array:
    """Return dy/da of one vector, by its definition."""
    identity = np.eye(len(a))
    if name == "softmax":
        y = np.exp(a) / np.exp(a).sum()
        return np.asarray(np.diag(y) - np.outer(y, y))
    deviation = a - a.mean()
    s = np.sqrt(a.var() + eps)
    return np.asarray((identity - 1 / len(a) - np.outer(deviation, deviation) / (len(a) * s**2)) / s)


@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize("name", ACROSS)
def test_the_jacobian_is_applied_along_the_axis_to_one_vector_or_to_many(name: str, axis: int) -> None:
    rng = np.random.default_rng(2)
    a, v = rng.normal(size=(3, 4, 5)), rng.normal(size=(3, 4, 5))
    many = rng.normal(size=(3, 4, 5, 2))
    function = ACROSS[name]
    y, slope = function.evaluate(a, DEFAULT_EPS, axis)
    found = np.empty_like(v)
    function.apply_jacobian(axis, y, slope, v, found)
    function.apply_jacobian(axis, y, slope, many, many_found := np.empty_like(many))
    vectors, towards, results = (np.moveaxis(array, axis, -1).reshape(-1, a.shape[axis]) for array in (a, v, found))
    for vector, direction, result in zip(vectors, towards, results, strict=True):
        np.testing.assert_allclose(result, jacobian(name, vector) @ direction, rtol=1e-12, atol=1e-14)
    for k in range(2):
        function.apply_jacobian(axis, y, slope, many[..., k], found)
        np.testing.assert_array_equal(many_found[..., k], found)
    in_place = v.copy()
    function.apply_jacobian(axis, y, slope, in_place, in_place)
    function.apply_jacobian(axis, y, slope, v, found)
    np.testing.assert_array_equal(in_place, found)


def test_the_jacobian_of_layer_norm_has_two_singular_values_of_zero_and_one_over_the_deviation_else() -> None:
    a = np.random.default_rng(3).normal(size=8)
    function = ACROSS["layer_norm"]
    y, slope = function.evaluate(a, 0.0, axis=0)
    matrix = np.empty((8, 8))
    function.apply_jacobian(0, y, slope, np.eye(8), matrix)
    singular = np.linalg.svd(matrix, compute_uv=False)
    np.testing.assert_allclose(singular[:6], 1 / a.std(), rtol=1e-12)
    assert singular[6] < 1e-15 / a.std()


@pytest.mark.parametrize("name", ACROSS)
def test_gamma_bounds_the_jacobian(name: str) -> None:
    rng = np.random.default_rng(6)
    for scale in (1e-6, 1e-3, 1.0, 30.0):
        norm = np.linalg.norm(jacobian(name, scale * rng.normal(size=7), eps=1e-4), 2)
        assert norm <= ACROSS[name].gamma(1e-4) * (1 + 1e-12)
    assert ACROSS[name].gamma(0.0) == (0.5 if name == "softmax" else np.inf)


def test_softmax_of_large_numbers_is_finite() -> None:
    y, slope = ACROSS["softmax"].evaluate(np.array([1e5, 1e5, -1e5]), 0.0, axis=0)
    np.testing.assert_array_equal(y, [0.5, 0.5, 0.0])
    assert slope is None


# --- known answers ---------------------------------------------------------------------------------------------------

ALONE = {"input_size": 1, "input": {"kind": "zeros"}, "clip": [], "trials": 1}


def gradients(spec: dict[str, Any], folder: Path) -> Array:
    """Return the gradients of h by step, (T+1, B, H)."""
    arrays = simulate(spec, folder, save=True).arrays
    return np.asarray(np.ldexp(arrays["grad_state.layer0.h"][0], arrays["log2_state.layer0.h"][0][..., None]))


@pytest.mark.parametrize("name", ["layer_norm", "batch_norm"])
def test_with_normalisation_the_scale_of_the_recurrent_matrix_does_not_matter(name: str, tmp_path: Path) -> None:
    """J(h; W) = J(h; 7 W) with eps = 0 (Ba, Kiros and Hinton 2016, section 5.1)."""
    W = np.random.default_rng(4).normal(size=(6, 6))
    spec = {
        "cell": {"equations": f"h[t] = tanh(0.8 * {name}(W_hh @ h[t-1], 0))"},
        "hidden_size": 6,
        "seq_len": 8,
        "batch_size": 5,
        "h_0": {"normal": {"std": 1}},
        **ALONE,
    }
    once, seven = (gradients({**spec, "params": {"W_hh": (c * W).tolist()}}, tmp_path) for c in (1, 7))
    np.testing.assert_allclose(np.linalg.norm(seven - once, axis=2) / np.linalg.norm(once, axis=2), 0, atol=1e-9)


@pytest.mark.parametrize(
    ("W_hh", "gamma", "low", "high"),
    [("identity", 0.1, 1 / 3, 3), ("identity", 1.0, 0.0, 1e-20), ("orthogonal", 1.0, 1e4, np.inf)],
)
def test_figure_1a_of_cooijmans_depends_on_the_identity(
    W_hh: str, gamma: float, low: float, high: float, tmp_path: Path
) -> None:
    """With W_hh = I, gamma = 0.1 keeps the gradient and gamma = 1 loses it; with W_hh orthogonal gamma = 1 explodes.

    Cooijmans et al. 2016, section 4 and figure 1a, without input.
    """
    spec = {
        "cell": {"equations": "h[t] = tanh(gamma * batch_norm(W_hh @ h[t-1]))", "constants": {"gamma": gamma}},
        "hidden_size": 100,
        "seq_len": 200,
        "batch_size": 64,
        "init": {"W_hh": W_hh},
        "h_0": {"normal": {"std": 1}},
        "loss": {"kind": "mse"},
        **ALONE,
    }
    # As far back as h_1: h_0 was not normalised.
    curve = simulate(spec, tmp_path).curve("layer0.h")[:-1]
    assert low <= 10 ** (curve[-1] - curve[0]) <= high


def test_a_batch_without_variance_gives_zero_and_a_slope_of_one_over_the_root_of_eps(tmp_path: Path) -> None:
    eps = 1e-4
    spec = {
        "cell": {"equations": f"h[t] = batch_norm(h[t-1], {eps}) + x[t]"},
        "hidden_size": 3,
        "input_size": 3,
        "seq_len": 1,
        "batch_size": 4,
        "loss": {"kind": "mse"},
    }
    start, end = gradients(spec, tmp_path)
    np.testing.assert_allclose(start, (end - end.mean(axis=0)) / np.sqrt(eps), rtol=1e-12)


@pytest.mark.parametrize(
    "equation",
    [
        "h[t] = batch_norm(h[t-1], 0) + x[t]",
        "h[t] = layer_norm(h[t-1], 0) + x[t]",
        "h[t] = layer_norm(1e200 * (h[t-1] + x[t]))",
    ],
    ids=["no variance in the batch", "no variance in the vector", "squares beyond the range"],
)
def test_what_has_no_finite_value_is_reported_and_not_hidden(equation: str, tmp_path: Path) -> None:
    spec = {"cell": {"equations": equation}, "hidden_size": 4, "input_size": 4, "seq_len": 3, "batch_size": 4}
    run = simulate(spec, tmp_path)
    assert run.report["verdict"]["kind"] == "nonfinite"


def test_the_jacobian_of_coupled_sequences_is_that_of_all_together() -> None:
    small = gradcli("jacobian", "batch-norm-rnn", "-T", 5, "--hidden-size", 4, "--batch-size", 3, "--format", "json")
    assert small.report()["runs"][0]["state_size"] == 4 * 3
    large = gradcli("jacobian", "batch-norm-rnn", "-T", 5)
    assert large.code == ExitCode.RESOURCE
    assert "batch_norm couples the 16 sequences of a batch: their joint Jacobian has 1024 x 1024" in large.stderr


# --- against PyTorch -------------------------------------------------------------------------------------------------


@pytest.mark.torch
@pytest.mark.parametrize("trials", [1, 2])
@pytest.mark.parametrize(
    # One sequence has no batch statistics.
    ("name", "batch_size"),
    [(name, size) for name in CELLS for size in (1, 2, 3, 5) if size > 1 or name not in OVER_SEQUENCES],
)
def test_gradients_are_those_of_torch_for_any_number_of_sequences(name: str, trials: int, batch_size: int) -> None:
    spec = read_fixture(FOLDER / f"{name}.npz")[0]
    rng = np.random.default_rng(batch_size)
    drawn = [fixture({**spec, "batch_size": batch_size}, rng) for _ in range(trials)]
    stored = {key: np.concatenate([one[key] for one in drawn]) for key in drawn[0]}
    scales = {
        key.replace("grad_", "log2_"): np.zeros(value.shape[: 3 if "state" in key else 1], int)
        for key, value in stored.items()
        if key.startswith("grad_")
    }
    problem = problem_of(spec, stored)
    expected = vectors_saved(stored | scales)
    for segment, block in ((12, 12), (5, 2)):
        errors = vectors_of(recorded(problem, segment=segment, block=block)).errors(expected)
        assert {key: error for key, error in errors.items() if not error < 1e-10} == {}


@pytest.mark.parametrize("name", CELLS)
def test_in_float32_gradients_are_nearly_the_same(name: str) -> None:
    problem = problem_of(*read_fixture(FOLDER / f"{name}.npz"))
    single = recorded(replace(problem, dtype=np.dtype(np.float32)))
    assert all(gradient.mantissa.dtype.kind == "f" for gradient in single.gradients.values())
    errors = vectors_of(single).errors(vectors_of(recorded(problem)))
    assert 1e-9 < max(errors.values()) < 1e-3
