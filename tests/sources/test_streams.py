"""Streams: named, reproducible, independent of one another and of how they are read."""

from __future__ import annotations

from itertools import combinations, pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gradcli.sources.streams import CHUNK, DrawnSteps, stream

NAMES = st.lists(st.one_of(st.text(max_size=5), st.integers(-(2**70), 2**70)), max_size=4).map(tuple)


def state_of(seed: int, *names: str | int) -> int:
    return int(stream(seed, *names).bit_generator.random_raw())


@given(NAMES, NAMES)
def test_two_names_share_a_stream_only_when_they_are_equal(one, other):
    assert (state_of(0, *one) == state_of(0, *other)) == (one == other)


@pytest.mark.parametrize(
    ("one", "other"),
    [(("ab",), ("a", "b")), ((1,), ("1",)), ((1, 2), (12,)), ((), ("",)), (("a,i1",), ("a", 1)), ((0,), ())],
)
def test_the_names_are_encoded_unambiguously(one, other):
    assert state_of(0, *one) != state_of(0, *other)


def test_the_seed_is_no_name():
    assert state_of(1, 2) != state_of(2, 1)
    assert state_of(1) != state_of(0, 1)


def test_numpy_integers_name_the_same_stream_as_python_ones():
    assert state_of(np.int64(3), "input", np.int32(2)) == state_of(3, "input", 2)


def test_a_stream_is_the_same_on_every_machine():
    # The definition of a run's numbers: the key is BLAKE2b-128 of b"7,s5:input,i0", read as two little-endian words.
    key = np.frombuffer(bytes.fromhex("29abe300dd065ac70b591e987c7f97db"), dtype="<u8")
    expected = np.random.Philox(key=key).random_raw(3)
    assert np.array_equal(stream(7, "input", 0).bit_generator.random_raw(3), expected)


def test_streams_are_uncorrelated():
    draws = [stream(0, "x", index).standard_normal(20_000) for index in range(6)]
    for one, other in combinations(draws, 2):
        assert abs(np.corrcoef(one, other)[0, 1]) < 5 / np.sqrt(20_000)


class Counting:
    """A law that counts how often it is asked, and for how many steps."""

    def __init__(self) -> None:
        self.calls = self.steps = 0

    def __call__(self, rng: np.random.Generator, steps: int) -> np.ndarray:
        self.calls += 1
        self.steps += steps
        return rng.standard_normal((steps, 2, 3))


def drawn_steps(draw, *, length, trials=2) -> DrawnSteps:
    return DrawnSteps(draw, seed=5, names=("x",), trials=trials, length=length)


@given(st.integers(1, 300), st.lists(st.integers(1, 299), max_size=6))
def test_any_split_into_segments_gives_the_same_numbers_and_draws_each_chunk_once(length, cuts):
    whole = drawn_steps(Counting(), length=300).read(0, length)
    counting = Counting()
    source = drawn_steps(counting, length=length)
    bounds = sorted({0, length, *(cut for cut in cuts if cut < length)})
    parts = [source.read(start, stop) for start, stop in pairwise(bounds)]
    assert np.array_equal(np.concatenate(parts), whole)
    assert counting.calls == 2 * -(-length // CHUNK)
    assert counting.steps == 2 * length


def test_a_chunk_comes_from_the_stream_of_its_trial_and_number():
    values = drawn_steps(Counting(), length=200).read(0, 200)
    for trial in range(2):
        expected = stream(5, "x", trial, 1).standard_normal((CHUNK, 2, 3))
        assert np.array_equal(values[CHUNK : 2 * CHUNK, trial], expected)


def test_trials_are_different_and_more_of_them_change_none():
    two = drawn_steps(Counting(), length=100, trials=2).read(0, 100)
    three = drawn_steps(Counting(), length=100, trials=3).read(0, 100)
    assert np.array_equal(three[:, :2], two)
    assert not np.any(three[:, 2] == three[:, 1])


def test_what_was_read_may_be_overwritten():
    source = drawn_steps(Counting(), length=10)
    first = source.read(0, 10)
    kept = first.copy()
    first[...] = 0.0
    assert np.array_equal(source.read(0, 10), kept)


@pytest.mark.parametrize(("start", "stop"), [(-1, 2), (3, 3), (0, 11)])
def test_steps_outside_the_sequence_are_an_error(start, stop):
    with pytest.raises(ValueError, match=r"are not within \[0, 10\)"):
        drawn_steps(Counting(), length=10).read(start, stop)
