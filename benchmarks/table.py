"""Rows as text for the terminal, and as Markdown for RESULTS.md."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import groupby

from benchmarks.engines import COMPILED, ENGINES, TITLES
from benchmarks.requirements import Goal
from benchmarks.rows import Compared, Figure, Missing, Preparation, Profile, Row, Values
from benchmarks.timing import spread

_HEADER = (
    "ours",
    "against",
    *(f"{TITLES[engine]}, median" for engine in ENGINES),
    "theirs, median",
    *(f"{TITLES[engine]}: ratio [quartiles]" for engine in ENGINES),
    "to reach",
    "verdict",
)
_GOALS_HEADER = ("to reach", "bound", "rows that hold", "the nearest to its bound, or the farthest beyond")
_PREPARATION_HEADER = ("once, before the first run", "case", "seconds")

NOTES = """\
A case is cell B,H,T: batch, hidden size, steps; input size 32; L = sum of h_T. Both engines and all that they are held
against run in turn, ABCABC...; the ratio is taken in each round, and its median and quartiles are shown. "n x" is how
many times faster ours is, theirs / ours; "n of theirs" is ours / theirs. Input and weights are the same and held in
memory by all. Norms that theirs gives as well are compared with ours before anything is timed (float64).
What is to be reached is asked of the compiled engine, unless the row says that it is asked of NumPy's."""

PROFILE_NOTES = """\
Medians in milliseconds, with their shares of the sum, which differs from a run without timers by what they disturb.
The compiled engine: a timer around every run of a program. The NumPy engine: a timer around every call of its loops,
its own cost taken off; "exp, tanh, ..." are those forward. Coefficients are the derivatives of whole blocks of steps;
input product is what it adds to the recurrent products, biases included; the rest is norms, exponents, copies and the
Python around the programs.
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
    reached = goals(rows, _pipes)
    found = summary(rows, profiles, item="* ")
    tables = markdown(rows, preparations, profiles)
    parts = ("# Benchmarks: results", f"`{command}`", reached, found, "## Machine", facts, NOTES, tables)
    return "\n\n".join(part for part in parts if part) + "\n"


def goals(rows: Sequence[Row], table: Table | None = None) -> str:
    """Return what is to be reached line by line: how many rows of each goal hold, and the one with the least margin."""
    lines = []
    for goal in Goal:
        judged = [(row, row.requirement) for row in rows if row.requirement and row.requirement.goal is goal]
        if not judged:
            continue
        holding = sum(row.verdict == "holds" for row, _ in judged)
        margins = [(bound.margin(row.judged), row) for row, bound in judged if row.judged is not None]
        nearest = min(margins, key=lambda pair: pair[0])[1] if margins else None
        lines.append(
            (
                goal.value,
                ", ".join(dict.fromkeys(str(bound) for _, bound in judged)) if goal is not Goal.NUMPY else "by row",
                f"{holding} of {len(judged)}",
                "not measured" if nearest is None else f"{_number(nearest.judged or 0.0)} ({nearest.what})",
            )
        )
    return (table or _columns)(_GOALS_HEADER, lines) if lines else ""


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
    first = f"{row.verdict}: {row.section}: {_what(row)}, {row.against}"
    if row.judged is None:
        return [first]
    lines = [f"{first}: {_number(row.judged)}, to reach: {row.requirement}", row.reason]
    for profile in profiles:
        if profile.is_beside(row):
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


def _what(row: Row) -> str:
    """Return what a row is about, with its engine where that is not the one which is there by default."""
    judged_alone = row.requirement is not None and row.engine != COMPILED
    return f"{row.what} ({TITLES[row.engine]} engine)" if judged_alone else row.what


def _cells(row: Row) -> tuple[str, ...]:
    requirement = "" if row.requirement is None else f"{row.requirement}"
    if row.requirement is not None and row.engine != COMPILED:
        requirement += f" ({TITLES[row.engine]})"
    return (row.what, row.against, *_measured(row.outcome), requirement, row.verdict)


def _measured(outcome: Compared | Figure | Missing) -> list[str]:
    """Return the cells of what was measured: by engine, of theirs, and the ratios by engine."""
    if isinstance(outcome, Missing):
        return [*("" for _ in ENGINES), outcome.message, *("" for _ in ENGINES)]
    if isinstance(outcome, Figure):
        of_engines = [_figure(outcome.values[e], outcome.unit) if e in outcome.values else "" for e in ENGINES]
        return [*of_engines, "", *("" for _ in ENGINES)]
    pairs = outcome.pairs
    ours = [_median(pairs[e][0], outcome.unit) if e in pairs else "" for e in ENGINES]
    theirs = dict.fromkeys(_median(pairs[e][1], outcome.unit) for e in ENGINES if e in pairs)
    ratios = [_ratio(outcome, e) if e in pairs else "" for e in ENGINES]
    return [*ours, "; ".join(theirs), *ratios]


def _median(values: Values, unit: str) -> str:
    return f"{_number(spread(values).median)} {unit}"


def _figure(values: Values, unit: str) -> str:
    found = spread(values)
    several = f" [{_number(found.low)}, {_number(found.high)}]" if len(values) > 1 else ""
    return f"{_number(found.median)}{several} {unit}".rstrip()


def _ratio(outcome: Compared, engine: str) -> str:
    found = outcome.ratios(engine)
    return f"{_number(found.median)} {outcome.ratio.value} [{_number(found.low)}, {_number(found.high)}]"


def _number(value: float) -> str:
    """Return three significant digits, without an exponent unless it is tiny."""
    if 0 < abs(value) < 1e-6:
        return f"{value:.1e}"
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:#.3g}".rstrip(".")


def _columns(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [header, *rows]
    widths = [max(len(line[i]) for line in lines) for i in range(len(header))]
    return "\n".join("  ".join(c.ljust(w) for c, w in zip(line, widths, strict=True)).rstrip() for line in lines)


def _pipes(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(cell.replace('|', '/') for cell in line)} |" for line in lines)
