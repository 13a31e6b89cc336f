"""The built-in cells: one YAML file each, in the form in which anyone can write a cell."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import TYPE_CHECKING

from gradcli.errors import SpecError, did_you_mean
from gradcli.spec.shown import shown

if TYPE_CHECKING:
    from gradcli.spec.models import CellBlock
    from gradcli.spec.yaml12 import Document

_ENDING = ".yaml"


@dataclass(frozen=True)
class LoadedCell:
    """A built-in cell, and its file with the place of every key and value; `source` names the file in messages."""

    cell: CellBlock
    document: Document
    source: str


@cache
def _names() -> tuple[str, ...]:
    files = resources.files(__name__).iterdir()
    return tuple(sorted(file.name.removesuffix(_ENDING) for file in files if file.name.endswith(_ENDING)))


def names() -> list[str]:
    """Return the names of the built-in cells, sorted."""
    return list(_names())


def unknown(name: str) -> str:
    """Return the message that no built-in cell has this name."""
    return f"no built-in cell is called {shown(name)}{did_you_mean(name, names())} ('gradcli cells' lists them)"


@cache
def load(name: str) -> LoadedCell:
    """Return the built-in cell of this name (one of `names`); raises SpecError where its file has mistakes."""
    # Imported here: the names alone, for `--help` and completion, need no models.
    from gradcli.spec import yaml12
    from gradcli.spec.explain import check
    from gradcli.spec.models import CellBlock
    from gradcli.spec.positions import Positions

    file = resources.files(__name__) / f"{name}{_ENDING}"
    source = f"gradcli/cells/{name}{_ENDING}"
    document = yaml12.read(file.read_bytes(), source)
    positions = Positions(source, document)
    cell, findings = check(CellBlock, document.data)
    problems = [*positions.mistakes(), *(positions.problem(*finding) for finding in findings)]
    if cell is not None and cell.name != name:
        problems.append(positions.problem(("name",), f"expected {name!r}, the name of the file; got {cell.name!r}"))
    if cell is None or problems:
        raise SpecError(problems)
    return LoadedCell(cell, document, source)
