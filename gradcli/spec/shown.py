"""How messages show values and names that came from a file: short, on one line, and without control characters."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping

from gradcli.numbers import grouped

LIMIT = 60

Path = tuple[str | int, ...]

_PLAIN = r"[A-Za-z_][A-Za-z0-9_-]*"
_NOT_TEXT = frozenset({"true", "false", "null"})


def shown(value: object, limit: int = LIMIT) -> str:
    """Return a value as a message quotes it: flow YAML with texts in Python's quotes, at most `limit` characters."""
    text = ""
    for piece in _pieces(value, lambda part: repr(part[: limit + 1])):
        text += piece
        if len(text) > limit:
            return text[: limit - 3] + "..."
    return text


def got(value: object) -> str:
    """Return a value as messages end: "expected a number; got ...". Nothing and booleans are named as such."""
    if value is None:
        return "nothing"
    return f"{shown(value)} (a boolean)" if isinstance(value, bool) else shown(value)


def flow(value: object) -> str:
    """Return a value as flow YAML that reads back as the same value."""
    return "".join(_pieces(value, _yaml_text))


def printable(name: str, limit: int = LIMIT) -> str:
    """Return a name with control characters escaped, cut to `limit` characters."""
    text = "".join(char if char.isprintable() else repr(char)[1:-1] for char in name[: limit + 1])
    return text if len(text) <= limit else text[: limit - 3] + "..."


def dotted(path: Path) -> str:
    """Return the trail of keys as messages write it: ``clip[0].norm``."""
    text = ""
    for part in path:
        if isinstance(part, int):
            text += f"[{part}]"
        else:
            text += ("." if text else "") + printable(part)
    return text


def counted(number: int, noun: str, plural: str = "") -> str:
    """Return "1 item" or "3 items"."""
    return f"{grouped(number)} {noun if number == 1 else plural or noun + 's'}"


def _pieces(value: object, text: Callable[[str], str]) -> Iterator[str]:
    if value is None:
        yield "null"
    elif isinstance(value, bool):
        yield "true" if value else "false"
    elif isinstance(value, str):
        yield text(value)
    elif isinstance(value, Mapping):
        yield "{"
        for number, (key, inner) in enumerate(value.items()):
            yield ", " if number else ""
            yield _yaml_text(str(key))
            yield ": "
            yield from _pieces(inner, text)
        yield "}"
    elif isinstance(value, list | tuple):
        yield "["
        for number, inner in enumerate(value):
            yield ", " if number else ""
            yield from _pieces(inner, text)
        yield "]"
    else:
        yield repr(value)


def _yaml_text(text: str) -> str:
    if re.fullmatch(_PLAIN, text) and text.lower() not in _NOT_TEXT:
        return text
    import json

    # JSON's escapes write what is beyond 16 bits as two halves, which YAML does not put together again.
    return json.dumps(text, ensure_ascii=not text.isprintable())
