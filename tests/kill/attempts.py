"""One attempt to make gradcli leave half a file behind: a command and what ends it; then what is in the folder."""

from __future__ import annotations

import contextlib
import os
import random
import re
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

import gradcli
from gradcli.errors import ExitCode

ROOT = Path(gradcli.__file__).parents[1]
#: The signals that end a run, as a terminal, a scheduler or the system sends them; none can tidy up after KILL.
SIGNALS = {name: signal.Signals[f"SIG{name}"] for name in ("INT", "TERM", "HUP", "KILL")}
_TEMPORARY = ".gradcli-"
_LONGEST_SECONDS = 120.0
#: Signs on standard error of an end that was not an orderly one.
_DISORDER = ("Traceback", "Exception ignored", "internal error")
#: A line of a traceback that is within gradcli, and not in the few lines before it can answer a signal.
_WITHIN = re.compile(r"/gradcli/(?!__main__\.py\", line \d+, in <module>)")

Process = subprocess.Popen[str]


@dataclass(frozen=True)
class Command:
    """A command line that writes files of these names, and no others, into the folder in which it runs.

    before: what stands under the names of its outputs in half of the attempts.
    """

    arguments: tuple[str, ...]
    outputs: tuple[str, ...]
    before: bytes = b"what was there before\n"

    def start(self, folder: Path, limit: int | None = None) -> Process:
        """Start it in a group of its own, as a shell does; with `limit`, no file can grow beyond so many bytes."""
        most = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
        return subprocess.Popen(
            [sys.executable, "-m", "gradcli", *self.arguments],
            cwd=folder,
            env={**os.environ, "PYTHONPATH": str(ROOT), "LC_ALL": "C.UTF-8"},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
            preexec_fn=None if limit is None else lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, most)),
        )


@dataclass(frozen=True)
class Whole:
    """What an undisturbed run writes, byte for byte, and the seconds that it takes."""

    files: Mapping[str, bytes]
    seconds: float

    @property
    def largest(self) -> int:
        """The bytes of its largest file."""
        return max(map(len, self.files.values()))


@dataclass(frozen=True)
class Outcome:
    """How an attempt ended.

    code: of the process; minus the signal's number where the system ended it. kept, whole: how many final files are as
    they were before, and as an undisturbed run writes them. left: temporary files. faults: what must not be.
    """

    code: int
    kept: int
    whole: int
    left: int
    faults: tuple[str, ...]


@dataclass(frozen=True)
class Ending:
    """What ends a run: an act on the running process, the exit codes that it may give, whether all is tidied up."""

    act: Callable[[Process, Path], None]
    codes: Collection[int]
    tidy: bool = True


def undisturbed(command: Command, folder: Path) -> Whole:
    """Return what the command writes when nothing ends it; raises where two runs of it differ or one fails."""
    found: list[dict[str, bytes]] = []
    for _ in range(2):
        _lay_out(command, folder, old=False)
        began = time.monotonic()
        with command.start(folder) as process:
            _, errors = process.communicate(timeout=_LONGEST_SECONDS)
        seconds = time.monotonic() - began
        if process.returncode != 0:
            raise RuntimeError(f"{command.arguments} ends with {process.returncode}: {errors}")
        found.append({path.name: path.read_bytes() for path in folder.iterdir()})
    if found[0] != found[1] or sorted(found[0]) != sorted(command.outputs):
        raise RuntimeError(f"{command.arguments} writes {sorted(found[0])}, or not the same twice")
    return Whole(found[0], seconds)


def at_any_moment(name: str, whole: Whole, rng: random.Random) -> Ending:
    """Return the signal of this name at a moment of the run, each as likely as any other."""
    delay = rng.uniform(0.0, 1.05 * whole.seconds)

    def act(process: Process, folder: Path) -> None:
        time.sleep(delay)
        _send(process, name)

    return Ending(act, _codes(name), tidy=name != "KILL")


def while_it_writes(names: Collection[str], rng: random.Random) -> Ending:
    """Return the signals of these names, one after the other, some milliseconds after a file has been begun."""
    delays = [rng.expovariate(1 / 0.003) for _ in names]

    def act(process: Process, folder: Path) -> None:
        _wait_for_writing(process, folder)
        for delay, name in zip(delays, names, strict=True):
            time.sleep(delay)
            _send(process, name)

    return Ending(act, {code for name in names for code in _codes(name)}, tidy="KILL" not in names)


#: What a run without space for its files comes to by itself.
OUT_OF_SPACE = Ending(lambda process, folder: None, (ExitCode.DONE, ExitCode.INPUT_FILE))


def attempt(
    command: Command,
    whole: Whole,
    ending: Ending,
    folder: Path,
    *,
    old: bool,
    limit: int | None = None,
    prepare: Callable[[], object] = lambda: None,
) -> Outcome:
    """Run the command, end it, and look at what it leaves in the folder.

    old: whether its outputs are there before. limit: bytes beyond which no file can grow. prepare: what else is to be
    done when the folder is as the run will find it.
    """
    _lay_out(command, folder, old)
    prepare()
    with command.start(folder, limit) as process:
        ending.act(process, folder)
        _, errors = process.communicate(timeout=_LONGEST_SECONDS)
    found = {path.name: path.read_bytes() for path in folder.iterdir()}
    before = command.before if old else None
    finished = [name for name in command.outputs if found.get(name) == whole.files[name]]
    kept = [name for name in command.outputs if found.get(name) == before]
    left = [name for name in found if name.startswith(_TEMPORARY)]

    faults = [f"{name} is left" for name in found if name not in command.outputs and (ending.tidy or name not in left)]
    faults += [f"{name} is neither old nor whole" for name in command.outputs if name not in {*finished, *kept}]
    if not _is_pythons_own_start(errors):
        faults += [f"{sign!r} in {errors.strip()!r}" for sign in _DISORDER if sign in errors]
        if process.returncode not in ending.codes:
            faults.append(f"exit code {process.returncode}: {errors.strip()!r}")
    if process.returncode == 0 and len(finished) < len(command.outputs):
        faults.append("exit code 0 without all files")
    return Outcome(process.returncode, len(kept), len(finished), len(left), tuple(faults))


def _is_pythons_own_start(errors: str) -> bool:
    """Tell whether Ctrl-C came while Python itself was starting, which has a traceback for it."""
    return errors.rstrip(": \n").endswith("KeyboardInterrupt") and _WITHIN.search(errors) is None


def _codes(name: str) -> set[int]:
    number = SIGNALS[name]
    # Minus the number: before the first lines of gradcli, and where nothing can be caught.
    return {0, 128 + number, -number}


def _send(process: Process, name: str) -> None:
    with contextlib.suppress(ProcessLookupError):  # it has come to its end
        os.killpg(process.pid, SIGNALS[name])


def _wait_for_writing(process: Process, folder: Path) -> None:
    """Return when a temporary file is there that is not empty, or the process has ended."""
    while process.poll() is None:
        for path in folder.glob(f"{_TEMPORARY}*"):
            with contextlib.suppress(FileNotFoundError):
                if path.stat().st_size:
                    return


def _lay_out(command: Command, folder: Path, old: bool) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    if old:
        for name in command.outputs:
            (folder / name).write_bytes(command.before)
