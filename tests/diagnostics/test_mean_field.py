"""Mean field against published and closed-form values."""

from __future__ import annotations

import math

import pytest

from gradcli.diagnostics.mean_field import mean_field

# Gain g of tanh networks without bias or input: q*, chi, and the Lyapunov exponent ln(chi)/2.
AUTONOMOUS = {
    1.05: (0.05325049, 1.00287558, 0.00143573),
    1.1: (0.11274989, 1.01018936, 0.00506890),
    1.5: (0.79335404, 1.13932322, 0.06521721),
    2.0: (2.12147357, 1.36267334, 0.15472423),
    5.0: (20.69936684, 2.90042095, 0.53242794),
    10.0: (91.70513, 5.544854, 0.856435),
}
# Points of the critical line chi = 1 of tanh: sigma_b^2, sigma_w^2, q*.
CRITICAL = [
    (0.001, 1.189190, 0.107292),
    (0.05, 1.760955, 0.570048),
    (0.3, 2.505127, 1.461169),
    (1.0, 3.443211, 3.036396),
]


@pytest.mark.parametrize("gain", AUTONOMOUS)
def test_autonomous_tanh(gain: float) -> None:
    found = mean_field("tanh", gain**2, 0.0)
    assert found is not None
    q, chi, exponent = AUTONOMOUS[gain]
    assert (found.q, found.chi) == (pytest.approx(q, rel=1e-6), pytest.approx(chi, rel=1e-6))
    assert math.log(found.rate_per_step) == pytest.approx(exponent, abs=1e-6)


@pytest.mark.parametrize(("bias", "weights", "q"), CRITICAL)
def test_the_critical_line_of_tanh(bias: float, weights: float, q: float) -> None:
    found = mean_field("tanh", weights, bias)
    assert found is not None
    assert found.chi == pytest.approx(1.0, abs=2e-6)
    assert found.q == pytest.approx(q, rel=2e-5)


@pytest.mark.parametrize(("weights", "bias"), [(1.5, 0.1), (2.0, 0.05)])
def test_erf_in_closed_form(weights: float, bias: float) -> None:
    """q = sigma_b^2 + sigma_w^2 (2/pi) asin(2q/(1 + 2q)), chi = (4/pi) sigma_w^2 / sqrt(1 + 4q)."""
    found = mean_field("erf", weights, bias)
    assert found is not None
    q = found.q
    assert bias + weights * 2 / math.pi * math.asin(2 * q / (1 + 2 * q)) == pytest.approx(q, rel=1e-9)
    assert found.chi == pytest.approx(4 / math.pi * weights / math.sqrt(1 + 4 * q), rel=1e-9)


def test_below_gain_one_everything_dies_out() -> None:
    found = mean_field("tanh", 0.25, 0.0)
    assert found is not None
    assert found.q == 0.0
    assert found.rate_per_step == pytest.approx(0.5, rel=1e-12)


def test_relu_halves_the_variance_at_any_size() -> None:
    found = mean_field("relu", 1.5, 0.1)
    assert found is not None
    assert (found.q, found.chi) == (pytest.approx(0.4, rel=1e-6), pytest.approx(0.75, rel=1e-9))
    growing = mean_field("relu", 2.5, 0.1)
    assert growing is not None
    assert (growing.q, growing.chi) == (math.inf, pytest.approx(1.25, rel=1e-9))
    assert mean_field("exp", 2.0, 1.0) is None
