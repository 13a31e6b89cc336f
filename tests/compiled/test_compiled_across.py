"""Sums, norms, softmaxes, their Jacobian products and clipping, against gradcli.language.across and clipping."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
from compiled_programs import DTYPES, LEVELS, NEEDED, run, scattered

from gradcli.engine.compiled.table import Call, Operand, Program
from gradcli.engine.scaled import scale_by
from gradcli.engine.step_clip import StepClip
from gradcli.language.across import ACROSS

pytestmark = NEEDED
Array = np.ndarray[Any, Any]

#: (steps, trials, entries, sequences)
SHAPES = ((2, 1, 32, 1), (2, 3, 5, 1), (1, 2, 33, 7), (2, 1, 8, 70), (1, 1, 1, 3), (1, 3, 4, 32))
AXES = {"layer_norm": 2, "batch_norm": 3, "softmax": 2}


def lain(rng: np.random.Generator, anyhow: bool, *arrays: Array) -> tuple[Array, ...]:
    return tuple(scattered(rng, array) for array in arrays) if anyhow else arrays


def along_one(shape: tuple[int, ...], axis: int) -> tuple[int, ...]:
    return (*shape[:axis], 1, *shape[axis + 1 :])


@pytest.mark.parametrize("anyhow", [False, True], ids=["contiguous", "scattered"])
@pytest.mark.parametrize("dtype", DTYPES, ids=lambda t: t.__name__)
@pytest.mark.parametrize("name", ACROSS)
def test_values(name: str, dtype: Any, anyhow: bool) -> None:
    rng = np.random.default_rng(0)
    across, axis = ACROSS[name], AXES[name]
    for level, shape in itertools.product(LEVELS, SHAPES):
        a = (3 * rng.standard_normal(shape)).astype(dtype)
        wanted, slope = across.evaluate(a, 1e-5, axis)
        y, given = lain(rng, anyhow, np.empty(shape, dtype), a)
        tolerance = 100 * np.finfo(dtype).eps
        if slope is None:
            run(name, [given], y, axis=axis, level=level)
        else:
            for length in (1, shape[axis]):
                (found,) = lain(rng, anyhow, np.empty((*shape[:axis], length, *shape[axis + 1 :]), dtype))
                run(name, [given], y, axis=axis, also=found, number=1e-5, level=level)
                np.testing.assert_allclose(found, np.broadcast_to(slope, found.shape), rtol=tolerance)
        # A norm takes a mean away; of softmax the smallest entry is as right as the largest.
        np.testing.assert_allclose(y, wanted, rtol=tolerance, atol=tolerance if across.is_norm else 0)
        more = {"also": np.empty(along_one(shape, axis), dtype), "number": 1e-5} if across.is_norm else {}
        run(name, [given], given, axis=axis, level=level, **more)
        np.testing.assert_array_equal(given, y)


@pytest.mark.parametrize("anyhow", [False, True], ids=["contiguous", "scattered"])
@pytest.mark.parametrize("dtype", DTYPES, ids=lambda t: t.__name__)
@pytest.mark.parametrize("name", ACROSS)
def test_products_with_the_jacobian(name: str, dtype: Any, anyhow: bool) -> None:
    rng = np.random.default_rng(1)
    across, axis = ACROSS[name], AXES[name]
    for level, shape, behind in itertools.product(LEVELS, SHAPES, (0, 1, 6)):
        y, slope = across.evaluate(rng.standard_normal(shape).astype(dtype), 1e-5, axis)
        v = rng.standard_normal((*shape, behind) if behind else shape).astype(dtype)
        wanted = np.empty_like(v)
        across.apply_jacobian(axis, y, slope, v, wanted)
        given_y, given_v, out = lain(rng, anyhow, y, v, np.empty_like(v))
        arguments = [given_y] if slope is None else [given_y, slope]
        if behind:
            arguments = [array[..., None] for array in arguments]
        op, tolerance = f"{name}_jacobian", 200 * np.finfo(dtype).eps
        run(op, [*arguments, given_v], out, axis=axis, level=level)
        if slope is None:
            # y (v - y^T v): what cancels is as large as v, and y, which may be tiny, multiplies all of it.
            weight = y[..., None] if behind else y
            np.testing.assert_allclose(out / weight, wanted / weight, rtol=tolerance, atol=tolerance * np.abs(v).max())
        else:
            np.testing.assert_allclose(out, wanted, rtol=tolerance, atol=tolerance * float(slope.max()))
            # A slope of full length along the axis, as the value may have written it.
            whole = np.broadcast_to(slope, y.shape).copy()
            again = np.empty_like(v)
            run(op, [arguments[0], whole[..., None] if behind else whole, given_v], again, axis=axis, level=level)
            np.testing.assert_allclose(again, out, rtol=tolerance, atol=tolerance * float(slope.max()))
        run(op, [*arguments, given_v], given_v, axis=axis, level=level)
        np.testing.assert_array_equal(given_v, out)


def test_where_squares_overflow_a_norm_is_no_number() -> None:
    a = np.array([1e200, -1e200, 3.0]).reshape(1, 1, 3, 1)
    with np.errstate(all="ignore"):
        wanted, _ = ACROSS["layer_norm"].evaluate(a, 1e-5, 2)
    found = run("layer_norm", [a], np.empty_like(a), axis=2, also=np.empty((1, 1, 1, 1)), number=1e-5)
    np.testing.assert_array_equal(np.isnan(found), np.isnan(wanted))
    assert np.isnan(found).all()


@pytest.mark.parametrize("dtype", DTYPES, ids=lambda t: t.__name__)
def test_sums_along_any_axis(dtype: Any) -> None:
    rng = np.random.default_rng(2)
    for level, shape, anyhow in itertools.product(LEVELS, ((2, 3, 4, 5, 6), (1, 1, 40, 1, 33)), (False, True)):
        a = rng.standard_normal(shape).astype(dtype)
        for axis in range(1, 5):
            given, out = lain(rng, anyhow, a, np.empty(along_one(shape, axis), dtype))
            run("sum_axis", [given], out, axis=axis, level=level)
            size = np.abs(a).sum(axis=axis, keepdims=True)
            wanted = a.astype(np.longdouble).sum(axis=axis, keepdims=True)
            assert (np.abs(out - wanted) <= shape[axis] * np.finfo(dtype).eps * size).all()


@pytest.mark.parametrize("dtype", DTYPES, ids=lambda t: t.__name__)
def test_largest_along_any_axis(dtype: Any) -> None:
    rng = np.random.default_rng(4)
    shapes = ((2, 3, 4, 5, 6), (1, 1, 40, 1, 33), (1, 2, 1, 19, 1), (1, 1, 8, 1, 1))
    for level, shape, anyhow in itertools.product(LEVELS, shapes, (False, True)):
        a = rng.standard_normal(shape).astype(dtype)
        a[rng.random(shape) < 0.02] = np.nan
        a[rng.random(shape) < 0.05] = np.inf
        a[rng.random(shape) < 0.3] = -np.inf
        for axis in range(1, 5):
            given, out = lain(rng, anyhow, a, np.empty(along_one(shape, axis), dtype))
            run("largest", [given], out, axis=axis, level=level)
            np.testing.assert_array_equal(out, np.maximum.reduce(a, axis=axis, keepdims=True))


@pytest.mark.parametrize("dtype", DTYPES, ids=lambda t: t.__name__)
def test_sums_up_to_each_number(dtype: Any) -> None:
    rng = np.random.default_rng(5)
    shapes = ((2, 3, 4, 5, 6), (1, 1, 40, 1, 33), (1, 2, 1, 19, 1), (2, 1, 1, 1, 1))
    for level, shape, anyhow in itertools.product(LEVELS, shapes, (False, True)):
        a = rng.standard_normal(shape).astype(dtype)
        for axis in range(1, 5):
            wanted = {
                "cumsum": np.cumsum(a, axis=axis),
                "cumsum_reversed": np.flip(np.cumsum(np.flip(a, axis), axis=axis), axis),
            }
            for op, sums in wanted.items():
                given, out = lain(rng, anyhow, a.copy(), np.empty(shape, dtype))
                np.testing.assert_array_equal(run(op, [given], out, axis=axis, level=level), sums)
                np.testing.assert_array_equal(run(op, [given], given, axis=axis, level=level), sums)
            one = np.take(a, [0], axis=axis)
            found = run("cumsum", [one], np.empty(shape, dtype), axis=axis, level=level)
            np.testing.assert_array_equal(found, np.cumsum(np.broadcast_to(one, shape), axis=axis))


#: (steps, trials, rows, columns, sequences, columns); what has more than 2^18 bytes is read as it lies.
MATRICES = ((2, 2, 3, 4, 5, 2), (1, 3, 5, 7, 1, 1), (1, 1, 21, 18, 3, 1), (1, 2, 9, 33, 8, 1), (1, 1, 66, 43, 17, 1))
MATRICES += ((2, 1, 5, 6, 1, 37), (1, 1, 70, 1000, 1, 1), (1, 1, 3000, 5, 7, 1), (1, 1, 10, 50, 3, 70))
#: Axes along which an operand is repeated.
REPEATED = [axes for count in range(4) for axes in itertools.combinations(range(1, 6), count)]


def sum_of_products(x: Array, y: Array, axis: int) -> Array:
    return np.add.reduce(x * y, axis=axis, keepdims=True)


def assert_is_sum_of_products(found: Array, x: Array, y: Array, axis: int) -> None:
    wanted = sum_of_products(x.astype(np.longdouble), y, axis)
    terms = max(x.shape[axis], y.shape[axis])
    error = terms * np.finfo(found.dtype).eps * sum_of_products(np.abs(x), np.abs(y), axis)
    assert (np.abs(found - wanted) <= error).all()


@pytest.mark.parametrize("anyhow", [False, True], ids=["contiguous", "scattered"])
@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("dtype", DTYPES, ids=lambda t: t.__name__)
def test_sums_of_products(dtype: Any, level: str, anyhow: bool) -> None:
    rng = np.random.default_rng(6)
    for shape, axis in itertools.product(MATRICES, range(1, 6)):
        large = np.prod(shape) > 10_000
        if large and anyhow:
            continue  # of scattered numbers all are treated in one way
        for first, second in itertools.product(REPEATED[:6] if large else REPEATED, ((), (axis,), (2,), (3,), (2, 5))):
            if not large and rng.random() < 0.7:
                continue
            sizes = ([1 if j in axes else n for j, n in enumerate(shape)] for axes in (first, second))
            x, y = (rng.standard_normal(size).astype(dtype) for size in sizes)
            out = np.full(along_one(shape, axis), np.nan, dtype)
            x, y, out = lain(rng, anyhow, x, y, out)
            for one, other in [(x, y)] if large else [(x, y), (y, x)]:
                run("sum_product", [one, other], out, axis=axis, level=level)
                assert_is_sum_of_products(out, x, y, axis)


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("dtype", DTYPES, ids=lambda t: t.__name__)
def test_sums_of_products_of_any_number_of_sequences(dtype: Any, level: str) -> None:
    """Matrices times vectors as cells have them, along either axis; a number counts as repeated along all."""
    rng = np.random.default_rng(7)
    for sequences, size, trials in itertools.product((*range(1, 21), 31, 33, 64, 70), (1, 4, 9), (1, 2)):
        x = rng.standard_normal((1, trials, size, size + 1, sequences)).astype(dtype)
        for axis in (2, 3):
            y = rng.standard_normal(along_one(x.shape, 5 - axis)).astype(dtype)
            for other in (y, np.array(-0.5, dtype)):
                out = np.full(along_one(x.shape, axis), np.nan, dtype)
                run("sum_product", [x, other], out, axis=axis, level=level)
                assert_is_sum_of_products(out, x, other + np.zeros_like(y), axis)


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("dtype", DTYPES, ids=lambda t: t.__name__)
def test_a_sum_of_products_is_the_same_beside_others(dtype: Any, level: str) -> None:
    """To the last bit: a part of the trials or sequences, as a thread has it, gives what the whole does."""
    rng = np.random.default_rng(8)
    for size, sequences in ((5, 40), (66, 40), (66, 83)):
        x = rng.standard_normal((1, 2, size, size + 2, sequences)).astype(dtype)
        for axis in (2, 3):
            y = rng.standard_normal(along_one(x.shape, 5 - axis)).astype(dtype)
            whole = run("sum_product", [x, y], np.empty(along_one(x.shape, axis), dtype), axis=axis, level=level)
            for part in (slice(0, 16), slice(16, 33), slice(33, None)):
                out = np.empty_like(whole)[:, 1:, ..., part]
                run("sum_product", [x[:, 1:, ..., part], y[:, 1:, ..., part]], out, axis=axis, level=level)
                np.testing.assert_array_equal(out, whole[:, 1:, ..., part])


def test_what_is_not_finite_stays_in_its_own_sum() -> None:
    x = np.ones((1, 9, 6, 8))
    x[0, 3, 2, 5] = np.nan
    x[0, 0, 0, 0] = np.inf
    for axis in (1, 2):
        out = run("sum_product", [x, np.array(2.0)], np.empty(along_one(x.shape, axis)), axis=axis)
        np.testing.assert_array_equal(out, sum_of_products(x, np.array(2.0), axis))


@pytest.mark.parametrize("dtype", DTYPES, ids=lambda t: t.__name__)
@pytest.mark.parametrize("method", ["step_norm", "step_value"])
def test_clipping_is_that_of_the_numpy_engine(method: str, dtype: Any) -> None:
    rng = np.random.default_rng(3)
    steps = 3
    for level, (trials, size, sequences) in itertools.product(LEVELS, ((1, 32, 1), (2, 5, 7), (3, 1, 40))):
        exponents = rng.integers(-3, 3, (trials, sequences))
        adjoint = rng.standard_normal((steps, trials, size, sequences)).astype(dtype)
        adjoint[0, 0, 0, 0] = np.inf
        adjoint[1, 0, -1, 0] = np.nan
        adjoint[2, :, :, 0] *= np.finfo(dtype).max / 64  # of which the square leaves the range
        wanted = adjoint.copy()
        clipper = StepClip(method, 1.5)
        with np.errstate(all="ignore"):
            for step in wanted:
                clipper(step, exponents[:, None])
        clipper.settle(True)
        counter = np.zeros((1, trials, 1, sequences), np.int64)
        thresholds = scale_by(np.asarray(1.5), -exponents)[None, :, None]
        run(method.replace("step", "clip"), [thresholds], adjoint, also=counter, axis=2, level=level)
        assert 0 < clipper.changed < clipper.seen
        assert counter.sum() == clipper.changed
        np.testing.assert_allclose(adjoint, wanted, rtol=20 * np.finfo(dtype).eps)


def test_a_counter_goes_on_counting() -> None:
    adjoint = np.full((5, 1, 2, 3), 2.0)
    counter = np.array([[7, 8, 9]]).reshape(1, 1, 1, 3)
    program = Program(
        np.float64,
        [Call("clip_value", (Operand(np.array(1.0)),), Operand(adjoint), axis=2, also=Operand(counter))],
    )
    program.run(0, 4, False)
    np.testing.assert_array_equal(counter.ravel(), [11, 12, 13])
    np.testing.assert_array_equal(adjoint[:4], 1.0)
    np.testing.assert_array_equal(adjoint[4], 2.0)
