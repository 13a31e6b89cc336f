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
