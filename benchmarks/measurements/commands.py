"""The whole command against a PyTorch script that prints the same: time and memory of the processes."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path

from benchmarks.measurements.measurement import Measurement, Settings
from benchmarks.peers.peer import missing
from benchmarks.processes import Finished, run_process
from benchmarks.requirements import COMMAND_MEMORY, COMMAND_TIME
from benchmarks.rows import Compared, Missing, Ratio, Row

_SECTION = "The whole command against a script"
_SCRIPT = Path(__file__).parent.parent / "torch_script.py"
_AGAINST = "a PyTorch script that does the same"


def measurements(settings: Settings) -> Iterator[Measurement]:
    """Yield the one comparison of processes."""
    yield Measurement("whole command lstm torch", partial(_command, settings))


def _command(settings: Settings) -> Iterator[Row]:
    steps = "10" if settings.quick else "100"
    what = f"gradcli simulate lstm -T {steps}"
    time, memory = settings.required(COMMAND_TIME), settings.required(COMMAND_MEMORY)
    message = missing("torch")
    if message is not None:
        yield Row(_SECTION, f"{what}: wall time", _AGAINST, Missing(message), time)
        yield Row(_SECTION, f"{what}: peak memory", _AGAINST, Missing(message), memory)
        return
    ours, theirs = [], []
    for _ in range(settings.process_pairs):
        ours.append(run_process(["-m", "gradcli", "simulate", "lstm", "-T", steps]))
        theirs.append(run_process([str(_SCRIPT), "-T", steps]))
    seconds = Compared([p.seconds for p in ours], [p.seconds for p in theirs], "s", Ratio.TIMES_FASTER)
    yield Row(_SECTION, f"{what}: wall time", _AGAINST, seconds, time)
    peaks = Compared([_peak_mib(p) for p in ours], [_peak_mib(p) for p in theirs], "MiB", Ratio.SHARE)
    yield Row(_SECTION, f"{what}: peak memory", _AGAINST, peaks, memory)


def _peak_mib(finished: Finished) -> float:
    return finished.peak_bytes / 2**20
