"""Verdicts on curves whose closed form is known, and on everything else a curve may be."""

from __future__ import annotations

import dataclasses
import doctest
import math
import time
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from gradcli.diagnostics import verdict as verdict_module
from gradcli.diagnostics.verdict import Verdict, judge, judge_backward_overflow, judge_overflow

ZERO = -np.inf


def verdict_of(curve: Any, vanishing: float = 1e-3, exploding: float = 1e3) -> Verdict:
    return judge(np.asarray(curve, dtype=float), vanishing=vanishing, exploding=exploding)


# --- curves in closed form: log10 of the ratio at d = 0..T ---


def power_of(w: float, seq_len: int) -> np.ndarray:
    """h_t = w h_(t-1): r_d = w**d."""
    return np.arange(seq_len + 1) * math.log10(w)


def critical_tanh(seq_len: int) -> np.ndarray:
    """h_t = tanh(h_(t-1)), h_0 = 0.5: the curve is the product of the last d derivatives 1 - h_t**2."""
    h, derivatives = 0.5, []
    for _ in range(seq_len):
        h = math.tanh(h)
        derivatives.append(math.log10(1 - h * h))
    return np.concatenate([[0.0], np.cumsum(derivatives[::-1])])


def orthogonal_tanh(seq_len: int, size: int = 64) -> np.ndarray:
    """h_t = tanh(Q h_(t-1)) with Q orthogonal, without input."""
    rng = np.random.default_rng(0)
    weights = np.linalg.qr(rng.normal(size=(size, size)))[0]
    h, derivatives = rng.normal(size=size), []
    for _ in range(seq_len):
        h = np.tanh(weights @ h)
        derivatives.append(1 - h * h)
    gradient = rng.normal(size=size)
    norms = [np.linalg.norm(gradient)]
    for derivative in reversed(derivatives):
        gradient = weights.T @ (derivative * gradient)
        norms.append(np.linalg.norm(gradient))
    return np.log10(norms)


def jordan_block(seq_len: int) -> np.ndarray:
    """The spectral norm of [[.9, 1], [0, .9]]**d: rises to 3.91 at d = 9, then falls as d 0.9**d."""
    d = np.arange(seq_len + 1.0)
    a, b = 0.9**d, d * 0.9 ** (d - 1)
    return 0.5 * np.log10((2 * a**2 + b**2 + b * np.sqrt(b**2 + 4 * a**2)) / 2)


def two_layers(seq_len: int) -> np.ndarray:
    """Two stacked linear layers, a1 = .9 and a2 = .5: the gradient of layer 1, relative to its 0.9 at k = 1."""
    k = np.arange(1, seq_len + 2.0)
    return np.log10((0.9**k - 0.5**k) / 0.4)


def rotation(rate: float, seq_len: int) -> np.ndarray:
    """One coordinate of a spiral: a complex pair's oscillation on top of rate**d."""
    d = np.arange(seq_len + 1)
    return d * math.log10(rate) + np.log10(np.abs(np.cos(0.3 * d)) + 0.05)


def noisy(rate: float, seq_len: int, size: int, seed: int) -> np.ndarray:
    """rate**d with a log-normal spread sqrt(d / size), as products of random matrices have."""
    steps = np.random.default_rng(seed).normal(math.log(rate), 1 / math.sqrt(size), size=seq_len)
    return np.concatenate([[0.0], np.cumsum(steps)]) / math.log(10)


DISTANCE = np.arange(101)


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
        {"kind": "vanishing", "pattern": "exponential", "horizon_threshold": 9, "horizon_float32": 23},
        {"rate_per_step": 0.5, "half_life": 1.0},
    ),
    Case(
        "0.9: known answer 1",
        power_of(0.9, 100),
        {"kind": "vanishing", "pattern": "exponential", "horizon_threshold": 65, "horizon_float32": None},
        {"rate_per_step": 0.9, "half_life": math.log(0.5) / math.log(0.9)},
    ),
    Case(
        "0.1 meets the threshold exactly",
        power_of(0.1, 10),
        {"kind": "vanishing", "horizon_threshold": 3, "horizon_float32": 6},
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
        {"kind": "vanishing", "pattern": "exponential", "horizon_threshold": 69074},
        {"rate_per_step": 0.9999},
    ),
    Case(
        "orthogonal linear: known answer 2",
        power_of(1.0, 1000),
        {"kind": "stable", "pattern": "flat", "half_life": None, "peak_distance": 0, "horizon_threshold": None},
        {"rate_per_step": 1.0},
    ),
    Case(
        "2.0",
        power_of(2.0, 100),
        {"kind": "exploding", "pattern": "exponential", "half_life": None, "peak_distance": 100},
        {"rate_per_step": 2.0, "peak_log10_ratio": 100 * math.log10(2)},
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
        {"kind": "transient", "pattern": "exponential", "peak_distance": 9, "horizon_threshold": 111},
        {"peak_log10_ratio": math.log10(3.9125670784), "rate_per_step": 0.9},
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
        {"kind": "dead", "pattern": "exponential", "zero_from": 41, "horizon_threshold": 19},
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
        {"kind": "vanishing", "pattern": "exponential", "horizon_threshold": 22},
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
        {"exponent": -1.5, "half_life": 1000 * (1 - 0.5 ** (2 / 3))},
        tolerance=0.03,
    ),
    Case(
        "critical tanh, T = 10,000",
        critical_tanh(10_000),
        {"kind": "vanishing", "pattern": "polynomial", "exponent_from": "beginning"},
        {"exponent": -1.5, "half_life": 10_000 * (1 - 0.5 ** (2 / 3)), "horizon_threshold": 9900},
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
        {"kind": "stable", "pattern": "polynomial", "exponent_from": "end", "half_life": 3.0},
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
        {"kind": "vanishing", "pattern": "mixed", "exponent": None, "horizon_threshold": 9},
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
        "a deep drop, then level",
        np.concatenate([[0, -2], np.full(50, -4.0)]),
        {"kind": "vanishing", "pattern": "flat", "half_life": None, "horizon_threshold": 1},
    ),
    Case(
        "one step down",
        np.concatenate([np.zeros(50), np.full(51, -4.0)]),
        {"kind": "vanishing", "pattern": "mixed", "half_life": 50.0, "horizon_threshold": 49},
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
        {"kind": "transient", "peak_distance": 4, "peak_log10_ratio": 5.0},
    ),
    Case(
        "up past the threshold and hardly back",
        np.array([0, 0.5, 1, 1.5, 2, 2.5, 3.1, 2.9]),
        {"kind": "exploding", "peak_distance": 6},
    ),
    Case(
        "no gradient at the last two steps",
        np.concatenate([[ZERO, ZERO], power_of(0.9, 98)]),
        {"kind": "vanishing", "pattern": "exponential", "peak_distance": 2, "horizon_threshold": 67},
        {"rate_per_step": 0.9},
    ),
    Case("one step", power_of(0.5, 1), {"kind": "stable", "pattern": "mixed"}, {"rate_per_step": 0.5}),
    Case("two steps", power_of(0.5, 2), {"kind": "stable", "pattern": "exponential"}, {"rate_per_step": 0.5}),
    Case("three steps", power_of(1e-2, 3), {"kind": "vanishing", "horizon_threshold": 1}, {"rate_per_step": 1e-2}),
    Case("five steps", power_of(2.0, 5), {"kind": "stable", "pattern": "exponential"}, {"rate_per_step": 2.0}),
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

WORDS = [
    (
        power_of(0.69, 100),
        "falls by a factor 0.69 a step (half-life 1.9 steps), exponentially",
        "below 1e-3 of its start from 19 steps back, below float32's precision from 43; at 100 steps 10^-16.1",
    ),
    (
        power_of(0.98, 20),
        "falls by a factor 0.98 a step (half-life 34 steps), exponentially; at this rate below 1e-3 from 342 steps "
        "back, beyond this sequence",
        "at 20 steps 0.67 of its start",
    ),
    (
        power_of(2.0, 5),
        "grows by a factor 2 a step (doubling every 1 step), exponentially; at this rate above 1e3 from 10 steps back, "
        "beyond this sequence",
        "at 5 steps 32 times its start",
    ),
    (
        power_of(2.0, 100),
        "grows by a factor 2 a step (doubling every 1 step), exponentially",
        "above 1e3 times its start from 10 steps back; at 100 steps 10^30.1",
    ),
    (power_of(0.9999, 100), "stays level (a factor 0.9999 a step)", "at 100 steps 0.99 of its start"),
    (power_of(1.0, 100), "stays level (a factor 1 a step)", "at 100 steps equal to its start"),
    (
        jordan_block(10),
        "rises to 3.9 times its start at 9 steps back; the growth is slowing",
        "at 10 steps 3.9 times its start",
    ),
    (
        jordan_block(300),
        "rises to 3.9 times its start at 9 steps back, then falls by a factor 0.904 a step (half-life 6.9 steps), "
        "exponentially",
        "below 1e-3 of its start from 112 steps back, below float32's precision from 203; at 300 steps 10^-11.2",
    ),
    (
        critical_tanh(1000),
        "falls polynomially, as (steps since the beginning)^1.5 (half of its start after 373 steps): slowly near the "
        "last step, steeply near the first",
        "below 1e-3 of its start from 996 steps back; at 1000 steps 10^-3.3",
    ),
    (
        -0.5 * np.log10(DISTANCE + 1),
        "falls polynomially, as distance^-0.5 (half of its start after 3 steps): at an ever lower rate",
        "at 100 steps 0.1 of its start",
    ),
    (
        np.array([0, 0, 0, 0, ZERO, ZERO]),
        "is exactly zero from 4 steps back; until then it stays level (a factor 1 a step)",
        "the gradient reaches 3 steps back and no further",
    ),
    (
        np.concatenate([[0, -0.5], np.full(50, -1.0)]),
        "falls to 0.1 of its start within 2 steps, then stays level (a factor 1 a step)",
        "at 51 steps 0.1 of its start",
    ),
    (
        np.concatenate([np.zeros(50), np.full(51, -4.0)]),
        "falls in one step, by a factor 10^-4 between 49 and 50 steps back",
        "below 1e-3 of its start from 50 steps back; at 100 steps 10^-4",
    ),
    (
        power_of(0.5, 1),
        "falls by a factor 0.5 a step, over too few steps to tell a pattern",
        "at 1 step 0.5 of its start",
    ),
    (
        np.array([0, -1, -5, -2, -1, 0, 0, 0, 0, 0]),
        None,
        "down to 10^-5 at 2 steps back, but recovers; at 9 steps equal to its start",
    ),
    (
        np.concatenate([[ZERO, ZERO], power_of(0.9, 98)]),
        "falls by a factor 0.9 a step (half-life 6.6 steps), exponentially",
        "below 1e-3 of its start from 68 steps back; at 100 steps 10^-4.5; its start is 2 steps back, the first "
        "distance with a gradient",
    ),
]


@pytest.mark.parametrize(("curve", "headline", "detail"), WORDS)
def test_words_carry_the_numbers(curve: np.ndarray, headline: str | None, detail: str) -> None:
    verdict = verdict_of(curve)
    assert verdict.detail == detail
    if headline is not None:
        assert verdict.headline == headline


def test_growth_that_ends_on_a_low_note_has_not_turned() -> None:
    curve = power_of(1.2, 60)
    curve[-3:] = curve[-4] - 0.2
    assert verdict_of(curve).headline.startswith("grows by a factor 1.19 a step")


def test_reason_names_threshold_and_distance() -> None:
    assert verdict_of(power_of(0.69, 100)).reason == (
        "The gradient norm falls below 1e-3 of its value at distance 0 after distance 18 and stays below to the "
        "beginning of the sequence."
    )
    assert "threshold 20" in verdict_of(power_of(2.0, 10), exploding=20).reason


def test_thresholds_decide_the_kind() -> None:
    curve = power_of(0.9, 20)
    assert verdict_of(curve).kind == "stable"
    assert verdict_of(curve, vanishing=0.2).kind == "vanishing"
    assert verdict_of(curve, vanishing=0.2).horizon_threshold == 15
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


def test_a_million_steps_are_quick() -> None:
    curve = power_of(0.999, 1_000_000)
    start = time.perf_counter()
    verdict = verdict_of(curve)
    assert time.perf_counter() - start < 1.0  # 0.02 s on an idle machine; the bound only catches a slow algorithm
    assert verdict.rate_per_step == pytest.approx(0.999, rel=1e-9)


# --- properties ---

grid = st.one_of(st.just(ZERO), st.integers(-20 * 1024, 20 * 1024).map(lambda n: n / 1024))
curves = st.one_of(
    hnp.arrays(float, st.integers(1, 40), elements=grid),
    hnp.arrays(float, st.integers(1, 40), elements=st.one_of(st.just(ZERO), st.floats(-1e7, 1e7))),
)


def numbers(verdict: Verdict) -> list[float]:
    return [value for value in dataclasses.asdict(verdict).values() if isinstance(value, int | float)]


@given(hnp.arrays(float, st.integers(1, 40), elements=grid), st.integers(-1000, 1000))
@settings(deadline=None)
def test_the_scale_of_the_norm_does_not_matter(curve: np.ndarray, shift: int) -> None:
    # Multiples of 1/1024 plus an integer are exact, so that nothing at all may change.
    assert verdict_of(curve + shift) == verdict_of(curve)


@given(st.floats(-6, 6), st.integers(5, 3000))
@settings(deadline=None)
def test_exponentials_are_recovered(log10_rate: float, seq_len: int) -> None:
    verdict = verdict_of(np.arange(seq_len + 1) * log10_rate)
    assert verdict.pattern in ("exponential", "flat")
    assert verdict.rate_per_step == pytest.approx(10**log10_rate, rel=1e-6)
    for horizon, threshold in ((verdict.horizon_threshold, 1e-3), (verdict.horizon_float32, 2.0**-23)):
        crossing = math.log10(threshold) / log10_rate if log10_rate < 0 else math.inf
        assume(math.isinf(crossing) or abs(crossing - round(crossing)) > 1e-6)
        assert horizon == (math.floor(crossing) if crossing < seq_len else None)
    if verdict.pattern == "exponential" and log10_rate < 0:
        assert verdict.half_life == pytest.approx(-math.log10(2) / log10_rate, rel=1e-6)
    else:
        assert verdict.half_life is None


@given(curves)
@settings(max_examples=300, deadline=None)
def test_any_curve_gets_a_finite_verdict(curve: np.ndarray) -> None:
    verdict = verdict_of(curve)
    assert all(math.isfinite(value) for value in numbers(verdict))
    assert all((verdict.headline, verdict.detail, verdict.reason))
    assert not any(word in f"{verdict.headline} {verdict.detail} {verdict.reason}" for word in ("nan", "inf", "None"))


@given(curves)
@settings(max_examples=300, deadline=None)
def test_kind_agrees_with_the_landmarks(curve: np.ndarray) -> None:
    verdict, last = verdict_of(curve), curve.size - 1
    assert (verdict.kind == "dead") == (verdict.zero_from is not None)
    if verdict.kind == "vanishing":
        assert verdict.horizon_threshold is not None
    if verdict.kind == "stable":
        assert verdict.horizon_threshold is None
        assert verdict.peak_log10_ratio < 3
    if verdict.kind == "exploding":
        assert verdict.horizon_threshold is None
        assert verdict.peak_log10_ratio >= 3 - 1e-9
    if verdict.horizon_threshold is not None and verdict.zero_from != 0:
        reference = int(np.flatnonzero(curve > ZERO)[0])
        ratio = curve - curve[reference]
        assert reference <= verdict.horizon_threshold < last
        assert ratio[verdict.horizon_threshold] >= -3 - 1e-8
        assert np.all(ratio[verdict.horizon_threshold + 1 :] < -3 + 1e-8)
