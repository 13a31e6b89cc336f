"""`gradcli init`: a spec to start from."""

from __future__ import annotations

from typing import Annotated

import typer

from gradcli.cli import options as opt
from gradcli.cli.output import check_writable, emit_text

EXAMPLES = ("gradcli init lstm -o my.yaml", "gradcli simulate my.yaml")


def run(
    name: Annotated[
        str,
        typer.Argument(metavar="NAME", help="A built-in cell; see 'gradcli cells'.", autocompletion=opt.cell_names),
    ],
    output: opt.Output = None,
    quiet: opt.Quiet = False,
) -> None:
    """A commented starter spec."""
    if output is not None:
        check_writable(output)
    from gradcli.spec.starter import starter_spec

    emit_text([starter_spec(name)], output, quiet=quiet)
