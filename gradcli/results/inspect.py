"""What `gradcli inspect` finds in a checkpoint, each number declared once; `inspect_report` is what a person reads."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from gradcli.diagnostics.weights import DirectionWeights, Inspection
from gradcli.frozen import frozen
from gradcli.numbers import grouped, shape_text
from gradcli.results.declared import key
from gradcli.results.result import Result
from gradcli.weights.checkpoint import Ignored
from gradcli.weights.layers import Contents, Embedding, LinearHead, RecurrentLayer, Unsupported


@frozen(kw_only=True)
class TensorInFile:
    """A tensor of the file."""

    name: str = key("its name")
    shape: Sequence[int] = key("its shape")
    dtype: str = key("the type of its entries")


@frozen(kw_only=True)
class NonfiniteTensor:
    """A tensor with entries that are NaN or infinite."""

    tensor: str = key("its name", title="tensor", text=True, keep=9)
    shape: Sequence[int] = key("its shape", title="shape", written=shape_text, text=True)
    nan: int = key("how many entries are NaN", title="NaN", written=grouped, keep=9)
    infinite: int = key("how many are infinite", title="infinite", written=grouped, keep=9)
    size: int = key("how many it has", title="of", written=grouped, keep=8)


@frozen(kw_only=True)
class LeftOut:
    """What is in the file, and not used."""

    name: str = key("its name")
    reason: str = key("why")


@frozen(kw_only=True)
class GateInFile:
    """The gate that keeps the old state."""

    name: str = key("`f` or `z`")
    mean_bias: float = key("the mean of its bias over units")
    kept_at_rest: float | None = key("what it keeps with zero states and no input; null where it is no sigmoid")


@frozen(kw_only=True)
class MatrixInFile:
    """A recurrent matrix."""

    shape: Sequence[int] = key("its shape", csv=False)
    spectral_radius: float = key("the largest |eigenvalue|; null where it is not square, or very large")
    spectral_norm: float = key("the largest singular value")


@frozen(kw_only=True)
class DirectionInFile:
    """One direction of one layer."""

    gate: GateInFile | None = key("the gate that keeps the state; null where none with a bias does")
    matrices: Mapping[str, MatrixInFile] = key("each recurrent matrix")


@frozen(kw_only=True)
class LayerInFile:
    """A recurrent layer, or a stack of them that its framework treats as one."""

    name: str = key("what `--layer` calls it")
    framework: str = key("the framework")
    kind: str = key("the framework's name of it")
    cell: str | None = key("the built-in cell that it runs as; null where it is none")
    equations: str | None = key("the equations that it runs as, where it is no built-in cell")
    activation: str | None = key("its activation, where that is not the cell's usual one")
    input_size: int = key("features of the input")
    hidden_size: int = key("units of each state")
    projection_size: int | None = key("the size that its output is projected to; null without a projection")
    output_size: int = key("the size of what it puts out at a step, of both directions together")
    num_layers: int = key("how many layers")
    bidirectional: bool = key("whether it has two directions")
    reversed: bool = key("whether it reads its input from the end")
    gate_order: Sequence[str] = key("the order of the gates in its tensors; empty where each has tensors of its own")
    dtype: str = key("the type of its tensors")
    parameter_count: int = key("the number of its parameters, as the framework counts them")
    initial_states: Sequence[str] = key("the initial states that the file gives")
    directions: Mapping[str, DirectionInFile] = key("each direction, such as `layer0.reverse`")
    tensors: Sequence[str] = key("the tensors that it is made of")
    notes: Sequence[str] = key("how it was read")


@frozen(kw_only=True)
class HeadInFile:
    """A linear layer that could be a readout."""

    name: str = key("its name")
    inputs: int = key("how many inputs it has")
    outputs: int = key("how many outputs")
    bias: bool = key("whether it has a bias")
    readout_of: Sequence[str] = key("the layers that it fits")
    tensors: Sequence[str] = key("the tensors that it is made of")


@frozen(kw_only=True)
class EmbeddingInFile:
    """A table with a row for each token."""

    name: str = key("its name")
    tokens: int = key("how many rows it has")
    features: int = key("how many columns")
    input_of: Sequence[str] = key("the layers that it fits")
    tensors: Sequence[str] = key("the tensors that it is made of")


@frozen(kw_only=True, repr=False, eq=False)
class CheckpointContents(Result):
    """What `inspect` found in a checkpoint."""

    command = "inspect"

    file: str = key("its name, as it was given")
    format: str = key("its format")
    size: int = key("of the file, in bytes")
    tensors: Sequence[TensorInFile] = key("all tensors, in the order of the file")
    not_finite: Sequence[NonfiniteTensor] = key("those with entries that are NaN or infinite")
    unchecked: Sequence[LeftOut] = key("those that could not be looked at")
    layers: Sequence[LayerInFile] = key("the recurrent layers")
    heads: Sequence[HeadInFile] = key("linear layers that could be readouts")
    embeddings: Sequence[EmbeddingInFile] = key("embeddings")
    unsupported: Sequence[LeftOut] = key("recurrent layers that cannot be run")
    unused: Sequence[str] = key("the tensors that nothing of these is made of")
    ignored: Sequence[LeftOut] = key("what is no tensor of numbers")


def contents_fields(found: Inspection) -> dict[str, Any]:
    """Return the fields of `CheckpointContents` for what was found."""
    contents = found.contents
    return {
        "file": found.name,
        "format": found.format,
        "size": found.size,
        "tensors": [TensorInFile(name=t.name, shape=tuple(t.shape), dtype=t.dtype) for t in found.tensors.values()],
        "not_finite": [
            NonfiniteTensor(
                tensor=each.tensor,
                shape=tuple(found.tensors[each.tensor].shape),
                nan=each.nan,
                infinite=each.infinite,
                size=found.tensors[each.tensor].size,
            )
            for each in found.not_finite
        ],
        "unchecked": [LeftOut(name=name, reason=reason) for name, reason in found.unchecked.items()],
        "layers": [_layer(layer, weights) for layer, weights in zip(contents.layers, found.weights, strict=True)],
        "heads": [
            HeadInFile(
                name=head.name,
                inputs=head.weight.shape[1],
                outputs=head.weight.shape[0],
                bias=head.bias is not None,
                readout_of=fits(head, contents),
                tensors=tuple(head.tensors),
            )
            for head in contents.heads
        ],
        "embeddings": [
            EmbeddingInFile(
                name=each.name,
                tokens=each.table.shape[0],
                features=each.table.shape[1],
                input_of=fits(each, contents),
                tensors=tuple(each.tensors),
            )
            for each in contents.embeddings
        ],
        "unsupported": _left_out(contents.unsupported),
        "unused": found.unused,
        "ignored": _left_out(found.ignored),
    }


def _left_out(parts: Sequence[Unsupported | Ignored]) -> Sequence[LeftOut]:
    return [LeftOut(name=each.name, reason=each.reason) for each in parts]


def _layer(layer: RecurrentLayer, weights: Sequence[DirectionWeights]) -> LayerInFile:
    return LayerInFile(
        name=layer.name,
        framework=layer.framework,
        kind=layer.kind,
        cell=layer.cell if isinstance(layer.cell, str) else None,
        equations=None if isinstance(layer.cell, str) else layer.cell["equations"],
        activation=layer.activation,
        input_size=layer.input_size,
        hidden_size=layer.hidden_size,
        projection_size=projection(layer),
        output_size=layer.output_size,
        num_layers=layer.num_layers,
        bidirectional=layer.bidirectional,
        reversed=layer.reversed,
        gate_order=tuple(layer.gate_order),
        dtype=layer.dtype,
        parameter_count=layer.parameter_count,
        initial_states=tuple(layer.initial_states),
        directions={each.name: _direction(each) for each in weights},
        tensors=tuple(layer.tensors),
        notes=tuple(layer.notes),
    )


def _direction(weights: DirectionWeights) -> DirectionInFile:
    gate = weights.gate
    return DirectionInFile(
        gate=None
        if gate is None
        else GateInFile(name=gate.name, mean_bias=gate.mean_bias, kept_at_rest=gate.kept_at_rest),
        matrices={
            matrix.name: MatrixInFile(
                shape=tuple(matrix.shape),
                spectral_radius=float(matrix.spectral_radius[0]),
                spectral_norm=float(matrix.spectral_norm[0]),
            )
            for matrix in weights.matrices
        },
    )


def projection(layer: RecurrentLayer) -> int | None:
    """Return the size that the output of each direction is projected to, None without a projection."""
    size = layer.output_size // (2 if layer.bidirectional else 1)
    return None if size == layer.hidden_size else size


def fits(part: LinearHead | Embedding, contents: Contents) -> list[str]:
    """Return the names of the layers that a head could read out, or an embedding be the input of."""
    if isinstance(part, LinearHead):
        return [layer.name for layer in contents.layers if part in contents.heads_of(layer)]
    return [layer.name for layer in contents.layers if part in contents.embeddings_of(layer)]
