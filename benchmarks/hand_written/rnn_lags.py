"""The RNN with two lags by hand: h_t = tanh(W1 h_(t-1) + W2 h_(t-2) + V x_t + b).

Neighbouring steps are neighbours in memory, so that two of them are one vector and both lags one product:
3 calls a step forward, 2 backward.
"""

from __future__ import annotations

import numpy as np

from benchmarks.cases import Numbers
from benchmarks.hand_written.arrays import Array, block_length, blocks, input_product, norms, transposed


class RNNLags:
    """BPTT of `rnn-lags` with tanh."""

    def __init__(self, numbers: Numbers) -> None:
        p, self.x = numbers.parameters, numbers.x
        seq_len, (hidden, batch) = len(self.x), numbers.initial["h"].shape
        self.W = np.concatenate([p["W_hh2"], p["W_hh"]], axis=1)  # on [h_(t-2); h_(t-1)]
        self.W_T = np.concatenate([transposed(p["W_hh"]), transposed(p["W_hh2"])], axis=1)  # on [da_(t+1); da_(t+2)]
        self.V, self.b = p["W_xh"], p["b_h"]
        self.driven = np.empty((seq_len, hidden, batch))
        self.h = np.zeros((seq_len + 2, hidden, batch))  # h_(-1) = 0, h_0, ..., h_T
        self.h[1] = numbers.initial["h"]
        self.dh = np.empty((seq_len + 1, hidden, batch))
        self.da = np.zeros((seq_len + 2, hidden, batch))  # da_1, ..., da_T, and zeros beyond the end
        self.block = block_length(seq_len, hidden * batch * 8)
        self.slope = np.empty((self.block, hidden, batch))
        self.forward_views = list(zip(_neighbours(self.h)[:seq_len], self.driven, self.h[2:], strict=True))
        self.dh_views, self.da_views, self.slope_views = list(self.dh), list(self.da), list(self.slope)
        self.da_pairs = _neighbours(self.da)

    def run(self) -> dict[str, Array]:
        input_product(self.V, self.x, self.b, self.driven)
        W = self.W
        for before, driven, h in self.forward_views:
            np.dot(W, before, h)
            np.add(h, driven, h)
            np.tanh(h, h)
        W_T, dh, da, pairs = self.W_T, self.dh_views, self.da_views, self.da_pairs
        dh[-1].fill(1.0)
        for lo, hi in blocks(len(self.x), self.block):
            slope = self.slope[: hi - lo]
            np.square(self.h[lo + 2 : hi + 2], slope)
            np.subtract(1.0, slope, slope)
            for t in range(hi, lo, -1):
                np.multiply(dh[t], self.slope_views[t - 1 - lo], da[t - 1])
                np.dot(W_T, pairs[t - 1], dh[t - 1])
        return {"h": norms(self.dh)}


def _neighbours(steps: Array) -> list[Array]:
    """Return each step and the next one as one matrix (2H, B), as views."""
    _, hidden, batch = steps.shape
    return [steps[t : t + 2].reshape(2 * hidden, batch) for t in range(len(steps) - 1)]
