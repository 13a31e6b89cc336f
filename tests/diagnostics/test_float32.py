"""What float32 would see, against powers of two, and against PyTorch's own float32 with the same weights and input."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from late_torch import torch
from measured import SCALAR, loaded, measured, screen

from gradcli.commands.simulate import simulate
from gradcli.diagnostics.float32 import Float32
from gradcli.results.result import Result

Array = np.ndarray[Any, Any]

ONE: dict[str, Any] = {"hidden_size": 1, "input_size": 1, "trials": 1, "dtype": "float32", "seq_len": 300}
UNIT: dict[str, Any] = {"kind": "projection", "vector": [1.0]}


def power(a: float, **fields: Any) -> Float32:
    """Return what float32 sees of dL/dh_(T-d) = a**d, with h = b = 0 at every step."""
    options = {"batch_size": 1, "loss": UNIT, "params": {"a": a, "b": 0.0}, **ONE, **fields}
    seen = measured(SCALAR, **options).float32
    assert seen is not None
    return seen


def test_a_power_of_two_is_zero_where_float32_has_no_smaller_number() -> None:
    """2**-149 is the smallest, and 2**-150 halfway to 0 is rounded to it."""
    seen = power(0.5)
    assert (seen.zero_from, seen.nonfinite_from) == (150, None)
    assert seen.parameters == {"layer0.a": "zero", "layer0.b": "finite"}, "h is 0, and the sum of 2**-d is 2"
    assert power(0.5, seq_len=149).zero_from is None


def test_a_mean_over_the_batch_makes_every_gradient_smaller() -> None:
    assert power(0.5, batch_size=8).zero_from == 147


def test_a_power_of_two_is_infinite_from_128_on() -> None:
    seen = power(2.0)
    assert (seen.zero_from, seen.nonfinite_from) == (None, 128)
    assert (seen.gradient, seen.norm, seen.loss) == ("nonfinite", "nonfinite", "zero")
    assert power(2.0, seq_len=127).gradient == "finite"
    assert power(2.0, batch_size=4).nonfinite_from == 130


def test_the_gradient_of_the_initial_state_alone_spoils_no_parameter() -> None:
    """It is 2**128. da is 0, as h is, and db = 2**128 - 1, which float32 rounds to 2**128."""
    seen = power(2.0, seq_len=128)
    assert seen.nonfinite_from == 128
    assert seen.parameters == {"layer0.a": "zero", "layer0.b": "nonfinite"}


def test_a_sum_of_squares_overflows_and_vanishes_long_before_the_gradient() -> None:
    """db = 2**T - 1: its square is beyond 2**128 from T = 64 on. With v = 2**-80 it is 2**-160, which is 0."""
    assert power(2.0, seq_len=63).norm == "finite"
    high = power(2.0, seq_len=65)
    assert (high.gradient, high.norm, high.nonfinite_from) == ("finite", "nonfinite", None)
    low = power(0.5, seq_len=20, loss={"kind": "projection", "vector": [2.0**-80]})
    assert (low.gradient, low.norm, low.zero_from) == ("finite", "zero", None)


def test_the_distances_are_those_of_the_last_loss_alone() -> None:
    seen = power(0.5, loss={**UNIT, "at": "every"})
    assert seen.zero_from == 150
    assert seen.parameters["layer0.b"] == "finite"


def test_zeros_are_those_of_the_curve_and_not_of_the_other_direction() -> None:
    """Of two directions the loss at the last position meets the reverse one at its own first step."""
    fields: dict[str, Any] = {**ONE, "batch_size": 1, "params": {"a": 0.5, "b": 0.0}, "loss": {"kind": "sum"}}
    seen = measured(SCALAR, bidirectional=True, **fields).float32
    assert seen is not None
    assert seen.zero_from == 150


def test_a_loss_beyond_float32_is_told() -> None:
    assert power(0.5, loss={"kind": "mse", "target": 1e30}).loss == "nonfinite"


def test_exact_zeros_are_zeros_in_float32_too() -> None:
    seen = measured("rnn", **{**ONE, "hidden_size": 4}, batch_size=2, activation="relu", init={"b_h": -100.0}).float32
    assert seen is not None
    assert seen.zero_from == 1
    assert seen.gradient == "zero"


def test_float64_has_no_such_limits() -> None:
    run = measured("rnn", hidden_size=3, input_size=2, seq_len=5, batch_size=1, trials=1)
    assert run.float32 is None


EXPLODING: dict[str, Any] = {
    "hidden_size": 8,
    "seq_len": 300,
    "batch_size": 2,
    "trials": 1,
    "input": "zeros",
    "dtype": "float32",
    "init": {"W_hh": {"orthogonal": {"gain": 3.0}}, "b_h": 0.0},
}


def test_what_overflows_is_told_and_clipping_is_not_said_to_help() -> None:
    text = " ".join(screen(cell="rnn", **EXPLODING).split())
    assert "in float32 as training would see it the gradient is Inf or NaN from" in text
    assert "Clipping helps" not in text
    assert "clipping makes NaN of them" in text
    assert "in float32" not in screen(cell="rnn", **{**EXPLODING, "dtype": "float64"})


def test_what_vanishes_is_told_with_its_distance() -> None:
    text = " ".join(screen(cell=SCALAR, batch_size=1, loss=UNIT, params={"a": 0.5, "b": 0.0}, **ONE).split())
    assert "in float32 as training would see it the gradient is exactly 0 from about 150 steps back" in text
    assert "; the gradient of a is exactly 0" in text


NAMES = {"rnn": ["h"], "lstm": ["i", "f", "g", "o"], "gru": ["r", "z", "n"]}


def in_torch(arrays: dict[str, Array], cell: str) -> tuple[int | None, int | None, float, bool]:
    """Return what float32 PyTorch has: zero from, not finite from, the total norm, whether all gradients are finite."""
    steps = arrays["x"].shape[1]

    def stacked(prefix: str) -> Array:
        if f"param.layer0.{prefix}h" in arrays:
            return arrays[f"param.layer0.{prefix}h"][0]
        names = [f"{prefix}{n}" if cell != "rnn" else f"{prefix}hh" for n in NAMES[cell]]
        return np.concatenate([arrays[f"param.layer0.{name}"][0] for name in names])

    module = {"rnn": torch.nn.RNNCell, "lstm": torch.nn.LSTMCell, "gru": torch.nn.GRUCell}[cell]
    size, features = arrays["state.layer0.h"].shape[-1], arrays["x"].shape[-1]
    step = module(features, size)
    second = np.zeros(len(NAMES[cell]) * size)
    if cell == "gru":
        second[2 * size :] = arrays["param.layer0.b_hn"][0]
    values = {
        "weight_ih": stacked("W_x"),
        "weight_hh": arrays["param.layer0.W_hh"][0] if cell == "rnn" else stacked("W_h"),
        "bias_ih": stacked("b_"),
        "bias_hh": second,
    }
    with torch.no_grad():
        for name, value in values.items():
            getattr(step, name).copy_(torch.tensor(value))
    x = torch.tensor(arrays["x"][0], dtype=torch.float32)
    state = tuple(torch.zeros(x.shape[1], size, requires_grad=True) for _ in range(2 if cell == "lstm" else 1))
    kept = [state]
    for t in range(steps):
        after = step(x[t], state if cell == "lstm" else state[0])
        state = after if cell == "lstm" else (after,)
        for part in state:
            part.retain_grad()
        kept.append(state)
    target = torch.tensor(arrays["target"][0, 0], dtype=torch.float32)
    (0.5 * (state[0] - target).square().sum() / x.shape[1]).backward()
    found = [[p.grad for p in states if p.grad is not None] for states in reversed(kept)]
    alive = [d for d, parts in enumerate(found) if any(bool((part != 0).any()) for part in parts)]
    strange = [d for d, parts in enumerate(found) if not all(bool(torch.isfinite(part).all()) for part in parts)]
    total = float(torch.nn.utils.clip_grad_norm_(step.parameters(), 1.0))
    finite = all(bool(torch.isfinite(p.grad).all()) for p in step.parameters())
    zero_from = None if strange or alive[-1] == steps else alive[-1] + 1
    return zero_from, strange[0] if strange else None, total, finite


def recorded(cell: str, **fields: Any) -> tuple[Result, dict[str, Any]]:
    options = {"hidden_size": 16, "input_size": 4, "batch_size": 8, "trials": 1, "dtype": "float32", **fields}
    result = simulate(loaded(cell, **options), record=True)
    return result, result.report.data["runs"][0]["float32"]


@pytest.mark.torch
@pytest.mark.parametrize("gain", [0.3, 0.7, 1.0])
@pytest.mark.parametrize("cell", ["rnn", "lstm", "gru"])
def test_zeros_begin_where_pytorchs_float32_has_them(cell: str, gain: float) -> None:
    init = {"W_h*": {"normal": {"std": gain / 4}}}
    result, seen = recorded(cell, seq_len=400, init=init)
    zero_from, nonfinite_from, _, _ = in_torch(dict(result.arrays), cell)
    assert nonfinite_from is None
    assert seen["nonfinite_from"] is None
    beyond = 401
    found, expected = (beyond if one is None else one for one in (seen["zero_from"], zero_from))
    # The last few bits of the smallest numbers hang on the order of the products, in a GRU above all: z = 1/2 and more
    # leaves 2**-149 as it is.
    assert abs(found - expected) <= (0.03 * expected if cell == "gru" else 2)


@pytest.mark.torch
@pytest.mark.parametrize("gain", [3.0, 8.0, 40.0])
@pytest.mark.parametrize("cell", ["rnn", "lstm", "gru"])
def test_overflow_begins_where_pytorchs_float32_has_it(cell: str, gain: float) -> None:
    """Without input and biases all states stay exactly zero, so that no rounding leads to another trajectory."""
    init = {"W_h*": {"orthogonal": {"gain": gain}}, "b_*": 0.0}
    result, seen = recorded(cell, seq_len=200, init=init, input="zeros")
    _, nonfinite_from, norm, finite = in_torch(dict(result.arrays), cell)
    if nonfinite_from is None:
        assert seen["nonfinite_from"] is None
    else:
        assert abs(seen["nonfinite_from"] - nonfinite_from) <= 1
    assert (seen["gradient"] == "nonfinite") == (not finite)
    assert (seen["norm"] == "nonfinite") == (not np.isfinite(norm))
