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
    sizes: of the arrays, those of `shapes` where it has them. fixed: all parameters that are not trained.
    """

    numbers: Mapping[str, float]
    arrays: Mapping[str, Any]
    sizes: Mapping[str, Sequence[int | str]]
    fixed: frozenset[str]


def constants_of(block: CellBlock, own: Mapping[str, Any]) -> Constants:
    """Return the constants of a cell, with those that a spec gives in the place of its own.

    A list is a vector, a list of lists a matrix; one number with sizes in `shapes` fills an array of these.
    """
    numbers: dict[str, float] = {}
    arrays: dict[str, Any] = {}
    sizes: dict[str, Sequence[int | str]] = {}
    for name, value in {**block.constants, **own}.items():
        if isinstance(value, int | float) and not block.shapes.get(name):
            numbers[name] = float(value)
            continue
        arrays[name] = value
        sizes[name] = block.shapes.get(name) or _sizes(value)
    return Constants(numbers, arrays, sizes, frozenset((*block.fixed, *arrays)))


def _sizes(value: Any) -> list[int | str]:
    """Return the sizes of nested lists, by their first entries; whether all fit is checked where they are read."""
    inner = value[0] if value else None
    return [len(value), len(inner)] if isinstance(inner, list) else [len(value)]
