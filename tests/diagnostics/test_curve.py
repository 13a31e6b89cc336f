"""The curve over trials and sequences: joined norms and quantiles, exact zeros among them."""

from __future__ import annotations

import doctest

import numpy as np
import pytest

from gradcli.diagnostics import curve as curve_module
from gradcli.diagnostics.curve import LOG10_2, Curve, curve_of, joined, quantiles


def test_joined_norms_are_those_of_the_joined_vectors() -> None:
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(2, 7, 3))
    found = joined([np.log2(np.linalg.norm(a, axis=1)), np.log2(np.linalg.norm(b, axis=1))])
    np.testing.assert_allclose(2.0**found, np.linalg.norm(np.hstack([a, b]), axis=1), rtol=1e-13)


def test_joining_stays_within_range() -> None:
    huge, tiny, zero = np.array([40_000.0]), np.array([-40_000.0]), np.array([-np.inf])
    assert joined([huge, tiny]) == huge
    assert joined([tiny, tiny]) == tiny + 0.5
    assert joined([tiny, zero]) == tiny
    assert joined([zero, zero]) == zero


@pytest.mark.parametrize("count", [1, 2, 3, 10, 11, 64])
def test_quantiles_are_numpys_linear_ones(count: int) -> None:
    values = np.random.default_rng(1).normal(size=(4, count))
    for q, found in zip((0.1, 0.5, 0.9), quantiles(values, (0.1, 0.5, 0.9)), strict=True):
        np.testing.assert_allclose(found, np.quantile(values, q, axis=1), rtol=1e-12, atol=1e-15)


def test_a_quantile_next_to_an_exact_zero_is_that_zero() -> None:
    values = np.array([[-np.inf, -np.inf, 1.0, 3.0], [-np.inf, 1.0, 3.0, 5.0]])
    assert quantiles(values, [0.5])[0].tolist() == [-np.inf, 2.0]


def test_a_curve_runs_from_the_last_step_back() -> None:
    # By step t: T + 1 = 3 steps, 1 trial, 2 sequences; the last step comes first.
    log2_norm = np.array([[[-8.0, -6.0]], [[-4.0, -2.0]], [[0.0, 0.0]]])
    found = curve_of(log2_norm)
    np.testing.assert_allclose(found.median / LOG10_2, [0.0, -3.0, -7.0])
    np.testing.assert_allclose(found.low / LOG10_2, [0.0, -3.8, -7.8])
    np.testing.assert_allclose(found.high / LOG10_2, [0.0, -2.2, -6.2])


def test_the_mean_is_that_of_the_norms_and_not_of_their_logarithms() -> None:
    log2_norm = np.array([[[0.0, 10.0, -np.inf, 2.0]], [[-3000.0, -3001.0, -np.inf, -np.inf]]])
    found = curve_of(log2_norm).mean / LOG10_2
    np.testing.assert_allclose(found, [-3000 + np.log2((1 + 0.5) / 4), np.log2((1 + 1024 + 4) / 4)], rtol=1e-14)
    assert np.isneginf(curve_of(np.full((2, 1, 3), -np.inf)).mean).all()


def test_the_mean_is_over_the_sequences_that_reach_a_distance() -> None:
    log2_norm = np.array([[[np.nan, 3.0]], [[1.0, 0.0]]])
    np.testing.assert_allclose(curve_of(log2_norm).mean / LOG10_2, [np.log2(1.5), 3.0], rtol=1e-14)


@pytest.mark.parametrize(
    ("mean", "reference"),
    [
        ([1.0, 2.0], 2.0),
        ([-np.inf, -np.inf, 2.0, 3.0], 3.0),
        ([1.0, -np.inf, 3.0], 3.0),
        ([1.0, -np.inf], 1.0),
        ([-np.inf, -np.inf], 0.0),
    ],
)
def test_the_reference_is_the_second_norm_that_is_not_zero(mean: list[float], reference: float) -> None:
    values = np.array(mean)
    assert Curve(values, values, values, values).reference == reference


def test_doctest() -> None:
    outcome = doctest.testmod(curve_module)
    assert outcome.attempted > 0
    assert outcome.failed == 0
