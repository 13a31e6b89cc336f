"""Where the time goes: one run of the engine by what it does, and the start of the whole command by what it imports."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from functools import partial
from statistics import median

from benchmarks.cases import PROFILE_CASES, QUICK_PROFILE_CASES, Case, ours
from benchmarks.measurements.commands import command, described_time
from benchmarks.measurements.measurement import Measurement, Settings
from benchmarks.measurements.same_engine import draws_of
from benchmarks.processes import Imports, imports_of, run_process
from benchmarks.profile import Part, Profiler
from benchmarks.rows import Profile
from benchmarks.timing import alternate

#: The packages of the start-up by name; all others are counted together.
_PACKAGES = {name: name for name in ("numpy", "pydantic", "typer", "yaml", "gradcli")} | {"pydantic_core": "pydantic"}
_STANDARD_LIBRARY, _OTHERS, _COMMAND = "standard library", "other packages", "the command itself, Python's start"
START_UP_PARTS = (*dict.fromkeys(_PACKAGES.values()), _STANDARD_LIBRARY, _OTHERS, _COMMAND)


def measurements(settings: Settings) -> Iterator[Measurement]:
    """Yield the profile of each case, of many draws at once, and of the command's start."""
    for case in QUICK_PROFILE_CASES if settings.quick else PROFILE_CASES:
        yield Measurement(f"profile {_label(case)}", partial(_run, settings, case))
    yield Measurement("profile start-up", partial(_start_up, settings))


def _label(case: Case) -> str:
    return case.label if case.trials == 1 else f"{case.label} draws at once"


def _run(settings: Settings, case: Case) -> Iterator[Profile]:
    engine = ours(case)
    profiler = Profiler(engine.engine)
    plain, _ = alternate((engine.norms_only, profiler.run), settings.effort)
    parts = {part.value: 1e3 * median(run[part] for run in profiler.runs) for part in Part}
    what = f"{case.label}: norms" if case.trials == 1 else draws_of(case)
    yield Profile("one run", what, 1e3 * median(plain), parts)


def _start_up(settings: Settings) -> Iterator[Profile]:
    arguments = command(settings)
    whole, found = [], []
    for _ in range(settings.process_pairs):
        whole.append(1e3 * run_process(arguments).seconds)
        found.append(by_package(imports_of(arguments)))
    parts = {name: 1e3 * median(times[name] for times in found) for name in START_UP_PARTS}
    yield Profile("the whole command", described_time(settings), median(whole), parts)


def by_package(imports: Imports) -> dict[str, float]:
    """Return the seconds that a process spent on the imports of each package, and on all else; they add up."""
    seconds = dict.fromkeys(START_UP_PARTS, 0.0)
    for module, taken in imports.self_seconds:
        package = module.partition(".")[0]
        others = _STANDARD_LIBRARY if package in sys.stdlib_module_names else _OTHERS
        seconds[_PACKAGES.get(package, others)] += taken
    seconds[_COMMAND] = imports.seconds - sum(seconds.values())
    return seconds
