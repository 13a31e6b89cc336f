"""The coupled oscillatory RNN by hand: two states, of which y_t reads the new z_t.

Both states lie together as s = [y; z], so that both matrices are one product: 9 calls a step forward, 7 backward.
"""

from __future__ import annotations

import numpy as np

from benchmarks.cases import Numbers
from benchmarks.hand_written.arrays import Array, block_length, blocks, input_product, norms, transposed

DT, GAMMA, EPSILON = 0.3, 1.2, 0.8  # as tests/cells/coupled-oscillator.yaml has them


class CoupledOscillator:
    """BPTT of tests/cells/coupled-oscillator.yaml; L = sum of y_T."""

    def __init__(self, numbers: Numbers) -> None:
        p, self.x = numbers.parameters, numbers.x
        seq_len, (hidden, batch) = len(self.x), numbers.initial["y"].shape
        self.W = np.concatenate([p["W"], p["W_z"]], axis=1)
        self.W_T = transposed(self.W)
        self.V, self.b = p["V"], p["b"]
        self.driven, self.tanh = np.empty((2, seq_len, hidden, batch))
        self.s, self.ds = np.empty((2, seq_len + 1, 2, hidden, batch))
        self.s[0] = numbers.initial["y"], numbers.initial["z"]
        self.block = block_length(seq_len, hidden * batch * 8)
        self.slope = np.empty((self.block, hidden, batch))
        self.dt = np.full((hidden, batch), DT)
        self.into_z = np.empty((2, hidden, batch))  # what y and z before the step count for in z
        self.into_z[0], self.into_z[1] = -DT * GAMMA, 1.0 - DT * EPSILON
        self.direct = np.empty((2, hidden, batch))
        self.step = np.empty((hidden, batch))
        flat = self.s.reshape(seq_len + 1, 2 * hidden, batch)
        self.forward_views = list(
            zip(
                *(self.s[:-1], flat[:-1], self.s[:-1, 0]),
                *(self.driven, self.tanh, self.s[1:, 0], self.s[1:, 1]),
                strict=True,
            )
        )
        self.ds_views = list(zip(self.ds, self.ds.reshape(flat.shape), self.ds[:, 0], self.ds[:, 1], strict=True))
        self.slope_views = list(self.slope)

    def run(self) -> dict[str, Array]:
        input_product(self.V, self.x, self.b, self.driven)
        self._forward()
        _, _, dy, dz = self.ds_views[-1]
        dy.fill(1.0)
        dz.fill(0.0)
        for lo, hi in blocks(len(self.x), self.block):
            slope = self.slope[: hi - lo]
            np.square(self.tanh[lo:hi], slope)
            np.subtract(1.0, slope, slope)
            np.multiply(slope, DT, slope)
            self._backward(lo, hi)
        return {"y": norms(self.ds[:, 0]), "z": norms(self.ds[:, 1])}

    def _forward(self) -> None:
        W, dt, into_z, direct, step = self.W, self.dt, self.into_z, self.direct, self.step
        direct_y, direct_z = direct
        for s_before, flat_before, y_before, driven, tanh, y, z in self.forward_views:
            np.dot(W, flat_before, tanh)
            np.add(tanh, driven, tanh)
            np.tanh(tanh, tanh)
            np.multiply(s_before, into_z, direct)
            np.add(direct_y, direct_z, z)
            np.multiply(tanh, dt, step)
            np.add(z, step, z)
            np.multiply(z, dt, step)
            np.add(y_before, step, y)

    def _backward(self, lo: int, hi: int) -> None:
        W_T, dt, into_z, direct, step = self.W_T, self.dt, self.into_z, self.direct, self.step
        for t in range(hi, lo, -1):
            _, _, dy, dz = self.ds_views[t]
            ds_before, flat_before, dy_before, _ = self.ds_views[t - 1]
            np.multiply(dy, dt, step)
            np.add(dz, step, dz)
            np.multiply(dz, self.slope_views[t - 1 - lo], step)
            np.dot(W_T, step, flat_before)
            np.multiply(dz, into_z, direct)
            np.add(ds_before, direct, ds_before)
            np.add(dy_before, dy, dy_before)
