"""Exit codes, and what is said where when something goes wrong."""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from processes import Run, command, environment

import gradcli
from gradcli.cli import COMMANDS
from gradcli.results.envelope import envelope

needs_posix = pytest.mark.skipif(sys.platform == "win32", reason="POSIX shell, devices and signals")


def shell(line: str, cwd: Path, **env: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["bash", "-c", line],
        env=environment(**env),
        cwd=cwd,
        capture_output=True,
        encoding="utf-8",
        timeout=60,
        check=False,
    )


def line_of(*arguments: object, fake: str | None = None) -> str:
    return shlex.join(command(*arguments, fake=fake))


def test_version_beside_other_arguments(run: Run) -> None:
    done = run("--version", "simulate")
    assert done.returncode == 0
    assert done.stdout.startswith(f"gradcli {gradcli.__version__}\nengine: ")


def test_result_goes_to_standard_output_and_nothing_else(run: Run) -> None:
    done = run("simulate", "lstm", fake="echo")
    assert done.returncode == 0
    assert done.stdout.startswith("STABLE   it is × fine\n\nname × kind  number\n")
    assert done.stderr == ""


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["simulat", "lstm"], "Did you mean 'simulate'"),
        (["simulate"], "Missing argument"),
        (["simulate", "lstm", "-T", "1e3"], "'-T' / '--seq-len'"),
        (
            ["simulate", "lstm", "--format", "jsn"],
            "no format is called 'jsn'; known: table, json, csv, markdown; did you",
        ),
        (["simulate", "lstm", "--save", "-"], "--save: arrays go to a file, and standard output carries the report"),
        (["simulate", "lstm", "--fail-on", "vanish"], "no verdict is called 'vanish'; known: stable, vanishing"),
        (["simulate", "lstm", "--fail-on", ","], "--fail-on: expected at least one of stable"),
        (["compare", "lstm", "rnn", "--match", "flops"], "--match"),
        (["simulate", "lstm", "--threads", "0"], "'--threads'"),
        (["compare", "lstm", "rnn", "--threads", "two"], "'--threads'"),
        (["simulate", "lstm", "--threads", "99999999999"], "'--threads'"),
        (["cells", "lstn"], "no built-in cell is called 'lstn'; did you mean 'lstm'?"),
    ],
)
def test_bad_usage_is_exit_code_2(run: Run, arguments: list[str], message: str) -> None:
    done = run(*arguments, fake="echo")
    assert done.returncode == 2
    assert done.stdout == ""
    assert message in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("clip", "message"),
    [
        ("nrom=1", "called 'nrom'; known: norm, value, step_norm, step_value; did you"),
        ("norm", "expected METHOD=THRESHOLD, such as norm=1; got 'norm'"),
        ("norm=one", "the threshold of norm must be a number; got 'one'"),
    ],
)
def test_what_is_no_clipping(run: Run, clip: str, message: str) -> None:
    done = run("simulate", "lstm", "--clip", clip)
    assert (done.returncode, done.stdout) == (2, "")
    assert message in done.stderr


@pytest.mark.parametrize("size", ["lots", "9" * 400, "2X", "-1G", "0", "nan", "1.2.3G", "1e9", "G", "", "٣G"])
def test_what_is_no_size(run: Run, size: str) -> None:
    done = run("simulate", "lstm", "--max-memory", size, fake="bug")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == (
        "error: --max-memory: expected a size such as 500M, 2G or 1.5GiB (K, M, G and T are powers of 1024); "
        f"got {size!r}\n"
    )


@pytest.mark.parametrize(
    ("mode", "code", "message"),
    [
        ("spec", 2, "a.yaml:1:2: bad\na.yaml:3:1: seq_len: must be[2J 1\n2 mistakes in a.yaml\n"),
        ("one-mistake", 2, "a.yaml:3:1: seq_len: must be at least 1\n1 mistake in a.yaml\n"),
        ("input", 4, "error: w.npz: not a zip file\n"),
        ("disk", 4, "error: somewhere: No space left on device\n"),
        ("resource", 5, "error: needs 42 GB\n"),
        ("memory", 5, "error: out of memory; a smaller seq_len, hidden_size, batch_size or trials needs less\n"),
        ("interrupt", 130, ""),
        (
            "bug",
            1,
            "internal error: ZeroDivisionError: boom[31m\n"
            "please report this, with what GRADCLI_DEBUG=1 in the environment adds to it\n",
        ),
    ],
)
def test_errors_are_one_message_and_an_exit_code(run: Run, mode: str, code: int, message: str) -> None:
    done = run("simulate", "lstm", fake=mode)
    assert (done.returncode, done.stdout, done.stderr) == (code, "", message)


def test_debugging_shows_the_traceback(run: Run) -> None:
    done = run("simulate", "lstm", fake="bug", env={"GRADCLI_DEBUG": "1"})
    assert done.returncode == 1
    assert "Traceback (most recent call last)" in done.stderr
    assert "fake_commands.py" in done.stderr


@needs_posix
def test_interrupt_from_outside(run: Run) -> None:
    done = run("simulate", "lstm", fake="interrupted")
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "")


@pytest.mark.parametrize(
    ("verdicts", "gate", "code", "message"),
    [
        ("vanishing", "vanishing", 3, "gate failed: cell0 is vanishing\n"),
        (
            "stable,exploding,dead",
            "dead, exploding",
            3,
            "gate failed: cell1 is exploding\ngate failed: cell2 is dead\n",
        ),
        ("stable", "vanishing,exploding", 0, ""),
        ("vanishing", None, 0, ""),
    ],
)
def test_gate(run: Run, verdicts: str, gate: str | None, code: int, message: str) -> None:
    done = run("compare", "a", "b", *([] if gate is None else ["--fail-on", gate]), "--quiet", fake=verdicts)
    assert (done.returncode, done.stderr) == (code, message)
    assert done.stdout.startswith("STABLE")


def test_options_arrive_by_the_names_of_the_spec(run: Run) -> None:
    done = run(
        *("compare", "lstm", "my.yaml", "-T", 50, "--hidden-size", 8, "--input-size", 4, "--batch-size", 2),
        *("--trials", 3, "--seed", 0, "--clip", "norm=1", "--clip", "step_value = 1e-2", "--match", "params"),
        *("--set", "init.b_f=1", "--set", "loss.at=every", "--format", "json"),
        fake="echo",
    )
    assert done.stderr == ""
    asked = json.loads(done.stdout)
    assert asked["specs"] == ["lstm", "my.yaml"]
    assert asked["set"] == ["init.b_f=1", "loss.at=every"]
    assert asked["match"] == "params"
    assert asked["clip"] == ["norm=1", "step_value = 1e-2"]
    sizes = {"seq_len": 50, "hidden_size": 8, "input_size": 4, "batch_size": 2, "trials": 3, "seed": 0}
    assert {name: asked[name] for name in sizes} == sizes


def test_options_not_given_are_left_to_the_spec(run: Run) -> None:
    asked = json.loads(run("simulate", "-", "--format", "json", fake="echo").stdout)
    assert asked == envelope("simulate") | {"spec": "-", "remedies": True}


@pytest.mark.parametrize(
    ("size", "asked"),
    [
        ("500M", 500 * 2**20),
        ("2G", 2**31),
        ("1.5GiB", 3 * 2**29),
        ("3tb", 3 * 2**40),
        (".5 KB", 512),
        ("4096", 4096),
        ("10B", 10),
        ("0.1K", 102),
    ],
)
@pytest.mark.parametrize("command", [("simulate", "a"), ("compare", "a", "b")], ids=["simulate", "compare"])
def test_limits_arrive_as_numbers(run: Run, command: tuple[str, ...], size: str, asked: int) -> None:
    found = json.loads(run(*command, "--max-memory", size, "--threads", 3, "--format", "json", fake="echo").stdout)
    assert (found["max_memory"], found["threads"]) == (asked, 3)


@needs_posix
@pytest.mark.parametrize("kind", ["table", "json", "csv", "markdown"])
def test_reader_that_leaves_early(tmp_path: Path, kind: str) -> None:
    line = line_of("simulate", "x", "--format", kind, "--fail-on", "stable", fake="big")
    done = shell(f"{line} | head -1; echo ${{PIPESTATUS[0]}}", tmp_path)
    assert done.stdout.splitlines()[-1] == "3"
    assert done.stderr == "gate failed: cell0 is stable\n"


@needs_posix
@pytest.mark.parametrize(
    ("arguments", "code"), [(["--help"], 0), (["simulate", "-h"], 0), ([], 0), (["simulat"], 2), (["cells", "lstn"], 2)]
)
def test_reader_of_a_help_text_that_leaves_early(tmp_path: Path, arguments: list[str], code: int) -> None:
    done = shell(f"{line_of(*arguments)} 2>&1 | exec 0<&-; echo ${{PIPESTATUS[0]}}", tmp_path)
    assert (done.stdout, done.stderr) == (f"{code}\n", "")


@needs_posix
@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full here")
@pytest.mark.parametrize("arguments", [["simulate", "x"], ["cells", "lstm"], ["schema"], ["--version"], ["--help"]])
def test_full_disk_is_one_line(tmp_path: Path, arguments: list[str]) -> None:
    done = shell(f"{line_of(*arguments, fake='echo')} > /dev/full", tmp_path)
    assert done.returncode == 4
    assert done.stderr.count("\n") == 1
    assert done.stderr.startswith("error: ")
    assert "No space left on device" in done.stderr


@needs_posix
def test_closed_standard_output(tmp_path: Path) -> None:
    done = shell(f"{line_of('simulate', 'x', fake='echo')} >&-", tmp_path)
    assert (done.returncode, done.stderr) == (4, "error: standard output is closed\n")


@needs_posix
def test_closed_standard_error_keeps_the_exit_code_and_standard_output_clean(tmp_path: Path) -> None:
    done = shell(f"{line_of('simulate', 'x', fake='resource')} 2>&-", tmp_path)
    assert (done.returncode, done.stdout) == (5, "")
    assert shell(f"{line_of('simulate', 'x', fake='resource')} 2>/dev/full", tmp_path).returncode == 5


def test_help_names_every_command(run: Run) -> None:
    for arguments in (["--help"], ["-h"], []):
        done = run(*arguments)
        assert "Examples" in done.stdout
        assert all(name in done.stdout for name in COMMANDS)


@pytest.mark.parametrize(
    "name", ["simulate", "compare", "jacobian", "paths", "contributions", "gates", "cells", "init", "schema"]
)
def test_every_command_and_option_has_help(run: Run, name: str) -> None:
    done = run(name, "-h", env={"COLUMNS": "200"})
    assert done.returncode == 0
    assert f"gradcli {name}" in done.stdout.split("Examples")[1]
    rows = [row for row in done.stdout.splitlines() if "│" in row and "--" in row]
    assert all(len(row.strip("│ ").split("  ")[-1].split()) >= 2 for row in rows)
