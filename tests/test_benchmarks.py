"""The benchmarks compute what they claim to time: every contestant's norms are the engine's. Nothing is timed here."""

from __future__ import annotations

import doctest
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from benchmarks_path import ROOT  # before benchmarks

from benchmarks import agreement, of_0_1_0, requirements, table, timing
from benchmarks.agreement import DisagreementError, largest_difference, require_agreement
from benchmarks.cases import FRAMEWORK_CASES, HAND_WRITTEN_CELLS, USERS_FILES, Case, Ours, engines_on
from benchmarks.engines import COMPILED, ENGINES, NUMPY, VARIABLE, there
from benchmarks.hand_written import LOOPS, arrays
from benchmarks.measurements import Measurement, Settings, long_runs, measurement, plan
from benchmarks.peers.peers_jax import jax_peer
from benchmarks.peers.peers_torch import CELL_LOOP, FUSED, GRAD, torch_peer
from benchmarks.peers.products import products_peer
from benchmarks.processes import ProcessError, run_long, run_process
from benchmarks.requirements import Goal, Requirement
from benchmarks.rows import Compared, Figure, Missing, Preparation, Ratio, Row
from gradcli.engine.executor import wanted
from gradcli.engine.step.backward import Choices
from gradcli.engine.step.plan import LayerPlan

QUICK = Settings(quick=True)
FRAMEWORK_CELLS = ["rnn", "lstm", "gru"]
#: The engine that one gets.
DEFAULT = there()[0]
# The last one has several blocks of coefficients.
SIZES = [(1, 8, 1), (1, 32, 60), (2, 8, 12), (32, 64, 50)]


@pytest.fixture(autouse=True)
def engine_as_before(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the tests that follow have the engine that they would have had."""
    monkeypatch.setenv(VARIABLE, wanted())


def assert_same(found: dict[str, Any], expected: dict[str, Any], *, relative: float = 1e-9) -> None:
    for state, norms in found.items():
        np.testing.assert_allclose(norms, expected[state], rtol=relative, atol=0)


def framework_case(cell: str, batch_size: int = 3) -> Case:
    """Return a case with initial states and biases that are not zero, so that none of them can be mixed up."""
    states = ("h_0={normal: 0.5}", *(("c_0={normal: 0.5}",) if cell == "lstm" else ()))
    return Case(cell, batch_size, 6, 15, overrides=("init={'*': {normal: 0.4}}", *states))


@pytest.mark.parametrize("engine", there())
@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize(("target", "overrides"), HAND_WRITTEN_CELLS, ids=[Path(t).stem for t, _ in HAND_WRITTEN_CELLS])
def test_hand_written_loops_give_the_engines_norms(
    target: str, overrides: tuple[str, ...], size: tuple[int, int, int], engine: str
) -> None:
    case = Case(target, *size, overrides=overrides)
    ours = Ours(case, engine)
    loop = LOOPS[case.cell](ours.numbers)
    expected = ours.norms()
    found = loop.run()
    assert found.keys() == expected.keys()
    assert_same(found, expected)
    assert_same(loop.run(), expected)  # buffers are used again


def test_each_engine_runs_what_it_was_chosen_for() -> None:
    case = Case("lstm", 2, 6, 15)
    engines = engines_on(case)
    assert tuple(engines) == there()
    for _ in range(2):  # in turn, as they are timed
        for name, one in engines.items():
            one.with_parameters()
            assert wanted() == name
            programs = [one.engine._group(0).layers[0].loop]
            programs += [found for p in one.engine._group(0).passes(parameters=True) for found in (p.step,)]
            assert {program.engine for program in programs} == {name}


def test_the_largest_difference_of_two_engines_is_found() -> None:
    ours = {"h": np.array([[0.0], [-1e6], [-np.inf]]), "c": np.zeros((3, 1))}
    assert largest_difference(ours, ours) == 0.0
    theirs = ours | {"c": np.array([[0.0], [0.0], [1e-10]])}
    assert largest_difference(ours, theirs) == pytest.approx(1e-10 * np.log10(2))
    for wrong in (0.0, np.nan, np.inf):
        assert largest_difference(ours, ours | {"h": np.array([[0.0], [-1e6], [wrong]])}) == np.inf


def test_every_hand_written_loop_is_measured() -> None:
    assert {Path(target).stem for target, _ in HAND_WRITTEN_CELLS} == LOOPS.keys()
    labels = [m.label for m in plan(Settings())]
    for cell in LOOPS:
        assert any(label.startswith(f"hand-written {cell} ") for label in labels)
    measured = {label.removeprefix("hand-written ") for label in labels if label.startswith("hand-written")}
    assert measured == of_0_1_0.SHARES.keys()


@pytest.mark.torch
@pytest.mark.parametrize("cell", FRAMEWORK_CELLS)
@pytest.mark.parametrize("name", [CELL_LOOP, GRAD])
def test_torch_gives_the_engines_norms(name: str, cell: str) -> None:
    case = framework_case(cell)
    engine = Ours(case, DEFAULT)
    peer = torch_peer(name, case, engine.numbers, threads=1)
    assert peer.norms is not None
    expected = engine.norms()
    found = peer.norms(peer.run())
    assert found.keys() == ({"h"} if name == GRAD else expected.keys())
    assert_same(found, expected)


@pytest.mark.torch
@pytest.mark.parametrize("cell", FRAMEWORK_CELLS)
def test_the_fused_layer_gives_the_engines_parameter_gradient(cell: str) -> None:
    case = framework_case(cell)
    engine = Ours(case, DEFAULT)
    peer = torch_peer(FUSED, case, engine.numbers, threads=1)
    gates = {"rnn": "h", "lstm": "ifgo", "gru": "rzn"}[cell]
    gradients = engine.with_parameters().gradients
    of_the_mean = np.concatenate([gradients[f"layer0.W_h{gate}"].value()[0] for gate in gates])
    assert peer.norms is None
    np.testing.assert_allclose(peer.run().numpy(), case.batch_size * of_the_mean, rtol=1e-9, atol=1e-14)


@pytest.mark.parametrize("cell", FRAMEWORK_CELLS)
def test_jax_gives_the_engines_norms(cell: str) -> None:
    pytest.importorskip("jax", reason="JAX is not installed")
    case = framework_case(cell)
    engine = Ours(case, DEFAULT)
    peer = jax_peer(case, engine.numbers)
    assert peer.norms is not None
    expected = engine.norms()
    found = peer.norms(peer.run())
    assert found.keys() == expected.keys()
    assert_same(found, expected)
    assert peer.compile_seconds is not None
    assert peer.compile_seconds > 0


@pytest.mark.parametrize("cell", FRAMEWORK_CELLS)
def test_the_products_alone_claim_no_norms(cell: str) -> None:
    case = framework_case(cell)
    peer = products_peer(case, Ours(case, DEFAULT).numbers)
    peer.run()
    assert peer.norms is None


# What the built-in cell calls the names in the user's files.
STATES = {"memory": "c"}  # all others are h
NAMES: dict[str, Callable[[str], str]] = {
    "lstm": lambda name: _renamed(name, {"forget": "f", "write": "i", "content": "g", "read": "o"}),
    "gru": lambda name: "b_hn" if name == "bias_reset_new" else _renamed(name, {"reset": "r", "keep": "z", "new": "n"}),
    "rnn": lambda name: {"R": "W_hh", "U": "W_xh", "bias": "b_h"}[name],
}


def _renamed(name: str, gates: dict[str, str]) -> str:
    kind, _, gate = name.partition("_")
    return {"U": "W_x", "R": "W_h", "bias": "b_"}[kind] + gates[gate]


@pytest.mark.parametrize("cell", USERS_FILES)
def test_the_users_files_hold_the_built_in_equations(cell: str) -> None:
    case = Case(cell, 2, 6, 15)
    built_in, users = Ours(case, DEFAULT), Ours(replace(case, target=str(USERS_FILES[cell])), DEFAULT)
    problem = users.engine.problem
    theirs = built_in.engine.problem.parameters[0]
    users.engine.set_parameters([{name: theirs[NAMES[cell](name)] for name in problem.parameters[0]}])
    expected = built_in.norms()
    found = users.norms()
    assert {STATES.get(state, "h") for state in found} == expected.keys()
    for state, norms in found.items():
        np.testing.assert_allclose(norms, expected[STATES.get(state, "h")], rtol=1e-12, atol=0)


@pytest.mark.parametrize("cell", USERS_FILES)
def test_the_users_files_run_the_operations_of_the_built_in_cell(cell: str) -> None:
    case = Case(cell, 32, 128, 200)
    built_in, users = (one.problem().plans[0].windowed for one in (case, replace(case, target=str(USERS_FILES[cell]))))

    def operations(plan: LayerPlan) -> list[tuple[str, tuple[int, ...]]]:
        back = plan.backward(Choices(plan.prefilled))
        # Those that need nothing of each other may stand in another order.
        return sorted((each.op, each.out.shape) for each in (*plan.forward, *back.coefficients, *back.step))

    assert operations(users) == operations(built_in)


def test_a_wrong_contestant_is_not_timed() -> None:
    ours = {"h": np.array([[1.0], [1e-200]])}
    require_agreement("theirs", {"h": np.array([[1.0 + 1e-10], [0.0]])}, ours)
    with pytest.raises(DisagreementError, match="step 0"):
        require_agreement("theirs", {"h": np.array([[1.001], [0.0]])}, ours)
    with pytest.raises(DisagreementError, match="step 1"):
        require_agreement("theirs", {"h": np.array([[1.0], [1e-100]])}, ours)
    with pytest.raises(DisagreementError, match="step 0"):
        require_agreement("theirs", {"h": np.array([[np.nan], [0.0]])}, ours)


@pytest.mark.parametrize(("module", "word"), [("torch", "torch cell loop"), ("torch", "whole command"), ("jax", "JAX")])
def test_a_missing_peer_is_named(module: str, word: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    chosen = [m for m in plan(QUICK) if m.matches([word])]
    assert chosen
    for one in chosen:
        found = Missing(f"{module}: not installed; pip install {module}")
        rows = [row for row in one.measure() if isinstance(row, Row) and row.outcome == found]
        assert rows
        for row in rows:
            assert f"pip install {module}" in table.text([row], [])


def test_a_missing_engine_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("benchmarks.engines.why_not", lambda: "it was not built")
    assert there() == (NUMPY,)
    chosen = [m for m in plan(Settings(quick=True)) if m.matches(["frameworks rnn", "hand-written rnn"])]
    assert len(chosen) == 2
    rows = [row for m in chosen for row in m.measure() if isinstance(row, Row)]
    missing = [row for row in rows if row.outcome == Missing("the compiled engine: it was not built")]
    assert len(missing) == 3  # twice whether the engines agree, and which is faster
    for row in rows:
        assert row in missing or isinstance(row.outcome, Compared | Missing)
        if isinstance(row.outcome, Compared):
            assert row.outcome.pairs.keys() == {NUMPY}
            assert replace(row, requirement=Requirement(most=1e9), engine=COMPILED).verdict == "not measured"


def test_the_quick_mode_prints_every_section() -> None:
    finished = _benchmarks("--quick")
    assert finished.returncode == 0, finished.stderr
    for words in (
        "processor: ",
        "BLAS of numpy: ",
        "OPENBLAS_NUM_THREADS=1",
        "matrix products alone, float64",
        "matrix products alone, float32",
        "Equations in a user's file",
        "float32 against float64",
        "64 draws of the weights at once",
        "largest difference at any distance",
        "contributions of",
        "gates of",
        "Against loops written by hand",
        "The whole command",
        "Where the time goes",
        "products forward",
        "NumPy: ratio [quartiles]",
        "standard library",
        "Preparation",
    ):
        assert words in finished.stdout
    assert "[1/" in finished.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--quick", "--write"), "--quick is none"),
        (("--only", "no such words"), "--list shows the labels"),
        (("--threads", "0"), "at least 1"),
    ],
)
def test_wrong_options_are_refused(arguments: tuple[str, ...], message: str) -> None:
    finished = _benchmarks(*arguments)
    assert finished.returncode == 2
    assert message in finished.stderr


def test_the_list_has_what_is_asked_for() -> None:
    finished = _benchmarks("--list", "--only", "lstm float32 grad(L", "--only", "long segments", "--long")
    lines = finished.stdout.splitlines()
    assert len(lines) == 1 + sum(case.cell == "lstm" and case.dtype == "float32" for case in FRAMEWORK_CASES)
    assert lines[-1] == "long runs linearity in segments"
    assert all(all(word in line for word in ("lstm", "float32", "torch grad(L, all h)")) for line in lines[:-1])


def _benchmarks(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "benchmarks", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


def test_a_ratio_is_taken_of_each_pair() -> None:
    pairs = {NUMPY: ([1.0, 2.0, 4.0], [10.0, 10.0, 10.0])}
    faster = Compared(pairs, "ms", Ratio.TIMES_FASTER).ratios(NUMPY)
    assert faster.median == 5.0
    assert (faster.low, faster.high) == (3.75, 7.5)
    assert Compared(pairs, "ms", Ratio.SHARE).ratios(NUMPY).median == 0.2


def pair(ours: float, theirs: float, ratio: Ratio, engine: str = COMPILED) -> Compared:
    """Return a comparison of one round."""
    return Compared({engine: ([ours], [theirs])}, "ms", ratio)


@pytest.mark.parametrize(
    ("outcome", "requirement", "verdict"),
    [
        (pair(1.0, 10.0, Ratio.TIMES_FASTER), Requirement(least=10), "holds"),
        (pair(1.0, 9.9, Ratio.TIMES_FASTER), Requirement(least=10), "does not hold"),
        (pair(1.3, 1.0, Ratio.SHARE), Requirement(most=1.25), "does not hold"),
        (pair(1.0, 1.0, Ratio.SHARE, NUMPY), Requirement(most=1.25), "not measured"),
        (Figure({COMPILED: [0.9, 1.0, 1.2]}, ""), Requirement(least=0.95, most=1.05), "holds"),
        (Missing("torch: not installed"), Requirement(least=10), "not measured"),
        (pair(1.3, 1.0, Ratio.SHARE), None, ""),
    ],
)
def test_the_verdict_is_about_the_median(outcome: Any, requirement: Requirement | None, verdict: str) -> None:
    row = Row("section", "ours", "theirs", outcome, requirement)
    assert row.verdict == verdict
    text = table.summary([row])
    assert text.startswith("0 of 0" if requirement is None else f"{int(verdict == 'holds')} of 1")
    assert ("section: ours, theirs" in text) is (verdict in ("does not hold", "not measured"))


def test_the_tables_are_as_written() -> None:
    both = {COMPILED: ([2.0], [3000.0]), NUMPY: ([4.0], [3000.0])}
    apart = {COMPILED: ([2.0], [1.0]), NUMPY: ([4.0], [3.0])}
    rows = [
        Row("S", "a", "b", Compared(both, "ms", Ratio.TIMES_FASTER), Requirement(least=10, goal=Goal.JAX)),
        Row("S", "c", "d", Missing("gone"), None),
        Row("S", "g", "h", Compared(apart, "s", Ratio.SHARE), Requirement(most=1), engine=NUMPY),
        Row("T", "e", "f", Figure({COMPILED: [50.0, 50.0]}, "MiB"), Requirement(most=60)),
        Row("T", "i", "j", Figure({COMPILED: [1.5e-13]}, ""), Requirement(most=1e-11, goal=Goal.AGREEMENT)),
    ]
    assert table.text(rows[:1], []) == (
        "S\n\n"
        "ours  against  compiled, median  NumPy, median  theirs, median"
        "  compiled: ratio [quartiles]  NumPy: ratio [quartiles]  to reach     verdict\n"
        "a     b        2.00 ms           4.00 ms        3,000 ms      "
        "  1,500 x [1,500, 1,500]       750 x [750, 750]          at least 10  holds"
    )
    markdown = table.markdown(rows, [])
    assert "## S\n\n| ours | against |" in markdown
    assert "| c | d |  |  | gone |  |  |  |  |" in markdown
    ratios = "2.00 of theirs [2.00, 2.00] | 1.33 of theirs [1.33, 1.33]"
    assert f"| g | h | 2.00 s | 4.00 s | 1.00 s; 3.00 s | {ratios} | at most 1 (NumPy) | does not hold |" in markdown
    assert "| e | f | 50.0 [50.0, 50.0] MiB |  |  |  |  | at most 60 | holds |" in markdown
    assert "| i | j | 1.5e-13 |  |  |  |  | at most 1e-11 | holds |" in markdown
    results = table.results("python -m benchmarks", [("processor", "one")], rows, [Preparation("compile", "S", 1.5)])
    assert results.startswith("# Benchmarks: results\n\n`python -m benchmarks`\n\n| to reach | bound |")
    assert f"| {Goal.JAX.value} | at least 10 | 1 of 1 | 1,500 (a) |" in results
    assert f"| {Goal.AGREEMENT.value} | at most 1e-11 | 1 of 1 | 1.5e-13 (i) |" in results
    assert f"| {Goal.BESIDES.value} | at most 1, at most 60 | 1 of 2 | 1.33 (g) |" in results
    assert "| processor | one |" in results
    assert "3 of 4 requirements hold." in results
    assert "does not hold: S: g (NumPy engine), h: 1.33, to reach: at most 1" in results
    assert results.endswith("| compile | S | 1.500 |\n")


def test_the_margin_tells_what_is_nearest_to_its_bound() -> None:
    assert Requirement(least=10).margin(15) == 1.5
    assert Requirement(most=10).margin(20) == 0.5
    assert Requirement(most=1e-11).margin(0.0) == np.inf
    assert Requirement(least=0.5, most=2).margin(1.6) == 1.25
    assert Requirement(least=0.5, most=2).margin(0.4) == 0.8


def test_every_goal_has_its_rows() -> None:
    """No line of what is to be reached is left without a measurement."""
    fixed = [value.goal for value in vars(requirements).values() if isinstance(value, Requirement)]
    of_cases = [
        bound.goal
        for bounds in (
            requirements.against_cell_loop,
            requirements.against_jax,
            requirements.against_products,
            requirements.float32,
            requirements.parameter_gradients,
        )
        for case in FRAMEWORK_CASES
        if (bound := bounds(case)) is not None
    ]
    by_hand = [requirements.hand_written(Case("lstm", 1, 32, 100)).goal]
    assert {*fixed, *of_cases, *by_hand} == set(Goal)


def test_requirements_go_by_size_and_precision() -> None:
    def least(cell: str, *size: int) -> tuple[float | None, float | None]:
        case = Case(cell, *size)
        loop, jax = requirements.against_cell_loop(case), requirements.against_jax(case)
        return loop.least if loop else None, jax.least if jax else None

    assert least("lstm", 1, 32, 100) == least("gru", 1, 32, 100) == (25, 1.0)
    assert least("lstm", 1, 64, 1000) == least("gru", 1, 64, 1000) == (25, 1.2)
    assert (least("rnn", 1, 32, 100), least("rnn", 1, 64, 1000)) == ((20, 1.0), (20, 1.2))
    assert least("lstm", 32, 128, 200) == least("lstm", 32, 256, 1000) == (2.5, None)
    assert least("lstm", 64, 512, 200) == (1.6, None)
    assert least("lstm", 1, 32, 10000) == (None, None)
    for case in FRAMEWORK_CASES:
        asked = (requirements.against_cell_loop(case), requirements.against_jax(case))
        if case.dtype == "float32":
            assert (*asked, requirements.parameter_gradients(case)) == (None, None, None)
        products = requirements.against_products(case)
        assert (products is not None) is (case.dtype == "float64" and case.batch_size >= 32)
        assert requirements.float32(case).least == (1.6 if case.batch_size >= 32 else 1.0)
    assert requirements.hand_written(Case("gru", 1, 32, 100)).most == pytest.approx(1.4 * of_0_1_0.LEEWAY)
    bound = requirements.USERS_FILE
    assert QUICK.required(bound) is None
    assert Settings(threads=2).required(bound) is None
    assert Settings().required(bound) is bound


def test_contestants_take_turns() -> None:
    turns: list[str] = []
    times = timing.alternate([lambda: turns.append("A"), lambda: turns.append("B")], timing.QUICK)
    assert [len(found) for found in times] == [3, 3]
    assert turns == ["A", "B"] * 4  # each once before, as none of them is short
    turns.clear()
    times = timing.alternate([lambda: turns.append("A"), lambda: turns.append("B")], timing.Effort(0, 3, 3, 0))
    assert turns == ["A"] * 2 + ["B"] * 2 + ["A"] * 2 + ["B"] * 2 + ["A"] * 2 + ["B"] * 2 + ["A"] * 2 + ["B"] * 2


def test_only_goes_by_words() -> None:
    labelled = Measurement("frameworks lstm 1,32,100 float64 JAX, compiled", list)
    assert labelled.matches([])
    assert labelled.matches(["rnn", "JAX lstm"])
    assert not labelled.matches(["lstm torch"])
    assert not labelled.matches(["1,32,10"])


def test_a_long_run_tells_its_memory() -> None:
    run = run_long(300, DEFAULT, segment=100)
    assert run.curve_bytes == 2 * 301 * 8  # the norms of h and of c
    assert run.seconds > 0
    assert 0 < run.start_up_bytes <= run.peak_bytes
    assert run.above_start_up_bytes == run.peak_bytes - run.start_up_bytes


def test_long_runs_fill_their_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(long_runs, "_STEPS", 200)
    monkeypatch.setattr(long_runs, "_STORED_STEPS", 100)
    monkeypatch.setattr(long_runs, "_LENGTHS", (10, 20, 40))
    monkeypatch.setattr(long_runs, "FEW", timing.Effort(seconds=0.0, least=1, most=1))
    assert list(long_runs.measurements(Settings())) == []
    rows = [row for m in long_runs.measurements(Settings(long=True)) for row in m.measure()]
    assert [row.requirement for row in rows] == [
        requirements.LONG_RUN_TIME,
        requirements.LONG_RUN_MEMORY_MIB,
        None,
        *(requirements.LINEARITY for _ in (*there(), "in segments")),
    ]
    assert [row.engine for row in rows[3:]] == [*there(), DEFAULT]
    assert "in segments of 100 steps" in rows[-1].what
    assert all(row.reason for row in rows)
    judged = [replace(row, engine=row.engine if row.engine in there() else DEFAULT).judged for row in rows]
    assert all(value is not None and np.isfinite(value) for value in judged)
    assert all(words in row.against for row in rows[3:] for words in ("10: ", "20: "))
    assert ["40: " in row.against for row in rows[3:]] == [True, *(False for _ in there()[1:]), True]


def test_processes_are_measured_from_outside() -> None:
    small = run_process(["-c", "pass"])
    large = run_process(["-c", "b'x' * 100_000_000"])
    assert large.peak_bytes - small.peak_bytes > 90_000_000
    with pytest.raises(ProcessError, match="exit code 3"):
        run_process(["-c", "raise SystemExit(3)"])


@pytest.mark.parametrize("engine", ENGINES)
def test_a_process_has_the_engine_that_is_asked_for(engine: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONDONTWRITEBYTECODE", "1")
    text = (
        f"import os; assert os.environ['{VARIABLE}'] == '{engine}'; assert 'PYTHONDONTWRITEBYTECODE' not in os.environ"
    )
    run_process(["-c", text], engine)


@pytest.mark.parametrize("module", [agreement, arrays, measurement, timing], ids=lambda module: module.__name__)
def test_doctests(module: Any) -> None:
    result = doctest.testmod(module)
    assert result.attempted > 0
    assert result.failed == 0
