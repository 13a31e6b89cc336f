"""What is predicted at rest for every built-in cell, against Jacobians by PyTorch's autograd and closed forms."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from built_in_cells import at_sizes, parsed
from measured import loaded
from numpy.typing import NDArray

from gradcli import cells
from gradcli.diagnostics.predictions import Prediction, critical_gain, predict
from gradcli.prepare.build import Network, build

SIZES = {"hidden_size": 8, "input_size": 4, "seq_len": 5, "batch_size": 3, "trials": 1}
#: Where a state is a matrix: its Jacobian has the square of its entries.
FEWER_UNITS = 4


def network(cell: Any, **fields: object) -> Network:
    if isinstance(cell, str) and any(len(shape) > 1 for shape in at_sizes(cell).shapes.of_states.values()):
        fields = {"hidden_size": FEWER_UNITS, **fields}
    return build(loaded(cell, **{**SIZES, **fields}))


def predictions(cell: Any, **fields: object) -> dict[str, list[Prediction]]:
    found: dict[str, list[Prediction]] = {}
    for prediction in predict(network(cell, **fields).problem, 0):
        found.setdefault(prediction.name, []).append(prediction)
    return found


def jacobian(net: Network, state: float) -> NDArray[np.float64]:
    """Return dS[1]/dS[0] without input, at states that are all the same number."""
    from redone import given
    from reference.equations import parse
    from reference.torch_jacobian import depths, full_state_jacobian

    cell, params, *_ = given(net, 0)
    shapes = net.problem.plans[0].cell.shapes.of_states
    depth = max(depths(parse(cell.equations)).values())
    history = {name: np.full((depth, *shape), state) for name, shape in shapes.items()}
    own = {name.removeprefix("layer0."): value for name, value in params.items()}
    return full_state_jacobian(cell, [own], np.zeros((1, net.problem.plans[0].cell.shapes.input_size)), history)


def normalises(name: str) -> bool:
    """Tell whether a cell divides by a deviation that there is none of at rest; ReBased has one of its input alone."""
    text = cells.load(name).cell.equations
    return ("layer_norm" in text or "batch_norm" in text) and name != "rebased"


BIASED = [name for name in cells.names() if any(each.startswith("b_") for each in parsed(name).parameters)]
#: There is |n . q| beside a larger number: its kink is none of the cell's, but is not told from one.
WITH_A_HIDDEN_KINK = ("matrix-lstm", "matrix-lstm-exp")


@pytest.mark.torch
@pytest.mark.parametrize(
    ("name", "init"), [*((name, {}) for name in cells.names()), *((name, {"b_*": 0.7}) for name in BIASED)]
)
def test_the_rate_at_rest_is_right_or_absent(name: str, init: dict[str, float]) -> None:
    fields = {"init": init} if init else {}
    found, net = predictions(name, **fields), network(name, **fields)
    if not net.problem.tied or normalises(name):
        assert not found.keys() & {"rest", "active"}
        return
    at_rest = jacobian(net, 0.0)
    if "rest" in found:
        radius = np.abs(np.linalg.eigvals(at_rest)).max()
        assert found["rest"][0].rate_per_step == pytest.approx(radius, rel=1e-9, abs=1e-12)
        return
    # Absent: at a kink, where the two sides differ; or nothing at all passes without input.
    above, below = jacobian(net, 1e-9), jacobian(net, -1e-9)
    assert np.abs(above - below).max() > 1e-3 or not at_rest.any() or name in WITH_A_HIDDEN_KINK
    if "active" in found:
        assert np.count_nonzero(above) == np.count_nonzero(np.diagonal(above))
        assert found["active"][0].rate_per_step == pytest.approx(np.diagonal(above).max(), rel=1e-6)


@pytest.mark.parametrize("name", ["irnn", "indrnn"])
def test_units_that_are_on_keep_the_gradient(name: str) -> None:
    found = predictions(name, params={"W_hh": np.eye(8).tolist()} if name == "irnn" else {})
    assert "rest" not in found
    assert 0.9 < found["active"][0].rate_per_step <= 1.0


def test_a_relu_network_of_mixed_weights_has_no_rate_at_its_kink() -> None:
    assert predictions("rnn", activation="relu", init={"b_h": 0.0}).keys() == set()
    assert critical_gain(network("rnn", activation="relu", init={"b_h": 0.0}).problem, 0) is None
    # With biases there is no kink at rest: half of the units are on.
    assert "rest" in predictions("rnn", activation="relu", init={"b_h": {"normal": 1.0}})


def test_a_rotating_state_has_its_modulus() -> None:
    (route,) = predictions("lru")["gates"]
    r = np.exp(-np.exp(network("lru").problem.parameters[0]["nu_log"][0]))
    assert route.state == "(re, im)"
    assert route.spread == pytest.approx((r.min(), r.max()), rel=1e-9)
    assert route.rate_per_step == pytest.approx(r.max(), rel=1e-9)
    assert 0.9 < r.min() < r.max() < 0.999


def test_the_slowest_units_rule() -> None:
    """slstm: f = sigmoid(b_f), b_f from 5 down; rwkv: fade = exp(-exp(w_log)), w_log from -5 up."""
    slowest = {route.state: route.rate_per_step for route in predictions("slstm")["gates"]}
    assert slowest == pytest.approx({"c": 1 / (1 + math.exp(-5)), "n": 1 / (1 + math.exp(-5))}, rel=1e-9)
    slowest = {route.state: route.rate_per_step for route in predictions("rwkv")["gates"]}
    assert slowest == pytest.approx({"n": math.exp(-math.exp(-5)), "d": math.exp(-math.exp(-5))}, rel=1e-9)
    assert 1 / (1 - slowest["n"]) == pytest.approx(149, abs=1)
