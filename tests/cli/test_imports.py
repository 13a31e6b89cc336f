"""What a command loads, and what it does without: the modules in memory when it has ended."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import pytest
from processes import environment

import gradcli

#: What a simulation in a pipe loads of gradcli, its engine aside. A module more is a millisecond more for every run.
OF_A_SIMULATION = {
    "__main__": "",
    "cells": "",
    "cli": "delivery github_actions interrupt line options output parameters progress",
    "commands": "arguments arrays cells check command compare completions contributions examples gates init inspect "
    "jacobian loading options paths report saving schema simulate",
    "diagnostics": "clipping curve curve_fit curve_landmarks direct_routes float32 forecast mean_field measure "
    "nonfinite predictions remedies remedy_code remedy_table rounding shares verdict verdict_words",
    "errors": "",
    "formats": "table text",
    "frozen": "",
    "language": "across callables cell derivative direct functions graph habits lower matrices parser ranks shapes "
    "sized sizes surrogates syntax",
    "numbers": "",
    "output_files": "",
    "prepare": "build data garbage lengths limits names parameters resources sizing threads trained",
    "results": "clipping clipping_rows curves declared directions envelope float32 model norm_curve remedies result "
    "run saved_arrays simulate suites",
    "sources": "arrays axes csv_table cuts exact_values files initial_states initialisers input_source inputs "
    "output_gradients recorded standardisation streams target_files targets texts",
    "spec": "base checked constants defaults edits examples expectations explain files given initialisers inputs "
    "losses models overrides positions reader shown trained value_readers verdict_kinds yaml12 yaml_syntax",
    "weights": "checkpoint choice formats layers layouts layouts.gates name_map",
}
#: Modules of the standard library that take long, and that NumPy or YAML do not load anyway.
SLOW_STANDARD_LIBRARY = {
    *("asyncio", "csv", "decimal", "difflib", "email", "fractions", "gettext", "importlib.metadata"),
    *("importlib.resources", "json", "logging", "shutil", "socket", "statistics", "subprocess", "tempfile", "zipfile"),
}

HEAVY = {"numpy", "pydantic", "rich", "threadpoolctl", "typer", "yaml"}

PROGRAM = """
import builtins, re, sys
from collections import Counter
built, compiled = Counter(), []
build, compile_pattern = builtins.__build_class__, re._compiler.compile
def counted(function, *given, **named):
    built[function.__module__.split(".")[0]] += 1
    return build(function, *given, **named)
def noted(pattern, flags=0):
    compiled.append(str(pattern))
    return compile_pattern(pattern, flags)
builtins.__build_class__, re._compiler.compile = counted, noted
sys.argv[0] = "gradcli"
from gradcli.__main__ import main
code = main()
modules = sorted(sys.modules)
import json
print(json.dumps([code, modules, built, compiled]), file=sys.stderr)
"""


class Loaded(NamedTuple):
    """What a command printed, and what it took: modules, classes built by the package that they are of, patterns."""

    stdout: str
    modules: set[str]
    classes: Mapping[str, int]
    patterns: list[str]


def after(cwd: Path, *arguments: object) -> tuple[str, set[str]]:
    """Return standard output of a command that succeeds, and the modules that it has loaded."""
    found = loaded(cwd, *arguments)
    return found.stdout, found.modules


def loaded(cwd: Path, *arguments: object) -> Loaded:
    """Return what a command that succeeds prints and takes."""
    command = [sys.executable, "-c", PROGRAM, *map(str, arguments)]
    done = subprocess.run(command, env=environment(), cwd=cwd, capture_output=True, encoding="utf-8", check=True)
    code, modules, classes, patterns = json.loads(done.stderr.splitlines()[-1])
    assert code == 0, done
    return Loaded(done.stdout, set(modules), classes, patterns)


def test_the_version_loads_nothing_slow(tmp_path: Path) -> None:
    stdout, modules = after(tmp_path, "--version")
    assert stdout.startswith(f"gradcli {gradcli.__version__}\nengine: ")
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
    assert "threadpoolctl" in after(tmp_path, *small, "--threads", 2)[1]


def test_a_simulation_loads_what_it_needs_and_nothing_else(tmp_path: Path) -> None:
    (tmp_path / "small.yaml").write_text("cell: lstm\nhidden_size: 8\nbatch_size: 1\ntrials: 1\n")
    _, modules = after(tmp_path, "simulate", "small.yaml", "-T", 20)
    ours = {name for name in modules if name.startswith("gradcli.") and not name.startswith("gradcli.engine")}
    expected = {
        f"gradcli.{package}{'.' if module else ''}{module}"
        for package, listed in OF_A_SIMULATION.items()
        for module in ("", *listed.split())
    }
    assert sorted(ours - expected) == []
    assert sorted(expected - ours) == []
    others = {name.split(".")[0] for name in modules} - {"gradcli", "numpy", "yaml"} - sys.stdlib_module_names
    # Those of editable installations, and of Cython, in which parts of NumPy and YAML are written.
    assert {name for name in others if not name.startswith(("__", "_cython", "_yaml", "cython", "_distutils"))} == set()
    assert modules & SLOW_STANDARD_LIBRARY == set()


def test_a_simulation_builds_few_classes_and_patterns(tmp_path: Path) -> None:
    """A class is 10 microseconds where nothing is compiled for it, a pattern 300.

    Of 356 classes of our own 96 are of the spec, one for each block, 92 of the engine, and 39 of results. NumPy has
    100, YAML 90, the standard library 190. With pydantic and Typer there were 500 more; and 40 patterns more than 63,
    of which our own are those that the spec goes through.
    """
    found = loaded(tmp_path, "simulate", "lstm", "-T", 20)
    assert found.classes["gradcli"] <= 365
    assert sum(found.classes.values()) <= 800
    assert len(found.patterns) <= 75
