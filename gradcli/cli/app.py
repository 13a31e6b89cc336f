"""The command line as Typer has it: help texts, completion, and what it says of mistakes."""

from __future__ import annotations

from typing import Annotated

import typer

import gradcli.commands  # noqa: F401 - which declares them
from gradcli.cli.help import Command, Commands, end_of_help, first_words
from gradcli.cli.spread import typer_command
from gradcli.commands.command import COMMANDS

app = typer.Typer(
    cls=Commands,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _show_version(asked: bool) -> None:
    if asked:
        from gradcli.engine.about import version_text

        typer.echo(version_text())
        raise typer.Exit


@app.callback(epilog=end_of_help(["gradcli simulate lstm -T 200", "gradcli compare lstm gru rnn"]))
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    """Does gradient reach k steps back in this recurrent cell, and if not, why?"""


for _command in COMMANDS.values():
    app.command(_command.name, cls=Command, help=first_words(_command.function), epilog=end_of_help(_command.examples))(
        typer_command(_command)
    )
