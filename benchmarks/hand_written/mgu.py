"""The minimal gated unit by hand: a gate inside a product makes two products one after the other.

12 calls a step forward, 6 backward. The 1/2 of the gate's sigmoid, (1 + tanh(a/2))/2, is folded into its weights.
"""

from __future__ import annotations

import numpy as np

from benchmarks.cases import Numbers
from benchmarks.hand_written.arrays import Array, block_length, blocks, input_product, norms, stacked, transposed

_HALVED = {"f": 0.5}


class MGU:
    """BPTT of `mgu`."""

    def __init__(self, numbers: Numbers) -> None:
        p, self.x = numbers.parameters, numbers.x
        seq_len, (hidden, batch) = len(self.x), numbers.initial["h"].shape
        self.W_f, self.W_n = 0.5 * p["W_hf"], p["W_hn"]
        self.W_f_T, self.W_n_T = transposed(self.W_f), transposed(self.W_n)
        self.V = stacked(p, "W_x", "fn", _HALVED)
        self.b = stacked(p, "b_", "fn", _HALVED)
        self.driven = np.empty((seq_len, 2 * hidden, batch))
        self.f, self.n, self.gain = np.empty((3, seq_len, hidden, batch))  # gain is n - h_before
        self.h, self.dh = np.empty((2, seq_len + 1, hidden, batch))
        self.h[0] = numbers.initial["h"]
        self.block = block_length(seq_len, 5 * hidden * batch * 8)
        # dh's way to n's pre-activation, to f's, and to h_before; the way of d(f h) to f's, and to h_before.
        self.from_h = np.empty((self.block, 3, hidden, batch))
        self.from_reset = np.empty((self.block, 2, hidden, batch))
        self.one_half = np.full((hidden, batch), 0.5)
        self.by_h, self.by_reset = np.empty((3, hidden, batch)), np.empty((2, hidden, batch))
        self.step = np.empty((hidden, batch))
        self.forward_views = list(
            zip(
                *(self.h[:-1], self.driven[:, :hidden], self.driven[:, hidden:]),
                *(self.f, self.n, self.gain, self.h[1:]),
                strict=True,
            )
        )
        self.dh_views = list(self.dh)
        self.slope_views = list(zip(self.from_h, self.from_reset, strict=True))

    def run(self) -> dict[str, Array]:
        input_product(self.V, self.x, self.b, self.driven)
        self._forward()
        self.dh_views[-1].fill(1.0)
        for lo, hi in blocks(len(self.x), self.block):
            self._coefficients(lo, hi)
            self._backward(lo, hi)
        return {"h": norms(self.dh)}

    def _forward(self) -> None:
        W_f, W_n, half, step = self.W_f, self.W_n, self.one_half, self.step
        for before, driven_f, driven_n, f, n, gain, h in self.forward_views:
            np.dot(W_f, before, f)
            np.add(f, driven_f, f)
            np.tanh(f, f)
            np.multiply(f, half, f)
            np.add(f, half, f)
            np.multiply(f, before, step)
            np.dot(W_n, step, n)
            np.add(n, driven_n, n)
            np.tanh(n, n)
            np.subtract(n, before, gain)
            np.multiply(f, gain, step)
            np.add(before, step, h)

    def _coefficients(self, lo: int, hi: int) -> None:
        f, n, gain, before = self.f[lo:hi], self.n[lo:hi], self.gain[lo:hi], self.h[lo:hi]
        into_n, into_f, direct = self.from_h[: hi - lo].swapaxes(0, 1)
        reset_into_f, reset_direct = self.from_reset[: hi - lo].swapaxes(0, 1)
        np.square(n, into_n)
        np.subtract(1.0, into_n, into_n)
        np.multiply(into_n, f, into_n)
        np.subtract(1.0, f, direct)
        np.multiply(f, direct, into_f)
        np.multiply(into_f, 2.0, into_f)  # the weights hold the other half
        np.multiply(into_f, before, reset_into_f)
        np.multiply(into_f, gain, into_f)
        np.copyto(reset_direct, f)

    def _backward(self, lo: int, hi: int) -> None:
        W_f_T, W_n_T, by_h, by_reset, step = self.W_f_T, self.W_n_T, self.by_h, self.by_reset, self.step
        da_n, rest, da_f, direct = by_h[0], by_h[1:], by_h[1], by_h[2]
        for t in range(hi, lo, -1):
            before = self.dh_views[t - 1]
            from_h, from_reset = self.slope_views[t - 1 - lo]
            np.multiply(self.dh_views[t], from_h, by_h)
            np.dot(W_n_T, da_n, step)
            np.multiply(step, from_reset, by_reset)
            np.add(rest, by_reset, rest)
            np.dot(W_f_T, da_f, before)
            np.add(before, direct, before)
