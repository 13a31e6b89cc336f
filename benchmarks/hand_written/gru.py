"""The GRU by hand, reset after the product. 12 calls a step forward, 4 backward.

Gates are stacked as r, z, n. The sigmoid is (1 + tanh(a/2))/2, with the 1/2 folded into the weights of r and z.
"""

from __future__ import annotations

import numpy as np

from benchmarks.cases import Numbers
from benchmarks.hand_written.arrays import Array, block_length, blocks, input_product, norms, stacked, transposed

_GATES = "rzn"
_HALVED = {"r": 0.5, "z": 0.5}


class GRU:
    """BPTT of `gru`."""

    def __init__(self, numbers: Numbers) -> None:
        p, self.x = numbers.parameters, numbers.x
        seq_len, (hidden, batch) = len(self.x), numbers.initial["h"].shape
        self.W = stacked(p, "W_h", _GATES, _HALVED)
        self.V = stacked(p, "W_x", _GATES, _HALVED)
        self.b = stacked(p, "b_", _GATES, _HALVED)
        self.b_hn = np.repeat(p["b_hn"][:, None], batch, axis=1)
        self.W_T = transposed(self.W)
        self.driven = np.empty((seq_len, 3 * hidden, batch))
        # The products of h: r and z in place become the gates, the third is n's before its reset.
        self.products = np.empty((seq_len, 3 * hidden, batch))
        self.n, self.kept = np.empty((2, seq_len, hidden, batch))  # kept is h_before - n
        self.h, self.dh = np.empty((2, seq_len + 1, hidden, batch))
        self.h[0] = numbers.initial["h"]
        self.block = block_length(seq_len, 4 * hidden * batch * 8)
        self.slope = np.empty((self.block, 3, hidden, batch))
        self.scratch = np.empty((self.block, hidden, batch))
        self.one_half = np.full((2 * hidden, batch), 0.5)
        self.da = np.empty((3, hidden, batch))
        self.step = np.empty((hidden, batch))
        self.r, self.z, self.h_n = self.products.reshape(seq_len, 3, hidden, batch).swapaxes(0, 1)
        rz = slice(0, 2 * hidden)
        self.forward_views = list(
            zip(
                *(self.h[:-1], self.products, self.products[:, rz], self.driven[:, rz], self.driven[:, 2 * hidden :]),
                *(self.r, self.z, self.h_n, self.n, self.kept, self.h[1:]),
                strict=True,
            )
        )
        self.dh_views, self.z_views, self.slope_views = list(self.dh), list(self.z), list(self.slope)

    def run(self) -> dict[str, Array]:
        input_product(self.V, self.x, self.b, self.driven)
        self._forward()
        self.dh_views[-1].fill(1.0)
        for lo, hi in blocks(len(self.x), self.block):
            self._coefficients(lo, hi)
            self._backward(lo, hi)
        return {"h": norms(self.dh)}

    def _forward(self) -> None:
        W, b_hn, half, step = self.W, self.b_hn, self.one_half, self.step
        for before, products, rz, driven_rz, driven_n, r, z, h_n, n, kept, h in self.forward_views:
            np.dot(W, before, products)
            np.add(rz, driven_rz, rz)
            np.tanh(rz, rz)
            np.multiply(rz, half, rz)
            np.add(rz, half, rz)
            np.add(h_n, b_hn, h_n)
            np.multiply(r, h_n, n)
            np.add(n, driven_n, n)
            np.tanh(n, n)
            np.subtract(before, n, kept)
            np.multiply(z, kept, step)
            np.add(n, step, h)

    def _coefficients(self, lo: int, hi: int) -> None:
        """Compute what dh is multiplied with, on its way to each of the three products of h."""
        r, z, n, h_n = (a[lo:hi] for a in (self.r, self.z, self.n, self.h_n))
        scratch = self.scratch[: hi - lo]
        into_r, into_z, into_n = self.slope[: hi - lo].swapaxes(0, 1)
        np.square(n, scratch)
        np.subtract(1.0, scratch, scratch)
        np.subtract(1.0, z, into_z)
        np.multiply(scratch, into_z, scratch)  # dh to n's pre-activation: (1 - z)(1 - n^2)
        np.multiply(scratch, r, into_n)
        np.subtract(2.0, np.multiply(r, 2.0, into_r), into_r)  # 2 (1 - r): the weights hold the other half
        np.multiply(into_r, into_n, into_r)
        np.multiply(into_r, h_n, into_r)
        np.multiply(into_z, z, into_z)
        np.multiply(into_z, self.kept[lo:hi], into_z)
        np.multiply(into_z, 2.0, into_z)

    def _backward(self, lo: int, hi: int) -> None:
        W_T, da, step = self.W_T, self.da, self.step
        flat = da.reshape(-1, da.shape[2])
        for t in range(hi, lo, -1):
            dh, before = self.dh_views[t], self.dh_views[t - 1]
            np.multiply(dh, self.slope_views[t - 1 - lo], da)
            np.dot(W_T, flat, before)
            np.multiply(dh, self.z_views[t - 1], step)
            np.add(before, step, before)
