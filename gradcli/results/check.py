"""What `gradcli check` found: of every file its checks, its mistakes, and what it comes to."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import field
from typing import Literal

from gradcli.diagnostics.expectations import CheckOutcome
from gradcli.errors import ExitCode, Problem
from gradcli.frozen import frozen
from gradcli.numbers import grouped
from gradcli.results.baseline import Entry
from gradcli.results.declared import key
from gradcli.results.model import Block, Cell, Column, Line, Report, Style, Table
from gradcli.results.result import Result
from gradcli.results.suites import Case, Finding, Suite, Suites
from gradcli.spec.files import Read
from gradcli.spec.shown import counted, printable

Status = Literal["passed", "failed", "error"]
#: The name of the case of a file that could not be checked, and of one that the baseline lacks.
SPEC, BASELINE = "spec", "baseline"
#: Of several reasons to fail the first in this list makes the exit code.
PRECEDENCE = (ExitCode.USAGE, ExitCode.INTERNAL, ExitCode.INPUT_FILE, ExitCode.RESOURCE, ExitCode.GATE)


@frozen(kw_only=True)
class Check:
    """One check of one file."""

    name: str = key("its name: a key of `expect:`, or `baseline.` and the name of a figure", title="check", text=True)
    status: Status = key("`passed`, `failed`, or `error` where it could not be made", title="", text=True)
    expected: str = key("what was expected, as it is written", title="expected", text=True)
    measured: float | str | bool | None = key("the figure; null where there is none, or where it has no bound")
    message: str = key("what was measured and, where it is not what was expected, by how far")
    line: int | None = key("the line of the file that asks for it; null for that of a baseline")


@frozen(kw_only=True)
class Mistake:
    """One mistake in a spec."""

    line: int | None = key("its line, from 1")
    column: int | None = key("its column, from 1")
    path: str = key("the keys that lead to the value")
    message: str = key("what is wrong")


@frozen(kw_only=True)
class CheckedFile:
    """One file.

    exit_code: what it alone would make the command return. entry: what a baseline keeps of it.
    reads: the files that its run read.
    """

    file: str = key("as it was named or found")
    status: Status = key("`passed`, `failed`, or `error` where something could not be checked")
    checks: Sequence[Check] = key("its checks")
    mistakes: Sequence[Mistake] = key("what is wrong with the spec")
    error: str | None = key("why else it could not be checked")
    seconds: float = key("how long it took")
    exit_code: ExitCode = ExitCode.DONE
    entry: Entry | None = None
    reads: Sequence[Read] = ()


@frozen(kw_only=True, repr=False, eq=False)
class Checked(Result):
    """What became of all files."""

    command = "check"
    runs_engine = True

    status: Status = key("`passed`, `failed`, or `error`: the worst of all files")
    counts: Mapping[str, int] = key("how many `files`, `checks`, `passed`, `failed`, `errors`, and files `skipped`")
    files: Sequence[CheckedFile] = key("each file, in the order of the arguments")
    baseline: str | None = key("the baseline that was written; null where none was")
    warnings: Sequence[str] = key("what is to be told beside")
    code: ExitCode = field(default=ExitCode.DONE)

    @property
    def exit_code(self) -> ExitCode:
        return self.code


def checks_of(outcomes: Sequence[CheckOutcome], lines: Mapping[str, int]) -> list[Check]:
    """Return outcomes with the lines that ask for them, by the names of the checks."""
    return [
        Check(
            name=one.name,
            status=one.status,
            expected=one.expected,
            measured=one.measured,
            message=one.message,
            line=lines.get(one.name),
        )
        for one in outcomes
    ]


def checked_file(
    file: str,
    checks: Sequence[Check],
    *,
    seconds: float,
    code: ExitCode = ExitCode.DONE,
    entry: Entry | None = None,
    reads: Sequence[Read] = (),
) -> CheckedFile:
    """Return a file whose checks were made. code: of what could not be measured, where there is such."""
    status: Status = "passed"
    if any(check.status == "failed" for check in checks):
        status, code = "failed", _worst([code, ExitCode.GATE])
    if any(check.status == "error" for check in checks):
        status = "error"
    return CheckedFile(
        file=file,
        status=status,
        checks=checks,
        mistakes=(),
        error=None,
        seconds=seconds,
        exit_code=code,
        entry=entry,
        reads=reads,
    )


def broken_file(
    file: str, *, code: ExitCode, seconds: float, problems: Sequence[Problem] = (), error: str | None = None
) -> CheckedFile:
    """Return a file that could not be checked: one with mistakes, or one that cannot be read or run."""
    mistakes = [
        Mistake(line=each.line or None, column=each.column or None, path=each.path, message=each.message)
        for each in problems
    ]
    return CheckedFile(
        file=file, status="error", checks=(), mistakes=mistakes, error=error, seconds=seconds, exit_code=code
    )


def check_result(
    files: Sequence[CheckedFile], *, skipped: int, baseline: str | None, warnings: Sequence[str]
) -> Checked:
    """Return the result for all files.

    Args:
        skipped: how many others were passed over. baseline: what was written, if anything was.
    """
    checks = [check for file in files for check in file.checks]
    statuses = [check.status for check in checks]
    counts = {
        "files": len(files),
        "checks": len(checks),
        "passed": statuses.count("passed"),
        "failed": statuses.count("failed"),
        "errors": statuses.count("error") + sum(not file.checks and file.status == "error" for file in files),
        "skipped": skipped,
    }
    worst: Status = next((one for one in ("error", "failed") if any(f.status == one for f in files)), "passed")
    suites = _suites(files, _conclusion(files, counts), warnings)
    return Checked(
        status=worst,
        counts=counts,
        files=files,
        baseline=baseline,
        warnings=warnings,
        code=_worst([file.exit_code for file in files]),
        shown=_report(files, counts, worst, suites, baseline),
    )


def _worst(codes: Sequence[ExitCode]) -> ExitCode:
    return next((code for code in PRECEDENCE if code in codes), ExitCode.DONE)


def _conclusion(files: Sequence[CheckedFile], counts: Mapping[str, int]) -> str:
    """Return what it comes to: how many checks failed, in how many of the files, and how many files are broken."""
    checks, broken = counts["checks"], sum(file.status == "error" for file in files)
    where = counted(len(files), "file")
    failed = counts["failed"]
    if failed:
        of = sum(any(check.status == "failed" for check in file.checks) for file in files)
        text = f"{grouped(failed)} of {counted(checks, 'check')} failed, in {grouped(of)} of {where}"
    elif checks:
        text = f"{counted(counts['passed'], 'check')} passed, in {where}"
    else:
        return f"{where} could not be checked"
    return text + (f"; {counted(broken, 'file')} could not be checked" if broken else "")


_LABELS: Mapping[Status, tuple[str, Style]] = {
    "passed": ("PASSED", "good"),
    "failed": ("FAILED", "bad"),
    "error": ("ERROR", "bad"),
}


def _report(
    files: Sequence[CheckedFile], counts: Mapping[str, int], worst: Status, suites: Suites, baseline: str | None
) -> Report:
    label, style = _LABELS[worst]
    head: list[Block] = [Line(suites.conclusion, label, style)]
    if skipped := counts["skipped"]:
        head.append(Line(f"{counted(skipped, 'YAML file')} without `expect:` passed over", style="dim"))
    if baseline is not None:
        head.append(Line(f"the baseline is written: {_shown(baseline)}", style="dim"))
    head += [Line(text, "warning", "warn") for text in suites.warnings]
    broken = [lines for suite in suites.suites if (lines := _file_lines(suite))]
    table = _table(files)
    more: list[list[Block]] = [[Line("every check: --full", "more", "dim")]] if counts["checks"] else []
    return Report(
        "check",
        [head, *broken, *more],
        full=[head, *broken, *([table] if table else [])],
        suites=suites,
    )


def _file_lines(suite: Suite) -> list[Block]:
    """Return why a file did not pass: a line for each finding."""
    lines: list[Block] = [
        Line(f"{f'line {one.line}: ' if one.line else ''}{one.message}", case.name, "bad")
        for case in suite.cases
        for one in case.findings
    ]
    return [Line(_shown(suite.file), style="title"), *lines] if lines else []


def _shown(file: str) -> str:
    """Return the name of a file on one line."""
    return printable(file, limit=4096)


def _table(files: Sequence[CheckedFile]) -> list[Block]:
    columns = [
        Column("file", "text", keep=9),
        Column("check", "text", keep=9),
        Column("", "text", keep=9),
        Column("what was measured", "text", keep=8),
    ]
    rows: list[list[Cell]] = [
        [_shown(file.file), check.name, check.status, check.message] for file in files for check in file.checks
    ]
    return [Table(columns, rows)] if rows else []


def _suites(files: Sequence[CheckedFile], conclusion: str, warnings: Sequence[str]) -> Suites:
    suites = [Suite(file.file, _cases(file), file.seconds) for file in files]
    return Suites("gradcli check", conclusion, suites, warnings)


def _cases(file: CheckedFile) -> list[Case]:
    if not file.checks:
        findings = [
            Finding(f"{each.path}: {each.message}" if each.path else each.message, each.line or 0, each.column or 0)
            for each in file.mistakes
        ]
        if file.error is not None:
            findings.append(Finding(file.error))
        return [Case(SPEC, "error", findings)]
    return [
        Case(check.name, check.status, text=check.message, line=check.line or 0)
        if check.status == "passed"
        else Case(check.name, check.status, [Finding(check.message, check.line or 0)], line=check.line or 0)
        for check in file.checks
    ]
