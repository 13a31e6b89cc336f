"""JAX: cells whose state is a matrix, `lax.scan`, compiled, in two ways; what the input alone makes is made before.

With a perturbation of zero at every state (see `peers_jax`), whose gradient is an array of all steps. And by hand: the
states are kept, a second scan takes the vjp of one step after the other, and of each gradient the norm alone is kept.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from time import perf_counter
from typing import Any

import numpy as np

from benchmarks.cases import Case, Numbers
from benchmarks.peers.peer import Peer
from benchmarks.peers.peers_jax import NAME

STEP_BY_STEP = f"{NAME}, step by step"


@dataclass(frozen=True)
class _Recurrence:
    """A cell in JAX.

    states: what is carried. driven: (jax, parameters, x) -> a tuple of arrays (T, B, ...), made before the loop.
    step: (jax, states, driven) -> states. output: (jax, states, driven) -> h (B, H).
    unlike: the states that our equations take within the step that makes them, whose gradient is another therefore.
    """

    states: tuple[str, ...]
    driven: Callable[..., tuple[Any, ...]]
    step: Callable[..., tuple[Any, ...]]
    output: Callable[..., Any]
    unlike: frozenset[str] = frozenset()


def jax_matrix_peer(name: str, case: Case, numbers: Numbers) -> Peer:
    """Return one way's compiled function for the weights and the input of a case; it gives norms (T+1, B)."""
    jax: Any = import_module("jax")
    jax.config.update("jax_enable_x64", True)
    recurrence = RECURRENCES[case.cell]
    initial = tuple(np.moveaxis(numbers.initial[state], -1, 0) for state in recurrence.states)
    shaped = tuple(
        array.reshape(array.shape[0], case.hidden_size, -1) if state in "SC" else array
        for state, array in zip(recurrence.states, initial, strict=True)
    )
    arguments = jax.device_put((numbers.parameters, shaped, numbers.x.swapaxes(1, 2)))
    build = _perturbed if name == NAME else _step_by_step
    start = perf_counter()
    compiled = jax.jit(build(jax, recurrence)).lower(*arguments).compile()
    seconds = perf_counter() - start
    return Peer(
        name,
        "norms",
        lambda: jax.block_until_ready(compiled(*arguments)),
        lambda found: {
            state: np.asarray(norms)
            for state, norms in zip(recurrence.states, found, strict=True)
            if state not in recurrence.unlike
        },
        seconds,
    )


def _norm(jax: Any, array: Any, kept: int) -> Any:
    """Return the norm over all axes but the first ones."""
    return jax.numpy.sqrt((array**2).sum(tuple(range(kept, array.ndim))))


def _perturbed(jax: Any, recurrence: _Recurrence) -> Callable[..., Any]:
    def norms(parameters: Any, initial: Any, x: Any) -> Any:
        driven = recurrence.driven(jax, parameters, x)

        def loss(start: Any, perturbations: Any) -> Any:
            def body(states: Any, given: Any) -> Any:
                at_step, moved = given
                found = recurrence.step(jax, states, at_step)
                return tuple(state + change for state, change in zip(found, moved, strict=True)), None

            states, _ = jax.lax.scan(body, start, (driven, perturbations))
            return recurrence.output(jax, states, [array[-1] for array in driven]).sum()

        zeros = tuple(jax.numpy.zeros((len(x), *array.shape)) for array in initial)
        at_start, inside = jax.grad(loss, argnums=(0, 1))(initial, zeros)
        return tuple(
            jax.numpy.concatenate([_norm(jax, first, 1)[None], _norm(jax, rest, 2)])
            for first, rest in zip(at_start, inside, strict=True)
        )

    return norms


def _step_by_step(jax: Any, recurrence: _Recurrence) -> Callable[..., Any]:
    def norms(parameters: Any, initial: Any, x: Any) -> Any:
        driven = recurrence.driven(jax, parameters, x)
        last, before = jax.lax.scan(lambda s, d: (recurrence.step(jax, s, d), s), initial, driven)
        end = [array[-1] for array in driven]
        adjoint = jax.grad(lambda states: recurrence.output(jax, states, end).sum())(last)

        def back(adjoint: Any, kept: Any) -> Any:
            states, at_step = kept
            _, pull_back = jax.vjp(lambda s: recurrence.step(jax, s, at_step), states)
            (found,) = pull_back(adjoint)
            return found, tuple(_norm(jax, part, 1) for part in found)

        _, found = jax.lax.scan(back, adjoint, (before, driven), reverse=True)
        return tuple(
            jax.numpy.concatenate([rest, _norm(jax, first, 1)[None]])
            for first, rest in zip(adjoint, found, strict=True)
        )

    return norms


def _outer(a: Any, b: Any) -> Any:
    return a[:, :, None] * b[:, None, :]


def _times(jax: Any, matrix: Any, vector: Any) -> Any:
    return jax.numpy.einsum("bij,bj->bi", matrix, vector)


def _delta_driven(jax: Any, p: Any, x: Any) -> tuple[Any, ...]:
    jnp, silu = jax.numpy, jax.nn.silu

    def directed(name: str) -> Any:
        a = silu(x @ p[name].T)
        return a / jnp.maximum(jnp.linalg.norm(a, axis=-1, keepdims=True), 1e-6)

    beta = jax.nn.sigmoid(x @ p["w_xbeta"])
    alpha = jnp.exp(-jnp.exp(p["A_log"]) * jax.nn.softplus(x @ p["w_xdt"] + p["b_dt"]))
    return directed("W_xq"), directed("W_xk"), silu(x @ p["W_xv"].T), alpha[..., None], beta[..., None]


def _delta_step(jax: Any, states: Any, driven: Any) -> tuple[Any, ...]:
    (S,) = states
    _, k, v, alpha, beta = driven
    return (alpha[..., None] * S + beta[..., None] * _outer(v - alpha * _times(jax, S, k), k),)


def _selective_driven(jax: Any, p: Any, x: Any) -> tuple[Any, ...]:
    jnp = jax.numpy
    u = x @ p["W_xu"].T
    earlier = [jnp.concatenate([jnp.zeros_like(u[:lag]), u[:-lag]]) for lag in (1, 2, 3)]
    u = jax.nn.silu(sum(p[f"c_{lag}"] * part for lag, part in enumerate([u, *earlier])) + p["b_u"])
    dt = jax.nn.softplus((u @ p["W_ur"].T) @ p["W_rdt"].T + p["b_dt"])
    decay = jnp.exp(dt[..., None] * -jnp.exp(p["A_log"].reshape(dt.shape[-1], -1)))
    return u @ p["W_uB"].T, u @ p["W_uC"].T, dt * u, decay, p["D"] * u, jax.nn.silu(x @ p["W_xz"].T)


def _selective_step(jax: Any, states: Any, driven: Any) -> tuple[Any, ...]:
    (S,) = states
    B, _, drive, decay, _, _ = driven
    return (decay * S + _outer(drive, B),)


def _selective_output(jax: Any, states: Any, driven: Any) -> Any:
    _, C, _, _, skip, gate = driven
    return (_times(jax, states[0], C) + skip) * gate


def _matrix_lstm_driven(jax: Any, p: Any, x: Any) -> tuple[Any, ...]:
    def linear(gate: str) -> Any:
        return x @ p[f"W_x{gate}"].T + p[f"b_{gate}"]

    q, v, o = linear("q"), linear("v"), jax.nn.sigmoid(linear("o"))
    k = 0.125 * (x @ p["W_xk"].T) + p["b_k"]
    a_i, a_f = (x @ p[f"w_x{gate}"] + p[f"b_{gate}"] for gate in "if")
    return q, k, v, o, a_i[..., None], jax.nn.log_sigmoid(a_f)[..., None]


def _matrix_lstm_step(jax: Any, states: Any, driven: Any) -> tuple[Any, ...]:
    C, n, m = states
    _, k, v, _, a_i, log_f = driven
    largest = jax.numpy.maximum(log_f + m, a_i)
    f, i = jax.numpy.exp(log_f + m - largest), jax.numpy.exp(a_i - largest)
    return f[..., None] * C + i[..., None] * _outer(v, k), f * n + i * k, largest


def _matrix_lstm_output(jax: Any, states: Any, driven: Any) -> Any:
    C, n, m = states
    q, _, _, o, _, _ = driven
    below = jax.numpy.maximum(abs((n * q).sum(-1, keepdims=True)), jax.numpy.exp(-m))
    return o * _times(jax, C, q) / below


RECURRENCES = {
    "gated-deltanet": _Recurrence(
        ("S",), _delta_driven, _delta_step, lambda jax, states, driven: _times(jax, states[0], driven[0])
    ),
    "mamba": _Recurrence(("S",), _selective_driven, _selective_step, _selective_output),
    "matrix-lstm": _Recurrence(
        ("C", "n", "m"), _matrix_lstm_driven, _matrix_lstm_step, _matrix_lstm_output, frozenset({"m"})
    ),
}
