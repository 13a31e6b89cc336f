"""What goes into a run of the engine, and what comes out of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import numpy as np

from gradcli.engine.loss import Loss
from gradcli.engine.plan import LayerPlan
from gradcli.engine.scaled import Scaled
from gradcli.engine.sizes import Sizes

Array = np.ndarray[Any, Any]

READOUT = "readout"

UNLIMITED = 2**62

#: Told how far a pass over the sequence is: its name, the steps done, the steps in all.
Progress = Callable[[str, int, int], None]


class Input(Protocol):
    """Where x comes from: `fill(start, stop)` gives x[start+1..stop] as (n, R, size, B)."""

    def fill(self, start: int, stop: int) -> Array: ...


@dataclass(frozen=True)
class Problem:
    """All that a run needs.

    plans: one a layer. parameters: one table a layer, name -> (R, ...), or (R, T, ...) where they are not `tied`.
    initial: one table a layer, state -> (R, size, B).
    tied: whether all steps share their parameters; if not, each has its own, and the recurrence is a network in depth.
    tape_bytes: the most memory that what is kept of the forward pass for the backward pass may take, about.
    """

    plans: Sequence[LayerPlan]
    parameters: Sequence[Mapping[str, Array]]
    initial: Sequence[Mapping[str, Array]]
    source: Input
    loss: Loss
    seq_len: int
    trials: int
    batch_size: int
    dtype: np.dtype[Any] = field(default_factory=lambda: np.dtype(np.float64))
    tape_bytes: int = UNLIMITED
    tied: bool = True

    @property
    def sizes(self) -> Sizes:
        item = self.dtype.itemsize
        return Sizes(self.plans, self.seq_len, self.trials, self.batch_size, item, self.tape_bytes, self.tied)

    def of_trials(self, first: int, last: int, *, source: Input, parameters: Sequence[Mapping[str, Array]]) -> Problem:
        """Return the problem of the trials first .. last-1 alone; `source` gives their input, `parameters` are all."""
        if (first, last) == (0, self.trials):
            return replace(self, source=source, parameters=parameters)

        def part(tables: Sequence[Mapping[str, Array]]) -> list[dict[str, Array]]:
            return [{name: value[first:last] for name, value in table.items()} for table in tables]

        return replace(
            self,
            source=source,
            parameters=part(parameters),
            initial=part(self.initial),
            loss=self.loss.of_trials(first, last),
            trials=last - first,
        )

    @property
    def names(self) -> list[str]:
        return [f"layer{i}" for i in range(len(self.plans))]


@dataclass
class Overflow:
    """Where a number stopped being finite: forward at `step`, in `layer`; `trials` tells in which trials."""

    step: int
    layer: int
    trials: Array


class ForwardOverflow(ArithmeticError):
    """A walk over a trajectory that is not finite: `overflow` tells where."""

    def __init__(self, overflow: Overflow) -> None:
        super().__init__(f"not finite at step {overflow.step}")
        self.overflow = overflow


@dataclass
class Recording:
    """Everything that `--save` wants, kept only on request. Layer and state name -> array.

    states: (T+1, R, size, B). adjoints: mantissas of the same shape, with log2 (T+1, R, B).
    """

    states: dict[str, Array]
    adjoints: dict[str, Array]
    exponents: dict[str, Array]
    x: Array


@dataclass
class Run:
    """What a run gave.

    losses: (R, B). log2_norm: "layer0.h" -> (T+1, R, B), log2 of the norm of dL/ds_t, by step t; -inf for exact zeros.
    gradients: "layer0.W_hh" -> gradient of the batch loss, by trial; of the shape of the parameters.
    overflow: set where the forward pass was not finite; then there are no gradients. backward_overflow likewise.
    """

    losses: Array
    log2_norm: dict[str, Array]
    gradients: dict[str, Scaled]
    overflow: Overflow | None = None
    backward_overflow: Overflow | None = None
    recording: Recording | None = None
