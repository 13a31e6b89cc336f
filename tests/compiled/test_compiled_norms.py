"""log2 of norms and largest magnitudes, against those of the NumPy engine and of long double."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
from compiled_programs import DTYPES, NEEDED, scattered

from gradcli.engine.compiled.table import largest_magnitudes, log2_norms
from gradcli.engine.scaled import log2_norm

pytestmark = NEEDED


@pytest.mark.parametrize("dtype", DTYPES, ids=lambda t: t.__name__)
def test_norms_of_any_size(dtype: Any) -> None:
    rng = np.random.default_rng(0)
    least, most = (-1000, 1000) if dtype == np.float64 else (-140, 120)
    for n, trials, size, sequences in itertools.product((1, 3), (1, 2), (1, 8, 33), (1, 5, 70)):
        shape = (n, trials, size, sequences)
        with np.errstate(under="ignore"):
            values = np.ldexp(rng.standard_normal(shape), rng.integers(least, most, (n, trials, 1, sequences))).astype(
                dtype
            )
        values[0, 0, :, 0] = 0.0
        values[-1, -1, 0, -1] = rng.choice([0.0, np.inf, np.nan, -np.inf, 1.0])
        for given in (values, scattered(rng, values)):
            found, wanted = log2_norms(given), log2_norm(values, axis=2)
            finite = np.isfinite(wanted)
            np.testing.assert_array_equal(found[~finite], wanted[~finite])
            # 1e-15 of the norm is 1.4e-15 of its logarithm's unit, beside the rounding of the logarithm itself.
            np.testing.assert_allclose(found[finite], wanted[finite], rtol=2.3e-16, atol=1.5e-15)
            np.testing.assert_array_equal(largest_magnitudes(given), np.abs(values).max(axis=2))


def test_norms_are_right_to_the_last_digits() -> None:
    values = np.random.default_rng(1).standard_normal((50, 1, 64, 3))
    exact = np.sqrt(np.square(values.astype(np.longdouble)).sum(axis=2))
    assert np.abs(np.exp2(log2_norms(values).astype(np.longdouble)) / exact - 1).max() < 1e-15


def test_exact_zeros_have_no_norm() -> None:
    assert (log2_norms(np.zeros((2, 1, 4, 3))) == -np.inf).all()
    assert (log2_norms(np.full((1, 1, 4, 3), 5e-324)) == -1073.0).all()


@pytest.mark.parametrize("values", [np.zeros((2, 3)), np.zeros((1, 1, 1, 1), np.int64), np.zeros((1, 1, 1, 1), ">f8")])
def test_other_values_are_refused(values: Any) -> None:
    with pytest.raises(ValueError, match=r"to be \(n, R, size, B\)|of type float64"):
        log2_norms(values)
