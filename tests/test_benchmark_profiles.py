"""The benchmarks' profiles take nothing apart that does not add up again, and every requirement has its reason."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from benchmarks_path import ROOT  # before benchmarks

from benchmarks import profile, reasons, requirements, table
from benchmarks.cases import FRAMEWORK_CASES, PROFILE_CASES, Case, Ours
from benchmarks.measurements import Settings, plan, profiles
from benchmarks.processes import Imports, ProcessError, imports_of
from benchmarks.profile import Part, Profiler
from benchmarks.requirements import Requirement
from benchmarks.rows import Compared, Profile, Ratio, Row
from gradcli.engine.layer import Layer

QUICK = Settings(quick=True)


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
def test_timers_change_no_number(case: Case) -> None:
    engine = Ours(case)
    expected = engine.norms_only().log2_norm
    profiler = Profiler(engine.engine)
    for run in (profiler.run(), profiler.run(), engine.norms_only()):
        for state, norms in run.log2_norm.items():
            np.testing.assert_array_equal(norms, expected[state])
    assert len(profiler.runs) == 2


def test_every_call_of_the_loops_is_timed() -> None:
    steps = 200  # more than one chunk and block
    profiler = Profiler(Ours(Case("rnn", 1, 8, steps)).engine)
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


class Clock:
    """A clock that only passes one second at each reading, and what is added to it."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        self.now += 1.0
        return self.now


def test_the_parts_of_a_run_add_up_without_the_timers(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock()
    fill = Layer.fill

    def slow(self: Layer, lo: int, hi: int) -> None:
        clock.now += 100.0
        fill(self, lo, hi)

    monkeypatch.setattr(Layer, "fill", slow)
    monkeypatch.setattr(profile, "perf_counter", clock)
    # A timer around nothing shows the second of its second reading, and takes those of both.
    assert profile.timer_seconds(steps=10) == (1.0, 2.0)
    profiler = Profiler(Ours(Case("lstm", 1, 8, 20)).engine)
    profiler.run()
    (parts,) = profiler.runs
    # The readings at the beginning and at the end of the run are a second apart, without timers in between.
    assert parts == dict.fromkeys(Part, 0.0) | {Part.ADDENDS: 100.0, Part.REST: 1.0}


def test_every_profile_is_beside_a_row() -> None:
    labels = [m.label for m in plan(Settings())]
    for case in PROFILE_CASES:
        kinds = ("draws at once",) if case.trials > 1 else ("frameworks", "hand-written")
        assert any(label.startswith(f"{kind} {case.label}") for label in labels for kind in kinds)
    (found,) = profiles._run(QUICK, Case("rnn", 2, 8, 12))
    assert found.what == "rnn 2,8,12: norms"
    assert found.parts.keys() == {part.value for part in Part}
    (draws,) = profiles._run(QUICK, Case("rnn", 1, 8, 12, trials=64))
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
    kinds = [
        name
        for name, value in vars(requirements).items()
        if isinstance(value, Requirement | dict) and not name.startswith("_")
    ]
    assert "LINEARITY" in kinds
    by_case = ("against_cell_loop", "against_grad_of_all_h", "against_products", "hand_written", "log_scaled")
    for name in kinds:
        assert name.lower() in by_case or getattr(reasons, name)
    assert all(hasattr(requirements, name) for name in by_case[:3])
    for name in by_case:
        assert all(getattr(reasons, name)(case) for case in (*FRAMEWORK_CASES, *PROFILE_CASES))
    assert reasons.hand_written(Case("lstm", 1, 32, 100)) != reasons.hand_written(Case("lstm", 1, 64, 1000))
    assert reasons.hand_written(Case("indrnn", 1, 64, 1000)) != reasons.hand_written(Case("rnn-lags", 1, 64, 1000))


@pytest.mark.parametrize("words", ["hand-written rnn", "log-scaled lstm", "user's file rnn", "draws at once rnn"])
def test_rows_carry_their_reasons(words: str) -> None:
    (chosen,) = (m for m in plan(QUICK) if m.label.startswith(words + " "))
    (row,) = chosen.measure()
    assert isinstance(row, Row)
    assert row.reason


def test_a_reason_and_a_profile_are_beside_what_does_not_hold() -> None:
    slow = Compared([1.4], [1.0], "ms", Ratio.SHARE)
    row = Row("S", "lstm 1,2,3: norms", "by hand", slow, Requirement(most=1.3), "Because.")
    beside = Profile("one run", "lstm 1,2,3: norms", 1.5, {"a": 0.5, "b": 1.5, "c": 0.0})
    other = Profile("one run", "lstm 1,2,3: norms of 64 draws", 1.5, {"a": 9.0, "b": 0.0, "c": 0.0})
    expected = (
        "0 of 1 requirements hold.\n\n"
        "* does not hold: S: lstm 1,2,3: norms, by hand: 1.40, to reach: at most 1.3\n"
        "  Because.\n"
        "  Where the time goes: b 75%, a 25%."
    )
    assert table.summary([row], [beside, other], item="* ") == expected
    holds = replace(row, outcome=Compared([1.0], [1.0], "ms", Ratio.SHARE))
    assert table.summary([holds], [beside]) == "1 of 1 requirements hold."
    results = table.results("python -m benchmarks", [("processor", "one")], [row], [], [beside, other])
    assert f"`python -m benchmarks`\n\n{expected}\n\n## Machine\n\n| measured on |" in results
    assert results.index("## Machine") < results.index("## Where the time goes") < results.index("## S")
    assert "| one run, ms | without timers | sum of parts | a | b | c |" in results
    assert "| lstm 1,2,3: norms | 1.50 | 2.00 | 0.500 (25%) | 1.50 (75%) | 0.00 (0%) |" in results
