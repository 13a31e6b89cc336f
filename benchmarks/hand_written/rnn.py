"""The plain RNN by hand: h_t = tanh(W h_(t-1) + V x_t + b). 3 calls a step forward, 2 backward."""

from __future__ import annotations

import numpy as np

from benchmarks.cases import Numbers
from benchmarks.hand_written.arrays import Array, block_length, blocks, input_product, norms, transposed


class RNN:
    """BPTT of `rnn` with tanh."""

    def __init__(self, numbers: Numbers) -> None:
        p, self.x = numbers.parameters, numbers.x
        seq_len, (hidden, batch) = len(self.x), numbers.initial["h"].shape
        self.W, self.W_T = p["W_hh"], transposed(p["W_hh"])
        self.V, self.b = p["W_xh"], p["b_h"]
        self.driven = np.empty((seq_len, hidden, batch))
        self.h = np.empty((seq_len + 1, hidden, batch))
        self.h[0] = numbers.initial["h"]
        self.dh = np.empty_like(self.h)
        self.block = block_length(seq_len, hidden * batch * 8)
        self.slope = np.empty((self.block, hidden, batch))
        self.da = np.empty((hidden, batch))
        self.forward_views = list(zip(self.h, self.driven, self.h[1:], strict=False))
        self.dh_views = list(self.dh)
        self.slope_views = list(self.slope)

    def run(self) -> dict[str, Array]:
        input_product(self.V, self.x, self.b, self.driven)
        W = self.W
        for before, driven, h in self.forward_views:
            np.dot(W, before, h)
            np.add(h, driven, h)
            np.tanh(h, h)
        W_T, da, dh = self.W_T, self.da, self.dh_views
        dh[-1].fill(1.0)
        for lo, hi in blocks(len(self.x), self.block):
            slope = self.slope[: hi - lo]
            np.square(self.h[lo + 1 : hi + 1], slope)
            np.subtract(1.0, slope, slope)
            for t in range(hi, lo, -1):
                np.multiply(dh[t], self.slope_views[t - 1 - lo], da)
                np.dot(W_T, da, dh[t - 1])
        return {"h": norms(self.dh)}
