"""What `--save` keeps of a run: the states and adjoints themselves."""

from __future__ import annotations

from typing import Any

import numpy as np

from gradcli.engine.group import TrialGroup
from gradcli.engine.problem import Recording

Array = np.ndarray[Any, Any]


class Recorder:
    """Keeps states and adjoints of a run."""

    def __init__(self, engine: TrialGroup) -> None:
        p = engine.problem
        self._engine = engine
        shapes = {
            f"{name}.{state}": (p.seq_len + 1, p.trials, size, p.batch_size)
            for name, plan in zip(p.names, p.plans, strict=True)
            for state, size in plan.cell.shapes.states.items()
        }
        self.recording = Recording(
            {key: np.zeros(shape) for key, shape in shapes.items()},
            {key: np.zeros(shape) for key, shape in shapes.items()},
            {key: np.zeros((shape[0], shape[1], shape[3]), np.int64) for key, shape in shapes.items()},
            np.zeros((p.seq_len, p.trials, engine.layers[0].plan.cell.shapes.input_size, p.batch_size)),
        )
        for name, initial in zip(p.names, p.initial, strict=True):
            for state, value in initial.items():
                self.recording.states[f"{name}.{state}"][0] = value
        self._leave_out_missing(0, p.seq_len)

    def _leave_out_missing(self, lo: int, hi: int) -> None:
        """Put NaN where sequences have nothing, and their initial states where they begin, at the steps lo .. hi."""
        p, begins = self._engine.problem, self._engine.problem.begins
        before = None if begins is None else begins.not_yet(lo, hi + 1)
        if begins is None or before is None:
            return
        found = self.recording
        for array in (*found.states.values(), *found.adjoints.values()):
            part = array[lo : hi + 1]
            part[np.broadcast_to(before[:, None, None], part.shape)] = np.nan
        x = found.x[lo:hi]
        # The step after which a sequence begins has no input either.
        x[np.broadcast_to((np.arange(lo, hi)[:, None] < begins.steps)[:, None, None], x.shape)] = np.nan
        for step in np.unique(begins.steps[(lo <= begins.steps) & (begins.steps <= hi)]):
            sequences = begins.at(step)
            for name, initial in zip(p.names, p.initial, strict=True):
                for state, value in initial.items():
                    found.states[f"{name}.{state}"][step, ..., sequences] = np.moveaxis(value[..., sequences], -1, 0)

    def keep_states(self, lo: int, hi: int) -> None:
        for name, layer in zip(self._engine.problem.names, self._engine.layers, strict=True):
            for state in layer.plan.cell.states:
                array = layer.states[state]
                self.recording.states[f"{name}.{state}"][lo + 1 : hi + 1] = array[layer.lag : layer.lag + hi - lo]
        first = self._engine.layers[0]
        self.recording.x[lo:hi] = first.values[first.plan.graph.input()]
        self._leave_out_missing(lo, hi)

    def keep_adjoints(
        self, key: str, start: int, stop: int, mantissa: Array, exponent: Array, sequences: Any = slice(None)
    ) -> None:
        """Keep the adjoints of a state at the steps start .. stop-1.

        Args:
            mantissa: (n, R, size, k). exponent: (R, k). sequences: which ones these are.
        """
        self.recording.adjoints[key][start:stop, :, :, sequences] = mantissa
        # A gradient of zero has no size of its own.
        self.recording.exponents[key][start:stop, :, sequences] = np.where((mantissa != 0).any(axis=2), exponent, 0)
