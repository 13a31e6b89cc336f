"""`gradcli examples`: the example specs that come with the package."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from gradcli.commands.command import command
from gradcli.commands.completions import example_names
from gradcli.commands.options import Argument

if TYPE_CHECKING:
    from gradcli.results.examples import ExampleList
    from gradcli.results.result import Text


@command("gradcli examples", "gradcli examples forget-bias-1 -o my.yaml", name="examples")
def show_examples(
    name: Annotated[
        str | None,
        Argument(metavar="[NAME]", help="An example; all of them, if not given.", complete=example_names),
    ] = None,
) -> ExampleList | Text:
    """Example specs, each with what it shows and its verdict; with a name, that spec.

    Raises:
        UsageError: no example has this name.
    """
    from gradcli.results.result import Text

    if name is not None:
        from gradcli.spec.examples import text_of

        return Text(text_of(name))
    from gradcli.results.examples import example_list

    return example_list()
