"""What a command is: a plain function, and what the command line has to know of it."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import wraps
from typing import Any, ParamSpec, TypeVar

from gradcli.commands.options import RunOptions
from gradcli.formats import FORMATS

Given = ParamSpec("Given")
Found = TypeVar("Found")


@dataclass(frozen=True)
class Command:
    """A command.

    Args:
        function: returns a `gradcli.results.result.Result`, or a `Text`. Its docstring begins with what the command
            does; its parameters are its arguments and options (see `gradcli.commands.options`).
        examples: command lines.
        formats: that the result may be asked for in; none where it is a text.
        judged: whether `--fail-on` may ask for its verdicts.
        pictures: the names of what `--plot` can draw, the first unless `--picture` says otherwise.
        shared: the options that it takes beside its own, as ``**options``.
    """

    name: str
    function: Callable[..., Any]
    examples: Sequence[str]
    formats: Sequence[str]
    judged: bool
    pictures: Sequence[str]
    shared: type[Any]

    @property
    def is_function(self) -> bool:
        """Whether it is a function of Python's as well, ``gradcli.NAME``."""
        return self.function.__name__ == self.name


#: All commands by name, in the order in which `gradcli.commands` imports them.
COMMANDS: dict[str, Command] = {}


def command(
    *examples: str,
    name: str | None = None,
    formats: Sequence[str] = FORMATS,
    judged: bool = False,
    pictures: Sequence[str] = (),
    shared: type[Any] = RunOptions,
) -> Callable[[Callable[Given, Found]], Callable[Given, Found]]:
    """Make a function a command, called like it unless `name` says otherwise; the arguments are those of `Command`."""

    def register(function: Callable[Given, Found]) -> Callable[Given, Found]:
        parameters = inspect.signature(function).parameters
        takes_shared = any(each.kind is inspect.Parameter.VAR_KEYWORD for each in parameters.values())
        known = {*parameters, *(shared.__optional_keys__ if takes_shared else ())}

        @wraps(function)
        def checked(*given: Given.args, **options: Given.kwargs) -> Found:
            for option in options:
                if option not in known:
                    raise TypeError(f"{function.__name__}() got an unexpected keyword argument {option!r}")
            return function(*given, **options)

        called = name or function.__name__
        COMMANDS[called] = Command(called, checked, examples, formats, judged, pictures, shared)
        return checked

    return register
