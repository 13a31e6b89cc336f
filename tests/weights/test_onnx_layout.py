"""ONNX's operators: what is found in its files, and gradcli's numbers held against those of their definitions.

The files are made by checkpoints/make_onnx.py; what each expected array is, is said there.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from weights.fake_checkpoint import FakeCheckpoint
from weights.running import Ran, relative_error, run_layer, tensor_gradients

from gradcli.weights.checkpoint import Tensor
from gradcli.weights.layers import Contents, RecurrentLayer
from gradcli.weights.layouts import onnx as onnx_layout
from gradcli.weights.layouts.onnx_graph import WeightGraph
from gradcli.weights.layouts.onnx_numbers import NotFollowedError
from gradcli.weights.readers.onnx_file import OnnxCheckpoint, OnnxNode, open_file

CHECKPOINTS = Path(__file__).parents[1] / "checkpoints"
#: Relative errors that rounding explains: of weights in float64, and in float32.
FLOAT64, FLOAT32 = 1e-10, 1e-5


@cache
def expected_of(stem: str) -> Mapping[str, NDArray[Any]]:
    with np.load(CHECKPOINTS / f"{stem}.expected.npz") as file:
        return dict(file)


@cache
def operators() -> tuple[OnnxCheckpoint, Contents]:
    checkpoint = open_file(CHECKPOINTS / "onnx-operators.onnx", "onnx-operators.onnx")
    return checkpoint, onnx_layout.find(checkpoint, set())


NAMES = sorted({key.partition(".")[0] for key in expected_of("onnx-operators")})
APART = ("rnn-apart", "lstm-apart")


def by_position(layer: RecurrentLayer, ran: Ran) -> NDArray[Any]:
    return ran.outputs[::-1] if layer.reversed else ran.outputs


@pytest.mark.parametrize("name", NAMES)
def test_outputs_and_gradients_are_those_of_the_definition(name: str) -> None:
    expected = {
        key.removeprefix(f"{name}."): value
        for key, value in expected_of("onnx-operators").items()
        if key.startswith(f"{name}.")
    }
    checkpoint, contents = operators()
    layers = [layer for layer in contents.layers if layer.name.partition(".")[0] == name]
    assert [layer.name for layer in layers] == ([f"{name}.forward", f"{name}.reverse"] if name in APART else [name])
    parts = np.split(expected["v"], len(layers))
    runs = [run_layer(layer, checkpoint, expected["x"], v, every=True) for layer, v in zip(layers, parts, strict=True)]
    y = np.concatenate([by_position(layer, ran) for layer, ran in zip(layers, runs, strict=True)], axis=-1)
    assert relative_error(y, expected["outputs"]) < FLOAT64
    own = [ran.state_gradients["layer0.h"] for ran in runs]
    if layers[0].bidirectional:
        own.append(runs[0].state_gradients["layer0.reverse.h"])
    for gradient, key in zip(own, ("grad_h", "reverse.grad_h"), strict=False):
        assert relative_error(gradient[1:], expected[key]) < FLOAT64
    found: dict[str, NDArray[Any]] = {}
    for layer, ran in zip(layers, runs, strict=True):
        for tensor, gradient in tensor_gradients(layer, ran, checkpoint).items():
            found[tensor] = found.get(tensor, 0) + gradient
    for tensor in [key.removeprefix("grad.") for key in expected if key.startswith("grad.")]:
        if "initial" in tensor:
            continue
        assert relative_error(found[tensor], expected[f"grad.{tensor}"]) < FLOAT64, tensor
    for key, value in layers[0].initial_states.items():
        # dL/dh_0 of the whole batch, of one direction.
        tensor = value.slices[0].tensor
        gradient = runs[0].state_gradients[key][0]
        assert relative_error(gradient, expected[f"grad.{tensor}"][int("reverse" in key)]) < FLOAT64


def test_cells_are_built_in_ones_where_they_can_be() -> None:
    cells = {layer.name: layer.cell for layer in operators()[1].layers}
    for name, cell in {"rnn": "rnn", "gru-linear": "gru", "lstm": "lstm", "lstm-peepholes": "lstm-peephole"}.items():
        assert cells[name] == cell
    assert all(isinstance(cells[name], dict) for name in ("gru", "gru-no-bias", "lstm-coupled", "rnn-elu"))
    activated = cells["gru-activated"]
    assert isinstance(activated, dict)
    assert "(0.7 * relu(" in activated["equations"]


UNROLLED = "onnx-torch-rnn-dynamo.onnx"
TORCH = sorted({path.name for path in CHECKPOINTS.glob("onnx-torch-*.onnx")} - {UNROLLED})


def test_a_recurrence_that_is_written_out_is_said() -> None:
    with open_file(CHECKPOINTS / UNROLLED, UNROLLED) as checkpoint:
        contents = onnx_layout.find(checkpoint, set())
    assert contents.layers == ()
    assert all("times, as if" in each.reason and "dynamo=False" in each.reason for each in contents.unsupported)
    assert len(contents.unsupported) == 1


@pytest.mark.parametrize("file", TORCH)
def test_models_that_pytorch_exported(file: str) -> None:
    kind = file.split("-")[2].upper()
    expected = {key.removeprefix(f"{kind}."): value for key, value in expected_of("onnx-torch").items()}
    with open_file(CHECKPOINTS / file, file) as checkpoint:
        taken: set[str] = set()
        contents = onnx_layout.find(checkpoint, taken)
        assert contents.unsupported == ()
        assert {layer.kind for layer in contents.layers} == {kind}
        assert all(layer.notes == () for layer in contents.layers)
        if "script" in file:
            assert contents.layers[0].name == f"/rnn/{kind}"
        (embedding,), (head,) = contents.embeddings, contents.heads
        assert (embedding.name, head.name) == ("tokens", "head")
        assert taken == set(checkpoint.tensors)
        y = x = embedding.table.read(checkpoint)[expected["ids"]]
        assert relative_error(x, expected["x"]) < FLOAT32
        for layer in contents.layers:
            ran = run_layer(layer, checkpoint, y, np.resize(expected["v"], layer.output_size), every=True)
            y = ran.outputs
        assert relative_error(y, expected["outputs"]) < FLOAT32
        assert head.bias is not None
        logits = y @ head.weight.read(checkpoint).T + head.bias.read(checkpoint)
        assert relative_error(logits, expected["logits"]) < FLOAT32
        # Of PyTorch's own tensors the gradients are PyTorch's, through all the cutting and stacking.
        top = tensor_gradients(layer, ran, checkpoint)
        if file.endswith("raw.onnx"):
            assert all(f"grad.{tensor}" in expected for tensor in top)
        else:
            # What was cut and stacked when it was exported is a tensor of the operator's own shape.
            assert sorted(value.ndim for value in top.values()) == ([2, 3, 3] if kind != "RNN" else [3, 3])
        for tensor, gradient in top.items():
            if f"grad.{tensor}" in expected:
                assert relative_error(gradient, expected[f"grad.{tensor}"]) < FLOAT32, tensor


class FakeOnnx(OnnxCheckpoint):
    """A graph made of nodes and arrays."""

    def __init__(self, nodes: list[OnnxNode], arrays: Mapping[str, NDArray[Any]]) -> None:
        self.name = "fake"
        self.tensors = FakeCheckpoint(arrays).tensors
        self.nodes = tuple(nodes)
        self.inputs = {"X": (None, None, 2)}
        self.outputs = ()
        self._arrays = arrays

    def _read(self, tensor: Tensor) -> NDArray[Any]:
        return self._arrays[tensor.name]

    def close(self) -> None:
        pass


def node(
    op_type: str, inputs: str, outputs: str = "Y", *, name: str = "", domain: str = "", **settings: Any
) -> OnnxNode:
    return OnnxNode(op_type, name, domain, settings, tuple(inputs.split(",")), tuple(outputs.split(",")))


def weights(gates: int, directions: int = 1) -> dict[str, NDArray[Any]]:
    """Return W, R, B and P of input 2 and size 3."""
    size = 3
    shapes = {"W": (gates * size, 2), "R": (gates * size, size), "B": (2 * gates * size,), "P": (3 * size,)}
    return {role: np.full((directions, *shape), 0.5) for role, shape in shapes.items()}


def found_in(*nodes: OnnxNode, gates: int = 4, directions: int = 1, **arrays: NDArray[Any]) -> Contents:
    return onnx_layout.find(FakeOnnx(list(nodes), weights(gates, directions) | arrays), set())


@pytest.mark.parametrize(
    ("operator", "clause"),
    [
        (node("LSTM", "X,W,R,B", clip=3.0), "it clips its pre-activations (the attribute clip)"),
        (node("LSTM", "X,W,R,B", direction="up"), "its direction is 'up'"),
        (node("LSTM", "X,W,R,B", direction=1), "its direction is '1'"),
        (node("LSTM", "X,W,R,B", direction="reverse", hidden_size=4), "its hidden_size is 4, but R is of size 3"),
        (node("LSTM", "X,W,R,B", hidden_size="3"), "whose hidden_size is no whole number"),
        (node("LSTM", "X,W,R,B", direction="bidirectional"), "its W has the shape (1, 12, 2); expected (2, 12, 2)"),
        (node("LSTM", "X,W,R,W"), "its B has the shape (1, 12, 2); expected (1, 24)"),
        (node("LSTM", "X,X,R"), "its W is an input of the graph, not a weight of the file"),
        (node("LSTM", "X"), "it has no W"),
        (node("LSTM", "X,W,R,B,lengths"), "its sequence_lens ends the sequences at 2 to 5 steps"),
        (node("LSTM", "X,W,R,B", activations=("Tanh",)), "it has 1 activations; expected 3 for each direction"),
        (node("LSTM", "X,W,R,B", activations=3), "whose activations is no list of texts"),
        (node("LSTM", "X,W,R,B", activation_alpha=("a",)), "whose activation_alpha is no list of finite numbers"),
        (node("LSTM", "X,W,R,B", activation_alpha=(0.5,)), "more numbers as activation_alpha than its activations"),
        (
            node("LSTM", "X,W,R,B", activations=("Sigmoid", "ThresholdedRelu", "Tanh")),
            "its activation ThresholdedRelu cannot be written as an equation, which jumps",
        ),
        (node("LSTM", "X,W,R,B", activations=("Sigmoid", "Sine", "Tanh")), "its activation Sine cannot be written"),
        (
            node("LSTM", "X,W,R,B", activations=("Sigmoid", "ScaledTanh", "Tanh"), activation_alpha=(1.0,)),
            "its activation ScaledTanh comes without activation_beta, which has no default",
        ),
        (node("LSTM", "X,W,R,B", activations=("Affine", "Tanh", "Tanh")), "Affine comes without activation_alpha"),
        (node("LSTM", "X,W,R,B,,wrong"), "its initial_h has the shape (1, 3); expected"),
        (node("LSTM", "X,W,R,B,,scalar"), "its initial_h has the shape (); expected"),
    ],
)
def test_what_cannot_be_run_is_said(operator: OnnxNode, clause: str) -> None:
    arrays = {"lengths": np.array([5, 2], np.int32), "wrong": np.ones((1, 3)), "scalar": np.array(3.0)}
    contents = found_in(operator, **arrays)
    assert contents.layers == ()
    (refused,) = contents.unsupported
    assert refused.reason.startswith("this LSTM cannot be run here: ")
    assert clause in refused.reason


def test_operators_of_other_domains_are_said() -> None:
    (refused,) = found_in(node("DynamicQuantizeLSTM", "X,W,R", name="enc", domain="com.microsoft")).unsupported
    assert refused.name == "enc"
    assert (
        refused.reason == "com.microsoft.DynamicQuantizeLSTM is no operator of ONNX's own; its gates are not known here"
    )


def test_initial_states_that_are_put_in_are_zero_with_a_note() -> None:
    (layer,) = found_in(node("LSTM", "X,W,R,B,,h0,c0", name="enc")).layers
    assert layer.initial_states == {}
    assert layer.notes == (
        "its initial_h is an input of the graph, not a weight of the file; here h_0 is zero unless it is given",
        "its initial_c is an input of the graph, not a weight of the file; here c_0 is zero unless it is given",
    )


def test_lengths_are_noted() -> None:
    (layer,) = found_in(node("LSTM", "X,W,R,B,lengths")).layers
    assert "each sequence may end at a length of its own" in layer.notes[0]
    (layer,) = found_in(node("LSTM", "X,W,R,B,same"), same=np.array([7, 7], np.int32)).layers
    assert layer.notes == ("in the graph each sequence ends at 7 steps (sequence_lens)",)


@pytest.mark.parametrize("batch", [1, 2])
@pytest.mark.parametrize("layout", [0, 1])
def test_initial_states_of_the_file(batch: int, layout: int) -> None:
    states = np.random.default_rng(0).standard_normal((2, batch, 3))
    given = states.transpose(1, 0, 2) if layout else states
    operator = node("GRU", "X,W,R,B,,h0", direction="bidirectional", layout=layout)
    checkpoint = FakeOnnx([operator], weights(3, 2) | {"h0": given})
    (layer,) = onnx_layout.find(checkpoint, set()).layers
    for direction, key in enumerate(("layer0.h", "layer0.reverse.h")):
        found = layer.initial_states[key].read(checkpoint)
        np.testing.assert_array_equal(found, states[direction, 0] if batch == 1 else states[direction])


def test_layers_without_a_name_are_called_after_their_output() -> None:
    names = [layer.name for layer in found_in(node("LSTM", "X,W,R", ",last"), node("LSTM", "X,W,R", name="enc")).layers]
    assert names == ["last", "enc"]


def test_heads_and_embeddings() -> None:
    rng = np.random.default_rng(0)
    arrays = {
        "K": rng.standard_normal((3, 5)),
        "G": rng.standard_normal((3, 5)),
        "b": rng.standard_normal(5),
        "T": rng.standard_normal((7, 2)),
    }
    checkpoint = FakeOnnx(
        [
            node("Gather", "T,X", "x", name="tokens"),
            node("Gather", "T,b", "rows", axis=1),
            node("MatMul", "h,K", "p", name="first"),
            node("Add", "b,p", "q"),
            node("Gemm", "h,GT,b", "r", name="second", transB=1, alpha=0.5, beta=2.0),
            node("Transpose", "G", "GT"),
            node("MatMul", "p,K", "again", name="the same weight at another step"),
            node("MatMul", "h,p", "s", name="of what is computed"),
            node("MatMul", "h,T", "t", name="hidden"),
            node("Add", "t,b", "u"),
            node("Relu", "u", "w"),
            node("Gemm", "h,K", "v", name="transposed", transA=1),
        ],
        arrays,
    )
    contents = onnx_layout.find(checkpoint, set())
    (embedding,) = contents.embeddings
    np.testing.assert_array_equal(embedding.table.read(checkpoint), arrays["T"])
    first, second = contents.heads
    assert (first.name, second.name, first.tensors) == ("first", "second", ("K", "b"))
    assert first.bias is not None
    assert second.bias is not None
    np.testing.assert_array_equal(first.weight.read(checkpoint), arrays["K"].T)
    np.testing.assert_array_equal(first.bias.read(checkpoint), arrays["b"])
    np.testing.assert_array_equal(second.weight.read(checkpoint), 0.5 * arrays["G"].T)
    np.testing.assert_array_equal(second.bias.read(checkpoint), 2 * arrays["b"])


def test_a_sigmoid_of_a_head_makes_it_one_of_choices() -> None:
    arrays = {name: np.ones((3, 1)) for name in "KLM"} | {"b": np.ones(1)}
    checkpoint = FakeOnnx(
        [
            node("MatMul", "h,K", "p", name="direct"),
            node("Add", "p,b", "q"),
            node("Sigmoid", "q", "r"),
            node("Gemm", "h,L,b", "s", name="squeezed"),
            node("Squeeze", "s", "t"),
            node("Identity", "s", "logits"),
            node("Sigmoid", "t", "u"),
            node("Gemm", "h,M,b", "v", name="plain"),
            node("Softplus", "t", "w"),
        ],
        arrays,
    )
    losses = {head.name: head.loss for head in onnx_layout.find(checkpoint, set()).heads}
    assert losses == {"direct": "binary_cross_entropy", "squeezed": "binary_cross_entropy", "plain": "mse"}


def ints(*entries: int) -> NDArray[np.int64]:
    return np.array(entries, np.int64)


A = np.arange(24.0).reshape(4, 6)
CHAINS = [
    ([node("Identity", "A", "V")], A),
    ([node("Cast", "A", "V", to=1)], A),
    ([node("Transpose", "A", "V")], A.T),
    ([node("Slice", "A,one,three,zero", "V")], A[1:3]),
    ([node("Slice", "A,minus,end,one", "V")], A[:, -1:]),
    ([node("Slice", "A", "V", starts=(1,), ends=(3,), axes=(1,))], A[:, 1:3]),
    ([node("Concat", "A,A", "V", axis=1)], np.hstack([A, A])),
    ([node("Unsqueeze", "A,zero", "B"), node("Squeeze", "B,zero", "V")], A),
    ([node("Unsqueeze", "A,zero", "B"), node("Transpose", "B", "C", perm=(2, 0, 1)), node("Squeeze", "C", "V")], A.T),
    ([node("Reshape", "A,shape", "B"), node("Reshape", "B,back", "V")], A),
    ([node("Shape", "A", "n", start=0, end=1), node("Slice", "A,one,n,zero", "V")], A[1:4]),
    ([node("Shape", "A", "n", end=1), node("Mul", "n,two", "m"), node("Slice", "A,zero,m,one", "V")], A[:, :8]),
    ([node("Constant", "", "n", value_ints=(2,)), node("Slice", "A,zero,n,zero", "V")], A[:2]),
]


@pytest.mark.parametrize(("nodes", "expected"), CHAINS)
def test_blocks_behind_operators(nodes: list[OnnxNode], expected: NDArray[Any]) -> None:
    settings = {"zero": ints(0), "one": ints(1), "two": ints(2), "three": ints(3), "minus": ints(-1)}
    arrays = {"A": A, "end": ints(2**62), "shape": ints(4, 1, -1), "back": ints(0, 6), **settings}
    checkpoint = FakeOnnx(nodes, arrays)
    graph = WeightGraph(checkpoint)
    rows, columns = expected.shape
    assert graph.shape("V") == expected.shape
    # Blocks within one part of what is stacked.
    for index in ((None, (0, min(columns, 6))), ((0, 1), (0, 1)), ((rows - 1, rows), (columns - 1, columns))):
        wanted = expected[tuple(slice(None) if each is None else slice(*each) for each in index)]
        np.testing.assert_array_equal(graph.block("V", *index).read(checkpoint), wanted)
    np.testing.assert_array_equal(graph.block("V", rows - 1, None if columns <= 6 else (6, 12)).read(checkpoint),
                                  expected[-1] if columns <= 6 else expected[-1, 6:])  # fmt: skip


@pytest.mark.parametrize(
    ("nodes", "message"),
    [
        ([node("Mul", "A,A", "V")], "computed in the graph, by Mul"),
        ([node("DequantizeLinear", "A,A", "V")], "computed in the graph, by DequantizeLinear"),
        ([node("Cast", "A", "V", to=10)], "rounded in the graph"),
        ([node("Slice", "A,one,three,zero,two", "V")], "cut in the graph by a Slice with steps"),
        ([node("Slice", "A,X,three", "V")], "by numbers that are put into it"),
        ([node("Slice", "A,s,three", "V"), node("Shape", "X", "s", start=0, end=1)], "sizes that only its inputs tell"),
        ([node("Slice", "A,s,three", "V"), node("Add", "one,one", "s")], "computed there, by Add"),
        ([node("Reshape", "A,six", "V")], "reshaped in the graph from (4, 6) to (6, 4)"),
        ([node("Transpose", "A", "V", perm=(0, 0))], "which is no order of 2 axes"),
        ([node("Concat", "A,A", "V", axis=5)], "cut along axis 5 of 2"),
        ([node("Concat", "A,A", "V", axis="x")], "whose axis is no whole number"),
        ([node("Identity", "V", "V")], "more operators than are followed"),
        ([node("Concat", "V,V", "V", axis=0)], "more operators than are followed"),
        ([node("Identity", "A", "V0"), *(node("Identity", f"V{i}", f"V{i + 1}") for i in range(300)),
          node("Identity", "V300", "V")], "more operators than are followed"),
        ([node("Concat", "one,one", "B"), node("Reshape", "B,two_one", "V")], "reshaped in the graph"),
        ([node("Identity", "six2", "V")], "of dtype int64"),
    ],
)  # fmt: skip
def test_values_that_are_no_blocks(nodes: list[OnnxNode], message: str) -> None:
    arrays = {
        "A": A,
        "six": ints(6, 4),
        "two_one": ints(2, 1),
        "six2": ints(6, 4)[None],
        **{name: ints(n) for n, name in enumerate(("zero", "one", "two", "three"))},
    }
    graph = WeightGraph(FakeOnnx(nodes, arrays))
    with pytest.raises(NotFollowedError) as caught:
        graph.block("V", *[(0, 1) if size > 0 else None for size in graph.shape("V")])
    assert message in str(caught.value)


def test_the_work_on_a_graph_has_an_end() -> None:
    """Ten thousand products, each behind a stack of a thousand parts."""
    stack = node("Concat", ",".join(["A"] * 1000), "V", axis=0)
    products = [node("MatMul", "X,last", f"y{i}") for i in range(10_000)]
    graph = WeightGraph(FakeOnnx([stack, *products], {"A": A}))

    def look() -> None:
        for _ in products:
            graph.block("V", (3999, 4000), None)

    with pytest.raises(NotFollowedError, match="more operators than are followed"):
        look()


def test_no_weight_is_read_to_tell_layers() -> None:
    checkpoint = open_file(CHECKPOINTS / "onnx-operators.onnx", "operators")

    def refuse(tensor: Tensor) -> NDArray[Any]:
        assert "initial" in tensor.name, tensor
        return np.ones(tensor.shape)

    checkpoint._read = refuse  # type: ignore[method-assign]
    assert len(onnx_layout.find(checkpoint, set()).layers) == len(NAMES) + len(APART)
