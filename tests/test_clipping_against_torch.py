"""Clipping, inside BPTT and after it, and the step that follows: the same numbers as PyTorch's hooks and optimisers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from engine_runs import ROUNDING, assert_close, problem_of
from late_torch import torch
from reference.compare_run import redo
from reference.fixture_file import FOLDER, read_fixture
from simulated import simulate

from gradcli import cells
from gradcli.engine.problem import Problem
from gradcli.engine.run import Engine
from gradcli.engine.step_clip import StepClip

CLIPPED_CELLS = ["torch-lstm", "torch-gru", "second-order"]


@pytest.mark.torch
@pytest.mark.parametrize("threshold", [0.05, 1.0])
@pytest.mark.parametrize("method", ["step_value", "step_norm"])
@pytest.mark.parametrize("name", CLIPPED_CELLS)
def test_clipping_inside_is_what_hooks_on_every_state_do(name: str, method: str, threshold: float) -> None:
    spec, stored = read_fixture(FOLDER / f"{name}.npz")
    assert_clipped_as_by_hooks(problem_of(spec, stored), spec, stored, method, threshold)


@pytest.mark.torch
@pytest.mark.parametrize("method", ["step_value", "step_norm"])
def test_clipping_inside_a_network_in_depth(method: str, tmp_path: Path) -> None:
    spec = {
        "cell": {"equations": "h[t] = h[t-1] + W_2 @ tanh(W_1 @ h[t-1] + V @ h[t-2] + W_xh @ x[t] + b)"},
        "tied": False,
        "hidden_size": 5,
        "input_size": 3,
        "seq_len": 8,
        "batch_size": 3,
        "trials": 1,
    }
    simulated = simulate(spec, tmp_path, save=True)
    resolved, stored = simulated.report["spec"], simulated.arrays
    problem = replace(problem_of(resolved, stored), tied=False)
    assert_clipped_as_by_hooks(problem, resolved, {k: v for k, v in stored.items() if k != "at"}, method, 0.7)


def assert_clipped_as_by_hooks(
    problem: Problem, spec: Mapping[str, Any], stored: Mapping[str, Any], method: str, threshold: float
) -> None:
    """Compare a run that clips inside BPTT with the reference, whose hooks clip the gradient of every state."""

    def clip(gradient: Any) -> Any:  # (size, batch)
        if method == "step_value":
            return gradient.clamp(-threshold, threshold)
        norm = torch.linalg.vector_norm(gradient, dim=0, keepdim=True)
        return gradient * torch.clamp(threshold / norm, max=1.0)

    expected = redo({key: value[0] for key, value in stored.items()}, spec, spec["cell"], on_state_gradient=clip)
    clipper = StepClip(method, threshold)
    run = Engine(problem, block=5).run(record=True, step_clip=clipper)
    assert 0 < clipper.changed <= clipper.seen
    assert run.recording is not None
    for key, gradients in expected.grad_states.items():
        exponents = run.recording.exponents[key][:, 0, None, :]
        found = np.ldexp(run.recording.adjoints[key][:, 0], exponents).transpose(0, 2, 1)
        assert_close((found, 0), (gradients, 0))
        for step in np.ndindex(gradients.shape[:2]):
            assert_close((found[step], 0), (gradients[step], 0))
    for key, gradient in expected.grad_params.items():
        assert_close((run.gradients[key].value()[0], 0), (gradient, 0))


@pytest.mark.parametrize("method", ["step_value", "step_norm"])
@pytest.mark.parametrize("shape", [(1, 1), (1, 3), (3, 1), (2, 3)], ids=str)
def test_clipping_inside_does_the_same_for_any_number_of_trials_and_sequences(
    method: str, shape: tuple[int, int], tmp_path: Path
) -> None:
    spec = {"cell": "lstm", "hidden_size": 6, "input_size": 3, "seq_len": 20, "clip": [{method: 0.02}]}
    many = simulate({**spec, "trials": shape[0], "batch_size": shape[1]}, tmp_path)
    curve = many.report["clip"][0]["curve"]["log10_norm"]
    assert 0 < many.report["clip"][0]["fraction_clipped"] < 1
    limit = np.log10(0.02 * np.sqrt(2 * (6 if method == "step_value" else 1)))  # the states h and c, joined
    assert max(curve) <= limit + 1e-12
    assert np.all(np.array(curve) <= many.curve() + 1e-12)


@pytest.mark.torch
@pytest.mark.parametrize(
    "loss", [{"kind": "mse", "at": "every"}, {"kind": "cross_entropy", "at": "last", "classes": 3}]
)
@pytest.mark.parametrize("cell", ["lstm", "gru", "rnn-lags", "plain-stack", "dense-block"])
def test_clipping_after_and_the_step_are_those_of_torch(cell: str, loss: dict[str, Any], tmp_path: Path) -> None:
    rate, norm, value = 0.5, 0.2, 0.01
    spec = {
        "cell": cell,
        "hidden_size": 5,
        "input_size": 3,
        "seq_len": 10,
        "batch_size": 4,
        "trials": 1,
        "loss": loss,
        "learning_rate": rate,
        "clip": [{"norm": norm}, {"value": value}],
    }
    simulated = simulate(spec, tmp_path, save=True)
    block = yaml.safe_load((Path(cells.__file__).parent / f"{cell}.yaml").read_text(encoding="utf-8"))
    saved = {key: array[0] for key, array in simulated.arrays.items() if key != "at"}
    names = [key.removeprefix("param.") for key in saved if key.startswith("param.")]
    gradients = redo(saved, simulated.report["spec"], block).grad_params

    copies = [simulated.report["parameters"][name]["copies"] for name in names]

    def leaves() -> list[Any]:
        """Of PyTorch's two biases, whose sum the cell has, one is that sum and the other zero."""
        found = []
        for name, count in zip(names, copies, strict=True):
            value = saved[f"param.{name}"]
            for part in (value, *[np.zeros_like(value)] * (count - 1)):
                found.append(torch.tensor(part, requires_grad=True))
                found[-1].grad = torch.tensor(gradients[name])
        return found

    def together(parameters: list[Any]) -> Any:
        return torch.cat([parameter.grad.ravel() for parameter in parameters])

    def loss_after_step(parameters: list[Any]) -> float:
        torch.optim.SGD(parameters, lr=rate).step()
        parts = iter(parameters)
        stepped = {
            f"param.{name}": sum(next(parts).detach().numpy() for _ in range(count))
            for name, count in zip(names, copies, strict=True)
        }
        return float(redo({**saved, **stepped}, simulated.report["spec"], block).losses.mean())

    plain, by_norm, by_value = leaves(), leaves(), leaves()
    torch.nn.utils.clip_grad_norm_(by_norm, norm)
    torch.nn.utils.clip_grad_value_(by_value, value)
    whole = together(plain)
    for row, parameters in zip(simulated.report["clip"], (by_norm, by_value), strict=True):
        clipped = together(parameters)
        assert 0 < row["fraction_clipped"] <= 1
        assert 10 ** row["log10_norm_before"] == pytest.approx(float(whole.norm()), rel=ROUNDING)
        assert 10 ** row["log10_norm_after"] == pytest.approx(float(clipped.norm()), rel=ROUNDING)
        assert row["scale"] == pytest.approx(float(clipped.norm() / whole.norm()), rel=ROUNDING)
        assert row["cosine"] == pytest.approx(float(whole @ clipped / whole.norm() / clipped.norm()), rel=ROUNDING)
        assert row["loss_before"] == pytest.approx(float(saved["loss"].mean()), rel=ROUNDING)
        assert row["loss_after_clipped"] == pytest.approx(loss_after_step(parameters), rel=ROUNDING)
        assert row["loss_after_unclipped"] == pytest.approx(loss_after_step(leaves()), rel=ROUNDING)
    entries = int((whole.abs() > value).sum())
    assert simulated.report["clip"][1]["fraction_clipped"] == pytest.approx(entries / len(whole), rel=ROUNDING)
