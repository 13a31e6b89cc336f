"""The reference itself against torch.nn's own layers, against closed forms, and against planted errors."""

from __future__ import annotations

import ast
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from built_in_cells import states_without_gradient
from late_torch import torch

from reference import cells_by_hand, framework_cells, make_fixtures
from reference.compare_run import compare, given, main, redo
from reference.equations import COMPARISONS, OPERATORS, Scope, evaluate, lag, parse, reads_input_elementwise
from reference.fixture_file import FOLDER, read_fixture, write_fixture
from reference.relative_error import vector_error
from reference.shapes import layer_shapes, size_of
from reference.step_copies import terms
from reference.torch_functions import SURROGATES, TORCH
from reference.torch_jacobian import depths, full_state_jacobian
from reference.torch_reference import Cell, Loss, Run, run

T, BATCH, INPUT, HIDDEN = 9, 3, 4, 6
EXACT = 1e-12
#: A parameter that only says which of two values is taken, and a state that nothing reads.
WITHOUT_GRADIENT = {"comparisons": "layer0.w", "readout-state": "layer0.k"}
CELLS = {path.stem: path for path in sorted((make_fixtures.TESTS / "cells").glob("*.yaml"))}


def spec_of(name: str, **fields: Any) -> dict[str, Any]:
    """Return the spec of a test cell, in one layer unless `fields` say otherwise."""
    spec: dict[str, Any] = yaml.safe_load(CELLS[name].read_text(encoding="utf-8"))
    return spec | {"num_layers": 1, **fields}


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
        "h[t] = x[t+1]",
        "h[t] = True * h[t-1]",
        "h[t-1] = h[t]",
        "h[t] += h[t-1]",
        "I = h[t-1]",
        "h[t] = h[t-1] @ x[t]",
        "h[t] = h[t-1].T",
        "h[t] = (h[t-1] + 1).T @ x[t]",
        "h[t] = sum(2) * h[t-1]",
        "h[t] = max(h[t-1], h[t-1], h[t-1])",
        "h[t] = h[t-1] > 0",
        "h[t] = where(h[t-1], 1, 0)",
        "h[t] = where(0 < h[t-1] < 1, 1, 0)",
        "h[t] = where(h[t-1] == 0, 1, 0)",
        "h[t] = h[t-1][0]",
        "h[t] = h[t-1][:1]",
        "h[t] = h[t-1][0:1:1]",
        "h[t] = h[t-1][0:2]",
        "h[t] = []",
        "h[t] = I @ h[t-1] + I",
        "h[t] = exp(I) @ h[t-1]",
        "h[t] = diag(2) @ h[t-1]",
        "h[t] = outer(h[t-1], 2) @ h[t-1]",
        "h[t] = outer(h[t-1], x[t]) + h[t-1]",
        "h[t] = softmax(outer(h[t-1], x[t])) @ h[t-1]",
        "h[t] = outer(h[t-1], x[t])[0:1]",
        "h[t] = spike(h[t-1], 'atan')",
        "h[t] = spike(h[t-1], 'arctan', 2)",
        "h[t] = spike(h[t-1], atan, 2)",
        "h[t] = stop(h[t-1], 2)",
        "h[t] = softmax(h[t-1], 1)",
    ],
)
def test_anything_outside_the_language_is_refused(line: str) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - the texts serve the developer of a test cell only
        run(Cell(line), {}, np.zeros((2, 1, 1)), {"layer0.h": np.ones((1, 1))}, Loss("sum", (1,)))


# --- numbers, vectors and matrices -----------------------------------------------------------------------------------

a, b, u = np.array([0.5, -1.0, 2.0]), np.array([3.0, -2.0]), np.array([-0.25, 4.0, 1.0])
S, R, Q = np.arange(1.0, 7.0).reshape(2, 3), np.array([[0.5, 2.0], [1.0, -1.0]]), np.diag([2.0, 1.0, -1.0]) + 0.5
m = np.array(0.75)


@pytest.mark.torch
@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        ("outer(b, a)", np.outer(b, a)),
        ("dot(a, u)", a @ u),
        ("a.T @ u", a @ u),
        ("S @ a", S @ a),
        ("S.T @ b", S.T @ b),
        ("S.T @ (R @ b)", S.T @ R @ b),
        ("R @ S", R @ S),
        ("S @ Q @ Q", S @ Q @ Q),
        ("S.T @ R", S.T @ R),
        ("R @ S @ a", R @ (S @ a)),
        ("diag(b) @ S", np.diag(b) @ S),
        ("S @ diag(a)", S @ np.diag(a)),
        ("diag(a)", np.diag(a)),
        ("S @ outer(a, u)", S @ np.outer(a, u)),
        ("S @ (I - m * outer(a, a))", S - 0.75 * np.outer(S @ a, a)),
        ("(I - 2 * outer(b, b)) @ S", S - 2 * np.outer(b, b @ S)),
        ("S @ (I + Q)", S + S @ Q),
        ("(Q - I / 2) @ a", Q @ a - a / 2),
        ("I @ a", a),
        ("S @ I", S),
        ("(m * I - I) @ I @ S", -0.25 * S),
        ("-I @ S", -S),
        ("max(R, I)", np.maximum(R, np.eye(2))),
        ("(I - Q).T @ a", None),
        ("(m - S) ** 2 / 3", (0.75 - S) ** 2 / 3),
        ("a * m - a / u", a * 0.75 - a / u),
        ("sum(a)", 1.5),
        ("mean(a)", 0.5),
        ("norm(a)", np.sqrt(5.25)),
        ("sum(S)", 21.0),
        ("mean(S)", 3.5),
        ("norm(S)", np.sqrt(91.0)),
        ("max(a)", 2.0),
        ("min(a)", -1.0),
        ("max(S)", 6.0),
        ("max(a, u)", np.maximum(a, u)),
        ("min(m, S)", np.minimum(S, 0.75)),
        ("cumsum(a)", [0.5, -0.5, 1.5]),
        ("where(a > u, a, m)", [0.5, 0.75, 2.0]),
        ("where(a < u, 1, 0)", [0.0, 1.0, 0.0]),
        ("where(a >= 0.5, 1, 0)", [1.0, 0.0, 1.0]),
        ("where(a <= 0.5, 1, 0)", [1.0, 1.0, 0.0]),
        ("where(m > 0, S, 2 * S)", S),
        ("where(S > 3, m, -S)", np.where(S > 3, 0.75, -S)),
        ("a[0:2]", [0.5, -1.0]),
        ("a[1:3] * b", [-3.0, -4.0]),
        ("[b, a[2:3]] + u", [2.75, 2.0, 3.0]),
        ("[a, m, 2]", [0.5, -1.0, 2.0, 0.75, 2.0]),
        ("S @ [b, m]", S @ [3.0, -2.0, 0.75]),
        ("log_sigmoid(a)", -np.log1p(np.exp(-a))),
        ("stop(a) * a", a * a),
        ("spike(a, 'atan', 2.0)", [1.0, 0.0, 1.0]),
        ("spike(0 * a, 'triangle', 1)", [0.0, 0.0, 0.0]),
        ("spike(S - 3, 'sigmoid', m)", S > 3),
        ("x[t]", [5.0, 6.0]),
        ("x[t-1]", [3.0, 4.0]),
        ("x[t-2]", [1.0, 2.0]),
        ("x[t-3]", [0.0, 0.0]),
        ("x[t-1][1:2]", [4.0]),
        ("M[t-1]", S),
        ("M[t-1].T", S.T),
        ("M[t-1].T @ b", S.T @ b),
        ("M[t-2]", 10 * S),
        ("M[t-3]", 100 * S),
        ("M[t-4]", 0 * S),
        ("h[t-1].T @ a", 2 * a @ a),
    ],
)
def test_values_are_those_of_the_definition(expression: str, expected: Any) -> None:
    columns = {name: torch.tensor(value)[..., None] for name, value in (("a", a), ("b", b), ("u", u), ("m", m))}
    matrices = {name: torch.tensor(value)[..., None] for name, value in (("S", S), ("R", R), ("Q", Q))}
    states = {
        "M": [torch.tensor(power * S)[..., None] for power in (100, 10, 1)],
        "h": [torch.tensor(power * a)[..., None] for power in (0, 1, 2)],
    }
    x, *earlier = (torch.tensor(values)[:, None] for values in ([5.0, 6.0], [1.0, 2.0], [3.0, 4.0]))
    scope = Scope(3, x, states, {**columns, **matrices}, None, earlier=earlier)
    node = ast.parse(expression, mode="eval").body
    if expected is None:
        with pytest.raises(ValueError, match="not in the language"):
            evaluate(node, scope)
        return
    np.testing.assert_allclose(evaluate(node, scope)[..., 0].numpy(), expected, rtol=1e-14, atol=1e-15)


@pytest.mark.torch
@pytest.mark.parametrize("name", cells_by_hand.CELLS)
def test_cells_of_the_tests_are_those_written_by_hand(name: str) -> None:
    spec = spec_of(name, batch_size=BATCH, loss={"kind": "mse", "at": "every"})
    drawn = make_fixtures.draw(spec, np.random.default_rng([11, *name.encode()]))
    mine = redo(drawn, spec, spec["cell"])

    leaves = {
        key: torch.tensor(drawn[key], requires_grad=True) for key in drawn if key.startswith(("param.", "state."))
    }
    params = {key.rpartition(".")[2]: leaf for key, leaf in leaves.items() if key.startswith("param.")}
    start = {key.rpartition(".")[2]: leaf[0] for key, leaf in leaves.items() if key.startswith("state.")}
    outputs = cells_by_hand.CELLS[name](torch.tensor(drawn["x"]), params, start)
    (0.5 * (outputs - torch.tensor(drawn["target"])) ** 2).sum().backward()

    output = Cell(spec["cell"]["equations"], spec["cell"].get("output")).output_state
    assert agrees(mine.states[f"layer0.{output}"][1:], outputs.detach().numpy())
    for key, leaf in leaves.items():
        kind, place = key.split(".", 1)
        found = mine.grad_states[place][0] if kind == "state" else BATCH * mine.grad_params[place]
        assert agrees(found, np.zeros(found.shape) if leaf.grad is None else leaf.grad.numpy()), key


@pytest.mark.torch
def test_half_of_a_tie_goes_to_each_and_a_norm_at_zero_has_no_slope() -> None:
    start = {"layer0.h": np.array([[1.0, 1.0]]), "layer0.g": np.array([[1.0, 0.0]])}

    def slopes(expression: str) -> tuple[list[float], list[float]]:
        found = run(Cell(f"h[t] = {expression}\ng[t] = g[t-1]"), {}, np.zeros((1, 1, 1)), start, Loss("sum", (1,)))
        return found.grad_states["layer0.h"][0, 0].tolist(), found.grad_states["layer0.g"][0, 0].tolist()

    assert slopes("max(h[t-1], g[t-1])") == ([0.5, 1.0], [0.5, 0.0])
    assert slopes("min(h[t-1], g[t-1])") == ([0.5, 0.0], [0.5, 1.0])
    assert slopes("max(h[t-1], 1)") == ([0.5, 0.5], [0.0, 0.0])
    assert slopes("0 * h[t-1] + max(h[t-1])") == ([1.0, 1.0], [0.0, 0.0])
    assert slopes("0 * h[t-1] + max([h[t-1], g[t-1]])") == ([2 / 3, 2 / 3], [2 / 3, 0.0])
    assert slopes("0 * h[t-1] + min([h[t-1], g[t-1]])") == ([0.0, 0.0], [0.0, 2.0])
    assert slopes("where(h[t-1] > g[t-1], 3 * h[t-1], 5 * g[t-1])") == ([0.0, 3.0], [5.0, 0.0])
    assert slopes("h[t-1] + norm(h[t-1] - 1)") == ([1.0, 1.0], [0.0, 0.0])
    assert slopes("h[t-1] * stop(h[t-1] + 1)") == ([2.0, 2.0], [0.0, 0.0])


@pytest.mark.torch
@pytest.mark.parametrize("surrogate", SURROGATES)
def test_the_slope_of_a_spike_is_the_derivative_of_the_surrogates_integral(surrogate: str) -> None:
    k, points = 0.8, np.array([-3.0, -1.3, -1.2, -0.6, -0.3, 0.0, 0.2, 0.7, 1.2, 1.3, 2.5])
    smooth = torch.tensor(points, requires_grad=True)
    cells_by_hand.INTEGRALS[surrogate](smooth, k).sum().backward()
    start = {"layer0.h": points[None]}
    found = run(Cell(f"h[t] = spike(h[t-1], '{surrogate}', {k})"), {}, np.zeros((1, 1, 1)), start, Loss("sum", (1,)))
    assert found.states["layer0.h"][1, 0].tolist() == (points > 0).tolist()
    np.testing.assert_allclose(found.grad_states["layer0.h"][0, 0], smooth.grad.numpy(), rtol=1e-14, atol=1e-16)


@pytest.mark.torch
def test_an_upper_layer_sees_zero_before_its_first_input_and_not_the_state_below() -> None:
    spec = spec_of("token-shift", num_layers=2, loss={"kind": "mse", "at": "every"})
    drawn = make_fixtures.draw(spec, np.random.default_rng(3))
    both = redo(drawn, spec, spec["cell"])
    upper = {key.replace("layer1.", "layer0."): value for key, value in drawn.items() if "layer0." not in key}
    alone = redo(upper | {"x": both.states["layer0.h"][1:]}, spec, spec["cell"])
    for state in "hS":
        np.testing.assert_array_equal(both.states[f"layer1.{state}"], alone.states[f"layer0.{state}"])
        np.testing.assert_array_equal(both.grad_states[f"layer1.{state}"], alone.grad_states[f"layer0.{state}"])
    assert np.abs(both.grad_states["layer0.h"][1:]).min() > 0


@pytest.mark.torch
@pytest.mark.parametrize("name", ["numbers-vectors-matrices", "matrix-lags", "short-convolution", "two-matrix-states"])
def test_step_jacobians_multiply_to_the_gradient_of_the_start(name: str) -> None:
    spec = spec_of(name, loss={"kind": "sum", "at": "last"})
    drawn = make_fixtures.draw(spec, np.random.default_rng(5))
    expected = redo(drawn, spec, spec["cell"])
    cell = Cell(spec["cell"]["equations"])
    depth = depths(parse(cell.equations))
    params = {key.removeprefix("param.layer0."): value for key, value in drawn.items() if key.startswith("param.")}
    for sequence in range(spec["batch_size"]):
        states = {key.removeprefix("layer0."): values[:, sequence] for key, values in expected.states.items()}
        history = {name: [np.zeros_like(states[name][0])] * (depth[name] - 1) + [states[name][0]] for name in depth}
        x = drawn["x"][:, sequence]
        whole = full_state_jacobian(cell, [params] * len(x), x, {k: np.array(v) for k, v in history.items()})
        middle = len(x) // 2
        later = {name: states[name][: middle + 1] for name in depth}
        second = full_state_jacobian(cell, [params] * (len(x) - middle), x[middle:], later, earlier=x[:middle])
        first = full_state_jacobian(cell, [params] * middle, x[:middle], {k: np.array(v) for k, v in history.items()})
        np.testing.assert_allclose(second @ first, whole, rtol=1e-10, atol=1e-12)
        by_h, start = np.zeros(len(whole)), 0
        for state, steps in depth.items():
            if state == "h":
                by_h[start : start + states[state][0].size] = 1
            start += steps * states[state][0].size
        joint, start = by_h @ whole, 0
        for state, steps in depth.items():
            size = states[state][0].size
            gradient = expected.grad_states[f"layer0.{state}"][0, sequence]
            assert agrees(joint[start : start + size], gradient), state
            start += steps * size


@pytest.mark.torch
@pytest.mark.parametrize("name", ["selective-state-space", "max-stabilised-floor", "earlier-inputs"])
def test_terms_by_step_add_up_to_the_gradient(name: str) -> None:
    spec = spec_of(name, num_layers=2 if name == "earlier-inputs" else 1)
    drawn = make_fixtures.draw(spec, np.random.default_rng(6))
    expected = redo(drawn, spec, spec["cell"])
    found = terms(*given(drawn, spec, spec["cell"]))
    assert found.keys() == {key for key in expected.grad_params if not key.startswith("readout.")}
    for key, of_steps in found.items():
        assert agrees(of_steps.sum(0), expected.grad_params[key]), key


@pytest.mark.torch
@pytest.mark.parametrize("name", ["numbers-vectors-matrices", "spike-of-matrix-and-number", "two-heads"])
def test_runs_with_numbers_and_matrices_are_stored_and_compared(name: str, tmp_path: Path) -> None:
    spec = spec_of(name)
    write_fixture(tmp_path / "run.npz", spec, make_fixtures.fixture(spec, make_fixtures.stream(spec)))
    _, saved = read_fixture(tmp_path / "run.npz")
    comparison = compare(saved, spec, spec["cell"])
    assert (comparison.largest, comparison.skipped) == (0.0, 0)
    matrix = next(key for key in saved if key.startswith("grad_state.") and saved[key].ndim == 5)
    assert saved[matrix.replace("grad_", "log2_")].shape == saved[matrix].shape[:3]
    saved[matrix][0, 1, 0] *= 1.001
    assert compare(saved, spec, spec["cell"]).worst[matrix] == pytest.approx(1e-3, rel=0.01)


@pytest.mark.torch
def test_the_script_writes_the_runs_that_are_named_or_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(make_fixtures, "FOLDER", tmp_path)
    chosen = [spec_of(name) for name in ("thin-matrices", "low-rank", "two-heads")]
    monkeypatch.setattr(make_fixtures, "specs", lambda: iter(chosen))
    assert make_fixtures.main(["low-rank"]) == 0
    assert [path.stem for path in tmp_path.iterdir()] == ["low-rank"]
    before = (tmp_path / "low-rank.npz").stat().st_mtime_ns
    assert make_fixtures.main(["--missing"]) == 0
    assert {path.stem for path in tmp_path.iterdir()} == {"thin-matrices", "low-rank", "two-heads"}
    assert (tmp_path / "low-rank.npz").stat().st_mtime_ns == before
    assert make_fixtures.main(["three-heads"]) == 2
    assert "three-heads" in capsys.readouterr().err


# --- shapes ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("hidden_size", 12),
        (3, 3),
        ("hidden_size / 4", 3),
        ("2 * hidden_size", 24),
        ("hidden_size * input_size / 6", 16),
    ],
)
def test_sizes_are_products_and_quotients(text: int | str, size: int) -> None:
    assert size_of(text, {"hidden_size": 12, "input_size": 8}) == size


@pytest.mark.parametrize("text", ["hidden_size / 5", "hidden_size + 1", "seq_len", 0, "hidden_size / 24", "1.5"])
def test_other_sizes_are_refused(text: int | str) -> None:
    with pytest.raises(ValueError, match="size"):
        size_of(text, {"hidden_size": 12, "input_size": 8})


@pytest.mark.parametrize(
    ("equations", "given_shapes", "states", "parameters"),
    [
        ("h[t] = W @ x[t] + p * h[t-1]", {}, {"h": (6,)}, {"W": (6, 4), "p": (6,)}),
        (
            "S[t] = f * S[t-1] + outer(W_v @ x[t], W_k @ x[t])\nh[t] = S[t] @ (W_q @ x[t])",
            {"S": ["hidden_size", 2]},
            {"S": (6, 2), "h": (6,)},
            {"f": (6, 2), "W_v": (6, 4), "W_k": (2, 4), "W_q": (2, 4)},
        ),
        (
            "f = sigmoid(dot(w, x[t]) + b)\nS[t] = f * S[t-1] + outer(x[t], k)\nh[t] = S[t].T @ v",
            {},
            {"S": (4, 6), "h": (6,)},
            {"w": (4,), "b": (), "k": (6,), "v": (4,)},
        ),
        (
            "m[t] = max(m[t-1], dot(q, h[t-1]) + b)\nh[t] = (1 - z) * h[t-1] + m[t] * p",
            {"m": []},
            {"m": (), "h": (6,)},
            {"q": (6,), "b": (), "z": (6,), "p": (6,)},
        ),
        (
            "h[t] = W.T @ [h[t-1], x[t]][0:3] + c * x[t][0:3]",
            {"c": [3], "h": [3]},
            {"h": (3,)},
            {"W": (3, 3), "c": (3,)},
        ),
        ("u = W @ x[t]\nh[t] = [u, h[t-1][0:4]]", {}, {"h": (6,)}, {"W": (2, 4)}),
        ("a = h[t-1].T @ p\nh[t] = a * h[t-1] + W @ x[t]", {}, {"h": (6,)}, {"p": (6,), "W": (6, 4)}),
        (
            "S[t] = S[t-1] @ (I - outer(k, k)) + A\nh[t] = S[t] @ k",
            {"A": ["hidden_size / 2", "input_size"]},
            {"S": (3, 4), "h": (3,)},
            {"k": (4,), "A": (3, 4)},
        ),
    ],
)
def test_shapes_follow_from_use(
    equations: str, given_shapes: dict[str, Any], states: dict[str, Any], parameters: dict[str, Any]
) -> None:
    if states["h"] == (3,):
        given_shapes = given_shapes | {"h": [3]}
    found = layer_shapes({"equations": equations, "shapes": given_shapes}, 6, 4)
    assert (found.states, found.parameters) == (states, parameters)


@pytest.mark.parametrize(
    "equations",
    [
        "h[t] = h[t-1] + x[t]",
        "h[t] = [h[t-1], x[t]]",
        "h[t] = h[t-1][4:7] + p",
        "h[t] = outer(h[t-1], x[t]) + h[t-1]",
        "h[t] = dot(h[t-1], x[t]) * p",
        "h[t] = outer(p, x[t]) @ h[t-1]",
    ],
)
def test_sizes_that_contradict_each_other_are_refused(equations: str) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - the texts serve the developer of a test cell only
        layer_shapes({"equations": equations}, 6, 4)


@pytest.mark.torch
@pytest.mark.parametrize("name", CELLS)
def test_gradients_of_the_test_cells_are_finite_and_reach_the_parameters(name: str) -> None:
    spec = spec_of(name)
    found = redo(make_fixtures.draw(spec, make_fixtures.stream(spec)), spec, spec["cell"])
    for gradients in (found.grad_states, found.grad_params):
        for key, gradient in gradients.items():
            assert np.isfinite(gradient).all(), key
            assert np.any(gradient) or key == WITHOUT_GRADIENT.get(name), key


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


@pytest.mark.parametrize(
    ("expression", "elementwise"),
    [
        ("W @ x[t]", False),
        ("W @ (x[t] - x[t-1])", False),
        ("dot(w, x[t]) * p", False),
        ("outer(v, x[t]) @ x[t]", False),
        ("x[t].T @ w + p", False),
        ("norm(x[t]) * p + max(x[t-1])", False),
        ("[p, x[t][0:2]]", False),
        ("x[t] * p", True),
        ("max(x[t], 0)", True),
        ("W @ x[t] + x[t-1]", True),
        ("diag(x[t]) @ p", True),
    ],
)
def test_the_input_counts_as_elementwise_where_its_size_is_that_of_the_state(
    expression: str, elementwise: bool
) -> None:
    assert reads_input_elementwise(f"h[t] = {expression}") == elementwise


def test_the_test_cells_use_every_function_and_operator() -> None:
    nodes = [
        node
        for spec in make_fixtures.specs()
        for equation in parse(spec["cell"]["equations"])
        for node in ast.walk(equation.expression)
    ]
    called = {node.func.id for node in nodes if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)}
    assert called >= TORCH.functions.keys() | TORCH.across.keys() | TORCH.reductions.keys()
    assert {type(node.op) for node in nodes if isinstance(node, ast.BinOp)} == {*OPERATORS, ast.MatMult}


def words(expression: ast.expr) -> Iterator[str]:
    """Yield what of the language of matrices, branches and spikes stands in an expression, once for each place."""
    rights = [node.right for node in ast.walk(expression) if isinstance(node, ast.BinOp)]
    for node in ast.walk(expression):
        match node:
            case ast.Call(func=ast.Name(id="max" | "min" as name), args=arguments):
                yield f"{name} of {len(arguments)}"
            case ast.Call(func=ast.Name(id="spike"), args=[_, ast.Constant(value=str(surrogate)), _]):
                yield f"spike {surrogate}"
            case ast.Call(func=ast.Name(id=name)):
                yield name
            case ast.Compare(ops=[comparison]):
                yield type(comparison).__name__
            case ast.Name(id="I"):
                yield "I"
            case ast.Subscript(value=ast.Name(), slice=ast.Slice()):
                yield "slice of a name"
            case ast.Subscript(value=ast.Subscript(), slice=ast.Slice()):
                yield "slice of a state"
            case ast.List() if node not in rights:
                yield "concatenation"
            case ast.Subscript(value=ast.Name(id="x"), slice=index):
                yield f"x {lag(index)} back"
            case ast.Attribute(value=ast.Subscript()):
                yield "state transposed"
            case ast.Attribute():
                yield "name transposed"


def test_the_test_cells_use_every_word_of_matrices_branches_and_spikes_at_least_twice() -> None:
    used: dict[str, set[str]] = {}
    for name in CELLS:
        for equation in parse(spec_of(name)["cell"]["equations"]):
            for word in words(equation.expression):
                used.setdefault(word, set()).add(name)
    expected = {"outer", "dot", "diag", "sum", "mean", "norm", "cumsum", "log_sigmoid", "where", "stop", "I"}
    expected |= {f"{name} of {count}" for name in TORCH.pairs for count in (1, 2)}
    expected |= {f"spike {surrogate}" for surrogate in SURROGATES} | {kind.__name__ for kind in COMPARISONS}
    expected |= {"slice of a name", "slice of a state", "concatenation", "x 1 back", "x 2 back"}
    expected |= {"state transposed", "name transposed"}
    assert {word: cells for word, cells in used.items() if word in expected and len(cells) < 2} == {}
    assert used.keys() >= expected
