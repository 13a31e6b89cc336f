"""What a verdict says: the right numbers, in plain words."""

from __future__ import annotations

import re

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
        "",
        "falls by a factor 0.69 a step (half-life 1.9 steps), exponentially",
        "below 1e-3 from 20 steps back, below float32's precision from 44; at 100 steps 1.1e-16",
    ),
    (
        power_of(0.98, 20),
        "20 steps back 0.68 of it is left",
        "falls by a factor 0.98 a step (half-life 34 steps), exponentially; at this rate below 1e-3 from 343 steps "
        "back, beyond this sequence",
        "",
    ),
    (
        power_of(0.5, 10),
        "10 steps back 0.002 of it is left",
        "falls by a factor 0.5 a step (half-life 1 step), exponentially; at this rate below 1e-3 from 11 steps back, "
        "beyond this sequence",
        "",
    ),
    (
        power_of(2.0, 9),
        "9 steps back it is 256 times as large",
        "grows by a factor 2 a step (doubling every 1 step), exponentially; at this rate above 1e3 from 11 steps back, "
        "beyond this sequence",
        "",
    ),
    (
        power_of(2.0, 100),
        "",
        "grows by a factor 2 a step (doubling every 1 step), exponentially",
        "above 1e3 from 11 steps back; at 100 steps 6.3e29",
    ),
    (power_of(0.9999, 100), "100 steps back 0.99 of it is left", "stays level (a factor 0.9999 a step)", ""),
    (power_of(1.0, 100), "100 steps back all of it is left", "stays level (a factor 1 a step)", ""),
    (
        jordan_block(10),
        "10 steps back it is 2.6 times as large",
        "rises to 2.6 times its size at 9 steps back; the growth is slowing",
        "",
    ),
    (
        jordan_block(300),
        "",
        "rises to 2.6 times its size at 9 steps back, then falls by a factor 0.904 a step (half-life 6.9 steps), "
        "exponentially",
        "below 1e-3 from 107 steps back, below float32's precision from 199; at 300 steps 4.1e-12",
    ),
    (
        np.concatenate([np.linspace(0, 6, 20), np.linspace(6, 5, 30)]),
        "",
        "rises to 4.8e5 times its size at 19 steps back, and changes little from there on",
        "above 1e3 from 11 steps back; at 49 steps 4.8e4",
    ),
    (
        critical_tanh(1000),
        "",
        "falls polynomially, as (steps since the beginning)^1.5 (half is gone 374 steps back): slowly near the "
        "last step, steeply near the first",
        "below 1e-3 from 996 steps back; at 1000 steps 4.5e-4",
    ),
    (
        -0.5 * np.log10(DISTANCE + 1),
        "100 steps back 0.14 of it is left",
        "falls polynomially, as distance^-0.5 (half is gone 7 steps back): at an ever lower rate",
        "",
    ),
    (
        np.array([0, 0, 0, 0, ZERO, ZERO]),
        "",
        "is exactly zero from 4 steps back; until then it stays level (a factor 1 a step)",
        "the gradient reaches 3 steps back and no further",
    ),
    (
        np.concatenate([[0, -0.5], np.full(50, -1.0)]),
        "51 steps back 0.32 of it is left",
        "falls to 0.32 of its size at 2 steps back, then stays level (a factor 1 a step)",
        "",
    ),
    (
        np.concatenate([np.zeros(50), np.full(51, -4.0)]),
        "",
        "falls in one step, by a factor 1e-4 between 49 and 50 steps back",
        "below 1e-3 from 50 steps back; at 100 steps 1e-4",
    ),
    (
        np.log10(0.6**DISTANCE + 1e-4 * 0.98**DISTANCE),
        "",
        "falls to 1.5e-4 of its size at 21 steps back (0.64 a step), then falls by a factor 0.98 a step (half-life 34 "
        "steps), exponentially",
        "below 1e-3 from 15 steps back; at 100 steps 2.2e-5",
    ),
    (
        power_of(0.5, 1),
        "",
        "one step back is as far as this goes: too few to tell how the gradient changes",
        "",
    ),
    (
        np.array([0, -1, -5, -2, -1, 0, 0, 0, 0, 0]),
        "9 steps back it is 10 times as large",
        None,
        "down to 1e-4 at 2 steps back, but recovers",
    ),
    (
        np.where(DISTANCE % 2, 0.0, -5.0),
        "100 steps back all of it is left",
        "wanders without a clear trend (a factor 0.994 a step on average)",
        "it alternates: it dips every 2 steps, and is judged between the dips",
    ),
    (
        np.concatenate([[ZERO, ZERO], power_of(0.9, 98)]),
        "",
        "falls by a factor 0.9 a step (half-life 6.6 steps), exponentially",
        "below 1e-3 from 69 steps back; at 100 steps 3.6e-5; the loss enters 2 steps back, the first distance with a "
        "gradient",
    ),
]


@pytest.mark.parametrize(("curve", "left", "headline", "detail"), WORDS)
def test_words_carry_the_numbers(curve: np.ndarray, left: str, headline: str | None, detail: str) -> None:
    verdict = verdict_of(curve)
    assert (verdict.left, verdict.detail) == (left, detail)
    if headline is not None:
        assert verdict.headline == headline


def test_growth_that_ends_on_a_low_note_has_not_turned() -> None:
    curve = power_of(1.2, 60)
    curve[-3:] = curve[-4] - 0.2
    assert verdict_of(curve).headline.startswith("grows by a factor 1.19 a step")


def test_reason_names_threshold_and_distance() -> None:
    assert verdict_of(power_of(0.69, 100)).reason == (
        "The gradient norm falls below 1e-3 of its value at distance 1 after distance 19 and stays below to the "
        "beginning of the sequence."
    )
    assert "threshold 20" in verdict_of(power_of(2.0, 10), exploding=20).reason


def test_an_uneven_tail_does_not_hide_what_came_before_it() -> None:
    d = np.arange(61.0)
    wave = 0.06 * np.sin(2.5 * d) * (d > 12)
    fallen = verdict_of(0.8 * np.minimum(d / 10, 1) - 0.003 * d + wave)
    assert fallen.pattern == "mixed"
    assert re.match(r"rises to 5\.\d times its size at \d+ steps back, then falls unevenly, by a", fallen.headline)
    risen = verdict_of(-1.2 * np.minimum(d / 10, 1) + 0.003 * d + wave)
    assert risen.pattern == "mixed"
    assert re.match(r"falls to 0\.0\d+ of its size at \d+ steps back, then grows unevenly, by a", risen.headline)


@pytest.mark.parametrize("level", [0.5, 0.4, 0.62])
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_what_is_said_before_an_average_and_the_average_lead_to_the_end(level: float, seed: int) -> None:
    """A fall to a level within a few steps, and noise: the average of what comes then is no average of the whole."""
    distance = np.arange(1, 41)
    noise = 0.02 * np.random.default_rng(seed).normal(size=40)
    curve = np.log10(level + (1 - level) * 0.5 ** (distance - 1.0)) - 0.001 * distance + noise
    said = verdict_of(np.concatenate([[curve[0]], curve])).headline
    later = re.fullmatch(r"falls unevenly, by a factor ([\d.]+) a step on average from (\d+) steps back on", said)
    if later is not None:
        factor, steps = float(later[1]), int(later[2])
        size = 10 ** (curve[steps - 1] - curve[0])
    else:
        before = r"falls to ([\d.]+) of its size at (\d) steps back"
        found = re.fullmatch(rf"{before}, then falls unevenly, by a factor ([\d.]+) a step on average", said)
        assert found is not None, said
        size, steps, factor = float(found[1]), int(found[2]), float(found[3])
        assert size == pytest.approx(10 ** (curve[steps - 1] - curve[0]), rel=0.02)
    # What is left of the fall by then is told from a factor 1.5 on; said of the whole it was 2.5 for the lowest level.
    assert size * factor ** (40 - steps) == pytest.approx(10 ** (np.median(curve[-9:]) - curve[0]), rel=0.6)
