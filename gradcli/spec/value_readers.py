"""What reads a value of an annotated type, with all that is wrong with it, and where.

What a field takes: bool, int, float, str, None, Literal, list[...], dict[...], a block (see `gradcli.spec.checked`), a
union of these, Any. Within `Annotated` a `Field` bounds it, and a mark that has a method `reader` reads it in its own
way. A type with a class method `read` reads itself. Readers are made when a value is first read: most runs give few of
all fields.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from functools import cache, partial
from numbers import Real
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, NamedTuple, Union, get_args, get_origin

from gradcli.spec.shown import Path


class Field(NamedTuple):
    """The bounds of a value, or of the length of a text or list, and what the JSON Schema says of it.

    discriminator: the key whose literal tells the blocks of a union apart.
    """

    ge: float | None = None
    gt: float | None = None
    le: float | None = None
    lt: float | None = None
    min_length: int | None = None
    max_length: int | None = None
    pattern: str | None = None
    description: str | None = None
    discriminator: str | None = None


class Branch(NamedTuple):
    """A place where each member of a union was tried, and the member that a mistake is about."""

    path: Path
    value: Any
    union: Any
    member: Any


class Place(NamedTuple):
    """Where a value stands: its path and the value as it is written, the block that has it, and unions on the way.

    suffix: what keys are written with, of a table whose entries stand in the block itself.
    """

    path: Path
    node: Any
    owner: type[Any]
    branches: tuple[Branch, ...] = ()
    suffix: str = ""

    def at(self, part: int | str) -> Place:
        """Return the place of an entry; the same where it is not written down, as in a short form."""
        part = f"{part}{self.suffix}" if self.suffix else part
        if part in self.node if isinstance(self.node, Mapping) else isinstance(part, int):
            return self._replace(path=(*self.path, part), node=self.node[part], suffix="")
        return self


class Mistake(NamedTuple):
    """What is wrong with the value at a place, by the name of its kind, or with the key there."""

    kind: str
    place: Place
    context: Mapping[str, Any] = {}
    at_key: bool = False


class RefusedError(ValueError):
    """Data that are no such block, with all that is wrong with them."""

    def __init__(self, mistakes: Sequence[Mistake]) -> None:
        super().__init__(*(mistake.context.get("message", mistake.kind) for mistake in mistakes))
        self.mistakes = list(mistakes)


class WrongError(ValueError):
    """What a block or a type finds wrong with a value, in words. shows_value: whether the message is to quote it."""

    def __init__(self, message: str, *, shows_value: bool = False) -> None:
        super().__init__(message)
        self.shows_value = shows_value

    def at(self, place: Place) -> RefusedError:
        """Return it as a mistake of the value at a place."""
        return RefusedError([Mistake("wrong", place, {"message": str(self), "shows_value": self.shows_value})])


Reader = Callable[[Any, Place], Any]


class Before:
    """Marks a field whose value goes through a function before it is read; that may raise WrongError."""

    def __init__(self, function: Callable[[Any], Any]) -> None:
        self._function = function

    def reader(self, inner: Callable[[], Reader]) -> Reader:
        read, function = inner(), self._function
        return lambda value, place: read(told(place, function, value), place)


class Then:
    """Marks a field whose value goes through a function when it has been read; that may raise WrongError."""

    def __init__(self, function: Callable[[Any], Any]) -> None:
        self._function = function

    def reader(self, inner: Callable[[], Reader]) -> Reader:
        read, function = inner(), self._function
        return lambda value, place: told(place, function, read(value, place))


class Suffixed:
    """Marks a table whose entries stand in the block itself, each under its name with this suffix."""

    def __init__(self, suffix: str) -> None:
        self._suffix = suffix

    def reader(self, inner: Callable[[], Reader]) -> Reader:
        read, suffix = inner(), self._suffix
        return lambda value, place: read(value, place._replace(suffix=suffix))


def told(place: Place, function: Callable[..., Any], *arguments: Any) -> Any:
    try:
        return function(*arguments)
    except WrongError as wrong:
        raise wrong.at(place) from None


@cache
def reader_of(hint: Any) -> Reader:
    """Return what reads a value of an annotated type."""
    origin = get_origin(hint)
    if origin is Annotated:
        inner, *marks = get_args(hint)
        make: Callable[[], Reader] = partial(_bounded, inner, bounds_of(marks))
        for mark in marks:
            if hasattr(mark, "reader"):
                make = partial(mark.reader, make)
        return make()
    return _bounded(hint, Field())


def bounds_of(marks: Sequence[Any]) -> Field:
    """Return what the `Field`s among marks say together."""
    fields = [mark for mark in marks if isinstance(mark, Field)]
    return Field(*(next((v for v in reversed(values) if v is not None), None) for values in zip(*fields, strict=True)))


def _bounded(kind: Any, bounds: Field) -> Reader:
    origin = get_origin(kind)
    if bounds.discriminator is not None:
        return _tagged(get_args(kind), bounds.discriminator)
    if origin in (Union, UnionType):
        return _union(kind)
    if origin is Literal:
        return _literal(get_args(kind))
    if origin is list:
        return _list(get_args(kind)[0], bounds)
    if origin is dict:
        return _table(*get_args(kind))
    if kind is Any:
        return lambda value, place: value
    if kind in _SCALARS:
        return _SCALARS[kind](bounds)
    if hasattr(kind, "read"):
        return kind.read if hasattr(kind, "model_fields") else lambda value, place: told(place, kind.read, value)
    return _instance(kind)


def _instance(kind: type[Any]) -> Reader:
    def read(value: Any, place: Place) -> Any:
        if not isinstance(value, kind):
            raise RefusedError([Mistake("is_instance_of", place)])
        return value

    return read


def _union(union: Any) -> Reader:
    members = [member for member in get_args(union) if member is not NoneType]
    optional = NoneType in get_args(union)
    if len(members) == 1:
        return lambda value, place: None if value is None else reader_of(members[0])(value, place)

    def read(value: Any, place: Place) -> Any:
        if value is None and optional:
            return None
        mistakes: list[Mistake] = []
        for member in members:
            branch = Branch(place.path, place.node, union, member)
            try:
                return reader_of(member)(value, place._replace(branches=(*place.branches, branch)))
            except RefusedError as refused:
                mistakes += refused.mistakes
        raise RefusedError(mistakes)

    return read


def _tagged(members: Sequence[Any], key: str) -> Reader:
    by_tag = {get_args(member.model_fields[key].annotation)[0]: member for member in members}

    def read(value: Any, place: Place) -> Any:
        if isinstance(value, tuple(members)):
            return value
        if not isinstance(value, Mapping):
            raise RefusedError([Mistake("model_type", place)])
        if key not in value:
            raise RefusedError([Mistake("union_tag_not_found", place, {"tags": list(by_tag)})])
        tag = value[key]
        if not isinstance(tag, str) or tag not in by_tag:
            raise RefusedError([Mistake("union_tag_invalid", place, {"tags": list(by_tag)})])
        return by_tag[tag].read(value, place)

    return read


def _literal(values: Sequence[Any]) -> Reader:
    *first, last = map(repr, values)
    expected = f"{', '.join(first)} or {last}" if first else last

    def read(value: Any, place: Place) -> Any:
        for each in values:
            if type(value) is type(each) and value == each:
                return each
        raise RefusedError([Mistake("literal_error", place, {"expected": expected})])

    return read


def _list(kind: Any, bounds: Field) -> Reader:
    def read(value: Any, place: Place) -> Any:
        if not isinstance(value, list):
            raise RefusedError([Mistake("list_type", place)])
        if bounds.max_length is not None and len(value) > bounds.max_length:
            raise RefusedError([Mistake("too_long", place, {"max_length": bounds.max_length})])
        if kind is Any:
            return value
        entry, found, mistakes = reader_of(kind), [], []
        for index, each in enumerate(value):
            try:
                found.append(entry(each, place.at(index)))
            except RefusedError as refused:
                mistakes += refused.mistakes
        if not mistakes and bounds.min_length is not None and len(value) < bounds.min_length:
            mistakes = [Mistake("too_short", place, {"min_length": bounds.min_length})]
        if mistakes:
            raise RefusedError(mistakes)
        return found

    return read


def _table(key_kind: Any, kind: Any) -> Reader:
    def read(value: Any, place: Place) -> Any:
        if not isinstance(value, Mapping):
            raise RefusedError([Mistake("dict_type", place)])
        found, mistakes = {}, []
        for key, entry in value.items():
            inside = place.at(key)
            try:
                reader_of(key_kind)(key, inside)
            except RefusedError as refused:
                mistakes += [Mistake(each.kind, inside, each.context, True) for each in refused.mistakes]
            try:
                found[key] = reader_of(kind)(entry, inside)
            except RefusedError as refused:
                mistakes += refused.mistakes
        if mistakes:
            raise RefusedError(mistakes)
        return found

    return read


def _bool(bounds: Field) -> Reader:
    def read(value: Any, place: Place) -> Any:
        if not isinstance(value, bool):
            raise RefusedError([Mistake("bool_type", place)])
        return value

    return read


def _int(bounds: Field) -> Reader:
    def read(value: Any, place: Place) -> Any:
        if not isinstance(value, int) or isinstance(value, bool):
            raise RefusedError([Mistake("int_type", place)])
        return _within(bounds, value, place)

    return read


def _float(bounds: Field) -> Reader:
    def read(value: Any, place: Place) -> Any:
        if not isinstance(value, Real) or isinstance(value, bool):  # NumPy's are Real as well
            raise RefusedError([Mistake("float_type", place)])
        try:
            value = float(value)
        except OverflowError:
            raise RefusedError([Mistake("float_type", place)]) from None
        if not math.isfinite(value):
            raise RefusedError([Mistake("finite_number", place)])
        return _within(bounds, value, place)

    return read


def _within(bounds: Field, value: Any, place: Place) -> Any:
    for kind, name, bound, holds in (
        ("less_than_equal", "le", bounds.le, bounds.le is None or value <= bounds.le),
        ("less_than", "lt", bounds.lt, bounds.lt is None or value < bounds.lt),
        ("greater_than_equal", "ge", bounds.ge, bounds.ge is None or value >= bounds.ge),
        ("greater_than", "gt", bounds.gt, bounds.gt is None or value > bounds.gt),
    ):
        if not holds:
            raise RefusedError([Mistake(kind, place, {name: bound})])
    return value


def _str(bounds: Field) -> Reader:
    def read(value: Any, place: Place) -> Any:
        if not isinstance(value, str):
            raise RefusedError([Mistake("string_type", place)])
        if bounds.min_length is not None and len(value) < bounds.min_length:
            raise RefusedError([Mistake("string_too_short", place, {"min_length": bounds.min_length})])
        if bounds.max_length is not None and len(value) > bounds.max_length:
            raise RefusedError([Mistake("string_too_long", place, {"max_length": bounds.max_length})])
        if bounds.pattern is not None and re.fullmatch(bounds.pattern, value) is None:
            raise RefusedError([Mistake("string_pattern_mismatch", place, {"pattern": bounds.pattern})])
        return value

    return read


_SCALARS: Mapping[Any, Callable[[Field], Reader]] = {bool: _bool, int: _int, float: _float, str: _str}
