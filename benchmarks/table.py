"""Rows as text for the terminal, and as Markdown for RESULTS.md."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import groupby

from benchmarks.rows import Compared, Figure, Missing, Preparation, Profile, Row
from benchmarks.timing import spread

_HEADER = ("ours", "against", "ours, median", "theirs, median", "ratio [quartiles]", "to reach", "verdict")
_PREPARATION_HEADER = ("once, before the first run", "case", "seconds")

NOTES = """\
A case is cell B,H,T: batch, hidden size, steps; input size 32; L = sum of h_T. Ours and theirs run in turn, ABAB...;
the ratio is taken of each pair, and its median and quartiles are shown. "n x" is how many times faster ours is,
theirs / ours; "n of theirs" is ours / theirs. Input and weights are the same and held in memory by all.
Norms that theirs gives as well are compared with ours before anything is timed (float64)."""

PROFILE_NOTES = """\
Medians in milliseconds, with their shares of the sum, which differs from a run without timers by what they disturb.
One run: a timer around every call of the engine's loops, its own cost taken off. "exp, tanh, ..." are those forward,
coefficients the derivatives of whole blocks of steps; input product is what it adds to the recurrent products, biases
included; the rest is norms, exponents, copies and the Python around the calls.
The whole command: what each package's own modules take to import, by `python -X importtime`."""

Table = Callable[[Sequence[str], Sequence[Sequence[str]]], str]


def text(rows: Sequence[Row], preparations: Sequence[Preparation], profiles: Sequence[Profile] = ()) -> str:
    """Return all tables in columns."""
    return _document(rows, preparations, profiles, _columns, "")


def markdown(rows: Sequence[Row], preparations: Sequence[Preparation], profiles: Sequence[Profile] = ()) -> str:
    """Return all tables in Markdown, one section each."""
    return _document(rows, preparations, profiles, _pipes, "## ")


def results(
    command: str,
    machine: Sequence[tuple[str, str]],
    rows: Sequence[Row],
    preparations: Sequence[Preparation],
    profiles: Sequence[Profile] = (),
) -> str:
    """Return the whole of RESULTS.md: what holds and what does not first, then the tables."""
    facts = _pipes(("measured on", ""), machine)
    found = summary(rows, profiles, item="* ")
    tables = markdown(rows, preparations, profiles)
    return f"# Benchmarks: results\n\n`{command}`\n\n{found}\n\n## Machine\n\n{facts}\n\n{NOTES}\n\n{tables}\n"


def summary(rows: Sequence[Row], profiles: Sequence[Profile] = (), item: str = "") -> str:
    """Return how many of the requirements hold; and each that does not, with its reason and its profile.

    item: what such a row begins with.
    """
    judged = [row for row in rows if row.requirement is not None]
    failed = [row for row in judged if row.verdict != "holds"]
    count = f"{len(judged) - len(failed)} of {len(judged)} requirements hold."
    return "\n\n".join([count, *("\n  ".join([item + f[0], *f[1:]]) for f in (_failure(r, profiles) for r in failed))])


def _failure(row: Row, profiles: Sequence[Profile]) -> list[str]:
    """Return the lines about a row that does not hold."""
    first = f"{row.verdict}: {row.section}: {row.what}, {row.against}"
    if row.judged is None:
        return [first]
    lines = [f"{first}: {_number(row.judged)}, to reach: {row.requirement}", row.reason]
    for profile in profiles:
        if profile.what == row.what:
            parts = sorted(profile.parts, key=lambda part: -profile.parts[part])
            shares = ", ".join(f"{part} {profile.share(part):.0%}" for part in parts if profile.share(part) >= 0.005)
            lines.append(f"Where the time goes: {shares}.")
    return [line for line in lines if line]


def progress(row: Row) -> str:
    """Return a row as one line."""
    return "  ".join(cell for cell in _cells(row) if cell)


def _document(
    rows: Sequence[Row],
    preparations: Sequence[Preparation],
    profiles: Sequence[Profile],
    table: Table,
    heading: str,
) -> str:
    parts = []
    if profiles:
        tables = [_profile_table(list(group), table) for _, group in groupby(profiles, key=lambda p: p.kind)]
        parts.append("\n\n".join([f"{heading}Where the time goes", PROFILE_NOTES, *tables]))
    for section, group in groupby(rows, key=lambda row: row.section):
        parts.append(f"{heading}{section}\n\n{table(_HEADER, [_cells(row) for row in group])}")
    if preparations:
        lines = [(p.what, p.case, f"{p.seconds:.3f}") for p in preparations]
        parts.append(f"{heading}Preparation\n\n{table(_PREPARATION_HEADER, lines)}")
    return "\n\n".join(parts)


def _profile_table(profiles: Sequence[Profile], table: Table) -> str:
    """Return profiles of one kind as a table."""
    header = (f"{profiles[0].kind}, ms", "without timers", "sum of parts", *profiles[0].parts)
    lines = [
        (
            p.what,
            _number(p.whole),
            _number(p.total),
            *(f"{_number(ms)} ({p.share(part):.0%})" for part, ms in p.parts.items()),
        )
        for p in profiles
    ]
    return table(header, lines)


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
