"""The interpreter's own functions: to two units in the last place, and right where numbers end."""

from __future__ import annotations

import decimal
import math
from collections.abc import Callable
from decimal import Decimal
from typing import Any

import numpy as np
import pytest
from compiled_programs import DTYPES, LEVELS, NEEDED, run, ulps

pytestmark = NEEDED
Array = np.ndarray[Any, Any]
LONG = np.finfo(np.longdouble).nmant > np.finfo(np.float64).nmant + 8


def _sigmoid(a: Array) -> Array:
    e = np.exp(-np.abs(a))
    return np.where(a < 0, e, 1) / (1 + e)


def _softplus(a: Array) -> Array:
    return np.where(a > 20, a, np.log1p(np.exp(a)))


def _log_sigmoid(a: Array) -> Array:
    return np.minimum(a, 0) - np.log1p(np.exp(-np.abs(a)))


def _elu(a: Array) -> Array:
    return np.where(a > 0, a, np.expm1(a))


#: The function, its exact value, and where it is tried: between bounds, on either side of zero.
FUNCTIONS: dict[str, tuple[Callable[[Array], Array], float, float]] = {
    "exp": (np.exp, -746.0, 709.7),
    "tanh": (np.tanh, -22.0, 22.0),
    # Below -709.78, where e^-a is infinite, it is 0 as NumPy's is, and not e^a.
    "sigmoid": (_sigmoid, -709.7, 60.0),
    "sigmoid_of_negated": (lambda a: _sigmoid(-a), -60.0, 709.7),
    "log": (np.log, 1e-300, 1e300),
    "softplus": (_softplus, -745.0, 25.0),
    "log_sigmoid": (_log_sigmoid, -1e300, 745.0),
    "elu": (_elu, -60.0, 5.0),
    "sqrt": (np.sqrt, 1e-300, 1e300),
    "sin": (np.sin, -1000.0, 1000.0),
    "cos": (np.cos, -1000.0, 1000.0),
}
FLOAT32 = {
    "exp": (-104.0, 88.7),
    "sigmoid": (-88.7, 40.0),
    "sigmoid_of_negated": (-40.0, 88.7),
    "softplus": (-104.0, 25.0),
    "log_sigmoid": (-1e38, 104.0),
}


def samples(name: str, dtype: Any, count: int) -> Array:
    """Return arguments: even over the range, near 0, and over all magnitudes down to subnormals."""
    rng = np.random.default_rng(7)
    _, low, high = FUNCTIONS[name]
    if dtype == np.float32:
        low, high = FLOAT32.get(name, (max(low, 1e-37) if low > 0 else low, min(high, 1e38)))
    smallest = float(np.finfo(dtype).smallest_subnormal)
    spread = np.exp(rng.uniform(math.log(smallest), math.log(high), count))
    if low > 0:
        return np.concatenate([spread, rng.uniform(0.4, 2.5, count), rng.uniform(0.999, 1.001, count)]).astype(dtype)
    below = -np.exp(rng.uniform(math.log(smallest), math.log(-low), count))
    near = rng.uniform(-2.0, 2.0, 2 * count)
    return np.concatenate([rng.uniform(low, high, 2 * count), near, spread, below]).astype(dtype)


@pytest.mark.skipif(not LONG, reason="long double has no more digits than double on this platform")
@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("dtype", DTYPES, ids=lambda t: t.__name__)
@pytest.mark.parametrize("name", FUNCTIONS)
def test_to_two_units_in_the_last_place(name: str, dtype: Any, level: str) -> None:
    a = samples(name, dtype, 100_000)
    with np.errstate(all="ignore"):
        exact = FUNCTIONS[name][0](a.astype(np.longdouble))
    found = run(name, [a[None]], np.empty_like(a[None]), level=level)[0]
    distance = ulps(found, exact)
    worst = int(np.argmax(distance))
    assert distance[worst] <= 2.0, (a[worst], found[worst], exact[worst])


def _decimal(name: str, x: Decimal) -> Decimal:
    one = Decimal(1)
    if name == "exp":
        return x.exp()
    if name == "tanh":
        e = (-2 * abs(x)).exp()
        return ((one - e) / (one + e)).copy_sign(x)
    if name == "sigmoid":
        return one / (one + (-x).exp())
    return x.ln()


@pytest.mark.parametrize("dtype", DTYPES, ids=lambda t: t.__name__)
@pytest.mark.parametrize("name", ["exp", "tanh", "sigmoid", "log"])
def test_against_decimals_of_fifty_digits(name: str, dtype: Any) -> None:
    """On every platform, whatever its long double."""
    a = samples(name, dtype, 60)
    found = run(name, [a[None]], np.empty_like(a[None]))[0]
    smallest = float(np.finfo(dtype).smallest_subnormal)
    with decimal.localcontext(decimal.Context(prec=400 if name == "tanh" else 50)):
        for x, y in zip(a.tolist(), found.tolist(), strict=True):
            exact = _decimal(name, Decimal(x))
            unit = max(float(np.spacing(dtype(abs(float(exact))))), smallest)
            assert abs(Decimal(y) - exact) <= 2 * Decimal(unit), (x, y, exact)


INF, NAN = math.inf, math.nan
ENDS: dict[str, list[tuple[float, float]]] = {
    "exp": [(INF, INF), (-INF, 0.0), (0.0, 1.0), (-0.0, 1.0), (800.0, INF), (-800.0, 0.0)],
    "tanh": [(INF, 1.0), (-INF, -1.0), (0.0, 0.0), (-0.0, -0.0), (30.0, 1.0), (-30.0, -1.0), (5e-324, 5e-324)],
    "sigmoid": [(INF, 1.0), (-INF, 0.0), (0.0, 0.5), (-800.0, 0.0), (800.0, 1.0)],
    "sigmoid_of_negated": [(INF, 0.0), (-INF, 1.0), (0.0, 0.5), (800.0, 0.0), (-800.0, 1.0)],
    "log": [(INF, INF), (-INF, NAN), (0.0, -INF), (-0.0, -INF), (-1.0, NAN), (1.0, 0.0)],
    "softplus": [(INF, INF), (-INF, 0.0), (21.0, 21.0), (-800.0, 0.0)],
    "log_sigmoid": [(INF, 0.0), (-INF, -INF), (800.0, 0.0), (-800.0, -800.0)],
    "relu": [(INF, INF), (-INF, 0.0), (-1.0, 0.0)],
    "elu": [(INF, INF), (-INF, -1.0), (-0.0, -0.0), (0.0, 0.0)],
    "_sign": [(INF, 1.0), (-INF, -1.0), (0.0, 0.0), (-0.0, 0.0), (5e-324, 1.0)],
    "_positive": [(INF, 1.0), (-INF, 0.0), (0.0, 0.0), (5e-324, 1.0)],
    "_nonpositive": [(INF, 0.0), (-INF, 1.0), (0.0, 1.0), (-0.0, 1.0)],
    "abs": [(INF, INF), (-INF, INF), (-0.0, 0.0)],
    "reciprocal": [(INF, 0.0), (-INF, -0.0), (0.0, INF), (-0.0, -INF)],
    "sqrt": [(INF, INF), (-1.0, NAN), (-0.0, -0.0)],
}
#: For these NaN is no number that is above or below anything.
COMPARISONS = ("_positive", "_nonpositive", "_within_1", "_within_3")


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("dtype", DTYPES, ids=lambda t: t.__name__)
@pytest.mark.parametrize("name", ENDS)
def test_the_ends(name: str, dtype: Any, level: str) -> None:
    arguments = [*(x for x, _ in ENDS[name]), NAN]
    a = np.array(arguments, dtype)
    wanted = np.array([*(y for _, y in ENDS[name]), 0.0 if name in COMPARISONS else NAN], dtype)
    if dtype == np.float32:
        wanted = np.where(a == 0, np.where(np.abs(wanted) < 1e-40, a, wanted), wanted) if name == "tanh" else wanted
        if name in ("_sign", "_positive"):
            wanted[np.array(arguments) == 5e-324] = 0.0  # it is zero there
    # Often enough that whole vectors and what is left over are met.
    a, wanted = np.tile(a, 11), np.tile(wanted, 11)
    found = run(name, [a[None]], np.empty_like(a[None]), level=level)[0]
    np.testing.assert_array_equal(found, wanted)
    numbers = ~np.isnan(wanted)
    np.testing.assert_array_equal(np.signbit(found[numbers]), np.signbit(wanted[numbers]))


@pytest.mark.parametrize("dtype", DTYPES, ids=lambda t: t.__name__)
def test_underflow_is_gradual(dtype: Any) -> None:
    smallest = np.finfo(dtype).smallest_subnormal
    edge = math.log(float(smallest)) if dtype == np.float64 else math.log(1.4e-45)
    a = np.linspace(edge + 1, edge + 20, 200).astype(dtype)
    found = run("exp", [a[None]], np.empty_like(a[None]))[0]
    assert (found > 0).all()
    assert (np.diff(found) >= 0).all()
    assert found[0] <= 4 * smallest


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("dtype", DTYPES, ids=lambda t: t.__name__)
def test_tanh_is_odd_and_never_falls_by_more_than_a_unit(dtype: Any, level: str) -> None:
    rng = np.random.default_rng(0)
    a = np.sort(rng.uniform(0, 20, 200_000)).astype(dtype)
    up = run("tanh", [a[None]], np.empty_like(a[None]), level=level)[0]
    down = run("tanh", [-a[None]], np.empty_like(a[None]), level=level)[0]
    np.testing.assert_array_equal(up, -down)
    assert (np.diff(up) >= -2 * np.spacing(up[1:])).all()
    assert up.max() == 1.0
