"""Classes that are what they hold: frozen dataclasses, made without generating code.

`dataclasses.dataclass` writes the source of six methods for each class and has it compiled, which takes about a
millisecond: for all classes of a small run together, as long as the run itself. Here they share one function for each
method, which looks up the fields of the class that it is called for.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import MISSING, Field, FrozenInstanceError, dataclass, field, fields
from functools import cache
from typing import Any, NoReturn, TypeVar, dataclass_transform, overload

Class = TypeVar("Class", bound=type)


@overload
def frozen(cls: Class, /) -> Class: ...


@overload
def frozen(*, kw_only: bool = ..., repr: bool = ..., eq: bool = ...) -> Callable[[Class], Class]: ...


@dataclass_transform(frozen_default=True, field_specifiers=(field,))
def frozen(cls: Any = None, /, *, kw_only: bool = False, repr: bool = True, eq: bool = True) -> Any:  # noqa: A002
    """Make a class a frozen dataclass, with which the functions of `dataclasses` do what they do with any.

    The arguments are those of `dataclasses.dataclass`. A method that the class defines itself stays.
    """

    def make(cls: Any) -> Any:
        methods: dict[str, Any] = {"__init__": _init, "__setattr__": _set, "__delattr__": _delete}
        if repr:
            methods["__repr__"] = _repr
        if eq:
            methods |= {"__eq__": _equal, "__hash__": _hash}
        own = vars(cls)
        for name, method in methods.items():
            if own.get(name) is None:  # a class with an __eq__ alone has the __hash__ None
                setattr(cls, name, method)
        return dataclass(init=False, repr=False, eq=False, kw_only=kw_only)(cls)

    return make if cls is None else make(cls)


@cache
def _fields(cls: Any) -> tuple[Field[Any], ...]:
    return fields(cls)


@cache
def _arguments(cls: Any) -> tuple[tuple[str, ...], int, Callable[[Any], None] | None]:
    """Return the names of the arguments, how many of them may be given by position, and what is called at the end."""
    given = [each for each in _fields(cls) if each.init]
    by_position = [each.name for each in given if not each.kw_only]
    by_name = [each.name for each in given if each.kw_only]
    return (*by_position, *by_name), len(by_position), getattr(cls, "__post_init__", None)


def _init(self: Any, /, *given: Any, **named: Any) -> None:
    cls = self.__class__
    names, most, finish = _arguments(cls)
    values = dict(zip(names, given, strict=False))
    if len(given) > most or (given and named and not values.keys().isdisjoint(named)):
        _refuse(cls, given, named)
    values |= named
    if len(values) != len(names) or not values.keys() <= set(names) or len(names) != len(_fields(cls)):
        _complete(cls, values)
    self.__dict__.update(values)
    if finish is not None:
        finish(self)


def _complete(cls: Any, values: dict[str, Any]) -> None:
    """Add the defaults of what was not given."""
    names, _, _ = _arguments(cls)
    for name in values:
        if name not in names:
            raise TypeError(f"{cls.__name__}() got an unexpected keyword argument {name!r}")
    for each in _fields(cls):
        if each.name in values:
            continue
        if each.default is not MISSING:
            values[each.name] = each.default
        elif each.default_factory is not MISSING:
            values[each.name] = each.default_factory()
        elif each.init:
            raise TypeError(f"{cls.__name__}() is missing the argument {each.name!r}")


def _refuse(cls: Any, given: tuple[Any, ...], named: Mapping[str, Any]) -> NoReturn:
    names, most, _ = _arguments(cls)
    if len(given) > most:
        raise TypeError(f"{cls.__name__}() takes {most} arguments by position, but {len(given)} were given")
    twice = next(name for name in names[: len(given)] if name in named)
    raise TypeError(f"{cls.__name__}() got multiple values for the argument {twice!r}")


def _repr(self: Any) -> str:
    shown = ", ".join(f"{each.name}={getattr(self, each.name)!r}" for each in _fields(self.__class__) if each.repr)
    return f"{type(self).__qualname__}({shown})"


def _compared(self: Any) -> tuple[Any, ...]:
    return tuple(getattr(self, each.name) for each in _fields(self.__class__) if each.compare)


def _equal(self: Any, other: object) -> Any:
    return _compared(self) == _compared(other) if type(other) is self.__class__ else NotImplemented


def _hash(self: Any) -> int:
    return hash(_compared(self))


def _set(self: Any, name: str, value: object) -> NoReturn:
    raise FrozenInstanceError(f"cannot assign to field {name!r}")


def _delete(self: Any, name: str) -> NoReturn:
    raise FrozenInstanceError(f"cannot delete field {name!r}")
