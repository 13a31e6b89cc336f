"""The independently recurrent network by hand, with tanh: no product at all in the loop.

3 calls a step forward, 1 backward.
"""

from __future__ import annotations

import numpy as np

from benchmarks.cases import Numbers
from benchmarks.hand_written.arrays import Array, block_length, blocks, input_product, norms


class IndRNN:
    """BPTT of `indrnn` with `activation: tanh`."""

    def __init__(self, numbers: Numbers) -> None:
        p, self.x = numbers.parameters, numbers.x
        seq_len, (hidden, batch) = len(self.x), numbers.initial["h"].shape
        self.V, self.b = p["W_xh"], p["b_h"]
        self.u = np.repeat(p["u"][:, None], batch, axis=1)
        self.driven = np.empty((seq_len, hidden, batch))
        self.h, self.dh = np.empty((2, seq_len + 1, hidden, batch))
        self.h[0] = numbers.initial["h"]
        self.block = block_length(seq_len, hidden * batch * 8)
        self.slope = np.empty((self.block, hidden, batch))
        self.forward_views = list(zip(self.h[:-1], self.driven, self.h[1:], strict=True))
        self.dh_views, self.slope_views = list(self.dh), list(self.slope)

    def run(self) -> dict[str, Array]:
        input_product(self.V, self.x, self.b, self.driven)
        u = self.u
        for before, driven, h in self.forward_views:
            np.multiply(u, before, h)
            np.add(h, driven, h)
            np.tanh(h, h)
        dh, slopes = self.dh_views, self.slope_views
        dh[-1].fill(1.0)
        for lo, hi in blocks(len(self.x), self.block):
            slope = self.slope[: hi - lo]
            np.square(self.h[lo + 1 : hi + 1], slope)
            np.subtract(1.0, slope, slope)
            np.multiply(slope, u, slope)
            for t in range(hi, lo, -1):
                np.multiply(dh[t], slopes[t - 1 - lo], dh[t - 1])
        return {"h": norms(self.dh)}
