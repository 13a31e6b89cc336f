"""Which axis of a file is time: sequences come first here, steps in PyTorch unless batch_first is asked for."""

from __future__ import annotations

import numpy as np

from gradcli.sources.cuts import Extent
from gradcli.sources.files import FieldError
from gradcli.spec.inputs import Layout

TIME_FIRST: Layout = "time_first"


def sequences_first(array: np.ndarray, layout: Layout | None, name: str, axes: int) -> np.ndarray:
    """Return an array of `axes` axes with its sequences first; one of fewer has no sequences to move.

    Raises FieldError where the layout speaks of an axis that there is not.
    """
    if layout is None or array.ndim > axes:
        return array
    if array.ndim < axes:
        raise FieldError(
            f"{name} has the shape {array.shape}, without an axis of sequences; layout is for {_axes(axes)}", "layout"
        )
    return array.swapaxes(0, 1) if layout == TIME_FIRST else array


def may_be_time_first(shape: tuple[int, ...], extent: Extent) -> str:
    """Return how an array, (sequences, steps, ...) unless its layout is given, was read, if it may be the other way.

    That is where its first axis has T entries and its second has not, or its second as many as the batch asked for and
    its first has not. Empty where nothing speaks for it.
    """
    first, second = shape[:2]
    of_time = first == extent.seq_len != second
    of_batch = extent.batch_given and second == extent.batch_size != first
    return how_read(shape) if of_time or of_batch else ""


def how_read(shape: tuple[int, ...]) -> str:
    """Return how an array was read whose layout is not given, and how it is read the other way."""
    return (
        f"the array {shape} is read as {shape[0]:,} sequences of {shape[1]:,} steps; if it is {_axes(len(shape))},"
        " PyTorch's default, say layout: time_first"
    )


def _axes(axes: int) -> str:
    return "(steps, sequences, features)" if axes == 3 else "(steps, sequences)"
