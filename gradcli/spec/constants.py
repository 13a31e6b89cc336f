"""What a cell's `constants` and `fixed` are to its equations: numbers, and arrays that no training changes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from gradcli.frozen import frozen
from gradcli.spec.models import CellBlock


@frozen
class Constants:
    """The constants of a cell.

    numbers: those that are one number in the equations. arrays: the others, as the spec has them.
    shapes: of the cell, with those of arrays that are given entry by entry. fixed: all parameters that are not trained.
    """

    numbers: Mapping[str, float]
    arrays: Mapping[str, Any]
    shapes: Mapping[str, Sequence[int | str]]
    fixed: frozenset[str]


def constants_of(block: CellBlock, own: Mapping[str, Any]) -> Constants:
    """Return the constants of a cell, with those that a spec gives in the place of its own.

    A list is a vector, a list of lists a matrix; one number with sizes in `shapes` fills an array of these.
    """
    numbers: dict[str, float] = {}
    arrays: dict[str, Any] = {}
    shapes = dict(block.shapes)
    for name, value in {**block.constants, **own}.items():
        if isinstance(value, int | float) and not shapes.get(name):
            numbers[name] = float(value)
            continue
        arrays[name] = value
        if isinstance(value, list):
            shapes.setdefault(name, _sizes(value))
    return Constants(numbers, arrays, shapes, frozenset((*block.fixed, *arrays)))


def _sizes(value: list[Any]) -> list[int | str]:
    """Return the sizes of nested lists, by their first entries; whether all fit is checked where they are read."""
    inner = value[0] if value else None
    return [len(value), len(inner)] if isinstance(inner, list) else [len(value)]
