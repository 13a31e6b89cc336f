"""The cells of torch.nn as equations, with PyTorch's parameters cut into gates."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from itertools import product
from typing import Any

import numpy as np
from late_torch import torch

from reference.torch_reference import Array

EQUATIONS = {
    "rnn": """
h[t] = tanh(W_xh @ x[t] + W_hh @ h[t-1] + b_h)
""",
    "lstm": """
i = sigmoid(W_xi @ x[t] + W_hi @ h[t-1] + b_i)
f = sigmoid(W_xf @ x[t] + W_hf @ h[t-1] + b_f)
g = tanh(W_xg @ x[t] + W_hg @ h[t-1] + b_g)
o = sigmoid(W_xo @ x[t] + W_ho @ h[t-1] + b_o)
c[t] = f * c[t-1] + i * g
h[t] = o * tanh(c[t])
""",
    "gru": """
r = sigmoid(W_xr @ x[t] + W_hr @ h[t-1] + b_r)
z = sigmoid(W_xz @ x[t] + W_hz @ h[t-1] + b_z)
n = tanh(W_xn @ x[t] + b_n + r * (W_hn @ h[t-1] + b_hn))
h[t] = (1 - z) * n + z * h[t-1]
""",
}
GATES = {"rnn": "h", "lstm": "ifgo", "gru": "rzn"}


def module_of(
    kind: str, input_size: int, hidden_size: int, num_layers: int, bidirectional: bool = False
) -> torch.nn.RNNBase:
    """Return the layer of torch.nn, in float64, with weights drawn by PyTorch."""
    layers: dict[str, Callable[..., torch.nn.RNNBase]] = {
        "rnn": torch.nn.RNN,
        "lstm": torch.nn.LSTM,
        "gru": torch.nn.GRU,
    }
    return layers[kind](input_size, hidden_size, num_layers, bidirectional=bidirectional, dtype=torch.float64)


def parameters_of(kind: str, of_module: Mapping[str, Array], num_layers: int) -> dict[str, Array]:
    """Return the parameters of a ``torch.nn`` layer by gate: ``layer0.W_xi`` (hidden, input)...

    `of_module` holds ``weight_ih_l0``..., ``weight_ih_l0_reverse``..., or their gradients. The GRU keeps the recurrent
    bias of its candidate apart; else the two biases of PyTorch are one here: their sum.
    """
    return _by_gate(kind, of_module, num_layers, lambda input_bias, recurrent_bias: input_bias + recurrent_bias)


def gradients_of(kind: str, of_module: Mapping[str, Array], num_layers: int) -> dict[str, Array]:
    """Return the gradients by gate: that by a sum of two biases is that by either."""
    return _by_gate(kind, of_module, num_layers, lambda input_bias, _: input_bias)


def _by_gate(kind: str, of_module: Mapping[str, Array], num_layers: int, merge: Any) -> dict[str, Array]:
    params = {}
    suffixes = ("", "_reverse") if "weight_ih_l0_reverse" in of_module else ("",)
    for layer, suffix in product(range(num_layers), suffixes):
        cut = {
            name: np.split(of_module[f"{name}_l{layer}{suffix}"], len(GATES[kind]))
            for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
        }
        for index, gate in enumerate(GATES[kind]):
            name = f"layer{layer}{suffix.replace('_', '.')}"
            recurrent = "W_hh" if kind == "rnn" else f"W_h{gate}"
            params[f"{name}.W_x{gate}"] = cut["weight_ih"][index]
            params[f"{name}.{recurrent}"] = cut["weight_hh"][index]
            if (kind, gate) == ("gru", "n"):
                params[f"{name}.b_n"] = cut["bias_ih"][index]
                params[f"{name}.b_hn"] = cut["bias_hh"][index]
            else:
                params[f"{name}.b_{gate}"] = merge(cut["bias_ih"][index], cut["bias_hh"][index])
    return params
