"""Checkpoints without a file: tensors in a table, and recurrent layers made of them as a layout would."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from gradcli.weights.checkpoint import Checkpoint, Ignored, Tensor
from gradcli.weights.layers import Embedding, LinearHead, RecurrentLayer, Slice, Value
from gradcli.weights.layouts import equations

Array = np.ndarray[Any, Any]


class Table(Checkpoint):
    """A checkpoint whose tensors are given; `was_read` says which of them were asked for."""

    FORMAT = "table"

    def __init__(self, arrays: Mapping[str, Array], ignored: Sequence[Ignored] = (), name: str = "model.table") -> None:
        tensors = {key: Tensor(key, value.shape, str(value.dtype)) for key, value in arrays.items()}
        super().__init__(name, tensors, ignored)
        self.arrays = arrays
        self.was_read: list[str] = []

    def _read(self, tensor: Tensor) -> Array:
        self.was_read.append(tensor.name)
        return self.arrays[tensor.name]

    def close(self) -> None:
        """Nothing is open."""


def whole(checkpoint: Table, tensor: str) -> Value:
    """Return the value that is one tensor as it stands."""
    return Value((Slice(tensor),), checkpoint.tensors[tensor].shape)


def of_parameters(checkpoint: Table, name: str, cell: Any, kind: str, **fields: Any) -> RecurrentLayer:
    """Return a layer whose parameters are the tensors that its name opens: "rnn.layer0.W_hh"."""
    parameters = {
        tensor.removeprefix(f"{name}."): whole(checkpoint, tensor)
        for tensor in checkpoint.tensors
        if tensor.startswith(f"{name}.layer")
    }
    first = parameters[next(key for key in parameters if key.startswith("layer0.W_x"))].shape
    sizes = {"hidden_size": first[0], "input_size": first[1], "output_size": first[0]}
    return RecurrentLayer(
        name=name,
        framework="PyTorch",
        kind=kind,
        cell=cell,
        parameters=parameters,
        tensors=tuple(f"{name}.{key}" for key in parameters),
        **({"dtype": "float64"} | sizes | fields),
    )


def arrays_of(name: str, gates: Sequence[str], hidden: int, inputs: int, rng: np.random.Generator) -> dict[str, Array]:
    """Return the tensors of a direction: W_x<gate>, W_h<gate> and b_<gate> of each gate; `name` is "rnn.layer0"."""
    found: dict[str, Array] = {}
    for gate in gates:
        found[f"{name}.W_x{gate}"] = rng.normal(size=(hidden, inputs))
        found[f"{name}.W_h{gate}"] = rng.normal(size=(hidden, hidden)) / hidden
        found[f"{name}.b_{gate}"] = rng.normal(size=hidden)
    return found


def head(checkpoint: Table, name: str) -> LinearHead:
    """Return the head whose tensors are "<name>.weight" and "<name>.bias"."""
    tensors = (f"{name}.weight", f"{name}.bias")
    return LinearHead(name, whole(checkpoint, tensors[0]), whole(checkpoint, tensors[1]), tensors)


def embedding(checkpoint: Table, name: str) -> Embedding:
    """Return the embedding whose table is the tensor "<name>.weight"."""
    return Embedding(name, whole(checkpoint, f"{name}.weight"), (f"{name}.weight",))


PROJECTED = equations.lstm(projection=3)
