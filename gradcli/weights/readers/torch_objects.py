"""What a PyTorch state dict may be made of, as plain records: nothing of PyTorch is imported, and nothing is called.

The names are those that `torch.save` writes (torch/_utils.py and torch/serialization.py, read at version 2.13).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from gradcli.weights.checkpoint import ITEM_BYTES, MAX_DIMENSIONS

_MAX_INT = 1 << 62


class Malformed(Exception):
    """A pickle that is not what `torch.save` writes; the text completes a sentence about the file."""


@dataclass(frozen=True, slots=True)
class Named:
    """A name of a Python object that a pickle mentions; the object itself is never looked up."""

    module: str
    name: str

    def __str__(self) -> str:
        return f"{self.module}.{self.name}"


@dataclass(frozen=True, slots=True)
class Inert:
    """Something that is no tensor that gradcli reads; what: such as "a complex tensor"."""

    what: str


@dataclass(frozen=True, slots=True)
class Storage:
    """The memory behind tensors: an entry data/<key> of the file. dtype: None where it is one that is not read."""

    key: str
    dtype: str | None
    nbytes: int | None


@dataclass(frozen=True, slots=True)
class StridedTensor:
    """A view of a storage: its entry [i, j, ...] is number offset + i strides[0] + j strides[1] + ... of it."""

    key: str
    dtype: str
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]

    @property
    def span(self) -> int:
        """How many entries of the storage lie between its first and its last one, both counted; 0 of an empty one."""
        if 0 in self.shape:
            return 0
        return 1 + sum((length - 1) * stride for length, stride in zip(self.shape, self.strides, strict=True))


_TYPED_STORAGES = {
    "DoubleStorage": "float64",
    "FloatStorage": "float32",
    "HalfStorage": "float16",
    "BFloat16Storage": "bfloat16",
    "LongStorage": "int64",
    "IntStorage": "int32",
    "ShortStorage": "int16",
    "CharStorage": "int8",
    "ByteStorage": "uint8",
    "BoolStorage": "bool",
}
_UNREAD_STORAGES = (
    "ComplexDoubleStorage",
    "ComplexFloatStorage",
    "QUInt8Storage",
    "QInt8Storage",
    "QInt32Storage",
    "QUInt4x2Storage",
    "QUInt2x4Storage",
)
_UNTYPED = Named("torch.storage", "UntypedStorage")
_STORAGES: dict[Named, str | None] = {
    **{Named("torch", name): dtype for name, dtype in _TYPED_STORAGES.items()},
    **{Named("torch", name): None for name in _UNREAD_STORAGES},
}

#: torch.float32 and so on, which a tensor of an untyped storage names.
_TORCH_DTYPES = {
    **{Named("torch", dtype): dtype for dtype in ITEM_BYTES},
    **{
        Named("torch", name): None
        for name in [
            "complex32",
            "complex64",
            "complex128",
            "quint8",
            "qint8",
            "qint32",
            "quint4x2",
            "quint2x4",
            "bits8",
            "bits16",
            "float8_e4m3fn",
            "float8_e5m2",
            "float8_e4m3fnuz",
            "float8_e5m2fnuz",
            "float8_e8m0fnu",
            "float4_e2m1fn_x2",
        ]
    },
}

_PARAMETER = Named("torch.nn.parameter", "Parameter")
_TENSOR_TYPES = (_PARAMETER, Named("torch", "Tensor"), Named("torch._tensor", "Tensor"), Named("torch.nn", "Parameter"))

#: Harmless objects of training checkpoints: their names may stand in the file, and what they hold is left out.
_INERT = frozenset(
    Named(module, name)
    for module, names in {
        "torch": "Size device strided per_tensor_affine per_channel_affine contiguous_format preserve_format",
        "torch.serialization": "_get_layout",
        "collections": "deque Counter",
        "builtins": "set frozenset complex bytearray slice range int float str bool list dict tuple object",
        "__builtin__": "set frozenset complex bytearray slice xrange int float str bool list dict tuple object long",
        "_codecs": "encode",
        "argparse": "Namespace",
        "types": "SimpleNamespace",
        "pathlib": "Path PosixPath WindowsPath PurePosixPath PureWindowsPath",
        "pathlib._local": "Path PosixPath WindowsPath PurePosixPath PureWindowsPath",
        "datetime": "datetime date time timedelta timezone",
        "numpy": "dtype ndarray",
        "numpy.core.multiarray": "_reconstruct scalar",
        "numpy._core.multiarray": "_reconstruct scalar",
        "numpy.core.numeric": "_frombuffer",
        "numpy._core.numeric": "_frombuffer",
    }.items()
    for name in names.split()
)
#: Tensors of other kinds than strided ones.
_OTHER_TENSORS = {
    Named("torch._utils", "_rebuild_qtensor"): "a quantised tensor",
    Named("torch._utils", "_rebuild_sparse_tensor"): "a sparse tensor",
    Named("torch._utils", "_rebuild_sparse_csr_tensor"): "a sparse tensor",
    Named("torch._utils", "_rebuild_nested_tensor"): "a nested tensor",
    Named("torch._utils", "_rebuild_meta_tensor_no_storage"): "a tensor without numbers, of the device meta",
    Named("torch._utils", "_rebuild_device_tensor_from_numpy"): "a tensor of another device",
    Named("torch._utils", "_rebuild_device_tensor_from_cpu_tensor"): "a tensor of another device",
}


def known(name: Named) -> bool:
    """Return whether a state dict may mention a name."""
    return name in _KNOWN


def made(what: Any, arguments: Any) -> Any:
    """Return what stands for the object that a pickle makes by calling `what`.

    Raises:
        Malformed: nothing that can be made so.
    """
    if isinstance(what, Inert):
        return what
    if not isinstance(what, Named) or not isinstance(arguments, tuple):
        raise Malformed("it calls something that is not a function")
    if what in _REBUILD:
        return _REBUILD[what](arguments)
    if what in _OTHER_TENSORS:
        return Inert(_OTHER_TENSORS[what])
    if what in _INERT:
        return Inert(f"an object of {what}")
    raise Malformed(f"it calls {what}, which is not a function")


def stored(reference: Any, entry_bytes: Mapping[str, int]) -> Storage:
    """Return the storage that a reference of a pickle names.

    Args:
        reference: ("storage", its type, its key, its device, the number of its entries).
        entry_bytes: the bytes of each entry data/<key> of the file, by key.

    Raises:
        Malformed: another reference, or one that the file does not fulfil.
    """
    if not isinstance(reference, tuple) or len(reference) != 5 or reference[0] != "storage":
        raise Malformed("it refers to something that is not a storage")
    _, kind, key, _, count = reference
    if not isinstance(kind, Named) or not isinstance(key, str) or not _is_count(count):
        raise Malformed("it refers to a storage that is none")
    if key not in entry_bytes:
        raise Malformed("the numbers of a tensor are missing")
    if kind == _UNTYPED:
        dtype, item = None, 1
    elif kind in _STORAGES:
        dtype = _STORAGES[kind]
        item = ITEM_BYTES[dtype] if dtype else 0
    else:
        raise Malformed(f"it has a storage of {kind}")
    if item and count * item != entry_bytes[key]:
        raise Malformed(f"a tensor's storage declares {count * item:,} bytes and has {entry_bytes[key]:,}")
    return Storage(key, dtype, entry_bytes[key] if item else None)


def _ordered_dict(arguments: tuple[Any, ...]) -> dict[Any, Any]:
    """collections.OrderedDict(), or the form of older Pythons, with the pairs as an argument."""
    if not arguments:
        return {}
    pairs = arguments[0] if len(arguments) == 1 and isinstance(arguments[0], list) else None
    if pairs is None or not all(isinstance(pair, list | tuple) and len(pair) == 2 for pair in pairs):
        raise Malformed("it has an OrderedDict that is none")
    entries: dict[Any, Any] = {}
    for key, value in pairs:
        entries[dict_key(key)] = value
    return entries


def dict_key(key: Any) -> Any:
    """Return a key of a dict, or something to stand for it where it is neither a text nor a small number.

    A hash of a deeply nested tuple overflows the stack, and of chosen long integers collides.
    """
    if isinstance(key, str | bytes) or (isinstance(key, int) and abs(key) < 1 << 60):
        return key
    return object()


def _tensor_v2(arguments: tuple[Any, ...]) -> StridedTensor | Inert:
    """_rebuild_tensor_v2(storage, offset, size, stride, requires_grad, backward_hooks, metadata=None), or without the
    last three, as older versions."""
    if not 4 <= len(arguments) <= 7:
        raise Malformed("it has a tensor that is none")
    storage, offset, shape, strides = arguments[:4]
    if not isinstance(storage, Storage):
        raise Malformed("it has a tensor without a storage")
    if len(arguments) == 7 and arguments[6]:
        return Inert("a tensor that is marked as conjugate or negative")
    return _view(storage, storage.dtype, offset, shape, strides)


def _tensor_v3(arguments: tuple[Any, ...]) -> StridedTensor | Inert:
    """_rebuild_tensor_v3(storage, offset, size, stride, requires_grad, backward_hooks, dtype, metadata=None)."""
    if not 7 <= len(arguments) <= 8 or not isinstance(arguments[0], Storage) or not isinstance(arguments[6], Named):
        raise Malformed("it has a tensor that is none")
    storage, offset, shape, strides, _, _, dtype = arguments[:7]
    if dtype not in _TORCH_DTYPES:
        raise Malformed(f"it has a tensor of {dtype}")
    if len(arguments) == 8 and arguments[7]:
        return Inert("a tensor that is marked as conjugate or negative")
    return _view(storage, _TORCH_DTYPES[dtype], offset, shape, strides)


def _view(storage: Storage, dtype: str | None, offset: Any, shape: Any, strides: Any) -> StridedTensor | Inert:
    if not (_is_count(offset) and _are_counts(shape) and _are_counts(strides) and len(shape) == len(strides)):
        raise Malformed("it has a tensor with an impossible offset, shape or stride")
    if dtype is None or storage.nbytes is None:
        return Inert("a tensor of a dtype that is not read")
    tensor = StridedTensor(storage.key, dtype, offset, shape, strides)
    held = storage.nbytes // ITEM_BYTES[dtype]
    if offset + tensor.span > held:
        raise Malformed(f"a tensor of shape {shape} reaches beyond its storage of {held:,} numbers")
    size = 1
    for length in shape:
        size *= length
    # Strides of zero make a view of any size of a few bytes.
    if size > held:
        raise Malformed(f"a tensor of shape {shape} has more entries than its storage of {held:,} numbers")
    return tensor


def _parameter(arguments: tuple[Any, ...]) -> StridedTensor | Inert:
    """_rebuild_parameter(data, requires_grad, backward_hooks), or with a state at the end."""
    if not 1 <= len(arguments) <= 4 or not isinstance(arguments[0], StridedTensor | Inert):
        raise Malformed("it has a parameter that is none")
    return arguments[0]


def _tensor_of_type(arguments: tuple[Any, ...]) -> Any:
    """_rebuild_from_type_v2(function, type, its arguments, state): a tensor or parameter with attributes of its own."""
    # Only a `Named` may be hashed: anything else in a pickle may be nested deep enough to overflow the stack.
    if len(arguments) != 4 or not isinstance(arguments[0], Named) or not isinstance(arguments[2], tuple):
        raise Malformed("it has a tensor that is none")
    function, kind, its_arguments, _ = arguments
    if function not in _TENSOR_FUNCTIONS or kind not in _TENSOR_TYPES:
        return Inert("a tensor of a class of its own")
    return _TENSOR_FUNCTIONS[function](its_arguments)


def _is_count(value: Any) -> bool:
    return type(value) is int and 0 <= value < _MAX_INT


def _are_counts(values: Any) -> bool:
    return isinstance(values, tuple) and len(values) <= MAX_DIMENSIONS and all(map(_is_count, values))


_TENSOR_FUNCTIONS: dict[Named, Callable[[tuple[Any, ...]], Any]] = {
    Named("torch._utils", "_rebuild_tensor"): _tensor_v2,
    Named("torch._utils", "_rebuild_tensor_v2"): _tensor_v2,
    Named("torch._utils", "_rebuild_tensor_v3"): _tensor_v3,
    Named("torch._utils", "_rebuild_parameter"): _parameter,
    Named("torch._utils", "_rebuild_parameter_with_state"): _parameter,
}
_REBUILD: dict[Named, Callable[[tuple[Any, ...]], Any]] = {
    **_TENSOR_FUNCTIONS,
    Named("torch._tensor", "_rebuild_from_type_v2"): _tensor_of_type,
    Named("collections", "OrderedDict"): _ordered_dict,
    Named("collections", "defaultdict"): lambda arguments: {},
}
_KNOWN = frozenset((*_REBUILD, *_STORAGES, *_TORCH_DTYPES, *_INERT, *_OTHER_TENSORS, *_TENSOR_TYPES, _UNTYPED))
