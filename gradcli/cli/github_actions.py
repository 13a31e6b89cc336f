"""What the runner of GitHub Actions says of itself in the environment, and what a step leaves for it."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

from gradcli.errors import OutputError
from gradcli.formats import render
from gradcli.results.model import Report

#: Bytes that GitHub takes of a step's summary.
_LARGEST_SUMMARY = 2**20


def in_workspace(report: Report) -> Report:
    """Return a report whose files are named as annotations have to: from the folder of the repository."""
    if report.suites is None:
        return report
    suites = [replace(suite, file=_from_workspace(suite.file)) for suite in report.suites.suites]
    return replace(report, suites=replace(report.suites, suites=suites))


def _from_workspace(file: str) -> str:
    workspace = os.path.realpath(os.environ.get("GITHUB_WORKSPACE") or os.curdir)
    path = os.path.realpath(file)
    inside = os.path.commonpath([workspace, path]) == workspace if _share_a_root(workspace, path) else False
    return (os.path.relpath(path, workspace) if inside else file).replace(os.sep, "/")


def _share_a_root(one: str, other: str) -> bool:
    return os.path.splitdrive(one)[0] == os.path.splitdrive(other)[0]


def append_step_summary(report: Report) -> None:
    """Append a report as Markdown to the summary of the step, where the runner names a file for it.

    Raises:
        OutputError: the file cannot be written.
    """
    name = os.environ.get("GITHUB_STEP_SUMMARY")
    if not name:
        return
    text = render(report, "markdown", width=None, color=False, unicode=True)
    raw = text.encode("utf-8", "backslashreplace")
    if len(raw) > _LARGEST_SUMMARY // 2:
        raw = raw[: _LARGEST_SUMMARY // 2].rpartition(b"\n")[0] + b"\n\nand more; the report was too long\n"
    try:
        with Path(name).open("ab") as file:
            file.write(raw + b"\n")
    except OSError as error:
        raise OutputError(f"cannot write the step's summary, {name}: {error.strerror}") from error
