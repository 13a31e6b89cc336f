"""What continuous integration reads: JUnit XML by a reader of it, GitHub's commands as its runner takes them apart."""

from __future__ import annotations

import re
from pathlib import Path
from xml.etree import ElementTree

import junitparser
import pytest
from checking import check, line, write
from hypothesis import given
from hypothesis import strategies as st

import gradcli
from gradcli.errors import UsageError
from gradcli.formats import render
from gradcli.formats.github import MOST
from gradcli.results.model import Report
from gradcli.results.suites import Case, Finding, Suite, Suites

# Whatever YAML files and file systems let into names and messages.
TEXTS = st.text(st.characters(codec=None), max_size=30) | st.sampled_from(
    [
        "::error::x",
        "\n::stop-commands::y",
        "##[error]z",
        "]]>",
        "<!--",
        "&amp;",
        "%0A",
        "a,b:c",
        "\x00\x1b[31m",
        "\ud800",
    ]
)
FINDINGS = st.builds(Finding, TEXTS, st.integers(0, 99), st.integers(0, 99))
CASES = st.builds(
    lambda name, status, findings: Case(name, status, () if status == "passed" else findings, line=3),
    TEXTS,
    st.sampled_from(["passed", "failed", "error"]),
    st.lists(FINDINGS, min_size=1, max_size=3),
)
SUITES = st.builds(
    Suites,
    st.just("gradcli check"),
    st.just("what it comes to"),
    st.lists(st.builds(Suite, TEXTS, st.lists(CASES, min_size=1, max_size=4), st.floats(0, 1e4)), max_size=5),
    st.lists(TEXTS, max_size=2),
)


def written(suites: Suites, form: str) -> str:
    return render(Report("check", [], {}, suites=suites), form, width=None, color=False, unicode=True)


def named(path: Path, name: str) -> Path:
    """Return a spec of two checks that fail and one that holds."""
    return line(path / name, 0.5, {"verdict": "stable", "horizon": ">= 50", "rate_per_step": "0.4..0.6"})


# JUnit.


def test_junitparser_reads_what_became_of_each_check(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    named(tmp_path, "a.yaml")
    line(tmp_path / "b.yaml", 2.0, {"verdict": "exploding"})
    (tmp_path / "c.yaml").write_text("cell: rnn\nhiden_size: 1\nexpect: {verdict: stabel}\n")
    assert check("a.yaml", "b.yaml", "c.yaml", "-o", "report.xml").code == 2
    found = junitparser.JUnitXml.fromfile("report.xml")
    a, b, c = found
    assert (found.tests, found.failures, found.errors) == (5, 2, 1)
    assert [suite.name for suite in found] == ["a.yaml", "b.yaml", "c.yaml"]
    assert [(case.name, case.classname, case.is_passed) for case in a] == [
        ("verdict", "a.yaml", False),
        ("horizon", "a.yaml", False),
        ("rate_per_step", "a.yaml", True),
    ]
    (failure,) = next(case for case in a if case.name == "horizon").result
    assert isinstance(failure, junitparser.Failure)
    assert failure.message == "expected >= 50, but the horizon is 10 steps (40 away)"
    assert failure.text == f"a.yaml:1: {failure.message}"
    assert [case.is_passed for case in b] == [True]
    (error,) = next(iter(c)).result
    assert isinstance(error, junitparser.Error)
    assert error.message == "hiden_size: unknown key; did you mean 'hidden_size'? (and 1 more)"
    assert error.text.splitlines()[1].startswith("c.yaml:3:19: expect.verdict: expected 'stable' or ")
    assert found.time == pytest.approx(sum(suite.time for suite in found), abs=2e-3)
    for suite in found:
        assert suite.time > 0
        assert suite.time == pytest.approx(sum(case.time for case in suite), abs=5e-3)


@given(SUITES)
def test_whatever_a_name_holds_the_xml_can_be_read(suites: Suites) -> None:
    text = written(suites, "junit")
    assert text.isascii()
    root = ElementTree.fromstring(text)
    assert [len(suite) for suite in root] == [len(suite.cases) for suite in suites.suites]
    statuses = [case.status for suite in suites.suites for case in suite.cases]
    for status, tag, count in (("failed", "failure", "failures"), ("error", "error", "errors")):
        assert len(root.findall(f".//{tag}")) == statuses.count(status) == int(root.attrib[count])
    for suite, element in zip(suites.suites, root, strict=True):
        for case, inner in zip(suite.cases, element, strict=True):
            outcome = next(iter(inner), None)
            if outcome is not None:
                assert len((outcome.text or "").split("\n")) == len(case.findings)
    if text.count("\n") > 3:
        junitparser.JUnitXml.fromstring(text.encode())


def test_plain_text_goes_through_the_xml_unchanged() -> None:
    suite = Suite("é <&\"' 中.yaml", [Case("x", "failed", [Finding("a < b & ≥ 'c' \"d\" ]]>")])])
    root = ElementTree.fromstring(written(Suites("n", "c", [suite]), "junit"))
    assert root[0].attrib["name"] == suite.file
    assert root[0][0][0].attrib["message"] == suite.cases[0].findings[0].message


# GitHub.


def taken_apart(text: str) -> list[tuple[str, dict[str, str], str]]:
    """Return the commands in the output of a step as the runner reads them (ActionCommand.TryParseV2)."""
    found = []
    for one in text.split("\n"):
        if not one.strip().startswith("::"):
            continue
        command, message = one.strip()[2:].split("::", 1)
        name, _, listed = command.partition(" ")
        pairs = [pair.split("=", 1) for pair in listed.split(",")]
        found.append((name, {key: unescaped(value, ":,") for key, value in pairs}, unescaped(message)))
    return found


def unescaped(text: str, more: str = "") -> str:
    for char in ("\r", "\n", *more):
        text = text.replace(f"%{ord(char):02X}", char)
    return text.replace("%25", "%")


@given(SUITES)
def test_each_finding_is_one_command_and_nothing_else_is(suites: Suites) -> None:
    text = written(suites, "github")
    commands = taken_apart(text)
    findings = [(suite, case, finding) for suite in suites.suites for case in suite.cases for finding in case.findings]
    errors = [command for command in commands if command[0] == "error"]
    assert {name for name, _, _ in commands} <= {"error", "warning"}
    assert len(commands) - len(errors) == len(suites.warnings)
    assert len(errors) == min(len(findings), MOST)
    assert text.count("\n") == len(commands) + 1
    assert text.endswith("gradcli check: what it comes to\n")
    for (_, _, finding), (_, properties, message) in zip(findings[: MOST - 1], errors, strict=False):
        assert set(properties) <= {"file", "line", "col", "title"}
        assert properties.get("line", "0") == str(finding.line)
        if finding.message.isascii() and finding.message.isprintable():
            assert message == finding.message
    if len(findings) > MOST - 1:
        more = len(findings) - len(errors) + 1
        assert len(findings) == MOST - 1 + more
        assert errors[-1][2].startswith(f"and {more:,} more; ")


@pytest.mark.parametrize("name", ["a,b:c.yaml", "100%.yaml", "%0A.yaml", "a=b.yaml", "ü 中.yaml", "::error::.yaml"])
def test_the_runner_finds_the_file_and_the_line(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / name).write_text(
        "cell: {equations: 'h[t] = 0.5 * h[t-1] + W @ x[t]'}\nseq_len: 30\n\n"
        "expect:\n  finite: true\n  horizon: '> 99'\n"
    )
    done = check(f"./{name}", "--format", "github")
    assert done.code == 3
    ((kind, properties, message),) = taken_apart(done.stdout)
    assert (kind, properties["file"], properties["line"]) == ("error", name, "6")
    assert properties["title"] == "gradcli horizon"
    assert message.startswith("expected > 99, but the horizon is ")


def test_files_are_named_from_the_workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    named(tmp_path, "sub/models/a.yaml")
    monkeypatch.chdir(tmp_path / "sub")
    monkeypatch.setenv("GITHUB_WORKSPACE", str(tmp_path))
    for name in ("models", tmp_path / "sub/models/a.yaml"):
        commands = taken_apart(check(name, "--format", "github").stdout)
        assert {properties["file"] for _, properties, _ in commands} == {"sub/models/a.yaml"}
    monkeypatch.setenv("GITHUB_WORKSPACE", str(tmp_path / "elsewhere"))
    commands = taken_apart(check("models", "--format", "github").stdout)
    assert {properties["file"] for _, properties, _ in commands} == {"models/a.yaml"}


def test_the_summary_of_the_step_is_appended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    named(tmp_path, "a_b|c.yaml")
    summary = tmp_path / "summary.md"
    summary.write_text("before\n")
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(summary))
    check("a_b|c.yaml")
    assert summary.read_text() == "before\n"
    check("a_b|c.yaml", "--format", "github")
    text = summary.read_text()
    assert text.startswith("before\n**FAILED** 2 of 3 checks failed, in 1 of 1 file\n")
    assert "a_b\\|c.yaml" in text
    assert "expected \\>= 50, but the horizon is 10 steps (40 away)" in text
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(tmp_path / "none/summary.md"))
    done = check("a_b|c.yaml", "--format", "github")
    assert (done.code, done.stderr) == (
        4,
        f"error: cannot write the step's summary, {tmp_path}/none/summary.md: No such file or directory\n",
    )


def test_a_long_summary_is_cut(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from gradcli.cli.github_actions import append_step_summary
    from gradcli.results.model import Line

    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(tmp_path / "s.md"))
    append_step_summary(Report("check", [[Line("é" * 100)] * 5000], {}))
    raw = (tmp_path / "s.md").read_bytes()
    assert len(raw) < 2**19 + 100
    assert raw.decode().endswith("and more; the report was too long\n\n")


# The others.


def test_the_markdown_has_what_failed(tmp_path: Path) -> None:
    done = check(named(tmp_path, "a.yaml"), "--format", "markdown", "--full")
    assert re.search(r"^\| .*a\.yaml \| horizon \| failed \| expected \\>= 50", done.stdout, re.MULTILINE)


@pytest.mark.parametrize("form", ["junit", "github"])
def test_what_tests_nothing_has_no_such_form(form: str, tmp_path: Path) -> None:
    run = gradcli.simulate("rnn", seq_len=3, hidden_size=2)
    with pytest.raises(UsageError, match="simulate tests nothing"):
        run.to_text(format=form)
    with pytest.raises(UsageError, match="simulate tests nothing"):
        run.save(tmp_path / "run.xml")
    assert not (tmp_path / "run.xml").exists()


def test_a_check_is_not_interrupted_by_its_own_names(tmp_path: Path) -> None:
    """A name that reads as a command stands in no line of its own."""
    path = write(tmp_path / "x\n::stop-commands::y.yaml", {"verdict": "nonfinite"})
    text = check(path, "--format", "github").stdout
    assert [name for name, _, _ in taken_apart(text)] == ["error"]
