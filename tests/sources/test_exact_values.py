"""Exact values: what fits a shape, and what the message says where nothing does."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from gradcli.sources.exact_values import exact_array
from gradcli.sources.initialisers import InitialiserError


@given(
    arrays(np.float64, array_shapes(max_dims=3, max_side=4), elements=st.floats(allow_nan=False, allow_infinity=False))
)
def test_nested_lists_of_the_shape_are_taken_as_they_are(values):
    taken = exact_array(values.tolist(), values.shape)
    assert taken.dtype == np.float64
    assert np.array_equal(taken, values)


@pytest.mark.parametrize("shape", [(), (3,), (1, 1), (2, 3)])
@pytest.mark.parametrize("number", [2, 0.5])
def test_a_number_fills_the_shape(shape, number):
    assert np.array_equal(exact_array(number, shape), np.full(shape, float(number)))


def test_with_a_count_the_values_are_one_for_all_or_one_for_each():
    assert np.array_equal(exact_array(2, (2,), count=3), np.full((3, 2), 2.0))
    assert np.array_equal(exact_array([1, 2], (2,), count=3), [[1, 2], [1, 2], [1, 2]])
    assert np.array_equal(exact_array([[1, 2], [3, 4], [5, 6]], (2,), count=3), [[1, 2], [3, 4], [5, 6]])


def test_the_result_may_be_overwritten():
    values = exact_array(1, (2, 2))
    values[0, 0] = 5
    assert np.array_equal(values, [[5, 1], [1, 1]])


@pytest.mark.parametrize(
    ("values", "shape", "message"),
    [
        ([1.0, 2.0], (3,), "expected a list of 3 numbers; got a list of 2 numbers"),
        ([[1.0, 2.0]], (2, 1), "expected nested lists of 2 x 1; got nested lists of 1 x 2"),
        ([1.0], (1, 1), "expected nested lists of 1 x 1; got a list of 1 number"),
        ([1.0], (), "expected a single number; got a list of 1 number"),
        (
            [[1, 2], [3]],
            (2, 2),
            "expected lists of one length; got a list of 2 numbers at [0], but a list of 1 number at [1]",
        ),
        (
            [[1, 2], 3],
            (2, 2),
            "expected lists of one length; got a list of 2 numbers at [0], but a single number at [1]",
        ),
        ([], (2,), "expected numbers; got an empty list"),
        ([[], []], (2, 2), "expected numbers; got an empty list at [0]"),
        ([[1, 2], [3, float("nan")]], (2, 2), "expected a finite number at [1][1]; got nan"),
        (float("-inf"), (2,), "expected a finite number; got -inf"),
        ([10**400, 1], (2,), "expected a finite number at [0]; got an integer beyond 1e308"),
        ([1, "2"], (2,), "expected a number at [1]; got '2'"),
        ([1, None], (2,), "expected a number at [1]; got None"),
        (True, (2,), "expected a number; got True"),
        ([[True, 1], [1, 1]], (2, 2), "expected a number at [0][0]; got True"),
    ],
)
def test_anything_else_is_an_error(values, shape, message):
    with pytest.raises(InitialiserError) as error:
        exact_array(values, shape)
    assert str(error.value) == message


def test_with_a_count_the_message_names_both_shapes():
    with pytest.raises(InitialiserError) as error:
        exact_array([1, 2, 3], (2,), count=4)
    assert str(error.value) == "expected a list of 2 numbers, or 4 such lists; got a list of 3 numbers"
