"""Targets from files: aligned with the sequences of the input, and cut as these are."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from gradcli.errors import UsageError
from gradcli.sources.arrays import read_array
from gradcli.sources.axes import sequences_first
from gradcli.sources.cuts import Cut
from gradcli.sources.input_source import InputSource
from gradcli.spec.losses import FileTarget


class TargetError(UsageError):
    """A target that does not suit the input or the classes of the run."""


def read_classes(
    target: FileTarget, folder: Path, input_source: InputSource, steps: np.ndarray, classes: int
) -> np.ndarray:
    """Return the class of every sequence at `steps`, counted from 1: int64 (len(steps), batch), below `classes`.

    The file has one label for each sequence, or one for each step of each; beside windows of one long recording, one
    for each of its steps.

    Raises TargetError for another shape and for a label that is no class, InputFileError for an unreadable file.
    """
    array = read_array(folder / target.path, target.path, key=target.key)
    array = sequences_first(array, target.layout, target.path, 2)
    if array.ndim == 2 and array.shape[1] == 1:
        array = array[:, 0]  # the only column of a CSV
    cut = _cut_of(input_source)
    by_sequence = cut.starts is None and array.ndim == 1
    _require_shape(array, target.path, input_source, ())
    found, absent = _taken(array, cut, steps, by_sequence=by_sequence)
    wrong = ((found < 0) | (found >= classes) | (found != np.floor(found))) & ~absent
    if wrong.any():
        step, sequence = np.unravel_index(int(np.argmax(wrong)), wrong.shape)
        place = f"sequence {sequence + 1}" + ("" if by_sequence else f", step {steps[step]}")
        raise TargetError(
            f"{target.path}: {place}: expected a class, with {classes} classes a whole number from 0 to {classes - 1};"
            f" got {found[step, sequence].item()}"
        )
    return np.where(absent, 0, found).astype(np.int64)


def read_values(
    target: FileTarget,
    folder: Path,
    input_source: InputSource,
    steps: np.ndarray,
    size: int,
    *,
    probabilities: bool = False,
) -> np.ndarray:
    """Return the target of every sequence at `steps`, counted from 1: float64 (len(steps), size, batch).

    The file has `size` numbers for each sequence, or as many for each step of each; beside windows of one long
    recording, as many for each of its steps. A size of 1 needs no axis of its own.

    probabilities: whether the numbers are to lie from 0 to 1.

    Raises as `read_classes` does.
    """
    array = read_array(folder / target.path, target.path, key=target.key)
    array = sequences_first(array, target.layout, target.path, 3)
    cut = _cut_of(input_source)
    if array.ndim == 1 or (size == 1 and array.ndim == 2 and array.shape == cut.shape and array.shape[1] > 1):
        array = array[..., np.newaxis]
    by_sequence = cut.starts is None and array.ndim == 2
    _require_shape(array, target.path, input_source, (size,))
    found, absent = _taken(array, cut, steps, by_sequence=by_sequence)
    good, wanted = np.isfinite(found), "a finite number"
    if probabilities:
        good, wanted = (found >= 0) & (found <= 1), "a number from 0 to 1"
    wrong = ~good & ~absent[:, :, np.newaxis]
    if wrong.any():
        step, sequence, column = np.unravel_index(int(np.argmax(wrong)), wrong.shape)
        place = f"sequence {sequence + 1}, " + ("" if by_sequence else f"step {steps[step]}, ")
        raise TargetError(
            f"{target.path}: {place}column {column + 1}: expected {wanted}; got {found[step, sequence, column]}"
        )
    values = np.where(absent[:, :, np.newaxis], 0.0, found).astype(np.float64)
    return np.ascontiguousarray(values.transpose(0, 2, 1))


def _cut_of(source: InputSource) -> Cut:
    """Return how the sequences of an input were cut; of one that is drawn, one recording for each."""
    extent = source.extent
    return source.cut or Cut((extent.batch_size, extent.seq_len), extent.seq_len, extent.batch_size)


def _taken(array: np.ndarray, cut: Cut, steps: np.ndarray, *, by_sequence: bool) -> tuple[np.ndarray, np.ndarray]:
    """Return what an array has at steps, counted from 1, (len(steps), batch, ...), and where no sequence has begun."""
    if by_sequence:
        found = np.broadcast_to(array[: cut.batch_size], (len(steps), cut.batch_size, *array.shape[1:]))
    else:
        found = cut.take(array, steps - 1)
    return found, cut.absent(steps - 1)


def _require_shape(array: np.ndarray, name: str, source: InputSource, entry: tuple[int, ...]) -> None:
    """Raise TargetError unless there is one entry, of shape `entry`, for each sequence, step, or both, of the input."""
    cut = _cut_of(source)
    if cut.starts is not None:
        fitting = [(*cut.shape, *entry)]
        what = f"for each of the {cut.shape[0]} steps of the file that is the input"
    else:
        fitting = [(cut.shape[0], *entry), (*cut.shape, *entry)]
        what = f"for each of {cut.shape[0]} sequences, or for each of their {cut.shape[1]} steps"
    if array.shape not in fitting:
        kind = f"{entry[0]} numbers" if entry else "a label"
        shapes = " or ".join(str(shape) for shape in fitting)
        turned = array.ndim > 1 and (array.shape[1], array.shape[0], *array.shape[2:]) in fitting
        hint = "; with its steps first it fits: say layout: time_first" if turned else ""
        raise TargetError(f"{name}: expected {kind} {what}: an array {shapes}; got shape {array.shape}{hint}")
