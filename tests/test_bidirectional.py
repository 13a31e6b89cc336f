"""Bidirectional layers: the same numbers as torch.nn's and as autograd's, at every step of each direction.

A state of the reverse direction is indexed by that direction's own steps: 0 is its initial state, k stands at position
T + 1 - k.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from engine_runs import ROUNDING, Vectors, assert_close, problem_of, recorded, vectors_of
from late_torch import torch
from numpy.typing import NDArray
from reference import framework_cells
from reference.compare_run import redo, steps_of
from reference.equations import parse, reads_input_elementwise
from reference.shapes import shapes_of

from gradcli.engine import group
from gradcli.engine.problem import Problem, layer_names
from gradcli.engine.run import Engine
from gradcli.engine.step_clip import StepClip
from gradcli.engine.together import apart, can_join, joined

CELLS = Path(__file__).parent / "cells"
RELATIVE_ERROR = 1e-10
T, BATCH, INPUT, HIDDEN = 9, 3, 4, 5
TRIALS = 2
LOSSES: dict[str, dict[str, Any]] = {
    "mse at last": {"kind": "mse", "at": "last"},
    "mse at every": {"kind": "mse", "at": "every"},
    "cross-entropy at some": {"kind": "cross_entropy", "at": [2, 5, T], "classes": 4},
    "cross-entropy at every": {"kind": "cross_entropy", "at": "every", "classes": 4},
    "projection at the first": {"kind": "projection", "at": [1]},
    "sum at some": {"kind": "sum", "at": [3, 4]},
}


def drawn(spec: dict[str, Any], seed: int = 0) -> dict[str, NDArray[Any]]:
    """Return all the numbers of a bidirectional run, in the layout of a saved one; its states are the initial ones."""
    rng = np.random.default_rng(seed)
    arrays: dict[str, NDArray[Any]] = {
        "x": rng.normal(size=(TRIALS, spec["seq_len"], BATCH, spec["input_size"])),
    }
    output = 0
    size = spec["input_size"]
    for i in range(spec["num_layers"]):
        states, parameters = shapes_of(spec["cell"], spec["hidden_size"], size)
        for layer in (f"layer{i}", f"layer{i}.reverse"):
            for name, shape in parameters.items():
                arrays[f"param.{layer}.{name}"] = rng.normal(scale=0.5, size=(TRIALS, *shape))
            for name, rows in states.items():
                arrays[f"state.{layer}.{name}"] = rng.normal(scale=0.5, size=(TRIALS, 1, BATCH, rows))
        names = [e.target for e in parse(spec["cell"]["equations"]) if e.is_state]
        output = states[spec["cell"].get("output") or ("h" if "h" in names else names[0])]
        size = 2 * output
    steps = len(steps_of(spec))
    match spec["loss"]:
        case {"kind": "mse"}:
            arrays["target"] = rng.normal(size=(TRIALS, steps, BATCH, size))
        case {"kind": "cross_entropy", "classes": classes}:
            arrays["target"] = rng.integers(classes, size=(TRIALS, steps, BATCH))
            arrays["param.readout.W_hy"] = rng.normal(size=(TRIALS, classes, size))
            arrays["param.readout.b_y"] = rng.normal(size=(TRIALS, classes))
        case {"kind": "projection"}:
            arrays["vector"] = rng.normal(size=(TRIALS, size))
    return arrays


def spec_of(cell: dict[str, Any], loss: str, layers: int) -> dict[str, Any]:
    return {
        "cell": cell,
        "bidirectional": True,
        "num_layers": layers,
        "hidden_size": HIDDEN,
        "input_size": HIDDEN if reads_input_elementwise(cell["equations"]) else INPUT,
        "seq_len": T,
        "loss": LOSSES[loss],
    }


def by_autograd(spec: dict[str, Any], arrays: dict[str, NDArray[Any]]) -> Vectors:
    """Return all losses, states and gradients of a run as PyTorch's autograd finds them."""
    table: dict[tuple[object, ...], tuple[NDArray[Any], int]] = {}
    for trial in range(TRIALS):
        run = redo({name: values[trial] for name, values in arrays.items()}, spec, spec["cell"])
        for sequence, loss in enumerate(run.losses):
            table["loss", trial, sequence] = (np.atleast_1d(loss), 0)
        for name, states in run.states.items():
            for step, sequence in np.ndindex(states.shape[:2]):
                place = (name, step, trial, sequence)
                gradient = run.grad_states[name][step, sequence]
                table["state", *place] = (states[step, sequence], 0)
                table["grad_state", *place] = (gradient, 0)
                table["norm", *place] = (np.array([math.hypot(*gradient)]), 0)
        for name, gradient in run.grad_params.items():
            table["grad_param", name, trial] = (gradient, 0)
    return Vectors(table)


def wrong(found: Vectors, expected: Vectors, tolerance: float = RELATIVE_ERROR) -> dict[Any, float]:
    return {key: error for key, error in found.errors(expected).items() if not error < tolerance}


PROJECTED = {
    "equations": "c[t] = tanh(W_c @ [p[t-1], x[t]] + b_c)\np[t] = W_p @ c[t] + 0.3 * p[t-3]",
    "shapes": {"p": [3], "W_p": [3, "hidden_size"]},
    "output": "p",
}


def cell_block(name: str) -> dict[str, Any]:
    if name == "projected":
        return PROJECTED
    if name in framework_cells.EQUATIONS:
        return {"equations": framework_cells.EQUATIONS[name]}
    block: dict[str, Any] = yaml.safe_load((CELLS / f"{name}.yaml").read_text(encoding="utf-8"))["cell"]
    return block


#: Gates; several lags; an output that is no h, of another size; a state that only reads others; x elementwise.
VARIED = ["lstm", "gru", "third-order", "delay-line", "projected", "readout-state"]


@pytest.mark.torch
@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("layers", [1, 3])
@pytest.mark.parametrize("name", VARIED)
def test_all_states_and_gradients_are_those_of_autograd(name: str, layers: int, loss: str) -> None:
    spec = spec_of(cell_block(name), loss, layers)
    arrays = drawn(spec)
    assert wrong(vectors_of(recorded(problem_of(spec, arrays))), by_autograd(spec, arrays)) == {}


@pytest.mark.torch
@pytest.mark.parametrize("layers", [1, 2, 3])
@pytest.mark.parametrize("kind", ["rnn", "lstm", "gru"])
def test_outputs_and_gradients_are_those_of_torch_nn(kind: str, layers: int) -> None:
    torch.manual_seed(1)
    rng = np.random.default_rng(2)
    module = framework_cells.module_of(kind, INPUT, HIDDEN, layers, bidirectional=True)
    x, target = rng.normal(size=(T, BATCH, INPUT)), rng.normal(size=(T, BATCH, 2 * HIDDEN))
    states = "hc" if kind == "lstm" else "h"
    names = layer_names(layers, bidirectional=True)
    start = {s: torch.tensor(rng.normal(size=(len(names), BATCH, HIDDEN)), requires_grad=True) for s in states}
    outputs, _ = module(torch.tensor(x), tuple(start.values()) if kind == "lstm" else start["h"])
    (0.5 * (outputs - torch.tensor(target)) ** 2).sum().div(BATCH).backward()

    of_module = {name: value.detach().numpy() for name, value in module.named_parameters()}
    gradients = {name: value.grad.numpy() for name, value in module.named_parameters() if value.grad is not None}
    spec = spec_of(cell_block(kind), "mse at every", layers)
    parameters = framework_cells.parameters_of(kind, of_module, layers)
    run = recorded(
        problem_of(
            spec,
            {
                "x": x[None],
                "target": target[None],
                **{f"param.{name}": value[None] for name, value in parameters.items()},
                **{
                    f"state.{layer}.{s}": start[s].detach().numpy()[None, None, index]
                    for index, layer in enumerate(names)
                    for s in states
                },
            },
        )
    )
    assert run.recording is not None
    forward, reverse = (run.recording.states[f"{layer}.h"][1:, 0].transpose(0, 2, 1) for layer in names[-2:])
    np.testing.assert_allclose(np.concatenate([forward, reverse[::-1]], axis=2), outputs.detach().numpy(), rtol=1e-10)
    expected = framework_cells.gradients_of(kind, gradients, layers)
    assert expected.keys() == run.gradients.keys()
    for name, gradient in expected.items():
        assert_close((run.gradients[name].value()[0], 0), (gradient, 0))
    for index, layer in enumerate(names):
        for s in states:
            exponent = run.recording.exponents[f"{layer}.{s}"][0, 0]
            found = np.ldexp(run.recording.adjoints[f"{layer}.{s}"][0, 0], exponent).T
            assert_close((found, 0), (BATCH * start[s].grad.numpy()[index], 0))


# --- how the work is cut up ------------------------------------------------------------------------------------------


def problem(name: str = "lstm", loss: str = "mse at every", layers: int = 2) -> Problem:
    spec = spec_of(cell_block(name), loss, layers)
    return problem_of(spec, drawn(spec))


@pytest.mark.parametrize("loss", ["mse at last", "cross-entropy at every", "sum at some"])
@pytest.mark.parametrize("name", ["gru", "third-order", "projected"])
def test_blocks_change_nothing(name: str, loss: str) -> None:
    whole = vectors_of(recorded(problem(name, loss), block=T))
    for block in (1, 2, 3, 7):
        assert wrong(vectors_of(recorded(problem(name, loss), block=block)), whole, ROUNDING) == {}


def test_a_segment_is_the_whole_sequence_whatever_is_asked_for() -> None:
    assert wrong(vectors_of(recorded(problem(), segment=2)), vectors_of(recorded(problem())), ROUNDING) == {}


def test_trials_run_in_groups_and_problems_together() -> None:
    whole = problem()
    together = vectors_of(recorded(whole))
    assert wrong(vectors_of(recorded(whole, at_once=1)), together, ROUNDING) == {}
    other = problem_of(spec := spec_of(cell_block("lstm"), "mse at every", 2), drawn(spec, seed=1))
    assert can_join(whole, other)
    for run, alone in zip(apart(recorded(joined([whole, other])), [whole, other]), (whole, other), strict=True):
        assert wrong(vectors_of(run), vectors_of(recorded(alone)), ROUNDING) == {}
    assert not can_join(whole, replace(other, bidirectional=False))


def test_progress_runs_once_through_all_that_is_to_do() -> None:
    told: list[tuple[str, int, int]] = []
    Engine(problem(layers=3), block=2, progress=lambda *now: told.append(now)).run()
    for stage in ("forward", "backward"):
        steps = [(done, total) for name, done, total in told if name == stage]
        assert steps == sorted(steps)
        assert steps[-1] == (T, T)


# --- sizes beyond floats ---------------------------------------------------------------------------------------------


#: A number is held as so many times a whole one, so that sums and products with powers of two are exact.
UNIT_LOG2 = -60_000


def times(value: int, log2: float) -> int:
    """Return value * 2**log2; -inf stands for the factor 0."""
    if log2 == -math.inf:
        return 0
    shifted = value << int(log2) if log2 >= 0 else value >> int(-log2)
    assert log2 >= 0 or shifted << int(-log2) == value
    return shifted


def log2_of(value: int) -> float:
    if not value:
        return -math.inf
    shift = max(value.bit_length() - 64, 0)
    return math.log2(value >> shift) + shift + UNIT_LOG2


def exact_adjoints(
    rates: Sequence[float], weights: Sequence[Sequence[float]], steps: int, at: Sequence[int]
) -> dict[str, NDArray[np.float64]]:
    """Return log2 dL/dh by own step, (T+1,), for two layers of one linear unit a direction, in exact arithmetic.

    h[t] = 2**rate h[t-1] + 2**weight . y[t], y the outputs of the layer below; L is the sum of all outputs at `at`.
    """
    entering = [[1 << -UNIT_LOG2 if t + 1 in at else 0 for t in range(steps)]] * 2  # of each direction, by position
    found = {}
    for layer in (1, 0):
        below = [[0] * steps, [0] * steps]
        for direction, order in enumerate((1, -1)):
            rate = rates[2 * layer + direction]
            adjoints, carry = [], 0
            for gradient in reversed(entering[direction][::order]):
                adjoint = gradient + carry
                carry = times(adjoint, rate)
                adjoints.insert(0, adjoint)
            name = f"layer{layer}" + (".reverse" if direction else "")
            found[f"{name}.h"] = np.array([log2_of(value) for value in (carry, *adjoints)])
            if layer:
                for part, weight in zip(below, weights[direction], strict=True):
                    part[:] = [a + times(b, weight) for a, b in zip(part, adjoints[::order], strict=True)]
        entering = below
    return found


NO = -math.inf
#: Logarithms to base 2: of the rates of layer0, layer0.reverse, layer1, layer1.reverse; of what the upper two read.
RATES: dict[str, tuple[list[float], list[tuple[float, float]]]] = {
    "all fall": ([-3, -2, -4, -1], [(0, 0), (0, 0)]),
    "all fall fast": ([-30, -25, -28, -23], [(0, 0), (0, 0)]),
    "two stacks that do not meet": ([-3, -5, -4, -2], [(0, NO), (NO, 0)]),
    "two that cross": ([-3, -5, -4, -2], [(NO, 0), (0, NO)]),
    "nothing kept below": ([NO, NO, -4, -3], [(0, 1), (2, 0)]),
    "nothing kept below what falls fast": ([NO, NO, -30, -25], [(0, NO), (NO, 0)]),
    "nothing kept above": ([-3, -4, NO, NO], [(0, 1), (2, 0)]),
    "one grows": ([-3, 4, -4, -2], [(0, 0), (0, 0)]),
    "growth above, fall below": ([-6, -9, 5, 3], [(0, 0), (0, 0)]),
    "fall above, growth below": ([6, 3, -5, -3], [(0, 0), (0, 0)]),
    "far apart": ([-3, -4, -2, -5], [(-300, 300), (0, -500)]),
}


@pytest.mark.parametrize("at", [[600], [1], [1, 600], [200, 500], "every"], ids=str)
@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("alone", [None, "nothing kept below what falls fast"])
def test_norms_far_beyond_floats_are_those_of_exact_arithmetic(alone: str | None, dtype: str, at: Any) -> None:
    # Trials share their blocks, so that a hard case is cut up by others: one is looked at on its own.
    steps = 600
    names = [alone] if alone else [name for name in RATES if dtype == "float64" or name != "far apart"]
    at = list(range(1, steps + 1)) if at == "every" else at
    spec = {
        "cell": {"equations": "h[t] = a * h[t-1] + W @ x[t]"},
        "bidirectional": True,
        "num_layers": 2,
        "hidden_size": 1,
        "seq_len": steps,
        "loss": {"kind": "sum", "at": at},
    }
    layers = layer_names(2, bidirectional=True)
    arrays: dict[str, NDArray[Any]] = {"x": np.zeros((len(names), steps, 1, 1))}
    for index, layer in enumerate(layers):
        arrays[f"state.{layer}.h"] = np.zeros((len(names), 1, 1, 1))
        arrays[f"param.{layer}.a"] = np.exp2([[RATES[name][0][index]] for name in names])
        wired = [RATES[name][1][index % 2] if index >= 2 else (0,) for name in names]
        arrays[f"param.{layer}.W"] = np.exp2(wired)[:, None, :]
    run = Engine(replace(problem_of(spec, arrays), dtype=np.dtype(dtype))).run()
    assert run.backward_overflow is None
    farthest = 0.0
    for trial, name in enumerate(names):
        exact = exact_adjoints(*RATES[name], steps, at)
        for state, found in run.log2_norm.items():
            expected = exact[state]
            np.testing.assert_array_equal(np.isneginf(found[:, trial, 0]), np.isneginf(expected), f"{name} {state}")
            there = np.isfinite(expected)
            farthest = max(farthest, np.abs(expected[there]).max(initial=0.0))
            error = np.abs(found[there, trial, 0] - expected[there])
            assert error.max(initial=0.0) < (1e-9 if dtype == "float64" else 1e-3), (name, state)
    assert alone or farthest > 1100, "beyond the range of floats"


@pytest.mark.torch
@pytest.mark.parametrize("name", ["rnn", "lstm"])
def test_vectors_below_floats_are_those_of_autograd_with_a_larger_loss(name: str) -> None:
    spec = {**spec_of(cell_block(name), "projection at the first", 2), "seq_len": 500}
    spec["loss"] = {"kind": "projection", "at": "last"}
    arrays = drawn(spec)
    for key in arrays:
        if key.startswith(("param.", "state.")):
            arrays[key] = arrays[key] * (0.15 if ".W_h" in key else 0.5)
        if key.endswith(".b_f"):
            arrays[key] -= 3.0
    power = 1000
    larger = by_autograd(spec, {**arrays, "vector": np.ldexp(arrays["vector"], power)})
    found = vectors_of(recorded(problem_of(spec, arrays)))
    judged = far = 0
    for key, (mantissa, exponent) in found.table.items():
        if key[0] not in ("grad_state", "grad_param"):
            continue
        expected = larger.table[key][0]
        largest = np.abs(expected).max()
        if largest < 1e-280:
            continue  # lost in autograd, or zero
        judged += 1
        far += bool(np.log10(largest) - power * np.log10(2) < -300)
        scale = int(np.frexp(largest)[1])
        assert_close((mantissa, exponent + power), (np.ldexp(expected, -scale), scale))
    assert judged > 1000
    assert far > 100


# --- the checks are worth something ----------------------------------------------------------------------------------


def not_reversed_back(layers: Any, x: Any, histories: Any, **_: Any) -> Any:
    for index in range(0, len(layers), 2):
        layers[index].forward(x, histories[index])
        layers[index + 1].forward(np.ascontiguousarray(x[::-1]), histories[index + 1])
        x = np.concatenate([layers[index].outputs(), layers[index + 1].outputs()], axis=2)
    return x


def joined_the_other_way_round(layers: Any, x: Any, histories: Any, **_: Any) -> Any:
    for index in range(0, len(layers), 2):
        layers[index].forward(x, histories[index])
        layers[index + 1].forward(np.ascontiguousarray(x[::-1]), histories[index + 1])
        x = np.concatenate([layers[index + 1].outputs()[::-1], layers[index].outputs()], axis=2)
    return x


def read_from_the_beginning(layers: Any, x: Any, histories: Any, **_: Any) -> Any:
    for index in range(0, len(layers), 2):
        layers[index].forward(x, histories[index])
        layers[index + 1].forward(x, histories[index + 1])
        x = np.concatenate([layers[index].outputs(), layers[index + 1].outputs()[::-1]], axis=2)
    return x


@pytest.mark.torch
@pytest.mark.parametrize("mistake", [not_reversed_back, joined_the_other_way_round, read_from_the_beginning])
@pytest.mark.parametrize("layers", [1, 2])
def test_a_mistake_of_direction_is_seen(mistake: Any, layers: int, monkeypatch: pytest.MonkeyPatch) -> None:
    spec = spec_of(cell_block("gru"), "mse at every", layers)
    arrays = drawn(spec)
    monkeypatch.setattr(group, "forward_both_ways", mistake)
    errors = wrong(vectors_of(recorded(problem_of(spec, arrays))), by_autograd(spec, arrays))
    assert any(key[0] == "loss" for key in errors)
    assert any(key[0] == "grad_param" for key in errors)


# --- clipping inside -------------------------------------------------------------------------------------------------


@pytest.mark.torch
@pytest.mark.parametrize("method", ["step_value", "step_norm"])
@pytest.mark.parametrize("block", [1, 4, T])
def test_clipping_inside_is_what_hooks_on_every_state_do(method: str, block: int) -> None:
    threshold = 0.05

    def clip(gradient: Any) -> Any:  # (size, batch)
        if method == "step_value":
            return gradient.clamp(-threshold, threshold)
        norm = torch.linalg.vector_norm(gradient, dim=0, keepdim=True)
        return gradient * torch.clamp(threshold / norm, max=1.0)

    spec = spec_of(cell_block("lstm"), "mse at every", 2)
    arrays = drawn(spec)
    clipper = StepClip(method, threshold)
    run = Engine(problem_of(spec, arrays), block=block).run(record=True, step_clip=clipper)
    assert clipper.seen == 8 * (T + 1) * TRIALS * BATCH
    assert 0 < clipper.changed < clipper.seen
    found = vectors_of(run).table
    for trial in range(TRIALS):
        of_trial = {name: values[trial] for name, values in arrays.items()}
        expected = redo(of_trial, spec, spec["cell"], on_state_gradient=clip)
        for name, gradients in expected.grad_states.items():
            for step, sequence in np.ndindex(gradients.shape[:2]):
                assert_close(found["grad_state", name, step, trial, sequence], (gradients[step, sequence], 0))
        for name, gradient in expected.grad_params.items():
            assert_close(found["grad_param", name, trial], (gradient, 0))
