"""`gradcli cells`: the built-in cells."""

from __future__ import annotations

from typing import Annotated

import typer

from gradcli.cli import options as opt
from gradcli.cli.output import check_writable, emit
from gradcli.formats import format_for

EXAMPLES = ("gradcli cells", "gradcli cells gru", "gradcli cells lstm --format json")


def run(
    name: Annotated[
        str | None,
        typer.Argument(
            metavar="[NAME]", help="A built-in cell; all of them, if not given.", autocompletion=opt.cell_names
        ),
    ] = None,
    format: opt.Format = None,  # noqa: A002
    output: opt.Output = None,
    quiet: opt.Quiet = False,
) -> None:
    """The built-in cells; with a name, one cell's equations, parameters and reference."""
    if output is not None:
        check_writable(output)
    from gradcli.results.cells import cell_report, zoo_report

    chosen = format_for(format, output.suffix if output is not None else "")
    emit(zoo_report() if name is None else cell_report(name), chosen, output, quiet=quiet)
