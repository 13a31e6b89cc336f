"""Every elementwise call against NumPy and gradcli.language.functions, however its operands lie."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from compiled_programs import DTYPES, LEVELS, NEEDED, run, scattered

from gradcli.engine.compiled.table import OPERATIONS, Call, Operand, Program
from gradcli.language.functions import FUNCTIONS

pytestmark = NEEDED
Array = np.ndarray[Any, Any]

COMPARISONS = ("greater", "greater_equal", "equal")
TWO: dict[str, Callable[..., Any]] = {
    "add": np.add,
    "subtract": np.subtract,
    "multiply": np.multiply,
    "divide": np.divide,
    "power": np.power,
    "maximum": np.maximum,
    "minimum": np.minimum,
    **{name: getattr(np, name) for name in COMPARISONS},
}
ONE = ("copy", "negative", "reciprocal", "square", "sigmoid_of_negated", *FUNCTIONS)
#: Of (steps, trials, parts, rows, sequences): whole; a number; no parts, as an adjoint for several gates; columns of
#: biases; rows; the same for all steps.
KINDS = ("whole", "number", "no parts", "column", "row", "still")


def reference(op: str, a: Array) -> Array:
    out = np.empty_like(a)
    with np.errstate(all="ignore"):
        if op == "copy":
            return a.copy()
        if op == "sigmoid_of_negated":
            FUNCTIONS["sigmoid"].evaluate(-a, out)
        elif op in FUNCTIONS:
            FUNCTIONS[op].evaluate(a, out)
        else:
            getattr(np, op)(a, out)
    return out


def numbers(rng: np.random.Generator, op: str, shape: tuple[int, ...], dtype: Any) -> Array:
    values = rng.standard_normal(shape) * rng.choice([0.1, 1.0, 4.0], shape)
    if op in ("log", "sqrt", "_root", "power"):
        values = np.abs(values) + 0.01
    if op in COMPARISONS:
        values = np.round(values)  # so that many are equal
    special = rng.choice([0.0, -0.0, 1.0, -1.0, 3.0, -3.0, 20.0, np.inf, -np.inf, np.nan], shape)
    return np.array(np.where(rng.random(shape) < 0.1, special, values), dtype)


def operand(rng: np.random.Generator, op: str, kind: str, shape: tuple[int, ...], dtype: Any) -> Array:
    steps, trials, parts, rows, sequences = shape
    sizes = {
        "whole": shape,
        "number": (),
        "no parts": (steps, trials, 1, rows, sequences),
        "column": (steps, trials, parts, rows, 1),
        "row": (steps, 1, 1, 1, sequences),
        "still": (1, trials, parts, rows, sequences),
    }
    return numbers(rng, op, sizes[kind], dtype)


def tolerance(op: str, dtype: Any) -> float:
    """Return how far from NumPy's: units in the last place, relative, for what is composed of several roundings."""
    exact = {
        "add",
        "subtract",
        "multiply",
        "divide",
        "maximum",
        "minimum",
        "copy",
        "identity",
        "negative",
        "reciprocal",
    }
    exact |= {"square", "abs", "sqrt", "_root", "relu", "hard_tanh", "softsign", "_positive", "_nonpositive", "_sign"}
    exact |= {"_within_1", "_within_3", "_negative_part", "leaky_relu", *COMPARISONS}
    if op in exact:
        return 0.0
    # exp(-a^2 / 2) magnifies the rounding of a^2.
    return (40 if op == "_normal_density" else 6) * float(np.finfo(dtype).eps)


def assert_close(op: str, found: Array, wanted: Array) -> None:
    smallest = float(np.finfo(found.dtype).smallest_subnormal)
    absolute = (
        float(np.finfo(found.dtype).eps) if op in ("_normal_cdf", "gelu", "hard_sigmoid", "sin", "cos") else smallest
    )
    np.testing.assert_allclose(
        found, wanted, rtol=tolerance(op, found.dtype), atol=4 * absolute if tolerance(op, found.dtype) else 0
    )


SHAPES = ((3, 1, 1, 32, 1), (2, 1, 4, 7, 1), (2, 3, 2, 5, 4), (1, 2, 3, 33, 9), (2, 1, 1, 1, 1), (2, 2, 1, 130, 1))


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("dtype", DTYPES, ids=lambda t: t.__name__)
@pytest.mark.parametrize("op", ONE)
def test_of_one_operand(op: str, dtype: Any, level: str) -> None:
    rng = np.random.default_rng(1)
    for shape, kind in itertools.product(SHAPES, KINDS):
        a = operand(rng, op, kind, shape, dtype)
        wanted = np.broadcast_to(reference(op, a), shape)
        assert_close(op, run(op, [a], np.empty(shape, dtype), level=level), wanted)
        a, out = (scattered(rng, x) for x in (a, np.empty(shape, dtype)))
        assert_close(op, run(op, [a], out, level=level), wanted)
        if kind == "whole":
            assert_close(op, run(op, [a], a, level=level), wanted)


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("dtype", DTYPES, ids=lambda t: t.__name__)
@pytest.mark.parametrize("op", TWO)
def test_of_two_operands(op: str, dtype: Any, level: str) -> None:
    rng = np.random.default_rng(2)
    for place, (shape, first, second) in enumerate(itertools.product(SHAPES, KINDS, KINDS)):
        if (place + len(op)) % 3:
            continue  # the others are for operations with names of another length
        a, b = (operand(rng, op, kind, shape, dtype) for kind in (first, second))
        with np.errstate(all="ignore"):
            wanted = np.broadcast_to(TWO[op](a, b), shape).astype(dtype)
        assert_close(op, run(op, [a, b], np.empty(shape, dtype), level=level), wanted)
        a, b, out = (scattered(rng, x) for x in (a, b, np.empty(shape, dtype)))
        assert_close(op, run(op, [a, b], out, level=level), wanted)
        for inplace in (a, b):
            if inplace.shape == shape:
                assert_close(op, run(op, [a.copy() if inplace is b else a, b], inplace, level=level), wanted)
                break


@pytest.mark.parametrize("dtype", DTYPES, ids=lambda t: t.__name__)
@pytest.mark.parametrize("exponent", [2.0, 3.0, -1.0, -2.0, 0.5, 0.0, 1.0, 2.5])
def test_powers_to_one_exponent(exponent: float, dtype: Any) -> None:
    a = np.array([0.0, -0.0, 1.5, -1.5, 1e-200, 1e200, -7.25, np.inf, -np.inf, np.nan, 3.0] * 5, np.float64)
    if exponent == 0.5:
        a = a[a != -np.inf]  # of which the root is none, and the power, by the C standard, infinite
    with np.errstate(all="ignore"):
        a = a.astype(dtype)
        wanted = np.power(a, dtype(exponent))
    found = run("power", [a[None], np.array(exponent, dtype)], np.empty_like(a[None]))[0]
    np.testing.assert_allclose(found, wanted, rtol=3 * np.finfo(dtype).eps, atol=2 * np.finfo(dtype).smallest_subnormal)


@pytest.mark.parametrize("dtype", DTYPES, ids=lambda t: t.__name__)
def test_ldexp_rounds_once(dtype: Any) -> None:
    rng = np.random.default_rng(3)
    shape = (2, 3, 17, 5)
    a = numbers(rng, "add", shape, dtype)
    for exponents in (
        rng.integers(-1100, 1100, shape, dtype=np.int32),
        rng.integers(-5000, 5000, (2, 3, 1, 5), dtype=np.int32),
        rng.integers(-20, 20, (1, 3, 1, 1), dtype=np.int32),
        np.array(-1030, np.int32),
    ):
        with np.errstate(all="ignore"):
            wanted = np.ldexp(a, exponents)
        np.testing.assert_array_equal(run("ldexp", [a, exponents], np.empty(shape, dtype)), wanted)
        views = [scattered(rng, x) for x in (a, exponents, np.empty(shape, dtype))]
        np.testing.assert_array_equal(run("ldexp", views[:2], views[2]), wanted)


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("dtype", DTYPES, ids=lambda t: t.__name__)
def test_multiply_add(dtype: Any, level: str) -> None:
    rng = np.random.default_rng(4)
    for shape, first, second in list(itertools.product(SHAPES, KINDS, KINDS))[:: 2 if dtype == np.float64 else 5]:
        a, b = (rng.standard_normal(operand(rng, "add", k, shape, dtype).shape).astype(dtype) for k in (first, second))
        c = rng.standard_normal(shape).astype(dtype)
        wanted = a.astype(np.longdouble) * b + c
        size = np.abs(a * b) + np.abs(c)
        for views in ([a, b, c], [scattered(rng, x) for x in (a, b, c)]):
            found = run("multiply_add", views, np.empty(shape, dtype), level=level)
            assert (np.abs(found - wanted) <= np.finfo(dtype).eps * size).all()
            added = run("multiply_add", views, views[2], level=level)
            np.testing.assert_array_equal(added, found)


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("dtype", DTYPES, ids=lambda t: t.__name__)
def test_where(dtype: Any, level: str) -> None:
    rng = np.random.default_rng(7)
    for place, (shape, *kinds) in enumerate(itertools.product(SHAPES, KINDS, KINDS, KINDS)):
        if place % (2 if dtype == np.float64 else 5):
            continue
        mask, p, q = (operand(rng, "where", kind, shape, dtype) for kind in kinds)
        mask = np.where(rng.random(mask.shape) < 0.5, mask, dtype(0))
        wanted = np.broadcast_to(np.where(mask != 0, p, q), shape)
        np.testing.assert_array_equal(run("where", [mask, p, q], np.empty(shape, dtype), level=level), wanted)
        views = [scattered(rng, x) for x in (mask, p, q)]
        np.testing.assert_array_equal(run("where", views, scattered(rng, np.empty(shape, dtype)), level=level), wanted)
        for given in ([mask, p, q], views):
            for out in range(3):
                if given[out].shape == shape:
                    arguments = [x if j == out else x.copy() for j, x in enumerate(given)]
                    kept = arguments[out].copy()
                    np.testing.assert_array_equal(run("where", arguments, arguments[out], level=level), wanted)
                    arguments[out][...] = kept


def in_two_calls(args: list[Array], shape: tuple[int, ...], level: str) -> Array:
    """Return a x + b y by way of a memory for b y: `multiply`, then `multiply_add`."""
    a, x, b, y = (np.ascontiguousarray(np.broadcast_to(arg, shape)) for arg in args)
    product = run("multiply", [b, y], np.empty_like(a), level=level)
    return run("multiply_add", [a, x, product], np.empty_like(a), level=level)


def assert_same_bits(found: Array, wanted: Array) -> None:
    whole = f"u{found.dtype.itemsize}"
    nothing = np.isnan(found) & np.isnan(wanted)
    same = np.ascontiguousarray(found).view(whole) == np.ascontiguousarray(wanted).view(whole)
    assert (same | nothing).all()


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("dtype", DTYPES, ids=lambda t: t.__name__)
def test_sum_of_products(dtype: Any, level: str) -> None:
    """To the last bit what two calls give, however each input lies and whichever of them the output is."""
    rng = np.random.default_rng(9)
    for place, (shape, *kinds) in enumerate(itertools.product(SHAPES, KINDS, KINDS, KINDS, KINDS)):
        if place % (17 if dtype == np.float64 else 29):
            continue
        args = [operand(rng, "add", kind, shape, dtype) for kind in kinds]
        wanted = in_two_calls(args, shape, level)
        assert_same_bits(run("sum_of_products", args, np.empty(shape, dtype), level=level), wanted)
        views = [scattered(rng, x) for x in args]
        assert_same_bits(run("sum_of_products", views, scattered(rng, np.empty(shape, dtype)), level=level), wanted)
        for given in (args, views):
            for out in range(4):
                if given[out].shape == shape:
                    inputs = [x if j == out else x.copy() for j, x in enumerate(given)]
                    kept = inputs[out].copy()
                    assert_same_bits(run("sum_of_products", inputs, inputs[out], level=level), wanted)
                    inputs[out][...] = kept


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("dtype", DTYPES, ids=lambda t: t.__name__)
def test_a_sum_of_products_is_what_numpy_has(dtype: Any, level: str) -> None:
    """And one of the two products is rounded, the other one not: which, `test_sum_of_products` says."""
    rng = np.random.default_rng(10)
    a, x, b, y = (rng.standard_normal((2, 3, 5, 7)).astype(dtype) for _ in range(4))
    found = run("sum_of_products", [a, x, b, y], np.empty_like(a), level=level)
    wanted = a.astype(np.longdouble) * x + b.astype(np.longdouble) * y
    assert (np.abs(found - wanted) <= 1.5 * np.finfo(dtype).eps * (np.abs(a * x) + np.abs(b * y))).all()


#: Matrices, a trial and a sequence each, with columns behind: (steps, trials, rows, columns, sequences, columns), what
#: is repeated along some axes, and a bias.
MATRICES = ((2, 2, 3, 4, 5, 6), (1, 1, 5, 4, 7, 1), (2, 3, 4, 9, 1, 5), (1, 2, 6, 17, 1, 1))


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("dtype", DTYPES, ids=lambda t: t.__name__)
def test_operands_that_are_repeated_along_any_axes(dtype: Any, level: str) -> None:
    """Five axes that do not lie behind each other are no more than a call can have."""
    rng = np.random.default_rng(8)

    def repeated(shape: tuple[int, ...], axes: tuple[int, ...]) -> Array:
        return rng.standard_normal([1 if axis in axes else n for axis, n in enumerate(shape)]).astype(dtype)

    subsets = [axes for count in range(5) for axes in itertools.combinations(range(1, 6), count)]
    for shape in MATRICES:
        out = np.empty(shape, dtype)
        for first, second in itertools.product(subsets, ((), (2,), (3,), (2, 4), (3, 5), (1, 5))):
            x, y, z = repeated(shape, first), repeated(shape, second), repeated(shape, ())
            run("copy", [x], out, level=level)
            np.testing.assert_array_equal(out, np.broadcast_to(x, shape))
            run("greater", [x, y], out, level=level)
            np.testing.assert_array_equal(out, np.broadcast_to(x > y, shape))
            run("where", [out.copy(), x, y], out, level=level)
            np.testing.assert_array_equal(out, np.broadcast_to(np.maximum(x, y), shape))
            run("multiply_add", [x, y, z], out, level=level)
            wanted = x.astype(np.longdouble) * y + z
            assert (np.abs(out - wanted) <= np.finfo(dtype).eps * (np.abs(x * y) + np.abs(z))).all()
            last = subsets[int(rng.integers(len(subsets)))]
            args = [repeated(shape, axes) for axes in (first, second, (), last)]
            for _ in range(4):  # each of the four may be any of these
                args = [args[-1], *args[:-1]]
                assert_same_bits(run("sum_of_products", args, out, level=level), in_two_calls(args, shape, level))


def test_every_operation_is_tested() -> None:
    here = {*ONE, *TWO, "ldexp", "multiply_add", "where", "sum_of_products"}
    elsewhere = {name for name in OPERATIONS if name.startswith(("product", "clip", "softmax", "largest"))}
    elsewhere |= {"cumsum", "cumsum_reversed", "sum_axis", "sum_product"}
    elsewhere |= {name for name in OPERATIONS if "norm" in name.strip("_") and name not in here}
    assert here | elsewhere == OPERATIONS


@pytest.mark.parametrize("op", ["add", "tanh", "product", "multiply_add", "sum_of_products"])
def test_what_overlaps_is_read_before_it_is_written(op: str) -> None:
    """NumPy takes a copy of an operand that the output overlaps without being it; so does the interpreter."""
    memory = np.random.default_rng(5).standard_normal((2, 1, 12, 1))
    views = [memory[:, :, 1:9], memory[:, :, 0:8], memory[:, :, 3:11], memory[:, ::-1, 7::-1]]
    for out, a in itertools.permutations(range(len(views)), 2):
        mine = memory.copy()
        shifted = [mine[:, :, 1:9], mine[:, :, 0:8], mine[:, :, 3:11], mine[:, ::-1, 7::-1]]
        whole = np.random.default_rng(6).standard_normal((2, 1, 8, 1))
        matrix = np.random.default_rng(6).standard_normal((1, 1, 8, 8))
        arguments = {
            "add": [shifted[a], whole],
            "tanh": [shifted[a]],
            "product": [matrix, shifted[a]],
            "multiply_add": [whole, whole, shifted[a]],
            "sum_of_products": [whole, whole, whole, shifted[a]] if a % 2 else [shifted[a], whole, whole, shifted[a]],
        }[op]
        wanted = {
            "add": views[a] + whole,
            "tanh": np.tanh(views[a]),
            "product": matrix @ views[a],
            "multiply_add": whole * whole + views[a],
            "sum_of_products": whole * (whole if a % 2 else views[a]) + whole * views[a],
        }[op]
        run(op, arguments, shifted[out])
        np.testing.assert_allclose(shifted[out], wanted, rtol=1e-13, atol=1e-13)


def test_parts_of_one_array_are_apart() -> None:
    """Interleaved by trials, they lie within each other's bounds and touch nowhere: no copy is needed."""
    memory = np.random.default_rng(5).standard_normal((4, 3, 10, 2))
    wanted = memory.copy()
    wanted[:, :, :5] = wanted[:, :, 5:] * 2
    out, a = memory[:, :, :5], memory[:, :, 5:]
    Program(np.float64, [Call("add", (Operand(a, True), Operand(a, True)), Operand(out, True))]).run(0, 4, False)
    np.testing.assert_array_equal(memory, wanted)
