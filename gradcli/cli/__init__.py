"""The command line, made of the declared commands: their options, screens, progress, exit codes. No numerics."""

from __future__ import annotations

from collections.abc import Sequence

import gradcli.commands  # noqa: F401 - which declares them
from gradcli.cli.line import read_line
from gradcli.commands.command import COMMANDS as COMMANDS


def run(arguments: Sequence[str]) -> None:
    """Run what the arguments of the process ask for. Typer is there for what `read_line` leaves to it.

    Raises:
        SystemExit: with the exit code, where that is not 0. GradcliError: what went wrong.
    """
    if (call := read_line(arguments)) is not None:
        call()
        return
    from gradcli.cli.app import app

    app(args=list(arguments), prog_name="gradcli")
