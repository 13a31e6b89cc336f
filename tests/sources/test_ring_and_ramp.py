"""The laws of single units: the eigenvalues of the LRU on their ring, and ramps over the units."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from gradcli.sources.initialisers import Parameter, draw_parameter
from gradcli.spec.base import Choice
from gradcli.spec.initialisers import Ramp, Ring, RingPhase


def draw(name: str, units: int, law: Choice, *, seed: int = 0, trial: int = 0) -> NDArray[Any]:
    """Return one draw of a vector from a law."""
    parameter = Parameter("layer0", name, (units,))
    return draw_parameter(
        parameter,
        law,
        cell_parameters=[parameter],
        hidden_size=units,
        seq_len=100,
        seed=seed,
        trial=trial,
        chrono_signs={},
    )


class TestRing:
    @pytest.mark.parametrize(("k", "expected"), [(1, 0.57005), (10, 0.0888617), (100, 1.58534e-3)])
    def test_the_moments_of_the_eigenvalues_are_those_of_an_even_ring(self, k, expected):
        # E |lambda|^(2k) = (r_max^(2k+2) - r_min^(2k+2)) / ((k + 1) (r_max^2 - r_min^2)).
        law = Ring(r_min=0.4, r_max=0.99)
        moduli = np.exp(-np.exp(draw("nu_log", 2_000_000, law)))
        assert (moduli ** (2 * k)).mean() == pytest.approx(expected, rel=0.01)

    def test_it_lies_between_its_radii_and_comes_near_them(self):
        moduli = np.exp(-np.exp(draw("nu_log", 20_000, Ring(r_min=0.9, r_max=0.999))))
        assert 0.9 < moduli.min() < 0.9001
        assert 0.9989 < moduli.max() < 0.999

    def test_the_whole_disc_has_finite_logarithms(self):
        assert np.isfinite(draw("nu_log", 100_000, Ring())).all()
        assert np.isfinite(draw("b_f", 128, Ring(r_min=1 - 1e-16, r_max=1))).all()

    def test_the_phase_is_even_over_its_range(self):
        theta = np.exp(draw("theta_log", 100_000, RingPhase()))
        assert 0 < theta.min() < 0.001
        assert 6.282 < theta.max() < 2 * math.pi
        assert theta.mean() == pytest.approx(math.pi, abs=4 * 2 * math.pi / math.sqrt(12 * 100_000))
        # An even law over the full turn has no mean direction.
        assert abs(np.exp(1j * theta).mean()) < 4 / math.sqrt(100_000)
        assert np.exp(draw("b_f", 128, RingPhase(max_phase=0.1))).max() < 0.1

    def test_radius_and_phase_are_independent(self):
        nu_log = draw("nu_log", 20_000, Ring())
        theta_log = draw("theta_log", 20_000, RingPhase())
        assert abs(np.corrcoef(nu_log, theta_log)[0, 1]) < 4 / math.sqrt(20_000)


class TestRamp:
    def test_it_goes_from_first_to_last_and_is_drawn_from_nothing(self):
        assert draw("b_f", 5, Ramp(first=3, last=6)).tolist() == [3, 3.75, 4.5, 5.25, 6]
        assert draw("b_f", 5, Ramp(first=3, last=-1, power=2)).tolist() == [3, 2.75, 2, 0.75, -1]
        assert draw("b_f", 5, Ramp(first=3, last=6), seed=1, trial=2).tolist() == [3, 3.75, 4.5, 5.25, 6]

    def test_a_single_unit_stands_at_the_first(self):
        assert draw("b_f", 1, Ramp(first=3, last=6)).tolist() == [3]
