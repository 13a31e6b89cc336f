"""Recurrent cells with vectors for states, written by hand with PyTorch, from the papers and not from gradcli's files.

The conventions are those of `reference.by_hand`: x is (T, batch, input), rows are sequences, and every function returns
the outputs of all steps, (T, batch, hidden), from zero states. Where there is another way to say the same, that way is
taken: complex numbers, the whole history, logarithms, one matrix for all gates, a mask in place of blocks.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from late_torch import torch

from reference.by_hand import Layer, Params, biases, gates, linear

if TYPE_CHECKING:
    from torch import Tensor

Elementwise = Callable[["Tensor"], "Tensor"]


def _zeros(x: Tensor, size: int) -> Tensor:
    return torch.zeros(x.shape[1], size, dtype=x.dtype)


def _joint(p: Params, names: str, columns: str, *parts: Tensor) -> tuple[Tensor, ...]:
    """Return what several gates see, from one product with the joint vector of `parts`."""
    return linear(torch.cat(parts, dim=1), gates(p, names, columns), biases(p, names)).chunk(len(names), dim=1)


# --- linear in the state ---------------------------------------------------------------------------------------------


def hgrn(x: Tensor, p: Params, *, gamma: float = 0.5) -> Tensor:
    """Qin et al. 2023: h_t = lambda_t exp(i theta) h_{t-1} + (1 - lambda_t) c_t, as a sum over the history."""
    decay = torch.lerp(torch.sigmoid(linear(x, p["W_xf"], p["b_f"])), torch.ones((), dtype=x.dtype), gamma)
    real, imaginary, gate = (torch.nn.functional.silu(linear(x, p[f"W_x{k}"], p[f"b_{k}"])) for k in "uvo")
    content = torch.complex((1 - decay) * real, (1 - decay) * imaginary)
    turn = torch.exp(torch.complex(torch.zeros_like(p["theta_log"]), torch.exp(p["theta_log"])))
    outputs = []
    for t in range(len(x)):
        h = sum(content[k] * decay[k + 1 : t + 1].prod(0) * turn ** (t - k) for k in range(t + 1))
        both = torch.cat([h.real, h.imag], dim=1)
        normal = torch.nn.functional.layer_norm(both, both.shape[1:], p["g_y"], p["b_y"])
        outputs.append(linear(normal * gate[t], p["W_yh"], p["b_h"]))
    return torch.stack(outputs)


def rg_lru(x: Tensor, p: Params, *, c: float = 8.0) -> Tensor:
    """De et al. 2024, eqs. 1-4, over the history: between two steps the decay is a power of sigmoid(Lambda)."""
    u = linear(x, p["W_xu"], p["b_u"])
    r, i = torch.sigmoid(linear(u, gates(p, "ri", "u"), biases(p, "ri"))).chunk(2, dim=2)
    a = torch.sigmoid(p["a_logit"])
    exponents = torch.cumsum(c * r, dim=0)
    into = torch.sqrt(1 - a ** (2 * c * r)) * i * u
    return torch.stack([sum(a ** (exponents[t] - exponents[k]) * into[k] for k in range(t + 1)) for t in range(len(x))])


def _scan_in_logs(log_coefficients: Tensor, log_values: Tensor) -> Tensor:
    """Heinsen 2023: h_t = exp(A_t + log sum over k <= t of exp(b_k - A_k)), A the sum of the logarithms so far."""
    so_far = torch.cumsum(log_coefficients, dim=0)
    return torch.exp(so_far + torch.logcumsumexp(log_values - so_far, dim=0))


def _log_g(a: Tensor) -> Tensor:
    """Feng et al. 2024, appendix B: log(a + 1/2) for a >= 0, and the logarithm of the logistic function below."""
    return torch.where(a >= 0, torch.log(torch.relu(a) + 0.5), -torch.nn.functional.softplus(-a))


def mingru_log(x: Tensor, p: Params) -> Tensor:
    """Feng et al. 2024, appendix B: the parallel minGRU, from h_0 = 0."""
    z, n = linear(x, gates(p, "zn", "x"), biases(p, "zn")).chunk(2, dim=2)
    softplus = torch.nn.functional.softplus
    return _scan_in_logs(-softplus(z), -softplus(-z) + _log_g(n))


def minlstm_log(x: Tensor, p: Params) -> Tensor:
    """Feng et al. 2024, appendix B: the parallel minLSTM, from h_0 = 0."""
    f, i, g = linear(x, gates(p, "fig", "x"), biases(p, "fig")).chunk(3, dim=2)
    softplus = torch.nn.functional.softplus
    difference = softplus(-f) - softplus(-i)
    return _scan_in_logs(-softplus(difference), -softplus(-difference) + _log_g(g))


def typed_rnn(x: Tensor, p: Params) -> Tensor:
    """Balduzzi and Ghifary 2016, T-RNN: the sum over the history."""
    content, f = linear(x, p["W_xz"]), torch.sigmoid(linear(x, p["W_xf"], p["b_f"]))
    return torch.stack(
        [sum(f[k + 1 : t + 1].prod(0) * (1 - f[k]) * content[k] for k in range(t + 1)) for t in range(len(x))]
    )


def _typed(x: Tensor, p: Params) -> tuple[Tensor, Tensor, Tensor]:
    """Return z, f and o of both of the cells that see two inputs: a convolution of width 2 over time."""
    kernel = torch.stack([gates(p, "zfo", "p"), gates(p, "zfo", "x")], dim=2)
    padded = torch.nn.functional.pad(x.permute(1, 2, 0), (1, 0))
    z, f, o = torch.nn.functional.conv1d(padded, kernel, biases(p, "zfo")).permute(2, 0, 1).chunk(3, dim=2)
    return z, torch.sigmoid(f), torch.tanh(o)


def typed_gru(x: Tensor, p: Params) -> Tensor:
    """Balduzzi and Ghifary 2016, T-GRU."""
    z, f, o = _typed(x, p)
    h = torch.zeros_like(z[0])
    outputs = []
    for t in range(len(x)):
        h = torch.addcmul(f[t] * h, z[t], o[t])
        outputs.append(h)
    return torch.stack(outputs)


def typed_lstm(x: Tensor, p: Params) -> Tensor:
    """Balduzzi and Ghifary 2016, T-LSTM."""
    z, f, o = _typed(x, p)
    c = torch.zeros_like(z[0])
    outputs = []
    for t in range(len(x)):
        c = torch.lerp(z[t], c, f[t])
        outputs.append(c * o[t])
    return torch.stack(outputs)


# --- continuous time -------------------------------------------------------------------------------------------------


def cfc(x: Tensor, p: Params, *, dt: float = 1.0) -> Tensor:
    """Hasani et al. 2022: g and h mixed by sigmoid(-f t), the heads on one backbone with LeCun's tanh."""
    h = _zeros(x, len(p["b_g"]))
    heads = torch.cat([p[f"W_z{head}"] for head in "gkab"]), biases(p, "gkab")
    outputs = []
    for x_t in x:
        inner = linear(x_t, p["W_z"][:, : x.shape[2]], p["b_z"]) + linear(h, p["W_z"][:, x.shape[2] :])
        g, k, a, b = linear(1.7159 * torch.tanh(0.666 * inner), *heads).chunk(4, dim=1)
        h = torch.lerp(torch.tanh(g), torch.tanh(k), torch.sigmoid(a * dt + b))
        outputs.append(h)
    return torch.stack(outputs)


def ltc(x: Tensor, p: Params, *, unfolds: int = 6) -> Tensor:
    """Hasani et al. 2021, Algorithm 1, a fused step as (v tau + dt tau f A) / (tau + dt (1 + tau f))."""
    v = _zeros(x, len(p["tau"]))
    dt, tau = 1 / unfolds, p["tau"]
    outputs = []
    for x_t in x:
        for _ in range(unfolds):
            (inner,) = _joint(p, "f", "xh", x_t, v)
            f = torch.sigmoid(inner)
            v = (v * tau + dt * tau * f * p["A"]) / (tau + dt * (1 + tau * f))
        outputs.append(v)
    return torch.stack(outputs)


def ltc_synaptic(x: Tensor, p: Params, *, unfolds: int = 6) -> Tensor:
    """Hasani et al. 2021 as ncps has it: (batch, neuron, source) arrays, inputs and neurons as sources of one kind."""
    v = _zeros(x, len(p["c_m"]))
    weight, steep, middle, potential = (torch.cat([p[f"{k}_x"], p[f"{k}_h"]], dim=1) for k in "WSME")
    outputs = []
    for x_t in x:
        for _ in range(unfolds):
            sources = torch.cat([x_t, v], dim=1)[:, None, :]
            open_ = weight * torch.sigmoid(steep * (sources - middle))
            pulled = p["g"] * p["v_leak"] + (open_ * potential).sum(2)
            v = (unfolds * p["c_m"] * v + pulled) / (unfolds * p["c_m"] + p["g"] + open_.sum(2))
        outputs.append(v)
    return torch.stack(outputs)


def ode_rnn(x: Tensor, p: Params, *, dt: float = 0.01, steps: int = 2) -> Tensor:
    """Rubanova et al. 2019, Algorithm 1: an Euler solver, then a GRU that resets the state before the product."""
    h = _zeros(x, len(p["b_z"]))
    outputs = []
    for x_t in x:
        for _ in range(steps):
            h = h + dt / steps * linear(torch.tanh(linear(h, p["W_he"], p["b_e"])), p["W_eh"], p["b_d"])
        r, z = torch.sigmoid(torch.cat(_joint(p, "rz", "xh", x_t, h), dim=1)).chunk(2, dim=1)
        (n,) = _joint(p, "n", "xh", x_t, r * h)
        h = torch.lerp(torch.tanh(n), h, z)
        outputs.append(h)
    return torch.stack(outputs)


def gru_ode(x: Tensor, p: Params, *, dt: float = 0.1) -> Tensor:
    """De Brouwer et al. 2019: a step of Euler's method is a step of the GRU, gone dt of its way."""
    h = _zeros(x, len(p["b_z"]))
    outputs = []
    for x_t in x:
        r, z = torch.sigmoid(torch.cat(_joint(p, "rz", "xh", x_t, h), dim=1)).chunk(2, dim=1)
        (n,) = _joint(p, "n", "xh", x_t, r * h)
        h = torch.lerp(h, torch.lerp(torch.tanh(n), h, z), dt)
        outputs.append(h)
    return torch.stack(outputs)


def ctrnn(x: Tensor, p: Params, *, dt: float = 0.1, tau: float = 1.0) -> Tensor:
    """Beer 1995: the potential as the sum over all that came in, each fading by 1 - dt / tau a step."""
    keep = 1 - dt / tau
    rate = _zeros(x, len(p["b_h"]))
    currents: list[Tensor] = []
    outputs = []
    for t, x_t in enumerate(x):
        currents.extend(_joint(p, "h", "xh", x_t, rate))
        rate = torch.tanh(sum(dt / tau * keep ** (t - k) * current for k, current in enumerate(currents)))
        outputs.append(rate)
    return torch.stack(outputs)


def esn(x: Tensor, p: Params, *, alpha: float = 0.3) -> Tensor:
    """Lukosevicius 2012, eqs. 2-3."""
    h = _zeros(x, len(p["b_h"]))
    outputs = []
    for x_t in x:
        (inner,) = _joint(p, "h", "xh", x_t, h)
        h = torch.lerp(h, torch.tanh(inner), alpha)
        outputs.append(h)
    return torch.stack(outputs)


# --- clocks ----------------------------------------------------------------------------------------------------------


def phased_lstm(x: Tensor, p: Params, *, dt: float = 1.0, alpha: float = 0.001) -> Tensor:
    """Neil et al. 2016, eqs. 2-4 and 6-10, the phase from the time itself: ((t - s) mod tau) / tau."""
    h = c = _zeros(x, len(p["b_i"]))
    period = torch.exp(p["tau_log"])
    outputs = []
    for t, x_t in enumerate(x, start=1):
        i, f, g, o = _joint(p, "ifgo", "xh", x_t, h)
        i, f = torch.sigmoid(i + p["w_ci"] * c), torch.sigmoid(f + p["w_cf"] * c)
        proposed = f * c + i * torch.tanh(g)
        moved = torch.sigmoid(o + p["w_co"] * proposed) * torch.tanh(proposed)
        phase = torch.remainder(t * dt / period - p["shift"], 1.0)
        rising = 2 * phase / p["r_on"]
        openness = torch.where(phase < p["r_on"], torch.minimum(rising, 2 - rising), alpha * phase)
        c, h = torch.lerp(c, proposed, openness.expand_as(c)), torch.lerp(h, moved, openness.expand_as(h))
        outputs.append(h)
    return torch.stack(outputs)


def clockwork_rnn(x: Tensor, p: Params, *, periods: tuple[int, ...] = (1, 2, 4, 8)) -> Tensor:
    """Koutnik et al. 2014, eqs. 1-4: one block-upper-triangular matrix, and t mod T_j."""
    rows = [p[f"W_h{j}"] for j in (1, 2, 3, 4)]
    size = len(p["b_1"])
    recurrent = torch.cat([torch.nn.functional.pad(row, (j * size, 0)) for j, row in enumerate(rows)])
    into = torch.cat([p[f"W_x{j}"] for j in (1, 2, 3, 4)])
    bias = biases(p, "1234")
    every = torch.tensor(periods).repeat_interleave(size)
    h = _zeros(x, 4 * size)
    outputs = []
    for t, x_t in enumerate(x, start=1):
        h = torch.where(t % every == 0, torch.tanh(linear(x_t, into, bias) + linear(h, recurrent)), h)
        outputs.append(h)
    return torch.stack(outputs)


def dilated_rnn(x: Tensor, p: Params, *, dilation: int = 4) -> Tensor:
    """Chang et al. 2017: as many chains as the dilation has steps, each a plain RNN."""
    chains = [x[start::dilation] for start in range(dilation)]
    outputs: list[Any] = [None] * len(x)
    for start, chain in enumerate(chains):
        h = _zeros(x, len(p["b_h"]))
        for k, x_t in enumerate(chain):
            h = torch.tanh(torch.cat(_joint(p, "h", "xh", x_t, h)))
            outputs[start + k * dilation] = h
    return torch.stack(outputs)


def tau_gru(x: Tensor, p: Params, *, delay: int = 10) -> Tensor:
    """Erichson et al. 2022: the state of `delay` steps back, zero before the first."""
    states = [_zeros(x, len(p["b_u"]))]
    for t, x_t in enumerate(x):
        late = states[t + 1 - delay] if t + 1 >= delay else torch.zeros_like(states[0])
        u, g, a = _joint(p, "uga", "xh", x_t, states[-1])
        (v,) = _joint(p, "v", "xh", x_t, late)
        states.append(torch.lerp(states[-1], torch.addcmul(u.tanh(), a.sigmoid(), v.tanh()), g.sigmoid()))
    return torch.stack(states[1:])


def skip_gru(x: Tensor, p: Params) -> Tensor:
    """Campos et al. 2018, eqs. 2-6: u~ from 1, rounded forward, straight through backward."""
    h = _zeros(x, len(p["b_z"]))
    soft = torch.ones(x.shape[1], 1, dtype=x.dtype)
    outputs = []
    for x_t in x:
        hard = soft + (torch.round(soft) - soft).detach()
        r, z = torch.sigmoid(torch.cat(_joint(p, "rz", "xh", x_t, h), dim=1)).chunk(2, dim=1)
        (n,) = _joint(p, "n", "xh", x_t, r * h)
        h = torch.lerp(h, torch.lerp(h, torch.tanh(n), z), hard)
        more = torch.sigmoid(h @ p["w_p"][:, None] + p["b_p"])
        soft = hard * more + (1 - hard) * (soft + torch.minimum(more, 1 - soft))
        outputs.append(h)
    return torch.stack(outputs)


# --- the LSTM and its relatives --------------------------------------------------------------------------------------


def on_lstm(x: Tensor, p: Params) -> Tensor:
    """Shen et al. 2019, eqs. 9-14, the cumulative sum as a product with a triangular matrix of ones."""
    size = len(p["b_i"])
    below = torch.ones(size, size, dtype=x.dtype).triu()
    h = c = _zeros(x, size)
    outputs = []
    for x_t in x:
        i, f, g, o = _joint(p, "ifgo", "xh", x_t, h)
        master_f, master_i = (
            torch.softmax(
                linear(torch.cat([x_t, h], dim=1), torch.cat([p[f"W_x{m}"], p[f"W_h{m}"]], dim=1), p[f"b_{m}"]), dim=1
            )
            @ below
            for m in ("mf", "mi")
        )
        master_i = 1 - master_i
        keep = master_f * (f.sigmoid() * master_i + 1 - master_i)
        write = master_i * (i.sigmoid() * master_f + 1 - master_f)
        c = keep * c + write * g.tanh()
        h = o.sigmoid() * c.tanh()
        outputs.append(h)
    return torch.stack(outputs)


def wmc_lstm(x: Tensor, p: Params) -> Tensor:
    """Landi et al. 2021: tanh(W_c c) inside of every gate."""
    h = c = _zeros(x, len(p["b_i"]))
    outputs = []
    for x_t in x:
        i, f, g, o = _joint(p, "ifgo", "xh", x_t, h)
        seen_i, seen_f = torch.tanh(linear(c, gates(p, "if", "c"))).chunk(2, dim=1)
        c = torch.sigmoid(f + seen_f) * c + torch.sigmoid(i + seen_i) * torch.tanh(g)
        h = torch.sigmoid(o + torch.tanh(linear(c, p["W_co"]))) * torch.tanh(c)
        outputs.append(h)
    return torch.stack(outputs)


def time_lstm(x: Tensor, p: Params, *, elapsed: float = 1.0) -> Tensor:
    """Baytas et al. 2017, section 3.1: C* = C^T + C^S / log(e + elapsed), then an LSTM."""
    h = c = _zeros(x, len(p["b_i"]))
    outputs = []
    for x_t in x:
        short = torch.tanh(linear(c, p["W_cs"], p["b_s"]))
        long = c - short
        adjusted = long + short / math.log(math.e + elapsed)
        i, f, g, o = _joint(p, "ifgo", "xh", x_t, h)
        c = f.sigmoid() * adjusted + i.sigmoid() * g.tanh()
        h = o.sigmoid() * c.tanh()
        outputs.append(h)
    return torch.stack(outputs)


def _identity(a: Tensor) -> Tensor:
    return a


def _tanh(a: Tensor) -> Tensor:
    return a.tanh()


def _peephole_lstm(
    x: Tensor, p: Params, present: str = "ifgo", block: Elementwise = _tanh, out: Elementwise = _tanh
) -> Tensor:
    """Greff et al. 2017: the vanilla LSTM; a gate that is not among those `present` is 1."""
    h = c = _zeros(x, len(p["b_g"]))
    outputs = []
    for x_t in x:
        seen = dict(zip(present, _joint(p, present, "xh", x_t, h), strict=True))
        i, f = (torch.sigmoid(seen[k] + p[f"w_c{k}"] * c) if k in seen else torch.ones_like(c) for k in "if")
        c = f * c + i * block(seen["g"])
        o = torch.sigmoid(seen["o"] + p["w_co"] * c) if "o" in seen else torch.ones_like(c)
        h = o * out(c)
        outputs.append(h)
    return torch.stack(outputs)


def lstm_no_input_gate(x: Tensor, p: Params) -> Tensor:
    """Greff et al. 2017, NIG."""
    return _peephole_lstm(x, p, "fgo")


def lstm_no_output_gate(x: Tensor, p: Params) -> Tensor:
    """Greff et al. 2017, NOG."""
    return _peephole_lstm(x, p, "ifg")


def lstm_no_input_activation(x: Tensor, p: Params) -> Tensor:
    """Greff et al. 2017, NIAF."""
    return _peephole_lstm(x, p, block=_identity)


def lstm_no_output_activation(x: Tensor, p: Params) -> Tensor:
    """Greff et al. 2017, NOAF."""
    return _peephole_lstm(x, p, out=_identity)


def lstm_gate_recurrence(x: Tensor, p: Params) -> Tensor:
    """Greff et al. 2017, FGR: the gates of the last step join x and h in what the gates see."""
    size = len(p["b_g"])
    h = c = _zeros(x, size)
    last = _zeros(x, 3 * size)
    outputs = []
    for x_t in x:
        i, f, o = _joint(p, "ifo", "xhifo", x_t, h, last)
        (g,) = _joint(p, "g", "xh", x_t, h)
        i, f = torch.sigmoid(i + p["w_ci"] * c), torch.sigmoid(f + p["w_cf"] * c)
        c = f * c + i * torch.tanh(g)
        o = torch.sigmoid(o + p["w_co"] * c)
        last = torch.cat([i, f, o], dim=1)
        h = o * torch.tanh(c)
        outputs.append(h)
    return torch.stack(outputs)


def residual_lstm(x: Tensor, p: Params) -> Tensor:
    """Kim et al. 2017: the output gate over the projected cell and the shortcut."""
    h = c = _zeros(x, len(p["b_i"]))
    outputs = []
    for x_t in x:
        i, f, g, o = _joint(p, "ifgo", "xh", x_t, h)
        c = torch.sigmoid(f + p["w_cf"] * c) * c + torch.sigmoid(i + p["w_ci"] * c) * torch.tanh(g)
        both = linear(torch.cat([torch.tanh(c), x_t], dim=1), torch.cat([p["W_mh"], p["W_xh"]], dim=1))
        h = torch.sigmoid(o + p["w_co"] * c) * both
        outputs.append(h)
    return torch.stack(outputs)


def nested_lstm(x: Tensor, p: Params) -> Tensor:
    """Moniz and Krueger 2017: an LSTM's step in the place of the sum f c + i g."""
    h = c = inner = _zeros(x, len(p["b_i"]))
    matrices = gates(p, "ifgo", "uv")
    bias = torch.cat([p[f"b_{gate}e"] for gate in "ifgo"])
    outputs = []
    for x_t in x:
        i, f, g, o = _joint(p, "ifgo", "xh", x_t, h)
        joint = torch.cat([i.sigmoid() * g.tanh(), f.sigmoid() * c], dim=1)
        i, f, g, o_inner = linear(joint, matrices, bias).chunk(4, dim=1)
        inner = f.sigmoid() * inner + i.sigmoid() * g.tanh()
        c = o_inner.sigmoid() * inner.tanh()
        h = o.sigmoid() * c.tanh()
        outputs.append(h)
    return torch.stack(outputs)


def control_lstm(x: Tensor, p: Params) -> Tensor:
    """The LSTM with a control state, as torchrecurrent's MCLSTM has it."""
    v = c = _zeros(x, len(p["b_i"]))
    outputs = []
    for x_t in x:
        i, f, g, o, m = _joint(p, "ifgom", "xv", x_t, v)
        c = f.sigmoid() * c + i.sigmoid() * g.tanh()
        v, h = m.sigmoid() * c.tanh(), o.sigmoid() * c.tanh()
        outputs.append(h)
    return torch.stack(outputs)


def nas_cell(x: Tensor, p: Params) -> Tensor:
    """Zoph and Le 2017, figure 8: the tree, leaf by leaf, from two products."""
    from_x, from_h = (torch.cat([p[f"W_{column}{leaf}"] for leaf in range(8)]) for column in "xh")
    h = c = _zeros(x, len(p["W_h0"]))
    outputs = []
    for x_t in x:
        left, right = linear(x_t, from_x).chunk(8, dim=1), linear(h, from_h).chunk(8, dim=1)
        leaf = [a * b if k == 3 else a + b for k, (a, b) in enumerate(zip(left, right, strict=True))]
        first = [torch.sigmoid(leaf[k]) for k in (0, 2, 5, 7)]
        second = [torch.relu(leaf[1]), torch.relu(leaf[3]), torch.tanh(leaf[4]), torch.tanh(leaf[6])]
        nodes = [first[0] * second[0], first[1] + second[1], first[2] * second[2]]
        nodes = [*map(torch.tanh, nodes), torch.sigmoid(first[3] + second[3])]
        c = torch.tanh(nodes[0] + c) * nodes[1]
        h = torch.tanh(c * torch.tanh(nodes[2] + nodes[3]))
        outputs.append(h)
    return torch.stack(outputs)


def nru(x: Tensor, p: Params, *, heads: int = 4) -> Tensor:
    """Chandar et al. 2019 as the authors' code has it: all heads' vectors as one batched outer product."""
    size = 64
    h, m = _zeros(x, len(p["b_h"])), _zeros(x, size)
    outputs = []

    def vectors(joint: Tensor, left: str, right: str, weight: str) -> Tensor:
        a, b, by = (linear(joint, p[f"W_{k}"], p[f"b_{k}"]) for k in (left, right, weight))
        flat = torch.einsum("bi,bj->bij", a, b).reshape(-1, heads, size)
        return by[:, :, None] * torch.nn.functional.normalize(flat, p=5, dim=2)

    for x_t in x:
        h = torch.relu(linear(torch.cat([x_t, h, m], dim=1), p["W_h"], p["b_h"]))
        joint = torch.cat([h, m], dim=1)
        m = m + (vectors(joint, "p", "q", "alpha") - vectors(joint, "s", "r", "beta")).mean(1)
        outputs.append(h)
    return torch.stack(outputs)


# --- the GRU and its relatives ---------------------------------------------------------------------------------------


def _recurrent(x: Tensor, size: int, step: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
    """Return the states of ``h = step(x_t, h)`` from 0."""
    h = _zeros(x, size)
    outputs = []
    for x_t in x:
        h = step(x_t, h)
        outputs.append(h)
    return torch.stack(outputs)


def mut1(x: Tensor, p: Params) -> Tensor:
    """Jozefowicz et al. 2015, MUT1, on an embedded input."""

    def step(u: Tensor, h: Tensor) -> Tensor:
        z = torch.sigmoid(linear(u, p["W_uz"], p["b_z"]))
        (r,) = _joint(p, "r", "uh", u, h)
        return torch.lerp(h, torch.tanh(linear(r.sigmoid() * h, p["W_hn"], p["b_n"]) + torch.tanh(u)), z)

    return _recurrent(linear(x, p["W_xu"]), len(p["b_z"]), step)


def mut2(x: Tensor, p: Params) -> Tensor:
    """Jozefowicz et al. 2015, MUT2, on an embedded input."""

    def step(u: Tensor, h: Tensor) -> Tensor:
        r = torch.sigmoid(u + linear(h, p["W_hr"], p["b_r"]))
        (z,), (n,) = _joint(p, "z", "uh", u, h), _joint(p, "n", "uh", u, r * h)
        return torch.lerp(h, n.tanh(), z.sigmoid())

    return _recurrent(linear(x, p["W_xu"]), len(p["b_z"]), step)


def _reduced(p: Params, gate: str, h: Tensor) -> Tensor:
    """Return a gate that sees no input: of the state, of a bias, or of both, whichever of them there are."""
    recurrent, bias = p.get(f"W_h{gate}"), p.get(f"b_{gate}")
    seen = torch.zeros_like(h) if recurrent is None else h @ recurrent.T
    return torch.sigmoid(seen if bias is None else seen + bias)


def reduced_gru(x: Tensor, p: Params) -> Tensor:
    """Dey and Salem 2017, GRU1 to GRU3."""

    def step(x_t: Tensor, h: Tensor) -> Tensor:
        (n,) = _joint(p, "n", "xh", x_t, _reduced(p, "r", h) * h)
        return torch.lerp(h, torch.tanh(n), _reduced(p, "z", h))

    return _recurrent(x, len(p["b_n"]), step)


def reduced_mgu(x: Tensor, p: Params) -> Tensor:
    """Heck and Salem 2017, MGU1 to MGU3."""

    def step(x_t: Tensor, h: Tensor) -> Tensor:
        f = _reduced(p, "f", h)
        (n,) = _joint(p, "n", "xh", x_t, f * h)
        return torch.lerp(h, torch.tanh(n), f)

    return _recurrent(x, len(p["b_n"]), step)


def sgu(x: Tensor, p: Params) -> Tensor:
    """Gao and Glowacka 2016, SGU; with a matrix W_kn, DSGU."""

    def step(x_t: Tensor, h: Tensor) -> Tensor:
        k = torch.tanh((linear(x_t, p["W_xu"], p["b_u"]) * h) @ p["W_uk"].T)
        n = torch.sigmoid(linear(k * h, p["W_kn"])) if "W_kn" in p else torch.logaddexp(k * h, torch.zeros_like(h))
        (z,) = _joint(p, "z", "xh", x_t, h)
        return torch.lerp(h, n, torch.clamp(z / 6 + 0.5, 0, 1))

    return _recurrent(x, len(p["b_z"]), step)


def intersection_rnn(x: Tensor, p: Params) -> Tensor:
    """Collins et al. 2017, +RNN: the output y, as wide as the input."""
    h = _zeros(x, len(p["b_n"]))
    outputs = []
    for x_t in x:
        u, d = _joint(p, "ud", "xh", x_t, h)
        n, k = _joint(p, "nk", "xh", x_t, h)
        outputs.append(torch.lerp(torch.relu(u), x_t, d.sigmoid()))
        h = torch.lerp(n.tanh(), h, k.sigmoid())
    return torch.stack(outputs)


def light_ru(x: Tensor, p: Params) -> Tensor:
    """Ye et al. 2024: the candidates of all steps before the loop."""
    candidates = torch.tanh(linear(x, p["W_xn"], p["b_n"]))
    h = torch.zeros_like(candidates[0])
    outputs = []
    for x_t, n in zip(x, candidates, strict=True):
        (f,) = _joint(p, "f", "xh", x_t, h)
        h = torch.lerp(h, n, f.sigmoid())
        outputs.append(h)
    return torch.stack(outputs)


def sgrn(x: Tensor, p: Params) -> Tensor:
    """SGRN as torchrecurrent has it."""

    def step(u: Tensor, h: Tensor) -> Tensor:
        return torch.tanh(torch.lerp(u, h, torch.sigmoid(u + linear(h, p["W_hf"], p["b_f"]))))

    return _recurrent(linear(x, p["W_xf"], p["b_u"]), len(p["b_f"]), step)


def miru(x: Tensor, p: Params, *, keep: float = 0.5) -> Tensor:
    """MiRU1 as torchrecurrent has it."""

    def step(x_t: Tensor, h: Tensor) -> Tensor:
        (r,) = _joint(p, "r", "xh", x_t, h)
        (n,) = _joint(p, "n", "xh", x_t, r.sigmoid() * h)
        return torch.lerp(n.tanh(), h, keep)

    return _recurrent(x, len(p["b_n"]), step)


def mi_rnn(x: Tensor, p: Params) -> Tensor:
    """Wu et al. 2016, eq. 4: the input's share of the recurrent weights, (a u + b1), by itself."""

    def step(u: Tensor, h: Tensor) -> Tensor:
        return torch.tanh(torch.addcmul(p["b2"] * u + p["b_h"], p["a"] * u + p["b1"], linear(h, p["W_hh"])))

    return _recurrent(linear(x, p["W_xh"]), len(p["b_h"]), step)


def statistical_rnn(x: Tensor, p: Params) -> Tensor:
    """Oliva et al. 2017, eqs. 4-7: the averages of all scales as the weighted sums of features that they are."""
    scales = torch.tensor([0.0, 0.25, 0.5, 0.9, 0.99], dtype=x.dtype)
    size = len(p["b_f"])
    features: list[Tensor] = []
    averages = _zeros(x, 5 * size)
    outputs = []
    for t, x_t in enumerate(x):
        r = torch.relu(linear(averages, p["W_mr"], p["b_r"]))
        features.append(torch.relu(torch.cat(_joint(p, "f", "rx", r, x_t))))
        weights = torch.stack([(1 - scales) * scales ** (t - k) for k in range(t + 1)])
        averages = torch.einsum("ks,kbf->bsf", weights, torch.stack(features)).flatten(1)
        outputs.append(torch.relu(linear(averages, p["W_mh"], p["b_h"])))
    return torch.stack(outputs)


# --- spiking ---------------------------------------------------------------------------------------------------------


def _spikes(a: Tensor, smooth: Tensor) -> Tensor:
    """Return 1 for a > 0 and 0 else, with the slope of `smooth`."""
    return (a > 0).to(a.dtype) + smooth - smooth.detach()


def _arctangent(a: Tensor) -> Tensor:
    """Fang et al. 2021: the slope of arctan(pi a) / pi."""
    return _spikes(a, torch.atan(math.pi * a) / math.pi)


def _dampened_triangle(a: Tensor) -> Tensor:
    """Bellec et al. 2018: the slope 0.3 max(0, 1 - |a|), of a piece of a parabola."""
    cut = torch.clamp(a, -1, 1)
    return _spikes(a, 0.3 * (cut - cut * cut.abs() / 2))


def lif(x: Tensor, p: Params, *, beta: float = 0.9, threshold: float = 1.0) -> Tensor:
    """Eshraghian et al. 2023, eq. 4; with a matrix W_hh, recurrent."""
    currents = linear(x, p["W_xh"], p["b_h"])
    v = spikes = torch.zeros_like(currents[0])
    outputs = []
    for current in currents:
        if "W_hh" in p:
            current = current + spikes @ p["W_hh"].T
        v = beta * v + current - threshold * spikes.detach()
        spikes = _arctangent(v - threshold)
        outputs.append(spikes)
    return torch.stack(outputs)


def synaptic(x: Tensor, p: Params, *, alpha: float = 0.9, beta: float = 0.8, threshold: float = 1.0) -> Tensor:
    """snnTorch's Synaptic: the current as the fading sum of its inputs."""
    inputs = linear(x, p["W_xh"], p["b_h"])
    v = spikes = torch.zeros_like(inputs[0])
    outputs = []
    for t in range(len(x)):
        current = sum(alpha ** (t - k) * inputs[k] for k in range(t + 1))
        v = beta * v + current - threshold * spikes.detach()
        spikes = _arctangent(v - threshold)
        outputs.append(spikes)
    return torch.stack(outputs)


def plif(x: Tensor, p: Params, *, threshold: float = 1.0) -> Tensor:
    """Fang et al. 2021: charged by a learnt share of the way to the input, fired, set to 0."""
    inputs = linear(x, p["W_xh"], p["b_h"])
    v = torch.zeros_like(inputs[0])
    outputs = []
    for current in inputs:
        charged = torch.lerp(v, current, torch.sigmoid(p["w"]))
        spikes = _arctangent(charged - threshold)
        v = torch.where(spikes.detach() > 0, torch.zeros_like(charged), charged)
        outputs.append(spikes)
    return torch.stack(outputs)


def alif(
    x: Tensor,
    p: Params,
    *,
    tau: float = 20.0,
    tau_adaptation: float = 200.0,
    threshold: float = 0.01,
    beta: float = 1.6,
) -> Tensor:
    """Bellec et al. 2018: a threshold that the spikes of the past raise, and that was in force when one was fired."""
    decay, fade = math.exp(-1 / tau), math.exp(-1 / tau_adaptation)
    v = spikes = adaptation = _zeros(x, len(p["W_hh"]))
    bar = threshold + beta * adaptation
    outputs = []
    for x_t in x:
        current = linear(torch.cat([x_t, spikes], dim=1), gates(p, "h", "xh"))
        v = torch.lerp(current, v, decay) - bar * spikes
        adaptation = torch.lerp(spikes, adaptation, fade)
        bar = threshold + beta * adaptation
        spikes = _dampened_triangle(v / bar - 1)
        outputs.append(spikes)
    return torch.stack(outputs)


CELLS: dict[str, Layer] = {
    "alif": alif,
    "cfc": cfc,
    "clockwork-rnn": clockwork_rnn,
    "control-lstm": control_lstm,
    "ctrnn": ctrnn,
    "dilated-rnn": dilated_rnn,
    "dsgu": sgu,
    "esn": esn,
    "gru-ode": gru_ode,
    "gru1": reduced_gru,
    "gru2": reduced_gru,
    "gru3": reduced_gru,
    "hgrn": hgrn,
    "intersection-rnn": intersection_rnn,
    "lif": lif,
    "light-ru": light_ru,
    "lstm-gate-recurrence": lstm_gate_recurrence,
    "lstm-no-input-activation": lstm_no_input_activation,
    "lstm-no-input-gate": lstm_no_input_gate,
    "lstm-no-output-activation": lstm_no_output_activation,
    "lstm-no-output-gate": lstm_no_output_gate,
    "ltc": ltc,
    "ltc-synaptic": ltc_synaptic,
    "mgu1": reduced_mgu,
    "mgu2": reduced_mgu,
    "mgu3": reduced_mgu,
    "mi-rnn": mi_rnn,
    "mingru-log": mingru_log,
    "minlstm-log": minlstm_log,
    "miru": miru,
    "mut1": mut1,
    "mut2": mut2,
    "nas-cell": nas_cell,
    "nested-lstm": nested_lstm,
    "nru": nru,
    "ode-rnn": ode_rnn,
    "on-lstm": on_lstm,
    "phased-lstm": phased_lstm,
    "plif": plif,
    "residual-lstm": residual_lstm,
    "rg-lru": rg_lru,
    "rlif": lif,
    "sgrn": sgrn,
    "sgu": sgu,
    "skip-gru": skip_gru,
    "statistical-rnn": statistical_rnn,
    "synaptic": synaptic,
    "tau-gru": tau_gru,
    "time-lstm": time_lstm,
    "typed-gru": typed_gru,
    "typed-lstm": typed_lstm,
    "typed-rnn": typed_rnn,
    "wmc-lstm": wmc_lstm,
}
