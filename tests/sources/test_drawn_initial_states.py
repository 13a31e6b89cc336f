"""Initial states: zeros, drawn for every sequence, or given."""

from __future__ import annotations

import numpy as np
import pytest
from as_read import as_read

from gradcli.sources.initial_states import draw_initial_state
from gradcli.sources.initialisers import InitialiserError
from gradcli.spec.initialisers import InitialState


def drawn(model, *, layer="layer0", state="h", shape=(4,), batch=5, trials=2, seed=0) -> np.ndarray:
    return draw_initial_state(
        as_read(InitialState, model),
        layer=layer,
        state=state,
        shape=shape,
        batch_size=batch,
        trials=trials,
        seed=seed,
    )


@pytest.mark.parametrize("model", ["zeros", "normal", "uniform", 0.5, [1, 2, 3, 4]])
def test_a_state_is_a_contiguous_float64_array_trials_size_batch(model):
    values = drawn(model)
    assert values.shape == (2, 4, 5)
    assert values.dtype == np.float64
    assert values.flags.c_contiguous
    assert values.flags.writeable


def test_zeros_and_given_values():
    assert not drawn("zeros").any()
    assert np.array_equal(drawn(-0.5), np.full((2, 4, 5), -0.5))
    vector = drawn([1, 2, 3, 4])
    assert all(np.array_equal(vector[trial, :, sequence], [1, 2, 3, 4]) for trial in range(2) for sequence in range(5))


def test_given_values_may_be_a_vector_for_each_sequence():
    rows = [[10 * sequence + unit for unit in range(4)] for sequence in range(5)]
    values = drawn(rows)
    assert all(np.array_equal(values[1, :, sequence], rows[sequence]) for sequence in range(5))


def test_a_matrix_is_given_as_one_and_kept_row_by_row():
    matrix = [[1, 2, 3], [4, 5, 6]]
    values = drawn(matrix, shape=(2, 3))
    assert all(np.array_equal(values[1, :, sequence], [1, 2, 3, 4, 5, 6]) for sequence in range(5))
    of_each = [[[100 * sequence + entry for entry in row] for row in matrix] for sequence in range(5)]
    values = drawn(of_each, shape=(2, 3))
    assert all(np.array_equal(values[0, :, sequence], np.ravel(of_each[sequence])) for sequence in range(5))
    with pytest.raises(InitialiserError) as error:
        drawn([[1, 2], [3, 4], [5, 6]], shape=(2, 3))
    assert "2 x 3" in str(error.value) or "2 lists" in str(error.value), error.value


def test_given_values_of_another_shape_are_an_error():
    with pytest.raises(InitialiserError) as error:
        drawn([1, 2, 3])
    assert str(error.value) == "expected a list of 4 numbers, or 5 such lists; got a list of 3 numbers"


def test_the_moments_of_drawn_states():
    normal = drawn({"normal": {"std": 0.5, "mean": 2.0}}, shape=(100,), batch=100)
    assert normal.mean() == pytest.approx(2.0, abs=4 * 0.5 / np.sqrt(normal.size))
    assert normal.std() == pytest.approx(0.5, rel=4 / np.sqrt(2 * normal.size))
    uniform = drawn({"uniform": 3.0}, shape=(100,), batch=100)
    assert -3 <= uniform.min() < -2.99
    assert 2.99 < uniform.max() <= 3
    assert abs(uniform.mean()) < 4 * 3 / np.sqrt(3 * uniform.size)


@pytest.mark.parametrize("model", ["normal", "uniform"])
def test_seeds_layers_states_trials_and_sequences_have_draws_of_their_own(model):
    first = drawn(model)
    others = [drawn(model, seed=1), drawn(model, layer="layer1"), drawn(model, state="c")]
    assert not any(np.any(first == other) for other in others)
    assert not np.any(first[0] == first[1])
    assert len(np.unique(first)) == first.size
    assert np.array_equal(drawn(model, trials=3)[:2], first)
