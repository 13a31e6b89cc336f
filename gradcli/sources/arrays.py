"""Arrays of real numbers from .csv, .npy and .npz files."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from gradcli.errors import InputFileError
from gradcli.sources.csv_table import Columns, add_column, column_number, read_csv
from gradcli.sources.files import MAX_SERIES_BYTES, FieldError, require_file, unreadable
from gradcli.spec.given import Given

ENDINGS = (".csv", ".npy", ".npz")
_BLOCK_ENTRIES = 2**20


def read_array(path: Path, name: str, *, key: str | None = None, columns: Columns | None = None) -> np.ndarray:
    """Return the array of a .csv, .npy or .npz file: integers or floats, in their own dtype, that of a .csv as float64.

    A .npy file is mapped, not loaded: only what is used is read.

    Args:
        name: what messages call the file, as the user wrote it.
        key: which array of a .npz; the only one unless given.
        columns: the entries of the last axis to take, by their name in a CSV's header or their number from 1.

    Raises InputFileError, and FieldError where `key` or `columns` do not suit the file.
    """
    ending = path.suffix.lower()
    if ending not in ENDINGS:
        raise InputFileError(f"{name}: expected a file that ends in {', '.join(ENDINGS[:-1])} or {ENDINGS[-1]}")
    if key is not None and ending != ".npz":
        raise FieldError(f"{name} is no .npz, and has no keys", "key")
    require_file(path, name, MAX_SERIES_BYTES)
    if ending == ".csv":
        return read_csv(path, name, columns)
    if ending == ".npy":
        array = _map_npy(path, name)
    else:
        from gradcli.sources.npz import read_npz

        array = read_npz(path, name, key)
    return array if columns is None else _chosen(array, columns, name)


def array_of(file: str | Given, folder: Path, *, key: str | None = None, columns: Columns | None = None) -> np.ndarray:
    """Return the array of a file in `folder`, as a spec names it, or the one that Python gave in its place.

    Raises as `read_array` does.
    """
    if not isinstance(file, Given):
        return read_array(folder / file, file, key=key, columns=columns)
    if key is not None:
        raise FieldError(f"{file} is no .npz, and has no keys", "key")
    array: np.ndarray = file.values
    return array if columns is None else _chosen(array, columns, str(file))


def _chosen(array: np.ndarray, columns: Columns, name: str) -> np.ndarray:
    places: list[int] = []
    for index, column in enumerate(columns):
        if isinstance(column, str):
            raise FieldError(f"the columns of {name} have no names; give their numbers, from 1", "columns", index)
        add_column(places, column_number(column, array.shape[-1] if array.ndim > 1 else 1, name, index), index)
    features = array[..., np.newaxis] if array.ndim == 1 else array
    found: np.ndarray = features[..., places]
    return found


def _map_npy(path: Path, name: str) -> np.ndarray:
    """Map a .npy file, once its header promises real numbers, all of which the file holds."""
    from gradcli.sources.npz import read_header, require_numbers

    try:
        with path.open("rb") as file:
            header = read_header(file, name)
            promised = file.tell() + header.nbytes
    except OSError as error:
        raise InputFileError(unreadable(name, error)) from None
    require_numbers(header, name)
    size = path.stat().st_size
    if size < promised:
        raise InputFileError(
            f"{name}: the file is cut short: shape {header.shape} of {header.dtype} takes {promised} bytes, "
            f"but it has {size}"
        )
    try:
        mapped: np.ndarray = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError) as error:
        raise InputFileError(unreadable(name, error)) from None
    return mapped


def blocks(array: np.ndarray, counts: Sequence[int]) -> Iterator[tuple[int, int, np.ndarray]]:
    """Yield (sequence, first row, rows) of an array (sequences, rows, ...) in parts that fit into memory, as float64.

    counts: how many rows of each sequence, from its start, there are.
    """
    width = max(int(np.prod(array.shape[2:])), 1)
    at_once = max(1, _BLOCK_ENTRIES // width)
    for sequence, count in enumerate(counts):
        for first in range(0, count, at_once):
            with np.errstate(over="ignore"):
                yield sequence, first, array[sequence, first : min(first + at_once, count)].astype(np.float64)


def require_finite(array: np.ndarray, name: str, counts: Sequence[int], *, several: bool) -> None:
    """Raise InputFileError where a used number is NaN or infinite.

    array: (sequences, rows) or (sequences, rows, columns). counts: as for `blocks`.
    several: whether messages tell the sequence.
    """
    if array.dtype.kind != "f":
        return
    for sequence, first, block in blocks(array, counts):
        finite = np.isfinite(block)
        if not finite.all():
            row, *column = np.unravel_index(int(np.argmin(finite)), block.shape)
            place = f"sequence {sequence + 1}, " if several else ""
            place += f"row {first + row + 1}" + "".join(f", column {number + 1}" for number in column)
            raise InputFileError(f"{name}: {place}: expected a finite number; got {block[row, *column]}")
