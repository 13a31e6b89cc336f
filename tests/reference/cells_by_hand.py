"""Cells of tests/cells written by hand with PyTorch, in another way than their equations where there is one.

Attention over the whole history for a matrix state, an error for the identity less an outer product, a convolution for
earlier inputs, a stock layer for packed gates, the integral of a surrogate for its slope. Rows are sequences: x is
(T, batch, input), a matrix state (batch, rows, columns); every function takes the initial states as well, and returns
the outputs of all steps, (T, batch, size). Parameters and states have the names of the equations.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

from late_torch import torch

Tensor = Any
Tensors = Mapping[str, Any]
Layer = Callable[[Tensor, Tensors, Tensors], Tensor]


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Return torch.nn's layer."""
    return torch.nn.functional.linear(x, weight, bias)


def _through(matrix: Tensor, vector: Tensor) -> Tensor:
    """Return every sequence's matrix times its vector."""
    return torch.bmm(matrix, vector[:, :, None])[:, :, 0]


def _outer(a: Tensor, b: Tensor) -> Tensor:
    return torch.einsum("bi,bj->bij", a, b)


def _unit(vector: Tensor) -> Tensor:
    return torch.nn.functional.normalize(vector, dim=-1, eps=0.0)


def _number(x: Tensor, weight: Tensor, bias: Tensor | float = 0.0) -> Tensor:
    """Return one number a sequence, with an axis to scale matrices by."""
    return ((x * weight).sum(-1) + bias)[..., None, None]


# --- matrices as states ----------------------------------------------------------------------------------------------


def _attended(q: Tensor, k: Tensor, v: Tensor, weights: Tensor, start: Tensor, kept: Tensor) -> Tensor:
    """Return sum over s of weights[t, s] (k_s . q_t) v_s, and what is kept of the initial matrix times q_t.

    weights: (T, T, batch), zero above the diagonal. kept: (T, batch).
    """
    scores = torch.einsum("tbi,sbi->tsb", q, k) * weights
    return torch.einsum("tsb,sbv->tbv", scores, v) + kept[:, :, None] * torch.einsum("bvi,tbi->tbv", start, q)


def linear_attention(x: Tensor, p: Tensors, start: Tensors) -> Tensor:
    steps, batch = x.shape[:2]
    q, k, v = (linear(x, p[f"W_{name}"]) for name in "qkv")
    causal = torch.ones(steps, steps, dtype=x.dtype).tril()[:, :, None].expand(-1, -1, batch)
    return _attended(q, k, v, causal, start["S"], torch.ones(steps, batch, dtype=x.dtype))


def retention(x: Tensor, p: Tensors, start: Tensors) -> Tensor:
    steps, batch = x.shape[:2]
    q, k, v = (linear(x, p[f"W_{name}"]) for name in "qkv")
    t = torch.arange(steps, dtype=x.dtype)
    weights = (0.9 ** (t[:, None] - t)).tril()[:, :, None].expand(-1, -1, batch)
    return _attended(q, k, v, weights, start["S"].mT, (0.9 ** (t + 1))[:, None].expand(-1, batch))


def scalar_decay(x: Tensor, p: Tensors, start: Tensors) -> Tensor:
    q, k, v = (linear(x, p[f"W_{name}"]) for name in "qkv")
    f = torch.sigmoid(x @ p["w_f"] + p["b_f"])
    so_far = torch.log(f).cumsum(0)
    weights = torch.exp(so_far[:, None] - so_far) * (1 - f)
    causal = torch.ones(len(x), len(x), dtype=x.dtype).tril()[:, :, None]
    return torch.tanh(_attended(q, k, v, weights * causal, start["S"], so_far.exp()))


def delta_rule(x: Tensor, p: Tensors, start: Tensors) -> Tensor:
    """S (I - beta k k') + beta v k' = S + beta (v - S k) k'."""
    S = start["S"]
    outputs = []
    for x_t in x:
        k, v = _unit(torch.nn.functional.silu(linear(x_t, p["W_k"]))), linear(x_t, p["W_v"])
        S = S + torch.sigmoid(_number(x_t, p["w_beta"])) * _outer(v - _through(S, k), k)
        outputs.append(_through(S, linear(x_t, p["W_q"])))
    return torch.stack(outputs)


def delta_rule_from_the_left(x: Tensor, p: Tensors, start: Tensors) -> Tensor:
    R = start["S"].mT
    outputs = []
    for x_t in x:
        k, v = _unit(linear(x_t, p["W_k"], p["b_k"])), linear(x_t, p["W_v"])
        R = R + torch.sigmoid(_number(x_t, p["w_beta"], p["b_beta"])) * _outer(v - _through(R, k), k)
        outputs.append(_through(R, linear(x_t, p["W_q"])))
    return torch.stack(outputs)


def gated_delta_rule(x: Tensor, p: Tensors, start: Tensors) -> Tensor:
    S = start["S"]
    outputs = []
    for x_t in x:
        k = _unit(torch.nn.functional.silu(linear(x_t, p["W_k"])))
        rate = torch.nn.functional.softplus(_number(x_t, p["w_alpha"], p["b_alpha"]))
        S = torch.exp(-rate * p["a_log"].exp()) * S
        S = S + torch.sigmoid(_number(x_t, p["w_beta"])) * _outer(linear(x_t, p["W_v"]) - _through(S, k), k)
        gate = torch.nn.functional.silu(linear(x_t, p["W_g"]))
        read = _through(S, linear(x_t, p["W_q"]))
        outputs.append(gate * torch.nn.functional.layer_norm(read, read.shape[1:], eps=0.1))
    return torch.stack(outputs)


def householder_products(x: Tensor, p: Tensors, start: Tensors) -> Tensor:
    """Each reflection by itself, on what the last one left."""
    S = start["S"]
    outputs = []
    for x_t in x:
        k, l_ = _unit(linear(x_t, p["W_a"])), _unit(linear(x_t, p["W_b"]))
        S = S - 2 * _outer(_through(S, k), k)
        S = S - 2 * torch.sigmoid(_number(x_t, p["w"])) * _outer(_through(S, l_), l_)
        S = S + _outer(linear(x_t, p["W_v"]), l_)
        outputs.append(torch.tanh(_through(S, linear(x_t, p["W_q"]))))
    return torch.stack(outputs)


def diagonal_less_outer(x: Tensor, p: Tensors, start: Tensors) -> Tensor:
    S = start["S"]
    outputs = []
    for x_t in x:
        w = torch.exp(-0.6 * torch.sigmoid(linear(x_t, p["W_w"], p["b_w"])))
        u, a = linear(x_t, p["W_k"]), torch.sigmoid(linear(x_t, p["W_a"]))
        k = _unit(u)
        S = S * w[:, None, :] - _outer(_through(S, k), a * k) + _outer(linear(x_t, p["W_v"]), u)
        outputs.append(_through(S, linear(x_t, p["W_r"])))
    return torch.stack(outputs)


def selective_state_space(x: Tensor, p: Tensors, start: Tensors) -> Tensor:
    """The state as the sum over the past that it is, each term decayed by the time that has passed for it."""
    dt = torch.nn.functional.softplus(linear(x, p["W_dt"], p["b_dt"]))
    u = torch.nn.functional.silu(linear(x, p["W_u"]))
    B, C = linear(x, p["W_B"]), linear(x, p["W_C"])
    time = dt.cumsum(0)
    outputs = []
    for t in range(len(x)):
        H = torch.exp(time[t][:, :, None] * p["A"]) * start["H"]
        for s in range(t + 1):
            H = H + torch.exp((time[t] - time[s])[:, :, None] * p["A"]) * _outer(dt[s] * u[s], B[s])
        outputs.append(_through(H, C[t]) + p["D"] * u[t])
    return torch.stack(outputs)


def max_stabilised_floor(x: Tensor, p: Tensors, start: Tensors) -> Tensor:
    """Without the stabiliser: C and n times exp(m) are sums of exponentials as they stand, and the floor is 1."""
    h, m = start["h"], start["m"]
    C, n = start["C"] * m.exp()[:, None, None], start["n"] * m.exp()[:, None]
    outputs = []
    for x_t in x:
        i, f = h @ p["w_i"] + p["b_i"], x_t @ p["w_f"] + p["b_f"]
        m = torch.maximum(torch.nn.functional.logsigmoid(f) + m, i)
        k = torch.tanh(linear(x_t, p["W_k"]) + m[:, None] * p["p_k"])
        C = torch.sigmoid(f)[:, None, None] * C + i.exp()[:, None, None] * _outer(linear(x_t, p["W_v"]), k)
        n = torch.sigmoid(f)[:, None] * n + i.exp()[:, None] * k
        h = _through(C, k) / (n * k).sum(1).abs().clamp(min=1)[:, None] + m[:, None] * p["p_h"]
        outputs.append(h)
    return torch.stack(outputs)


def fast_weights(x: Tensor, p: Tensors, start: Tensors) -> Tensor:
    """Ba et al. 2016, eq. 4: attention to the outputs so far instead of a matrix of their outer products."""
    h = start["h"]
    past: list[Tensor] = []

    def attended(vector: Tensor, t: int) -> Tensor:
        seen = 0.9 ** (t + 1) * _through(start["F"], vector)
        for s, output in enumerate(past):
            seen = seen + 0.5 * 0.9 ** (t - s) * output * (output * vector).sum(1, keepdim=True)
        return seen

    outputs = []
    for t, x_t in enumerate(x):
        past.append(h)
        a = linear(x_t, p["W_x"]) + linear(h, p["W_h"])
        h = torch.tanh(a)
        for _ in range(2):
            h = torch.tanh(torch.nn.functional.layer_norm(a + attended(h, t), a.shape[1:], eps=0.1))
        outputs.append(h)
    return torch.stack(outputs)


def two_heads(x: Tensor, p: Tensors, start: Tensors) -> Tensor:
    """Both heads at once, as an axis."""
    S = torch.stack([start["A"], start["B"]], dim=1)
    decay = torch.stack([p["a"], p["b"]])[:, None, None]
    h = start["h"]
    outputs = []
    for x_t in x:
        v = linear(torch.cat([x_t, h], dim=1), torch.cat([p["W_v"], p["U_v"]], dim=1))
        q, k, v = (part.unflatten(1, (2, 3)) for part in (linear(x_t, p["W_q"]), linear(x_t, p["W_k"]), v))
        S = decay * S + v[..., :, None] * k[..., None, :]
        h = (S @ q[..., None]).flatten(1)
        outputs.append(h)
    return torch.stack(outputs)


def matrix_gru(x: Tensor, p: Tensors, start: Tensors) -> Tensor:
    S = start["S"]
    outputs = []
    for x_t in x:
        rows = {gate: linear(x_t, p[f"W_a{gate}"]) for gate in "zrn"}
        columns = {gate: linear(x_t, p[f"W_b{gate}"]) for gate in "zrn"}
        written = {gate: _outer(rows[gate], columns[gate]) for gate in "zrn"}
        z = torch.sigmoid(p["U_z"] * S + written["z"] + p["B_z"])
        r = torch.sigmoid(p["U_r"] * S + written["r"])
        S = torch.lerp(torch.tanh(p["U_n"] * (r * S) + written["n"]), S, z)
        outputs.append(S @ p["p"])
    return torch.stack(outputs)


# --- spikes and ties -------------------------------------------------------------------------------------------------


def _of_triangle(a: Tensor, k: float) -> Tensor:
    inside = a.clamp(-1 / k, 1 / k)
    return k * inside - k**2 * inside * inside.abs() / 2


#: Functions whose derivatives are the surrogates.
INTEGRALS: Mapping[str, Callable[[Tensor, float], Tensor]] = {
    "atan": lambda a, k: torch.atan(math.pi / 2 * k * a) / math.pi,
    "fast_sigmoid": lambda a, k: a / (1 + k * a.abs()),
    "sigmoid": lambda a, k: torch.sigmoid(k * a),
    "triangle": _of_triangle,
    "rectangle": lambda a, k: (k * a).clamp(-0.5, 0.5),
}


def _spike(a: Tensor, surrogate: str, k: float) -> Tensor:
    """Return the step's value with the slope of the surrogate's integral."""
    smooth = INTEGRALS[surrogate](a, k)
    return torch.heaviside(a, torch.zeros_like(a)).detach() + (smooth - smooth.detach())


def spike_atan(x: Tensor, p: Tensors, start: Tensors) -> Tensor:
    u, s, h = start["u"], start["s"], start["h"]
    outputs = []
    for x_t in x:
        u = 0.9 * u + linear(x_t, p["W_x"]) + linear(s, p["W_s"]) - s.detach()
        s = _spike(u - 0.5, "atan", 2.0)
        h = 0.8 * h + linear(s, p["W_h"])
        outputs.append(h)
    return torch.stack(outputs)


def spike_fast_sigmoid(x: Tensor, p: Tensors, start: Tensors) -> Tensor:
    u, s, h = start["u"], start["s"], start["h"]
    outputs = []
    for x_t in x:
        u = 0.9 * (u - u * s) + linear(x_t, p["W_x"], p["b"]) + linear(s, p["W_s"])
        s = _spike(u - 0.3, "fast_sigmoid", 5.0)
        h = 0.7 * h + linear(s, p["W_h"])
        outputs.append(h)
    return torch.stack(outputs)


def spike_sigmoid(x: Tensor, p: Tensors, start: Tensors) -> Tensor:
    a, u, s, h = start["a"], start["u"], start["s"], start["h"]
    outputs = []
    for x_t in x:
        a = torch.lerp(s, a, 0.8)
        u = 0.9 * u + linear(x_t, p["W_x"]) + linear(s, p["W_s"]) - 0.5 * s
        s = _spike(u - 0.4 - 1.5 * a, "sigmoid", 4.0)
        h = 0.8 * h + linear(s, p["W_h"])
        outputs.append(h)
    return torch.stack(outputs)


def spike_triangle(x: Tensor, p: Tensors, start: Tensors) -> Tensor:
    i, u, s, h = start["i"], start["u"], start["s"], start["h"]
    outputs = []
    for x_t in x:
        i = 0.8 * i + linear(x_t, p["W_x"]) + linear(s, p["W_s"])
        u = 0.9 * u.where(s.detach() == 0, (1 - s.detach()) * u) + i
        s = _spike(u - 0.4, "triangle", 0.7)
        h = 0.8 * h + linear(s, p["W_h"])
        outputs.append(h)
    return torch.stack(outputs)


def spike_rectangle(x: Tensor, p: Tensors, start: Tensors) -> Tensor:
    u = start["u"]
    outputs = []
    for x_t in x:
        s = _spike(u - 0.3, "rectangle", 0.4)
        u = 0.9 * u + linear(x_t, p["W_x"]) + linear(s, p["W_s"]) - 0.3 * s
        outputs.append(u)
    return torch.stack(outputs)


def spike_surrogates(x: Tensor, p: Tensors, start: Tensors) -> Tensor:
    of_weights = {"atan": 1.5, "fast_sigmoid": 2.0, "sigmoid": 3.0, "triangle": 0.5, "rectangle": 0.25}
    h = start["h"]
    outputs = []
    for x_t in x:
        a = linear(torch.cat([x_t, h], dim=1), torch.cat([p["W_x"], p["W_h"]], dim=1), p["b"])
        h = 0.6 * h + 0.1 * torch.tanh(a)
        for number, (surrogate, k) in enumerate(of_weights.items(), start=1):
            h = h + p[f"c_{number}"] * _spike(a, surrogate, k)
        outputs.append(h)
    return torch.stack(outputs)


def ties_of_copies(x: Tensor, p: Tensors, start: Tensors) -> Tensor:
    """The larger of two as half their sum and half their distance, whose slope at 0 is 0: half to each."""
    c, g, h = start["c"], start["g"], start["h"]
    outputs = []
    for x_t in x:
        d = c - g
        larger, smaller = (c + g + d.abs()) / 2, (c + g - d.abs()) / 2
        # The norm is 0 from the second step on, with the slope 0; h was read by the next c.
        norm = (d**2).sum(1).sqrt() if d.any() else 0 * d.sum(1)
        c = 0.7 * c + torch.tanh(linear(x_t, p["W_c"]) + linear(h, p["U_c"]))
        h = larger - 0.5 * smaller + 0.3 * (d + d.abs()) / 2 + d.clamp(min=0) * (d > 0) + d.abs()
        h = h + p["p"] * norm[:, None]
        g = c.clone()
        outputs.append(h)
    return torch.stack(outputs)


# --- earlier inputs, slices, sums ------------------------------------------------------------------------------------


def earlier_inputs(x: Tensor, p: Tensors, start: Tensors) -> Tensor:
    """Convolutions over time, two zeros before the first step."""
    over_time = x.permute(1, 2, 0)
    padded = torch.nn.functional.pad(over_time, (2, 0))
    z_kernel = torch.stack([p["W_2"], p["W_1"], p["W_0"]], dim=-1)
    f_kernel = torch.stack([p["V_2"], torch.zeros_like(p["V_2"]), p["V_0"]], dim=-1)
    z = torch.tanh(torch.nn.functional.conv1d(padded, z_kernel))
    f = torch.sigmoid(torch.nn.functional.conv1d(padded, f_kernel, p["b_f"]))
    h = start["h"]
    outputs = []
    for z_t, f_t in zip(z.unbind(-1), f.unbind(-1), strict=True):
        h = torch.lerp(z_t, h, f_t)
        outputs.append(h)
    return torch.stack(outputs)


def packed_gates(x: Tensor, p: Tensors, start: Tensors) -> Tensor:
    """The layer of torch.nn, which packs its gates in the same order."""
    hidden_size = start["h"].shape[1]
    layer = torch.nn.LSTM(x.shape[2], hidden_size, dtype=x.dtype)
    zero = torch.zeros(4 * hidden_size, dtype=x.dtype)
    weights = {"weight_ih_l0": p["W_x"], "weight_hh_l0": p["W_h"], "bias_ih_l0": p["b"], "bias_hh_l0": zero}
    outputs, _ = torch.func.functional_call(layer, weights, (x, (start["h"][None], start["c"][None])))
    return outputs


def ordered_neurons(x: Tensor, p: Tensors, start: Tensors) -> Tensor:
    """Shen et al. 2019, eqs. 9-15, with the cumulative sums as products with a triangle of ones."""
    h, c = start["h"], start["c"]
    triangle = torch.ones(h.shape[1], h.shape[1], dtype=x.dtype).triu()
    outputs = []
    for x_t in x:
        joint = torch.cat([x_t, h], dim=1)

        def of(gate: str, joint: Tensor = joint) -> Tensor:
            return linear(joint, torch.cat([p[f"W_{gate}"], p[f"U_{gate}"]], dim=1), p.get(f"b_{gate}"))

        above = torch.softmax(of("m"), dim=1) @ triangle
        below = 1 - torch.softmax(of("n"), dim=1) @ triangle
        both = above * below
        forget = torch.sigmoid(of("f")) * both + above - both
        enter = torch.sigmoid(of("i")) * both + below - both
        c = forget * c + enter * torch.tanh(of("c"))
        h = torch.sigmoid(of("o")) * torch.tanh(c)
        outputs.append(h)
    return torch.stack(outputs)


def states_of_one_number(x: Tensor, p: Tensors, start: Tensors) -> Tensor:
    """Numbers as vectors of one entry."""
    P, Q, h = start["p"][:, None], start["q"][:, None], start["h"]
    outputs = []
    for x_t in x:
        last = Q
        P = 0.9 * P + 0.4 * Q + 0.5 * torch.tanh(linear(x_t, p["w"][None]))
        Q = 0.9 * Q - 0.4 * P + p["c"] * h.sum(1, keepdim=True)
        h = torch.tanh(
            linear(torch.cat([P, last, x_t], dim=1), torch.cat([p["a"][:, None], p["b"][:, None], p["W"]], 1))
        )
        outputs.append(h)
    return torch.stack(outputs)


CELLS: dict[str, Layer] = {
    "delta-rule": delta_rule,
    "delta-rule-from-the-left": delta_rule_from_the_left,
    "diagonal-less-outer": diagonal_less_outer,
    "earlier-inputs": earlier_inputs,
    "fast-weights": fast_weights,
    "gated-delta-rule": gated_delta_rule,
    "householder-products": householder_products,
    "linear-attention": linear_attention,
    "matrix-gru": matrix_gru,
    "max-stabilised-floor": max_stabilised_floor,
    "ordered-neurons": ordered_neurons,
    "packed-gates": packed_gates,
    "retention": retention,
    "scalar-decay": scalar_decay,
    "selective-state-space": selective_state_space,
    "spike-atan": spike_atan,
    "spike-fast-sigmoid": spike_fast_sigmoid,
    "spike-rectangle": spike_rectangle,
    "spike-sigmoid": spike_sigmoid,
    "spike-surrogates": spike_surrogates,
    "spike-triangle": spike_triangle,
    "states-of-one-number": states_of_one_number,
    "ties-of-copies": ties_of_copies,
    "two-heads": two_heads,
}
