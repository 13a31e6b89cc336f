"""The arrays for `--save`: all that redoes a run elsewhere, and its gradients."""

from __future__ import annotations

from typing import Any

import numpy as np

from gradcli.diagnostics.measure import Measured

Array = np.ndarray[Any, Any]


def saved_arrays(measured: Measured) -> dict[str, Array]:
    """Return all that is needed to redo a run elsewhere, and its gradients; nothing unless the run was recorded.

    Keys and shapes, with R trials, T steps, B sequences, H units:

    * ``x`` (R, T, B, input); ``param.<layer>.<name>`` (R, ...), or (R, T, ...) where weights are not tied;
      ``state.<layer>.<name>`` (R, T+1, B, H), index 0 the initial state; ``target`` (R, steps, B, H) or class numbers
      (R, steps, B), or ``vector`` (R, H), or ``output_gradient`` (B, steps, H), the same in all trials; ``at``
      (steps,). With the loss at the final states of both directions ``at`` is T, and what counts there is
      ``[state.<layer>.h, state.<layer>.reverse.h]`` of the top layer.
      A state that is one number is (R, T+1, B), a matrix (R, T+1, B, rows, columns).
    * ``grad_state.<layer>.<name>`` mantissas of the gradient of each sequence's own loss, with
      ``log2_state.<layer>.<name>`` (R, T+1, B); ``grad_param.<layer>.<name>`` mantissas of that of the batch loss, with
      ``log2_param.<layer>.<name>`` (R,). gradient = mantissa * 2**log2.
    * ``loss`` (R, B), scaled as the spec's ``reduction`` says, like all gradients.
    * Where sequences have different lengths, ``start`` (B,): the step at which each one's initial state stands. Before
      it (``x``: up to it) there is NaN, and 0 for ``log2_state``.
    * States of a reverse direction are by its own steps. Those of sequence b are start[b] .. T as well: step k read
      position T + 1 + start[b] - k.
    """
    run, problem = measured.run, measured.network.problem
    if run is None or run.recording is None:
        return {}
    recording = run.recording
    arrays: dict[str, Array] = {"x": recording.x.transpose(1, 0, 3, 2), "loss": run.losses}
    for layer, table in zip(problem.names, problem.parameters, strict=True):
        arrays |= {f"param.{layer}.{name}": value for name, value in table.items()}
    for name in ("W_hy", "b_y"):
        if hasattr(problem.loss, name):
            arrays[f"param.readout.{name}"] = getattr(problem.loss, name)
    if problem.begins is not None:
        arrays["start"] = problem.begins.steps
    arrays |= problem.loss.saved() | {"at": np.sort(problem.loss.steps)}
    shapes = {
        f"{layer}.{state}": shape
        for layer, plan in zip(problem.names, problem.plans, strict=True)
        for state, shape in plan.cell.shapes.of_states.items()
    }

    def shaped(name: str, values: Array) -> Array:
        by_sequence = values.transpose(1, 0, 3, 2)
        return by_sequence.reshape(*by_sequence.shape[:3], *shapes[name])

    for name, states in recording.states.items():
        arrays[f"state.{name}"] = shaped(name, states)
    if run.overflow is None and run.backward_overflow is None:
        for name, adjoints in recording.adjoints.items():
            arrays[f"grad_state.{name}"] = shaped(name, adjoints)
            arrays[f"log2_state.{name}"] = recording.exponents[name].transpose(1, 0, 2)
        for name, gradient in run.gradients.items():
            arrays[f"grad_param.{name}"] = gradient.mantissa
            arrays[f"log2_param.{name}"] = gradient.exponent
    return arrays
