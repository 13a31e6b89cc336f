"""The states before the first step."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from gradcli.sources.exact_values import exact_view
from gradcli.sources.streams import stream
from gradcli.spec.base import Choice
from gradcli.spec.initialisers import Exact, NormalState, UniformState, Zeros

DRAWS: dict[type[Choice], Callable[[Any, np.random.Generator, tuple[int, ...]], np.ndarray]] = {
    Zeros: lambda law, rng, shape: np.zeros(shape),
    NormalState: lambda law, rng, shape: rng.normal(law.mean, law.std, shape),
    UniformState: lambda law, rng, shape: rng.uniform(-law.bound, law.bound, shape),
}
"""The laws of anything drawn anew for every sequence: initial states, and the targets of mse."""


def draw_initial_state(
    model: Choice, *, layer: str, state: str, shape: tuple[int, ...], batch_size: int, trials: int, seed: int
) -> np.ndarray:
    """Return a state before the first step: float64 (trials, size, batch), a matrix row by row.

    Exact values are one number, one array of the state's shape for all sequences, or one for each: (batch, *shape).

    Raises InitialiserError where exact values have another shape.
    """
    size = math.prod(shape)
    if isinstance(model, Exact):
        values = exact_view(model.values, shape, count=batch_size).reshape(batch_size, size)
        return np.ascontiguousarray(np.broadcast_to(values.T, (trials, size, batch_size)))
    draw = DRAWS[type(model)]
    return np.stack(
        [draw(model, stream(seed, "initial_state", layer, state, trial), (size, batch_size)) for trial in range(trials)]
    )
