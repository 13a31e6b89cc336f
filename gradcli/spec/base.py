"""What every model of the spec shares: strictness, and the short forms that people write.

A choice with arguments may be written three ways in YAML, all of which mean the same model:

    W_hh: orthogonal                        # the name alone
    W_hh: {orthogonal: {gain: 1.1}}         # the name with its arguments
    W_hh: {spectral_radius: 0.9}            # the name with its one main argument
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Annotated, Any, ClassVar, get_args

from pydantic import BaseModel, BeforeValidator, ConfigDict, Discriminator, Tag, model_serializer
from pydantic_core import PydanticCustomError, core_schema

from gradcli.errors import did_you_mean
from gradcli.spec.given import written_out
from gradcli.spec.shown import shown

NAME_KEY = "name"


class SpecModel(BaseModel):
    """A block of the spec: no unknown keys, no coercion, no NaN or infinity, immutable once read.

    Validators are built on first use: most blocks are only ever validated as part of a larger one.
    """

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True, allow_inf_nan=False, defer_build=True)


class Choice(SpecModel):
    """One alternative of a field, told apart by its name; `MAIN` is the argument that may be given bare."""

    NAME: ClassVar[str]
    MAIN: ClassVar[str | None] = None

    @model_serializer
    def _short_form(self, info: Any) -> Any:
        found = {field: getattr(self, field) for field in type(self).model_fields}
        arguments = {field: written_out(value, info) for field, value in found.items() if value is not None}
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
    annotated: Any = Annotated  # built at run time, which a type checker does not follow
    for name, alternative in by_name.items():
        member = annotated[alternative, Tag(name)]
        union = member if union is None else union | member
    return Annotated[
        Annotated[union, Discriminator(lambda value: _tag(value, by_name))],
        BeforeValidator(_reader(what, by_name, bare)),
        _ShortForms(by_name, bare),
    ]


class _ShortForms:
    """Gives a choice the JSON Schema of its short forms; made only when asked for, because it takes a while."""

    def __init__(self, by_name: Mapping[str, type[Choice]], bare: type[Choice] | None) -> None:
        self._by_name, self._bare = by_name, bare

    def __get_pydantic_json_schema__(self, schema: Any, handler: Any) -> dict[str, Any]:
        return _schema(self._by_name, self._bare)


class BareKind:
    """Annotates a union told apart by ``kind``, so that a bare word stands for the block: ``input: zeros``."""

    def __get_pydantic_core_schema__(self, source: Any, handler: Any) -> Any:
        def read(value: Any) -> Any:
            return {"kind": value} if isinstance(value, str) else value

        return core_schema.no_info_before_validator_function(read, handler(source))

    def __get_pydantic_json_schema__(self, schema: Any, handler: Any) -> dict[str, Any]:
        block = handler(schema)
        return {"anyOf": [{"enum": list(block["discriminator"]["mapping"])}, block]}


class BareKey:
    """Annotates a block, so that a bare text stands for the block with that text at one key: ``weights: model.pt``."""

    def __init__(self, key: str) -> None:
        self._key = key

    def __get_pydantic_core_schema__(self, source: Any, handler: Any) -> Any:
        def read(value: Any) -> Any:
            return {self._key: value} if isinstance(value, str) else value

        return core_schema.no_info_before_validator_function(read, handler(source))

    def __get_pydantic_json_schema__(self, schema: Any, handler: Any) -> dict[str, Any]:
        return {"anyOf": [{"type": "string", "minLength": 1}, handler(schema)]}


class _Tagged(dict[str, Any]):
    """The arguments of a choice, with the name of the alternative that they belong to."""

    def __init__(self, tag: str, arguments: Mapping[str, Any]) -> None:
        super().__init__(arguments)
        self.tag = tag


def _tag(value: Any, by_name: Mapping[str, type[Choice]]) -> str:
    if isinstance(value, _Tagged):
        return value.tag
    return value.NAME if isinstance(value, Choice) else ""


def _reader(what: str, by_name: Mapping[str, type[Choice]], bare: type[Choice] | None) -> Callable[[Any], Any]:
    def read(value: Any) -> Any:
        if isinstance(value, Choice):
            return value
        if isinstance(value, str):
            return _Tagged(known(value), {})
        if isinstance(value, Mapping):
            if len(value) != 1:
                raise PydanticCustomError("choice", "expected {wanted}", {"wanted": wanted})
            (name, arguments), *_ = value.items()
            main = by_name[known(name)].MAIN
            if isinstance(arguments, Mapping):
                return _Tagged(name, arguments)
            if main is None:
                takes = "a block of named arguments, not a bare value" if by_name[name].model_fields else "no arguments"
                raise PydanticCustomError("choice", "{name} takes {takes}", {"name": name, "takes": takes})
            return _Tagged(name, {main: arguments})
        if bare is not None and bare.MAIN is not None and not isinstance(value, bool) and value is not None:
            return _Tagged(bare.NAME, {bare.MAIN: value})
        raise PydanticCustomError("choice", "expected {wanted}", {"wanted": wanted})

    def known(name: str) -> str:
        if name not in by_name:
            raise PydanticCustomError(
                "choice",
                "no {choice} is called {name}; known: {known}{hint}",
                {
                    "choice": what,
                    "name": shown(name),
                    "known": ", ".join(by_name),
                    "hint": did_you_mean(name.lower(), list(by_name)),
                },
            )
        return name

    example = next(f"{{{name}: ...}}" for name, kind in by_name.items() if kind.MAIN is not None)
    article = "an" if what[0] in "aeiou" else "a"
    values = "" if bare is None else ", or its values" if bare.NAME == "values" else ", or a number"
    wanted = f"{article} {what}: one name, or one block such as {example}{values}"
    return read


def _schema(by_name: Mapping[str, type[Choice]], bare: type[Choice] | None) -> dict[str, Any]:
    """Return the JSON Schema of the short forms, from the same table that reads them."""
    names = [name for name, kind in by_name.items() if not any(f.is_required() for f in kind.model_fields.values())]
    forms: list[dict[str, Any]] = [{"enum": names}]
    for name, kind in by_name.items():
        block = kind.model_json_schema(mode="validation")
        block.pop("title", None)
        arguments: dict[str, Any] = block
        if kind.MAIN is not None:
            arguments = {"anyOf": [block["properties"][kind.MAIN], block]}
        if kind.model_fields:
            forms.append(
                {
                    "type": "object",
                    "properties": {name: arguments},
                    "required": [name],
                    "additionalProperties": False,
                    "description": (kind.__doc__ or "").split("\n")[0],
                }
            )
    if bare is not None and bare.MAIN is not None:
        forms.append(bare.model_json_schema()["properties"][bare.MAIN])
    return {"anyOf": forms}


def alternatives_of(annotation: Any) -> list[type[Choice]]:
    """Return the alternatives that a `choice_of` annotation admits, in their order."""
    union = get_args(get_args(annotation)[0])
    return [get_args(member)[0] for member in union]
