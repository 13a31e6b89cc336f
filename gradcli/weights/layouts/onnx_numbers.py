"""Small numbers of an ONNX graph: the attributes of its nodes, and the sizes that it computes by operators.

Exporters that do not simplify their graphs compute where to cut a weight from the shape of another value.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np

from gradcli.weights.checkpoint import Tensor
from gradcli.weights.readers.onnx_file import OnnxCheckpoint, OnnxNode

#: More operators than any exporter puts between a value and its use.
MAX_CHAIN = 100
#: The most entries of a tensor that says how others are cut, as `starts` of a Slice does.
MAX_ENTRIES = 64

#: Operators whose output has the entries of their first input, in their order.
_SAME_ENTRIES = ("Identity", "Cast", "Reshape", "Squeeze", "Unsqueeze")


class NotFollowedError(Exception):
    """A value that cannot be told from the tensors of the file; the message says why, to follow "its W is"."""


def number(node: OnnxNode, attribute: str, default: int) -> int:
    """Return an attribute that is a whole number.

    Raises:
        NotFollowedError: it is something else.
    """
    value = node.attributes.get(attribute, default)
    if not isinstance(value, int):
        raise NotFollowedError(f"made by {node.op_type}, whose {attribute} is no whole number")
    return value


def numbers(node: OnnxNode, attribute: str) -> tuple[int, ...] | None:
    """Return an attribute that is a list of whole numbers; None where the node does not have it.

    Raises:
        NotFollowedError: it is something else.
    """
    value = node.attributes.get(attribute)
    if value is None:
        return None
    if not isinstance(value, tuple) or len(value) > MAX_ENTRIES:
        raise NotFollowedError(f"made by {node.op_type}, whose {attribute} is no list, or a very long one")
    found = tuple(each for each in value if isinstance(each, int))
    if len(found) != len(value):
        raise NotFollowedError(f"made by {node.op_type}, whose {attribute} is no list of whole numbers")
    return found


def texts(node: OnnxNode, attribute: str) -> tuple[str, ...]:
    """Return an attribute that is a list of texts; none of them where the node does not have it.

    Raises:
        NotFollowedError: it is something else.
    """
    value = node.attributes.get(attribute, ())
    found = tuple(each for each in value if isinstance(each, str)) if isinstance(value, tuple) else None
    if not isinstance(value, tuple) or found is None or len(found) != len(value):
        raise NotFollowedError(f"made by {node.op_type}, whose {attribute} is no list of texts")
    return found


def reals(node: OnnxNode, attribute: str) -> tuple[float, ...]:
    """Return an attribute that is a list of numbers; none of them where the node does not have it.

    Raises:
        NotFollowedError: it is something else, or has an entry that is not finite.
    """
    value = node.attributes.get(attribute, ())
    found = (
        tuple(_written(each) for each in value if isinstance(each, (int, float))) if isinstance(value, tuple) else ()
    )
    if not isinstance(value, tuple) or len(found) != len(value) or not all(map(math.isfinite, found)):
        raise NotFollowedError(f"made by {node.op_type}, whose {attribute} is no list of finite numbers")
    return found


def real(node: OnnxNode, attribute: str, default: float) -> float:
    """Return an attribute that is a number.

    Raises:
        NotFollowedError: it is something else, or not finite.
    """
    value = node.attributes.get(attribute, default)
    if not isinstance(value, (int, float)) or not math.isfinite(value):
        raise NotFollowedError(f"made by {node.op_type}, whose {attribute} is no finite number")
    return _written(value)


def _written(value: float) -> float:
    """Return the number that was written where a float32 was stored: 0.2 rather than 0.20000000298."""
    return float(str(np.float32(value)))


class Sizes:
    """The vectors of whole numbers that a graph computes from shapes and constants."""

    def __init__(self, checkpoint: OnnxCheckpoint, makers: Mapping[str, OnnxNode]) -> None:
        self._checkpoint = checkpoint
        self._makers = makers
        self._found: dict[str, list[int | None]] = {}

    def known(self, name: str) -> list[int]:
        """Return the entries of a value, such as the axes of an Unsqueeze.

        Raises:
            NotFollowedError: they cannot be told.
        """
        entries = self.entries(name)
        found = [entry for entry in entries if entry is not None]
        if len(found) != len(entries):
            raise NotFollowedError("cut or shaped in the graph by sizes that only its inputs tell")
        return found

    def entries(self, name: str, depth: int = 0) -> list[int | None]:
        """Return the entries of a value; None for those that depend on the graph's inputs.

        Raises:
            NotFollowedError: not even their number can be told.
        """
        if name not in self._found:
            self._found[name] = self._entries(name, depth)
        return self._found[name]

    def _entries(self, name: str, depth: int) -> list[int | None]:
        if name in self._checkpoint.tensors:
            return self._of_tensor(self._checkpoint.tensors[name])
        node = self._makers.get(name)
        if node is None or depth > MAX_CHAIN:
            raise NotFollowedError("cut or shaped in the graph by numbers that are put into it")
        match node.op_type:
            case "Constant" if isinstance(node.attributes.get("value_int"), int):
                return [number(node, "value_int", 0)]
            case "Constant" if (listed := numbers(node, "value_ints")) is not None:
                return list(listed)
            case "Shape":
                shape = self._shape(node.inputs[0], depth + 1)
                start, end = number(node, "start", 0), number(node, "end", len(shape))
                return shape[start:end]
            case "Concat":
                found = [entry for each in node.inputs for entry in self.entries(each, depth + 1)]
                if len(found) <= MAX_ENTRIES:
                    return found
            case "Mul" if len(node.inputs) == 2:
                left, right = (self.entries(each, depth + 1) for each in node.inputs)
                if len(left) == 1 or len(right) == 1 or len(left) == len(right):
                    size = len(left) if len(right) == 1 else len(right)
                    pairs = [(left[i % len(left)], right[i % len(right)]) for i in range(size)]
                    return [None if a is None or b is None else a * b for a, b in pairs]
            case operator if operator in _SAME_ENTRIES and node.inputs:
                return self.entries(node.inputs[0], depth + 1)
        raise NotFollowedError(f"cut or shaped in the graph by numbers that are computed there, by {node.op_type}")

    def _of_tensor(self, tensor: Tensor) -> list[int | None]:
        if tensor.dtype not in ("int64", "int32") or tensor.size > MAX_ENTRIES:
            raise NotFollowedError(f"cut or shaped in the graph by the tensor {tensor.name}, which has no sizes in it")
        return [int(entry) for entry in self._checkpoint.read(tensor.name).ravel()]

    def _shape(self, name: str, depth: int) -> list[int | None]:
        """Return the shape of a tensor, an input of the graph, or what Expand makes."""
        if name in self._checkpoint.tensors:
            return list(self._checkpoint.tensors[name].shape)
        given = self._checkpoint.inputs.get(name)
        if given is not None:
            return list(given)
        node = self._makers.get(name)
        if node is not None and node.op_type in ("Expand", "ConstantOfShape") and node.inputs:
            return self.entries(node.inputs[-1], depth)
        raise NotFollowedError("cut or shaped in the graph by the shape of a value that is computed there")
