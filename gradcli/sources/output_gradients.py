"""The gradient that enters the output at every step, where it is given: from a file, or as an array."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from gradcli.sources.arrays import array_of
from gradcli.sources.axes import sequences_first
from gradcli.sources.cuts import Cut
from gradcli.sources.files import FieldError
from gradcli.sources.input_source import InputSource
from gradcli.spec.losses import GivenLoss

_BLOCK_ENTRIES = 2**20


class OutputGradient:
    """dL/dy[t] for each sequence, the same in all trials; the array is read as it is asked for, and not copied.

    steps: at which any of it is not zero, counted from 1, ascending; T where it is zero throughout.
    size: of the output.

    Args:
        array: (sequences, T, size). cut: where the steps of the sequences stand in it.

    Raises:
        FieldError: a number that is not finite.
    """

    def __init__(self, array: np.ndarray, cut: Cut) -> None:
        self._array, self._cut = array, cut
        self.size: int = array.shape[2]
        entering = np.zeros(cut.seq_len, dtype=bool)
        length = max(1, _BLOCK_ENTRIES // (cut.batch_size * self.size))
        for start in range(0, cut.seq_len, length):
            steps = np.arange(start + 1, min(start + length, cut.seq_len) + 1)
            block = self.at(steps)
            finite = np.isfinite(block)
            if not finite.all():
                step, output, sequence = np.unravel_index(int(np.argmin(finite)), block.shape)
                raise FieldError(
                    f"sequence {sequence + 1}, step {steps[step]}, output {output + 1}: expected a finite number;"
                    f" got {block[step, output, sequence]}",
                    "file",
                )
            entering[steps - 1] = block.any(axis=(1, 2))
        self.steps = np.flatnonzero(entering) + 1 if entering.any() else np.asarray([cut.seq_len])

    def at(self, steps: np.ndarray) -> np.ndarray:
        """Return dL/dy at steps counted from 1: float64 (len(steps), size, batch); zero before a sequence begins."""
        with np.errstate(over="ignore"):  # a longer float than float64 may be beyond it
            return self._cut.take(self._array, steps - 1).transpose(0, 2, 1).astype(np.float64)


def open_output_gradient(loss: GivenLoss, folder: Path, source: InputSource, output_size: int) -> OutputGradient:
    """Return the gradient that a loss gives: (sequences, T, output size), or (T, output size) of a single sequence.

    Step t is step t of the run. Of sequences of different lengths each one's own steps come first, as in the input.

    Raises FieldError for another shape, for numbers that are not finite, and for a key or layout that it has not;
    InputFileError for a file that cannot be read.
    """
    extent = source.extent
    array = sequences_first(array_of(loss.file, folder, key=loss.key), loss.layout, str(loss.file), 3)
    if array.ndim == 2 and extent.batch_size == 1:
        array = array[np.newaxis]
    wanted = (extent.batch_size, extent.seq_len, output_size)
    if array.shape != wanted:
        turned = array.ndim == 3 and (array.shape[1], array.shape[0], array.shape[2]) == wanted
        hint = "; with its steps first it fits: say layout: time_first" if turned else ""
        raise FieldError(
            f"expected an array {wanted}: sequences, steps, outputs; got shape {array.shape}{hint}", "file"
        )
    cut = Cut(wanted[:2], extent.seq_len, extent.batch_size)
    return OutputGradient(array, cut if source.lengths is None else replace(cut, lengths=source.lengths))
