"""What can go wrong, as a user meets it: every error carries its text and the exit code of the process."""

from __future__ import annotations

import copyreg
import signal
from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Any


class ExitCode(IntEnum):
    """The exit codes that scripts rely on."""

    DONE = 0
    INTERNAL = 1
    USAGE = 2
    GATE = 3
    INPUT_FILE = 4
    RESOURCE = 5
    INTERRUPTED = 130


#: The signals that ask a process to end, and what it then returns: 128 + number, as shells have it.
ENDED_BY: dict[int, int] = {signal.SIGINT: ExitCode.INTERRUPTED} | {
    number: 128 + number
    for name in ("SIGTERM", "SIGHUP", "SIGXCPU")
    if (number := getattr(signal, name, None)) is not None
}


class GradcliError(Exception):
    """An error whose text is meant for the user, without a traceback."""

    exit_code: ExitCode = ExitCode.INTERNAL

    def __reduce__(self) -> tuple[Any, ...]:
        # Sent to another process, an error is put together of its text and attributes: others than the text are no
        # arguments of every kind's `__init__`.
        return copyreg.__newobj__, (type(self), *self.args), self.__dict__  # type: ignore[attr-defined]


class UsageError(GradcliError):
    """An option or argument that makes no sense."""

    exit_code = ExitCode.USAGE


class InputFileError(GradcliError):
    """A file that cannot be read, or that was refused."""

    exit_code = ExitCode.INPUT_FILE


class OutputError(GradcliError):
    """A file, or standard output, that cannot be written: like an input file, something to mend outside of gradcli."""

    exit_code = ExitCode.INPUT_FILE


class ResourceError(GradcliError):
    """Work that would take more memory or time than allowed."""

    exit_code = ExitCode.RESOURCE


@dataclass(frozen=True, order=True)
class Problem:
    """One mistake in a spec: where it is, and what is wrong.

    `line` and `column` count from 1; 0 means that the place is not known (an option of the command line, say).
    `path` is the trail of keys to the value, such as ``init.W_hh.normal.std``; it may be empty.
    """

    source: str
    line: int
    column: int
    path: str
    message: str

    def __str__(self) -> str:
        place = f"{self.source}:{self.line}:{self.column}" if self.line else self.source
        return ": ".join(part for part in (place, self.path, self.message) if part)


class SpecError(GradcliError):
    """A spec with mistakes, one a line, in the order of the file; the text has the first `LISTED` of them."""

    exit_code = ExitCode.USAGE
    LISTED = 50

    def __init__(self, problems: Sequence[Problem]) -> None:
        self.problems = tuple(sorted(set(problems)))
        lines = [str(problem) for problem in self.problems[: self.LISTED]]
        more = len(self.problems) - len(lines)
        super().__init__("\n".join([*lines, f"and {more:,} more"] if more else lines))


def did_you_mean(word: str, choices: Sequence[str]) -> str:
    """Return "; did you mean 'x'?" where a near name exists, else an empty string."""
    from difflib import get_close_matches

    near = get_close_matches(word, choices, n=1, cutoff=0.6)
    return f"; did you mean {near[0]!r}?" if near else ""
