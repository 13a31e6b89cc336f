"""`gradcli check` as a command: which files it takes, what it says of each, and its exit codes."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from checking import check, line, outcomes, write
from in_process import gradcli

import gradcli as package
from gradcli.errors import UsageError

HOLDS, FAILS = {"horizon": 10}, {"horizon": ">= 50", "rate_per_step": "0.9..1.1"}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return an empty folder that is the current one."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_conclusion_comes_first(folder: Path) -> None:
    line(folder / "holds.yaml", 0.5, HOLDS)
    line(folder / "fails.yaml", 0.5, FAILS)
    done = check("holds.yaml", "fails.yaml")
    assert done.code == 3
    assert done.stdout.splitlines() == [
        "FAILED   2 of 3 checks failed, in 1 of 2 files",
        "",
        "fails.yaml",
        "horizon         line 1: expected >= 50, but the horizon is 10 steps (40 away)",
        "rate_per_step   line 1: expected 0.9..1.1, but the rate is 0.5 a step (0.4 away)",
        "",
        "more   every check: --full",
    ]
    assert done.stderr == ""


def test_all_checks_that_pass_take_one_line(folder: Path) -> None:
    line(folder / "a.yaml", 0.5, HOLDS)
    done = check("a.yaml")
    assert (done.code, done.stdout.splitlines()[0]) == (0, "PASSED   1 check passed, in 1 file")
    assert "the horizon is 10 steps" in check("a.yaml", "--full").stdout


BROKEN = {
    "mistake": ("{cell: rnn, hiden_size: 3, expect: {verdict: stable}}", 2, "unknown key; did you mean 'hidden_size'?"),
    "yaml": ("{cell: rnn, expect: [", 2, "a value is missing before the end of the file"),
    "no-expect": ("cell: rnn", 2, "there is no `expect:` block"),
    "null": ("{cell: rnn, expect: null}", 2, "there is no `expect:` block"),
    "tag": ("{cell: !!python/name:os.system x, expect: {verdict: stable}}", 2, "tag"),
    "alias": ("{cell: &a rnn, expect: *a}", 2, "an alias cannot stand in a spec"),
    "data": ("{cell: rnn, input: {kind: file, path: none.csv}, expect: {verdict: stable}}", 4, "none.csv"),
    "binary": ("\0", 2, "cannot stand in a spec"),
    "huge": ("{cell: lstm, hidden_size: 65000, expect: {verdict: stable}}", 5, "memory"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_every_file_runs_whatever_is_wrong_with_another(name: str, folder: Path) -> None:
    text, code, says = BROKEN[name]
    (folder / "broken.yaml").write_text(text)
    line(folder / "holds.yaml", 0.5, HOLDS)
    line(folder / "fails.yaml", 0.5, FAILS)
    done = check("broken.yaml", "holds.yaml", "fails.yaml", "--format", "json")
    assert done.code == code
    report = done.report()
    broken, holds, fails = report["files"]
    assert (report["status"], broken["status"], holds["status"], fails["status"]) == (
        "error",
        "error",
        "passed",
        "failed",
    )
    told = " ".join([str(broken["error"]), *(mistake["message"] for mistake in broken["mistakes"])])
    assert says in told
    assert "Traceback" not in told
    assert report["counts"] == {"files": 3, "checks": 3, "passed": 1, "failed": 2, "errors": 1, "skipped": 0}


def test_a_file_that_cannot_be_read_is_told_like_the_others(folder: Path) -> None:
    line(folder / "holds.yaml", 0.5, HOLDS)
    os.symlink("gone", folder / "dangling.yaml")
    done = check("missing.yaml", "dangling.yaml", "lstm", "holds.yaml")
    assert done.code == 4
    assert done.stdout.count("there is no such file or folder") == 3
    assert "ERROR   1 check passed, in 4 files; 3 files could not be checked" in done.stdout


def test_mistakes_come_before_files_that_cannot_be_read_and_these_before_failures(folder: Path) -> None:
    (folder / "bad.yaml").write_text("{cell: rnn, expect: {}}")
    line(folder / "fails.yaml", 0.5, FAILS)
    assert check("fails.yaml", "missing.yaml", "bad.yaml").code == 2
    assert check("fails.yaml", "missing.yaml").code == 4
    assert check("fails.yaml").code == 3


def test_an_internal_error_is_one_file_s(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    line(folder / "a.yaml", 0.5, HOLDS)
    write(folder / "b.yaml", {"certificate": False})

    def broken(*_: object, **__: object) -> None:
        raise RuntimeError("a mistake of our own")

    monkeypatch.setattr("gradcli.commands.checking.measure", broken)
    done = check("a.yaml", "b.yaml")
    assert done.code == 1
    assert "internal error: RuntimeError: a mistake of our own; please report this" in done.stdout
    assert "1 check passed" in done.stdout


def test_a_check_that_is_refused_leaves_the_others(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from gradcli.errors import ResourceError

    def refused(*_: object) -> None:
        raise ResourceError("too large")

    monkeypatch.setattr("gradcli.commands.checking.leading_exponents", refused)
    path = line(folder / "a.yaml", 0.5, {"horizon": 10, "lyapunov": "< 0"})
    found = outcomes(path)
    assert (found["horizon"]["status"], found["lyapunov"]["status"]) == ("passed", "error")
    assert check(path).code == 5


# Which files are meant.


def test_a_folder_means_the_specs_below_it_that_expect_something(folder: Path) -> None:
    for name in ("m/b.yaml", "m/a.yml", "m/deep/er/c.YAML", "m/.hidden/d.yaml", "m/.e.yaml"):
        line(folder / name, 0.5, HOLDS)
    line(folder / "m/plain.yaml", 0.5)
    (folder / "m/compose.yaml").write_text("services: &x {a: 1}\nb: *x\n")
    (folder / "m/ci.yml").write_text("on: push\njobs: {}\n")
    (folder / "m/notes.txt").write_text("expect: x")
    report = check("m", "--format", "json").report()
    assert [file["file"] for file in report["files"]] == ["m/a.yml", "m/b.yaml", "m/deep/er/c.YAML"]
    assert report["counts"]["skipped"] == 3
    assert "3 YAML files without `expect:` passed over" in check("m").stdout


def test_of_a_folder_a_broken_spec_that_expects_something_is_not_passed_over(folder: Path) -> None:
    line(folder / "m/a.yaml", 0.5, HOLDS)
    (folder / "m/broken.yaml").write_text("cell: rnn\nexpect: {verdict: [}\n")
    assert check("m").code == 2


def test_a_glob_may_go_down_any_number_of_folders(folder: Path) -> None:
    for name in ("a.yaml", "x/b.yaml", "x/y/c.yaml"):
        line(folder / name, 0.5, HOLDS)
    (folder / "x/readme.md").write_text("expect: no")

    def files(glob: str) -> list[str]:
        return [file["file"] for file in check(glob, "--format", "json").report()["files"]]

    assert files("**/*.yaml") == ["a.yaml", "x/b.yaml", "x/y/c.yaml"]
    assert files("x/*") == ["x/b.yaml"]


def test_a_file_is_checked_once_and_its_name_wins_over_a_glob(folder: Path) -> None:
    line(folder / "m/a[1].yaml", 0.5, HOLDS)
    line(folder / "m/plain.yaml", 0.5)
    report = check("m", "m/a[1].yaml", "./m/../m/a[1].yaml", "m/plain.yaml", "--format", "json").report()
    assert [file["file"] for file in report["files"]] == ["m/a[1].yaml", "m/plain.yaml"]
    assert report["files"][1]["status"] == "error"


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        ([], 2, "Missing argument"),
        (["empty"], 2, "there is no .yaml or .yml file in empty or below"),
        (["x/*.yaml"], 2, "no .yaml or .yml file matches 'x/*.yaml'"),
        (["plain"], 2, "nothing to check: of 1 YAML file, none has `expect:`"),
        (["-"], 2, "standard input has no name"),
        (["a.yaml", "--update"], 2, "--update is about a baseline"),
        (["a.yaml", "--tolerance", "0.1"], 2, "--tolerance is about a baseline"),
        (["a.yaml", "--baseline", "b.json", "--tolerance", "-1"], 2, "--tolerance: expected a number from 0 on"),
        (["a.yaml", "--baseline", "b.json", "--tolerance", "nan"], 2, "--tolerance: expected a number from 0 on"),
        (["a.yaml", "--baseline", "b.json", "--tolerance", "1", "--update"], 2, "give one of them"),
        (
            ["a.yaml", "--format", "csv"],
            2,
            "csv is a format of 'gradcli simulate'; here: table, json, junit, github, markdown",
        ),
        (["a.yaml", "-o", "a.yaml"], 2, "the run reads this file"),
        (["a.yaml", "--baseline", "a.yaml", "--update"], 2, "the run reads this file"),
        (["a.yaml", "-o", "b.json", "--baseline", "b.json", "--update"], 2, "name the same file"),
        (["a.yaml", "--baseline", "b.json"], 4, "there is no such baseline; --update writes it"),
        (["a.yaml", "-o", "none/x.xml"], 4, "the directory none does not exist"),
        (["a.yaml", "--jobs", "0"], 2, "--jobs"),
    ],
)
def test_what_makes_no_sense_is_refused_before_any_work(
    arguments: list[str], code: int, says: str, folder: Path
) -> None:
    (folder / "empty").mkdir()
    line(folder / "plain/p.yaml", 0.5)
    before = line(folder / "a.yaml", 0.5, HOLDS).read_bytes()
    done = gradcli("check", *arguments)
    assert (done.code, done.stdout) == (code, "")
    assert says in done.stderr
    assert (folder / "a.yaml").read_bytes() == before
    assert sorted(path.name for path in folder.iterdir()) == ["a.yaml", "empty", "plain"]


def test_a_data_file_is_not_written_over(folder: Path) -> None:
    (folder / "x.csv").write_text("1\n2\n3\n4\n")
    write(folder / "a.yaml", {"verdict": "stable"}, input={"kind": "file", "path": "x.csv"}, seq_len=2, input_size=1)
    done = check("a.yaml", "-o", "x.csv", "--format", "json")
    assert done.code == 2
    assert (folder / "x.csv").read_text() == "1\n2\n3\n4\n"


def test_hostile_names_and_texts_come_out_as_text(folder: Path) -> None:
    name = 'a\x1b[31m\n::error::x<&".yaml'
    line(folder / name, 0.5, FAILS)
    for form in ("table", "json", "junit", "github", "markdown"):
        done = check(folder / name, "--format", form)
        assert done.code == 3
        assert "\x1b" not in done.stdout
        assert "\n::error::x" not in done.stdout


# From Python.


def test_python_gets_the_same_as_the_json(folder: Path) -> None:
    line(folder / "a.yaml", 0.5, FAILS)
    found = package.check("a.yaml")
    assert (found.status, found.files[0].checks[0].name, found.exit_code) == ("failed", "horizon", 3)
    data = found.to_dict()
    printed = check("a.yaml", "--format", "json").report()
    for report in (data, printed):
        for file in report["files"]:
            file.pop("seconds")
    assert data == printed
    assert package.check([folder / "a.yaml"], jobs=1).counts["failed"] == 2
    assert "FAILED" in found.to_text()
    found.save("a.xml")
    assert (folder / "a.xml").read_text().startswith("<?xml")
    with pytest.raises(UsageError):
        package.check([])
