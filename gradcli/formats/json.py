"""The report's data as JSON, for programs: pure ASCII, laid out so that a person can still read it."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from gradcli.results.model import PART, Numbers, Report

_LINE = 100  # a block that fits in so many characters stays on one line
_SHORTEST_ITEM = 3  # characters of an item and the comma and space behind it
_STEP = "  "
_LISTS = (list, tuple, range, Numbers)


def render(report: Report, *, width: int | None = None, color: bool = False, unicode: bool = True) -> Iterator[str]:
    """Yield `report.data` as one JSON object: a list of plain values on one line each, long blocks indented.

    Text is escaped to ASCII, so neither the encoding nor a control character can do harm.
    Raises ValueError on NaN or infinity, which JSON does not have.
    """
    yield from _pieces(report.data, "")
    yield "\n"


def _pieces(value: Any, indent: str) -> Iterator[str]:
    if not _is_block(value) or not value:
        yield _one_line(value)
        return
    if _is_plain_list(value):
        yield from _line_of_many(value)
        return
    if _may_fit(value) and len(line := _one_line(value)) + len(indent) <= _LINE:
        yield line
        return
    inner = indent + _STEP
    opening, closing = "{}" if isinstance(value, Mapping) else "[]"
    items = (
        ((f"{_one_line(key)}: ", value[key]) for key in value)
        if isinstance(value, Mapping)
        else (("", v) for v in value)
    )
    separator = opening
    for head, item in items:
        yield f"{separator}\n{inner}{head}"
        yield from _pieces(item, inner)
        separator = ","
    yield f"\n{indent}{closing}"


def _is_block(value: Any) -> bool:
    return isinstance(value, (Mapping, *_LISTS))


def _is_plain_list(value: Any) -> bool:
    """Tell whether this is a list of numbers or words only; by its types, as it may hold a million."""
    if isinstance(value, (range, Numbers)):
        return True
    return isinstance(value, _LISTS) and not any(issubclass(kind, (Mapping, *_LISTS)) for kind in set(map(type, value)))


def _line_of_many(values: Sequence[Any]) -> Iterator[str]:
    """Yield a list of plain values as `_one_line` would write it, but never all of it at once."""
    opening = "["
    for start in range(0, len(values), PART):
        yield opening + _one_line(list(values[start : start + PART]))[1:-1]
        opening = ", "
    yield "]"


def _may_fit(value: Any) -> bool:
    """Tell whether the attempt to write a block on one line is worth its time."""
    if not _is_block(value):
        return True
    items = value.values() if isinstance(value, Mapping) else value
    return len(value) * _SHORTEST_ITEM <= _LINE and all(map(_may_fit, items))


def _one_line(value: Any) -> str:
    # Only json's C encoder is fast, and this is the one form that it writes.
    return json.dumps(value, allow_nan=False, default=_as_plain)


def _as_plain(value: object) -> dict[Any, Any] | list[Any]:
    if isinstance(value, Mapping):
        return dict(value)
    if isinstance(value, _LISTS):
        return list(value)
    raise TypeError(f"JSON has no form for {type(value).__name__}")
