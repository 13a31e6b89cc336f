"""Rates in closed form, beside the measured ones."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from simulated import ONE_SEQUENCE, simulate


def predictions(spec: dict[str, Any], folder: Path) -> tuple[dict[str, dict[str, Any]], float]:
    report = simulate(spec, folder).report
    return {found["name"]: found for found in report["predictions"]}, report["verdict"]["rate_per_step"]


def sigmoid(a: float) -> float:
    return 1 / (1 + math.exp(-a))


def matrix(size: int, seed: int = 0) -> Any:
    return np.random.default_rng(seed).standard_normal((size, size)) / math.sqrt(size)


def test_the_plain_rnn_rests_at_its_spectral_radius(tmp_path: Path) -> None:
    w = matrix(8)
    found, _ = predictions(
        {"cell": "rnn", "hidden_size": 8, "init": {"b_h": 0.0}, "params": {"W_hh": w.tolist()}}, tmp_path
    )
    assert found["rest"]["rate_per_step"] == pytest.approx(np.abs(np.linalg.eigvals(w)).max(), rel=1e-10)
    assert "gates" not in found


@pytest.mark.parametrize("forget", [0.0, 1.0, 3.0])
def test_the_lstm_at_rest(forget: float, tmp_path: Path) -> None:
    w = matrix(6, seed=1)
    spec = {"cell": "lstm", "hidden_size": 6, "init": {"b_*": 0.0, "b_f": forget}, "params": {"W_hg": w.tolist()}}
    found, _ = predictions(spec, tmp_path)
    wanted = np.abs(sigmoid(forget) + 0.25 * np.linalg.eigvals(w)).max()
    assert found["rest"]["rate_per_step"] == pytest.approx(wanted, rel=1e-10)
    assert found["gates"]["state"] == "c"
    assert found["gates"]["rate_per_step"] == pytest.approx(sigmoid(forget), rel=1e-12)


def test_an_lstm_without_recurrent_weights_is_its_forget_gate(tmp_path: Path) -> None:
    spec = {
        "cell": "lstm",
        "hidden_size": 5,
        "seq_len": 50,
        "init": {"W_h*": 0.0, "W_x*": 0.0, "b_*": 0.0, "b_f": 1.0, "b_g": 0.5},
        **ONE_SEQUENCE,
    }
    found, measured = predictions(spec, tmp_path)
    assert found["rest"]["rate_per_step"] == pytest.approx(0.7310585786, rel=1e-9)
    assert measured == pytest.approx(0.7310585786, rel=1e-6)


@pytest.mark.parametrize(("update", "rate"), [(0.0, 0.5), (2.0, sigmoid(2.0))])
def test_the_gru_keeps_what_its_update_gate_keeps(update: float, rate: float, tmp_path: Path) -> None:
    spec = {"cell": "gru", "hidden_size": 5, "init": {"W_h*": 0.0, "b_*": 0.0, "b_z": update}}
    found, _ = predictions(spec, tmp_path)
    assert found["rest"]["rate_per_step"] == pytest.approx(rate, rel=1e-10)


def test_chrono_gates_remember_up_to_the_sequence(tmp_path: Path) -> None:
    """f = u/(1 + u) with u from 1 to T - 1, so that memories 1/(1 - f) are 2 to T steps long."""
    spec = {"cell": "lstm", "seq_len": 100, "init": {"b_f": "chrono", "b_i": "chrono"}, "hidden_size": 256}
    found, _ = predictions(spec, tmp_path)
    low, high = found["gates"]["smallest"], found["gates"]["largest"]
    assert 2.0 <= 1 / (1 - low) < 4.0
    assert 95.0 < 1 / (1 - high) <= 100.0


@pytest.mark.parametrize("gain", [0.7, 1.0])
def test_mean_field_predicts_the_driven_network(gain: float, tmp_path: Path) -> None:
    spec = {
        "cell": {
            "equations": "h[t] = tanh(W @ h[t-1] + U @ x[t])",
            "init": {"W": {"normal": {"std": gain / math.sqrt(256)}}, "U": {"normal": {"std": 0.1}}},
        },
        "hidden_size": 256,
        "input_size": 32,
        "seq_len": 60,
        "batch_size": 4,
        "trials": 2,
    }
    found, measured = predictions(spec, tmp_path)
    assert found["mean_field"]["rate_per_step"] == pytest.approx(measured, rel=0.03)


def test_mean_field_says_nothing_of_other_cells(tmp_path: Path) -> None:
    for cell in ("lstm", "leaky-rnn", "indrnn"):
        found, _ = predictions({"cell": cell}, tmp_path)
        assert "mean_field" not in found
    found, _ = predictions({"cell": "rnn", "init": {"W_hh": "identity"}}, tmp_path)
    assert "mean_field" not in found


@pytest.mark.parametrize(("law", "rate"), [("he_normal", 1.0), ("lecun_normal", math.sqrt(0.5))])
def test_mean_field_of_a_network_in_depth(law: str, rate: float, tmp_path: Path) -> None:
    spec = {"cell": "plain-stack", "activation": "relu", "init": {"W_hh": law}, "loss": "projection", "seq_len": 20}
    found, measured = predictions({**spec, "hidden_size": 256, "batch_size": 4}, tmp_path)
    assert found.keys() == {"mean_field"}
    assert found["mean_field"]["rate_per_step"] == pytest.approx(rate, rel=0.01)
    assert measured == pytest.approx(rate, rel=0.04)
