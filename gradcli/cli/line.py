"""Reads a command line that leaves nothing to explain: the usual one, without the time that Typer takes to begin.

What is not plainly a command with its arguments and options is left to Typer, which words help, mistakes and
completion: nothing is refused here. Of what is read here Typer makes the same (`tests/cli/test_line.py`).
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from types import NoneType
from typing import Any, Literal, get_args, get_origin

from gradcli.cli.parameters import REQUIRED, CommandLine, Parameter
from gradcli.commands.command import COMMANDS
from gradcli.commands.options import Argument, Option
from gradcli.errors import UsageError

#: Set by the shell that asks for completion.
_COMPLETING = "_GRADCLI_COMPLETE"
_MOST_DIGITS = 18


class _NotPlainError(Exception):
    """The line needs Typer."""


def read_line(arguments: Sequence[str]) -> Callable[[], None] | None:
    """Return the call that the arguments of the process ask for; None where Typer has to look at them."""
    if not arguments or arguments[0] not in COMMANDS or _COMPLETING in os.environ:
        return None
    line = CommandLine(COMMANDS[arguments[0]])
    try:
        given = _values(line.parameters, arguments[1:])
    except (_NotPlainError, UsageError, ValueError):
        return None
    return partial(line.run, given)


def _values(parameters: Mapping[str, Parameter], words: Sequence[str]) -> dict[str, Any]:
    """Return a value for each parameter.

    Raises:
        _NotPlainError, UsageError, ValueError: they do not plainly say one.
    """
    options = {
        option: name
        for name, each in parameters.items()
        if isinstance(each.mark, Option)
        for option in each.mark.names_for(name)
    }
    given: dict[str, Any] = {}
    by_position = []
    rest = iter(words)
    for word in rest:
        if word == "-" or not word.startswith("-"):
            by_position.append(word)
            continue
        option, equals, value = word.partition("=") if word.startswith("--") else (word, "", "")
        if option not in options:
            raise _NotPlainError
        _take(given, options[option], parameters[options[option]], value if equals else None, rest)
    for name, each in parameters.items():
        if isinstance(each.mark, Argument):
            many = _is_list(each.kind)
            mine, by_position = (by_position, []) if many else (by_position[:1], by_position[1:])
            if mine:
                given[name] = mine if many else mine[0]
    values = {name: given.get(name, each.default) for name, each in parameters.items()}
    if by_position or any(value is REQUIRED for value in values.values()):
        raise _NotPlainError
    return values


def _take(given: dict[str, Any], name: str, option: Parameter, text: str | None, rest: Iterator[str]) -> None:
    """Put the value of an option, which stands in the rest of the line where it is not `text`, to what is given."""
    if option.kind is bool:
        if text is not None:
            raise _NotPlainError
        given[name] = True
        return
    if text is None:
        text = next(rest, "--")
        if text.startswith("-") and not (text == "-" and option.kind is Path):
            raise _NotPlainError
    if _is_list(option.kind):
        given.setdefault(name, []).append(text)
    else:
        given[name] = _read(option, text)


def _read(option: Parameter, text: str) -> Any:
    mark, kind = option.mark, _without_none(option.kind)
    if isinstance(mark, Option) and mark.read is not None:
        return mark.read(text)
    if kind is str or (get_origin(kind) is Literal and text in get_args(kind)):
        return text
    if kind is Path:
        return Path(text)
    if kind is not int or not (text.isascii() and text.isdigit() and len(text) <= _MOST_DIGITS):
        raise _NotPlainError
    number = int(text)
    least, most = (mark.least, mark.most) if isinstance(mark, Option) else (None, None)
    if (least is not None and number < least) or (most is not None and number > most):
        raise _NotPlainError
    return number


def _is_list(kind: Any) -> bool:
    return bool(_without_none(kind) == list[str])


def _without_none(kind: Any) -> Any:
    """Return `kind` of ``kind | None``."""
    members = [member for member in get_args(kind) if member is not NoneType]
    return members[0] if members and NoneType in get_args(kind) else kind
