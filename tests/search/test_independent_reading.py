"""A few of the random specs of `independent_reading`, and that the reader itself does see what is wrong."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from independent_reading import (
    Case,
    Reading,
    Thresholds,
    check_curve,
    check_screen,
    check_verdict,
    examine,
    horizons_of,
    kinds_of,
    random_spec,
    summary,
)

USUAL = Thresholds(-3.0, 3.0)
HALVING = np.arange(21) * -math.log10(2)


@pytest.mark.parametrize("index", range(40))
def test_nothing_concluded_contradicts_what_is_saved(index: int) -> None:
    cell, options = random_spec(np.random.default_rng([11, index]))
    case = examine(cell, options, causes=index % 4 == 0, remedies=index % 4 == 1)
    assert not case.disagreements, summary([case])
    assert case.refused or case.checks > 10


#: What the search found, and what has been settled since.
SETTLED: list[tuple[str, dict[str, Any]]] = [
    # The last loss alone, on the engine of all of them.
    ("rhn", {"loss": {"kind": "mse", "at": [1, 2], "target": 1.0}, "input": {"kind": "zeros"}}),
    # Of a gate, and of a direct route, nothing is known but at distance 0.
    (
        "slstm",
        {
            "hidden_size": 17,
            "input_size": 8,
            "batch_size": 6,
            "trials": 3,
            "seed": 555,
            "input": {"kind": "constant", "value": 1.5663682627998738},
            "loss": {"kind": "sum"},
            "init": {
                "W_h*": {"uniform": {"bound": 1.2453687240300955}},
                "b_f": -8.0,
                "b_i": 0.0,
                "b_o": 2.0,
                "b_z": -8.0,
            },
        },
    ),
]


@pytest.mark.parametrize(("cell", "options"), SETTLED)
def test_what_the_search_found_is_settled(cell: str, options: dict[str, Any]) -> None:
    case = examine(cell, {"hidden_size": 10, "input_size": 1, "batch_size": 2, "trials": 1, **options, "seq_len": 2})
    assert not case.disagreements, summary([case])


@pytest.mark.parametrize(
    ("curve", "kinds"),
    [
        (HALVING, {"vanishing"}),
        (HALVING[:8], {"stable"}),
        (-HALVING, {"exploding"}),
        (np.concatenate([-HALVING, -HALVING[-1] + 2 * HALVING]), {"transient"}),
        (np.concatenate([HALVING[:5], [-np.inf, -np.inf]]), {"dead"}),
    ],
)
def test_the_kinds_of_plain_curves(curve: Any, kinds: set[str]) -> None:
    assert kinds_of(curve, USUAL, 1) == kinds


def test_the_horizon_of_a_halving_is_where_the_tenth_power_of_two_is() -> None:
    """2**-9 = 1/512 is above 1e-3 and 2**-10 is not, counted from distance 1."""
    assert horizons_of(HALVING, -3.0, 1) == {10}
    assert horizons_of(HALVING, -9.0, 1) == {None}


def verdict(**changed: object) -> dict[str, Any]:
    said: dict[str, Any] = {
        "kind": "vanishing",
        "pattern": "exponential",
        "rate_per_step": 0.5,
        "half_life": 1.0,
        "halved_at": 2,
        "forecast": None,
        "horizon": {"threshold": 10, "float32": None},
        "peak": {"distance": 1, "log10_ratio": 0.0},
        "first_step": {"log10_ratio": -math.log10(2)},
    }
    return {**said, **changed}


WRONG: list[dict[str, Any]] = [
    {"kind": "stable"},
    {"rate_per_step": 0.8},
    {"half_life": 3.0},
    {"half_life": None},
    {"halved_at": 1},
    {"forecast": 40},
    {"horizon": {"threshold": 9, "float32": None}},
    {"horizon": {"threshold": 10, "float32": 20}},
    {"peak": {"distance": 0, "log10_ratio": 0.3}},
    {"first_step": {"log10_ratio": 0.0}},
]


@pytest.mark.parametrize("changed", [{}, *WRONG])
def test_a_wrong_figure_is_seen(changed: dict[str, Any]) -> None:
    case = Case("", {})
    check_verdict(case, verdict(**changed), HALVING, USUAL, "")
    assert bool(case.disagreements) == bool(changed), case.disagreements


SCREEN = """rnn   Plain recurrent network (tanh)

VANISHING   falls by a factor 0.5 a step (half-life 1 step), exponentially
            below 1e-3 from 11 steps back; at 20 steps 1.9e-6

distance  log10 mean norm  median         relative
       0             0.00    0.00  │████        2
       1            -0.30   -0.30  │███         1
      20            -6.02   -6.02  │       1.9e-6  < 1e-3
"""
SAID = (
    ("VANISHING", "TRANSIENT"),
    ("half-life 1 step", "half-life 2 steps"),
    ("from 11 steps", "from 12 steps"),
    ("at 20 steps 1.9e-6", "at 20 steps 1.9e-5"),
    ("-6.02   -6.02", "-6.05   -6.02"),
    ("│       1.9e-6", "│       1.2e-6"),
)


@pytest.mark.parametrize("said", [None, *SAID])
def test_a_wrong_sentence_is_seen(said: tuple[str, str] | None) -> None:
    case = Case("", {})
    screen = SCREEN.replace(*said) if said else SCREEN
    check_screen(case, screen, {"verdict": verdict()}, HALVING)
    assert bool(case.disagreements) == (said is not None), case.disagreements


def test_a_mean_that_is_a_median_is_seen() -> None:
    reading = Reading(np.array([[0.0, 0.0, 3.0], [0.0, 0.0, 4.0]]))
    case = Case("", {})
    check_curve(case, {"log10_norm_mean": [0.0, 0.0], "log10_norm": [0.0, 0.0]}, reading, "")
    assert len(case.disagreements) == 1
