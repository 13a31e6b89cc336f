"""What becomes of a command's result: printed or written, and measured against a gate."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

import typer

from gradcli.cli.options import known_format, verdict_kinds
from gradcli.cli.output import emit, emit_text, tell
from gradcli.commands.command import Command
from gradcli.errors import ExitCode, UsageError
from gradcli.formats import format_for
from gradcli.output_files import check_writable, will_write
from gradcli.results.result import Result, Text


@dataclass(frozen=True)
class Delivery:
    """Where a result is to go. Made before the work begins.

    Args:
        save: where the command itself saves arrays.
        format: as it is asked for; None leaves it to the ending of `output`.
        fail_on: the kinds of verdict that make the command fail.
        full: whether a person is to read all of the report.

    Raises:
        OutputError: a path cannot be written. UsageError: a format or a kind that there is not.
    """

    command: Command
    save: str | None
    output: Path | None
    format: str | None = None
    fail_on: str | None = None
    full: bool = False
    quiet: bool = False

    def __post_init__(self) -> None:
        known_format(self.format, self.command)
        verdict_kinds(self.fail_on)
        if self.save == "-":
            raise UsageError(
                "--save: arrays go to a file, and standard output carries the report; give the file a name"
            )
        if self.output is not None:
            check_writable(self.output)
        elif self.command.document and shows_no_document():
            raise UsageError(
                f"a terminal does not show what {self.command.name} makes: write it to a file with -o FILE"
            )

    def outputs_declared(self) -> AbstractContextManager[None]:
        """Have the file of the report count as an output, which nothing may read, in a block."""
        return will_write(self._outputs)

    @property
    def _outputs(self) -> Mapping[str, Path]:
        return {} if self.output is None else {"-o": self.output}

    @property
    def chosen_format(self) -> str:
        """The format of the report."""
        return format_for(self.format, self.output.suffix if self.output is not None else "", self.command.formats)

    def hand_over(self, result: Result | Text) -> None:
        """Print or write the result; if a verdict is one that the gate stops, say which and exit with code 3.

        Raises:
            UsageError: a text, where a format was asked for.
        """
        if isinstance(result, Text):
            if self.format is not None:
                raise UsageError(f"what comes out is no report but YAML; leave --format {self.format} out")
            emit_text([result.text], self.output, quiet=self.quiet)
            return
        report = result.report.in_full() if self.full else result.report
        emit(report, self.chosen_format, self.output, quiet=self.quiet)
        if self.save is not None and not self.quiet:
            tell(f"wrote {self.save}")
        gate = verdict_kinds(self.fail_on)
        failed = [(label, kind) for label, kind in result.verdicts if kind in gate]
        for label, kind in failed:
            tell(f"gate failed: {label} is {kind}")
        if failed:
            raise typer.Exit(ExitCode.GATE)


def shows_no_document() -> bool:
    """Tell whether standard output is a terminal, where a document for another program is of no use."""
    return sys.stdout is not None and sys.stdout.isatty()
