"""What all hand-written loops share: the input product, blocks of the backward pass, and the norms at the end.

Arrays over steps are (T, rows, B), feature-major, so that a step is `np.dot(W, h, out)` on contiguous matrices.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Protocol

import numpy as np

Array = np.ndarray[Any, Any]

#: The coefficients of a block of steps take about so many bytes, which stay in the cache until they are used.
_BLOCK_BYTES = 2**19


class HandWritten(Protocol):
    """A loop with its buffers; `run` returns the norm of dL/ds_t of each state for L = sum of h_T, (T+1, B)."""

    def run(self) -> dict[str, Array]: ...


def stacked(parameters: dict[str, Array], prefix: str, gates: str, scale: dict[str, float] | None = None) -> Array:
    """Return the parameters of some gates, one under the other, each times its scale (1 unless given)."""
    return np.concatenate([(scale or {}).get(gate, 1.0) * parameters[f"{prefix}{gate}"] for gate in gates])


def transposed(matrix: Array) -> Array:
    """Return the transpose in an order that BLAS reads row by row."""
    return np.ascontiguousarray(matrix.T)


def input_product(W: Array, x: Array, b: Array, out: Array) -> None:
    """Compute W x_t + b for all steps at once: x is (T, I, B), out (T, rows, B)."""
    if x.shape[2] == 1:
        np.dot(x[:, :, 0], W.T, out[:, :, 0])  # one product; a batch would come out in the wrong order
    else:
        np.matmul(W, x, out)
    out += b[:, None]


def block_length(seq_len: int, step_bytes: int) -> int:
    """Return how many steps of coefficients are computed at once."""
    return max(1, min(seq_len, _BLOCK_BYTES // step_bytes))


def blocks(seq_len: int, length: int) -> Iterator[tuple[int, int]]:
    """Yield the bounds of blocks of steps, from the last block to the first.

    >>> list(blocks(10, 4))
    [(6, 10), (2, 6), (0, 2)]
    """
    for hi in range(seq_len, 0, -length):
        yield max(hi - length, 0), hi


def norms(adjoints: Array) -> Array:
    """Return the Euclidean norm over the features, (T+1, B)."""
    return np.asarray(np.sqrt(np.einsum("tib,tib->tb", adjoints, adjoints)))
