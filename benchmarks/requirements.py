"""What is to be reached: ratios in one run, float64, one thread, the norms at every distance."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

import numpy as np

from benchmarks import of_0_1_0
from benchmarks.cases import Case


class Goal(Enum):
    """What a requirement is a part of: the lines of the table that the results begin with, in its order."""

    CELL_LOOP = "lstm, gru and rnn, 1,32,100 and 1,64,1000, against the PyTorch cell loop with retain_grad, times"
    JAX = "the same against JAX compiled, times"
    MATRICES = "matrix-lstm, gated-deltanet and mamba, 16,64,1000, against JAX compiled, times"
    LARGE = "lstm 32,128,200, 32,256,1000 and 64,512,200 against the cell loop, times"
    PRODUCTS = "B >= 32, H >= 128 against the unavoidable products alone, NumPy's, of theirs"
    USERS_FILE = "a cell given as equations against the same built-in cell, of theirs"
    FLOAT32 = "float32 against float64, times"
    AGREEMENT = "the compiled engine against NumPy's: log10 norms at every distance, largest difference"
    NUMPY = "the NumPy engine against loops by hand, of theirs: no slower than 0.1.0"
    COMMAND_TIME = "the whole command, default and small, against a PyTorch script: time, times"
    COMMAND_MEMORY = "the whole command, default and small, against a PyTorch script: memory, of theirs"
    LONG_COMMAND = "T = 10,000, H 32, B 1: the whole command against its script, times"
    DIAGNOSTICS = "`contributions` and `gates` against `simulate`'s engine time, of theirs"
    PARAMETER_GRADIENTS = "norms and parameter gradients against norms, of theirs"
    LONG_MEMORY = "T = 1,000,000, LSTM, H 32: memory above start-up, MiB"
    LINEARITY = "cost linear in T: its exponent"
    BESIDES = "besides: Jacobians against JAX, a million steps against storing everything, of theirs"


@dataclass(frozen=True)
class Requirement:
    """The bounds, inclusive, of a figure."""

    least: float | None = None
    most: float | None = None
    goal: Goal = Goal.BESIDES

    def holds(self, value: float) -> bool:
        return (self.least is None or value >= self.least) and (self.most is None or value <= self.most)

    def __str__(self) -> str:
        if self.least is None:
            return f"at most {self.most:.3g}"
        return f"at least {self.least:.3g}" if self.most is None else f"{self.least:.3g} to {self.most:.3g}"

    def margin(self, value: float) -> float:
        """Return by how many times a value is within its nearer bound; below 1 it is not."""
        below = np.inf if self.least is None else value / self.least
        return min(below, np.inf if self.most is None or value <= 0 else self.most / value)


#: Of the compiled engine, in log10, at every distance; nothing else may differ, such as what is zero.
AGREEMENT = Requirement(most=1e-11, goal=Goal.AGREEMENT)
#: Both run the same instructions; the rest is what a ratio moves by.
USERS_FILE = Requirement(most=1.05, goal=Goal.USERS_FILE)
COMMAND_TIME = Requirement(least=5, goal=Goal.COMMAND_TIME)
COMMAND_MEMORY = Requirement(most=0.25, goal=Goal.COMMAND_MEMORY)
LONG_COMMAND_TIME = Requirement(least=12, goal=Goal.LONG_COMMAND)
DIAGNOSTICS = Requirement(most=3, goal=Goal.DIAGNOSTICS)
LONG_RUN_MEMORY_MIB = Requirement(most=60, goal=Goal.LONG_MEMORY)
LONG_RUN_TIME = Requirement(most=1.2)
JACOBIANS = Requirement(most=1.0)
MATRIX_STATES = Requirement(least=1.0, goal=Goal.MATRICES)
LINEARITY = Requirement(least=0.95, most=1.05, goal=Goal.LINEARITY)

#: Batch, hidden size, steps: how many times faster than PyTorch's cell loop large cases are to be.
_LARGE = {(32, 128, 200): 2.5, (32, 256, 1000): 2.5, (64, 512, 200): 1.6}
#: And small ones, than the cell loop and than JAX.
_SMALL = {(1, 32, 100): 1.0, (1, 64, 1000): 1.2}


def against_cell_loop(case: Case) -> Requirement | None:
    """Return how many times faster than PyTorch's cell loop with retain_grad a case has to be."""
    if case.dtype != "float64":
        return None
    if case.size in _SMALL:
        return Requirement(least=20 if case.cell == "rnn" else 25, goal=Goal.CELL_LOOP)
    return Requirement(least=_LARGE[case.size], goal=Goal.LARGE) if case.size in _LARGE else None


def against_jax(case: Case) -> Requirement | None:
    """Return how many times faster than JAX's compiled function a case has to be."""
    if case.dtype != "float64" or case.size not in _SMALL:
        return None
    return Requirement(least=_SMALL[case.size], goal=Goal.JAX)


def against_products(case: Case) -> Requirement | None:
    """Return how many times the time of the unavoidable products a case may take."""
    large = case.batch_size >= 32 and case.hidden_size >= 128
    return Requirement(most=1.1, goal=Goal.PRODUCTS) if case.dtype == "float64" and large else None


def parameter_gradients(case: Case) -> Requirement | None:
    """Return the share of the time of norms alone that norms and parameter gradients may take."""
    return Requirement(most=1.4, goal=Goal.PARAMETER_GRADIENTS) if case.dtype == "float64" else None


def float32(case: Case) -> Requirement:
    """Return how many times faster than float64 float32 has to be."""
    return Requirement(least=1.6 if case.batch_size >= 32 else 1.0, goal=Goal.FLOAT32)


def hand_written(case: Case) -> Requirement:
    """Return the share of the time of a loop by hand that the NumPy engine may take: no more than 0.1.0's."""
    return Requirement(most=of_0_1_0.LEEWAY * of_0_1_0.SHARES[case.label], goal=Goal.NUMPY)
