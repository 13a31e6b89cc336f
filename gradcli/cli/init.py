"""`gradcli init`: a spec to start from."""

from __future__ import annotations

from typing import Annotated

import typer

from gradcli.cli.output import write_standard_output

EXAMPLES = ("gradcli init lstm > my.yaml", "gradcli simulate my.yaml")


def run(name: Annotated[str, typer.Argument(metavar="NAME", help="A built-in cell; see 'gradcli cells'.")]) -> None:
    """A commented starter spec on standard output."""
    from gradcli.spec.starter import starter_spec

    write_standard_output([starter_spec(name)])
