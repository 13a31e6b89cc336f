"""Curves over very many distances: the same numbers, in memory that is a small multiple of the curve's own."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable, Iterator

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from known_curves import ZERO, verdict_of
from measured import SCALAR, loaded, measured

from gradcli.diagnostics.curve import LOG10_2, curve_of, joined, median_and_mean_of, quantiles
from gradcli.diagnostics.curve_landmarks import first_where, last_where
from gradcli.diagnostics.measure import measure
from gradcli.prepare.build import build
from gradcli.results.run import curve_records, run_of

STEPS = 300_001
CURVE_BYTES = 8 * STEPS


@pytest.fixture
def peak() -> Iterator[Callable[[], int]]:
    """Return how many bytes have been allocated at most since the test began."""
    tracemalloc.start()
    yield lambda: tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()


def norms(*shape: int, seed: int = 0) -> np.ndarray:
    values = np.random.default_rng(seed).normal(size=shape) * 100
    values[values > 150] = ZERO
    return values


@pytest.mark.parametrize("sequences", [(1, 1), (1, 2), (3, 5), (1000, 70)])
def test_a_curve_made_in_parts_is_that_of_the_whole(sequences: tuple[int, int]) -> None:
    steps = 200_000 // (sequences[0] * sequences[1]) + 1
    first, second = norms(steps, *sequences), norms(steps, *sequences, seed=1)
    found = curve_of(first, second)
    by_distance = joined([first, second])[::-1].reshape(steps, -1)
    for curve, expected in zip(
        (found.low, found.median, found.high), quantiles(by_distance, (0.1, 0.5, 0.9)), strict=True
    ):
        np.testing.assert_array_equal(curve, expected * LOG10_2)
    with np.errstate(divide="ignore"):
        mean = np.log10(np.exp2(by_distance).mean(axis=1))
    np.testing.assert_allclose(found.mean, mean, rtol=1e-12, atol=1e-12)
    (median,) = quantiles(second[::-1].reshape(steps, -1), (0.5,))
    np.testing.assert_array_equal(median_and_mean_of(second)[0], median * LOG10_2)


def test_the_quantiles_of_one_sequence_are_one_array() -> None:
    found = curve_of(norms(9, 1, 1), norms(9, 1, 1))
    assert found.low is found.median is found.high is found.mean


def test_joining_and_sorting_take_little_beside_the_curve(peak: Callable[[], int]) -> None:
    states = [np.zeros((STEPS // 10, 5, 2)), np.zeros((STEPS // 10, 5, 2))]
    before = sum(state.nbytes for state in states)
    curve = curve_of(*states)
    assert peak() - before < 4 * curve.median.nbytes + CURVE_BYTES


@pytest.mark.parametrize("shape", ["falls", "level after a fall", "jumps", "dead", "wanders"])
def test_a_verdict_takes_a_few_times_its_curve(shape: str, peak: Callable[[], int]) -> None:
    d = np.arange(STEPS, dtype=np.float64)
    match shape:
        case "falls":
            curve = -0.1 * d
        case "level after a fall":
            curve = np.maximum(-0.1 * d, -1.0)
        case "jumps":
            curve = np.where(d > STEPS // 2, -5.0, 0.0)
        case "dead":
            curve = np.where(d > STEPS // 2, ZERO, -0.001 * d)
        case _:
            curve = np.sin(d / 1000)
    del d
    verdict_of(curve)
    assert peak() < 5 * CURVE_BYTES


def test_a_measured_run_keeps_one_array_a_curve() -> None:
    two_states = {"name": "two", "equations": "c[t] = a * c[t-1]\nh[t] = b * c[t]"}
    found = measure(build(loaded(two_states, hidden_size=1, batch_size=1, trials=1, seq_len=9)), record=True)
    assert found.curve is not None
    assert found.run is not None
    assert found.run.log2_norm == {}
    curves = [found.curve.median, found.curve.low, found.curve.high, *(s.median for s in found.states.values())]
    assert len({id(curve) for curve in curves}) == 3
    assert all(state.mean is state.median for state in found.states.values())
    assert all(curve.base is None for curve in curves)


def test_a_single_state_is_its_layers_curve() -> None:
    one = measured(SCALAR, hidden_size=2, trials=2, batch_size=3, seq_len=9)
    assert one.curve is not None
    assert one.states["layer0.h"].median is one.curve.median


def test_the_rows_of_one_sequence_share_their_numbers() -> None:
    found = measured(SCALAR, hidden_size=1, trials=1, batch_size=1, seq_len=5000)
    rows = list(curve_records([run_of(found)]).rows)
    assert [row[1] for row in rows] == list(range(5001))
    assert all(row[2] is row[3] is row[4] is row[5] for row in rows)


@given(hnp.arrays(bool, st.integers(0, 20)))
def test_first_and_last_are_those_of_the_list_of_all(mask: np.ndarray) -> None:
    where = np.flatnonzero(mask).tolist()
    assert first_where(mask) == (where[0] if where else None)
    assert last_where(mask) == (where[-1] if where else None)
