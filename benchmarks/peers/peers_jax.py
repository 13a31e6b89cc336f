"""JAX: `lax.scan`, compiled. A perturbation of zero is added to every state; L's gradient in it is dL/ds_t."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from time import perf_counter
from typing import Any

import numpy as np

from benchmarks.cases import Case, Numbers
from benchmarks.peers.peer import Peer

NAME = "JAX, compiled"
_GATES = {"rnn": "h", "lstm": "ifgo", "gru": "rzn"}
_STATES = {"rnn": ("h",), "lstm": ("h", "c"), "gru": ("h",)}


def jax_peer(case: Case, numbers: Numbers) -> Peer:
    """Return the compiled function for the weights and the input of a case."""
    jax: Any = import_module("jax")
    jax.config.update("jax_enable_x64", True)
    states = _STATES[case.cell]
    arguments = jax.device_put(arguments_of(case.cell, numbers))
    start = perf_counter()
    compiled = jax.jit(_norms_function(jax, case, states)).lower(*arguments).compile()
    seconds = perf_counter() - start
    return Peer(
        NAME,
        "norms",
        lambda: jax.block_until_ready(compiled(*arguments)),
        lambda found: {name: np.asarray(norms) for name, norms in zip(states, found, strict=True)},
        seconds,
    )


def arguments_of(cell: str, numbers: Numbers) -> tuple[Any, ...]:
    """Return stacked weights (W_x.T, W_h.T, b, b_hn), initial states (B, H), and x (T, B, I)."""
    p, gates = numbers.parameters, _GATES[cell]
    W_x, W_h, b = (np.concatenate([p[f"{prefix}{g}"] for g in gates]) for prefix in ("W_x", "W_h", "b_"))
    weights = (W_x.T, W_h.T, b, p.get("b_hn", np.zeros(1, b.dtype)))
    initial = tuple(numbers.initial[s].T for s in _STATES[cell])
    return weights, initial, numbers.x.swapaxes(1, 2)


def _norms_function(jax: Any, case: Case, states: tuple[str, ...]) -> Callable[..., Any]:
    jnp: Any = jax.numpy
    step = STEPS[case.cell]

    def loss(initial: Any, perturbations: Any, weights: Any, x: Any) -> Any:
        W_x, W_h, b, b_hn = weights

        def body(state: Any, driven_and_perturbation: Any) -> Any:
            driven, perturbation = driven_and_perturbation
            return step(jax, state, driven, perturbation, W_h, b_hn), None

        last, _ = jax.lax.scan(body, initial, (x @ W_x + b, perturbations))
        return last[0].sum()

    def norms(weights: Any, initial: Any, x: Any) -> Any:
        shape = (case.seq_len, case.batch_size, case.hidden_size)
        zeros = tuple(jnp.zeros(shape, case.dtype) for _ in states)
        at_start, inside = jax.grad(loss, argnums=(0, 1))(initial, zeros, weights, x)
        return [
            jnp.linalg.norm(jnp.concatenate([first[None], rest]), axis=2)
            for first, rest in zip(at_start, inside, strict=True)
        ]

    return norms


def _rnn(jax: Any, state: Any, driven: Any, perturbation: Any, W_h: Any, b_hn: Any) -> Any:
    return (jax.numpy.tanh(driven + state[0] @ W_h) + perturbation[0],)


def _lstm(jax: Any, state: Any, driven: Any, perturbation: Any, W_h: Any, b_hn: Any) -> Any:
    h, c = state
    i, f, g, o = jax.numpy.split(driven + h @ W_h, 4, axis=1)
    sigmoid, tanh = jax.nn.sigmoid, jax.numpy.tanh
    c = sigmoid(f) * c + sigmoid(i) * tanh(g) + perturbation[1]
    return sigmoid(o) * tanh(c) + perturbation[0], c


def _gru(jax: Any, state: Any, driven: Any, perturbation: Any, W_h: Any, b_hn: Any) -> Any:
    (h,) = state
    r_x, z_x, n_x = jax.numpy.split(driven, 3, axis=1)
    r_h, z_h, n_h = jax.numpy.split(h @ W_h, 3, axis=1)
    r, z = jax.nn.sigmoid(r_x + r_h), jax.nn.sigmoid(z_x + z_h)
    n = jax.numpy.tanh(n_x + r * (n_h + b_hn))
    return ((1 - z) * n + z * h + perturbation[0],)


STEPS: dict[str, Callable[..., Any]] = {"rnn": _rnn, "lstm": _lstm, "gru": _gru}
