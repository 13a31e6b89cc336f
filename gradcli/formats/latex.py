"""The report's formulas as LaTeX, for papers and lecture notes."""

from __future__ import annotations

from collections.abc import Iterator

from gradcli.errors import UsageError
from gradcli.results.model import Report


def render(report: Report, *, width: int | None = None, color: bool = False, unicode: bool = True) -> Iterator[str]:
    """Yield `report.latex`. Raises UsageError for a report without formulas."""
    if not report.latex:
        raise UsageError(f"'{report.command}' has no LaTeX form; take another --format")
    yield report.latex
