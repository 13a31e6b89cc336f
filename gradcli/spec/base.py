"""What every model of the spec shares: strictness, and the short forms that people write.

A choice with arguments may be written three ways in YAML, all of which mean the same model:

    W_hh: orthogonal                        # the name alone
    W_hh: {orthogonal: {gain: 1.1}}         # the name with its arguments
    W_hh: {spectral_radius: 0.9}            # the name with its one main argument
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Annotated, Any, ClassVar, get_args

from gradcli.errors import did_you_mean
from gradcli.spec.checked import Dump, SpecModel
from gradcli.spec.shown import shown
from gradcli.spec.value_readers import Place, Reader, WrongError


class Choice(SpecModel):
    """One alternative of a field, told apart by its name; `MAIN` is the argument that may be given bare."""

    NAME: ClassVar[str]
    MAIN: ClassVar[str | None] = None

    def dumped(self, how: Dump) -> Any:
        """Return the shortest form in which it may be written."""
        found = {name: getattr(self, name) for name in self.model_fields}
        arguments = {name: how.plain(value) for name, value in found.items() if value is not None}
        if not arguments:
            return self.NAME
        if self.MAIN is not None and list(arguments) == [self.MAIN]:
            return {self.NAME: arguments[self.MAIN]}
        return {self.NAME: arguments}


def choice_of(what: str, *alternatives: type[Choice], bare: type[Choice] | None = None) -> Any:
    """Return the annotated type of a field that takes one of `alternatives`.

    `what` names the field in messages ("initialiser"). A value that is no name and no ``{name: ...}`` block (a number
    or a list) is given to `bare` as its main argument, where there is one.
    """
    by_name = {alternative.NAME: alternative for alternative in alternatives}
    if bare is not None:
        by_name[bare.NAME] = bare
    union: Any = None
    for alternative in by_name.values():
        union = alternative if union is None else union | alternative
    return Annotated[union, Choices(what, by_name, bare)]


class Choices:
    """Marks a field that takes one of some alternatives in their short forms; see `choice_of`."""

    def __init__(self, what: str, by_name: Mapping[str, type[Choice]], bare: type[Choice] | None) -> None:
        self.by_name, self.bare = by_name, bare
        self._what = what

    def reader(self, inner: Callable[[], Reader]) -> Reader:
        return self._read

    def _read(self, value: Any, place: Place) -> Any:
        if isinstance(value, Choice):
            return value
        try:
            name, arguments = self._opened(value)
        except WrongError as wrong:
            raise wrong.at(place) from None
        return self.by_name[name].read(arguments, place.at(name) if isinstance(value, Mapping) else place)

    def _opened(self, value: Any) -> tuple[str, Mapping[str, Any]]:
        """Return the name of the alternative that a value is written for, and its arguments."""
        bare = self.bare
        if isinstance(value, str):
            return self._known(value), {}
        if isinstance(value, Mapping):
            if len(value) != 1:
                raise WrongError(f"expected {self._wanted}", shows_value=True)
            (name, arguments), *_ = value.items()
            main = self.by_name[self._known(name)].MAIN
            if isinstance(arguments, Mapping):
                return name, arguments
            if main is None:
                named = bool(self.by_name[name].model_fields)
                takes = "a block of named arguments, not a bare value" if named else "no arguments"
                raise WrongError(f"{name} takes {takes}")
            return name, {main: arguments}
        if bare is not None and bare.MAIN is not None and not isinstance(value, bool) and value is not None:
            return bare.NAME, {bare.MAIN: value}
        raise WrongError(f"expected {self._wanted}", shows_value=True)

    def _known(self, name: str) -> str:
        if name not in self.by_name:
            known = list(self.by_name)
            raise WrongError(
                f"no {self._what} is called {shown(name)}; known: {', '.join(known)}{did_you_mean(name.lower(), known)}"
            )
        return name

    @property
    def _wanted(self) -> str:
        example = next(f"{{{name}: ...}}" for name, kind in self.by_name.items() if kind.MAIN is not None)
        article = "an" if self._what[0] in "aeiou" else "a"
        bare = self.bare
        values = "" if bare is None else ", or its values" if bare.NAME == "values" else ", or a number"
        return f"{article} {self._what}: one name, or one block such as {example}{values}"


class BareKind:
    """Marks a union told apart by ``kind``, so that a bare word stands for the block: ``input: zeros``."""

    def reader(self, inner: Callable[[], Reader]) -> Reader:
        read = inner()
        return lambda value, place: read({"kind": value} if isinstance(value, str) else value, place)


class BareKey:
    """Marks a block, so that a bare text stands for the block with that text at one key: ``weights: model.pt``."""

    def __init__(self, key: str) -> None:
        self._key = key

    def reader(self, inner: Callable[[], Reader]) -> Reader:
        read, key = inner(), self._key
        return lambda value, place: read({key: value} if isinstance(value, str) else value, place)


def alternatives_of(annotation: Any) -> list[type[Choice]]:
    """Return the alternatives that a `choice_of` annotation admits, in their order."""
    return list(get_args(get_args(annotation)[0]))
