"""What a verdict says: the right numbers, in plain words."""

from __future__ import annotations

import numpy as np
import pytest
from known_curves import (
    DISTANCE,
    ZERO,
    critical_tanh,
    jordan_block,
    power_of,
    verdict_of,
)

WORDS = [
    (
        power_of(0.69, 100),
        "falls by a factor 0.69 a step (half-life 1.9 steps), exponentially",
        "below 1e-3 of its start from 19 steps back, below float32's precision from 43; at 100 steps 10^-16.1",
    ),
    (
        power_of(0.98, 20),
        "falls by a factor 0.98 a step (half-life 34 steps), exponentially; at this rate below 1e-3 from 342 steps "
        "back, beyond this sequence",
        "at 20 steps 0.67 of its start",
    ),
    (
        power_of(2.0, 5),
        "grows by a factor 2 a step (doubling every 1 step), exponentially; at this rate above 1e3 from 10 steps back, "
        "beyond this sequence",
        "at 5 steps 32 times its start",
    ),
    (
        power_of(2.0, 100),
        "grows by a factor 2 a step (doubling every 1 step), exponentially",
        "above 1e3 times its start from 10 steps back; at 100 steps 10^30.1",
    ),
    (power_of(0.9999, 100), "stays level (a factor 0.9999 a step)", "at 100 steps 0.99 of its start"),
    (power_of(1.0, 100), "stays level (a factor 1 a step)", "at 100 steps equal to its start"),
    (
        jordan_block(10),
        "rises to 3.9 times its start at 9 steps back; the growth is slowing",
        "at 10 steps 3.9 times its start",
    ),
    (
        jordan_block(300),
        "rises to 3.9 times its start at 9 steps back, then falls by a factor 0.904 a step (half-life 6.9 steps), "
        "exponentially",
        "below 1e-3 of its start from 112 steps back, below float32's precision from 203; at 300 steps 10^-11.2",
    ),
    (
        critical_tanh(1000),
        "falls polynomially, as (steps since the beginning)^1.5 (half of its start after 373 steps): slowly near the "
        "last step, steeply near the first",
        "below 1e-3 of its start from 996 steps back; at 1000 steps 10^-3.3",
    ),
    (
        -0.5 * np.log10(DISTANCE + 1),
        "falls polynomially, as distance^-0.5 (half of its start after 3 steps): at an ever lower rate",
        "at 100 steps 0.1 of its start",
    ),
    (
        np.array([0, 0, 0, 0, ZERO, ZERO]),
        "is exactly zero from 4 steps back; until then it stays level (a factor 1 a step)",
        "the gradient reaches 3 steps back and no further",
    ),
    (
        np.concatenate([[0, -0.5], np.full(50, -1.0)]),
        "falls to 0.1 of its start within 2 steps, then stays level (a factor 1 a step)",
        "at 51 steps 0.1 of its start",
    ),
    (
        np.concatenate([np.zeros(50), np.full(51, -4.0)]),
        "falls in one step, by a factor 10^-4 between 49 and 50 steps back",
        "below 1e-3 of its start from 50 steps back; at 100 steps 10^-4",
    ),
    (
        power_of(0.5, 1),
        "falls by a factor 0.5 a step, over too few steps to tell a pattern",
        "at 1 step 0.5 of its start",
    ),
    (
        np.array([0, -1, -5, -2, -1, 0, 0, 0, 0, 0]),
        None,
        "down to 10^-5 at 2 steps back, but recovers; at 9 steps equal to its start",
    ),
    (
        np.concatenate([[ZERO, ZERO], power_of(0.9, 98)]),
        "falls by a factor 0.9 a step (half-life 6.6 steps), exponentially",
        "below 1e-3 of its start from 68 steps back; at 100 steps 10^-4.5; its start is 2 steps back, the first "
        "distance with a gradient",
    ),
]


@pytest.mark.parametrize(("curve", "headline", "detail"), WORDS)
def test_words_carry_the_numbers(curve: np.ndarray, headline: str | None, detail: str) -> None:
    verdict = verdict_of(curve)
    assert verdict.detail == detail
    if headline is not None:
        assert verdict.headline == headline


def test_growth_that_ends_on_a_low_note_has_not_turned() -> None:
    curve = power_of(1.2, 60)
    curve[-3:] = curve[-4] - 0.2
    assert verdict_of(curve).headline.startswith("grows by a factor 1.19 a step")


def test_reason_names_threshold_and_distance() -> None:
    assert verdict_of(power_of(0.69, 100)).reason == (
        "The gradient norm falls below 1e-3 of its value at distance 0 after distance 18 and stays below to the "
        "beginning of the sequence."
    )
    assert "threshold 20" in verdict_of(power_of(2.0, 10), exploding=20).reason
