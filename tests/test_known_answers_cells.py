"""Answers that are known without a program, asked of the command line: the built-in cells, and stacks of them."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from simulated import ONE_SEQUENCE, Simulated, simulate
from test_known_answers import EXACT, assert_log10, scalar

N = 6
AUTONOMOUS = {
    "hidden_size": N,
    "input_size": 1,
    "input": {"kind": "zeros"},
    "loss": {"kind": "projection"},
    "clip": [],
    **ONE_SEQUENCE,
}
"""A cell left to itself: at the zero state where the biases are zero."""


def s(a: float) -> float:
    return 1 / (1 + math.exp(-a))


def autonomous(folder: Path, cell: str, seq_len: int, params: dict[str, Any], **fields: Any) -> Simulated:
    return simulate({**AUTONOMOUS, "cell": cell, "seq_len": seq_len, "params": params, **fields}, folder)


def with_eigenvalues(values: list[float]) -> list[list[float]]:
    """Return a symmetric matrix with these eigenvalues."""
    basis, _ = np.linalg.qr(np.random.default_rng(1).normal(size=(len(values), len(values))))
    matrix: list[list[float]] = (basis @ np.diag(values) @ basis.T).tolist()
    return matrix


def norms_of(arrays: dict[str, NDArray[Any]], state: str) -> NDArray[np.float64]:
    """Return log2 of the gradient norm of a state by distance, for every trial and sequence: (T+1, R, B)."""
    mantissas, exponents = arrays[f"grad_state.{state}"], arrays[f"log2_state.{state}"]
    norms = np.log2(np.linalg.norm(mantissas, axis=-1)) + exponents
    return np.asarray(norms.transpose(1, 0, 2)[::-1])


# --- bounds ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("activation", "gain", "bound"), [("sigmoid", 3.9, 0.975), ("tanh", 0.9, 0.9)])
@pytest.mark.parametrize("std", [0.1, 1.0, 5.0])
def test_no_input_makes_a_gradient_exceed_the_bound(
    activation: str, gain: float, bound: float, std: float, tmp_path: Path
) -> None:
    spec = {
        "cell": "rnn",
        "activation": activation,
        "hidden_size": 16,
        "input_size": 4,
        "seq_len": 100,
        "batch_size": 3,
        "trials": 2,
        "init": {"W_hh": {"orthogonal": {"gain": gain}}, "b_h": {"normal": {"std": 1.0}}},
        "input": {"kind": "normal", "std": std},
        "loss": {"kind": "projection"},
    }
    norms = norms_of(simulate(spec, tmp_path, save=True).arrays, "layer0.h")
    limit = np.arange(101) * math.log2(bound)
    assert np.all(norms - norms[0] <= limit[:, None, None] + 1e-12)
    if bound == 0.975:
        assert 2 ** limit[100] == pytest.approx(0.0795172899, rel=1e-9)


# --- LSTM ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("b_f", [0.0, 1.0, 2.0, 3.0, 5.0])
def test_an_lstm_without_recurrent_weights_keeps_the_forget_gate_to_the_d(b_f: float, tmp_path: Path) -> None:
    found = autonomous(
        tmp_path, "lstm", 100, {"W_h*": 0.0, "W_xf": 0.0, "b_f": b_f}, input={"kind": "normal", "std": 1.0}
    )
    assert_log10(found.log10_ratio("layer0.c"), np.arange(101) * math.log10(s(b_f)))
    assert np.all(np.isneginf(found.curve("layer0.h")[1:]))
    assert np.isfinite(found.curve("layer0.h")[0])
    for distance, share in {
        0: {},
        1: {1: 0.7310585786, 10: 0.0436035428, 50: 1.5761911546e-07, 100: 2.4843785557e-14},
    }.get(int(b_f), {}).items():
        assert found.ratio("layer0.c")[distance] == pytest.approx(share, rel=1e-8)
    if b_f == 1.0:
        assert found.verdict["kind"] == "vanishing"
        assert found.verdict["half_life"] == pytest.approx(
            2.212678, rel=1e-3
        )  # of both states, h's first step included


def test_the_four_paths_of_an_lstm_cell_state(tmp_path: Path) -> None:
    """dc[t]/dc[t-1] = f + (c f(1-f) W_f + i(1-g^2) W_g + g i(1-i) W_i) o(1-tanh^2 c), the output gate held fixed."""
    spec = {
        "cell": {
            "equations": (
                "i = sigmoid(W_xi @ x[t] + W_hi @ h[t-1] + b_i)\n"
                "f = sigmoid(W_xf @ x[t] + W_hf @ h[t-1] + b_f)\n"
                "g = tanh(W_xg @ x[t] + W_hg @ h[t-1] + b_g)\n"
                "o = sigmoid(W_xo @ x[t] + W_ho @ h[t-1] + b_o)\n"
                "c[t] = f * c[t-1] + i * g\n"
                "h[t] = o * tanh(c[t])"
            ),
            "output": "c",
        },
        "hidden_size": N,
        "input_size": 3,
        "seq_len": 2,
        "init": {"*": {"normal": {"std": 0.7}}},
        "c_0": {"normal": {"std": 1.0}},
        "loss": {"kind": "projection"},
        **ONE_SEQUENCE,
    }
    saved = {name: array[0] for name, array in simulate(spec, tmp_path, save=True).arrays.items() if name != "at"}
    p = {name.removeprefix("param.layer0."): array for name, array in saved.items() if name.startswith("param.")}
    h, c = saved["state.layer0.h"][:, 0], saved["state.layer0.c"][:, 0]

    def gate(name: str, t: int) -> Any:
        return p[f"W_x{name}"] @ saved["x"][t - 1, 0] + p[f"W_h{name}"] @ h[t - 1] + p[f"b_{name}"]

    def logistic(a: Any) -> Any:
        return 1 / (1 + np.exp(-a))

    i, f, g = logistic(gate("i", 2)), logistic(gate("f", 2)), np.tanh(gate("g", 2))
    read = np.diag(logistic(gate("o", 1)) * (1 - np.tanh(c[1]) ** 2))
    paths = [
        np.diag(f),
        np.diag(c[1] * f * (1 - f)) @ p["W_hf"] @ read,
        np.diag(i * (1 - g**2)) @ p["W_hg"] @ read,
        np.diag(g * i * (1 - i)) @ p["W_hi"] @ read,
    ]
    gradients = np.ldexp(saved["grad_state.layer0.c"][:, 0], saved["log2_state.layer0.c"])
    np.testing.assert_allclose(sum(paths).T @ saved["vector"], gradients[1], rtol=EXACT)


def test_an_lstm_at_the_zero_state_with_the_identity_for_its_candidate(tmp_path: Path) -> None:
    params = {"b_*": 0.0, "b_f": 1.0, "W_hg": np.eye(N).tolist()}
    found = autonomous(tmp_path, "lstm", 300, params)
    rate = s(1.0) + 0.25
    assert rate == pytest.approx(0.9810585786, rel=1e-9)
    # The last distance is that of the initial states, which are independent: c[0] does not act through h[0].
    slopes = np.diff(found.curve()[1:-1]) * math.log(10)
    np.testing.assert_allclose(slopes, math.log(rate), rtol=1e-9)
    assert slopes[-1] == pytest.approx(-0.0191230, abs=2e-7)
    assert found.verdict["rate_per_step"] == pytest.approx(rate, rel=1e-4)
    assert found.verdict["half_life"] == pytest.approx(36.2, abs=0.1)


@pytest.mark.parametrize("biases", [(0.0, 0.0, 0.0), (1.0, 0.0, 0.0), (0.5, -0.5, 1.0)])
def test_an_lstm_at_the_zero_state_falls_at_the_rate_of_its_largest_eigenvalue(
    biases: tuple[float, float, float], tmp_path: Path
) -> None:
    b_f, b_i, b_o = biases
    eigenvalues = [0.9, 0.5, 0.3, -0.2, -0.6, 0.1]
    params = {"b_g": 0.0, "b_f": b_f, "b_i": b_i, "b_o": b_o, "W_hg": with_eigenvalues(eigenvalues)}
    found = autonomous(tmp_path, "lstm", 1000, params)
    rate = s(b_f) + s(b_i) * s(b_o) * max(eigenvalues)
    slope = (found.curve()[999] - found.curve()[899]) / 100 * math.log(10)
    assert slope == pytest.approx(math.log(rate), rel=1e-9)


@pytest.mark.parametrize(("seq_len", "kept"), [(10, 0.3486784401), (100, 0.3660323413), (1000, 0.3676954248)])
def test_a_chrono_bias_keeps_one_over_e_over_the_whole_sequence(seq_len: int, kept: float, tmp_path: Path) -> None:
    bias = math.log(seq_len - 1)
    found = autonomous(tmp_path, "lstm", seq_len, {"W_h*": 0.0, "b_*": 0.0, "b_f": bias, "b_i": -bias})
    assert found.ratio("layer0.c")[-1] == pytest.approx(kept, abs=1e-10)
    assert_log10(found.log10_ratio("layer0.c")[-1:], [seq_len * math.log10(1 - 1 / seq_len)])


# --- GRU and the minimal cells ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("cell", ["gru", "gru-textbook"])
@pytest.mark.parametrize(("gain", "rate"), [(2.0, 1.0), (0.0, 0.5), (1.0, 0.75), (-1.0, 0.25), (-2.0, 0.0)])
def test_a_gru_without_biases_at_the_zero_state(cell: str, gain: float, rate: float, tmp_path: Path) -> None:
    """J = I/2 + U/4, whichever side of the product the reset gate is on, and whatever the gates' own weights."""
    found = autonomous(tmp_path, cell, 60, {"b_*": 0.0, "W_hn": (gain * np.eye(N)).tolist()})
    if rate == 0:
        assert found.report["curve"]["zero_from"] == 1
        assert found.verdict["kind"] == "dead"
        return
    assert_log10(found.log10_ratio(), np.arange(61) * math.log10(rate))
    assert found.verdict["kind"] == ("stable" if rate == 1 else "vanishing")


@pytest.mark.parametrize(("cell", "b_z"), [("gru", 10.0), ("gru-textbook", -10.0)])
def test_a_saturated_update_gate_keeps_the_state(cell: str, b_z: float, tmp_path: Path) -> None:
    found = autonomous(tmp_path, cell, 100, {"b_*": 0.0, "b_z": b_z, "W_hn": 0.0})
    assert_log10(found.log10_ratio(), np.arange(101) * math.log10(s(10.0)))
    assert found.ratio()[100] == pytest.approx(0.9954703998, abs=1e-10)


def test_the_minimal_cells_without_weights(tmp_path: Path) -> None:
    driven = {"input": {"kind": "normal", "std": 1.0}, "input_size": 3}
    halving = autonomous(tmp_path, "mingru", 50, {"W_xz": 0.0, "b_z": 0.0}, **driven)
    assert_log10(halving.log10_ratio(), np.arange(51) * math.log10(0.5))
    divided = autonomous(tmp_path, "minlstm", 50, {"W_xf": 0.0, "W_xi": 0.0, "b_f": 1.0, "b_i": 0.0}, **driven)
    assert_log10(divided.log10_ratio(), np.arange(51) * math.log10(s(1.0) / (s(1.0) + 0.5)))
    assert divided.ratio()[1] == pytest.approx(0.5938454850, abs=1e-10)


# --- leaky, residual, ReLU -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("alpha", [0.1, 0.3])
def test_a_leaky_cell_at_the_zero_state(alpha: float, tmp_path: Path) -> None:
    """J = (1 - alpha) I + alpha W; without W what leaks is 1 - alpha a step."""
    constants = {"constants": {"alpha": alpha}}
    dry = autonomous(tmp_path, "leaky-rnn", 200, {"W_hh": 0.0}, **constants, input={"kind": "normal", "std": 1.0})
    assert_log10(dry.log10_ratio(), np.arange(201) * math.log10(1 - alpha))
    eigenvalues = [0.8, 0.3, 0.1, -0.2, -0.5, -0.9]
    params = {"W_hh": with_eigenvalues(eigenvalues), "b_h": 0.0}
    tied = autonomous(tmp_path, "leaky-rnn", 2000, params, **constants)
    slope = (tied.curve()[2000] - tied.curve()[1900]) / 100 * math.log(10)
    assert slope == pytest.approx(math.log(1 - alpha + alpha * 0.8), rel=1e-9)


def test_a_residual_cell_whose_branch_is_zero_keeps_the_gradient(tmp_path: Path) -> None:
    found = autonomous(tmp_path, "residual-rnn", 100, {"*": 0.0})
    assert np.all(found.log10_ratio() == 0)
    assert (found.verdict["kind"], found.verdict["pattern"]) == ("stable", "flat")


@pytest.mark.parametrize(("length", "growth"), [(100, 2.7048138294), (1000, 2.7169239322)])
def test_a_residual_branch_of_one_over_its_length_grows_by_e(length: int, growth: float, tmp_path: Path) -> None:
    found = scalar(tmp_path, "h[t] = h[t-1] + a / L * h[t-1]", length, constants={"a": 1.0, "L": length})
    assert found.ratio()[length] == pytest.approx(growth, rel=EXACT)
    assert found.verdict["kind"] == "stable"


@pytest.mark.parametrize(("w", "length", "growth"), [(0.3, 10, 3.1813498119), (1.0, 10, 512.0)])
def test_a_dense_block_sums_over_all_its_paths(w: float, length: int, growth: float, tmp_path: Path) -> None:
    """y[t] = w (y[0] + ... + y[t-1]), the sum kept as a state: dy[L]/dy[0] = w (1 + w)^(L-1)."""
    equations = "y[t] = w * total[t-1]\ntotal[t] = total[t-1] + y[t]"
    found = scalar(tmp_path, equations, length, params={"w": w})
    assert 10 ** found.curve("layer0.total")[length] == pytest.approx(growth, rel=EXACT)


def test_an_identity_matrix_with_relu_keeps_the_gradient_of_active_units(tmp_path: Path) -> None:
    active = {"W_hh": np.eye(N).tolist(), "W_xh": 1.0, "b_h": 0.0}
    fields = {"activation": "relu", "h_0": 1.0, "input": {"kind": "uniform", "low": 0.0, "high": 1.0}}
    found = autonomous(tmp_path, "rnn", 200, active, **fields)
    assert np.all(found.log10_ratio() == 0)
    assert found.verdict["kind"] == "stable"


def test_units_that_are_all_off_have_a_gradient_of_exactly_zero(tmp_path: Path) -> None:
    off = {"W_hh": np.eye(N).tolist(), "W_xh": 0.0, "b_h": -2.0}
    found = autonomous(tmp_path, "rnn", 20, off, activation="relu", h_0=1.0)
    assert found.report["curve"]["zero_from"] == 1
    assert found.verdict["kind"] == "dead"
    assert found.verdict["horizon"] == {"threshold": 0, "float32": 0}


# --- stacks ----------------------------------------------------------------------------------------------------------

STACK = [(1, 0.9), (2, 1.26), (5, 1.25829), (10, 0.7823292246), (20, 0.2735453271)]
SLOW, FAST = 0.9, 0.5


def two_layers(folder: Path, seq_len: int) -> Simulated:
    params = {"layer0.a": SLOW, "layer1.a": FAST}
    return scalar(folder, "h[t] = a * h[t-1] + x[t]", seq_len, params=params, num_layers=2, input={"kind": "zeros"})


def two_states(folder: Path, seq_len: int) -> Simulated:
    equations = "low[t] = a1 * low[t-1]\nhigh[t] = a2 * high[t-1] + low[t]"
    spec = {
        "cell": {"equations": equations, "output": "high", "constants": {"a1": SLOW, "a2": FAST}},
        "hidden_size": 1,
        "seq_len": seq_len,
        "loss": {"kind": "sum"},
        **ONE_SEQUENCE,
    }
    return simulate(spec, folder)


@pytest.mark.parametrize(("distance", "gradient"), STACK)
def test_the_gradient_through_a_stack_rises_before_it_falls(distance: int, gradient: float, tmp_path: Path) -> None:
    """From the initial state, a1 (a1^k - a2^k)/(a1 - a2); later states also enter the upper layer at their own step."""
    layers, states = two_layers(tmp_path, distance), two_states(tmp_path, distance)
    for curve, above in (
        (layers.curve("layer0.h"), layers.curve("layer1.h")),
        (states.curve("layer0.low"), states.curve("layer0.high")),
    ):
        assert 10 ** curve[-1] == pytest.approx(gradient, rel=1e-9)
        k = np.arange(distance)
        assert_log10(curve[:-1], np.log10((SLOW ** (k + 1) - FAST ** (k + 1)) / (SLOW - FAST)))
        assert_log10(above, np.arange(distance + 1) * math.log10(FAST))


@pytest.mark.parametrize(("seq_len", "kind"), [(3, "stable"), (10, "stable"), (200, "vanishing")])
def test_a_short_stack_is_not_said_to_explode(seq_len: int, kind: str, tmp_path: Path) -> None:
    assert two_states(tmp_path, seq_len).verdict["kind"] == kind


# --- what a library's defaults give ----------------------------------------------------------------------------------


@pytest.mark.parametrize(("cell", "rate"), [("rnn", 0.577), ("lstm", 0.644), ("gru", 0.644)])
def test_default_cells_do_vanish(cell: str, rate: float, tmp_path: Path) -> None:
    """Weights and biases from U(-1/sqrt(n), 1/sqrt(n)); the rate is that of the zero state, for a large n."""
    spec = {"cell": cell, "hidden_size": 128, "input": {"kind": "zeros"}, "batch_size": 1, "seq_len": 100, "clip": []}
    verdict = simulate(spec, tmp_path).verdict
    assert verdict["kind"] == "vanishing"
    assert verdict["pattern"] == "exponential"
    assert verdict["rate_per_step"] == pytest.approx(rate, abs=0.04)


def test_a_large_spectral_radius_vanishes_under_a_strong_input_all_the_same(tmp_path: Path) -> None:
    spec = {
        "cell": "rnn",
        "hidden_size": 32,
        "input_size": 32,
        "seq_len": 100,
        "init": {"W_hh": {"spectral_radius": 1.2}, "W_xh": {"normal": {"std": 0.2}}, "b_h": "zeros"},
        "clip": [],
    }
    verdict = simulate(spec, tmp_path).verdict
    assert verdict["kind"] == "vanishing"
    assert verdict["rate_per_step"] < 0.9
