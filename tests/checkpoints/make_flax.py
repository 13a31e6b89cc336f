"""Writes the checkpoints of Flax, flax-*.npz and .safetensors, and what Flax makes of them.

<stem>.expected.npz: x (T, B, I) and v, the framework's outputs y (T, B, ...), "grad.<tensor>" of the checkpoint, and
"state.forward.h", dL/dh_t at every step 0..T, for L = the sum over sequences of v . y at the last step, or at
every step where `every` is true. Names are joined by "/" in the .npz and by "." in the .safetensors; the expected
gradients have those of the .npz. A Bidirectional has no state gradients.

    python make_flax.py
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen, nnx
from flax.traverse_util import flatten_dict, unflatten_dict
from safetensors.numpy import save_file

jax.config.update("jax_enable_x64", True)

FOLDER = Path(__file__).parent
SEQ_LEN, BATCH_SIZE, INPUT_SIZE, HIDDEN_SIZE = 6, 2, 3, 4

Flat = dict[str, jax.Array]
#: (parameters, carry, x_t) -> carry, output
Step = Callable[[Flat, Any, jax.Array], tuple[Any, jax.Array]]


def drawn(like: Mapping[tuple[Any, ...], Any], rng: np.random.Generator) -> Flat:
    """Return random parameters of the shapes of those given, by name, the parts of it joined by "/"."""
    return {"/".join(map(str, key)): jnp.asarray(0.6 * rng.normal(size=value.shape)) for key, value in like.items()}


def parted(flat: Flat) -> dict[Any, Any]:
    nested: dict[Any, Any] = unflatten_dict({tuple(key.split("/")): value for key, value in flat.items()})
    return nested


def linen_step(cell: linen.RNNCellBase) -> tuple[Any, Step]:
    shapes = cell.init(
        jax.random.key(0),
        cell.initialize_carry(jax.random.key(0), (BATCH_SIZE, INPUT_SIZE)),
        jnp.zeros((BATCH_SIZE, INPUT_SIZE)),
    )
    return flatten_dict(shapes), lambda flat, carry, x: cell.apply(parted(flat), carry, x)


def nnx_step(cell: Any) -> tuple[Any, Step]:
    graph, state = nnx.split(cell, nnx.Param)

    def step(flat: Flat, carry: Any, x: jax.Array) -> tuple[Any, jax.Array]:
        nnx.replace_by_pure_dict(state, parted(flat))
        return nnx.merge(graph, state)(carry, x)

    return flatten_dict(nnx.to_pure_dict(state)), step


def save(what: str, flat: Flat, gradients: Flat, expected: dict[str, Any], prefix: str) -> None:
    tensors = {prefix + name: np.asarray(value) for name, value in flat.items()}
    np.savez(FOLDER / f"flax-{what}.npz", **tensors)
    save_file({name.replace("/", "."): value for name, value in tensors.items()}, FOLDER / f"flax-{what}.safetensors")
    arrays = {key: np.asarray(value) for key, value in expected.items()}
    arrays |= {f"grad.{prefix}{name}": np.asarray(value) for name, value in gradients.items()}
    np.savez_compressed(FOLDER / f"flax-{what}.expected.npz", **arrays)


def write_cell(what: str, shapes: Any, step: Step, *, with_c: bool, prefix: str = "") -> None:
    """Write a cell, as it stands under a prefix in a larger model."""
    rng = np.random.default_rng(sum(map(ord, what)))
    flat, v = drawn(shapes, rng), rng.normal(size=HIDDEN_SIZE)
    x = rng.normal(size=(SEQ_LEN, BATCH_SIZE, INPUT_SIZE))
    zeros = jnp.zeros((SEQ_LEN + 1, BATCH_SIZE, HIDDEN_SIZE))
    # Flax's LSTMs carry (c, h).
    added = (zeros, zeros) if with_c else zeros

    def unrolled(flat: Flat, added: Any) -> tuple[jax.Array, jax.Array]:
        """Return L and y; what is `added` to the states after each step is zero, and its gradient is the state's."""
        carry, outputs = jax.tree.map(lambda a: a[0], added), []
        for t in range(SEQ_LEN):
            carry, output = step(flat, carry, x[t])
            carry = jax.tree.map(lambda s, a, t=t: s + a[t + 1], carry, added)
            outputs.append(output)
        return (v * (carry[1] if with_c else carry)).sum(), jnp.stack(outputs)

    (of_flat, of_states), y = jax.grad(unrolled, argnums=(0, 1), has_aux=True)(flat, added)
    of_h = of_states[1] if with_c else of_states
    save(what, flat, of_flat, {"x": x, "v": v, "y": y, "every": False, "state.forward.h": of_h}, prefix)


def write_both_ways(what: str, cells: Callable[[], Any], *, is_nnx: bool) -> None:
    """Write a Bidirectional, and what comes of it as a whole."""
    rng = np.random.default_rng(sum(map(ord, what)))
    x = rng.normal(size=(SEQ_LEN, BATCH_SIZE, INPUT_SIZE))
    model = cells()
    if is_nnx:
        graph, state, rest = nnx.split(model, nnx.Param, ...)
        shapes = flatten_dict(nnx.to_pure_dict(state))

        def apply(flat: Flat) -> jax.Array:
            nnx.replace_by_pure_dict(state, parted(flat))
            return nnx.merge(graph, state, rest, copy=True)(jnp.asarray(x), time_major=True)
    else:
        shapes = flatten_dict(model.init(jax.random.key(0), jnp.asarray(x), time_major=True))

        def apply(flat: Flat) -> jax.Array:
            return model.apply(parted(flat), jnp.asarray(x), time_major=True)

    flat, v = drawn(shapes, rng), rng.normal(size=2 * HIDDEN_SIZE)

    def loss(flat: Flat) -> tuple[jax.Array, jax.Array]:
        y = apply(flat)
        return (v * y).sum(), y

    gradients, y = jax.grad(loss, has_aux=True)(flat)
    save(what, flat, gradients, {"x": x, "v": v, "y": y, "every": True}, "")


def main() -> None:
    for name in ("LSTMCell", "OptimizedLSTMCell", "GRUCell", "SimpleCell", "MGUCell"):
        with_c = "LSTM" in name
        cell = getattr(linen, name)(HIDDEN_SIZE, param_dtype=jnp.float64)
        write_cell(f"linen-{name}", *linen_step(cell), with_c=with_c)
        if name != "MGUCell":
            kwargs = {"dtype": jnp.float64, "param_dtype": jnp.float64, "rngs": nnx.Rngs(0)}
            cell = getattr(nnx, name)(INPUT_SIZE, HIDDEN_SIZE, **kwargs)
            write_cell(f"nnx-{name}", *nnx_step(cell), with_c=with_c, prefix="encoder/rnn/cell/")
    cell = linen.MGUCell(HIDDEN_SIZE, param_dtype=jnp.float64, reset_gate=False)
    write_cell("linen-MGUCell-no-reset", *linen_step(cell), with_c=False)

    def both_nnx() -> nnx.Bidirectional:
        rngs = nnx.Rngs(0)
        forward, backward = (
            nnx.RNN(nnx.GRUCell(INPUT_SIZE, HIDDEN_SIZE, param_dtype=jnp.float64, rngs=rngs), rngs=rngs)
            for _ in range(2)
        )
        return nnx.Bidirectional(forward, backward, rngs=rngs)

    def both_linen() -> linen.Bidirectional:
        forward, backward = (linen.RNN(linen.OptimizedLSTMCell(HIDDEN_SIZE, param_dtype=jnp.float64)) for _ in range(2))
        return linen.Bidirectional(forward, backward)

    write_both_ways("nnx-Bidirectional", both_nnx, is_nnx=True)
    write_both_ways("linen-Bidirectional", both_linen, is_nnx=False)


if __name__ == "__main__":
    main()
