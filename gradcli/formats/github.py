"""Tests as annotations: the commands that GitHub Actions reads in the output of a step, and shows at the lines."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from gradcli.errors import UsageError
from gradcli.formats.text import printable
from gradcli.results.model import Report
from gradcli.results.suites import Case, Finding, Suite

#: Of each kind GitHub shows ten for a step; the last of them says how many more there are.
MOST = 10


def render(report: Report, *, width: int | None = None, color: bool = False, unicode: bool = True) -> Iterator[str]:
    """Yield an `::error` line for each finding, at most `MOST - 1` and one for the rest; then what it comes to."""
    if report.suites is None:
        raise UsageError(f"gradcli {report.command} tests nothing, so it has no annotations")
    suites = report.suites
    for warning in suites.warnings[:MOST]:
        yield _command("warning", {"title": suites.name}, warning)
    found = [(suite, case, finding) for suite in suites.suites for case in suite.cases for finding in case.findings]
    shown = found if len(found) < MOST else found[: MOST - 1]
    for suite, case, finding in shown:
        yield _command("error", _place(suite, case, finding), finding.message)
    if len(found) > len(shown):
        more = f"and {len(found) - len(shown):,} more; the log of the step has how many checks failed"
        yield _command("error", {"title": suites.name}, more)
    # No name of the user's is in it: a line that began with one could be a command.
    yield f"{suites.name}: {suites.conclusion}\n"


def _place(suite: Suite, case: Case, finding: Finding) -> dict[str, str]:
    place = {"file": suite.file}
    if finding.line:
        place["line"] = str(finding.line)
    if finding.column:
        place["col"] = str(finding.column)
    return place | {"title": f"gradcli {case.name}"}


def _command(name: str, properties: Mapping[str, str], message: str) -> str:
    written = ",".join(f"{key}={_property(value)}" for key, value in properties.items())
    return f"::{name} {written}::{_data(message)}\n"


def _data(text: str) -> str:
    """Escape a message as the runner unescapes it; line breaks stay, other control characters go."""
    lines = "\n".join(printable(line) for line in text.splitlines())
    return lines.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _property(text: str) -> str:
    return _data(text).replace(":", "%3A").replace(",", "%2C")
