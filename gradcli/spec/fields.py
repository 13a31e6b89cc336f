"""The fields of the spec as the paths that `--set` takes, read off the models: for completion in a shell."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from itertools import chain
from types import NoneType
from typing import Any, Literal, get_args, get_origin

from gradcli.spec.base import Choice
from gradcli.spec.checked import SpecModel
from gradcli.spec.models import Spec

#: Stand in a path for the name of a parameter, and of a state.
PARAMETER, STATE = "<parameter>", "<state>"
#: Tables of the spec whose keys are names of parameters.
_BY_PARAMETER = ("init", "params", "weights.map", "weights.scale", "weights.shift")


@cache
def field_paths() -> Mapping[str, Sequence[str]]:
    """Return every path of the spec, with the words that may stand as its value, none where it takes no certain ones.

    A table of parameters is a path with `PARAMETER` in it, the table of initial states one with `STATE`.
    """
    found: dict[str, list[str]] = {}
    for path, words in _fields_of(Spec, ""):
        found.setdefault(path, []).extend(word for word in words if word not in found.get(path, ()))
    return found


def _fields_of(model: type[SpecModel], trail: str) -> Iterator[tuple[str, list[str]]]:
    for name, field in model.model_fields.items():
        path, kinds = f"{trail}{name}", list(_alternatives(field.annotation))
        table = next((get_args(kind)[1] for kind in kinds if get_origin(kind) is dict), None)
        if path == "initial_states":
            yield f"{STATE}_0", _words(table)
        elif path in _BY_PARAMETER:
            yield f"{path}.{PARAMETER}", _words(table)
        elif table is None:
            yield path, _words(field.annotation)
        for block in _blocks(kinds):
            yield from _fields_of(block, f"{path}.")


def _alternatives(annotation: Any) -> Iterator[Any]:
    """Yield what a field may hold, out of its unions and annotations."""
    parts = get_args(annotation)
    if annotation is None or annotation is NoneType:
        return
    if not parts or get_origin(annotation) in (Literal, dict, list):
        yield annotation
    elif hasattr(annotation, "__metadata__"):
        yield from _alternatives(parts[0])
    else:
        yield from chain.from_iterable(map(_alternatives, parts))


def _blocks(kinds: Sequence[Any]) -> list[type[SpecModel]]:
    return [kind for kind in kinds if isinstance(kind, type) and issubclass(kind, SpecModel) and not _is_choice(kind)]


def _is_choice(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, Choice)


def _words(annotation: Any) -> list[str]:
    """Return the words that may be the whole value."""
    words: list[str] = []
    for kind in _alternatives(annotation):
        if get_origin(kind) is Literal:
            words += [str(word) for word in get_args(kind) if isinstance(word, str)]
        elif kind is bool:
            words += ["true", "false"]
        elif _is_choice(kind):
            words += [kind.NAME] * (not any(field.is_required() for field in kind.model_fields.values()))
        elif (
            _blocks([kind])
            and "kind" in kind.model_fields
            and all(not field.is_required() for name, field in kind.model_fields.items() if name != "kind")
        ):
            words += _words(kind.model_fields["kind"].annotation)
    return words
