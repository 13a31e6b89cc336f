"""docs/cost.md: its counts are those of the programs, its formula is near what benchmarks/RESULTS.md measured."""

from __future__ import annotations

import math
import re

import pytest
from benchmarks_path import ROOT  # before benchmarks
from measured import loaded

from benchmarks import cost_page
from benchmarks.cases import Case
from benchmarks.cost_page import NOT_MEASURED, Constants, Counts
from benchmarks.engines import COMPILED, NUMPY, TITLES, VARIABLE
from gradcli.engine.numpy_loops import NumpyProgram
from gradcli.engine.run import Engine
from gradcli.engine.step.backward import Choices
from gradcli.engine.step.instructions import Instructions
from gradcli.prepare.build import build

PAGE = (ROOT / "docs" / "cost.md").read_text(encoding="utf-8")
RESULTS = (ROOT / "benchmarks" / "RESULTS.md").read_text(encoding="utf-8")
INPUT_SIZE = 32


COUNTS = cost_page.counts_of(PAGE)
#: By engine: t0, kappa, tau for fewer sequences, tau for 16 and more, epsilon, as they are written.
CONSTANTS = {
    engine: re.findall(r"(?<=\| )[^|]*(?= \|)", row)
    for engine in (COMPILED, NUMPY)
    for row in re.findall(rf"^\| {TITLES[engine]} (\|.*)$", PAGE, flags=re.MULTILINE)
}
_VALUE = rf"([\d,.]+ ms|{NOT_MEASURED})"
TIMES = [
    (case, engine, *pair)
    for case, *found in re.findall(r"^\| (\w+ [\d,]+)" + rf" \| {_VALUE}" * 4 + r" \|$", PAGE, flags=re.MULTILINE)
    for engine, pair in ((COMPILED, found[:2]), (NUMPY, found[2:]))
]
MEASURED = cost_page.measured(RESULTS)


def calls_of(program: NumpyProgram) -> int:
    """Return how many functions a program calls."""
    return sum("(" in line for line in program.source.splitlines()[1:] if "zip" not in line)


def numbers_of(instructions: Instructions) -> int:
    """Return how many numbers elementwise instructions compute for a step; a sigmoid computes them several times."""
    times = {"sigmoid": 4, "sigmoid_of_negated": 3, "product": 0}
    return sum(times.get(i.op, 1) * math.prod(i.out.shape) for i in instructions)


@pytest.mark.parametrize("cell", COUNTS)
def test_the_counts_are_those_of_the_programs(cell: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, NUMPY)  # its programs can be read
    hidden_size, steps = 8, 10
    sizes = {"hidden_size": hidden_size, "batch_size": 1, "trials": 1, "seq_len": steps, "loss": {"kind": "sum"}}
    engine = Engine(build(loaded(cell, **sizes)).problem)
    engine.run(parameters=False)
    group = engine._group(0)
    (layer,), (backward,) = group.layers, group.passes(parameters=False)
    assert isinstance(layer.loop, NumpyProgram)
    assert isinstance(backward.step, NumpyProgram)
    calls = calls_of(layer.loop) + calls_of(backward.step)
    way_back = layer.plan.backward(Choices(layer.plan.prefilled))
    numbers = sum(map(numbers_of, (layer.plan.forward, way_back.step, way_back.coefficients)))
    stacks = layer.plan.layout.stacks
    products = sum(s.rows * layer.plan.size(s.group.vector) for s in stacks) // hidden_size**2
    assert Counts(calls, products, numbers // hidden_size) == COUNTS[cell]


def formula(case: str, engine: str) -> float:
    """Return the page's time for a case in milliseconds."""
    cell, sizes = case.split()
    batch, hidden, steps = map(int, sizes.split(","))
    counts = COUNTS[cell]
    run, call, tau_of_few, tau_of_many, number = (float(text.split()[0]) for text in CONSTANTS[engine])
    tau = tau_of_many if batch >= 16 else tau_of_few
    multiplications = 2 * counts.p * hidden**2 + counts.p * hidden * INPUT_SIZE
    nanoseconds = 1000 * call * counts.n + batch * multiplications * tau + batch * hidden * counts.e * number
    return run + steps * nanoseconds * 1e-6


def milliseconds(text: str) -> float:
    return float(text.removesuffix(" ms").replace(",", ""))


def test_the_formula_is_the_one_that_the_page_states() -> None:
    assert "time = t₀ + T (κ n  +  B (2 p H² + p H I) τ  +  B H e ε)" in PAGE
    units = ["ms", "µs", "ns", "ns", "ns"]
    for engine in (COMPILED, NUMPY):
        if MEASURED[engine]:
            assert [text.split()[1] for text in CONSTANTS[engine]] == units
        else:
            assert CONSTANTS[engine] == [NOT_MEASURED] * 5


@pytest.mark.parametrize(("case", "engine", "stated", "found"), TIMES)
def test_the_times_are_those_of_the_formula_and_of_the_benchmarks(
    case: str, engine: str, stated: str, found: str
) -> None:
    if case not in MEASURED[engine]:
        assert (stated, found) == (NOT_MEASURED, NOT_MEASURED)
        return
    assert math.isclose(milliseconds(stated), formula(case, engine), rel_tol=0.01)
    assert math.isclose(milliseconds(found), MEASURED[engine][case], rel_tol=0.01)
    assert 1 / 1.4 < milliseconds(stated) / milliseconds(found) < 1.4


def test_the_page_compares_at_small_and_large_sizes() -> None:
    assert len(TIMES) >= 12
    assert sum(case in MEASURED[NUMPY] for case, engine, *_ in TIMES if engine == NUMPY) >= 6


_SECTION = "## Against PyTorch, JAX and the matrix products alone, float64"
_ROWS = f"""\
## Where the time goes

| ours | compiled, median |
| --- | --- |
| lstm 1,32,100: norms | 9.00 ms |

{_SECTION}

| ours | against | compiled, median | NumPy, median | theirs, median |
| --- | --- | --- | --- | --- |
| lstm 1,32,100: log10 norms, largest difference | the NumPy engine | 1.0e-13 |  |  |
| lstm 1,32,100: norms | the NumPy engine | 0.400 ms |  | 1.00 ms |
| lstm 1,32,100: norms and parameter gradients | torch | 9.00 ms | 9.00 ms | 7.00 ms |
| lstm 1,32,100: norms | torch | 0.500 ms | 1.00 ms | 7.00 ms |
| lstm 1,32,100: norms | JAX | 0.600 ms | 2.00 ms | 7.00 ms |
| lstm 32,256,1000: norms | JAX |  | 1,100 ms | 7.00 ms |

## Against PyTorch, JAX and the matrix products alone, float32

| ours | compiled, median |
| --- | --- |
| rnn 1,32,100: norms | 9.00 ms |
"""


def test_what_was_measured_is_read_by_engine() -> None:
    assert cost_page.measured(_ROWS) == {
        COMPILED: {"lstm 1,32,100": 0.5},
        NUMPY: {"lstm 1,32,100": 1.5, "lstm 32,256,1000": 1100.0},
    }
    of_0_1_0 = f"{_SECTION}\n\n| ours | ours, median |\n| --- | --- |\n| lstm 1,2,3: norms | 3.00 ms |\n"
    assert cost_page.measured(of_0_1_0) == {COMPILED: {}, NUMPY: {"lstm 1,2,3": 3.0}}


SIZES = [
    *(Case(cell, 1, hidden, steps) for cell in ("rnn", "gru", "lstm") for hidden, steps in ((32, 100), (64, 1000))),
    Case("lstm", 32, 128, 200),
    Case("lstm", 32, 256, 1000),
]


def test_the_constants_that_explain_the_times_are_found() -> None:
    right = Constants(run=0.2, call=0.04, product=0.06, product_of_many=0.05, number=0.5)
    times = {case.label: right.milliseconds(case, COUNTS[case.cell]) for case in SIZES}
    assert cost_page.fitted(times, COUNTS, SIZES) == right
    without_calls = Constants(run=0.2, call=0.0, product=0.06, product_of_many=0.05, number=0.5)
    times = {case.label: without_calls.milliseconds(case, COUNTS[case.cell]) for case in SIZES}
    disturbed = {case: time * (0.99 if "lstm" in case else 1.01) for case, time in times.items()}
    found = cost_page.fitted(disturbed, COUNTS, SIZES)
    assert min(found.run, found.call, found.product, found.product_of_many, found.number) >= 0
    for case in SIZES:
        assert found.milliseconds(case, COUNTS[case.cell]) == pytest.approx(times[case.label], rel=0.05)


def test_the_page_is_filled_from_results_of_both_engines() -> None:
    right = {
        COMPILED: Constants(run=0.1, call=0.02, product=0.06, product_of_many=0.05, number=0.3),
        NUMPY: Constants(run=0.3, call=0.4, product=0.1, product_of_many=0.06, number=0.5),
    }
    lines = ["| ours | compiled, median | NumPy, median |", "| --- | --- | --- |"]
    for case in SIZES:
        found = [right[engine].milliseconds(case, COUNTS[case.cell]) for engine in (COMPILED, NUMPY)]
        lines.append(f"| {case.label}: norms | {found[0]:.6f} ms | {found[1]:.6f} ms |")
    filled = cost_page.filled(PAGE, "\n".join([_SECTION, "", *lines, ""]))
    assert "| compiled | 0.1 ms | 0.02 µs | 0.06 ns | 0.05 ns | 0.3 ns |\n" in filled
    assert "| NumPy | 0.3 ms | 0.4 µs | 0.1 ns | 0.06 ns | 0.5 ns |\n" in filled
    large = Case("lstm", 32, 256, 1000)
    shown = [f"{right[engine].milliseconds(large, COUNTS['lstm']):,.0f} ms" for engine in (COMPILED, NUMPY)]
    assert f"| lstm 32,256,1000 | {shown[0]} | {shown[0]} | {shown[1]} | {shown[1]} |\n\n" in filled
    assert re.sub(r"^\|.*\n", "", filled, flags=re.MULTILINE) == re.sub(r"^\|.*\n", "", PAGE, flags=re.MULTILINE)
    with pytest.raises(ValueError, match="has no table"):
        cost_page.filled("", "")
