"""Clipping against numbers worked out by hand, also where gradients are far beyond the range of floats."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from measured import SCALAR, SMALL, loaded, measured

from gradcli.diagnostics.clipping import Clipped
from gradcli.diagnostics.measure import Measured, measure
from gradcli.prepare.build import build
from gradcli.results.run import run_of
from gradcli.results.saved_arrays import saved_arrays

ONE = {"hidden_size": 2, "trials": 1, "batch_size": 1}
ADDED = 1e-6  # what PyTorch's clip_grad_norm_ adds to the norm


def copies_of(run: Measured) -> dict[str, int]:
    """How many parameters of PyTorch's each one is."""
    return {name: found.copies for name, found in run_of(run).parameters.items()}


def clipped(cell: Any, *methods: dict[str, float], **fields: object) -> list[Clipped]:
    return measured(cell, clip=list(methods), **fields).clipped


def gradient_of_b(vector: list[float], *methods: dict[str, float], **fields: object) -> list[Clipped]:
    """Clip the gradient dL/db = `vector`: one step of h = b, with L = vector . h."""
    return clipped(SCALAR, *methods, **ONE, seq_len=1, loss={"kind": "projection", "vector": vector}, **fields)


def test_norm_keeps_the_direction() -> None:
    (found,) = gradient_of_b([3.0, 4.0], {"norm": 1.0}, params={"b": 0.0}, learning_rate=0.5)
    assert 10**found.log10_norm_before == pytest.approx(5.0, rel=1e-14)
    scale = 1.0 / (5.0 + ADDED)
    assert 10**found.log10_norm_after == pytest.approx(5.0 * scale, rel=1e-14)
    assert found.scale == pytest.approx(scale, rel=1e-14)
    assert found.cosine == pytest.approx(1.0, abs=1e-15)
    assert found.fraction_clipped == 1.0
    # b = 0 moves to -0.5 scale (3, 4), and L = v . b.
    assert found.loss_before == 0.0
    assert found.loss_after_clipped == pytest.approx(-0.5 * 25 * scale, rel=1e-14)
    assert found.loss_after_unclipped == pytest.approx(-0.5 * 25, rel=1e-14)


def test_value_turns_the_direction() -> None:
    (found,) = gradient_of_b([10.0, 1.0], {"value": 1.0}, params={"b": 0.0}, learning_rate=1.0)
    assert found.cosine == pytest.approx(11 / math.sqrt(2 * 101), rel=1e-13)
    assert found.cosine == pytest.approx(0.7739572993, abs=1e-10)
    assert 10**found.log10_norm_after == pytest.approx(math.sqrt(2), rel=1e-14)
    # Of four entries, those of the gradient of a among them, one is above the threshold.
    assert found.fraction_clipped == 0.25
    assert found.loss_after_clipped == pytest.approx(-11.0, rel=1e-14)


@pytest.mark.parametrize("method", ["norm", "value", "step_norm", "step_value"])
def test_below_its_threshold_a_method_changes_no_bit(method: str) -> None:
    (found,) = clipped("lstm", {method: 1e6}, **SMALL)
    assert found.log10_norm_after == found.log10_norm_before
    assert found.scale == 1.0
    assert found.cosine == pytest.approx(1.0, abs=1e-15)
    assert found.fraction_clipped == 0.0
    assert found.loss_after_clipped == found.loss_after_unclipped


@pytest.mark.parametrize("method", ["step_norm", "step_value"])
def test_inside_bptt_the_gradient_is_capped_at_each_step(method: str) -> None:
    # Unclipped, dL/dh at distance d is 2^d and dL/db their sum; clipped, each is 1.
    one_unit = {"hidden_size": 1, "trials": 1, "batch_size": 1, "seq_len": 10}
    (found,) = clipped(
        SCALAR, {method: 1.0}, **one_unit, params={"a": 2.0, "b": 0.0}, loss={"kind": "sum"}, learning_rate=0.25
    )
    assert 10**found.log10_norm_before == pytest.approx(1023, rel=1e-13)
    assert 10**found.log10_norm_after == pytest.approx(10, rel=1e-13)
    assert found.scale == pytest.approx(10 / 1023, rel=1e-13)
    assert found.fraction_clipped == pytest.approx(10 / 11)
    assert found.curve is not None
    np.testing.assert_allclose(found.curve.median, 0.0, atol=1e-14)
    assert found.loss_after_clipped == pytest.approx(-0.25 * 10 * 1023, rel=1e-13)


@pytest.mark.parametrize("method", ["step_value", "step_norm"])
def test_each_step_is_counted_once_however_often_a_block_is_taken(method: str) -> None:
    # 1e-3 a step is too much for one long block, which is then taken again in shorter ones.
    fields = {"hidden_size": 1, "trials": 1, "batch_size": 1, "seq_len": 300, "loss": {"kind": "sum"}}
    (found,) = clipped(SCALAR, {method: 1e-5}, **fields, params={"a": 1e-3, "b": 0.0})
    # Only the 1 at distance 0 is over the threshold, of 301 gradients.
    assert found.fraction_clipped == pytest.approx(1 / 301, rel=1e-14)


def test_an_exploded_gradient_is_brought_down_to_the_threshold() -> None:
    fields = {"seq_len": 5000, "params": {"a": 10.0, "b": 0.0}, "loss": {"kind": "projection", "vector": [3.0, 4.0]}}
    norm, value = clipped(SCALAR, {"norm": 2.0}, {"value": 2.0}, **ONE, **fields)
    before = 4999 + math.log10(5 * (10 / 9))
    assert norm.log10_norm_before == pytest.approx(before, rel=1e-13)
    assert norm.log10_norm_after == pytest.approx(math.log10(2.0), rel=1e-10)
    assert norm.cosine == pytest.approx(1.0, abs=1e-9)
    assert norm.scale == 0.0
    assert value.log10_norm_after == pytest.approx(math.log10(2.0 * math.sqrt(2)), rel=1e-12)
    assert value.cosine == pytest.approx(7 / (5 * math.sqrt(2)), rel=1e-9)
    # The steps themselves leave the range of floats: b times 1.1e4999.
    assert norm.loss_before == 0.0
    assert norm.loss_after_unclipped is None
    assert norm.loss_after_clipped is None


def test_a_vanished_gradient_is_left_as_it_is(tmp_path: Path) -> None:
    impulse = np.zeros((5000, 1))
    impulse[0] = 1.0
    np.save(tmp_path / "impulse.npy", impulse)
    cell = {"equations": "h[t] = a * h[t-1] + w @ x[t]", "shapes": {"w": ["hidden_size", "input_size"]}}
    found = clipped(
        cell,
        {"norm": 1.0},
        {"value": 1.0},
        hidden_size=1,
        trials=1,
        batch_size=1,
        seq_len=5000,
        params={"a": 0.1, "w": 0.0},
        loss={"kind": "sum"},
        input={"kind": "file", "path": str(tmp_path / "impulse.npy")},
    )
    for one in found:
        assert one.log10_norm_before == pytest.approx(-4999, rel=1e-13)
        assert one.log10_norm_after == one.log10_norm_before
        assert (one.scale, one.cosine, one.fraction_clipped) == (1.0, 1.0, 0.0)


def test_no_gradient_has_no_scale_and_no_cosine() -> None:
    (found,) = gradient_of_b([0.0, 0.0], {"norm": 1.0})
    assert found.log10_norm_before == found.log10_norm_after == -math.inf
    assert found.scale is None
    assert found.cosine is None


@pytest.mark.parametrize("trials", [3, 4])
def test_several_trials_give_medians(trials: int) -> None:
    fields = {"hidden_size": 3, "batch_size": 1, "trials": trials, "seq_len": 1, "params": {"a": 0.5, "b": 0.0}}
    network = build(loaded(SCALAR, **fields, clip=[{"norm": 1.5}], learning_rate=0.5))
    run = measure(network, record=True)
    # dL/db = -target for one sequence, and L = |b - target|^2 / 2.
    target = saved_arrays(run)["target"][:, 0, 0]
    norms = np.linalg.norm(target, axis=1)
    scales = np.minimum(1.0, 1.5 / (norms + ADDED))
    assert 0 < (scales < 1).sum() < trials, "choose a threshold that some trials reach"
    (found,) = run.clipped
    assert 10**found.log10_norm_before == pytest.approx(10 ** np.median(np.log10(norms)), rel=1e-12)
    assert 10**found.log10_norm_after == pytest.approx(10 ** np.median(np.log10(norms * scales)), rel=1e-12)
    assert found.scale == pytest.approx(np.median(scales), rel=1e-12)
    assert found.fraction_clipped == pytest.approx((scales < 1).mean())
    assert found.loss_before == pytest.approx(np.median(norms**2 / 2), rel=1e-12)
    assert found.loss_after_unclipped == pytest.approx(np.median((norms * 0.5) ** 2 / 2), rel=1e-12)
    assert found.loss_after_clipped == pytest.approx(np.median((norms * (1 - 0.5 * scales)) ** 2 / 2), rel=1e-12)


def test_trials_without_a_gradient_leave_scale_and_cosine_to_the_others() -> None:
    # relu passes dL/db in a trial only where its b is positive.
    cell = {"equations": "h[t] = relu(a * h[t-1] + b)"}
    fields = {"hidden_size": 1, "batch_size": 1, "trials": 9, "seq_len": 1, "init": {"b": {"normal": 1.0}}}
    (found,) = clipped(cell, {"norm": 0.25}, **fields, loss={"kind": "sum"})
    assert 0 < found.fraction_clipped < 1
    assert found.scale == pytest.approx(0.25, rel=1e-5)
    assert found.cosine == pytest.approx(1.0)


@pytest.mark.parametrize("loss", [{"kind": "mse", "at": "every"}, {"kind": "cross_entropy", "classes": 4}])
@pytest.mark.parametrize("method", [{"norm": 0.05}, {"value": 0.01}])
def test_the_loss_after_a_step_is_that_of_a_run_with_the_moved_parameters(
    loss: dict[str, Any], method: dict[str, float]
) -> None:
    rate = 0.7
    fields = {**SMALL, "trials": 1, "num_layers": 2, "loss": loss}
    run = measure(build(loaded("lstm", **fields, clip=[method], learning_rate=rate)), record=True)
    arrays = saved_arrays(run)
    gradients = {
        key.removeprefix("grad_param."): np.ldexp(value, int(arrays[key.replace("grad_", "log2_", 1)][0]))[0]
        for key, value in arrays.items()
        if key.startswith("grad_param.")
    }
    copies = copies_of(run)
    norm = math.sqrt(sum(copies[name] * float(np.square(g).sum()) for name, g in gradients.items()))
    ((kind, threshold),) = method.items()
    (found,) = run.clipped
    assert found.fraction_clipped > 0

    def loss_at(step: dict[str, Any]) -> float:
        moved = {name: (arrays[f"param.{name}"][0] - rate * copies[name] * g).tolist() for name, g in step.items()}
        other = measured("lstm", **fields, clip=[{"norm": 1.0}], params=moved).clipped[0].loss_before
        assert other is not None
        return other

    cut = {
        name: g * min(1.0, threshold / (norm + ADDED)) if kind == "norm" else np.clip(g, -threshold, threshold)
        for name, g in gradients.items()
    }
    assert found.loss_before == pytest.approx(float(arrays["loss"].mean()), rel=1e-12)
    assert found.loss_after_unclipped == pytest.approx(loss_at(gradients), rel=1e-12)
    assert found.loss_after_clipped == pytest.approx(loss_at(cut), rel=1e-12)


def test_the_parameters_are_put_back_after_each_step() -> None:
    first, second, third = clipped("gru", {"norm": 0.1}, {"step_norm": 0.01}, {"norm": 0.1}, **SMALL)
    assert first == third
    assert second.loss_after_unclipped == first.loss_after_unclipped
