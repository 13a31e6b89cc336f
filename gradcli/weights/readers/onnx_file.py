"""ONNX models: the nodes of the graph, and its tensors, read from the file itself.

The messages and the numbers of their fields are those of onnx.proto (IR version 14 and before). A file is
mapped, not loaded, and of tensors that are not asked for no float is touched. External data is refused: in it a model
names other files, and the ways out of its folder were found again and again.
"""

from __future__ import annotations

import mmap
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from gradcli.errors import InputFileError, ResourceError
from gradcli.frozen import frozen
from gradcli.weights.checkpoint import MAX_DIMENSIONS, MAX_EXTENT, Array, Checkpoint, Ignored, Tensor, widened
from gradcli.weights.readers.protobuf import (
    BYTES,
    FIXED32,
    FIXED64,
    VARINT,
    Field,
    Span,
    TooManyFieldsError,
    Wire,
    WireError,
    count_varints,
    varints,
)

Shape = tuple[int | None, ...]
Attribute = float | int | str | Tensor | tuple[float, ...] | tuple[int, ...] | tuple[str, ...]

#: No message of protocol buffers may be larger.
MAX_FILE_BYTES = 2**31
MAX_NAME = 1000
MAX_TEXT = 2**16

#: TensorProto.DataType -> the dtype, and the field that holds entries where raw_data does not.
_FLOAT_DATA, _INT32_DATA, _INT64_DATA, _DOUBLE_DATA, _UINT64_DATA, _RAW_DATA = 4, 5, 7, 10, 11, 9
_DTYPES = {
    1: ("float32", _FLOAT_DATA),
    2: ("uint8", _INT32_DATA),
    3: ("int8", _INT32_DATA),
    4: ("uint16", _INT32_DATA),
    5: ("int16", _INT32_DATA),
    6: ("int32", _INT32_DATA),
    7: ("int64", _INT64_DATA),
    9: ("bool", _INT32_DATA),
    10: ("float16", _INT32_DATA),
    11: ("float64", _DOUBLE_DATA),
    12: ("uint32", _UINT64_DATA),
    13: ("uint64", _UINT64_DATA),
    16: ("bfloat16", _INT32_DATA),
}


class _Fixed(NamedTuple):
    """A field with entries of fixed size: the wire type of one that is not packed, and its dtype."""

    wire: int
    dtype: np.dtype[Any]


_FIXED = {_FLOAT_DATA: _Fixed(FIXED32, np.dtype("<f4")), _DOUBLE_DATA: _Fixed(FIXED64, np.dtype("<f8"))}
#: The dtypes that NumPy reads otherwise: a bfloat16 and a bool as what they are stored in.
_BITS: Mapping[str, np.dtype[Any]] = {"bfloat16": np.dtype(np.uint16), "bool": np.dtype(np.uint8)}
_ENTRIES = (_FLOAT_DATA, _INT32_DATA, _INT64_DATA, _DOUBLE_DATA, _UINT64_DATA, _RAW_DATA)
#: AttributeProto.AttributeType -> the field of AttributeProto that holds the value.
_KINDS = {1: 2, 2: 3, 3: 4, 4: 5, 5: 6, 6: 7, 7: 8, 8: 9, 9: 10, 10: 11, 11: 22, 12: 23, 13: 14, 14: 15}
#: Fields of AttributeProto: f, i, s, floats, ints, strings; and g, graphs, tensors, sparse_tensor, sparse_tensors.
_PLAIN = (2, 3, 4, 7, 8, 9)
_LEFT_OUT = {
    6: "a subgraph, which is",
    11: "subgraphs, which are",
    10: "a list of tensors, which is",
    22: "a sparse tensor, which is",
    23: "sparse tensors, which are",
}
_EXTERNAL = (
    "has its entries in another file, which is not read; save the model as one file, with"
    " onnx.save(model, path, save_as_external_data=False) or torch.onnx.export(..., external_data=False)"
)


@frozen
class OnnxNode:
    """A node of the graph: outputs = op_type(inputs); "" is an input or output that is left out.

    attributes: by name; that of a tensor is a `Tensor` of the checkpoint. Subgraphs are left out.
    domain: "" for the operators of ONNX itself.
    """

    op_type: str
    name: str
    domain: str
    attributes: Mapping[str, Attribute]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]


class OnnxCheckpoint(Checkpoint):
    """An ONNX model. Tensors: the initializers; those of Constant nodes, by the name of the output; and those in
    attributes of other nodes, as "output.attribute".

    nodes: of the graph, in its order. inputs: the graph's inputs that are no initializers -> shape, None where the file
    has none, with None for dimensions that are not fixed. outputs: the names of the graph's outputs.
    opset: the version of ONNX's own operators; None where the file does not say.
    """

    FORMAT = "ONNX"

    def __init__(self, path: Path, name: str) -> None:
        with open(path, "rb") as file:
            size = file.seek(0, 2)
            if size > MAX_FILE_BYTES:
                raise ResourceError(f"{name}: has {size:,} bytes; an ONNX file has at most {MAX_FILE_BYTES:,}")
            if not size:
                raise InputFileError(f"{name}: empty; expected an ONNX model")
            self._map = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        try:
            model = _Model(Wire(self._map))
        except TooManyFieldsError:
            self.close()
            raise ResourceError(
                f"{name}: has more than {Wire.LIMIT:,} fields, more than any model of this kind"
            ) from None
        except UnicodeDecodeError:
            self.close()
            raise InputFileError(f"{name}: damaged, or no ONNX model: a name in it is no UTF-8") from None
        except WireError as error:
            self.close()
            raise InputFileError(f"{name}: damaged, or no ONNX model: {error}") from None
        except _Refused as refused:
            self.close()
            raise InputFileError(f"{name}: {refused}") from None
        super().__init__(name, {name: stored.tensor for name, stored in model.stored.items()}, model.ignored)
        self._stored = model.stored
        self.nodes = tuple(model.nodes)
        self.inputs: Mapping[str, Shape | None] = {
            name: shape for name, shape in model.inputs.items() if name not in model.initializers
        }
        self.outputs = tuple(model.outputs)
        self.opset = model.opset

    def _read(self, tensor: Tensor) -> Array:
        try:
            return self._entries(self._stored[tensor.name])
        except MemoryError:
            raise ResourceError(f"{self.name}: {tensor.name} needs more memory than there is") from None

    def _entries(self, stored: _Stored) -> Array:
        tensor = stored.tensor
        data = b"".join(self._map[start:end] for start, end in stored.spans)
        bits = _BITS.get(tensor.dtype, np.dtype(tensor.dtype)).newbyteorder("<")
        if stored.field == _RAW_DATA:
            entries: Array = np.frombuffer(data, bits)
        elif stored.field in _FIXED:
            entries = np.frombuffer(data, _FIXED[stored.field].dtype)
        else:
            # Of float16 and bfloat16 the field holds the bits, of negative numbers all those of an int64.
            entries = varints(data, np.dtype(f"u{bits.itemsize}")).view(bits.newbyteorder("="))
        if tensor.dtype == "bool":
            entries = entries != 0
        return widened(entries.reshape(tensor.shape), tensor.dtype)

    def close(self) -> None:
        self._map.close()


def open_file(path: Path, name: str) -> OnnxCheckpoint:
    """Return the model at `path`, open; see `formats.open_checkpoint`.

    Raises:
        InputFileError: the file is damaged, or its tensors are in other files.
        ResourceError: it would take more memory or time than any model needs.
    """
    return OnnxCheckpoint(path, name)


class _Refused(Exception):
    """A model that is not read; the text says why, and lacks the file's name."""


@frozen
class _Stored:
    """A tensor, which field of TensorProto holds its entries, and where: the field may occur often."""

    tensor: Tensor
    field: int
    spans: tuple[Span, ...]


class _Model:
    """What `OnnxCheckpoint` tells of a ModelProto."""

    def __init__(self, wire: Wire) -> None:
        self._wire = wire
        self.stored: dict[str, _Stored] = {}
        self.initializers: set[str] = set()
        self.ignored: list[Ignored] = []
        self.nodes: list[OnnxNode] = []
        self.inputs: dict[str, Shape | None] = {}
        self.outputs: list[str] = []
        self.opset: int | None = None
        graph: Span | None = None
        for field in wire.fields(Span(0, len(wire.data))):
            if field.number == 7:  # graph
                if graph is not None:
                    raise WireError("it has two graphs")
                graph = wire.message(field)
            elif field.number == 8:  # opset_import
                self._read_opset(wire.message(field))
            elif field.number == 25:  # functions
                self.ignored.append(Ignored("a function of the model", "functions are not looked into"))
        if graph is None:
            raise WireError("it has no graph")
        self._read_graph(graph)

    def _read_opset(self, span: Span) -> None:
        domain, version = "", 0
        for field in self._wire.fields(span):
            if field.number == 1:  # domain
                domain = self._name(field)
            elif field.number == 2:  # version
                version = self._wire.integer(field)
        if domain in ("", "ai.onnx"):
            self.opset = version

    def _read_graph(self, span: Span) -> None:
        for field in self._wire.fields(span):
            if field.number == 1:  # node
                self._read_node(self._wire.message(field))
            elif field.number == 5:  # initializer
                if (kept := self._read_tensor(self._wire.message(field), None)) is not None:
                    self.initializers.add(kept.name)
            elif field.number == 11:  # input
                name, shape = self._value(self._wire.message(field))
                self.inputs[name] = shape
            elif field.number == 12:  # output
                self.outputs.append(self._value(self._wire.message(field))[0])
            elif field.number == 15:  # sparse_initializer
                self.ignored.append(Ignored("a sparse initializer", "sparse tensors are not read"))

    def _read_node(self, span: Span) -> None:
        wire = self._wire
        names: dict[int, str] = {}
        inputs: list[str] = []
        outputs: list[str] = []
        attributes: list[Span] = []
        for field in wire.fields(span):
            if field.number in (1, 2):  # input, output
                (inputs if field.number == 1 else outputs).append(self._name(field))
            elif field.number in (3, 4, 7):  # name, op_type, domain
                names[field.number] = self._name(field)
            elif field.number == 5:  # attribute
                attributes.append(wire.message(field))
        name, op_type, domain = (names.get(number, "") for number in (3, 4, 7))
        first = next(filter(None, outputs), name or op_type)
        values: dict[str, Attribute] = {}
        for each in attributes:
            attribute, value = self._attribute(each, first, op_type == "Constant" and domain in ("", "ai.onnx"))
            if isinstance(value, Ignored):
                self.ignored.append(value)
            elif value is not None:
                values[attribute] = value
        self.nodes.append(
            OnnxNode(op_type, name, "" if domain == "ai.onnx" else domain, values, tuple(inputs), tuple(outputs))
        )

    def _attribute(self, span: Span, output: str, constant: bool) -> tuple[str, Attribute | Ignored | None]:
        """Return the name of an attribute and its value; None for a tensor of a kind that is not read.

        output: what names the node's tensors. constant: whether they are named by that alone.
        """
        wire = self._wire
        found: dict[int, list[Field]] = {}
        for field in wire.fields(span):
            found.setdefault(field.number, []).append(field)
        name = self._name(found[1][-1]) if 1 in found else ""
        own = f"{output}.{name}"
        kinds = [number for number in (*_PLAIN, 5, *_LEFT_OUT) if number in found]
        kind = _KINDS.get(wire.integer(found[20][-1])) if 20 in found else next(iter(kinds), None)
        if kind in _LEFT_OUT:
            return name, Ignored(own, f"{_LEFT_OUT[kind]} not looked into")
        fields = found.get(kind or 0, [])
        if kind == 5:
            if len(fields) != 1:
                raise WireError(f"the attribute {own} has {len(fields)} tensors in place of one")
            return name, self._read_tensor(wire.message(fields[0]), output if constant else own)
        if kind in (4, 9):
            raw = [wire.message(each) for each in fields]
            if any(end - start > MAX_TEXT for start, end in raw):
                return name, Ignored(own, f"a text of more than {MAX_TEXT:,} bytes")
            try:
                texts = tuple(wire.text(each, MAX_TEXT) for each in fields)
            except UnicodeDecodeError:
                return name, Ignored(own, "bytes that are no text")
            return name, texts if kind == 9 else (texts or ("",))[-1]
        if kind in (2, 7):
            floats = tuple(value for each in fields for value in wire.floats(each))
            return name, floats if kind == 7 else (floats or (0.0,))[-1]
        if kind in (3, 8):
            integers = tuple(value for each in fields for value in wire.integers(each))
            return name, integers if kind == 8 else (integers or (0,))[-1]
        return name, Ignored(own, "an attribute of a kind that is not read")

    def _read_tensor(self, span: Span, name: str | None) -> Tensor | None:
        """Keep and return a tensor, under `name` or its own; None where it is of a kind that is not read."""
        wire = self._wire
        own = ""
        dims: list[int] = []
        data_type, external = 0, False
        parts: dict[int, list[Field]] = {}
        for field in wire.fields(span):
            if field.number == 1:  # dims
                dims += wire.integers(field)
                if len(dims) > MAX_DIMENSIONS:
                    raise WireError(f"a tensor has more than {MAX_DIMENSIONS} dimensions")
            elif field.number == 2:  # data_type
                data_type = wire.integer(field)
            elif field.number == 8:  # name
                own = self._name(field)
            elif field.number == 13 or (field.number == 14 and wire.integer(field)):  # external_data, data_location
                external = True
            elif field.number in _ENTRIES:
                parts.setdefault(field.number, []).append(field)
        name = name or own
        if not name:
            raise WireError("a tensor has no name")
        if name in self.stored:
            raise WireError(f"there are two tensors {name}")
        if external:
            raise _Refused(f"{name} {_EXTERNAL}")
        if data_type not in _DTYPES:
            self.ignored.append(Ignored(name, "its entries are of a kind that is not read"))
            return None
        dtype, typed = _DTYPES[data_type]
        if any(not 0 <= size <= MAX_EXTENT for size in dims):
            raise _Refused(f"{name} claims the shape {tuple(dims)}, which no tensor has")
        tensor = Tensor(name, tuple(dims), dtype)
        parts = {number: fields for number, fields in parts.items() if any(f.span.end > f.span.start for f in fields)}
        if len(parts) > 1:
            raise _Refused(f"{name} has its entries in two ways")
        number = next(iter(parts), _RAW_DATA)
        if number not in (_RAW_DATA, typed):
            raise _Refused(f"{name} has its entries in a field of another dtype than {dtype}, which is its own")
        fields = parts.get(number, [])
        held = sum(self._held(number, field) for field in fields)
        needed = tensor.nbytes if number == _RAW_DATA else tensor.size
        if held != needed:
            unit = "bytes" if number == _RAW_DATA else "entries"
            raise _Refused(f"{name} of shape {tensor.shape} has {held:,} {unit} in place of {needed:,}")
        self.stored[name] = _Stored(tensor, number, tuple(field.span for field in fields))
        return tensor

    def _held(self, number: int, field: Field) -> int:
        """Return how many entries a field of a TensorProto holds, or bytes if it is raw_data."""
        start, end = field.span
        fixed = _FIXED.get(number)
        if number == _RAW_DATA and field.wire == BYTES:
            return end - start
        if fixed is not None and field.wire in (fixed.wire, BYTES) and not (end - start) % fixed.dtype.itemsize:
            return (end - start) // fixed.dtype.itemsize
        if fixed is None and number != _RAW_DATA and field.wire in (VARINT, BYTES):
            return count_varints(self._wire.data[start:end])
        raise WireError(f"the entries at byte {start} are not of their dtype")

    def _value(self, span: Span) -> tuple[str, Shape | None]:
        """Return the name and shape of a ValueInfoProto."""
        wire = self._wire
        name, shape = "", None
        for field in wire.fields(span):
            if field.number == 1:  # name
                name = self._name(field)
            elif field.number == 2:  # type
                for kind in wire.fields(wire.message(field)):
                    if kind.number == 1:  # tensor_type
                        shape = self._tensor_shape(wire.message(kind))
        return name, shape

    def _tensor_shape(self, span: Span) -> Shape | None:
        wire = self._wire
        shape: list[int | None] | None = None
        for field in wire.fields(span):
            if field.number == 2:  # shape
                shape = []
                for dim in wire.fields(wire.message(field)):
                    if dim.number == 1:  # dim
                        sizes = [wire.integer(each) for each in wire.fields(wire.message(dim)) if each.number == 1]
                        shape.append(sizes[-1] if sizes and sizes[-1] > 0 else None)
        return None if shape is None else tuple(shape)

    def _name(self, field: Field) -> str:
        name = self._wire.text(field, MAX_NAME)
        if not name.isprintable():
            raise WireError(f"the name at byte {field.span.start} has characters that cannot be printed")
        return name
