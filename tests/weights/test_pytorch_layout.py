"""PyTorch's layers, recognised by their tensors, do what PyTorch says that they do."""

from __future__ import annotations

from dataclasses import replace

import pytest
from fake_checkpoint import of_shapes
from stored import checkpoint_of, disagreements, expected_of, stems

from gradcli.weights.layers import Contents, RecurrentLayer, Slice
from gradcli.weights.layouts import linear as linear_layout
from gradcli.weights.layouts import pytorch as pytorch_layout

STEMS = stems("pytorch")
TOLERANCE = {"float64": 1e-10, "float32": 1e-5, "bfloat16": 1e-10}


def only_layer(contents: Contents) -> RecurrentLayer:
    assert contents.unsupported == ()
    (layer,) = contents.layers
    return layer


def stack(*, kind: int = 4, H: int = 5, I: int = 3, layers: int = 1, ways: int = 1) -> dict[str, tuple[int, ...]]:  # noqa: E741
    """Return the shapes of a layer of PyTorch, by the names of its tensors."""
    shapes: dict[str, tuple[int, ...]] = {}
    for k in range(layers):
        for suffix in ("", "_reverse")[:ways]:
            shapes[f"rnn.weight_ih_l{k}{suffix}"] = (kind * H, ways * H if k else I)
            shapes[f"rnn.weight_hh_l{k}{suffix}"] = (kind * H, H)
            shapes[f"rnn.bias_ih_l{k}{suffix}"] = (kind * H,)
            shapes[f"rnn.bias_hh_l{k}{suffix}"] = (kind * H,)
    return shapes


def why_not(shapes: dict[str, tuple[int, ...]], dtype: str = "float32") -> str:
    contents = pytorch_layout.find(of_shapes(shapes, dtype), set())
    assert contents.layers == ()
    (unsupported,) = contents.unsupported
    assert set(unsupported.tensors) == shapes.keys()
    return unsupported.reason


def test_there_are_checkpoints_of_every_layer() -> None:
    kinds = {(layer.kind, layer.num_layers, layer.bidirectional) for layer in map(found_in, STEMS)}
    assert {kind for kind, _, _ in kinds} == {"RNN", "LSTM", "GRU", "RNNCell", "LSTMCell", "GRUCell"}
    assert {(layers, both) for _, layers, both in kinds} == {(1, False), (2, False), (1, True), (2, True)}


def found_in(stem: str) -> RecurrentLayer:
    return only_layer(pytorch_layout.find(checkpoint_of(f"{stem}.safetensors"), set()))


@pytest.mark.parametrize("ending", [".pt", ".safetensors"])
@pytest.mark.parametrize("stem", STEMS)
def test_outputs_and_gradients_are_those_of_pytorch(stem: str, ending: str) -> None:
    checkpoint = checkpoint_of(stem + ending)
    layer = only_layer(pytorch_layout.find(checkpoint, set()))
    if stem == "pytorch-rnn-relu":
        layer = replace(layer, activation="relu")
    # The .pt of the model keeps its state dict beside other things.
    prefix = "model." if (stem, ending) == ("pytorch-model", ".pt") else ""
    expected = expected_of(stem)
    assert any(key.startswith("state.") for key in expected)
    assert disagreements(layer, checkpoint, expected, TOLERANCE[layer.dtype], prefix=prefix) == {}


@pytest.mark.parametrize(("stem", "one", "other"), [("pytorch-lstm", "g", "o"), ("pytorch-gru", "r", "z")])
def test_swapped_gates_are_noticed(stem: str, one: str, other: str) -> None:
    """What the test above rests on: two gates the other way round do not agree."""
    checkpoint = checkpoint_of(f"{stem}.safetensors")
    layer = only_layer(pytorch_layout.find(checkpoint, set()))
    of = layer.parameters
    swapped = {f"layer0.{kind}{one}": of[f"layer0.{kind}{other}"] for kind in ("W_x", "W_h", "b_")}
    swapped |= {f"layer0.{kind}{other}": of[f"layer0.{kind}{one}"] for kind in ("W_x", "W_h", "b_")}
    found = disagreements(replace(layer, parameters={**of, **swapped}), checkpoint, expected_of(stem), 1e-2)
    assert "y" in found


def test_names_sizes_and_what_else_is_said() -> None:
    layer = found_in("pytorch-lstm-projected-both-ways")
    assert (layer.name, layer.framework, layer.kind) == ("lstm", "PyTorch", "LSTM")
    assert (layer.input_size, layer.hidden_size, layer.output_size) == (3, 4, 4)
    assert (layer.num_layers, layer.bidirectional, layer.dtype) == (2, True, "float64")
    assert layer.gate_order == ("i", "f", "g", "o")
    assert layer.cell["shapes"] == {"h": [2]}  # type: ignore[index]
    assert len(layer.parameters) == 4 * 13
    assert layer.parameters["layer1.reverse.b_g"].slices == (
        Slice("bias_ih_l1_reverse", (slice(8, 12),)),
        Slice("bias_hh_l1_reverse", (slice(8, 12),)),
    )
    assert found_in("pytorch-lstm-bfloat16").dtype == "bfloat16"
    assert found_in("pytorch-lstm").cell == "lstm"
    assert found_in("pytorch-gru").cell == "gru"
    assert found_in("pytorch-gru-no-bias").cell != "gru"


@pytest.mark.parametrize("stem", ["pytorch-rnn", "pytorch-rnn-cell", "pytorch-rnn-no-bias"])
def test_the_nonlinearity_of_an_rnn_is_said_to_be_unknown(stem: str) -> None:
    layer = found_in(stem)
    assert layer.activation == "tanh"
    assert "`activation: relu`" in layer.notes[0]


def test_a_model_has_its_embedding_and_its_head() -> None:
    checkpoint = checkpoint_of("pytorch-model.pt")
    layer = only_layer(pytorch_layout.find(checkpoint, set()))
    assert layer.name == "model.encoder.rnn"
    rest = linear_layout.find(checkpoint, set(layer.tensors), [layer])
    assert [(head.name, head.weight.shape) for head in rest.heads] == [("model.fc", (5, 4))]
    assert [(table.name, table.table.shape) for table in rest.embeddings] == [("model.embedding", (11, 3))]


@pytest.mark.parametrize("joint", [".", "/"])
def test_prefixes_joints_and_several_layers(joint: str) -> None:
    shapes = {f"a.{name}".replace(".", joint): shape for name, shape in stack(kind=3).items()}
    shapes |= {f"b.{name}".replace(".", joint): shape for name, shape in stack(kind=1, layers=3).items()}
    layers = pytorch_layout.find(of_shapes(shapes), set()).layers
    assert [(x.name, x.kind, x.num_layers) for x in layers] == [(f"a{joint}rnn", "GRU", 1), (f"b{joint}rnn", "RNN", 3)]
    taken = set(layers[0].tensors)
    assert [x.kind for x in pytorch_layout.find(of_shapes(shapes), taken).layers] == ["RNN"]


def test_what_is_no_recurrent_layer_is_left_alone() -> None:
    shapes = {
        "fc.weight": (3, 4),
        "my_weight_ih_l0": (3, 4),
        "rnn.weight_ih_l00": (3, 4),
        "x.weight_ih_l" + "9" * 5000: (1, 1),
    }
    assert pytorch_layout.find(of_shapes(shapes), set()) == Contents()


@pytest.mark.parametrize(
    ("name", "shape", "expected"),
    [
        ("rnn.weight_ih_l0", None, "its tensor weight_ih_l0 is missing"),
        ("rnn.weight_hh_l1", None, "its tensor weight_hh_l1 is missing"),
        ("rnn.bias_hh_l1_reverse", None, "its tensor bias_hh_l1_reverse is missing"),
        ("rnn.weight_hh_l0", (20, 6), "rnn.weight_hh_l0 has 20 rows and 6 columns; expected 4 times as many rows"),
        ("rnn.weight_hh_l0", (10, 5), "expected 4 times as many rows as columns of an LSTM"),
        ("rnn.weight_hh_l0", (20,), "rnn.weight_hh_l0 has the shape (20); expected a matrix"),
        ("rnn.weight_hh_l0", (0, 0), "rnn.weight_hh_l0 has the shape (0, 0); expected a matrix"),
        ("rnn.weight_ih_l0", (21, 3), "rnn.weight_ih_l0 has the shape (21, 3); expected (20, 3)"),
        ("rnn.weight_ih_l1_reverse", (20, 5), "rnn.weight_ih_l1_reverse has the shape (20, 5); expected (20, 10)"),
        ("rnn.bias_ih_l1", (20, 1), "rnn.bias_ih_l1 has the shape (20, 1); expected (20)"),
        ("rnn.weight_hr_l0", (2, 5), "rnn.weight_hh_l0 has the shape (20, 5); expected (20, 2)"),
    ],
)
def test_what_does_not_fit_is_said(name: str, shape: tuple[int, ...] | None, expected: str) -> None:
    shapes = stack(layers=2, ways=2)
    shapes.pop(name, None)
    if shape is not None:
        shapes[name] = shape
    assert expected in why_not(shapes)


def test_gaps_and_integers_are_said() -> None:
    gap = {name: shape for name, shape in stack(layers=3).items() if "_l1" not in name}
    assert "it has tensors of layer 2 and none of layer 1" in why_not(gap)
    assert "rnn.weight_hh_l0 is of int8; expected one of float64, float32" in why_not(stack(), "int8")
