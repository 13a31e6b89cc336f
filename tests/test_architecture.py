"""Imports go one way, and the few things that must stay in one place do."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from functools import cache
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "gradcli"

# A package may import from itself and from anything to its right. Packages in one group may not import each other.
ORDER: tuple[tuple[str, ...], ...] = (
    ("__main__",),
    ("cli",),
    ("commands",),
    ("formats",),
    ("results",),
    ("diagnostics",),
    ("prepare",),
    ("engine", "sources", "weights"),
    ("output_files",),
    ("language", "spec", "cells"),
    ("errors", "numbers", "__init__"),
    ("frozen",),
)
# The spec reader looks built-in cells up, and cells are read by the same YAML reader as specs; the names of elementwise
# functions are the language's.
ALLOWED = {("spec", "cells"), ("cells", "spec")}
# In Python a result writes itself, in the format that it is asked for.
WRITES_ITSELF = PACKAGE / "results" / "result.py"
# What Python finds in gradcli is looked up late; its version is everybody's.
DOOR = PACKAGE / "__init__.py"
LATE = {(WRITES_ITSELF, "formats"), (DOOR, "commands"), (DOOR, "errors")}
RANK = {package: rank for rank, group in enumerate(ORDER) for package in group}

MODULES = sorted(PACKAGE.rglob("*.py"))


def _package(path: Path) -> str:
    relative = path.relative_to(PACKAGE)
    return relative.parts[0] if len(relative.parts) > 1 else relative.stem


@cache
def _imports(path: Path) -> tuple[tuple[int, str], ...]:
    return tuple(_imports_of(ast.parse(path.read_text())))


def _imports_of(module: ast.Module) -> Iterator[tuple[int, str]]:
    for node in ast.walk(module):
        if isinstance(node, ast.ImportFrom) and node.module:
            names = [node.module]
            if node.module == "gradcli":
                names = [f"gradcli.{alias.name}" for alias in node.names]
            yield from ((node.lineno, name) for name in names)
        elif isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_go_one_way(path: Path) -> None:
    own = _package(path)
    for line, name in _imports(path):
        if name.startswith("gradcli."):
            other = name.split(".")[1]
            other = other if other in RANK else "__init__"
            if other == own or (own, other) in ALLOWED or (path, other) in LATE:
                continue
            assert RANK[own] < RANK[other], f"{path}:{line}: {own} must not import {other}"


def test_no_modules_of_the_engine_import_each_other_in_a_circle() -> None:
    graph: dict[str, set[str]] = {}
    for path in (PACKAGE / "engine").rglob("*.py"):
        own = ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts)
        found = graph.setdefault(own, set())
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and node.module:
                names = [f"{node.module}.{alias.name}" for alias in node.names]
                is_module = [(PACKAGE.parent / Path(*name.split("."))).with_suffix(".py").exists() for name in names]
                found |= {name if module else node.module for name, module in zip(names, is_module, strict=True)}
    TopologicalSorter(graph).prepare()  # raises CycleError, with the circle


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_screens_and_options_stay_in_their_packages(path: Path) -> None:
    for line, name in _imports(path):
        if name.split(".")[0] in ("typer", "rich", "click"):
            assert _package(path) in ("cli", "formats"), f"{path}:{line}: {name}"


def test_only_the_compiled_loops_are_executed() -> None:
    found = set()
    for path in MODULES:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in ("exec", "eval"):
                found.add(str(path.relative_to(PACKAGE)))
    assert found == {"engine/numpy_loops.py"}


def test_the_loops_hold_nothing_of_the_spec() -> None:
    """Names, numbers and functions of a cell are bound as objects; none of its text is in the source that is run."""
    import numpy as np

    from gradcli.engine.arrays import Arrays
    from gradcli.engine.numpy_loops import NumpyProgram
    from gradcli.engine.step.backward import Choices
    from gradcli.engine.step.instructions import buffers_of
    from gradcli.engine.step.plan import LayerPlan
    from gradcli.language.cell import parse_cell

    cell = parse_cell(
        "sneaky_gate = sigmoid(W_odd @ x[t] + 0.123 * W_even @ memory[t-1])\n"
        "memory[t] = sneaky_gate * memory[t-1] ** 2 + tanh(U_odd @ memory[t-2])"
    )
    plan = LayerPlan(cell.at_sizes(4, 3))
    way_back = plan.backward(Choices(plan.prefilled))
    for instructions in (plan.forward, way_back.step, way_back.coefficients):
        arrays = Arrays(1, 2, np.dtype(np.float64))
        arrays.allocate(buffers_of(instructions), segment=3, block=3)
        source = NumpyProgram(instructions, arrays, whole=instructions is way_back.coefficients).source
        assert source.startswith("def run(columns, fixed):")
        for text in ("sneaky", "memory", "odd", "even", "0.123", "import", "__"):
            assert text not in source


def test_every_module_says_what_it_is_for() -> None:
    silent = [
        str(p.relative_to(PACKAGE))
        for p in MODULES
        if p.stat().st_size and not ast.get_docstring(ast.parse(p.read_text()))
    ]
    assert silent == []
