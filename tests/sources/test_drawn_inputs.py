"""Inputs that are drawn or computed: layout, laws, and independence of segments, trials and length."""

from __future__ import annotations

import tracemalloc
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from as_read import as_read

from gradcli.sources.input_source import InputSource, SymbolSource
from gradcli.sources.inputs import open_input
from gradcli.sources.streams import stream
from gradcli.spec.inputs import Input
from gradcli.spec.value_readers import RefusedError

KINDS = ("zeros", "constant", "normal", "uniform", "sine", "one_hot")


def source(
    kind: str, *, size: int = 3, seq_len: int = 200, batch: int = 5, trials: int = 2, seed: int = 0, **arguments: float
) -> InputSource:
    return open_input(
        as_read(Input, {"kind": kind, **arguments}),
        folder=Path(),
        input_size=None,
        default_size=size,
        seq_len=seq_len,
        batch_size=batch,
        trials=trials,
        seed=seed,
    )


@pytest.mark.parametrize("kind", KINDS)
def test_an_input_is_a_contiguous_float64_array_steps_trials_size_batch(kind):
    x = source(kind).fill(10, 150)
    assert x.shape == (140, 2, 3, 5)
    assert x.dtype == np.float64
    assert x.flags.c_contiguous
    assert x.flags.writeable


@pytest.mark.parametrize("kind", KINDS)
def test_neither_the_segments_nor_the_length_nor_more_trials_change_a_value(kind):
    whole = source(kind).fill(0, 200)
    for cuts in ([0, 200], [0, 1, 64, 65, 127, 128, 200], [0, 100, 101, 200]):
        in_order = source(kind)
        assert np.array_equal(np.concatenate([in_order.fill(a, b) for a, b in pairwise(cuts)]), whole)
        backwards = source(kind)
        parts = [backwards.fill(a, b) for a, b in reversed(list(pairwise(cuts)))]
        assert np.array_equal(np.concatenate(parts[::-1]), whole)
    assert np.array_equal(source(kind, seq_len=70).fill(0, 70), whole[:70])
    assert np.array_equal(source(kind, trials=3).fill(0, 200)[:, :2], whole)


@pytest.mark.parametrize("kind", ["normal", "uniform", "sine", "one_hot"])
def test_seeds_and_trials_differ(kind):
    x = source(kind, size=8).fill(0, 200)
    assert not np.array_equal(x[:, 0], x[:, 1])
    assert not np.array_equal(x, source(kind, size=8, seed=1).fill(0, 200))


def test_a_segment_of_a_very_long_run_takes_the_memory_of_the_segment():
    long = source("normal", size=32, seq_len=1_000_000, batch=16, trials=1)
    tracemalloc.start()
    x = long.fill(999_000, 1_000_000)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1.5 * x.nbytes


def test_zeros_and_constant():
    assert not source("zeros").fill(0, 9).any()
    assert np.array_equal(source("constant", value=-0.25).fill(0, 9), np.full((9, 2, 3, 5), -0.25))


def test_normal_has_its_mean_and_standard_deviation():
    x = source("normal", std=0.5, mean=3.0, batch=50).fill(0, 200)
    assert x.mean() == pytest.approx(3.0, abs=4 * 0.5 / np.sqrt(x.size))
    assert x.std() == pytest.approx(0.5, rel=4 / np.sqrt(2 * x.size))


def test_normal_draws_are_uncorrelated_over_time_trials_features_and_sequences():
    x = source("normal", batch=50).fill(0, 200)
    for axis in range(4):
        one, other = np.delete(x, 0, axis), np.delete(x, -1, axis)
        assert abs(np.mean(one * other)) < 5 / np.sqrt(one.size)


def test_uniform_fills_its_interval():
    x = source("uniform", low=2.0, high=5.0, batch=50).fill(0, 200)
    assert 2.0 <= x.min() < 2.001
    assert 4.999 < x.max() <= 5.0
    assert x.mean() == pytest.approx(3.5, abs=4 * 3 / np.sqrt(12 * x.size))


def test_uniform_bounds_must_be_in_order():
    with pytest.raises(RefusedError, match=r"low = 2.0 is above high = 1.0"):
        source("uniform", low=2.0, high=1.0)


def test_sine_has_its_period_amplitude_and_a_phase_for_each_sequence_and_feature():
    x = source("sine", period=8.0, amplitude=1.5, seq_len=1_000_000).fill(999_900, 1_000_000)
    assert np.allclose(x[8:], x[:-8], atol=1e-12)
    # sin^2 + cos^2 = 1, a quarter of a period apart.
    assert np.allclose(x[2:] ** 2 + x[:-2] ** 2, 1.5**2, atol=1e-12)
    phases = source("sine", period=8.0).fill(0, 1)
    assert len(np.unique(phases)) == phases.size


def test_sine_counts_steps_from_1():
    x = source("sine", period=7.5).fill(0, 200)
    steps = np.arange(1, 201)[:, np.newaxis, np.newaxis]
    for trial in range(2):
        phase = stream(0, "input", trial, "phase").uniform(0, 2 * np.pi, (3, 5))
        assert np.allclose(x[:, trial], np.sin(2 * np.pi * steps / 7.5 + phase), atol=1e-12)


def test_one_hot_shows_its_symbols():
    x = source("one_hot", size=7, batch=50)
    assert isinstance(x, SymbolSource)
    symbols = x.symbols(0, 200)
    assert symbols.shape == (200, 2, 50)
    assert np.array_equal(x.fill(0, 200), np.eye(7)[symbols].transpose(0, 1, 3, 2))
    counts = np.bincount(symbols.ravel(), minlength=7)
    expected = symbols.size / 7
    assert np.all(np.abs(counts - expected) < 5 * np.sqrt(expected))


def test_one_hot_has_a_symbol_after_the_last_step_and_none_further():
    x = source("one_hot", size=7, seq_len=64)
    assert isinstance(x, SymbolSource)
    assert np.array_equal(x.symbols(0, 65), source("one_hot", size=7, seq_len=65).symbols(0, 65))
    with pytest.raises(ValueError, match=r"not within \[0, 65\)"):
        x.symbols(64, 66)


def test_input_size_wins_over_the_default():
    model = as_read(Input, {"kind": "normal"})
    chosen = open_input(model, folder=Path(), input_size=2, default_size=9, seq_len=1, batch_size=1, trials=1, seed=0)
    assert chosen.size == 2
    assert chosen.fill(0, 1).shape == (1, 1, 2, 1)
