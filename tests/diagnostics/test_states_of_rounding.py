"""States whose gradient is rounding alone are told from those whose gradient is small."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from built_in_cells import at_sizes
from in_process import gradcli
from measured import loaded, small

import gradcli as package
from gradcli import cells
from gradcli.diagnostics.measure import Measured, measure
from gradcli.prepare.build import build

FIELDS: dict[str, Any] = {"hidden_size": 8, "input_size": 4, "batch_size": 3, "trials": 2, "seq_len": 20}
#: The cells with a stabiliser, `m`: for any value of it the output is the same, as the papers show.
STABILISED = ["slstm", "slstm-exp", "matrix-lstm", "matrix-lstm-exp", "abc"]


def run(cell: Any, **fields: Any) -> Measured:
    return measure(build(loaded(cell, **FIELDS | fields)), theory=False)


def rounding_in(found: Measured) -> set[str]:
    return {name.removeprefix("layer0.") for name, state in found.states.items() if state.is_rounding}


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("name", STABILISED)
def test_a_stabiliser_has_nothing_but_rounding(name: str, dtype: str) -> None:
    assert rounding_in(run(name, dtype=dtype)) == {"m"}


@pytest.mark.parametrize("name", [name for name in cells.names() if name not in STABILISED])
def test_no_other_built_in_cell_has_such_a_state(name: str) -> None:
    assert len(at_sizes(name).states) < 2 or not rounding_in(run(name, **small(name, seq_len=12)))


@pytest.mark.parametrize("scale", [1e-16, 1e-20, 1e-100])
def test_a_state_on_its_own_scale_keeps_its_verdict(scale: float) -> None:
    """dL/ds[T-1] is that of h's argument times the scale: far below h's, and right to the last digits."""
    cell = {"name": "scaled", "equations": f"h[t] = tanh(W @ h[t-1] + {scale} * s[t-1])\ns[t] = 0.5 * s[t-1] + x[t]"}
    found = run({**cell, "output": "h"}, input_size=8, trials=3)
    assert rounding_in(found) == set()
    of_h, of_s = (found.states[f"layer0.{name}"].mean for name in "hs")
    assert (of_s[1:-1] < of_h[1:-1] - 14).all()
    other = run(
        {**cell, "equations": cell["equations"].replace(str(scale), "1e-9"), "output": "h"}, input_size=8, trials=3
    )
    # By linearity of what is that small: only the scale differs.
    assert of_s[1:] - np.log10(scale) == pytest.approx(other.states["layer0.s"].mean[1:] + 9, abs=1e-6)


def test_the_layers_of_a_stack_are_told_one_by_one() -> None:
    assert {name for name, state in run("slstm", num_layers=2).states.items() if state.is_rounding} == {
        "layer0.m",
        "layer1.m",
    }


def test_a_loss_at_several_steps_is_looked_at_from_the_last() -> None:
    assert rounding_in(run("slstm", loss={"kind": "projection", "at": [5, 15]})) == {"m"}


def test_a_state_that_nothing_takes_is_exactly_zero_and_no_rounding() -> None:
    cell = {"name": "idle", "equations": "h[t] = tanh(W @ h[t-1] + x[t])\ns[t] = 0.5 * s[t-1]", "output": "h"}
    found = run(cell, input_size=8)
    assert rounding_in(found) == set()
    assert np.isneginf(found.states["layer0.s"].mean).all()


def test_it_is_said_on_the_screen_and_null_in_the_json() -> None:
    sizes = ("-T", 20, "--hidden-size", 8, "--trials", 2)
    screen = gradcli("simulate", "slstm", *sizes, "--full").stdout
    [row] = [line.split() for line in screen.splitlines() if line.startswith("m ")]
    assert row[-1] == "rounding"
    assert len(row) == 4
    assert "rounding: the parts of its gradient cancel" in screen
    states = package.simulate("slstm", seq_len=20, hidden_size=8, trials=2).runs[0].states
    assert states["layer0.m"].verdict is None
    assert states["layer0.c"].verdict is not None
