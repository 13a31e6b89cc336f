"""Checking plain data against a model of the spec, with every mistake told in plain words and at its own path."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, NamedTuple, TypeVar, Union, get_args, get_origin

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from gradcli.errors import did_you_mean
from gradcli.spec.base import NAME_KEY, Choice
from gradcli.spec.given import Given
from gradcli.spec.initialisers import Constant
from gradcli.spec.models import CellBlock, Spec, is_initial_state
from gradcli.spec.shown import Path, counted, got, shown

Model = TypeVar("Model", bound=BaseModel)

#: Members of a union that no value in a file is meant for.
_UNWRITTEN = (NoneType, Given)

# Up to so many known keys are listed; of more, only the nearest is named.
FEW = 8


class Finding(NamedTuple):
    """One mistake in the data: the path of the value, or of the key where the key itself is wrong."""

    path: Path
    message: str
    at_key: bool = False


def check(model: type[Model], data: Mapping[str, Any]) -> tuple[Model | None, list[Finding]]:
    """Return the data as `model`, or None and all that is wrong with it."""
    try:
        return model.model_validate(data), []
    except ValidationError as error:
        details = error.errors(include_url=False)
    return None, _one_per_value([_Trail(model, data, detail) for detail in details])


class _Branch(NamedTuple):
    """A place where pydantic tried each member of a union, and the member that an error is about."""

    path: Path
    value: Any
    union: Any
    member: Any

    def is_meant(self) -> bool:
        """Tell whether the value, as written, was meant for this member."""
        return _is_meant(self.value, self.member)

    def finding(self) -> Finding:
        return Finding(self.path, f"expected {_named(self.union)}; got {got(self.value)}")


class _Trail:
    """A pydantic error followed through the model and the data at once.

    Pydantic's own trail mixes keys with the names of union branches and choices; this one has the keys alone.
    """

    def __init__(self, model: type[BaseModel], data: Any, detail: ErrorDetails) -> None:
        self.detail = detail
        self.path: Path = ()
        self.node: Any = data
        self.owner: type[BaseModel] = model
        self.at_key = False
        self.branches: list[_Branch] = []
        kind: Any = model
        tagged = in_table = False
        for part in detail["loc"]:
            kind = _without_none(kind)
            if part == "[key]" and in_table:
                self.at_key = True
            elif tagged:
                tagged, kind = False, self._tagged_member(kind, str(part))
            elif _is_model(kind):
                self.owner = kind
                field = kind.model_fields.get(str(part))
                self._descend(part)
                kind = field.annotation if field is not None else None
                tagged = _is_tagged(kind)
            elif get_origin(kind) is dict:
                self._descend_in_table(part)
                kind = get_args(kind)[1]
                tagged, in_table = _is_tagged(kind), True
                continue
            elif get_origin(kind) is list:
                self._descend(part)
                kind = get_args(kind)[0]
                tagged = _is_tagged(kind)
            elif _is_union(kind):
                member = next(member for member in _members(kind) if _label_is_of(str(part), member))
                self.branches.append(_Branch(self.path, self.node, kind, member))
                kind = member
            in_table = False

    def _descend(self, part: int | str) -> None:
        if part == "initial_states" and self.owner is Spec:
            return
        inside = part in self.node if isinstance(self.node, Mapping) else isinstance(part, int)
        if inside:
            self.path = (*self.path, part)
            self.node = self.node[part]

    def _descend_in_table(self, part: int | str) -> None:
        spread = self.owner is Spec and f"{part}_0" in self.node and self.detail["loc"][0] == "initial_states"
        self._descend(f"{part}_0" if spread else part)

    def _tagged_member(self, kind: Any, tag: str) -> Any:
        member = next((member for member in map(_bare, _members(kind)) if _tag_of(member) == tag), None)
        # A choice is written {name: ...}: its name is a key of the data. A `kind:` is not.
        if _is_choice(member) and isinstance(self.node, Mapping):
            self._descend(tag)
        return member

    def finding(self) -> Finding:
        message = self._message()
        return Finding(self.path, message, self.at_key or self.detail["type"] == "extra_forbidden")

    def _message(self) -> str:
        if self.at_key:
            return _bad_key(self.path[-1], self.detail)
        explain = _EXPLANATIONS.get(self.detail["type"])
        if explain is not None:
            return explain(self)
        message = self.detail["msg"]
        return f"{message[:1].lower()}{message[1:]}; got {shown(self.node)}"


def _one_per_value(trails: Sequence[_Trail]) -> list[Finding]:
    """Return one finding for each mistake: of a union, that of the member that was meant, or one naming all."""
    meant = {branch.path for trail in trails for branch in trail.branches if branch.is_meant()}
    findings: dict[Finding, None] = {}
    for trail in trails:
        stray = next((branch for branch in trail.branches if not branch.is_meant()), None)
        if stray is None:
            findings[trail.finding()] = None
        elif stray.path not in meant:
            findings[stray.finding()] = None
    return list(findings)


def _bare(kind: Any) -> Any:
    while get_origin(kind) is Annotated:
        kind = get_args(kind)[0]
    return kind


def _is_tagged(kind: Any) -> bool:
    """Tell whether pydantic's trail has the tag of the chosen member at this place."""
    kind = _without_none(kind)
    members = [_bare(member) for member in _members(kind)] if _is_union(kind) else []
    return bool(members) and all(_tag_of(member) is not None for member in members)


def _without_none(kind: Any) -> Any:
    kind = _bare(kind)
    if _is_union(kind):
        members = _members(kind)
        if len(members) == 1:
            return _without_none(members[0])
    return kind


def _is_union(kind: Any) -> bool:
    return get_origin(kind) in (Union, UnionType)


def _members(kind: Any) -> list[Any]:
    return [member for member in get_args(kind) if member not in _UNWRITTEN]


def _is_model(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, BaseModel)


def _is_choice(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, Choice)


def _tag_of(kind: Any) -> str | None:
    if _is_choice(kind):
        return str(kind.NAME)
    if _is_model(kind) and "kind" in kind.model_fields:
        return str(get_args(kind.model_fields["kind"].annotation)[0])
    return None


def _label_is_of(label: str, member: Any) -> bool:
    """Tell whether pydantic's label of a union branch is that of `member`."""
    member = _bare(member)
    if get_origin(member) is Literal:
        return label.startswith("literal[")
    if get_origin(member) is list:
        return label.startswith("list[")
    name: str = member.__name__
    return label in (name, f"constrained-{name}")


def _is_meant(value: Any, member: Any) -> bool:
    """Tell whether a value, as written, was meant for this member of a union."""
    member = _bare(member)
    if get_origin(member) is Literal or member is str:
        return isinstance(value, str)
    if get_origin(member) is list:
        return isinstance(value, list)
    if member in (int, float):
        return isinstance(value, int | float) and not isinstance(value, bool)
    return isinstance(value, Mapping)


def _named(member: Any) -> str:
    member = _bare(member)
    if _is_union(member):
        return " or ".join(map(_named, _members(member)))
    if get_origin(member) is Literal:
        return " or ".join(map(repr, get_args(member)))
    if get_origin(member) is list:
        inner = _bare(get_args(member)[0])
        return {int: "a list of whole numbers", float: "a list of numbers"}.get(inner, "a list")
    if _is_model(member):
        needed = ", ".join(f"`{name}:`" for name, field in member.model_fields.items() if field.is_required())
        return f"a block with {needed}"
    return {int: "a whole number", float: "a number", str: "a name"}[member]


def _bad_key(key: int | str, detail: ErrorDetails) -> str:
    """Explain a key that does not match its pattern."""
    text = str(key)
    pattern = str(detail.get("ctx", {}).get("pattern", ""))
    if detail["type"] != "string_pattern_mismatch":
        return f"the name {shown(text)} is too long"
    return f"the name {shown(text)} {_pattern_broken(text, pattern)}"


def _pattern_broken(text: str, pattern: str) -> str:
    if not text:
        return "is empty"
    wrong = [char for char in dict.fromkeys(text) if not re.fullmatch(pattern, "a" + char)]
    if wrong:
        return "cannot hold " + ", ".join(map(repr, wrong[:FEW]))
    return f"cannot start with {text[0]!r}"


def _unknown_key(trail: _Trail) -> str:
    key = str(trail.path[-1])
    known = list(trail.owner.model_fields)
    if trail.owner is Spec:
        known = ["h_0" if name == "initial_states" else name for name in known]
    elsewhere = _other_block(trail.owner, key)
    if elsewhere:
        return f"unknown key here; {elsewhere}"
    if not known:
        return f"unknown key; {_tag_of(trail.owner)} takes no arguments"
    hint = did_you_mean(key, known)
    listed = f"; known: {', '.join(known)}" if len(known) <= FEW or not hint else ""
    return f"unknown key{listed}{hint}"


def _other_block(owner: type[BaseModel], key: str) -> str:
    if owner is Spec and key in CellBlock.model_fields:
        return "it belongs in the `cell:` block"
    if owner is CellBlock and (key in Spec.model_fields or is_initial_state(key)):
        return "it belongs to the top level of the spec"
    return ""


def _missing_key(trail: _Trail) -> str:
    key = str(trail.detail["loc"][-1])
    field = trail.owner.model_fields[key]
    if issubclass(trail.owner, Choice):
        name = _tag_of(trail.owner)
        block = "..." if key == trail.owner.MAIN else f"{{{key}: ...}}"
        return f"{name} needs its {key}, as in {{{name}: {block}}}"
    kind = _without_none(field.annotation)
    wanted = _named(kind) if _is_union(kind) else ""
    return f"the key {key!r} is missing" + (f"; it takes {wanted}" if wanted else "")


def _kinds_of(trail: _Trail) -> list[str]:
    return re.findall(r"'([^']*)'", str(trail.detail["ctx"]["expected_tags"]))


def _unknown_kind(trail: _Trail) -> str:
    kinds = _kinds_of(trail)
    value = trail.node
    if isinstance(trail.node, Mapping):  # else a bare word stands for the block
        value = trail.node.get("kind")
        trail.path = (*trail.path, "kind")
    if not isinstance(value, str):
        return f"expected one of {', '.join(kinds)}; got {got(value)}"
    return f"unknown kind {shown(value)}; known: {', '.join(kinds)}{did_you_mean(value.lower(), kinds)}"


def _missing_kind(trail: _Trail) -> str:
    field = trail.owner.model_fields[str(trail.detail["loc"][-1])]
    kinds = [str(_tag_of(_bare(member))) for member in _members(_bare(field.annotation))]
    return f"the key 'kind' is missing; one of {', '.join(kinds)}"


def _not_a_block(trail: _Trail) -> str:
    return f"expected a block of keys; got {got(trail.node)}"


def _wrong_literal(trail: _Trail) -> str:
    expected = str(trail.detail["ctx"]["expected"])
    choices = re.findall(r"'([^']*)'", expected)
    hint = did_you_mean(trail.node, choices) if isinstance(trail.node, str) else ""
    if trail.branches and trail.branches[-1].path == trail.path:
        expected = _named(trail.branches[-1].union)
    return f"expected {expected}; got {got(trail.node)}{hint}"


def _wrong_choice(trail: _Trail) -> str:
    message = trail.detail["msg"]
    return message if NAME_KEY in trail.detail["ctx"] else f"{message}; got {got(trail.node)}"


def _not_a_number(trail: _Trail) -> str:
    hint = "; exact values belong under `params:`" if trail.owner is Constant and isinstance(trail.node, list) else ""
    return f"expected a number; got {got(trail.node)}{hint}"


def _expected(what: str) -> Callable[[_Trail], str]:
    return lambda trail: f"expected {what}; got {got(trail.node)}"


def _bound(words: str, key: str) -> Callable[[_Trail], str]:
    def explain(trail: _Trail) -> str:
        bound = trail.detail["ctx"][key]
        number = (
            (f"{bound:,}" if bound > 9999 else str(bound))
            if isinstance(bound, int)
            else f"{bound:g}".replace("e+", "e")
        )
        return f"must be {words} {number}; got {shown(trail.node)}"

    return explain


def _length(words: str, key: str, noun: str) -> Callable[[_Trail], str]:
    def explain(trail: _Trail) -> str:
        number = trail.detail["ctx"][key]
        if key == "min_length" and number == 1:
            return "must not be empty"
        return f"must have {words} {counted(number, noun)}; got {len(trail.node):,}"

    return explain


_EXPLANATIONS: Mapping[str, Callable[[_Trail], str]] = {
    "extra_forbidden": _unknown_key,
    "missing": _missing_key,
    "union_tag_invalid": _unknown_kind,
    "union_tag_not_found": _missing_kind,
    "literal_error": _wrong_literal,
    "choice": _wrong_choice,
    "bounds": lambda trail: trail.detail["msg"],
    "bool_type": _expected("true or false"),
    "int_type": _expected("a whole number"),
    "float_type": _not_a_number,
    "finite_number": _expected("a finite number"),
    "string_type": _expected("a text"),
    "list_type": _expected("a list"),
    "dict_type": _not_a_block,
    "model_type": _not_a_block,
    "model_attributes_type": _not_a_block,
    "greater_than": _bound("greater than", "gt"),
    "greater_than_equal": _bound("at least", "ge"),
    "less_than": _bound("less than", "lt"),
    "less_than_equal": _bound("at most", "le"),
    "string_too_short": _length("at least", "min_length", "character"),
    "string_too_long": _length("at most", "max_length", "character"),
    "too_short": _length("at least", "min_length", "item"),
    "too_long": _length("at most", "max_length", "item"),
    "string_pattern_mismatch": lambda trail: (
        f"{shown(trail.node)} {_pattern_broken(trail.node, str(trail.detail['ctx']['pattern']))}"
    ),
}
