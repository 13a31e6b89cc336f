"""Jacobians of every cell: products of one-step maps, in both directions, against PyTorch's autograd and each other."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from built_in_cells import parsed
from numpy.typing import NDArray
from reference.torch_jacobian import full_state_jacobian
from reference.torch_reference import Cell
from test_against_torch import TEST_CELLS, built_in

from gradcli import cells
from gradcli.diagnostics.lyapunov import lyapunov_exponents
from gradcli.engine.linearised import LinearisedBlock, StepMaps
from gradcli.engine.run import Engine
from gradcli.prepare.build import build
from gradcli.prepare.sizing import parse
from gradcli.spec.constants import constants_of
from gradcli.spec.reader import LoadedSpec, load_spec

Array = NDArray[np.float64]

RELATIVE_ERROR = 1e-9
STEPS = 7
#: Cells whose Jacobian maps some direction to zero, though later steps read all of their states: a norm, relu units
#: that are off, spikes, a state that follows from the others.
SINGULAR = {
    *("alif", "batch-norm-lstm", "batch-norm-rnn", "delta-rnn", "dense-block", "dense-block-bn", "fast-weights"),
    *("indrnn", "irnn", "layer-norm-lstm", "lif", "lstm-gate-recurrence", "lstm-no-output-gate", "nas-cell", "nru"),
    *("on-lstm", "plain-stack-bn", "plif", "ran", "recurrent-delta-net", "rlif", "rwa", "slstm", "slstm-exp"),
    *("synaptic",),
}
SIZES: dict[str, Any] = {"seq_len": STEPS, "hidden_size": 4, "input_size": 3, "batch_size": 3, "trials": 2}


@dataclass(frozen=True)
class Walked:
    """The maps of all steps of one trial, with all that PyTorch needs to redo them.

    They are those of the first sequence, or of all, where batch_norm couples them: then x and history have them all.
    params: those of each step.
    """

    maps: list[tuple[StepMaps, int]]
    cell: Cell
    params: list[dict[str, Array]]
    x: Array
    history: dict[str, Array]

    def product(self, first: int) -> Array:
        """Return the Jacobian of the steps first+1 .. T, by cotangents."""
        size = self.maps[0][0].size
        found = np.eye(size)
        for maps, step in reversed(self.maps[first:]):
            found = maps.pull_back(step, found)
        return found.T

    def pushed(self, first: int) -> Array:
        """Return the same by tangents."""
        found = np.eye(self.maps[0][0].size)
        for maps, step in self.maps[first:]:
            found = maps.push_forward(step, found)
        return found

    def by_torch(self, first: int) -> Array:
        return self.of_steps(first, STEPS)

    def of_steps(self, first: int, last: int) -> Array:
        """Return the Jacobian of the steps first+1 .. last, by PyTorch."""
        history = {name: values[: len(values) - STEPS + first] for name, values in self.history.items()}
        return full_state_jacobian(
            self.cell, self.params[first:last], self.x[first:last], history, earlier=self.x[:first]
        )


def walk(loaded: LoadedSpec, block: dict[str, Any], *, trial: int = 1, layer: int = 0) -> Walked:
    network = build(loaded)
    problem = network.problem
    ((_, group),) = Engine(problem, at_once=problem.trials).groups()
    maps: list[tuple[StepMaps, int]] = []
    held = group.layers[layer]
    coupled = held.plan.couples_sequences
    history = {name: [np.array(start[trial])] for name, start in problem.initial[layer].items()}
    for values in history.values():
        values[:0] = [np.zeros_like(values[0])] * (held.lag - 1)
    below = []
    for lo, hi in group.walk_forward():
        middle = (hi - lo + 1) // 2
        for first, last in ((0, middle), (middle, hi - lo)):
            if first < last:
                found = LinearisedBlock(held, first, last).maps(trial)
                maps += [(found, step) for step in range(found.steps)]
        x = problem.source.fill(lo, hi) if layer == 0 else group.layers[layer - 1].outputs()
        below += [step.copy() for step in x[:, trial]]
        for name, values in history.items():
            values += [step.copy() for step in held.states[name][held.lag : held.lag + hi - lo, trial]]

    def chosen(steps: list[Array], shape: tuple[int, ...]) -> Array:
        """Return (n, batch, *shape) of all sequences, or (n, *shape) of the first."""
        return np.array([step.T.reshape(-1, *shape) if coupled else step[:, 0].reshape(shape) for step in steps])

    shapes = held.plan.cell.shapes

    cell = Cell(
        block["equations"],
        activation=loaded.spec.activation or block.get("activation"),
        constants=constants_of(loaded.cell, loaded.spec.constants).numbers,
    )
    tied = {name: values[trial] for name, values in problem.parameters[layer].items()}
    return Walked(
        maps,
        cell,
        [tied if problem.tied else {name: values[step] for name, values in tied.items()} for step in range(STEPS)],
        chosen(below, (shapes.input_size,)),
        {name: chosen(values, shapes.of_states[name]) for name, values in history.items()},
    )


def walk_of(name: str) -> Walked:
    """Walk over a built-in cell, from a state at which relu units are alive."""
    return walk(spec_of(name), built_in(name))


def spec_of(name: str) -> LoadedSpec:
    overrides = ["h_0={normal: {std: 1}}"] if "h" in parse(load_spec(name)).states else []
    return load_spec(name, options=SIZES, overrides=overrides)


def relative_error(found: Array, wanted: Array) -> float:
    assert np.abs(wanted).max() > 0
    return float(np.abs(found - wanted).max() / np.abs(wanted).max())


@pytest.mark.torch
@pytest.mark.parametrize("name", cells.names())
def test_built_in_cells(name: str) -> None:
    walked = walk_of(name)
    for first in (0, 4, STEPS - 1):
        assert relative_error(walked.product(first), walked.by_torch(first)) < RELATIVE_ERROR
        assert relative_error(walked.pushed(first), walked.product(first)) < RELATIVE_ERROR


@pytest.mark.torch
@pytest.mark.parametrize("path", TEST_CELLS, ids=lambda path: path.stem)
def test_cells_of_the_tests(path: Path) -> None:
    block = yaml.safe_load(path.read_text(encoding="utf-8"))["cell"]
    sizes = {key: SIZES[key] for key in ("seq_len", "batch_size", "trials")}
    walked = walk(load_spec(str(path), options=sizes, overrides=["loss=sum"]), block)
    for first in (0, STEPS - 1):
        assert relative_error(walked.product(first), walked.by_torch(first)) < RELATIVE_ERROR
        assert relative_error(walked.pushed(first), walked.product(first)) < RELATIVE_ERROR


@pytest.mark.torch
def test_the_upper_layer_of_a_stack() -> None:
    walked = walk(load_spec("lstm", options={**SIZES, "num_layers": 2}), built_in("lstm"), layer=1)
    assert relative_error(walked.product(0), walked.by_torch(0)) < RELATIVE_ERROR


@pytest.mark.parametrize("name", ["lstm", "rnn-lags"])
def test_cotangents_and_tangents_are_dual(name: str) -> None:
    maps, step = walk(load_spec(name, options=SIZES), built_in(name)).maps[2]
    rng = np.random.default_rng(0)
    u, v = rng.standard_normal((2, maps.size, 1))
    pulled, pushed = float((maps.pull_back(step, u).T @ v)[0, 0]), float((u.T @ maps.push_forward(step, v))[0, 0])
    assert abs(pulled - pushed) < 1e-13 * abs(pulled)


@pytest.mark.torch
@pytest.mark.parametrize("name", cells.names())
def test_exponents_add_up_to_the_determinant(name: str) -> None:
    """sum lambda_i = mean ln abs(det J_t), by PyTorch's J_t; the cells without a determinant are singular indeed."""
    walked = walk_of(name)
    cell = parsed(name)
    expected = name in SINGULAR or set(cell.carried) != set(cell.states)
    logs = []
    for step in range(STEPS):
        one = walked.of_steps(step, step + 1)
        values = np.linalg.svd(one, compute_uv=False)
        is_singular = values[-1] < 1e-9 * values[0]
        if is_singular:
            assert expected
            return
        logs.append(np.log(values).sum())
    assert not expected
    size = walked.maps[0][0].size
    found = lyapunov_exponents(
        Engine(build(spec_of(name)).problem), 0, count=size, burn_in=0, rng=np.random.default_rng(0)
    )
    assert found.complete
    assert found.exponents[1].sum() == pytest.approx(np.mean(logs), rel=1e-9, abs=1e-9)
