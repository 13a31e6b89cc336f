"""gradcli with commands that compute nothing: results as the tests ask for them, through the real command line.

Run as ``python fake_commands.py MODE ARGUMENTS...``. MODE is "echo" (a report that says what the command was asked
for), a comma-separated list of verdict kinds, or an error to be raised.
"""

from __future__ import annotations

import hashlib
import os
import signal
import sys
import time
from dataclasses import replace
from functools import wraps
from typing import Any, BinaryIO

from gradcli import __main__
from gradcli.cli import COMMANDS
from gradcli.commands.command import Command
from gradcli.commands.saving import saved
from gradcli.errors import InputFileError, Problem, ResourceError, SpecError
from gradcli.frozen import frozen
from gradcli.results.envelope import envelope
from gradcli.results.model import Column, Line, Records, Report, Table
from gradcli.results.result import Result

BIG = "big"


@frozen(kw_only=True, repr=False)
class FakeResult(Result):
    command = "fake"
    asked: dict[str, Any]
    judged: list[tuple[str, str]]

    @property
    def verdicts(self) -> list[tuple[str, str]]:
        return self.judged

    def _document(self) -> dict[str, Any]:
        return self.asked

    def save_arrays(self, file: BinaryIO) -> None:
        if MODE == "save-fails":
            file.write(b"half")
            raise RuntimeError("broke while saving")
        if MODE in ("save-waits", "save-blocks"):
            file.write(b"half")
            file.flush()
            sys.stderr.write("saving\n")
            if MODE == "save-waits":
                time.sleep(600)
            else:  # one call that like NumPy's lets other threads run, but no handler of a signal, for many minutes
                hashlib.pbkdf2_hmac("sha256", b"", b"", 2**31 - 1)
        file.write(b"arrays")


ERRORS: dict[str, BaseException] = {
    "spec": SpecError([Problem("a.yaml", 3, 1, "seq_len", "must be\x1b[2J 1"), Problem("a.yaml", 1, 2, "", "bad")]),
    "one-mistake": SpecError([Problem("a.yaml", 3, 1, "seq_len", "must be at least 1")]),
    "input": InputFileError("w.npz: not a zip file"),
    "resource": ResourceError("needs 42 GB"),
    "memory": MemoryError(),
    "bug": ZeroDivisionError("boom\x1b[31m"),
    "interrupt": KeyboardInterrupt(),
    "disk": OSError(28, "No space left on device", "somewhere"),
}


def run(what: str, asked: dict[str, Any]) -> FakeResult:
    if MODE in ERRORS:
        raise ERRORS[MODE]
    if MODE == "interrupted":
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(10)
    kinds = MODE.split(",") if MODE.islower() and "-" not in MODE and MODE not in ("echo", BIG) else ["stable"]
    rows = [(f"row │ {i}", i) for i in range(100_000 if MODE == BIG else 3)]
    table = Table([Column("name × kind", "text", keep=9), Column("number", keep=1)], rows)
    return FakeResult(
        shown=Report(what, [[Line("it is × fine", "STABLE", "good")], [table]], records=Records(("n", "i"), rows)),
        asked=envelope(what) | asked,
        judged=[(f"cell{i}", kind) for i, kind in enumerate(kinds)],
    )


def faked(command: Command) -> Command:
    """Return a command that does nothing but what MODE says."""

    @wraps(command.function)
    def function(*, save: str | None = None, progress: Any = None, **asked: Any) -> FakeResult:
        with saved(save) as keep:
            return keep.all_of(run(command.name, asked))

    return replace(command, function=function)


if __name__ == "__main__":
    MODE = sys.argv.pop(1)
    for name in ("simulate", "compare"):
        COMMANDS[name] = faked(COMMANDS[name])
    sys.exit(__main__.main())
