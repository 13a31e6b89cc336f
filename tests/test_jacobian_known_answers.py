"""Answers known without a program, asked of `gradcli jacobian`: closed forms, and published or derived values."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from in_process import gradcli
from simulated import ONE_SEQUENCE

LINEAR = "h[t] = W @ h[t-1]"


def jacobian(spec: dict[str, Any], folder: Path, *options: object) -> dict[str, Any]:
    file = folder / "spec.yaml"
    file.write_text(json.dumps({**ONE_SEQUENCE, **spec}), encoding="utf-8")
    finished = gradcli("jacobian", file, "--format", "json", *options)
    assert finished.code == 0, finished.stderr
    run: dict[str, Any] = finished.report()["runs"][0]
    return run


def linear(folder: Path, matrix: Any, seq_len: int, *options: object, **fields: Any) -> dict[str, Any]:
    values = np.asarray(matrix, dtype=float).tolist()
    spec = {"cell": {"equations": LINEAR}, "hidden_size": len(values), "seq_len": seq_len, "params": {"W": values}}
    return jacobian({**spec, **fields}, folder, *options)


def singular(run: dict[str, Any], which: str) -> dict[int, float | None]:
    values = run["singular_values"]
    return dict(zip(values["distance"], values[f"log10_{which}"], strict=True))


def test_a_scaled_rotation_is_a_power(tmp_path: Path) -> None:
    c, s = math.cos(0.3), math.sin(0.3)
    run = linear(tmp_path, 0.95 * np.array([[c, -s], [s, c]]), 50)
    largest, smallest = singular(run, "largest"), singular(run, "smallest")
    assert 10 ** largest[50] == pytest.approx(0.0769449753, rel=1e-9)  # type: ignore[operator]
    assert smallest[50] == pytest.approx(largest[50], rel=1e-12)
    assert run["matrices"][0]["departure_from_normality"] < 1e-7
    assert run["lyapunov"]["exponents"] == pytest.approx([math.log(0.95)] * 2, rel=1e-12)


def test_a_jordan_block_gains_before_it_falls(tmp_path: Path) -> None:
    run = linear(tmp_path, [[0.9, 1.0], [0.0, 0.9]], 100)
    published = {1: 1.5295630141, 5: 3.3835510361, 10: 3.9053357993, 20: 2.7071633508, 50: 0.2864135828}
    largest = singular(run, "largest")
    for distance, norm in published.items():
        assert 10 ** largest[distance] == pytest.approx(norm, rel=1e-9)  # type: ignore[operator]
    assert run["peak"]["distance"] == 9
    assert 10 ** run["peak"]["log10_largest"] == pytest.approx(3.9125670784, rel=1e-9)
    (matrix,) = run["matrices"]
    assert matrix["departure_from_normality"] == pytest.approx(1.0, rel=1e-7)
    assert matrix["spectral_radius"] == pytest.approx(0.9, rel=1e-7)
    assert run["verdict"]["kind"] == "transient"


def test_a_nilpotent_shift_ends_in_exact_zeros(tmp_path: Path) -> None:
    run = linear(tmp_path, np.eye(5, k=1), 8)
    assert [singular(run, "largest")[d] for d in range(9)] == [0.0] * 5 + [None] * 4
    assert run["verdict"]["kind"] == "dead"
    assert run["lyapunov"]["exponents"] == [None] * 5


def test_a_diagonal_matrix_has_its_logarithms_and_kaplan_yorke_dimension(tmp_path: Path) -> None:
    # Smallest first: the leading exponents are found, whatever the order of the axes.
    run = linear(tmp_path, np.diag([0.25, 1.0, 2.0]), 400, "--exponents", "all", "--burn-in", "100")
    lyapunov = run["lyapunov"]
    assert lyapunov["exponents"] == pytest.approx([math.log(2), 0.0, -math.log(4)], abs=1e-12)
    assert lyapunov["kaplan_yorke_dimension"] == pytest.approx(2.5, rel=1e-12)
    assert lyapunov["entropy"] == pytest.approx(math.log(2), rel=1e-12)
    assert lyapunov["predictability_time"] == pytest.approx(1.0, rel=1e-12)


def test_a_scalar_two_cycle(tmp_path: Path) -> None:
    spec = {"cell": {"equations": "h[t] = tanh(w * h[t-1])"}, "hidden_size": 1, "params": {"w": -2.0}, "h_0": [0.5]}
    run = jacobian({**spec, "seq_len": 600}, tmp_path, "--burn-in", "200")
    assert run["lyapunov"]["exponents"] == pytest.approx([-1.7935285065], abs=1e-8)


def test_sums_of_exponents_are_determinants(tmp_path: Path) -> None:
    """sum lambda_i = ln abs(det W) + mean of sum ln(1 - h^2), on any trajectory of a tanh network."""
    size, steps, burn_in = 30, 300, 50
    weights = np.random.default_rng(1).standard_normal((size, size)) * 1.5 / math.sqrt(size)
    start = np.random.default_rng(2).standard_normal(size)
    spec = {
        "cell": {"equations": "h[t] = tanh(W @ h[t-1])"},
        "hidden_size": size,
        "seq_len": steps,
        "params": {"W": weights.tolist()},
        "h_0": start.tolist(),
    }
    run = jacobian(spec, tmp_path, "--exponents", "all", "--burn-in", burn_in)
    logs, h = [], start
    for _ in range(steps):
        h = np.tanh(weights @ h)
        logs.append(np.log1p(-(h**2)).sum())
    wanted = np.linalg.slogdet(weights)[1] + np.mean(logs[burn_in:])
    assert sum(run["lyapunov"]["exponents"]) == pytest.approx(wanted, rel=1e-10)


@pytest.mark.parametrize(("gain", "mean_field"), [(2.0, 0.15472423), (3.0, 0.31024932)])
def test_random_tanh_networks_are_chaotic_above_gain_one(gain: float, mean_field: float, tmp_path: Path) -> None:
    """Mean field (Sompolinsky, Crisanti and Sommers 1988): lambda_1 = ln(chi)/2 at the self-consistent variance."""
    spec = {
        "cell": {"equations": "h[t] = tanh(W @ h[t-1])", "init": {"W": {"normal": {"std": gain / math.sqrt(400)}}}},
        "hidden_size": 400,
        "seq_len": 700,
        "h_0": {"normal": {"std": 1}},
    }
    run = jacobian(spec, tmp_path, "--exponents", 2, "--burn-in", 100)
    assert run["lyapunov"]["exponents"][0] == pytest.approx(mean_field, abs=0.02)
    assert run["lyapunov"]["predictability_time"] == pytest.approx(
        math.log(2) / run["lyapunov"]["exponents"][0], rel=1e-12
    )


def test_below_the_transition_the_spectral_radius_decides(tmp_path: Path) -> None:
    spec = {
        "cell": {"equations": "h[t] = tanh(W @ h[t-1])", "init": {"W": {"normal": {"std": 0.5 / math.sqrt(100)}}}},
        "hidden_size": 100,
        "seq_len": 3000,
        "h_0": {"normal": {"std": 1}},
    }
    run = jacobian(spec, tmp_path, "--exponents", 1, "--burn-in", 1000)
    radius = run["matrices"][0]["spectral_radius"]
    assert run["lyapunov"]["exponents"][0] == pytest.approx(math.log(radius), abs=0.005)


def test_powers_of_a_ginibre_matrix_follow_the_fuss_catalan_law(tmp_path: Path) -> None:
    """Without limit in N the largest squared singular value of W^k is (k+1)^(k+1)/k^k: 4, 6.75, 9.4815."""
    spec = {
        "cell": {"equations": LINEAR, "init": {"W": {"normal": {"std": 1 / math.sqrt(400)}}}},
        "hidden_size": 400,
        "seq_len": 3,
    }
    largest = singular(jacobian(spec, tmp_path, "--exponents", 1), "largest")
    # N = 400 stays below the limit, by more the larger k is.
    for k, limit, tolerance in ((1, 4.0, 0.05), (2, 6.75, 0.08), (3, 9.4815, 0.12)):
        assert 10 ** (2 * largest[k]) == pytest.approx(limit, rel=tolerance)  # type: ignore[operator]


@pytest.mark.parametrize(
    ("activation", "gamma"),
    [("tanh", 1.0), ("sigmoid", 0.25), ("hard_sigmoid", 1 / 6), ("silu", 1.099839), ("gelu", 1.128904), ("relu", 1.0)],
)
def test_the_certificate_takes_the_true_largest_slope(activation: str, gamma: float, tmp_path: Path) -> None:
    spec = {
        "cell": {"equations": "h[t] = phi(W @ h[t-1] + U @ x[t])", "init": {"W": {"orthogonal": {"gain": 0.8}}}},
        "activation": activation,
        "hidden_size": 8,
        "seq_len": 20,
    }
    certificate = jacobian(spec, tmp_path)["certificate"]
    assert certificate["bound_per_step"] == pytest.approx(0.8 * gamma, rel=1e-6)
    assert certificate["proves_vanishing"] is True
    assert certificate["gamma"] == {activation: pytest.approx(gamma, rel=1e-6)}


def test_a_sigmoid_network_below_four_vanishes_on_any_input(tmp_path: Path) -> None:
    spec = {
        "cell": {
            "equations": "h[t] = sigmoid(W @ h[t-1] + U @ x[t] + b)",
            "init": {"W": {"orthogonal": {"gain": 3.9}}},
        },
        "hidden_size": 10,
        "seq_len": 100,
        "input": {"kind": "normal", "std": 5.0},
        "trials": 3,
    }
    run = jacobian(spec, tmp_path)
    largest, bound = singular(run, "largest"), singular(run, "bound")
    for distance in largest:
        assert bound[distance] == pytest.approx(distance * math.log10(0.975), abs=1e-9)
        assert largest[distance] <= bound[distance] + 1e-12  # type: ignore[operator]


def test_bounds_of_a_leaky_cell_and_of_lags_hold(tmp_path: Path) -> None:
    cells = {
        "leaky": "h[t] = 0.7 * h[t-1] + 0.3 * tanh(W @ h[t-1] + U @ x[t])",
        "lags": "h[t] = tanh(0.5 * (W @ h[t-1]) + 0.3 * (V @ h[t-2]) + U @ x[t])",
    }
    bounds = {"leaky": 0.7 + 0.3 * 0.9, "lags": (0.45 + math.sqrt(0.45**2 + 4 * 0.27)) / 2}
    for name, equations in cells.items():
        spec = {
            "cell": {"equations": equations, "init": {"[WV]": {"orthogonal": {"gain": 0.9}}}},
            "hidden_size": 6,
            "seq_len": 30,
        }
        run = jacobian(spec, tmp_path)
        assert run["certificate"]["bound_per_step"] == pytest.approx(bounds[name], rel=1e-9)
        largest, bound = singular(run, "largest"), singular(run, "bound")
        assert all(largest[d] <= bound[d] + 1e-12 for d in largest)  # type: ignore[operator]


def test_the_lstm_at_its_zero_state(tmp_path: Path) -> None:
    """Eigenvalues at h = c = 0 without input: sigmoid(b_f) + sigmoid(b_i) sigmoid(b_o) lambda(W_hg), and n zeros."""
    size = 6
    w = np.random.default_rng(3).standard_normal((size, size)) / math.sqrt(size)
    spec = {
        "cell": "lstm",
        "hidden_size": size,
        "seq_len": 5,
        "input": "zeros",
        "init": {"b_*": 0.0, "b_f": 1.0},
        "params": {"W_hg": w.tolist()},
    }
    run = jacobian(spec, tmp_path)
    forget = 1 / (1 + math.exp(-1))
    wanted = np.abs(forget + 0.25 * np.linalg.eigvals(w)).max()
    assert run["one_step"]["spectral_radius"][1:] == pytest.approx([wanted] * 5, rel=1e-9)
    assert run["certificate"]["bound_per_step"] is None


@pytest.mark.parametrize("name", ["gru", "gru-textbook"])
def test_the_gru_at_its_zero_state(name: str, tmp_path: Path) -> None:
    """J = I/2 + U/4 with zero biases, whichever side of the product the reset gate is on."""
    size = 5
    u = np.random.default_rng(4).standard_normal((size, size))
    spec = {
        "cell": name,
        "hidden_size": size,
        "seq_len": 4,
        "input": "zeros",
        "init": {"b_*": 0.0},
        "params": {"W_hn": u.tolist()},
    }
    run = jacobian(spec, tmp_path)
    one = np.eye(size) / 2 + u / 4
    for distance in range(5):
        wanted = np.linalg.norm(np.linalg.matrix_power(one, distance), 2)
        assert 10 ** singular(run, "largest")[distance] == pytest.approx(wanted, rel=1e-10)  # type: ignore[operator]


def test_no_distance_is_too_far(tmp_path: Path) -> None:
    run = linear(tmp_path, 0.5 * np.eye(2), 20_000, "--exponents", 1)
    assert singular(run, "largest")[20_000] == pytest.approx(-20_000 * math.log10(2), rel=1e-12)


@pytest.mark.parametrize(
    ("cell", "init", "critical"),
    [
        ("rnn", {"b_h": 0.0}, 1.0),
        ("gru", {"b_*": 0.0}, 2.0),
        ("lstm", {"b_*": 0.0}, 2.0),
        ("lstm", {"b_*": 0.0, "b_f": 1.0}, 1.0757656855),
        # chrono with one memory for all units: b_i = -b_f, so that i = 1 - f and the critical eigenvalue is 1/o.
        ("lstm", {"b_*": 0.0, "b_f": 4.0, "b_i": -4.0}, 2.0),
    ],
)
def test_the_critical_gain_at_rest(cell: str, init: dict[str, float], critical: float, tmp_path: Path) -> None:
    """With recurrent matrices I: 1 for tanh, 2 for the GRU, (1 - f)/(i o) for the LSTM."""
    spec = {"cell": cell, "hidden_size": 4, "seq_len": 5, "init": {**init, "W_h*": "identity"}}
    run = jacobian(spec, tmp_path)
    assert run["at_rest"]["critical_gain"] == pytest.approx(critical, rel=2e-6)


def test_the_peak_is_found_though_the_sum_of_all_units_is_mapped_to_zero(tmp_path: Path) -> None:
    # Powers of [[g, 0], [-g, 0]] are g^(k-1) times itself, of norm g^k sqrt(2), and take (1, 1) to zero from the left.
    run = linear(tmp_path, [[2.0, 0.0], [-2.0, 0.0]], 18, "--exponents", 1)
    assert run["peak"]["distance"] == 18
    assert run["peak"]["log10_largest"] == pytest.approx(18.5 * math.log10(2), rel=1e-9)
