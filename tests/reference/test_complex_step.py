"""Complex steps give the gradients that PyTorch has stored: two references that share nothing but the equations."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import pytest
from built_in_cells import states_without_gradient
from late_torch import torch
from numpy.typing import NDArray

from reference import make_fixtures
from reference.compare_run import given, redo, redo_by_complex_steps
from reference.complex_functions import COMPLEX
from reference.complex_step import run, slopes_along
from reference.equations import has_another_slope
from reference.fixture_file import FOLDER, read_fixture
from reference.relative_error import vector_error
from reference.torch_functions import TORCH
from reference.torch_reference import Cell, Loss

EXACT = 1e-12
#: Of a run with more numbers than this, one at a time takes too long.
MANY = 120
SPECS = {spec["cell"]["name"]: spec for spec in make_fixtures.specs()}
#: Of those with several layers, which complex steps do not do, these are looked at in one.
IN_ONE_LAYER = [
    name for name, spec in SPECS.items() if spec.get("num_layers", 1) > 1 and "x[t-1]" in spec["cell"]["equations"]
]


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


def errors_along_directions(stored: Mapping[str, NDArray[Any]], spec: Mapping[str, Any]) -> dict[str, float]:
    """Return errors likewise, of what each gradient gives along a direction drawn at random, to the gradient's norm."""
    one = {name: values[0] for name, values in stored.items()}
    gradients = {name.split(".", 1)[1]: values for name, values in one.items() if name.startswith("grad_")}
    rng = np.random.default_rng(8)
    directions = {name: rng.normal(size=gradient.shape) for name, gradient in gradients.items()}
    found = slopes_along(directions, *given(one, spec, spec["cell"]), tied=spec.get("tied", True))
    worst = {}
    for name, gradient in gradients.items():
        by_step = len(found[name]) if found[name].ndim else 1
        parts = [part.reshape(by_step, -1) for part in (gradient, directions[name])]
        expected = (parts[0] * parts[1]).sum(1)
        scale = np.linalg.norm(parts[0], axis=1) * np.linalg.norm(parts[1], axis=1)
        error = np.abs(found[name].reshape(by_step) - expected)
        kind = "grad_state" if f"state.{name}" in one else "grad_param"
        worst[f"{kind}.{name}"] = float((error / np.where(scale > 0, scale, 1.0)).max())
    return worst


def wrong(stored: Mapping[str, NDArray[Any]], spec: Mapping[str, Any]) -> set[str]:
    """Return the names under which complex steps and a run are apart; not those of gradients that are but rounding."""
    rounding = {f"grad_state.{state}" for state in states_without_gradient(spec["cell"]["name"])}
    numbers = sum(values[0].size for name, values in stored.items() if name.startswith(("grad_state.", "grad_param.")))
    compared = errors(stored, spec) if numbers <= MANY else errors_along_directions(stored, spec)
    return {name for name, error in compared.items() if not error < EXACT} - rounding


def runs() -> Iterator[Any]:
    """Yield the names of all specs: runs that are not stored yet are made by PyTorch."""
    for name, spec in SPECS.items():
        yield pytest.param(name, marks=() if make_fixtures.stored_at(spec).exists() else pytest.mark.torch)


@pytest.mark.parametrize("name", list(runs()))
def test_every_run_comes_out(name: str) -> None:
    spec, path = SPECS[name], make_fixtures.stored_at(SPECS[name])
    run = read_fixture(path)[1] if path.exists() else make_fixtures.fixture(spec, make_fixtures.stream(spec))
    several = spec.get("num_layers", 1) > 1
    if several or has_another_slope(spec["cell"]["equations"]):
        with pytest.raises(ValueError, match="for one layer" if several else "take PyTorch"):
            redo_by_complex_steps({name: values[0] for name, values in run.items()}, spec, spec["cell"])
        return
    assert wrong(run, spec) == set()


@pytest.mark.torch
@pytest.mark.parametrize("name", IN_ONE_LAYER)
def test_cells_of_several_layers_come_out_in_one(name: str) -> None:
    spec = SPECS[name] | {"num_layers": 1}
    assert wrong(make_fixtures.fixture(spec, make_fixtures.stream(spec)), spec) == set()


@pytest.mark.torch
@pytest.mark.parametrize("kind", ["mse", "cross_entropy", "projection", "sum"])
@pytest.mark.parametrize("tied", [True, False])
def test_every_loss_comes_out_with_weights_of_all_steps_and_of_each(kind: str, tied: bool) -> None:
    spec = SPECS["numbers-vectors-matrices"] | {"loss": {"kind": kind, "at": [2, 5, 7]}, "seq_len": 7, "tied": tied}
    assert wrong(make_fixtures.fixture(spec, np.random.default_rng(2)), spec) == set()


@pytest.mark.torch
def test_pytorch_makes_the_runs_that_complex_steps_cannot() -> None:
    spec = SPECS["spike-atan"]
    asked = make_fixtures.fixture(spec, np.random.default_rng(4), redo_by_complex_steps)
    given = make_fixtures.fixture(spec, np.random.default_rng(4), redo)
    assert asked.keys() == given.keys()
    assert all(np.array_equal(asked[name], given[name]) for name in given)


def test_an_error_of_a_thousandth_is_found() -> None:
    spec, stored = read_fixture(FOLDER / "zoo-lstm.npz")
    stored["grad_param.layer0.W_xf"] *= 1.001
    assert errors(stored, spec)["grad_param.layer0.W_xf"] == pytest.approx(1e-3, rel=0.01)


@pytest.mark.parametrize("place", ["grad_state.layer0.c", "grad_param.layer0.W_xf"])
def test_an_error_in_one_number_is_found_along_a_direction(place: str) -> None:
    spec, stored = read_fixture(FOLDER / "zoo-lstm.npz")
    found = errors_along_directions(stored, spec)
    assert max(found.values()) < EXACT
    stored[place].flat[3] *= 1.001
    worse = errors_along_directions(stored, spec)
    assert worse[place] > 1e-6
    assert {name for name in worse if worse[name] != found[name]} == {place}


def test_both_references_know_the_same_functions() -> None:
    for table in ("functions", "across", "reductions", "pairs"):
        assert getattr(COMPLEX, table).keys() == getattr(TORCH, table).keys()
    assert COMPLEX.with_eps == TORCH.with_eps


@pytest.mark.torch
@pytest.mark.parametrize("table", ["across", "reductions"])
def test_slopes_of_functions_of_vectors_are_those_of_torch(table: str) -> None:
    points = np.array([[0.4, -1.0], [2.0, 0.5], [-0.5, 0.5], [2.0, -3.0], [0.1, -3.0]])
    for name, function in getattr(TORCH, table).items():
        a = torch.tensor(points, requires_grad=True)
        value = function(a)
        weights = np.random.default_rng(1).normal(size=value.shape)
        (value * torch.tensor(weights)).sum().backward()
        mine = getattr(COMPLEX, table)[name]
        assert mine(points.astype(complex)).real == pytest.approx(value.detach().numpy(), rel=1e-13, abs=1e-15), name
        for place in np.ndindex(points.shape):
            moved = points.astype(complex)
            moved[place] += 1e-100j
            slope = (mine(moved).imag * weights).sum() / 1e-100
            assert slope == pytest.approx(a.grad.numpy()[place], rel=1e-11, abs=1e-13), (name, place)


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
