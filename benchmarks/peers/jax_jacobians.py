"""JAX: the Jacobians dS_T/dS_{T-d} at all distances, S = (h, c), by n cotangents through the vjp of every step."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from time import perf_counter
from typing import Any

import numpy as np

from benchmarks.cases import Case, Numbers
from benchmarks.peers.peer import Peer
from benchmarks.peers.peers_jax import NAME, STEPS, arguments_of


def jax_jacobians(case: Case, numbers: Numbers) -> Peer:
    """Return the compiled function for one sequence: ||dS_T/dS_{T-d}||_F at the distances 0 .. T."""
    jax: Any = import_module("jax")
    jax.config.update("jax_enable_x64", True)
    arguments = jax.device_put(arguments_of(case.cell, numbers))
    start = perf_counter()
    compiled = jax.jit(_norms_function(jax, case)).lower(*arguments).compile()
    seconds = perf_counter() - start
    return Peer(
        NAME,
        "Jacobians",
        lambda: jax.block_until_ready(compiled(*arguments)),
        lambda found: {"J": np.asarray(found)[:, None]},
        seconds,
    )


def _norms_function(jax: Any, case: Case) -> Callable[..., Any]:
    jnp: Any = jax.numpy
    step, size = STEPS[case.cell], case.hidden_size

    def norms(weights: Any, initial: Any, x: Any) -> Any:
        W_x, W_h, b, b_hn = weights
        nothing = tuple(jnp.zeros((1, size)) for _ in initial)

        def one(state: Any, driven: Any) -> Any:
            return step(jax, state, driven, nothing, W_h, b_hn)

        driven = x @ W_x + b
        _, before = jax.lax.scan(lambda state, drive: (one(state, drive), state), initial, driven)

        def back(cotangents: Any, kept: Any) -> Any:
            state, drive = kept
            _, pull_back = jax.vjp(lambda s: one(s, drive), state)
            (found,) = jax.vmap(pull_back)(cotangents)
            return found, jnp.sqrt(sum((part**2).sum() for part in found))

        n = size * len(initial)
        rows = jnp.eye(n).reshape(n, len(initial), 1, size)
        start = tuple(rows[:, i] for i in range(len(initial)))
        _, found = jax.lax.scan(back, start, (before, driven), reverse=True)
        return jnp.concatenate([jnp.sqrt(jnp.full(1, float(n))), found[::-1]])

    return norms
