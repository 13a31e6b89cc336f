"""Fuzz the readers of checkpoints: python -m tests.fuzz.fuzz_readers --reader npz --inputs 100000 --seed 0

Every input is a valid file with one to four mutations, opened and read to the last tensor. It passes where it is
accepted, or refused with exit code 4 or 5 and one printable line that starts with the file's name, within LIMIT_SECONDS
and without asking for more than MEMORY bytes. Anything else is kept (--keep) and ends the run with status 1. The result
goes to tests/fuzz/RESULTS.md. An input depends on --seed and its number alone: --only N runs that one.
"""

from __future__ import annotations

import argparse
import datetime
import gc
import resource
import signal
import sys
import tempfile
import time
import traceback
from collections import Counter
from pathlib import Path
from types import FrameType

import numpy as np

from gradcli.errors import ExitCode, GradcliError
from gradcli.weights.formats import open_checkpoint
from tests.fuzz.mutations import mutated
from tests.fuzz.seeds import SEEDS

LIMIT_SECONDS = 10.0
#: What reading may take on top of what the process has when the run starts.
MEMORY = 256 << 20
RESULTS = Path(__file__).parent / "RESULTS.md"
HEAD = """\
# Results of fuzzing the readers

Written by `python -m tests.fuzz.fuzz_readers`; its docstring says what passes.
`keras_h5` starts a process for every file; `python -m tests.fuzz.fuzz_hdf5` fuzzes what runs in that process, and has
its result in its docstring.

| reader | date | inputs | seed | accepted | refused, exit 4 | refused, exit 5 | faults | slowest input |
|---|---|--:|--:|--:|--:|--:|--:|--:|
"""


class Overtime(BaseException):
    """Not an Exception, so that no reader takes it for a damaged file."""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--reader", choices=sorted(SEEDS), required=True)
    parser.add_argument("--inputs", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", type=int, help="run this input alone, and write no result")
    parser.add_argument("--keep", type=Path, help="a folder for the inputs that fail")
    options = parser.parse_args()
    shared_memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=shared_memory if shared_memory.is_dir() else None) as folder:
        fuzz = Fuzz(options.reader, options.seed, Path(folder), options.keep)
        _limit_memory()
        signal.signal(signal.SIGALRM, _ring)
        numbers = range(options.inputs) if options.only is None else [options.only]
        for number in numbers:
            fuzz.run(number)
            if number % 5000 == 4999:
                print(number + 1, dict(fuzz.outcomes), flush=True)  # noqa: T201
    print(dict(fuzz.outcomes), f"slowest {fuzz.slowest * 1e3:.0f} ms: input {fuzz.slowest_input}")  # noqa: T201
    if options.only is None:
        _record(options.reader, options.inputs, options.seed, fuzz)
    return 1 if fuzz.outcomes["fault"] else 0


class Fuzz:
    """A run over the inputs of one reader. outcomes: how many were accepted, refused (by exit code), and faults."""

    def __init__(self, reader: str, seed: int, folder: Path, keep: Path | None) -> None:
        self.outcomes: Counter[str] = Counter()
        self.slowest, self.slowest_input = 0.0, -1
        self._seed, self._keep = seed, keep
        self._files = SEEDS[reader](folder)
        self._valid = [path.read_bytes() for path in self._files]
        for path in self._files:
            outcome = _outcome(path)
            if outcome != "accepted":
                raise SystemExit(f"the seed {path.name} is not valid: {outcome}")

    def run(self, number: int) -> None:
        rng = np.random.default_rng([self._seed, number])
        which = int(rng.integers(len(self._files)))
        seed_file = self._files[which]
        data = mutated(self._valid[which], self._valid, seed_file.suffix, rng)
        path = seed_file.with_name(f"input-{seed_file.name}")
        path.write_bytes(data)
        start = time.perf_counter()
        signal.setitimer(signal.ITIMER_REAL, LIMIT_SECONDS)
        try:
            outcome = _outcome(path)
        except (Exception, Overtime):
            outcome = "fault"
            print(f"input {number}, of {seed_file.name}:\n{traceback.format_exc()}", file=sys.stderr)  # noqa: T201
            if self._keep:
                self._keep.mkdir(parents=True, exist_ok=True)
                (self._keep / f"{number}-{seed_file.name}").write_bytes(data)
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
        taken = time.perf_counter() - start
        if taken > self.slowest:
            self.slowest, self.slowest_input = taken, number
        self.outcomes[outcome] += 1
        if number % 1000 == 0:
            gc.collect()


def _outcome(path: Path) -> str:
    """Return how a file ends: accepted, or the exit code of what refused it. Raises whatever is a fault."""
    refusals: list[GradcliError] = []
    try:
        with open_checkpoint(path, path.name) as checkpoint:
            for tensor in checkpoint.tensors.values():
                try:
                    values = checkpoint.read(tensor.name)
                except GradcliError as error:
                    refusals.append(error)
                else:
                    assert values.shape == tensor.shape, f"{tensor}: read as {values.shape}"
            for name in (*checkpoint.tensors, *(each.name for each in checkpoint.ignored)):
                assert name.isprintable(), repr(name)
    except GradcliError as error:
        refusals.append(error)
    for refusal in refusals:
        _require_clear(refusal, path.name)
    return f"exit {int(refusals[0].exit_code)}" if refusals else "accepted"


def _require_clear(error: GradcliError, name: str) -> None:
    text = str(error)
    assert error.exit_code in (ExitCode.INPUT_FILE, ExitCode.RESOURCE), repr(error)
    assert text.startswith(f"{name}: "), repr(text)
    assert text.isprintable(), repr(text)
    assert len(text) < 1500, text
    cause: BaseException | None = error
    while cause is not None:
        assert not isinstance(cause, MemoryError), f"it took too much memory: {text}"
        cause = cause.__context__


def _limit_memory() -> None:
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    limit = pages * resource.getpagesize() + MEMORY
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))


def _ring(signal_number: int, frame: FrameType | None) -> None:
    raise Overtime(f"more than {LIMIT_SECONDS:g} s")


def _record(reader: str, inputs: int, seed: int, fuzz: Fuzz) -> None:
    """Write the result of a reader in place of its last one."""
    rows = {}
    if RESULTS.exists():
        lines = RESULTS.read_text().splitlines()
        rows = {line.split("|")[1].strip(): line for line in lines if line.startswith("| ")}
        rows.pop("reader", None)
    counts = " | ".join(f"{fuzz.outcomes[kind]:,}" for kind in ("accepted", "exit 4", "exit 5", "fault"))
    today = datetime.datetime.now(datetime.UTC).date()
    rows[reader] = f"| {reader} | {today} | {inputs:,} | {seed} | {counts} | {fuzz.slowest * 1e3:.0f} ms |"
    RESULTS.write_text(HEAD + "".join(f"{rows[name]}\n" for name in sorted(rows)))


if __name__ == "__main__":
    sys.exit(main())
