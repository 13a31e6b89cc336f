"""`gradcli compare` on files: the row of a file is what `simulate` says of it, whatever stands beside it."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from in_process import gradcli

CONFIGS = Path(__file__).parents[2] / "examples" / "configs"
#: Small, so that each runs in a moment; the loss, the input and the sizes stay the file's.
OPTIONS = ("--trials", 2)
SIZES = {"hidden_size": 6, "seq_len": 20, "batch_size": 3, "trials": 2}


def run_alone(file: Path, *options: object) -> dict[str, Any]:
    finished = gradcli("simulate", file, *options, "--format", "json")
    assert finished.code == 0, finished.stderr
    (run,) = finished.report()["runs"]
    return dict(run)


def compared(*targets: object) -> dict[str, Any]:
    finished = gradcli("compare", *targets, "--format", "json")
    assert finished.code == 0, finished.stderr
    return finished.report()


def written(file: Path, **fields: object) -> Path:
    file.write_text(json.dumps({**SIZES, **fields}))
    return file


def assert_same(found: Any, expected: Any, where: str = "run") -> None:
    """Arms of one cell run together, so that the last digits of a sum may differ."""
    if isinstance(expected, Mapping):
        assert found.keys() == expected.keys(), where
        for key in expected:
            assert_same(found[key], expected[key], f"{where}.{key}")
    elif isinstance(expected, Sequence) and not isinstance(expected, str):
        assert len(found) == len(expected), where
        for index, (a, b) in enumerate(zip(found, expected, strict=True)):
            assert_same(a, b, f"{where}[{index}]")
    elif isinstance(expected, float):
        assert math.isclose(found, expected, rel_tol=1e-9, abs_tol=1e-12), where
    else:
        assert found == expected, where


def assert_rows_are_those_of_simulate(*files: Path, options: tuple[object, ...] = ()) -> None:
    runs = compared(*files, *options)["runs"]
    for file, run in zip(files, runs, strict=True):
        alone = {key: value for key, value in run_alone(file, *options).items() if key != "remedies"}
        assert_same({**run, "label": file.stem}, alone, file.stem)


def test_an_input_of_another_scale_is_each_arms_own(tmp_path: Path) -> None:
    files = [
        written(tmp_path / f"{name}.yaml", cell="lstm", input={"kind": "normal", "std": std})
        for name, std in (("normalised", 1.0), ("raw", 100.0))
    ]
    assert_rows_are_those_of_simulate(*files)
    rates = [run["verdict"]["rate_per_step"] for run in compared(*files)["runs"]]
    assert rates[1] < 0.7 * rates[0]


def test_padded_and_masked_sequences_are_each_arms_own(tmp_path: Path) -> None:
    """The same sequences of 5 to 20 steps: padded behind, padded in front, and with their lengths given."""
    lengths = [20, 5, 11]
    x = np.random.default_rng(3).normal(size=(3, 20, 4))
    behind = np.array([np.where(np.arange(20)[:, None] < n, row, 0.0) for n, row in zip(lengths, x, strict=True)])
    before = np.array([np.roll(row, 20 - n, axis=0) for n, row in zip(lengths, behind, strict=True)])
    np.save(tmp_path / "behind.npy", behind)
    np.save(tmp_path / "before.npy", before)
    fields: dict[str, Any] = {"cell": "gru", "loss": {"kind": "mse", "target": 0.5}}
    files = [
        written(tmp_path / f"{name}.yaml", **fields, input={"kind": "file", "path": path, **more})
        for name, path, more in (
            ("padded", "behind.npy", {}),
            ("pre-padded", "before.npy", {}),
            ("masked", "behind.npy", {"lengths": lengths}),
        )
    ]
    assert_rows_are_those_of_simulate(*files)
    runs = compared(*files)["runs"]
    assert "sequences" in runs[2]["curve"]
    assert "sequences" not in runs[0]["curve"]
    losses = {run["loss"] for run in runs}
    assert len(losses) == 3
    # What comes before the first step of a GRU whose state is zero is not nothing: its biases are.
    screen = gradcli("compare", *files, "--full").stdout
    assert "masked: sequences of 5 to 20 steps" in screen


def test_lengths_precision_loss_and_thresholds_are_each_arms_own(tmp_path: Path) -> None:
    several = [
        {"cell": "rnn"},
        {"cell": "rnn", "seq_len": 9, "seed": 4},
        {"cell": "rnn", "dtype": "float32"},
        {"cell": "rnn", "thresholds": {"vanishing": 0.5}, "clip": [{"value": 0.01}], "learning_rate": 3.0},
        {"cell": "rnn", "loss": {"kind": "cross_entropy", "classes": 3, "at": "every"}, "batch_size": 5},
        {"cell": "rnn", "input": "sine", "input_size": 3, "trials": 1},
    ]
    files = [written(tmp_path / f"s{i}.yaml", **fields) for i, fields in enumerate(several)]
    assert_rows_are_those_of_simulate(*files)
    assert_rows_are_those_of_simulate(*files, options=("-T", 6, "--set", "input.kind=uniform"))


@pytest.mark.parametrize("beside", ["lstm", "rnn-small", "lstm.yaml"])
def test_what_simulate_refuses_is_refused_in_the_same_words(tmp_path: Path, beside: str) -> None:
    np.save(tmp_path / "x.npy", np.zeros((3, 20, 4)))
    bad = written(tmp_path / "bad.yaml", cell="rnn", input={"kind": "file", "path": "x.npy", "lengths": [20, 30, 1]})
    other = written(tmp_path / "lstm.yaml", cell="lstm") if beside.endswith(".yaml") else beside
    if beside == "rnn-small":
        other = written(tmp_path / "small.yaml", cell="rnn", hidden_size=2)
    alone = gradcli("simulate", bad)
    for order in ((other, bad), (bad, other)):
        found = gradcli("compare", *order)
        assert (found.code, found.stderr) == (alone.code, alone.stderr) != (0, "")


#: Those that take long, and those whose files are large, stand for themselves elsewhere.
EXAMPLES = (
    ("activation-relu", "activation-tanh", "rnn"),
    ("batch-norm-gamma", "deep-plain", "deep-residual"),
    ("bidirectional", "custom-cell", "lstm"),
    ("clipping", "exploding-rnn", "vanishing-rnn"),
    ("digits-rows", "file-input", "gru-text"),
    ("jordan-block", "nilpotent-shift", "one-unit-cliff"),
    ("forget-bias-0", "forget-bias-1", "forget-bias-chrono"),
    ("framework-flax", "framework-keras", "framework-torch"),
)


@pytest.mark.parametrize("names", EXAMPLES, ids="+".join)
def test_every_row_of_example_files_is_what_simulate_says(names: Sequence[str]) -> None:
    assert_rows_are_those_of_simulate(*(CONFIGS / f"{name}.yaml" for name in names), options=OPTIONS)


def test_parameters_are_matched_at_each_arms_own_input_size(tmp_path: Path) -> None:
    fields = {"cell": "lstm", "init": {"*": "xavier_uniform", "b_*": 0.0}}
    wide = written(tmp_path / "wide.yaml", **fields, input_size=40, hidden_size=12)
    narrow = written(tmp_path / "narrow.yaml", **fields, input_size=2)
    counts = [run["parameter_count"] for run in compared(wide, narrow, "--match", "params")["runs"]]
    assert counts[0] == 4 * 12 * (40 + 12 + 1)
    assert counts[1] == min((4 * n * (n + 3) for n in range(1, 50)), key=lambda count: abs(count - counts[0]))
