"""`gradcli init`: a spec to start from."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from gradcli.cells import completions
from gradcli.commands.command import command
from gradcli.commands.options import Argument

if TYPE_CHECKING:
    from gradcli.results.result import Text


@command("gradcli init lstm -o my.yaml", "gradcli simulate my.yaml", name="init", formats=())
def starter(
    name: Annotated[str, Argument(metavar="NAME", help="A built-in cell; see 'gradcli cells'.", complete=completions)],
) -> Text:
    """A commented starter spec.

    Raises:
        UsageError: no cell has this name.
    """
    from gradcli.results.result import Text
    from gradcli.spec.starter import starter_spec

    return Text(starter_spec(name))
