"""A gradient that is given, against PyTorch: `y.backward(G)` on its own layers, and its cells step by step."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from late_torch import torch
from numpy.typing import NDArray
from reference.framework_cells import gradients_of, module_of, parameters_of

import gradcli
from gradcli.results.simulate import Simulation

pytestmark = pytest.mark.torch

Array = NDArray[Any]
CLOSE = 1e-12
B, T, I, H = 3, 9, 2, 5  # noqa: E741 - as the documentation calls them
CELLS = {"lstm": "LSTMCell", "gru": "GRUCell", "rnn": "RNNCell"}


def relative_error(mine: Array, expected: Array) -> float:
    return float(np.linalg.norm(mine - expected) / np.linalg.norm(expected))


def gradient(drawn: np.random.Generator, size: int) -> Array:
    """Return dL/dy (B, T, size): none at some steps, and none of one sequence at the last of them."""
    found = drawn.normal(size=(B, T, size))
    found[:, [2, 3, T - 1]] = 0.0
    found[1, 5:] = 0.0
    return found


def simulated(kind: str, module: Any, x: Array, given: Array, **options: Any) -> Simulation:
    weights = {name: value.detach().numpy() for name, value in module.named_parameters()}
    params = parameters_of(kind, weights, module.num_layers)
    return gradcli.simulate(
        kind,
        hidden_size=H,
        inputs=x,
        output_gradient=given,
        params=params,
        trials=1,
        record=True,
        remedies=False,
        set={"num_layers": module.num_layers, "bidirectional": module.bidirectional},
        **options,
    )


@pytest.mark.parametrize("kind", CELLS)
@pytest.mark.parametrize(("layers", "both"), [(1, False), (2, False), (2, True)])
def test_parameters_have_the_gradient_of_the_whole_batch(kind: str, layers: int, both: bool) -> None:
    torch.manual_seed(layers)
    drawn = np.random.default_rng(layers)
    module = module_of(kind, I, H, layers, both)
    x, given = drawn.normal(size=(B, T, I)), gradient(drawn, 2 * H if both else H)
    y, _ = module(torch.tensor(x.swapaxes(0, 1)))
    y.backward(torch.tensor(given.swapaxes(0, 1)))
    expected = gradients_of(kind, {name: p.grad.numpy() for name, p in module.named_parameters()}, layers)
    result = simulated(kind, module, x, given)
    saved = result.arrays
    for name, value in expected.items():
        mine = saved[f"grad_param.{name}"][0] * 2.0 ** saved[f"log2_param.{name}"][0]
        assert relative_error(mine, value) < CLOSE, name
        norm = result.parameters[name].log10_norm
        assert norm is not None
        assert abs(10.0**norm / np.linalg.norm(value) - 1) < 1e-10
    of_batch = float((y.detach().numpy() * given.swapaxes(0, 1)).sum())
    assert result.loss == pytest.approx(of_batch, rel=1e-12)


def by_cells(kind: str, module: Any, x: Array, given: Array) -> dict[str, Array]:
    """Return dL/ds[t] of each state of a single layer, (T+1, B, H), with the cell of torch.nn, step by step."""
    cell = getattr(torch.nn, CELLS[kind])(I, H, dtype=torch.float64)
    cell.load_state_dict({name.removesuffix("_l0"): value for name, value in module.state_dict().items()})
    state = {s: torch.zeros(B, H, dtype=torch.float64, requires_grad=True) for s in ("hc" if kind == "lstm" else "h")}
    states, loss = [state], torch.zeros((), dtype=torch.float64)
    for step in range(T):
        found = cell(torch.tensor(x[:, step]), (state["h"], state["c"]) if "c" in state else state["h"])
        state = dict(zip("hc", found if "c" in state else [found], strict=False))
        loss = loss + (state["h"] * torch.tensor(given[:, step])).sum()
        states.append(state)
    for one in states:
        for value in one.values():
            value.retain_grad()
    loss.backward()
    nothing = np.zeros((B, H))
    return {s: np.stack([nothing if one[s].grad is None else one[s].grad.numpy() for one in states]) for s in state}


@pytest.mark.parametrize("kind", CELLS)
def test_states_have_their_gradients_at_every_step(kind: str) -> None:
    torch.manual_seed(3)
    drawn = np.random.default_rng(3)
    module = module_of(kind, I, H, 1)
    x, given = drawn.normal(size=(B, T, I)), gradient(drawn, H)
    saved = simulated(kind, module, x, given).arrays
    for state, expected in by_cells(kind, module, x, given).items():
        name = f"layer0.{state}"
        mine = saved[f"grad_state.{name}"][0] * 2.0 ** saved[f"log2_state.{name}"][0][..., None]
        for step in range(T + 1):
            for sequence in range(B):
                there = expected[step, sequence]
                if there.any():
                    assert relative_error(mine[step, sequence], there) < CLOSE, (state, step, sequence)
                else:
                    assert not mine[step, sequence].any(), (state, step, sequence)


@pytest.mark.parametrize("kind", ["lstm", "gru"])
def test_the_curve_is_of_the_last_gradient_alone_and_of_those_that_have_it(kind: str) -> None:
    torch.manual_seed(4)
    drawn = np.random.default_rng(4)
    module = module_of(kind, I, H, 1)
    x, given = drawn.normal(size=(B, T, I)), gradient(drawn, H)
    last = T - 2  # from 0: the last step with a gradient, which sequence 1 has not
    alone = np.where((np.arange(T) == last)[:, None], given, 0.0)
    joined = np.sqrt(sum((value**2).sum(axis=2) for value in by_cells(kind, module, x, alone).values()))[::-1]
    result = simulated(kind, module, x, given)
    with np.errstate(divide="ignore"):
        expected = np.log10(joined[:, [0, 2]].mean(axis=1))
        of_all = np.sqrt(sum((value**2).sum(axis=2) for value in by_cells(kind, module, x, given).values()))[::-1]
        total = np.log10(of_all.mean(axis=1))
    assert np.array_equal(np.isneginf(result.curve.log10_norm_mean), np.isneginf(expected))
    there = np.isfinite(expected)
    assert there.tolist() == [False] + [True] * T
    assert np.abs(result.curve.log10_norm_mean[there] - expected[there]).max() < CLOSE
    assert result.total is not None
    there = np.isfinite(total)
    assert np.abs(result.total.log10_norm_mean[there] - total[there]).max() < CLOSE
    assert result.verdict.shares is not None
    assert result.verdict.shares["dead"] == 0.0
    assert result.notes == (
        "output_gradient: at step 8, the last with a gradient, it is zero in 1 of 3 sequences; the curve is of the"
        " other 2",
    )


def test_clipping_is_that_of_a_training_step() -> None:
    torch.manual_seed(5)
    drawn = np.random.default_rng(5)
    module = module_of("gru", I, H, 1)
    x, given = drawn.normal(size=(B, T, I)), gradient(drawn, H)
    result = simulated("gru", module, x, given, clip="norm=0.5")
    y, _ = module(torch.tensor(x.swapaxes(0, 1)))
    y.backward(torch.tensor(given.swapaxes(0, 1)))
    # The two biases of r and z count once here, where they were given as one parameter.
    by_gate = gradients_of("gru", {name: p.grad.numpy() for name, p in module.named_parameters()}, 1)
    norms = [np.linalg.norm(value) for value in by_gate.values()]
    clipped = result.clip[0]
    assert clipped.log10_norm_before == pytest.approx(np.log10(np.linalg.norm(norms)), rel=1e-12)
    assert clipped.loss_before == pytest.approx(float((y.detach().numpy() * given.swapaxes(0, 1)).sum()), rel=1e-12)
    # L is a linear functional of y: after the step it is that of the new outputs.
    scale = 0.5 / (np.linalg.norm(norms) + 1e-6)
    for factor, after in ((1.0, clipped.loss_after_unclipped), (scale, clipped.loss_after_clipped)):
        moved = module_of("gru", I, H, 1)
        state = module.state_dict()
        for name, parameter in module.named_parameters():
            step = 0.01 * factor * parameter.grad
            if name == "bias_hh_l0":
                step[: 2 * H] = 0.0
            state[name] = state[name] - step
        moved.load_state_dict(state)
        outputs = moved(torch.tensor(x.swapaxes(0, 1)))[0].detach().numpy()
        assert after == pytest.approx(float((outputs * given.swapaxes(0, 1)).sum()), rel=1e-10)


def test_float32_sees_what_pytorch_sees() -> None:
    """G is the gradient of the whole batch's loss, so nothing is divided by B before a number underflows."""
    drawn = np.random.default_rng(6)
    given = np.zeros((64, 200, H))
    given[:, -1] = drawn.normal(size=(64, H))
    module = module_of("rnn", I, H, 1).float()
    x = drawn.normal(size=(64, 200, I)).astype(np.float32)
    result = gradcli.simulate(
        "rnn",
        hidden_size=H,
        inputs=x,
        output_gradient=given,
        params=parameters_of("rnn", {name: value.detach().numpy() for name, value in module.named_parameters()}, 1),
        trials=1,
        remedies=False,
        set={"dtype": "float32"},
    )
    assert result.float32 is not None
    cell = torch.nn.RNNCell(I, H)
    cell.load_state_dict({name.removesuffix("_l0"): value for name, value in module.state_dict().items()})
    states = [torch.zeros(64, H, requires_grad=True)]
    for step in range(200):
        states.append(cell(torch.tensor(x[:, step]), states[-1]))
        states[-1].retain_grad()
    states[-1].backward(torch.tensor(given[:, -1], dtype=torch.float32))
    zeros = [distance for distance, state in enumerate(reversed(states)) if not state.grad.any()]
    assert 50 < zeros[0] < 199, "it underflows on the way"
    assert result.float32.zero_from is not None
    assert abs(result.float32.zero_from - zeros[0]) <= 1
