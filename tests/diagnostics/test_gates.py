"""Gates and the parts of the rate: against PyTorch's adjoints, formulas worked out by hand, and closed forms."""

from __future__ import annotations

import math
import re
from pathlib import Path
from statistics import NormalDist
from typing import Any

import numpy as np
import pytest
import redone
import yaml
from built_in_cells import in_turn
from late_torch import torch
from measured import SCALAR, SMALL, loaded, small
from numpy.typing import NDArray
from reference.equations import has_more_arriving
from reference.torch_reference import run

from gradcli import cells
from gradcli.diagnostics.contributions import of_last_loss
from gradcli.diagnostics.curve import joined
from gradcli.diagnostics.gate_names import activations_of
from gradcli.diagnostics.gate_words import main_cause
from gradcli.diagnostics.gates import Gate, Gates, Rates, measure_gates
from gradcli.diagnostics.step_norms import is_closed, step_norms
from gradcli.engine.blocks import walk_adjoints
from gradcli.engine.run import Engine
from gradcli.language.direct import direct_routes
from gradcli.language.functions import ELEMENTWISE, FUNCTIONS
from gradcli.prepare.build import build

Array = NDArray[np.float64]
TEST_CELLS = sorted((Path(__file__).parents[1] / "cells").glob("*.yaml"))
ONE_TRIAL = {**SMALL, "trials": 1}


def looked_at(cell: Any = "rnn", *, layer: int = 0, **fields: object) -> Gates:
    return measure_gates(build(loaded(cell, **fields)), layer)


def has_one_simple_state(path: Path) -> bool:
    """Tell whether a cell's file has one state, and none of lag 2 or more."""
    text = path.read_text(encoding="utf-8")
    return len(re.findall(r"\w\[t\] *=", text)) == 1 and not re.search(r"\[t ?- ?[2-9]\]", text)


def rates_of(found: Gates) -> Rates:
    assert found.rates is not None
    return found.rates


def gate(found: Gates, name: str) -> Gate:
    return next(gate for gate in found.gates if gate.activation.name == name)


def torch_run(cell: Any, **fields: object) -> Any:
    """Return PyTorch's run of one trial, with what it was given."""
    network = build(loaded(cell, **fields))
    arguments = redone.given(network, 0)
    return run(*arguments, tied=network.problem.tied), arguments


def norm(*parts: Array) -> Array:
    """Return the norm of several arrays as one, (T, B, ...) each -> (T, B)."""
    return np.sqrt(np.sum([np.square(part).reshape(*part.shape[:2], -1).sum(axis=-1) for part in parts], axis=0))


def log_of_means(over: Array, under: Array) -> Array:
    """Return ln of the ratio of two norms' means over the sequences, (T, B) -> (T,): the last step first."""
    return np.asarray(np.log(over.mean(axis=1) / under.mean(axis=1))[::-1])


# --- the parts of the rate -------------------------------------------------------------------------------------------


@pytest.mark.torch
@pytest.mark.parametrize(("name", "layer"), in_turn(cells.names(), [1, 0]))
def test_the_parts_add_up_to_the_rate_of_the_curve(name: str, layer: int) -> None:
    fields = small(name, trials=1, num_layers=2, loss={"kind": "projection"})
    if name.startswith("dense-block"):
        # With relu all units of a step may be off, while the gradient goes on around that step.
        fields["activation"] = "tanh"
    reference, _ = torch_run(name, **fields)
    joint = norm(*(grad for state, grad in reference.grad_states.items() if state.startswith(f"layer{layer}.")))
    rates = rates_of(looked_at(name, layer=layer, **fields))
    assert rates.total == pytest.approx(log_of_means(joint[:-1], joint[1:]), rel=1e-9, abs=1e-12)
    other = 0.0 if rates.other is None else rates.other
    assert rates.activations + rates.weights + other == pytest.approx(rates.total, rel=1e-12, abs=1e-12)
    # Only where something else enters is there a third part.
    assert (rates.other is None) == (layer == 1 and not has_more_arriving(cells.load(name).cell.equations))


@pytest.mark.parametrize("path", list(filter(has_one_simple_state, TEST_CELLS)), ids=lambda path: path.stem)
def test_all_that_arrives_is_the_gradient_one_step_earlier(path: Path) -> None:
    """Where nothing else enters and one state has no other beside it, u_t is dL/ds_(t-1) itself."""
    fields = yaml.safe_load(path.read_text(encoding="utf-8"))
    network = of_last_loss(build(loaded(fields.pop("cell"), **fields)))
    top = network.problem.top
    norms = joined(n for name, n in Engine(network.problem).run().log2_norm.items() if name.startswith(f"layer{top}."))
    for trials, group in Engine(network.problem).groups():
        for visit in walk_adjoints(group):
            backward, block = visit.passes[top], visit.blocks[top]
            assert is_closed(backward.plan)
            first, last = visit.steps
            found, expected = step_norms(backward, block, backward.known_values(block)).after, norms[first:last, trials]
            # Where both are exact zeros, as before the only steps that matter, there is nothing to compare.
            some = np.isfinite(expected)
            assert np.array_equal(np.isfinite(found), some)
            assert found[some] == pytest.approx(expected[some], rel=0, abs=1e-9)


@pytest.mark.torch
def test_the_parts_of_functions_across() -> None:
    """layer_norm after the matrix, softmax before the other one and on the direct route; PyTorch's autograd."""
    cell = {
        "name": "across",
        "equations": "h[t] = tanh(layer_norm(W @ h[t-1]) + U @ x[t]) + V @ softmax(h[t-1]) + softmax(3 * h[t-1])",
    }
    fields = {**ONE_TRIAL, "init": {"*": {"normal": 0.5}}, "h_0": {"normal": {"std": 0.5}}}
    reference, given = torch_run(cell, **fields)
    W, U, V = (torch.tensor(given.params[f"layer0.{name}"]) for name in "WUV")
    leaving, coming = [], []
    for t in range(len(given.x)):
        h = torch.tensor(reference.states["layer0.h"][t])
        straight = h.clone().requires_grad_()
        a, b = (h @ W.T).requires_grad_(), (torch.softmax(h, 1) @ V.T).requires_grad_()
        normed = torch.nn.functional.layer_norm(a, a.shape[1:])
        new = torch.tanh(normed + torch.tensor(given.x[t]) @ U.T) + b + torch.softmax(3 * straight, 1)
        parts = torch.autograd.grad(new, (a, b, straight), torch.tensor(reference.grad_states["layer0.h"][t + 1]))
        leaving.append([part.numpy() for part in parts])
        # What is multiplied with W is h itself, and with V softmax(h), whose derivative is no matter of the weights.
        to_h, to_softmax = parts[0] @ W + parts[2], parts[1] @ V
        coming.append([to_h.numpy(), to_softmax.numpy()])
    rates = rates_of(looked_at(cell, **fields))
    sent, came = (norm(*(np.stack(part) for part in zip(*parts, strict=True))) for parts in (leaving, coming))
    assert rates.weights == pytest.approx(log_of_means(came, sent), rel=1e-9)
    # The gradient goes on entry by entry through a function across, but not as a direct route.
    assert not rates.direct.any()


def identities(equations: str, **init: Any) -> Rates:
    cell = {"name": "series", "equations": equations}
    start = {name: init.get(name, "identity") for name in "ABV" if f"{name} @" in equations}
    return rates_of(looked_at(cell, **{**SMALL, "hidden_size": 4, "input_size": 4, "init": start}))


@pytest.mark.parametrize(
    ("equations", "activations", "weights"),
    [
        ("h[t] = A @ (B @ h[t-1]) + x[t]", 0.0, 0.0),
        ("h[t] = 0.5 * (A @ (B @ h[t-1])) + x[t]", -math.log(2), 0.0),
        ("h[t] = A @ (0.5 * (B @ h[t-1])) + x[t]", -math.log(2), 0.0),
        ("h[t] = A @ (B @ (0.5 * h[t-1])) + x[t]", -math.log(2), 0.0),
        ("h[t] = A @ (0.5 * h[t-1]) + x[t]", -math.log(2), 0.0),
        ("h[t] = A @ (B @ (V @ h[t-1])) + x[t]", 0.0, 0.0),
        ("h[t] = 0.5 * (A @ (4 * (B @ h[t-1]))) + x[t]", math.log(2), 0.0),
        # Of a vector of several parts the state's goes on as it is.
        ("h[t] = A @ [h[t-1][0:2], h[t-1][2:4]] + x[t]", 0.0, 0.0),
        ("h[t] = A @ (0.5 * [h[t-1][0:2], h[t-1][2:4]]) + x[t]", -math.log(2), 0.0),
    ],
)
def test_identities_in_series_are_no_part_of_the_rate(equations: str, activations: float, weights: float) -> None:
    rates = identities(equations)
    assert rates.activations == pytest.approx(np.full(len(rates.total), activations), abs=1e-12)
    assert rates.weights == pytest.approx(np.full(len(rates.total), weights), abs=1e-12)


def test_a_factor_of_each_matrix_in_series_is_the_weights() -> None:
    rates = identities("h[t] = A @ (B @ h[t-1]) + x[t]", A={"identity": {"gain": 0.5}}, B={"identity": {"gain": 1.5}})
    assert rates.weights == pytest.approx(np.full(len(rates.total), math.log(0.75)), rel=1e-12)
    assert rates.activations == pytest.approx(np.zeros(len(rates.total)), abs=1e-12)


@pytest.mark.torch
def test_the_parts_of_two_levels() -> None:
    """h = tanh(A @ sigmoid(B @ h + ..) + C @ h): PyTorch's autograd in between, level by level."""
    cell = {"name": "two", "equations": "h[t] = tanh(A @ sigmoid(B @ h[t-1] + U @ x[t]) + C @ h[t-1]) + 0.2 * h[t-1]"}
    fields = {**ONE_TRIAL, "init": {"*": {"normal": 0.7}}, "h_0": {"normal": {"std": 0.5}}}
    reference, given = torch_run(cell, **fields)
    A, B, C, U = (torch.tensor(given.params[f"layer0.{name}"]) for name in "ABCU")
    moves: list[list[list[Any]]] = [[], [], [], []]
    for t in range(len(given.x)):
        h = torch.tensor(reference.states["layer0.h"][t])
        delta = torch.tensor(reference.grad_states["layer0.h"][t + 1])
        inner = torch.sigmoid(h @ B.T + torch.tensor(given.x[t]) @ U.T)
        a = delta * (1 - torch.tanh(inner @ A.T + h @ C.T) ** 2)
        # The products A and C enter the same sum; B and C have the same vector, and go together.
        moves[0].append([a, 0.2 * delta])
        moves[1].append([a @ A, a, 0.2 * delta])
        b = (a @ A) * inner * (1 - inner)
        moves[2].append([b, a, 0.2 * delta])
        moves[3].append([b @ B + a @ C + 0.2 * delta])
    before, after_a, middle, end = (
        norm(*(np.stack([part.numpy() for part in parts]) for parts in zip(*steps, strict=True))) for steps in moves
    )
    rates = rates_of(looked_at(cell, **fields))
    assert rates.weights == pytest.approx(
        log_of_means(after_a, before) + log_of_means(end, middle), rel=1e-9, abs=1e-12
    )
    inside = norm(reference.grad_states["layer0.h"][1:])
    expected = log_of_means(before, inside) + log_of_means(middle, after_a)
    assert rates.activations == pytest.approx(expected, rel=1e-9, abs=1e-12)


@pytest.mark.torch
def test_the_parts_of_a_cell_whose_heads_stand_on_a_product() -> None:
    """CfC: the four heads have one vector, z; W_z stands behind it, and only its part on h[t-1] leads back."""
    small = {**ONE_TRIAL, "hidden_size": 6}
    reference, given = torch_run("cfc", **small)
    p = {name.removeprefix("layer0."): torch.tensor(value) for name, value in given.params.items()}
    moves: list[list[list[Any]]] = [[], [], [], []]
    for t in range(len(given.x)):
        h, x = torch.tensor(reference.states["layer0.h"][t]), torch.tensor(given.x[t])
        inside = 0.666 * (torch.cat([x, h], 1) @ p["W_z"].T + p["b_z"])
        z = 1.7159 * torch.tanh(inside)
        heads = [(z @ p[f"W_z{name}"].T + p[f"b_{name}"]).requires_grad_() for name in "gkab"]
        g, k, s = torch.tanh(heads[0]), torch.tanh(heads[1]), torch.sigmoid(-(heads[2] + heads[3]))
        delta = torch.tensor(reference.grad_states["layer0.h"][t + 1])
        parts = torch.autograd.grad(s * g + (1 - s) * k, heads, delta)
        moves[0].append([part.numpy() for part in parts])
        q = sum(part @ p[f"W_z{name}"] for part, name in zip(parts, "gkab", strict=True))
        moves[1].append([q.numpy()])
        b = q * 1.7159 * (1 - torch.tanh(inside) ** 2) * 0.666
        moves[2].append([b.numpy()])
        moves[3].append([(b @ p["W_z"])[:, x.shape[1] :].numpy()])
    heads_in, heads_out, z_in, z_out = (
        norm(*(np.stack(parts) for parts in zip(*steps, strict=True))) for steps in moves
    )
    found = looked_at("cfc", **small)
    rates = rates_of(found)
    expected = log_of_means(heads_out, heads_in) + log_of_means(z_out, z_in)
    assert rates.weights == pytest.approx(expected, rel=1e-9, abs=1e-12)
    # The part of W_z on the state is named among the matrices, with its own largest singular value.
    assert found.spectral_norms is not None
    on_state = np.linalg.norm(p["W_z"].numpy()[:, given.x.shape[2] :], 2)
    assert found.spectral_norms["W_z on h[t-1]"] == pytest.approx(on_state, rel=1e-12)


def test_untied_weights_have_the_median_spectral_norm_of_all_steps() -> None:
    network = build(loaded("plain-stack", **SMALL))
    matrices = network.problem.parameters[0]["W_hh"].reshape(-1, 5, 5)
    found = looked_at("plain-stack", **SMALL).spectral_norms
    expected = np.median([np.linalg.svd(matrix, compute_uv=False)[0] for matrix in matrices])
    assert found == {"W_hh": pytest.approx(expected, rel=1e-12)}


@pytest.mark.parametrize("path", TEST_CELLS, ids=lambda path: path.stem)
def test_the_parts_add_up_for_unusual_cells(path: Path) -> None:
    fields = yaml.safe_load(path.read_text(encoding="utf-8"))
    network = build(loaded(fields.pop("cell"), **fields))
    for layer in range(len(network.problem.plans)):
        found = measure_gates(network, layer)
        rates = rates_of(found)
        run = Engine(found.network.problem).run()
        norms = joined(norm for name, norm in run.log2_norm.items() if name.startswith(f"layer{layer}."))
        means = np.logaddexp2.reduce(norms.reshape(len(norms), -1), axis=1)
        slope = (math.log(2) * (means[:-1] - means[1:]))[::-1]
        slope[~np.isfinite(slope)] = np.nan  # from or to an exact zero
        other = 0.0 if rates.other is None else rates.other
        parts = rates.activations + rates.weights + other
        assert parts == pytest.approx(slope, rel=1e-9, abs=1e-12, nan_ok=True)
        assert main_cause(found).text


@pytest.mark.torch
@pytest.mark.parametrize("activation", ["tanh", "sigmoid", "softsign"])
def test_the_parts_of_a_plain_rnn(activation: str) -> None:
    fields = {**ONE_TRIAL, "activation": activation}
    reference, given = torch_run("rnn", **fields)
    h, delta = reference.states["layer0.h"][1:], reference.grad_states["layer0.h"]
    slopes = {"tanh": 1 - h**2, "sigmoid": h * (1 - h), "softsign": (1 - np.abs(h)) ** 2}
    pre = slopes[activation] * delta[1:]
    rates = rates_of(looked_at("rnn", **fields))
    assert rates.activations == pytest.approx(log_of_means(norm(pre), norm(delta[1:])), rel=1e-9)
    assert rates.weights == pytest.approx(log_of_means(norm(pre @ given.params["layer0.W_hh"]), norm(pre)), rel=1e-9)
    assert rates.direct == pytest.approx(np.zeros(len(rates.direct)))


def sigmoid(a: Array) -> Array:
    return 1 / (1 + np.exp(-a))


def lstm_by_hand(given: Any, reference: Any) -> dict[str, Array]:
    """Return the gates of an LSTM from its states, (T, B, size) each."""
    p = {name.removeprefix("layer0."): value for name, value in given.params.items()}
    before = reference.states["layer0.h"][:-1]

    def pre(gate: str) -> Array:
        return np.asarray(given.x @ p[f"W_x{gate}"].T + before @ p[f"W_h{gate}"].T + p[f"b_{gate}"])

    return {"i": sigmoid(pre("i")), "f": sigmoid(pre("f")), "g": np.tanh(pre("g")), "o": sigmoid(pre("o"))}


@pytest.mark.torch
def test_the_parts_of_an_lstm() -> None:
    """Adjoints of the four pre-activations and of f * c, by the textbook's formulas; then through the matrices."""
    reference, given = torch_run("lstm", **ONE_TRIAL)
    v = lstm_by_hand(given, reference)
    c, c_before = reference.states["layer0.c"][1:], reference.states["layer0.c"][:-1]
    dh, dc = reference.grad_states["layer0.h"][1:], reference.grad_states["layer0.c"][1:]
    lanes = {
        "i": dc * v["g"] * v["i"] * (1 - v["i"]),
        "f": dc * c_before * v["f"] * (1 - v["f"]),
        "g": dc * v["i"] * (1 - v["g"] ** 2),
        "o": dh * np.tanh(c) * v["o"] * (1 - v["o"]),
    }
    direct = v["f"] * dc
    to_h = sum(lane @ given.params[f"layer0.W_h{name}"] for name, lane in lanes.items())
    leaving, arriving = norm(direct, *lanes.values()), norm(direct, to_h)
    rates = rates_of(looked_at("lstm", **ONE_TRIAL))
    assert rates.weights == pytest.approx(log_of_means(arriving, leaving), rel=1e-9)
    assert np.log(rates.direct) == pytest.approx(log_of_means(norm(direct), arriving), rel=1e-9)
    slopes = {"i": v["i"] * (1 - v["i"]), "f": v["f"] * (1 - v["f"]), "g": 1 - v["g"] ** 2, "o": v["o"] * (1 - v["o"])}
    entering = {"i": dc * v["g"], "f": dc * c_before, "g": dc * v["i"], "o": dh * np.tanh(c), "tanh(c)": dh * v["o"]}
    slopes["tanh(c)"] = 1 - np.tanh(c) ** 2
    for name, part in entering.items():
        with np.errstate(invalid="ignore"):
            wanted = log_of_means(norm(slopes[name] * part), norm(part))
        found = gate(looked_at("lstm", **ONE_TRIAL), name).passed
        # At the first step c[t-1] is zero, and nothing enters f.
        assert found[np.isfinite(wanted)] == pytest.approx(wanted[np.isfinite(wanted)], rel=1e-9), name
    (kept,) = looked_at("lstm", **ONE_TRIAL).kept
    assert kept.nats == pytest.approx(log_of_means(norm(direct), norm(dc)), rel=1e-9)
    assert np.log(kept.share) == pytest.approx(log_of_means(norm(direct), norm(reference.grad_states["layer0.c"][:-1])))


def test_a_power_has_the_weight_as_its_rate() -> None:
    rates = rates_of(looked_at(SCALAR, hidden_size=1, batch_size=1, trials=1, seq_len=30, params={"a": 0.9}))
    assert rates.total == pytest.approx(np.full(30, math.log(0.9)))
    assert rates.direct == pytest.approx(np.ones(30))


def test_rates_of_any_size_keep_their_digits() -> None:
    small = {**ONE_TRIAL, "seq_len": 2000, "init": {"W_hh": {"orthogonal": {"gain": 0.1}}}}
    rates = rates_of(looked_at("rnn", **small))
    assert rates.weights == pytest.approx(np.full(2000, math.log(0.1)), rel=1e-12)


def test_a_gradient_that_stops_has_no_rate_there() -> None:
    """relu, all units off at the first step: exactly zero before it."""
    cell = {"name": "off", "equations": "h[t] = relu(h[t-1] + b)"}
    found = looked_at(cell, hidden_size=2, batch_size=1, trials=1, seq_len=3, params={"b": -1.0}, h_0=[1.5, 1.5])
    rates = rates_of(found)
    assert np.isnan(rates.total).all()
    assert main_cause(found).kind == "unclear"


def test_a_tape_kept_in_segments_gives_the_same_rates_and_gates(monkeypatch: pytest.MonkeyPatch) -> None:
    from gradcli.engine import sizes

    long = {**SMALL, "seq_len": 150}
    whole = looked_at("lstm", **long)
    monkeypatch.setattr(sizes, "_WHOLE_TAPE_BYTES", 0)
    monkeypatch.setattr(sizes, "_SEGMENT_BYTES", 0)
    in_segments = looked_at("lstm", **long)
    assert rates_of(in_segments).weights == pytest.approx(rates_of(whole).weights, rel=1e-9)
    assert gate(in_segments, "f").mean == pytest.approx(gate(whole, "f").mean, rel=1e-12)
    assert gate(in_segments, "f").high == pytest.approx(gate(whole, "f").high, rel=1e-12)
    assert in_segments.kept[0].mean == pytest.approx(whole.kept[0].mean, rel=1e-12)


def test_a_route_that_is_closed_at_some_steps_keeps_the_ratio_of_the_sums() -> None:
    """Modules of a clockwork network: D is 0 where one is computed anew, and 1 else; from the saved arrays."""
    fields: dict[str, Any] = {**ONE_TRIAL, "hidden_size": 8, "seq_len": 30}
    network = of_last_loss(build(loaded("clockwork-rnn", **fields)))
    recording = Engine(network.problem).run(record=True).recording
    assert recording is not None
    found = {kept.route.label: kept for kept in looked_at("clockwork-rnn", **fields).kept}
    for module in ("m2", "m3", "m4"):
        adjoints, exponents = recording.adjoints[f"layer0.{module}"], recording.exponents[f"layer0.{module}"]
        norms = (np.linalg.norm(adjoints, axis=2) * np.exp2(exponents)).mean(axis=(1, 2))
        counters = recording.states[f"layer0.n{module[1]}"][:, 0, 0, 0]
        steps = np.arange(1, 30)
        kept = counters[steps] != 0
        expected = norms[steps][kept].sum() / norms[steps].sum()
        one = found[module]
        assert math.exp(one.rate) == pytest.approx(expected, rel=1e-9)
        assert (one.closed, one.steps) == (int((~kept).sum()), 29)
        assert 0 < expected < 0.95
    # Over its closed steps it carries nothing: it is no cause of a gradient that goes on.
    assert main_cause(looked_at("clockwork-rnn", **fields)).kind != "gates"


def test_a_route_that_is_closed_at_no_step_keeps_the_geometric_mean() -> None:
    for kept in looked_at("lstm", **SMALL).kept:
        assert (kept.closed, kept.steps) == (0, len(kept.nats) - 1)
        assert kept.rate == pytest.approx(kept.nats[1:].mean(), rel=1e-12)


# --- the values ------------------------------------------------------------------------------------------------------


@pytest.mark.torch
def test_the_gates_of_an_lstm() -> None:
    reference, given = torch_run("lstm", **ONE_TRIAL)
    found = looked_at("lstm", **ONE_TRIAL)
    by_hand = lstm_by_hand(given, reference)
    by_hand["tanh(c)"] = np.tanh(reference.states["layer0.c"][1:])
    assert [g.activation.name for g in found.gates] == list(by_hand)
    for name, values in by_hand.items():
        values = values[::-1].reshape(len(values), -1)
        slopes = values * (1 - values) if name in ("i", "f", "o") else 1 - values**2
        one = gate(found, name)
        assert one.mean == pytest.approx(values.mean(axis=1), rel=1e-9, abs=1e-12)
        assert one.std == pytest.approx(values.std(axis=1), rel=1e-9)
        assert one.slope == pytest.approx(slopes.mean(axis=1), rel=1e-9)
        assert one.low == pytest.approx(np.quantile(values[list(found.sampled)], 0.1, axis=1), rel=1e-9)
        assert one.high == pytest.approx(np.quantile(values[list(found.sampled)], 0.9, axis=1), rel=1e-9)
    assert [(k.route.label, k.route.name) for k in found.kept] == [("c", "f")]
    assert found.kept[0].mean == pytest.approx(by_hand["f"].mean(), rel=1e-12)


def test_trials_are_pooled() -> None:
    together = gate(looked_at("gru", **SMALL), "n")
    one = [gate(looked_at("gru", **ONE_TRIAL), "n")]
    assert together.mean.shape == one[0].mean.shape
    assert together.std[0] != pytest.approx(one[0].std[0], rel=1e-6)


def driven(function: str, std: float) -> Gate:
    """Return the activation of h = function(x) for normal x: 300,000 values."""
    cell = {"name": "driven", "equations": f"h[t] = {function}(x[t])"}
    sizes = {"hidden_size": 30, "input_size": 30, "batch_size": 50, "trials": 2, "seq_len": 100}
    return gate(looked_at(cell, **sizes, input={"kind": "normal", "std": std}), "h")


@pytest.mark.parametrize(
    ("std", "slope"),
    [(0.1, 0.9901945312), (0.3, 0.9230503069), (0.5, 0.8264838566), (1.0, 0.6057055096), (2.0, 0.3647387657)],
)
def test_the_mean_slope_of_tanh_on_a_normal_input(std: float, slope: float) -> None:
    assert driven("tanh", std).slope.mean() == pytest.approx(slope, abs=3e-3)


def test_the_saturated_share_is_where_the_slope_is_below_5_percent_of_gamma() -> None:
    """tanh' < 0.05 where |a| > artanh sqrt 0.95; sigmoid' < 0.05 / 4 where |a| is twice that."""
    edge = math.atanh(math.sqrt(0.95))
    tail = 2 * (1 - NormalDist().cdf(edge / 2))
    assert driven("tanh", 2.0).saturated.mean() == pytest.approx(tail, abs=3e-3)
    assert driven("sigmoid", 4.0).saturated.mean() == pytest.approx(tail, abs=3e-3)


@pytest.mark.parametrize(
    ("surrogate", "gamma", "edge"),
    [
        ("atan", 0.75, math.sqrt(19) / (math.pi / 2 * 1.5)),
        ("fast_sigmoid", 1.0, (math.sqrt(20) - 1) / 1.5),
        ("sigmoid", 1.5 / 4, 2 * math.atanh(math.sqrt(0.95)) / 1.5),
        ("triangle", 1.5, 0.95 / 1.5),
        ("rectangle", 1.5, 1 / (2 * 1.5)),
    ],
)
def test_a_spike_has_the_slope_of_its_surrogate(surrogate: str, gamma: float, edge: float) -> None:
    """With k = 1.5: a share of 1/2 spikes; where |a| is beyond the edge, the slope is below 5 % of that at 0."""
    cell = {"name": "driven", "equations": f'h[t] = spike(x[t], "{surrogate}", 1.5)'}
    sizes = {"hidden_size": 30, "input_size": 30, "batch_size": 50, "trials": 2, "seq_len": 100}
    found = gate(looked_at(cell, **sizes, input={"kind": "normal", "std": 1.0}), "h")
    assert (found.activation.function, found.activation.gamma) == ("spike", gamma)
    assert found.mean.mean() == pytest.approx(0.5, abs=3e-3)
    assert found.saturated.mean() == pytest.approx(2 * (1 - NormalDist().cdf(edge)), abs=3e-3)
    assert found.slope.max() <= gamma


def test_gamma_is_the_largest_slope_seen() -> None:
    for name in ELEMENTWISE:
        if name in ("identity", "abs", "exp", "log", "sqrt"):
            continue
        one = driven(name, 3.0)
        assert one.activation.gamma == FUNCTIONS[name].gamma
        assert one.slope.max() <= one.activation.gamma


# --- names -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("cell", "names", "routes"),
    [
        ("rnn", ["h"], []),
        ("gru", ["r", "z", "n"], [("h", "z")]),
        ("gru-textbook", ["r", "z", "n"], [("h", "1 - z")]),
        ("leaky-rnn", ["tanh in h"], [("h", "0.9")]),
        ("residual-rnn", ["tanh in h"], [("h", "1")]),
    ],
)
def test_activations_and_routes_have_the_names_of_the_equations(
    cell: str, names: list[str], routes: list[tuple[str, str]]
) -> None:
    sized = build(loaded(cell, **SMALL)).problem.plans[0].cell
    assert [a.name for a in activations_of(sized)] == names
    assert [(r.label, r.name) for r in direct_routes(sized)] == routes


def test_calls_of_the_same_name_are_numbered() -> None:
    cell = {"name": "two", "equations": "h[t] = tanh(W @ h[t-1] + b) * tanh(U @ x[t] + 2 * b)"}
    sized = build(loaded(cell, **SMALL)).problem.plans[0].cell
    assert sorted(a.name for a in activations_of(sized)) == ["tanh in h 1", "tanh in h 2"]


# --- the main cause --------------------------------------------------------------------------------------------------

QUIET = {**SMALL, "seq_len": 30, "input": {"kind": "normal", "std": 1e-3}, "init": {"b_*": "zeros"}}


@pytest.mark.parametrize(
    ("cell", "init", "kind", "words"),
    [
        ("rnn", {"W_hh": {"orthogonal": {"gain": 0.5}}}, "weights", "a factor 0.5 of the norm"),
        ("rnn", {"W_hh": {"orthogonal": {"gain": 1.0}}}, "level", "keeps its size"),
        (
            "lstm",
            {},
            "gates",
            "c[t-1] -> c[t]: f = 0.5 a step where the gradient is, alone -0.69 nats a step, of -0.47 in all",
        ),
        ("gru-textbook", {"*": 0.0}, "gates", "1 - z = 0.5 a step"),
        ("mingru", {"*": 0.0}, "gates", "1 - z = 0.5 a step"),
    ],
)
def test_the_main_cause(cell: str, init: dict[str, Any], kind: str, words: str) -> None:
    cause = main_cause(looked_at(cell, **{**QUIET, "init": {"b_*": "zeros", **init}}))
    assert (cause.kind, words in cause.text) == (kind, True), cause.text


def test_a_normalisation_is_named_with_the_activations() -> None:
    fields = {**SMALL, "batch_size": 8, "hidden_size": 20, "h_0": {"normal": {"std": 0.1}}}
    cause = main_cause(looked_at("batch-norm-rnn", **fields))
    # The matrix is the identity: it passes on what it gets, and is not nothing.
    assert cause.kind == "activations"
    assert cause.text.startswith("the activations and batch_norm: they leave a factor 0.")


def test_activations_are_the_cause_of_a_sigmoid_network() -> None:
    fields = {**QUIET, "init": {"b_*": "zeros", "W_hh": "orthogonal"}, "activation": "sigmoid"}
    cause = main_cause(looked_at("rnn", **fields))
    assert cause.kind == "activations"
    assert "slopes where the gradient is: h (sigmoid) 0.2" in cause.text
    assert "of at most 0.25" in cause.text


ERASING = """
k    = W_k @ x[t{}] + b_k
n    = k / norm(k)
b    = sigmoid(dot(w_b, x[t]))
S[t] = S[t-1] @ (I - b * outer(n, n)) + outer(tanh(W_v @ x[t]), n)
h[t] = tanh(S[t] @ n)
"""


@pytest.mark.parametrize("lag", ["", "-1"])
def test_what_erases_is_neither_a_weight_nor_an_activation(lag: str) -> None:
    """Every W of it is multiplied by an input, also where that is an earlier one, and no function is on a way back."""
    cell = {"name": "own", "equations": ERASING.format(lag), "init": {"W_*": {"normal": 0.5}, "b_k": 0.5}}
    found = looked_at(cell, **{**SMALL, "seq_len": 30, "loss": {"kind": "sum", "at": "last"}})
    rates, cause = rates_of(found), main_cause(found)
    np.testing.assert_allclose(rates.weights[1:], 0.0, atol=1e-12)
    np.testing.assert_allclose(rates.activations[1:], rates.total[1:], rtol=1e-9)
    assert cause.kind == "activations"
    assert cause.text.startswith("what a step does to S beside the direct route: both together leave a factor 0.")
    assert not found.spectral_norms


def test_one_step_has_no_rate_to_explain() -> None:
    cause = main_cause(looked_at("lstm", **{**SMALL, "seq_len": 1}))
    assert (cause.kind, cause.rate, cause.nats) == ("unclear", None, None)


def test_growth_has_a_cause_too() -> None:
    cause = main_cause(looked_at("rnn", **{**QUIET, "init": {"b_*": "zeros", "W_hh": {"orthogonal": {"gain": 1.05}}}}))
    assert cause.kind == "weights"
    assert "+0.049 nats a step in all" in cause.text


def test_no_cause_is_named_where_two_parts_do_as_much() -> None:
    fields = {**QUIET, "init": {"b_*": "zeros", "W_hh": {"orthogonal": {"gain": 0.25}}}, "activation": "sigmoid"}
    cause = main_cause(looked_at("rnn", **fields))
    assert cause.kind == "unclear"
    assert cause.text.startswith("no single factor accounts for it")


def test_a_forward_pass_that_overflows_has_no_gates() -> None:
    found = looked_at({"name": "e", "equations": "h[t] = exp(h[t-1] + W_xh @ x[t])"}, **SMALL)
    assert found.verdict is not None
    assert found.rates is None
