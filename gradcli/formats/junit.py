"""Tests as JUnit XML, which Jenkins, GitLab, and most who show test results read."""

from __future__ import annotations

import re
from collections.abc import Iterator
from xml.etree import ElementTree

from gradcli.errors import UsageError
from gradcli.formats.text import printable
from gradcli.results.model import Report
from gradcli.results.suites import Case, Finding, Suite, Suites

_ELEMENTS = {"failed": "failure", "error": "error"}
#: What XML 1.0 cannot hold, not even escaped, of what can be printed.
_NOT_XML = re.compile("[\ufffe\uffff]")
_REPLACEMENT = "\ufffd"


def render(report: Report, *, width: int | None = None, color: bool = False, unicode: bool = True) -> Iterator[str]:
    """Yield the report's suites as JUnit XML, in pure ASCII."""
    if report.suites is None:
        raise UsageError(f"gradcli {report.command} tests nothing, so it has no JUnit form")
    tree = _testsuites(report.suites)
    ElementTree.indent(tree)
    yield ElementTree.tostring(tree, encoding="us-ascii", xml_declaration=True).decode("ascii")
    yield "\n"


def _testsuites(suites: Suites) -> ElementTree.Element:
    root = ElementTree.Element("testsuites", {"name": _text(suites.name), **_counts(*suites.suites)})
    for suite in suites.suites:
        element = ElementTree.SubElement(root, "testsuite", {"name": _text(suite.file), **_counts(suite)})
        for case in suite.cases:
            _testcase(element, case, suite)
    return root


def _counts(*suites: Suite) -> dict[str, str]:
    statuses = [case.status for suite in suites for case in suite.cases]
    return {
        "tests": str(len(statuses)),
        "failures": str(statuses.count("failed")),
        "errors": str(statuses.count("error")),
        "skipped": "0",
        "time": f"{sum(suite.seconds for suite in suites):.3f}",
    }


def _testcase(parent: ElementTree.Element, case: Case, suite: Suite) -> None:
    name = _text(suite.file)
    # What a file takes is one run for all of its cases; a share of it each makes the sum right.
    seconds = suite.seconds / len(suite.cases)
    attributes = {"classname": name, "name": _text(case.name), "time": f"{seconds:.3f}", "file": name}
    if case.line:
        attributes["line"] = str(case.line)
    element = ElementTree.SubElement(parent, "testcase", attributes)
    if case.status == "passed":
        return
    first, *others = case.findings
    more = f" (and {len(others):,} more)" if others else ""
    outcome = ElementTree.SubElement(
        element, _ELEMENTS[case.status], {"type": _text(case.name), "message": _text(first.message) + more}
    )
    outcome.text = "\n".join(_text(f"{_place(suite, one)}: {one.message}") for one in case.findings)


def _place(suite: Suite, finding: Finding) -> str:
    return ":".join([suite.file, *(str(number) for number in (finding.line, finding.column) if number)])


def _text(text: str) -> str:
    return _NOT_XML.sub(_REPLACEMENT, printable(text))
