"""Contributions: every term against PyTorch's autograd on a copy of each parameter for each step, and closed forms."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import redone
import yaml
from built_in_cells import in_turn, parsed, random_starts
from measured import SCALAR, SMALL, loaded, small
from numpy.typing import NDArray
from reference import step_copies
from reference.relative_error import vector_error
from reference.torch_reference import run
from terms_by_step import in_blocks, take_apart_slowly

from gradcli import cells
from gradcli.diagnostics import contributions
from gradcli.diagnostics.contributions import Contributions, Terms, bytes_kept, measure_contributions, of_last_loss
from gradcli.engine.run import Engine
from gradcli.prepare.build import Network, build

TRAINED = [name for name in cells.names() if set(parsed(name).parameters) - parsed(name).fixed]
TEST_CELLS = sorted((Path(__file__).parents[1] / "cells").glob("*.yaml"))
EXACT = 1e-11
SETTINGS: dict[str, dict[str, Any]] = {
    "mse": {},
    "cross-entropy at some steps": {"loss": {"kind": "cross_entropy", "at": [4, 9, 2], "classes": 4}},
    "2 layers": {"num_layers": 2, "loss": {"kind": "projection", "at": "every"}},
}


def taken_apart(cell: Any = "rnn", *, layer: int = 0, **fields: object) -> Contributions:
    return measure_contributions(build(loaded(cell, **fields)), layer)


def joint(cell: Any = "rnn", **fields: object) -> Terms:
    found = taken_apart(cell, **fields).joint
    assert found is not None
    return found


def network_of(cell: Any, **fields: object) -> Network:
    network = build(loaded(cell, **fields))
    return build(loaded(cell, **fields, **random_starts(network.problem.initial[0])))


def assert_terms_are_those_of_torch(network: Network) -> None:
    network = of_last_loss(network)
    compared = 0
    for trials, group in Engine(network.problem).groups():
        expected = [
            step_copies.terms(*redone.given(network, trial), tied=network.problem.tied)
            for trial in range(trials.start, trials.stop)
        ]
        for index, layer in enumerate(network.problem.names):
            for step, found in in_blocks(group, index):
                for name, term in found.items():
                    for i, of_trial in enumerate(expected):
                        reference = of_trial[f"{layer}.{name}"][step - 1]
                        error = vector_error(term.mantissa[i], int(term.exponent[i]), reference)
                        assert error is not None
                        assert error < EXACT, (layer, name, step)
                        compared += bool(reference.any())
    assert compared > 0


@pytest.mark.torch
@pytest.mark.parametrize(("name", "setting"), in_turn(TRAINED, list(SETTINGS)))
def test_every_term_of_every_parameter(name: str, setting: str) -> None:
    assert_terms_are_those_of_torch(network_of(name, **small(name, **SETTINGS[setting])))


@pytest.mark.parametrize("fixed", [["W_hh"], ["W_xh"], ["b_h"], ["W_hh", "b_h"], ["W_xh", "W_hh", "b_h"]])
def test_what_is_not_trained_has_no_terms_and_changes_none(fixed: list[str]) -> None:
    cell = {"name": "own", "equations": "h[t] = tanh(W_xh @ x[t] + W_hh @ h[t-1] + b_h)"}
    every, some = taken_apart(cell, **SMALL).parameters, taken_apart({**cell, "fixed": fixed}, **SMALL).parameters
    assert every is not None
    assert some is not None
    assert set(some) == {"W_xh", "W_hh", "b_h"} - set(fixed)
    for name, terms in some.items():
        np.testing.assert_allclose(terms.log10_norm, every[name].log10_norm, rtol=1e-9)
        np.testing.assert_allclose(terms.bias[:-1], every[name].bias[:-1], rtol=1e-9)


@pytest.mark.torch
@pytest.mark.parametrize("path", TEST_CELLS, ids=lambda path: path.stem)
def test_every_term_of_unusual_cells(path: Path) -> None:
    fields = yaml.safe_load(path.read_text(encoding="utf-8"))
    assert_terms_are_those_of_torch(build(loaded(fields.pop("cell"), **fields)))


@pytest.mark.torch
@pytest.mark.parametrize("name", ["lstm", "gru-textbook", "rnn-lags"])
@pytest.mark.parametrize("layer", [0, 1])
def test_truncated_gradients(name: str, layer: int) -> None:
    """Window by window: the gradient that is left when autograd's graph is cut, against the whole one."""
    network = network_of(name, **{**SMALL, "trials": 1, "num_layers": 2})
    found = measure_contributions(network, layer)
    assert found.joint is not None
    assert found.parameters is not None
    arguments = redone.given(network, 0)
    count = network.spec.seq_len
    by_window = [step_copies.truncated(*arguments, window=k) for k in range(1, count + 1)]

    def flat(gradients: dict[str, NDArray[np.float64]], names: list[str]) -> NDArray[np.float64]:
        return np.concatenate([gradients[f"layer{layer}.{name}"].ravel() for name in names])

    copies = network.problem.copies
    counted = [name for name in found.parameters for _ in range(copies.get(f"layer{layer}.{name}", 1))]
    every = {"all": counted, **{name: [name] for name in found.parameters}}
    for label, names in every.items():
        terms = found.joint if label == "all" else found.parameters[label]
        left = np.array([flat(gradients, names) for gradients in by_window])
        whole = left[-1]
        norms = np.linalg.norm(left, axis=1)
        norm = np.linalg.norm(whole)
        assert terms.kept == pytest.approx(left @ whole / norm**2, rel=1e-9)
        assert terms.norm_kept == pytest.approx(norms / norm, rel=1e-9)
        assert terms.cosine == pytest.approx(left @ whole / (norms * norm), rel=1e-9)
        # Nothing is missing from the last window but rounding.
        assert terms.bias[:-1] == pytest.approx(np.linalg.norm(left - whole, axis=1)[:-1] / norm, rel=1e-7)
        assert terms.bias[-1] < terms.rounding
        assert terms.log10_total == pytest.approx(np.log10(norm), rel=1e-9)
        steps = np.diff(left, axis=0, prepend=np.zeros((1, len(whole))))
        assert 10**terms.log10_norm == pytest.approx(np.linalg.norm(steps, axis=1), rel=1e-7)


@pytest.mark.torch
def test_weights_of_each_step_are_one_vector() -> None:
    """Untied: every step's weights have one term, so that shares are squared norms, as torch gives them."""
    network = network_of("residual-stack", **{**SMALL, "trials": 1})
    found = measure_contributions(network, 0)
    assert found.joint is not None
    assert found.parameters is not None
    gradients = run(*redone.given(network, 0), tied=False).grad_params
    squares = {name: np.square(gradients[f"layer0.{name}"]) for name in found.parameters}
    by_step = {name: values.reshape(len(values), -1).sum(axis=1)[::-1] for name, values in squares.items()}
    for terms, of_steps in [
        (found.joint, sum(by_step.values())),
        *((found.parameters[n], by_step[n]) for n in by_step),
    ]:
        kept = np.cumsum(of_steps) / np.sum(of_steps)
        assert 10**terms.log10_norm == pytest.approx(np.sqrt(of_steps), rel=1e-9)
        assert terms.share == pytest.approx(of_steps / np.sum(of_steps), rel=1e-9, abs=1e-15)
        assert terms.kept == pytest.approx(kept, rel=1e-9)
        assert terms.norm_kept == pytest.approx(np.sqrt(kept), rel=1e-9)
        assert terms.cosine == pytest.approx(np.sqrt(kept), rel=1e-9)
        left_out = np.append(np.cumsum(of_steps[::-1])[::-1][1:], 0.0)
        assert terms.bias == pytest.approx(np.sqrt(left_out / np.sum(of_steps)), rel=1e-9)


# --- closed forms ----------------------------------------------------------------------------------------------------

ONE_UNIT = {"hidden_size": 1, "batch_size": 1, "trials": 1, "loss": {"kind": "sum"}}
POWER = {"name": "power", "equations": "h[t] = w * h[t-1]"}


def test_contributions_are_flat_while_the_state_curve_falls() -> None:
    """h = w h from h_0 = 1: every term of dL/dw is w^(T-1), the state gradient is w^d."""
    found = taken_apart(POWER, **ONE_UNIT, seq_len=50, params={"w": 0.9}, h_0=[1.0])
    assert found.joint is not None
    assert found.state_curve is not None
    assert 10**found.joint.log10_norm == pytest.approx(np.full(50, 5.7264168971e-03), rel=1e-10)
    assert 10**found.joint.log10_total == pytest.approx(0.2863208448, rel=1e-9)
    assert found.joint.share == pytest.approx(np.full(50, 0.02), rel=1e-12)
    assert found.joint.bias[:-1] == pytest.approx(1 - np.arange(1, 50) / 50, rel=1e-12)
    assert (found.joint.window(0.05), found.joint.window(0.01)) == (48, 50)
    assert (found.joint.window_by_cosine(0.05), found.joint.window_by_cosine(0.01)) == (1, 1)
    assert found.state_curve.median == pytest.approx(np.arange(51) * np.log10(0.9), rel=1e-12)


@pytest.mark.parametrize(("a", "steps"), [(0.9, 40), (0.5, 12), (1.05, 30), (-0.8, 25)])
def test_bias_of_truncation_is_trinhs(a: float, steps: int) -> None:
    """h = a h + b: dh_T/db is the sum of a^d, and a window of K steps misses (a^K - a^T) / (1 - a^T) of it."""
    found = taken_apart(SCALAR, **ONE_UNIT, seq_len=steps, params={"a": a, "b": 1.0}, init={})
    assert found.parameters is not None
    terms = found.parameters["b"]
    d, window = np.arange(steps), np.arange(1, steps + 1)
    expected = (a**window - a**steps) / (1 - a**steps)
    assert 10**terms.log10_norm == pytest.approx(np.abs(a) ** d, rel=1e-12)
    assert terms.value == pytest.approx((1 - a**steps) / (1 - a), rel=1e-12)
    assert terms.bias[:-1] == pytest.approx(np.abs(expected[:-1]), rel=1e-9)
    assert terms.kept == pytest.approx(1 - expected, rel=1e-12)
    for tolerance in (0.05, 0.01):
        holds = np.abs(expected) <= tolerance
        assert terms.window(tolerance) == next(k for k in window if holds[k - 1 :].all())


@pytest.mark.parametrize(
    ("cell", "fields"),
    [
        ("lstm", {"batch_size": 3}),
        ("gru", {"num_layers": 2, "batch_size": 1}),
        ("lru", {"trials": 1}),
        ("irnn", {"init": {"b_h": -0.02}}),
        ("layer-norm-lstm", {"loss": {"kind": "cross_entropy", "at": [140, 120], "classes": 4}}),
        ({"name": "f", "equations": "h[t] = f * h[t-1] + (1 - f) * tanh(W @ x[t] * k + U @ h[t-1])"}, {}),
    ],
    ids=["lstm", "gru", "lru", "irnn", "layer-norm-lstm", "own"],
)
def test_blocks_of_steps_are_single_steps(cell: Any, fields: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = {**SMALL, "seq_len": 150, **fields}
    in_blocks_of_steps = taken_apart(cell, **sizes)
    monkeypatch.setattr(contributions, "_take_apart", take_apart_slowly)
    slowly = taken_apart(cell, **sizes)
    assert slowly.parameters is not None
    assert in_blocks_of_steps.parameters is not None
    assert slowly.parameters.keys() == in_blocks_of_steps.parameters.keys()
    for name in slowly.parameters:
        expected, found = slowly.parameters[name], in_blocks_of_steps.parameters[name]
        for field in ("log10_norm", "share", "kept", "norm_kept", "cosine", "bias"):
            np.testing.assert_allclose(
                getattr(found, field), getattr(expected, field), rtol=1e-10, atol=1e-10, err_msg=f"{name} {field}"
            )


def test_terms_of_tiny_numbers_have_their_shares() -> None:
    """h_3 = b (1 + w + w^2) to first order: dw gets 2 b in all, from b = 1e-310, beside a bias with 7/4."""
    cell = {"name": "tiny", "equations": "h[t] = tanh(w * h[t-1] + b)"}
    fields = {**ONE_UNIT, "loss": {"kind": "projection", "vector": [1.0]}}
    found = taken_apart(cell, **fields, seq_len=3, params={"w": 0.5, "b": 1e-310})
    assert found.parameters is not None
    assert found.joint is not None
    w, b = found.parameters["w"], found.parameters["b"]
    assert b.share == pytest.approx([4 / 7, 2 / 7, 1 / 7], rel=1e-12)
    # h_2 = 3/2 b and h_1 = b, times 1 and 1/2; at the first step h_0 = 0 gives an exact zero.
    assert w.share == pytest.approx([0.75, 0.25, 0.0], rel=1e-12)
    assert w.log10_total == pytest.approx(np.log10(2e-310), rel=1e-12)
    for terms in (w, b, found.joint):
        assert terms.cosine[-1] == pytest.approx(1.0, rel=1e-12)
        assert terms.bias[-1] == pytest.approx(0.0, abs=1e-12)


def test_no_term_underflows() -> None:
    found = taken_apart(SCALAR, **ONE_UNIT, seq_len=3000, params={"a": 0.01, "b": 1.0}).parameters
    assert found is not None
    assert found["b"].log10_norm == pytest.approx(-2.0 * np.arange(3000), rel=1e-12, abs=1e-12)


def test_growing_terms_leave_nothing_of_a_short_window() -> None:
    """1.1^d over 9,000 steps: beyond a float, but the shares are those of a geometric series."""
    found = taken_apart(SCALAR, **ONE_UNIT, seq_len=9000, params={"a": 1.1, "b": 0.0}).parameters
    assert found is not None
    terms = found["b"]
    assert terms.log10_total == pytest.approx(9000 * np.log10(1.1) + 1.0, rel=1e-12)
    assert terms.share[-1] == pytest.approx(0.1 / 1.1, rel=1e-9)
    assert terms.share[0] == 0.0
    assert terms.window(0.05) == 9000


def test_terms_that_cancel_have_no_shares() -> None:
    """h_2 = a h_1 + b with a = -1 from h_0 = 0: db gets 1 at step 2 and -1 at step 1."""
    found = taken_apart(SCALAR, **ONE_UNIT, seq_len=2, params={"a": -1.0, "b": 3.0})
    assert found.parameters is not None
    assert found.joint is not None
    b = found.parameters["b"]
    assert 10**b.log10_norm == pytest.approx([1.0, 1.0])
    assert not b.exists
    assert np.isnan(b.share).all()
    assert b.window(0.05) is None
    assert b.log10_total == -np.inf
    # d/da = h_1 = 3 at step 2 alone; together with b's terms the whole gradient is (3, 0).
    assert found.joint.share == pytest.approx([1.0, 0.0])
    assert found.joint.bias == pytest.approx([1 / 3, 0.0])


def test_a_dead_gradient_is_told() -> None:
    dead = {**ONE_UNIT, "loss": {"kind": "projection", "vector": [0.0]}}
    found = joint(SCALAR, **dead, seq_len=3, params={"a": 0.5})
    assert not found.exists
    assert np.isneginf(found.log10_norm).all()


def test_shares_add_up_to_one_and_norms_do_not() -> None:
    found = taken_apart("lstm", **SMALL)
    assert found.parameters is not None
    assert found.joint is not None
    for terms in (found.joint, *found.parameters.values()):
        assert terms.kept[-1] == pytest.approx(1.0, rel=1e-12)
    assert np.sum(10**found.joint.log10_relative) > 1.01


def test_the_last_of_several_losses_counts_alone() -> None:
    several = taken_apart("gru", **SMALL, loss={"kind": "mse", "at": [3, 9]})
    assert several.loss_steps == 2
    assert several.network.problem.seq_len == 9
    sequence = joint("gru", **{**SMALL, "seq_len": 9}, loss={"kind": "projection", "at": "last"})
    same = joint("gru", **{**SMALL, "seq_len": 9}, loss={"kind": "projection", "at": "every"})
    assert same.log10_norm == pytest.approx(sequence.log10_norm, rel=1e-12)


def test_trials_run_one_by_one_give_the_same_medians(monkeypatch: pytest.MonkeyPatch) -> None:
    from gradcli.engine import sizes

    together = joint("lstm", **SMALL)
    monkeypatch.setattr(sizes, "_NUMBERS_A_CALL", 1)
    apart = joint("lstm", **SMALL)
    assert apart.share == pytest.approx(together.share, rel=1e-9)
    assert apart.log10_norm == pytest.approx(together.log10_norm, rel=1e-12)


def test_a_tape_kept_in_segments_gives_the_same_terms(monkeypatch: pytest.MonkeyPatch) -> None:
    from gradcli.engine import sizes

    long = {**SMALL, "seq_len": 150, "trials": 1}
    whole = joint("gru", **long)
    monkeypatch.setattr(sizes, "_WHOLE_TAPE_BYTES", 0)
    monkeypatch.setattr(sizes, "_SEGMENT_BYTES", 0)
    in_segments = joint("gru", **long)
    assert build(loaded("gru", **long)).problem.sizes.segment < 150
    assert in_segments.log10_norm == pytest.approx(whole.log10_norm, rel=1e-9)
    assert in_segments.kept == pytest.approx(whole.kept, rel=1e-9)


def test_a_forward_pass_that_overflows_has_no_terms() -> None:
    found = taken_apart({"name": "e", "equations": "h[t] = exp(h[t-1] + W_xh @ x[t])"}, **SMALL)
    assert found.verdict is not None
    assert found.verdict.kind == "nonfinite"
    assert found.joint is None


def test_memory_is_reckoned_by_the_step() -> None:
    problems = [build(loaded("lstm", **{**SMALL, "seq_len": n})).problem for n in (1000, 2000)]
    sizes = [bytes_kept(problem.plans[0], problem.sizes) for problem in problems]
    assert sizes[1] - sizes[0] > 1000 * 3 * 13 * 4 * 8
