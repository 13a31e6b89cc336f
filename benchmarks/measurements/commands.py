"""The whole command against a PyTorch script that prints the same: time and memory of the processes."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path

from benchmarks import reasons
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


def command(settings: Settings) -> list[str]:
    """Return the arguments of python that are our command."""
    return ["-m", "gradcli", "simulate", "lstm", "-T", _steps(settings)]


def described_time(settings: Settings) -> str:
    """Return what the row of the command's time says that it is about."""
    return f"{_described(settings)}: wall time"


def _described(settings: Settings) -> str:
    return " ".join(command(settings)[1:])


def _steps(settings: Settings) -> str:
    return "10" if settings.quick else "100"


def _command(settings: Settings) -> Iterator[Row]:
    time_row = partial(Row, _SECTION, described_time(settings), _AGAINST)
    memory_row = partial(Row, _SECTION, f"{_described(settings)}: peak memory", _AGAINST)
    time, memory = settings.required(COMMAND_TIME), settings.required(COMMAND_MEMORY)
    message = missing("torch")
    if message is not None:
        yield time_row(Missing(message), time)
        yield memory_row(Missing(message), memory)
        return
    ours, theirs = [], []
    for _ in range(settings.process_pairs):
        ours.append(run_process(command(settings)))
        theirs.append(run_process([str(_SCRIPT), "-T", _steps(settings)]))
    seconds = Compared([p.seconds for p in ours], [p.seconds for p in theirs], "s", Ratio.TIMES_FASTER)
    yield time_row(seconds, time, reasons.COMMAND_TIME)
    peaks = Compared([_peak_mib(p) for p in ours], [_peak_mib(p) for p in theirs], "MiB", Ratio.SHARE)
    yield memory_row(peaks, memory, reasons.COMMAND_MEMORY)


def _peak_mib(finished: Finished) -> float:
    return finished.peak_bytes / 2**20
