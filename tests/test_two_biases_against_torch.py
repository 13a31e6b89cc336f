"""PyTorch's layers as they are trained, with both biases: the norm, clipping and the step are those of torch's own."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from in_process import gradcli
from late_torch import torch

pytestmark = pytest.mark.torch

HIDDEN, INPUTS, SEQ_LEN, BATCH = 16, 3, 40, 4
#: One step of gradient descent with and without clipping, in float64.
ROUNDING = 1e-10

LAYERS: dict[str, Callable[[], Any]] = {
    "LSTM": lambda: torch.nn.LSTM(INPUTS, HIDDEN),
    "GRU": lambda: torch.nn.GRU(INPUTS, HIDDEN),
    "RNN": lambda: torch.nn.RNN(INPUTS, HIDDEN),
    "RNN, W_hh x 4": lambda: scaled(torch.nn.RNN(INPUTS, HIDDEN), 4.0),
    "LSTM without biases": lambda: torch.nn.LSTM(INPUTS, HIDDEN, bias=False),
    "LSTM, projected": lambda: torch.nn.LSTM(INPUTS, HIDDEN, proj_size=5),
    "GRU, two layers both ways": lambda: torch.nn.GRU(INPUTS, HIDDEN, num_layers=2, bidirectional=True),
    "LSTMCell": lambda: torch.nn.LSTMCell(INPUTS, HIDDEN),
}


def scaled(layer: Any, factor: float) -> Any:
    with torch.no_grad():
        layer.weight_hh_l0.mul_(factor)
    return layer


def with_head() -> Any:
    """Return a layer and a linear readout without a bias."""

    class WithHead(torch.nn.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.rnn = torch.nn.GRU(INPUTS, HIDDEN)
            self.head = torch.nn.Linear(HIDDEN, 7, bias=False)

        def forward(self, x: Any) -> Any:
            return (self.head(self.rnn(x)[0]),)

    return WithHead()


def outputs_of(layer: Any, x: Any) -> Any:
    """Return what a layer, or a cell step by step, puts out at the last step."""
    if not isinstance(layer, torch.nn.LSTMCell):
        return layer(x)[0][-1]
    states = None
    for step in x:
        states = layer(step, states)
    return states[0] if states else None


def run(layer: Any, folder: Path, *options: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the JSON and the saved arrays of a checkpoint's run."""
    torch.save(layer.state_dict(), folder / "layer.pt")
    sizes = ["-T", SEQ_LEN, "--batch-size", BATCH, "--set", "learning_rate=0.5"]
    saving = ["--format", "json", "--save", folder / "run.npz"]
    found = gradcli("simulate", folder / "layer.pt", *sizes, *options, *saving)
    assert found.code == 0, found.stderr
    with np.load(folder / "run.npz") as arrays:
        return json.loads(found.stdout)["runs"][0], dict(arrays)


def after_a_step(layer: Any, loss_of: Callable[[], Any], clip: Callable[[Any], object]) -> float:
    """Return the loss after one step of torch's SGD, and put the layer back."""
    before = {name: value.clone() for name, value in layer.state_dict().items()}
    layer.zero_grad()
    loss_of().backward()
    clip(list(layer.parameters()))
    torch.optim.SGD(layer.parameters(), lr=0.5).step()
    loss = loss_of().item()
    layer.load_state_dict(before)
    return loss


def assert_as_torch(found: dict[str, Any], layer: Any, loss_of: Callable[[], Any], norm: float, value: float) -> None:
    layer.zero_grad()
    loss_of().backward()
    gradients = torch.cat([p.grad.ravel() for p in layer.parameters()])
    by_norm, by_value = found["clip"]
    assert 10 ** by_norm["log10_norm_before"] == pytest.approx(float(gradients.norm()), rel=ROUNDING)
    assert by_value["fraction_clipped"] == pytest.approx(float((gradients.abs() > value).double().mean()), abs=1e-12)
    assert 0 < by_value["fraction_clipped"] <= 1
    assert by_norm["fraction_clipped"] == 1
    clamped = gradients.clamp(-value, value)
    cosine = float(gradients @ clamped / gradients.norm() / clamped.norm())
    assert by_value["cosine"] == pytest.approx(cosine, rel=ROUNDING)
    for row, clip in (
        (by_norm, lambda p: torch.nn.utils.clip_grad_norm_(p, norm)),
        (by_value, lambda p: torch.nn.utils.clip_grad_value_(p, value)),
    ):
        assert row["loss_before"] == pytest.approx(loss_of().item(), rel=ROUNDING)
        assert row["loss_after_unclipped"] == pytest.approx(after_a_step(layer, loss_of, lambda p: None), rel=ROUNDING)
        assert row["loss_after_clipped"] == pytest.approx(after_a_step(layer, loss_of, clip), rel=ROUNDING)


@pytest.mark.parametrize("name", LAYERS)
def test_norm_clipping_and_step_are_those_of_all_of_the_layers_parameters(name: str, tmp_path: Path) -> None:
    torch.manual_seed(7)
    layer = LAYERS[name]().double()
    norm, value = 0.2, 0.01
    found, arrays = run(layer, tmp_path, "--clip", f"norm={norm}", "--clip", f"value={value}", "--set", "loss=mse")
    x, target = (torch.tensor(arrays[key][0]) for key in ("x", "target"))

    def loss_of() -> Any:
        return 0.5 * (outputs_of(layer, x) - target[0]).square().sum(dim=1).mean()

    assert found["parameter_count"] == sum(p.numel() for p in layer.parameters())
    assert_as_torch(found, layer, loss_of, norm, value)


def test_a_readout_without_a_bias_has_none_that_counts_or_moves(tmp_path: Path) -> None:
    torch.manual_seed(7)
    layer = with_head().double()
    norm, value = 0.1, 0.003
    found, arrays = run(layer, tmp_path, "--clip", f"norm={norm}", "--clip", f"value={value}")
    x, target = torch.tensor(arrays["x"][0]), torch.tensor(arrays["target"][0, 0])

    def loss_of() -> Any:
        return torch.nn.functional.cross_entropy(outputs_of(layer, x), target)

    assert found["parameters"]["readout.b_y"]["copies"] == 0
    assert_as_torch(found, layer, loss_of, norm, value)


@pytest.mark.parametrize("kind", ["RNN", "LSTM", "GRU"])
def test_the_torch_law_draws_biases_as_torch_does(kind: str, tmp_path: Path) -> None:
    torch.manual_seed(7)
    layer = getattr(torch.nn, kind)(32, 64)
    found = gradcli("simulate", kind.lower(), "-T", 2, "--trials", 32, "--format", "json", "--save", tmp_path / "r.npz")
    run = json.loads(found.stdout)["runs"][0]
    assert run["parameter_count"] == sum(p.numel() for p in layer.parameters())
    with np.load(tmp_path / "r.npz") as arrays:
        for name, given in run["parameters"].items():
            short = name.rpartition(".")[2]
            bias = short.startswith("b_")
            joined = bias and short not in ("b_n", "b_hn")
            assert given["copies"] == 1 + joined
            std = arrays[f"param.{name}"].std() * np.sqrt(3 * 64)
            assert std == pytest.approx(np.sqrt(given["copies"]), rel=0.05 if bias else 0.01)
