"""Trained weights for a spec: which layer of a checkpoint, what it settles, and the values of the parameters."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from functools import cached_property
from pathlib import Path as FilePath
from typing import TYPE_CHECKING, Any
from weakref import finalize

import numpy as np

from gradcli import cells
from gradcli.engine.problem import READOUT
from gradcli.errors import UsageError, did_you_mean
from gradcli.language.cell import CellError, ParsedCell, parse_cell
from gradcli.prepare.limits import require_memory_for
from gradcli.prepare.names import matches
from gradcli.spec.constants import constants_of
from gradcli.spec.explain import check
from gradcli.spec.losses import DRAWN_READOUT, ReadoutLoss, TargetLoss
from gradcli.spec.models import CellBlock, Spec
from gradcli.spec.shown import printable
from gradcli.spec.trained import Checkpoints, Trained, Weights, WeightsError
from gradcli.weights.choice import choose_layer, listed
from gradcli.weights.formats import format_of, open_checkpoint
from gradcli.weights.layers import Contents, Embedding, LinearHead, RecurrentLayer, Value
from gradcli.weights.name_map import parse_entry

if TYPE_CHECKING:
    from gradcli.weights.checkpoint import Checkpoint

Array = np.ndarray[Any, Any]

#: Sizes that no cell has twice by chance, to tell which dimension of a parameter is which.
_PROBES = {"hidden_size": 10_007, "input_size": 20_011}


class CheckpointFiles(Checkpoints):
    """Opens the checkpoints that specs name."""

    def is_file_name(self, target: str) -> bool:
        return format_of(target) is not None

    def open(self, weights: Weights, data: Mapping[str, Any], folder: FilePath) -> TrainedNetwork:
        return TrainedNetwork(open_checkpoint(folder / weights.file, weights.file), weights, data)


class TrainedNetwork(Trained):
    """What a checkpoint gives to a spec. Its file stays open as long as this is in use.

    layer: the recurrent layer that was chosen; None where a map alone gives the parameters.
    mapped: pattern of parameter names -> value, from the map of the spec.
    """

    def __init__(self, checkpoint: Checkpoint, weights: Weights, data: Mapping[str, Any]) -> None:
        self.checkpoint = checkpoint
        # A spec may be built several times, or not at all.
        finalize(self, checkpoint.close)
        self.mapped = {pattern: _mapped(pattern, text, checkpoint) for pattern, text in weights.map.items()}
        self.layer: RecurrentLayer | None = None
        if weights.layer is not None or not self.mapped:
            self.layer = self._chosen(weights.layer)
        self._own_cell = data.get("cell")
        if self.layer is None and self._own_cell is None:
            raise WeightsError(("weights", "map"), "a map needs a `cell:` whose parameters it gives")
        self._sizes = self._layer_sizes() if self.layer is not None else self._mapped_sizes(data)
        self._output_size = self._find_output_size(data)

    @cached_property
    def contents(self) -> Contents:
        """What was recognised in the file."""
        from gradcli.weights.layouts import find_layers

        return find_layers(self.checkpoint)

    def _chosen(self, name: str | None) -> RecurrentLayer:
        try:
            return choose_layer(self.checkpoint, self.contents, name)
        except UsageError as error:
            raise WeightsError(("weights", "layer"), str(error)) from None

    @property
    def fields(self) -> Mapping[str, Any]:
        fields: dict[str, Any] = {"trials": 1, **self._sizes}
        if self.layer is not None and self._own_cell is None:
            cell = self.layer.cell
            fields["cell"] = cell if isinstance(cell, str) else dict(cell)
            if self.layer.activation is not None:
                fields["activation"] = self.layer.activation
        if len(self._fitting_heads) == 1:
            (head,) = self._fitting_heads
            fields["loss"] = {"kind": head.loss, "readout": head.name}
        return fields

    @property
    def reversed(self) -> bool:
        """Whether the layer reads its input from the end to the start."""
        return self.layer is not None and self.layer.reversed

    @property
    def layer_name(self) -> str | None:
        return None if self.layer is None else self.layer.name

    @property
    def files(self) -> tuple[FilePath, ...]:
        return self.checkpoint.beside

    @property
    def description(self) -> str:
        if self.layer is None:
            return self.checkpoint.name
        return f"the {self.layer.framework} {self.layer.kind} {printable(self.layer.name)} of {self.checkpoint.name}"

    @property
    def notes(self) -> tuple[str, ...]:
        if self.layer is None:
            return ()
        notes = list(self.layer.notes)
        if self.layer.reversed:
            notes.append("it reads its input from the end to the start")
        if self.layer.initial_states:
            notes.append("its initial states are the file's; for a batch of another size, those of its first sequence")
        return tuple(notes)

    def _layer_sizes(self) -> dict[str, Any]:
        assert self.layer is not None
        return {
            "hidden_size": self.layer.hidden_size,
            "input_size": self.layer.input_size,
            "num_layers": self.layer.num_layers,
            "bidirectional": self.layer.bidirectional,
        }

    def _mapped_sizes(self, data: Mapping[str, Any]) -> dict[str, Any]:
        """Return the sizes that the shapes of mapped tensors tell of the first layer of the spec's own cell."""
        cell = _parsed(data)
        if cell is None:
            return {}
        sizes: dict[str, Any] = {}
        try:
            probed = cell.at_sizes(_PROBES["hidden_size"], _PROBES["input_size"]).shapes.parameters
        except CellError:
            return {}  # a cell whose sizes depend on each other: the spec has to say them
        for name, shape in probed.items():
            value = _last_match(self.mapped, f"layer0.{name}")
            if value is None or len(value.shape) != len(shape):
                continue
            for probe, found in zip(shape, value.shape, strict=True):
                for field, size in _PROBES.items():
                    if probe == size:
                        sizes.setdefault(field, found)
        return {field: size for field, size in sizes.items() if field not in data}

    def _find_output_size(self, data: Mapping[str, Any]) -> int | None:
        if self.layer is not None and self._own_cell is None:
            return self.layer.output_size
        size = data.get("hidden_size", self._sizes.get("hidden_size"))
        directions = 2 if data.get("bidirectional", self._sizes.get("bidirectional")) is True else 1
        return size * directions if isinstance(size, int) else None

    @cached_property
    def _fitting_heads(self) -> list[LinearHead]:
        return self.contents.heads_reading(self._output_size)

    def head(self, spec: Spec) -> LinearHead | None:
        """Return the linear head that the loss of a spec reads out through; None where it has none of the file.

        Raises:
            WeightsError: the loss names a head that there is not, or that does not fit the output.
        """
        loss = spec.loss
        if not isinstance(loss, TargetLoss) or loss.readout == DRAWN_READOUT:
            return None
        if loss.readout is None:
            only = isinstance(loss, ReadoutLoss) and len(self._fitting_heads) == 1
            return self._fitting_heads[0] if only else None
        heads = {head.name: head for head in self.contents.heads}
        path = ("loss", "readout")
        if loss.readout not in heads:
            known = f"; linear heads: {listed(list(heads))}" if heads else "; it has no linear heads"
            hint = did_you_mean(loss.readout, list(heads))
            raise WeightsError(path, f"{self.checkpoint.name} has no linear head {loss.readout!r}{known}{hint}")
        head = heads[loss.readout]
        if head.weight.shape[1] != self._output_size:
            raise WeightsError(
                path, f"{head.name!r} reads {head.weight.shape[1]} numbers, but the output has {self._output_size}"
            )
        return head

    def name_of(self, head: str) -> str:
        """Return what the file calls a head that is `head` in another one: the same, else the only one that fits."""
        if len(self._fitting_heads) == 1 and all(own.name != head for own in self.contents.heads):
            return self._fitting_heads[0].name
        return head

    def embedding(self, name: str | None, features: int, *, max_memory: int | None = None) -> Array:
        """Return the embedding table (tokens, features) that tokens are looked up in; the only one, unless named.

        Raises:
            UsageError: there is no such table, or none or several that fit.
            ResourceError: reading it would take more memory than it may; by default half of what is free.
        """
        tables: dict[str, Embedding] = {table.name: table for table in self.contents.embeddings}
        file = self.checkpoint.name
        if name is not None and name not in tables:
            known = f"; embeddings: {listed(list(tables))}" if tables else "; it has none"
            raise UsageError(f"{file} has no embedding {name!r}{known}{did_you_mean(name, list(tables))}")
        fitting = [table for table in tables.values() if table.table.shape[1] == features]
        if name is None and len(fitting) != 1:
            found = f"these fit: {listed([each.name for each in fitting])}" if fitting else "none of its tables fits"
            raise UsageError(f"the input needs one embedding of {features} features from {file}; {found}")
        chosen = tables[name] if name is not None else fitting[0]
        self._require_memory([chosen.table], f"reading the embedding {printable(chosen.name)} of {file}", max_memory)
        return chosen.table.read(self.checkpoint)

    def sources(self, shapes: Mapping[str, tuple[int, ...]], head: LinearHead | None) -> dict[str, Value]:
        """Return "layer0.W_hh" -> where its values stand in the file, for every parameter that the checkpoint gives.

        Args:
            shapes: of all parameters of the network, the readout's included.
            head: the linear head that gives the readout; None where it is drawn.
        """
        found = dict(self.layer.parameters) if self.layer is not None else {}
        if head is not None:
            bias = head.bias if head.bias is not None else Value((), head.weight.shape[:1])
            found |= {f"{READOUT}.W_hy": head.weight, f"{READOUT}.b_y": bias}
        return found | {name: value for name in shapes if (value := _last_match(self.mapped, name)) is not None}

    def read(
        self, sources: Mapping[str, Value], shapes: Mapping[str, tuple[int, ...]], *, max_memory: int | None = None
    ) -> dict[str, Array]:
        """Return the values of parameters, float64.

        Args:
            sources: where they stand in the file. shapes: those of the parameters.
            max_memory: bytes that reading them may take; by default half of what is free.

        Raises:
            WeightsError: values of another shape than the parameter's.
            InputFileError: numbers that cannot be read, or are not finite.
            ResourceError: more memory than they may take.
        """
        for name, value in sources.items():
            if value.shape != shapes[name]:
                raise WeightsError(
                    self._path_of(name),
                    f"{name} is {_shown(shapes[name])}, but {self.checkpoint.name} gives {_shown(value.shape)}",
                )
        self._require_memory(sources.values(), f"reading {self.description}", max_memory)
        kept: dict[str, Array] = {}
        return {name: value.read(self.checkpoint, kept) for name, value in sources.items()}

    def _require_memory(self, values: Iterable[Value], what: str, max_memory: int | None) -> None:
        """Check the memory for some values, float64, with the tensors of the file that they are made of."""
        values = list(values)
        tensors = {part.tensor for value in values for part in value.slices}
        needed = sum(self.checkpoint.tensors[name].nbytes for name in tensors)
        needed += sum(8 * math.prod(value.shape) for value in values)
        require_memory_for(needed, what, "what is read of it", max_memory=max_memory)

    def initial_states(self) -> dict[str, Array]:
        """Return "layer0.h" -> the initial state that the checkpoint gives, (size,) or (batch, size), float64."""
        if self.layer is None:
            return {}
        return {name: value.read(self.checkpoint) for name, value in self.layer.initial_states.items()}

    def _path_of(self, name: str) -> tuple[str, ...]:
        patterns = [pattern for pattern in self.mapped if matches(pattern, name)]
        return ("weights", "map", patterns[-1]) if patterns else ("weights",)


def _mapped(pattern: str, text: str, checkpoint: Checkpoint) -> Value:
    try:
        return parse_entry(text, checkpoint)
    except UsageError as error:
        raise WeightsError(("weights", "map", pattern), str(error)) from None


def _last_match(mapped: Mapping[str, Value], name: str) -> Value | None:
    found = [value for pattern, value in mapped.items() if matches(pattern, name)]
    return found[-1] if found else None


def _parsed(data: Mapping[str, Any]) -> ParsedCell | None:
    """Return the cell of a spec's plain data; None where it has mistakes, which are told elsewhere."""
    written = data.get("cell")
    if isinstance(written, str):
        known = cells.find(written)
        cell = cells.load(known).cell if known is not None else None
    else:
        cell, _ = check(CellBlock, written) if isinstance(written, Mapping) else (None, [])
    if cell is None:
        return None
    own = data.get("constants")
    constants = constants_of(cell, own if isinstance(own, dict) else {})
    try:
        return parse_cell(
            cell.equations,
            output=cell.output,
            constants=constants.numbers,
            shapes=cell.shapes,
            arrays=constants.sizes,
            fixed=constants.fixed,
            activation=data.get("activation") or cell.activation,
            replaces_usual=isinstance(written, str) and "activation" in data,
        )
    except (CellError, TypeError):
        return None


def _shown(shape: tuple[int, ...]) -> str:
    return " x ".join(map(str, shape)) or "a single number"
