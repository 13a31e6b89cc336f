"""Gradients of weights that are not tied over time: every step has its own, and all of them are one array."""

from __future__ import annotations

from typing import Any

import numpy as np

from gradcli.engine.scaled import NOTHING, Scaled, scale_by

Array = np.ndarray[Any, Any]


class StepGradients:
    """Collects the gradients of each step's own parameters.

    Args:
        seq_len: T, the number of steps.
    """

    def __init__(self, seq_len: int) -> None:
        self._seq_len = seq_len
        self._mantissas: dict[str, Array] = {}
        self._exponents: dict[str, Array] = {}

    def keep(self, name: str, step: int, gradient: Scaled) -> None:
        """Take the gradient of a parameter at one step, counted from 0: (R, ...), normalised."""
        trials, *shape = gradient.mantissa.shape
        if name not in self._mantissas:
            self._mantissas[name] = np.zeros((trials, self._seq_len, *shape))
            self._exponents[name] = np.full((trials, self._seq_len), NOTHING, np.int64)
        self._mantissas[name][:, step] = gradient.mantissa
        # A gradient of zero has no size of its own.
        self._exponents[name][:, step] = np.where(gradient.nonzero(), gradient.exponent, NOTHING)

    def joined(self) -> dict[str, Scaled]:
        """Return all that was kept, (R, T, ...), and keep nothing.

        The steps are brought to one power of two for each trial, that of the largest gradient. That is exact for all
        entries down to some 2^-900 of it; what is smaller still loses digits, and from about 2^-1000 on it is zero.
        """
        found = {}
        for name in list(self._mantissas):
            mantissa, exponent = self._mantissas.pop(name), self._exponents.pop(name)
            top = exponent.max(axis=1)
            # One step at a time: the array may be most of the memory that the run takes.
            for step in range(self._seq_len):
                shift = (exponent[:, step] - top).reshape(-1, *[1] * (mantissa.ndim - 2))
                mantissa[:, step] = scale_by(mantissa[:, step], shift)
            found[name] = Scaled(mantissa, np.where(top == NOTHING, 0, top))
        return found
