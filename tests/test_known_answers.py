"""Answers known without a program, asked of the command line: recurrences whose gradients have closed forms."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from simulated import ONE_SEQUENCE, Array, Simulated, simulate, table

EXACT = 1e-10
LINEAR = "h[t] = W @ h[t-1]"
SCALAR = "h[t] = w * h[t-1]"


def linear(folder: Path, matrix: Any, vector: Any, seq_len: int, *, save: bool = False) -> Simulated:
    """Simulate h[t] = W h[t-1] with L = v . h[T]: the gradient at distance d is (W^T)^d v."""
    spec = {
        "cell": {"equations": LINEAR},
        "hidden_size": len(vector),
        "seq_len": seq_len,
        "params": {"W": np.asarray(matrix, dtype=float).tolist()},
        "loss": {"kind": "projection", "vector": np.asarray(vector, dtype=float).tolist()},
        **ONE_SEQUENCE,
    }
    return simulate(spec, folder, save=save)


def scalar(folder: Path, equations: str, seq_len: int, *, save: bool = False, **fields: Any) -> Simulated:
    """Simulate a cell of one unit with L = h[T]."""
    spec = {
        "cell": {"equations": equations, "constants": fields.pop("constants", {})},
        "hidden_size": 1,
        "input_size": 1,
        "seq_len": seq_len,
        "loss": {"kind": "sum"},
        **ONE_SEQUENCE,
    }
    return simulate({**spec, **fields}, folder, save=save)


def assert_log10(found: Array, expected: Any) -> None:
    """Compare log10 norms: the norms to 1e-10 relative, beyond the range of floats to 1e-13 of the logarithm."""
    expected = np.asarray(expected)
    assert found.shape == expected.shape
    np.testing.assert_allclose(found, expected, rtol=1e-13, atol=EXACT / math.log(10))


def jacobian_norms(folder: Path, matrix: Any, seq_len: int) -> Array:
    """Return the largest singular value of W^d at each distance, from one run for each unit of the output."""
    rows = [
        linear(folder, matrix, unit, seq_len, save=True).arrays for unit in np.eye(len(matrix))
    ]  # row i of W^d is (W^T)^d e_i
    gradients = np.stack([np.ldexp(a["grad_state.layer0.h"][0, :, 0], a["log2_state.layer0.h"][0]) for a in rows])
    return np.array([np.linalg.norm(gradients[:, t], ord=2) for t in range(seq_len, -1, -1)])


def scalar_fixed_point(w: float) -> float:
    """Return the positive solution of h = tanh(w h)."""
    h = 1.0
    for _ in range(1000):
        h = math.tanh(w * h)
    return h


# --- linear recurrences ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("factor", [0.9, -0.9, 1.0, 1.3, -2.0])
@pytest.mark.parametrize("size", [1, 4])
def test_a_multiple_of_the_identity_scales_by_its_factor(factor: float, size: int, tmp_path: Path) -> None:
    found = linear(tmp_path, factor * np.eye(size), np.arange(1.0, size + 1), 50)
    assert_log10(found.log10_ratio(), np.arange(51) * math.log10(abs(factor)))
    if factor == 0.9:
        assert found.ratio()[50] == pytest.approx(5.1537752e-03, rel=1e-8)


def test_an_orthogonal_matrix_keeps_the_norm(tmp_path: Path) -> None:
    spec = {"cell": {"equations": LINEAR}, "hidden_size": 16, "seq_len": 1000, "init": {"W": "orthogonal"}}
    found = simulate({**spec, **ONE_SEQUENCE, "loss": {"kind": "projection"}}, tmp_path)
    assert np.max(np.abs(found.ratio() - 1)) < 1e-12
    assert (found.verdict["kind"], found.verdict["pattern"]) == ("stable", "flat")
    assert found.verdict["half_life"] is None
    assert found.verdict["horizon"] == {"threshold": None, "float32": None}


def test_a_scaled_orthogonal_matrix_grows_by_its_gain(tmp_path: Path) -> None:
    init = {"W": {"orthogonal": {"gain": 1.1}}}
    spec = {"cell": {"equations": LINEAR}, "hidden_size": 16, "seq_len": 50, "init": init}
    found = simulate({**spec, "loss": {"kind": "projection"}}, tmp_path)
    assert_log10(found.log10_ratio(), np.arange(51) * math.log10(1.1))


def test_a_scaled_rotation_shrinks_by_its_modulus(tmp_path: Path) -> None:
    turn = [[math.cos(0.3), -math.sin(0.3)], [math.sin(0.3), math.cos(0.3)]]
    found = linear(tmp_path, 0.95 * np.array(turn), [0.6, 0.8], 50)
    assert_log10(found.curve(), np.arange(51) * math.log10(0.95))
    assert found.ratio()[50] == pytest.approx(0.0769449753, rel=1e-9)


def test_the_larger_of_two_eigenvalues_gives_the_slope_of_the_tail(tmp_path: Path) -> None:
    found = linear(tmp_path, np.diag([1.1, 0.5]), [1.0, 1.0], 100)
    d = np.arange(101)
    assert_log10(found.curve(), 0.5 * np.log10(1.1 ** (2 * d) + 0.25**d))
    assert 10 ** found.curve()[10] == pytest.approx(2.5937426440, rel=1e-6)
    assert 10 ** found.curve()[50] == pytest.approx(117.3908528797, rel=EXACT)
    slope = (found.curve()[100] - found.curve()[50]) / 50 * math.log(10)
    assert slope == pytest.approx(0.0953102, abs=1e-7)
    assert found.verdict["rate_per_step"] == pytest.approx(1.1, rel=1e-3)
    assert found.verdict["kind"] == "exploding"


JORDAN = [[0.9, 1.0], [0.0, 0.9]]


def test_a_jordan_block_grows_before_it_shrinks(tmp_path: Path) -> None:
    norms = jacobian_norms(tmp_path, JORDAN, 100)
    k = np.arange(1, 101)
    a, b = 0.9**k, k * 0.9 ** (k - 1.0)
    np.testing.assert_allclose(norms[1:], np.sqrt((2 * a**2 + b**2 + b * np.sqrt(b**2 + 4 * a**2)) / 2), rtol=EXACT)
    printed = {
        1: 1.5295630141, 5: 3.3835510361, 9: 3.9125670784, 10: 3.9053357993,
        20: 2.7071633508, 50: 0.2864135828, 100: 2.9515056e-3,
    }  # fmt: skip
    for distance, norm in printed.items():
        assert norms[distance] == pytest.approx(norm, rel=1e-8)
    assert np.argmax(norms) == 9
    assert np.flatnonzero(norms[1:] < 1)[0] + 1 == 35


@pytest.mark.parametrize(("seq_len", "kind"), [(9, "stable"), (34, "stable"), (100, "transient"), (400, "transient")])
def test_a_short_sequence_does_not_make_a_jordan_block_explode(seq_len: int, kind: str, tmp_path: Path) -> None:
    found = linear(tmp_path, JORDAN, [1.0, 0.0], seq_len)
    assert found.verdict["kind"] == kind
    assert found.verdict["peak"]["distance"] == 9
    peak = math.hypot(0.9**9, 9 * 0.9**8) / math.hypot(0.9, 1.0)
    assert 10 ** found.verdict["peak"]["log10_ratio"] == pytest.approx(peak, rel=EXACT)


def test_a_nilpotent_shift_ends_in_exact_zeros(tmp_path: Path) -> None:
    shift = np.eye(5, k=-1)
    found = linear(tmp_path, shift, [0, 0, 0, 0, 1], 7)
    assert found.curve().tolist() == [0.0] * 5 + [-np.inf] * 3
    assert found.report["curve"]["log10_norm"][5:] == [None] * 3
    assert found.report["curve"]["zero_from"] == 5
    assert found.verdict["kind"] == "dead"
    assert jacobian_norms(tmp_path, shift, 7).tolist() == [1.0] * 5 + [0.0] * 3
    assert "exact zero" in table(tmp_path)


def test_the_gradient_of_a_scalar_weight_is_the_sum_of_equal_contributions(tmp_path: Path) -> None:
    found = scalar(tmp_path, SCALAR, 50, params={"w": 0.9}, h_0=1.0)
    assert_log10(found.curve(), np.arange(51) * math.log10(0.9))
    assert 10 ** found.parameter("layer0.w") == pytest.approx(50 * 0.9**49, rel=EXACT)
    assert 10 ** found.parameter("layer0.w") == pytest.approx(0.2863208448, rel=1e-9)


# --- far beyond the range of floats ----------------------------------------------------------------------------------


@pytest.mark.parametrize(("w", "shown"), [(0.5, "-30103.0"), (2.0, "30103.0")])
def test_a_hundred_thousand_steps_in_the_table(w: float, shown: str, tmp_path: Path) -> None:
    found = scalar(tmp_path, SCALAR, 100_000, params={"w": w}, clip=[])
    np.testing.assert_array_equal(found.curve(), np.arange(100_001) * math.log2(w) * math.log10(2))
    assert found.verdict["rate_per_step"] == pytest.approx(w, rel=1e-12)
    rows = [line.split() for line in table(tmp_path).splitlines()]
    last = [row for row in rows if row and row[0].replace(",", "") == "100000"]
    assert [row[1] for row in last] == [shown]


@pytest.mark.parametrize("order", ["s first", "h first"])
@pytest.mark.parametrize(("slow", "fast"), [(0.999, 0.001), (0.001, 0.999), (3.0, 1e-4), (1e-4, 3.0)])
def test_states_that_decay_apart_each_keep_their_own_curve(
    slow: float, fast: float, order: str, tmp_path: Path
) -> None:
    lines = [f"s[t] = {slow} * s[t-1]", f"h[t] = {fast} * h[t-1] + s[t-1]"]
    seq_len = 2000
    found = scalar(tmp_path, "\n".join(lines if order == "s first" else lines[::-1]), seq_len, clip=[])
    d = np.arange(seq_len + 1)
    assert_log10(found.curve("layer0.h"), d * math.log10(fast))
    # ds: (slow^d - fast^d) / (slow - fast), the larger power taken out
    large, small = max(slow, fast), min(slow, fast)
    expected = d[1:] * math.log10(large) + np.log10((1 - (small / large) ** d[1:]) / (large - small))
    assert_log10(found.curve("layer0.s")[1:], expected)
    assert found.curve("layer0.s")[0] == -np.inf
    gap = found.curve("layer0.s")[-1] - found.curve("layer0.h")[-1]
    assert gap > 5000 if slow > fast else abs(gap) < 1


def test_an_lstm_far_below_the_smallest_float(tmp_path: Path) -> None:
    spec = {"cell": "lstm", "hidden_size": 8, "input_size": 4, "seq_len": 5000, "clip": [], **ONE_SEQUENCE}
    drawn = simulate(spec, tmp_path)
    assert drawn.curve()[-1] < -600
    assert drawn.verdict["kind"] == "vanishing"
    assert drawn.verdict["pattern"] == "exponential"
    without = simulate({**spec, "params": {"W_h*": 0.0, "b_f": 0.0, "W_xf": 0.0}}, tmp_path)
    assert_log10(without.log10_ratio("layer0.c"), np.arange(5001) * math.log10(0.5))


# --- scalar nonlinear recurrences ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("w", "fixed_point", "slope"),
    [
        (1.1, 0.5029405749, 0.8217558559),
        (1.5, 0.8585596366, 0.3943130255),
        (2.0, 0.9575040241, 0.1663720878),
        (3.0, 0.9949015285, 0.0305128460),
    ],
)
def test_tanh_at_its_fixed_point(w: float, fixed_point: float, slope: float, tmp_path: Path) -> None:
    h = scalar_fixed_point(w)
    assert h == pytest.approx(fixed_point, abs=1e-10)
    found = scalar(tmp_path, "h[t] = tanh(w * h[t-1])", 10, params={"w": w}, h_0=h)
    assert_log10(found.curve(), np.arange(11) * math.log10(w * (1 - h * h)))
    assert found.ratio()[1] == pytest.approx(slope, abs=1e-10)
    if w == 2.0:
        assert found.ratio()[10] == pytest.approx(1.624818e-08, rel=1e-6)


def test_tanh_in_its_two_cycle(tmp_path: Path) -> None:
    found = scalar(tmp_path, "h[t] = tanh(w * h[t-1])", 400, params={"w": -2.0}, h_0=0.3)
    exponent = (found.curve()[200] - found.curve()[0]) / 200 * math.log(10)
    assert exponent == pytest.approx(-1.7935285065, abs=1e-8)


@pytest.mark.parametrize(
    ("seq_len", "gradient"),
    [(10, 0.22275953), (100, 0.01306225567), (1000, 4.484294648e-04), (10_000, 1.430766347e-05)],
)
def test_critical_tanh_is_polynomial_and_not_exponential(seq_len: int, gradient: float, tmp_path: Path) -> None:
    found = scalar(tmp_path, "h[t] = tanh(w * h[t-1])", seq_len, params={"w": 1.0}, h_0=0.5, clip=[])
    assert 10 ** found.curve()[-1] == pytest.approx(gradient, rel=1e-7)
    if seq_len < 100:
        return
    assert found.verdict["pattern"] == "polynomial"
    assert found.verdict["kind"] == ("vanishing" if gradient < 1e-3 else "stable")
    assert found.verdict["exponent_from"] == "beginning"
    assert abs(found.verdict["exponent"]) == pytest.approx(1.5, abs=0.1)


@pytest.mark.parametrize(
    ("w", "gradient", "by_b", "by_w"),
    [
        (4.5, 16.38180751, -9.746476395, None),
        (5.0, 3178.603422, -661.6828013, -411.870634),
        (5.5, 373138.9666, None, None),
    ],
)
def test_one_unit_on_the_cliff(w: float, gradient: float, by_b: float, by_w: float | None, tmp_path: Path) -> None:
    """The unit of Pascanu, Mikolov and Bengio (2013, equation 8), on its unstable fixed point; E = (s(x) - 0.7)^2."""
    half = 1 / (1 + math.exp(-0.5))
    root = math.sqrt(2)  # mse is half the square
    spec = {
        "cell": {"equations": "u[t] = w * sigmoid(u[t-1]) + b\ny[t] = root * sigmoid(u[t])"},
        "constants": {"root": root},
        "params": {"w": w, "b": 0.5 - w * half},
        "u_0": 0.5,
        "loss": {"kind": "mse", "target": 0.7 * root},
        "hidden_size": 1,
        "seq_len": 50,
        **ONE_SEQUENCE,
    }
    spec["cell"]["output"] = "y"  # type: ignore[index]
    found = simulate(spec, tmp_path, save=True)
    assert found.report["loss"] == pytest.approx(0.0060125553, rel=1e-6)
    assert found.ratio("layer0.u")[50] == pytest.approx(gradient, rel=1e-6)
    if by_b is None:  # by the closed form, with a = w s'(1/2)
        a = w * half * (1 - half)
        by_b = 2 * (half - 0.7) * half * (1 - half) * (a**50 - 1) / (a - 1)
    assert signed(found.arrays, "b") == pytest.approx(by_b, rel=1e-6)
    assert signed(found.arrays, "w") == pytest.approx(by_w or half * by_b, rel=1e-6)


def signed(arrays: dict[str, NDArray[Any]], name: str) -> float:
    """Return the gradient of a parameter of one number."""
    return float(np.ldexp(arrays[f"grad_param.layer0.{name}"], arrays[f"log2_param.layer0.{name}"]).item())


# --- the horizon -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("w", [0.5, 0.9, 0.99, -0.7])
def test_the_horizons_of_an_exponential(w: float, tmp_path: Path) -> None:
    verdict = scalar(tmp_path, SCALAR, 2000, params={"w": w}).verdict
    decay = -math.log(abs(w))
    assert verdict["kind"] == "vanishing"
    assert verdict["pattern"] == "exponential"
    assert verdict["rate_per_step"] == pytest.approx(abs(w), rel=EXACT)
    assert verdict["half_life"] == pytest.approx(math.log(2) / decay, rel=EXACT)
    assert verdict["horizon"]["threshold"] == 1 + math.floor(math.log(1e3) / decay)
    assert verdict["horizon"]["float32"] == 1 + math.floor(23 * math.log(2) / decay + 1e-9)


@pytest.mark.parametrize(("w", "distance"), [(0.5, 126), (0.9, 828), (2.0, 127)])
def test_float32_runs_go_on_where_float32_numbers_end(w: float, distance: int, tmp_path: Path) -> None:
    """Plain float32 numbers leave their normal range after this distance; the curve does not."""
    assert w**distance >= 2.0**-126
    assert w ** (distance + 1) < 2.0**-126 or w ** (distance + 1) >= 2.0**128
    found = scalar(tmp_path, SCALAR, 2000, params={"w": w}, dtype="float32")
    np.testing.assert_allclose(found.curve(), np.arange(2001) * math.log10(w), rtol=1e-6)


# --- clipping --------------------------------------------------------------------------------------------------------


def clipped(folder: Path, gradient: list[float], **methods: float) -> list[dict[str, Any]]:
    """Return what clipping does to a gradient: L = v . (p h) with h = 1 has the gradient v for p."""
    found = simulate(
        {
            "cell": {"equations": "h[t] = p * h[t-1]"},
            "hidden_size": len(gradient),
            "seq_len": 1,
            "h_0": 1.0,
            "params": {"p": 0.5},
            "loss": {"kind": "projection", "vector": gradient},
            "clip": [{method: threshold} for method, threshold in methods.items()],
            "learning_rate": 1.0,
            **ONE_SEQUENCE,
        },
        folder,
    )
    rows: list[dict[str, Any]] = found.report["clip"]
    return rows


def test_clipping_the_norm_of_three_and_four(tmp_path: Path) -> None:
    (row,) = clipped(tmp_path, [3.0, 4.0], norm=1.0)
    assert 10 ** row["log10_norm_before"] == pytest.approx(5.0, rel=EXACT)
    scale = 1.0 / (5.0 + 1e-6)  # PyTorch's clip_grad_norm_
    assert 10 ** row["log10_norm_after"] == pytest.approx(5.0 * scale, rel=EXACT)
    assert row["scale"] == pytest.approx(scale, rel=EXACT)
    assert row["cosine"] == pytest.approx(1.0, abs=EXACT)
    assert row["loss_before"] == pytest.approx(3.5, rel=EXACT)
    assert row["loss_after_unclipped"] == pytest.approx(3.5 - 25, rel=EXACT)
    assert row["loss_after_clipped"] == pytest.approx(3.5 - 25 * scale, rel=EXACT)


@pytest.mark.parametrize(("gradient", "cosine"), [([10.0, 1.0], 0.7739572993), ([3.0, 0.1], 0.9977998015)])
def test_clipping_values_turns_the_gradient(gradient: list[float], cosine: float, tmp_path: Path) -> None:
    (row,) = clipped(tmp_path, gradient, value=1.0)
    assert row["cosine"] == pytest.approx(cosine, abs=1e-10)
    assert row["fraction_clipped"] == 0.5
    assert 10 ** row["log10_norm_after"] == pytest.approx(math.hypot(1.0, gradient[1]), rel=EXACT)


def test_below_the_threshold_nothing_changes_at_all(tmp_path: Path) -> None:
    for row in clipped(tmp_path, [3.0, 4.0], norm=5.5, value=4.5, step_norm=5.5, step_value=4.5):
        assert row["fraction_clipped"] == 0.0
        assert row["scale"] == 1.0
        assert row["cosine"] == 1.0
        assert row["log10_norm_after"] == row["log10_norm_before"]
        assert row["loss_after_clipped"] == row["loss_after_unclipped"]


def test_a_cell_without_parameters_has_nothing_to_clip_but_its_curve(tmp_path: Path) -> None:
    found = scalar(tmp_path, "h[t] = 2 * h[t-1]", 10, clip=[{"norm": 1.0}, {"value": 1.0}, {"step_value": 4.0}])
    assert_log10(found.curve(), np.arange(11) * math.log10(2))
    for row in found.report["clip"]:
        assert row["log10_norm_before"] is row["log10_norm_after"] is row["scale"] is row["cosine"] is None
        assert row["loss_before"] == row["loss_after_clipped"] == 0.0
    capped = np.minimum(np.arange(11), 2) * math.log10(2)
    assert_log10(np.array(found.report["clip"][2]["curve"]["log10_norm"]), capped)
    assert "norm 1" in table(tmp_path)
