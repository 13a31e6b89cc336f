"""The reader of ONNX models, against the onnx package, and what hostile files come to."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from gradcli.errors import GradcliError, InputFileError, ResourceError
from gradcli.weights.checkpoint import Tensor
from gradcli.weights.readers import onnx_file, protobuf
from gradcli.weights.readers.onnx_file import OnnxCheckpoint, open_file

DTYPES = {
    TensorProto.FLOAT: "float32",
    TensorProto.DOUBLE: "float64",
    TensorProto.FLOAT16: "float16",
    TensorProto.BFLOAT16: "bfloat16",
    TensorProto.INT8: "int8",
    TensorProto.INT16: "int16",
    TensorProto.INT32: "int32",
    TensorProto.INT64: "int64",
    TensorProto.UINT8: "uint8",
    TensorProto.UINT16: "uint16",
    TensorProto.UINT32: "uint32",
    TensorProto.UINT64: "uint64",
    TensorProto.BOOL: "bool",
}


def model_of(
    tensors: list[TensorProto] = (), nodes: list[onnx.NodeProto] = (), inputs: list[onnx.ValueInfoProto] = ()
) -> onnx.ModelProto:
    graph = helper.make_graph(list(nodes), "graph", list(inputs), [], list(tensors))
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 22), helper.make_opsetid("custom", 7)])


def opened(folder: Path, model: onnx.ModelProto | bytes) -> OnnxCheckpoint:
    path = folder / "m.onnx"
    path.write_bytes(model if isinstance(model, bytes) else model.SerializeToString())
    return open_file(path, "model.onnx")


def refused(folder: Path, model: onnx.ModelProto | bytes, kind: type[GradcliError] = InputFileError) -> str:
    """Return the text with which a model is refused, on opening or on reading a tensor."""

    def read_all() -> None:
        with opened(folder, model) as checkpoint:
            for tensor in checkpoint.tensors:
                checkpoint.read(tensor)

    with pytest.raises(kind) as caught:
        read_all()
    text = str(caught.value)
    assert text.startswith("model.onnx: ")
    assert "\n" not in text
    return text


def opened_apart(path: Path) -> tuple[str, int]:
    """Return the bytes of all tensors of a model, or the error, and the peak memory in kB, 0 if it is not told."""
    program = (
        "import sys; from pathlib import Path; from gradcli.weights.readers.onnx_file import open_file\n"
        "try: outcome = sum(each.nbytes for each in open_file(Path(sys.argv[1]), 'm').tensors.values())\n"
        "except Exception as error: outcome = type(error).__name__\n"
        "status = Path('/proc/self/status')\n"
        "print(outcome, status.read_text().split('VmHWM:')[1].split()[0] if status.exists() else 0)"
    )
    found = subprocess.run([sys.executable, "-c", program, str(path)], capture_output=True, text=True, check=True)
    outcome, peak = found.stdout.split()
    return outcome, int(peak)


def field(number: int, content: bytes) -> bytes:
    """Return a field of bytes in the wire format."""
    return varint(8 * number + 2) + varint(len(content)) + content


def varint(value: int) -> bytes:
    return b"" if value < 0 else bytes([value]) if value < 128 else bytes([value & 127 | 128]) + varint(value >> 7)


@pytest.mark.parametrize("data_type", DTYPES, ids=DTYPES.values())
@pytest.mark.parametrize("raw", [False, True])
def test_tensors_of_every_dtype_are_those_of_onnx(tmp_path: Path, data_type: int, raw: bool) -> None:
    kind = helper.tensor_dtype_to_np_dtype(data_type)
    low = 0 if kind.kind in "ub" else -100
    entries = np.random.default_rng(3).integers(low, 100, (2, 1, 5)).astype(kind)
    if raw:
        tensor = numpy_helper.from_array(entries, "w")
        assert tensor.raw_data
    else:
        tensor = helper.make_tensor("w", data_type, entries.shape, entries.ravel().tolist())
        assert not tensor.raw_data
    with opened(tmp_path, model_of([tensor])) as checkpoint:
        assert checkpoint.tensors == {"w": Tensor("w", (2, 1, 5), DTYPES[data_type])}
        found = checkpoint.read("w")
        expected = numpy_helper.to_array(tensor)
        np.testing.assert_array_equal(found, expected.astype(np.float32) if kind.itemsize == 2 and low else expected)
        assert found.dtype == (np.float32 if DTYPES[data_type] in ("float16", "bfloat16") else kind)


@pytest.mark.parametrize(
    ("data_type", "values"),
    [
        (TensorProto.INT64, [0, -1, 2**63 - 1, -(2**63), 300]),
        (TensorProto.UINT64, [0, 2**64 - 1, 2**63]),
        (TensorProto.INT32, [-1, 2**31 - 1, -(2**31)]),
        (TensorProto.INT8, [-128, 127, -1]),
        (TensorProto.FLOAT, [3.4e38, -0.0, 1e-45]),
    ],
)
def test_the_ends_of_the_ranges(tmp_path: Path, data_type: int, values: list[float]) -> None:
    with opened(tmp_path, model_of([helper.make_tensor("w", data_type, [len(values)], values)])) as checkpoint:
        np.testing.assert_array_equal(checkpoint.read("w"), np.array(values, checkpoint.tensors["w"].dtype))


def test_numbers_that_are_not_packed_are_read_too(tmp_path: Path) -> None:
    """Written field by field, as protobuf allows: dims 3 as one field, each float as a field of 4 bytes."""
    floats = b"".join(varint(8 * 4 + 5) + np.float32(value).tobytes() for value in (1.5, -2.0, 0.25))
    integers = b"".join(varint(8 * 7) + varint(value) for value in (5, 2**64 - 7))
    first = b"\x08\x03\x10\x01" + field(8, b"f") + floats
    second = field(1, b"\x02") + b"\x10\x07" + field(8, b"i") + integers
    with opened(tmp_path, field(7, field(5, first) + field(5, second))) as checkpoint:
        assert checkpoint.read("f").tolist() == [1.5, -2.0, 0.25]
        assert checkpoint.read("i").tolist() == [5, -7]


@given(st.lists(st.integers(0, 2**64 - 1), max_size=50))
def test_varints_are_those_that_were_written(values: list[int]) -> None:
    data = b"".join(map(varint, values))
    assert protobuf.count_varints(data) == len(values)
    assert protobuf.varints(data, np.dtype(np.uint64)).tolist() == values


def test_varints_beyond_one_block(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(protobuf, "_BLOCK", 16)
    values = [2**k + k for k in range(64)]
    assert protobuf.varints(b"".join(map(varint, values)), np.dtype(np.uint64)).tolist() == values


def test_nodes_with_their_attributes(tmp_path: Path) -> None:
    attributes = {
        "hidden_size": 2,
        "clip": 1.5,
        "direction": "bidirectional",
        "activations": ["Tanh", "Relu"],
        "activation_alpha": [0.5, -1.0],
        "axes": [0, -1],
    }
    nodes = [
        helper.make_node("LSTM", ["x", "W", "R", "", "", "h0"], ["", "h"], "enc", **attributes),
        helper.make_node("Odd", ["h"], ["z"], "own", domain="custom"),
    ]
    inputs = [
        helper.make_tensor_value_info("x", TensorProto.FLOAT, ["T", 1, 3]),
        helper.make_tensor_value_info("h0", TensorProto.FLOAT, None),
        helper.make_tensor_value_info("W", TensorProto.FLOAT, [2]),
    ]
    weights = [numpy_helper.from_array(np.ones(2, np.float32), "W")]
    with opened(tmp_path, model_of(weights, nodes, inputs)) as checkpoint:
        lstm, odd = checkpoint.nodes
        assert (lstm.op_type, lstm.name, lstm.domain) == ("LSTM", "enc", "")
        assert lstm.inputs == ("x", "W", "R", "", "", "h0")
        assert lstm.outputs == ("", "h")
        assert lstm.attributes == {
            name: tuple(value) if isinstance(value, list) else value for name, value in attributes.items()
        }
        assert (odd.op_type, odd.domain) == ("Odd", "custom")
        assert checkpoint.inputs == {"x": (None, 1, 3), "h0": None}  # W is an initializer
        assert checkpoint.opset == 22


def test_constants_and_tensors_in_attributes(tmp_path: Path) -> None:
    value = numpy_helper.from_array(np.array([0.5], np.float32), "whatever")
    nodes = [
        helper.make_node("Constant", [], ["c"], value=value),
        helper.make_node("ConstantOfShape", ["shape"], ["zeros"], value=value),
        helper.make_node("Constant", [], ["axes"], value_ints=[1, 2]),
    ]
    with opened(tmp_path, model_of([], nodes)) as checkpoint:
        assert list(checkpoint.tensors) == ["c", "zeros.value"]
        assert checkpoint.read("c").tolist() == [0.5]
        assert checkpoint.nodes[1].attributes == {"value": checkpoint.tensors["zeros.value"]}
        assert checkpoint.nodes[2].attributes == {"value_ints": (1, 2)}


def test_subgraphs_and_what_is_no_number_are_ignored(tmp_path: Path) -> None:
    inside = helper.make_graph([helper.make_node("LSTM", ["x"], ["y"])], "inside", [], [])
    nodes = [helper.make_node("Loop", ["n"], ["z"], "loop", body=inside)]
    tensors = [
        helper.make_tensor("texts", TensorProto.STRING, [1], [b"x"]),
        helper.make_tensor("complex", TensorProto.COMPLEX64, [1], [1j]),
        helper.make_tensor("int4", TensorProto.INT4, [2], [1, 2]),
    ]
    with opened(tmp_path, model_of(tensors, nodes)) as checkpoint:
        assert checkpoint.tensors == {}
        assert [each.op_type for each in checkpoint.nodes] == ["Loop"]
        assert {each.name for each in checkpoint.ignored} == {"z.body", "texts", "complex", "int4"}


def test_a_tensor_that_is_not_finite_is_named(tmp_path: Path) -> None:
    tensor = numpy_helper.from_array(np.array([[1.0, np.inf]]), "w")
    assert "w is inf at [0, 1]" in refused(tmp_path, model_of([tensor]))


def external(location: str) -> onnx.ModelProto:
    tensor = numpy_helper.from_array(np.zeros(4, np.float32), "w")
    onnx.external_data_helper.set_external_data(tensor, location, 0, 16)
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    return model_of([tensor])


@pytest.mark.parametrize("location", ["../secret.bin", "inside.bin", "link.bin", "x/../../secret.bin", "ABSOLUTE"])
def test_external_data_is_refused(tmp_path: Path, location: str) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    (tmp_path / "secret.bin").write_bytes(bytes(16))
    (folder / "inside.bin").write_bytes(bytes(16))
    (folder / "link.bin").symlink_to(tmp_path / "secret.bin")
    model = external(location.replace("ABSOLUTE", str(tmp_path / "secret.bin")))
    text = refused(folder, model)
    assert "w has its entries in another file, which is not read" in text
    assert "save_as_external_data=False" in text
    model.graph.initializer[0].data_location = TensorProto.DEFAULT  # what it says of a location alone is enough
    assert "in another file" in refused(folder, model)
    in_attribute = model_of(
        [], [helper.make_node("Constant", [], ["c"], value=external(location).graph.initializer[0])]
    )
    assert "c has its entries in another file" in refused(folder, in_attribute)


def changed(**fields: object) -> Callable[[], onnx.ModelProto]:
    """Return a maker of a model whose one tensor, float32 of shape (2, 2), has some fields changed."""

    def make() -> onnx.ModelProto:
        tensor = numpy_helper.from_array(np.ones((2, 2), np.float32), "w")
        for name, value in fields.items():
            tensor.ClearField(name)
            if isinstance(value, list):
                getattr(tensor, name).extend(value)
            else:
                setattr(tensor, name, value)
        return model_of([tensor])

    return make


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (changed(dims=[2, 3]), "w of shape (2, 3) has 16 bytes in place of 24"),
        (changed(dims=[]), "w of shape () has 16 bytes in place of 4"),
        (changed(dims=[-2, -2]), "claims the shape (-2, -2)"),
        (changed(dims=[2**62, 4]), "claims the shape"),
        (changed(dims=[0, 2**62]), "claims the shape"),
        (changed(dims=[2**40] * 32), "in place of"),
        (changed(dims=[1] * 33), "more than 32 dimensions"),
        (changed(raw_data=bytes(15)), "has 15 bytes in place of 16"),
        (changed(raw_data=b""), "has 0 bytes in place of 16"),
        (changed(float_data=[1.0] * 4), "in two ways"),
        (changed(raw_data=b"", float_data=[1.0] * 3), "has 3 entries in place of 4"),
        (changed(raw_data=b"", double_data=[1.0] * 4), "in a field of another dtype than float32"),
        (changed(raw_data=b"", int32_data=[1] * 4), "in a field of another dtype than float32"),
        (changed(name=""), "a tensor has no name"),
        (changed(name="x" * 1001), "longer than 1,000 bytes"),
        (changed(name="\x1b[31m"), "cannot be printed"),
    ],
)
def test_tensors_that_lie_are_refused(tmp_path: Path, make: Callable[[], onnx.ModelProto], reason: str) -> None:
    assert reason in refused(tmp_path, make())


def test_two_tensors_of_one_name_are_refused(tmp_path: Path) -> None:
    tensor = numpy_helper.from_array(np.ones(2), "w")
    assert "there are two tensors w" in refused(tmp_path, model_of([tensor, tensor]))


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "empty"),
        (b"hello, world", "damaged, or no ONNX model"),
        (b"\x08\x07", "it has no graph"),
        (field(7, b"") * 2, "two graphs"),
        (b"\x3a\xff\xff\xff\xff\x07", "goes beyond its message"),
        (b"\x3a" + b"\xff" * 20, "does not end"),
        (b"\x00\x00", "goes beyond its message"),
        (b"\x3b" * 10_000, "no field can begin with"),
        (field(7, b"\x0d\x00\x00\x00\x00"), "where a text or message belongs"),
        (field(7, field(1, field(3, b"\xff"))), "no UTF-8"),
        (field(7, field(5, b"\x08\x02\x10\x07" + field(8, b"w") + field(7, b"\x80\x80"))), "does not end"),
        (field(7, field(5, b"\x08\x01\x10\x07" + field(8, b"w") + field(7, b"\x80" * 20 + b"\x01"))), "does not end"),
        (field(7, field(5, b"\x08\x01\x10\x01" + field(8, b"w") + field(4, b"abc"))), "not of their dtype"),
    ],
)
def test_bytes_that_are_no_model_are_refused(tmp_path: Path, content: bytes, reason: str) -> None:
    assert reason in refused(tmp_path, content)


def test_a_model_cut_short_anywhere_is_refused(tmp_path: Path) -> None:
    tensor = numpy_helper.from_array(np.ones((2, 2), np.float32), "w")
    whole = model_of([tensor], [helper.make_node("Tanh", ["x"], ["y"])]).SerializeToString()
    graph = whole.index(field(5, tensor.SerializeToString()))
    for length in range(graph + 1):
        refused(tmp_path, whole[:length])


def test_messages_within_messages_are_not_descended_into(tmp_path: Path) -> None:
    """A subgraph in a subgraph in a subgraph: 10,000 deep, which recursion would not survive."""
    inside = b""
    for _ in range(10_000):
        inside = field(1, field(5, field(1, b"body") + b"\xa0\x01\x05" + field(6, inside)))
    with opened(tmp_path, field(7, inside)) as checkpoint:
        assert [each.reason for each in checkpoint.ignored] == ["a subgraph, which is not looked into"]


@pytest.mark.parametrize(
    "unit", [field(1, b""), field(5, b""), field(1, field(1, b"x") * 3), field(1, field(5, field(8, bytes(100))))]
)
def test_a_model_of_millions_of_fields_is_refused(tmp_path: Path, unit: bytes) -> None:
    (tmp_path / "m.onnx").write_bytes(field(7, unit * (20_000_000 // len(unit))))
    outcome, peak = opened_apart(tmp_path / "m.onnx")
    assert outcome in ("ResourceError", "InputFileError")
    assert peak < 400 * 2**10  # the protobuf library takes 1.8 GB


def test_a_file_larger_than_a_message_can_be_is_refused(tmp_path: Path) -> None:
    with open(tmp_path / "m.onnx", "wb") as file:
        file.truncate(2**31 + 1)
    with pytest.raises(ResourceError, match=r"model\.onnx: has 2,147,483,649 bytes"):
        open_file(tmp_path / "m.onnx", "model.onnx")


def test_what_is_not_asked_for_is_not_read(tmp_path: Path) -> None:
    """A model of 2 GB, sparse on disk: its tensor is listed at once, and nothing of it is loaded."""
    size = 2**31 - 2**20
    start = b"\x08" + varint(size // 4) + b"\x10\x01" + field(8, b"w") + b"\x4a" + varint(size)
    graph = b"\x2a" + varint(len(start) + size) + start
    with open(tmp_path / "m.onnx", "wb") as file:
        file.write(b"\x3a" + varint(len(graph) + size) + graph)
        file.truncate(file.tell() + size)
    assert opened_apart(tmp_path / "m.onnx")[0] == str(size)
    assert opened_apart(tmp_path / "m.onnx")[1] < 100 * 2**10


def test_the_onnx_package_is_not_imported(tmp_path: Path) -> None:
    (tmp_path / "m.onnx").write_bytes(model_of().SerializeToString())
    program = (
        "import sys; from pathlib import Path; from gradcli.weights.readers.onnx_file import open_file\n"
        "open_file(Path(sys.argv[1]), 'm').close(); print(sorted({'onnx', 'google', 'ml_dtypes'} & set(sys.modules)))"
    )
    arguments = [sys.executable, "-c", program, str(tmp_path / "m.onnx")]
    assert subprocess.run(arguments, capture_output=True, text=True, check=True).stdout == "[]\n"


def test_the_limit_of_fields_is_beyond_real_models(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A graph of 1,000 LSTMs takes less than a tenth of what is allowed."""
    node = helper.make_node("LSTM", ["x", "W", "R", "B"], ["y"], hidden_size=3, activations=["Tanh"] * 3)
    monkeypatch.setattr(onnx_file.Wire, "LIMIT", onnx_file.Wire.LIMIT // 10)
    with opened(tmp_path, model_of([], [node] * 1000)) as checkpoint:
        assert len(checkpoint.nodes) == 1000
