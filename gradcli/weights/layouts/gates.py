"""The parameters of gated cells, W_xi, W_hi, b_i for a gate i, from the blocks of a file's tensors."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from gradcli.weights.layers import Slice, Value

#: The gates of each cell, by the names that its parameters have. The plain RNN has one, the new state itself.
GATES: Mapping[str, tuple[str, ...]] = {"LSTM": ("i", "f", "g", "o"), "GRU": ("r", "z", "n"), "RNN": ("h",)}

#: The gates of the layers of Keras, in the order of their blocks.
KERAS_GATES: Mapping[str, tuple[str, ...]] = {
    "SimpleRNN": ("h",),
    "GRU": ("z", "r", "n"),
    "LSTM": ("i", "f", "g", "o"),
}

#: A kind of cell by its number of gates, where nothing but the sizes of the tensors tells it.
KIND_OF_COUNT = {len(gates): kind for kind, gates in GATES.items()}


def rows(tensor: str, gates: Sequence[str], size: int) -> dict[str, Slice]:
    """Return the blocks of `size` rows, or of entries of a vector, that belong to the gates in their order."""
    return {gate: Slice(tensor, (slice(i * size, (i + 1) * size),)) for i, gate in enumerate(gates)}


def columns(tensor: str, gates: Sequence[str], size: int, of_rows: slice = slice(None)) -> dict[str, Slice]:
    """Return the blocks of `size` columns of some rows, transposed: kernels that are stored (in, out)."""
    return {
        gate: Slice(tensor, (of_rows, slice(i * size, (i + 1) * size)), transposed=True) for i, gate in enumerate(gates)
    }


def parameters(
    input_weights: Mapping[str, Slice],
    recurrent_weights: Mapping[str, Slice],
    biases: Iterable[Mapping[str, Slice]],
    sizes: tuple[int, int, int],
    apart: Mapping[str, Slice] | None = None,
) -> dict[str, Value]:
    """Return W_x<gate>, W_h<gate> and b_<gate> of every gate.

    Args:
        input_weights, recurrent_weights: (H, I) and (H, R), by gate.
        biases: (H,), by gate; those of one gate are added.
        sizes: H, I, and the size R of h.
        apart: (H,), by gate: recurrent biases that a gate keeps apart from the others, as b_h<gate>.
    """
    hidden, inputs, recurrent = sizes
    values = {f"W_x{gate}": Value((part,), (hidden, inputs)) for gate, part in input_weights.items()}
    values |= {f"W_h{gate}": Value((part,), (hidden, recurrent)) for gate, part in recurrent_weights.items()}
    added: dict[str, tuple[Slice, ...]] = {}
    for table in biases:
        for gate, part in table.items():
            added[gate] = (*added.get(gate, ()), part)
    values |= {f"b_{gate}": Value(parts, (hidden,)) for gate, parts in added.items()}
    return values | {f"b_h{gate}": Value((part,), (hidden,)) for gate, part in (apart or {}).items()}


def negated(blocks: Mapping[str, Slice], gate: str) -> dict[str, Slice]:
    """Return the blocks with those of one gate negated: 1 - sigmoid(a) = sigmoid(-a)."""
    return {**blocks, gate: replace(blocks[gate], scale=-blocks[gate].scale, shift=-blocks[gate].shift)}


def without(blocks: Mapping[str, Slice], gate: str) -> dict[str, Slice]:
    """Return the blocks but for those of one gate."""
    return {name: part for name, part in blocks.items() if name != gate}
