"""Values from the command line in place of the spec's own: options such as ``--seq-len 50``, and ``--set PATH=VALUE``.

Both change the plain data before it is checked, so what an option says meets the same rules as what a file says.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

from gradcli.errors import Problem, SpecError
from gradcli.spec import yaml12
from gradcli.spec.base import Choice, alternatives_of
from gradcli.spec.checked import SpecModel
from gradcli.spec.initialisers import Initialiser, InitialState
from gradcli.spec.losses import ClassTarget, Target
from gradcli.spec.models import CellBlock, Clip, Spec, is_initial_state
from gradcli.spec.positions import SET, Positions
from gradcli.spec.shown import Path, counted, dotted, printable

_MAX_INDEX_DIGITS = 9
_INDEX = r"\[(\d+)\]"

#: Fields whose block a bare word may stand for, and the key that it is the value of; see `gradcli.spec.base`.
_BARE_KEYS: Mapping[Path, str] = {("input",): "kind", ("loss",): "kind", ("weights",): "file"}

Choices = Mapping[str, type[Choice]]


def _by_name(*annotations: Any) -> Choices:
    return {kind.NAME: kind for annotation in annotations for kind in alternatives_of(annotation)}


_INITIALISERS = _by_name(Initialiser)
_INITIAL_STATES = _by_name(InitialState)
_TARGETS = _by_name(Target, ClassTarget)
_CLIPS = _by_name(Clip)

# Tables whose keys are names or globs of parameters, which may hold dots; and the choices that their values are.
# Of the keys that match a parameter the last one wins: what an option sets goes behind all others.
_PARAMETER_TABLES: Mapping[Path, Choices] = {
    ("init",): _INITIALISERS,
    ("params",): {},
    ("cell", "init"): _INITIALISERS,
    ("weights", "map"): {},
    ("weights", "scale"): {},
    ("weights", "shift"): {},
}


def option_name(field: str) -> str:
    """Return the option that sets a field of the spec: ``--seq-len`` for ``seq_len``."""
    return "--" + field.replace("_", "-")


def split_path(text: str) -> Path:
    """Return the parts of a dotted path.

    Behind ``init`` and ``params`` stands one key, dots and all (``layer1.W_hh``), unless the end is an initialiser or
    an argument of one (``init.W_hh.normal.std``).
    """
    for table, choices in _PARAMETER_TABLES.items():
        start = ".".join(map(str, table)) + "."
        if text.startswith(start):
            parts = text.removeprefix(start).split(".")
            tail = next((n for n in (1, 2) if len(parts) > n and parts[-n] in choices), 0)
            key = ".".join(parts[: len(parts) - tail])
            return (*table, key, *parts[len(parts) - tail :])
    return tuple(re.sub(_INDEX, r".\1", text).split("."))


def apply_options(data: dict[str, Any], options: Mapping[str, object], positions: Positions) -> None:
    """Put the values of options in place of top-level fields."""
    for field, value in options.items():
        data[field] = value
        argument = "" if isinstance(value, list | dict) else str(value)
        positions.override((field,), option_name(field), argument)


def apply_overrides(data: dict[str, Any], overrides: Sequence[str], positions: Positions) -> list[Problem]:
    """Put the values of ``PATH=VALUE`` texts in place; return what is wrong with them."""
    problems: list[Problem] = []
    for text in overrides:
        label = f"{SET} {printable(text)}"
        name, equals, value_text = text.partition("=")
        path = split_path(name.strip())
        if not equals or "" in path or not name.isprintable():
            problems.append(Problem(label, 0, 0, "", "expected PATH=VALUE, such as init.b_f=1"))
            continue
        try:
            document = yaml12.read(value_text, label)
        except SpecError as error:
            problems += [Problem(label, 0, 0, dotted(path), problem.message) for problem in error.problems]
            continue
        if document.mistakes:
            problems += [Problem(label, 0, 0, dotted(path), mistake.message) for mistake in document.mistakes]
            continue
        try:
            positions.override(_put(data, path, document.data), label, text)
        except _NotSettable as error:
            problems.append(Problem(label, 0, 0, dotted(error.path), error.message))
    return problems


class _NotSettable(Exception):
    """A path that leads nowhere."""

    def __init__(self, path: Path, message: str) -> None:
        self.path = path
        self.message = message


def _put(data: dict[str, Any], path: Path, value: Any) -> Path:
    """Set the value at `path`, with the blocks above it made where they are missing; return the path as it now is."""
    if path[0] == "cell" and len(path) > 1 and isinstance(data.get("cell"), str):
        raise _NotSettable(path, _built_in_cell(str(path[1]), data["cell"]))
    node: Any = data
    done: Path = ()
    for part, following in pairwise(path):
        done = (*done, _key_in(node, done, part))
        child = node.get(part) if isinstance(node, dict) else node[done[-1]]
        if child is None:
            child = _default_block(done)
        elif isinstance(child, str) and done in _BARE_KEYS:
            child = {_BARE_KEYS[done]: child}  # what the bare word stands for
        choices = _choices_at(done)
        if following in choices:
            child = _opened(child, choices[str(following)])
        _set(node, done, child)
        node = child
    done = (*done, _key_in(node, done, path[-1]))
    _set(node, done, value)
    return done


def _set(node: Any, path: Path, value: Any) -> None:
    """Set the value at `path` in the block or list that holds it."""
    if path[:-1] in _PARAMETER_TABLES:
        node.pop(path[-1], None)
    node[path[-1]] = value


def _key_in(node: Any, path: Path, part: str | int) -> str | int:
    """Return the key or index that `part` means in the block or list at `path`."""
    if isinstance(node, dict):
        return part
    if not isinstance(node, list):
        raise _NotSettable(path, f"holds no block, so nothing can be set in it; set {dotted(path)} as a whole")
    index = int(part) if len(str(part)) <= _MAX_INDEX_DIGITS and str(part).isdecimal() else -1
    if not 0 <= index < len(node):
        raise _NotSettable(
            path, f"has {counted(len(node), 'entry', 'entries')}, numbered from 0; none is {printable(str(part))!r}"
        )
    return index


def _choices_at(path: Path) -> Choices:
    """Return the choices that the value at `path` takes."""
    if path[:-1] in _PARAMETER_TABLES:
        return _PARAMETER_TABLES[path[:-1]]
    if path == ("loss", "target"):
        return _TARGETS
    if len(path) == 2 and path[0] == "clip":
        return _CLIPS
    if len(path) == 1 and is_initial_state(str(path[0])):
        return _INITIAL_STATES
    return {}


def _opened(value: Any, choice: type[Choice]) -> dict[str, Any]:
    """Return a choice as ``{name: {arguments}}``; with no arguments if `value` is another choice."""
    arguments: Any = value.get(choice.NAME, {}) if isinstance(value, dict) and len(value) == 1 else {}
    if arguments is not None and not isinstance(arguments, dict):
        arguments = {choice.MAIN: arguments}
    return {choice.NAME: dict(arguments or {})}


def _default_block(path: Path) -> Any:
    """Return what the spec holds at `path` where it says nothing, without arguments that are defaults themselves."""
    field = Spec.model_fields.get(str(path[0])) if len(path) == 1 else None
    default = field.get_default() if field is not None and not field.is_required() else {}
    if isinstance(default, SpecModel):
        return default.model_dump(exclude_unset=True)
    if isinstance(default, list):
        return [entry.model_dump() for entry in default]
    if default is None:
        return {}
    return dict(default) if isinstance(default, dict) else default


def _built_in_cell(key: str, name: str) -> str:
    if key in Spec.model_fields and key in CellBlock.model_fields:
        return f"the cell is the built-in {printable(name)!r}; set `{key}` at the top level of the spec instead"
    return (
        f"the cell is the built-in {printable(name)!r}, which cannot be changed; only `activation` and `constants` "
        "can be set for it, at the top level of the spec"
    )
