"""Which steps of a file each sequence of the batch is made of; what stands beside the input is cut in the same way.

All sequences end at step T. One of n < T steps occupies the steps T-n+1, ..., T, and before them there is nothing.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from gradcli.errors import InputFileError, UsageError
from gradcli.frozen import frozen
from gradcli.sources.arrays import read_array
from gradcli.sources.files import FieldError
from gradcli.spec.given import Given
from gradcli.spec.inputs import LENGTHS_ENDINGS, FileInput, TextInput, TokensInput


@frozen
class Extent:
    """How much input a run needs: T steps of `batch_size` sequences in each of `trials` trials.

    batch_given: whether `batch_size` is the user's wish; if not, a file with fewer sequences gives all of them.
    """

    seq_len: int
    batch_size: int
    trials: int
    batch_given: bool = True


@frozen
class Cut:
    """Where the steps of the sequences stand in an array (steps, ...) or (sequences, steps, ...).

    shape: (steps,) or (sequences, steps) of that array.
    seq_len: T.
    starts: (batch,) the step, from 0, at which the window of each sequence starts; None for an array with a row for
        each sequence, of which the batch takes the first ones.
    lengths: (batch,) how many steps each sequence has, 1 to T; None where all have T.
    reverse: whether each sequence goes from its end to its start.
    """

    shape: tuple[int, ...]
    seq_len: int
    batch_size: int
    starts: np.ndarray | None = None
    lengths: np.ndarray | None = None
    reverse: bool = False

    def take(self, array: np.ndarray, steps: np.ndarray) -> np.ndarray:
        """Return what the array has at `steps`, counted from 0: (len(steps), batch, ...); zero where nothing is."""
        places = (self.seq_len - 1 - steps if self.reverse else steps)[:, np.newaxis]
        if self.starts is not None:
            windows: np.ndarray = array[places + self.starts]
            return windows
        if self.lengths is not None and not self.reverse:
            places = np.maximum(places - (self.seq_len - self.lengths), 0)
        taken: np.ndarray = array[np.arange(self.batch_size), places]
        taken[self.absent(steps)] = 0
        return taken

    def absent(self, steps: np.ndarray) -> np.ndarray:
        """Return where a sequence has not begun at `steps`, counted from 0: booleans (len(steps), batch)."""
        if self.lengths is None:
            return np.zeros((len(steps), self.batch_size), dtype=bool)
        return np.asarray(steps[:, np.newaxis] < self.seq_len - self.lengths)


def window_starts(length: int, window: int, batch_size: int, stride: int | None = None) -> np.ndarray:
    """Return where each sequence b of the batch starts: b stride, or spread evenly where there is no stride.

    That is floor(b (length - window) / max(batch_size - 1, 1)): the first window starts at 0, the last one ends at
    `length`.

    >>> window_starts(10, 4, 3)
    array([0, 3, 6])
    >>> window_starts(10, 4, 3, stride=2)
    array([0, 2, 4])
    """
    if stride is not None:
        return np.arange(batch_size) * stride
    return np.arange(batch_size) * (length - window) // max(batch_size - 1, 1)


def cut_windows(
    model: FileInput | TextInput | TokensInput, length: int, extent: Extent, what: str, *, one_more: bool = False
) -> Cut:
    """Return the windows that the batch takes of one long recording.

    Args:
        model: the input. length: the number of steps of the recording.
        what: the steps of the file in the plural, as messages call them.
        one_more: whether the step that follows the last is needed as well, as a target.

    Raises InputFileError where it is too short for one window, FieldError where the stride makes it so for the others.
    """
    window = extent.seq_len + one_more
    _require_steps(length, window, extent.seq_len, str(model.path), what, one_more=one_more)
    starts = window_starts(length, window, extent.batch_size, model.stride)
    if starts[-1] + window > length:
        fitting = (length - window) // int(starts[1]) + 1
        raise FieldError(
            f"{model.path}: {length:,} {what} hold {fitting} window{'s' * (fitting > 1)} of {window}, one beginning"
            f" every {model.stride}, but batch_size is {extent.batch_size}; set batch_size to at most {fitting}, or"
            " make stride or seq_len smaller",
            "stride",
        )
    return Cut((length,), extent.seq_len, extent.batch_size, starts, reverse=_is_reversed(model))


def cut_recordings(
    model: FileInput | TokensInput,
    shape: tuple[int, int],
    extent: Extent,
    folder: Path,
    what: str,
    *,
    one_more: bool = False,
) -> tuple[Cut, np.ndarray]:
    """Return which recordings the batch takes of an array with one for each sequence, and the lengths of all.

    Args:
        model: the input. shape: (sequences, steps) of the array. folder: where relative paths start.
        what, one_more: as for `cut_windows`.

    Raises InputFileError where the recordings are too short, or a file of lengths is not what is asked for; UsageError
    where they are too few, FieldError where a stride is given.
    """
    sequences, steps = shape
    if model.stride is not None:
        raise FieldError(f"{model.path} has a recording for each sequence, of which no windows are cut", "stride")
    if sequences < extent.batch_size and extent.batch_given:
        raise UsageError(
            f"{model.path} holds {sequences} sequences, but batch_size is {extent.batch_size}; "
            f"set batch_size to at most {sequences}, or give an array (steps, features) to cut windows from"
        )
    _require_steps(steps, extent.seq_len + one_more, extent.seq_len, str(model.path), what, one_more=one_more)
    batch_size = min(sequences, extent.batch_size)
    every = _read_lengths(model, folder, sequences, steps, smallest=1 + one_more)
    lengths = np.minimum(every[:batch_size] - one_more, extent.seq_len)
    different = lengths if (lengths < extent.seq_len).any() else None
    return Cut(shape, extent.seq_len, batch_size, None, different, _is_reversed(model)), every


def refuse_lengths(model: FileInput | TokensInput) -> None:
    """Raise FieldError where lengths are given of windows, all of which have T steps."""
    if model.lengths is not None:
        raise FieldError(f"{model.path} is one long recording, whose windows all have seq_len steps", "lengths")


def _is_reversed(model: FileInput | TextInput | TokensInput) -> bool:
    return isinstance(model, FileInput) and model.reverse


def _read_lengths(
    model: FileInput | TokensInput, folder: Path, sequences: int, steps: int, *, smallest: int
) -> np.ndarray:
    """Return the lengths of all recordings of a file, (sequences,); the steps of the file unless they are given."""
    given = model.lengths
    if given is None:
        return np.full(sequences, steps)
    if isinstance(given, list):
        found, start = np.asarray(given), ""
    else:
        path, key = lengths_file(model)
        try:
            found = np.squeeze(read_array(folder / path, path, key=key))
        except FieldError as error:
            raise FieldError(str(error), "lengths") from None  # whose key is not that of the input
        start = f"{path}: " if key is None else f"{path}, array {key!r}: "

    def wrong(message: str, *place: int) -> Exception:
        return FieldError(message, "lengths", *place) if isinstance(given, list) else InputFileError(message)

    if found.shape != (sequences,) and not (found.ndim == 0 and sequences == 1):
        got = f"{len(given)}" if isinstance(given, list) else f"shape {found.shape}"
        raise wrong(f"{start}expected a length for each of {sequences} sequences; got {got}")
    found = np.reshape(found, sequences)
    for index, length in enumerate(found.tolist()):
        if not smallest <= length <= steps or length != int(length):
            least = f" ({smallest}, as the last one is the target of the one before)" if smallest > 1 else ""
            message = f"{start}sequence {index + 1}: expected a whole number from {smallest} to the {steps} steps of"
            raise wrong(f"{message} {model.path}{least}; got {length}", index)
    return found.astype(np.int64)


def lengths_file(model: FileInput | TokensInput) -> tuple[str, str | None]:
    """Return the file in which the lengths stand that the spec names by a text, and the key in it."""
    given = str(model.lengths)
    if given.lower().endswith(LENGTHS_ENDINGS):
        return given, None
    if isinstance(model.path, Given) or not model.path.lower().endswith(".npz"):
        raise FieldError(f"expected a list, or a file that ends in .npy or .csv; got {given!r}", "lengths")
    return model.path, given


def _require_steps(found: int, needed: int, seq_len: int, name: str, what: str, *, one_more: bool) -> None:
    if found < needed:
        longest = seq_len - (needed - found)
        why = "T and the one that follows" if one_more else "one a step"
        remedy = f"set seq_len to at most {longest}, or give a longer file" if longest > 0 else "give a longer file"
        raise InputFileError(f"{name}: {found} {what} found, but seq_len = {seq_len} needs {needed} ({why}); {remedy}")
