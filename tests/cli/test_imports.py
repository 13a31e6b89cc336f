"""What a command loads, and what it does without: the modules in memory when it has ended."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from processes import environment

import gradcli

HEAVY = {"numpy", "pydantic", "rich", "threadpoolctl", "typer", "yaml"}

PROGRAM = """
import json, sys
sys.argv[0] = "gradcli"
from gradcli.__main__ import main
code = main()
print(json.dumps([code, sorted(sys.modules)]), file=sys.stderr)
"""


def after(cwd: Path, *arguments: object) -> tuple[str, set[str]]:
    """Return standard output of a command that succeeds, and the modules that it has loaded."""
    command = [sys.executable, "-c", PROGRAM, *map(str, arguments)]
    done = subprocess.run(command, env=environment(), cwd=cwd, capture_output=True, encoding="utf-8", check=True)
    code, modules = json.loads(done.stderr.splitlines()[-1])
    assert code == 0, done
    return done.stdout, set(modules)


def test_the_version_loads_nothing_slow(tmp_path: Path) -> None:
    stdout, modules = after(tmp_path, "--version")
    assert stdout == f"gradcli {gradcli.__version__}\n"
    assert modules & HEAVY == set()
    assert "gradcli.cli" not in modules


@pytest.mark.parametrize("kind", ["json", "csv", "markdown", "table"])
def test_a_result_in_a_pipe_is_written_without_rich(tmp_path: Path, kind: str) -> None:
    stdout, modules = after(tmp_path, "simulate", "lstm", "-T", 20, "--format", kind)
    assert stdout
    assert modules & HEAVY == {"numpy", "yaml"}
    formats = {name for name in modules if name.startswith("gradcli.formats.")}
    assert formats <= {"gradcli.formats.text", f"gradcli.formats.{kind}"} | (
        {"gradcli.formats.table"} if kind == "markdown" else set()
    )


@pytest.mark.parametrize("arguments", [("schema",), ("init", "lstm"), ("cells", "lstm"), ("cells",)])
def test_what_computes_nothing_loads_no_engine(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    _, modules = after(tmp_path, *arguments)
    assert "rich" not in modules
    assert not any(
        name.startswith(("gradcli.engine", "gradcli.prepare.build", "gradcli.diagnostics.m")) for name in modules
    )


def test_help_loads_no_numerics(tmp_path: Path) -> None:
    _, modules = after(tmp_path, "simulate", "--help")
    assert modules & {"numpy", "yaml", "gradcli.spec.models", "gradcli.commands.loading"} == set()


def test_threads_are_counted_only_where_there_may_be_several(tmp_path: Path) -> None:
    small = ("simulate", "rnn", "-T", 2, "--format", "csv")
    assert "threadpoolctl" not in after(tmp_path, *small)[1]
    assert "threadpoolctl" in after(tmp_path, *small, "--threads", 1)[1]
