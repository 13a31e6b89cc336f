"""Where the time goes: one run of the engine by what it does, and the start of the whole command by what it imports."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from functools import partial
from statistics import median

from benchmarks.cases import PROFILE_CASES, QUICK_PROFILE_CASES, Case, ours
from benchmarks.engines import TITLES, there
from benchmarks.measurements.commands import Command, commands
from benchmarks.measurements.measurement import Measurement, Settings
from benchmarks.measurements.same_engine import draws_of
from benchmarks.processes import Imports, imports_of, run_process
from benchmarks.profile import Profiler
from benchmarks.rows import Profile
from benchmarks.timing import alternate

#: The packages of the start-up by name; all others are counted together.
_PACKAGES = {name: name for name in ("numpy", "pydantic", "typer", "yaml", "gradcli")} | {"pydantic_core": "pydantic"}
_STANDARD_LIBRARY, _OTHERS, _COMMAND = "standard library", "other packages", "the command itself, Python's start"
START_UP_PARTS = (*dict.fromkeys(_PACKAGES.values()), _STANDARD_LIBRARY, _OTHERS, _COMMAND)


def measurements(settings: Settings) -> Iterator[Measurement]:
    """Yield the profile of each case by each engine, of many draws at once, and of the commands' start."""
    for engine in there():
        for case in QUICK_PROFILE_CASES if settings.quick else PROFILE_CASES:
            yield Measurement(f"profile {_label(case)} {engine}", partial(_run, settings, case, engine))
    for name in ("default", "small"):
        measure = partial(_start_up, settings, commands(settings)[name])
        yield Measurement(f"profile start-up {name}", measure)


def _label(case: Case) -> str:
    return case.label if case.trials == 1 else f"{case.label} draws at once"


def _run(settings: Settings, case: Case, engine: str) -> Iterator[Profile]:
    one = ours(case, engine)
    profiler = Profiler(one.engine, engine)
    plain, _ = alternate((one.norms_only, profiler.run), settings.effort_of_profiles)
    parts = {part.value: 1e3 * median(run[part] for run in profiler.runs) for part in profiler.parts}
    what = f"{case.label}: norms" if case.trials == 1 else draws_of(case)
    yield Profile(f"one run, {TITLES[engine]} engine", what, engine, 1e3 * median(plain), parts)


def _start_up(settings: Settings, command: Command) -> Iterator[Profile]:
    """Yield where the time of a command goes, with the engine that one gets."""
    engine = there()[0]
    whole, found = [], []
    for _ in range(settings.process_pairs):
        whole.append(1e3 * run_process(command.arguments, engine).seconds)
        found.append(by_package(imports_of(command.arguments, engine)))
    parts = {name: 1e3 * median(times[name] for times in found) for name in START_UP_PARTS}
    yield Profile("the whole command", command.what, engine, median(whole), parts)


def by_package(imports: Imports) -> dict[str, float]:
    """Return the seconds that a process spent on the imports of each package, and on all else; they add up."""
    seconds = dict.fromkeys(START_UP_PARTS, 0.0)
    for module, taken in imports.self_seconds:
        package = module.partition(".")[0]
        others = _STANDARD_LIBRARY if package in sys.stdlib_module_names else _OTHERS
        seconds[_PACKAGES.get(package, others)] += taken
    seconds[_COMMAND] = imports.seconds - sum(seconds.values())
    return seconds
