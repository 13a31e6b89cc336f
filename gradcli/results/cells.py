"""The built-in cells as a report: the list of them, and one of them in full."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from gradcli import cells
from gradcli.errors import UsageError
from gradcli.language.cell import ParsedCell, parse_cell
from gradcli.results.cell_sizes import parameters_per_unit, state_size, symbolic_shapes
from gradcli.results.model import Block, Column, Line, Records, Report, Table, Verbatim, envelope
from gradcli.spec.models import CellBlock

_COMMAND = "cells"
_LISTED = ("name", "title", "year", "reference", "state_size", "parameters_per_unit")


def zoo_report() -> Report:
    """Return the list of all built-in cells."""
    rows = [_listed(name) for name in cells.names()]
    columns = [
        Column("name", "text", keep=9),
        Column("state", "number", keep=5),
        Column("parameters per unit", "number", keep=7),
        Column("year", "number", keep=6),
        Column("title", "text", keep=8),
        Column("reference", "text", keep=3),
    ]
    shown = [
        [row[key] for key in ("name", "state_size", "parameters_per_unit", "year", "title", "reference")]
        for row in rows
    ]
    note = "H hidden units, I inputs. state: the numbers that a step hands on to the next"
    hint = Line("gradcli cells NAME shows one cell's equations and parameters", style="dim")
    data = envelope(_COMMAND) | {"cells": rows}
    records = Records(_LISTED, [[row[key] for key in _LISTED] for row in rows])
    return Report(_COMMAND, [[Table(columns, shown, note=note)], [hint]], data, records)


def _listed(name: str) -> dict[str, Any]:
    """Return what the list says of one cell."""
    block = cells.load(name).cell
    parsed = _parsed(block)
    per_unit = parameters_per_unit(parsed, _twice(block))
    values = (name, block.title, block.year, block.reference, state_size(parsed), per_unit)
    return dict(zip(_LISTED, values, strict=True))


def cell_report(name: str) -> Report:
    """Return one built-in cell: its equations, its parameters with their shapes, its initialisation and its reference.

    Raises UsageError if no cell has this name.
    """
    known = cells.find(name)
    if known is None:
        raise UsageError(cells.unknown(name))
    name, also, block = known, cells.load(known).aliases, cells.load(known).cell
    parsed = _parsed(block)
    shapes = symbolic_shapes(parsed)
    init = {pattern: initialiser.model_dump(mode="json") for pattern, initialiser in block.init.items()}
    twice = _twice(block)
    size, per_unit = state_size(parsed), parameters_per_unit(parsed, twice)
    rows = [(parameter, " x ".join(shape) or "scalar") for parameter, shape in shapes.items()]
    about = (("also called", ", ".join(also)), ("reference", block.reference), ("notes", block.notes))
    groups: list[list[Block]] = [
        [Line(block.title or "", name, "title")],
        [Verbatim(block.equations)],
        [
            Table([Column("parameter", "text", keep=9), Column("shape", "text", keep=9)], rows),
            Line(f"{per_unit} per hidden unit, with H hidden units and I inputs{_two(twice)}", "parameters", "dim"),
            Line(f"{size} numbers from step to step", "state", "dim"),
        ],
        [Verbatim(_as_yaml(block, init))],
        [Line(text, label, "dim") for label, text in about if text],
    ]
    data = envelope(_COMMAND) | {
        "name": name,
        "aliases": list(also),
        "title": block.title,
        "year": block.year,
        "reference": block.reference,
        "notes": block.notes,
        "equations": block.equations,
        "output": parsed.output,
        "states": list(parsed.states),
        "state_size": size,
        "parameters_per_unit": per_unit,
        "activation": block.activation,
        "constants": dict(block.constants),
        "parameters": {
            parameter: {"shape": list(shape), "copies": 1 + (parameter in twice)} for parameter, shape in shapes.items()
        },
        "init": init,
        "tied": block.tied is not False,
    }
    return Report(_COMMAND, [group for group in groups if group], data, Records(("parameter", "shape"), rows))


def _twice(block: CellBlock) -> set[str]:
    """Return the parameters that count twice with the cell's usual initialisation."""
    return block.counting_twice({initialiser.NAME for initialiser in block.init.values()})


def _two(twice: Collection[str]) -> str:
    return f"; two each of {', '.join(sorted(twice))}, as in PyTorch" if twice else ""


def _parsed(block: CellBlock) -> ParsedCell:
    return parse_cell(
        block.equations,
        output=block.output,
        constants=block.constants,
        shapes=block.shapes,
        activation=block.activation,
    )


def _as_yaml(block: CellBlock, init: dict[str, Any]) -> str:
    """Return what else the spec of this cell says, as a spec would say it."""
    import yaml

    rest = {"activation": block.activation, "constants": dict(block.constants), "init": init}
    depth = {"tied": block.tied, "input_at": block.input_at}
    said = {key: value for key, value in rest.items() if value} | {k: v for k, v in depth.items() if v is not None}
    return str(yaml.safe_dump(said, sort_keys=False))
