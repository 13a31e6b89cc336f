"""The cells of checkpoints: LSTM, GRU and plain RNN as frameworks vary them, as equations under the usual names.

Where the variant is a built-in cell, that cell's name is returned in place of equations.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

Cell = str | Mapping[str, Any]

SIGMOID = "sigmoid({})"
TANH = "tanh({})"


def rnn(activation: str = TANH, *, bias: bool = True) -> Cell:
    """Return h[t] = activation(W_xh @ x[t] + W_hh @ h[t-1] + b_h) (Elman 1990).

    Args:
        activation: a template in the language of equations, such as "tanh({})".
        bias: whether there is a b_h.
    """
    if activation == TANH and bias:
        return "rnn"
    return _block("rnn", [f"h[t] = {_of(activation, 'W_xh @ x[t] + W_hh @ h[t-1]' + bias * ' + b_h')}"])


def lstm(
    gate: str = SIGMOID,
    candidate: str = TANH,
    output: str = TANH,
    *,
    bias: bool = True,
    peepholes: bool = False,
    coupled: bool = False,
    projection: int | None = None,
) -> Cell:
    """Return the LSTM with gates i f g o (Hochreiter and Schmidhuber 1997; Gers, Schmidhuber and Cummins 2000).

        c[t] = f c[t-1] + i g,   h[t] = o output(c[t])

    Args:
        gate, candidate, output: templates of the activations of i, f and o; of g; and of c[t] on its way out.
        bias: whether there are b_i b_f b_g b_o.
        peepholes: whether the gates see the cell state, through vectors w_ci and w_cf on c[t-1] and w_co on c[t].
        coupled: f = 1 - i, so that the forget gate has no parameters of its own.
        projection: the size P of h[t] = W_mh @ (o output(c[t])), (P, H); None for none (Sak, Senior and Beaufays 2014).
    """
    if (gate, candidate, output, coupled, projection, bias) == (SIGMOID, TANH, TANH, False, None, True):
        return "lstm-peephole" if peepholes else "lstm"

    def gated(name: str, activation: str, cell_state: str = "") -> str:
        peephole = f" + w_c{name} * {cell_state}" if peepholes and cell_state else ""
        total = f"W_x{name} @ x[t] + W_h{name} @ h[t-1]{peephole}{bias * f' + b_{name}'}"
        return f"{name} = {_of(activation, total)}"

    lines = [
        gated("i", gate, "c[t-1]"),
        "f = 1 - i" if coupled else gated("f", gate, "c[t-1]"),
        gated("g", candidate),
        "c[t] = f * c[t-1] + i * g",
        gated("o", gate, "c[t]"),
    ]
    out = f"o * {_of(output, 'c[t]')}"
    chrono = {"b_i": -1} if coupled else {"b_f": 1, "b_i": -1}
    settings: dict[str, Any] = {"chrono": chrono} if bias else {}
    if projection is None:
        return _block("lstm", [*lines, f"h[t] = {out}"], **settings)
    return _block("lstm", [*lines, f"m = {out}", "h[t] = W_mh @ m"], shapes={"h": [projection]}, **settings)


def gru(
    gate: str = SIGMOID,
    candidate: str = TANH,
    *,
    bias: bool = True,
    recurrent_bias: bool = True,
    reset_after: bool = True,
) -> Cell:
    """Return the GRU with gates r z n, of which z = 1 keeps the old state (Cho et al. 2014).

        h[t] = (1 - z) n + z h[t-1]

    Args:
        gate, candidate: templates of the activations of r and z, and of n.
        bias: whether there are b_r b_z b_n.
        reset_after: whether the reset gate acts after the product, n = candidate(W_xn @ x + b_n + r (W_hn @ h + b_hn)),
            or before it, n = candidate(W_xn @ x + W_hn @ (r h) + b_n).
        recurrent_bias: whether there is a b_hn, which only a reset after the product tells apart from b_n.
    """
    if (gate, candidate, bias, recurrent_bias, reset_after) == (SIGMOID, TANH, True, True, True):
        return "gru"
    lines = [f"{g} = {_of(gate, f'W_x{g} @ x[t] + W_h{g} @ h[t-1]' + bias * f' + b_{g}')}" for g in ("r", "z")]
    own = "W_xn @ x[t]" + bias * " + b_n"
    product = "W_hn @ (r * h[t-1])"
    if reset_after:
        product = "r * (W_hn @ h[t-1] + b_hn)" if recurrent_bias else "r * (W_hn @ h[t-1])"
    lines += [f"n = {_of(candidate, f'{own} + {product}')}", "h[t] = (1 - z) * n + z * h[t-1]"]
    return _block("gru", lines, **({"chrono": {"b_z": 1}} if bias else {}))


def mgu(*, bias: bool = True, reset: bool = True) -> Cell:
    """Return the minimal gated unit of Flax, of which f = 1 keeps the old state (after Zhou et al. 2016).

        h[t] = (1 - f) n + f h[t-1]

    Args:
        bias: whether there are b_f and b_n.
        reset: whether f acts on W_hn @ h + b_hn as well, as a reset gate; without it there is no b_hn.
    """
    product = "f * (W_hn @ h[t-1] + b_hn)" if reset else "W_hn @ h[t-1]"
    return _block(
        "mgu",
        [
            f"f = {_of(SIGMOID, 'W_xf @ x[t] + W_hf @ h[t-1]' + bias * ' + b_f')}",
            f"n = {_of(TANH, 'W_xn @ x[t]' + bias * ' + b_n' + f' + {product}')}",
            "h[t] = (1 - f) * n + f * h[t-1]",
        ],
        **({"chrono": {"b_f": 1}} if bias else {}),
    )


def _of(template: str, argument: str) -> str:
    return template.replace("{}", argument)


def _block(name: str, lines: list[str], **settings: Mapping[str, Any]) -> Cell:
    """Return the block of a cell; settings: other fields of it, `shapes` and `chrono`."""
    return {"name": name, "equations": "\n".join(lines) + "\n", **settings}
