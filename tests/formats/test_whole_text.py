"""Every format's whole text for one report, compared with the files in expected/."""

from __future__ import annotations

from pathlib import Path

import pytest

from gradcli.errors import UsageError
from gradcli.formats import FORMATS, render
from gradcli.results.model import Report

EXPECTED = Path(__file__).parent / "expected"

CASES = {
    "table-unlimited.txt": ("table", {"width": None}),
    "table-120.txt": ("table", {"width": 120}),
    "table-80.txt": ("table", {"width": 80}),
    "table-40.txt": ("table", {"width": 40}),
    "table-80-ascii.txt": ("table", {"width": 80, "unicode": False}),
    "table-80-color.txt": ("table", {"width": 80, "color": True}),
    "report.json": ("json", {"width": None}),
    "report.csv": ("csv", {"width": None}),
    "report.md": ("markdown", {"width": None}),
}


@pytest.mark.parametrize("name", CASES)
def test_text_is_as_expected(report: Report, name: str) -> None:
    kind, screen = CASES[name]
    text = render(report, kind, **{"color": False, "unicode": True, **screen})  # type: ignore[arg-type]
    assert text == (EXPECTED / name).read_text(encoding="utf-8")


def test_every_format_has_an_expected_text() -> None:
    assert {kind for kind, _ in CASES.values()} == set(FORMATS)


@pytest.mark.parametrize("kind", ["json", "csv", "markdown"])
def test_formats_for_programs_and_notes_ignore_the_screen(report: Report, kind: str) -> None:
    on_a_screen = render(report, kind, width=30, color=True, unicode=False)
    assert on_a_screen == render(report, kind, width=None, color=False, unicode=True)


def test_unknown_format_is_refused(report: Report) -> None:
    with pytest.raises(UsageError, match="no format is called 'yaml'"):
        render(report, "yaml", width=80, color=False, unicode=True)
