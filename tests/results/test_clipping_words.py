"""What is said of clipping is what the numbers beside it say: each sentence is derived here once more."""

from __future__ import annotations

import math
import re
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from in_process import gradcli
from measured import SMALL, measured, table_of

from gradcli.diagnostics.clipping import Clipped
from gradcli.results.clipping import clipping_sentences
from gradcli.results.simulate import simulation

LOSSES = st.one_of(st.none(), st.sampled_from([0.0, 24.0, 25.39, 25.3901, 25.93, 27.0, 1e9]), st.floats(0, 1e3))
NORMS = st.floats(-8, 8)


def row(
    after: float | None, *, before: float | None = 25.39, unclipped: float | None = 27.0, **changes: Any
) -> Clipped:
    row = {
        "method": "norm",
        "threshold": 1.0,
        "log10_norm_before": 1.0,
        "log10_norm_after": 0.0,
        "scale": 0.1,
        "cosine": 1.0,
        "fraction_clipped": 1.0,
        "loss_before": before,
        "loss_after_unclipped": unclipped,
        "loss_after_clipped": after,
    }
    return Clipped(**{**row, **changes})


def sentences(*rows: Clipped, horizon: int | None = None) -> str:
    verdict = SimpleNamespace(horizon_threshold=horizon)
    measured: Any = SimpleNamespace(clipped=list(rows), verdict=verdict, float32=None, parameters={"layer0.W": 0.0})
    return clipping_sentences(measured)


def shown(loss: float) -> float:
    return float(f"{loss:.4g}")


def test_helps_means_that_the_loss_ends_below_where_it_began() -> None:
    assert "less bad: with norm 1 it is 25.93, still above where it began" in sentences(row(25.93))
    assert "helps" not in sentences(row(25.93))
    assert sentences(row(25.1)).endswith("Clipping helps: with norm 1 it is 25.1.")
    assert sentences(row(25.39)).endswith("less bad: with norm 1 it is 25.39, where it began.")
    assert sentences(row(25.93, unclipped=None)).endswith("it is 25.93, still above where it began.")


@given(before=LOSSES, unclipped=LOSSES, clipped=st.lists(LOSSES, min_size=1, max_size=3))
def test_every_sentence_about_the_step_follows_from_the_row(
    before: float | None, unclipped: float | None, clipped: list[float | None]
) -> None:
    text = sentences(*(row(after, before=before, unclipped=unclipped, threshold=k) for k, after in enumerate(clipped)))
    if before is None:
        assert "The loss itself is not finite" in text
        return
    finite = [shown(loss) for loss in clipped if loss is not None]
    overshoots = unclipped is None or shown(unclipped) > shown(before)
    best = min(finite, default=math.inf)
    saved = overshoots and best < (math.inf if unclipped is None else shown(unclipped))
    assert ("overshoots" in text) == overshoots
    assert ("helps" in text) == (saved and best < shown(before))
    assert ("less bad" in text) == (saved and best >= shown(before))
    assert ("still above" in text) == (saved and best > shown(before))
    assert ("does not prevent it" in text) == (overshoots and not finite)
    assert ("no better" in text) == (overshoots and bool(finite) and not saved)
    told = re.search(r"with norm (\d) it is ([^ ,]+?)[.,]( |$)", text)
    assert bool(told) == saved
    if told:
        assert float(told[2]) == pytest.approx(best, rel=1e-3, abs=1e-12)
        assert clipped[int(told[1])] is not None


@given(changes=st.lists(st.tuples(NORMS, NORMS, st.sampled_from([0.0, 0.5, 1.0])), min_size=1), horizon=st.booleans())
def test_every_sentence_about_the_curve_follows_from_the_rows(
    changes: list[tuple[float, float, float]], horizon: bool
) -> None:
    rows = [
        row(25.0, unclipped=24.0, log10_norm_before=before, log10_norm_after=after, fraction_clipped=fraction)
        for before, after, fraction in changes
    ]
    text = sentences(*rows, horizon=7 if horizon else None)
    touched = any(fraction > 0 for _, _, fraction in changes)
    assert ("changes nothing here" in text) == (not touched)
    assert ("cannot bring back" in text) == horizon
    assert ("only makes gradients smaller" in text) == (
        horizon and all(after <= before for before, after, _ in changes)
    )
    assert ("leaves the curve as it is" in text) == (touched and not horizon)


def test_a_clipped_step_that_still_raises_the_loss_is_not_said_to_help() -> None:
    worse = 0
    for seed in range(12):
        options = ["--set", "init.W_hh={normal: 0.35}", "--set", "input.std=0.1", "--set", "learning_rate=0.1"]
        sizes = ["--hidden-size", 16, "-T", 40, "--batch-size", 2, "--trials", 1, "--seed", seed]
        run = gradcli("simulate", "rnn", *options, *sizes, "--format", "json").report()["runs"][0]
        (clip,) = run["clip"]
        text = gradcli("simulate", "rnn", *options, *sizes).stdout
        before, plain, after = (shown(clip[f"loss_{k}"]) for k in ("before", "after_unclipped", "after_clipped"))
        assert ("Clipping helps" in text) == (plain > before > after)
        worse += before <= after < plain
    assert worse


def test_of_a_norm_that_is_no_number_nothing_is_said_to_be_reached_or_not() -> None:
    cell = {"name": "singular", "equations": "h[t] = tanh(sqrt(b) + W @ h[t-1])"}
    text = table_of(simulation(measured(cell, **SMALL, init={"b": 0.0})).report, None)
    (line,) = (line for line in text.splitlines() if line.startswith("clipping"))
    assert "norm 1: the norm is not finite." in line
    assert "reached" not in line
