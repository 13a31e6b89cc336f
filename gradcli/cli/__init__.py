"""The command line: one file a command, the options they share, and where their output goes. No numerics."""

from __future__ import annotations

from typing import Annotated

import typer

from gradcli import __version__
from gradcli.cli import cells, compare, contributions, gates, init, inspect, jacobian, paths, schema, simulate
from gradcli.cli.help import Command, Commands, end_of_help

# A command is a module named after it, with the function `run` (its docstring is the help text) and `EXAMPLES`.
COMMANDS = (simulate, compare, jacobian, paths, contributions, gates, inspect, cells, init, schema)

app = typer.Typer(
    cls=Commands,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _show_version(asked: bool) -> None:
    if asked:
        typer.echo(f"gradcli {__version__}")
        raise typer.Exit


@app.callback(epilog=end_of_help(["gradcli simulate lstm -T 200", "gradcli compare lstm gru rnn"]))
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    """Does gradient reach k steps back in this recurrent cell, and if not, why?"""


for _module in COMMANDS:
    _name = _module.__name__.rpartition(".")[2]
    app.command(_name, cls=Command, epilog=end_of_help(_module.EXAMPLES))(_module.run)
