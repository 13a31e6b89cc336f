"""What becomes of a command's result: printed or written, and measured against a gate."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING

from gradcli.cli.github_actions import append_step_summary, in_workspace
from gradcli.cli.options import known_format, verdict_kinds
from gradcli.cli.output import emit, emit_text, tell
from gradcli.commands.command import Command
from gradcli.errors import ExitCode, UsageError
from gradcli.formats import FORMATS, FORMULA_FORMATS, format_for
from gradcli.frozen import frozen
from gradcli.output_files import check_writable, will_write
from gradcli.results.result import Result, Text, check_picture

if TYPE_CHECKING:
    from gradcli.results.pictures import Picture


@frozen
class Delivery:
    """Where a result is to go. Made before the work begins.

    Args:
        save: where the command itself saves arrays.
        format: as it is asked for; None leaves it to the ending of `output`.
        plot: the file of a picture. picture: its name. chart: whether it is drawn in characters as well.
        fail_on: the kinds of verdict that make the command fail.
        full: whether a person is to read all of the report.

    Raises:
        OutputError: a path cannot be written. UsageError: a format or a kind that there is not.
    """

    command: Command
    save: str | None
    output: Path | None
    format: str | None = None
    plot: Path | None = None
    picture: str | None = None
    chart: bool = False
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
        self._check_picture()

    def _check_picture(self) -> None:
        if not self.draws:
            if self.picture is not None:
                raise UsageError("--picture says what --plot FILE or --chart draws; give one of them")
            return
        check_picture(self.picture, self.command.pictures, self.command.name)
        if self.chosen_format in FORMULA_FORMATS:
            raise UsageError(f"--format {self.chosen_format} derives formulas and measures nothing that could be drawn")
        if self.chart and self.chosen_format != FORMATS[0]:
            raise UsageError(f"--chart stands above a table, and this is {self.chosen_format}; use --plot FILE")
        if self.plot is not None:
            from gradcli.formats.drawing import picture_ending

            picture_ending(self.plot)
            check_writable(self.plot)

    def outputs_declared(self) -> AbstractContextManager[None]:
        """Have the file of the report count as an output, which nothing may read, in a block."""
        return will_write(self._outputs)

    @property
    def _outputs(self) -> Mapping[str, Path]:
        return {option: path for option, path in (("-o", self.output), ("--plot", self.plot)) if path is not None}

    @property
    def draws(self) -> bool:
        """Whether a picture is wanted."""
        return self.plot is not None or self.chart

    def drawn(self, result: Result | Text) -> Picture | None:
        """Return the picture of a result that is wanted, which may take work."""
        return result.picture(self.picture) if self.draws and isinstance(result, Result) else None

    @property
    def chosen_format(self) -> str:
        """The format of the report."""
        return format_for(self.format, self.output.suffix if self.output is not None else "", self.command.formats)

    def hand_over(self, result: Result | Text, picture: Picture | None = None) -> None:
        """Print or write the result and its `drawn` picture; if the gate stops a verdict, exit with code 3, and say so.

        Raises:
            UsageError: a text, where a format was asked for.
        """
        if isinstance(result, Text):
            if self.format is not None:
                raise UsageError(f"what comes out is no report but YAML; leave --format {self.format} out")
            emit_text([result.text], self.output, quiet=self.quiet)
            return
        report = result.report.in_full() if self.full else result.report
        if self.chosen_format == "github":
            append_step_summary(report)
            report = in_workspace(report)
        emit(report, self.chosen_format, self.output, quiet=self.quiet, chart=picture if self.chart else None)
        if self.plot is not None and picture is not None:
            from gradcli.formats.drawing import write_picture

            write_picture(picture, self.plot)
            if not self.quiet:
                tell(f"wrote {self.plot}")
        if self.save is not None and not self.quiet:
            tell(f"wrote {self.save}")
        gate = verdict_kinds(self.fail_on)
        failed = [(label, kind) for label, kind in result.verdicts if kind in gate]
        for label, kind in failed:
            tell(f"gate failed: {label} is {kind}")
        if failed:
            raise SystemExit(ExitCode.GATE)
        if result.exit_code:
            raise SystemExit(result.exit_code)


def shows_no_document() -> bool:
    """Tell whether standard output is a terminal, where a document for another program is of no use."""
    return sys.stdout is not None and sys.stdout.isatty()
