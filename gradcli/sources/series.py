"""Series and texts from files, checked before their numbers are used.

A series is an array (steps, features), one long recording, or (sequences, steps, features), one recording a sequence.
"""

from __future__ import annotations

import csv
import math
import tokenize
from array import array
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from gradcli.errors import InputFileError

MAX_SERIES_BYTES = 2**30
MAX_TEXT_BYTES = 2**28


def read_series(path: Path, name: str) -> np.ndarray:
    """Return the series of a .csv or .npy file: real numbers, (steps, features) or (sequences, steps, features).

    name: what messages call the file, as the user wrote it.

    A .npy file is mapped, not loaded: only what is used is read. Whether those numbers are finite is for
    `require_finite`; those of a .csv file are.

    Raises InputFileError.
    """
    readers = {".csv": _read_csv, ".npy": _read_npy}
    reader = readers.get(path.suffix.lower())
    if reader is None:
        raise InputFileError(f"{name}: expected a file that ends in {' or '.join(readers)}")
    _require_file(path, name, MAX_SERIES_BYTES)
    return reader(path, name)


def require_finite(series: np.ndarray, name: str, *, rows: int) -> None:
    """Raise InputFileError where one of the first `rows` steps of a series, or of each sequence, is NaN or infinite."""
    if series.dtype.kind != "f":
        return
    block_rows = max(1, 2**20 // series.shape[-1])  # a large file is mapped, and need not fit into memory
    recordings = series if series.ndim == 3 else series[np.newaxis]
    for sequence, recording in enumerate(recordings, start=1):
        for first in range(0, rows, block_rows):
            with np.errstate(over="ignore"):
                block = recording[first : min(first + block_rows, rows)].astype(np.float64)
            finite = np.isfinite(block)
            if not finite.all():
                row, column = np.unravel_index(int(np.argmin(finite)), block.shape)
                place = f"sequence {sequence}, " if series.ndim == 3 else ""
                raise InputFileError(
                    f"{name}: {place}row {first + row + 1}, column {column + 1}: "
                    f"expected a finite number; got {block[row, column]}"
                )


@dataclass(frozen=True)
class Text:
    """A text as symbols. alphabet: its distinct characters, sorted; a symbol is a character's place in it."""

    codepoints: np.ndarray
    alphabet: str
    symbol_of_codepoint: np.ndarray

    def __len__(self) -> int:
        return len(self.codepoints)

    def symbols(self, positions: np.ndarray) -> np.ndarray:
        """Return the symbols at `positions`: integers of the same shape, in [0, len(alphabet))."""
        found: np.ndarray = self.symbol_of_codepoint[self.codepoints[positions]]
        return found


def read_text(path: Path, name: str) -> Text:
    """Return a UTF-8 file as symbols, line ends as they are; a byte order mark is no character.

    Raises InputFileError.
    """
    _require_file(path, name, MAX_TEXT_BYTES)
    try:
        characters = path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputFileError(_not_utf8(name, error)) from None
    except OSError as error:
        raise InputFileError(_unreadable(name, error)) from None
    codepoints = np.frombuffer(characters.encode("utf-32-le"), dtype="<u4")
    occurs = np.zeros(0x110000, dtype=bool)
    occurs[codepoints] = True
    alphabet = "".join(map(chr, np.flatnonzero(occurs)))
    return Text(codepoints, alphabet, np.cumsum(occurs) - 1)


def _require_file(path: Path, name: str, max_bytes: int) -> None:
    try:
        # A pipe or a device could wait for ever, and cannot be read twice.
        is_file, size = path.is_file(), path.stat().st_size
    except FileNotFoundError:
        raise InputFileError(f"{name}: no such file (paths are relative to the spec's folder)") from None
    except (OSError, ValueError) as error:
        raise InputFileError(_unreadable(name, error)) from None
    if not is_file:
        raise InputFileError(f"{name}: not a regular file")
    if size == 0:
        raise InputFileError(f"{name}: the file is empty")
    if size > max_bytes:
        raise InputFileError(
            f"{name}: {size / 2**20:,.0f} MiB is more than the {max_bytes / 2**20:,.0f} MiB that are accepted; "
            "cut out the part that is needed"
        )


def _unreadable(name: str, error: Exception) -> str:
    reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return f"{name}: cannot be read: {reason}"


def _not_utf8(name: str, error: UnicodeDecodeError) -> str:
    return f"{name}: is not UTF-8 text: byte {error.object[error.start]:#04x} at offset {error.start}"


def _read_npy(path: Path, name: str) -> np.ndarray:
    """Map a .npy file, once its header promises real numbers of a fitting shape, all of which the file holds."""
    try:
        with path.open("rb") as file:
            version = np.lib.format.read_magic(file)
            read_header = (
                np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
            )
            shape, _, dtype = read_header(file)
            header_bytes = file.tell()
    except OSError as error:
        raise InputFileError(_unreadable(name, error)) from None
    except (ValueError, TypeError, SyntaxError, tokenize.TokenError, RecursionError, MemoryError) as error:
        reason = str(error).split("\n")[0].rstrip(".") or type(error).__name__
        raise InputFileError(f"{name}: is not a .npy file that NumPy can read: {reason}") from None
    if dtype.kind not in "iuf":
        raise InputFileError(f"{name}: expected real numbers; got an array of {_describe_dtype(dtype)}")
    if not 1 <= len(shape) <= 3:
        raise InputFileError(
            f"{name}: expected an array (steps,), (steps, features) or (sequences, steps, features); got shape {shape}"
        )
    if min(shape) < 1:
        raise InputFileError(f"{name}: the array is empty: its shape is {shape}")
    promised = header_bytes + math.prod(shape) * dtype.itemsize
    if path.stat().st_size < promised:
        raise InputFileError(
            f"{name}: the file is cut short: shape {shape} of {dtype} takes {promised} bytes, "
            f"but it has {path.stat().st_size}"
        )
    try:
        mapped: np.ndarray = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError) as error:
        raise InputFileError(_unreadable(name, error)) from None
    return mapped[:, np.newaxis] if mapped.ndim == 1 else mapped


def _describe_dtype(dtype: np.dtype) -> str:
    kinds = {"b": "booleans", "c": "complex numbers", "O": "Python objects", "U": "strings", "S": "bytes"}
    return kinds.get(dtype.kind, f"dtype {dtype}")


def _read_csv(path: Path, name: str) -> np.ndarray:
    """Read rows of numbers after an optional header line, that is a first line without a number in it."""
    header: list[str] = []
    columns = 0
    values = array("d")
    lines = 0
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.reader(file, strict=True)
            for row in reader:
                if not any(map(str.strip, row)):
                    continue  # an empty line
                if not columns:
                    columns = len(row)
                    if not any(map(_is_number, row)):
                        header = row
                        continue
                if len(row) != columns:
                    raise InputFileError(
                        f"{name}: row {reader.line_num}, column {min(len(row), columns) + 1}: "
                        f"expected {columns} column{'s' * (columns > 1)} as in the first row; got {len(row)}"
                    )
                for column, cell in enumerate(row):
                    values.append(_cell(cell, name, reader.line_num, column, header))
                lines += 1
    except UnicodeDecodeError as error:
        raise InputFileError(_not_utf8(name, error)) from None
    except csv.Error as error:
        raise InputFileError(f"{name}: row {reader.line_num}, column 1: is not CSV: {error}") from None
    except OSError as error:
        raise InputFileError(_unreadable(name, error)) from None
    if not lines:
        raise InputFileError(f"{name}: holds no numbers" + (", only a header line" if header else ""))
    return np.frombuffer(values, dtype=np.float64).reshape(lines, columns)


def _is_number(cell: str) -> bool:
    try:
        _parse(cell)
    except ValueError:
        return False
    return True


def _parse(cell: str) -> float:
    # float() also takes Python's own 1_000 and the digits of every script.
    if "_" in cell or not cell.isascii():
        raise ValueError(cell)
    return float(cell)


def _cell(cell: str, name: str, line: int, column: int, header: list[str]) -> float:
    try:
        number = _parse(cell)
        if math.isfinite(number):
            return number
        expected = "a finite number"
    except ValueError:
        expected = "a number"
    title = f" ({header[column].strip()!r})" if header else ""
    got = repr(cell if len(cell) <= 40 else cell[:40] + "...") if cell.strip() else "an empty cell"
    hint = "; columns are separated by commas" if any(mark in cell for mark in ";\t") else ""
    raise InputFileError(f"{name}: row {line}, column {column + 1}{title}: expected {expected}; got {got}{hint}")
