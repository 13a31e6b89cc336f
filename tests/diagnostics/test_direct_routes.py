"""Direct routes: the same with a gate named and in place, in paths, gates and predictions; blocks of states."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from measured import SMALL, loaded
from numpy.typing import NDArray

from gradcli.diagnostics.gate_words import main_cause
from gradcli.diagnostics.gates import measure_gates
from gradcli.diagnostics.paths import DirectCurve, trace_paths
from gradcli.diagnostics.predictions import predict
from gradcli.engine.run import Engine
from gradcli.language.direct import direct_routes
from gradcli.prepare.build import Network, build

PEEPHOLE = "sigmoid(W_xf @ x[t] + W_hf @ h[t-1] + p * c[t-1] + b_f)"
BISTABLE = "sigmoid(U_c @ x[t] + w_c * h[t-1] + b_c)", "1 + tanh(U_a @ x[t] + w_a * h[t-1])"
PAIRS = {
    "forget": (
        f"f = {PEEPHOLE}\nc[t] = f * c[t-1] + tanh(W_xg @ x[t])\nh[t] = tanh(c[t])",
        f"c[t] = {PEEPHOLE} * c[t-1] + tanh(W_xg @ x[t])\nh[t] = tanh(c[t])",
    ),
    "update": (
        "z = sigmoid(W_z @ h[t-1] + u * h[t-1])\nh[t] = (1 - z) * tanh(W @ h[t-1] + U @ x[t]) + z * h[t-1]",
        "h[t] = (1 - sigmoid(W_z @ h[t-1] + u * h[t-1])) * tanh(W @ h[t-1] + U @ x[t])"
        " + sigmoid(W_z @ h[t-1] + u * h[t-1]) * h[t-1]",
    ),
    "content": (
        f"c = {BISTABLE[0]}\na = {BISTABLE[1]}\ng = tanh(U @ x[t] + a * h[t-1])\nh[t] = c * h[t-1] + (1 - c) * g",
        f"h[t] = {BISTABLE[0]} * h[t-1] + (1 - {BISTABLE[0]}) * tanh(U @ x[t] + ({BISTABLE[1]}) * h[t-1])",
    ),
}


def network(cell: Any, **fields: object) -> Network:
    block = {"name": "own", "equations": cell} if "\n" in cell or "[t]" in cell else cell
    return build(loaded(block, **{**SMALL, "seq_len": 25, **fields}))


def curves(net: Network) -> list[DirectCurve]:
    output = net.problem.plans[0].cell.output
    return trace_paths(net, layer=0, distance=1, start=output, ends=[output]).direct


@pytest.mark.parametrize("pair", PAIRS)
def test_a_gate_in_place_is_a_gate(pair: str) -> None:
    init = {"*": {"normal": 0.6}}
    named, in_place = (network(text, init=init) for text in PAIRS[pair])
    (with_name,), (without,) = curves(named), curves(in_place)
    assert with_name.route.states == without.route.states
    assert without.carries_to == with_name.carries_to
    assert without.log10_direct == pytest.approx(with_name.log10_direct, abs=1e-9)
    assert without.projection == pytest.approx(with_name.projection, rel=1e-9)
    gates = [measure_gates(net, 0) for net in (named, in_place)]
    assert gates[1].kept[0].nats == pytest.approx(gates[0].kept[0].nats, rel=1e-9)
    assert main_cause(gates[1]).kind == main_cause(gates[0]).kind
    predicted = [[p for p in predict(net.problem, 0) if p.name == "gates"] for net in (named, in_place)]
    assert predicted[1][0].rate_per_step == pytest.approx(predicted[0][0].rate_per_step, rel=1e-12)


@pytest.mark.parametrize(
    ("equations", "states"),
    [
        ("h[t] = relu(u * h[t-1] + U @ x[t])", [("h",)]),
        ("h[t] = tanh(W @ h[t-1] + U @ x[t])", []),
        ("h[t] = h[t-1] * h[t-1]", [("h",)]),
        ("h[t] = tanh(u * h[t-1]) * (U @ x[t])", []),
        ("a[t] = p * b[t-1] + U @ x[t]\nb[t] = q * a[t-1]\nh[t] = a[t] + b[t]", [("a", "b")]),
        ("a[t] = p * a[t-1] + U @ x[t]\nb[t] = q * a[t-1] + r * b[t-1]\nh[t] = b[t]", [("a",), ("b",)]),
        ("h[t] = a * h[t-2] + U @ x[t]", []),
        ("h[t] = h[t-1] / (1 + exp(v * h[t-1])) + U @ x[t]", [("h",)]),
    ],
)
def test_which_states_have_a_direct_route(equations: str, states: list[tuple[str, ...]]) -> None:
    cell = network(equations, input_size=5).problem.plans[0].cell
    assert [route.states for route in direct_routes(cell)] == states


@pytest.mark.parametrize(
    ("name", "matrices"),
    [
        ("lru", []),
        ("unicornn", ["w_yz"]),
        ("cornn", ["W_yz", "W_zz"]),
        ("lstm", ["W_h*"]),
        ("gru", ["W_h*"]),
        ("qrnn", []),
        ("scrn", ["W_hh"]),
    ],
)
def test_without_recurrent_matrices_the_direct_route_is_all(name: str, matrices: list[str]) -> None:
    """Blocks and steps within steps among them: what goes along the route is the gradient of the engine itself."""
    net = network(name, init=dict.fromkeys(matrices, 0.0))
    found = curves(net)
    assert found
    for curve in found:
        seen = np.isfinite(curve.log10_total)
        assert curve.log10_direct[seen] == pytest.approx(curve.log10_total[seen], abs=1e-9)
        assert curve.projection[seen] == pytest.approx(np.ones(seen.sum()), rel=1e-9)
    for kept in measure_gates(net, 0).kept:
        assert kept.share[1:] == pytest.approx(np.ones(24), rel=1e-9)


def test_a_rotation_alone_loses_its_modulus_a_step() -> None:
    """re and im turn by theta and shrink by r: |D' delta| = r |delta| whatever the angle."""
    text = "a[t] = p * a[t-1] - q * b[t-1] + U @ x[t]\nb[t] = q * a[t-1] + p * b[t-1]\nh[t] = W @ a[t]"
    r, theta = 0.93, 1.9
    net = network(text, params={"p": r * np.cos(theta), "q": r * np.sin(theta)})
    (kept,) = measure_gates(net, 0).kept
    assert kept.route.label == "(a, b)"
    assert kept.nats[1:] == pytest.approx(np.full(24, np.log(r)), rel=1e-9)
    assert kept.mean == pytest.approx(r, rel=1e-12)
    (curve,) = curves(net)
    assert curve.log10_direct == pytest.approx(curve.log10_direct[0] + np.arange(26) * np.log10(r), abs=1e-9)
    (predicted,) = [p for p in predict(net.problem, 0) if p.name == "gates"]
    assert predicted.rate_per_step == pytest.approx(r, rel=1e-12)


def test_states_that_take_each_other_within_a_step() -> None:
    """y[t] = y[t-1] + s z[t]: the map of both is resolved, and so is the gradient that enters it."""
    text = "z[t] = a * z[t-1] - s * y[t-1] + U @ x[t]\ny[t] = y[t-1] + s * z[t]\nh[t] = W @ y[t]"
    a, s = 0.9, 0.3
    net = network(text, params={"a": a, "s": s}, trials=1, batch_size=1)
    D = np.array([[a, -s], [s * a, 1 - s * s]])
    (predicted,) = [p for p in predict(net.problem, 0) if p.name == "gates"]
    assert predicted.rate_per_step == pytest.approx(np.abs(np.linalg.eigvals(D)).max(), rel=1e-12)
    recording = Engine(net.problem).run(record=True).recording
    assert recording is not None
    z, y = (_adjoint(recording, state) for state in "zy")
    entering = np.stack([z - s * y, y])[:, 1:]
    arriving = np.einsum("ij,itn->jtn", D, entering)
    expected = np.log(np.linalg.norm(arriving, axis=(0, 2)) / np.linalg.norm(entering, axis=(0, 2)))[::-1]
    (kept,) = measure_gates(net, 0).kept
    assert kept.nats == pytest.approx(expected, rel=1e-9, abs=1e-12)
    (curve,) = curves(net)
    assert curve.projection == pytest.approx(np.ones(26), rel=1e-9)


def _adjoint(recording: Any, state: str) -> NDArray[np.float64]:
    """Return dL/ds of the only sequence, (T+1, hidden)."""
    exponent = recording.exponents[f"layer0.{state}"]
    return np.asarray(np.ldexp(recording.adjoints[f"layer0.{state}"], exponent[:, :, None, :])[:, 0, :, 0])


@pytest.mark.parametrize(
    ("name", "factors"),
    [
        ("gla", {"S": "alpha"}),
        ("hgrn2", {"S": "f"}),
        ("mamba-2", {"S": "alpha"}),
        ("titans", {"S": "eta", "M": "1 - alpha"}),
        ("matrix-lstm", {"m": None, "C": "f", "n": "f"}),
        ("retnet", {"S": "0.96875"}),
        ("deltanet", {"S": "1"}),
        ("longhorn", {"S": None}),
    ],
)
def test_a_decay_has_its_name_however_it_stands_beside_a_matrix(name: str, factors: dict[str, str | None]) -> None:
    cell = network(name).problem.plans[0].cell
    assert {route.label: route.name for route in direct_routes(cell)} == factors
