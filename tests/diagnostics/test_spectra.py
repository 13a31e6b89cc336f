"""Spectra of matrices whose answers are known, and against other algorithms."""

from __future__ import annotations

import math

import numpy as np
import pytest
from numpy.testing import assert_allclose
from numpy.typing import NDArray

from gradcli.diagnostics.spectra import spectrum

RNG = np.random.default_rng(3)


def norm_of(matrix: NDArray[np.float64]) -> float:
    return float(spectrum("W", matrix[None]).spectral_norm[0])


def radius_of(matrix: NDArray[np.float64]) -> float:
    return float(spectrum("W", matrix[None]).spectral_radius[0])


@pytest.mark.parametrize("shape", [(1, 1), (7, 7), (9, 4), (4, 9), (40, 40)])
def test_the_norm_is_the_largest_singular_value(shape: tuple[int, int]) -> None:
    matrix = RNG.normal(size=shape)
    assert_allclose(norm_of(matrix), np.linalg.svd(matrix, compute_uv=False)[0], rtol=1e-12, atol=0)


def test_the_radius_is_the_growth_of_powers() -> None:
    """Gelfand: the radius is the limit of the n-th root of the n-th power's norm."""
    matrix = RNG.normal(size=(12, 12)) / 12
    power = np.linalg.matrix_power(matrix * 3, 4096 // 4)
    growth = math.exp(math.log(np.linalg.norm(power)) / 1024) / 3
    assert_allclose(radius_of(matrix), growth, rtol=1e-2, atol=0)


def test_a_rotation_and_a_shear() -> None:
    c, s = 0.9 * math.cos(1.0), 0.9 * math.sin(1.0)
    rotation = np.array([[c, -s], [s, c]])
    assert_allclose([radius_of(rotation), norm_of(rotation)], 0.9, rtol=1e-12, atol=0)
    shear = np.array([[0.5, 100.0], [0.0, 0.5]])
    assert_allclose(radius_of(shear), 0.5, rtol=1e-12, atol=0)
    # sigma^2 of [[a, b], [0, a]] solves s^2 - (2 a^2 + b^2) s + a^4 = 0.
    total = 2 * 0.25 + 1e4
    assert_allclose(norm_of(shear), math.sqrt((total + math.sqrt(total**2 - 4 / 16)) / 2), rtol=1e-12, atol=0)


@pytest.mark.parametrize("size", [1e-300, 1e-200, 1e200, 1e300])
def test_sizes_whose_squares_are_no_numbers(size: float) -> None:
    matrix = np.array([[3.0, 0.0], [4.0, 0.0]]) * size
    assert_allclose(norm_of(matrix), 5 * size, rtol=1e-12, atol=0)
    assert_allclose(radius_of(matrix), 3 * size, rtol=1e-12, atol=0)


def test_zeros_have_neither() -> None:
    for matrix in (np.zeros((3, 3)), np.zeros((0, 0))):
        assert (norm_of(matrix), radius_of(matrix)) == (0, 0)


def test_of_several_trials_each_has_its_own() -> None:
    found = spectrum("W", np.stack([np.diag([1.0, -3.0]), np.array([[0.0, 5.0], [0.0, 0.0]])]))
    assert_allclose(found.spectral_norm, [3, 5], rtol=1e-12, atol=0)
    assert_allclose(found.spectral_radius, [3, 0], rtol=1e-12, atol=0)
    assert_allclose(found.departure, [0, 5], rtol=1e-12, atol=0)


def test_eigenvalues_of_large_matrices_are_left_out_where_they_are_not_asked_for() -> None:
    matrix = RNG.normal(size=(1, 5, 5))
    assert np.isnan(spectrum("W", matrix, largest=4).spectral_radius[0])
    assert not np.isnan(spectrum("W", matrix, largest=5).spectral_radius[0])
