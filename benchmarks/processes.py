"""Whole processes: how long a command takes from start to end, and the memory that it takes at most."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter

import gradcli
from benchmarks.engines import VARIABLE

ROOT = Path(__file__).parent.parent
_LAUNCHER = Path(__file__).with_name("launch.py")


class ProcessError(Exception):
    """A measured command failed."""


@dataclass(frozen=True)
class Finished:
    """A command that has run: seconds of wall time, and the peak of its resident memory in bytes."""

    seconds: float
    peak_bytes: int


@dataclass(frozen=True)
class LongRun:
    """A run of the engine in a process of its own.

    seconds: of the run alone. start_up_bytes: peak memory after all imports. peak_bytes: at the end.
    curve_bytes: of the norms at every distance, which the run returns.
    """

    seconds: float
    start_up_bytes: int
    peak_bytes: int
    curve_bytes: int

    @property
    def above_start_up_bytes(self) -> int:
        """The memory that the run took, what it returns included."""
        return self.peak_bytes - self.start_up_bytes


@dataclass(frozen=True)
class Imports:
    """A process that told what it imported: its seconds, and those of each module without what that imports itself."""

    seconds: float
    self_seconds: Sequence[tuple[str, float]]


def imports_of(arguments: Sequence[str], engine: str | None = None) -> Imports:
    """Run `python ARGUMENTS` in the checkout's root and return what its imports took; to tell so slows them a little.

    Raises:
        ProcessError: it failed.
    """
    start = perf_counter()
    finished = _finished(["-X", "importtime", *arguments], engine)
    seconds = perf_counter() - start
    # import time: self [us] | cumulative | imported package
    lines = [line.removeprefix("import time:").split("|") for line in finished.stderr.splitlines()]
    found = [(line[2].strip(), line[0].strip()) for line in lines if len(line) == 3]
    return Imports(seconds, [(module, 1e-6 * int(taken)) for module, taken in found if taken.isdecimal()])


def run_process(arguments: Sequence[str], engine: str | None = None) -> Finished:
    """Run `python ARGUMENTS` in the checkout's root; what it prints is thrown away.

    engine: the one that it is to use, if it is gradcli.

    Raises:
        ProcessError: it failed.
    """
    # -I -S: without site and its packages, so that the launcher is smaller than anything that it measures.
    printed = _printed(["-I", "-S", str(_LAUNCHER), sys.executable, *arguments], engine)
    return Finished(**json.loads(printed))


def run_long(seq_len: int, engine: str, *, segment: int | None = None) -> LongRun:
    """Run the LSTM (hidden size 32, batch 1) over so many steps in a new process.

    segment: steps that are stored at once; the engine's choice unless given.

    Raises:
        ProcessError: it failed.
    """
    chosen = [] if segment is None else ["--segment", str(segment)]
    return LongRun(**json.loads(_printed(["-m", "benchmarks.long_run", "--seq-len", str(seq_len), *chosen], engine)))


def _printed(arguments: Sequence[str], engine: str | None) -> str:
    return _finished(arguments, engine).stdout


def _finished(arguments: Sequence[str], engine: str | None) -> subprocess.CompletedProcess[str]:
    """Run a process that keeps its compiled modules, as one does on an ordinary machine."""
    variables = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    if engine is not None:
        variables[VARIABLE] = engine
    # The gradcli that this process has, whether it is installed or this checkout: the extension may be in one of them.
    places = [str(Path(gradcli.__file__).parent.parent), str(ROOT), variables.get("PYTHONPATH", "")]
    variables["PYTHONPATH"] = os.pathsep.join(filter(None, places))
    command = [sys.executable, "-P", *arguments]
    finished = subprocess.run(command, cwd=ROOT, env=variables, capture_output=True, text=True, check=False)
    if finished.returncode:
        raise ProcessError(f"python {' '.join(arguments)}: exit code {finished.returncode}\n{finished.stderr}")
    return finished
