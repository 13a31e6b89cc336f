"""What is run: the cells at their sizes, and the way from a case to numbers that every contestant takes alike."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np

from benchmarks.engines import there, use
from gradcli.engine.problem import Problem, Run
from gradcli.engine.run import Engine
from gradcli.prepare.build import Network, build
from gradcli.spec.reader import load_spec

Array = np.ndarray[Any, Any]

INPUT_SIZE = 32
USERS_SPECS = Path(__file__).parent / "specs"
TEST_CELLS = Path(__file__).parent.parent / "tests" / "cells"


@dataclass(frozen=True)
class Case:
    """One problem: L = sum of the output at step T, from input drawn from N(0, 1).

    target: a built-in cell, or a spec file. overrides: `PATH=VALUE` texts, as `--set` takes them.
    """

    target: str
    batch_size: int
    hidden_size: int
    seq_len: int
    dtype: str = "float64"
    trials: int = 1
    overrides: tuple[str, ...] = ()

    @property
    def cell(self) -> str:
        return Path(self.target).stem

    @property
    def label(self) -> str:
        return f"{self.cell} {self.batch_size},{self.hidden_size},{self.seq_len}"

    @property
    def size(self) -> tuple[int, int, int]:
        return self.batch_size, self.hidden_size, self.seq_len

    def problem(self) -> Problem:
        """Return the engine's problem."""
        return self.network().problem

    def network(self) -> Network:
        """Return the network, by the road that `gradcli simulate` takes."""
        options: dict[str, object] = {
            "batch_size": self.batch_size,
            "hidden_size": self.hidden_size,
            "input_size": INPUT_SIZE,
            "seq_len": self.seq_len,
            "dtype": self.dtype,
            "trials": self.trials,
        }
        return build(load_spec(self.target, options=options, overrides=("loss=sum", *self.overrides)))


_SIZES = (
    ("rnn", 1, 32, 100),
    ("lstm", 1, 32, 100),
    ("gru", 1, 32, 100),
    ("rnn", 1, 64, 1000),
    ("lstm", 1, 64, 1000),
    ("gru", 1, 64, 1000),
    ("lstm", 1, 32, 10000),
    ("lstm", 32, 128, 200),
    ("lstm", 32, 256, 1000),
    ("lstm", 64, 512, 200),
)
FRAMEWORK_CASES = tuple(Case(*size, dtype=dtype) for dtype in ("float64", "float32") for size in _SIZES)
QUICK_FRAMEWORK_CASES = (Case("rnn", 1, 8, 12), Case("lstm", 4, 8, 12), Case("gru", 1, 8, 12, dtype="float32"))

#: Cells whose state is a matrix, at head sizes of their papers.
MATRIX_CASES = tuple(Case(cell, 16, 64, 1000) for cell in ("matrix-lstm", "gated-deltanet", "mamba"))
QUICK_MATRIX_CASES = (Case("gated-deltanet", 2, 8, 12), Case("mamba", 2, 8, 12))

#: The spec files whose equations are those of a built-in cell under other names, which a user might have written.
USERS_FILES = {cell: USERS_SPECS / f"users-{cell}.yaml" for cell in ("lstm", "gru", "rnn")}

# A cell of the tests is drawn so that it is neither chaotic, where rounding would grow, nor dead.
_TAME = ("init={'*': torch}",)
#: The cells of the hand-written loops: what is run, and the overrides that go with it.
HAND_WRITTEN_CELLS: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("lstm", ()),
    ("gru", ()),
    ("rnn", ()),
    ("mgu", ()),
    ("indrnn", ("activation=tanh",)),  # relu kills the gradient within a few steps
    ("rnn-lags", ()),
    (str(TEST_CELLS / "coupled-oscillator.yaml"), _TAME),
    (str(TEST_CELLS / "fastgrnn.yaml"), _TAME),
)
HAND_WRITTEN_SIZES = ((1, 32, 100), (1, 64, 1000), (32, 128, 200))
QUICK_SIZES = ((2, 8, 12),)
#: One size more for the LSTM, to see what a step moves through the cache.
LARGE_HAND_WRITTEN = Case("lstm", 32, 256, 1000)

#: How many draws of the weights are run at once.
DRAWS = 64

#: What is looked into for where the time goes.
PROFILE_CASES = (
    Case("rnn", 1, 32, 100),
    Case("lstm", 1, 32, 100),
    Case("gru", 1, 32, 100),
    # The other hand-written loops: over so few steps, what a run costs beside its loops shows.
    *(Case(cell, 1, 32, 100, overrides=overrides) for cell, overrides in HAND_WRITTEN_CELLS[4:]),
    Case("rnn", 1, 64, 1000),
    Case("lstm", 1, 64, 1000),
    Case("gru", 1, 64, 1000),
    Case("indrnn", 1, 64, 1000, overrides=dict(HAND_WRITTEN_CELLS)["indrnn"]),
    Case("rnn-lags", 1, 64, 1000),
    Case("lstm", 32, 128, 200),
    Case("lstm", 32, 256, 1000),
    Case("lstm", 64, 512, 200),
    Case("rnn", 1, 32, 100, trials=DRAWS),
    Case("lstm", 1, 32, 100, trials=DRAWS),
)
QUICK_PROFILE_CASES = (Case("lstm", 2, 8, 12), Case("rnn", 1, 8, 12, trials=DRAWS))


@dataclass(frozen=True)
class Numbers:
    """The numbers of a case with one trial: parameters by name, initial states (H, B), input x (T, I, B)."""

    parameters: dict[str, Array]
    initial: dict[str, Array]
    x: Array


@dataclass(frozen=True)
class _Held:
    """An input that is held in memory, as the peers hold theirs: x is (T, R, I, B)."""

    x: Array

    def fill(self, start: int, stop: int) -> Array:
        return self.x[start:stop]


class Ours:
    """One engine on a case, built once; build_seconds is what that took, from the spec's text on."""

    def __init__(self, case: Case, engine: str) -> None:
        self.name = engine
        use(engine)
        start = perf_counter()
        problem = case.problem()
        drawn = perf_counter()
        x = problem.source.fill(0, case.seq_len).astype(problem.dtype, copy=False)
        held = replace(problem, source=_Held(x))
        filled = perf_counter()
        self.engine = Engine(held)
        self.engine._group(0).passes(parameters=False)  # the programs, which the first run would make otherwise
        self.build_seconds = perf_counter() - start - (filled - drawn)
        self.numbers = Numbers(
            {name: value[0].astype(problem.dtype) for name, value in problem.parameters[0].items()},
            {name: value[0].astype(problem.dtype) for name, value in problem.initial[0].items()},
            x[:, 0],
        )

    def norms_only(self) -> Run:
        """Run for the norms at every distance."""
        use(self.name)
        return self.engine.run(parameters=False)

    def with_parameters(self) -> Run:
        """Run for the norms at every distance and the parameter gradients."""
        use(self.name)
        return self.engine.run()

    def log2_norms(self) -> dict[str, Array]:
        """Return log2 of the norm of dL/ds_t of each state, (T+1, B), by step t."""
        run = self.norms_only()
        return {name.partition(".")[2]: log2[:, 0] for name, log2 in run.log2_norm.items()}

    def norms(self) -> dict[str, Array]:
        """Return the norm of dL/ds_t of each state, (T+1, B), by step t."""
        return {name: np.exp2(log2) for name, log2 in self.log2_norms().items()}


@lru_cache(maxsize=4)  # rows of the same case follow one another; more would keep large tapes alive
def ours(case: Case, engine: str) -> Ours:
    """Return an engine on a case, built at the first call."""
    return Ours(case, engine)


def engines_on(case: Case) -> dict[str, Ours]:
    """Return every engine that is there on a case, by name."""
    return {engine: ours(case, engine) for engine in there()}
