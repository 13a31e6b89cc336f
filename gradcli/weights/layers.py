"""What layouts find in a checkpoint: recurrent layers, linear heads and embeddings, in the terms of gradcli's cells.

A parameter of a cell is seldom a tensor of the file: it is a block of rows of one, transposed, or the sum of two. A
`Value` says which, so that nothing is read before it is needed.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import field
from typing import Any

import numpy as np

from gradcli.frozen import frozen
from gradcli.weights.checkpoint import Checkpoint

Array = np.ndarray[Any, Any]
Index = tuple[int | slice, ...]


@frozen
class Slice:
    """scale * tensor[index] + shift, transposed if so wanted."""

    tensor: str
    index: Index = ()
    transposed: bool = False
    scale: float = 1.0
    shift: float = 0.0


@frozen
class Value:
    """The sum of some slices, all of one shape."""

    slices: tuple[Slice, ...]
    shape: tuple[int, ...]

    @property
    def copies(self) -> int:
        """How many parameters of the framework's it is the sum of: 2 of bias_ih and bias_hh, 0 of what it lacks."""
        return len(self.slices)

    def read(self, checkpoint: Checkpoint, kept: dict[str, Array] | None = None) -> Array:
        """Return the value as float64, of `shape`.

        Args:
            checkpoint: the file.
            kept: tensors that were read, by name; those read now are added.

        Raises:
            InputFileError: as for `Checkpoint.read`.
        """
        kept = {} if kept is None else kept
        total = np.zeros(self.shape)
        for part in self.slices:
            if part.tensor not in kept:
                kept[part.tensor] = checkpoint.read(part.tensor)
            entries = kept[part.tensor][part.index].astype(np.float64)
            total += part.scale * (entries.T if part.transposed else entries) + part.shift
        return total


def layer_key(index: int, *, reverse: bool = False) -> str:
    """Return what stands before the "." of a layer's parameters and initial states; `index` counts from the input.

    >>> layer_key(1, reverse=True)
    'layer1.reverse'
    """
    return f"layer{index}{reverse * '.reverse'}"


@frozen
class RecurrentLayer:
    """A recurrent layer, or a stack of them that a framework treats as one, found in a checkpoint.

    name: what `layer:` in a spec calls it. framework: "PyTorch". kind: the framework's own name of it, "LSTM".
    cell: a built-in cell's name, or the block of a spec's `cell:`, as plain data. activation: the spec's field.
    input_size, hidden_size, num_layers, bidirectional: the spec's fields.
    output_size: what it puts out at a step, of both directions together.
    gate_order: of the blocks in the file's tensors; () where each gate has tensors of its own, or there are none.
    dtype: of the file's tensors.
    parameters: "layer0.W_xi" or "layer0.reverse.b_f" -> value; every parameter of every layer and direction.
    initial_states: "layer0.h" -> value (size,) or (batch, size); those that the file gives.
    reversed: whether it reads its input from the end to the start.
    tensors: those of the file that it is made of. notes: what a user should know of how it was read, one line each.
    """

    name: str
    framework: str
    kind: str
    cell: str | Mapping[str, Any]
    input_size: int
    hidden_size: int
    output_size: int
    parameters: Mapping[str, Value]
    tensors: tuple[str, ...]
    dtype: str
    gate_order: tuple[str, ...] = ()
    activation: str | None = None
    num_layers: int = 1
    bidirectional: bool = False
    reversed: bool = False
    initial_states: Mapping[str, Value] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    @property
    def parameter_count(self) -> int:
        """The number of its parameters as its framework counts them: two biases are two."""
        return sum(value.copies * math.prod(value.shape) for value in self.parameters.values())


@frozen
class LinearHead:
    """logits = weight @ h + bias: weight (outputs, inputs), bias (outputs,) or None where the file has none.

    sigmoid: whether the file says that the sigmoid of its outputs is taken.
    """

    name: str
    weight: Value
    bias: Value | None
    tensors: tuple[str, ...]
    sigmoid: bool = False

    @property
    def loss(self) -> str:
        """The kind of loss that goes with it: several outputs are classes unless the file says that each is a choice.

        One output is a number, unless the file says that it is the logit of a choice.
        """
        if self.sigmoid:
            return "binary_cross_entropy"
        return "mse" if self.weight.shape[0] == 1 else "cross_entropy"

    @property
    def is_regression_assumed(self) -> bool:
        """Whether its one output may as well be the logit of a choice, as far as the file says."""
        return self.loss == "mse"


@frozen
class Embedding:
    """A table with a row for each token: (tokens, features)."""

    name: str
    table: Value
    tensors: tuple[str, ...]


@frozen
class Unsupported:
    """A recurrent layer that the file holds and gradcli cannot run: why, and what to do, told behind its name.

    tensors: those of the file that it is made of, which no other layout may take for something else.
    """

    name: str
    reason: str
    tensors: tuple[str, ...] = ()


@frozen
class Contents:
    """What was recognised in a checkpoint."""

    layers: tuple[RecurrentLayer, ...] = ()
    heads: tuple[LinearHead, ...] = ()
    embeddings: tuple[Embedding, ...] = ()
    unsupported: tuple[Unsupported, ...] = ()

    def heads_of(self, layer: RecurrentLayer) -> list[LinearHead]:
        """Return the linear heads that could read the layer's output out."""
        return self.heads_reading(layer.output_size)

    def heads_reading(self, size: int | None) -> list[LinearHead]:
        """Return the linear heads that could read an output of this size out: those with as many inputs.

        A linear layer whose outputs are the inputs of another one, which fits no recurrent layer itself, lies within a
        network of several layers, and is no readout.
        """
        of_layers = {layer.output_size for layer in self.layers} | {size}
        further = {head.weight.shape[1] for head in self.heads} - of_layers
        return [h for h in self.heads if h.weight.shape[1] == size and h.weight.shape[0] not in further]

    def embeddings_of(self, layer: RecurrentLayer) -> list[Embedding]:
        """Return the embeddings that could be the layer's input: those with as many features."""
        return [embedding for embedding in self.embeddings if embedding.table.shape[1] == layer.input_size]

    def __add__(self, other: Contents) -> Contents:
        return Contents(
            self.layers + other.layers,
            self.heads + other.heads,
            self.embeddings + other.embeddings,
            self.unsupported + other.unsupported,
        )
