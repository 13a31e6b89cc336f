"""The reference itself against torch.nn's own layers, against closed forms, and against planted errors."""

from __future__ import annotations

import ast
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from built_in_cells import states_without_gradient
from late_torch import torch

from reference import framework_cells, make_fixtures
from reference.compare_run import compare, main
from reference.equations import OPERATORS, parse
from reference.fixture_file import FOLDER, read_fixture
from reference.relative_error import vector_error
from reference.torch_functions import TORCH
from reference.torch_reference import Cell, Loss, Run, run

T, BATCH, INPUT, HIDDEN = 9, 3, 4, 6
EXACT = 1e-12


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(7)


def agrees(found: Any, expected: Any) -> bool:
    """Tell whether two vectors are the same to rounding, relatively."""
    error = vector_error(found, 0, expected)
    return error is not None and error < EXACT


def gradient_of(value: Any) -> Any:
    assert value.grad is not None
    return value.grad.numpy()


def cell_of(kind: str) -> Cell:
    return Cell(framework_cells.EQUATIONS[kind])


def state_names(kind: str) -> str:
    return "hc" if kind == "lstm" else "h"


@pytest.mark.torch
@pytest.mark.parametrize("kind", ["rnn", "lstm", "gru"])
@pytest.mark.parametrize("num_layers", [1, 3])
def test_states_and_gradients_are_those_of_torch_nn(kind: str, num_layers: int, rng: np.random.Generator) -> None:
    torch.manual_seed(1)
    module = framework_cells.module_of(kind, INPUT, HIDDEN, num_layers)
    x, target = rng.normal(size=(T, BATCH, INPUT)), rng.normal(size=(T, BATCH, HIDDEN))
    initial = {
        f"layer{layer}.{name}": rng.normal(size=(BATCH, HIDDEN))
        for layer in range(num_layers)
        for name in state_names(kind)
    }
    start = [
        torch.tensor(np.stack([initial[f"layer{layer}.{name}"] for layer in range(num_layers)]), requires_grad=True)
        for name in state_names(kind)
    ]
    outputs, _ = module(torch.tensor(x), tuple(start) if kind == "lstm" else start[0])
    (0.5 * (outputs - torch.tensor(target)) ** 2).sum().div(BATCH).backward()

    params = {name: value.detach().numpy() for name, value in module.named_parameters()}
    gradients = {name: gradient_of(value) for name, value in module.named_parameters()}
    mine = run(
        cell_of(kind),
        framework_cells.parameters_of(kind, params, num_layers),
        x,
        initial,
        Loss("mse", range(1, T + 1), target),
    )

    np.testing.assert_allclose(mine.states[f"layer{num_layers - 1}.h"][1:], outputs.detach().numpy(), rtol=EXACT)
    for name, gradient in framework_cells.gradients_of(kind, gradients, num_layers).items():
        assert agrees(mine.grad_params[name], gradient), name
    for name, leaf in zip(state_names(kind), start, strict=True):
        for layer in range(num_layers):
            ours = mine.grad_states[f"layer{layer}.{name}"][0]
            assert agrees(ours, BATCH * gradient_of(leaf)[layer])


@pytest.mark.torch
def test_state_gradients_are_those_of_an_lstm_cell_loop(rng: np.random.Generator) -> None:
    torch.manual_seed(2)
    module = torch.nn.LSTMCell(INPUT, HIDDEN).double()
    x, v = rng.normal(size=(T, BATCH, INPUT)), rng.normal(size=HIDDEN)
    initial = {"layer0.h": rng.normal(size=(BATCH, HIDDEN)), "layer0.c": rng.normal(size=(BATCH, HIDDEN))}
    h, c = (torch.tensor(value, requires_grad=True) for value in initial.values())
    kept = {"layer0.h": [h], "layer0.c": [c]}
    for step in torch.tensor(x):
        h, c = module(step, (h, c))
        for name, value in (("layer0.h", h), ("layer0.c", c)):
            value.retain_grad()
            kept[name].append(value)
    sum((kept["layer0.h"][t] @ torch.tensor(v)).sum() for t in (4, T)).backward()

    params = {f"{name}_l0": value.detach().numpy() for name, value in module.named_parameters()}
    mine = run(
        cell_of("lstm"),
        framework_cells.parameters_of("lstm", params, 1),
        x,
        initial,
        Loss("projection", (4, T), vector=v),
    )
    for name, values in kept.items():
        for t, value in enumerate(values):
            for sequence in range(BATCH):
                expected = gradient_of(value)[sequence]
                assert agrees(mine.grad_states[name][t, sequence], expected), (name, t)


def _random_run(kind: str, rng: np.random.Generator) -> tuple[dict[str, Any], Any, Run]:
    weights = {
        f"layer0.{prefix}{gate}": rng.normal(scale=0.5, size=shape)
        for gate in framework_cells.GATES[kind]
        for prefix, shape in (("W_x", (HIDDEN, INPUT)), ("W_h", (HIDDEN, HIDDEN)), ("b_", HIDDEN))
    }
    if kind == "gru":
        weights["layer0.b_hn"] = rng.normal(scale=0.5, size=HIDDEN)
    x = rng.normal(size=(T, 1, INPUT))
    initial = {f"layer0.{name}": rng.normal(size=(1, HIDDEN)) for name in state_names(kind)}
    result = run(cell_of(kind), weights, x, initial, Loss("projection", (T,), vector=rng.normal(size=HIDDEN)))
    return {name.removeprefix("layer0."): value for name, value in weights.items()}, x[:, 0], result


def _sigmoid(a: Any) -> Any:
    return 1 / (1 + np.exp(-a))


@pytest.mark.torch
def test_lstm_gradients_obey_the_closed_form_of_its_jacobian(rng: np.random.Generator) -> None:
    p, x, result = _random_run("lstm", rng)
    h, c = result.states["layer0.h"][:, 0], result.states["layer0.c"][:, 0]
    by_h, by_c = result.grad_states["layer0.h"][:, 0], result.grad_states["layer0.c"][:, 0]
    direct_c = np.zeros(HIDDEN)  # dL/dc_T with h_T held fixed
    for t in range(T, 0, -1):
        gate = {g: p[f"W_x{g}"] @ x[t - 1] + p[f"W_h{g}"] @ h[t - 1] + p[f"b_{g}"] for g in "ifgo"}
        i, f, o, g = _sigmoid(gate["i"]), _sigmoid(gate["f"]), _sigmoid(gate["o"]), np.tanh(gate["g"])
        tanh_c = np.tanh(c[t])
        dc_dc = np.diag(f)
        dc_dh = (
            np.diag(c[t - 1] * f * (1 - f)) @ p["W_hf"]
            + np.diag(g * i * (1 - i)) @ p["W_hi"]
            + np.diag(i * (1 - g**2)) @ p["W_hg"]
        )
        dh_dc = np.diag(o * (1 - tanh_c**2)) @ dc_dc
        dh_dh = np.diag(o * (1 - tanh_c**2)) @ dc_dh + np.diag(tanh_c * o * (1 - o)) @ p["W_ho"]
        total_c = direct_c + o * (1 - tanh_c**2) * by_h[t]
        assert agrees(by_c[t], total_c)
        assert agrees(by_h[t - 1], dh_dh.T @ by_h[t] + dc_dh.T @ direct_c)
        direct_c = dh_dc.T @ by_h[t] + dc_dc.T @ direct_c
    assert agrees(by_c[0], direct_c)


@pytest.mark.torch
def test_gru_gradients_obey_the_closed_form_of_its_jacobian(rng: np.random.Generator) -> None:
    p, x, result = _random_run("gru", rng)
    h, by_h = result.states["layer0.h"][:, 0], result.grad_states["layer0.h"][:, 0]
    for t in range(T, 0, -1):
        r, z = (_sigmoid(p[f"W_x{g}"] @ x[t - 1] + p[f"W_h{g}"] @ h[t - 1] + p[f"b_{g}"]) for g in "rz")
        u = p["W_hn"] @ h[t - 1] + p["b_hn"]
        n = np.tanh(p["W_xn"] @ x[t - 1] + p["b_n"] + r * u)
        jacobian = (
            np.diag(z)
            + np.diag((h[t - 1] - n) * z * (1 - z)) @ p["W_hz"]
            + np.diag((1 - z) * (1 - n**2)) @ (np.diag(r) @ p["W_hn"] + np.diag(u * r * (1 - r)) @ p["W_hr"])
        )
        assert agrees(by_h[t - 1], jacobian.T @ by_h[t])


@pytest.mark.torch
def test_a_scalar_linear_recurrence_has_gradients_w_to_the_d() -> None:
    w, start = {"layer0.w": np.array(0.9)}, {"layer0.h": np.ones((1, 1))}
    result = run(Cell("h[t] = w * h[t-1]"), w, np.zeros((50, 1, 1)), start, Loss("sum", (50,)))
    np.testing.assert_allclose(result.grad_states["layer0.h"].ravel(), 0.9 ** np.arange(50, -1, -1), rtol=1e-13)
    np.testing.assert_allclose(result.grad_params["layer0.w"], 50 * 0.9**49, rtol=1e-13)


@pytest.mark.torch
def test_lags_reach_the_initial_state_and_then_zero() -> None:
    cell, start = Cell("h[t] = h[t-1] + 10 * h[t-2] + 100 * h[t-3]"), {"layer0.h": np.ones((1, 1))}
    result = run(cell, {}, np.zeros((3, 1, 1)), start, Loss("sum", (3,)))
    assert result.states["layer0.h"].ravel().tolist() == [1.0, 1.0, 11.0, 121.0]
    assert result.grad_states["layer0.h"].ravel().tolist() == [121.0, 11.0, 1.0, 1.0]


@pytest.mark.torch
def test_a_state_that_copies_another_has_a_gradient_of_its_own() -> None:
    start = {"layer0.p": np.ones((1, 1)), "layer0.h": np.ones((1, 1))}
    result = run(
        Cell("p[t] = h[t-1]\nh[t] = 2 * h[t-1] + 3 * p[t-1]"), {}, np.zeros((2, 1, 1)), start, Loss("sum", (2,))
    )
    assert result.grad_states["layer0.p"].ravel().tolist() == [6.0, 3.0, 0.0]
    assert result.grad_states["layer0.h"].ravel().tolist() == [7.0, 2.0, 1.0]


@pytest.mark.torch
def test_losses_are_summed_over_their_steps_and_averaged_over_sequences() -> None:
    x = np.arange(1.0, 5.0).reshape(2, 2, 1)  # h = x: sequence 0 sees 1, 3 and sequence 1 sees 2, 4
    cell, start = Cell("h[t] = w * x[t]"), {"layer0.h": np.zeros((2, 1))}
    target = np.array([[[0.0], [1.0]], [[2.0], [2.0]]])

    def losses(loss: Loss, extra: dict[str, Any] | None = None) -> Run:
        return run(cell, {"layer0.w": np.array(1.0), **(extra or {})}, x, start, loss)

    mse = losses(Loss("mse", (1, 2), target))
    assert mse.losses.tolist() == [0.5 + 0.5, 0.5 + 2.0]
    assert mse.grad_params["layer0.w"] == (1 * 1 + 3 * 1 + 2 * 1 + 4 * 2) / 2
    assert losses(Loss("sum", (1, 2))).losses.tolist() == [4.0, 6.0]
    assert losses(Loss("projection", (2,), vector=np.array([-2.0]))).losses.tolist() == [-6.0, -8.0]
    readout = {"readout.W_hy": np.array([[1.0], [0.0]]), "readout.b_y": np.array([0.0, 0.5])}
    entropy = losses(Loss("cross_entropy", (2,), np.array([[1, 0]])), readout)
    np.testing.assert_allclose(entropy.losses, [np.log1p(np.exp(2.5)), np.log1p(np.exp(-3.5))], rtol=1e-14)


@pytest.mark.torch
def test_products_bind_as_in_python(rng: np.random.Generator) -> None:
    u, v, h = rng.normal(size=(3, 2)), rng.normal(size=(2, 3)), rng.normal(size=(1, 3))
    result = run(
        Cell("h[t] = -(U @ V @ h[t-1]) ** 2 + U @ V @ [h[t-1]] - V.T @ (U.T @ h[t-1])"),
        {"layer0.U": u, "layer0.V": v},
        np.zeros((1, 1, 1)),
        {"layer0.h": h},
        Loss("sum", (1,)),
    )
    expected = -((u @ (v @ h[0])) ** 2) + u @ (v @ h[0]) - v.T @ (u.T @ h[0])
    np.testing.assert_allclose(result.states["layer0.h"][1, 0], expected, rtol=1e-13)


@pytest.mark.torch
@pytest.mark.parametrize(
    "line",
    [
        "h[t] = __import__('os')",
        "h[t] = h[t-1].real",
        "h[t] = h[t-1] if x[t] else 0",
        "h[t] = tanh(h[t-1], h[t-1])",
        "h[t] = [h[t-1], x[t]]",
        "h[t] = h[t-1] // 2",
        "h[t] = h[t+1]",
        "h[t] = x[t-1]",
        "h[t] = True * h[t-1]",
        "h[t-1] = h[t]",
        "h[t] += h[t-1]",
    ],
)
def test_anything_outside_the_language_is_refused(line: str) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - the texts serve the developer of a test cell only
        run(Cell(line), {}, np.zeros((2, 1, 1)), {"layer0.h": np.ones((1, 1))}, Loss("sum", (1,)))


# --- the comparison --------------------------------------------------------------------------------------------------


@pytest.mark.torch
@pytest.mark.parametrize("path", sorted(FOLDER.glob("*.npz")), ids=lambda path: path.stem)
def test_every_stored_run_is_what_the_reference_says_now(path: Path) -> None:
    spec, saved = read_fixture(path)
    comparison = compare(saved, spec, spec["cell"])
    rounding = [f"grad_state.{state}" for state in states_without_gradient(path.stem)]
    assert max(error for key, error in comparison.worst.items() if key not in rounding) < 1e-12
    assert comparison.skipped == 0


def test_there_is_a_stored_run_for_every_spec() -> None:
    stored = {path.stem: read_fixture(path)[0] for path in FOLDER.glob("*.npz")}
    assert stored == {spec["cell"]["name"]: spec for spec in make_fixtures.specs()}


@pytest.mark.torch
@pytest.mark.parametrize(
    "name",
    ["state.layer1.h", "grad_state.layer0.c", "grad_state.layer1.h", "grad_param.layer0.p_o", "grad_param.layer1.W_xi"],
)
def test_an_error_of_a_thousandth_in_one_place_is_found(name: str) -> None:
    spec, saved = read_fixture(FOLDER / "peephole-lstm.npz")
    place = (0, 1) if name.startswith(("state", "grad_state")) else 0
    saved[name][place] *= 1.001
    errors = compare(saved, spec, spec["cell"]).worst
    assert errors[name] > 1e-4
    if name.startswith("grad_"):
        assert all(error < 1e-12 for other, error in errors.items() if other != name)


@pytest.mark.torch
def test_a_gradient_is_its_mantissa_times_its_power_of_two() -> None:
    spec, saved = read_fixture(FOLDER / "peephole-lstm.npz")
    for name, shift in (("state.layer0.c", 300), ("param.layer1.b_f", -5000)):
        exponents = saved[f"log2_{name}"]
        exponents += shift if shift > 0 else -7
        saved[f"grad_{name}"] = np.ldexp(saved[f"grad_{name}"], -shift if shift > 0 else 7)
    assert compare(saved, spec, spec["cell"]).largest < 1e-12
    saved["log2_state.layer0.c"][0, 3, 1] += 1
    assert compare(saved, spec, spec["cell"]).worst["grad_state.layer0.c"] == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("mantissa", "log2_scale", "reference", "error"),
    [
        ([0.0, 0.0], 0, [0.0, 0.0], 0.0),
        ([1e-9, 0.0], 0, [0.0, 0.0], np.inf),
        ([1.0, 0.0], -1_000_000, [0.0, 0.0], None),
        ([0.0, 0.0], 0, [1e-200, 0.0], np.inf),
        ([np.nan, 1.0], 0, [1.0, 1.0], np.inf),
        ([1.0, 1.0], 0, [np.inf, 1.0], np.inf),
        ([0.75, -0.5], -900, np.ldexp([0.75, -0.5], -900), 0.0),
        ([0.75, -0.5], 1000, np.ldexp([0.75, -0.5], 1000), 0.0),
        ([1.0], 100_000, [1.0], np.expm1(1e3 * np.log(2))),
        ([1.0], -100_000, [1.0], 1.0),
        ([3.0, 4.0], 0, [3.0, 4.5], 0.5 / np.hypot(3.0, 4.5)),
        ([1.5], -980, [1.5 * 2.0**-980], 0.0),
        ([1.5], -1000, [1.5 * 2.0**-1000], None),
    ],
)
def test_vector_error(mantissa: list[float], log2_scale: int, reference: list[float], error: float | None) -> None:
    found = vector_error(np.array(mantissa), log2_scale, np.array(reference))
    assert found == (error if error is None else pytest.approx(error, abs=1e-12))


@pytest.mark.torch
def test_the_command_reads_the_files_of_a_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    spec, saved = read_fixture(FOLDER / "second-order.npz")
    arrays: dict[str, Any] = dict(saved)
    np.savez(tmp_path / "run.npz", **arrays)
    (tmp_path / "run.json").write_text(json.dumps({"runs": [{"spec": spec}]}), encoding="utf-8")
    assert main([str(tmp_path / "run.npz"), str(tmp_path / "run.json")]) == 0
    printed = capsys.readouterr().out
    assert "grad_param.layer0.W_2" in printed
    assert "vectors compared, 0 skipped" in printed


def test_the_test_cells_use_every_function_and_operator() -> None:
    nodes = [
        node
        for spec in make_fixtures.specs()
        for equation in parse(spec["cell"]["equations"])
        for node in ast.walk(equation.expression)
    ]
    called = {node.func.id for node in nodes if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)}
    assert called >= TORCH.functions.keys() | TORCH.norms.keys()
    assert {type(node.op) for node in nodes if isinstance(node, ast.BinOp)} == set(OPERATORS)
