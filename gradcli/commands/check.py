"""`gradcli check`: every spec's `expect:` block as a test, and runs held against earlier ones."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeAlias, Unpack

from gradcli.commands.command import command
from gradcli.commands.completions import specs
from gradcli.commands.options import FILES, RESOURCES, Argument, Option, Resources
from gradcli.errors import ExitCode, UsageError
from gradcli.formats import CHECK_FORMATS

if TYPE_CHECKING:
    from gradcli.commands.checking import Asked
    from gradcli.results.check import Checked, CheckedFile

#: So few files are done sooner than other processes have begun.
_FEW = 2
#: More processes than any machine has processors for.
_MOST_JOBS = 1024
_ENDED = "the process that ran it was ended from outside, for lack of memory perhaps; smaller sizes need less"

Files: TypeAlias = str | PathLike[str] | Sequence[str | PathLike[str]]


def _tolerance(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value < float("inf"):
        raise UsageError(f"--tolerance: expected a number from 0 on, such as 0.05; got {text!r}")
    return value


def _processors() -> int:
    from gradcli.prepare.threads import usable_cpus

    return usable_cpus()


@command(
    "gradcli check models/",
    "gradcli check 'models/**/*.yaml' --baseline baseline.json",
    "gradcli check models/ --baseline baseline.json --update",
    "gradcli check models/ --format junit -o gradcli.xml",
    formats=CHECK_FORMATS,
)
def check(
    files: Annotated[
        Files,
        Argument(
            metavar="FILE|FOLDER|GLOB...",
            help="Spec files; folders, whose specs with an `expect:` block are meant; or globs in quotes.",
            typed=list[str],
            complete=specs,
        ),
    ],
    *,
    baseline: Annotated[
        str | PathLike[str] | None,
        Option(
            metavar="FILE",
            help="Compare with what was measured before, within the range over trials.",
            typed=str | None,
        ),
    ] = None,
    update: Annotated[bool, Option(help="Write what is measured now to the baseline.")] = False,
    tolerance: Annotated[
        float | None,
        Option(
            metavar="X",
            help="How far from the baseline a figure may be, relative to it: 0.05 is 5 %.",
            default="the range over trials",
            typed=float | None,
            read=_tolerance,
        ),
    ] = None,
    jobs: Annotated[
        int | None,
        Option(
            metavar="N",
            help="How many files at once, each in a process of its own.",
            panel=RESOURCES,
            default="as many as there are processors",
            least=1,
            most=_MOST_JOBS,
            command_line=_processors,
        ),
    ] = None,
    **options: Unpack[Resources],
) -> Checked:
    """Every spec's `expect:` block as a test, for continuous integration; and runs held against earlier ones.

    Args:
        files: spec files, folders and globs.
        baseline: a file with what was measured before.
        update: whether to write it instead of comparing with it.
        tolerance: how far from the baseline a figure may be, relative to it; by default within the range over trials.
        jobs: how many files at once, each in a process of its own. From a script, more than one needs its guard
            ``if __name__ == "__main__"``; by default one.
        options: what a run may take; with several jobs, together.

    Raises:
        GradcliError: no files, or a baseline that cannot be read or written. What is wrong with a file is told in the
            result.
    """
    from gradcli.commands.baseline_file import OPTION, baseline_file
    from gradcli.commands.checking import Asked
    from gradcli.output_files import require_unwritten
    from gradcli.prepare.resources import Resources as May
    from gradcli.results.check import check_result
    from gradcli.spec.files import Read
    from gradcli.spec.folders import gather_specs

    if baseline is None and (update or tolerance is not None):
        option = "--update" if update else "--tolerance"
        raise UsageError(f"{option} is about a baseline; name its file with {OPTION}")
    if update and tolerance is not None:
        raise UsageError("--update writes a baseline and --tolerance compares with one; give one of them")
    targets = [os.fspath(name) for name in ([files] if isinstance(files, str | PathLike) else files)]
    gathered = gather_specs(targets, ("expect",) if baseline is None else ("expect", "cell", "weights"))
    specs = [Read(name, "the spec", Path(name)) for name in gathered.files]
    require_unwritten(specs)
    with baseline_file(baseline, specs, update=update) as earlier:
        asked = [
            Asked(
                name,
                baseline=update,
                compared=earlier is not None and not update,
                entry=earlier.entry_of(name) if earlier is not None else None,
                tolerance=tolerance,
                resources=May.of(options),
            )
            for name in gathered.files
        ]
        found = _check_all(asked, jobs or 1)
        require_unwritten(read for file in found for read in file.reads)
        if update and earlier is not None:
            earlier.write({file.file: file.entry for file in found if file.entry is not None})
    warnings = [] if earlier is None else earlier.warnings(update=update)
    written = os.fspath(baseline) if update and baseline is not None else None
    return check_result(found, skipped=gathered.skipped, baseline=written, warnings=warnings)


def _check_all(asked: Sequence[Asked], jobs: int) -> list[CheckedFile]:
    """Return what became of each file, in their order; the same whatever the number of jobs."""
    from gradcli.commands.checking import check_file
    from gradcli.prepare.limits import memory_limit
    from gradcli.prepare.processes import run_apart
    from gradcli.results.check import broken_file

    jobs = min(jobs, len(asked))
    if jobs == 1 or len(asked) <= _FEW:
        return [check_file(one) for one in asked]
    may = asked[0].resources
    share = replace(may, max_memory=memory_limit(may.max_memory) // jobs, progress=None)

    def tell(done: int) -> None:
        if may.progress is not None:
            may.progress(FILES, done, len(asked))

    parts = run_apart(check_file, [replace(one, resources=share) for one in asked], jobs, on_done=tell)
    found = []
    for one, part in zip(asked, parts, strict=True):
        if part is None:
            part = broken_file(one.file, code=ExitCode.RESOURCE, seconds=0.0, error=_ENDED)
        elif part.exit_code == ExitCode.RESOURCE:
            part = check_file(one)  # what is too much for a share may still be right for one alone
        found.append(part)
    return found
