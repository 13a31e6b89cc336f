"""Fuzz what reads HDF5: python -m tests.fuzz.fuzz_hdf5 --inputs 100000 --seed 0

`keras_h5` starts a process for every file, in which the C library may crash or loop: that is what it is for. Here the
module that runs in that process is fuzzed without it, in batches, each in a process of its own. An input passes where
it is accepted, or refused by an error that `hdf5_process` turns into a sentence. A crash or loop of the library is
counted, and the file is then opened by `keras_h5` itself, which has to refuse it with exit code 4 or 5. Anything else
is a fault and ends the run with status 1. An input depends on --seed and its number alone.

Result on 2026-11-21 with HDF5 2.0.0 (h5py 3.16.0), --inputs 100000 --seed 0:
    21,689 accepted, 78,275 refused with exit code 4, 4 with 5; 30 loops and 2 crashes of the library, all of them
    refused by keras_h5; no faults
"""

from __future__ import annotations

import argparse
import io
import json
import mmap
import os
import resource
import signal
import sys
import tempfile
from collections import Counter
from pathlib import Path

import numpy as np

from gradcli.errors import ExitCode, GradcliError
from gradcli.weights.readers import hdf5, hdf5_process, keras_h5
from tests.fuzz import seeds_h5_onnx
from tests.fuzz.mutations import mutated

BATCH = 250
#: A batch's memory, in bytes of address space, and the seconds of an input after which the library is in a loop.
MEMORY = 3 * 2**30
LOOP_SECONDS = 3


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--inputs", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    hdf5_process.COMPUTING = LOOP_SECONDS
    outcomes: Counter[str] = Counter()
    shared_memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=shared_memory if shared_memory.is_dir() else None) as folder:
        inputs = Inputs(Path(folder), options.seed)
        number = 0
        while number < options.inputs:
            number = _run_batch(inputs, number, min(number + BATCH, options.inputs), outcomes)
            if number // 5000 != (number - BATCH) // 5000:
                print(number, dict(outcomes), flush=True)  # noqa: T201
    print(dict(outcomes))  # noqa: T201
    return 1 if any(outcome.startswith("fault") for outcome in outcomes) else 0


class Inputs:
    """Valid files and their mutations."""

    def __init__(self, folder: Path, seed: int) -> None:
        self.folder = folder
        self._seed = seed
        self._paths = seeds_h5_onnx.keras_h5(folder)
        self._valid = [path.read_bytes() for path in self._paths]

    def made(self, number: int) -> bytes:
        rng = np.random.default_rng([self._seed, number])
        which = int(rng.integers(len(self._valid)))
        return mutated(self._valid[which], self._valid, self._paths[which].suffix, rng)


def _run_batch(inputs: Inputs, first: int, end: int, outcomes: Counter[str]) -> int:
    """Run inputs in a process of their own, up to `end` or the first that takes it along; return the next one."""
    shared = mmap.mmap(-1, 4096 * 4)  # the number of the input, then the outcomes so far
    child = os.fork()
    if child == 0:
        try:
            _run(inputs, range(first, end), shared)
        finally:
            os._exit(0)
    status = os.waitpid(child, 0)[1]
    number = int.from_bytes(shared[:8], "little")
    outcomes.update(json.loads(shared[16 : 16 + int.from_bytes(shared[8:16], "little")] or b"{}"))
    if not os.WIFSIGNALED(status):
        return end
    outcomes["loop" if os.WTERMSIG(status) == signal.SIGALRM else "crash"] += 1
    outcomes[_refused_by_reader(inputs, number)] += 1
    return number + 1


def _run(inputs: Inputs, numbers: range, shared: mmap.mmap) -> None:
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    outcomes: Counter[str] = Counter()
    for number in numbers:
        shared[:8] = number.to_bytes(8, "little")
        signal.alarm(LOOP_SECONDS)
        outcomes[_outcome(inputs.made(number))] += 1
        told = json.dumps(outcomes).encode()
        shared[8 : 16 + len(told)] = len(told).to_bytes(8, "little") + told


def _outcome(data: bytes) -> str:
    try:
        file = hdf5.Hdf5File(io.BytesIO(data))
        listed = file.listed()
        json.dumps(listed)
        for path, shape, dtype in listed.tensors:
            assert file.read(path, shape, dtype).shape == shape
    except GradcliError as error:
        return f"exit {int(error.exit_code)}"
    except hdf5.DAMAGE:
        return "exit 4"
    except MemoryError:
        return "exit 5"
    except BaseException as error:
        return f"fault {type(error).__name__}: {error}"[:200]
    return "accepted"


def _refused_by_reader(inputs: Inputs, number: int) -> str:
    path = inputs.folder / "input.h5"
    path.write_bytes(inputs.made(number))
    try:
        with keras_h5.open_file(path, path.name) as checkpoint:
            for tensor in checkpoint.tensors:
                checkpoint.read(tensor)
    except GradcliError as error:
        if error.exit_code in (ExitCode.INPUT_FILE, ExitCode.RESOURCE) and str(error).startswith(path.name):
            return "of these refused"
        return f"fault {error!r}"[:200]
    return "of these accepted"  # a crash may depend on what lies in memory


if __name__ == "__main__":
    sys.exit(main())
