"""docs/cost.md: its counts are those of the compiled loops, its formula is near what benchmarks/RESULTS.md measured."""

from __future__ import annotations

import math
import re
from typing import Any

import numpy as np
import pytest
from doc_snippets import ROOT
from measured import loaded

from gradcli.engine.loop import Loop
from gradcli.engine.run import Engine
from gradcli.prepare.build import build

PAGE = (ROOT / "docs" / "cost.md").read_text(encoding="utf-8")
RESULTS = (ROOT / "benchmarks" / "RESULTS.md").read_text(encoding="utf-8")
INPUT_SIZE = 32


def rows(text: str, pattern: str) -> list[tuple[str, ...]]:
    """Return what the groups of a pattern find in the rows of the page's tables."""
    return re.findall(rf"^\| {pattern} \|$", text, flags=re.MULTILINE)


COUNTS = {cell: (int(n), int(p), int(e)) for cell, n, p, e in rows(PAGE, r"`([\w-]+)` \| (\d+) \| (\d+) \| (\d+)")}
TIMES = rows(PAGE, r"(\w+ [\d,]+) \| ([\d,.]+) ms \| ([\d,.]+) ms")


def calls_of(loop: Loop) -> list[tuple[str, str]]:
    """Return for every call of a program the function, and the variable that it writes to."""
    found = []
    for line in loop.source.splitlines():
        call = re.fullmatch(r"\s+([\w.]+)\((.+)\)", line)
        if call and call[1] != "zip":
            arguments = call[2].removesuffix(":").split(", ")
            out = arguments[0] if call[1] == "copyto" else arguments[-1]
            found.append((call[1], out.removeprefix("out=")))
    return found


def variables(loop: Loop, size_of_column: Any) -> dict[str, int]:
    """Return how many numbers each variable of a program holds for one step."""
    columns = re.search(r"\[(v[^\]]*)\] (?:in|=)", loop.source)
    fixed = re.search(r"\[(p[^\]]*)\] = fixed", loop.source)
    sizes = dict(zip(columns[1].split(", ") if columns else [], map(size_of_column, loop.columns), strict=True))
    for name, key in zip(fixed[1].split(", ") if fixed else [], loop.fixed, strict=True):
        if key[0] == "scratch":
            sizes[name] = key[3][1] - key[3][0] if len(key) > 3 else key[2]
    return sizes


@pytest.mark.parametrize("cell", COUNTS)
def test_the_counts_are_those_of_the_compiled_loops(cell: str) -> None:
    hidden_size, steps = 8, 10
    sizes = {"hidden_size": hidden_size, "batch_size": 1, "trials": 1, "seq_len": steps, "loss": {"kind": "sum"}}
    engine = Engine(build(loaded(cell, **sizes)).problem)
    engine.run(parameters=False)
    group = engine._group(0)
    (layer,), (backward,) = group.layers, group.passes(parameters=False, clipped=False)
    programs = (
        (layer.forward_code.loop, lambda key: layer._column(key)[0].size),
        (backward.code, lambda key: backward._column(key, steps)[0].size),
        (backward._program, lambda key: backward._block_array(key, 0, steps).size // steps),
    )
    calls = sum(len(calls_of(loop)) for loop, _ in programs[:2])
    numbers = 0
    for loop, size_of_column in programs:
        held = variables(loop, size_of_column)
        numbers += sum(held[out] for function, out in calls_of(loop) if not function.endswith("dot"))
    plan = layer.plan
    products = sum(g.rows * plan.size(g.vector) for g in plan.groups) // hidden_size**2
    assert (calls, products, numbers // hidden_size) == COUNTS[cell]


def formula(case: str) -> float:
    """Return the page's time for a case in milliseconds."""
    cell, sizes = case.split()
    batch, hidden, steps = map(int, sizes.split(","))
    n, p, e = COUNTS[cell]
    tau = 0.11 if batch == 1 else 0.05
    multiplications = 2 * p * hidden**2 + p * hidden * INPUT_SIZE
    nanoseconds = 360 * n + batch * multiplications * tau + batch * hidden * e * 0.5
    return 0.2 + steps * nanoseconds * 1e-6


def milliseconds(text: str) -> float:
    return float(text.replace(",", ""))


def test_the_formula_is_the_one_that_the_page_states() -> None:
    assert "time = 0.2 ms + T (0.36 µs n  +  B (2 p H² + p H I) τ  +  B H e ε)" in PAGE
    for constant in ("τ = 0.11 ns", "0.05 ns with 16", "ε = 0.5 ns"):
        assert constant in PAGE


def measured(case: str) -> float:
    """Return the median of what the benchmarks found for a case against each of its peers, in milliseconds."""
    against_peers = re.split(r"^## Against PyTorch.*float64$", RESULTS, flags=re.MULTILINE)[1].split("\n## ")[0]
    found = re.findall(rf"^\| {case}: norms \|[^|]*\| ([\d,.]+) ms \|", against_peers, flags=re.MULTILINE)
    return float(np.median([milliseconds(text) for text in found]))


@pytest.mark.parametrize(("case", "stated", "found"), TIMES)
def test_the_times_are_those_of_the_formula_and_of_the_benchmarks(case: str, stated: str, found: str) -> None:
    assert math.isclose(milliseconds(stated), formula(case), rel_tol=0.01)
    assert math.isclose(milliseconds(found), measured(case), rel_tol=0.01)
    assert 1 / 1.4 < milliseconds(stated) / milliseconds(found) < 1.4


def test_the_page_compares_at_small_and_large_sizes() -> None:
    assert len(TIMES) >= 6
