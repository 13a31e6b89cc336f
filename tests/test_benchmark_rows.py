"""In every row of the benchmarks ours is ours and theirs is theirs: contestants are told apart by what they run."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest
from benchmarks_path import ROOT  # noqa: F401  # before benchmarks

from benchmarks.cases import DRAWS, Case
from benchmarks.engines import COMPILED, NUMPY, VARIABLE, there
from benchmarks.hand_written.rnn import RNN
from benchmarks.measurements import Settings, diagnostics, frameworks, plan, same_engine
from benchmarks.peers import products
from benchmarks.peers.peer import Peer
from benchmarks.requirements import Goal
from benchmarks.rows import Compared, Row
from gradcli.engine.executor import wanted
from gradcli.engine.run import Engine

QUICK = Settings(quick=True)
pytestmark = pytest.mark.skipif(COMPILED not in there(), reason="the compiled engine was not built")


class Watch:
    """What stands for seconds: a number for each kind of work, found out by watching what a contestant runs."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.numbers: dict[Any, float] = {}
        self._seen: Any = None
        run, by_hand = Engine.run, RNN.run

        def watched(engine: Engine, **options: Any) -> Any:
            p = engine.problem
            work = "norms" if options.get("parameters") is False else "both"
            self._seen = (wanted(), work, str(p.dtype), p.trials, "s" if "s" in p.plans[0].states else "h")
            return run(engine, **options)

        def watched_by_hand(loop: RNN) -> Any:
            self._seen = "by hand"
            return by_hand(loop)

        monkeypatch.setenv(VARIABLE, wanted())
        monkeypatch.setattr(Engine, "run", watched)
        monkeypatch.setattr(RNN, "run", watched_by_hand)
        for module in (frameworks, same_engine, diagnostics):
            monkeypatch.setattr(module, "alternate", self.alternate)

    def alternate(self, contestants: Sequence[Callable[[], object]], effort: object) -> list[list[float]]:
        found = []
        for contestant in contestants:
            self._seen = "a peer"
            contestant()
            found.append([self.number(self._seen)])
        return found

    def number(self, work: Any) -> float:
        return self.numbers.setdefault(work, 1.0 + len(self.numbers))

    def of(
        self, engine: str, work: str = "norms", dtype: str = "float64", trials: int = 1, state: str = "h"
    ) -> list[float]:
        """Return the milliseconds of an engine's work, in one round."""
        return [1e3 * self.numbers[engine, work, dtype, trials, state]]


@pytest.fixture
def watch(monkeypatch: pytest.MonkeyPatch) -> Watch:
    return Watch(monkeypatch)


def rows_of(words: str) -> list[Row]:
    (chosen,) = (m for m in plan(QUICK) if m.matches([words]) and not m.label.startswith("profile"))
    return [row for row in chosen.measure() if isinstance(row, Row)]


def pairs_of(row: Row) -> Any:
    assert isinstance(row.outcome, Compared)
    return row.outcome.pairs


def test_against_peers(watch: Watch, monkeypatch: pytest.MonkeyPatch) -> None:
    peer = Peer("P", "nothing", lambda: None)
    name = products.NAME
    monkeypatch.setattr(frameworks, "_BUILDERS", {name: (None, lambda *_: peer)})
    monkeypatch.setattr(frameworks, "_AGAINST", ((name, True, None, None), (name, False, None, None)))
    _, faster, parameters, norms_alone, both = rows_of("frameworks rnn")
    theirs = [1e3 * watch.numbers["a peer"]]
    assert pairs_of(faster) == {COMPILED: (watch.of(COMPILED), watch.of(NUMPY))}
    assert pairs_of(parameters) == {engine: (watch.of(engine, "both"), watch.of(engine)) for engine in there()}
    assert pairs_of(norms_alone) == {engine: (watch.of(engine), theirs) for engine in there()}
    assert pairs_of(both) == {engine: (watch.of(engine, "both"), theirs) for engine in there()}


def test_of_the_same_engine(watch: Watch) -> None:
    (row,) = rows_of("float32 against lstm")
    assert pairs_of(row) == {engine: (watch.of(engine, dtype="float32"), watch.of(engine)) for engine in there()}
    (row,) = rows_of("user's file rnn")
    assert pairs_of(row) == {engine: (watch.of(engine, state="s"), watch.of(engine)) for engine in there()}
    (row,) = rows_of("draws at once rnn")
    assert pairs_of(row) == {engine: (watch.of(engine, trials=DRAWS), watch.of(engine)) for engine in there()}


def test_against_loops_by_hand(watch: Watch) -> None:
    _, row = rows_of("hand-written rnn")
    by_hand = [1e3 * watch.numbers["by hand"]]
    assert pairs_of(row) == {engine: (watch.of(engine), by_hand) for engine in there()}
    assert row.engine == NUMPY
    case = Case("rnn", 1, 32, 100)
    (judged,) = (m for m in plan(Settings()) if m.matches([f"hand-written {case.label}"]))
    requirement = next(row.requirement for row in judged.measure() if isinstance(row, Row) and row.engine == NUMPY)
    assert requirement is not None
    assert requirement.goal is Goal.NUMPY


def test_diagnostics_are_held_against_a_run(watch: Watch, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(diagnostics._DIAGNOSTICS, "gates", lambda *_: None)  # runs no engine
    (row,) = rows_of("diagnostics gates")
    ours = [1e3 * watch.numbers["a peer"]]
    assert pairs_of(row) == {engine: (ours, watch.of(engine, "both")) for engine in there()}
