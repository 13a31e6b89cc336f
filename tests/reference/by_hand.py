"""Recurrent cells written by hand with PyTorch, from the papers and not from gradcli's files.

Where there is another way to say the same, that way is taken: complex numbers for the LRU, the whole history for a
running average, one matrix for all gates. Rows are sequences: x is (T, batch, input), a layer is ``x @ W.T + b``, and
every function returns the outputs of all steps, (T, batch, hidden), from zero states or those of `START`. Parameters
have gradcli's names. More of them are in `by_hand_vector` and `by_hand_matrix`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from late_torch import torch

if TYPE_CHECKING:
    from torch import Tensor

Params = Mapping[str, "Tensor"]
Layer = Callable[["Tensor", Params], "Tensor"]


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Return torch.nn's layer."""
    layer: Tensor = torch.nn.functional.linear(x, weight, bias)
    return layer


#: Initial states of the sLSTM: from zero ones its input bias scales c and n alike, and has no gradient to compare.
START = {"c": 0.3, "n": 1.0}


def _zero(x: Tensor, p: Params, like: str) -> Tensor:
    return torch.zeros(x.shape[1], p[like].shape[0], dtype=x.dtype)


def gates(p: Params, names: str, columns: str) -> Tensor:
    """Return the matrices of several gates, each over the joint vector of its `columns`, as one: (gates H, columns)."""
    return torch.cat([torch.cat([p[f"W_{column}{gate}"] for column in columns], dim=1) for gate in names])


def biases(p: Params, names: str) -> Tensor:
    """Return the biases of the same gates, one below the other."""
    return torch.cat([p[f"b_{gate}"] for gate in names])


def lru(x: Tensor, p: Params) -> Tensor:
    """Orvieto et al. 2023, eq. 7: h_k = Lambda h_{k-1} + gamma * (B u_k), y_k = Re(C h_k), in complex numbers."""
    eigenvalues = torch.exp(torch.complex(-torch.exp(p["nu_log"]), torch.exp(p["theta_log"])))
    gamma = torch.sqrt(1 - eigenvalues.abs() ** 2)
    into, out = torch.complex(p["W_xre"], p["W_xim"]), torch.complex(p["W_reh"], p["W_imh"])
    steps = len(x)
    outputs = []
    for t in range(steps):
        history = sum(eigenvalues ** (t - k) * gamma * (x[k].to(into.dtype) @ into.T) for k in range(t + 1))
        outputs.append((history @ out.T).real)
    return torch.stack(outputs)


def _slstm(x: Tensor, p: Params, forget: Callable[[Tensor], Tensor]) -> Tensor:
    """Beck et al. 2024, eqs. 8-14, without the stabiliser: c and n are sums of exponentials as they stand."""
    h = _zero(x, p, "b_z")
    c, n = h + START["c"], h + START["n"]
    outputs = []
    for x_t in x:
        joint = torch.cat([x_t, h], dim=1)
        z, i, f, o = linear(joint, gates(p, "zifo", "xh"), biases(p, "zifo")).chunk(4, dim=1)
        c = forget(f) * c + torch.exp(i) * torch.tanh(z)
        n = forget(f) * n + torch.exp(i)
        h = torch.sigmoid(o) * (c / n)
        outputs.append(h)
    return torch.stack(outputs)


def slstm(x: Tensor, p: Params) -> Tensor:
    """The forget gate by the logistic function."""
    return _slstm(x, p, torch.sigmoid)


def slstm_exp(x: Tensor, p: Params) -> Tensor:
    """The forget gate by the exponential function."""
    return _slstm(x, p, torch.exp)


def rwa(x: Tensor, p: Params) -> Tensor:
    """Ostmeyer and Cowell 2017, eqs. 1-5: a softmax over the steps so far, taken anew at every step."""
    h = _zero(x, p, "b_u")
    candidates: list[Tensor] = []
    weights: list[Tensor] = []
    outputs = []
    for x_t in x:
        joint = torch.cat([x_t, h], dim=1)
        gate = torch.tanh(linear(joint, gates(p, "g", "xh"), p["b_g"]))
        candidates.append(linear(x_t, p["W_xu"], p["b_u"]) * gate)
        weights.append(linear(joint, gates(p, "a", "xh")))
        h = torch.tanh((torch.softmax(torch.stack(weights), dim=0) * torch.stack(candidates)).sum(0))
        outputs.append(h)
    return torch.stack(outputs)


def rwkv(x: Tensor, p: Params) -> Tensor:
    """Peng et al. 2023, eq. 16: a softmax over k_i - (t - 1 - i) w for i < t and u + k_t for i = t."""
    keys, values, receptance = (linear(x, p[f"W_x{name}"]) for name in "kvr")
    decay = torch.exp(p["w_log"])
    outputs = []
    for t in range(len(x)):
        past = [keys[i] - (t - 1 - i) * decay for i in range(t)]
        weights = torch.softmax(torch.stack([*past, p["u"] + keys[t]]), dim=0)
        outputs.append(torch.sigmoid(receptance[t]) * (weights * values[: t + 1]).sum(0))
    return torch.stack(outputs)


def rhn(x: Tensor, p: Params) -> Tensor:
    """Zilly et al. 2017, eqs. 6-8, with the carry gate C = 1 - T: depth 3, the input in the first layer only."""
    s = _zero(x, p, "b_n1")
    outputs = []
    for x_t in x:
        for depth in (1, 2, 3):
            h, t = linear(s, torch.cat([p[f"W_hn{depth}"], p[f"W_ht{depth}"]])).chunk(2, dim=1)
            if depth == 1:
                h, t = h + x_t @ p["W_xn"].T, t + x_t @ p["W_xt"].T
            transform = torch.sigmoid(t + p[f"b_t{depth}"])
            s = torch.lerp(s, torch.tanh(h + p[f"b_n{depth}"]), transform)
        outputs.append(s)
    return torch.stack(outputs)


def cornn(x: Tensor, p: Params, *, dt: float = 0.042, gamma: float = 2.7, epsilon: float = 4.7) -> Tensor:
    """Rusch and Mishra 2021, eq. 3, explicit in the damping: velocity first, then position with the new velocity."""
    position = velocity = _zero(x, p, "b_z")
    outputs = []
    for x_t in x:
        force = torch.tanh(linear(torch.cat([x_t, velocity, position], dim=1), gates(p, "z", "xzy"), p["b_z"]))
        velocity = velocity + dt * force - dt * gamma * position - dt * epsilon * velocity
        position = position + dt * velocity
        outputs.append(position)
    return torch.stack(outputs)


def unicornn(x: Tensor, p: Params, *, dt: float = 0.19, alpha: float = 30.65) -> Tensor:
    """Rusch and Mishra 2021, UnICORNN, eq. 3, with sigma-hat(c) = 0.5 + 0.5 tanh(c / 2)."""
    step = dt * (0.5 + 0.5 * torch.tanh(p["s"] / 2))
    driven = linear(x, p["W_xz"], p["b_z"])
    y = z = torch.zeros_like(driven[0])
    outputs = []
    for drive in driven:
        z = z - step * (torch.tanh(p["w_yz"] * y + drive) + alpha * y)
        y = y + step * z
        outputs.append(y)
    return torch.stack(outputs)


def lem(x: Tensor, p: Params) -> Tensor:
    """Rusch et al. 2022, eq. 3, with dt = 1."""
    y = z = _zero(x, p, "b_y")
    outputs = []
    for x_t in x:
        u, v, content = linear(torch.cat([x_t, y], dim=1), gates(p, "uvz", "xy"), biases(p, "uvz")).chunk(3, dim=1)
        z = torch.lerp(z, torch.tanh(content), torch.sigmoid(u))
        y = torch.lerp(y, torch.tanh(linear(torch.cat([x_t, z], dim=1), gates(p, "y", "xz"), p["b_y"])), v.sigmoid())
        outputs.append(y)
    return torch.stack(outputs)


def fastgrnn(x: Tensor, p: Params) -> Tensor:
    """Kusupati et al. 2018, section 3.1.2: z and the candidate share W and U."""
    h = _zero(x, p, "b_z")
    zeta, nu = torch.sigmoid(p["zeta_logit"]), torch.sigmoid(p["nu_logit"])
    outputs = []
    for x_t in x:
        shared = linear(torch.cat([x_t, h], dim=1), gates(p, "h", "xh"))
        z, candidate = torch.sigmoid(shared + p["b_z"]), torch.tanh(shared + p["b_n"])
        h = (zeta * (1 - z) + nu) * candidate + z * h
        outputs.append(h)
    return torch.stack(outputs)


def lipschitz_rnn(x: Tensor, p: Params, *, beta: float = 0.75, gamma: float = 0.001, epsilon: float = 0.03) -> Tensor:
    """Erichson et al. 2021, eqs. 3-4: the hidden matrices built as whole matrices, from beta and gamma."""
    size = len(p["b_h"])

    def built(free: Tensor) -> Tensor:
        skew, symmetric = free - free.T, free + free.T
        return beta * skew + (1 - beta) * symmetric - gamma * torch.eye(size, dtype=free.dtype)

    a, w = built(p["W_ha"]), built(p["W_hh"])
    h = _zero(x, p, "b_h")
    outputs = []
    for x_t in x:
        h = h + epsilon * linear(h, a) + epsilon * torch.tanh(linear(h, w) + linear(x_t, p["W_xh"], p["b_h"]))
        outputs.append(h)
    return torch.stack(outputs)


def mlstm(x: Tensor, p: Params) -> Tensor:
    """Krause et al. 2017, eqs. 11-16: an LSTM cell on (x, m) with m = (W_mx x) * (W_mh h)."""
    h = c = _zero(x, p, "b_i")
    outputs = []
    for x_t in x:
        m = linear(x_t, p["W_xm"]) * linear(h, p["W_hm"])
        i, f, g, o = linear(torch.cat([x_t, m], dim=1), gates(p, "ifgo", "xm"), biases(p, "ifgo")).chunk(4, dim=1)
        c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
        h = torch.sigmoid(o) * torch.tanh(c)
        outputs.append(h)
    return torch.stack(outputs)


def ran(x: Tensor, p: Params) -> Tensor:
    """Lee et al. 2017, eq. 2: c_t as the sum over j of i_j (prod of f_k, k > j) W x_j, written out."""
    h = _zero(x, p, "b_i")
    content = linear(x, p["W_xg"])
    written: list[Tensor] = []
    kept: list[Tensor] = []
    outputs = []
    for t, x_t in enumerate(x):
        i, f = torch.sigmoid(linear(torch.cat([x_t, h], dim=1), gates(p, "if", "xh"), biases(p, "if"))).chunk(2, 1)
        written.append(i)
        kept.append(f)
        weights = [written[j] * torch.stack([*kept[j + 1 :], torch.ones_like(f)]).prod(0) for j in range(t + 1)]
        h = torch.tanh(sum(w * content[j] for j, w in enumerate(weights)))
        outputs.append(h)
    return torch.stack(outputs)


def sru(x: Tensor, p: Params) -> Tensor:
    """Lei et al. 2018, eqs. 1-4, the highway over a projected input: all products before the loop."""
    content, f_x, r_x, skip = linear(x, gates(p, "nfrh", "x")).chunk(4, dim=2)
    c = _zero(x, p, "b_f")
    outputs = []
    for n, f_t, r_t, s in zip(content, f_x, r_x, skip, strict=True):
        f = torch.sigmoid(f_t + p["w_cf"] * c + p["b_f"])
        r = torch.sigmoid(r_t + p["w_cr"] * c + p["b_r"])
        c = torch.lerp(n, c, f)
        outputs.append(torch.lerp(s, c, r))
    return torch.stack(outputs)


def scrn(x: Tensor, p: Params, *, alpha: float = 0.95) -> Tensor:
    """Mikolov et al. 2014, eqs. 4-5: the context as the weighted sum of all inputs that it is."""
    h = _zero(x, p, "W_hh")
    inputs = linear(x, p["W_xs"])
    outputs = []
    for t, x_t in enumerate(x):
        context = sum((1 - alpha) * alpha ** (t - k) * inputs[k] for k in range(t + 1))
        h = torch.sigmoid(linear(torch.cat([context, x_t, h], dim=1), gates(p, "h", "sxh")))
        outputs.append(h)
    return torch.stack(outputs)


def nbrc(x: Tensor, p: Params) -> Tensor:
    """Vecoven et al. 2021, eqs. 7-9, with the biases of the authors' code."""
    h = _zero(x, p, "b_a")
    outputs = []
    for x_t in x:
        a, c = linear(torch.cat([x_t, h], dim=1), gates(p, "ac", "xh"), biases(p, "ac")).chunk(2, dim=1)
        h = torch.lerp(torch.tanh(linear(x_t, p["W_xh"]) + (1 + torch.tanh(a)) * h), h, torch.sigmoid(c))
        outputs.append(h)
    return torch.stack(outputs)


CELLS: dict[str, Layer] = {
    "cornn": cornn,
    "fastgrnn": fastgrnn,
    "lem": lem,
    "lipschitz-rnn": lipschitz_rnn,
    "lru": lru,
    "mlstm": mlstm,
    "nbrc": nbrc,
    "ran": ran,
    "rhn": rhn,
    "rwa": rwa,
    "rwkv": rwkv,
    "scrn": scrn,
    "slstm": slstm,
    "slstm-exp": slstm_exp,
    "sru": sru,
    "unicornn": unicornn,
}
