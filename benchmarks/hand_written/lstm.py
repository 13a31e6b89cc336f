"""The LSTM by hand. 10 calls a step forward, 6 backward.

Gates are stacked as o, i, f, g: the three sigmoids lie together, and so do the three that act on c. The sigmoid is
(1 + tanh(a/2))/2, with the 1/2 folded into the weights, so that one tanh serves all gates.
"""

from __future__ import annotations

import numpy as np

from benchmarks.cases import Numbers
from benchmarks.hand_written.arrays import Array, block_length, blocks, input_product, norms, stacked, transposed

_GATES = "oifg"
_HALVED = {"o": 0.5, "i": 0.5, "f": 0.5}


class LSTM:
    """BPTT of `lstm`."""

    def __init__(self, numbers: Numbers) -> None:
        p, self.x = numbers.parameters, numbers.x
        seq_len, (hidden, batch) = len(self.x), numbers.initial["h"].shape
        self.W = stacked(p, "W_h", _GATES, _HALVED)
        self.V = stacked(p, "W_x", _GATES, _HALVED)
        self.b = stacked(p, "b_", _GATES, _HALVED)
        self.W_T = transposed(self.W)
        self.driven = np.empty((seq_len, 4 * hidden, batch))
        self.gates = np.empty((seq_len, 4, hidden, batch))
        self.h, self.c = np.empty((2, seq_len + 1, hidden, batch))
        self.h[0], self.c[0] = numbers.initial["h"], numbers.initial["c"]
        self.tanh_c = np.empty((seq_len, hidden, batch))
        self.dh, self.dc = np.empty((2, seq_len + 1, hidden, batch))
        self.block = block_length(seq_len, 6 * hidden * batch * 8)
        self.slope = np.empty((self.block, 4, hidden, batch))
        self.h_to_c, self.scratch = np.empty((2, self.block, hidden, batch))
        self.one_half = np.full((3, hidden, batch), 0.5)
        self.da = np.empty((4, hidden, batch))
        self.step = np.empty((hidden, batch))
        flat = self.gates.reshape(seq_len, 4 * hidden, batch)
        o, i, f, g = self.gates.swapaxes(0, 1)
        self.forward_views = list(
            zip(
                *(self.h[:-1], self.c[:-1], self.driven, flat, self.gates[:, :3]),
                *(o, i, f, g, self.c[1:], self.tanh_c, self.h[1:]),
                strict=True,
            )
        )
        self.dh_views, self.dc_views, self.f_views = list(self.dh), list(self.dc), list(f)
        self.slope_views = list(zip(self.slope[:, 0], self.slope[:, 1:], self.h_to_c, strict=True))

    def run(self) -> dict[str, Array]:
        input_product(self.V, self.x, self.b, self.driven)
        self._forward()
        self.dh_views[-1].fill(1.0)
        self.dc_views[-1].fill(0.0)
        for lo, hi in blocks(len(self.x), self.block):
            self._coefficients(lo, hi)
            self._backward(lo, hi)
        return {"h": norms(self.dh), "c": norms(self.dc)}

    def _forward(self) -> None:
        W, half, step = self.W, self.one_half, self.step
        for h_before, c_before, driven, gates, sigmoids, o, i, f, g, c, tanh_c, h in self.forward_views:
            np.dot(W, h_before, gates)
            np.add(gates, driven, gates)
            np.tanh(gates, gates)
            np.multiply(sigmoids, half, sigmoids)
            np.add(sigmoids, half, sigmoids)
            np.multiply(f, c_before, c)
            np.multiply(i, g, step)
            np.add(c, step, c)
            np.tanh(c, tanh_c)
            np.multiply(o, tanh_c, h)

    def _coefficients(self, lo: int, hi: int) -> None:
        """Compute what dh and dc are multiplied with: o' tanh(c), i' g, f' c_before, g' i, and o (1 - tanh(c)^2)."""
        o, i, f, g = self.gates[lo:hi].swapaxes(0, 1)
        slope, scratch, tanh_c = self.slope[: hi - lo], self.scratch[: hi - lo], self.tanh_c[lo:hi]
        into_o, into_i, into_f, into_g = slope.swapaxes(0, 1)
        for gate, factor, into in ((o, tanh_c, into_o), (i, g, into_i), (f, self.c[lo:hi], into_f)):
            np.subtract(1.0, gate, into)
            np.multiply(into, gate, into)
            np.multiply(into, factor, into)
        np.multiply(slope[:, :3], 2.0, slope[:, :3])  # the weights hold the other half
        for value, factor, into in ((g, i, into_g), (tanh_c, o, self.h_to_c[: hi - lo])):
            np.square(value, scratch)
            np.subtract(1.0, scratch, scratch)
            np.multiply(scratch, factor, into)

    def _backward(self, lo: int, hi: int) -> None:
        W_T, da, step = self.W_T, self.da, self.step
        da_o, da_ifg, da_flat = da[0], da[1:], da.reshape(-1, da.shape[2])
        for t in range(hi, lo, -1):
            dh, dc = self.dh_views[t], self.dc_views[t]
            into_o, into_ifg, h_to_c = self.slope_views[t - 1 - lo]
            np.multiply(dh, h_to_c, step)
            np.add(dc, step, dc)
            np.multiply(dh, into_o, da_o)
            np.multiply(dc, into_ifg, da_ifg)
            np.dot(W_T, da_flat, self.dh_views[t - 1])
            np.multiply(dc, self.f_views[t - 1], self.dc_views[t - 1])
