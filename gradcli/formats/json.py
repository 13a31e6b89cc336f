"""The report's data as JSON, for programs: pure ASCII, laid out so that a person can still read it."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from gradcli.report.model import Report

_LINE = 100  # a block that fits in so many characters stays on one line
_SHORTEST_ITEM = 3  # characters of an item and the comma and space behind it
_STEP = "  "


def render(report: Report, *, width: int | None = None, color: bool = False, unicode: bool = True) -> str:
    """Return `report.data` as one JSON object: a list of plain values on one line each, long blocks indented.

    Text is escaped to ASCII, so neither the encoding nor a control character can do harm.
    Raises ValueError on NaN or infinity, which JSON does not have.
    """
    return "".join(_pieces(report.data, "")) + "\n"


def _pieces(value: Any, indent: str) -> Iterator[str]:
    if not _is_block(value) or not value or _is_plain_list(value):
        yield _one_line(value)
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
    return isinstance(value, (Mapping, list, tuple))


def _is_plain_list(value: Any) -> bool:
    """Tell whether this is a list of numbers or words only; by its types, as it may hold a million."""
    return isinstance(value, (list, tuple)) and not any(
        issubclass(kind, (Mapping, list, tuple)) for kind in set(map(type, value))
    )


def _may_fit(value: Any) -> bool:
    """Tell whether the attempt to write a block on one line is worth its time."""
    if not _is_block(value):
        return True
    items = value.values() if isinstance(value, Mapping) else value
    return len(value) * _SHORTEST_ITEM <= _LINE and all(map(_may_fit, items))


def _one_line(value: Any) -> str:
    # Only json's C encoder is fast, and this is the one form that it writes.
    return json.dumps(value, allow_nan=False, default=_as_dict)


def _as_dict(value: object) -> dict[Any, Any]:
    if isinstance(value, Mapping):
        return dict(value)
    raise TypeError(f"JSON has no form for {type(value).__name__}")
