"""What the output looks like on a terminal, in a pipe, and where the encoding is poor."""

from __future__ import annotations

import os
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


@pytest.mark.parametrize("env", [{}, {"GITHUB_ACTIONS": "true"}, {"FORCE_COLOR": "1"}, {"COLUMNS": "20"}])
@pytest.mark.parametrize("kind", ["table", "json", "csv", "markdown"])
def test_pipe_gets_no_escape_codes_and_whole_lines(run: Run, kind: str, env: dict[str, str]) -> None:
    done = run("simulate", "x", "--format", kind, fake="echo", env=env)
    assert done.returncode == 0
    assert "\x1b" not in done.stdout + done.stderr
    assert done.stdout == run("simulate", "x", "--format", kind, fake="echo").stdout


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
