"""The JSON Schema of a block of the spec, from the annotations by which `gradcli.spec.checked` reads it."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from gradcli.spec.base import BareKey, BareKind, Choice, Choices
from gradcli.spec.checked import Dump, ModelField, SpecModel
from gradcli.spec.given import OrGiven
from gradcli.spec.value_readers import Field, bounds_of

Schema = dict[str, Any]

_TYPES: Mapping[Any, str] = {bool: "boolean", int: "integer", float: "number", str: "string"}
#: What JSON Schema calls the bounds of a number, and of the length of a text and of a list.
_NUMBER = {"ge": "minimum", "gt": "exclusiveMinimum", "le": "maximum", "lt": "exclusiveMaximum"}
_TEXT = {"min_length": "minLength", "max_length": "maxLength", "pattern": "pattern"}
_LIST = {"min_length": "minItems", "max_length": "maxItems"}
#: Keys whose own keys keep their order.
_IN_ORDER = ("properties", "default")


def json_schema(model: type[SpecModel]) -> Schema:
    """Return the schema of a block; other blocks in it are under "$defs"."""
    blocks: dict[str, Schema] = {}
    body = _block(model, blocks)
    found: Schema = _sorted({"$defs": blocks, **body} if blocks else body)
    return found


def _sorted(value: Any, under: str = "") -> Any:
    if isinstance(value, dict):
        keys = value if under in _IN_ORDER else sorted(value)
        return {key: _sorted(value[key], key) for key in keys}
    return [_sorted(each, under) for each in value] if isinstance(value, list) else value


def _block(model: type[SpecModel], blocks: dict[str, Schema]) -> Schema:
    fields = model.model_fields
    required = [name for name, field in fields.items() if field.is_required()]
    return {
        "additionalProperties": False,
        "description": inspect.cleandoc(model.__doc__ or ""),
        "properties": {name: _field(field, blocks) for name, field in fields.items()},
        **({"required": required} if required else {}),
        "title": model.__name__,
        "type": "object",
    }


def _field(field: ModelField, blocks: dict[str, Schema]) -> Schema:
    found = _of(field.hint, blocks)
    if not _is_block(field.annotation):
        found["title"] = field.name.replace("_", " ").title()
    if not field.is_required():
        found["default"] = Dump(for_json=True).plain(field.default)
    return found


def _is_block(kind: Any) -> bool:
    """Tell whether a type is a block, or none; a block has a title of its own."""
    if get_origin(kind) is Annotated:
        return _is_block(get_args(kind)[0])
    if get_origin(kind) in (Union, UnionType):
        members = [member for member in get_args(kind) if member is not NoneType]
        return len(members) == 1 and _is_block(members[0])
    return isinstance(kind, type) and issubclass(kind, SpecModel)


def _of(hint: Any, blocks: dict[str, Schema]) -> Schema:
    inner, *marks = get_args(hint) if get_origin(hint) is Annotated else (hint,)
    bounds = bounds_of(marks)
    found = _bounded(inner, bounds, marks, blocks)
    for mark in marks:
        match mark:
            case BareKind():
                tags = list(found["discriminator"]["mapping"])
                found = {"anyOf": [{"enum": [tag for tag in _tags(inner, bounds) if tag in tags]}, found]}
            case BareKey():
                found = {"anyOf": [{"type": "string", "minLength": 1}, found]}
    return found | ({} if bounds.description is None else {"description": bounds.description})


def _bounded(kind: Any, bounds: Field, marks: Sequence[Any], blocks: dict[str, Schema]) -> Schema:
    for mark in marks:
        if isinstance(mark, Choices):
            return _choices(mark)
        if isinstance(mark, OrGiven):
            return _of(mark.written_kind, blocks)
    origin = get_origin(kind)
    if bounds.discriminator is not None:
        references = [_of(member, blocks) for member in get_args(kind)]
        mapping = {tag: each["$ref"] for tag, each in zip(_tags(kind, bounds), references, strict=True)}
        return {"discriminator": {"mapping": mapping, "propertyName": bounds.discriminator}, "oneOf": references}
    if origin in (Union, UnionType):
        members = [_of(member, blocks) for member in get_args(kind)]
        return {"anyOf": [each for member in members for each in member.get("anyOf", [member])]}
    if origin is Literal:
        values = list(get_args(kind))
        return {"const": values[0]} | _type(values) if len(values) == 1 else {"enum": values} | _type(values)
    if origin is list:
        return {"type": "array", "items": _of(get_args(kind)[0], blocks)} | _named(bounds, _LIST)
    if origin is dict:
        key, entry = get_args(kind)
        return _table(key, entry, blocks)
    if kind in _TYPES:
        return {"type": _TYPES[kind]} | _named(bounds, _TEXT if kind is str else _NUMBER)
    if kind is NoneType:
        return {"type": "null"}
    if hasattr(kind, "json_schema"):
        written: Schema = kind.json_schema()
        return written
    if isinstance(kind, type) and issubclass(kind, SpecModel):
        if kind.__name__ not in blocks:
            blocks[kind.__name__] = {}  # so that a block within itself would end here
            blocks[kind.__name__] = _block(kind, blocks)
        return {"$ref": f"#/$defs/{kind.__name__}"}
    return {}


def _tags(kind: Any, bounds: Field) -> list[str]:
    return [get_args(member.model_fields[bounds.discriminator].annotation)[0] for member in get_args(kind)]


def _type(values: Sequence[Any]) -> Schema:
    return {"type": _TYPES[type(values[0])]}


def _named(bounds: Field, names: Mapping[str, str]) -> Schema:
    found = {ours: getattr(bounds, name) for name, ours in names.items()}
    return {name: value for name, value in found.items() if value is not None}


def _table(key: Any, kind: Any, blocks: dict[str, Schema]) -> Schema:
    found: Schema = {"type": "object"}
    names = _of(key, blocks)
    pattern = names.pop("pattern", None)
    names.pop("type")
    entries = _of(kind, blocks)
    found |= {"additionalProperties": entries} if pattern is None else {"patternProperties": {pattern: entries}}
    return found | ({"propertyNames": names} if names else {})


def _choices(choices: Choices) -> Schema:
    """Return the schema of the short forms of a choice."""
    forms: list[Schema] = [{"enum": [name for name, kind in choices.by_name.items() if not _needs_something(kind)]}]
    for name, kind in choices.by_name.items():
        if kind.model_fields:
            block = _block(kind, {})
            block.pop("title")
            arguments = block if kind.MAIN is None else {"anyOf": [block["properties"][kind.MAIN], block]}
            forms.append(
                {
                    "type": "object",
                    "properties": {name: arguments},
                    "required": [name],
                    "additionalProperties": False,
                    "description": (kind.__doc__ or "").split("\n")[0],
                }
            )
    bare = choices.bare
    if bare is not None and bare.MAIN is not None:
        forms.append(_block(bare, {})["properties"][bare.MAIN])
    return {"anyOf": forms}


def _needs_something(kind: type[Choice]) -> bool:
    return any(field.is_required() for field in kind.model_fields.values())
