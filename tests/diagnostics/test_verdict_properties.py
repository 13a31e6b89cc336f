"""What holds for the verdict on every curve."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from known_curves import (
    ZERO,
    verdict_of,
)

from gradcli.diagnostics.verdict import Verdict

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
        assert horizon == (math.floor(crossing) + 1 if crossing + 1 < seq_len else None)
    if verdict.pattern == "exponential" and log10_rate < 0:
        assert verdict.half_life == pytest.approx(-math.log10(2) / log10_rate, rel=1e-6)
    else:
        assert verdict.half_life is None


@given(curves)
@settings(max_examples=300, deadline=None)
def test_any_curve_gets_a_finite_verdict(curve: np.ndarray) -> None:
    verdict = verdict_of(curve)
    assert all(math.isfinite(value) for value in numbers(verdict))
    assert verdict.headline
    assert verdict.reason
    assert not any(
        word in f"{verdict.left} {verdict.headline} {verdict.detail} {verdict.reason}"
        for word in ("nan", "inf", "None")
    )


@given(curves)
@settings(max_examples=300, deadline=None)
def test_kind_agrees_with_the_landmarks(curve: np.ndarray) -> None:
    verdict, last = verdict_of(curve), curve.size - 1
    nonzero = np.flatnonzero(curve > ZERO)
    assert (verdict.kind == "dead") == (verdict.zero_from is not None)
    if not nonzero.size:
        return
    reference = int(nonzero[min(1, nonzero.size - 1)])
    ratio = curve - curve[reference]
    if verdict.kind == "vanishing":
        assert verdict.horizon_threshold is not None
    if verdict.kind == "stable":
        assert verdict.horizon_threshold is None
        assert verdict.peak_log10_ratio < 3
    if verdict.kind == "exploding":
        assert verdict.horizon_threshold is None
        assert verdict.peak_log10_ratio >= 3 - 1e-9
    if verdict.forecast is not None:
        assert verdict.kind in ("stable", "transient")
        assert verdict.forecast > last
    if verdict.halved_at is None:
        assert np.all(ratio[reference:] > math.log10(0.5) - 1e-8)
    else:
        assert ratio[verdict.halved_at] <= math.log10(0.5) + 1e-8
        assert np.all(ratio[reference : verdict.halved_at] > math.log10(0.5) - 1e-8)
    assert verdict.peak_log10_ratio == pytest.approx(ratio[reference:].max(), abs=1e-8)
    if verdict.horizon_threshold is not None and nonzero.size > 1:
        assert reference <= verdict.horizon_threshold < last
        assert ratio[verdict.horizon_threshold] >= -3 - 1e-8
        assert np.all(ratio[verdict.horizon_threshold + 1 :] < -3 + 1e-8)
