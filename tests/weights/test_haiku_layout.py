"""Haiku's cores, recognised by their tensors, do what Haiku says that they do."""

from __future__ import annotations

from dataclasses import replace

import pytest
from fake_checkpoint import of_shapes
from stored import checkpoint_of, disagreements, expected_of, stems

from gradcli.weights.layers import Contents, RecurrentLayer, Slice, Value
from gradcli.weights.layouts import haiku as haiku_layout
from gradcli.weights.layouts import linear as linear_layout

STEMS = stems("haiku")

Parameters = dict[str, Value]


def only_layer(contents: Contents) -> RecurrentLayer:
    assert contents.unsupported == ()
    (layer,) = contents.layers
    return layer


def found_in(stem: str) -> RecurrentLayer:
    return only_layer(haiku_layout.find(checkpoint_of(f"{stem}.npz"), set()))


def test_there_are_checkpoints_of_every_core() -> None:
    assert {found_in(stem).kind for stem in STEMS} == {"VanillaRNN", "LSTM", "GRU"}


@pytest.mark.parametrize("stem", STEMS)
def test_outputs_and_gradients_are_those_of_haiku(stem: str) -> None:
    checkpoint = checkpoint_of(f"{stem}.npz")
    layer = only_layer(haiku_layout.find(checkpoint, set()))
    assert disagreements(layer, checkpoint, expected_of(stem), 1e-10) == {}


def with_each(layer: RecurrentLayer, **fields: float) -> RecurrentLayer:
    """Return the layer with some fields of all of its slices set."""
    values = {
        key: replace(value, slices=tuple(replace(part, **fields) for part in value.slices))
        for key, value in layer.parameters.items()
    }
    return replace(layer, parameters=values)


def test_a_forgotten_sign_is_noticed() -> None:
    """What the test above rests on: z as the file has it, and f without its 1, do not agree."""
    for stem, wrong in (("haiku-gru", {"scale": 1.0}), ("haiku-lstm", {"shift": 0.0})):
        layer = with_each(found_in(stem), **wrong)
        assert layer != found_in(stem)
        assert "y" in disagreements(layer, checkpoint_of(f"{stem}.npz"), expected_of(stem), 1e-2)


def test_names_sizes_and_what_else_is_said() -> None:
    layer = found_in("haiku-model")
    assert (layer.name, layer.framework, layer.kind) == ("network/~/lstm", "Haiku", "LSTM")
    assert (layer.input_size, layer.hidden_size, layer.output_size) == (3, 4, 4)
    assert layer.gate_order == ("i", "g", "f", "o")
    assert layer.cell == "lstm"
    assert "b_f" in layer.notes[0]
    assert layer.parameters["layer0.b_f"].slices == (Slice("network/~/lstm/linear/b", (slice(8, 12),), shift=1.0),)
    gru = found_in("haiku-gru")
    assert gru.gate_order == ("z", "r", "n")
    assert gru.parameters["layer0.W_xz"].slices == (
        Slice("gru/w_i", (slice(None), slice(0, 4)), transposed=True, scale=-1.0),
    )
    assert found_in("haiku-vanilla-rnn").activation == "relu"


def test_a_model_has_its_embedding_and_its_head() -> None:
    checkpoint = checkpoint_of("haiku-model.npz")
    layer = found_in("haiku-model")
    rest = linear_layout.find(checkpoint, set(layer.tensors), [layer])
    assert [(head.name, head.weight.shape) for head in rest.heads] == [("network/~/linear", (5, 4))]
    assert [(table.name, table.table.shape) for table in rest.embeddings] == [("network/~/embed", (9, 3))]


def test_second_cores_and_other_joints() -> None:
    shapes = {"net.lstm_1.linear.w": (7, 16), "net.lstm_1.linear.b": (16,), "my_gru.w_i": (3, 12)}
    shapes |= {"my_gru.w_h": (4, 12), "my_gru.b": (12,)}
    layers = haiku_layout.find(of_shapes(shapes), set()).layers
    assert [(x.name, x.kind, x.input_size) for x in layers] == [("net.lstm_1", "LSTM", 3), ("my_gru", "GRU", 3)]
    assert haiku_layout.find(of_shapes(shapes), set(shapes)) == Contents()


@pytest.mark.parametrize("module", ["mlp", "lstm_net", "rnn_head", "net/~/lstms"])
def test_feed_forward_networks_are_left_alone(module: str) -> None:
    shapes = {f"{module}/linear/w": (7, 16), f"{module}/linear/b": (16,), f"{module}/linear_1/w": (16, 16)}
    assert haiku_layout.find(of_shapes(shapes), set()) == Contents()


@pytest.mark.parametrize(
    ("shapes", "expected"),
    [
        ({"lstm/linear/w": (7, 18)}, "lstm/linear/w has the shape (7, 18); expected (I + H, 4 H)"),
        ({"lstm/linear/w": (4, 16)}, "lstm/linear/w has the shape (4, 16); expected (I + H, 4 H)"),
        ({"lstm/linear/w": (7, 16)}, "its tensor linear/b is missing"),
        ({"lstm/linear/w": (7, 16), "lstm/linear/b": (4,)}, "lstm/linear/b has the shape (4); expected (16)"),
        ({"gru/w_i": (3, 12), "gru/w_h": (4, 12)}, "its tensor b is missing"),
        ({"gru/w_i": (3, 16), "gru/w_h": (4, 12), "gru/b": (12,)}, "gru/w_i has the shape (3, 16); expected (3, 12)"),
        ({"rnn/linear/w": (3, 4), "rnn/linear_1/w": (4, 5)}, "rnn/linear_1/w has the shape (4, 5); expected (4, 4)"),
    ],
)
def test_what_does_not_fit_is_said(shapes: dict[str, tuple[int, ...]], expected: str) -> None:
    contents = haiku_layout.find(of_shapes(shapes), set())
    assert contents.layers == ()
    (unsupported,) = contents.unsupported
    assert expected in unsupported.reason
