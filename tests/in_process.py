"""gradcli in this process, as the command line runs it: exit code, standard output and standard error apart."""

from __future__ import annotations

import io
import json
import sys
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NoReturn
from unittest.mock import patch

from gradcli.__main__ import main

# The free memory that tests pretend to have, so that what is refused does not depend on the machine.
FREE_MEMORY = 8 * 2**30


@dataclass(frozen=True)
class Finished:
    """What a command left behind."""

    code: int
    stdout: str
    stderr: str

    def refused(self) -> bool:
        """Tell whether the command said what is wrong, did nothing else, and blamed nobody but the user."""
        return self.code in (2, 4, 5) and self.stdout == "" and self.stderr != "" and "Traceback" not in self.stderr

    def report(self) -> dict[str, Any]:
        """Return the JSON on standard output; NaN and Infinity are no JSON."""
        found: dict[str, Any] = json.loads(self.stdout, parse_constant=_not_json)
        return found


def _not_json(constant: str) -> NoReturn:
    raise AssertionError(f"{constant} in JSON")


def _no_remedies(*_: object, **__: object) -> Any:
    from gradcli.diagnostics.remedies import NO_REMEDIES

    return NO_REMEDIES


def gradcli(
    *arguments: object, stdin: str | bytes = "", free_memory: int = FREE_MEMORY, remedies: bool = True
) -> Finished:
    """Run gradcli on these arguments, in the current directory; without `remedies` none are tried, which saves time."""
    given = io.TextIOWrapper(io.BytesIO(stdin.encode() if isinstance(stdin, str) else stdin), "utf-8")
    with TemporaryDirectory() as folder:
        # Files, because the command may ask a stream for its number.
        files = [Path(folder) / name for name in ("stdout", "stderr")]
        with (
            files[0].open("w", encoding="utf-8") as stdout,
            files[1].open("w", encoding="utf-8", errors="backslashreplace") as stderr,
            patch.object(sys, "argv", ["gradcli", *map(str, arguments)]),
            patch.multiple(sys, stdin=given, stdout=stdout, stderr=stderr),
            patch("signal.signal"),
            patch("gradcli.prepare.limits.free_memory", lambda: free_memory),
            nullcontext() if remedies else patch("gradcli.diagnostics.remedies.find_remedies", _no_remedies),
            patch.dict("os.environ", {"NO_COLOR": "1", "COLUMNS": "200"}),
        ):
            code = main()
        return Finished(int(code), *(file.read_bytes().decode() for file in files))
