"""Sequences of different lengths in one batch, against PyTorch, which runs each of them alone at its own length."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from importlib import resources
from typing import Any

import numpy as np
import pytest
import yaml
from engine_runs import problem_of
from late_torch import torch
from numpy.typing import NDArray
from reference.compare_run import redo, steps_of
from reference.framework_cells import EQUATIONS, GATES
from reference.make_fixtures import draw
from reference.relative_error import vector_error
from reference.torch_reference import Run as Reference

from gradcli import cells
from gradcli.engine import sizes
from gradcli.engine.blocks import walk_adjoints
from gradcli.engine.loss import Linear
from gradcli.engine.problem import Problem, Run
from gradcli.engine.run import Engine

Arrays = dict[str, NDArray[Any]]
Spec = dict[str, Any]

T, TRIALS = 12, 2
LENGTHS = [5, T, 9, 1, 5, T - 1]
CLOSE = 1e-10


def built_in(name: str) -> dict[str, Any]:
    """Return the cell of a built-in file, read without gradcli's own reader."""
    block: dict[str, Any] = yaml.safe_load((resources.files(cells) / f"{name}.yaml").read_text(encoding="utf-8"))
    return {key: block[key] for key in ("equations", "activation") if key in block}


BLOCKS: dict[str, dict[str, Any]] = {
    "lstm": {"equations": EQUATIONS["lstm"]},
    "rnn-lags": built_in("rnn-lags"),
    # Divided by a state that is zero before the first step: there the derivative is infinite.
    "quotient": {
        "equations": """
            c[t] = 0.6 * c[t-1] + tanh(W @ x[t] + U @ h[t-1])
            n[t] = 0.5 * n[t-1] + exp(tanh(V @ x[t]))
            h[t] = (c[t] + Y @ x[t] * h[t-1]) / n[t] + 0.1 * h[t-3]
        """
    },
    # Products with a vector that is made within the step, a norm, and an input that is divided by.
    "normalised": {
        "equations": """
            r = sigmoid(W_r @ x[t] + U_r @ h[t-1])
            g = tanh(U_g @ (r * h[t-1]) + W_g @ (1 / x[t]))
            h[t] = 0.3 * h[t-1] + p * layer_norm(g + W @ x[t], 0.01)
        """
    },
}
GROWING = {"squared": {"equations": "h[t] = h[t-1] ** 2 + 0.01 * tanh(W @ x[t])"}}
LOSSES: dict[str, Any] = {
    "last": {"kind": "mse", "at": "last"},
    "every": {"kind": "mse", "at": "every"},
    "some": {"kind": "cross_entropy", "at": [3, 8, T], "classes": 3},
    "projection": {"kind": "projection", "at": "every"},
}


def posed(cell: str, loss: str, layers: int = 1, trials: int = TRIALS) -> tuple[Spec, list[Arrays], Problem]:
    """Return a spec, the arrays of each trial, and the problem; before a sequence begins the input is zero."""
    spec = {
        "cell": (BLOCKS | GROWING)[cell],
        "hidden_size": 4,
        "input_size": 3,
        "num_layers": layers,
        "seq_len": T,
        "batch_size": len(LENGTHS),
        "loss": LOSSES[loss],
    }
    rng = np.random.default_rng(7)
    drawn = [draw(spec, rng) for _ in range(trials)]
    for arrays in drawn:
        if cell == "quotient":
            for name in arrays:
                if name.endswith(".n"):
                    arrays[name][:] = 0.0
        for sequence, length in enumerate(LENGTHS):
            arrays["x"][: T - length, sequence] = 0.0
    problem = problem_of(spec, {name: np.stack([arrays[name] for arrays in drawn]) for name in drawn[0]})
    return spec, drawn, replace(problem, starts=T - np.array(LENGTHS))


def alone(spec: Spec, arrays: Arrays, sequence: int) -> Reference:
    """Return what PyTorch makes of one sequence by itself, at its own length."""
    length = LENGTHS[sequence]
    start, steps = T - length, steps_of(spec)
    counted = [step > start for step in steps]
    own = {name: values for name, values in arrays.items() if name.startswith("param.") or name == "vector"}
    own |= {name: values[:, [sequence]] for name, values in arrays.items() if name.startswith("state.")}
    own["x"] = arrays["x"][start:, [sequence]]
    if "target" in arrays:
        own["target"] = arrays["target"][counted][:, [sequence]]
    at = [step - start for step, counts in zip(steps, counted, strict=True) if counts]
    return redo(own, spec | {"seq_len": length, "loss": spec["loss"] | {"at": at}}, spec["cell"])


def errors(run: Run, spec: Spec, drawn: list[Arrays]) -> Iterator[tuple[object, float | None]]:
    """Yield the relative error of every loss, state, gradient and norm, and of the parameter gradients."""
    assert run.recording is not None
    for trial, arrays in enumerate(drawn):
        gradients: dict[str, NDArray[Any]] = {}
        for sequence, length in enumerate(LENGTHS):
            reference = alone(spec, arrays, sequence)
            yield ("loss", trial, sequence), vector_error(run.losses[trial, [sequence]], 0, reference.losses)
            for name, states in reference.states.items():
                for step in range(length + 1):
                    place = (T - length + step, trial, slice(None), sequence)
                    exponent = int(run.recording.exponents[name][place[0], trial, sequence])
                    found, gradient = run.recording.states[name][place], run.recording.adjoints[name][place]
                    expected = reference.grad_states[name][step, 0]
                    yield ("state", name, *place), vector_error(found, 0, states[step, 0])
                    yield ("gradient", name, *place), vector_error(gradient, exponent, expected)
                    norm = np.exp2(run.log2_norm[name][place[0], trial, [sequence]])
                    yield ("norm", name, *place), vector_error(norm, 0, np.array([np.linalg.norm(expected)]))
            for name, gradient in reference.grad_params.items():
                gradients[name] = gradients.get(name, 0.0) + gradient / len(LENGTHS)
        for name, gradient in gradients.items():
            found = run.gradients[name]
            yield ("parameter", name), vector_error(found.mantissa[trial], int(found.exponent[trial]), gradient)


def wrong(run: Run, spec: Spec, drawn: list[Arrays]) -> dict[object, float | None]:
    """Return the errors that are not small, after a look at the steps that there are none of."""
    assert run.recording is not None
    for name, norm in run.log2_norm.items():
        before = np.arange(T + 1)[:, None] < T - np.array(LENGTHS)
        assert np.array_equal(np.isnan(norm), np.broadcast_to(before[:, None], norm.shape))
        for kept in (run.recording.states[name], run.recording.adjoints[name]):
            assert np.array_equal(np.isnan(kept), np.broadcast_to(before[:, None, None], kept.shape))
    return {key: error for key, error in errors(run, spec, drawn) if error is None or not error < CLOSE}


@pytest.mark.torch
@pytest.mark.parametrize("layers", [1, 2])
@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("cell", BLOCKS)
def test_each_sequence_has_what_it_has_alone(cell: str, loss: str, layers: int) -> None:
    spec, drawn, problem = posed(cell, loss, layers)
    assert wrong(Engine(problem).run(record=True), spec, drawn) == {}


@pytest.mark.torch
@pytest.mark.parametrize("segment", range(1, T + 1))
@pytest.mark.parametrize("cell", BLOCKS)
def test_segments_of_every_length(cell: str, segment: int) -> None:
    spec, drawn, problem = posed(cell, "every", layers=2, trials=1)
    for block in (1, 3, T):
        assert wrong(Engine(problem, segment=segment, block=block).run(record=True), spec, drawn) == {}


@pytest.mark.torch
@pytest.mark.parametrize("most", [2, 3, 16])
def test_stretches_of_a_segment_side_by_side(most: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sizes, "_MOST_STRETCHES", most)
    for cell in BLOCKS:
        spec, drawn, problem = posed(cell, "every", layers=2)
        engine = Engine(problem, segment=6, at_once=TRIALS)
        assert wrong(engine.run(record=True), spec, drawn) == {}
        (group,) = engine._groups.values()
        assert group._recomputation is not None
        assert not group._recomputation.strays


def test_nothing_goes_back_beyond_the_initial_state() -> None:
    for cell in BLOCKS:
        _, _, problem = posed(cell, "every", layers=2)
        for _, group in Engine(problem, at_once=TRIALS).groups():
            for visit in walk_adjoints(group):
                first, last = visit.steps
                there = T - np.array(LENGTHS) < last
                assert (first >= T - np.array(LENGTHS))[there].all()
                for total, _ in (total for block in visit.blocks for total in block.totals.values()):
                    assert (total[..., ~there] == 0).all()
                    assert (total[..., there] != 0).any()


@pytest.mark.torch
def test_what_a_sequence_would_do_before_it_begins_does_not_overflow() -> None:
    # From 3 on the square leaves the floats within 11 steps: of two steps it does not.
    spec, drawn, problem = posed("squared", "every", trials=1)
    for arrays in drawn:
        arrays["state.layer0.h"][:] = 0.1
        arrays["state.layer0.h"][:, 3] = 3.0
    initial = [{"h": drawn[0]["state.layer0.h"].transpose(0, 2, 1)}]
    for segment in (1, 4, T):
        assert wrong(Engine(replace(problem, initial=initial), segment=segment).run(record=True), spec, drawn) == {}


@pytest.mark.torch
def test_packed_sequences() -> None:
    _, (arrays,), problem = posed("lstm", "projection", trials=1)
    problem = replace(problem, loss=Linear([T], arrays["vector"][None]))
    module = torch.nn.LSTM(3, 4, dtype=torch.float64, batch_first=True)
    gates = GATES["lstm"]
    with torch.no_grad():
        for name, parts in (("weight_ih_l0", "W_x"), ("weight_hh_l0", "W_h"), ("bias_ih_l0", "b_")):
            rows = [arrays[f"param.layer0.{parts}{gate}"] for gate in gates]
            getattr(module, name).copy_(torch.tensor(np.concatenate(rows)))
        module.bias_hh_l0.zero_()
    x = torch.zeros(len(LENGTHS), T, 3, dtype=torch.float64)
    for sequence, length in enumerate(LENGTHS):
        x[sequence, :length] = torch.tensor(arrays["x"][T - length :, sequence])
    packed = torch.nn.utils.rnn.pack_padded_sequence(x, torch.tensor(LENGTHS), batch_first=True, enforce_sorted=False)
    start = [torch.tensor(arrays[f"state.layer0.{state}"], requires_grad=True) for state in "hc"]
    _, (last, _) = module(packed, tuple(start))
    losses = last[0] @ torch.tensor(arrays["vector"])
    losses.sum().backward()
    run = Engine(problem).run(record=True)
    assert run.recording is not None
    np.testing.assert_allclose(run.losses[0], losses.detach().numpy(), rtol=CLOSE, atol=0)
    for state, leaf in zip("hc", start, strict=True):
        assert leaf.grad is not None
        expected = np.log2(np.linalg.norm(leaf.grad.numpy()[0], axis=1))
        norm = run.log2_norm[f"layer0.{state}"][T - np.array(LENGTHS), 0, np.arange(len(LENGTHS))]
        np.testing.assert_allclose(np.exp2(norm), np.exp2(expected), rtol=CLOSE, atol=0)
    expected = module.weight_hh_l0.grad
    assert expected is not None
    found = np.concatenate([run.gradients[f"layer0.W_h{gate}"].value()[0] for gate in gates]) * len(LENGTHS)
    assert vector_error(found, 0, expected.numpy()) < CLOSE
