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

from benchmarks import requirements, table, timing
from benchmarks.agreement import DisagreementError, require_agreement
from benchmarks.cases import FRAMEWORK_CASES, HAND_WRITTEN_CELLS, USERS_FILES, Case, Ours
from benchmarks.hand_written import LOOPS, arrays
from benchmarks.measurements import Measurement, Settings, long_runs, measurement, plan
from benchmarks.peers.peers_jax import jax_peer
from benchmarks.peers.peers_torch import CELL_LOOP, FUSED, GRAD, torch_peer
from benchmarks.peers.products import products_peer
from benchmarks.processes import ProcessError, run_long, run_process
from benchmarks.requirements import Requirement
from benchmarks.rows import Compared, Figure, Missing, Preparation, Ratio, Row

QUICK = Settings(quick=True)
FRAMEWORK_CELLS = ["rnn", "lstm", "gru"]
# The last one has several blocks of coefficients.
SIZES = [(1, 8, 1), (1, 32, 60), (2, 8, 12), (32, 64, 50)]


def assert_same(found: dict[str, Any], expected: dict[str, Any], *, relative: float = 1e-9) -> None:
    for state, norms in found.items():
        np.testing.assert_allclose(norms, expected[state], rtol=relative, atol=0)


def framework_case(cell: str, batch_size: int = 3) -> Case:
    """Return a case with initial states and biases that are not zero, so that none of them can be mixed up."""
    states = ("h_0={normal: 0.5}", *(("c_0={normal: 0.5}",) if cell == "lstm" else ()))
    return Case(cell, batch_size, 6, 15, overrides=("init={'*': {normal: 0.4}}", *states))


@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize(("target", "overrides"), HAND_WRITTEN_CELLS, ids=[Path(t).stem for t, _ in HAND_WRITTEN_CELLS])
def test_hand_written_loops_give_the_engines_norms(
    target: str, overrides: tuple[str, ...], size: tuple[int, int, int]
) -> None:
    case = Case(target, *size, overrides=overrides)
    engine = Ours(case)
    loop = LOOPS[case.cell](engine.numbers)
    expected = engine.norms()
    found = loop.run()
    assert found.keys() == expected.keys()
    assert_same(found, expected)
    assert_same(loop.run(), expected)  # buffers are used again


def test_every_hand_written_loop_is_measured() -> None:
    assert {Path(target).stem for target, _ in HAND_WRITTEN_CELLS} == LOOPS.keys()
    labels = [m.label for m in plan(Settings())]
    for cell in LOOPS:
        assert any(label.startswith(f"hand-written {cell} ") for label in labels)


@pytest.mark.torch
@pytest.mark.parametrize("cell", FRAMEWORK_CELLS)
@pytest.mark.parametrize("name", [CELL_LOOP, GRAD])
def test_torch_gives_the_engines_norms(name: str, cell: str) -> None:
    case = framework_case(cell)
    engine = Ours(case)
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
    engine = Ours(case)
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
    engine = Ours(case)
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
    peer = products_peer(case, Ours(case).numbers)
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
    built_in, users = Ours(case), Ours(replace(case, target=str(USERS_FILES[cell])))
    problem = users.engine.problem
    theirs = built_in.engine.problem.parameters[0]
    users.engine.set_parameters([{name: theirs[NAMES[cell](name)] for name in problem.parameters[0]}])
    expected = built_in.norms()
    found = users.norms()
    assert {STATES.get(state, "h") for state in found} == expected.keys()
    for state, norms in found.items():
        np.testing.assert_allclose(norms, expected[STATES.get(state, "h")], rtol=1e-12, atol=0)


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
        rows = list(one.measure())
        assert rows
        for row in rows:
            assert isinstance(row, Row)
            assert row.outcome == Missing(f"{module}: not installed; pip install {module}")
            assert f"pip install {module}" in table.text([row], [])


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
        "64 draws of the weights at once",
        "Log-scaled norms",
        "Against loops written by hand",
        "The whole command",
        "Where the time goes",
        "products forward",
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
    faster = Compared([1.0, 2.0, 4.0], [10.0, 10.0, 10.0], "ms", Ratio.TIMES_FASTER)
    assert faster.ratios.median == 5.0
    assert (faster.ratios.low, faster.ratios.high) == (3.75, 7.5)
    assert Compared([1.0, 2.0, 4.0], [10.0, 10.0, 10.0], "ms", Ratio.SHARE).ratios.median == 0.2


@pytest.mark.parametrize(
    ("outcome", "requirement", "verdict"),
    [
        (Compared([1.0], [10.0], "ms", Ratio.TIMES_FASTER), Requirement(least=10), "holds"),
        (Compared([1.0], [9.9], "ms", Ratio.TIMES_FASTER), Requirement(least=10), "does not hold"),
        (Compared([1.3], [1.0], "ms", Ratio.SHARE), Requirement(most=1.25), "does not hold"),
        (Figure([0.9, 1.0, 1.2], ""), Requirement(least=0.95, most=1.05), "holds"),
        (Missing("torch: not installed"), Requirement(least=10), "not measured"),
        (Compared([1.3], [1.0], "ms", Ratio.SHARE), None, ""),
    ],
)
def test_the_verdict_is_about_the_median(outcome: Any, requirement: Requirement | None, verdict: str) -> None:
    row = Row("section", "ours", "theirs", outcome, requirement)
    assert row.verdict == verdict
    text = table.summary([row])
    assert text.startswith("0 of 0" if requirement is None else f"{int(verdict == 'holds')} of 1")
    assert ("section: ours, theirs" in text) is (verdict in ("does not hold", "not measured"))


def test_the_tables_are_as_written() -> None:
    rows = [
        Row("S", "a", "b", Compared([2.0], [3000.0], "ms", Ratio.TIMES_FASTER), Requirement(least=10)),
        Row("S", "c", "d", Missing("gone"), None),
        Row("T", "e", "f", Figure([50.0], "MiB"), Requirement(most=60)),
    ]
    assert table.text(rows[:1], []) == (
        "S\n\n"
        "ours  against  ours, median  theirs, median  ratio [quartiles]       to reach     verdict\n"
        "a     b        2.00 ms       3,000 ms        1,500 x [1,500, 1,500]  at least 10  holds"
    )
    markdown = table.markdown(rows, [])
    assert "## S\n\n| ours | against |" in markdown
    assert "| c | d |  |  | gone |  |  |" in markdown
    assert "| e | f | 50.0 [50.0, 50.0] MiB |  |  | at most 60 | holds |" in markdown
    results = table.results("python -m benchmarks", [("processor", "one")], rows, [Preparation("compile", "S", 1.5)])
    assert results.startswith("# Benchmarks: results\n\n`python -m benchmarks`\n")
    assert "| processor | one |" in results
    assert "2 of 2 requirements hold." in results
    assert results.endswith("| compile | S | 1.500 |\n")


def test_requirements_go_by_size_precision_and_kernels(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENBLAS_CORETYPE", raising=False)
    large = Case("lstm", 32, 128, 200)
    assert requirements.against_cell_loop(large) == Requirement(least=2.5)
    monkeypatch.setenv("OPENBLAS_CORETYPE", "Haswell")
    assert requirements.against_cell_loop(large) == Requirement(least=1.5)
    assert requirements.against_cell_loop(Case("rnn", 1, 32, 100)) == Requirement(least=15)
    assert requirements.against_cell_loop(Case("gru", 1, 32, 100)) == Requirement(least=10)
    assert requirements.against_products(large) is None
    for case in FRAMEWORK_CASES:
        found = (requirements.against_cell_loop(case), requirements.against_grad_of_all_h(case))
        assert (found == (None, None)) is (case.dtype == "float32")
    assert QUICK.required(requirements.HAND_WRITTEN) is None
    assert Settings(threads=2).required(requirements.HAND_WRITTEN) is None
    assert Settings().required(requirements.HAND_WRITTEN) is requirements.HAND_WRITTEN


def test_contestants_take_turns() -> None:
    turns: list[str] = []
    times = timing.alternate([lambda: turns.append("A"), lambda: turns.append("B")], timing.QUICK)
    assert [len(found) for found in times] == [3, 3]
    assert turns == ["A"] * 2 + ["B"] * 2 + ["A", "B"] * 3


def test_only_goes_by_words() -> None:
    labelled = Measurement("frameworks lstm 1,32,100 float64 JAX, compiled", list)
    assert labelled.matches([])
    assert labelled.matches(["rnn", "JAX lstm"])
    assert not labelled.matches(["lstm torch"])
    assert not labelled.matches(["1,32,10"])


def test_a_long_run_tells_its_memory() -> None:
    run = run_long(300, segment=100)
    assert run.curve_bytes == 2 * 301 * 8  # the norms of h and of c
    assert run.seconds > 0
    assert 0 < run.start_up_bytes <= run.peak_bytes


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
        requirements.LINEARITY,
        requirements.LINEARITY,
    ]
    assert "in segments of 100 steps" in rows[-1].what
    assert all(row.reason for row in rows)
    assert all(row.judged is not None and np.isfinite(row.judged) for row in rows)
    assert all(words in row.against for row in rows[-2:] for words in ("10: ", "20: ", "40: "))


def test_processes_are_measured_from_outside() -> None:
    small = run_process(["-c", "pass"])
    large = run_process(["-c", "b'x' * 100_000_000"])
    assert large.peak_bytes - small.peak_bytes > 90_000_000
    with pytest.raises(ProcessError, match="exit code 3"):
        run_process(["-c", "raise SystemExit(3)"])


@pytest.mark.parametrize("module", [arrays, measurement, timing], ids=lambda module: module.__name__)
def test_doctests(module: Any) -> None:
    result = doctest.testmod(module)
    assert result.attempted > 0
    assert result.failed == 0
