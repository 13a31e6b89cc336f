"""The classic cases, as the example configs have them: published and derived numbers, asked of the command line."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from doc_snippets import CONFIGS, REMEDY, ROOT, measured_remedy
from in_process import gradcli
from numpy.typing import NDArray
from simulated import Array, simulate


def run(command: str, name: str, *options: object) -> dict[str, Any]:
    """Return the run of a command on an example as the JSON gives it."""
    finished = gradcli(command, CONFIGS / name, "--format", "json", *options)
    assert finished.code == 0, finished.stderr
    found: dict[str, Any] = finished.report()["runs"][0]
    return found


def ratios(found: dict[str, Any], state: str | None = None) -> Array:
    """Return the norm at every distance relative to distance 0, (T+1,)."""
    curve = np.array((found["states"][state] if state else found["curve"])["log10_norm"])
    return np.asarray(np.power(10.0, curve - curve[0]))


def shares(name: str) -> dict[str, float]:
    """Return the share of each route of one step from c to c."""
    (routes,) = run("paths", name, "--from", "c", "--to", "c")["routes"]
    return {share["route"]: share["projection"] for share in routes["shares"]}


# --- from the lecture notes --------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "gain"), [("small-w", 0.5), ("large-w", 2.0)])
def test_the_weights_part_of_a_step_is_the_factor_of_an_orthogonal_matrix(name: str, gain: float) -> None:
    """|W^T v| = gain |v| for W = gain Q, whatever tanh' does; V comes in between at distance 0 alone."""
    rates = run("gates", f"notes-rnn-{name}.yaml", "--set", "init.U.normal.std=1")["rates"]
    assert rates["weights"][1:] == pytest.approx([math.log(gain)] * 19, rel=1e-9)
    assert max(rates["activations"]) < 0


def test_a_sigmoid_cannot_pass_on_more_than_a_quarter() -> None:
    certificate = run("jacobian", "activation-sigmoid.yaml", "--exponents", 1)["certificate"]
    assert certificate["bound_per_step"] == pytest.approx(0.25, rel=1e-9)
    assert certificate["proves_vanishing"] is True


def test_singular_values_below_one_prove_what_those_above_one_do_not() -> None:
    below = run("jacobian", "singular-below-one.yaml", "--exponents", 1)
    assert below["certificate"]["proves_vanishing"] is True
    values = below["singular_values"]
    for distance, largest in zip(values["distance"], values["log10_largest"], strict=True):
        # The 1e-9 is for rounding.
        assert largest <= distance * math.log10(0.95) + 1e-9
    above = run("jacobian", "vanishing-rnn.yaml", "--exponents", 1)
    assert above["certificate"]["proves_vanishing"] is False
    assert above["matrices"][0]["spectral_radius"] == pytest.approx(1.2, rel=1e-9)
    assert above["verdict"]["kind"] == "vanishing"


def test_two_terms_of_an_lstm_add_up_to_one_and_a_single_product_does_not() -> None:
    """At rest dc_t/dc_(t-1) = f + i o W_hg = sigmoid(1) + 1.0757656855 / 4 = 1."""
    f = 1 / (1 + math.exp(-1))
    found = shares("notes-terms-add-up.yaml")
    assert found["c -> c"] == pytest.approx(f, rel=1e-9)
    assert found["c -> g -> h -> c"] == pytest.approx(1 - f, rel=1e-9)
    # c_0 alone is no function of h_0, so that the last distance has the direct term only.
    level = ratios(run("simulate", "notes-terms-add-up.yaml"), "layer0.c")
    assert level[:50] == pytest.approx([1.0] * 50, rel=1e-9)
    assert level[50] == pytest.approx(f, rel=1e-9)
    product = ratios(run("simulate", "notes-one-product.yaml"))
    assert product == pytest.approx([f**d for d in range(51)], rel=1e-8)


def test_a_normal_term_and_vanishing_ones_make_a_normal_sum() -> None:
    found = shares("notes-normal-and-vanishing.yaml")
    assert found["c -> c"] == pytest.approx(1.0, abs=0.01)
    assert sum(found.values()) == pytest.approx(1.0, rel=1e-12)
    assert ratios(run("simulate", "notes-normal-and-vanishing.yaml"), "layer0.c")[50] > 0.3


def _saved(target: object, folder: Path, *options: object) -> dict[str, NDArray[Any]]:
    finished = gradcli("simulate", target, "--save", folder / "run.npz", "--quiet", *options)
    assert finished.code == 0, finished.stderr
    with np.load(folder / "run.npz") as arrays:
        return dict(arrays)


def _gradient(arrays: dict[str, NDArray[Any]], name: str) -> Array:
    """Return a parameter's gradient, (trials, ...)."""
    mantissa, log2 = arrays[f"grad_param.layer0.{name}"], arrays[f"log2_param.layer0.{name}"]
    return np.asarray(np.ldexp(mantissa, log2.reshape(-1, *(1,) * (mantissa.ndim - 1))))


def test_the_gates_and_the_one_matrix_form_have_the_same_gradients(tmp_path: Path) -> None:
    """dL/dW of the one matrix is dL/dW_i, dL/dW_f, dL/dW_o and dL/dW_g below each other, and the built-in's agree."""
    apart = _saved(CONFIGS / "notes-lstm-gates.yaml", tmp_path)
    joined = _saved(CONFIGS / "notes-lstm-one-matrix.yaml", tmp_path)
    for name in ("W", "b"):
        stacked = np.concatenate([_gradient(apart, f"{name}_{gate}") for gate in "ifog"], axis=1)
        np.testing.assert_allclose(_gradient(joined, name), stacked, rtol=1e-10, atol=0)
    values = {f"b_{gate}": apart[f"param.layer0.b_{gate}"][0].tolist() for gate in "ifog"}
    for gate in "ifog":
        matrix = apart[f"param.layer0.W_{gate}"][0]
        values |= {f"W_h{gate}": matrix[:, :2].tolist(), f"W_x{gate}": matrix[:, 2:].tolist()}
    builtin = _saved("lstm", tmp_path, "-T", 20, "--hidden-size", 2, "--input-size", 1, "--set", f"params={values}")
    for gate in "ifog":
        both = np.concatenate([_gradient(builtin, f"W_h{gate}"), _gradient(builtin, f"W_x{gate}")], axis=2)
        np.testing.assert_allclose(_gradient(apart, f"W_{gate}"), both, rtol=1e-10, atol=0)


# --- Pascanu, Mikolov and Bengio 2013, equation 8 and figure 6 -----------------------------------------------------


@pytest.mark.parametrize(
    ("b", "norm", "digits"),
    [
        (-2.612341357, 6773.1255, 1e-4),  # the largest on the line w = 5
        (-2.6126, 4.08, 2e-3),
        (-2.6120, 9.28, 2e-3),
        (-2.65, 0.22, 2e-2),
        (-2.5, 0.133, 5e-3),
    ],
)
def test_the_cliff_is_steep_at_the_edge_of_the_basins_only(
    b: float, norm: float, digits: float, tmp_path: Path
) -> None:
    """|(dE/dw, dE/db)| of E = (sigmoid(x_50) - 0.7)^2 along w = 5."""
    spec = {
        # The loss is half a square: o is sqrt(2) times what E compares with 0.7.
        "cell": {
            "equations": "h[t] = w * sigmoid(h[t-1]) + b\no[t] = root * sigmoid(h[t])",
            "constants": {"root": math.sqrt(2)},
            "output": "o",
        },
        "hidden_size": 1,
        "seq_len": 50,
        "batch_size": 1,
        "trials": 1,
        "params": {"w": 5.0, "b": b},
        "h_0": [0.5],
        "loss": {"kind": "mse", "target": 0.7 * math.sqrt(2)},
    }
    found = simulate(spec, tmp_path)
    assert math.hypot(10 ** found.parameter("layer0.w"), 10 ** found.parameter("layer0.b")) == pytest.approx(
        norm, rel=digits
    )


# --- normalisation, gates ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "low", "high"),
    [
        ([], 1 / 3, 3.0),
        (["constants.gamma=1"], 0.0, 1e-20),
        (["constants.gamma=1", "init.W_hh=orthogonal"], 1e4, math.inf),
    ],
)
def test_figure_1a_of_cooijmans_belongs_to_the_identity(options: list[str], low: float, high: float) -> None:
    # As far back as h_1: h_0 was not normalised.
    words = [word for option in options for word in ("--set", option)]
    found = ratios(run("simulate", "batch-norm-gamma.yaml", *words))
    assert low <= found[199] <= high


@pytest.mark.parametrize(("name", "gate"), [("forget-bias-0.yaml", 0.5), ("forget-bias-1.yaml", 0.7310585786)])
def test_the_forget_bias_is_the_rate_through_the_cell_state_alone(name: str, gate: float) -> None:
    (through_c,) = [found for found in run("simulate", name)["predictions"] if found["name"] == "gates"]
    assert through_c["rate_per_step"] == pytest.approx(gate, rel=1e-9)


def test_chrono_gates_keep_the_mean_powers_of_their_law() -> None:
    """E f^k with f = u/(1+u), u ~ U[1, 99] (Tallec and Ollivier 2018): .73259, .33020, .14965 for k = 10, 50, 100."""
    squares = ratios(run("simulate", "chrono-gates.yaml")) ** 2
    # 20,000 units: the sampling error of the mean is below 0.002.
    for power, kept in ((10, 0.73259), (50, 0.33020), (100, 0.14965)):
        assert squares[power // 2] == pytest.approx(kept, abs=0.006)
    one_bias = ratios(run("simulate", "chrono-gates.yaml", "--set", "init.b_f=1"))
    assert one_bias[10] == pytest.approx(0.0436035428, rel=1e-9)


# --- random networks ---------------------------------------------------------------------------------------------


def test_a_random_tanh_network_has_the_exponent_of_mean_field() -> None:
    """Gain 2 (Sompolinsky, Crisanti and Sommers 1988)."""
    found = run("jacobian", "chaos-rnn.yaml", "--exponents", 1)
    assert found["lyapunov"]["exponents"][0] == pytest.approx(0.15472, abs=0.02)


@pytest.mark.parametrize(
    ("weights", "biases", "chi"),
    [(None, None, 1.0), (0.8, 0.1, 0.58440725), (2.0, 0.05, 1.04766600)],
    ids=["critical", "ordered", "chaotic"],
)
def test_deep_tanh_networks_on_both_sides_of_the_critical_line(
    weights: float | None, biases: float | None, chi: float
) -> None:
    """The norm of the gradient goes as chi^(d/2) (Schoenholz et al. 2017); without variances, the example's own."""
    options: list[str] = []
    if weights is not None and biases is not None:
        std = {"W_hh": math.sqrt(weights / 128), "b_h": math.sqrt(biases)}
        options = [word for name, value in std.items() for word in ("--set", f"init.{name}.normal.std={value}")]
    found = ratios(run("simulate", "critical-tanh.yaml", *options))
    # Eight sequences and 128 units: the typical network falls a little faster than the mean square.
    assert found[50] ** (1 / 50) == pytest.approx(math.sqrt(chi), abs=0.02)


def test_independent_gaussian_matrices_have_newmans_exponents() -> None:
    """(ln 2 + psi((n - i + 1)/2))/2 - ln(n)/2 for n = 4 (Newman 1986)."""
    found = run("jacobian", "ginibre-untied.yaml", "-T", 4000, "--exponents", "all")
    published = [-0.1351814, -0.3283286, -0.6351814, -1.3283286]
    assert found["lyapunov"]["exponents"] == pytest.approx(published, abs=0.03)


def test_powers_of_a_gaussian_matrix_have_the_fuss_catalan_law() -> None:
    """Squared singular values of W^k: mean 1, largest (k+1)^(k+1)/k^k."""
    found = run("jacobian", "fuss-catalan.yaml", "--exponents", 1)
    for k in range(1, 5):
        mean = 10 ** (2 * found["frobenius"]["log10_norm"][k]) / 400
        assert mean == pytest.approx(1.0, abs=0.05)
        largest = 10 ** (2 * found["singular_values"]["log10_largest"][k])
        # N = 400 stays below the limit, by more the larger k is.
        assert largest == pytest.approx((k + 1) ** (k + 1) / k**k, rel=0.03 + 0.03 * k)


# --- the table of docs/remedies.md -------------------------------------------------------------------------------


ROWS = [
    pytest.param(found[2], tuple(found[3].split(" | ")), id=found[2])
    for found in REMEDY.finditer((ROOT / "docs" / "remedies.md").read_text(encoding="utf-8"))
]


def within_rounding(shown: tuple[str, ...], measured: tuple[str, ...]) -> bool:
    """Tell whether a row has the measured numbers, to the digits that rounding leaves after 100 steps.

    Where a gradient has grown, so has the difference that the last digit of a state makes to all states after it: it is
    as large as they are in a chaotic network, whose last steps no two machines agree on.
    """
    growth = float(np.finfo(float).eps * float(measured[1]) ** 100)
    if growth < 1e-4:
        return shown == measured
    rate, left = (float(mine) / float(theirs) for mine, theirs in zip(shown[1:], measured[1:], strict=True))
    return shown[0] == measured[0] and abs(rate - 1) < 0.01 and 0.5 < left < 2


@pytest.mark.parametrize(("name", "shown"), ROWS)
def test_the_table_of_remedies_has_the_measured_numbers(name: str, shown: tuple[str, ...]) -> None:
    measured = measured_remedy(CONFIGS / name)
    assert within_rounding(shown, measured), measured


def test_a_row_has_all_digits_unless_its_network_is_chaotic() -> None:
    assert not within_rounding((">= 100", "1.078", "1488"), (">= 100", "1.078", "1489"))
    assert within_rounding((">= 100", "1.490", "2.8e18"), (">= 100", "1.496", "3.5e18"))
    assert not within_rounding((">= 100", "1.45", "2.8e18"), (">= 100", "1.496", "3.5e18"))
    for wrong in ("2.8e19", "3.5e17", "0"):
        assert not within_rounding((">= 100", "1.490", wrong), (">= 100", "1.496", "3.5e18"))


def test_the_last_row_is_of_a_chaotic_network_and_no_other_is_compared_loosely() -> None:
    """As the page says: a difference in the last digit of a state grows to its size in 100 steps, by the Jacobians."""
    names, shown = zip(*(row.values for row in ROWS), strict=True)
    assert [float(rate) > 1.3 for _, rate, _ in shown] == [*[False] * (len(ROWS) - 1), True]
    (leading,) = run("jacobian", names[-1], "-T", 100, "--exponents", 1)["lyapunov"]["exponents"]
    assert 0.1 < np.finfo(float).eps * math.exp(100 * leading) < 10


def test_the_table_of_remedies_is_found() -> None:
    assert len(ROWS) >= 15
