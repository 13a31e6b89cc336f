"""Makes keras-*.keras, .weights.h5 and .h5, and what Keras itself computes with them, as <stem>.expected.npz.

Run with Keras 3.15 and its torch backend: KERAS_BACKEND=torch python tests/checkpoints/make_keras.py

For each recurrent layer NAME of a model the .npz has, all in the model's dtype:
    NAME.x (T, B, I) its input; NAME.outputs (T, B, O), as return_sequences gives them; NAME.v (O,);
    NAME.every: whether L = the sum of v . y[t] over all t, else of v . y[T] alone; summed over the sequences;
    NAME.grad.0, .1, ...: dL/d of its weights, in Keras's order; NAME.grad_h (T, B, H) and, of two directions,
    NAME.reverse.grad_h: dL/dh_t, in the order in which the direction takes its steps.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import keras
import numpy as np
import torch
from keras import layers
from keras.src.backend.common import dtypes

# Of two float64 arrays Keras gives the product in float32, on every backend but TensorFlow. With TensorFlow's rule its
# own cells compute in float64 on this one too.
dtypes.BIT64_TO_BIT32_DTYPE["float64"] = "float64"

HERE = Path(__file__).parent
ENDINGS = ("keras", "weights.h5", "h5")
SEQ_LEN, BATCH, INPUTS, UNITS = 6, 2, 3, 4


def variants() -> keras.Model:
    """Return a model of many recurrent layers side by side: the order of the classes is not that of the names."""
    every: dict[str, Any] = {"return_sequences": True}
    found = [
        layers.LSTM(UNITS, name="enc", **every),
        layers.GRU(UNITS, name="after", **every),
        layers.LSTM(UNITS, name="twin", activation="relu", recurrent_activation="hard_sigmoid", **every),
        layers.GRU(UNITS, name="before", reset_after=False, **every),
        layers.SimpleRNN(UNITS, name="elman", **every),
        layers.SimpleRNN(UNITS, name="leaky", activation=layers.LeakyReLU(negative_slope=0.1), **every),
        layers.Bidirectional(layers.LSTM(UNITS, **every), name="both"),
        layers.Bidirectional(layers.GRU(UNITS, reset_after=False, activation="softsign", **every), name="both-gru"),
        layers.Bidirectional(layers.SimpleRNN(UNITS, **every), name="summed", merge_mode="sum"),
        layers.LSTM(UNITS, name="no-bias", use_bias=False, **every),
        layers.GRU(UNITS, name="no-bias-after", use_bias=False, **every),
        layers.GRU(UNITS, name="no-bias-before", use_bias=False, reset_after=False, activation="elu", **every),
        layers.SimpleRNN(UNITS, name="no-bias-elman", use_bias=False, activation="gelu", **every),
        layers.LSTM(UNITS, name="back", go_backwards=True, **every),
        layers.RNN(layers.LSTMCell(UNITS, activation="silu"), name="from-cell", **every),
    ]
    x = keras.Input((None, INPUTS))
    return keras.Model(x, [layer(x) for layer in found], name="variants")


def small(dtype: str) -> keras.Model:
    """Return a model with an embedding, two layers of equal size, and a head."""
    return keras.Sequential(
        [
            keras.Input((None,)),
            layers.Embedding(7, INPUTS, name="tokens"),
            layers.LSTM(UNITS, return_sequences=True, name="lower"),
            layers.LSTM(UNITS, return_sequences=True, name="upper"),
            layers.Dense(5, activation="softmax", name="head"),
        ],
        name=f"small-{dtype}",
    )


def nested() -> keras.Model:
    """Return models in a model, wrappers, stacked cells, and what cannot be run."""
    inner = keras.Sequential(
        [
            keras.Input((None, INPUTS)),
            layers.LSTM(UNITS, return_sequences=True, name="enc"),
            layers.GRU(UNITS, return_sequences=True, name="deep"),
        ],
        name="inner",
    )
    x = keras.Input((None, INPUTS))
    y = inner(x)
    y = layers.TimeDistributed(layers.Dense(INPUTS), name="each")(y)
    y = layers.RNN([layers.LSTMCell(2), layers.LSTMCell(3)], return_sequences=True, name="stack")(y)
    y = layers.LSTM(UNITS, return_sequences=True, name="enc")(y)
    y = layers.Dense(UNITS, activation="relu", name="hidden")(y)
    y = layers.Bidirectional(layers.GRU(2, return_sequences=True), name="both")(y)
    y = layers.LSTM(UNITS, activation="sparse_plus", name="odd")(y)
    return keras.Model(x, layers.Dense(2, use_bias=False, name="readout")(y), name="nested")


def expected_of(layer: Any, x: torch.Tensor, rng: np.random.Generator) -> dict[str, Any]:
    """Return what Keras computes with one layer on x (T, B, I)."""
    two = isinstance(layer, layers.Bidirectional)
    outputs = layer(x.transpose(0, 1)).transpose(0, 1)
    v = torch.tensor(rng.standard_normal(outputs.shape[-1]), dtype=x.dtype)
    sides = [layer.forward_layer, layer.backward_layer] if two else [layer]
    steps = [_steps(side, x.flip(0) if side.go_backwards else x) for side in sides]
    ys = [torch.stack(hs) for hs in steps]
    if two:
        ys[1] = ys[1].flip(0)
    y = sum(ys) if two and layer.merge_mode == "sum" else torch.cat(ys, dim=-1)
    assert torch.allclose(y, outputs, rtol=1e-5 if x.dtype == torch.float32 else 1e-12), layer.name
    (y if two else y[-1]).mul(v).sum().backward()
    found: dict[str, Any] = {"x": x, "outputs": outputs, "v": v, "every": np.array(two)}
    found |= {f"grad.{number}": weight.value.grad for number, weight in enumerate(layer.weights)}
    for name, hs in zip(("grad_h", "reverse.grad_h"), steps, strict=False):
        # A step that the loss does not reach has no gradient, rather than zero.
        found[name] = torch.stack([torch.zeros_like(h) if h.grad is None else h.grad for h in hs])
    for weight in layer.weights:
        weight.value.grad = None
    return {f"{layer.name}.{key}": _array(value) for key, value in found.items()}


def _steps(layer: Any, x: torch.Tensor) -> list[torch.Tensor]:
    """Return h[1..T], each of which keeps its gradient."""
    states = [torch.zeros(x.shape[1], layer.cell.units, dtype=x.dtype) for _ in range(len(_state_sizes(layer)))]
    found = []
    for row in x:
        _, states = layer.cell(row, states)
        states[0].retain_grad()
        found.append(states[0])
    return found


def _state_sizes(layer: Any) -> list[int]:
    sizes = layer.cell.state_size
    return list(sizes) if isinstance(sizes, (list, tuple)) else [sizes]


def _array(value: Any) -> np.ndarray[Any, Any]:
    return value.detach().numpy() if isinstance(value, torch.Tensor) else value


def save(model: keras.Model, stem: str, expected: dict[str, Any], endings: tuple[str, ...] = ENDINGS) -> None:
    """Write a model in some of the three formats, and what is expected of it."""
    for ending in endings:
        write = model.save_weights if ending == "weights.h5" else model.save
        write(HERE / f"{stem}.{ending}", overwrite=True)
    np.savez_compressed(HERE / f"{stem}.expected.npz", **expected)


def drawn(model: keras.Model, rng: np.random.Generator) -> None:
    """Draw all weights anew, biases too: those that Keras starts with are zeros and ones."""
    model.set_weights([0.7 * rng.standard_normal(weight.shape) for weight in model.weights])


def main() -> None:
    rng = np.random.default_rng(0)
    for dtype, endings in (("float64", ENDINGS), ("float32", ("weights.h5",))):
        keras.config.set_floatx(dtype)
        keras.config.set_dtype_policy(dtype)
        torch.set_default_dtype(getattr(torch, dtype))
        model = small(dtype)
        drawn(model, rng)
        tokens, lower, upper, head = model.layers
        ids = torch.tensor(rng.integers(7, size=(BATCH, SEQ_LEN)))
        x = tokens(ids).detach().transpose(0, 1)
        expected = expected_of(lower, x, rng)
        y = torch.tensor(expected["lower.outputs"])
        expected |= expected_of(upper, y, rng)
        logits = _array(keras.ops.matmul(upper(y.transpose(0, 1)), head.kernel) + head.bias).transpose(1, 0, 2)
        save(model, f"keras-small-{dtype}", expected | {"ids": ids.T.numpy(), "logits": logits}, endings)
    keras.config.set_floatx("float64")
    keras.config.set_dtype_policy("float64")
    torch.set_default_dtype(torch.float64)
    model = variants()
    drawn(model, rng)
    expected = {}
    for layer in model.layers[1:]:
        expected |= expected_of(layer, torch.tensor(rng.standard_normal((SEQ_LEN, BATCH, INPUTS))), rng)
    save(model, "keras-variants", expected, ("keras",))
    model = nested()
    drawn(model, rng)
    x = torch.tensor(rng.standard_normal((SEQ_LEN, BATCH, UNITS)))
    both = model.get_layer("both")
    save(
        model,
        "keras-nested",
        expected_of(model.get_layer("inner").get_layer("deep"), x, rng) | expected_of(both, x, rng),
    )
    grid = torch.linspace(-4.3, 4.3, 12, requires_grad=True)
    values = {}
    for name in sorted(vars(keras.activations)):
        if name.startswith("_") or name in EXCEPT:
            continue
        y = keras.activations.get(name)(grid)
        (slope,) = torch.autograd.grad(y.sum(), grid)
        values |= {f"{name}.value": _array(y), f"{name}.slope": _array(slope)}
    np.savez_compressed(HERE / "keras-activations.expected.npz", x=_array(grid), **values)


#: What keras.activations has besides functions of one number, without settings that must be given.
EXCEPT = ("get", "serialize", "deserialize", "glu", "softmax", "log_softmax", "sparsemax", "threshold")


if __name__ == "__main__":
    main()
