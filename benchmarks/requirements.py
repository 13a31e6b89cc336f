"""What the ratios have to reach, on float64 with one thread."""

from __future__ import annotations

from dataclasses import dataclass

from benchmarks.cases import Case
from benchmarks.machine import kernels_are_automatic


@dataclass(frozen=True)
class Requirement:
    """The bounds, inclusive, of a figure."""

    least: float | None = None
    most: float | None = None

    def holds(self, value: float) -> bool:
        return (self.least is None or value >= self.least) and (self.most is None or value <= self.most)

    def __str__(self) -> str:
        if self.least is None:
            return f"at most {self.most:g}"
        return f"at least {self.least:g}" if self.most is None else f"{self.least:g} to {self.most:g}"


HAND_WRITTEN = Requirement(most=1.3)
LOG_SCALED = Requirement(most=1.15)
USERS_FILE = Requirement(most=1.1)
DRAWS_AT_ONCE = {"lstm": Requirement(most=20), "rnn": Requirement(most=11)}
COMMAND_TIME = Requirement(least=5)
COMMAND_MEMORY = Requirement(most=0.25)
LONG_RUN_MEMORY_MIB = Requirement(most=60)
LONG_RUN_TIME = Requirement(most=1.2)
JACOBIANS = Requirement(most=1.0)
LINEARITY = Requirement(least=0.95, most=1.05)


def against_cell_loop(case: Case) -> Requirement | None:
    """Return how many times faster than PyTorch's cell loop with retain_grad a case has to be."""
    if case.dtype != "float64":
        return None
    if case.batch_size == 1:
        return Requirement(least=15 if case.cell == "rnn" else 10)
    if case.batch_size >= 32 and case.hidden_size >= 128:
        return Requirement(least=2.5 if kernels_are_automatic() else 1.5)
    return None


def against_grad_of_all_h(case: Case) -> Requirement | None:
    """Return how many times faster than `torch.autograd.grad(loss, hs)` a case has to be."""
    return Requirement(least=7) if case.dtype == "float64" and case.batch_size == 1 else None


def against_products(case: Case) -> Requirement | None:
    """Return how many times the time of the unavoidable products a case may take."""
    large = case.batch_size >= 32 and case.hidden_size >= 256
    return Requirement(most=1.25) if case.dtype == "float64" and large else None
