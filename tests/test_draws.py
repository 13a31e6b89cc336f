"""What a run draws, through the command line: a change in one place leaves the numbers of all others as they were."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from simulated import ONE_SEQUENCE, Simulated, simulate

DRAWN = {
    "cell": {"equations": "h[t] = tanh(W_xh @ x[t] + W_hh @ h[t-1] + b_h)"},
    "hidden_size": 4,
    "input_size": 3,
    "seq_len": 6,
    "batch_size": 2,
    "trials": 2,
    "seed": 11,
    "h_0": {"normal": {"std": 1.0}},
    "loss": {"kind": "mse", "at": "every"},
}


def drawn(folder: Path, **changes: Any) -> Simulated:
    return simulate({**DRAWN, **changes}, folder, save=True)


def assert_drawn_alike(found: Simulated, expected: Simulated) -> None:
    """Compare all that is drawn, bit for bit, in the trials, steps and sequences that both runs have."""
    for name in ("x", "target", "param.layer0.W_xh", "param.layer0.W_hh", "param.layer0.b_h", "state.layer0.h"):
        mine, theirs = found.arrays[name], expected.arrays[name]
        if name == "state.layer0.h":
            mine, theirs = mine[:, 0], theirs[:, 0]
        common = tuple(slice(min(sizes)) for sizes in zip(mine.shape, theirs.shape, strict=True))
        np.testing.assert_array_equal(mine[common], theirs[common], err_msg=name)


@pytest.mark.parametrize(
    "changes",
    [
        {"seq_len": 3000},
        {"trials": 5},
        {"cell": {"equations": "h[t] = tanh(W_xh @ x[t] + A @ h[t-1] + W_hh @ h[t-1] + b_h + p)"}},
        {"cell": {"equations": "h[t] = sigmoid(b_h + W_hh @ h[t-1] + W_xh @ x[t])\nz[t] = 0.5 * z[t-1] + q * h[t]"}},
        {"num_layers": 2},
        {"clip": [{"step_norm": 0.1}], "learning_rate": 1.0},
        {"init": {"b_h": 0.0}, "params": {"b_h": 0.25}},
    ],
    ids=lambda changes: ", ".join(changes),
)
def test_a_change_elsewhere_leaves_what_is_drawn_alone(changes: dict[str, Any], tmp_path: Path) -> None:
    expected, found = drawn(tmp_path), drawn(tmp_path, **changes)
    if "params" in changes:
        assert np.all(found.arrays["param.layer0.b_h"] == 0.25)
        found.arrays["param.layer0.b_h"] = expected.arrays["param.layer0.b_h"]
    assert_drawn_alike(found, expected)


def test_another_seed_changes_everything_that_is_drawn(tmp_path: Path) -> None:
    one, other = drawn(tmp_path), drawn(tmp_path, seed=12)
    for name in ("x", "target", "param.layer0.W_xh", "param.layer0.W_hh", "param.layer0.b_h"):
        assert not np.any(one.arrays[name] == other.arrays[name]), name


def test_the_same_command_gives_the_same_numbers(tmp_path: Path) -> None:
    one, other = drawn(tmp_path), drawn(tmp_path)
    assert one.report == other.report
    assert one.arrays.keys() == other.arrays.keys()
    for name, array in one.arrays.items():
        np.testing.assert_array_equal(array, other.arrays[name], err_msg=name)


def test_float32_follows_float64(tmp_path: Path) -> None:
    spec = {"hidden_size": 8, "input_size": 4, "seq_len": 100, **ONE_SEQUENCE}
    for cell in ("rnn", "lstm", "gru"):
        exact, rounded = (
            simulate({"cell": cell, "dtype": dtype, **spec}, tmp_path) for dtype in ("float64", "float32")
        )
        assert np.max(np.abs(rounded.curve() - exact.curve())) < 1e-4 / np.log(10)
