"""docs/cost.md: its counts are those of the compiled loops, its formula is near what benchmarks/RESULTS.md measured."""

from __future__ import annotations

import math
import re

import numpy as np
import pytest
from doc_snippets import ROOT
from measured import loaded

from gradcli.engine.numpy_loops import NumpyProgram
from gradcli.engine.run import Engine
from gradcli.engine.step.backward import Choices
from gradcli.engine.step.instructions import Instructions
from gradcli.prepare.build import build

PAGE = (ROOT / "docs" / "cost.md").read_text(encoding="utf-8")
RESULTS = (ROOT / "benchmarks" / "RESULTS.md").read_text(encoding="utf-8")
INPUT_SIZE = 32


def rows(text: str, pattern: str) -> list[tuple[str, ...]]:
    """Return what the groups of a pattern find in the rows of the page's tables."""
    return re.findall(rf"^\| {pattern} \|$", text, flags=re.MULTILINE)


COUNTS = {cell: (int(n), int(p), int(e)) for cell, n, p, e in rows(PAGE, r"`([\w-]+)` \| (\d+) \| (\d+) \| (\d+)")}
TIMES = rows(PAGE, r"(\w+ [\d,]+) \| ([\d,.]+) ms \| ([\d,.]+) ms")


def calls_of(program: NumpyProgram) -> int:
    """Return how many functions a program calls."""
    return sum("(" in line for line in program.source.splitlines()[1:] if "zip" not in line)


def numbers_of(instructions: Instructions) -> int:
    """Return how many numbers elementwise instructions compute for a step; a sigmoid computes them several times."""
    times = {"sigmoid": 4, "sigmoid_of_negated": 3, "product": 0}
    return sum(times.get(i.op, 1) * math.prod(i.out.shape) for i in instructions)


@pytest.mark.parametrize("cell", COUNTS)
def test_the_counts_are_those_of_the_compiled_loops(cell: str) -> None:
    hidden_size, steps = 8, 10
    sizes = {"hidden_size": hidden_size, "batch_size": 1, "trials": 1, "seq_len": steps, "loss": {"kind": "sum"}}
    engine = Engine(build(loaded(cell, **sizes)).problem)
    engine.run(parameters=False)
    group = engine._group(0)
    (layer,), (backward,) = group.layers, group.passes(parameters=False, clipped=False)
    assert isinstance(layer.loop, NumpyProgram)
    calls = calls_of(layer.loop) + calls_of(backward.step)
    way_back = layer.plan.backward(Choices(layer.plan.prefilled))
    numbers = sum(map(numbers_of, (layer.plan.forward, way_back.step, way_back.coefficients)))
    stacks = layer.plan.layout.stacks
    products = sum(s.rows * layer.plan.size(s.group.vector) for s in stacks) // hidden_size**2
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
