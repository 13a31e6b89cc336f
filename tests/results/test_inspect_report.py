"""What `gradcli inspect` prints of a checkpoint made by hand: for people on screens of any width, and for programs."""

from __future__ import annotations

import csv
import io
import json
from typing import Any

import numpy as np
import pytest
from checkpoints_by_hand import PROJECTED, Table, embedding, head, of_parameters
from measured import table_of

from gradcli.diagnostics.weights import LARGEST_FOR_RADIUS, inspect_checkpoint
from gradcli.formats import render
from gradcli.results.inspect_report import contents_of
from gradcli.results.model import Report
from gradcli.weights.checkpoint import Ignored
from gradcli.weights.layers import Contents, Unsupported
from gradcli.weights.layouts import equations


def scaled(rows: int, columns: int, scale: float) -> Any:
    """Return a matrix of this spectral norm, and this spectral radius where it is square."""
    return scale * np.eye(rows, columns)


def lstm_arrays(direction: str, bias: float, *, inputs: int) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for place, gate in enumerate("ifgo"):
        found[f"{direction}.W_x{gate}"] = np.ones((4, inputs))
        found[f"{direction}.W_h{gate}"] = scaled(4, 4, 0.5 + place)
        found[f"{direction}.b_{gate}"] = np.full(4, bias)
    return found


def contents() -> tuple[Table, Contents]:
    arrays = lstm_arrays("encoder.rnn.layer0", 1.0, inputs=3)
    arrays |= lstm_arrays("encoder.rnn.layer0.reverse", -1.0, inputs=3)
    arrays |= {"plain.layer0.W_xh": np.ones((2, 3)), "plain.layer0.W_hh": scaled(2, 2, 0.9)}
    arrays |= {"plain.layer0.b_h": np.zeros(2), "fc.weight": np.ones((5, 8)), "fc.bias": np.ones(5)}
    arrays |= {"emb.weight": np.ones((1000, 3)), "gate.weight_hh": np.ones((2, 2)), "step": np.ones((), np.int64)}
    ignored = [Ignored("config", "text, not numbers"), Ignored("version", "text, not numbers")]
    table = Table(arrays, ignored, "model.safetensors")
    layers = (
        of_parameters(
            table,
            "encoder.rnn",
            "lstm",
            "LSTM",
            bidirectional=True,
            output_size=8,
            dtype="float32",
            gate_order=("i", "f", "g", "o"),
            notes=("its two biases a gate are added",),
        ),
        of_parameters(table, "plain", "rnn", "RNN", activation="tanh"),
    )
    unsupported = (Unsupported("gate", "its gates are not known here", ("gate.weight_hh",)),)
    return table, Contents(layers, (head(table, "fc"),), (embedding(table, "emb"),), unsupported)


def inspected(table: Table, found: Contents, size: int) -> Report:
    return contents_of(inspect_checkpoint(table, found, size)).report


def report() -> Report:
    return inspected(*contents(), 4321)


SCREEN = """\
model.safetensors   table, 4.2 KiB   32 tensors of 26 KiB together

encoder.rnn   PyTorch LSTM, runs as the built-in cell lstm
              1 layer of two directions   hidden 4, input 3, output 8
              float32   256 parameters   gates stored in the order i f g o
note          its two biases a gate are added

direction       matrix  shape  spectral radius  spectral norm  mean b_f  keeps
layer0          W_hi    4 x 4            0.500          0.500
                W_hf    4 x 4            1.500          1.500     1.000   73 %
                W_hg    4 x 4            2.500          2.500
                W_ho    4 x 4            3.500          3.500
layer0.reverse  W_hi    4 x 4            0.500          0.500
                W_hf    4 x 4            1.500          1.500    -1.000   27 %
                W_hg    4 x 4            2.500          2.500
                W_ho    4 x 4            3.500          3.500
spectral radius: the largest |eigenvalue|; spectral norm: the largest singular
value; keeps: of c[t-1], what the forget gate lets through with zero states and
no input, the mean of sigmoid(b_f)

plain   PyTorch RNN, runs as the built-in cell rnn with tanh
        1 layer   hidden 2, input 3, output 2
        float64   12 parameters

matrix  shape  spectral radius  spectral norm
W_hh    2 x 2            0.900          0.900

W_hh   the spectral norm is below 1: every step shrinks the gradient, whatever
       the input

also here                             could be
fc         linear head 8 -> 5         readout of encoder.rnn
emb        embedding 1000 tokens x 3  input of encoder.rnn, plain

cannot run   gate: its gates are not known here
unused       1 tensor used by nothing above: step
ignored      config, version: text, not numbers

next   gradcli simulate model.safetensors --layer encoder.rnn -T 200
       gradcli inspect model.safetensors --spec encoder.rnn > my.yaml
"""


def test_the_whole_screen() -> None:
    assert table_of(report(), 80) == SCREEN


@pytest.mark.parametrize("width", [40, 60, 100, None])
def test_no_line_is_longer_than_the_screen_and_no_layer_is_lost(width: int | None) -> None:
    text = table_of(report(), width)
    assert width is None or max(map(len, text.split("\n"))) <= width
    assert text.count("spectral radius") >= 2
    for name in ("encoder.rnn", "layer0.reverse", "plain", "W_hg", "fc", "emb", "cannot run"):
        assert name in text


def json_of(found: Report) -> dict[str, Any]:
    whole: dict[str, Any] = json.loads(render(found, "json", width=None, color=False, unicode=True))
    return whole


def test_json() -> None:
    data = json_of(report())
    assert list(data)[:3] == ["schema_version", "command", "gradcli_version"]
    assert (data["command"], data["file"], data["format"], data["size"]) == (
        "inspect",
        "model.safetensors",
        "table",
        4321,
    )
    assert len(data["tensors"]) == 32
    assert data["tensors"][-1] == {"name": "step", "shape": [], "dtype": "int64"}
    lstm, plain = data["layers"]
    assert (lstm["name"], lstm["cell"], lstm["equations"], lstm["bidirectional"]) == (
        "encoder.rnn",
        "lstm",
        None,
        True,
    )
    assert lstm["parameter_count"] == 2 * 4 * (4 * 3 + 4 * 4 + 4)
    reverse = lstm["directions"]["layer0.reverse"]
    assert reverse["gate"] == {
        "name": "f",
        "mean_bias": -1.0,
        "kept_at_rest": pytest.approx(1 / (1 + np.e), rel=1e-12),
    }
    assert reverse["matrices"]["W_hg"] == {
        "shape": [4, 4],
        "spectral_radius": pytest.approx(2.5, rel=1e-12),
        "spectral_norm": pytest.approx(2.5, rel=1e-12),
    }
    assert plain["directions"]["layer0"]["gate"] is None
    assert data["heads"] == [
        {
            "name": "fc",
            "inputs": 8,
            "outputs": 5,
            "bias": True,
            "readout_of": ["encoder.rnn"],
            "tensors": ["fc.weight", "fc.bias"],
        }
    ]
    assert data["embeddings"] == [
        {
            "name": "emb",
            "tokens": 1000,
            "features": 3,
            "input_of": ["encoder.rnn", "plain"],
            "tensors": ["emb.weight"],
        }
    ]
    assert data["unsupported"] == [{"name": "gate", "reason": "its gates are not known here"}]
    assert data["unused"] == ["step"]
    assert data["ignored"][0] == {"name": "config", "reason": "text, not numbers"}


def test_csv_has_a_row_for_each_matrix_and_each_gate_that_keeps() -> None:
    rows = list(csv.DictReader(io.StringIO(render(report(), "csv", width=None, color=False, unicode=True))))
    assert [row["parameter"] for row in rows] == [*["W_hi", "W_hf", "W_hg", "W_ho", "b_f"] * 2, "W_hh"]
    assert float(rows[1]["spectral_norm"]) == pytest.approx(1.5, rel=1e-12)
    assert (rows[9]["direction"], rows[9]["rows"], rows[9]["columns"], rows[9]["mean"]) == (
        "layer0.reverse",
        "4",
        "",
        "-1.0",
    )


def test_markdown_has_the_tables() -> None:
    text = render(report(), "markdown", width=None, color=False, unicode=True)
    assert "| direction | matrix | shape | spectral radius | spectral norm | mean b_f | keeps |" in text


def test_a_projection_has_a_norm_only_and_says_its_size() -> None:
    arrays = {f"rnn.layer0.W_x{gate}": np.ones((4, 2)) for gate in "ifgo"}
    arrays |= {f"rnn.layer0.W_h{gate}": scaled(4, 3, 0.5) for gate in "ifgo"}
    arrays["rnn.layer0.W_mh"] = scaled(3, 4, 2.0)
    table = Table(arrays)
    layer = of_parameters(table, "rnn", PROJECTED, "LSTM", output_size=3)
    found = inspected(table, Contents((layer,)), 1)
    screen = table_of(found)
    assert "PyTorch LSTM, runs as a cell of its own" in screen
    assert "hidden 4 projected to 3, input 2, output 3" in screen
    assert "spectral radius" not in screen
    assert "W_mh    3 x 4          2.000" in screen
    data = json_of(found)["layers"][0]
    assert data["cell"] is None
    assert data["equations"].startswith("i = sigmoid(")
    assert data["projection_size"] == 3
    assert data["directions"]["layer0"]["matrices"]["W_mh"]["spectral_radius"] is None


def test_without_a_recurrent_layer_it_says_what_there_is() -> None:
    table = Table({"conv.weight": np.ones((2, 3, 4)), "scale": np.ones(())}, name="a file.npz")
    found = inspected(table, Contents(), 300)
    assert (
        table_of(found)
        == """\
a file.npz   table, 300 bytes   2 tensors of 200 bytes together

NONE   gradcli recognises no recurrent layer in this file; its tensors:
       conv.weight 2 x 3 x 4, scale scalar

next   give the tensors to the parameters of a cell of your own, in its spec:
       weights: {file: "a file.npz", map: {PARAMETER: TENSOR, ...}}
"""
    )
    assert json_of(found)["layers"] == []


def test_a_file_of_layers_that_cannot_run() -> None:
    table = Table({"gate.weight_hh": np.ones((2, 2))})
    found = inspected(table, Contents(unsupported=(Unsupported("gate", "it is odd"),)), 300)
    screen = table_of(found)
    assert "NONE   of the recurrent layers in this file gradcli can run none" in screen
    assert "cannot run   gate: it is odd" in screen
    assert "next" not in screen


def test_numbers_that_are_not_finite_are_null_in_json() -> None:
    table = Table({"rnn.layer0.W_xh": np.ones((2, 1)), "rnn.layer0.W_hh": np.full((2, 2), 1.7e308)})
    layer = of_parameters(table, "rnn", equations.rnn(bias=False), "RNN")
    data = json_of(inspected(table, Contents((layer,)), 1))
    matrix = data["layers"][0]["directions"]["layer0"]["matrices"]["W_hh"]
    assert matrix["spectral_radius"] is None
    assert matrix["spectral_norm"] is None


def test_many_heads_are_cut_and_those_that_fit_come_first() -> None:
    arrays: dict[str, Any] = {"rnn.layer0.W_xh": np.ones((2, 1)), "rnn.layer0.W_hh": scaled(2, 2, 0.9)}
    for number in range(20):
        inputs = 2 if number == 19 else 7
        arrays |= {f"head{number}.weight": np.ones((3, inputs)), f"head{number}.bias": np.ones(3)}
    table = Table(arrays)
    layer = of_parameters(table, "rnn", equations.rnn(bias=False), "RNN")
    heads = tuple(head(table, f"head{number}") for number in range(20))
    found = inspected(table, Contents((layer,), heads), 1)
    screen = table_of(found)
    assert "and 8 more, which --format json lists" in screen
    assert screen.index("head19") < screen.index("head0 ")
    assert len(json_of(found)["heads"]) == 20


def test_names_are_quoted_for_the_shell() -> None:
    arrays = {"my rnn.layer0.W_xh": np.ones((2, 1)), "my rnn.layer0.W_hh": scaled(2, 2, 0.9)}
    table = Table(arrays, name="my model.pt")
    layer = of_parameters(table, "my rnn", equations.rnn(bias=False), "RNN")
    screen = table_of(inspected(table, Contents((layer,)), 1))
    assert "gradcli simulate 'my model.pt' --layer 'my rnn' -T 200" in screen


def test_what_would_take_too_long_is_said() -> None:
    rows = LARGEST_FOR_RADIUS + 1
    table = Table({"rnn.layer0.W_xh": np.ones((rows, 1)), "rnn.layer0.W_hh": scaled(rows, rows, 2.0)})
    layer = of_parameters(table, "rnn", equations.rnn(bias=False), "RNN")
    screen = table_of(inspected(table, Contents((layer,)), 1))
    assert "the spectral radius of more than 2048 rows would take too long" in " ".join(screen.split())
    assert "W_hh    2049 x 2049          2.000" in screen
