"""Complex steps give the gradients that PyTorch has stored: two references that share nothing but the equations."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from built_in_cells import states_without_gradient
from late_torch import torch
from numpy.typing import NDArray

from reference.compare_run import redo_by_complex_steps
from reference.complex_functions import COMPLEX
from reference.complex_step import run
from reference.fixture_file import FOLDER, read_fixture
from reference.relative_error import vector_error
from reference.torch_functions import TORCH
from reference.torch_reference import Cell, Loss

EXACT = 1e-12
STORED = sorted(FOLDER.glob("*.npz"))


def errors(stored: Mapping[str, NDArray[Any]], spec: Mapping[str, Any]) -> dict[str, float]:
    """Return the largest relative error of any vector under each name."""
    one = {name: values[0] for name, values in stored.items()}
    found = redo_by_complex_steps(one, spec, spec["cell"])
    pairs = [("loss", found.losses, one["loss"])]
    for name, states in found.states.items():
        for place in np.ndindex(states.shape[:2]):
            pairs.append((f"state.{name}", states[place], one[f"state.{name}"][place]))
            pairs.append((f"grad_state.{name}", found.grad_states[name][place], one[f"grad_state.{name}"][place]))
    pairs += [(f"grad_param.{n}", gradient, one[f"grad_param.{n}"]) for n, gradient in found.grad_params.items()]
    worst: dict[str, float] = {}
    for name, mine, theirs in pairs:
        error = vector_error(mine, 0, theirs)
        worst[name] = max(worst.get(name, 0.0), np.inf if error is None else error)
    return worst


@pytest.mark.parametrize("path", STORED, ids=lambda path: path.stem)
def test_every_stored_run_comes_out(path: Path) -> None:
    spec, stored = read_fixture(path)
    if spec["loss"]["kind"] != "mse" or spec.get("num_layers", 1) > 1:
        with pytest.raises(ValueError, match="for one layer and the loss mse"):
            redo_by_complex_steps({name: values[0] for name, values in stored.items()}, spec, spec["cell"])
        return
    rounding = [f"grad_state.{state}" for state in states_without_gradient(path.stem)]
    wrong = {name: error for name, error in errors(stored, spec).items() if not error < EXACT}
    assert wrong.keys() <= set(rounding)


def test_an_error_of_a_thousandth_is_found() -> None:
    spec, stored = read_fixture(FOLDER / "zoo-lstm.npz")
    stored["grad_param.layer0.W_xf"] *= 1.001
    assert errors(stored, spec)["grad_param.layer0.W_xf"] == pytest.approx(1e-3, rel=0.01)


def test_both_references_know_the_same_functions() -> None:
    assert COMPLEX.functions.keys() == TORCH.functions.keys()
    assert COMPLEX.norms.keys() == TORCH.norms.keys()


@pytest.mark.torch
@pytest.mark.parametrize("name", COMPLEX.functions)
def test_values_and_slopes_of_functions_are_those_of_torch(name: str) -> None:
    positive = name in ("log", "sqrt")
    points = np.array([0.3, 1.7, 3.5, 7.0]) if positive else np.array([-7.0, -3.5, -1.7, -0.4, 0.3, 0.9, 1.7, 3.5, 7.0])
    a = torch.tensor(points[:, None], requires_grad=True)
    value = TORCH.functions[name](a)
    weights = np.arange(1.0, len(points) + 1)[:, None]
    (value * torch.tensor(weights)).sum().backward()
    found = COMPLEX.functions[name](points[:, None].astype(complex))
    assert found.real == pytest.approx(value.detach().numpy(), rel=1e-13, abs=1e-15)
    for place, slope in enumerate(a.grad.numpy()[:, 0]):
        moved = points[:, None].astype(complex)
        moved[place] += 1e-100j
        mine = (COMPLEX.functions[name](moved).imag * weights).sum() / 1e-100
        assert mine == pytest.approx(slope, rel=1e-12, abs=1e-13)


def test_a_scalar_recurrence_has_gradients_w_to_the_d() -> None:
    w, steps = 0.75, 6
    loss = Loss("mse", (steps,), np.zeros((1, 1, 1)))
    found = run(
        Cell("h[t] = w * h[t-1]"),
        {"layer0.w": np.array([w])},
        np.zeros((steps, 1, 1)),
        {"layer0.h": np.array([[2.0]])},
        loss,
    )
    last = 2.0 * w**steps
    assert found.grad_states["layer0.h"][::-1, 0, 0] == pytest.approx(last * w ** np.arange(steps + 1), rel=1e-14)
    assert found.grad_params["layer0.w"] == pytest.approx(last * steps * 2.0 * w ** (steps - 1), rel=1e-14)
