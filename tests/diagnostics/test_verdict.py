"""Verdicts on curves whose closed form is known."""

from __future__ import annotations

import dataclasses
import doctest
import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
from known_curves import (
    DISTANCE,
    ZERO,
    critical_tanh,
    jordan_block,
    noisy,
    orthogonal_tanh,
    power_of,
    rotation,
    two_layers,
    verdict_of,
)

from gradcli.diagnostics import verdict as verdict_module
from gradcli.diagnostics.verdict import judge_backward_overflow, judge_overflow


@dataclass(frozen=True)
class Case:
    """A curve and what must be said of it; `close` holds fields to compare within `tolerance`."""

    name: str
    curve: np.ndarray
    exact: dict[str, Any]
    close: dict[str, float] = field(default_factory=dict)
    tolerance: float = 1e-9


CASES = [
    Case(
        "0.5 over 100,000 steps",
        power_of(0.5, 100_000),
        {"kind": "vanishing", "pattern": "exponential", "horizon_threshold": 10, "horizon_float32": 24, "halved_at": 2},
        {"rate_per_step": 0.5, "half_life": 1.0},
    ),
    Case(
        "0.9: known answer 1",
        power_of(0.9, 100),
        {
            "kind": "vanishing",
            "pattern": "exponential",
            "horizon_threshold": 66,
            "horizon_float32": None,
            "forecast": None,
        },
        {"rate_per_step": 0.9, "half_life": math.log(0.5) / math.log(0.9)},
    ),
    Case(
        "0.1 meets the threshold exactly",
        power_of(0.1, 10),
        {"kind": "vanishing", "horizon_threshold": 4, "horizon_float32": 7},
    ),
    Case(
        "0.999",
        power_of(0.999, 100),
        {"kind": "stable", "pattern": "exponential", "horizon_threshold": None},
        {"rate_per_step": 0.999, "half_life": math.log(0.5) / math.log(0.999)},
    ),
    Case(
        "0.9999 is level over 100 steps",
        power_of(0.9999, 100),
        {"kind": "stable", "pattern": "flat", "half_life": None, "horizon_threshold": None},
        {"rate_per_step": 0.9999},
    ),
    Case(
        "0.9999 is not level over 100,000 steps",
        power_of(0.9999, 100_000),
        {"kind": "vanishing", "pattern": "exponential", "horizon_threshold": 69075},
        {"rate_per_step": 0.9999},
    ),
    Case(
        "orthogonal linear: known answer 2",
        power_of(1.0, 1000),
        {"kind": "stable", "pattern": "flat", "half_life": None, "peak_distance": 1, "horizon_threshold": None},
        {"rate_per_step": 1.0},
    ),
    Case(
        "2.0",
        power_of(2.0, 100),
        {"kind": "exploding", "pattern": "exponential", "half_life": None, "peak_distance": 100},
        {"rate_per_step": 2.0, "peak_log10_ratio": 99 * math.log10(2), "first_step_log10_ratio": math.log10(2)},
    ),
    Case(
        "1.1 Q over 50 steps: known answer 3",
        power_of(1.1, 50),
        {"kind": "stable", "pattern": "exponential", "half_life": None},
        {"rate_per_step": 1.1},
    ),
    Case(
        "diag(1.1, 0.5): known answer 5",
        0.5 * np.log10((1.1 ** (2.0 * DISTANCE) + 0.25**DISTANCE) / 2),
        {"kind": "exploding", "pattern": "exponential"},
        {"rate_per_step": 1.1},
    ),
    Case(
        "Jordan block over 300 steps: known answer 6",
        jordan_block(300),
        {"kind": "transient", "pattern": "exponential", "peak_distance": 9, "horizon_threshold": 106},
        {"peak_log10_ratio": math.log10(3.9125670784 / 1.5295630141), "rate_per_step": 0.9},
        tolerance=0.005,
    ),
    Case(
        "Jordan block over 100 steps",
        jordan_block(100),
        {"kind": "transient", "pattern": "exponential", "peak_distance": 9, "horizon_threshold": None},
        {"rate_per_step": 0.9},
        tolerance=0.015,
    ),
    Case(
        "Jordan block over 50 steps",
        jordan_block(50),
        {"kind": "transient", "pattern": "exponential", "peak_distance": 9},
        {"rate_per_step": 0.9},
        tolerance=0.03,
    ),
    Case("Jordan block at its peak", jordan_block(10), {"kind": "stable", "pattern": "mixed", "peak_distance": 9}),
    Case(
        "nilpotent shift: known answer 7",
        np.array([0, 0, 0, 0, ZERO, ZERO]),
        {"kind": "dead", "pattern": "flat", "zero_from": 4, "horizon_threshold": 3, "horizon_float32": 3},
    ),
    Case(
        "a decay that dies",
        np.concatenate([power_of(0.7, 40), [ZERO] * 60]),
        {"kind": "dead", "pattern": "exponential", "zero_from": 41, "horizon_threshold": 20},
        {"rate_per_step": 0.7, "half_life": math.log(0.5) / math.log(0.7)},
    ),
    Case(
        "all zero",
        np.full(11, ZERO),
        {"kind": "dead", "zero_from": 0, "rate_per_step": None, "half_life": None, "horizon_threshold": 0},
    ),
    Case(
        "LSTM with forget bias 1: known answer 17",
        power_of(0.7310585786300049, 100),
        {"kind": "vanishing", "pattern": "exponential", "horizon_threshold": 23},
        {"rate_per_step": 0.7310585786, "half_life": 2.212678},
        tolerance=1e-6,
    ),
    Case(
        "LSTM with forget bias 1 and W_hg = I: known answer 20",
        power_of(0.9810585786, 100),
        {"kind": "stable", "pattern": "exponential", "horizon_threshold": None},
        {"rate_per_step": math.exp(-0.0191230), "half_life": 36.2465},
        tolerance=1e-5,
    ),
    Case(
        "LSTM with chrono forget bias: known answer 21",
        power_of(1 - 1 / 100, 100),
        {"kind": "stable", "pattern": "exponential"},
        {"rate_per_step": 0.99},
    ),
    Case(
        "GRU with a saturated update gate: known answer 22",
        power_of(0.9999546021, 100),
        {"kind": "stable", "pattern": "flat", "half_life": None},
        {"rate_per_step": 0.9999546021},
    ),
    Case(
        "two stacked layers over 100 steps: known answer 26",
        two_layers(100),
        {"kind": "vanishing", "pattern": "exponential", "peak_distance": 2},
        {"rate_per_step": 0.9},
        tolerance=1e-6,
    ),
    Case("two stacked layers over 4 steps", two_layers(4), {"kind": "stable"}),
    Case(
        "two stacked layers over 19 steps",
        two_layers(19),
        {"kind": "stable", "pattern": "exponential"},
        {"rate_per_step": 0.9},
        tolerance=0.01,
    ),
    Case(
        "critical tanh, T = 100: known answer 12",
        critical_tanh(100),
        {"kind": "stable", "pattern": "polynomial", "exponent_from": "beginning", "horizon_threshold": None},
        {"exponent": -1.5},
        tolerance=0.03,
    ),
    Case(
        "critical tanh, T = 1000",
        critical_tanh(1000),
        {"kind": "vanishing", "pattern": "polynomial", "exponent_from": "beginning", "horizon_threshold": 995},
        {"exponent": -1.5, "halved_at": 1000 * (1 - 0.5 ** (2 / 3))},
        tolerance=0.03,
    ),
    Case(
        "critical tanh, T = 10,000",
        critical_tanh(10_000),
        {"kind": "vanishing", "pattern": "polynomial", "exponent_from": "beginning"},
        {"exponent": -1.5, "halved_at": 10_000 * (1 - 0.5 ** (2 / 3)), "horizon_threshold": 9900},
        tolerance=0.01,
    ),
    Case(
        "orthogonal tanh at gain 1: known answer 47",
        orthogonal_tanh(3000),
        {"kind": "stable", "pattern": "polynomial", "exponent_from": "beginning"},
        {"exponent": -0.5},
        tolerance=0.06,
    ),
    Case(
        "circular law, 1/sqrt(k + 1)",
        -0.5 * np.log10(DISTANCE + 1),
        {"kind": "stable", "pattern": "polynomial", "exponent_from": "end", "halved_at": 7},
        {"exponent": -0.5},
    ),
    Case(
        "Jordan block of eigenvalue 1 grows polynomially",
        np.log10(DISTANCE + 1),
        {"kind": "stable", "pattern": "polynomial", "exponent_from": "end", "half_life": None},
        {"exponent": 1.0},
    ),
    Case(
        "between exponential and polynomial",
        -np.sqrt(DISTANCE),
        {"kind": "vanishing", "pattern": "mixed", "exponent": None, "horizon_threshold": 16},
    ),
    Case(
        "0.9 a step, then 0.97 a step",
        np.concatenate([power_of(0.9, 50), power_of(0.9, 50)[-1] + power_of(0.97, 50)[1:]]),
        {"kind": "stable", "pattern": "mixed", "exponent": None, "horizon_threshold": None},
    ),
    Case(
        "complex pair",
        rotation(0.9, 100),
        {"kind": "vanishing", "pattern": "exponential"},
        {"rate_per_step": 0.9},
        tolerance=2e-3,
    ),
    Case(
        "a drop, then level",
        np.concatenate([[0, -0.5], np.full(50, -1.0)]),
        {"kind": "stable", "pattern": "flat", "half_life": None},
        {"rate_per_step": 1.0},
    ),
    Case(
        "a deep drop of the read-out, then level",
        np.concatenate([[0], np.full(50, -4.0)]),
        {"kind": "stable", "pattern": "flat", "half_life": None, "horizon_threshold": None},
        {"first_step_log10_ratio": -4.0, "rate_per_step": 1.0},
    ),
    Case(
        "a deep drop, then level",
        np.concatenate([[0, 0, -2], np.full(50, -4.0)]),
        {"kind": "vanishing", "pattern": "flat", "half_life": None, "horizon_threshold": 2},
    ),
    Case(
        "one step down",
        np.concatenate([np.zeros(50), np.full(51, -4.0)]),
        {"kind": "vanishing", "pattern": "mixed", "halved_at": 50, "horizon_threshold": 49},
    ),
    Case(
        "loss at every step: a sum that saturates",
        np.log10((1 - 0.9 ** (DISTANCE + 1)) / 0.1),
        {"kind": "stable", "pattern": "flat", "half_life": None},
    ),
    Case(
        "a dip that recovers is no horizon",
        np.array([0, -1, -5, -2, -1, 0, 0, 0, 0, 0]),
        {"kind": "stable", "horizon_threshold": None, "horizon_float32": None},
    ),
    Case(
        "up past the threshold and back",
        np.array([0, 1, 2, 4, 5, 4, 3, 2, 1, 1]),
        {"kind": "transient", "peak_distance": 4, "peak_log10_ratio": 4.0},
    ),
    Case(
        "up past the threshold and hardly back",
        np.array([0, 0, 0.5, 1, 1.5, 2, 2.5, 3.1, 2.9]),
        {"kind": "exploding", "peak_distance": 7},
    ),
    Case(
        "no gradient at the last two steps",
        np.concatenate([[ZERO, ZERO], power_of(0.9, 98)]),
        {"kind": "vanishing", "pattern": "exponential", "peak_distance": 3, "horizon_threshold": 68},
        {"rate_per_step": 0.9},
    ),
    Case(
        "one step",
        power_of(0.5, 1),
        {"kind": "stable", "rate_per_step": None},
        {"first_step_log10_ratio": math.log10(0.5)},
    ),
    Case("two steps", power_of(0.5, 2), {"kind": "stable", "pattern": "mixed"}, {"rate_per_step": 0.5}),
    Case("three steps", power_of(0.5, 3), {"kind": "stable", "pattern": "exponential"}, {"rate_per_step": 0.5}),
    Case("four steps", power_of(1e-2, 4), {"kind": "vanishing", "horizon_threshold": 2}, {"rate_per_step": 1e-2}),
    Case("five steps", power_of(2.0, 5), {"kind": "stable", "pattern": "exponential"}, {"rate_per_step": 2.0}),
    Case(
        "half a step, then nothing",
        np.array([0, ZERO, ZERO]),
        {"kind": "dead", "zero_from": 1, "horizon_threshold": 0, "rate_per_step": None, "halved_at": 1},
    ),
    *(
        Case(
            f"every other step, T = {steps}",
            np.where(np.arange(steps + 1) % 2, 0.0, -5.0) + np.arange(steps + 1) * rate,
            {"kind": kind},
        )
        for steps in (40, 41)
        for rate, kind in ((0.0, "stable"), (-0.07, "stable"), (-0.5, "vanishing"))
    ),
    *(
        Case(f"{low} and {high} in turn, T = {steps}", np.array([low, high] * 50)[: steps + 1], {"kind": kind})
        for steps in (60, 61)
        for low, high, kind in ((0.0, -2.0, "stable"), (0.0, 4.0, "stable"), (ZERO, 0.0, "stable"))
    ),
    Case("one distance", np.zeros(1), {"kind": "stable", "rate_per_step": None, "half_life": None}),
]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_known_curves(case: Case) -> None:
    verdict = verdict_of(case.curve)
    found = dataclasses.asdict(verdict)
    assert {name: found[name] for name in case.exact} == case.exact
    for name, expected in case.close.items():
        assert found[name] == pytest.approx(expected, rel=case.tolerance), name


@pytest.mark.parametrize("rate", [0.8, 0.9, 1.1, 1.25])
def test_noise_does_not_hide_an_exponential(rate: float) -> None:
    verdicts = [verdict_of(noisy(rate, 200, 64, seed)) for seed in range(20)]
    assert {verdict.kind for verdict in verdicts} == {"vanishing" if rate < 1 else "exploding"}
    assert sum(verdict.pattern == "exponential" for verdict in verdicts) >= 18
    assert np.median([verdict.rate_per_step for verdict in verdicts]) == pytest.approx(rate, rel=0.02)


def test_noise_does_not_make_a_level_curve_polynomial() -> None:
    verdicts = [verdict_of(noisy(1.0, 100, 1000, seed)) for seed in range(30)]
    assert {verdict.kind for verdict in verdicts} == {"stable"}
    assert sum(verdict.pattern == "polynomial" for verdict in verdicts) <= 1


# --- words ---


def test_thresholds_decide_the_kind() -> None:
    curve = power_of(0.9, 20)
    assert verdict_of(curve).kind == "stable"
    assert verdict_of(curve, vanishing=0.2).kind == "vanishing"
    assert verdict_of(curve, vanishing=0.2).horizon_threshold == 16
    assert verdict_of(-curve, exploding=5).kind == "exploding"


def test_nonfinite_says_where() -> None:
    verdict = judge_overflow("step 17, layer0: c[t] = f * c[t-1]")
    assert verdict.kind == "nonfinite"
    assert "step 17, layer0: c[t] = f * c[t-1]" in verdict.headline
    assert verdict.rate_per_step is verdict.half_life is verdict.horizon_threshold is None


def test_a_derivative_that_is_not_finite_is_no_fault_of_the_forward_pass() -> None:
    verdict = judge_backward_overflow("step 17, layer0")
    assert verdict.kind == "nonfinite"
    assert verdict.headline == "a derivative is not finite at step 17, layer0"
    assert "overflow" not in verdict.detail + verdict.reason


@pytest.mark.parametrize("curve", [[], [0.0, np.nan], [0.0, np.inf], [[0.0, 1.0]]])
def test_refuses_what_is_no_curve(curve: list[Any]) -> None:
    with pytest.raises(ValueError, match="a gradient curve is"):
        verdict_of(curve)


def test_doctest() -> None:
    outcome = doctest.testmod(verdict_module)
    assert outcome.attempted > 0
    assert outcome.failed == 0


def test_a_million_steps() -> None:
    verdict = verdict_of(power_of(0.999, 1_000_000))
    assert verdict.rate_per_step == pytest.approx(0.999, rel=1e-9)
