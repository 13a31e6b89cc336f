"""Weights behind the operators of an ONNX graph: which block of which tensor of the file a block of a value is.

Exporters cut, reorder and stack a framework's weights inside the graph, with Slice, Concat, Unsqueeze and the like.
These only move numbers, so a block of what they give is a block of one tensor, and nothing has to be read to find it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

from gradcli.frozen import frozen
from gradcli.weights.checkpoint import FLOATS, Tensor
from gradcli.weights.layers import Slice, Value
from gradcli.weights.layouts.onnx_numbers import MAX_CHAIN, MAX_ENTRIES, NotFollowedError, Sizes, number, numbers
from gradcli.weights.readers.onnx_file import OnnxCheckpoint, OnnxNode

#: What ONNX calls float32 and float64 (TensorProto.DataType).
FLOAT_CODES = (1, 11)
#: The most steps behind operators that are gone in one graph: a second's work, and more than any exported model needs.
MAX_MOVES = 1_000_000


@frozen
class Along:
    """The entries start .. stop-1 along one axis, which are axis `axis` of the block that was asked for."""

    axis: int
    start: int
    stop: int

    def moved(self, by: int) -> Along:
        return Along(self.axis, self.start + by, self.stop + by)


#: Where a block lies in a value: an entry for each of the value's axes.
Place = tuple[int | Along, ...]


class WeightGraph:
    """The constant side of an ONNX graph."""

    def __init__(self, checkpoint: OnnxCheckpoint) -> None:
        self._checkpoint = checkpoint
        self.makers: Mapping[str, OnnxNode] = {output: node for node in checkpoint.nodes for output in node.outputs}
        self.sizes = Sizes(checkpoint, self.makers)
        self._moves = 0
        self._shapes: dict[str, tuple[int, ...]] = {}

    def is_tensor(self, name: str) -> bool:
        """Tell whether a value is a tensor of the file."""
        return name in self._checkpoint.tensors

    def shape(self, name: str, depth: int = 0) -> tuple[int, ...]:
        """Return the shape of a value that is made of tensors of the file alone.

        Raises:
            NotFollowedError: it is not.
        """
        if self.is_tensor(name):
            return self._checkpoint.tensors[name].shape
        if name not in self._shapes:
            node = self._maker(name, depth)
            self._shapes[name] = _shape_of(node, name, self, depth + 1)
        return self._shapes[name]

    def block(self, name: str, *index: int | tuple[int, int] | None) -> Value:
        """Return a block of a value as a block of the tensor it comes from.

        Args:
            index: for each axis of the value an entry, (start, stop), or None for all.

        Raises:
            NotFollowedError: the value is not made of tensors of the file by operators that only move numbers.
        """
        place: list[int | Along] = []
        kept = 0
        for entry, size in zip(index, self.shape(name), strict=True):
            if isinstance(entry, int):
                place.append(entry)
                continue
            start, stop = (0, size) if entry is None else entry
            if not 0 <= start <= stop <= size:
                raise NotFollowedError(f"of shape {self.shape(name)}, which has no entries {start} to {stop}")
            place.append(Along(kept, start, stop))
            kept += 1
        spans = [entry for entry in place if isinstance(entry, Along)]
        source, found = name, tuple(place)
        for depth in range(MAX_CHAIN):
            if self.is_tensor(source):
                return Value((self._slice(source, found),), tuple(along.stop - along.start for along in spans))
            node = self._maker(source, depth)
            self.count(1)
            source, found = _FOLLOWED[node.op_type].place(node, source, found, self)
        raise NotFollowedError("made in the graph by more operators than are followed")

    def count(self, moves: int) -> None:
        """Count operators, or parts of what is stacked, that were looked at.

        Raises:
            NotFollowedError: there were more than in any graph of weights.
        """
        self._moves += moves
        if self._moves > MAX_MOVES:
            raise NotFollowedError("made in the graph by more operators than are followed")

    def _slice(self, tensor: str, place: Place) -> Slice:
        axes = [entry.axis for entry in place if isinstance(entry, Along)]
        index = tuple(slice(entry.start, entry.stop) if isinstance(entry, Along) else entry for entry in place)
        if self._checkpoint.tensors[tensor].dtype not in FLOATS:
            raise NotFollowedError(f"of dtype {self._checkpoint.tensors[tensor].dtype}")
        return Slice(tensor, index, transposed=axes != sorted(axes))

    def is_zero(self, name: str) -> bool:
        """Tell whether a value consists of zeros, whatever its shape, as far as its operators show."""
        for _ in range(MAX_CHAIN):
            self.count(1)
            if self.is_tensor(name):
                tensor = self._checkpoint.tensors[name]
                return self._holds_zeros(tensor)
            node = self.makers.get(name)
            if node is None or not node.inputs:
                return False
            if node.op_type == "ConstantOfShape":
                # The attribute is a tensor of one entry; without it that is zero (ONNX, ConstantOfShape-9).
                value = node.attributes.get("value")
                return value is None or (isinstance(value, Tensor) and self._holds_zeros(value))
            if node.op_type not in ("Expand", "Slice", "Identity", "Unsqueeze", "Squeeze", "Reshape", "Transpose"):
                return False
            name = node.inputs[0]
        return False

    def _holds_zeros(self, tensor: Tensor) -> bool:
        return tensor.size <= MAX_ENTRIES and not self._checkpoint.read(tensor.name).any()

    def _maker(self, name: str, depth: int) -> OnnxNode:
        node = self.makers.get(name)
        if node is None:
            raise NotFollowedError("an input of the graph, not a weight of the file")
        if depth >= MAX_CHAIN:
            raise NotFollowedError("made in the graph by more operators than are followed")
        if node.op_type not in _FOLLOWED or not node.inputs:
            raise NotFollowedError(f"computed in the graph, by {node.op_type}")
        return node


@frozen
class _Operator:
    """An operator that only moves numbers.

    shape: the shape of its output. place: the input that holds a block of its output, and where.
    """

    shape: Callable[[OnnxNode, str, WeightGraph, int], tuple[int, ...]]
    place: Callable[[OnnxNode, str, Place, WeightGraph], tuple[str, Place]]


def _shape_of(node: OnnxNode, output: str, graph: WeightGraph, depth: int) -> tuple[int, ...]:
    return _FOLLOWED[node.op_type].shape(node, output, graph, depth)


def _setting(node: OnnxNode, name: str, position: int, graph: WeightGraph) -> list[int] | None:
    """Return a setting that is an attribute in older operator sets and an input in newer ones."""
    given = numbers(node, name)
    if given is not None:
        return list(given)
    if len(node.inputs) > position and node.inputs[position]:
        return graph.sizes.known(node.inputs[position])
    return None


def _axis(axis: int, dimensions: int) -> int:
    if not -dimensions <= axis < dimensions:
        raise NotFollowedError(f"cut along axis {axis} of {dimensions}")
    return axis % dimensions


def _same_shape(node: OnnxNode, output: str, graph: WeightGraph, depth: int) -> tuple[int, ...]:
    return graph.shape(node.inputs[0], depth)


def _same_place(node: OnnxNode, output: str, place: Place, graph: WeightGraph) -> tuple[str, Place]:
    return node.inputs[0], place


def _cast_place(node: OnnxNode, output: str, place: Place, graph: WeightGraph) -> tuple[str, Place]:
    if node.attributes.get("to") not in FLOAT_CODES:
        raise NotFollowedError("rounded in the graph, by Cast to another type than float or double")
    return node.inputs[0], place


def _order(node: OnnxNode, dimensions: int) -> list[int]:
    order = list(numbers(node, "perm") or range(dimensions)[::-1])
    if sorted(order) != list(range(dimensions)):
        raise NotFollowedError(f"transposed by {order}, which is no order of {dimensions} axes")
    return order


def _transposed_shape(node: OnnxNode, output: str, graph: WeightGraph, depth: int) -> tuple[int, ...]:
    shape = graph.shape(node.inputs[0], depth)
    return tuple(shape[axis] for axis in _order(node, len(shape)))


def _transposed_place(node: OnnxNode, output: str, place: Place, graph: WeightGraph) -> tuple[str, Place]:
    order = _order(node, len(place))
    return node.inputs[0], tuple(place[order.index(axis)] for axis in range(len(place)))


def _unsqueezed_shape(node: OnnxNode, output: str, graph: WeightGraph, depth: int) -> tuple[int, ...]:
    shape = list(graph.shape(node.inputs[0], depth))
    axes = _setting(node, "axes", 1, graph) or []
    for axis in sorted(_axis(axis, len(shape) + len(axes)) for axis in axes):
        shape.insert(axis, 1)
    return tuple(shape)


def _squeezed_shape(node: OnnxNode, output: str, graph: WeightGraph, depth: int) -> tuple[int, ...]:
    shape = graph.shape(node.inputs[0], depth)
    axes = _setting(node, "axes", 1, graph)
    dropped = {i for i, n in enumerate(shape) if n == 1} if axes is None else {_axis(a, len(shape)) for a in axes}
    return tuple(size for axis, size in enumerate(shape) if axis not in dropped)


def _reshaped_shape(node: OnnxNode, output: str, graph: WeightGraph, depth: int) -> tuple[int, ...]:
    shape = graph.shape(node.inputs[0], depth)
    wanted = [
        shape[i] if n == 0 and i < len(shape) else n for i, n in enumerate(_setting(node, "shape", 1, graph) or [])
    ]
    known = math.prod(n for n in wanted if n >= 0)
    return tuple(math.prod(shape) // max(known, 1) if n < 0 else n for n in wanted)


def _same_but_for_ones(node: OnnxNode, output: str, place: Place, graph: WeightGraph) -> tuple[str, Place]:
    """Return the place in a value that has the same axes, but for those of size 1, which may stand anywhere."""
    before, after = graph.shape(node.inputs[0]), graph.shape(output)
    if [n for n in before if n != 1] != [n for n in after if n != 1]:
        raise NotFollowedError(f"reshaped in the graph from {before} to {after}")
    others = [entry for entry, n in zip(place, after, strict=True) if n != 1]
    # Of the axes of size 1 between two others only those matter that are an axis of the block; any of them will do.
    ones: list[list[int | Along]] = [[]]
    for entry, n in zip(place, after, strict=True):
        if n != 1:
            ones.append([])
        elif isinstance(entry, Along):
            ones[-1].append(entry)
    found: list[int | Along] = []
    passed = 0
    for n in before:
        if n != 1:
            found.append(others[passed])
            passed += 1
        else:
            found.append(ones[passed].pop(0) if ones[passed] else 0)
    if any(ones):
        raise NotFollowedError(f"reshaped in the graph from {before} to {after}")
    return node.inputs[0], tuple(found)


def _cuts(node: OnnxNode, graph: WeightGraph, dimensions: int) -> dict[int, tuple[int, int]]:
    """Return where a Slice starts and stops along the axes that it cuts."""
    starts, ends = _setting(node, "starts", 1, graph), _setting(node, "ends", 2, graph)
    axes, steps = _setting(node, "axes", 3, graph), _setting(node, "steps", 4, graph)
    if starts is None or ends is None or any(step != 1 for step in steps or ()):
        raise NotFollowedError("cut in the graph by a Slice with steps")
    axes = list(range(len(starts))) if axes is None else [_axis(axis, dimensions) for axis in axes]
    return {axis: (start, end) for axis, start, end in zip(axes, starts, ends, strict=False)}


def _cut_shape(node: OnnxNode, output: str, graph: WeightGraph, depth: int) -> tuple[int, ...]:
    shape = graph.shape(node.inputs[0], depth)
    cuts = _cuts(node, graph, len(shape))
    return tuple(len(range(n)[slice(*cuts[axis])]) if axis in cuts else n for axis, n in enumerate(shape))


def _cut_place(node: OnnxNode, output: str, place: Place, graph: WeightGraph) -> tuple[str, Place]:
    shape = graph.shape(node.inputs[0])
    cuts = _cuts(node, graph, len(shape))
    starts = {axis: slice(*cut).indices(shape[axis])[0] for axis, cut in cuts.items()}
    return node.inputs[0], tuple(_moved(entry, starts.get(axis, 0)) for axis, entry in enumerate(place))


def _moved(entry: int | Along, by: int) -> int | Along:
    return entry + by if isinstance(entry, int) else entry.moved(by)


def _stacked_shape(node: OnnxNode, output: str, graph: WeightGraph, depth: int) -> tuple[int, ...]:
    shapes = [graph.shape(name, depth) for name in node.inputs]
    axis = _axis(number(node, "axis", 0), len(shapes[0]))
    if any(len(shape) != len(shapes[0]) for shape in shapes):
        raise NotFollowedError("stacked in the graph from values of different dimensions")
    return (*shapes[0][:axis], sum(shape[axis] for shape in shapes), *shapes[0][axis + 1 :])


def _stacked_place(node: OnnxNode, output: str, place: Place, graph: WeightGraph) -> tuple[str, Place]:
    axis = _axis(number(node, "axis", 0), len(place))
    entry = place[axis]
    first, last = (entry, entry) if isinstance(entry, int) else (entry.start, entry.stop - 1)
    offset = 0
    for name in node.inputs:
        graph.count(1)
        size = graph.shape(name)[axis]
        if offset <= first and last < offset + size:
            return name, (*place[:axis], _moved(entry, -offset), *place[axis + 1 :])
        offset += size
    raise NotFollowedError("stacked in the graph from parts that do not fall on its gates")


_FOLLOWED: Mapping[str, _Operator] = {
    "Identity": _Operator(_same_shape, _same_place),
    "Cast": _Operator(_same_shape, _cast_place),
    "Transpose": _Operator(_transposed_shape, _transposed_place),
    "Unsqueeze": _Operator(_unsqueezed_shape, _same_but_for_ones),
    "Squeeze": _Operator(_squeezed_shape, _same_but_for_ones),
    "Reshape": _Operator(_reshaped_shape, _same_but_for_ones),
    "Slice": _Operator(_cut_shape, _cut_place),
    "Concat": _Operator(_stacked_shape, _stacked_place),
}
