"""Gradients that leave the range of floats: how blocks of steps are cut by it and where their mantissas start."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from engine_runs import ROUNDING, problem_of, recorded
from test_engine_properties import VARIED, assert_same, long_problem

from gradcli.engine import exponents
from gradcli.engine.backward import BackwardPass
from gradcli.engine.run import Engine
from gradcli.engine.scaled import NOTHING


@pytest.mark.parametrize(("dtype", "rounding"), [("float32", 1e-5), ("float64", ROUNDING)])
@pytest.mark.parametrize("name", VARIED)
def test_where_the_mantissas_of_a_block_start_changes_nothing(
    name: str, dtype: str, rounding: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    problem = replace(long_problem(name, seq_len=300), dtype=np.dtype(dtype))
    found = recorded(problem)
    monkeypatch.setattr(exponents, "_LEAD", {4: 0, 8: 250})
    assert_same(recorded(problem), found, within=rounding)


@pytest.mark.parametrize(("factor", "fewer"), [(0.5, 2.0), (1.0, 1.0), (2.0, 0.8)])
def test_blocks_that_start_far_above_one_are_fewer_where_gradients_fade(
    factor: float, fewer: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = {
        "cell": {"equations": "h[t] = x[t] * h[t-1]"},
        "hidden_size": 1,
        "seq_len": 1000,
        "loss": {"kind": "sum", "at": "last"},
    }
    x = np.full((1, 1000, 1, 1), factor)
    problem = replace(problem_of(spec, {"x": x, "state.layer0.h": np.zeros((1, 1001, 1, 1))}), dtype=np.dtype("f4"))
    blocks = []
    go_back = BackwardPass._go_back

    def counted(self: BackwardPass, n: int, *others: Any) -> Any:
        blocks.append(n)
        return go_back(self, n, *others)

    monkeypatch.setattr(BackwardPass, "_go_back", counted)
    found = Engine(problem).run().log2_norm["layer0.h"].ravel()
    np.testing.assert_array_equal(found, np.arange(1000, -1, -1) * np.log2(factor))
    far_above_one = len(blocks)
    blocks.clear()
    monkeypatch.setattr(exponents, "_LEAD", {4: 0, 8: 0})
    np.testing.assert_array_equal(Engine(problem).run().log2_norm["layer0.h"].ravel(), found)
    assert len(blocks) >= fewer * far_above_one


def test_a_block_in_which_gradients_leave_the_range_is_halved_until_it_fits() -> None:
    spec = {
        "cell": {"equations": "s[t] = 1e-60 * s[t-1]\nh[t] = 1e60 * h[t-1] + s[t-1]"},
        "hidden_size": 1,
        "seq_len": 40,
        "loss": {"kind": "sum", "at": "last"},
    }
    shape = (1, 41, 1, 1)
    start = {"x": np.zeros((1, 40, 1, 1)), "state.layer0.s": np.zeros(shape), "state.layer0.h": np.zeros(shape)}
    run = Engine(problem_of(spec, start), block=40).run()
    distance = np.arange(40, -1, -1)
    np.testing.assert_allclose(run.log2_norm["layer0.h"].ravel(), distance * np.log2(1e60), rtol=1e-14)


@pytest.mark.parametrize("block", [1, 2, 5, 24])
def test_single_steps_may_lead_out_of_the_range_of_floats_and_back(block: int) -> None:
    spec = {
        "cell": {"equations": "h[t] = x[t] * h[t-1]"},
        "hidden_size": 1,
        "seq_len": 24,
        "loss": {"kind": "sum", "at": "last"},
    }
    factors = np.ones(24)
    factors[[5, 6, 17, 18, 20]] = 1e-200, 1e-200, 1e200, 1e200, 1e-150
    x = factors[::-1].reshape(1, 24, 1, 1)
    start = {"x": x, "state.layer0.h": np.zeros((1, 25, 1, 1))}
    run = Engine(problem_of(spec, start), block=block).run()
    expected = np.concatenate([[0.0], np.cumsum(np.log2(factors))])[::-1]
    np.testing.assert_allclose(run.log2_norm["layer0.h"].ravel(), expected, atol=1e-9)


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("rate", [-3, -30])
def test_what_has_all_but_vanished_is_not_lost_where_the_loss_enters_again(rate: int, dtype: str) -> None:
    steps, at = 600, [1, 300, 600]
    spec = {
        "cell": {"equations": "h[t] = a * h[t-1]"},
        "hidden_size": 1,
        "seq_len": steps,
        "loss": {"kind": "sum", "at": at},
    }
    zeros = np.zeros((1, steps + 1, 1, 1))
    start = {"x": zeros[:, 1:], "state.layer0.h": zeros, "param.layer0.a": np.exp2([[rate]])}
    run = Engine(replace(problem_of(spec, start), dtype=np.dtype(dtype))).run()
    nearest = np.array([min(a for a in at if a >= t) for t in range(steps + 1)])
    expected = rate * (nearest - np.arange(steps + 1.0))  # what the other losses add is far below rounding
    np.testing.assert_allclose(run.log2_norm["layer0.h"].ravel(), expected, atol=1e-9)


@pytest.mark.parametrize(("dtype", "power"), [("float32", -100), ("float64", -600)])
def test_what_is_far_smaller_keeps_its_own_power_of_two_beside_what_passes_zeros_on(dtype: str, power: int) -> None:
    """dL/ds = 2**(2 power) at all steps but the last two: two steps pass it on, all others pass an exact zero."""
    steps = 300
    spec = {
        "cell": {"equations": "s[t] = s[t-1]\nu[t] = x[t] * s[t-1]\nh[t] = h[t-1] + x[t] * u[t-1]", "output": "h"},
        "hidden_size": 1,
        "seq_len": steps,
        "loss": {"kind": "sum", "at": "last"},
    }
    x = np.zeros((1, steps, 1, 1))
    x[:, -2:] = 2.0**power
    states = {f"state.layer0.{name}": np.zeros((1, steps + 1, 1, 1)) for name in "suh"}
    problem = replace(problem_of(spec, {"x": x, **states}), dtype=np.dtype(dtype))
    blocks = []
    found = Engine(problem).run(visit=lambda trials, visit: blocks.append(visit.steps)).log2_norm
    assert len(blocks) < 20, "not step by step"
    np.testing.assert_array_equal(found["layer0.h"].ravel(), np.zeros(steps + 1))
    expected = np.full(steps + 1, 2.0 * power)
    expected[-2:] = -np.inf
    np.testing.assert_array_equal(found["layer0.s"].ravel(), expected)


def test_what_is_zero_has_no_power_of_two() -> None:
    """Of s nothing reaches the loss: its adjoints are zeros, which no power of two may make look like something."""
    spec = {
        "cell": {"equations": "s[t] = s[t-1]\nh[t] = 0.5 * h[t-1] + 0.0 * s[t-1]", "output": "h"},
        "hidden_size": 1,
        "seq_len": 40,
        "loss": {"kind": "sum", "at": "last"},
    }
    start = {f"state.layer0.{name}": np.zeros((1, 41, 1, 1)) for name in "sh"} | {"x": np.zeros((1, 40, 1, 1))}
    problem = replace(problem_of(spec, start), dtype=np.dtype("float32"))
    frames, of_state = [], problem.plans[0].frames.of_state
    Engine(problem).run(visit=lambda trials, visit: frames.append(visit.blocks[0].adjoints.exponent))
    assert of_state["s"] != of_state["h"]
    assert {int(exponent[of_state["s"]].item()) for exponent in frames} == {NOTHING}
    assert all(exponent[of_state["h"]] > NOTHING for exponent in frames)
