"""The built-in cells against closed forms: what a step keeps and writes, and its Jacobian, at the zero state mostly."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from built_in_cells import HIDDEN_SIZE, INPUT_SIZE, Array, adjoints, at_sizes, jacobian, parsed, run

from gradcli import cells
from gradcli.engine.loss import Linear

EXACT = 1e-12
WITH_GATE_BIASES = [name for name in cells.names() if cells.load(name).cell.chrono]


def sigmoid(a: Any) -> Any:
    return 1.0 / (1.0 + np.exp(-a))


def sorted_eigenvalues(matrix: Array) -> Any:
    return np.sort_complex(np.linalg.eigvals(matrix))


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(11)


@pytest.fixture
def matrix(rng: np.random.Generator) -> Array:
    return rng.normal(0.0, 0.6, (HIDDEN_SIZE, HIDDEN_SIZE))


# For one unit with biases and no weights: the share of the state 0.3 that a step keeps, the share of the candidate that
# it writes, and the candidate.
UPDATES: dict[str, tuple[dict[str, float], float, float, float]] = {
    "gru": ({"b_z": 0.8, "b_n": 0.6}, sigmoid(0.8), 1 - sigmoid(0.8), np.tanh(0.6)),
    "gru-textbook": ({"b_z": 0.8, "b_n": 0.6}, 1 - sigmoid(0.8), sigmoid(0.8), np.tanh(0.6)),
    "mgu": ({"b_f": 0.8, "b_n": 0.6}, 1 - sigmoid(0.8), sigmoid(0.8), np.tanh(0.6)),
    "mingru": ({"b_z": 0.8, "b_n": 1.6}, 1 - sigmoid(0.8), sigmoid(0.8), 1.6),
    "minlstm": (
        {"b_f": 0.8, "b_i": -0.2, "b_g": 1.6},
        sigmoid(0.8) / (sigmoid(0.8) + sigmoid(-0.2)),
        sigmoid(-0.2) / (sigmoid(0.8) + sigmoid(-0.2)),
        1.6,
    ),
    "janet": ({"b_f": 0.8, "b_g": 0.6}, sigmoid(0.8), 1 - sigmoid(0.8 - 1.0), np.tanh(0.6)),
    "lstm": ({"b_f": 0.8, "b_i": -0.2, "b_g": 0.6}, sigmoid(0.8), sigmoid(-0.2), np.tanh(0.6)),
    "lstm-coupled": ({"b_f": 0.8, "b_g": 0.6}, sigmoid(0.8), 1 - sigmoid(0.8), np.tanh(0.6)),
    "lstm-peephole": ({"b_f": 0.8, "b_i": -0.2, "b_g": 0.6}, sigmoid(0.8), sigmoid(-0.2), np.tanh(0.6)),
    "leaky-rnn": ({"b_h": 0.6}, 0.9, 0.1, np.tanh(0.6)),
    "residual-rnn": ({"b_h": 0.6}, 1.0, 1.0, np.tanh(0.6)),
    "antisymmetric-rnn": ({"b_h": 0.6}, 1.0, 0.01, np.tanh(0.6 - 0.01 * 0.3)),
    "antisymmetric-rnn-gated": (
        {"b_h": 0.6, "b_z": 0.8},
        1.0,
        0.01 * sigmoid(0.8 - 0.01 * 0.3),
        np.tanh(0.6 - 0.01 * 0.3),
    ),
    "atr": ({"b_p": 0.6}, sigmoid(0.6), sigmoid(0.6), 0.6),
    "fastgrnn": (
        {"b_z": 0.8, "b_n": 0.6, "zeta_logit": 1.0, "nu_logit": -4.0},
        sigmoid(0.8),
        sigmoid(1.0) * (1 - sigmoid(0.8)) + sigmoid(-4.0),
        np.tanh(0.6),
    ),
    "fastrnn": ({"b_h": 0.6, "alpha_logit": -3.0, "beta_logit": 3.0}, sigmoid(3.0), sigmoid(-3.0), np.tanh(0.6)),
    "indylstm": ({"b_f": 0.8, "b_i": -0.2, "b_g": 0.6}, sigmoid(0.8), sigmoid(-0.2), np.tanh(0.6)),
    "light-gru": ({"b_z": 0.8, "b_n": 0.6}, sigmoid(0.8), 1 - sigmoid(0.8), 0.6),
    "lstm-no-forget": ({"b_i": -0.2, "b_g": 0.6}, 1.0, sigmoid(-0.2), np.tanh(0.6)),
    "lstm-projected": ({"b_f": 0.8, "b_i": -0.2, "b_g": 0.6}, sigmoid(0.8), sigmoid(-0.2), np.tanh(0.6)),
    "minimalrnn": ({"b_u": 0.8, "b_z": 0.6}, sigmoid(0.8), 1 - sigmoid(0.8), np.tanh(0.6)),
    "mlstm": ({"b_f": 0.8, "b_i": -0.2, "b_g": 0.6}, sigmoid(0.8), sigmoid(-0.2), np.tanh(0.6)),
    "mut3": ({"b_z": 0.8, "b_n": 0.6}, 1 - sigmoid(0.8), sigmoid(0.8), np.tanh(0.6)),
    "qrnn": ({"b_f": 0.8, "b_z": 0.6}, sigmoid(0.8), 1 - sigmoid(0.8), np.tanh(0.6)),
    "ugrnn": ({"b_z": 0.8, "b_n": 0.6}, sigmoid(0.8), 1 - sigmoid(0.8), np.tanh(0.6)),
}


@pytest.mark.parametrize("name", UPDATES)
def test_a_step_keeps_and_writes_as_its_gates_say(name: str) -> None:
    biases, keeps, writes, candidate = UPDATES[name]
    cell = parsed(name)
    memory = "c" if "c" in cell.states else "h"
    start = {state: np.full((1, 1, 1), 0.3) for state in cell.states}
    result = run(cell, biases, np.zeros((1, 1, 1, 1)), Linear([1], np.ones((1, 1))), start)
    assert result.recording is not None
    found = result.recording.states[f"layer0.{memory}"][1]
    np.testing.assert_allclose(found, keeps * 0.3 + writes * candidate, rtol=EXACT)


#: What else decides how much of a state is kept, and is set so that the gates alone do.
BESIDE_THE_GATES: dict[str, dict[str, Any]] = {
    "brc": {"b_a": -40.0},  # no loop of the unit on itself
    "hgrn": {"theta_log": -40.0},  # no rotation
    "nbrc": {"b_a": -40.0},
    "on-lstm": {"b_mf": [40.0, -40.0], "b_mi": [-40.0, 40.0]},  # both master gates are open for the first of two units
    "phased-lstm": {"tau_log": 40.0, "shift": -0.2, "r_on": 1.0},  # half a period from its start, where k = 1
}
#: What is kept by closed gates too: the bound of a forget gate, and 1 - dt of a differential equation.
LEAST_KEPT = {"gru-ode": 0.9, "hgrn": 0.5}
#: Where the state that the gates keep is neither called c nor the first.
MEMORIES = {"intersection-rnn": "h", "nested-lstm": "e"}


@pytest.mark.parametrize("name", WITH_GATE_BIASES)
@pytest.mark.parametrize(("size", "kept"), [(40.0, 1.0), (-40.0, 0.0)])
def test_biases_far_in_the_direction_of_their_chrono_signs_keep_the_state(name: str, size: float, kept: float) -> None:
    biases = {bias: sign * size for bias, sign in cells.load(name).cell.chrono.items()}
    # These put a tanh around the old state, whose slope is 1 at 0 alone.
    start = 0.0 if name in ("cfn", "sgrn", "star") else 0.3
    others = BESIDE_THE_GATES.get(name, {})
    units = max(np.size(value) for value in (0.0, *others.values()))
    states = at_sizes(name, units).shapes.states
    names = list(states)
    memory = names.index(MEMORIES.get(name, "c" if "c" in names else names[0]))
    place = sum(states[before] for before in names[:memory])
    found = jacobian(name, biases | others, hidden_size=units, initial=dict.fromkeys(states, start))[place, place]
    assert found == pytest.approx(max(kept, LEAST_KEPT.get(name, 0.0)), abs=1e-12)


def test_rnn_at_the_zero_state_has_its_matrix_for_a_jacobian(matrix: Array) -> None:
    np.testing.assert_allclose(jacobian("rnn", {"W_hh": matrix}), matrix, rtol=EXACT)


@pytest.mark.parametrize(("name", "update_bias"), [("gru", -0.7), ("gru-textbook", 0.7)])
def test_gru_at_the_zero_state(name: str, update_bias: float, matrix: Array) -> None:
    half = jacobian(name, {"W_hn": matrix})
    np.testing.assert_allclose(half, np.eye(HIDDEN_SIZE) / 2 + matrix / 4, rtol=EXACT)
    kept, reset = sigmoid(-0.7), sigmoid(0.4)
    found = jacobian(name, {"W_hn": matrix, "b_z": update_bias, "b_r": 0.4})
    np.testing.assert_allclose(found, kept * np.eye(HIDDEN_SIZE) + (1 - kept) * reset * matrix, rtol=EXACT)


@pytest.mark.parametrize("name", ["gru", "gru-textbook"])
@pytest.mark.parametrize(("gain", "rate"), [(2.0, 1.0), (0.0, 0.5), (-2.0, 0.0)])
def test_gru_with_a_multiple_of_the_identity(name: str, gain: float, rate: float) -> None:
    found = jacobian(name, {"W_hn": gain * np.eye(HIDDEN_SIZE)}, steps=30)
    np.testing.assert_allclose(found, rate**30 * np.eye(HIDDEN_SIZE), rtol=EXACT)


@pytest.mark.parametrize(("name", "bias"), [("gru", 10.0), ("gru-textbook", -10.0)])
def test_gru_with_a_saturated_update_gate_keeps_its_state(name: str, bias: float) -> None:
    found = jacobian(name, {"b_z": bias}, steps=100, hidden_size=1)
    np.testing.assert_allclose(found, 0.9954703998, rtol=1e-10)


def test_gru_away_from_the_zero_state_resets_where_its_name_says(rng: np.random.Generator) -> None:
    h, b_r, b_z, b_n, b_hn = rng.normal(0.0, 0.8, (5, HIDDEN_SIZE))
    w_r, w_z, w_n = rng.normal(0.0, 0.6, (3, HIDDEN_SIZE, HIDDEN_SIZE))
    params = {"W_hr": w_r, "W_hz": w_z, "W_hn": w_n, "b_r": b_r, "b_z": b_z, "b_n": b_n}
    r, z = sigmoid(w_r @ h + b_r), sigmoid(w_z @ h + b_z)
    d_r, d_z = np.diag(r * (1 - r)) @ w_r, np.diag(z * (1 - z)) @ w_z

    product = w_n @ h + b_hn
    n = np.tanh(b_n + r * product)
    d_n = np.diag(1 - n**2) @ (np.diag(r) @ w_n + np.diag(product) @ d_r)
    found = jacobian("gru", params | {"b_hn": b_hn}, initial={"h": h})
    np.testing.assert_allclose(found, np.diag(z) + np.diag(h - n) @ d_z + np.diag(1 - z) @ d_n, rtol=1e-11)

    n = np.tanh(w_n @ (r * h) + b_n)
    d_n = np.diag(1 - n**2) @ w_n @ (np.diag(r) + np.diag(h) @ d_r)
    found = jacobian("gru-textbook", params, initial={"h": h})
    np.testing.assert_allclose(found, np.diag(1 - z) + np.diag(n - h) @ d_z + np.diag(z) @ d_n, rtol=1e-11)


@pytest.mark.parametrize("name", ["lstm", "lstm-peephole"])
def test_lstm_at_the_zero_state(name: str, matrix: Array, rng: np.random.Generator) -> None:
    b_i, b_f, b_o = -0.4, 1.0, 0.3
    others = {f"W_h{gate}": rng.normal(0.0, 0.5, (HIDDEN_SIZE, HIDDEN_SIZE)) for gate in "ifo"}
    found = jacobian(name, {**others, "W_hg": matrix, "b_i": b_i, "b_f": b_f, "b_o": b_o})
    rates = sigmoid(b_f) + sigmoid(b_i) * sigmoid(b_o) * np.linalg.eigvals(matrix)
    expected = np.sort_complex(np.concatenate([rates, np.zeros(HIDDEN_SIZE)]))
    np.testing.assert_allclose(sorted_eigenvalues(found), expected, rtol=0, atol=EXACT)


def test_coupled_lstm_at_the_zero_state(matrix: Array) -> None:
    b_f, b_o = 1.0, 0.3
    found = jacobian("lstm-coupled", {"W_hg": matrix, "b_f": b_f, "b_o": b_o})
    rates = sigmoid(b_f) + (1 - sigmoid(b_f)) * sigmoid(b_o) * np.linalg.eigvals(matrix)
    expected = np.sort_complex(np.concatenate([rates, np.zeros(HIDDEN_SIZE)]))
    np.testing.assert_allclose(sorted_eigenvalues(found), expected, rtol=0, atol=EXACT)


def test_lstm_with_identity_and_forget_bias_one_has_the_rate_of_theory() -> None:
    found = jacobian("lstm", {"W_hg": np.eye(HIDDEN_SIZE), "b_f": 1.0})
    assert np.abs(np.linalg.eigvals(found)).max() == pytest.approx(0.9810585786, abs=1e-10)


@pytest.mark.parametrize(("b_f", "kept"), [(0.0, 7.888609052e-31), (1.0, 2.4843785557e-14), (2.0, 3.073170e-06)])
def test_lstm_without_recurrent_weights_keeps_f_to_the_k(b_f: float, kept: float) -> None:
    found = jacobian("lstm", {"b_f": b_f}, hidden_size=1, steps=100)
    by_name = parsed("lstm").states
    c, h = by_name.index("c"), by_name.index("h")
    assert found[c, c] == pytest.approx(kept, rel=1e-6)
    assert found[c, h] == found[h, h] == 0.0


def test_peepholes_act_on_the_old_cell_state_and_the_output_gate_on_the_new() -> None:
    old, w_ci, w_cf, w_co, b_g = 0.7, 0.5, -0.8, 0.9, 0.6
    i, f, g = sigmoid(w_ci * old), sigmoid(w_cf * old), np.tanh(b_g)
    new = f * old + i * g
    o = sigmoid(w_co * new)
    d_new = f + old * f * (1 - f) * w_cf + g * i * (1 - i) * w_ci
    d_output = (o * (1 - np.tanh(new) ** 2) + np.tanh(new) * o * (1 - o) * w_co) * d_new
    params = {"w_ci": w_ci, "w_cf": w_cf, "w_co": w_co, "b_g": b_g}
    found = jacobian("lstm-peephole", params, hidden_size=1, initial={"c": old})
    states = parsed("lstm-peephole").states
    c, h = states.index("c"), states.index("h")
    np.testing.assert_allclose([found[c, c], found[h, c]], [d_new, d_output], rtol=EXACT)


def test_mgu_at_the_zero_state(matrix: Array) -> None:
    f = sigmoid(0.8)
    found = jacobian("mgu", {"W_hn": matrix, "b_f": 0.8})
    np.testing.assert_allclose(found, (1 - f) * np.eye(HIDDEN_SIZE) + f * f * matrix, rtol=EXACT)


def test_mingru_without_weights_halves_the_gradient_at_every_step() -> None:
    for steps in (1, 10, 50):
        np.testing.assert_allclose(jacobian("mingru", {}, steps=steps), 0.5**steps * np.eye(HIDDEN_SIZE), rtol=EXACT)


def test_mingru_keeps_one_minus_z_whatever_the_state() -> None:
    found = jacobian("mingru", {"W_xz": 0.3, "W_xn": 0.9, "b_n": 0.5}, hidden_size=1, initial={"h": 2.0}, x=0.7)
    np.testing.assert_allclose(found, 1 - sigmoid(INPUT_SIZE * 0.3 * 0.7), rtol=EXACT)


def test_minlstm_divides_its_gates_by_their_sum() -> None:
    found = jacobian("minlstm", {"b_f": 1.0}, hidden_size=1, initial={"h": 2.0})
    assert found[0, 0] == pytest.approx(0.5938454850, abs=1e-10)


def test_janet_writes_more_than_it_forgets(matrix: Array) -> None:
    found = jacobian("janet", {"W_hg": matrix})
    np.testing.assert_allclose(found, 0.5 * np.eye(HIDDEN_SIZE) + 0.7310585786300049 * matrix, rtol=EXACT)


def test_leaky_rnn_moves_by_its_leak_rate(matrix: Array) -> None:
    alpha = cells.load("leaky-rnn").cell.constants["alpha"]
    found = jacobian("leaky-rnn", {"W_hh": matrix})
    np.testing.assert_allclose(found, (1 - alpha) * np.eye(HIDDEN_SIZE) + alpha * matrix, rtol=EXACT)


def test_residual_rnn_adds_to_the_identity(matrix: Array) -> None:
    np.testing.assert_allclose(jacobian("residual-rnn", {"W_hh": matrix}), np.eye(HIDDEN_SIZE) + matrix, rtol=EXACT)
    np.testing.assert_array_equal(jacobian("residual-rnn", {}, steps=100), np.eye(HIDDEN_SIZE))
    linear = jacobian("residual-rnn", {"W_hh": 0.01}, steps=100, hidden_size=1, activation="identity")
    assert linear[0, 0] == pytest.approx(2.7048138294, abs=1e-10)


def test_indrnn_scales_each_unit_by_its_own_number() -> None:
    u = np.array([0.2, 0.9, 1.0, 1.01, -0.5])
    active = jacobian("indrnn", {"u": np.abs(u), "b_h": 1.0}, steps=20)
    np.testing.assert_allclose(active, np.diag(np.abs(u) ** 20), rtol=EXACT)
    np.testing.assert_array_equal(jacobian("indrnn", {"u": u, "b_h": -1.0}), np.zeros((HIDDEN_SIZE, HIDDEN_SIZE)))


def test_antisymmetric_rnn_at_the_zero_state(matrix: Array) -> None:
    constants = cells.load("antisymmetric-rnn").cell.constants
    epsilon, gamma, identity = constants["epsilon"], constants["gamma"], np.eye(HIDDEN_SIZE)
    found = jacobian("antisymmetric-rnn", {"W_hh": matrix})
    np.testing.assert_allclose(found, identity + epsilon * (matrix - matrix.T - gamma * identity), rtol=EXACT)
    turning = np.linalg.eigvals((found - (1 - epsilon * gamma) * identity) / epsilon)
    np.testing.assert_allclose(turning.real, 0.0, atol=1e-12)


def test_two_lags_of_weight_one_make_fibonacci_numbers() -> None:
    params = {"W_hh": 1.0, "W_hh2": 1.0}
    cell = parsed("rnn-lags", activation="identity")
    result = run(cell, params, np.zeros((8, 1, 1, 1)), Linear([8], np.ones((1, 1))), {"h": np.ones((1, 1, 1))})
    assert adjoints(result, "h").ravel()[::-1].tolist() == [1, 1, 2, 3, 5, 8, 13, 21, 34]


def test_lru_turns_and_shrinks_its_state_by_its_eigenvalue() -> None:
    steps, r, theta = 7, 0.9, 0.4
    params = {"nu_log": np.log(-np.log(r)), "theta_log": np.log(theta)}
    n = HIDDEN_SIZE
    found = jacobian("lru", params, steps=steps)[: 2 * n, : 2 * n]
    np.testing.assert_allclose(np.linalg.svd(found, compute_uv=False), r**steps, rtol=EXACT)
    eigenvalue = (r * np.exp(1j * theta)) ** steps
    expected = np.block(
        [
            [eigenvalue.real * np.eye(n), -eigenvalue.imag * np.eye(n)],
            [eigenvalue.imag * np.eye(n), eigenvalue.real * np.eye(n)],
        ]
    )
    np.testing.assert_allclose(found, expected, rtol=1e-11, atol=0)


def test_unicornn_keeps_the_volume_of_its_states(rng: np.random.Generator) -> None:
    params = {"w_yz": rng.uniform(0, 1, HIDDEN_SIZE), "s": rng.normal(size=HIDDEN_SIZE), "b_z": 0.3}
    start = {"y": rng.normal(size=HIDDEN_SIZE), "z": rng.normal(size=HIDDEN_SIZE)}
    found = jacobian("unicornn", params, initial=start, steps=5)
    assert np.linalg.det(found) == pytest.approx(1.0, rel=1e-10)


def test_cornn_at_the_zero_state_is_a_step_of_a_damped_oscillator(matrix: Array) -> None:
    constants = cells.load("cornn").cell.constants
    dt, gamma, epsilon, identity = constants["dt"], constants["gamma"], constants["epsilon"], np.eye(HIDDEN_SIZE)
    z_z, z_y = (1 - dt * epsilon) * identity, dt * (matrix - gamma * identity)
    expected = np.block([[z_z, z_y], [dt * z_z, identity + dt * z_y]])  # the position moves by the new velocity
    np.testing.assert_allclose(jacobian("cornn", {"W_yz": matrix}), expected, rtol=EXACT)


def test_lipschitz_rnn_at_the_zero_state(matrix: Array) -> None:
    constants = cells.load("lipschitz-rnn").cell.constants
    epsilon, gamma, identity = constants["epsilon"], constants["gamma"], np.eye(HIDDEN_SIZE)
    beta = 0.75
    built = beta * (matrix - matrix.T) + (1 - beta) * (matrix + matrix.T) - gamma * identity
    found = jacobian("lipschitz-rnn", {"W_ha": matrix, "W_hh": matrix.T})
    of_the_transpose = beta * (matrix.T - matrix) + (1 - beta) * (matrix + matrix.T) - gamma * identity
    np.testing.assert_allclose(found, identity + epsilon * (built + of_the_transpose), rtol=EXACT)


@pytest.mark.parametrize(
    ("name", "biases", "rate"),
    [
        ("star", {"b_k": -2.0}, sigmoid(2.0)),
        ("cfn", {"b_f": 1.0, "b_i": -1.0}, sigmoid(1.0)),
        ("rhn", {"b_t1": -2.0, "b_t2": -2.0, "b_t3": -2.0}, sigmoid(2.0) ** 3),
        ("brc", {"b_c": 0.5, "b_a": 0.3}, sigmoid(0.5) + (1 - sigmoid(0.5)) * (1 + np.tanh(0.3))),
        ("nbrc", {"b_c": 0.5, "b_a": 0.3}, sigmoid(0.5) + (1 - sigmoid(0.5)) * (1 + np.tanh(0.3))),
        ("irnn", {"W_hh": np.eye(HIDDEN_SIZE), "b_h": 1.0}, 1.0),
    ],
)
def test_rate_at_the_zero_state_without_other_weights(name: str, biases: dict[str, Any], rate: float) -> None:
    np.testing.assert_allclose(jacobian(name, biases), rate * np.eye(HIDDEN_SIZE), rtol=EXACT)


def test_mrnn_without_input_passes_nothing_back(matrix: Array) -> None:
    factors = {"W_xm": np.ones((HIDDEN_SIZE, INPUT_SIZE)), "W_hm": matrix, "W_mh": np.eye(HIDDEN_SIZE)}
    np.testing.assert_array_equal(jacobian("mrnn", factors), np.zeros((HIDDEN_SIZE, HIDDEN_SIZE)))
    np.testing.assert_allclose(jacobian("mrnn", factors, x=0.2), INPUT_SIZE * 0.2 * matrix, rtol=EXACT)


def test_rwkv_fades_by_its_own_rate_whatever_the_input() -> None:
    w_log = np.linspace(-3.0, 1.0, HIDDEN_SIZE)
    found = jacobian("rwkv", {"w_log": w_log, "W_xk": 0.3}, initial={"d": 1.0}, x=0.7, steps=4)
    states = parsed("rwkv").states
    n, size = states.index("n"), HIDDEN_SIZE
    block = found[n * size : (n + 1) * size, n * size : (n + 1) * size]
    np.testing.assert_allclose(block, np.diag(np.exp(-4 * np.exp(w_log))), rtol=EXACT)
