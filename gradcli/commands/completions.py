"""What a shell offers when Tab is pressed: cells and specs, paths of `--set`, layers, kinds of verdict, methods.

A function takes the word so far, and the SPEC of the line where that counts; where it has nothing to offer, shells go
on to files. Nothing here computes, and a spec that cannot be read offers nothing: this is no place for messages. What
is offered goes through the shell's own parser, which takes some characters, in a hostile file's name or in a name in a
checkpoint, for commands; a word with any of these is not offered.
"""

from __future__ import annotations

import ast
import os
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import wraps
from pathlib import Path
from typing import Any, ParamSpec

from gradcli.cells import completions as cell_names
from gradcli.cells import file_of as file_of_cell
from gradcli.cells import find as find_cell
from gradcli.language.parser import Equation, parse_equations
from gradcli.spec.verdict_kinds import VERDICT_KINDS

_Arguments = ParamSpec("_Arguments")

#: What no shell takes for anything but itself within a word.
_PLAIN = r"[A-Za-z0-9_./+@%,=:-]+"
_SPECS = (".yaml", ".yml")
#: Names of the language that are no parameters: the input, the time and the identity.
_OWN_NAMES = ("x", "t", "I")
#: A longer list is of no use, and a longer file of no interest.
_MOST_LAYERS = 64
_MOST_BYTES = 2**20


def _offering(find: Callable[_Arguments, Iterable[str]]) -> Callable[_Arguments, list[str]]:
    """Make a list of what can be offered; what cannot be read offers nothing, whatever is wrong with it."""

    @wraps(find)
    def offered(*arguments: _Arguments.args, **options: _Arguments.kwargs) -> list[str]:
        try:
            return [word for word in dict.fromkeys(find(*arguments, **options)) if re.fullmatch(_PLAIN, word)]
        except Exception:
            return []

    return offered


@_offering
def specs(incomplete: str) -> Iterable[str]:
    """Yield built-in cells, spec files and checkpoints that begin so, and folders beside others."""
    if os.sep not in incomplete:
        yield from cell_names(incomplete)
    files = list(_files(incomplete))
    # The only word would get a blank behind it; where it is a folder, the shell's own completion goes on into it.
    if not (len(files) == 1 and files[0].endswith(os.sep)):
        yield from files


def _files(incomplete: str) -> Iterable[str]:
    from gradcli.weights.formats import endings

    folder, start = os.path.split(incomplete)
    for entry in sorted(os.scandir(folder or os.curdir), key=lambda entry: entry.name):
        hidden = entry.name.startswith(".") and not start.startswith(".")
        if hidden or not entry.name.startswith(start):
            continue
        if entry.is_dir():
            yield f"{os.path.join(folder, entry.name)}{os.sep}"
        elif entry.name.lower().endswith((*_SPECS, *endings())):
            yield os.path.join(folder, entry.name)


@_offering
def example_names(incomplete: str) -> Iterable[str]:
    """Yield the examples that begin so."""
    from gradcli.spec.examples import names

    yield from (name for name in names() if name.startswith(incomplete))


@_offering
def families(incomplete: str) -> Iterable[str]:
    """Yield the families of built-in cells that begin so, in small letters and with hyphens."""
    from gradcli.spec.models import FAMILIES

    words = (family.casefold().replace(" ", "-") for family in FAMILIES)
    yield from (word for word in words if word.startswith(incomplete.casefold()))


@_offering
def fail_on(incomplete: str) -> Iterable[str]:
    """Yield the lists of kinds of verdict that begin so: of the last word each kind that is not in the list yet."""
    *given, start = incomplete.split(",")
    for kind in VERDICT_KINDS:
        if kind.startswith(start) and kind not in given:
            yield ",".join([*given, kind])


@_offering
def clip_methods(incomplete: str) -> Iterable[str]:
    """Yield the methods of `--clip` that begin so, up to where the threshold goes."""
    from gradcli.spec.base import alternatives_of
    from gradcli.spec.models import Clip

    yield from (f"{method.NAME}=" for method in alternatives_of(Clip) if method.NAME.startswith(incomplete))


@_offering
def set_paths(spec: str | None, incomplete: str) -> Iterable[str]:
    """Yield the paths of `--set` that begin so, with the parameters and states of the cell; of one, its words."""
    from gradcli.spec.fields import PARAMETER, STATE, field_paths

    names = {PARAMETER: parameters(spec), STATE: states(spec)}
    words: dict[str, Iterable[str]] = {}
    for path, known in field_paths().items():
        place = next((place for place in names if place in path), None)
        words |= {path.replace(place, name): known for name in names[place]} if place else {path: known}
    path, equals, value = incomplete.partition("=")
    fitting = [path] if equals else [known for known in words if known.startswith(path)]
    for known in fitting:
        if len(fitting) == 1 and words[known]:
            yield from (f"{known}={word}" for word in words[known] if word.startswith(value))
        elif not equals:
            yield f"{known}="


@_offering
def parameters(spec: str | None) -> Iterable[str]:
    """Yield the names of the parameters of a spec's cell, in the order of its equations."""
    cell, equations = _cell(spec)
    trees = [node for equation in equations for node in ast.walk(equation.expression)]
    called = {node.func.id for node in trees if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)}
    known = {*_OWN_NAMES, *called, *(equation.name for equation in equations), *cell.get("constants", {})}
    yield from (node.id for node in trees if isinstance(node, ast.Name) and node.id not in known)


@_offering
def states(spec: str | None) -> Iterable[str]:
    """Yield the names of the states of a spec's cell."""
    yield from (equation.name for equation in _cell(spec)[1] if equation.is_state)


@_offering
def layers(spec: str | None, incomplete: str) -> Iterable[str]:
    """Yield the layers of a stack, or of the checkpoint of a spec, that begin so."""
    if spec is not None:
        yield from checkpoint_layers(spec, incomplete)
        yield from (name for name in _stack_of(_data_of(spec)) if name.startswith(incomplete))


def _stack_of(data: Mapping[str, Any]) -> Iterable[str]:
    from gradcli.weights.layers import layer_key

    directions = (False, True) if data.get("bidirectional") else (False,)
    for number in range(min(int(data.get("num_layers", 1)), _MOST_LAYERS)):
        yield from (layer_key(number, reverse=reverse) for reverse in directions)


@_offering
def checkpoint_layers(spec: str | None, incomplete: str) -> Iterable[str]:
    """Yield the recurrent layers of a checkpoint, or of the checkpoint of a spec, that begin so."""
    from gradcli.weights.formats import format_of, open_checkpoint

    file = Path(spec or "")
    if format_of(file.name) is None:
        weights = _data_of(spec)["weights"]
        file = file.parent / str(weights["file"] if isinstance(weights, dict) else weights)
    from gradcli.weights.layouts import find_layers  # which needs NumPy

    with open_checkpoint(file, str(file)) as checkpoint:
        yield from (layer.name for layer in find_layers(checkpoint).layers if layer.name.startswith(incomplete))


def _cell(spec: str | None) -> tuple[Mapping[str, Any], Sequence[Equation]]:
    """Return the cell of a spec as its file has it, and its equations."""
    cell = _data_of(spec)["cell"]
    if isinstance(cell, str):
        file = file_of_cell(find_cell(cell) or cell)
        cell = _read(file.read_bytes(), file.name)
    return cell, parse_equations(cell["equations"])[0]


def _data_of(spec: str | None) -> Mapping[str, Any]:
    """Return what a spec says; of the bare name of a cell, what it stands for."""
    if spec is None or not spec.endswith(_SPECS):
        return {"cell": spec}
    with Path(spec).open("rb") as file:
        return _read(file.read(_MOST_BYTES), spec)


def _read(raw: bytes, source: str) -> Mapping[str, Any]:
    from gradcli.spec import yaml12

    data: Mapping[str, Any] = yaml12.read(raw, source).data
    return data
