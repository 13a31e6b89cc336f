"""The tensors of a PyTorch checkpoint under their full names: nested dicts are joined by dots."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from gradcli.errors import InputFileError, ResourceError
from gradcli.weights.checkpoint import MAX_NAME, MAX_TENSORS, Ignored, Tensor, require_tensor, short
from gradcli.weights.readers.torch_objects import Inert, Named, StridedTensor

#: How deep dicts may nest.
MAX_DEPTH = 32
#: Characters of all names together.
_MAX_CHARACTERS = 64 << 20


class NamedTensors:
    """tensors: by full name, in the order of the file. views: where their numbers are. ignored: all else.

    A dict without a tensor anywhere in it is one thing to ignore, however much it holds: vocabularies are long.

    Raises:
        InputFileError: dicts that hold themselves or nest too deep; two tensors of one name, or names out of reason.
        ResourceError: more tensors than are read, as dicts that repeat each other many times over have.
    """

    def __init__(self, state: Mapping[Any, Any], file: str) -> None:
        self.tensors: dict[str, Tensor] = {}
        self.views: dict[str, StridedTensor] = {}
        self.ignored: list[Ignored] = []
        self._file = file
        self._with_tensors = _dicts_with_tensors(state)
        self._visited = self._characters = 0
        self._add(state, "", 0)

    def _add(self, state: Mapping[Any, Any], prefix: str, depth: int) -> None:
        if depth > MAX_DEPTH:
            raise InputFileError(f"{self._file}: refused: its dicts nest deeper than {MAX_DEPTH} levels")
        for key, value in state.items():
            name = prefix + _shown(key)
            self._visited += 1
            self._characters += len(name)
            if self._visited > MAX_TENSORS or self._characters > _MAX_CHARACTERS:
                raise ResourceError(f"{self._file}: it holds more tensors than any checkpoint has")
            if isinstance(value, StridedTensor):
                self._add_tensor(name, value)
            elif isinstance(value, dict) and id(value) in self._with_tensors:
                if len(name) > MAX_NAME:
                    raise InputFileError(f"{self._file}: refused: a dict's name is too long: {short(name)}")
                self._add(value, f"{name}.", depth + 1)
            else:
                self.ignored.append(Ignored(short(name), _described(value)))

    def _add_tensor(self, name: str, view: StridedTensor) -> None:
        tensor = require_tensor(Tensor(name, view.shape, view.dtype), self._file)
        if name in self.tensors:
            raise InputFileError(f"{self._file}: refused: two tensors have the name {name}")
        self.tensors[name] = tensor
        self.views[name] = view


def _dicts_with_tensors(state: Mapping[Any, Any]) -> set[int]:
    """Return the ids of the dicts that hold a tensor, or a dict that does."""
    parents: dict[int, list[int]] = {id(state): []}
    waiting, found = [state], []
    while waiting:
        parent = waiting.pop()
        if any(isinstance(value, StridedTensor) for value in parent.values()):
            found.append(id(parent))
        for child in parent.values():
            if isinstance(child, dict):
                if id(child) not in parents:
                    parents[id(child)] = []
                    waiting.append(child)
                parents[id(child)].append(id(parent))
    holding: set[int] = set()
    while found:
        each = found.pop()
        if each not in holding:
            holding.add(each)
            found.extend(parents[each])
    return holding


def _shown(key: Any) -> str:
    if isinstance(key, str):
        return key
    return str(key) if isinstance(key, int) else "?"


def _described(value: Any) -> str:
    if isinstance(value, Inert):
        return value.what
    if isinstance(value, Named):
        return str(value)
    if isinstance(value, dict):
        return f"a dict of {len(value):,} entries without a tensor"
    if isinstance(value, list | tuple):
        return f"a {type(value).__name__} of {len(value):,} entries"
    kinds = {str: "a text", bool: "a bool", int: "a number", float: "a number", bytes: "bytes", type(None): "None"}
    return kinds.get(type(value), "an object")
