"""`python -m benchmarks`: measure, print the table, and with --write keep it in benchmarks/RESULTS.md."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from benchmarks.threads import limit_threads

RESULTS = Path(__file__).with_name("RESULTS.md")


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure what the command line asks for; return the exit code."""
    parser = _parser()
    options = parser.parse_args(arguments)
    if options.write and options.quick:
        parser.error("--write keeps a full run; --quick is none")
    if options.threads < 1:
        parser.error("--threads: expected at least 1")
    limit_threads(options.threads)
    # Only now: numpy, torch and jax read the number of threads when they are imported.
    from benchmarks.measurements import Settings, plan

    settings = Settings(threads=options.threads, quick=options.quick, long=options.long)
    chosen = [m for m in plan(settings) if m.matches(options.only)]
    if options.list:
        sys.stdout.write("".join(f"{m.label}\n" for m in chosen))
        return 0
    if not chosen:
        parser.error("--only leaves nothing to measure; --list shows the labels")
    from benchmarks import table
    from benchmarks.machine import facts
    from benchmarks.rows import Preparation, Profile, Row

    machine = facts(options.threads)  # before an engine is chosen for the measurements
    rows: list[Row] = []
    preparations: list[Preparation] = []
    profiles: list[Profile] = []
    for number, measurement in enumerate(chosen, start=1):
        sys.stderr.write(f"[{number}/{len(chosen)}] {measurement.label}\n")
        for found in measurement.measure():
            if isinstance(found, Row):
                rows.append(found)
                sys.stderr.write(f"    {table.progress(found)}\n")
            elif isinstance(found, Profile):
                profiles.append(found)
            else:
                preparations.append(found)
    lines = "\n".join(f"{name}: {value}" for name, value in machine)
    tables = table.text(rows, preparations, profiles)
    parts = (lines, table.NOTES, tables, table.summary(rows, profiles), table.goals(rows))
    sys.stdout.write("\n\n".join(part for part in parts if part) + "\n")
    if options.write:
        command = " ".join(["python -m benchmarks", *(sys.argv[1:] if arguments is None else arguments)])
        RESULTS.write_text(table.results(command, machine, rows, preparations, profiles), encoding="utf-8")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description="Measure gradcli against its peers.")
    parser.add_argument(
        "--only",
        action="append",
        default=[],
        metavar="WORDS",
        help="measure what has all these words in its label, such as 'lstm torch' (repeatable); see --list",
    )
    parser.add_argument("--list", action="store_true", help="print the labels and measure nothing")
    parser.add_argument(
        "--quick", action="store_true", help="tiny sizes, few repeats, half a minute: shows that it works, not how fast"
    )
    parser.add_argument("--long", action="store_true", help="also a million steps, which takes five minutes more")
    parser.add_argument("--threads", type=int, default=1, metavar="N", help="threads of every library (default 1)")
    parser.add_argument("--write", action="store_true", help=f"keep the table in benchmarks/{RESULTS.name}")
    return parser


if __name__ == "__main__":
    raise SystemExit(main())
