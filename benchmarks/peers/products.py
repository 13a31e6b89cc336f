"""The matrix products alone: what no way of computing dL/dh_k in NumPy can do without.

For all steps at once V x, and for each step W h forward and W.T da backward, into arrays made beforehand.
"""

from __future__ import annotations

import numpy as np

from benchmarks.cases import Case, Numbers
from benchmarks.peers.peer import Peer

NAME = "NumPy, the products alone"
_GATES = {"rnn": 1, "lstm": 4, "gru": 3}


def products_peer(case: Case, numbers: Numbers) -> Peer:
    """Return the products that a case cannot do without; the numbers in them are drawn."""
    rows, hidden, batch, seq_len = (
        _GATES[case.cell] * case.hidden_size,
        case.hidden_size,
        case.batch_size,
        case.seq_len,
    )
    rng = np.random.default_rng(0)
    dtype = np.dtype(case.dtype)
    W = (rng.normal(size=(rows, hidden)) / hidden).astype(dtype)
    V = rng.normal(size=(rows, numbers.x.shape[1])).astype(dtype)
    W_T = np.ascontiguousarray(W.T)
    x = np.ascontiguousarray(numbers.x.swapaxes(0, 1).reshape(numbers.x.shape[1], -1))
    driven = np.empty((rows, x.shape[1]), dtype)
    h = rng.normal(size=(seq_len, hidden, batch)).astype(dtype)
    # Every step reads and writes memory of its own, as it must.
    a = np.empty((seq_len, rows, batch), dtype)
    steps = list(zip(h, a, strict=True))

    def run() -> None:
        np.dot(V, x, driven)
        for before, gates in steps:
            np.dot(W, before, gates)
        for before, gates in reversed(steps):
            np.dot(W_T, gates, before)

    return Peer(NAME, "no gradient", run)
