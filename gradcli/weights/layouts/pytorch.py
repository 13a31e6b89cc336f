"""PyTorch's layers and cells: nn.RNN, nn.LSTM, nn.GRU, nn.RNNCell, nn.LSTMCell and nn.GRUCell.

    weight_ih_l{k} (G H, I), weight_hh_l{k} (G H, H), bias_ih_l{k} and bias_hh_l{k} (G H,), all in the form W @ x

with G gates in the rows, i f g o of an LSTM and r z n of a GRU, and `_reverse` behind the names of the other direction.
With a projection to P there is a weight_hr_l{k} (P, H), and weight_hh_l{k} is (4 H, P). A cell has the same tensors
without `_l{k}`. The file does not say what kind it is of: G tells it. Source: the documentation of torch.nn.
"""

from __future__ import annotations

import re

from gradcli.frozen import frozen
from gradcli.weights.checkpoint import Checkpoint
from gradcli.weights.layers import Contents, RecurrentLayer, Slice, Unsupported, Value, layer_key
from gradcli.weights.layouts import equations, gates
from gradcli.weights.layouts.groups import Group, Misfit, dtype_of, groups

_TENSOR = r"(?:weight_(?:ih|hh|hr)|bias_(?:ih|hh))"
#: Four digits are more layers than any stack has.
_SUFFIX = r"_l(0|[1-9][0-9]{0,3})(_reverse)?"
_NONLINEARITY = (
    "the file does not say whether its nonlinearity is tanh or relu: tanh is taken; `activation: relu` says otherwise"
)


def find(checkpoint: Checkpoint, taken: set[str]) -> Contents:
    """Return PyTorch's recurrent layers; tensors that do not fit together are `Unsupported`."""
    layers: list[RecurrentLayer] = []
    unsupported: list[Unsupported] = []
    named = re.sub(r"\((?!\?)", "(?:", _SUFFIX)
    for is_cell, pattern in ((False, _TENSOR + named), (True, _TENSOR)):
        for group in groups(checkpoint, taken, pattern):
            try:
                layers.append(_cell(group) if is_cell else _stack(group))
            except Misfit as misfit:
                unsupported.append(misfit.unsupported(group))
    return Contents(layers=tuple(layers), unsupported=tuple(unsupported))


@frozen
class _Sizes:
    """What the tensors of the lowest layer tell. projection: the size of h, where it is not that of c."""

    kind: str
    hidden: int
    inputs: int
    projection: int | None
    bias: bool

    @property
    def recurrent(self) -> int:
        """The size of h."""
        return self.projection or self.hidden


def _stack(group: Group) -> RecurrentLayer:
    """Return an nn.RNN, nn.LSTM or nn.GRU."""
    ends = {match[0]: match for rest in group.tensors if (match := re.search(f"{_SUFFIX}$", rest))}
    numbers = sorted({int(match[1]) for match in ends.values()})
    bidirectional = any(match[2] for match in ends.values())
    missing = next((k for k in range(len(numbers)) if k not in numbers), None)
    if missing is not None:
        raise Misfit(f"it has tensors of layer {numbers[-1]} and none of layer {missing}; check that the file is whole")
    sizes = _sizes(group, "_l0")
    values: dict[str, Value] = {}
    inputs = sizes.inputs
    for k in numbers:
        for reverse in (False, True) if bidirectional else (False,):
            found = _direction(group, f"_l{k}{reverse * '_reverse'}", sizes, inputs)
            values |= {f"{layer_key(k, reverse=reverse)}.{name}": value for name, value in found.items()}
        inputs = sizes.recurrent * (1 + bidirectional)
    return _layer(group, sizes, values, kind=sizes.kind, num_layers=len(numbers), bidirectional=bidirectional)


def _cell(group: Group) -> RecurrentLayer:
    """Return an nn.RNNCell, nn.LSTMCell or nn.GRUCell."""
    sizes = _sizes(group, "")
    values = {f"{layer_key(0)}.{name}": value for name, value in _direction(group, "", sizes, sizes.inputs).items()}
    return _layer(group, sizes, values, kind=f"{sizes.kind}Cell")


def _sizes(group: Group, suffix: str) -> _Sizes:
    recurrent, inputs = group.matrix(f"weight_hh{suffix}"), group.matrix(f"weight_ih{suffix}")
    bias = any(rest.startswith("bias") for rest in group.tensors)
    if f"weight_hr{suffix}" in group.tensors:
        projection, hidden = group.matrix(f"weight_hr{suffix}").shape
        return _Sizes("LSTM", hidden, inputs.shape[1], projection, bias)
    count, hidden = recurrent.shape
    kind = gates.KIND_OF_COUNT.get(count // hidden)
    if kind is None or count % hidden:
        raise Misfit(
            f"its tensor {recurrent.name} has {count} rows and {hidden} columns; expected 4 times as many rows as"
            " columns of an LSTM, 3 times of a GRU, as many of an RNN"
        )
    return _Sizes(kind, hidden, inputs.shape[1], None, bias)


def _direction(group: Group, suffix: str, sizes: _Sizes, inputs: int) -> dict[str, Value]:
    """Return the parameters of one direction of a layer, without the layer's name."""
    hidden, order = sizes.hidden, gates.GATES[sizes.kind]
    count = len(order) * hidden

    def blocks(rest: str, *shape: int) -> dict[str, Slice]:
        return gates.rows(group.shaped(f"{rest}{suffix}", (count, *shape)).name, order, hidden)

    biases = [blocks("bias_ih"), blocks("bias_hh")] if sizes.bias else []
    apart = {}
    if biases and sizes.kind == "GRU":
        # The reset gate acts on the recurrent bias of the candidate, and not on the other one.
        apart = {"n": biases[1].pop("n")}
    values = gates.parameters(
        blocks("weight_ih", inputs),
        blocks("weight_hh", sizes.recurrent),
        biases,
        (hidden, inputs, sizes.recurrent),
        apart,
    )
    if sizes.projection is not None:
        shape = (sizes.projection, hidden)
        values["W_mh"] = Value((Slice(group.shaped(f"weight_hr{suffix}", shape).name),), shape)
    return values


def _layer(
    group: Group,
    sizes: _Sizes,
    values: dict[str, Value],
    *,
    kind: str,
    num_layers: int = 1,
    bidirectional: bool = False,
) -> RecurrentLayer:
    is_rnn = sizes.kind == "RNN"
    match sizes.kind:
        case "LSTM":
            cell = equations.lstm(bias=sizes.bias, projection=sizes.projection)
        case "GRU":
            cell = equations.gru(bias=sizes.bias, recurrent_bias=sizes.bias)
        case _:
            cell = "rnn" if sizes.bias else equations.rnn("phi({})", bias=False)
    return RecurrentLayer(
        name=group.prefix or sizes.kind.lower(),
        framework="PyTorch",
        kind=kind,
        cell=cell,
        input_size=sizes.inputs,
        hidden_size=sizes.hidden,
        output_size=sizes.recurrent * (1 + bidirectional),
        parameters=values,
        tensors=group.names,
        dtype=dtype_of(group.tensors.values()),
        gate_order=() if is_rnn else gates.GATES[sizes.kind],
        activation="tanh" if is_rnn else None,
        num_layers=num_layers,
        bidirectional=bidirectional,
        notes=(_NONLINEARITY,) if is_rnn else (),
    )
