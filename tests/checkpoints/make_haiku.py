"""Writes the checkpoints of Haiku, haiku-*.npz, and what Haiku makes of them.

<stem>.expected.npz: x (T, B, I) and v, the framework's outputs y (T, B, H), "grad.<tensor>" of the core's tensors, and
"state.forward.h", dL/dh_t at every step 0..T, for L = the sum over sequences of v . y at the last step.

    python make_haiku.py
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import haiku as hk
import jax
import jax.numpy as jnp
import numpy as np

jax.config.update("jax_enable_x64", True)

FOLDER = Path(__file__).parent
SEQ_LEN, BATCH_SIZE, INPUT_SIZE, HIDDEN_SIZE = 6, 2, 3, 4


class Network(hk.Module):
    """A module that keeps an embedding, a core and a linear head, as models do."""

    def __init__(self) -> None:
        super().__init__(name="network")
        self.embed = hk.Embed(9, INPUT_SIZE)
        self.core = hk.LSTM(HIDDEN_SIZE)
        self.head = hk.Linear(5)


def core_of(what: str) -> Any:
    """Return a core, made inside a transformed function."""
    match what:
        case "vanilla-rnn":
            return hk.VanillaRNN(HIDDEN_SIZE)
        case "vanilla-rnn-one-bias":
            return hk.VanillaRNN(HIDDEN_SIZE, double_bias=False)
        case "lstm":
            return hk.LSTM(HIDDEN_SIZE)
        case "gru":
            return hk.GRU(HIDDEN_SIZE)
    network = Network()
    network.head(network.embed(jnp.zeros((1,), jnp.int32)) @ jnp.zeros((INPUT_SIZE, HIDDEN_SIZE)))
    return network.core


def write(what: str) -> None:
    rng = np.random.default_rng(sum(map(ord, what)))

    def step(x: jax.Array, state: Any) -> Any:
        return core_of(what)(x, state)

    size = (BATCH_SIZE, HIDDEN_SIZE)
    has_c = what in ("lstm", "model")
    start = hk.LSTMState(jnp.zeros(size), jnp.zeros(size)) if has_c else jnp.zeros(size)
    transformed = hk.without_apply_rng(hk.transform(step))
    x = rng.normal(size=(SEQ_LEN, BATCH_SIZE, INPUT_SIZE))
    params = transformed.init(jax.random.key(0), x[0], start)
    params = jax.tree.map(lambda p: jnp.asarray(0.6 * rng.normal(size=p.shape)), params)
    v = rng.normal(size=HIDDEN_SIZE)

    def unrolled(params: Any, added: Any) -> tuple[jax.Array, jax.Array]:
        """Return L and y; what is `added` to the states after each step is zero, and its gradient is the state's."""
        state, outputs = jax.tree.map(lambda s, a: s + a[0], start, added), []
        for t in range(SEQ_LEN):
            output, state = transformed.apply(params, x[t], state)
            state = jax.tree.map(lambda s, a, t=t: s + a[t + 1], state, added)
            outputs.append(output)
        hidden = state.hidden if isinstance(state, hk.LSTMState) else state
        return (v * hidden).sum(), jnp.stack(outputs)

    zeros = jax.tree.map(lambda s: jnp.zeros((SEQ_LEN + 1, *s.shape)), start)
    (of_params, of_states), y = jax.grad(unrolled, argnums=(0, 1), has_aux=True)(params, zeros)
    flat = {f"{module}/{name}": np.asarray(p) for module, table in params.items() for name, p in table.items()}
    gradients = {
        f"grad.{module}/{name}": np.asarray(g)
        for module, table in of_params.items()
        for name, g in table.items()
        if np.any(g)
    }
    of_h = of_states.hidden if isinstance(of_states, hk.LSTMState) else of_states
    np.savez(FOLDER / f"haiku-{what}.npz", **flat)
    np.savez_compressed(
        FOLDER / f"haiku-{what}.expected.npz",
        x=x,
        v=v,
        y=y,
        every=np.array(False),
        **gradients,
        **{"state.forward.h": np.asarray(of_h)},
    )


if __name__ == "__main__":
    for name in ("vanilla-rnn", "vanilla-rnn-one-bias", "lstm", "gru", "model"):
        write(name)
