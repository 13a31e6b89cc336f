"""The matrix of gradient norms over (t, s), against a closed form and against PyTorch, one loss at a time."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from measured import SMALL, loaded, measured
from redone import given
from reference.torch_reference import run

from gradcli.diagnostics.gradient_matrix import MOST_STEPS, GradientMatrix, measure_gradient_matrix
from gradcli.errors import UsageError
from gradcli.prepare.build import build

CLOSE = 1e-10


def matrix_of(cell: Any, **fields: Any) -> GradientMatrix:
    return measure_gradient_matrix(build(loaded(cell, **fields)))


def test_a_linear_cell_has_powers_of_its_matrix() -> None:
    """h[t] = a h[t-1]: |dL_t/dh_s| = |v| a^(t-s) with L = v . h, v of norm 1, here of one entry."""
    cell = {"name": "scalar", "equations": "h[t] = a * h[t-1] + b"}
    found = matrix_of(cell, hidden_size=1, seq_len=9, params={"a": [0.5], "b": [0.1]}, loss={"kind": "projection"})
    t, s = np.meshgrid(found.steps, found.states, indexing="ij")
    expected = np.where(s <= t, (t - s) * np.log10(0.5), np.nan)
    np.testing.assert_allclose(found.log10_norm, expected, rtol=1e-12, atol=1e-12)
    assert found.moved
    assert found.counted == len(found.steps) == 9


def test_exact_zeros_are_told_from_small_numbers() -> None:
    cell = {"name": "shift", "equations": "h[t] = W @ h[t-1]"}
    shift = np.eye(3, k=-1).tolist()
    found = matrix_of(cell, hidden_size=3, seq_len=6, params={"W": shift}, loss={"kind": "sum"})
    for row, t in enumerate(found.steps):
        for column, s in enumerate(found.states):
            value = found.log10_norm[row, column]
            if s > t:
                assert np.isnan(value)
            elif t - s >= 3:  # W**3 = 0
                assert np.isneginf(value)
            else:
                assert value == pytest.approx(0.5 * np.log10(3 - (t - s)), abs=1e-12)


@pytest.mark.parametrize("at", ["last", "every", [2, 5, 12]])
def test_the_last_row_is_the_curve(at: Any) -> None:
    fields = {**SMALL, "loss": {"kind": "mse", "at": at}}
    found, curve = matrix_of("lstm", **fields), measured("lstm", **fields).curve
    assert curve is not None
    assert found.steps[-1] == SMALL["seq_len"]
    np.testing.assert_allclose(found.log10_norm[-1], curve.mean[SMALL["seq_len"] - found.states], rtol=CLOSE)


def test_of_many_steps_some_are_taken_the_first_and_last_among_them() -> None:
    found = matrix_of("rnn", **{**SMALL, "seq_len": 300, "trials": 1})
    assert found.counted == 300
    assert len(found.steps) == MOST_STEPS
    assert (found.steps[0], found.steps[-1]) == (1, 300)
    assert set(np.diff(found.steps)) <= {4, 5}


def test_a_forward_pass_that_overflows_has_no_matrix() -> None:
    cell = {"name": "blow", "equations": "h[t] = exp(h[t-1]) + W_x @ x[t]"}
    found = matrix_of(cell, **SMALL)
    assert found.verdict is not None
    assert found.verdict.kind == "nonfinite"
    assert not found.log10_norm.size


def test_two_directions_have_no_order_of_steps() -> None:
    with pytest.raises(UsageError, match="bidirectional"):
        matrix_of("rnn", **SMALL, bidirectional=True)


def test_sequences_of_different_lengths_count_from_where_they_begin(tmp_path: Any) -> None:
    """The row of step t is the mean over the sequences that have that step, each as it is alone."""
    lengths, steps = [6, 3, 5], 6
    x = np.random.default_rng(1).normal(size=(3, steps, 2))
    np.savez(tmp_path / "x.npz", x=x, lengths=np.array(lengths))
    source = {"kind": "file", "path": str(tmp_path / "x.npz"), "key": "x", "lengths": "lengths"}
    fields = {"hidden_size": 3, "seq_len": steps, "trials": 1, "loss": {"kind": "sum"}}
    found = matrix_of("rnn", **fields, batch_size=3, input=source)
    alone = []
    for number, length in enumerate(lengths):
        np.savez(tmp_path / f"{number}.npz", x=x[number : number + 1, :length])
        one = {"kind": "file", "path": str(tmp_path / f"{number}.npz"), "key": "x"}
        alone.append(matrix_of("rnn", **{**fields, "seq_len": length}, batch_size=1, input=one))
    for row, t in enumerate(found.steps):
        for column, s in enumerate(found.states):
            norms = []
            for length, single in zip(lengths, alone, strict=True):
                own_t, own_s = t - (steps - length), s - (steps - length)  # sequences end together
                if own_t >= 1 and 0 <= own_s <= own_t:
                    norms.append(10.0 ** single.log10_norm[own_t - 1, own_s])
            if norms:
                assert 10.0 ** found.log10_norm[row, column] == pytest.approx(np.mean(norms), rel=1e-10)
            else:
                assert np.isnan(found.log10_norm[row, column])


@pytest.mark.torch
@pytest.mark.parametrize("cell", ["rnn", "lstm", "gru", "brc"])
@pytest.mark.parametrize(
    "loss",
    [
        {"kind": "mse", "at": "every"},
        {"kind": "mse", "at": "last"},
        {"kind": "cross_entropy", "classes": 3, "at": [2, 5]},
        {"kind": "projection", "at": "last"},
    ],
)
def test_each_entry_is_what_autograd_gives_for_that_loss_alone(cell: str, loss: dict[str, Any]) -> None:
    network = build(loaded(cell, **{**SMALL, "seq_len": 6, "num_layers": 2}, loss=loss))
    found = measure_gradient_matrix(network)
    place = {step: index for index, step in enumerate(network.problem.loss.steps.tolist())}
    for row, t in enumerate(found.steps.tolist()):
        norms = []
        for trial in range(SMALL["trials"]):
            whole = given(network, trial)
            target = whole.loss.target
            own = None if target is None else target[place.get(t, -1)][None]
            at_t = replace(whole, loss=replace(whole.loss, steps=[t], target=own))
            gradients = run(*at_t).grad_states
            top = [g for name, g in gradients.items() if name.startswith("layer1.")]
            norms.append(np.sqrt(sum(np.square(g).sum(axis=2) for g in top)))
        mean = np.concatenate(norms, axis=1).mean(axis=1)
        for column, s in enumerate(found.states.tolist()):
            if s <= t:
                assert 10.0 ** found.log10_norm[row, column] == pytest.approx(mean[s], rel=CLOSE, abs=0)
            else:
                assert np.isnan(found.log10_norm[row, column])
                assert not mean[s]
