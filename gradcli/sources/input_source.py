"""What every input of a run gives: x[1], ..., x[T], one segment of steps at a time.

Arrays are feature-major with the batch last, (steps, trials, size, batch), because a step computes W @ x with the
sequences as columns.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import replace

import numpy as np

from gradcli.sources.cuts import Cut, Extent


class InputSource(ABC):
    """The input of a run.

    size: the number of features of x[t].
    cut: how the sequences were cut from a file; None where no file is read.
    notes: what a user should know of how it was read, one line each.
    """

    def __init__(self, size: int, extent: Extent, *, cut: Cut | None = None, notes: tuple[str, ...] = ()) -> None:
        self.size = size
        self.extent = extent if cut is None else replace(extent, batch_size=cut.batch_size)
        self.cut = cut
        self.notes = notes

    @property
    def lengths(self) -> np.ndarray | None:
        """How many steps each sequence has, (batch,), all of which end at step T; None where all have T."""
        return None if self.cut is None else self.cut.lengths

    @abstractmethod
    def fill(self, start: int, stop: int) -> np.ndarray:
        """Return x[start+1], ..., x[stop]: a new C-contiguous float64 array (steps, trials, size, batch).

        Before a sequence begins, x is zero.
        Neither T nor the bounds of the segments change a value.
        """

    def _new(self, steps: int) -> np.ndarray:
        return np.empty((steps, self.extent.trials, self.size, self.extent.batch_size))


class FirstStepAlone(InputSource):
    """The input of a network in depth: x[1] is that of `source`, and x[2], ..., x[T] are zero."""

    def __init__(self, source: InputSource) -> None:
        super().__init__(source.size, source.extent, cut=source.cut, notes=source.notes)
        self._source = source

    def fill(self, start: int, stop: int) -> np.ndarray:
        x = self._new(stop - start)
        x.fill(0.0)
        if start == 0:
            x[:1] = self._source.fill(0, 1)
        return x


class Backwards(InputSource):
    """The steps of `source` from the last to the first; its sequences all have T steps."""

    def __init__(self, source: InputSource) -> None:
        super().__init__(source.size, source.extent, cut=source.cut, notes=source.notes)
        self._source = source

    def fill(self, start: int, stop: int) -> np.ndarray:
        last = self.extent.seq_len
        return np.ascontiguousarray(self._source.fill(last - stop, last - start)[::-1])


class SymbolSource(InputSource):
    """An input of symbols, as one-hot vectors unless a source says otherwise."""

    @property
    def symbol_count(self) -> int:
        """How many symbols there are: they are numbers in [0, symbol_count)."""
        return self.size

    @abstractmethod
    def symbols(self, start: int, stop: int) -> np.ndarray:
        """Return the symbols of the steps start+1, ..., stop <= T+1: integers (steps, trials, batch).

        Step T+1 is no input; it is the last target of a loss that asks for the next symbol.
        """

    def fill(self, start: int, stop: int) -> np.ndarray:
        x = self._new(stop - start)
        x.fill(0.0)
        np.put_along_axis(x, self.symbols(start, stop)[:, :, np.newaxis, :], 1.0, axis=2)
        return x
