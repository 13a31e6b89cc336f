"""`gradcli cells`: the built-in cells."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from gradcli.cells import completions
from gradcli.commands.command import command
from gradcli.commands.options import Argument

if TYPE_CHECKING:
    from gradcli.results.cells import CellInFull, CellList


@command("gradcli cells", "gradcli cells gru", "gradcli cells lstm --format json", name="cells")
def show_cells(
    name: Annotated[
        str | None,
        Argument(metavar="[NAME]", help="A built-in cell; all of them, if not given.", complete=completions),
    ] = None,
) -> CellList | CellInFull:
    """The built-in cells; with a name, one cell's equations, parameters and reference.

    Raises:
        UsageError: no cell has this name.
    """
    from gradcli.results.cells import cell_in_full, zoo_list

    return zoo_list() if name is None else cell_in_full(name)
