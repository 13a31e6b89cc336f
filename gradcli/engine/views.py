"""The same memory in other shapes: what the loops work on, as views of the buffers of a layer."""

from __future__ import annotations

from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]


def one_for_all(buffer: Array, steps: int) -> Array:
    """Return a view of (1, R, rows, B) as (steps, R, rows, B), in which all steps share the same memory."""
    return np.lib.stride_tricks.as_strided(buffer, (steps, *buffer.shape[1:]), (0, *buffer.strides[1:]))


def split_rows(buffer: Array, parts: int) -> Array:
    """Return a view of (n, R, rows, B) with the rows split into equal parts: (n, R, parts, rows / parts, B)."""
    if not parts:
        return buffer
    # Not reshape, which would copy a slice of rows.
    n, trials, rows, batch = buffer.shape
    step, trial, row, sequence = buffer.strides
    height = rows // parts
    return np.lib.stride_tricks.as_strided(
        buffer, (n, trials, parts, height, batch), (step, trial, row * height, row, sequence)
    )


def window_view(array: Array, steps: int) -> Array:
    """Return (n, 1, size, B) as (n - steps + 1, 1, steps * size, B): each step with those after it as one vector."""
    n, trials, size, batch = array.shape
    if trials != 1 or array.strides[0] != size * array.strides[2]:
        raise ValueError("the steps do not lie side by side")
    return np.lib.stride_tricks.as_strided(array, (n - steps + 1, 1, steps * size, batch), array.strides)
