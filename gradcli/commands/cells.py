"""`gradcli cells`: the built-in cells."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from gradcli.cells import completions
from gradcli.commands.command import command
from gradcli.commands.completions import families
from gradcli.commands.options import Argument, Option
from gradcli.errors import UsageError
from gradcli.spec.shown import shown

if TYPE_CHECKING:
    from gradcli.results.cell_program import CellProgram
    from gradcli.results.cells import CellInFull, CellList


@command(
    "gradcli cells",
    "gradcli cells --family 'state space'",
    "gradcli cells --find 'log space'",
    "gradcli cells gru",
    "gradcli cells lstm --program",
    name="cells",
)
def show_cells(
    name: Annotated[
        str | None,
        Argument(metavar="[NAME]", help="A built-in cell; all of them, if not given.", complete=completions),
    ] = None,
    *,
    family: Annotated[
        str | None,
        Option(metavar="NAME", help="List the cells of this family, such as lstm or matrix-memory.", complete=families),
    ] = None,
    find: Annotated[
        str | None,
        Option(metavar="TEXT", help="List the cells that have this text in their names, title or notes."),
    ] = None,
    program: Annotated[
        bool, Option(help="Show what a step of the cell computes, forward and back, as the engine runs it.")
    ] = False,
) -> CellList | CellInFull | CellProgram:
    """The built-in cells; with a name, one cell's equations, parameters and reference.

    Raises:
        UsageError: no cell, or no family, has this name; a program is asked for without one, part of the list with one.
    """
    if name is not None and (family is not None or find is not None):
        option = "--find" if family is None else "--family"
        raise UsageError(f"{option}: chooses from the list of cells; leave the name {shown(name)} out")
    if program:
        from gradcli.results.cell_program import cell_program

        if name is None:
            raise UsageError("--program: name the cell, as in 'gradcli cells lstm --program'")
        return cell_program(name)
    from gradcli.results.cells import cell_in_full, zoo_list

    return zoo_list(family, find) if name is None else cell_in_full(name)
