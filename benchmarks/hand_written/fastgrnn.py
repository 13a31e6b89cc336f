"""FastGRNN by hand: gate and candidate share one pre-activation, and two numbers weigh them.

12 calls a step forward, 4 backward. The gate's sigmoid is (1 + tanh(a/2))/2, so that one tanh serves both.
"""

from __future__ import annotations

import numpy as np

from benchmarks.cases import Numbers
from benchmarks.hand_written.arrays import Array, block_length, blocks, input_product, norms, transposed


class FastGRNN:
    """BPTT of tests/cells/fastgrnn.yaml."""

    def __init__(self, numbers: Numbers) -> None:
        p, self.x = numbers.parameters, numbers.x
        seq_len, (hidden, batch) = len(self.x), numbers.initial["h"].shape
        self.U, self.U_T = p["U"], transposed(p["U"])
        self.V = p["W"]
        zeta, nu = (float(1.0 / (1.0 + np.exp(-p[name]))) for name in ("zeta", "nu"))
        self.zeta = zeta
        self.driven = np.empty((seq_len, hidden, batch))
        self.both = np.empty((seq_len, 2, hidden, batch))  # gate z and candidate n
        self.weight = np.empty((seq_len, hidden, batch))  # zeta (1 - z) + nu
        self.h, self.dh = np.empty((2, seq_len + 1, hidden, batch))
        self.h[0] = numbers.initial["h"]
        self.block = block_length(seq_len, 3 * hidden * batch * 8)
        self.slope, self.scratch, self.scratch_2 = np.empty((3, self.block, hidden, batch))
        self.halved = np.empty((2, hidden, batch))
        self.halved[0], self.halved[1] = 0.5, 1.0
        self.b = np.empty((2, hidden, batch))
        self.b[0], self.b[1] = 0.5 * p["b_z"][:, None], p["b_n"][:, None]
        self.no_bias = np.zeros(hidden)
        self.one_half = np.full((hidden, batch), 0.5)
        self.minus_zeta = np.full((hidden, batch), -zeta)
        self.zeta_and_nu = np.full((hidden, batch), zeta + nu)
        self.step = np.empty((hidden, batch))
        self.z, self.n = self.both.swapaxes(0, 1)
        self.forward_views = list(
            zip(self.h[:-1], self.driven, self.both, self.z, self.n, self.weight, self.h[1:], strict=True)
        )
        self.dh_views, self.z_views, self.slope_views = list(self.dh), list(self.z), list(self.slope)

    def run(self) -> dict[str, Array]:
        input_product(self.V, self.x, self.no_bias, self.driven)
        self._forward()
        self.dh_views[-1].fill(1.0)
        for lo, hi in blocks(len(self.x), self.block):
            self._coefficients(lo, hi)
            self._backward(lo, hi)
        return {"h": norms(self.dh)}

    def _forward(self) -> None:
        U, halved, b, half, step = self.U, self.halved, self.b, self.one_half, self.step
        minus_zeta, zeta_and_nu = self.minus_zeta, self.zeta_and_nu
        for before, driven, both, z, n, weight, h in self.forward_views:
            np.dot(U, before, step)
            np.add(step, driven, step)
            np.multiply(step, halved, both)
            np.add(both, b, both)
            np.tanh(both, both)
            np.multiply(z, half, z)
            np.add(z, half, z)
            np.multiply(z, minus_zeta, weight)
            np.add(weight, zeta_and_nu, weight)
            np.multiply(weight, n, h)
            np.multiply(z, before, step)
            np.add(h, step, h)

    def _coefficients(self, lo: int, hi: int) -> None:
        """Compute what dh is multiplied with: (h_before - zeta n) z (1 - z) + weight (1 - n^2)."""
        z, n, before = self.z[lo:hi], self.n[lo:hi], self.h[lo:hi]
        slope, scratch, scratch_2 = (a[: hi - lo] for a in (self.slope, self.scratch, self.scratch_2))
        np.multiply(n, -self.zeta, slope)
        np.add(slope, before, slope)
        np.multiply(slope, z, slope)
        np.subtract(1.0, z, scratch)
        np.multiply(slope, scratch, slope)
        np.square(n, scratch_2)
        np.subtract(1.0, scratch_2, scratch_2)
        np.multiply(scratch_2, self.weight[lo:hi], scratch_2)
        np.add(slope, scratch_2, slope)

    def _backward(self, lo: int, hi: int) -> None:
        U_T, step = self.U_T, self.step
        for t in range(hi, lo, -1):
            dh, before = self.dh_views[t], self.dh_views[t - 1]
            np.multiply(dh, self.slope_views[t - 1 - lo], step)
            np.dot(U_T, step, before)
            np.multiply(dh, self.z_views[t - 1], step)
            np.add(before, step, before)
