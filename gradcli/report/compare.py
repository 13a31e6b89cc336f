"""The report of `gradcli compare`: a summary, a ranking, and the curves in columns."""

from __future__ import annotations

import math
from collections.abc import Sequence

from gradcli.diagnostics.measure import Measured
from gradcli.report.curves import log10_text, shown_distances
from gradcli.report.model import Block, Cell, Column, Line, Records, Report, Table, envelope
from gradcli.report.simulate import CSV_HEADER, STYLES, csv_rows, loss_words, run_data


def comparison_report(arms: Sequence[Measured], notes: Sequence[str]) -> Report:
    """Return the report of several runs; `notes` tell what was made equal."""
    spec = arms[0].network.spec
    sizes = f"T = {spec.seq_len}, {spec.trials} trials x {spec.batch_size} sequences, loss {loss_words(spec)}"
    ranking = rank(arms)
    verdicts: list[Block] = [
        Line(f"{arm.verdict.kind.upper()} {arm.verdict.headline}", arm.label, STYLES[arm.verdict.kind]) for arm in arms
    ]
    groups: list[list[Block]] = [
        [Line(sizes, "compare", "title"), *(Line(note, style="dim") for note in notes)],
        verdicts,
        [_summary(arms, ranking)],
        [_curves(arms)],
    ]
    data = envelope("compare") | {
        "runs": [run_data(arm) for arm in arms],
        "ranking": [
            {
                "rank": position,
                "label": arm.label,
                "horizon": arm.verdict.horizon_threshold,
                "beyond_sequence": reaches_beyond(arm),
            }
            for position, arm in enumerate(ranking, 1)
        ],
        "notes": list(notes),
    }
    return Report("compare", groups, data, Records(CSV_HEADER, [row for arm in arms for row in csv_rows(arm)]))


def reaches_beyond(arm: Measured) -> bool:
    """Tell whether the gradient is above the threshold to the very beginning of the sequence."""
    return arm.curve is not None and arm.verdict.horizon_threshold is None and arm.verdict.kind != "dead"


def rank(arms: Sequence[Measured]) -> list[Measured]:
    """Return the arms by horizon, the farthest first; among equals the one whose rate is nearest to 1."""

    def merit(arm: Measured) -> tuple[float, float]:
        if arm.curve is None:
            return -1.0, -math.inf
        horizon = arm.verdict.horizon_threshold
        rate = arm.verdict.rate_per_step
        reach = math.inf if horizon is None else float(horizon)
        return reach, -abs(math.log(rate)) if rate else -math.inf

    return sorted(arms, key=merit, reverse=True)


def _summary(arms: Sequence[Measured], ranking: Sequence[Measured]) -> Table:
    columns = [
        Column("rank", keep=8),
        Column("", "text", keep=9),
        Column("verdict", "text", keep=9),
        Column("horizon", keep=8),
        Column("rate a step", keep=7),
        Column("half-life", keep=6),
        Column("hidden", keep=4),
        Column("parameters", keep=5),
    ]
    rows: list[list[Cell]] = []
    for position, arm in enumerate(ranking, 1):
        verdict = arm.verdict
        horizon = "-" if arm.curve is None else verdict.horizon_threshold
        rows.append(
            [
                position,
                arm.label,
                verdict.kind,
                f">= {arm.network.spec.seq_len}" if reaches_beyond(arm) else horizon,
                None if verdict.rate_per_step is None else f"{verdict.rate_per_step:.4g}",
                None if verdict.half_life is None else f"{verdict.half_life:.3g}",
                arm.network.spec.hidden_size,
                arm.network.parameter_count,
            ]
        )
    low = arms[0].network.spec.thresholds.vanishing
    return Table(
        columns,
        rows,
        note=f"horizon: the largest distance at which the norm is still above {low:g} of that at distance 0",
    )


def _curves(arms: Sequence[Measured]) -> Table:
    """Return the curves, log10 of the norm relative to distance 0, one column a cell."""
    shown = [arm for arm in arms if arm.curve is not None]
    columns = [Column("distance", keep=9), *(Column(arm.label, keep=9) for arm in shown)]
    rows: list[list[Cell]] = []
    for d in shown_distances(arms[0].network.spec.seq_len):
        row: list[Cell] = [d]
        for arm in shown:
            assert arm.curve is not None
            row.append(log10_text(float(arm.curve.median[d])))
        rows.append(row)
    return Table(columns, rows, title="log10 of the gradient's norm")
