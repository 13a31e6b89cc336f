"""`python -m benchmarks.cost_page`: fill the tables of docs/cost.md from benchmarks/RESULTS.md.

The page's formula is linear in its constants. They are fitted to what was measured, all cases alike by their relative
errors, and none of them is negative. The counts of cells (n, p, e) stand on the page; its text is written by hand.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks.cases import FRAMEWORK_CASES, INPUT_SIZE, Case
from benchmarks.engines import COMPILED, ENGINES, NUMPY, TITLES

ROOT = Path(__file__).parent.parent
PAGE, RESULTS = ROOT / "docs" / "cost.md", ROOT / "benchmarks" / "RESULTS.md"

_SECTION = "## Against PyTorch, JAX and the matrix products alone, float64"
#: From so many sequences on a product is a matrix times a matrix.
MANY_SEQUENCES = 16
NOT_MEASURED = "not measured yet"
#: The columns of medians in RESULTS.md, by engine; 0.1.0 had NumPy's alone.
_COLUMNS = {"compiled, median": COMPILED, "NumPy, median": NUMPY, "ours, median": NUMPY}
_CONSTANTS_HEADER = "| engine | t₀ | κ | τ, fewer sequences | τ, 16 or more | ε |"
_TIMES_HEADER = "| cell and B, H, T | compiled: formula | measured | NumPy: formula | measured |"


@dataclass(frozen=True)
class Counts:
    """What a step of a cell has: n calls, p H^2 multiplications in products, e numbers for each hidden unit."""

    n: int
    p: int
    e: int


@dataclass(frozen=True)
class Constants:
    """An engine's constants: of a run in ms, of a call in us, of a multiplication and of a number in ns."""

    run: float
    call: float
    product: float
    product_of_many: float
    number: float

    def milliseconds(self, case: Case, counts: Counts) -> float:
        """Return the formula's time of a case."""
        values = (self.run, self.call, self.product, self.product_of_many, self.number)
        return float(np.dot(values, _terms(case, counts)))


def main() -> int:
    """Write the tables of the page; return the exit code."""
    page = PAGE.read_text(encoding="utf-8")
    PAGE.write_text(filled(page, RESULTS.read_text(encoding="utf-8")), encoding="utf-8")
    sys.stdout.write(f"filled {PAGE.relative_to(ROOT)}\n")
    return 0


def filled(page: str, results: str) -> str:
    """Return the page with its tables as the results have them."""
    counts, times = counts_of(page), measured(results)
    cases = [c for c in FRAMEWORK_CASES if c.dtype == "float64" and any(c.label in found for found in times.values())]
    constants = {engine: fitted(times[engine], counts, cases) for engine in ENGINES if times[engine]}
    page = _with_rows(page, _CONSTANTS_HEADER, [_constants_row(engine, constants.get(engine)) for engine in ENGINES])
    rows = []
    for case in cases:
        cells = [case.label]
        for engine in ENGINES:
            there = engine in constants and case.label in times[engine]
            formula = constants[engine].milliseconds(case, counts[case.cell]) if there else 0.0
            cells += [_number(formula), _number(times[engine][case.label])] if there else [NOT_MEASURED, NOT_MEASURED]
        rows.append(cells)
    return _with_rows(page, _TIMES_HEADER, rows)


def counts_of(page: str) -> dict[str, Counts]:
    """Return the counts of the cells on the page, by the cell's name."""
    found = re.findall(r"^\| `([\w-]+)` \| (\d+) \| (\d+) \| (\d+) \|$", page, flags=re.MULTILINE)
    return {cell: Counts(int(n), int(p), int(e)) for cell, n, p, e in found}


def measured(results: str) -> dict[str, dict[str, float]]:
    """Return the milliseconds of the norms of each case by engine, each the median over the rows that it stands in."""
    found: dict[str, dict[str, list[float]]] = {engine: {} for engine in ENGINES}
    for row in rows_of_section(results, _SECTION):
        case, colon, what = row["ours"].partition(": ")
        if not colon or what != "norms":
            continue
        for column, engine in _COLUMNS.items():
            if row.get(column):
                value = row[column].removesuffix(" ms").replace(",", "")
                found[engine].setdefault(case, []).append(float(value))
    return {engine: {case: float(np.median(v)) for case, v in cases.items()} for engine, cases in found.items()}


def rows_of_section(text: str, heading: str) -> Iterator[dict[str, str]]:
    """Yield the rows of the table in a section, by the titles of its columns."""
    _, _, section = text.partition(f"{heading}\n")
    lines = [line for line in section.partition("\n## ")[0].splitlines() if line.startswith("|")]
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    for row in cells[2:]:
        yield dict(zip(cells[0], row, strict=True))


def fitted(times: Mapping[str, float], counts: Mapping[str, Counts], cases: Sequence[Case]) -> Constants:
    """Return the constants with the least squares of relative errors, rounded to what the page shows."""
    wanted = [case for case in cases if case.label in times]
    terms = np.array([np.divide(_terms(case, counts[case.cell]), times[case.label]) for case in wanted])
    used = list(range(terms.shape[1]))
    values = np.zeros(terms.shape[1])
    while used:
        found = np.linalg.lstsq(terms[:, used], np.ones(len(wanted)), rcond=None)[0]
        if (found >= 0).all():
            values[used] = found
            break
        used.pop(int(np.argmin(found * np.abs(terms[:, used]).max(axis=0))))
    return Constants(*(float(f"{value:.2g}") for value in values))


def _terms(case: Case, counts: Counts) -> tuple[float, ...]:
    """Return what the constants are multiplied by, in the order of `Constants`, for milliseconds."""
    b, h, t = case.size
    multiplications = b * (2 * counts.p * h**2 + counts.p * h * INPUT_SIZE)
    many = b >= MANY_SEQUENCES
    products = (0, multiplications) if many else (multiplications, 0)
    return (1.0, 1e-3 * t * counts.n, *(1e-6 * t * m for m in products), 1e-6 * t * b * h * counts.e)


def _constants_row(engine: str, constants: Constants | None) -> list[str]:
    if constants is None:
        return [TITLES[engine], *[NOT_MEASURED] * 5]
    c = constants
    return [
        TITLES[engine],
        f"{c.run:g} ms",
        f"{c.call:g} µs",
        *(f"{value:g} ns" for value in (c.product, c.product_of_many, c.number)),
    ]


def _with_rows(page: str, header: str, rows: Sequence[Sequence[str]]) -> str:
    """Return the page with other rows in the table with a header.

    Raises:
        ValueError: there is no such table.
    """
    before, found, after = page.partition(f"{header}\n")
    if not found:
        raise ValueError(f"{PAGE.name} has no table '{header}'")
    lines = after.splitlines(keepends=True)
    old = next((i for i, line in enumerate(lines) if not line.startswith("|")), len(lines))
    table = [lines[0], *(f"| {' | '.join(row)} |\n" for row in rows)]
    return "".join([before, found, *table, *lines[old:]])


def _number(milliseconds: float) -> str:
    """Return three significant digits, with commas and without an exponent."""
    return f"{milliseconds:,.0f} ms" if milliseconds >= 1000 else f"{milliseconds:#.3g}".rstrip(".") + " ms"


if __name__ == "__main__":
    raise SystemExit(main())
