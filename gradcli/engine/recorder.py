"""What `--save` keeps of a run: the states and adjoints themselves."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from gradcli.engine.problem import Recording

if TYPE_CHECKING:
    from gradcli.engine.group import TrialGroup

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

    def keep_states(self, lo: int, hi: int) -> None:
        for name, layer in zip(self._engine.problem.names, self._engine.layers, strict=True):
            for state, array in layer.states.items():
                self.recording.states[f"{name}.{state}"][lo + 1 : hi + 1] = array[layer.lag : layer.lag + hi - lo]
        first = self._engine.layers[0]
        self.recording.x[lo:hi] = first.values[first.plan.graph.input()]

    def keep_adjoints(self, key: str, start: int, stop: int, mantissa: Array, exponent: Array) -> None:
        self.recording.adjoints[key][start:stop] = mantissa
        # A gradient of zero has no size of its own.
        self.recording.exponents[key][start:stop] = np.where((mantissa != 0).any(axis=2), exponent, 0)
