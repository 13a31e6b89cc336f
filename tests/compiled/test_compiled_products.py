"""Products of packed matrices with one column, few and many, against NumPy's in long double."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
from compiled_programs import DTYPES, LEVELS, NEEDED, run, scattered

from gradcli.engine.compiled.table import Call, Operand, Program

pytestmark = NEEDED
Array = np.ndarray[Any, Any]

SIZES = (1, 2, 3, 5, 7, 31, 32, 33, 63, 64, 65, 127, 128, 129, 500, 513)


def assert_product(found: Array, matrix: Array, vectors: Array, added: Array | float = 0.0) -> None:
    """Each sum is right to the rounding of its terms, one after the other."""
    dtype = found.dtype
    wanted = np.matmul(matrix.astype(np.float64), vectors.astype(np.float64)) + added
    size = np.matmul(np.abs(matrix).astype(np.float64), np.abs(vectors).astype(np.float64)) + np.abs(added)
    terms = matrix.shape[-1] + 2
    assert (np.abs(found - wanted) <= np.finfo(dtype).eps * terms * size).all()


def arrays(
    rows: int, inner: int, columns: int, dtype: Any, trials: int = 1, steps: int = 1
) -> tuple[Array, Array, Array]:
    rng = np.random.default_rng([rows, inner, columns])
    matrix = rng.standard_normal((1, trials, rows, inner)).astype(dtype)
    vectors = rng.standard_normal((steps, trials, inner, columns)).astype(dtype)
    return matrix, vectors, np.full((steps, trials, rows, columns), np.nan, dtype)


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("dtype", DTYPES, ids=lambda t: t.__name__)
@pytest.mark.parametrize("rows", SIZES)
def test_of_many_shapes(rows: int, dtype: Any, level: str) -> None:
    for inner, columns in itertools.product(SIZES, SIZES):
        if rows * inner * columns > 5e6 or (rows + inner + columns) % 3 == 1:
            continue
        matrix, vectors, out = arrays(rows, inner, columns, dtype)
        assert_product(run("product", [matrix, vectors], out, level=level), matrix, vectors)


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("dtype", DTYPES, ids=lambda t: t.__name__)
@pytest.mark.parametrize("columns", [1, 3, 8, 13, 64])
def test_of_trials_and_steps_in_any_memory(columns: int, dtype: Any, level: str) -> None:
    rng = np.random.default_rng(0)
    for rows, inner, shared in itertools.product((5, 37), (6, 41), (True, False)):
        matrix, vectors, out = arrays(rows, inner, columns, dtype, trials=3, steps=2)
        matrix = matrix[:, :1] if shared else matrix
        for given in ((matrix, vectors, out), tuple(scattered(rng, x) for x in (matrix, vectors, out))):
            run("product", given[:2], given[2], level=level)
            assert_product(given[2], matrix, vectors)
            transposed = np.ascontiguousarray(matrix.swapaxes(-1, -2))
            again = np.full_like(given[2], np.nan)
            run("product_transposed", [transposed, given[1]], again, level=level)
            np.testing.assert_array_equal(again, given[2])


@pytest.mark.parametrize("dtype", DTYPES, ids=lambda t: t.__name__)
@pytest.mark.parametrize("columns", [1, 2, 6, 32, 33])
def test_added_to_its_output(columns: int, dtype: Any) -> None:
    for rows, inner in ((33, 7), (9, 600)):
        matrix, vectors, out = arrays(rows, inner, columns, dtype)
        out[...] = np.random.default_rng(1).standard_normal(out.shape)
        before = out.copy()
        assert_product(run("product_add", [matrix, vectors], out), matrix, vectors, before)
        out[...] = before
        run("product_transposed_add", [matrix.swapaxes(-1, -2).copy(), vectors], out)
        assert_product(out, matrix, vectors, before)


def test_columns_are_all_axes_behind_the_rows() -> None:
    matrix, vectors, out = arrays(9, 8, 12, np.float64, trials=2)
    run("product", [matrix, vectors.reshape(1, 2, 8, 3, 4)], out.reshape(1, 2, 9, 3, 4))
    assert_product(out, matrix, vectors)
    run("product", [matrix, vectors[..., 0]], alone := np.empty((1, 2, 9)))
    np.testing.assert_allclose(alone, out[..., 0], rtol=1e-13)


@pytest.mark.parametrize("columns", [1, 40])
def test_a_matrix_that_has_changed_is_packed_again(columns: int) -> None:
    matrix, vectors, out = arrays(40, 20, columns, np.float64, trials=2)
    program = Program(np.float64, [Call("product", (Operand(matrix), Operand(vectors)), Operand(out))])
    program.run(0, 1, False)
    before = out.copy()
    matrix[0, 1] *= 2
    program.run(0, 1, False)
    np.testing.assert_array_equal(out, before)
    program.pack()
    program.run(0, 1, False)
    np.testing.assert_array_equal(out, before * np.array([1, 2])[:, None, None])


@pytest.mark.parametrize("columns", [1, 2, 40])
def test_what_is_no_number_stays_in_its_row_and_column(columns: int) -> None:
    """Rows and columns that fill up the last vectors are zeros, and zero times infinity is none."""
    matrix, vectors, out = arrays(5, 6, columns, np.float64)
    matrix[0, 0, 2, 3] = np.inf
    vectors[0, 0, 1, 0] = np.nan
    run("product", [matrix, vectors], out)
    wrong = ~np.isfinite(out[0, 0])
    wanted = np.zeros((5, columns), bool)
    wanted[2] = wanted[:, 0] = True
    np.testing.assert_array_equal(wrong, wanted)
