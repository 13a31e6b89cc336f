"""An exact zero has no exponent: where one meets a tiny number, the tiny number is what there is."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from engine_runs import problem_of

from gradcli.diagnostics.clipping import _cosine, total_log2_norm
from gradcli.diagnostics.paths_walk import Adjoint
from gradcli.engine.run import Engine
from gradcli.engine.scaled import Scaled, scale_by
from gradcli.engine.weights import PartedSum

Array = np.ndarray[Any, Any]


def gradients(
    equations: str, x: Array, parameters: dict[str, Any], *, block: int | None = None, **fields: Any
) -> dict[str, Scaled]:
    """Return the parameter gradients of a cell of one unit whose states begin at 0; each loss is the last output.

    Args:
        x: (T, B, input_size). fields: of the spec.
    """
    states = [line.partition("[")[0] for line in equations.splitlines() if "[" in line.partition("=")[0]]
    seq_len, batch, _ = x.shape
    layers = [f"layer{i}" for i in range(fields.get("num_layers", 1))]
    saved: dict[str, Array] = {"x": x.transpose(0, 1, 2)[None]}
    for layer in layers:
        for name, value in parameters.items():
            saved[f"param.{layer}.{name}"] = np.asarray(value, np.float64)[None]
        for name in states:
            saved[f"state.{layer}.{name}"] = np.zeros((1, 1, batch, 1))
    spec = {
        "cell": {"equations": equations, "output": fields.pop("output", None)},
        "hidden_size": 1,
        "seq_len": seq_len,
        "loss": {"kind": "sum", "at": "last"},
        **fields,
    }
    return Engine(problem_of(spec, saved), block=block).run().gradients


def log2_of(gradient: Scaled) -> float:
    return float(gradient.log2_norm()[0])


def at_first(seq_len: int, value: float = 1.0) -> Array:
    """Return an input that is `value` at the first step and 0 at all others, (T, 1, 1)."""
    x = np.zeros((seq_len, 1, 1))
    x[0] = value
    return x


@pytest.mark.parametrize("size", [1.0, 1e-200, 1e-300])
@pytest.mark.parametrize("seq_len", [330, 1200])
def test_an_input_at_the_first_step_alone(seq_len: int, size: float) -> None:
    found = gradients("h[t] = 0.5 * h[t-1] + W @ x[t]", at_first(seq_len, size), {"W": [[1.0]]})
    assert log2_of(found["layer0.W"]) == pytest.approx(-(seq_len - 1) + np.log2(size), rel=1e-13)


@pytest.mark.parametrize("size", [1.0, 1e-200])
def test_the_product_with_the_state_hides_none_with_the_input(size: float) -> None:
    # W_h's gradient is that of the last steps, W_x's that of the first one; both are rows of the same large product.
    x = at_first(1200, size)
    found = gradients("h[t] = tanh(W_h @ h[t-1] + W_x @ x[t] + b)", x, {"W_h": [[0.3]], "W_x": [[1.0]], "b": [0.5]})
    h = np.tanh(size + 0.5)
    slopes = [1 - h * h]
    for _ in range(1199):
        h = np.tanh(0.3 * h + 0.5)
        slopes.append(1 - h * h)
    expected = np.log2(slopes).sum() + 1199 * np.log2(0.3) + np.log2(size)
    assert log2_of(found["layer0.W_x"]) == pytest.approx(expected, rel=1e-12)
    assert log2_of(found["layer0.W_h"]) > -10
    assert log2_of(found["layer0.b"]) > -10


@pytest.mark.parametrize(("dtype", "spread"), [(np.float64, 1000), (np.float32, 120)])
def test_the_parts_of_a_sum_are_added_each_at_its_own_size(dtype: type[Any], spread: int) -> None:
    """Held against fractions: parts of any size at any power of two, zeros among them, the last to cancel the first."""
    rng, heights, widths = np.random.default_rng(5), [2, 1, 3], [1, 2]
    rows, columns = np.repeat(range(3), heights), np.repeat(range(2), widths)
    sums = PartedSum(heights, widths)

    def of_entries(of_parts: Array) -> Array:
        return of_parts[:, rows][:, :, columns]

    def exactly(mantissa: Array, exponent: Array) -> Array:
        pairs = zip(mantissa.ravel(), of_entries(exponent).ravel(), strict=True)
        values = [Fraction(float(m)) * Fraction(2) ** int(e) for m, e in pairs]
        return np.array(values, dtype=object).reshape(mantissa.shape)

    for _ in range(30):
        terms = []
        for _ in range(2):
            sizes = 2.0 ** rng.integers(-spread, spread, (2, 3, 2))
            mantissa = (rng.standard_normal((2, 6, 3)) * of_entries(sizes)).astype(dtype)
            mantissa[:, rows == rng.integers(3)] = 0.0
            terms.append((mantissa, rng.integers(-2 * spread, 2 * spread, (2, 3, 2))))
        if rng.integers(2):
            terms.append((-terms[0][0], terms[0][1]))
        sums.clear()
        for mantissa, exponent in terms:
            sums.add(mantissa.copy(), exponent, sums.largest(mantissa))
        found = sums.scaled()
        assert found is not None
        error = abs(exactly(found[0], found[1].reshape(2, 3, 2)) - sum(exactly(*term) for term in terms))
        # What is lost is small beside the largest that has entered the part.
        largest = of_entries(sums.largest(np.max([abs(exactly(*term)) for term in terms], axis=0)))
        assert (error <= 4 * Fraction(float(np.finfo(dtype).eps)) * largest).all()


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_a_power_of_two_scales_many_numbers_as_it_does_one(dtype: type[Any]) -> None:
    """Whatever they are: ldexp of each by itself, to the last bit, at the ends of the range too."""
    info, random = np.finfo(dtype), np.random.default_rng(1)
    ends = [
        0.0,
        -0.0,
        np.inf,
        -np.inf,
        np.nan,
        info.max,
        info.tiny,
        info.smallest_subnormal,
        -3 * info.smallest_subnormal,
    ]
    sizes = random.integers(info.minexp - info.nmant, info.maxexp, 4000)
    numbers = np.concatenate([ends, np.ldexp(random.uniform(-1, 1, 4000), sizes)]).astype(dtype)
    with np.errstate(all="ignore"):
        for exponent in (*range(-1100, 1101, 25), -1, 0, 1, -(10**15), 10**15):
            found = scale_by(numbers, np.array([exponent]))
            assert found.dtype == dtype
            within = max(-5000, min(exponent, 5000))
            np.testing.assert_array_equal(found, [np.ldexp(number, within) for number in numbers])


def test_one_gate_hides_no_other() -> None:
    # The adjoint of the gate's pre-activation is zero but at the first step: c[t-1] is zero there alone.
    equations = "h[t] = 0.5 * h[t-1] + (W_a @ h[t-1] + b_a + U_a @ x[t]) * p + relu(W_b @ h[t-1] + U_b @ x[t])"
    x = at_first(1200)
    found = gradients(
        equations, x, {"W_a": [[0.0]], "b_a": [0.0], "U_a": [[0.0]], "p": [0.1], "W_b": [[0.0]], "U_b": [[1.0]]}
    )
    assert log2_of(found["layer0.U_b"]) == pytest.approx(-1199, rel=1e-13)
    assert log2_of(found["layer0.U_a"]) == pytest.approx(-1199 + np.log2(0.1), rel=1e-13)
    assert log2_of(found["layer0.b_a"]) == pytest.approx(np.log2(0.1 * 2), rel=1e-13)


@pytest.mark.parametrize(
    "equation",
    [
        "h[t] = (E @ x[t]) * h[t-1] + w * (F @ x[t])",
        "v = w * (F @ x[t])\nh[t] = (E @ x[t]) * h[t-1] + tanh(W @ h[t-1] + U @ v)",
    ],
    ids=["elementwise", "through a product"],
)
def test_a_sequence_without_input_hides_no_other(equation: str) -> None:
    # The first sequence keeps its gradient and has no input; the second loses it, and has one.
    seq_len = 1500
    x = np.zeros((seq_len, 2, 2))
    x[:, 0, 0], x[:, 1, 0] = 1.0, 0.25
    x[0, 1, 1] = 1e-3
    numbers = {"E": [[1.0, 0.0]], "w": [1.0], "F": [[0.0, 1.0]], "W": [[0.0]], "U": [[1.0]]}
    used = {name: value for name, value in numbers.items() if f"{name} " in equation}
    found = gradients(equation, x, used)
    slope = 1.0 if "tanh" not in equation else 1 - np.tanh(1e-3) ** 2
    # Half of it: the batch loss is the mean over the two.
    expected = -2 * (seq_len - 1) - 1 + np.log2(1e-3 * slope)
    assert log2_of(found["layer0.w"]) == pytest.approx(expected, rel=1e-12)
    if "U" in used:
        assert log2_of(found["layer0.U"]) == pytest.approx(expected, rel=1e-12)


def test_a_slow_state_hides_no_fast_one() -> None:
    # Two recurrences side by side; the input is there at the first step alone.
    equations = "s[t] = 0.25 * s[t-1] + u * x[t]\nc[t] = 0.99 * c[t-1] + v * x[t]\nh[t] = s[t] + c[t]"
    seq_len = 2000
    found = gradients(equations, at_first(seq_len), {"u": [1.0], "v": [1.0]}, output="h")
    assert log2_of(found["layer0.u"]) == pytest.approx(-2 * (seq_len - 1), rel=1e-13)
    assert log2_of(found["layer0.v"]) == pytest.approx((seq_len - 1) * np.log2(0.99), rel=1e-12)


def test_a_slow_state_that_reads_nothing_hides_no_fast_one_from_the_layer_below() -> None:
    # Only the fast state takes the layer below, whose parameter gets all of its gradient by that way.
    equations = "s[t] = 0.25 * s[t-1] + u * x[t]\nc[t] = 0.99 * c[t-1] + v * x[t]\nh[t] = s[t] + c[t]"
    seq_len = 1500
    found = gradients(equations, at_first(seq_len), {"u": [1.0], "v": [0.0]}, output="h", num_layers=2)
    # h_T = sum_k s_k 0.25^(T-k), s_k = 0.25^(k-1) u u': T terms of 0.25^(T-1) each.
    assert log2_of(found["layer0.u"]) == pytest.approx(-2 * (seq_len - 1) + np.log2(seq_len), rel=1e-12)


def test_a_slow_state_that_reads_a_fast_one_with_weight_zero() -> None:
    equations = "c[t] = 0.99 * c[t-1] + k * h[t-1]\nh[t] = 0.25 * h[t-1] + u * x[t]\ny[t] = c[t] + h[t]"
    seq_len = 1500
    found = gradients(equations, at_first(seq_len), {"u": [1.0], "k": [0.0]}, output="y")
    assert log2_of(found["layer0.u"]) == pytest.approx(-2 * (seq_len - 1), rel=1e-13)


def test_the_cosine_of_clipped_gradients_knows_no_exponent_of_zeros() -> None:
    tiny = Scaled(np.array([[1.0, 2.0]]), np.array([-2000]))
    zero = Scaled(np.zeros((1, 3)), np.array([0]))
    same = {"W": zero, "b": tiny}
    assert _cosine(same, same, {}) == pytest.approx(1.0, rel=1e-14)
    assert total_log2_norm(same, {}) == pytest.approx(-2000 + 0.5 * np.log2(5), rel=1e-14)


def test_adjoints_of_paths_add_up_beside_zeros() -> None:
    tiny = Adjoint(np.full((1, 2, 1), 0.75), np.array([[-2000]]))
    zero = Adjoint(np.zeros((1, 2, 1)), np.array([[0]]))
    for total in (tiny + zero, zero + tiny):
        assert total.log2_norm() == pytest.approx(tiny.log2_norm(), rel=1e-14)
    both = Adjoint(np.concatenate([zero.mantissa, tiny.mantissa], axis=2), np.array([[0, -2000]]))
    assert both.aligned().log2_norm()[0, 1] == pytest.approx(float(tiny.log2_norm()[0, 0]), rel=1e-14)


def test_scaled_numbers_add_up_beside_zeros_and_in_any_size() -> None:
    tiny, zero = Scaled(np.array([[3.0]]), np.array([-3000])), Scaled(np.zeros((1, 1)), np.array([500]))
    assert log2_of(tiny.add(zero)) == log2_of(zero.add(tiny)) == log2_of(tiny)
    # The first is small by its mantissa, the second by its exponent.
    mantissa = Scaled(np.array([[2.0**-1000]]), np.array([0]))
    assert log2_of(mantissa.add(Scaled(np.array([[1.0]]), np.array([-1000])))) == -999
