"""Checking plain data against a model of the spec, with every mistake told in plain words and at its own path."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, NamedTuple, TypeVar, Union, get_args, get_origin

from gradcli.errors import did_you_mean
from gradcli.spec.base import Choice
from gradcli.spec.checked import SpecModel
from gradcli.spec.given import Given
from gradcli.spec.initialisers import Constant
from gradcli.spec.models import CellBlock, Spec, is_initial_state
from gradcli.spec.shown import Path, counted, got, shown
from gradcli.spec.value_readers import Branch, Mistake, RefusedError

Model = TypeVar("Model", bound=SpecModel)

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
    except RefusedError as refused:
        return None, _one_per_value([_Trail(mistake) for mistake in refused.mistakes])


class _Trail:
    """A mistake on its way to a finding."""

    def __init__(self, mistake: Mistake) -> None:
        self.kind, self.context, self.at_key = mistake.kind, mistake.context, mistake.at_key
        self.path, self.node, self.owner, self.branches = mistake.place[:4]

    def finding(self) -> Finding:
        message = self._message()
        return Finding(self.path, message, self.at_key or self.kind == "extra_forbidden")

    def _message(self) -> str:
        return _bad_key(self) if self.at_key else _EXPLANATIONS[self.kind](self)


def _one_per_value(trails: Sequence[_Trail]) -> list[Finding]:
    """Return one finding for each mistake: of a union, that of the member that was meant, or one naming all."""
    meant = {branch.path for trail in trails for branch in trail.branches if _is_meant(branch)}
    findings: dict[Finding, None] = {}
    for trail in trails:
        stray = next((branch for branch in trail.branches if not _is_meant(branch)), None)
        if stray is None:
            findings[trail.finding()] = None
        elif stray.path not in meant:
            findings[_of_union(stray)] = None
    return list(findings)


def _of_union(branch: Branch) -> Finding:
    return Finding(branch.path, f"expected {_named(branch.union)}; got {got(branch.value)}")


def _bare(kind: Any) -> Any:
    while get_origin(kind) is Annotated:
        kind = get_args(kind)[0]
    return kind


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
    return isinstance(kind, type) and issubclass(kind, SpecModel)


def _is_choice(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, Choice)


def _tag_of(kind: Any) -> str | None:
    if _is_choice(kind):
        return str(kind.NAME)
    if _is_model(kind) and "kind" in kind.model_fields:
        return str(get_args(kind.model_fields["kind"].annotation)[0])
    return None


def _is_meant(branch: Branch) -> bool:
    """Tell whether the value of a union, as written, was meant for this member."""
    value, member = branch.value, _bare(branch.member)
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
    return {bool: "true or false", int: "a whole number", float: "a number", str: "a name"}[member]


def _bad_key(trail: _Trail) -> str:
    """Explain a key that does not match its pattern."""
    text = str(trail.path[-1])
    if trail.kind != "string_pattern_mismatch":
        return f"the name {shown(text)} is too long"
    return f"the name {shown(text)} {_pattern_broken(text, trail.context['pattern'])}"


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


def _other_block(owner: type[SpecModel], key: str) -> str:
    if owner is Spec and key in CellBlock.model_fields:
        return "it belongs in the `cell:` block"
    if owner is CellBlock and (key in Spec.model_fields or is_initial_state(key)):
        return "it belongs to the top level of the spec"
    return ""


def _missing_key(trail: _Trail) -> str:
    key = trail.context["key"]
    field = trail.owner.model_fields[key]
    if issubclass(trail.owner, Choice):
        name = _tag_of(trail.owner)
        block = "..." if key == trail.owner.MAIN else f"{{{key}: ...}}"
        return f"{name} needs its {key}, as in {{{name}: {block}}}"
    kind = _without_none(field.annotation)
    wanted = _named(kind) if _is_union(kind) else ""
    return f"the key {key!r} is missing" + (f"; it takes {wanted}" if wanted else "")


def _unknown_kind(trail: _Trail) -> str:
    kinds = trail.context["tags"]
    value = trail.node
    if isinstance(trail.node, Mapping):  # else a bare word stands for the block
        value = trail.node.get("kind")
        trail.path = (*trail.path, "kind")
    if not isinstance(value, str):
        return f"expected one of {', '.join(kinds)}; got {got(value)}"
    return f"unknown kind {shown(value)}; known: {', '.join(kinds)}{did_you_mean(value.lower(), kinds)}"


def _missing_kind(trail: _Trail) -> str:
    return f"the key 'kind' is missing; one of {', '.join(trail.context['tags'])}"


def _not_a_block(trail: _Trail) -> str:
    return f"expected a block of keys; got {got(trail.node)}"


def _wrong_literal(trail: _Trail) -> str:
    expected = trail.context["expected"]
    choices = re.findall(r"'([^']*)'", expected)
    hint = did_you_mean(trail.node, choices) if isinstance(trail.node, str) else ""
    if trail.branches and trail.branches[-1].path == trail.path:
        expected = _named(trail.branches[-1].union)
    return f"expected {expected}; got {got(trail.node)}{hint}"


def _in_words(trail: _Trail) -> str:
    message: str = trail.context["message"]
    return f"{message}; got {got(trail.node)}" if trail.context["shows_value"] else message


def _not_a_number(trail: _Trail) -> str:
    hint = "; exact values belong under `params:`" if trail.owner is Constant and isinstance(trail.node, list) else ""
    return f"expected a number; got {got(trail.node)}{hint}"


def _expected(what: str) -> Callable[[_Trail], str]:
    return lambda trail: f"expected {what}; got {got(trail.node)}"


def _bound(words: str, key: str) -> Callable[[_Trail], str]:
    def explain(trail: _Trail) -> str:
        bound = trail.context[key]
        number = (
            (f"{bound:,}" if bound > 9999 else str(bound))
            if isinstance(bound, int)
            else f"{bound:g}".replace("e+", "e")
        )
        return f"must be {words} {number}; got {shown(trail.node)}"

    return explain


def _length(words: str, key: str, noun: str) -> Callable[[_Trail], str]:
    def explain(trail: _Trail) -> str:
        number = trail.context[key]
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
    "wrong": _in_words,
    "bool_type": _expected("true or false"),
    "int_type": _expected("a whole number"),
    "float_type": _not_a_number,
    "finite_number": _expected("a finite number"),
    "string_type": _expected("a text"),
    "list_type": _expected("a list"),
    "dict_type": _not_a_block,
    "model_type": _not_a_block,
    "greater_than": _bound("greater than", "gt"),
    "greater_than_equal": _bound("at least", "ge"),
    "less_than": _bound("less than", "lt"),
    "less_than_equal": _bound("at most", "le"),
    "string_too_short": _length("at least", "min_length", "character"),
    "string_too_long": _length("at most", "max_length", "character"),
    "too_short": _length("at least", "min_length", "item"),
    "too_long": _length("at most", "max_length", "item"),
    "string_pattern_mismatch": lambda trail: (
        f"{shown(trail.node)} {_pattern_broken(trail.node, trail.context['pattern'])}"
    ),
}
