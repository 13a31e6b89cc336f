"""The whole command against a PyTorch script that prints the same: time and memory of the processes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from benchmarks import reasons
from benchmarks.engines import there
from benchmarks.measurements.measurement import Measurement, Settings
from benchmarks.peers.peer import missing
from benchmarks.processes import Finished, run_process
from benchmarks.requirements import COMMAND_MEMORY, COMMAND_TIME, LONG_COMMAND_TIME, Requirement
from benchmarks.rows import Compared, Missing, Ratio, Row

_SECTION = "The whole command against a script"
_SCRIPT = Path(__file__).parent.parent / "torch_script.py"
_AGAINST = "a PyTorch script that does the same"


@dataclass(frozen=True)
class Command:
    """`gradcli simulate lstm` with some options, which the script takes as well."""

    options: tuple[str, ...]
    time: Requirement
    memory: Requirement | None
    time_reason: str

    @property
    def arguments(self) -> list[str]:
        """Return the arguments of python that are our command."""
        return ["-m", "gradcli", "simulate", "lstm", *self.options]

    @property
    def what(self) -> str:
        """Return what the row of its time says that it is about."""
        return f"{self._described}: wall time"

    @property
    def _described(self) -> str:
        return " ".join(self.arguments[1:])

    def rows(self, settings: Settings) -> Iterator[Row]:
        """Run both in turn, ours with each engine; yield the rows of time and memory."""
        time_row = partial(Row, _SECTION, self.what, _AGAINST)
        memory_row = partial(Row, _SECTION, f"{self._described}: peak memory", _AGAINST)
        time, memory = settings.required(self.time), settings.required(self.memory)
        message = missing("torch")
        if message is not None:
            yield time_row(Missing(message), time)
            yield memory_row(Missing(message), memory)
            return
        ours: dict[str, list[Finished]] = {engine: [] for engine in there()}
        theirs: list[Finished] = []
        for engine in ours:
            run_process(self.arguments, engine)  # its modules are compiled, and in memory, from now on
        for _ in range(settings.process_pairs):
            for engine, found in ours.items():
                found.append(run_process(self.arguments, engine))
            theirs.append(run_process([str(_SCRIPT), *self.options]))
        their_seconds, their_peaks = [p.seconds for p in theirs], [_peak_mib(p) for p in theirs]
        seconds = {engine: ([p.seconds for p in found], their_seconds) for engine, found in ours.items()}
        yield time_row(Compared(seconds, "s", Ratio.TIMES_FASTER), time, self.time_reason)
        peaks = {engine: ([_peak_mib(p) for p in found], their_peaks) for engine, found in ours.items()}
        yield memory_row(Compared(peaks, "MiB", Ratio.SHARE), memory, reasons.COMMAND_MEMORY)


def _peak_mib(finished: Finished) -> float:
    return finished.peak_bytes / 2**20


_SMALL = ("--hidden-size", "32", "--batch-size", "1", "--trials", "1")


def commands(settings: Settings) -> dict[str, Command]:
    """Return the commands by name: the default sizes, small ones, and small ones over many steps."""
    short, long = ("10", "50") if settings.quick else ("100", "10000")
    return {
        "default": Command(("-T", short), COMMAND_TIME, COMMAND_MEMORY, reasons.COMMAND_TIME),
        "small": Command(("-T", short, *_SMALL), COMMAND_TIME, COMMAND_MEMORY, reasons.COMMAND_TIME),
        "long": Command(("-T", long, *_SMALL), LONG_COMMAND_TIME, None, reasons.LONG_COMMAND_TIME),
    }


def measurements(settings: Settings) -> Iterator[Measurement]:
    """Yield each comparison of processes."""
    for name, command in commands(settings).items():
        yield Measurement(f"whole command {name} lstm torch", partial(command.rows, settings))
