"""The benchmarks' profiles take nothing apart that does not add up again, and every requirement has its reason."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from benchmarks_path import ROOT  # before benchmarks

from benchmarks import profile, reasons, requirements, table
from benchmarks.cases import FRAMEWORK_CASES, PROFILE_CASES, Case, Ours
from benchmarks.engines import COMPILED, NUMPY, VARIABLE, there
from benchmarks.measurements import Settings, plan, profiles
from benchmarks.processes import Imports, ProcessError, imports_of
from benchmarks.profile import PARTS, Part, Profiler
from benchmarks.requirements import Requirement
from benchmarks.rows import Compared, Missing, Profile, Ratio, Row
from gradcli.engine.executor import wanted
from gradcli.engine.layer import Layer

QUICK = Settings(quick=True)


@pytest.fixture(autouse=True)
def engine_as_before(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the tests that follow have the engine that they would have had."""
    monkeypatch.setenv(VARIABLE, wanted())


@pytest.mark.parametrize("name", there())
@pytest.mark.parametrize(
    "case",
    [
        Case("lstm", 1, 8, 300),
        Case("gru", 4, 8, 12),
        Case("rnn-lags", 2, 8, 30),
        Case("indrnn", 1, 8, 30, overrides=("activation=relu",)),
        Case("rnn", 1, 8, 30, trials=5),
        Case(str(ROOT / "tests" / "cells" / "fastgrnn.yaml"), 1, 8, 30),
    ],
    ids=lambda case: f"{case.label} trials {case.trials}",
)
def test_timers_change_no_number(case: Case, name: str) -> None:
    engine = Ours(case, name)
    expected = engine.norms_only().log2_norm
    profiler = Profiler(engine.engine, name)
    for run in (profiler.run(), profiler.run(), engine.norms_only()):
        for state, norms in run.log2_norm.items():
            np.testing.assert_array_equal(norms, expected[state])
    assert len(profiler.runs) == 2
    assert all(run.keys() == set(PARTS[name]) for run in profiler.runs)


def test_every_call_of_the_loops_is_timed() -> None:
    steps = 200  # more than one chunk and block
    profiler = Profiler(Ours(Case("rnn", 1, 8, steps), NUMPY).engine, NUMPY)
    profiler.run()
    calls = profiler.calls
    # h = tanh(W h + addend) forward; (1 - h h) dL/dh, then W' of it, backward.
    assert calls.pop(Part.COEFFICIENTS) > 1
    assert calls.pop(Part.ADDENDS) > 1
    assert calls == {
        Part.FORWARD_PRODUCTS: steps,
        Part.FORWARD_ARITHMETIC: steps,
        Part.FUNCTIONS: steps,
        Part.BACKWARD_ARITHMETIC: steps,
        Part.BACKWARD_PRODUCTS: steps,
        Part.REST: 0,
    }


@pytest.mark.skipif(COMPILED not in there(), reason="the compiled engine was not built")
def test_every_program_is_timed() -> None:
    profiler = Profiler(Ours(Case("lstm", 1, 8, 600), COMPILED).engine, COMPILED)
    profiler.run()
    calls = profiler.calls
    assert calls.pop(Part.REST) == 0
    assert calls[Part.COEFFICIENTS] == calls[Part.BACKWARD]  # once a block, none of which is taken twice here
    assert calls[Part.FORWARD] == calls[Part.ADDENDS]  # once a chunk
    assert all(count > 1 for count in calls.values())
    (parts,) = profiler.runs
    assert all(seconds > 0 for seconds in parts.values())


@pytest.mark.skipif(COMPILED not in there(), reason="the compiled engine was not built")
def test_an_engine_is_not_taken_apart_as_the_other() -> None:
    with pytest.raises(ValueError, match="left a program to the compiled engine"):
        Profiler(Ours(Case("rnn", 1, 8, 12), COMPILED).engine, NUMPY)


class Clock:
    """A clock that only passes one second at each reading, and what is added to it."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        self.now += 1.0
        return self.now


@pytest.mark.parametrize("name", there())
def test_the_parts_of_a_run_add_up_without_the_timers(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock()
    fill = Layer.fill

    def slow(self: Layer, lo: int, hi: int) -> None:
        clock.now += 100.0
        fill(self, lo, hi)

    monkeypatch.setattr(Layer, "fill", slow)
    monkeypatch.setattr(profile, "perf_counter", clock)
    # A timer around nothing shows the second of its second reading, and takes those of both.
    assert profile.timer_seconds(steps=10) == (1.0, 2.0)
    profiler = Profiler(Ours(Case("lstm", 1, 8, 20), name).engine, name)
    profiler.run()
    (parts,) = profiler.runs
    # The readings at the beginning and at the end of the run are a second apart, without timers in between.
    assert parts == dict.fromkeys(PARTS[name], 0.0) | {Part.ADDENDS: 100.0, Part.REST: 1.0}


def test_every_profile_is_beside_a_row() -> None:
    labels = [m.label for m in plan(Settings())]
    for case in PROFILE_CASES:
        kinds = ("draws at once",) if case.trials > 1 else ("frameworks", "hand-written")
        assert any(label.startswith(f"{kind} {case.label}") for label in labels for kind in kinds)
    for engine in there():
        (found,) = profiles._run(QUICK, Case("rnn", 2, 8, 12), engine)
        assert (found.what, found.engine) == ("rnn 2,8,12: norms", engine)
        assert found.parts.keys() == {part.value for part in PARTS[engine]}
    (draws,) = profiles._run(QUICK, Case("rnn", 1, 8, 12, trials=64), NUMPY)
    assert draws.what == "rnn 1,8,12: norms of 64 draws"


def test_the_start_up_adds_up() -> None:
    own = [("numpy", 0.5), ("numpy.core", 0.25), ("pydantic_core.a", 0.125), ("email.message", 1.0), ("rich", 2.0)]
    parts = profiles.by_package(Imports(5.0, own))
    assert {name: seconds for name, seconds in parts.items() if seconds} == {
        "numpy": 0.75,
        "pydantic": 0.125,
        "standard library": 1.0,
        "other packages": 2.0,
        "the command itself, Python's start": 1.125,
    }


def test_a_process_tells_its_imports() -> None:
    imports = imports_of(["-c", "import json.decoder"])
    modules = [module for module, _ in imports.self_seconds]
    assert {"json", "json.decoder"} <= set(modules)
    assert 0 < sum(seconds for _, seconds in imports.self_seconds) < imports.seconds
    with pytest.raises(ProcessError, match="exit code 3"):
        imports_of(["-c", "raise SystemExit(3)"])


def test_every_requirement_has_a_reason() -> None:
    kinds = [name for name, value in vars(requirements).items() if isinstance(value, Requirement)]
    assert "LINEARITY" in kinds
    by_case = ("against_cell_loop", "against_jax", "against_products", "float32", "hand_written", "parameter_gradients")
    for name in kinds:
        assert getattr(reasons, name)
    for name in by_case:
        assert hasattr(requirements, name)
        assert all(getattr(reasons, name)(case) for case in (*FRAMEWORK_CASES, *PROFILE_CASES))
    assert reasons.hand_written(Case("lstm", 1, 32, 100)) != reasons.hand_written(Case("lstm", 1, 64, 1000))


@pytest.mark.parametrize("words", ["hand-written rnn", "float32 against lstm", "user's file rnn", "frameworks rnn"])
def test_rows_carry_their_reasons(words: str) -> None:
    (chosen,) = (m for m in plan(QUICK) if m.matches([words]))
    rows = [row for row in chosen.measure() if isinstance(row, Row)]
    assert all(row.reason for row in rows if row.requirement is not None)
    assert any(row.reason for row in rows)


def test_a_reason_and_a_profile_are_beside_what_does_not_hold() -> None:
    slow = Compared({COMPILED: ([1.4], [1.0])}, "ms", Ratio.SHARE)
    row = Row("S", "lstm 1,2,3: norms", "by hand", slow, Requirement(most=1.3), "Because.")
    beside = Profile("one run", "lstm 1,2,3: norms", COMPILED, 1.5, {"a": 0.5, "b": 1.5, "c": 0.0})
    other = Profile("one run", "lstm 1,2,3: norms of 64 draws", COMPILED, 1.5, {"a": 9.0, "b": 0.0, "c": 0.0})
    of_numpy = Profile("one run", "lstm 1,2,3: norms", NUMPY, 1.5, {"a": 0.0, "b": 9.0, "c": 0.0})
    expected = (
        "0 of 1 requirements hold.\n\n"
        "* does not hold: S: lstm 1,2,3: norms, by hand: 1.40, to reach: at most 1.3\n"
        "  Because.\n"
        "  Where the time goes: b 75%, a 25%."
    )
    assert table.summary([row], [beside, other, of_numpy], item="* ") == expected
    of_the_other = table.summary([replace(row, engine=NUMPY, outcome=Missing("gone"))], [beside, of_numpy])
    assert "Where the time goes" not in of_the_other
    holds = replace(row, outcome=Compared({COMPILED: ([1.0], [1.0])}, "ms", Ratio.SHARE))
    assert table.summary([holds], [beside]) == "1 of 1 requirements hold."
    results = table.results("python -m benchmarks", [("processor", "one")], [row], [], [beside, other])
    assert results.startswith("# Benchmarks: results\n\n`python -m benchmarks`\n\n| to reach | bound |")
    assert f" |\n\n{expected}\n\n## Machine\n\n| measured on |" in results
    assert results.index("## Machine") < results.index("## Where the time goes") < results.index("## S")
    assert "| one run, ms | without timers | sum of parts | a | b | c |" in results
    assert "| lstm 1,2,3: norms | 1.50 | 2.00 | 0.500 (25%) | 1.50 (75%) | 0.00 (0%) |" in results
