"""What becomes of a run's result: printed, saved, and measured against a gate."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Protocol

import typer

from gradcli.cli.output import check_writable, emit, replacing, tell
from gradcli.errors import ExitCode
from gradcli.formats import format_for
from gradcli.results.model import Report
from gradcli.spec.files import require_apart


class Result(Protocol):
    """What a run hands to the command line."""

    @property
    def report(self) -> Report: ...

    @property
    def verdicts(self) -> Sequence[tuple[str, str]]:
        """The label and the kind of verdict of each run."""

    def save(self, file: BinaryIO) -> None:
        """Write the arrays of the run as .npz."""


@dataclass(frozen=True)
class Delivery:
    """Where a result is to go. Made before the work begins: raises OutputError if a path cannot be written,
    UsageError if two are one.

    format: as it is asked for; None leaves it to the ending of `output`. formulas: whether the command derives any.
    gate: the kinds of verdict that make the command fail. full: whether a person is to read all of the report.
    """

    format: str | None
    output: Path | None
    save: Path | None
    gate: Sequence[str]
    quiet: bool
    full: bool = False
    formulas: bool = False

    def __post_init__(self) -> None:
        require_apart(self.outputs)
        for path in self.outputs.values():
            check_writable(path)

    @property
    def outputs(self) -> Mapping[str, Path]:
        """The files that will be written, by the option that names each."""
        named = {"-o": self.output, "--save": self.save}
        return {option: path for option, path in named.items() if path is not None}

    @property
    def chosen_format(self) -> str:
        """The format of the report."""
        return format_for(self.format, self.output.suffix if self.output is not None else "", formulas=self.formulas)

    def hand_over(self, result: Result) -> None:
        """Print and save the result; if a verdict is one that the gate stops, say which and exit with code 3."""
        report = result.report.in_full() if self.full else result.report
        emit(report, self.chosen_format, self.output, quiet=self.quiet)
        if self.save is not None:
            with replacing(self.save) as file:
                result.save(file)
            if not self.quiet:
                tell(f"wrote {self.save}")
        failed = [(label, kind) for label, kind in result.verdicts if kind in self.gate]
        for label, kind in failed:
            tell(f"gate failed: {label} is {kind}")
        if failed:
            raise typer.Exit(ExitCode.GATE)
