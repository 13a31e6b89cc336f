"""Files of numbers and texts: what is asked of every one of them before it is read."""

from __future__ import annotations

from pathlib import Path

from gradcli.errors import InputFileError, UsageError

MAX_SERIES_BYTES = 2**30
MAX_TEXT_BYTES = 2**28


class FieldError(UsageError):
    """A key of the spec that does not suit the file that it speaks of.

    path: the trail of keys below the block that names the file; () where the block as a whole is meant.
    """

    def __init__(self, message: str, *path: str | int) -> None:
        super().__init__(message)
        self.path = path


def require_file(path: Path, name: str, max_bytes: int) -> None:
    """Raise InputFileError unless there is a regular file of at most `max_bytes`, and something in it."""
    try:
        # A pipe or a device could wait for ever, and cannot be read twice.
        is_file, size = path.is_file(), path.stat().st_size
    except FileNotFoundError:
        raise InputFileError(f"{name}: no such file (paths are relative to the spec's folder)") from None
    except (OSError, ValueError) as error:
        raise InputFileError(unreadable(name, error)) from None
    if not is_file:
        raise InputFileError(f"{name}: not a regular file")
    if size == 0:
        raise InputFileError(f"{name}: the file is empty")
    require_bytes(size, name, max_bytes)


def require_bytes(size: int, name: str, max_bytes: int) -> None:
    """Raise InputFileError where `size` is more than `max_bytes`."""
    if size > max_bytes:
        raise InputFileError(
            f"{name}: {size / 2**20:,.0f} MiB is more than the {max_bytes / 2**20:,.0f} MiB that are accepted; "
            "cut out the part that is needed"
        )


def unreadable(name: str, error: Exception) -> str:
    """Return what to say of a file that the system does not let be read."""
    reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return f"{name}: cannot be read: {reason}"


def not_utf8(name: str, error: UnicodeDecodeError) -> str:
    """Return what to say of a text that is not UTF-8."""
    return f"{name}: is not UTF-8 text: byte {error.object[error.start]:#04x} at offset {error.start}"
