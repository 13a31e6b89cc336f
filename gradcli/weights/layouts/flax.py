"""Flax's cells, of nnx and of linen: LSTMCell, OptimizedLSTMCell, GRUCell, SimpleCell, and linen's MGUCell.

Kernels are (in, out), in the form x @ K. Most cells have a kernel for each gate,

    LSTM ii if ig io, hi hf hg ho      GRU ir iz in, hr hz hn      MGU if in, hf hn      Simple i, h

and nnx calls the LSTM's `if` `if_`; the others have one for the input and one for the state, dense_i (I, G H) and
dense_h (H, G H), with the gates i f g o of an LSTM and r z n of a GRU side by side. Which of them have a bias differs
from cell to cell: those of the state (LSTM), those of the input (GRU and Simple), and besides them that of the state in
the candidate (linen's GRU, MGU). Sources: flax/linen/recurrent.py and flax/nnx/nn/recurrent.py of Flax 0.12.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace

from gradcli.frozen import frozen
from gradcli.weights.checkpoint import Checkpoint, Tensor
from gradcli.weights.layers import Contents, RecurrentLayer, Slice, Unsupported, layer_key
from gradcli.weights.layouts import equations, gates
from gradcli.weights.layouts.groups import Group, Misfit, dtype_of, groups

#: The cells with a kernel for each gate: what each of their gates is called in gradcli, by its name in the file.
_SPLIT: Mapping[str, Mapping[str, str]] = {
    "LSTMCell": {"i": "i", "f": "f", "g": "g", "o": "o"},
    "GRUCell": {"r": "r", "z": "z", "n": "n"},
    "MGUCell": {"f": "f", "n": "n"},
    "SimpleCell": {"": "h"},
}
#: The cells with one kernel for all gates, by what they compute.
_FUSED = {"LSTM": "OptimizedLSTMCell", "GRU": "GRUCell", "RNN": "SimpleCell"}
_DENSE = ("dense_i", "dense_h")
#: Some ways of saving leave a name for the value of a variable behind that of the variable.
_VALUE = "/value"
_TENSORS = rf"(?:dense_[ih]|i[ifgorzn]|if_|h[ifgorzn]|[ih])/(?:kernel|bias)(?:{_VALUE})?"

_DEFAULTS = "the file does not say what its activations are: sigmoid and tanh are taken, Flax's defaults"
_SIMPLE = (
    "the file does not say what its activation is, nor whether it is residual: tanh and no are taken, Flax's defaults;"
    " `activation:` names another function"
)
_JOINED = "the file does not say how its directions are merged: their outputs are joined, Flax's default"
_DIRECTIONS = ("forward_rnn", "backward_rnn")


def find(checkpoint: Checkpoint, taken: set[str]) -> Contents:
    """Return Flax's cells, each as a layer; tensors that do not fit together are `Unsupported`."""
    layers: list[RecurrentLayer] = []
    unsupported: list[Unsupported] = []
    for found in groups(checkpoint, taken, _TENSORS):
        group = Group(found.prefix, {_plain(rest): tensor for rest, tensor in found.tensors.items()})
        kind = _kind(group)
        if kind is None:
            continue
        try:
            layers.append(_layer(group, _split(group, kind) if kind in _SPLIT else _fused(group)))
        except Misfit as misfit:
            unsupported.append(misfit.unsupported(group))
    return Contents(layers=tuple(_both_ways(layers)), unsupported=tuple(unsupported))


def _plain(rest: str) -> str:
    return rest.removesuffix(_VALUE).replace("if_/", "if/")


def _kind(group: Group) -> str | None:
    """Return the kind of cell of which the group has the most kernels; None where it has half of them or fewer."""
    kernels = {rest.partition("/")[0] for rest in group.tensors if rest.endswith("/kernel")}
    expected = {kind: {side + gate for side in "ih" for gate in order} for kind, order in _SPLIT.items()}
    # Which of the fused cells it is, their shapes tell.
    expected[_FUSED["LSTM"]] = set(_DENSE)
    found = {kind: len(kernels & names) / len(names) for kind, names in expected.items()}
    best = max(found, key=lambda kind: (found[kind], len(expected[kind])))
    return best if found[best] > 0.5 else None


@frozen
class _Blocks:
    """Kernels and biases, by gate: those that act on the input, those that act on the state."""

    kind: str
    hidden: int
    inputs: int
    kernels: tuple[Mapping[str, Slice], Mapping[str, Slice]]
    biases: tuple[Mapping[str, Slice], Mapping[str, Slice]]
    tensors: tuple[Tensor, ...]
    gate_order: tuple[str, ...] = ()


def _fused(group: Group) -> _Blocks:
    inputs = group.matrix("dense_i/kernel").shape[0]
    recurrent = group.matrix("dense_h/kernel")
    hidden, count = recurrent.shape
    of = gates.KIND_OF_COUNT.get(count // hidden)
    if of is None or count % hidden:
        raise Misfit(
            f"its tensor {recurrent.name} has {hidden} rows and {count} columns; expected 4 times as many columns as"
            " rows of an LSTM, 3 times of a GRU, as many of a SimpleCell"
        )
    order = gates.GATES[of]
    tensors: list[Tensor] = []

    def kernel(side: str, size: int) -> Mapping[str, Slice]:
        tensors.append(group.shaped(f"{side}/kernel", (size, count)))
        return gates.columns(tensors[-1].name, order, hidden)

    def bias(side: str) -> Mapping[str, Slice]:
        if f"{side}/bias" not in group.tensors:
            return {}
        tensors.append(group.shaped(f"{side}/bias", (count,)))
        return gates.rows(tensors[-1].name, order, hidden)

    of_input, of_state = _DENSE
    return _Blocks(
        _FUSED[of],
        hidden,
        inputs,
        (kernel(of_input, inputs), kernel(of_state, hidden)),
        (bias(of_input), bias(of_state)),
        tuple(tensors),
        order if len(order) > 1 else (),
    )


def _split(group: Group, kind: str) -> _Blocks:
    order = _SPLIT[kind]
    first = next(iter(order))
    inputs, hidden = group.matrix(f"i{first}/kernel").shape
    tensors: list[Tensor] = []

    def kernels(side: str, size: int) -> Mapping[str, Slice]:
        found = {name: group.shaped(f"{side}{gate}/kernel", (size, hidden)) for gate, name in order.items()}
        tensors.extend(found.values())
        return {name: Slice(tensor.name, transposed=True) for name, tensor in found.items()}

    def biases(side: str) -> Mapping[str, Slice]:
        there = {name: f"{side}{gate}/bias" for gate, name in order.items() if f"{side}{gate}/bias" in group.tensors}
        found = {name: group.shaped(rest, (hidden,)) for name, rest in there.items()}
        tensors.extend(found.values())
        return {name: Slice(tensor.name) for name, tensor in found.items()}

    return _Blocks(
        kind, hidden, inputs, (kernels("i", inputs), kernels("h", hidden)), (biases("i"), biases("h")), tuple(tensors)
    )


def _layer(group: Group, blocks: _Blocks) -> RecurrentLayer:
    of_input, of_state = blocks.biases
    gated = tuple(blocks.kernels[0])
    apart: Mapping[str, Slice] = {}
    if "n" in gated and "n" in of_state:
        # A gate acts on the recurrent bias of the candidate, and not on the other one.
        apart, of_state = {"n": of_state["n"]}, gates.without(of_state, "n")
    biased = of_input.keys() | of_state.keys()
    if biased and biased != set(gated):
        lacking = ", ".join(gate for gate in gated if gate not in biased)
        raise Misfit(f"it has biases, and none for {lacking}; check that the file is complete")
    values = gates.parameters(
        *blocks.kernels, (of_input, of_state), (blocks.hidden, blocks.inputs, blocks.hidden), apart
    )
    bias, is_simple = bool(biased), blocks.kind == "SimpleCell"
    match gated:
        case ("i", "f", "g", "o"):
            kind, cell = "lstm", equations.lstm(bias=bias)
        case ("r", "z", "n"):
            kind, cell = "gru", equations.gru(bias=bias, recurrent_bias=bool(apart))
        case ("f", "n"):
            # Without a reset gate, linen's MGUCell has no bias there to gate.
            kind, cell = "mgu", equations.mgu(bias=bias, reset=bool(apart))
        case _:
            kind, cell = "rnn", "rnn" if bias else equations.rnn("phi({})", bias=False)
    return RecurrentLayer(
        name=_name(group.prefix, kind),
        framework="Flax",
        kind=blocks.kind,
        cell=cell,
        input_size=blocks.inputs,
        hidden_size=blocks.hidden,
        output_size=blocks.hidden,
        parameters={f"{layer_key(0)}.{name}": value for name, value in values.items()},
        tensors=tuple(tensor.name for tensor in blocks.tensors),
        dtype=dtype_of(blocks.tensors),
        gate_order=blocks.gate_order,
        activation="tanh" if is_simple else None,
        notes=(_SIMPLE if is_simple else _DEFAULTS,),
    )


def _name(prefix: str, kind: str) -> str:
    """Return what a cell is called: after the RNN around it, which calls it its cell, where there is one."""
    for joint in "./":
        prefix = prefix.removesuffix(f"{joint}cell")
    return kind if prefix in ("", "cell", "params") else prefix


def _both_ways(layers: list[RecurrentLayer]) -> Iterator[RecurrentLayer]:
    """Yield the layers, the two directions of a Bidirectional as one."""
    forward, backward = _DIRECTIONS
    by_name = {layer.name: layer for layer in layers}
    for layer in layers:
        if layer.name.endswith(backward):
            stem = layer.name.removesuffix(backward)
            layer = replace(layer, reversed=True)
            other = by_name.get(stem + forward)
            if other is not None and _alike(other, layer):
                continue
        elif layer.name.endswith(forward):
            stem = layer.name.removesuffix(forward)
            other = by_name.get(stem + backward)
            if other is not None and _alike(layer, other):
                layer = _joined(stem, layer, other)
        yield layer


def _alike(one: RecurrentLayer, other: RecurrentLayer) -> bool:
    """Tell whether two layers can be the directions of one: the same cell, at the same sizes."""
    return (one.kind, one.cell, one.input_size, one.hidden_size) == (
        other.kind,
        other.cell,
        other.input_size,
        other.hidden_size,
    )


def _joined(stem: str, forward: RecurrentLayer, backward: RecurrentLayer) -> RecurrentLayer:
    own, reverse = layer_key(0), layer_key(0, reverse=True)
    return replace(
        forward,
        name=_name(stem.rstrip("./"), "bidirectional"),
        output_size=2 * forward.output_size,
        parameters={
            **forward.parameters,
            **{f"{reverse}{key.removeprefix(own)}": value for key, value in backward.parameters.items()},
        },
        tensors=forward.tensors + backward.tensors,
        bidirectional=True,
        notes=(*forward.notes, _JOINED),
    )
