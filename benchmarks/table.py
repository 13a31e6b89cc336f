"""Rows as text for the terminal, and as Markdown for RESULTS.md."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import groupby

from benchmarks.rows import Compared, Figure, Missing, Preparation, Row
from benchmarks.timing import spread

_HEADER = ("ours", "against", "ours, median", "theirs, median", "ratio [quartiles]", "to reach", "verdict")
_PREPARATION_HEADER = ("once, before the first run", "case", "seconds")

NOTES = """\
A case is cell B,H,T: batch, hidden size, steps; input size 32; L = sum of h_T. Ours and theirs run in turn, ABAB...;
the ratio is taken of each pair, and its median and quartiles are shown. "n x" is how many times faster ours is,
theirs / ours; "n of theirs" is ours / theirs. Input and weights are the same and held in memory by all.
Norms that theirs gives as well are compared with ours before anything is timed (float64)."""

Table = Callable[[Sequence[str], Sequence[Sequence[str]]], str]


def text(rows: Sequence[Row], preparations: Sequence[Preparation]) -> str:
    """Return all tables in columns."""
    return _document(rows, preparations, _columns, "")


def markdown(rows: Sequence[Row], preparations: Sequence[Preparation]) -> str:
    """Return all tables in Markdown, one section each."""
    return _document(rows, preparations, _pipes, "## ")


def results(
    command: str, machine: Sequence[tuple[str, str]], rows: Sequence[Row], preparations: Sequence[Preparation]
) -> str:
    """Return the whole of RESULTS.md."""
    facts = _pipes(("measured on", ""), machine)
    tables = markdown(rows, preparations)
    return f"# Benchmarks: results\n\n`{command}`\n\n{facts}\n\n{NOTES}\n\n{summary(rows)}.\n\n{tables}\n"


def summary(rows: Sequence[Row]) -> str:
    """Return how many of the requirements hold, with those that do not."""
    judged = [row for row in rows if row.requirement is not None]
    failed = [row for row in judged if row.verdict != "holds"]
    lines = [f"{len(judged) - len(failed)} of {len(judged)} requirements hold"]
    return "\n".join(lines + [f"{row.verdict}: {row.section}: {row.what}, {row.against}" for row in failed])


def progress(row: Row) -> str:
    """Return a row as one line."""
    return "  ".join(cell for cell in _cells(row) if cell)


def _document(rows: Sequence[Row], preparations: Sequence[Preparation], table: Table, heading: str) -> str:
    parts = []
    for section, group in groupby(rows, key=lambda row: row.section):
        parts.append(f"{heading}{section}\n\n{table(_HEADER, [_cells(row) for row in group])}")
    if preparations:
        lines = [(p.what, p.case, f"{p.seconds:.3f}") for p in preparations]
        parts.append(f"{heading}Preparation\n\n{table(_PREPARATION_HEADER, lines)}")
    return "\n\n".join(parts)


def _cells(row: Row) -> tuple[str, ...]:
    requirement = "" if row.requirement is None else str(row.requirement)
    outcome = row.outcome
    if isinstance(outcome, Missing):
        return (row.what, row.against, "", "", outcome.message, requirement, row.verdict)
    if isinstance(outcome, Figure):
        found = spread(outcome.values)
        value = f"{_number(found.median)} [{_number(found.low)}, {_number(found.high)}] {outcome.unit}"
        return (row.what, row.against, value, "", "", requirement, row.verdict)
    return (row.what, row.against, *_compared(outcome), requirement, row.verdict)


def _compared(outcome: Compared) -> tuple[str, str, str]:
    ours, theirs = (f"{_number(spread(v).median)} {outcome.unit}" for v in (outcome.ours, outcome.theirs))
    ratio = outcome.ratios
    return ours, theirs, f"{_number(ratio.median)} {outcome.ratio.value} [{_number(ratio.low)}, {_number(ratio.high)}]"


def _number(value: float) -> str:
    """Return three significant digits, without an exponent."""
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:#.3g}".rstrip(".")


def _columns(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [header, *rows]
    widths = [max(len(line[i]) for line in lines) for i in range(len(header))]
    return "\n".join("  ".join(c.ljust(w) for c, w in zip(line, widths, strict=True)).rstrip() for line in lines)


def _pipes(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(cell.replace('|', '/') for cell in line)} |" for line in lines)
