"""Which parameters are the sum of two of a framework's: by the law that draws their layer, or by the file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from measured import SMALL, loaded, measured

from gradcli.errors import SpecError
from gradcli.prepare.build import build
from gradcli.prepare.trained import CheckpointFiles
from gradcli.results.cells import cell_in_full
from gradcli.results.declared import data_of
from gradcli.results.run import run_of
from gradcli.spec.reader import load_spec
from gradcli.weights.formats import open_checkpoint
from gradcli.weights.layouts import find_layers

CHECKPOINTS = Path(__file__).parent.parent / "checkpoints"
LSTM = ["b_f", "b_g", "b_i", "b_o"]


def twice(cell: Any, init: dict[str, Any] | None = None, **fields: object) -> list[str]:
    """Return the parameters of a layer that count twice."""
    copies = build(loaded(cell, **SMALL, init=init or {}, **fields)).problem.copies
    assert set(copies.values()) <= {2}
    return sorted(copies)


@pytest.mark.parametrize(
    ("cell", "init", "names"),
    [
        ("rnn", {}, ["b_h"]),
        ("lstm", {}, LSTM),
        ("lstm-projected", {}, LSTM),
        ("gru", {}, ["b_r", "b_z"]),  # PyTorch's two biases of n are two here as well, b_n and b_hn
        ("gru", {"*": "keras"}, ["b_r", "b_z"]),
        ("lstm", {"*": "keras"}, []),
        ("rnn", {"*": "keras"}, []),
        ("gru", {"*": "flax"}, []),
        ("gru", {"*": "nnx"}, []),
        ("lstm", {"*": {"uniform": 0.1}}, []),
        # A layer of which anything is drawn as by PyTorch is PyTorch's.
        ("lstm", {"b_f": 1.0}, LSTM),
        ("lstm", {"b_f": "chrono", "b_i": "chrono"}, LSTM),
        ("lstm", {"W_*": "orthogonal"}, LSTM),
        ("lstm", {"b_*": "zeros"}, LSTM),
        ("lstm", {"*": "keras", "b_f": "torch"}, LSTM),
        # Other cells have no two biases in PyTorch: it has no such cells.
        ("mgu", {"*": "torch"}, []),
        ("gru-textbook", {}, []),
        ("lstm-peephole", {}, []),
        ({"equations": "h[t] = tanh(W_xh @ x[t] + W_hh @ h[t-1] + b_h)"}, {}, []),
        ({"equations": "h[t] = tanh(W_hh @ h[t-1] + b)", "twice": {"torch": ["b"]}}, {}, ["b"]),
    ],
    ids=str,
)
def test_the_law_of_a_layer_says_which_biases_are_two(cell: Any, init: dict[str, Any], names: list[str]) -> None:
    assert twice(cell, init) == [f"layer0.{name}" for name in names]


def test_layers_and_directions_are_each_by_themselves() -> None:
    init = {"*": {"uniform": 0.1}, "layer1.W_hh": "torch"}
    assert twice("rnn", init, num_layers=2) == ["layer1.b_h"]
    assert twice("rnn", {}, bidirectional=True) == ["layer0.b_h", "layer0.reverse.b_h"]


def test_exact_values_are_no_frameworks() -> None:
    values = {"W_xh": 0.1, "W_hh": 0.1, "b_h": 0.0}
    assert twice("rnn", {}, params=values) == []
    del values["W_xh"]
    assert twice("rnn", {}, params=values) == ["layer0.b_h"]


def test_a_cell_may_only_count_its_own_parameters_twice() -> None:
    block = {"equations": "h[t] = tanh(W_hh @ h[t-1] + b)", "twice": {"torch": ["b_h"]}}
    with pytest.raises(SpecError, match=r"cell\.twice\.torch\[0\]: no parameter is called 'b_h'"):
        build(loaded(block, **SMALL))


def test_a_second_bias_moves_no_other_draw() -> None:
    """Written out, the LSTM has one bias a gate; all else is drawn as it was, and the first of two biases too."""
    lstm = loaded("lstm", **SMALL)
    own = {"equations": lstm.cell.equations}
    (two,), (one,) = (build(spec).problem.parameters for spec in (lstm, loaded(own, **SMALL)))
    bound = 1 / np.sqrt(SMALL["hidden_size"])
    for name, values in two.items():
        if name.startswith("b_"):
            second = values - one[name]
            assert 0 < np.abs(second).max() <= bound
        else:
            np.testing.assert_array_equal(values, one[name])


def test_the_number_of_parameters_is_that_of_torch() -> None:
    # sum(p.numel() for p in nn.LSTM(32, 64).parameters()), and of nn.GRU and nn.RNN
    for cell, count in (("lstm", 25088), ("gru", 18816), ("rnn", 6272)):
        found = data_of(run_of(measured(cell, seq_len=2, trials=1, batch_size=1)))
        assert found["parameter_count"] == count
        assert {entry["copies"] for name, entry in found["parameters"].items() if ".W_" in name} == {1}
    assert cell_in_full("lstm").report.data["parameters"]["b_f"] == {
        "shape": ["hidden_size"],
        "copies": 2,
        "trained": True,
    }
    assert cell_in_full("slstm").report.data["parameters"]["b_f"]["copies"] == 1


FILES = [
    path
    for pattern in ("pytorch-*.pt", "keras-*", "flax-*.npz", "haiku-*.npz", "onnx-*.onnx")
    for path in sorted(CHECKPOINTS.glob(pattern))
    if ".expected" not in path.name and "rnn-dynamo" not in path.name
]


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_inspect_and_a_run_count_the_same_parameters(path: Path) -> None:
    with open_checkpoint(path, path.name) as checkpoint:
        layers = find_layers(checkpoint).layers
    assert layers
    for layer in layers:
        overrides = [f"weights.layer={layer.name}"] if layer.name else []
        spec = load_spec(
            str(path),
            options={"seq_len": 2, "batch_size": 1, "loss": "sum"},
            overrides=overrides,
            checkpoints=CheckpointFiles(),
        )
        assert build(spec).parameter_count == layer.parameter_count
