"""The built-in cells as a report: the list of them, and one of them in full."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from gradcli import cells
from gradcli.errors import UsageError, did_you_mean
from gradcli.frozen import frozen
from gradcli.language.cell import ParsedCell, parse_cell
from gradcli.numbers import shape_text
from gradcli.results.cell_sizes import parameters_per_unit, state_size, symbolic_shapes
from gradcli.results.declared import key, records_of, table_of
from gradcli.results.model import Block, Column, Line, Records, Report, Table, Verbatim, filled
from gradcli.results.result import Result
from gradcli.spec.constants import constants_of
from gradcli.spec.models import FAMILIES, CellBlock
from gradcli.spec.shown import shown as shown_text


@frozen(kw_only=True)
class ListedCell:
    """A built-in cell in the list."""

    name: str = key("its name", title="name", text=True, keep=9)
    family: str | None = key("which of the families of cells it belongs to, such as `LSTM` or `state space`")
    title: str | None = key("what it is called in full", title="title", text=True, keep=8)
    year: int | None = key("when it was published", title="year", keep=6)
    reference: str | None = key("where", title="reference", text=True, keep=3)
    state_size: str = key("the numbers that a step hands on, as a formula in H", title="state")
    parameters_per_unit: str = key(
        "the number of parameters divided by H, as a formula in H and I", title="parameters per unit", keep=7
    )


@frozen(kw_only=True, repr=False)
class CellList(Result):
    """The built-in cells."""

    command = "cells"

    cells: Sequence[ListedCell] = key("the built-in cells by name, those that were asked for")


@frozen(kw_only=True)
class ParameterOfCell:
    """A parameter of a cell."""

    shape: Sequence[str] = key("its shape, in terms of `hidden_size` and `input_size`")
    copies: int = key("how many parameters of PyTorch's it stands for")
    trained: bool = key("whether training changes it")


@frozen(kw_only=True, repr=False)
class CellInFull(Result):
    """One built-in cell."""

    command = "cells"

    name: str = key("its name")
    aliases: Sequence[str] = key("what else it is found by")
    title: str | None = key("what it is called in full")
    family: str | None = key("which of the families of cells it belongs to")
    year: int | None = key("when it was published")
    reference: str | None = key("where")
    notes: str | None = key("what is chosen where papers differ")
    equations: str = key("its equations")
    output: str = key("the state that feeds the loss and the next layer")
    states: Sequence[str] = key("its states")
    state_size: str = key("the numbers that a step hands on, as a formula in H")
    parameters_per_unit: str = key("the number of parameters divided by H, as a formula in H and I")
    activation: str | None = key("what `phi` in the equations is")
    constants: Mapping[str, Any] = key("the numbers and arrays that have names in the equations")
    parameters: Mapping[str, ParameterOfCell] = key("its parameters")
    init: Mapping[str, Any] = key("its usual initialisation, as a spec has it")
    tied: bool = key("whether all steps have the same parameters")


def zoo_list(family: str | None = None, text: str | None = None) -> CellList:
    """Return the list of the built-in cells: of all, of a family, or of those that have a text in what is said of them.

    Raises UsageError if no family is called so.
    """
    known = None if family is None else family_called(family)
    chosen = [name for name in cells.names() if known in (None, cells.load(name).cell.family)]
    chosen = [name for name in chosen if text is None or _says(name, text)]
    listed = [_listed(name) for name in chosen]
    if not listed:
        where = "" if known is None else f" of the family {known}"
        nothing = Line(f"no built-in cell{where} has {text!r} in its names, title or notes")
        return CellList(cells=listed, shown=Report("cells", [[nothing]], records=records_of(ListedCell, listed)))
    note = "H hidden units, I inputs. state: the numbers that a step hands on to the next"
    order = ("name", "state_size", "parameters_per_unit", "year", "title", "reference")
    grouped = sorted(listed, key=lambda cell: FAMILIES.index(cell.family) if cell.family in FAMILIES else len(FAMILIES))
    table = table_of(ListedCell, grouped, order=order, note=note, group=lambda cell: cell.family or "others")
    hint = Line("gradcli cells NAME shows one cell's equations and parameters", style="dim")
    shown = Report("cells", [table, [hint]], records=records_of(ListedCell, listed))
    return CellList(cells=listed, shown=shown)


def family_called(name: str) -> str:
    """Return the family that a name means, whatever its case, and with hyphens in place of blanks.

    Raises UsageError if there is none.
    """
    plain = re.sub(r"[\s_-]+", " ", name).strip().casefold()
    for family in FAMILIES:
        if family.casefold() == plain:
            return family
    hint = did_you_mean(plain, FAMILIES)
    raise UsageError(f"--family: no family is called {shown_text(name)}; families: {', '.join(FAMILIES)}{hint}")


def _says(name: str, text: str) -> bool:
    """Tell whether one of a cell's names, its title or its notes have a text in them, whatever the case."""
    cell = cells.load(name)
    told = (name, *cell.aliases, cell.cell.title or "", cell.cell.notes or "")
    return any(" ".join(text.split()).casefold() in " ".join(part.split()).casefold() for part in told)


def _listed(name: str) -> ListedCell:
    """Return what the list says of one cell."""
    block = cells.load(name).cell
    parsed = parsed_cell(block)
    return ListedCell(
        name=name,
        family=block.family,
        title=block.title,
        year=block.year,
        reference=block.reference,
        state_size=state_size(parsed),
        parameters_per_unit=parameters_per_unit(parsed, _twice(block)),
    )


def cell_in_full(name: str) -> CellInFull:
    """Return one built-in cell: its equations, its parameters with their shapes, its initialisation and its reference.

    Raises UsageError if no cell has this name.
    """
    known = cells.find(name)
    if known is None:
        raise UsageError(cells.unknown(name))
    name, also, block = known, cells.load(known).aliases, cells.load(known).cell
    parsed = parsed_cell(block)
    shapes = symbolic_shapes(parsed, but=constants_of(block, {}).arrays)
    init = {pattern: initialiser.model_dump(mode="json") for pattern, initialiser in block.init.items()}
    twice = _twice(block)
    size, per_unit = state_size(parsed), parameters_per_unit(parsed, twice)
    rows = [(parameter, shape_text(shape)) for parameter, shape in shapes.items()]
    about = (
        ("family", block.family),
        ("also called", ", ".join(also)),
        ("reference", block.reference),
        ("notes", block.notes),
    )
    groups: list[list[Block]] = [
        [Line(block.title or "", name, "title")],
        [Verbatim(block.equations)],
        [
            Table([Column("parameter", "text", keep=9), Column("shape", "text", keep=9)], rows),
            Line(
                f"{per_unit} per hidden unit, with H hidden units and I inputs{_two(twice)}{_fixed(block)}",
                "parameters",
                "dim",
            ),
            Line(f"{size} numbers from step to step", "state", "dim"),
        ],
        [Verbatim(_as_yaml(block, init))],
        [Line(text, label, "dim") for label, text in about if text],
    ]
    return CellInFull(
        name=name,
        aliases=tuple(also),
        title=block.title,
        family=block.family,
        year=block.year,
        reference=block.reference,
        notes=block.notes,
        equations=block.equations,
        output=parsed.output,
        states=tuple(parsed.states),
        state_size=size,
        parameters_per_unit=per_unit,
        activation=block.activation,
        constants=dict(block.constants),
        parameters={
            parameter: ParameterOfCell(
                shape=shape, copies=1 + (parameter in twice), trained=parameter not in block.fixed
            )
            for parameter, shape in shapes.items()
        },
        init=init,
        tied=block.tied is not False,
        shown=Report("cells", filled(groups), records=Records(("parameter", "shape"), rows)),
    )


def _twice(block: CellBlock) -> set[str]:
    """Return the parameters that count twice with the cell's usual initialisation."""
    return block.counting_twice({initialiser.NAME for initialiser in block.init.values()})


def _two(twice: Collection[str]) -> str:
    return f"; two each of {', '.join(sorted(twice))}, as in PyTorch" if twice else ""


def _fixed(block: CellBlock) -> str:
    return f"; {', '.join(block.fixed)} {'is' if len(block.fixed) == 1 else 'are'} not trained" if block.fixed else ""


def parsed_cell(block: CellBlock) -> ParsedCell:
    constants = constants_of(block, {})
    return parse_cell(
        block.equations,
        output=block.output,
        constants=constants.numbers,
        shapes=block.shapes,
        arrays=constants.sizes,
        fixed=constants.fixed,
        activation=block.activation,
    )


def _as_yaml(block: CellBlock, init: dict[str, Any]) -> str:
    """Return what else the spec of this cell says, as a spec would say it."""
    import yaml

    rest = {
        "output": block.output,
        "activation": block.activation,
        "constants": dict(block.constants),
        "fixed": list(block.fixed),
        "shapes": {name: list(sizes) for name, sizes in block.shapes.items()},
        "init": init,
    }
    depth = {"tied": block.tied, "input_at": block.input_at}
    said = {key: value for key, value in rest.items() if value} | {k: v for k, v in depth.items() if v is not None}
    return str(yaml.safe_dump(said, sort_keys=False))
