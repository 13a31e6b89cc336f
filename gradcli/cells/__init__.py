"""The built-in cells: one YAML file each, in the form in which anyone can write a cell.

A file may also list `aliases`: what frameworks and papers call the cell. Names are found whatever their case, and
behind the module that a framework has them in: LSTM, nn.LSTM, keras.layers.LSTM.
"""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from gradcli.errors import SpecError
from gradcli.frozen import frozen
from gradcli.spec.shown import shown

if TYPE_CHECKING:
    from gradcli.spec.models import CellBlock
    from gradcli.spec.yaml12 import Document

_ENDING = ".yaml"
_FOLDER = Path(__file__).parent
_ALIASES = r"(?m)^aliases: \[([^\]]*)\]$"
#: The modules in which frameworks have their cells; the longest of those that fit comes first.
FRAMEWORKS = (
    "torch.nn.",
    "tensorflow.keras.layers.",
    "tf.keras.layers.",
    "keras.layers.",
    "layers.",
    "flax.linen.",
    "flax.nnx.",
    "linen.",
    "nnx.",
    "nn.",
)


@frozen
class LoadedCell:
    """A built-in cell, and its file with the place of every key and value.

    source: the file, as messages name it. aliases: its other names, in small letters.
    """

    cell: CellBlock
    document: Document
    source: str
    aliases: tuple[str, ...] = ()


@cache
def _names() -> tuple[str, ...]:
    return tuple(sorted(file.stem for file in _FOLDER.iterdir() if file.suffix == _ENDING))


def names() -> list[str]:
    """Return the names of the built-in cells, sorted."""
    return list(_names())


def file_of(name: str) -> Path:
    """Return the file of the built-in cell of this name (one of `names`)."""
    return _FOLDER / f"{name}{_ENDING}"


@cache
def aliases() -> dict[str, str]:
    """Return the other names of the built-in cells, in small letters, and the cell that each means."""
    found: dict[str, str] = {}
    for name in names():
        # All files are looked through, and parsing them would take longer than most runs.
        line = re.search(_ALIASES, file_of(name).read_text(encoding="utf-8"))
        found |= {alias.strip(): name for alias in (line[1].split(",") if line else ())}
    return found


def find(name: str) -> str | None:
    """Return the built-in cell that a name means, whatever its case: its own, an alias, or a framework's class.

    >>> find("LSTM"), find("torch.nn.LSTM"), find("SimpleRNN"), find("nosuch")
    ('lstm', 'lstm', 'rnn', None)
    """
    if name in _names():
        return name
    known = {own: own for own in names()} | aliases()
    return known.get(name.casefold()) or known.get(_without_module(name))


def _without_module(name: str) -> str:
    """Return the name of a class, in small letters, without the module that a framework has it in."""
    small = name.casefold()
    return small.removeprefix(next((module for module in FRAMEWORKS if small.startswith(module)), ""))


def completions(start: str) -> list[str]:
    """Return the names that may be meant by the beginning of one: of cells, else of what they are also called."""
    small = _without_module(start)
    own = [name for name in names() if name.startswith(small)]
    return own or [alias for alias in aliases() if alias.startswith((small, start.casefold()))]


def unknown(name: str) -> str:
    """Return the message that no built-in cell has this name."""
    from difflib import get_close_matches

    near = get_close_matches(_without_module(name), [*names(), *aliases()], n=1, cutoff=0.6)
    hint = f"; did you mean {find(near[0])!r}?" if near else ""
    return f"no built-in cell is called {shown(name)}{hint} ('gradcli cells' lists them)"


@cache
def load(name: str) -> LoadedCell:
    """Return the built-in cell of this name (one of `names`); raises SpecError where its file has mistakes."""
    # Imported here: the names alone, for `--help` and completion, need no models.
    from gradcli.spec import yaml12
    from gradcli.spec.explain import check
    from gradcli.spec.models import CellBlock
    from gradcli.spec.positions import Positions

    source = f"gradcli/cells/{name}{_ENDING}"
    document = yaml12.read(file_of(name).read_bytes(), source)
    positions = Positions(source, document)
    data = dict(document.data) if isinstance(document.data, dict) else document.data
    listed = data.pop("aliases", []) if isinstance(data, dict) else []
    cell, findings = check(CellBlock, data)
    problems = [*positions.mistakes(), *(positions.problem(*finding) for finding in findings)]
    if cell is not None and cell.name != name:
        problems.append(positions.problem(("name",), f"expected {name!r}, the name of the file; got {cell.name!r}"))
    if cell is None or problems:
        raise SpecError(problems)
    return LoadedCell(cell, document, source, tuple(listed))
