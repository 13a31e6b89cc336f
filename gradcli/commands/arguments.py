"""The arguments of a command as they are declared; those of a call must be of their types and in their bounds."""

from __future__ import annotations

import inspect
import operator
import sys
from collections.abc import Callable, Mapping, Sequence
from numbers import Integral, Real
from os import PathLike
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

from gradcli.commands.options import Argument, Option, ReadSpec, SupportsArray
from gradcli.errors import UsageError

_WORDS: Mapping[Any, str] = {
    bool: "True or False",
    int: "a whole number",
    float: "a number",
    str: "a text",
    PathLike: "a path",
    Mapping: "a mapping",
    Sequence: "a list",
    Callable: "a function",
    SupportsArray: "an array",
    ReadSpec: "a spec",
}


def declared(function: Callable[..., Any], shared: Any) -> Mapping[str, tuple[Any, Any]]:
    """Return (mark, type) of each parameter of a command, those of the options that it shares with others among them.

    The mark is the `Argument`, `Option` or `ByFormat` that it is annotated with; None where it has none.
    """
    found: dict[str, tuple[Any, Any]] = {}
    names = _Open(vars(sys.modules[function.__module__]))
    hints = get_type_hints(function, globalns=names, include_extras=True)
    for name, parameter in inspect.signature(function).parameters.items():
        if parameter.kind is inspect.Parameter.VAR_KEYWORD:
            options = get_type_hints(shared, include_extras=True)
            found |= {each: _mark(hint) for each, hint in options.items()}
        else:
            found[name] = _mark(hints[name])
    return found


class _Open(dict[str, Any]):
    """The names that annotations may hold; what only type checkers import is left open."""

    def __missing__(self, name: str) -> Any:
        import builtins

        return getattr(builtins, name, Any)


def _mark(hint: Any) -> tuple[Any, Any]:
    if get_origin(hint) is Annotated:
        kind, *marks = get_args(hint)
        return marks[0], kind
    return None, hint


def checked(name: str, value: Any, mark: Any, hint: Any) -> Any:
    """Return an argument of a call, numbers of NumPy as Python's; None is an option that is not given.

    Raises:
        UsageError: it is not of its type, or out of its bounds.
    """
    if value is None and not isinstance(mark, Argument):
        return None
    if not _is(value, hint):
        raise UsageError(f"{name}: expected {_named(hint)}; got {_shown(value)}")
    if isinstance(value, Integral) and not isinstance(value, bool):
        value = operator.index(value)
    if not isinstance(mark, Option):
        return value
    if mark.read is not None:
        return mark.read(str(value))
    for bound, words, beyond in ((mark.least, "at least", operator.lt), (mark.most, "at most", operator.gt)):
        if bound is not None and beyond(value, bound):
            raise UsageError(f"{name}: must be {words} {bound}; got {value}")
    return value


def _is(value: Any, hint: Any) -> bool:
    """Tell whether a value is of a type, as far as its annotation and its first level go."""
    origin = get_origin(hint)
    if origin is Annotated:
        return _is(value, get_args(hint)[0])
    if origin in (Union, UnionType):
        return any(_is(value, member) for member in get_args(hint))
    if origin is Literal:
        return value in get_args(hint)
    if origin is Sequence:
        return (
            isinstance(value, Sequence) and not isinstance(value, str) and all(_is(v, *get_args(hint)) for v in value)
        )
    if hint is bool:
        return isinstance(value, bool)
    if hint in (int, float):
        return isinstance(value, Integral if hint is int else Real) and not isinstance(value, bool)
    if hint in (None, NoneType):
        return value is None
    if hint is SupportsArray:
        return hasattr(value, "__array__")
    kind = origin or hint
    return kind is Any or not isinstance(kind, type) or isinstance(value, kind)


def _named(hint: Any) -> str:
    """Return the types of an annotation in words."""
    origin = get_origin(hint)
    if origin is Annotated:
        return _named(get_args(hint)[0])
    if origin in (Union, UnionType):
        return " or ".join(dict.fromkeys(_named(member) for member in get_args(hint) if member is not NoneType))
    if origin is Literal:
        return " or ".join(map(repr, get_args(hint)))
    if origin is Sequence and get_args(hint) != (Any,):
        return f"a list, each entry {_named(*get_args(hint))}"
    return _WORDS[origin or hint]


def _shown(value: Any) -> str:
    text = repr(value)
    return f"{text if len(text) <= 60 else text[:57] + '...'} ({type(value).__name__})"
