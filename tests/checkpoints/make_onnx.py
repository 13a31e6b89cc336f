"""Makes onnx-*.onnx and what is expected of them, as <stem>.expected.npz.

Run with PyTorch 2.13, onnx, onnxruntime and onnxscript: python tests/checkpoints/make_onnx.py

onnx-torch-*.onnx are models of torch.nn, exported by PyTorch's two exporters; expected is what PyTorch computes.
onnx-operators.onnx has one operator of each variant. ONNX gives no gradients, so expected is what the operators'
definitions say (ONNX, RNN-22, GRU-22, LSTM-22), written below in PyTorch, in float64; where onnxruntime runs a variant,
its outputs in float32 have to agree.

For each recurrent layer NAME the .npz has NAME.x (T, B, I), NAME.outputs (T, B, O) by position, NAME.v (O,), for
L = the sum of v . y[t] over all steps and sequences, NAME.grad_h and NAME.reverse.grad_h (T, B, H), dL/dh_t in the
order in which a direction takes its steps, and NAME.grad.TENSOR, dL/d of the tensors of the file.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor, nn
from torch.nn import functional

HERE = Path(__file__).parent
SEQ_LEN, BATCH, INPUTS, UNITS = 5, 2, 3, 4
OPSET = 22
GATES = {"RNN": 1, "GRU": 3, "LSTM": 4}

Activation = Callable[[Tensor, float, float], Tensor]
ACTIVATIONS: dict[str, Activation] = {
    "Affine": lambda a, alpha, beta: alpha * a + beta,
    "Relu": lambda a, alpha, beta: functional.relu(a),
    "LeakyRelu": lambda a, alpha, beta: functional.leaky_relu(a, alpha),
    "Tanh": lambda a, alpha, beta: torch.tanh(a),
    "ScaledTanh": lambda a, alpha, beta: alpha * torch.tanh(beta * a),
    "Sigmoid": lambda a, alpha, beta: torch.sigmoid(a),
    "HardSigmoid": lambda a, alpha, beta: torch.clamp(alpha * a + beta, 0, 1),
    "Elu": lambda a, alpha, beta: functional.elu(a, alpha),
    "Softsign": lambda a, alpha, beta: functional.softsign(a),
    "Softplus": lambda a, alpha, beta: functional.softplus(a),
}
#: Name of the layer, operator, its attributes, and which inputs it has besides X, W and R. Activations are given as
#: (name, alpha, beta), with None for the default of `DEFAULTS`: numbers go to those that take some in their order, so
#: that a default cannot come before a number.
VARIANTS: list[tuple[str, str, dict[str, Any], str]] = [
    ("rnn", "RNN", {}, "B"),
    ("rnn-no-bias", "RNN", {}, ""),
    ("rnn-reverse", "RNN", {"direction": "reverse"}, "B"),
    ("rnn-both", "RNN", {"direction": "bidirectional", "activations": [("Relu",)] * 2}, "B"),
    ("rnn-apart", "RNN", {"direction": "bidirectional", "activations": [("Tanh",), ("LeakyRelu", 0.3)]}, "B"),
    *(
        (f"rnn-{name.lower()}", "RNN", {"activations": [(name, *parameters)]}, "B")
        for name, *parameters in [
            ("Affine", 0.4, 0.1), ("LeakyRelu", None), ("LeakyRelu2", 0.2), ("ScaledTanh", 1.3, 0.7), ("Sigmoid",),
            ("HardSigmoid", None, None), ("HardSigmoid2", 0.3, 0.4), ("Elu", None), ("Elu2", 0.6), ("Softsign",),
            ("Softplus",),
        ]
    ),
    ("gru", "GRU", {}, "B"),
    ("gru-linear", "GRU", {"linear_before_reset": 1}, "B"),
    ("gru-no-bias", "GRU", {}, ""),
    ("gru-linear-no-bias", "GRU", {"linear_before_reset": 1}, ""),
    ("gru-both", "GRU", {"direction": "bidirectional"}, "B"),
    ("gru-started", "GRU", {"direction": "reverse", "linear_before_reset": 1}, "Bh"),
    ("gru-activated", "GRU", {"activations": [("HardSigmoid", 0.25, 0.5), ("LeakyRelu", 0.3)]}, "B"),
    ("lstm", "LSTM", {}, "B"),
    ("lstm-no-bias", "LSTM", {}, ""),
    ("lstm-peepholes", "LSTM", {}, "BP"),
    ("lstm-both", "LSTM", {"direction": "bidirectional"}, "BPhc"),
    ("lstm-coupled", "LSTM", {"input_forget": 1}, "BP"),
    ("lstm-activated", "LSTM", {"activations": [("HardSigmoid", 0.3, 0.5), ("Softsign",), ("Elu", 0.6)]}, "Bhc"),
    (
        "lstm-apart",
        "LSTM",
        {
            "direction": "bidirectional",
            "activations": [("Sigmoid",), ("Tanh",), ("Tanh",), ("Sigmoid",), ("LeakyRelu", 0.3), ("Softsign",)],
        },
        "B",
    ),
]  # fmt: skip
DEFAULTS = {"LeakyRelu": (0.01,), "HardSigmoid": (0.2, 0.5), "Elu": (1.0,)}


def activations_of(operator: str, attributes: dict[str, Any], directions: int) -> list[Callable[[Tensor], Tensor]]:
    """Return the activations of a variant, of both directions."""
    default = {"RNN": [("Tanh",)], "GRU": [("Sigmoid",), ("Tanh",)], "LSTM": [("Sigmoid",), ("Tanh",), ("Tanh",)]}
    found = []
    for name, *given in attributes.get("activations", default[operator] * directions):
        name = name.removesuffix("2")
        parameters = [d if g is None else g for g, d in zip(given, DEFAULTS.get(name, given), strict=True)]
        alpha, beta = [*parameters, 0.0, 0.0][:2]
        found.append(lambda a, f=ACTIVATIONS[name], alpha=alpha, beta=beta: f(a, alpha, beta))
    return found


def attributes_of(attributes: dict[str, Any]) -> dict[str, Any]:
    """Return the attributes of a variant's node."""
    rest = {key: value for key, value in attributes.items() if key != "activations"}
    if "activations" not in attributes:
        return rest
    listed = attributes["activations"]
    rest["activations"] = [name.removesuffix("2") for name, *_ in listed]
    for key, place in (("activation_alpha", 0), ("activation_beta", 1)):
        given = [each[1 + place] for each in listed if len(each) > 1 + place and each[1 + place] is not None]
        rest |= {key: given} if given else {}
    return rest


def steps_of(
    operator: str, attributes: dict[str, Any], x: Tensor, own: dict[str, Tensor], direction: int, directions: int
) -> list[Tensor]:
    """Return h[1..T] of one direction, as the operator's definition says, each of which keeps its gradient."""
    count = {"RNN": 1, "GRU": 2, "LSTM": 3}[operator]
    act = activations_of(operator, attributes, directions)[direction * count :]
    gates = GATES[operator]
    w, r = own["W"][direction].chunk(gates), own["R"][direction].chunk(gates)
    b = own["B"][direction] if "B" in own else torch.zeros(2 * gates * UNITS)
    wb, rb = b[: gates * UNITS].chunk(gates), b[gates * UNITS :].chunk(gates)
    p_i, p_o, p_f = own["P"][direction].chunk(3) if "P" in own else torch.zeros(3 * UNITS).chunk(3)
    h = own["initial_h"][direction] if "initial_h" in own else torch.zeros(x.shape[1], UNITS)
    c = own["initial_c"][direction] if "initial_c" in own else torch.zeros(x.shape[1], UNITS)

    def product(number: int, x_t: Tensor, h: Tensor) -> Tensor:
        return x_t @ w[number].T + h @ r[number].T + wb[number] + rb[number]

    found = []
    for x_t in x:
        if operator == "RNN":
            h = act[0](product(0, x_t, h))
        elif operator == "GRU":
            z, reset = act[0](product(0, x_t, h)), act[0](product(1, x_t, h))
            if attributes.get("linear_before_reset"):
                n = act[1](x_t @ w[2].T + wb[2] + reset * (h @ r[2].T + rb[2]))
            else:
                n = act[1](product(2, x_t, reset * h))
            h = (1 - z) * n + z * h
        else:
            i = act[0](product(0, x_t, h) + p_i * c)
            f = 1 - i if attributes.get("input_forget") else act[0](product(2, x_t, h) + p_f * c)
            c = f * c + i * act[1](product(3, x_t, h))
            h = act[0](product(1, x_t, h) + p_o * c) * act[2](c)
        h.retain_grad()
        found.append(h)
    return found


def gradients_of(name: str, x: Tensor, steps: list[list[Tensor]], sides: list[bool], v: Tensor) -> dict[str, Any]:
    """Go back from L, and return what the .npz has of a layer before the gradients of its tensors."""
    ys = [torch.stack(hs).flip(0) if back else torch.stack(hs) for hs, back in zip(steps, sides, strict=True)]
    y = torch.cat(ys, dim=-1)
    (y * v).sum().backward()
    found = {"x": x, "outputs": y, "v": v}
    for key, hs in zip(("grad_h", "reverse.grad_h"), steps, strict=False):
        found[key] = torch.stack([h.grad for h in hs if h.grad is not None])
    return {f"{name}.{key}": value.detach().numpy() for key, value in found.items()}


def make_operators() -> None:
    """Write a graph with one operator of each variant, in float64; onnxruntime is given the same in float32."""
    torch.set_default_dtype(torch.float64)
    generator = torch.Generator().manual_seed(0)
    nodes, tensors, expected = [], [], {}
    x = torch.randn(SEQ_LEN, BATCH, INPUTS, generator=generator)
    for name, operator, attributes, extra in VARIANTS:
        direction = attributes.get("direction", "forward")
        directions = 2 if direction == "bidirectional" else 1
        gates = GATES[operator]
        shapes = {
            "W": (directions, gates * UNITS, INPUTS),
            "R": (directions, gates * UNITS, UNITS),
            "B": (directions, 2 * gates * UNITS),
            "initial_h": (directions, BATCH, UNITS),
            "initial_c": (directions, BATCH, UNITS),
            "P": (directions, 3 * UNITS),
        }
        roles = ["W", "R", *("initial_" + key if key in "hc" else key for key in extra)]
        own = {role: 0.6 * torch.randn(shapes[role], generator=generator) for role in roles}
        for tensor in own.values():
            tensor.requires_grad_(True)
        sides = {"forward": [False], "reverse": [True], "bidirectional": [False, True]}[direction]
        steps = [
            steps_of(operator, attributes, x.flip(0) if back else x, own, number, directions)
            for number, back in enumerate(sides)
        ]
        v = torch.randn(directions * UNITS, generator=generator)
        expected |= gradients_of(name, x, steps, sides, v)
        given = {role: f"{name}.{role}" if role in own else "" for role in shapes}
        inputs = ["X", given["W"], given["R"], given["B"], "", given["initial_h"]]
        inputs += [given["initial_c"], given["P"]] if operator == "LSTM" else []
        nodes.append(
            helper.make_node(operator, inputs, [f"{name}.Y"], name, hidden_size=UNITS, **attributes_of(attributes))
        )
        for role, tensor in own.items():
            tensors.append(numpy_helper.from_array(tensor.detach().numpy(), given[role]))
            # A coupled forget gate has weights all the same; nothing depends on them.
            gradient = torch.zeros_like(tensor) if tensor.grad is None else tensor.grad
            expected[f"{name}.grad.{given[role]}"] = gradient.numpy()
    model = _model("operators", nodes, tensors, TensorProto.DOUBLE)
    onnx.save(model, HERE / "onnx-operators.onnx")
    np.savez_compressed(HERE / "onnx-operators.expected.npz", **expected)
    single = [numpy_helper.from_array(numpy_helper.to_array(t).astype(np.float32), t.name) for t in tensors]
    session = onnxruntime.InferenceSession(_model("operators", nodes, single, TensorProto.FLOAT).SerializeToString())
    for node, y in zip(nodes, session.run(None, {"X": x.numpy().astype(np.float32)}), strict=True):
        reference = expected[f"{node.name}.outputs"]
        y = y.transpose(0, 2, 1, 3).reshape(reference.shape)
        error = np.linalg.norm(y - reference) / np.linalg.norm(reference)
        assert error < 1e-6, f"{node.name}: onnxruntime is {error} away"


def _model(name: str, nodes: list[Any], tensors: list[Any], dtype: int) -> onnx.ModelProto:
    x = helper.make_tensor_value_info("X", dtype, [SEQ_LEN, BATCH, INPUTS])
    outputs = [helper.make_tensor_value_info(node.output[0], dtype, None) for node in nodes]
    graph = helper.make_graph(nodes, name, [x], outputs, tensors)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=10)


class Torch(nn.Module):
    """An embedding, a stack of recurrent layers, and a head."""

    def __init__(self, kind: str, **settings: Any) -> None:
        super().__init__()
        self.tokens = nn.Embedding(7, INPUTS)
        self.rnn = getattr(nn, kind)(INPUTS, UNITS, **settings)
        self.head = nn.Linear(UNITS * (2 if self.rnn.bidirectional else 1), 5)

    def forward(self, ids: Tensor) -> Tensor:
        return self.head(self.rnn(self.tokens(ids))[0])


def make_torch() -> None:
    """Write models of torch.nn as its exporters give them, in float32, and what PyTorch computes in float64."""
    exporters = {
        "script": {"dynamo": False, "dynamic_axes": {"ids": {0: "steps", 1: "batch"}}},
        "script-raw": {
            "dynamo": False,
            "do_constant_folding": False,
            "dynamic_axes": {"ids": {0: "steps", 1: "batch"}},
        },
        "dynamo": {"dynamo": True, "dynamic_shapes": ({0: torch.export.Dim("steps"), 1: torch.export.Dim("batch")},)},
        "dynamo-raw": {
            "dynamo": True,
            "optimize": False,
            "dynamic_shapes": ({0: torch.export.Dim("steps"), 1: torch.export.Dim("batch")},),
        },
    }
    models: dict[str, dict[str, Any]] = {
        "LSTM": {"num_layers": 2},
        "GRU": {"bidirectional": True},
        "RNN": {"nonlinearity": "relu", "bias": False},
    }
    expected: dict[str, Any] = {}
    for kind, settings in models.items():
        torch.set_default_dtype(torch.float32)
        torch.manual_seed(1)
        model = Torch(kind, **settings)
        ids = torch.randint(7, (SEQ_LEN, BATCH))
        for exporter, choices in exporters.items():
            if kind == "RNN" and exporter == "dynamo-raw":
                # Both ways of this exporter write the steps of nn.RNN one after the other, without an operator.
                continue
            path = HERE / f"onnx-torch-{kind.lower()}-{exporter}.onnx"
            torch.onnx.export(model, (ids,), path, input_names=["ids"], external_data=False, **choices)
            stripped = onnx.load(path)
            for node in stripped.graph.node:
                # Where the exporter was called from, line by line, with the paths of the machine.
                node.ClearField("metadata_props")
                node.ClearField("doc_string")
            for field in ("metadata_props", "doc_string", "value_info"):
                stripped.graph.ClearField(field)
            stripped.ClearField("metadata_props")
            onnx.save(stripped, path)
        torch.set_default_dtype(torch.float64)
        model = model.double()
        x = model.tokens(ids).detach()
        y, _ = model.rnn(x)
        v = torch.randn(y.shape[-1])
        (y * v).sum().backward()
        expected |= {f"{kind}.{key}": value.detach().numpy() for key, value in {"x": x, "outputs": y, "v": v}.items()}
        expected |= {f"{kind}.ids": ids.numpy(), f"{kind}.logits": model(ids).detach().numpy()}
        expected |= {
            f"{kind}.grad.{name}": parameter.grad.numpy()
            for name, parameter in model.rnn.named_parameters(prefix="rnn")
        }
    np.savez_compressed(HERE / "onnx-torch.expected.npz", **expected)


if __name__ == "__main__":
    make_operators()
    make_torch()
