"""Sequences of different lengths in one batch, aligned at their ends.

Sequence b occupies the steps s_b + 1 .. T; its initial state stands at step s_b, and before that there is nothing. The
loops over steps know none of this. Between two steps, something happens:

* Forward, after step s_b: the sequence's states are overwritten by its initial ones. Until then the sequence is a copy
  of the longest one, so that whatever is computed for it is as finite as what is computed anyway.
* Backward, at step s_b: its adjoint is that of its initial state, and from there on zero. Whatever meets that zero is
  set to zero as well: the derivatives at steps that a sequence does not have are no numbers to count on.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Protocol

import numpy as np

from gradcli.frozen import frozen

Array = np.ndarray[Any, Any]


class Input(Protocol):
    """Where x comes from: `fill(start, stop)` gives x[start+1..stop] as (n, R, size, B)."""

    def fill(self, start: int, stop: int) -> Array: ...


@frozen
class Start:
    """Sequences that begin within a segment.

    offset: how many steps of the segment come before their first one. sequences: which columns of the layer's arrays.
    history: for each state its values up to there, (lag, R, size, k).
    """

    offset: int
    sequences: Array
    history: Mapping[str, Array]


class Starts:
    """Where the sequences of a batch begin.

    Args:
        steps: s_b of each sequence, (B,) integers, the smallest of them 0.

    Raises:
        ValueError: no sequence begins at step 0.
    """

    def __init__(self, steps: Array) -> None:
        self.steps = np.asarray(steps, dtype=np.int64)
        if self.steps.min() != 0:
            raise ValueError("the longest sequence begins at step 0")
        #: One that is there at every step.
        self.longest = int(np.argmin(self.steps))
        #: The steps after 0 after which one begins, ascending.
        self.later = np.unique(self.steps[self.steps > 0])

    def reaching(self, seq_len: int, among: Array | None = None) -> Array:
        """Return how many sequences reach each distance 0..T back from step T, (T+1,); all, or those of a mask (B,)."""
        lengths = np.sort(seq_len - (self.steps if among is None else self.steps[among]))
        return np.asarray(len(lengths) - np.searchsorted(lengths, np.arange(seq_len + 1)))

    def at(self, step: int) -> Array:
        """Return the sequences that begin after a step."""
        return np.flatnonzero(self.steps == step)

    def missing(self, last: int) -> Array | None:
        """Return the sequences that begin after step `last` or later, and None where there is none."""
        if last > self.later[-1]:
            return None
        return np.flatnonzero(self.steps >= last)

    def last_before(self, step: int) -> int:
        """Return the last step before `step` after which a sequence begins; 0 where there is none."""
        index = int(np.searchsorted(self.later, step))
        return int(self.later[index - 1]) if index else 0

    def within(self, lo: int, hi: int, first: Mapping[str, Array]) -> list[Start]:
        """Return the starts within a segment of the steps lo+1 .. hi.

        Args:
            first: for each state the values before the first step, (lag, R, size, B), zeros before the initial state.
        """
        return [
            Start(int(step) - lo, found, {name: past[..., found] for name, past in first.items()})
            for step in self.later[(self.later >= lo) & (self.later < hi)]
            for found in [self.at(int(step))]
        ]

    def not_yet(self, lo: int, hi: int) -> Array | None:
        """Return which sequences have not begun at the steps lo+1 .. hi, (n, B) booleans; None where all have."""
        if lo >= self.later[-1]:
            return None
        return np.asarray(np.arange(lo, hi)[:, None] < self.steps)

    def filled(self, values: Array, lo: int) -> Array:
        """Return values at the steps lo+1, ..., (n, R, size, B), with those of the longest sequence for the missing."""
        missing = self.not_yet(lo, lo + len(values))
        if missing is None:
            return values
        return np.where(missing[:, None, None], values[..., self.longest, None], values)

    def sharing(self, last: int) -> Iterator[tuple[int, Array]]:
        """Yield each step s after which sequences begin that have the steps up to `last`, with these sequences."""
        for step in (0, *self.later.tolist()):
            if step < last:
                yield step, self.at(step)

    def in_reverse(self, values: Array) -> Array:
        """Return values at the steps 1..T, (T, R, size, B), in the order in which each sequence is read from its end.

        Step k of a sequence is then what was its step T + 1 + s_b - k, so that both orders occupy the steps s_b + 1
        .. T and end at step T. What stands at the steps before is of no meaning.
        """
        last = len(values) - 1
        places = np.minimum(last + self.steps - np.arange(last + 1)[:, None], last)
        return np.take_along_axis(values, places[:, None, None], axis=0)

    def begun(self, first: Mapping[str, Array]) -> dict[str, Array]:
        """Return the values before step 1 of all sequences, (lag, R, size, B): of those to come the longest one's."""
        later = self.steps > 0
        return {name: np.where(later, past[..., self.longest, None], past) for name, past in first.items()}


class FilledInput:
    """An input, with that of the longest sequence where a sequence has not begun."""

    def __init__(self, source: Input, starts: Starts) -> None:
        self._source, self._starts = source, starts

    def fill(self, start: int, stop: int) -> Array:
        return self._starts.filled(self._source.fill(start, stop), start)
