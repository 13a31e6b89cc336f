"""Haiku's cores: VanillaRNN, LSTM and GRU.

Matrices are (in, out), in the form x @ w.

    VanillaRNN   linear/w (I, H), linear/b, linear_1/w (H, H), and linear_1/b unless double_bias is off
    LSTM         linear/w (I + H, 4 H) on [x, h], linear/b (4 H,), gates i g f o; 1 is added to f as it runs
    GRU          w_i (I, 3 H), w_h (H, 3 H), b (3 H,), gates z r a; h' = (1 - z) h + z a, reset before the product

An LSTM or a VanillaRNN is nothing but linear layers under a name, and so only that name tells it from a feed-forward
network: the module's has to end in lstm or rnn, as it does unless it was given another.

Source: haiku/_src/recurrent.py of Haiku 0.0.17.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import replace

from gradcli.weights.checkpoint import Checkpoint
from gradcli.weights.layers import Contents, RecurrentLayer, Unsupported, Value, layer_key
from gradcli.weights.layouts import equations, gates
from gradcli.weights.layouts.groups import Group, Misfit, dtype_of, groups

#: How the name of a module ends that is called after a core; the second one of a kind has a number behind it.
_CALLED = r"{}(?:_[0-9]+)?$"
_FORGET = "the 1 that Haiku adds to the forget gate as it runs is in b_f"
_UPDATE = "z is turned round, so that z = 1 keeps the old state"


def find(checkpoint: Checkpoint, taken: set[str]) -> Contents:
    """Return Haiku's recurrent cores, each as a layer; tensors that do not fit together are `Unsupported`."""
    layers: list[RecurrentLayer] = []
    unsupported: list[Unsupported] = []
    for pattern in (r"linear(?:_1)?/[wb]", r"w_[ih]|b"):
        for group in groups(checkpoint, taken, pattern):
            read = _reader(group)
            if read is None:
                continue
            try:
                layers.append(read(group))
            except Misfit as misfit:
                unsupported.append(misfit.unsupported(group))
    return Contents(layers=tuple(layers), unsupported=tuple(unsupported))


def _reader(group: Group) -> Callable[[Group], RecurrentLayer] | None:
    """Return what reads the group; None where it is no recurrent core."""
    module = group.prefix.replace(".", "/").rpartition("/")[2].lower()
    if {"w_i", "w_h"} <= group.tensors.keys():
        return _gru
    if "linear/w" in group.tensors and re.search(_CALLED.format("lstm"), module):
        return _lstm
    if {"linear/w", "linear_1/w"} <= group.tensors.keys() and re.search(_CALLED.format("rnn"), module):
        return _vanilla
    return None


def _vanilla(group: Group) -> RecurrentLayer:
    inputs, hidden = group.matrix("linear/w").shape
    used = {"linear/w": (inputs, hidden), "linear_1/w": (hidden, hidden)}
    biases = {f"{linear}/b": (hidden,) for linear in ("linear", "linear_1") if f"{linear}/b" in group.tensors}
    own = Group(group.prefix, {rest: group.shaped(rest, shape) for rest, shape in (used | biases).items()})
    order = gates.GATES["RNN"]
    values = gates.parameters(
        gates.columns(own.tensors["linear/w"].name, order, hidden),
        gates.columns(own.tensors["linear_1/w"].name, order, hidden),
        [gates.rows(own.tensors[bias].name, order, hidden) for bias in biases],
        (hidden, inputs, hidden),
    )
    cell = "rnn" if biases else equations.rnn("phi({})", bias=False)
    return replace(_layer(own, "VanillaRNN", cell, values, hidden, inputs), activation="relu")


def _lstm(group: Group) -> RecurrentLayer:
    both, count = group.matrix("linear/w").shape
    hidden = count // 4
    if count % 4 or both <= hidden:
        raise Misfit(
            f"its tensor {group.tensors['linear/w'].name} has the shape ({both}, {count}); expected (I + H, 4 H), for"
            " an input of size I and a state of size H"
        )
    own = Group(
        group.prefix,
        {rest: group.shaped(rest, shape) for rest, shape in (("linear/w", (both, count)), ("linear/b", (count,)))},
    )
    inputs = both - hidden
    weights, bias = (tensor.name for tensor in own.tensors.values())
    order = ("i", "g", "f", "o")
    biases = gates.rows(bias, order, hidden)
    biases["f"] = replace(biases["f"], shift=1.0)
    values = gates.parameters(
        gates.columns(weights, order, hidden, slice(0, inputs)),
        gates.columns(weights, order, hidden, slice(inputs, both)),
        [biases],
        (hidden, inputs, hidden),
    )
    return replace(_layer(own, "LSTM", equations.lstm(), values, hidden, inputs), gate_order=order, notes=(_FORGET,))


def _gru(group: Group) -> RecurrentLayer:
    inputs, hidden = group.matrix("w_i").shape[0], group.matrix("w_h").shape[0]
    count = 3 * hidden
    shapes = {"w_i": (inputs, count), "w_h": (hidden, count), "b": (count,)}
    own = Group(group.prefix, {rest: group.shaped(rest, shape) for rest, shape in shapes.items()})
    names = {rest: tensor.name for rest, tensor in own.tensors.items()}
    order = ("z", "r", "n")
    values = gates.parameters(
        gates.negated(gates.columns(names["w_i"], order, hidden), "z"),
        gates.negated(gates.columns(names["w_h"], order, hidden), "z"),
        [gates.negated(gates.rows(names["b"], order, hidden), "z")],
        (hidden, inputs, hidden),
    )
    cell = equations.gru(reset_after=False)
    return replace(_layer(own, "GRU", cell, values, hidden, inputs), gate_order=order, notes=(_UPDATE,))


def _layer(
    group: Group, kind: str, cell: equations.Cell, values: Mapping[str, Value], hidden: int, inputs: int
) -> RecurrentLayer:
    return RecurrentLayer(
        name=group.prefix or kind.lower(),
        framework="Haiku",
        kind=kind,
        cell=cell,
        input_size=inputs,
        hidden_size=hidden,
        output_size=hidden,
        parameters={f"{layer_key(0)}.{name}": value for name, value in values.items()},
        tensors=group.names,
        dtype=dtype_of(group.tensors.values()),
    )
