"""What trained weights say before anything runs: how open the gates that keep are, and what the matrices can do.

For h[t] = phi(W h[t-1] + ...) with gamma = sup abs(phi'), the spectral norm bounds every step, abs(dh_t/dh_{t-1}) <=
gamma sigma_max(W), and the spectral radius is the factor a step near rest in the long run, where phi'(0) = 1 (Pascanu,
Mikolov and Bengio 2013). A gate f = sigmoid(... + b_f) keeps sigmoid(b_f) of its state at rest (Jozefowicz, Zaremba and
Sutskever 2015).
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import field
from typing import Any

import numpy as np

from gradcli import cells
from gradcli.diagnostics.spectra import LARGEST_FOR_RADIUS, MatrixSpectrum, spectrum
from gradcli.errors import InputFileError, ResourceError
from gradcli.frozen import frozen
from gradcli.language.functions import FUNCTIONS
from gradcli.numbers import significant
from gradcli.weights.checkpoint import Checkpoint, Ignored, Tensor
from gradcli.weights.layers import Contents, RecurrentLayer, Value

Array = np.ndarray[Any, Any]
Progress = Callable[[str, int, int], None]

#: Copies of a tensor while it is read: as stored, and as floats.
_TENSOR_COPIES = 3
#: float64 copies of a matrix while its spectrum is computed.
_MATRIX_COPIES = 5
_FLOAT = 8


@frozen
class KeepingGate:
    """The gate that keeps the old state: its bias b, averaged over units.

    name: "f" or "z". mean_bias: mean(b). kept_at_rest: mean(sigmoid(b)), the share of the old state that a step keeps
    with zero states and no input; None where the gate is no sigmoid.
    """

    name: str
    mean_bias: float
    kept_at_rest: float | None


@frozen
class DirectionWeights:
    """One direction of one layer, "layer0" or "layer0.reverse".

    gate: None where no gate with a bias keeps. matrices: of one trial each; without a radius where they are not square,
    or have more than `LARGEST_FOR_RADIUS` rows.
    """

    name: str
    gate: KeepingGate | None
    matrices: tuple[MatrixSpectrum, ...]


@frozen
class NotFinite:
    """A tensor with entries that are NaN or infinite, and how many of each there are."""

    tensor: str
    nan: int
    infinite: int


@frozen
class Inspection:
    """What a checkpoint holds.

    name: as the user wrote it. format: what it is called. size: of the file, in bytes. weights: of each of the
    contents' layers, its directions from the bottom up; empty for a layer made of tensors that are not finite.
    not_finite: every tensor that holds NaN or infinity, in the order of the file. unchecked: name -> why it was not
    looked at, of the tensors that no layer is made of and that could not be read.
    """

    name: str
    format: str
    size: int
    tensors: Mapping[str, Tensor]
    ignored: Sequence[Ignored]
    contents: Contents
    weights: Sequence[Sequence[DirectionWeights]]
    not_finite: Sequence[NotFinite] = ()
    unchecked: Mapping[str, str] = field(default_factory=dict)

    @property
    def unused(self) -> list[str]:
        """The tensors that nothing recognised is made of, in the order of the file."""
        found = self.contents
        used: set[str] = set()
        for parts in (found.layers, found.unsupported, found.heads, found.embeddings):
            used.update(*(part.tensors for part in parts))
        return [name for name in self.tensors if name not in used]


def measure_layer(
    checkpoint: Checkpoint, layer: RecurrentLayer, told: Callable[[], None] = lambda: None
) -> tuple[DirectionWeights, ...]:
    """Return what the weights of a layer say, direction by direction; only what it takes is read.

    Args:
        told: called after each matrix.

    Raises:
        InputFileError: as for `Checkpoint.read`.
    """
    return tuple(_measure_direction(checkpoint, layer, name, told) for name in directions(layer))


def directions(layer: RecurrentLayer) -> list[str]:
    """Return the names of a layer's directions, from the bottom up: layer0, layer0.reverse, layer1..."""
    return list(dict.fromkeys(name.rpartition(".")[0] for name in layer.parameters))


def recurrent_matrices(layer: RecurrentLayer, direction: str) -> list[str]:
    """Return the names of the matrices that a direction's recurrence passes through: all but those of the input."""
    return [
        name
        for name, value in _parameters(layer, direction)
        if len(value.shape) == 2 and not name.startswith("W_x")  # input weights are called so in every cell
    ]


def memory_needed(checkpoint: Checkpoint, layer: RecurrentLayer) -> int:
    """Return about how many bytes `measure_layer` needs."""
    return max((_memory_for_direction(checkpoint, layer, name) for name in directions(layer)), default=0)


def _memory_for_direction(checkpoint: Checkpoint, layer: RecurrentLayer, direction: str) -> int:
    wanted = _wanted(layer, direction)
    tensors = {part.tensor for name in wanted for part in layer.parameters[f"{direction}.{name}"].slices}
    read = sum(max(checkpoint.tensors[name].nbytes, 4 * checkpoint.tensors[name].size) for name in tensors)
    matrices = (layer.parameters[f"{direction}.{name}"].shape for name in wanted)
    largest = max((int(np.prod(shape, dtype=object)) for shape in matrices), default=0)
    return _TENSOR_COPIES * read + _MATRIX_COPIES * _FLOAT * largest


def _wanted(layer: RecurrentLayer, direction: str) -> list[str]:
    gate = _keeping_gate(layer, direction)
    return recurrent_matrices(layer, direction) + ([f"b_{gate}"] if gate else [])


def _parameters(layer: RecurrentLayer, direction: str) -> Iterator[tuple[str, Value]]:
    for full_name, value in layer.parameters.items():
        owner, _, name = full_name.rpartition(".")
        if owner == direction:
            yield name, value


def _measure_direction(
    checkpoint: Checkpoint, layer: RecurrentLayer, direction: str, told: Callable[[], None]
) -> DirectionWeights:
    kept: dict[str, Array] = {}
    matrices = []
    for name in recurrent_matrices(layer, direction):
        values = layer.parameters[f"{direction}.{name}"].read(checkpoint, kept)
        matrices.append(spectrum(name, values[np.newaxis], largest=LARGEST_FOR_RADIUS))
        told()
    gate = _keeping_gate(layer, direction)
    if gate is None:
        return DirectionWeights(direction, None, tuple(matrices))
    bias = layer.parameters[f"{direction}.b_{gate}"].read(checkpoint, kept)
    at_rest = float(np.mean(0.5 + 0.5 * np.tanh(bias / 2))) if _is_sigmoid(layer, gate) else None
    return DirectionWeights(direction, KeepingGate(gate, float(bias.mean()), at_rest), tuple(matrices))


def _keeping_gate(layer: RecurrentLayer, direction: str) -> str | None:
    """Return the gate of which 1 keeps the old state: the LSTM's forget gate f, the GRU's update gate z."""
    chrono = cells.load(layer.cell).cell.chrono if isinstance(layer.cell, str) else layer.cell.get("chrono", {})
    keeping = [bias for bias, sign in chrono.items() if sign > 0 and f"{direction}.{bias}" in layer.parameters]
    return keeping[0].removeprefix("b_") if keeping else None


def _is_sigmoid(layer: RecurrentLayer, gate: str) -> bool:
    """Tell whether a gate is the sigmoid: it is in the built-in cells, and elsewhere the equations say so."""
    if isinstance(layer.cell, str):
        return True
    return re.search(rf"^{gate} = sigmoid\(", layer.cell["equations"], re.MULTILINE) is not None


# What a recurrent matrix means, where a layer has only one.


def in_words(layer: RecurrentLayer, matrix: MatrixSpectrum) -> str | None:
    """Return what the weights of h[t] = phi(W h[t-1] + ...) settle, or None where they settle nothing by themselves.

    A gated cell has several recurrent matrices, and what they do depends on how open its gates are.
    """
    function = _activation(layer)
    if function is None or (gamma := FUNCTIONS[function].gamma) is None:
        return None
    bound = gamma * float(matrix.spectral_norm[0])
    if bound < 1:
        slope = "" if gamma == 1 else f", times {function}'s largest slope {significant(gamma, digits=4)},"
        return f"the spectral norm{slope} is below 1: every step shrinks the gradient, whatever the input"
    radius = float(matrix.spectral_radius[0])
    if math.isnan(radius) or function not in _SLOPE_ONE_AT_ZERO:
        return None
    if radius < 1:
        return (
            "the spectral radius is below 1: near rest the gradient falls in the long run; the spectral norm is not,"
            " so it may grow over a few steps"
        )
    return (
        "the spectral radius is not below 1: near rest the gradient does not fall; only units off rest, where"
        f" {function} is flatter, can make it"
    )


#: Functions phi with phi(0) = 0 and phi'(0) = 1, so that rest is a fixed point with W itself as its Jacobian.
_SLOPE_ONE_AT_ZERO = ("tanh", "hard_tanh", "softsign", "identity")


def _activation(layer: RecurrentLayer) -> str | None:
    """Return the function phi of h[t] = phi(a sum); None for any other cell."""
    if layer.cell == "rnn":
        name = layer.activation or "tanh"
    elif isinstance(layer.cell, str):
        return None
    else:
        found = re.fullmatch(r"h\[t\] = (\w+)\(W_xh @ x\[t\] \+ W_hh @ h\[t-1\].*\)", layer.cell["equations"].strip())
        name = found[1] if found else ""
        name = layer.activation or "" if name == "phi" else name
    return name if name in FUNCTIONS else None


def inspect_checkpoint(
    checkpoint: Checkpoint,
    contents: Contents,
    size: int,
    progress: Progress | None = None,
    *,
    largest: float = math.inf,
) -> Inspection:
    """Return what an open checkpoint holds, and what the weights of its recurrent layers say.

    Args:
        contents: what the layouts recognised in it. size: of the file, in bytes.
        progress: called with ("tensors", done, in all), then with ("spectra", matrices done, matrices in all).
        largest: bytes that looking at a tensor may take that no layer is made of.

    Raises:
        InputFileError: as for `Checkpoint.read`.
    """
    not_finite, unchecked = _look_at_all(checkpoint, contents, progress, largest)
    wrong = {each.tensor for each in not_finite}
    sound = [layer for layer in contents.layers if wrong.isdisjoint(layer.tensors)]
    total = sum(len(recurrent_matrices(layer, name)) for layer in sound for name in directions(layer))
    done = 0

    def told() -> None:
        nonlocal done
        done += 1
        if progress is not None:
            progress("spectra", done, total)

    weights = [measure_layer(checkpoint, layer, told) if layer in sound else () for layer in contents.layers]
    return Inspection(
        checkpoint.name,
        checkpoint.FORMAT,
        size,
        checkpoint.tensors,
        checkpoint.ignored,
        contents,
        weights,
        not_finite,
        unchecked,
    )


def _look_at_all(
    checkpoint: Checkpoint, contents: Contents, progress: Progress | None, largest: float
) -> tuple[list[NotFinite], dict[str, str]]:
    """Return the tensors of a file that are not finite, and those that could not be looked at, with the reason.

    Raises:
        InputFileError: a tensor that a layer is made of cannot be read.
    """
    needed = {name for layer in contents.layers for name in layer.tensors}
    found: list[NotFinite] = []
    unchecked: dict[str, str] = {}
    for done, (name, tensor) in enumerate(checkpoint.tensors.items(), start=1):
        if name not in needed and _TENSOR_COPIES * max(tensor.nbytes, 4 * tensor.size) > largest:
            unchecked[name] = "reading it would take too much memory"
            continue
        try:
            nan, infinite = checkpoint.not_finite(name)
        except (InputFileError, ResourceError) as error:
            if name in needed:
                raise
            unchecked[name] = str(error).removeprefix(f"{checkpoint.name}: ")
            continue
        if nan or infinite:
            found.append(NotFinite(name, nan, infinite))
        if progress is not None:
            progress("tensors", done, len(checkpoint.tensors))
    return found, unchecked
