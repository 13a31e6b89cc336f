"""Spectra and gates of trained weights against matrices whose answers are known, and against other algorithms."""

from __future__ import annotations

import numpy as np
import pytest
from checkpoints_by_hand import PROJECTED, Table, arrays_of, of_parameters, whole
from numpy.testing import assert_allclose

from gradcli.diagnostics import weights
from gradcli.diagnostics.weights import (
    in_words,
    inspect_checkpoint,
    measure_layer,
    memory_needed,
)
from gradcli.weights.checkpoint import Ignored
from gradcli.weights.layers import Contents, LinearHead, RecurrentLayer
from gradcli.weights.layouts import equations

RNG = np.random.default_rng(3)


def lstm(**fields: object) -> tuple[Table, RecurrentLayer]:
    table = Table(arrays_of("rnn.layer0", "ifgo", 5, 3, RNG) | arrays_of("rnn.layer0.reverse", "ifgo", 5, 3, RNG))
    return table, of_parameters(table, "rnn", "lstm", "LSTM", bidirectional=True, **fields)


def test_an_lstm_direction_by_direction() -> None:
    table, layer = lstm()
    forward, reverse = measure_layer(table, layer)
    assert (forward.name, reverse.name) == ("layer0", "layer0.reverse")
    for each in (forward, reverse):
        assert [matrix.name for matrix in each.matrices] == ["W_hi", "W_hf", "W_hg", "W_ho"]
        for matrix in each.matrices:
            values = table.arrays[f"rnn.{each.name}.{matrix.name}"]
            assert_allclose(matrix.spectral_norm, np.linalg.norm(values, 2), rtol=1e-12, atol=0)
            assert_allclose(matrix.spectral_radius, np.abs(np.linalg.eigvals(values)).max(), rtol=1e-12, atol=0)
        bias = table.arrays[f"rnn.{each.name}.b_f"]
        assert each.gate is not None
        assert each.gate.name == "f"
        assert_allclose(each.gate.mean_bias, bias.sum() / 5, rtol=1e-12, atol=0)
        assert each.gate.kept_at_rest == pytest.approx((1 / (1 + np.exp(-bias))).mean(), rel=1e-12)


def test_only_what_it_takes_is_read() -> None:
    table, layer = lstm()
    measure_layer(table, layer)
    read = [name.rpartition(".")[2] for name in table.was_read]
    assert sorted(read) == sorted(["W_hi", "W_hf", "W_hg", "W_ho", "b_f"] * 2)


def test_the_update_gate_of_a_gru_keeps() -> None:
    table = Table(arrays_of("rnn.layer0", "rzn", 4, 2, RNG))
    (found,) = measure_layer(table, of_parameters(table, "rnn", equations.gru(recurrent_bias=False), "GRU"))
    assert found.gate is not None
    assert found.gate.name == "z"
    assert_allclose(found.gate.mean_bias, table.arrays["rnn.layer0.b_z"].mean(), rtol=1e-12, atol=0)
    assert found.gate.kept_at_rest is not None


def test_a_gate_that_is_no_sigmoid_has_no_share_at_rest() -> None:
    table = Table(arrays_of("rnn.layer0", "ifgo", 4, 2, RNG))
    (found,) = measure_layer(table, of_parameters(table, "rnn", equations.lstm("hard_sigmoid({})"), "LSTM"))
    assert found.gate is not None
    assert found.gate.kept_at_rest is None


def test_without_biases_no_gate_is_told() -> None:
    arrays = {name: value for name, value in arrays_of("rnn.layer0", "ifgo", 4, 2, RNG).items() if ".b_" not in name}
    table = Table(arrays)
    (found,) = measure_layer(table, of_parameters(table, "rnn", equations.lstm(bias=False), "LSTM"))
    assert found.gate is None


def test_projections_have_a_norm_and_no_radius() -> None:
    arrays = {f"rnn.layer0.W_x{gate}": RNG.normal(size=(5, 2)) for gate in "ifgo"}
    arrays |= {f"rnn.layer0.W_h{gate}": RNG.normal(size=(5, 3)) for gate in "ifgo"}
    arrays["rnn.layer0.W_mh"] = RNG.normal(size=(3, 5))
    table = Table(arrays)
    (found,) = measure_layer(table, of_parameters(table, "rnn", PROJECTED, "LSTM", output_size=3))
    assert [(m.name, m.shape) for m in found.matrices] == [*((f"W_h{g}", (5, 3)) for g in "ifgo"), ("W_mh", (3, 5))]
    for matrix in found.matrices:
        assert np.isnan(matrix.spectral_radius[0])
        assert_allclose(
            matrix.spectral_norm, np.linalg.norm(table.arrays[f"rnn.layer0.{matrix.name}"], 2), rtol=1e-12, atol=0
        )


def test_the_radius_of_a_very_large_matrix_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(weights, "LARGEST_FOR_RADIUS", 4)
    table, layer = lstm()
    for each in measure_layer(table, layer):
        assert all(np.isnan(matrix.spectral_radius[0]) for matrix in each.matrices)
        assert all(matrix.spectral_norm[0] > 0 for matrix in each.matrices)


def test_memory_grows_with_the_tensors_and_the_matrices() -> None:
    small, large = (Table(arrays_of("rnn.layer0", "h", size, 2, RNG)) for size in (10, 100))
    needed = [memory_needed(table, of_parameters(table, "rnn", "rnn", "RNN")) for table in (small, large)]
    assert needed[0] >= 2 * 8 * 10**2
    assert 50 * needed[0] < needed[1] < 200 * needed[0]


# --- what one matrix settles ---------------------------------------------------------------------------------------


def plain(matrix: np.ndarray, cell: object = "rnn", **fields: object) -> str | None:
    arrays = {"rnn.layer0.W_xh": np.ones((len(matrix), 1)), "rnn.layer0.W_hh": matrix}
    table = Table(arrays)
    layer = of_parameters(table, "rnn", cell, "RNN", **fields)
    (found,) = measure_layer(table, layer)
    return in_words(layer, found.matrices[0])


def test_a_norm_below_one_shrinks_at_every_step() -> None:
    text = plain(np.array([[0.5, 0.4], [0.0, 0.5]]))
    assert text == "the spectral norm is below 1: every step shrinks the gradient, whatever the input"


def test_a_radius_below_one_with_a_larger_norm_may_grow_first() -> None:
    text = plain(np.array([[0.5, 4.0], [0.0, 0.5]]))
    assert text is not None
    assert text.startswith("the spectral radius is below 1: near rest the gradient falls in the long run")


def test_a_radius_above_one_does_not_fall_near_rest() -> None:
    text = plain(np.array([[1.5, 0.0], [0.0, 0.5]]))
    assert text is not None
    assert text.startswith("the spectral radius is not below 1: near rest the gradient does not fall")


def test_the_slope_of_the_activation_counts() -> None:
    sigmoid = plain(np.eye(2) * 3.9, activation="sigmoid")
    assert sigmoid is not None
    assert "times sigmoid's largest slope 0.25, is below 1" in sigmoid
    assert plain(np.eye(2) * 4.1, activation="sigmoid") is None
    assert plain(np.eye(2) * 1.1, equations.rnn("relu({})")) is None
    relu = plain(np.eye(2) * 0.9, equations.rnn("relu({})"))
    assert relu is not None
    assert relu.startswith("the spectral norm is below 1")


def test_nothing_is_said_of_gated_cells() -> None:
    table, layer = lstm()
    for each in measure_layer(table, layer):
        assert [in_words(layer, matrix) for matrix in each.matrices] == [None] * 4


# --- the whole file ------------------------------------------------------------------------------------------------


def test_what_no_part_is_made_of_is_unused() -> None:
    table = Table(
        arrays_of("rnn.layer0", "h", 4, 2, RNG) | {"fc.weight": np.ones((3, 4)), "step": np.ones(())},
        [Ignored("config", "text")],
    )
    layer = of_parameters(table, "rnn", "rnn", "RNN")
    fc = LinearHead("fc", whole(table, "fc.weight"), None, ("fc.weight",))
    calls: list[tuple[str, int, int]] = []
    found = inspect_checkpoint(table, Contents((layer,), (fc,)), 123, lambda *told: calls.append(told))
    assert found.unused == ["step"]
    assert (found.name, found.format, found.size) == ("model.table", "table", 123)
    assert calls == [*(("tensors", done, 5) for done in range(1, 6)), ("spectra", 1, 1)]
    assert [each.name for each in found.weights[0]] == ["layer0"]
