"""What goes into a run of the engine, and what comes out of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np

from gradcli.engine.loss import Loss
from gradcli.engine.scaled import Scaled
from gradcli.engine.sizes import Sizes
from gradcli.engine.starts import Input, Starts
from gradcli.engine.step.plan import LayerPlan
from gradcli.frozen import frozen

Array = np.ndarray[Any, Any]

READOUT = "readout"

#: What stands behind a layer's name for its reverse direction.
REVERSE = "reverse"

UNLIMITED = 2**62

#: Told how far a pass over the sequence is: its name, the steps done, the steps in all.
Progress = Callable[[str, int, int], None]


def layer_names(count: int, bidirectional: bool) -> list[str]:
    """Return what the layers are called, from the bottom up; of a bidirectional one each direction, forward first.

    >>> layer_names(2, bidirectional=True)
    ['layer0', 'layer0.reverse', 'layer1', 'layer1.reverse']
    """
    directions = ("", f".{REVERSE}") if bidirectional else ("",)
    return [f"layer{i}{direction}" for i in range(count) for direction in directions]


@frozen
class Problem:
    """All that a run needs.

    plans: one a layer. parameters: one table a layer, name -> (R, ...), or (R, T, ...) where they are not `tied`.
    initial: one table a layer, state -> (R, size, B).
    tied: whether all steps share their parameters; if not, each has its own, and the recurrence is a network in depth.
    bidirectional: whether each layer has two directions; each counts as a layer then, in the order of `names`.
    copies: "layer0.b_f" -> how many parameters of the framework's the one here is the sum of, where that is not one: 2
        of PyTorch's bias_ih and bias_hh. Each has the gradient of the sum. 0 of what the framework does not have.
    starts: for sequences of different lengths, aligned at their ends, the step s_b after which each begins, (B,)
        integers: sequence b is the steps s_b+1 .. T, and its initial state stands at step s_b, in the own steps of
        each direction. None where all begin after step 0.
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
    bidirectional: bool = False
    copies: Mapping[str, int] = field(default_factory=dict)
    starts: Array | None = None

    def __post_init__(self) -> None:
        if self.begins is not None and (not self.tied or any(plan.couples_sequences for plan in self.plans)):
            raise ValueError("sequences of different lengths go each by itself, with weights that are tied")
        if self.loss.final and not self.bidirectional:
            raise ValueError("of one direction the final state is that at step T")
        # The loss counts the steps that each sequence has.
        object.__setattr__(self, "loss", self.loss.counted_from(self.starts))

    @cached_property
    def begins(self) -> Starts | None:
        """Where the sequences begin, unless all begin after step 0."""
        return None if self.starts is None or not np.any(self.starts) else Starts(self.starts)

    @cached_property
    def last_losses(self) -> list[tuple[Loss, Sequence[str]]]:
        """The last of the losses alone, and the layers that it is the last one for.

        Distance has a meaning from one loss only: where the loss stands at the step itself, that one rules. A reverse
        direction comes last to the loss at the first position.
        """
        if not self.bidirectional or self.loss.final:
            return [(self.loss.last_alone(), self.names)]
        return [(self.loss.last_alone(), self.names[::2]), (self.loss.first_alone(), self.names[1::2])]

    def entered(self, layers: Sequence[str]) -> Array | None:
        """Return which sequences the last losses for some layers send a gradient into, (B,) booleans.

        None where that is all of them, and also where it is none: then all are alike. Of sequences that are coupled
        each one's state gets a gradient from the losses of all.
        """
        if any(plan.couples_sequences for plan in self.plans):
            return None
        masks = [loss.entered() for loss, of in self.last_losses if not set(layers).isdisjoint(of)]
        known = [mask for mask in masks if mask is not None]
        if len(known) < len(masks):
            return None
        found = np.logical_or.reduce(known)
        return found if found.any() and not found.all() else None

    @property
    def divisor(self) -> int:
        """What a sum over sequences is divided by to belong to the batch loss: B where it is their mean, else 1."""
        return self.batch_size if self.loss.averaged else 1

    @property
    def longest(self) -> int:
        """The number of a sequence that has every step."""
        return 0 if self.begins is None else self.begins.longest

    @property
    def sizes(self) -> Sizes:
        return Sizes(
            self.plans,
            self.seq_len,
            self.trials,
            self.batch_size,
            self.dtype.itemsize,
            self.tape_bytes,
            tied=self.tied,
            whole_sequence=self.bidirectional,
        )

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

    @cached_property
    def names(self) -> list[str]:
        return layer_names(len(self.plans) // (2 if self.bidirectional else 1), self.bidirectional)

    @property
    def top(self) -> int:
        """The index of the top layer; of its two directions that of the forward one."""
        return len(self.plans) - (2 if self.bidirectional else 1)

    def order_of(self, step: int, layer: int, *, backward: bool = False) -> tuple[int, ...]:
        """Return what sorts steps of layers in the order in which a pass comes to them.

        One direction goes step by step through all layers; two directions go layer by layer through all steps.
        """
        sign = -1 if backward else 1
        return (sign * (layer // 2), sign * step, layer) if self.bidirectional else (sign * step, layer)


@dataclass
class Overflow:
    """Where a number stopped being finite: forward at `step`, in `layer`; `trials` tells in which trials.

    Steps of a reverse direction are its own.
    """

    step: int
    layer: int
    trials: Array


class ForwardOverflow(ArithmeticError):
    """A walk over a trajectory that is not finite: `overflow` tells where."""

    def __init__(self, overflow: Overflow) -> None:
        super().__init__(f"not finite at step {overflow.step}")
        self.overflow = overflow


class BackwardOverflow(ArithmeticError):
    """A walk back in which an adjoint is not finite: `overflow` tells where."""

    def __init__(self, overflow: Overflow) -> None:
        super().__init__(f"an adjoint is not finite at step {overflow.step}")
        self.overflow = overflow


@dataclass
class Recording:
    """Everything that `--save` wants, kept only on request. Layer and state name -> array.

    states: (T+1, R, size, B). adjoints: mantissas of the same shape, with log2 (T+1, R, B). x: (T, R, input_size, B).
    NaN, and 0 for log2, at the steps before a sequence's initial state; in x before its first step.
    """

    states: dict[str, Array]
    adjoints: dict[str, Array]
    exponents: dict[str, Array]
    x: Array


@dataclass
class Run:
    """What a run gave.

    losses: (R, B). log2_norm: "layer0.h" -> (T+1, R, B), log2 of the norm of dL/ds_t, by step t; -inf for exact zeros,
    NaN at the steps before a sequence's initial state.
    The steps of a reverse direction are its own, here and in the recording.
    gradients: "layer0.W_hh" -> gradient of the batch loss, by trial; of the shape of the parameters.
    overflow: set where the forward pass was not finite; then there are no gradients. backward_overflow likewise.
    """

    losses: Array
    log2_norm: dict[str, Array]
    gradients: dict[str, Scaled]
    overflow: Overflow | None = None
    backward_overflow: Overflow | None = None
    recording: Recording | None = None
