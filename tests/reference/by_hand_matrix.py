"""Recurrent cells with a matrix as their state, by hand with PyTorch: from the papers, not from gradcli's files.

None steps through the state equations of the files, but where nothing else is left (`mesa`, `ttt_linear`, `titans`,
`lmu` and `srwm`, which have autograd, a solver or the matrices written out instead): attention over the whole history
where the recurrence is a sum, the query taken back in time where the transitions are matrices, complex numbers and
convolutions for the state space models. Rows are sequences: x is (T, batch, input), a layer is ``x @ W.T + b``, and
every function returns the outputs of all steps, (T, batch, hidden), from zero states. Parameters have gradcli's names.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from late_torch import torch

from reference.by_hand import Layer, Params, linear

if TYPE_CHECKING:
    from torch import Tensor

#: What a query becomes one step further back, and what it reads there: (step, query) -> (batch, size).
Step = Callable[[int, "Tensor"], "Tensor"]


def _projected(x: Tensor, p: Params, names: str) -> Sequence[Tensor]:
    """Return W_x<name> x of several names at once."""
    rows = [p[f"W_x{name}"] for name in names]
    parts: Sequence[Tensor] = linear(x, torch.cat(rows)).split([len(row) for row in rows], dim=2)
    return parts


def _number(x: Tensor, p: Params, name: str, bias: str | None = None) -> Tensor:
    """Return w_x<name> . x, a number for each step and sequence: (T, batch, 1)."""
    return linear(x, p[f"w_x{name}"][None], None if bias is None else p[bias].reshape(1))


def _silu(a: Tensor) -> Tensor:
    return a * torch.sigmoid(a)


def _unit(a: Tensor) -> Tensor:
    direction: Tensor = torch.nn.functional.normalize(a, dim=-1, eps=1e-6)
    return direction


def _dot(a: Tensor, b: Tensor) -> Tensor:
    return (a * b).sum(-1, keepdim=True)


def _attention(scores: Tensor, values: Tensor) -> Tensor:
    """Return sum over i <= t of scores[t, i] v_i; scores are (T, T, batch)."""
    steps = len(values)
    seen = torch.ones(steps, steps, dtype=torch.bool).tril()[:, :, None]
    return torch.einsum("tib,ibv->tbv", torch.where(seen, scores, torch.zeros_like(scores)), values)


def _scores(queries: Tensor, keys: Tensor) -> Tensor:
    return torch.einsum("tbk,ibk->tib", queries, keys)


def _faded_scores(queries: Tensor, keys: Tensor, log_decay: Tensor) -> Tensor:
    """Return q_t . (k_i times all decays of the steps i+1 ... t), a decay for each entry of a key or one for all."""
    total = torch.cumsum(log_decay, dim=0)
    span = total[:, None] - total[None]
    steps = len(queries)
    seen = torch.ones(steps, steps, dtype=torch.bool).tril()[:, :, None, None]
    fade = torch.exp(torch.where(seen, span, torch.zeros_like(span)))
    return (queries[:, None] * fade * keys[None]).sum(-1)


def _read_back(queries: Tensor, read: Step, before: Step) -> Tensor:
    """Return S_t q_t by taking q_t back in time: S_t = S_{t-1} A_t + w_t k_t' reads w_t (k_t . q) + S_{t-1} (A_t q)."""
    outputs = []
    for t, query in enumerate(queries):
        total = torch.zeros((), dtype=query.dtype)
        for i in range(t, -1, -1):
            total = total + read(i, query)
            query = before(i, query)
        outputs.append(total)
    return torch.stack(outputs)


def linear_attention(x: Tensor, p: Params) -> Tensor:
    """Katharopoulos et al. 2020, eqs. 7 to 9: attention with elu + 1 for a kernel, under a causal mask."""
    q, k, v = _projected(x, p, "qkv")
    weights = _scores(torch.nn.functional.elu(q) + 1, torch.nn.functional.elu(k) + 1)
    return _attention(weights, v) / _attention(weights, torch.ones_like(v[..., :1]))


def _sum_normalised(a: Tensor) -> Tensor:
    features: Tensor = torch.nn.functional.elu(a) + 1
    return features / features.sum(-1, keepdim=True)


def fast_weight_programmer(x: Tensor, p: Params) -> Tensor:
    """Schlag et al. 2021, the sum of all outer products, as attention without a softmax."""
    q, k, v = _projected(x, p, "qkv")
    return _attention(_scores(_sum_normalised(q), _sum_normalised(k)), v)


def _delta(q: Tensor, k: Tensor, v: Tensor, beta: Tensor, alpha: Tensor | None = None) -> Tensor:
    """Return the outputs of S = S diag(alpha) (I - beta k k') + beta v k'; alpha has one entry or one for each of k."""
    fade = torch.ones_like(beta) if alpha is None else alpha
    return _read_back(
        q,
        lambda i, w: beta[i] * v[i] * _dot(k[i], w),
        lambda i, w: fade[i] * (w - beta[i] * k[i] * _dot(k[i], w)),
    )


def fast_weight_programmer_delta(x: Tensor, p: Params) -> Tensor:
    """Schlag et al. 2021, section 4.2: v is written in the place of what the memory holds under k."""
    q, k, v = _projected(x, p, "qkv")
    return _delta(_sum_normalised(q), _sum_normalised(k), v, torch.sigmoid(_number(x, p, "beta")))


def fast_weights(x: Tensor, p: Params, *, fade: float = 0.95, eta: float = 0.5) -> Tensor:
    """Ba et al. 2016, eqs. 4 and 5: attention to the states so far, by their scalar products, one inner step."""
    h = torch.zeros(x.shape[1], len(p["W_hh"]), dtype=x.dtype)
    past: list[Tensor] = [h]
    for x_t in x:
        sustained = linear(torch.cat([h, x_t], 1), torch.cat([p["W_hh"], p["W_xh"]], 1), p["b_h"])
        first = torch.relu(sustained)
        recalled = sum(eta * fade ** (len(past) - 1 - i) * s * _dot(s, first) for i, s in enumerate(past))
        both = sustained + recalled
        h = torch.relu(torch.nn.functional.layer_norm(both, both.shape[-1:], p["g_h"], p["c_h"]))
        past.append(h)
    return torch.stack(past[1:])


def retnet(x: Tensor, p: Params, *, gamma: float = 1 - 2**-5) -> Tensor:
    """Sun et al. 2023, eq. 5: (Q K' * D) V with D[n, m] = gamma^(n - m)."""
    q, k, v = _projected(x, p, "qkv")
    steps = torch.arange(len(x), dtype=x.dtype)
    return _attention(_scores(q, k) * gamma ** (steps[:, None] - steps)[..., None], v)


def gated_retention(x: Tensor, p: Params, *, tau: float = 16) -> Tensor:
    """Sun et al. 2024 (YOCO), eq. 4: the same, D the product of the decays sigmoid(w x)^(1/tau) between two steps."""
    q, k, v = _projected(x, p, "qkv")
    gamma = torch.sigmoid(_number(x, p, "gamma")) ** (1 / tau)
    return _attention(_faded_scores(q, k, torch.log(gamma)), v)


def gla(x: Tensor, p: Params, *, tau: float = 16) -> Tensor:
    """Yang et al. 2024, eq. 4, with alpha = sigmoid(...)^(1/tau)."""
    q, k, v = _projected(x, p, "qkv")
    alpha = torch.sigmoid(linear(linear(x, p["W_xr"]), p["W_ra"], p["b_a"])) ** (1 / tau)
    return _attention(_faded_scores(q, k, torch.log(alpha)), v)


def hgrn2(x: Tensor, p: Params, *, gamma: float = 0.0) -> Tensor:
    """Qin et al. 2024: keys 1 - f, which the decays f of later steps fade; the lower bound as in HGRN."""
    q, f, i = _projected(x, p, "qfi")
    forget = torch.lerp(torch.sigmoid(f), torch.ones_like(f), gamma)
    return _attention(_faded_scores(_silu(q), 1 - forget, torch.log(forget)), i)


def _matrix_lstm(x: Tensor, p: Params, log_forget: Callable[[Tensor], Tensor], scale: float) -> Tensor:
    """Beck et al. 2024, eqs. 19 to 27 written out: sums of exponentials as they stand, without the stabiliser."""
    q, v = linear(x, p["W_xq"], p["b_q"]), linear(x, p["W_xv"], p["b_v"])
    k = linear(x * scale, p["W_xk"], p["b_k"])
    kept = log_forget(_number(x, p, "f", "b_f"))
    written = torch.exp(_number(x, p, "i", "b_i"))
    scores = _faded_scores(q, k * written, kept)
    normaliser = _attention(scores, torch.ones_like(written)).abs().clamp(min=1.0)
    return torch.sigmoid(linear(x, p["W_xo"], p["b_o"])) * _attention(scores, v) / normaliser


def matrix_lstm(x: Tensor, p: Params, *, scale: float = 0.125) -> Tensor:
    """The forget gate by the logistic function."""
    return _matrix_lstm(x, p, torch.nn.functional.logsigmoid, scale)


def matrix_lstm_exp(x: Tensor, p: Params, *, scale: float = 0.125) -> Tensor:
    """The forget gate by the exponential function."""
    return _matrix_lstm(x, p, lambda a: a, scale)


def _normalised(x: Tensor, p: Params) -> Sequence[Tensor]:
    """Return q and k of length 1, and v, each behind a SiLU."""
    q, k, v = _projected(x, p, "qkv")
    return _unit(_silu(q)), _unit(_silu(k)), _silu(v)


def deltanet(x: Tensor, p: Params, *, beta_max: float = 1.0) -> Tensor:
    """Yang et al. 2024, NeurIPS: the delta rule over normalised keys, by generalised Householder matrices."""
    return _delta(*_normalised(x, p), beta_max * torch.sigmoid(_number(x, p, "beta")))


def gated_deltanet(x: Tensor, p: Params) -> Tensor:
    """Yang et al. 2025, eq. 10, with Mamba-2's alpha."""
    step = torch.log1p(torch.exp(_number(x, p, "dt", "b_dt")))
    alpha = torch.exp(step * -torch.exp(p["A_log"]))
    return _delta(*_normalised(x, p), torch.sigmoid(_number(x, p, "beta")), alpha)


def _channel_decay(x: Tensor, p: Params) -> Tensor:
    step = torch.log1p(torch.exp(linear(x, p["W_rdt"] @ p["W_xr"], p["b_dt"])))
    return torch.exp(step * -torch.exp(p["A_log"]))


def kda(x: Tensor, p: Params) -> Tensor:
    """Kimi Team 2025, eq. 1: S is transposed there, so that a query meets the projection first and then the decay."""
    return _delta(*_normalised(x, p), torch.sigmoid(_number(x, p, "beta")), _channel_decay(x, p))


def gated_deltanet_2(x: Tensor, p: Params) -> Tensor:
    """Hatamizadeh et al. 2026: S = (I - k (b * k)') D S + k (w * v)', S transposed here."""
    q, k, v = _normalised(x, p)
    b, w = (torch.sigmoid(gate) for gate in _projected(x, p, "bw"))
    alpha = _channel_decay(x, p)
    return _read_back(
        q,
        lambda i, a: w[i] * v[i] * _dot(k[i], a),
        lambda i, a: alpha[i] * (a - b[i] * k[i] * _dot(k[i], a)),
    )


def comba(x: Tensor, p: Params) -> Tensor:
    """Hu et al. 2025, eq. 5: the correction of the state is not faded, and the query is corrected before it reads."""
    q, k, v = _normalised(x, p)
    beta = torch.sigmoid(_number(x, p, "beta"))
    step = torch.log1p(torch.exp(_number(x, p, "dt", "b_dt")))
    alpha = torch.exp(step * -torch.exp(p["A_log"]))
    feedback = torch.sigmoid(p["b"]) * beta
    return _read_back(
        q - p["d"] * k,
        lambda i, w: beta[i] * v[i] * _dot(k[i], w),
        lambda i, w: alpha[i] * w - feedback[i] * k[i] * _dot(k[i], w),
    )


def delta_product(x: Tensor, p: Params, *, beta_max: float = 2.0) -> Tensor:
    """Siems et al. 2025: DeltaNet on a sequence twice as long, of which every other output is read."""

    def both(names: Sequence[Tensor]) -> Tensor:
        return torch.stack(list(names), dim=1).flatten(0, 1)

    keys = both([_unit(_silu(linear(x, p[f"W_xk{n}"]))) for n in (1, 2)])
    values = both([_silu(linear(x, p[f"W_xv{n}"])) for n in (1, 2)])
    betas = both([beta_max * torch.sigmoid(_number(x, p, f"beta{n}")) for n in (1, 2)])
    queries = _unit(_silu(linear(x, p["W_xq"]))).repeat_interleave(2, dim=0)
    return _delta(queries, keys, values, betas)[1::2]


def _earlier(x: Tensor, steps: int) -> Tensor:
    """Return x[t - steps], zero before the first."""
    return torch.cat([torch.zeros_like(x[:steps]), x[: len(x) - steps]]) if steps else x


def _lerp(x: Tensor, share: Tensor) -> Tensor:
    """Return RWKV's token shift: a share of 1 is the input before."""
    return x * (1 - share) + _earlier(x, 1) * share


def _wkv(r: Tensor, k: Tensor, v: Tensor, log_decay: Tensor, bonus: Tensor) -> Tensor:
    """Peng et al. 2024, eqs. 6 and 19: the present under diag(u), the past under the decays of the steps between."""
    # What is written at i has faded by w_{i+1} ... w_{t-1} when t reads it: the decay of t itself does not count.
    total = torch.cumsum(log_decay, dim=0) - log_decay
    outputs = []
    for t in range(len(r)):
        weights = [(r[t] * torch.exp(total[t] - total[i] - log_decay[i]) * k[i]).sum(-1) for i in range(t)]
        weights.append((r[t] * bonus * k[t]).sum(-1))
        outputs.append(sum(weight[:, None] * v[i] for i, weight in enumerate(weights)))
    return torch.stack(outputs)


def rwkv_5(x: Tensor, p: Params) -> Tensor:
    """Peng et al. 2024, eqs. 3 to 6."""
    r, k, v = (linear(_lerp(x, p[f"mu_{name}"]), p[f"W_x{name}"]) for name in "rkv")
    return _wkv(r, k, v, (-torch.exp(p["w_log"])).expand_as(k), p["u"])


def rwkv_6(x: Tensor, p: Params) -> Tensor:
    """Peng et al. 2024, eqs. 14 to 19."""

    def shifted(name: str) -> Tensor:
        inner = torch.tanh(linear(_lerp(x, p["mu_x"]), p[f"A_{name}"]))
        return _lerp(x, linear(inner, p[f"B_{name}"], p[f"lambda_{name}"]))

    r, k, v = (linear(shifted(name), p[f"W_x{name}"]) for name in "rkv")
    d = linear(torch.tanh(linear(shifted("d"), p["A_w"])), p["B_w"], p["lambda_w"])
    return _wkv(r, k, v, -torch.exp(d), p["u"])


def rwkv_7(x: Tensor, p: Params) -> Tensor:
    """Peng et al. 2025, section 4: wkv (diag(w) - k_hat' (a * k_hat)) + v' k_tilde, and the bonus of the present."""
    r, k, v = (linear(_lerp(x, p[f"mu_{name}"]), p[f"W_x{name}"]) for name in "rkv")
    a = torch.sigmoid(linear(linear(_lerp(x, p["mu_a"]), p["W_xa"]), p["W_a"], p["b_a"]))
    d = linear(torch.tanh(linear(_lerp(x, p["mu_w"]), p["W_xw"])), p["W_w"], p["b_w"])
    w = torch.exp(-math.exp(-0.5) * torch.sigmoid(d))
    removal = torch.nn.functional.normalize(k * p["xi"], dim=-1, eps=1e-12)
    replacement = k * torch.lerp(torch.ones_like(a), a, p["alpha"])
    memory = _read_back(
        r,
        lambda i, q: v[i] * _dot(replacement[i], q),
        lambda i, q: w[i] * q - removal[i] * _dot(a[i] * removal[i], q),
    )
    return memory + _dot(r, p["rho"] * replacement) * v


def mamba(x: Tensor, p: Params) -> Tensor:
    """Gu and Dao 2023, algorithm 2 behind the short convolution: the kernel that every step has on every later one."""
    taps = torch.stack([p[f"c_{n}"] for n in (3, 2, 1, 0)], dim=1)
    padded = torch.nn.functional.pad(linear(x, p["W_xu"]).permute(1, 2, 0), (3, 0))
    convolved = torch.nn.functional.conv1d(padded, taps[:, None], p["b_u"], groups=len(taps))
    u = _silu(convolved).permute(2, 0, 1)
    b, c = linear(u, p["W_uB"]), linear(u, p["W_uC"])
    dt = torch.nn.functional.softplus(linear(linear(u, p["W_ur"]), p["W_rdt"], p["b_dt"]))
    elapsed = torch.cumsum(dt, dim=0)
    rates = torch.exp(p["A_log"])
    outputs = []
    for t in range(len(x)):
        fade = torch.exp(-(elapsed[t] - elapsed[: t + 1])[..., None] * rates)  # (steps, batch, features, N)
        kernel = torch.einsum("ibdn,ibn,bn->ibd", fade, b[: t + 1], c[t])
        outputs.append((kernel * dt[: t + 1] * u[: t + 1]).sum(0))
    return (torch.stack(outputs) + p["D"] * u) * _silu(linear(x, p["W_xz"]))


def mamba_2(x: Tensor, p: Params) -> Tensor:
    """Dao and Gu 2024, eqs. 11 and 16: Y = (L * C B') (dt X), the quadratic dual, L the products of the decays."""
    u, b, c = (_silu(part) for part in _projected(x, p, "uBC"))
    dt = torch.nn.functional.softplus(_number(x, p, "dt", "b_dt"))
    return _attention(_faded_scores(c, b, -torch.exp(p["A_log"]) * dt), dt * u) + p["D"] * u


def mamba_3(x: Tensor, p: Params, *, eps: float = 1e-5) -> Tensor:
    """Lahoti et al. 2026, propositions 1 and 4: rotary embeddings of B and C, both ends of every step's integral."""

    def turned(name: str) -> Tensor:
        both = linear(x, torch.cat([p[f"W_x{name}1"], p[f"W_x{name}2"]]))
        scaled = both * torch.rsqrt((both**2).mean(-1, keepdim=True) + eps)
        pair = scaled + torch.cat([p[f"b_{name}1"], p[f"b_{name}2"]])
        return torch.complex(*pair.chunk(2, dim=-1)) * torch.exp(1j * angle)

    dt = torch.nn.functional.softplus(_number(x, p, "dt", "b_dt"))
    angle = torch.cumsum(dt * math.pi * torch.tanh(linear(x, p["W_xtheta"])), dim=0)
    share = torch.sigmoid(_number(x, p, "lam"))
    kept = -torch.nn.functional.softplus(_number(x, p, "A")) * dt
    # A step has its share of its own integral, and from the next step on that of the next one's beginning.
    own = share * dt
    later = torch.cat([((1 - share) * dt)[1:], torch.zeros_like(dt[:1])])
    u, b, c = linear(x, p["W_xu"]), turned("B"), turned("C")
    total = torch.cumsum(kept, dim=0)
    outputs = []
    for t in range(len(x)):
        weight = torch.exp(total[t] - total[: t + 1]) * torch.cat([(own + later)[:t], own[t : t + 1]])
        outputs.append((weight * (c[t].conj() * b[: t + 1]).real.sum(-1, keepdim=True) * u[: t + 1]).sum(0))
    return (torch.stack(outputs) + p["D"] * u) * _silu(linear(x, p["W_xz"]))


def s4d_real(x: Tensor, p: Params) -> Tensor:
    """Gu et al. 2022, the same with real eigenvalues, as the convolution with K_l = sum of C B-bar A-bar^l."""
    u = linear(x, p["W_xu"])
    step = -torch.exp(p["dt_log"])[:, None] * p["a"]
    lags = torch.arange(len(x), dtype=x.dtype)
    first = p["C"] * torch.expm1(step) / -p["a"]
    kernel = (first[..., None] * torch.exp(step[..., None] * lags)).sum(1)
    return _convolved(kernel, u) + p["D"] * u


def _convolved(kernel: Tensor, u: Tensor) -> Tensor:
    """Return the sum over k of kernel[h, k] u[t - k], (T, batch, features)."""
    return torch.stack([torch.einsum("hl,lbh->bh", kernel[:, : t + 1], u[: t + 1].flip(0)) for t in range(len(u))])


def s4d(x: Tensor, p: Params) -> Tensor:
    """Gu et al. 2022, eqs. 3 and 5: the convolution with K_l = 2 Re(sum of C B-bar A-bar^l), in complex numbers."""
    u = linear(x, p["W_xu"])
    a = torch.complex(-torch.exp(p["a_log"]), p["w"])
    step = torch.exp(p["dt_log"])[:, None] * a
    weight = torch.complex(p["C_re"], p["C_im"]) * (torch.exp(step) - 1) / a
    lags = torch.arange(len(x), dtype=x.dtype)
    kernel = 2 * (weight[..., None] * torch.exp(step[..., None] * lags)).sum(1).real
    return _convolved(kernel, u) + p["D"] * u


def s5(x: Tensor, p: Params) -> Tensor:
    """Smith et al. 2023, eqs. 2 and 6: y = 2 Re(C sum of Lambda-bar^(t-k) B-bar u_k), in complex numbers."""
    eigenvalues = torch.complex(-p["a"], p["w"])
    step = torch.exp(p["dt_log"]) * eigenvalues
    entered = (torch.exp(step) - 1) / eigenvalues * (x.to(step.dtype) @ torch.complex(p["W_xre"], p["W_xim"]).T)
    out = torch.complex(p["W_reh"], p["W_imh"])
    states = [sum(torch.exp(step * (t - k)) * entered[k] for k in range(t + 1)) for t in range(len(x))]
    return 2 * (torch.stack(states) @ out.T).real


def lmu(x: Tensor, p: Params, *, theta: float = 100.0) -> Tensor:
    """Voelker et al. 2019, eqs. 2 and 4 to 7, with A and B written out as matrices, by Euler's method."""
    order = len(p["e_m"])
    i, j = torch.meshgrid(torch.arange(order), torch.arange(order), indexing="ij")
    rows = 2 * torch.arange(order, dtype=x.dtype) + 1
    a = rows[:, None] * torch.where(i < j, -1.0, (-1.0) ** (i - j + 1))
    b = rows * (-1.0) ** torch.arange(order)
    a_bar, b_bar = torch.eye(order, dtype=x.dtype) + a / theta, b / theta
    h = torch.zeros(x.shape[1], len(p["W_hh"]), dtype=x.dtype)
    m = torch.zeros(x.shape[1], order, dtype=x.dtype)
    outputs = []
    for x_t in x:
        u = torch.cat([x_t, h, m], 1) @ torch.cat([p["e_x"], p["e_h"], p["e_m"]])
        m = linear(m, a_bar) + u[:, None] * b_bar
        h = torch.tanh(linear(torch.cat([x_t, h, m], 1), torch.cat([p["W_xh"], p["W_hh"], p["W_mh"]], 1)))
        outputs.append(h)
    return torch.stack(outputs)


def gsa(x: Tensor, p: Params, *, tau: float = 8) -> Tensor:
    """Zhang et al. 2024, eq. 7: two passes of gated linear attention, a softmax over the slots between them."""
    q, k, v = (_silu(part) for part in _projected(x, p, "qkv"))
    log_alpha = torch.nn.functional.logsigmoid(linear(x, p["W_xa"])) / tau
    written = 1 - torch.exp(log_alpha)
    total = torch.cumsum(log_alpha, dim=0)
    outputs = []
    for t in range(len(x)):
        share = written[: t + 1] * torch.exp(total[t] - total[: t + 1])  # what slot m holds of step i: (i, batch, m)
        slots = torch.softmax(torch.einsum("ibm,ib->bm", share, _dot(k[: t + 1], q[t])[..., 0]), dim=1)
        outputs.append(torch.einsum("bm,ibm,ibv->bv", slots, share, v[: t + 1]))
    return torch.stack(outputs)


def abc(x: Tensor, p: Params) -> Tensor:
    """Peng et al. 2022: what step i puts in a slot is exp(a_i) over the sum of exp(a) up to i, and stays there."""
    q, k, v, a = _projected(x, p, "qkva")
    written = torch.stack([torch.softmax(a[: i + 1], dim=0)[i] for i in range(len(x))])
    outputs = []
    for t in range(len(x)):
        slots = torch.softmax((written[: t + 1] * _dot(k[: t + 1], q[t])).sum(0), dim=1)
        outputs.append((_dot(written[: t + 1], slots) * v[: t + 1]).sum(0))
    return torch.stack(outputs)


def longhorn(x: Tensor, p: Params) -> Tensor:
    """Liu et al. 2024, theorem 3.1: each row of S decays by 1 - delta k^2, entry by entry."""
    u = _silu(linear(x, p["W_xu"]))
    k, q = linear(u, p["W_uk"]), linear(u, p["W_uq"])
    beta = torch.sigmoid(linear(linear(u, p["W_ur"]), p["W_rbeta"], p["b_beta"]))
    delta = 1 / (1 / beta + _dot(k, k))
    outputs = []
    for t in range(len(x)):
        total = p["D"] * u[t]
        fade = q[t][:, None].expand(-1, u.shape[2], -1)  # (batch, features, N)
        for i in range(t, -1, -1):
            total = total + delta[i] * u[i] * torch.einsum("bdn,bn->bd", fade, k[i])
            fade = fade - fade * delta[i][..., None] * (k[i] ** 2)[:, None]
        outputs.append(total)
    return torch.stack(outputs)


def ttt_linear(x: Tensor, p: Params, *, eta_base: float = 2**-7, eps: float = 1e-6) -> Tensor:
    """Sun et al. 2024, online: a step of gradient descent on the reconstruction error, its gradient by autograd."""
    q, k, v = _projected(x, p, "qkv")
    eta = eta_base * torch.sigmoid(_number(x, p, "eta", "b_eta"))

    def model(weight: Tensor, a: Tensor) -> Tensor:
        z = torch.einsum("bij,bj->bi", weight, a)
        inner: Tensor = torch.nn.functional.layer_norm(z, z.shape[-1:], p["g"], p["b"], eps)
        return a + inner

    weight = p["W_0"].expand(x.shape[1], -1, -1)
    outputs = []
    for t in range(len(x)):
        with torch.enable_grad():
            given = weight if weight.requires_grad else weight.detach().requires_grad_()
            error = ((model(given, k[t]) - v[t]) ** 2).sum()
            (slope,) = torch.autograd.grad(error, given, create_graph=True)
        weight = weight - eta[t][..., None] * slope
        outputs.append(model(weight, q[t]))
    return torch.stack(outputs)


def titans(x: Tensor, p: Params) -> Tensor:
    """Behrouz et al. 2025, eqs. 12 to 15, with a matrix for a memory, the gradient of the loss by autograd."""
    q, k, v = _normalised(x, p)
    alpha, eta, theta = (torch.sigmoid(_number(x, p, n, f"b_{n}"))[..., None] for n in ("alpha", "eta", "theta"))
    memory = surprise = torch.zeros(x.shape[1], v.shape[2], k.shape[2], dtype=x.dtype)
    outputs = []
    for t in range(len(x)):
        given = memory if memory.requires_grad else memory.requires_grad_()
        loss = ((torch.einsum("bij,bj->bi", given, k[t]) - v[t]) ** 2).sum()
        (slope,) = torch.autograd.grad(loss, given, create_graph=True)
        surprise = eta[t] * surprise - theta[t] * slope
        memory = (1 - alpha[t]) * given + surprise
        outputs.append(torch.einsum("bij,bj->bi", memory, q[t]))
    return torch.stack(outputs)


def mesa(x: Tensor, p: Params, *, lam: float = 1.0) -> Tensor:
    """von Oswald et al. 2023: sum of v k' times the inverse of sum of k k' + I / lambda, solved anew at every step."""
    q, k, v = _projected(x, p, "qkv")
    outputs = []
    for t in range(len(x)):
        gram = torch.einsum("ibj,ibk->bjk", k[: t + 1], k[: t + 1]) + torch.eye(k.shape[2], dtype=x.dtype) / lam
        solved = torch.linalg.solve(gram, q[t])
        outputs.append(torch.einsum("ib,ibv->bv", (k[: t + 1] * solved).sum(-1), v[: t + 1]))
    return torch.stack(outputs)


def rebased(x: Tensor, p: Params, *, eps: float = 1e-5) -> Tensor:
    """Aksenov et al. 2024: attention with the kernel (q . k)^2 of normalised, scaled and shifted q and k."""
    q, k, v = _projected(x, p, "qkv")
    q, k = (
        torch.nn.functional.layer_norm(a, a.shape[-1:], p[f"g_{name}"], p[f"b_{name}"])
        for a, name in ((q, "q"), (k, "k"))
    )
    weights = _scores(q, k) ** 2
    return _attention(weights, v) / (_attention(weights, torch.ones_like(v[..., :1])) + eps)


def based(x: Tensor, p: Params) -> Tensor:
    """Arora et al. 2024: attention with the kernel 1 + a + a^2 / 2, a = q . k / sqrt(d)."""
    q, k, v = _projected(x, p, "qkv")
    a = _scores(q, k) / math.sqrt(q.shape[2])
    weights = 1 + a + a**2 / 2
    return _attention(weights, v) / _attention(weights, torch.ones_like(v[..., :1]))


def delta_rnn(x: Tensor, p: Params) -> Tensor:
    """Irie et al. 2021: a fast layer and a fast recurrent matrix, both read by taking the query back in time."""
    soft = {name: torch.softmax(linear(x, p[f"W_x{name}"]), -1) for name in ("q", "k", "kr")}
    forward = _delta(soft["q"], soft["k"], linear(x, p["W_xv"]), torch.sigmoid(_number(x, p, "beta")))
    values, betas = linear(x, p["W_xvr"]), torch.sigmoid(_number(x, p, "betar"))
    h = torch.zeros_like(forward[0])
    outputs = []
    for t in range(len(x)):
        query, recurrent = torch.softmax(h, -1), torch.zeros_like(h)
        for i in range(t, -1, -1):
            met = betas[i] * _dot(soft["kr"][i], query)
            recurrent, query = recurrent + met * values[i], query - met * soft["kr"][i]
        h = forward[t] + recurrent
        outputs.append(h)
    return torch.stack(outputs)


def recurrent_delta_net(x: Tensor, p: Params) -> Tensor:
    """Irie et al. 2021: keys, values, queries and beta of the input and the last output, one matrix for all."""
    rows = torch.cat(
        [torch.cat([p[f"W_x{n}"], p[f"W_h{n}"]], 1) for n in "qkv"] + [torch.cat([p["w_xbeta"], p["w_hbeta"]])[None]]
    )
    size = len(p["W_xv"])
    h = torch.zeros(x.shape[1], size, dtype=x.dtype)
    keys: list[Tensor] = []
    written: list[Tensor] = []
    outputs = []
    for x_t in x:
        q, k, v, beta = linear(torch.cat([x_t, torch.tanh(h)], 1), rows).split([size, size, size, 1], dim=1)
        q, k = torch.softmax(q, 1), torch.softmax(k, 1)
        # S is the sum of what was written, each under its key; what is written is the error of what S has for this key.
        written.append(torch.sigmoid(beta) * (v - sum(_dot(key, k) * w for key, w in zip(keys, written, strict=True))))
        keys.append(k)
        h = sum(_dot(key, q) * w for key, w in zip(keys, written, strict=True))
        outputs.append(h)
    return torch.stack(outputs)


def srwm(x: Tensor, p: Params) -> Tensor:
    """Irie et al. 2022: one matrix that yields output, query, key and four learning rates, and changes itself."""
    inputs = torch.softmax(linear(x, p["W_xu"]), -1)
    parts = [len(p[name]) for name in ("W_y", "W_q", "W_k", "W_b")]
    weight = torch.cat([p[name] for name in ("W_y", "W_q", "W_k", "W_b")]).expand(x.shape[1], -1, -1)
    outputs = []
    for u in inputs:
        y, q, k, b = torch.einsum("bij,bj->bi", weight, u).split(parts, dim=1)
        q, k = torch.softmax(q, 1), torch.softmax(k, 1)
        rates = torch.repeat_interleave(torch.sigmoid(b), torch.tensor(parts), dim=1)
        old, new = torch.einsum("bij,nbj->nbi", weight, torch.stack([k, q]))
        weight = weight + torch.einsum("bi,bj->bij", rates * (new - old), k)
        outputs.append(y)
    return torch.stack(outputs)


CELLS: dict[str, Layer] = {
    "abc": abc,
    "based": based,
    "comba": comba,
    "delta-product": delta_product,
    "delta-rnn": delta_rnn,
    "deltanet": deltanet,
    "fast-weight-programmer": fast_weight_programmer,
    "fast-weight-programmer-delta": fast_weight_programmer_delta,
    "fast-weights": fast_weights,
    "gated-deltanet": gated_deltanet,
    "gated-deltanet-2": gated_deltanet_2,
    "gated-retention": gated_retention,
    "gla": gla,
    "gsa": gsa,
    "hgrn2": hgrn2,
    "kda": kda,
    "linear-attention": linear_attention,
    "lmu": lmu,
    "longhorn": longhorn,
    "mamba": mamba,
    "mamba-2": mamba_2,
    "mamba-3": mamba_3,
    "matrix-lstm": matrix_lstm,
    "matrix-lstm-exp": matrix_lstm_exp,
    "mesa": mesa,
    "rebased": rebased,
    "recurrent-delta-net": recurrent_delta_net,
    "retnet": retnet,
    "rwkv-5": rwkv_5,
    "rwkv-6": rwkv_6,
    "rwkv-7": rwkv_7,
    "s4d": s4d,
    "s4d-real": s4d_real,
    "s5": s5,
    "srwm": srwm,
    "titans": titans,
    "ttt-linear": ttt_linear,
}
