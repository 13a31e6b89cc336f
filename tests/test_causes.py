"""Causes against the saved arrays: the rate from gradients, what a direct route keeps from states and parameters."""

from __future__ import annotations

import ast
import math
from collections.abc import Iterator
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from built_in_cells import SPANNING, constants, parsed
from in_process import gradcli
from numpy.typing import NDArray
from simulated import SPEC_FILE, Simulated, simulate

from gradcli import cells

Array = NDArray[np.float64]
SEQ_LEN = 30
SIZES = {"hidden_size": 12, "input_size": 6, "seq_len": SEQ_LEN, "batch_size": 4, "trials": 2}

#: What one step of a direct route multiplies by, with gates held constant, as the papers have it: written by hand.
DIRECT = {
    "atr": ("h", "f"),
    "brc": ("h", "c + (1 - c) * a * (1 - tanh(W_xh @ x[t] + a * h[t-1]) ** 2)"),
    "fastgrnn": ("h", "z"),
    "gru": ("h", "z"),
    "gru-textbook": ("h", "1 - z"),
    "janet": ("h", "f"),
    "leaky-rnn": ("h", "0.9"),
    "lem": ("y", "1 - v"),
    "lstm": ("c", "f"),
    "lstm-coupled": ("c", "f"),
    "lstm-peephole": ("c", "f"),
    "lstm-projected": ("c", "f"),
    "lstm-no-forget": ("c", "1"),
    "mgu": ("h", "1 - f"),
    "mingru": ("h", "1 - z"),
    "minimalrnn": ("h", "u"),
    "mlstm": ("c", "f"),
    "mut3": ("h", "1 - z"),
    "qrnn": ("c", "f"),
    "ran": ("c", "f"),
    "rwkv": ("n", "exp(-exp(w_log))"),
    "scrn": ("s", "0.95"),
    "slstm": ("c", "f"),
    "slstm-exp": ("c", "f"),
    "sru": ("c", "f"),
    "ugrnn": ("h", "z"),
}


def settings() -> Iterator[Any]:
    """Yield every cell as it comes, and some driven hard, with their biases up, and with other recurrent weights."""
    for name in cells.names():
        names = parsed(name).parameters
        yield pytest.param(name, {}, id=name)
        if name not in SPANNING:
            continue
        yield pytest.param(name, {"input": {"kind": "normal", "std": 4.0}}, id=f"{name}-driven")
        for glob, law in (("b_*", 1.5), ("W_h*", {"normal": 0.4})):
            if any(fnmatchcase(each, glob) for each in names):
                yield pytest.param(name, {"init": {glob: law}}, id=f"{name}-{glob[0]}")


def cause_and_arrays(name: str, setting: dict[str, Any], folder: Path) -> tuple[dict[str, Any], Simulated]:
    spec = {"cell": name, **SIZES, **setting}
    run = simulate(spec, folder, save=True)
    found = gradcli("gates", folder / SPEC_FILE, "--format", "json")
    assert found.code == 0, found.stderr
    return found.report()["runs"][0], run


def gradient(run: Simulated, state: str) -> Array:
    """Return dL/ds, (trials, T+1, batch, entries)."""
    mantissas, exponents = run.arrays[f"grad_state.{state}"], run.arrays[f"log2_state.{state}"]
    return np.asarray(mantissas.reshape(*exponents.shape, -1) * np.exp2(exponents)[..., None])


def measured_rate(run: Simulated) -> Array:
    """Return ln of the mean norm of all states together by distance, (T+1,)."""
    squares = [
        log2_squares(run, key.removeprefix("log2_state.")) for key in run.arrays if key.startswith("log2_state.")
    ]
    norms = np.logaddexp2.reduce(squares, axis=0) / 2
    trials, _, batch_size = norms.shape
    mean = np.logaddexp2.reduce(np.logaddexp2.reduce(norms, axis=2), axis=0) - np.log2(trials * batch_size)
    return np.asarray(math.log(2) * mean[::-1])


def log2_squares(run: Simulated, state: str) -> Array:
    """Return log2 of |dL/ds|^2, (trials, T+1, batch), also where plain floats cannot hold the gradient."""
    exponents = run.arrays[f"log2_state.{state}"]
    with np.errstate(divide="ignore"):
        mantissas = np.log2(np.square(run.arrays[f"grad_state.{state}"].reshape(*exponents.shape, -1)).sum(axis=-1))
    return np.asarray(mantissas + 2.0 * exponents)


@pytest.mark.parametrize(("name", "setting"), list(settings()))
def test_a_cause_accounts_for_the_measured_rate(name: str, setting: dict[str, Any], tmp_path: Path) -> None:
    found, run = cause_and_arrays(name, setting, tmp_path)
    cause = found["cause"]
    curve = measured_rate(run)
    rate = float((curve[-1] - curve[1]) / (SEQ_LEN - 1))
    if math.isfinite(rate):
        assert cause["rate"] == pytest.approx(rate, rel=1e-6, abs=1e-9)
    if cause["nats"] is not None:
        assert 0.5 <= cause["nats"] / cause["rate"] <= 2.0, cause["text"]
    if cause["kind"] == "level":
        assert abs(curve[-1] - curve[1]) < math.log(2)
        assert np.ptp(curve[1:]) < math.log(10)
    assert (cause["nats"] is None) == (cause["kind"] in ("level", "unclear"))


@pytest.mark.torch
@pytest.mark.parametrize("name", sorted(DIRECT))
def test_what_a_direct_route_keeps_is_weighed_by_the_gradient(name: str, tmp_path: Path) -> None:
    """|f * delta| / |delta| from saved states, parameters and gradients, with PyTorch's reading of the equations."""
    found, run = cause_and_arrays(name, {}, tmp_path)
    state, expression = DIRECT[name]
    (route,) = (route for route in found["direct_routes"] if route["state"] == state)
    factor = factors(name, run, expression)
    delta = gradient(run, f"layer0.{state}")[:, 1:]
    kept, entered = (np.sqrt(np.square(part).sum(axis=-1)).mean(axis=(0, 2)) for part in (factor * delta, delta))
    with np.errstate(divide="ignore", invalid="ignore"):
        nats = np.log(kept / entered)[::-1][1:]
    assert route["nats"] == pytest.approx(nats[np.isfinite(nats)].mean(), rel=1e-9, abs=1e-12)


def factors(name: str, run: Simulated, expression: str) -> Array:
    """Return an expression in the names of a cell's equations at every step, (trials, T, batch, hidden)."""
    import torch
    from reference.equations import Scope, evaluate, parse

    cell = cells.load(name).cell
    wanted = ast.parse(expression, mode="eval").body
    prefix = "state.layer0."
    arrays = {key: torch.tensor(value) for key, value in run.arrays.items() if value.dtype.kind == "f"}
    found = []
    for trial in range(SIZES["trials"]):
        params = {k.removeprefix("param.layer0."): v[trial] for k, v in arrays.items() if k.startswith("param.layer0.")}
        named = {k: v[:, None] if v.ndim == 1 else v for k, v in params.items()}
        named |= {k: torch.tensor(v, dtype=torch.float64) for k, v in constants(name).numbers.items()}
        states = {k.removeprefix(prefix): [*v[trial].mT] for k, v in arrays.items() if k.startswith(prefix)}
        for t in range(1, SEQ_LEN + 1):
            x = arrays["x"][trial, t - 1].T
            values = dict(named)
            for equation in parse(cell.equations):
                if not equation.is_state:
                    values[equation.target] = evaluate(
                        equation.expression, Scope(t, x, states, values, cell.activation)
                    )
            value = evaluate(wanted, Scope(t, x, states, values, cell.activation))
            found.append(value.expand(SIZES["hidden_size"], SIZES["batch_size"]).T.numpy())
    return np.array(found).reshape(SIZES["trials"], SEQ_LEN, SIZES["batch_size"], -1)


def test_a_rotation_keeps_its_modulus(tmp_path: Path) -> None:
    """re and im turn into each other: r cos(theta) of re alone, averaged over angles, is near 0; the modulus is not."""
    found, run = cause_and_arrays("lru", {"hidden_size": 40}, tmp_path)
    (route,) = found["direct_routes"]
    assert route["states"] == ["re", "im"]
    r = np.exp(-np.exp(run.arrays["param.layer0.nu_log"]))[:, None, None, :]
    delta = np.hypot(gradient(run, "layer0.re"), gradient(run, "layer0.im"))[:, 1:]
    kept, entered = (np.sqrt(np.square(part).sum(axis=-1)).mean(axis=(0, 2)) for part in (r * delta, delta))
    assert route["nats"] == pytest.approx(np.log(kept / entered)[::-1][1:].mean(), rel=1e-9)
    assert route["mean"] == pytest.approx(r.mean(), rel=1e-9)
    assert found["cause"]["kind"] == "gates"
    assert 0.9 < math.exp(found["cause"]["nats"]) < 0.999


@pytest.mark.parametrize("name", ["slstm", "rwkv", "brc"])
def test_slow_units_are_not_averaged_away(name: str, tmp_path: Path) -> None:
    """At the usual size: the gradient is on the slow units, and the cause is what those lose."""
    finished = gradcli("gates", name, "--hidden-size", 32, "--trials", 2, "--format", "json")
    cause = finished.report()["runs"][0]["cause"]
    assert cause["kind"] == "gates"
    assert 0.5 <= cause["nats"] / cause["rate"] <= 2.0
    assert cause["rate"] > -0.25


def test_forget_gates_from_slow_to_fast(tmp_path: Path) -> None:
    setting = {
        "hidden_size": 32,
        "seq_len": 100,
        "init": {"W_*": {"normal": 0.05}, "b_f": {"ramp": {"first": 3.5, "last": -4}}, "b_i": 0, "b_o": 0, "b_g": 0},
    }
    found, run = cause_and_arrays("lstm", setting, tmp_path)
    curve = measured_rate(run)
    rate = float(curve[-1] - curve[1]) / 99
    assert found["cause"]["kind"] == "gates"
    assert 0.5 <= found["cause"]["nats"] / rate <= 2.0
    assert math.exp(found["cause"]["nats"]) > 0.9
    assert found["direct_routes"][0]["mean"] < 0.6


def test_a_forget_gate_that_is_open_is_not_why_a_gradient_vanishes(tmp_path: Path) -> None:
    """f is 1, saturated, with the flattest slope of all; what is lost is lost in reading the cell out, once."""
    setting = {
        "seq_len": 100,
        "init": {"W_*": {"normal": 0.01}, "b_f": 8, "b_i": -8, "b_g": 0, "b_o": -7.5},
    }
    found, _ = cause_and_arrays("lstm", setting, tmp_path)
    assert found["cause"]["kind"] == "level"
    assert abs(found["cause"]["rate"]) < 1e-3
