"""The lines of PyTorch and Keras beside a remedy, run on their own layers: the parameters are the remedy's, and so is
the reach of the gradient that PyTorch's autograd finds."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from in_process import gradcli
from late_torch import torch

pytestmark = pytest.mark.torch

H, INPUT, T = 8, 5, 60
GATES = {"rnn": "h", "lstm": "ifgo", "gru": "rzn"}
KERAS_GATES = {"rnn": "h", "lstm": "ifgo", "gru": "zrn"}
SIZES = ["--hidden-size", H, "--input-size", INPUT, "-T", T, "--trials", 1, "--batch-size", 6]
# The state stays so small that tanh has the slope 1: the gradient grows by 1.5 a step.
EXPLODING = ["--set", "init.W_hh={orthogonal: 1.5}", "--set", "init.b_h=0", "--set", "input.std=1e-12"]

CASES: dict[str, list[Any]] = {
    "rnn": ["rnn"],
    "lstm": ["lstm"],
    "gru": ["gru"],
    "two layers": ["lstm", "--set", "num_layers=2"],
    "many layers": ["gru", "--set", "num_layers=4"],
    "both directions": ["lstm", "--set", "num_layers=2", "--set", "bidirectional=true"],
    "large input": ["lstm", "--set", "input.std=50", "--set", "input.mean=3"],
    "explodes": ["rnn", *EXPLODING],
    "gates explode": ["gru", "--set", "init.W_h*={normal: 4}", "--set", "input.std=0.01"],
    "both directions explode": ["rnn", "--set", "bidirectional=true", *EXPLODING],
}


def run_of(folder: Path, *options: Any) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    file = folder / "run.npz"
    finished = gradcli("simulate", *options, *SIZES, "--format", "json", "--save", file)
    assert finished.code == 0, finished.stderr
    with np.load(file) as arrays:
        return finished.report()["runs"][0], {name: arrays[name][0] for name in arrays if name != "at"}


def suffixes(run: dict[str, Any]) -> dict[str, str]:
    """Return the layers of a run, and what PyTorch's parameters of each end with."""
    found = {}
    for index in range(run["spec"]["num_layers"]):
        found[f"layer{index}"] = f"_l{index}"
        if run["spec"]["bidirectional"]:
            found[f"layer{index}.reverse"] = f"_l{index}_reverse"
    return found


def module_of(run: dict[str, Any], arrays: dict[str, np.ndarray]) -> Any:
    """Return PyTorch's layer with the weights of a run."""
    cell, spec = run["cell"], run["spec"]
    layer = getattr(torch.nn, cell.upper())(INPUT, H, spec["num_layers"], bidirectional=spec["bidirectional"]).double()
    state = {}
    for name, suffix in suffixes(run).items():
        own = {
            key.rpartition(".")[2]: value for key, value in arrays.items() if key.rpartition(".")[0] == f"param.{name}"
        }
        state[f"weight_ih{suffix}"] = np.concatenate([own[f"W_x{gate}"] for gate in GATES[cell]])
        state[f"weight_hh{suffix}"] = np.concatenate([own[f"W_h{gate}"] for gate in GATES[cell]])
        state[f"bias_ih{suffix}"] = np.concatenate([own[f"b_{gate}"] for gate in GATES[cell]])
        state[f"bias_hh{suffix}"] = np.concatenate([own.get(f"b_h{gate}", np.zeros(H)) for gate in GATES[cell]])
    layer.load_state_dict({name: torch.tensor(value) for name, value in state.items()})
    return layer


def parameters_of(run: dict[str, Any], layer: Any) -> dict[str, np.ndarray]:
    """Return a module's parameters under the names of a run's, the two biases added where the cell has one."""
    found = {}
    values = {name: value.detach().numpy() for name, value in layer.state_dict().items()}
    for name, suffix in suffixes(run).items():
        for index, gate in enumerate(GATES[run["cell"]]):
            rows = slice(index * H, (index + 1) * H)
            found[f"param.{name}.W_x{gate}"] = values[f"weight_ih{suffix}"][rows]
            found[f"param.{name}.W_h{gate}"] = values[f"weight_hh{suffix}"][rows]
            own, other = values[f"bias_ih{suffix}"][rows], values[f"bias_hh{suffix}"][rows]
            apart = (run["cell"], gate) == ("gru", "n")
            found[f"param.{name}.b_{gate}"] = own if apart else own + other
            if apart:
                found[f"param.{name}.b_hn"] = other
    return found


def assert_same_kind_of_values(
    remedy: dict[str, Any], name: str, found: np.ndarray, before: np.ndarray, after: np.ndarray
) -> None:
    """A parameter as a line of code left it is the one of the run that the remedy was told after."""
    short = name.rpartition(".")[2]
    is_recurrent = short.startswith("W_h")
    if "chrono" in remedy["name"] and short.startswith("b_") and not np.array_equal(before, after):
        assert np.all(np.abs(found) <= math.log(T - 1))
        assert np.sign(found).sum() == np.sign(after).sum()
    elif "orthogonal" in remedy["name"] and is_recurrent:
        np.testing.assert_allclose(found @ found.T, np.eye(H), atol=1e-6)
        np.testing.assert_allclose(after @ after.T, np.eye(H), atol=1e-6)
    elif remedy["name"] == "recurrent gain" and is_recurrent:
        np.testing.assert_allclose(found, after, rtol=0.02)
    else:
        np.testing.assert_allclose(found, after, rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize("name", CASES)
def test_the_line_of_torch_gives_the_parameters_of_the_remedy(name: str, tmp_path: Path) -> None:
    run, before = run_of(tmp_path, *CASES[name])
    assert run["remedies"]
    assert run["verdict"]["kind"] == ("exploding" if "explode" in name else "vanishing")
    for remedy in run["remedies"]:
        _, after = run_of(tmp_path, *CASES[name], *(word for text in remedy["set"] for word in ("--set", text)))
        if remedy["name"] == "clipping inside BPTT":
            continue
        layer, x = module_of(run, before), torch.tensor(before["x"])
        names = {"torch": torch, "layer": layer, "x": x}
        exec(remedy["code"]["torch"], names)
        np.testing.assert_allclose(names["x"], after["x"], rtol=1e-12)
        for parameter, value in parameters_of(run, layer).items():
            assert_same_kind_of_values(remedy, parameter, value, before[parameter], after[parameter])
        if len(suffixes(run)) == 1:
            assert_reaches_as_far(remedy, run["cell"], layer, after)


def assert_reaches_as_far(remedy: dict[str, Any], cell: str, layer: Any, arrays: dict[str, np.ndarray]) -> None:
    """Back-propagate through PyTorch's layer, step by step: what is left of each sequence's gradient at T."""
    x, target = torch.tensor(arrays["x"]), torch.tensor(arrays["target"][0])
    first = torch.zeros(1, x.shape[1], H, dtype=torch.float64, requires_grad=True)
    cell_state = torch.zeros_like(first, requires_grad=True)
    state = (first, cell_state) if cell == "lstm" else first
    for step in x:
        _, state = layer(step[None], state)
    last = state[0] if cell == "lstm" else state
    (0.5 * (last[0] - target).square().sum()).backward()
    found = [first.grad[0].numpy()] + ([cell_state.grad[0].numpy()] if cell == "lstm" else [])
    meant = [
        arrays[f"grad_state.layer0.{name}"][0] * 2.0 ** arrays[f"log2_state.layer0.{name}"][0][:, None]
        for name in ("h", "c")[: len(found)]
    ]
    if remedy["name"] in ("gate bias", "input scale"):
        for one, other in zip(found, meant, strict=True):
            np.testing.assert_allclose(one, other, rtol=1e-8)
        return
    # Drawn anew, or rounded: the same law, and so most of what the remedy brought.
    decades = [np.log10(np.linalg.norm(np.concatenate(each, axis=1), axis=1)).mean() for each in (found, meant)]
    left = remedy["log10_ratio"]
    assert abs(decades[0] - decades[1]) <= 0.5 * abs(left["after"] - left["before"])


class KerasLayer:
    """What Keras's layers do with their weights: kernels (in, gates * units), one bias, of GRU two rows of it."""

    def __init__(self, cell: str, arrays: dict[str, np.ndarray]) -> None:
        gates = KERAS_GATES[cell]
        own = {key.rpartition(".")[2]: value for key, value in arrays.items() if key.startswith("param.layer0.")}
        self.cell = cell
        bias = np.concatenate([own[f"b_{gate}"] for gate in gates])
        recurrent = np.concatenate([own.get(f"b_h{gate}", np.zeros(H)) for gate in gates])
        self._weights = [
            np.concatenate([own[f"W_x{gate}"].T for gate in gates], axis=1),
            np.concatenate([own[f"W_h{gate}"].T for gate in gates], axis=1),
            np.stack([bias, recurrent]) if cell == "gru" else bias,
        ]
        self.shapes = [value.shape for value in self._weights]

    def get_weights(self) -> list[np.ndarray]:
        return [value.copy() for value in self._weights]

    def set_weights(self, values: list[np.ndarray]) -> None:
        assert [value.shape for value in values] == self.shapes
        self._weights = [np.array(value) for value in values]

    def parameters(self) -> dict[str, np.ndarray]:
        found = {}
        kernel, recurrent, bias = self._weights
        for index, gate in enumerate(KERAS_GATES[self.cell]):
            part = slice(index * H, (index + 1) * H)
            found[f"param.layer0.W_x{gate}"], found[f"param.layer0.W_h{gate}"] = kernel[:, part].T, recurrent[:, part].T
            rows = bias[:, part] if self.cell == "gru" else np.stack([bias[part], np.zeros(H)])
            apart = (self.cell, gate) == ("gru", "n")
            found[f"param.layer0.b_{gate}"] = rows[0] if apart else rows.sum(axis=0)
            if apart:
                found["param.layer0.b_hn"] = rows[1]
        return found


@pytest.mark.parametrize("name", ["rnn", "lstm", "gru", "large input", "explodes", "gates explode"])
def test_the_line_of_keras_gives_the_parameters_of_the_remedy(name: str, tmp_path: Path) -> None:
    run, before = run_of(tmp_path, *CASES[name])
    for remedy in run["remedies"]:
        if remedy["code"]["keras"] is None:
            assert remedy["name"] == "clipping inside BPTT"
            continue
        _, after = run_of(tmp_path, *CASES[name], *(word for text in remedy["set"] for word in ("--set", text)))
        layer = KerasLayer(run["cell"], before)
        names = {"np": np, "layer": layer, "x": before["x"]}
        exec(remedy["code"]["keras"], names)
        np.testing.assert_allclose(names["x"], after["x"], rtol=1e-12)
        for parameter, value in layer.parameters().items():
            assert_same_kind_of_values(remedy, parameter, value, before[parameter], after[parameter])


@pytest.mark.parametrize("kind", ["LSTM", "GRU", "RNN"])
def test_what_is_added_to_a_trained_layer_is_added_once(kind: str, tmp_path: Path) -> None:
    torch.manual_seed(1)
    layer = getattr(torch.nn, kind)(INPUT, H)
    torch.save(layer.state_dict(), tmp_path / "model.pt")
    run = gradcli("simulate", tmp_path / "model.pt", "-T", T, "--format", "json").report()["runs"][0]
    assert run["remedies"]
    for remedy in run["remedies"]:
        changed = getattr(torch.nn, kind)(INPUT, H)
        changed.load_state_dict(layer.state_dict())
        exec(remedy["code"]["torch"], {"torch": torch, "layer": changed})
        torch.save(changed.state_dict(), tmp_path / "changed.pt")
        again = gradcli("simulate", tmp_path / "changed.pt", "-T", T, "--format", "json").report()["runs"][0]
        assert again["verdict"]["kind"] == remedy["verdict"]["kind"]
        assert again["verdict"]["horizon"] == remedy["verdict"]["horizon"]
        assert again["verdict"]["rate_per_step"] == pytest.approx(remedy["verdict"]["rate_per_step"], rel=1e-4)


def test_the_hook_of_torch_clips_each_sequence_s_gradient() -> None:
    # Exact weights are no draw that could be made otherwise: what is left is to clip.
    exact = ["--set", "params.W_hh=1.5", "--set", "init.b_h=0", "--set", "input.std=1e-12"]
    run = gradcli("simulate", "rnn", "--hidden-size", 1, "-T", T, *exact, "--format", "json").report()["runs"][0]
    (remedy,) = run["remedies"]
    threshold = float(remedy["set"][0].partition("step_norm: ")[2].rstrip("}]"))
    h = torch.randn(4, H, requires_grad=True)
    exec(remedy["code"]["torch"], {"h": h})
    (1e6 * h.sum()).backward()
    np.testing.assert_allclose(h.grad.norm(dim=-1), threshold, rtol=1e-6)
