"""Keras: SimpleRNN, GRU and LSTM, with Bidirectional and RNN around them or their cells, Dense and Embedding.

kernel (I, gates * H) and recurrent_kernel (H, gates * H) hold the gates side by side: i f c o of the LSTM, z r h of the
GRU, whose bias is (2, 3 H), the input's and the recurrent one, where the reset comes after the product.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import Any

from gradcli.frozen import frozen
from gradcli.weights.checkpoint import FLOATS, Checkpoint
from gradcli.weights.layers import Contents, Embedding, LinearHead, RecurrentLayer, Slice, Unsupported, Value
from gradcli.weights.layouts import equations, keras_config
from gradcli.weights.layouts.equations import Cell
from gradcli.weights.layouts.gates import KERAS_GATES as GATES
from gradcli.weights.layouts.keras_activations import UnknownActivationError, template
from gradcli.weights.layouts.keras_config import Entry
from gradcli.weights.readers.keras_h5 import KerasCheckpoint

#: The activations of a Dense layer that leave it a linear head: its loss takes them with it.
HEAD_ACTIVATIONS = (None, "linear", "softmax", "log_softmax", "sigmoid")
#: The merge mode in which a Bidirectional layer puts both directions' outputs side by side.
CONCATENATED = "concat"
#: More layers than any model has, and more of them of one name, in models inside it.
MAX_ENTRIES, MAX_NAMESAKES = 10_000, 100
FORWARD, BACKWARD = "forward", "backward"

NOT_SAID = (
    "the file does not say its activations and direction: assumed are Keras's tanh, with sigmoid for gates, and reading"
    " from start to end"
)
MERGE_NOT_SAID = "the file does not say how its directions are merged: assumed is side by side, Keras's concat"


class _RefusedError(Exception):
    """A recurrent layer that gradcli cannot run; the message is a clause that says why."""


@frozen
class _Unit:
    """The weights of a cell, or of a layer without one: path of their group, and their names, kernel first."""

    path: str
    kernel: str
    recurrent: str | None = None
    bias: str | None = None

    @property
    def tensors(self) -> tuple[str, ...]:
        return tuple(name for name in (self.kernel, self.recurrent, self.bias) if name is not None)


@dataclass
class _Layer:
    """A layer of the file: what it is called, alone and in full; its entry in the config, if any; its weights."""

    name: str
    full_name: str
    entry: Entry | None
    units: list[_Unit] = field(default_factory=list)


@frozen
class _Direction:
    """One direction of a recurrent layer, or one cell of a stack."""

    unit: _Unit
    kind: str
    cell: Cell
    sizes: tuple[int, int]
    parameters: Mapping[str, Value]
    backwards: bool


def find(checkpoint: Checkpoint, taken: set[str]) -> Contents:
    """Return the recurrent layers, linear heads and embeddings of a file of Keras.

    The weights of layers that cannot be run are added to `taken`, so that no other layout takes them for its own.
    """
    if not isinstance(checkpoint, KerasCheckpoint):
        return Contents()
    reader = _Reader(checkpoint)
    contents = Contents()
    for layer in _uniquely_named(reader.layers(taken)):
        try:
            contents += reader.contents_of(layer)
        except (_RefusedError, UnknownActivationError) as error:
            kind = layer.entry.class_name if layer.entry else "layer"
            reason = f"this {kind} cannot be run here: {error}"
            contents += Contents(unsupported=(Unsupported(layer.name, reason),))
            taken.update(*(unit.tensors for unit in layer.units))
    return contents


def _uniquely_named(layers: Iterable[_Layer]) -> list[_Layer]:
    listed = list(layers)
    count = Counter(layer.name for layer in listed)
    return [layer if count[layer.name] == 1 else replace(layer, name=layer.full_name) for layer in listed]


class _Reader:
    """What is needed of a checkpoint to tell its layers."""

    def __init__(self, checkpoint: KerasCheckpoint) -> None:
        self._tensors = checkpoint.tensors
        self._attributes = checkpoint.attributes
        self._entries = list(islice(keras_config.entries(checkpoint.config), MAX_ENTRIES))
        self._by_path = {entry.path: entry for entry in self._entries}
        self._by_name: dict[str, list[Entry]] = {}
        for entry in self._entries:
            self._by_name.setdefault(entry.names[-1], []).append(entry)
        versions = (self._attributes.get(group, {}).get("keras_version") for group in ("", "model_weights"))
        self._keras_version = next((version for version in versions if isinstance(version, str)), None)

    def layers(self, taken: set[str]) -> list[_Layer]:
        """Return the layers that have weights which may be read, in the order of the config, else of the file."""
        units: dict[str, dict[str, str]] = {}
        for name, tensor in self._tensors.items():
            group, _, leaf = name.rpartition("/")
            if name not in taken and tensor.dtype in FLOATS:
                # TensorFlow puts an output's number behind a variable's name.
                units.setdefault(group, {})[leaf.partition(":")[0]] = name
        found: dict[str, _Layer] = {}
        for group, variables in units.items():
            unit = self._unit(group, variables)
            if unit is None:
                continue
            layer = self._layer_of(unit)
            found.setdefault(layer.full_name, layer).units.append(unit)
        order = {entry.path: number for number, entry in enumerate(self._entries)}
        return sorted(found.values(), key=lambda layer: order[layer.entry.path] if layer.entry else len(order))

    def _unit(self, group: str, variables: Mapping[str, str]) -> _Unit | None:
        """Return the weights of a group; None where they are neither of a cell nor of Dense or Embedding."""
        path = group.removesuffix("/vars")
        if path != group and "0" in variables:
            numbered = [variables[str(number)] for number in range(len(variables)) if str(number) in variables]
            if len(numbered) > 1 and len(self._tensors[numbered[1]].shape) == 2:
                return _Unit(path, *numbered) if len(numbered) <= 3 else None
            return _Unit(path, numbered[0], None, numbered[1] if len(numbered) == 2 else None)
        if "kernel" in variables:
            return _Unit(group, variables["kernel"], variables.get("recurrent_kernel"), variables.get("bias"))
        return _Unit(group, variables["embeddings"]) if "embeddings" in variables else None

    def _layer_of(self, unit: _Unit) -> _Layer:
        """Return the layer of a unit, without any unit as yet."""
        entry = self._entry_of(unit)
        if entry is not None:
            return _Layer(entry.names[-1], ".".join(entry.names), entry)
        parts = unit.path.split("/")
        if unit.recurrent is not None and "/vars/" not in unit.kernel:
            # Before Keras 3 a cell's group has a name of its own below that of its layer.
            parts = parts[:-1] or parts
            if len(parts) > 1 and parts[-1].startswith((FORWARD, BACKWARD)):
                parts = parts[:-1]
        for last in ("cell", f"{FORWARD}_layer", f"{BACKWARD}_layer", "layer"):
            if last == "cell" and len(parts) > 3 and parts[-3:-1] == ["cell", "cells"]:
                parts = parts[:-3]
            elif len(parts) > 1 and parts[-1] == last:
                parts = parts[:-1]
        path = "/".join(parts)
        name = self._attributes.get(f"{path}/vars", {}).get("name")
        return _Layer(name if isinstance(name, str) else parts[-1], path, None)

    def _entry_of(self, unit: _Unit) -> Entry | None:
        """Return the entry of the config that a unit belongs to; None where none fits, or there is no config."""
        if "/vars/" in unit.kernel:
            parts = unit.path.split("/")
            paths = ("/".join(parts[:length]) for length in range(len(parts), 0, -1))
            return next((self._by_path[path] for path in paths if path in self._by_path), None)
        parts = unit.path.removeprefix("model_weights/").split("/")
        named = [entry for part in set(parts) for entry in self._by_name.get(part, [])[:MAX_NAMESAKES]]
        fitting = [each for each in named if _in_order(each.names, parts)]
        return max(fitting, key=lambda each: (len(each.names), parts[::-1].index(each.names[-1]) * -1), default=None)

    def contents_of(self, layer: _Layer) -> Contents:
        """Return what a layer is; nothing where it is neither recurrent nor Dense nor Embedding.

        Raises:
            _RefusedError, UnknownActivationError: it is recurrent and cannot be run.
        """
        entry = layer.entry
        if any(self._is_cell(unit) for unit in layer.units):
            return self._recurrent(layer)
        if entry is not None and any(kind in entry.class_name for kind in ("LSTM", "GRU", "RNN")):
            raise _RefusedError("its weights are not those of a cell that is known here")
        unit = layer.units[0]
        shape = self._tensors[unit.kernel].shape
        kind = entry.class_name if entry else self._kind_by_name(unit)
        if unit.recurrent is not None:
            return Contents()
        if kind == "Embedding" and len(shape) == 2:
            table = Value((Slice(unit.kernel),), shape)
            return Contents(embeddings=(Embedding(layer.name, table, unit.tensors),))
        bias = unit.bias
        fits = len(shape) == 2 and (bias is None or self._tensors[bias].shape == shape[1:])
        if kind == "Dense" and fits and (entry is None or entry.config.get("activation") in HEAD_ACTIVATIONS):
            weight = Value((Slice(unit.kernel, transposed=True),), shape[::-1])
            added = None if bias is None else Value((Slice(bias),), shape[1:])
            sigmoid = entry is not None and entry.config.get("activation") == "sigmoid"
            return Contents(heads=(LinearHead(layer.name, weight, added, unit.tensors, sigmoid),))
        return Contents()

    def _is_cell(self, unit: _Unit) -> bool:
        """Tell whether weights are of a recurrent cell, known or not: kernels as wide as some gates."""
        if unit.recurrent is None:
            return False
        kernel, recurrent = self._tensors[unit.kernel].shape, self._tensors[unit.recurrent].shape
        alike = len(kernel) == len(recurrent) == 2 and kernel[1] == recurrent[1]
        return alike and 0 not in recurrent and recurrent[1] % recurrent[0] == 0

    def _kind_by_name(self, unit: _Unit) -> str:
        """Return what a layer that no config tells of may be: Keras calls it after its class by default."""
        named = self._attributes.get(f"{unit.path}/vars", {}).get("name")
        for name in (unit.path.rpartition("/")[2], str(named)):
            if re.fullmatch(r"embedding(_\d+)?", name) or unit.kernel.rpartition("/")[2].startswith("embeddings"):
                return "Embedding"
        # Two variables of fitting shapes are Dense's, whatever it is called.
        return "Dense" if unit.bias is not None or "dense" in unit.path.rpartition("/")[2] else ""

    def _recurrent(self, layer: _Layer) -> Contents:
        entry = layer.entry
        if entry is None:
            return Contents(layers=self._told_by_shapes(layer))
        if entry.class_name != "Bidirectional":
            stack = [self._direction(*each) for each in self._cells(entry.class_name, entry.config, layer.units)]
            if len(stack) == 1:
                return Contents(layers=(self._layer(layer.name, stack),))
            note = f"one of the {len(stack)} cells that are stacked in {layer.name}"
            layers = [self._layer(f"{layer.name}.{n}", [cell], (note,)) for n, cell in enumerate(stack)]
            return Contents(layers=tuple(layers))
        wrapped, backward = (
            keras_config.child(entry.config, "layer"),
            keras_config.child(entry.config, "backward_layer"),
        )
        if wrapped is None:
            raise _RefusedError("the config does not say what it wraps")
        if backward is None:
            backward = (wrapped[0], {**wrapped[1], "go_backwards": not wrapped[1].get("go_backwards")})
        directions = []
        for side, (class_name, config) in ((FORWARD, wrapped), (BACKWARD, backward)):
            units = [unit for unit in layer.units if _is_of_side(unit, side, config)]
            cells = self._cells(class_name, config, units)
            if len(cells) != 1:
                raise _RefusedError("it has stacked cells in each direction")
            directions.append(self._direction(*cells[0]))
        return Contents(layers=self._two_directions(layer, directions, entry.config.get("merge_mode", CONCATENATED)))

    def _two_directions(
        self, layer: _Layer, directions: list[_Direction], merge_mode: object, notes: tuple[str, ...] = ()
    ) -> tuple[RecurrentLayer, ...]:
        """Return one layer where gradcli's has both directions as they are, else two."""
        ahead, back = directions
        alike = (ahead.cell, ahead.sizes, ahead.backwards, back.backwards) == (back.cell, back.sizes, False, True)
        if alike and merge_mode == CONCATENATED:
            return (self._layer(layer.name, directions, notes),)
        if alike:
            why = f"Keras merges its two directions by {merge_mode!r}"
        else:
            why = "its two directions are not the same forward and backward"
        notes = (*notes, f"{why}; here each is a layer of its own")
        return (
            self._layer(f"{layer.name}.forward", [ahead], notes),
            self._layer(f"{layer.name}.reverse", [back], notes),
        )

    def _told_by_shapes(self, layer: _Layer) -> tuple[RecurrentLayer, ...]:
        """Return the layers of weights of which the file has no config."""
        sides = {side: [unit for unit in layer.units if _is_of_side(unit, side, {})] for side in (FORWARD, BACKWARD)}
        if [len(units) for units in sides.values()] == [1, 1] and len(layer.units) == 2:
            ahead, back = (self._direction(self._kind(units[0]), {}, units[0]) for units in sides.values())
            notes = (NOT_SAID, MERGE_NOT_SAID)
            return self._two_directions(layer, [ahead, replace(back, backwards=True)], CONCATENATED, notes)
        stack = [self._direction(self._kind(unit), {}, unit) for unit in layer.units]
        names = [layer.name] if len(stack) == 1 else [f"{layer.name}.{number}" for number in range(len(stack))]
        return tuple(self._layer(name, [cell], (NOT_SAID,)) for name, cell in zip(names, stack, strict=True))

    def _kind(self, unit: _Unit) -> str:
        """Return what a cell is by the blocks in its kernels."""
        recurrent = self._tensors[unit.recurrent].shape if unit.recurrent else ()
        for kind, gates in GATES.items():
            if len(recurrent) == 2 and recurrent[1] == len(gates) * recurrent[0]:
                return kind
        raise _RefusedError(f"its recurrent weights have the shape {recurrent}; expected (H, H), (H, 3 H) or (H, 4 H)")

    def _cells(
        self, class_name: str, config: Mapping[str, Any], units: list[_Unit]
    ) -> list[tuple[str, Mapping[str, Any], _Unit]]:
        """Return kind, config and weights of each cell of a layer that reads in one direction."""
        listed: list[tuple[str, str, Mapping[str, Any]]] | None = [("", class_name, config)]
        if class_name == "RNN":
            cell = keras_config.child(config, "cell")
            if cell is None:
                raise _RefusedError("the config does not say what its cell is")
            listed = [("", *cell)] if cell[0] != "StackedRNNCells" else keras_config.cells(cell[1])
        if listed is None or len(listed) != len(units):
            raise _RefusedError(f"its config does not fit its weights, which are those of {len(units)} cell(s)")
        found: list[tuple[str, Mapping[str, Any], _Unit]] = []
        for number, (group, name, own) in enumerate(listed):
            kind = name.removesuffix("Cell")
            if kind not in GATES:
                raise _RefusedError(f"its class {name} is not known here")
            named = [unit for unit in units if unit.path.rpartition("/")[2] in (group, own.get("name"))]
            unit = named[0] if len(listed) > 1 and len(named) == 1 else units[number]
            found.append((kind, {**own, "go_backwards": config.get("go_backwards", False)}, unit))
        return found

    def _direction(self, kind: str, config: Mapping[str, Any], unit: _Unit) -> _Direction:
        kernel, recurrent = (self._tensors[name].shape for name in (unit.kernel, unit.recurrent or unit.kernel))
        gates = GATES[kind]
        size = recurrent[0] if recurrent else 0
        width = len(gates) * size
        bias = None if unit.bias is None else self._tensors[unit.bias].shape
        if kernel[1:] != (width,) or recurrent != (size, width) or 0 in kernel + recurrent:
            raise _RefusedError(
                f"its kernels have the shapes {kernel} and {recurrent}; expected (I, {width}), (H, {width})"
            )
        reset_after = bias == (2, width) or (bias is None and bool(config.get("reset_after", True)))
        if bias not in (None, (width,), (2, width) if kind == "GRU" else None):
            raise _RefusedError(f"its bias has the shape {bias}; expected ({width},)")
        activation = template(config.get("activation", "tanh"), self._keras_version)
        has_bias = unit.bias is not None
        if kind == "SimpleRNN":
            cell = equations.rnn(activation, bias=has_bias)
        else:
            gate = template(config.get("recurrent_activation", "sigmoid"), self._keras_version)
            if kind == "LSTM":
                cell = equations.lstm(gate, activation, activation, bias=has_bias)
            else:
                cell = equations.gru(gate, activation, bias=has_bias, recurrent_bias=has_bias, reset_after=reset_after)
        parameters: dict[str, Value] = {}
        for number, letter in enumerate(gates):
            block = slice(number * size, (number + 1) * size)
            for name, tensor, inputs in (("x", unit.kernel, kernel[0]), ("h", unit.recurrent, size)):
                assert tensor is not None
                part = Slice(tensor, (slice(None), block), transposed=True)
                parameters[f"W_{name}{letter}"] = Value((part,), (size, inputs))
            if unit.bias is None or bias is None:
                continue
            rows = (
                [Slice(unit.bias, (row, block)) for row in (0, 1)] if len(bias) == 2 else [Slice(unit.bias, (block,))]
            )
            if letter == "n" and len(rows) == 2:
                parameters |= {"b_n": Value((rows[0],), (size,)), "b_hn": Value((rows[1],), (size,))}
            else:
                parameters[f"b_{letter}"] = Value(tuple(rows), (size,))
        return _Direction(unit, kind, cell, (kernel[0], size), parameters, bool(config.get("go_backwards", False)))

    def _layer(self, name: str, directions: list[_Direction], notes: tuple[str, ...] = ()) -> RecurrentLayer:
        first = directions[0]
        return RecurrentLayer(
            name=name,
            framework="Keras",
            kind=first.kind,
            cell=first.cell,
            input_size=first.sizes[0],
            hidden_size=first.sizes[1],
            output_size=first.sizes[1] * len(directions),
            parameters={
                f"layer0{suffix}.{key}": value
                for suffix, direction in zip(("", ".reverse"), directions, strict=False)
                for key, value in direction.parameters.items()
            },
            tensors=tuple(tensor for direction in directions for tensor in direction.unit.tensors),
            dtype=self._tensors[first.unit.kernel].dtype,
            gate_order=GATES[first.kind] if len(GATES[first.kind]) > 1 else (),
            bidirectional=len(directions) == 2,
            reversed=len(directions) == 1 and first.backwards,
            notes=notes,
        )


def _in_order(names: Iterable[str], parts: Iterable[str]) -> bool:
    """Tell whether the names stand among the parts, in their order."""
    left = iter(parts)
    return all(name in left for name in names)


def _is_of_side(unit: _Unit, side: str, config: Mapping[str, Any]) -> bool:
    """Tell whether weights are of the forward, or backward, direction of a Bidirectional layer."""
    parts = unit.path.split("/")
    return any(part.startswith(f"{side}_") or part == config.get("name") for part in parts[1:])
