"""JAX: the Jacobians dS_T/dS_{T-d} at all distances, S = (h, c), compiled, in two ways.

`jax.jacrev` of the whole recurrence in a perturbation of zero at every state gives them all as one array. By hand, n
cotangents are taken through the vjp of one step after the other, and each product is looked at and dropped.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from time import perf_counter
from typing import Any

import numpy as np

from benchmarks.cases import Case, Numbers
from benchmarks.peers.peer import Peer
from benchmarks.peers.peers_jax import NAME, STEPS, arguments_of

JACREV, STEP_BY_STEP = f"{NAME}, jacrev", f"{NAME}, step by step"


def jax_jacobians(name: str, case: Case, numbers: Numbers) -> Peer:
    """Return the compiled function for one sequence; step by step it gives ||dS_T/dS_{T-d}||_F by distance."""
    jax: Any = import_module("jax")
    jax.config.update("jax_enable_x64", True)
    arguments = jax.device_put(arguments_of(case.cell, numbers))
    build, gives = _WAYS[name]
    start = perf_counter()
    compiled = jax.jit(build(jax, case)).lower(*arguments).compile()
    seconds = perf_counter() - start
    norms = (lambda found: {"J": np.asarray(found)[:, None]}) if name == STEP_BY_STEP else None
    return Peer(name, gives, lambda: jax.block_until_ready(compiled(*arguments)), norms, seconds)


def _whole(jax: Any, case: Case) -> Callable[..., Any]:
    jnp: Any = jax.numpy
    step, size = STEPS[case.cell], case.hidden_size

    def jacobians(weights: Any, initial: Any, x: Any) -> Any:
        W_x, W_h, b, b_hn = weights

        def last(start: Any, perturbations: Any) -> Any:
            def body(state: Any, driven_and_perturbation: Any) -> Any:
                driven, perturbation = driven_and_perturbation
                return step(jax, state, driven, perturbation, W_h, b_hn), None

            state, _ = jax.lax.scan(body, start, (x @ W_x + b, perturbations))
            return jnp.concatenate([part[0] for part in state])

        zeros = tuple(jnp.zeros((case.seq_len, 1, size)) for _ in initial)
        return jax.jacrev(last, argnums=(0, 1))(initial, zeros)

    return jacobians


def _step_by_step(jax: Any, case: Case) -> Callable[..., Any]:
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


_WAYS: dict[str, tuple[Callable[[Any, Case], Callable[..., Any]], str]] = {
    JACREV: (_whole, "all Jacobians as one array"),
    STEP_BY_STEP: (_step_by_step, "the norms of all products"),
}
