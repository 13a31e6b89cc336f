"""End runs at random moments, and look at what they leave: python -m tests.kill.kill_commands --attempts 200 --seed 0

Of each command and each way to end it so many attempts, in half of which files stand under the final names before. It
passes where every final file is as it was before, or byte for byte what an undisturbed run writes; where nothing else
is in the folder (after KILL, temporary files may be); where the exit code says what happened, and standard error has no
traceback. Signals go to the process group, as a terminal sends them: at any moment of the run, or within milliseconds
of the first byte of a file. A full disk is a small file system, where this may be mounted (as root, on Linux), filled
up but for a random number of bytes; everywhere it is a limit on the size of files. Faults are printed, and end the run
with status 1. The result goes to tests/kill/RESULTS.md.
"""

from __future__ import annotations

import argparse
import datetime
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.kill.attempts import (
    OUT_OF_SPACE,
    ROOT,
    SIGNALS,
    Command,
    Outcome,
    Whole,
    at_any_moment,
    attempt,
    undisturbed,
    while_it_writes,
)

_SIZES = ("--hidden-size", "128", "-T", "150")  # files of some 10 MB take their time to write
_CONFIGS = ROOT / "examples" / "configs"
COMMANDS = {
    "simulate": Command(
        ("simulate", "rnn", *_SIZES, "-o", "run.json", "--save", "run.npz", "--quiet"), ("run.json", "run.npz")
    ),
    "compare": Command(
        ("compare", "rnn", "irnn", *_SIZES, "-o", "runs.csv", "--save", "runs.npz", "--quiet"),
        ("runs.csv", "runs.npz"),
    ),
    "simulate --plot": Command(("simulate", "rnn", "--plot", "run.svg", "--quiet"), ("run.svg",)),
    "report": Command(("report", "rnn", "-T", "30", "-o", "page.html", "--quiet"), ("page.html",)),
    "check --update": Command(
        (
            "check",
            f"{_CONFIGS}/rnn.yaml",
            f"{_CONFIGS}/lstm.yaml",
            "--baseline",
            "base.json",
            "--update",
            "--jobs",
            "2",
        ),
        ("base.json",),
        before=b'{"schema_version": 1, "command": "check", "layout": 1, "gradcli_version": "0", "files": {}}\n',
    ),
    "init": Command(("init", "lstm", "-o", "my.yaml", "--quiet"), ("my.yaml",)),
}
RESULTS = Path(__file__).parent / "RESULTS.md"
HEAD = """\
# Results of ending runs at random moments

Written by `python -m tests.kill.kill_commands`; its docstring says what passes. Of the final files, "as before" and
"whole" count those that were left so; "left" counts temporary files, which only KILL may leave.

| command | ended by | date | attempts | seed | as before | whole | left | exit codes | faults |
|---|---|---|--:|--:|--:|--:|--:|---|--:|
"""
_DISK_BYTES = 64 << 20

Attempt = Callable[[random.Random, bool], Outcome]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--attempts", type=int, default=200, help="of each command and way to end it")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--command", choices=sorted(COMMANDS), action="append", help="these alone")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # to unmount what is mounted
    faults = 0
    with tempfile.TemporaryDirectory() as scratch, _small_disk(Path(scratch) / "disk") as disk:
        for name in options.command or COMMANDS:
            command, folder = COMMANDS[name], Path(scratch) / "run"
            whole = undisturbed(command, folder)
            for ended_by, one in _attempts(command, whole, folder, disk):
                faults += _row(name, ended_by, one, options.attempts, options.seed)
    return int(faults > 0)


def _attempts(command: Command, whole: Whole, folder: Path, disk: Path | None) -> Iterator[tuple[str, Attempt]]:
    """Yield each way to end a run: its name, and what makes one attempt."""
    for name in SIGNALS:
        yield (
            f"{name}, at any moment",
            lambda rng, old, name=name: attempt(command, whole, at_any_moment(name, whole, rng), folder, old=old),
        )
        yield (
            f"{name}, while it writes",
            lambda rng, old, name=name: attempt(command, whole, while_it_writes([name], rng), folder, old=old),
        )
    yield (
        "two of INT, TERM and HUP, while it writes",
        lambda rng, old: attempt(
            command, whole, while_it_writes(rng.choices(["INT", "TERM", "HUP"], k=2), rng), folder, old=old
        ),
    )
    yield (
        "a limit on the size of files",
        lambda rng, old: attempt(
            command, whole, OUT_OF_SPACE, folder, old=old, limit=rng.randrange(int(1.1 * whole.largest))
        ),
    )
    if disk is not None:
        yield "a full disk", lambda rng, old: _on_a_full_disk(command, whole, disk, rng, old)


def _on_a_full_disk(command: Command, whole: Whole, disk: Path, rng: random.Random, old: bool) -> Outcome:
    filling = disk / "filling"
    filling.unlink(missing_ok=True)
    room = rng.randrange(int(1.1 * sum(map(len, whole.files.values()))))

    def fill() -> None:
        with filling.open("wb") as file:
            os.posix_fallocate(file.fileno(), 0, max(0, shutil.disk_usage(disk).free - room))

    return attempt(command, whole, OUT_OF_SPACE, disk / "run", old=old, prepare=fill)


def _row(command: str, ended_by: str, one: Attempt, attempts: int, seed: int) -> int:
    """Make the attempts, append their row to the results, and return the number of faults."""
    codes: Counter[int] = Counter()
    kept = whole = left = faults = 0
    for number in range(attempts):
        outcome = one(random.Random(f"{seed} {command} {ended_by} {number}"), number % 2 == 1)
        codes[outcome.code] += 1
        kept, whole, left = kept + outcome.kept, whole + outcome.whole, left + outcome.left
        faults += bool(outcome.faults)
        for fault in outcome.faults:
            print(f"{command}, {ended_by}, attempt {number}: {fault}", file=sys.stderr)  # noqa: T201
    row = (
        command,
        ended_by,
        f"{datetime.datetime.now(datetime.UTC).date()}",
        f"{attempts}",
        f"{seed}",
        f"{kept}",
        f"{whole}",
        f"{left}",
        ", ".join(f"{count} x {code}" for code, count in sorted(codes.items())),
        f"{faults}",
    )
    text = RESULTS.read_text(encoding="utf-8") if RESULTS.exists() else HEAD
    # A row takes the place of the one that is there of the same command and end.
    lines = [line for line in text.splitlines() if not line.startswith(f"| {command} | {ended_by} |")]
    RESULTS.write_text("\n".join([*lines, f"| {' | '.join(row)} |"]) + "\n", encoding="utf-8")
    return faults


@contextmanager
def _small_disk(place: Path) -> Iterator[Path | None]:
    """Give a file system of `_DISK_BYTES`; None where none may be mounted."""
    place.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={_DISK_BYTES}", "tmpfs", str(place)], capture_output=True, check=False
    )
    if mounted.returncode != 0:
        print("no file system can be mounted here: no full disk", file=sys.stderr)  # noqa: T201
        yield None
        return
    try:
        yield place
    finally:
        subprocess.run(["umount", str(place)], check=True)


if __name__ == "__main__":
    sys.exit(main())
