"""`gradcli cells`: the built-in cells."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from gradcli.cells import completions
from gradcli.commands.command import command
from gradcli.commands.options import Argument, Option
from gradcli.errors import UsageError

if TYPE_CHECKING:
    from gradcli.results.cell_program import CellProgram
    from gradcli.results.cells import CellInFull, CellList


@command("gradcli cells", "gradcli cells gru", "gradcli cells lstm --program", name="cells")
def show_cells(
    name: Annotated[
        str | None,
        Argument(metavar="[NAME]", help="A built-in cell; all of them, if not given.", complete=completions),
    ] = None,
    *,
    program: Annotated[
        bool, Option(help="Show what a step of the cell computes, forward and back, as the engine runs it.")
    ] = False,
) -> CellList | CellInFull | CellProgram:
    """The built-in cells; with a name, one cell's equations, parameters and reference.

    Raises:
        UsageError: no cell has this name; a program is asked for without one.
    """
    if program:
        from gradcli.results.cell_program import cell_program

        if name is None:
            raise UsageError("--program: name the cell, as in 'gradcli cells lstm --program'")
        return cell_program(name)
    from gradcli.results.cells import cell_in_full, zoo_list

    return zoo_list() if name is None else cell_in_full(name)
