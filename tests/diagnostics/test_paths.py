"""Routes in numbers: each against PyTorch with everything else detached, their sums against its whole gradients."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import measured
import numpy as np
import pytest
from built_in_cells import WITHOUT_GRADIENT, in_turn
from late_torch import torch
from path_graphs import error_of_sum, network, plain, relative_error, traced, vectors
from reference.compare_run import redo
from simulated import simulate

from gradcli import cells
from gradcli.diagnostics.paths import CARRIES, trace_paths
from gradcli.diagnostics.paths_tracer import LONGEST_ROUTE, MOST_ROUTES, measured_distances
from gradcli.engine.run import Engine
from gradcli.language.formula import FormulaWriter
from gradcli.language.notation import Text
from gradcli.prepare.build import Network

SEQ_LEN, TRIALS = 12, 3
ROUNDING = 1e-12
ONE: dict[str, Any] = {"hidden_size": 1, "input_size": 1, "batch_size": 1, "trials": 1, "input": "zeros"}


def sizes(name: str) -> dict[str, Any]:
    return measured.small(name, seq_len=SEQ_LEN, trials=TRIALS)


def small(name: str, **fields: object) -> Network:
    return network(name, **{**sizes(name), **fields})


def sigmoid(a: Any) -> Any:
    return 1.0 / (1.0 + np.exp(-a))


def adjoint(net: Network, name: str, step: int) -> Any:
    """Return the gradient that the engine's own backward pass gives a state, (R, size, B)."""
    recording = Engine(net.problem).run(record=True).recording
    assert recording is not None
    return np.ldexp(recording.adjoints[name][step], recording.exponents[name][step][:, None, :])


# Sums of routes.


@pytest.mark.torch
@pytest.mark.parametrize(("name", "distance"), in_turn(cells.names(), [2, 1, 3]))
def test_routes_add_up_to_the_gradient_of_torch(name: str, distance: int, tmp_path: Path) -> None:
    net = small(name)
    saved = simulate({"cell": name, **sizes(name)}, tmp_path, save=True)
    block = cells.load(name).cell.model_dump()
    tracer = traced(net, distance)
    routes = 0
    for trial in range(TRIALS):
        arrays = {key: values[trial] for key, values in saved.arrays.items() if key != "at"}
        reference = redo(arrays, saved.report["spec"], block)
        for state in tracer.graph.states:
            gradient = reference.grad_states[f"layer0.{state}"][SEQ_LEN - distance]
            expected = gradient.reshape(len(gradient), -1).T
            found = [vector[trial][None] for vector in vectors(tracer, state).values()]
            assert error_of_sum(found, expected[None]) < ROUNDING
            routes += len(found)
    assert routes > 0


@pytest.mark.parametrize("name", cells.names())
def test_last_steps_add_up_to_the_gradient_of_the_engine(name: str) -> None:
    net = small(name)
    for distance in (LONGEST_ROUTE + 1, SEQ_LEN):
        tracer = traced(net, distance)
        for state in tracer.graph.states:
            expected = adjoint(net, f"layer0.{state}", SEQ_LEN - distance)
            found = vectors(tracer, state)
            if state == WITHOUT_GRADIENT.get(name):
                # The last steps are sums already, in which all but rounding has cancelled.
                others = [adjoint(net, f"layer0.{other}", SEQ_LEN - distance) for other in tracer.graph.states]
                scale = max(np.abs(other).max() for other in others)
                assert np.abs(np.sum(list(found.values()), axis=0)).max() < ROUNDING * scale
                continue
            assert error_of_sum(list(found.values()), expected) < ROUNDING
            assert all(len({name for name, _ in route.vertices[:-1]} & set(tracer.graph.states)) > 0 for route in found)


def test_enumerated_and_summed_routes_agree(monkeypatch: pytest.MonkeyPatch) -> None:
    net = small("lstm")
    tracer = traced(net, 3)
    listed = {state: vectors(tracer, state) for state in ("c", "h")}
    monkeypatch.setattr("gradcli.diagnostics.paths_tracer.MOST_ROUTES", 0)
    summed = traced(net, 3)
    for state, one_by_one in listed.items():
        for last, expected in vectors(summed, state).items():
            ending = [v for route, v in one_by_one.items() if route.edges[-len(last.edges) :] == last.edges]
            assert len(ending) > 1
            assert relative_error(np.sum(ending, axis=0), expected) < ROUNDING


def test_routes_from_another_state() -> None:
    """dL/dc_T holds all of h but the route through o; from c on, the others are the same."""
    net = small("lstm")
    from_h, from_c = vectors(traced(net, 1), "h"), vectors(traced(net, 1, start="c"), "h")
    assert len(from_h) == 4
    assert len(from_c) == 3
    for route, vector in from_c.items():
        same = next(v for r, v in from_h.items() if r.edges[1:] == route.edges)
        assert relative_error(vector, same) < ROUNDING


@pytest.mark.parametrize("name", ["gru", "batch-norm-rnn", "batch-norm-lstm", "plain-stack"])
def test_layers_below_the_top_and_losses_before_the_end(name: str) -> None:
    loss = {"kind": "projection", "at": [7, 4]}
    net = small(name, num_layers=2, loss=loss, input_at="every")
    top = traced(net, 2)
    # At step 7 alone: nothing of the loss at step 4 is among the routes from there to step 5.
    expected = adjoint(net, "layer1.h", 5)
    assert relative_error(np.sum(list(vectors(top, "h").values()), axis=0), expected) < ROUNDING
    assert top.first == 7
    below = traced(net, 1, layer=0)
    assert relative_error(plain(below._entering), adjoint(net, "layer0.h", 7)) < ROUNDING
    # What comes down through the layer above at step 6 is the rest.
    missing = adjoint(net, "layer0.h", 6) - np.sum(list(vectors(below, "h").values()), axis=0)
    assert np.linalg.norm(missing) > 0.01 * np.linalg.norm(adjoint(net, "layer0.h", 6))


# Single routes.


@pytest.mark.torch
def test_each_route_of_the_lstm_is_what_torch_gives_when_the_others_are_detached() -> None:
    net = small("lstm", trials=1, c_0={"normal": {"std": 1.0}}, h_0={"normal": {"std": 1.0}}, seq_len=1)
    p = {name: torch.tensor(value[0]) for name, value in net.problem.parameters[0].items()}
    x = torch.tensor(net.problem.source.fill(0, 1)[0, 0])
    tracer = traced(net, 1)
    upstream = torch.tensor(plain(tracer._entering)[0])
    kept = vectors(tracer, "h") | vectors(tracer, "c")
    for route, found in kept.items():
        names = [name for name, _ in route.vertices]
        h, c = (torch.tensor(net.problem.initial[0][s][0], requires_grad=True) for s in ("h", "c"))

        def gate(name: str, through: list[str] = names, state: Any = h) -> Any:
            source = state if name in through else state.detach()
            a = p[f"W_x{name}"] @ x + p[f"W_h{name}"] @ source + p[f"b_{name}"][:, None]
            return torch.tanh(a) if name == "g" else torch.sigmoid(a)

        new = gate("f") * (c if names[1:] == ["c", "c"] else c.detach()) + gate("i") * gate("g")
        out = gate("o") * torch.tanh(new if "c" in names else new.detach())
        out.backward(upstream)
        expected = (c if names[-1] == "c" else h).grad
        assert relative_error(found[0][None], expected.numpy()[None]) < ROUNDING
    assert len(kept) == 5


def test_four_paths_of_the_cell_state() -> None:
    """dc_2/dc_1 of one unit with o_1 = 0.55 and c_1 = 0.6: f and three more terms through the gates."""
    f, paths = 0.72738331, {"f": -0.01396926, "g": 0.17586556, "i": -0.01126288}
    o, c = 0.55, 0.6
    gates = {"f": f, "i": 0.4, "g": -0.3, "o": 0.7}
    through = o * (1 - np.tanh(c) ** 2)
    weights = {
        "f": paths["f"] / (c * f * (1 - f) * through),
        "g": paths["g"] / (gates["i"] * (1 - gates["g"] ** 2) * through),
        "i": paths["i"] / (gates["g"] * gates["i"] * (1 - gates["i"]) * through),
    }
    h = o * np.tanh(c)
    # With h_0 and all inputs zero the gates of step 1 are those of the biases; c_0 and b_o are chosen to give c_1, o_1.
    biases = {
        name: (np.arctanh(value) if name == "g" else np.log(value / (1 - value))) - weights.get(name, 0.0) * h
        for name, value in gates.items()
    }
    biases["o"] = np.log(o / (1 - o))
    c_0 = (c - sigmoid(biases["i"]) * np.tanh(biases["g"])) / sigmoid(biases["f"])
    params = {f"W_h{name}": [[weight]] for name, weight in weights.items()} | {"W_ho": [[0.3]]}
    params |= {f"b_{name}": [bias] for name, bias in biases.items()}
    net = network("lstm", **ONE, seq_len=2, params=params, c_0=[float(c_0)])
    found = trace_paths(net, layer=0, distance=1, start="c", ends=["c"])
    [table] = found.tables
    writer = FormulaWriter(found.graph, Text())
    total = 0.8780167310
    shares = {writer.route(share.route): share.projection * total for share in table.shares if share.projection}
    assert shares == pytest.approx(
        {"c -> c": f} | {f"c -> {name} -> h -> c": value for name, value in paths.items()}, rel=1e-7
    )
    # One unit: the direction is a sign.
    assert {round(share.cosine or 0.0, 12) for share in table.shares} == {1.0, -1.0}


def test_lstm_at_the_zero_state() -> None:
    """f = s(1) directly, s(0) s(0) through g with W_hg = 1; nothing through f and i, as c = g = 0."""
    params = {"W_hg": [[1.0]], "b_f": [1.0], "W_hf": [[0.7]], "W_hi": [[0.7]]}
    net = network("lstm", **ONE, init={"*": 0.0}, params=params, seq_len=4, loss={"kind": "sum"})
    found = trace_paths(net, layer=0, distance=1, start="c", ends=["c"])
    writer = FormulaWriter(found.graph, Text())
    shares = {writer.route(share.route): share.projection for share in found.tables[0].shares}
    total = 0.9810585786
    expected = {"c -> c": 0.7310585786 / total, "c -> g -> h -> c": 0.25 / total}
    assert shares == pytest.approx(expected | {"c -> i -> h -> c": 0.0, "c -> f -> h -> c": 0.0}, rel=1e-9)


@pytest.mark.parametrize(("name", "candidate"), [("gru", "h -> n -> h"), ("gru-textbook", "h -> n -> h")])
def test_gru_at_the_zero_state(name: str, candidate: str) -> None:
    """J = 1/2 + U/4: with U = 2, half of it is direct and half goes through the candidate."""
    net = network(name, **ONE, init={"*": 0.0}, params={"W_hn": [[2.0]]}, seq_len=3, loss={"kind": "sum"})
    found = trace_paths(net, layer=0, distance=1, start="h", ends=["h"])
    writer = FormulaWriter(found.graph, Text())
    shares = {writer.route(share.route): share.projection for share in found.tables[0].shares if share.projection}
    assert shares == pytest.approx({"h -> h": 0.5, candidate: 0.5}, rel=1e-12)
    assert found.tables[0].log10_norm == pytest.approx(0.0, abs=1e-12)


# The direct route.


@pytest.mark.parametrize(("bias", "f"), [(0.0, 0.5), (1.0, 0.7310585786300049), (2.0, 0.8807970779778823)])
def test_without_recurrent_weights_the_direct_route_is_all(bias: float, f: float) -> None:
    net = small("lstm", seq_len=2500, init={"W_h*": 0.0, "b_f": bias, "W_xf": 0.0})
    found = trace_paths(net, layer=0, distance=1, start="h", ends=["c"])
    [curve] = found.direct
    assert curve.route.states == ("c",)
    fall = curve.log10_direct - curve.log10_direct[0]
    # For the first two, far below the smallest float64 at the end.
    assert np.allclose(fall, curve.distances * np.log10(f), rtol=1e-10, atol=0)
    assert np.allclose(curve.projection, 1.0, rtol=1e-10, atol=0)
    assert curve.carries_to == 2500


def test_the_direct_route_is_the_product_of_forget_gates() -> None:
    net = small("lstm", batch_size=1, trials=1)
    recording = Engine(net.problem).run(record=True).recording
    assert recording is not None
    p = {name: value[0] for name, value in net.problem.parameters[0].items()}
    h, x = recording.states["layer0.h"][:, 0], recording.x[:, 0]
    vector = adjoint(net, "layer0.c", SEQ_LEN)[0]
    found = trace_paths(net, layer=0, distance=1, start="h", ends=["c"])
    for behind in range(1, SEQ_LEN + 1):
        step = SEQ_LEN - behind
        vector = vector * sigmoid(p["W_xf"] @ x[step] + p["W_hf"] @ h[step] + p["b_f"][:, None])
        whole = adjoint(net, "layer0.c", step)[0]
        norm, total = np.linalg.norm(vector), np.linalg.norm(whole)
        assert found.direct[0].log10_direct[behind] == pytest.approx(np.log10(norm), rel=1e-12)
        assert found.direct[0].log10_total[behind] == pytest.approx(np.log10(total), rel=1e-12)
        assert found.direct[0].projection[behind] == pytest.approx(float(np.sum(vector * whole)) / total**2, rel=1e-9)
    first_below = int(np.argmax(found.direct[0].projection < CARRIES))
    assert found.direct[0].carries_to == first_below - 1


@pytest.mark.parametrize("name", ["rnn", "rnn-lags"])
def test_a_plain_network_has_no_direct_route(name: str) -> None:
    assert trace_paths(small(name), layer=0, distance=1, start="h", ends=["h"]).direct == []


@pytest.mark.parametrize("name", ["residual-rnn", "leaky-rnn"])
def test_a_shortcut_is_a_direct_route(name: str) -> None:
    [curve] = trace_paths(small(name), layer=0, distance=1, start="h", ends=["h"]).direct
    rate = {"residual-rnn": 1.0, "leaky-rnn": 0.9}[name]
    fall = 10 ** (curve.log10_direct - curve.log10_direct[0])
    assert np.allclose(fall, rate**curve.distances, rtol=1e-12, atol=0)


def test_no_distance_underflows() -> None:
    """A gradient that falls by 1e-6 a step, over 400 steps: routes and direct route keep their shares."""
    cell = {"name": "two", "equations": "h[t] = 1e-6 * h[t-1] + 3e-6 * (W @ h[t-1]) + b"}
    net = network(cell, hidden_size=1, batch_size=1, trials=1, seq_len=400, init={"W": 1.0, "b": 1.0})
    found = trace_paths(net, layer=0, distance=399, start="h", ends=["h"])
    [table] = found.tables
    assert table.log10_norm - found.direct[0].log10_total[0] == pytest.approx(399 * np.log10(4e-6), rel=1e-12)
    assert [share.projection for share in table.shares] == pytest.approx([0.25, 0.75], rel=1e-12)
    assert found.direct[0].log10_direct[400] - found.direct[0].log10_direct[0] == pytest.approx(-2400, rel=1e-12)


# Aggregates.


def test_projections_add_up_to_one() -> None:
    for distance in (1, 2, 3, 10):
        found = trace_paths(small("lstm-peephole"), layer=0, distance=distance, start="h", ends=["h", "c"])
        for table in found.tables:
            assert sum(share.projection or 0.0 for share in table.shares) == pytest.approx(1.0, rel=1e-12)
            assert table.residual is not None
            assert table.residual < ROUNDING
            assert table.is_complete == ((table.count or 0) <= MOST_ROUTES and distance <= LONGEST_ROUTE)


def test_groups_of_trials_make_no_difference(monkeypatch: pytest.MonkeyPatch) -> None:
    net = small("lstm", trials=4)
    whole = trace_paths(net, layer=0, distance=2, start="h", ends=["h", "c"])
    monkeypatch.setattr("gradcli.engine.sizes.Sizes.trials_at_once", 1)
    apart = trace_paths(net, layer=0, distance=2, start="h", ends=["h", "c"])
    for one, other in zip(whole.tables, apart.tables, strict=True):
        assert [s.projection for s in one.shares] == pytest.approx([s.projection for s in other.shares], rel=1e-10)
    assert np.allclose(whole.direct[0].log10_total, apart.direct[0].log10_total, rtol=1e-10, atol=0)


def test_a_gradient_that_is_exactly_zero() -> None:
    net = small("indrnn", init={"b_h": -100.0})
    found = trace_paths(net, layer=0, distance=1, start="h", ends=["h"])
    assert found.tables[0].zeros == 1.0
    assert found.tables[0].log10_norm == -np.inf
    assert found.tables[0].shares[0].projection is None


def test_a_forward_pass_that_overflows() -> None:
    net = network({"name": "square", "equations": "h[t] = h[t-1] ** 2 + 2"}, hidden_size=2, seq_len=40)
    found = trace_paths(net, layer=0, distance=1, start="h", ends=["h"])
    assert found.verdict is not None
    assert found.verdict.kind == "nonfinite"
    assert "h[t] = h[t-1] ** 2 + 2" in found.verdict.headline


def test_a_derivative_that_is_not_finite() -> None:
    net = network({"name": "root", "equations": "h[t] = sqrt(h[t-1])"}, hidden_size=2, seq_len=4, trials=1)
    found = trace_paths(net, layer=0, distance=1, start="h", ends=["h"])
    assert found.verdict is not None
    assert found.verdict.kind == "nonfinite"
    assert "derivative" in found.verdict.headline


def test_distances_of_long_sequences_are_few_and_reach_both_ends() -> None:
    assert measured_distances(5) == [0, 1, 2, 3, 4, 5]
    found = measured_distances(1_000_000)
    assert found[:3] == [0, 1, 2]
    assert found[-1] == 1_000_000
    assert len(found) < 3000
