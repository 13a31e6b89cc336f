"""Keras's layers: what is found in its files, and gradcli's numbers held against those that Keras itself computed.

The files are made by checkpoints/make_keras.py; what each expected array is, is said there.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from weights.fake_checkpoint import FakeCheckpoint
from weights.running import relative_error, run_layer, tensor_gradients

from gradcli.language.cell import parse_cell
from gradcli.weights.checkpoint import Tensor
from gradcli.weights.layers import Contents, RecurrentLayer, Slice, Value
from gradcli.weights.layouts import keras as keras_layout
from gradcli.weights.layouts.keras_activations import TEMPLATES, UnknownActivationError, template
from gradcli.weights.readers.keras_h5 import KerasCheckpoint, open_file

pytest.importorskip("h5py")

CHECKPOINTS = Path(__file__).parents[1] / "checkpoints"
#: Relative errors that rounding explains: computed in float64, or by Keras in float32.
FLOAT64, FLOAT32 = 1e-10, 1e-5
#: PyTorch's hard_sigmoid takes 1/6 as float32 knows it, in float64 too.
PYTORCH_HARD_SIGMOID = 1e-7


@contextmanager
def opened(file: str) -> Iterator[tuple[KerasCheckpoint, Contents]]:
    with open_file(CHECKPOINTS / file, file) as checkpoint:
        yield checkpoint, keras_layout.find(checkpoint, set())


@cache
def expected_of(stem: str) -> Mapping[str, NDArray[Any]]:
    with np.load(CHECKPOINTS / f"{stem}.expected.npz") as file:
        return dict(file)


def layer_of(contents: Contents, name: str) -> RecurrentLayer:
    return {layer.name: layer for layer in contents.layers}[name]


ENDINGS = ("keras", "weights.h5", "h5")
VARIANTS = [
    "enc", "after", "twin", "before", "elman", "leaky", "both", "both-gru", "no-bias", "no-bias-after",
    "no-bias-before", "no-bias-elman", "back", "from-cell",
]  # fmt: skip
CASES = [
    *(("keras-variants.keras", name, FLOAT64 if name != "twin" else PYTORCH_HARD_SIGMOID) for name in VARIANTS),
    *((f"keras-small-float64.{end}", name, FLOAT64) for end in ENDINGS for name in ("lower", "upper")),
    *((f"keras-nested.{end}", name, FLOAT64) for end in ENDINGS for name in ("deep", "both")),
    ("keras-small-float32.weights.h5", "lower", FLOAT32),
    ("keras-small-float32.weights.h5", "upper", FLOAT32),
]  # fmt: skip


@pytest.mark.parametrize(("file", "name", "tolerance"), CASES)
def test_outputs_and_gradients_are_those_of_keras(file: str, name: str, tolerance: float) -> None:
    expected = {
        key.removeprefix(f"{name}."): value
        for key, value in expected_of(file.split(".")[0]).items()
        if key.startswith(f"{name}.")
    }
    with opened(file) as (checkpoint, contents):
        layer = layer_of(contents, name)
        ran = run_layer(layer, checkpoint, expected["x"], expected["v"], every=bool(expected["every"]))
        of_tensors = tensor_gradients(layer, ran, checkpoint)
    assert relative_error(ran.outputs, expected["outputs"]) < tolerance
    assert relative_error(ran.state_gradients["layer0.h"][1:], expected["grad_h"]) < tolerance
    if layer.bidirectional:
        assert relative_error(ran.state_gradients["layer0.reverse.h"][1:], expected["reverse.grad_h"]) < tolerance
    assert len(of_tensors) == len(layer.tensors) == sum(key.startswith("grad.") for key in expected)
    for number, tensor in enumerate(layer.tensors):
        assert relative_error(of_tensors[tensor], expected[f"grad.{number}"]) < tolerance, tensor


def test_other_merge_modes_are_a_layer_for_each_direction() -> None:
    expected = {key.removeprefix("summed."): value for key, value in expected_of("keras-variants").items()}
    with opened("keras-variants.keras") as (checkpoint, contents):
        ahead, back = layer_of(contents, "summed.forward"), layer_of(contents, "summed.reverse")
        assert (ahead.reversed, back.reversed) == (False, True)
        assert "merges its two directions by 'sum'" in ahead.notes[0]
        runs = [run_layer(each, checkpoint, expected["x"], expected["v"], every=True) for each in (ahead, back)]
        gradients = [tensor_gradients(each, ran, checkpoint) for each, ran in zip((ahead, back), runs, strict=True)]
    assert relative_error(runs[0].outputs + runs[1].outputs[::-1], expected["outputs"]) < FLOAT64
    found = [gradients[i][tensor] for i, layer in enumerate((ahead, back)) for tensor in layer.tensors]
    for number, gradient in enumerate(found):
        assert relative_error(gradient, expected[f"grad.{number}"]) < FLOAT64


def test_layers_have_the_names_of_the_config_in_its_order() -> None:
    with opened("keras-variants.keras") as (_, contents):
        assert [layer.name for layer in contents.layers] == [
            "enc", "after", "twin", "before", "elman", "leaky", "both", "both-gru", "summed.forward", "summed.reverse",
            "no-bias", "no-bias-after", "no-bias-before", "no-bias-elman", "back", "from-cell",
        ]  # fmt: skip
        described = {layer.name: layer for layer in contents.layers}
    assert contents.unsupported == ()
    assert {layer.framework for layer in contents.layers} == {"Keras"}
    assert described["enc"].cell == "lstm"
    assert described["after"].cell == "gru"
    assert described["elman"].cell == "rnn"
    assert described["before"].cell not in ("gru", "gru-textbook")
    assert described["back"].reversed
    assert not described["enc"].reversed
    assert described["both"].bidirectional
    assert (described["both"].hidden_size, described["both"].output_size) == (4, 8)
    assert described["enc"].gate_order == ("i", "f", "g", "o")
    assert described["after"].gate_order == ("z", "r", "n")
    assert described["enc"].tensors == tuple(f"layers/lstm/cell/vars/{number}" for number in range(3))


@pytest.mark.parametrize("ending", ENDINGS)
def test_embedding_and_head_give_the_logits_of_keras(ending: str) -> None:
    expected = expected_of("keras-small-float64")
    with opened(f"keras-small-float64.{ending}") as (checkpoint, contents):
        assert [layer.name for layer in contents.layers] == ["lower", "upper"]
        (embedding,), (head,) = contents.embeddings, contents.heads
        assert (embedding.name, head.name) == ("tokens", "head")
        x = embedding.table.read(checkpoint)[expected["ids"]]
        for layer in contents.layers:
            x = run_layer(layer, checkpoint, x, np.ones(4)).outputs
        assert head.bias is not None
        logits = x @ head.weight.read(checkpoint).T + head.bias.read(checkpoint)
        assert bool(contents.layers[0].notes) == (ending == "weights.h5")
    assert relative_error(logits, expected["logits"]) < FLOAT64


@pytest.mark.parametrize("ending", ["keras", "h5"])
def test_models_in_models(ending: str) -> None:
    with opened(f"keras-nested.{ending}") as (_, contents):
        found = {layer.name: (layer.kind, layer.input_size, layer.hidden_size) for layer in contents.layers}
        assert found == {
            "inner.enc": ("LSTM", 3, 4),
            "deep": ("GRU", 4, 4),
            "stack.0": ("LSTM", 3, 2),
            "stack.1": ("LSTM", 2, 3),
            "enc": ("LSTM", 3, 4),
            "both": ("GRU", 4, 2),
        }
        # A Dense with relu is a layer on the way, not a head.
        assert [(head.name, head.bias is None) for head in contents.heads] == [("each", False), ("readout", True)]
        (odd,) = contents.unsupported
        assert odd.reason == "this LSTM cannot be run here: its activation sparse_plus is not known here"


def test_weights_of_refused_layers_are_taken() -> None:
    taken: set[str] = set()
    with open_file(CHECKPOINTS / "keras-nested.keras", "nested") as checkpoint:
        keras_layout.find(checkpoint, taken)
    assert taken == {f"layers/lstm_1/cell/vars/{number}" for number in range(3)}


def test_no_number_is_read_to_tell_layers() -> None:
    with open_file(CHECKPOINTS / "keras-variants.keras", "variants") as checkpoint:

        def refuse(tensor: Tensor) -> NDArray[Any]:
            raise AssertionError(tensor)

        checkpoint._read = refuse  # type: ignore[method-assign]
        assert keras_layout.find(checkpoint, set()).layers


class FakeKeras(KerasCheckpoint):
    """A file of Keras made of arrays: of versions and layers that there is no file of."""

    def __init__(
        self,
        arrays: Mapping[str, NDArray[Any]],
        config: Mapping[str, Any] | None = None,
        attributes: Mapping[str, Mapping[str, str]] | None = None,
    ) -> None:
        self.tensors = FakeCheckpoint(arrays).tensors
        self.config = config
        self.attributes = dict(attributes or {})
        self._arrays = arrays

    def _read(self, tensor: Tensor) -> NDArray[Any]:
        return self._arrays[tensor.name]

    def close(self) -> None:
        pass


def of_keras_2(class_name: str, gates: int, bias: tuple[int, ...] | None, **config: Any) -> FakeKeras:
    """Return a legacy file of Keras 2 with one layer "enc": input 2, size 3."""
    prefix = "model_weights/enc/enc/cell_1"
    arrays = {f"{prefix}/kernel:0": np.ones((2, 3 * gates)), f"{prefix}/recurrent_kernel:0": np.ones((3, 3 * gates))}
    if bias is not None:
        arrays[f"{prefix}/bias:0"] = np.ones(bias)
    layer = {"class_name": class_name, "config": {"name": "enc", **config}}
    model = {"class_name": "Sequential", "config": {"name": "m", "layers": [layer]}}
    return FakeKeras(arrays, model, {"model_weights": {"keras_version": "2.15.0"}})


@pytest.mark.parametrize(
    ("activation", "outputs", "loss"),
    [
        ("sigmoid", 1, "binary_cross_entropy"),
        ("sigmoid", 3, "binary_cross_entropy"),
        ("linear", 1, "mse"),
        ("softmax", 3, "cross_entropy"),
        ("linear", 3, "cross_entropy"),
    ],
)
def test_the_activation_of_a_head_tells_its_loss(activation: str, outputs: int, loss: str) -> None:
    arrays = {"model_weights/out/out/kernel:0": np.ones((4, outputs)), "model_weights/out/out/bias:0": np.ones(outputs)}
    layer = {"class_name": "Dense", "config": {"name": "out", "activation": activation}}
    model = {"class_name": "Sequential", "config": {"name": "m", "layers": [layer]}}
    (head,) = keras_layout.find(FakeKeras(arrays, model, {}), set()).heads
    assert head.loss == loss
    assert head.is_regression_assumed == (loss == "mse")


def test_names_of_tensorflow_with_output_numbers() -> None:
    (layer,) = keras_layout.find(of_keras_2("LSTM", 4, (12,)), set()).layers
    assert (layer.name, layer.kind, layer.cell, layer.hidden_size) == ("enc", "LSTM", "lstm", 3)
    assert layer.parameters["layer0.W_xg"] == Value(
        (Slice("model_weights/enc/enc/cell_1/kernel:0", (slice(None), slice(6, 9)), transposed=True),), (3, 2)
    )


def test_hard_sigmoid_of_keras_2_has_a_slope_of_its_own() -> None:
    """Keras 2: clip(0.2 a + 0.5, 0, 1); Keras 3: clip(a / 6 + 0.5, 0, 1)."""
    (layer,) = keras_layout.find(of_keras_2("LSTM", 4, (12,), recurrent_activation="hard_sigmoid"), set()).layers
    a = np.linspace(-4, 4, 9)
    assert isinstance(layer.cell, dict)
    two = template("hard_sigmoid", "2.15.0")
    assert f"i = {two.replace('{}', 'W_xi @ x[t] + W_hi @ h[t-1] + b_i')}" in layer.cell["equations"]
    np.testing.assert_allclose(applied(two, a)[0], np.clip(0.2 * a + 0.5, 0, 1), rtol=1e-12, atol=1e-15)
    np.testing.assert_allclose(
        applied(template("hard_sigmoid", "3.15.1"), a)[0], np.clip(a / 6 + 0.5, 0, 1), atol=1e-15
    )


@pytest.mark.parametrize(
    ("bias", "config", "after"),
    [((2, 9), {}, True), ((9,), {}, False), (None, {"reset_after": True}, True), (None, {"reset_after": False}, False)],
)
def test_reset_after_is_told_by_the_bias_where_there_is_one(
    bias: tuple[int, ...] | None, config: dict[str, Any], after: bool
) -> None:
    (layer,) = keras_layout.find(of_keras_2("GRU", 3, bias, **config), set()).layers
    cell = layer.cell
    assert ("W_hn @ (r * h[t-1])" not in (cell if isinstance(cell, str) else cell["equations"])) == after
    assert ("layer0.b_hn" in layer.parameters) == (bias == (2, 9))


@pytest.mark.parametrize(
    ("checkpoint", "clause"),
    [
        (of_keras_2("MyLSTM", 4, (12,)), "its class MyLSTM is not known here"),
        (of_keras_2("CuDNNLSTM", 4, (24,)), "its class CuDNNLSTM is not known here"),
        (of_keras_2("LSTM", 4, (11,)), "its bias has the shape (11,); expected (12,)"),
        (of_keras_2("LSTM", 4, (2, 12)), "its bias has the shape (2, 12); expected (12,)"),
        (of_keras_2("GRU", 3, ()), "its bias has the shape (); expected (9,)"),
        (of_keras_2("GRU", 4, (12,)), "its kernels have the shapes (2, 12) and (3, 12); expected (I, 9), (H, 9)"),
        (of_keras_2("LSTM", 4, (12,), activation="glu"), "its activation glu is not known here"),
        (
            of_keras_2("LSTM", 4, (12,), activation={"class_name": "function", "config": "my_tanh"}),
            "its activation my_tanh is not known here",
        ),
        (of_keras_2("LSTM", 4, (12,), activation=["code"]), "its activation is code of its own"),
        (of_keras_2("RNN", 4, (12,)), "the config does not say what its cell is"),
        (of_keras_2("Bidirectional", 4, (12,)), "the config does not say what it wraps"),
        (
            FakeKeras(
                {"layers/conv_lstm2d/cell/vars/0": np.ones((3, 3, 1, 4))},
                {"config": {"layers": [{"class_name": "ConvLSTM2D", "config": {"name": "enc"}}]}},
            ),
            "its weights are not those of a cell that is known here",
        ),
    ],
)
def test_what_cannot_be_run_is_said(checkpoint: FakeKeras, clause: str) -> None:
    contents = keras_layout.find(checkpoint, set())
    assert contents.layers == ()
    (refused,) = contents.unsupported
    assert refused.name == "enc"
    assert refused.reason.startswith("this ")
    assert clause in refused.reason


@pytest.mark.parametrize(
    "config",
    [
        {},
        {"config": []},
        {"config": {"layers": "LSTM"}},
        {"config": {"layers": [1, None, {"class_name": 3}]}},
        {"config": {"layers": [{"class_name": "LSTM", "config": {"name": "other"}}]}},
    ],
)
def test_a_config_that_does_not_fit_is_no_config(config: dict[str, Any]) -> None:
    arrays = {f"encoder/cell/vars/{n}": np.ones(shape) for n, shape in enumerate([(2, 12), (3, 12), (12,)])}
    checkpoint = FakeKeras(arrays, config, {"encoder/vars": {"name": "mine"}})
    (layer,) = keras_layout.find(checkpoint, set()).layers
    assert (layer.name, layer.kind, layer.notes) == ("mine", "LSTM", (keras_layout.NOT_SAID,))


def test_other_variables_are_no_layers() -> None:
    arrays = {
        "layers/batch_normalization/vars/0": np.ones(3),
        "layers/batch_normalization/vars/1": np.ones(3),
        "layers/conv1d/vars/0": np.ones((3, 2, 4)),
        "layers/conv1d/vars/1": np.ones(4),
        "layers/factors/vars/0": np.ones((3, 5)),
        "layers/factors/vars/1": np.ones((5, 7)),
        "notes": np.ones(2),
    }
    assert keras_layout.find(FakeKeras(arrays), set()) == Contents()


def applied(activation: str, a: NDArray[np.float64]) -> tuple[NDArray[Any], NDArray[Any]]:
    """Return an activation's values and slopes at a, through the engine."""
    cell = {"name": "probe", "equations": f"h[t] = {activation.replace('{}', 'W_xh @ x[t]')}"}
    assert parse_cell(cell["equations"])
    probe = FakeCheckpoint({"W": np.ones((1, 1))})
    weight = Value((Slice("W"),), (1, 1))
    layer = RecurrentLayer("probe", "", "", cell, 1, 1, 1, {"layer0.W_xh": weight}, ("W",), "float64")
    values, slopes = [], []
    for entry in a:
        ran = run_layer(layer, probe, np.full((1, 1, 1), entry), np.ones(1))
        values.append(ran.outputs.item())
        # dL/dW = phi'(W a) a
        slopes.append(ran.parameter_gradients["layer0.W_xh"].item() / entry if entry else np.nan)
    return np.array(values), np.array(slopes)


@pytest.mark.parametrize("name", sorted(TEMPLATES))
def test_activations_are_those_of_keras(name: str) -> None:
    expected = expected_of("keras-activations")
    same = {"swish": "silu", "hard_swish": "hard_silu"}.get(name, name)
    values, slopes = applied(TEMPLATES[name], expected["x"])
    tolerance = PYTORCH_HARD_SIGMOID if name in ("hard_sigmoid", "hard_silu", "hard_swish") else FLOAT64
    assert relative_error(values, expected[f"{same}.value"]) < tolerance
    assert relative_error(slopes, expected[f"{same}.slope"]) < tolerance


def test_activations_that_are_layers() -> None:
    a = np.linspace(-3, 3, 8)
    for config, expected in (
        ({"class_name": "LeakyReLU", "config": {"negative_slope": 0.25}}, np.where(a > 0, a, 0.25 * a)),
        ({"class_name": "LeakyReLU", "config": {"alpha": 0.5}}, np.where(a > 0, a, 0.5 * a)),
        ({"class_name": "ELU", "config": {"alpha": 0.5}}, np.where(a > 0, a, 0.5 * np.expm1(a))),
        ({"class_name": "ReLU", "config": {"max_value": None}}, np.maximum(a, 0)),
        (None, a),
    ):
        assert relative_error(applied(template(config, None), a)[0], expected) < FLOAT64
    for slope in (float("nan"), 10**400):
        with pytest.raises(UnknownActivationError, match="its activation ELU has the parameter"):
            template({"class_name": "ELU", "config": {"alpha": slope}}, None)
    with pytest.raises(UnknownActivationError, match="ReLU is not known"):
        template({"class_name": "ReLU", "config": {"max_value": 6.0}}, None)


def test_every_activation_of_keras_is_known_or_refused_by_name() -> None:
    names = {key.partition(".")[0] for key in expected_of("keras-activations")} - {"x"}
    refused = {"hard_shrink", "sparse_plus", "sparse_sigmoid"}
    assert refused == names - TEMPLATES.keys()
    for name in refused:
        with pytest.raises(UnknownActivationError, match=f"its activation {name} is not known here"):
            template(name, None)
