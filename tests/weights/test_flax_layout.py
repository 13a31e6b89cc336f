"""Flax's cells, recognised by their tensors, do what Flax says that they do."""

from __future__ import annotations

from dataclasses import replace

import pytest
from fake_checkpoint import of_shapes
from stored import checkpoint_of, disagreements, expected_of, stems

from gradcli.weights.layers import Contents, RecurrentLayer
from gradcli.weights.layouts import flax as flax_layout

STEMS = stems("flax")


def only_layer(contents: Contents) -> RecurrentLayer:
    assert contents.unsupported == ()
    (layer,) = contents.layers
    return layer


def found_in(stem: str) -> RecurrentLayer:
    return only_layer(flax_layout.find(checkpoint_of(f"{stem}.npz"), set()))


def test_there_are_checkpoints_of_every_cell() -> None:
    assert {found_in(stem).kind for stem in STEMS} == {
        "LSTMCell",
        "OptimizedLSTMCell",
        "GRUCell",
        "MGUCell",
        "SimpleCell",
    }


@pytest.mark.parametrize("ending", [".npz", ".safetensors"])
@pytest.mark.parametrize("stem", STEMS)
def test_outputs_and_gradients_are_those_of_flax(stem: str, ending: str) -> None:
    checkpoint = checkpoint_of(stem + ending)
    layer = only_layer(flax_layout.find(checkpoint, set()))
    assert disagreements(layer, checkpoint, expected_of(stem), 1e-10) == {}


def test_swapped_gates_are_noticed() -> None:
    """What the test above rests on: two gates the other way round do not agree."""
    checkpoint = checkpoint_of("flax-nnx-GRUCell.npz")
    layer = only_layer(flax_layout.find(checkpoint, set()))
    of = layer.parameters
    swapped = {**of, "layer0.W_xr": of["layer0.W_xz"], "layer0.W_xz": of["layer0.W_xr"]}
    found = disagreements(replace(layer, parameters=swapped), checkpoint, expected_of("flax-nnx-GRUCell"), 1e-2)
    assert "y" in found


def test_the_same_cells_whoever_wrote_them() -> None:
    assert found_in("flax-nnx-LSTMCell").cell == found_in("flax-nnx-OptimizedLSTMCell").cell == "lstm"
    assert found_in("flax-linen-LSTMCell").cell == "lstm"
    assert found_in("flax-linen-GRUCell").cell == "gru"
    # The candidate of nnx's GRU has no recurrent bias.
    assert found_in("flax-nnx-GRUCell").cell != "gru"
    assert found_in("flax-nnx-SimpleCell").cell == found_in("flax-linen-SimpleCell").cell == "rnn"


def test_names_sizes_and_what_else_is_said() -> None:
    layer = found_in("flax-nnx-OptimizedLSTMCell")
    assert (layer.name, layer.framework, layer.gate_order) == ("encoder/rnn", "Flax", ("i", "f", "g", "o"))
    assert (layer.input_size, layer.hidden_size, layer.output_size, layer.dtype) == (3, 4, 4, "float64")
    assert "activations" in layer.notes[0]
    alone = found_in("flax-linen-LSTMCell")
    assert (alone.name, alone.gate_order) == ("lstm", ())
    simple = found_in("flax-linen-SimpleCell")
    assert simple.activation == "tanh"
    assert "residual" in simple.notes[0]


def test_both_directions_are_one_layer() -> None:
    for stem in ("flax-nnx-Bidirectional", "flax-linen-Bidirectional"):
        layer = found_in(stem)
        assert (layer.bidirectional, layer.output_size) == (True, 8)
        assert "merged" in layer.notes[-1]


FUSED = {"dense_i/kernel": (3, 15), "dense_i/bias": (15,), "dense_h/kernel": (5, 15)}
MGU = {
    "if/kernel": (3, 5),
    "if/bias": (5,),
    "in/kernel": (3, 5),
    "in/bias": (5,),
    "hf/kernel": (5, 5),
    "hn/kernel": (5, 5),
}


def test_a_reverse_direction_by_itself() -> None:
    layer = only_layer(flax_layout.find(of_shapes({f"backward_rnn/cell/{k}": s for k, s in FUSED.items()}), set()))
    assert (layer.name, layer.reversed, layer.bidirectional) == ("backward_rnn", True, False)


def test_directions_of_different_sizes_stay_two_layers() -> None:
    wider = {"dense_i/kernel": (3, 18), "dense_i/bias": (18,), "dense_h/kernel": (6, 18)}
    shapes = {f"a/forward_rnn/cell/{k}": s for k, s in FUSED.items()}
    shapes |= {f"a/backward_rnn/cell/{k}": s for k, s in wider.items()}
    layers = flax_layout.find(of_shapes(shapes), set()).layers
    assert [(x.hidden_size, x.reversed) for x in layers] == [(5, False), (6, True)]


@pytest.mark.parametrize("joint", ["/", "."])
def test_names_of_values_and_joints(joint: str) -> None:
    shapes = {f"params/net/{name}/value".replace("/", joint): shape for name, shape in FUSED.items()}
    layer = only_layer(flax_layout.find(of_shapes(shapes), set()))
    assert (layer.kind, layer.name) == ("GRUCell", f"params{joint}net")
    assert set(layer.tensors) == shapes.keys()
    assert flax_layout.find(of_shapes(shapes), set(shapes)) == Contents()


@pytest.mark.parametrize(
    "shapes",
    [
        {"h/kernel": (5, 5), "h/bias": (5,)},
        {"dense_i/kernel": (3, 5), "dense_i/bias": (5,)},
        {"mlp/ii/kernel": (3, 5), "mlp/io/kernel": (3, 5)},
        {"embed/embedding": (9, 3), "out/kernel": (5, 2), "out/bias": (2,)},
    ],
)
def test_what_is_no_cell_is_left_alone(shapes: dict[str, tuple[int, ...]]) -> None:
    assert flax_layout.find(of_shapes(shapes), set()) == Contents()


@pytest.mark.parametrize(
    ("shapes", "expected"),
    [
        ({**FUSED, "dense_h/kernel": (5, 10)}, "dense_h/kernel has 5 rows and 10 columns; expected 4 times as many"),
        ({**FUSED, "dense_i/kernel": (3, 20)}, "dense_i/kernel has the shape (3, 20); expected (3, 15)"),
        ({**FUSED, "dense_i/bias": (5,)}, "dense_i/bias has the shape (5); expected (15)"),
        ({**FUSED, "dense_h/kernel": (0, 0)}, "dense_h/kernel has the shape (0, 0); expected a matrix"),
        ({k: s for k, s in MGU.items() if k != "hf/kernel"}, "its tensor hf/kernel is missing"),
        ({k: s for k, s in MGU.items() if k != "in/bias"}, "it has biases, and none for n"),
        ({**MGU, "hn/kernel": (5, 6)}, "hn/kernel has the shape (5, 6); expected (5, 5)"),
    ],
)
def test_what_does_not_fit_is_said(shapes: dict[str, tuple[int, ...]], expected: str) -> None:
    contents = flax_layout.find(of_shapes({f"net/{name}": shape for name, shape in shapes.items()}), set())
    assert contents.layers == ()
    (unsupported,) = contents.unsupported
    assert unsupported.name == "net"
    assert expected in unsupported.reason
    assert set(unsupported.tensors) == {f"net/{name}" for name in shapes}
