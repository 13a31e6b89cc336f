"""What a person reads of `gradcli inspect`: the recurrent layers, what their weights say, what else the file holds."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from gradcli.diagnostics.spectra import LARGEST_FOR_RADIUS
from gradcli.diagnostics.weights import DirectionWeights, Inspection, in_words
from gradcli.numbers import decimals, grouped, percent, shape_text, significant
from gradcli.prepare.limits import readable_size
from gradcli.results.declared import InColumns, columns_of, csv_names, table_of
from gradcli.results.inspect import (
    CheckpointContents,
    LayerInFile,
    MatrixInFile,
    NonfiniteTensor,
    contents_fields,
    fits,
    projection,
)
from gradcli.results.model import Block, Cell, Column, Line, Records, Report, Table, filled
from gradcli.spec.shown import counted, flow
from gradcli.weights.checkpoint import Ignored
from gradcli.weights.layers import Contents, Embedding, LinearHead, RecurrentLayer

#: How many heads and embeddings, and how many names, are listed; the JSON has them all.
_LISTED_PARTS = 12
_LISTED_NAMES = 5


def contents_of(found: Inspection) -> CheckpointContents:
    """Return the result for one checkpoint."""
    fields = contents_fields(found)
    groups: list[list[Block]] = [
        [Line(_file_text(found), found.name, "title")],
        _not_finite(found, fields["not_finite"]),
        [] if found.contents.layers else _without_layers(found),
        *_layer_groups(found),
        _other_parts(found.contents),
        _left_out(found),
        _next(found),
    ]
    return CheckpointContents(**fields, shown=Report("inspect", filled(groups), records=_records(fields["layers"])))


def _records(layers: Sequence[LayerInFile]) -> Records:
    """Return one row for each recurrent matrix, and one for the bias of the gate that keeps."""
    header = ["layer", "direction", "parameter", "rows", "columns", *csv_names(MatrixInFile), "mean"]
    parts: list[dict[str, Any]] = []
    for layer in layers:
        for direction, found in layer.directions.items():
            of = {"layer": layer.name, "direction": direction}
            for name, matrix in found.matrices.items():
                rows, columns = matrix.shape
                parts.append(
                    {**of, "parameter": name, "rows": rows, "columns": columns, **columns_of(matrix), "mean": None}
                )
            if found.gate is not None:
                without = dict.fromkeys(["columns", *csv_names(MatrixInFile)])
                gate = found.gate
                parts.append(
                    {**of, "parameter": f"b_{gate.name}", "rows": layer.hidden_size, **without, "mean": gate.mean_bias}
                )
    return InColumns(header, parts).records


def title_of(name: str) -> str:
    """Return what a layer is called on the screen; a file that holds one layer alone may give it no name."""
    return name or "(no name)"


def _file_text(found: Inspection) -> str:
    stored = sum(tensor.nbytes for tensor in found.tensors.values())
    return (
        f"{found.format}, {readable_size(found.size)}"
        f"   {counted(len(found.tensors), 'tensor')} of {readable_size(stored)} together"
    )


def _without_layers(found: Inspection) -> list[Block]:
    if found.contents.unsupported:
        return [Line("of the recurrent layers in this file gradcli can run none", "NONE", "warn")]
    shapes = [f"{tensor.name} {shape_text(tensor.shape)}" for tensor in found.tensors.values()]
    tensors = f"; its tensors: {_some(shapes)}" if shapes else ""
    return [Line(f"gradcli recognises no recurrent layer in this file{tensors}", "NONE", "warn")]


def _not_finite(found: Inspection, tensors: Sequence[NonfiniteTensor]) -> list[Block]:
    """Return every tensor that is not finite, and what follows for the layers that are made of it."""
    if not tensors:
        return []
    wrong = {each.tensor for each in tensors}
    layers = [title_of(layer.name) for layer in found.contents.layers if not wrong.isdisjoint(layer.tensors)]
    refused = f"; {_some(layers)} cannot be run with them" if layers else ""
    of = f"{counted(len(wrong), 'tensor')} of {grouped(len(found.tensors))}"
    text = f"{of} with entries that are NaN or infinite{refused}"
    return [Line(text, "NOT FINITE", "bad"), *table_of(NonfiniteTensor, tensors)]


def _layer_groups(found: Inspection) -> Iterator[list[Block]]:
    explained = next((position for position, weights in enumerate(found.weights) if weights), 0)
    for position, (layer, weights) in enumerate(zip(found.contents.layers, found.weights, strict=True)):
        yield [
            Line(_layer_text(layer), title_of(layer.name), "title"),
            *(Line(note, "note", "dim") for note in layer.notes),
        ]
        if weights:
            yield [_weights_table(weights, explained=position == explained)]
        yield _words(layer, weights)


def _layer_text(layer: RecurrentLayer) -> str:
    cell = f"the built-in cell {layer.cell}" if isinstance(layer.cell, str) else "a cell of its own"
    activation = f" with {layer.activation}" if layer.activation else ""
    layers = counted(layer.num_layers, "layer") + (" of two directions" if layer.bidirectional else "")
    backwards = "   reads its input from the end" if layer.reversed else ""
    size = projection(layer)
    projected = f" projected to {size}" if size is not None else ""
    sizes = f"hidden {layer.hidden_size}{projected}, input {layer.input_size}, output {layer.output_size}"
    parts = [layer.dtype, counted(layer.parameter_count, "parameter")]
    if layer.gate_order:
        parts.append(f"gates stored in the order {' '.join(layer.gate_order)}")
    states = f"   initial states {', '.join(layer.initial_states)}" if layer.initial_states else ""
    return (
        f"{layer.framework} {layer.kind}, runs as {cell}{activation}\n"
        f"{layers}   {sizes}{backwards}\n"
        f"{'   '.join(parts)}{states}"
    )


def _weights_table(weights: Sequence[DirectionWeights], *, explained: bool) -> Table:
    gates = list(dict.fromkeys(each.gate.name for each in weights if each.gate is not None))
    bias = f"mean b_{'/'.join(gates)}"
    columns = [
        Column("direction", "text", keep=9),
        Column("matrix", "text", keep=9),
        Column("shape", "text", keep=4),
        Column("spectral radius", keep=8),
        Column("spectral norm", keep=7),
        Column(bias, keep=6),
        Column("keeps", keep=5),
    ]
    rows: list[list[Cell]] = []
    for each in weights:
        rows += _rows_of_direction(each, alone=len(weights) == 1)
    return Table(columns, rows, note=_explanation(weights) if explained else "")


def _rows_of_direction(weights: DirectionWeights, *, alone: bool) -> Iterator[list[Cell]]:
    gate = weights.gate
    for position, matrix in enumerate(weights.matrices):
        of_gate = gate if gate is not None and matrix.name == f"W_h{gate.name}" else None
        yield [
            weights.name if position == 0 and not alone else "",
            matrix.name,
            shape_text(matrix.shape),
            None if np.isnan(matrix.spectral_radius[0]) else _short(matrix.spectral_radius[0]),
            _short(matrix.spectral_norm[0]),
            None if of_gate is None else decimals(of_gate.mean_bias),
            None if of_gate is None or of_gate.kept_at_rest is None else percent(of_gate.kept_at_rest),
        ]


def _explanation(weights: Sequence[DirectionWeights]) -> str:
    parts = ["spectral norm: the largest singular value"]
    matrices = [matrix for each in weights for matrix in each.matrices]
    if not all(np.isnan(matrix.spectral_radius[0]) for matrix in matrices):
        parts.insert(0, "spectral radius: the largest |eigenvalue|")
    if any(matrix.shape[0] == matrix.shape[1] > LARGEST_FOR_RADIUS for matrix in matrices):
        parts.append(f"the spectral radius of more than {grouped(LARGEST_FOR_RADIUS)} rows would take too long")
    gates = list(dict.fromkeys(each.gate.name for each in weights if each.gate and each.gate.kept_at_rest is not None))
    for gate in gates:
        name, state = ("forget", "c") if gate == "f" else ("update", "h")
        parts.append(
            f"keeps: of {state}[t-1], what the {name} gate lets through with zero states and no input,"
            f" the mean of sigmoid(b_{gate})"
        )
    return "; ".join(parts)


def _words(layer: RecurrentLayer, weights: Sequence[DirectionWeights]) -> list[Block]:
    found = []
    for each in weights:
        for matrix in each.matrices:
            if (text := in_words(layer, matrix)) is not None:
                found.append(Line(text, matrix.name if len(weights) == 1 else each.name))
    return list(found)


def _other_parts(contents: Contents) -> list[Block]:
    """Return the table of heads and embeddings, those first that fit a layer."""
    fitting = [(_head_row(head, contents), fits(head, contents)) for head in contents.heads]
    fitting += [(_embedding_row(each, contents), fits(each, contents)) for each in contents.embeddings]
    if not fitting:
        return []
    rows = [row for row, _ in sorted(fitting, key=lambda pair: not pair[1])]
    more = len(rows) - _LISTED_PARTS
    columns = [Column("also here", "text", keep=9), Column("", "text", keep=9), Column("could be", "text", keep=5)]
    note = f"and {grouped(more)} more, which --format json lists" if more > 0 else ""
    return [Table(columns, rows[:_LISTED_PARTS], note=note)]


def _head_row(head: LinearHead, contents: Contents) -> list[Cell]:
    outputs, inputs = head.weight.shape
    bias = "" if head.bias is not None else ", no bias"
    return [
        head.name,
        f"linear head {grouped(inputs)} -> {grouped(outputs)}{bias}",
        _could_be("readout", fits(head, contents)),
    ]


def _embedding_row(embedding: Embedding, contents: Contents) -> list[Cell]:
    tokens, features = embedding.table.shape
    could_be = _could_be("input", fits(embedding, contents))
    return [embedding.name, f"embedding {grouped(tokens)} tokens x {grouped(features)}", could_be]


def _could_be(what: str, layers: Sequence[str]) -> str:
    return f"{what} of {_some(list(map(title_of, layers)))}" if layers else ""


def _left_out(found: Inspection) -> list[Block]:
    lines: list[Block] = [
        Line(f"{title_of(each.name)}: {each.reason}", "cannot run", "warn") for each in found.contents.unsupported
    ]
    unused = found.unused
    if unused and found.contents != Contents():
        lines.append(Line(f"{counted(len(unused), 'tensor')} used by nothing above: {_some(unused)}", "unused", "dim"))
    unchecked = [Ignored(name, reason) for name, reason in found.unchecked.items()]
    for reason, names in _by_reason(unchecked).items():
        lines.append(Line(f"{_some(names)}: {reason}", "not looked at", "dim"))
    for reason, names in _by_reason(found.ignored).items():
        lines.append(Line(f"{_some(names)}: {reason}", "ignored", "dim"))
    return lines


def _by_reason(ignored: Sequence[Ignored]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for each in ignored:
        found.setdefault(each.reason, []).append(each.name)
    return found


def _next(found: Inspection) -> list[Block]:
    sound = [layer for layer, weights in zip(found.contents.layers, found.weights, strict=True) if weights]
    if found.contents.layers and not sound:
        return []
    if sound:
        file, name = shlex.quote(found.name), shlex.quote(sound[0].name)
        text = f"gradcli simulate {file} --layer {name} -T 200\ngradcli inspect {file} --spec {name} > my.yaml"
        return [Line(text, "next", "dim")]
    if found.tensors and not found.contents.unsupported:
        example = f"weights: {{file: {flow(found.name)}, map: {{PARAMETER: TENSOR, ...}}}}"
        return [
            Line(f"give the tensors to the parameters of a cell of your own, in its spec:\n{example}", "next", "dim")
        ]
    return []


def _some(names: Sequence[str]) -> str:
    """Return a few names, and how many more there are."""
    shown = ", ".join(names[:_LISTED_NAMES])
    more = len(names) - _LISTED_NAMES
    return f"{shown} and {grouped(more)} more" if more > 0 else shown


def _short(value: float) -> str:
    """Return a spectral radius or norm, which counts beside 1; one that three decimals cannot show, to three digits."""
    return significant(value, digits=3) if 0 < value < 0.01 else decimals(value)
