"""Runs the engine on the arrays of a saved run, so that all its numbers are given and none is drawn."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from reference.relative_error import vector_error

from gradcli.engine.loss import CrossEntropy, Linear, Loss, SquaredError
from gradcli.engine.problem import READOUT, Problem, Run, layer_names
from gradcli.engine.run import Engine
from gradcli.engine.step.plan import LayerPlan
from gradcli.language.cell import parse_cell

Arrays = Mapping[str, NDArray[Any]]

ROUNDING = 1e-11
"""How far two orders of the same additions and products may lie apart, relatively."""


@dataclass(frozen=True)
class Given:
    """An input that is known: (T, R, input_size, B)."""

    x: NDArray[Any]

    def fill(self, start: int, stop: int) -> NDArray[Any]:
        return self.x[start:stop]


def problem_of(spec: Mapping[str, Any], saved: Arrays) -> Problem:
    """Return the problem that the arrays of a saved run pose; see `gradcli.results.saved_arrays`.

    `spec` holds the equations of its cell, the sizes, and the loss.
    """
    block = spec["cell"]
    cell = parse_cell(
        block["equations"],
        output=block.get("output"),
        constants=block.get("constants"),
        shapes=block.get("shapes"),
        activation=spec.get("activation") or block.get("activation"),
    )
    trials, seq_len, batch_size, input_size = saved["x"].shape
    plans: list[LayerPlan] = []
    bidirectional = spec.get("bidirectional", False)
    for _ in range(spec.get("num_layers", 1)):
        plan = LayerPlan(cell.at_sizes(spec["hidden_size"], input_size))
        input_size = plan.cell.shapes.states[cell.output] * (2 if bidirectional else 1)
        plans += [plan, plan] if bidirectional else [plan]
    layers = layer_names(spec.get("num_layers", 1), bidirectional)
    return Problem(
        plans=plans,
        parameters=[_of_layer(f"param.{layer}", saved) for layer in layers],
        initial=[
            {
                name: _entries(states[:, 0]).transpose(0, 2, 1)
                for name, states in _of_layer(f"state.{layer}", saved).items()
            }
            for layer in layers
        ],
        source=Given(saved["x"].transpose(1, 0, 3, 2)),
        loss=_loss(spec, saved, input_size),
        seq_len=seq_len,
        trials=trials,
        batch_size=batch_size,
        tied=spec.get("tied", True),
        bidirectional=bidirectional,
    )


def _loss(spec: Mapping[str, Any], saved: Arrays, output_size: int) -> Loss:
    seq_len = spec["seq_len"]
    at = spec["loss"]["at"]
    steps = {"last": [seq_len], "every": range(1, seq_len + 1)}[at] if isinstance(at, str) else sorted(at)
    match spec["loss"]["kind"]:
        case "mse":
            return SquaredError(steps, saved["target"].transpose(1, 0, 3, 2))
        case "cross_entropy":
            readout = _under(f"param.{READOUT}.", saved)
            return CrossEntropy(steps, saved["target"].transpose(1, 0, 2), readout["W_hy"], readout["b_y"])
        case "projection":
            return Linear(steps, saved["vector"])
    return Linear(steps, np.ones((len(saved["x"]), output_size)))


def _under(prefix: str, arrays: Arrays) -> dict[str, NDArray[Any]]:
    return {name.removeprefix(prefix): values for name, values in arrays.items() if name.startswith(prefix)}


def _entries(states: NDArray[Any]) -> NDArray[Any]:
    """Return states of each trial and sequence, whatever their shape, as the engine has them: (R, B, entries)."""
    return states.reshape(*states.shape[:2], -1)


def _of_layer(prefix: str, arrays: Arrays) -> dict[str, NDArray[Any]]:
    """Return the arrays of one layer and direction: not those of ``layer0.reverse`` for ``layer0``."""
    return {key.rpartition(".")[2]: values for key, values in arrays.items() if key.rpartition(".")[0] == prefix}


def recorded(problem: Problem, **choices: Any) -> Run:
    """Run a problem and keep states and adjoints; `choices` are those of `Engine`."""
    return Engine(problem, **choices).run(record=True)


@dataclass(frozen=True)
class Vectors:
    """All that a run gave, as vectors: name and place -> (mantissas, binary exponent)."""

    table: dict[tuple[object, ...], tuple[NDArray[Any], int]]

    def errors(self, expected: Vectors) -> dict[tuple[object, ...], float]:
        """Return the relative error of each vector; a vector that one of the two lacks is infinitely wrong.

        AssertionError where plain floats cannot hold what is expected.
        """
        found = {}
        for key in self.table.keys() | expected.table.keys():
            if key not in self.table or key not in expected.table:
                found[key] = np.inf
                continue
            reference, shift = expected.table[key]
            mantissa, exponent = self.table[key]
            error = vector_error(mantissa, exponent - shift, reference)
            assert error is not None, f"{key} cannot be compared"
            found[key] = error
        return found


def vectors_of(run: Run) -> Vectors:
    """Return the losses, states, adjoints, parameter gradients, and the norms of the adjoints, of a recorded run."""
    assert run.recording is not None
    table: dict[tuple[object, ...], tuple[NDArray[Any], int]] = {}
    for trial, sequence in np.ndindex(run.losses.shape):
        table["loss", trial, sequence] = (run.losses[trial, sequence : sequence + 1], 0)
    recording = run.recording
    for name, states in recording.states.items():
        for step, trial, sequence in np.ndindex(recording.exponents[name].shape):
            place = (name, step, trial, sequence)
            exponent = int(recording.exponents[name][step, trial, sequence])
            table["state", *place] = (states[step, trial, :, sequence], 0)
            table["grad_state", *place] = (recording.adjoints[name][step, trial, :, sequence], exponent)
            table["norm", *place] = _power_of_two(float(run.log2_norm[name][step, trial, sequence]))
    for name, gradient in run.gradients.items():
        for trial, exponent in enumerate(gradient.exponent.tolist()):
            table["grad_param", name, trial] = (gradient.mantissa[trial], exponent)
    return Vectors(table)


def vectors_saved(saved: Arrays) -> Vectors:
    """Return the same of the arrays of a saved run."""
    table: dict[tuple[object, ...], tuple[NDArray[Any], int]] = {}
    for trial, sequence in np.ndindex(saved["loss"].shape):
        table["loss", trial, sequence] = (saved["loss"][trial, sequence : sequence + 1], 0)
    for name, gradients in _under("grad_state.", saved).items():
        for trial, step, sequence in np.ndindex(gradients.shape[:3]):
            place = (name, step, trial, sequence)
            gradient = gradients[trial, step, sequence].ravel()
            exponent = int(saved[f"log2_state.{name}"][trial, step, sequence])
            table["state", *place] = (saved[f"state.{name}"][trial, step, sequence].ravel(), 0)
            table["grad_state", *place] = (gradient, exponent)
            table["norm", *place] = (np.atleast_1d(np.linalg.norm(gradient)), exponent)
    for name, gradients in _under("grad_param.", saved).items():
        for trial, gradient in enumerate(gradients):
            table["grad_param", name, trial] = (gradient, int(saved[f"log2_param.{name}"][trial]))
    return Vectors(table)


def _power_of_two(log2: float) -> tuple[NDArray[Any], int]:
    """Return 2**log2 as mantissa and exponent."""
    if np.isneginf(log2):
        return np.zeros(1), 0
    whole = int(np.floor(log2))
    return np.array([2.0 ** (log2 - whole)]), whole


def assert_close(found: tuple[NDArray[Any], int], expected: tuple[NDArray[Any], int]) -> None:
    """Compare two vectors in norm, relatively."""
    mantissa = np.ldexp(found[0], found[1] - expected[1])
    assert np.linalg.norm(mantissa - expected[0]) <= ROUNDING * np.linalg.norm(expected[0])
