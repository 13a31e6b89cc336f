"""gradcli with a session that computes nothing: results as the tests ask for them, through the real command line.

Run as ``python fake_session.py MODE ARGUMENTS...``. MODE is "echo" (a report that says what the session was asked for),
a comma-separated list of verdict kinds, or an error to be raised.
"""

from __future__ import annotations

import hashlib
import os
import signal
import sys
import time
from dataclasses import dataclass
from types import ModuleType
from typing import Any, BinaryIO

from gradcli import __main__
from gradcli.errors import InputFileError, Problem, ResourceError, SpecError
from gradcli.results.model import Column, Line, Records, Report, Table, envelope

BIG = "big"


@dataclass
class FakeResult:
    report: Report
    verdicts: list[tuple[str, str]]

    def save(self, file: BinaryIO) -> None:
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
        Report(
            what, [[Line("it is × fine", "STABLE", "good")], [table]], envelope(what) | asked, Records(("n", "i"), rows)
        ),
        [(f"cell{i}", kind) for i, kind in enumerate(kinds)],
    )


def run_simulation(target: str, *, record: bool, progress: Any, outputs: Any, **asked: Any) -> FakeResult:
    return run("simulate", {"target": target, **asked})


def run_comparison(targets: Any, *, record: bool, progress: Any, outputs: Any, **asked: Any) -> FakeResult:
    return run("compare", {"targets": targets, **asked})


if __name__ == "__main__":
    MODE = sys.argv.pop(1)
    module = ModuleType("gradcli.session")
    module.run_simulation = run_simulation  # type: ignore[attr-defined]
    module.run_comparison = run_comparison  # type: ignore[attr-defined]
    sys.modules["gradcli.session"] = module
    sys.exit(__main__.main())
