"""The built-in cells as a report: the list of them, and one of them in full."""

from __future__ import annotations

from typing import Any

from gradcli import cells
from gradcli.errors import UsageError, did_you_mean
from gradcli.language.cell import CellError, ParsedCell, parse_cell
from gradcli.language.shapes import HIDDEN, INPUT
from gradcli.report.model import Block, Column, Line, Records, Report, Table, Verbatim, envelope
from gradcli.spec.models import CellBlock

_COMMAND = "cells"
_LISTED = ("name", "title", "year", "reference")

# Sizes so far apart that the size of anything made of them, a H + b I + c, can be read off its digits.
_H, _I = 10**8, 10**4


def zoo_report() -> Report:
    """Return the list of all built-in cells."""
    blocks = {name: cells.load(name).cell for name in cells.names()}
    rows = [(name, block.title, block.year, block.reference) for name, block in blocks.items()]
    columns = [
        Column("name", "text", keep=9),
        Column("title", "text", keep=8),
        Column("year", "number", keep=6),
        Column("reference", "text", keep=3),
    ]
    hint = Line("gradcli cells NAME shows one cell's equations and parameters", style="dim")
    data = envelope(_COMMAND) | {"cells": [dict(zip(_LISTED, row, strict=True)) for row in rows]}
    return Report(_COMMAND, [[Table(columns, rows)], [hint]], data, Records(_LISTED, rows))


def cell_report(name: str) -> Report:
    """Return one built-in cell: its equations, its parameters with their shapes, its initialisation and its reference.

    Raises UsageError if no cell has this name.
    """
    if name not in cells.names():
        raise UsageError(f"no built-in cell is called {name!r}; known: {_known(name)}")
    block = cells.load(name).cell
    parsed = parse_cell(
        block.equations,
        output=block.output,
        constants=block.constants,
        shapes=block.shapes,
        activation=block.activation,
    )
    shapes = symbolic_shapes(parsed)
    init = {pattern: initialiser.model_dump(mode="json") for pattern, initialiser in block.init.items()}
    rows = [(parameter, " x ".join(shape) or "scalar") for parameter, shape in shapes.items()]
    groups: list[list[Block]] = [
        [Line(block.title or "", name, "title")],
        [Verbatim(block.equations)],
        [Table([Column("parameter", "text", keep=9), Column("shape", "text", keep=9)], rows)],
        [Verbatim(_as_yaml(block, init))],
        [Line(text, label, "dim") for label, text in (("reference", block.reference), ("notes", block.notes)) if text],
    ]
    data = envelope(_COMMAND) | {
        "name": name,
        "title": block.title,
        "year": block.year,
        "reference": block.reference,
        "notes": block.notes,
        "equations": block.equations,
        "output": parsed.output,
        "states": list(parsed.states),
        "activation": block.activation,
        "constants": dict(block.constants),
        "parameters": {parameter: {"shape": list(shape)} for parameter, shape in shapes.items()},
        "init": init,
        "tied": block.tied is not False,
    }
    return Report(_COMMAND, [group for group in groups if group], data, Records(("parameter", "shape"), rows))


def symbolic_shapes(cell: ParsedCell) -> dict[str, tuple[str, ...]]:
    """Return the shape of every parameter in terms of the sizes, such as ("hidden_size", "input_size")."""
    try:
        shapes = cell.at_sizes(_H, _I).shapes
    except CellError:  # a cell that adds its input to its state exists only where both have one size
        shapes = cell.at_sizes(_H, _H).shapes
    return {name: tuple(map(_size_in_words, shapes.parameters[name])) for name in cell.parameters}


def _size_in_words(size: int) -> str:
    hidden, rest = divmod(size, _H)
    inputs, number = divmod(rest, _I)
    terms = [word if count == 1 else f"{count} {word}" for count, word in ((hidden, HIDDEN), (inputs, INPUT)) if count]
    return " + ".join(terms + [str(number)] * (number > 0))


def _as_yaml(block: CellBlock, init: dict[str, Any]) -> str:
    """Return what else the spec of this cell says, as a spec would say it."""
    import yaml

    rest = {"activation": block.activation, "constants": dict(block.constants), "init": init}
    depth = {"tied": block.tied, "input_at": block.input_at}
    said = {key: value for key, value in rest.items() if value} | {k: v for k, v in depth.items() if v is not None}
    return str(yaml.safe_dump(said, sort_keys=False))


def _known(name: str) -> str:
    return ", ".join(cells.names()) + did_you_mean(name, cells.names())
