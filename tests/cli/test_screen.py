"""What the output looks like on a terminal, in a pipe, and where the encoding is poor."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from processes import Run, command, environment

needs_pty = pytest.mark.skipif(sys.platform == "win32", reason="no pseudo-terminals here")


def on_a_terminal(cwd: Path, *arguments: object, **env: str) -> str:
    """Return what gradcli writes to a terminal."""
    ours, theirs = os.openpty()
    with subprocess.Popen(
        command(*arguments, fake="echo"), env=environment(**env), cwd=cwd, stdout=theirs, stderr=subprocess.PIPE
    ) as process:
        os.close(theirs)
        chunks = []
        try:
            while chunk := os.read(ours, 4096):
                chunks.append(chunk)
        except OSError:  # Linux reports the end of a terminal so
            pass
        assert process.wait(20) == 0
    os.close(ours)
    return b"".join(chunks).decode().replace("\r\n", "\n")


@needs_pty
def test_terminal_gets_color_and_its_width(tmp_path: Path) -> None:
    text = on_a_terminal(tmp_path, "simulate", "x", COLUMNS="80")
    assert "\x1b[32mSTABLE\x1b[0m   it is × fine\n" in text
    assert "number" in text
    narrow = on_a_terminal(tmp_path, "simulate", "x", COLUMNS="20")
    assert "STABLE\x1b[0m\n  it is × fine\n" in narrow


@needs_pty
@pytest.mark.parametrize("env", [{"NO_COLOR": "1"}, {"TERM": "dumb"}])
def test_terminal_without_color(tmp_path: Path, env: dict[str, str]) -> None:
    assert "\x1b" not in on_a_terminal(tmp_path, "simulate", "x", COLUMNS="80", **env)


@needs_pty
def test_file_written_from_a_terminal_has_no_color(tmp_path: Path) -> None:
    on_a_terminal(tmp_path, "simulate", "x", "-o", "out.txt", COLUMNS="20")
    text = (tmp_path / "out.txt").read_text(encoding="utf-8")
    assert "\x1b" not in text
    assert "name × kind  number\n" in text


@pytest.mark.parametrize("env", [{}, {"GITHUB_ACTIONS": "true"}, {"FORCE_COLOR": ""}, {"COLUMNS": "20"}])
@pytest.mark.parametrize("kind", ["table", "json", "csv", "markdown"])
def test_pipe_gets_no_escape_codes_and_whole_lines(run: Run, kind: str, env: dict[str, str]) -> None:
    done = run("simulate", "x", "--format", kind, fake="echo", env=env)
    assert done.returncode == 0
    assert "\x1b" not in done.stdout + done.stderr
    assert done.stdout == run("simulate", "x", "--format", kind, fake="echo").stdout


def test_color_can_be_forced_on_a_pipe_in_tables_alone(run: Run, tmp_path: Path) -> None:
    plain = run("simulate", "x", fake="echo").stdout
    forced = run("simulate", "x", fake="echo", env={"FORCE_COLOR": "1"}).stdout
    assert "\x1b[32mSTABLE\x1b[0m   it is × fine\n" in forced
    assert re.sub("\x1b\\[[0-9;]*m", "", forced) == plain
    for kind in ("json", "csv", "markdown"):
        assert "\x1b" not in run("simulate", "x", "--format", kind, fake="echo", env={"FORCE_COLOR": "1"}).stdout
    run("simulate", "x", "-o", "out.txt", fake="echo", env={"FORCE_COLOR": "1"})
    assert (tmp_path / "out.txt").read_text(encoding="utf-8") == plain


@pytest.mark.parametrize("arguments", [["simulate", "x"], ["--help"], ["simulat"]])
def test_no_color_wins(run: Run, arguments: list[str]) -> None:
    done = run(*arguments, fake="echo", env={"FORCE_COLOR": "1", "NO_COLOR": "1"})
    assert "\x1b" not in done.stdout + done.stderr


@pytest.mark.parametrize(
    "arguments", [["--help"], ["simulate", "-h"], ["simulat"], ["simulate", "x", "--seq-len", "x"]]
)
def test_color_of_help_and_usage_errors(run: Run, arguments: list[str]) -> None:
    def shown(**env: str) -> str:
        done = run(*arguments, fake="echo", env=env)
        return done.stdout + done.stderr

    for env in ({}, {"GITHUB_ACTIONS": "true"}, {"PY_COLORS": "1"}, {"TERM": "dumb"}, {"FORCE_COLOR": ""}):
        assert "\x1b" not in shown(**env), env
    forced = shown(FORCE_COLOR="1")
    assert "\x1b[" in forced
    assert re.sub("\x1b\\[[0-9;]*m", "", forced) == shown()


@needs_pty
@pytest.mark.parametrize("arguments", [["--help"], ["simulate", "-h"], ["simulate", "x"]])
def test_columns_are_obeyed(tmp_path: Path, arguments: list[str]) -> None:
    shown = re.sub("\x1b\\[[0-9;]*m", "", on_a_terminal(tmp_path, *arguments, COLUMNS="60"))
    assert max(map(len, shown.splitlines())) <= 60


@pytest.mark.parametrize(
    "env",
    [
        {"TERMINAL_WIDTH": "x"},
        {"TERMINAL_WIDTH": "-3"},
        {"TERMINAL_WIDTH": "99999999"},
        {"COLUMNS": "99999999"},
        {"COLUMNS": "9" * 5000},
        {"COLUMNS": "wide"},
        {"COLUMNS": "0"},
        {"COLUMNS": "-1"},
        {"COLUMNS": "1", "TERMINAL_WIDTH": ""},
    ],
)
@pytest.mark.parametrize("arguments", [["--help"], ["simulat"]])
def test_a_width_that_no_screen_has_does_no_harm(run: Run, arguments: list[str], env: dict[str, str]) -> None:
    done = run(*arguments, env=env)
    assert done.returncode == (0 if arguments == ["--help"] else 2)
    assert "internal error" not in done.stderr
    assert len(done.stdout + done.stderr) < 100_000


@needs_pty
def test_a_terminal_of_a_width_that_no_screen_has(tmp_path: Path) -> None:
    assert len(on_a_terminal(tmp_path, "simulate", "x", COLUMNS="99999999")) < 100_000


@pytest.mark.parametrize("kind", ["table", "json", "csv", "markdown"])
@pytest.mark.parametrize(
    "env", [{"PYTHONIOENCODING": "ascii"}, {"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"}]
)
def test_ascii_is_enough(run: Run, kind: str, env: dict[str, str]) -> None:
    done = run("simulate", "x", "--format", kind, fake="echo", env=env)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.isascii()
    if kind == "table":
        assert done.stdout.startswith("STABLE   it is x fine\n")


@pytest.mark.parametrize("arguments", [["--help"], ["simulate", "-h"], ["simulat"]])
def test_help_and_usage_errors_in_ascii(run: Run, arguments: list[str]) -> None:
    done = run(*arguments, env={"PYTHONIOENCODING": "ascii"})
    assert done.returncode in (0, 2)
    assert (done.stdout + done.stderr).isascii()
    assert "Traceback" not in done.stderr
