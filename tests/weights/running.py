"""Runs a recurrent layer found in a checkpoint through gradcli's engine, to be held against its framework's numbers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from engine_runs import Given, recorded
from numpy.typing import NDArray

from gradcli import cells
from gradcli.engine.loss import Linear
from gradcli.engine.problem import Problem, layer_names
from gradcli.engine.scaled import Scaled
from gradcli.engine.step.plan import LayerPlan
from gradcli.language.cell import ParsedCell, parse_cell
from gradcli.weights.checkpoint import Checkpoint
from gradcli.weights.layers import RecurrentLayer

Array = NDArray[Any]


@dataclass(frozen=True)
class Ran:
    """What gradcli makes of a layer: T steps, B sequences, L = the sum of v . y over sequences and steps that count.

    outputs: y, of both directions together, (T, B, output_size), by position; of a layer that is `reversed` by its own
        steps.
    states: "layer0.h" -> (T + 1, B, size), by the direction's own steps; index 0 is the initial state.
    state_gradients: dL/ds likewise. parameter_gradients: "layer0.W_hh" -> dL/dW_hh.
    """

    outputs: Array
    states: Mapping[str, Array]
    state_gradients: Mapping[str, Array]
    parameter_gradients: Mapping[str, Array]


def cell_of(layer: RecurrentLayer) -> ParsedCell:
    """Return the layer's cell, parsed."""
    if isinstance(layer.cell, str):
        loaded = cells.load(layer.cell).cell
        block: Mapping[str, Any] = {
            "equations": loaded.equations,
            "output": loaded.output,
            "constants": loaded.constants,
            "shapes": loaded.shapes,
            "activation": loaded.activation,
        }
    else:
        block = layer.cell
    return parse_cell(
        block["equations"],
        output=block.get("output"),
        constants=block.get("constants"),
        shapes=block.get("shapes"),
        activation=layer.activation or block.get("activation"),
    )


def run_layer(layer: RecurrentLayer, checkpoint: Checkpoint, x: Array, v: Array, *, every: bool = False) -> Ran:
    """Run a layer on x, (T, B, input_size), with L = sum v . y[T], or of v . y[t] at `every` step; v (output_size,).

    AssertionError where the layer's parameters, sizes or initial states are not those of its cell.
    """
    seq_len, batch_size, input_size = x.shape
    assert input_size == layer.input_size
    if layer.reversed:
        x = x[::-1]
    cell = cell_of(layer)
    plans: list[LayerPlan] = []
    names = layer_names(layer.num_layers, layer.bidirectional)
    for name in names:
        # Two directions of a layer read the same input.
        if not name.endswith("reverse"):
            plan = LayerPlan(cell.at_sizes(layer.hidden_size, input_size))
            input_size = plan.cell.shapes.states[cell.output] * (2 if layer.bidirectional else 1)
        plans.append(plan)
    assert layer.output_size == input_size

    expected = {
        f"{name}.{parameter}": shape
        for name, plan in zip(names, plans, strict=True)
        for parameter, shape in plan.cell.shapes.parameters.items()
    }
    assert {key: value.shape for key, value in layer.parameters.items()} == expected
    kept: dict[str, Array] = {}
    numbers = {key: value.read(checkpoint, kept) for key, value in layer.parameters.items()}
    states = {
        f"{name}.{state}": (size, batch_size)
        for name, plan in zip(names, plans, strict=True)
        for state, size in plan.cell.shapes.states.items()
    }
    assert layer.initial_states.keys() <= states.keys()
    given = {key: value.read(checkpoint, kept) for key, value in layer.initial_states.items()}
    initial = {
        key: np.broadcast_to(given.get(key, np.zeros(shape[0])), shape[::-1]).T[None] for key, shape in states.items()
    }
    problem = Problem(
        plans=plans,
        parameters=[{key: value[None] for key, value in _of(name, numbers).items()} for name in names],
        initial=[_of(name, initial) for name in names],
        source=Given(np.ascontiguousarray(x.astype(np.float64).transpose(0, 2, 1)[:, None])),
        loss=Linear(range(1, seq_len + 1) if every else [seq_len], v.astype(np.float64)[None]),
        seq_len=seq_len,
        trials=1,
        batch_size=batch_size,
        bidirectional=layer.bidirectional,
    )
    run = recorded(problem)
    assert run.overflow is None
    assert run.backward_overflow is None
    assert run.recording is not None
    recording = run.recording
    found = {key: value[:, 0].transpose(0, 2, 1) for key, value in recording.states.items()}
    top = [found[f"{name}.{cell.output}"][1:] for name in names[problem.top :]]
    outputs = np.concatenate([top[0], *(reverse[::-1] for reverse in top[1:])], axis=2)
    return Ran(
        outputs,
        found,
        {
            key: np.ldexp(value, recording.exponents[key][:, :, None])[:, 0].transpose(0, 2, 1)
            for key, value in recording.adjoints.items()
        },
        # gradcli's batch loss is the mean over sequences.
        {key: batch_size * _value(gradient) for key, gradient in run.gradients.items()},
    )


def tensor_gradients(layer: RecurrentLayer, ran: Ran, checkpoint: Checkpoint) -> dict[str, Array]:
    """Return dL/d(tensor of the file), each in its own shape, from the gradients of the cell's parameters.

    A parameter is a sum of slices of tensors, so its gradient goes to each of them, by the transpose of that map.
    """
    gradients: dict[str, Array] = {}
    for key, value in layer.parameters.items():
        for part in value.slices:
            tensor = gradients.setdefault(part.tensor, np.zeros(checkpoint.tensors[part.tensor].shape))
            own = ran.parameter_gradients[key]
            tensor[part.index] += part.scale * (own.T if part.transposed else own)
    return gradients


def relative_error(found: Array, expected: Array) -> float:
    """Return |found - expected| / |expected|, norms over all entries; infinite for other shapes or an expected zero."""
    if found.shape != expected.shape or not np.any(expected):
        return float("inf")
    return float(np.linalg.norm(found - expected) / np.linalg.norm(expected))


def _of(layer: str, table: Mapping[str, Array]) -> dict[str, Array]:
    """Return the entries of one layer and direction, without its name: not those of layer0.reverse for layer0."""
    return {key.rpartition(".")[2]: value for key, value in table.items() if key.rpartition(".")[0] == layer}


def _value(gradient: Scaled) -> Array:
    return np.asarray(gradient.value()[0])
