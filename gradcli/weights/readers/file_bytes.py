"""A file's bytes, read where they are wanted and never beyond its end."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np

from gradcli.errors import InputFileError

Array = np.ndarray[Any, Any]


class FileBytes:
    """An open file. name: what messages call it. size: its bytes, as of now.

    Bytes are read and not mapped: a file that is cut off while it is mapped kills the process.
    """

    def __init__(self, path: Path, name: str) -> None:
        self.name = name
        try:
            self._file = path.open("rb", buffering=0)
            self.size = os.fstat(self._file.fileno()).st_size
        except OSError as error:
            raise self._unreadable(error) from None

    def read(self, start: int, count: int) -> bytes:
        """Return the `count` bytes from `start` on.

        Raises:
            InputFileError: the file ends before them, or cannot be read.
        """
        return self.array(start, count, "u1").tobytes()

    def array(self, start: int, count: int, dtype: str) -> Array:
        """Return `count` entries of a dtype, stored from the byte `start` on; raises as `read` does."""
        if start < 0 or count < 0 or start + count * np.dtype(dtype).itemsize > self.size:
            raise self.cut_off()
        entries = np.empty(count, dtype)
        room = entries.view(np.uint8)
        filled = 0
        try:
            self._file.seek(start)
            while filled < room.size:
                got = self._file.readinto(room[filled:].data)
                if not got:
                    raise self.cut_off()
                filled += got
        except OSError as error:
            raise self._unreadable(error) from None
        return entries

    def close(self) -> None:
        """Let go of the file."""
        self._file.close()

    def cut_off(self) -> InputFileError:
        """Return the error of a file that promises more than it holds."""
        return InputFileError(f"{self.name}: the file is cut off or damaged: it ends before the data that it promises")

    def _unreadable(self, error: OSError) -> InputFileError:
        return InputFileError(f"{self.name}: cannot be read: {error.strerror or error}")
