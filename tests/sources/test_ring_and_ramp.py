"""The laws of single units: the eigenvalues of the LRU on their ring, and ramps over the units."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from gradcli.sources.initialisers import Parameter, draw_parameter
from gradcli.spec.base import Choice
from gradcli.spec.initialisers import LogUniform, Ramp, Ring, RingPhase, Uniform
from gradcli.spec.value_readers import RefusedError


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

    def test_every_row_of_a_matrix_has_it_over_its_columns(self):
        found = draw_parameter(
            parameter := Parameter("layer0", "A_log", (3, 16)),
            Ramp(first=1, last=16, of="exp"),
            cell_parameters=[parameter],
            hidden_size=3,
            seq_len=100,
            seed=0,
            trial=0,
            chrono_signs={},
        )
        # Gu and Dao 2023, S4D-Real: A_n = -(n + 1).
        np.testing.assert_allclose(found, np.log(np.arange(1.0, 17.0)) * np.ones((3, 1)), rtol=1e-15)


FUNCTIONS = {
    "exp": np.exp,
    "softplus": lambda p: np.log1p(np.exp(-np.abs(p))) + np.maximum(p, 0),
    "sigmoid": lambda p: 1 / (1 + np.exp(-p)),
}


class TestLawsOfAFunction:
    @pytest.mark.parametrize("of", FUNCTIONS)
    def test_the_function_has_the_law_and_the_draws_are_those_of_the_plain_law(self, of):
        for plain, law in (
            (Uniform(bound=0.4, mean=0.5), Uniform(bound=0.4, mean=0.5, of=of)),
            (LogUniform(low=1e-8, high=0.9), LogUniform(low=1e-8, high=0.9, of=of)),
            (Ramp(first=1e-9, last=0.99), Ramp(first=1e-9, last=0.99, of=of)),
        ):
            np.testing.assert_allclose(FUNCTIONS[of](draw("b", 1000, law)), draw("b", 1000, plain), rtol=1e-13)

    def test_softplus_is_inverted_where_it_is_nearly_its_argument_and_nearly_nothing(self):
        values = [1e-12, 1e-3, 1.0, 40.0, 2000.0]
        found = [draw("b", 1, Ramp(first=value, last=value, of="softplus"))[0] for value in values]
        # log(exp(v) - 1) to 40 digits.
        expected = [-27.63102111592804821, -6.9072552373154707, 0.5413248546129181, 40.0, 2000.0]
        assert found == pytest.approx(expected, rel=1e-14)

    def test_the_logarithm_is_even_between_the_ends(self):
        drawn = draw("b", 100_000, LogUniform(low=1e-3, high=1e-1))
        logs = np.log10(drawn)
        assert 1e-3 <= drawn.min() < 1.001e-3
        assert 0.0999 < drawn.max() <= 1e-1
        assert logs.mean() == pytest.approx(-2, abs=4 * 2 / math.sqrt(12 * 100_000))
        assert logs.var() == pytest.approx(4 / 12, rel=0.02)

    @pytest.mark.parametrize(
        ("law", "fields", "message"),
        [
            (Uniform, {"bound": 1.0, "of": "exp"}, "exp of a parameter is above 0, but this reaches down to -1"),
            (Ramp, {"first": 0, "last": 3, "of": "softplus"}, "softplus of a parameter is above 0, but this reaches"),
            (
                LogUniform,
                {"low": 0.5, "high": 1.5, "of": "sigmoid"},
                "sigmoid of a parameter is below 1, but this reaches up to 1.5",
            ),
            (LogUniform, {"low": 0.1, "high": 0.1}, "low = 0.1 is not below high = 0.1"),
        ],
    )
    def test_a_range_that_the_function_does_not_have_is_refused(self, law, fields, message):
        with pytest.raises(RefusedError, match=message):
            law(**fields)
