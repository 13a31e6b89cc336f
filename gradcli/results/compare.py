"""The report of `gradcli compare`: which cell reaches farthest, a ranking, the verdicts, and the curves in columns."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

import numpy as np

from gradcli.diagnostics.curve_landmarks import reference_distance
from gradcli.diagnostics.measure import Measured
from gradcli.diagnostics.training import WeightsOfRun
from gradcli.diagnostics.verdict_words import KIND_WORDS
from gradcli.frozen import frozen
from gradcli.numbers import log10_text, steps_text
from gradcli.results.arms import common_words, differences, lengths_of, vanishing_words
from gradcli.results.curves import half_life_text, horizon_text, rate_text, shown_distances
from gradcli.results.declared import key
from gradcli.results.directions import headline_note
from gradcli.results.model import Block, Cell, Column, Line, Report, Table, filled
from gradcli.results.result import Result
from gradcli.results.run import Run, curve_records, run_of
from gradcli.results.simulate import STYLES, weights_words
from gradcli.results.training import TrainedWeights, trained_weights, weights_tables

Array = np.ndarray[Any, Any]


@frozen(kw_only=True)
class Place:
    """A place in the ranking."""

    rank: int = key("from 1: the one whose gradient reaches farthest")
    label: str = key("the run's label")
    horizon: int | None = key("its horizon")
    beyond_sequence: bool = key("whether its curve is above the threshold to the very beginning")


@frozen(kw_only=True, repr=False, eq=False)
class Comparison(Result):
    """What `compare` found of several specs."""

    command = "compare"
    runs_engine = True

    runs: Sequence[Run] = key("the runs, in the order in which the specs were given")
    ranking: Sequence[Place] = key("the runs by reach")
    notes: Sequence[str] = key("where what they were run on differs, what was borrowed, what was made equal")
    weights: Mapping[str, TrainedWeights] = key(
        "by label, where all are of one cell and some are [trained](weights.md#before-and-after); else empty"
    )


def comparison(
    arms: Sequence[Measured],
    notes: Sequence[str],
    weights: Sequence[WeightsOfRun] = (),
    arrays: Mapping[str, Array] = MappingProxyType({}),
) -> Comparison:
    """Return the result for several runs: which reaches farthest, the ranking, the verdicts; in full the curves too.

    Args:
        notes: what was made equal, or borrowed. weights: what trained ones are like.
    """
    ranking = rank(arms)
    apart = differences(arms)
    notes = [
        *notes,
        *(f"{arm.label}: {words}" for arm in arms if (words := weights_words(arm.network))),
        *(f"{arm.label}: {note}" for arm in arms if (note := headline_note(arm)) and arm.curve is not None),
    ]
    title = Line(common_words(arms), "compare", "title")
    tables: list[list[Block]] = [[table] for table in weights_tables(weights)]
    first_look: list[list[Block]] = [
        [title, *(Line(words) for words in apart), *(Line(note, style="dim") for note in notes)],
        [Line(farthest(ranking), style="title"), summary_table(ranking), *lengths_of(arms)],
        [_verdict_line(arm) for arm in arms],
        *tables,
    ]
    full = [*first_look, _curves(arms, ranking)]
    runs = [run_of(arm) for arm in arms]
    return Comparison(
        runs=runs,
        ranking=[_place(position, arm) for position, arm in enumerate(ranking, 1)],
        notes=[*apart, *notes],
        weights=trained_weights(weights),
        shown=Report("compare", filled(first_look), records=curve_records(runs), full=filled(full)),
        arrays=arrays,
    )


def _place(position: int, arm: Measured) -> Place:
    return Place(
        rank=position,
        label=arm.label,
        horizon=arm.verdict.horizon_threshold,
        beyond_sequence=reaches_beyond(arm),
    )


def _verdict_line(arm: Measured) -> Line:
    """Return an arm's verdict in words, and where the typical sequence differs from it."""
    verdict = arm.verdict
    what = "; ".join(part for part in (verdict.left, verdict.headline) if part)
    words = f"{KIND_WORDS[verdict.kind].upper()}: {what}"
    return Line("\n".join(part for part in (words, verdict.aside) if part), arm.label, STYLES[verdict.kind])


def reaches_beyond(arm: Measured) -> bool:
    """Tell whether the gradient is above the threshold to the very beginning of the sequence."""
    return arm.curve is not None and arm.verdict.horizon_threshold is None


def reach(arm: Measured) -> float:
    """Return over how many steps the gradient was seen above the threshold; -1 where there is no gradient."""
    if arm.curve is None:
        return -1.0
    horizon = arm.verdict.horizon_threshold
    return float(arm.network.spec.seq_len if horizon is None else horizon)


def rank(arms: Sequence[Measured]) -> list[Measured]:
    """Return the arms by reach, the farthest first.

    Among equals those that do not explode come first, then the one that keeps the gradient's size best: at the
    beginning, abs(log r_T), where they reach it; else by the rate.
    """

    def merit(arm: Measured) -> tuple[float, bool, float]:
        verdict = arm.verdict
        change = verdict.end_log10_ratio if reaches_beyond(arm) else None
        if change is None:
            change = math.log10(verdict.rate_per_step) if verdict.rate_per_step else math.inf
        return reach(arm), verdict.kind != "exploding", -abs(change)

    return sorted(arms, key=merit, reverse=True)


def farthest(ranking: Sequence[Measured]) -> str:
    """Say in which arms the gradient reaches farthest, and how far."""
    best = ranking[0]
    if best.curve is None:
        return "No cell has a gradient: in all of them a number is not finite."
    equal = [
        arm.label + (" (exploding)" if arm.verdict.kind == "exploding" else "")
        for arm in ranking
        if (reach(arm), reaches_beyond(arm)) == (reach(best), reaches_beyond(best))
    ]
    steps = int(reach(best))
    how_far = f"{steps_text(steps)} back"
    how_far += ", to the beginning" if reaches_beyond(best) else ""
    if len(equal) == len(ranking):
        return f"The gradient reaches as far in all of them: {how_far}."
    names = " and ".join(part for part in (", ".join(equal[:-1]), equal[-1]) if part)
    return f"The gradient reaches farthest in {names}: {how_far}."


def summary_table(ranking: Sequence[Measured]) -> Table:
    """Return the ranking: a row for each run, the farthest first."""
    columns = [
        Column("rank", keep=7),
        Column("cell", "text", keep=9),
        Column("verdict", "text", keep=9),
        Column("horizon", keep=9),
        Column("", "bar", keep=3),
        Column("rate a step", keep=7),
        Column("half-life", keep=6),
        Column("hidden", keep=5),
        Column("parameters", keep=5),
    ]
    longest = max(*map(reach, ranking), 1.0)
    rows: list[list[Cell]] = [
        [
            position,
            arm.label,
            "reaches" if arm.verdict.kind == "stable" else KIND_WORDS[arm.verdict.kind],
            horizon_text(arm.verdict, arm.network.spec.seq_len),
            None if arm.curve is None else reach(arm) / longest,
            rate_text(arm.verdict),
            half_life_text(arm.verdict),
            arm.network.spec.hidden_size,
            arm.network.parameter_count,
        ]
        for position, arm in enumerate(ranking, 1)
    ]
    low = vanishing_words(ranking)
    starts = {reference_distance(arm.curve.mean) for arm in ranking if arm.curve is not None}
    unit = "at distance 1" if starts <= {1} else "one step back from where the loss enters"
    return Table(
        columns,
        rows,
        note=f"horizon: the largest distance at which the mean norm is still above {low} of that {unit}",
    )


def _curves(arms: Sequence[Measured], ranking: Sequence[Measured]) -> list[Block]:
    """Return the curves, log10 of the norm, one column a cell; where the screen is narrow, the first in rank stay."""
    shown = [(arm.label, arm.curve) for arm in arms if arm.curve is not None]
    if not shown:
        return []
    place = {arm.label: position for position, arm in enumerate(ranking)}
    columns = [Column("distance", keep=9), *(Column(label, keep=max(8 - place[label], 0)) for label, _ in shown)]
    last = max(len(curve.mean) for _, curve in shown) - 1
    rows: list[list[Cell]] = [
        [d, *(log10_text(float(curve.mean[d])) if d < len(curve.mean) else None for _, curve in shown)]
        for d in shown_distances(last)
    ]
    return [Table(columns, rows, title="log10 of the gradient's mean norm")]
