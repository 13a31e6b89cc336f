"""What a command is: a plain function, and what the command line has to know of it."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from functools import wraps
from typing import Any, ParamSpec, TypeVar

from gradcli.commands.arguments import checked, declared
from gradcli.commands.options import RunOptions
from gradcli.formats import FORMATS
from gradcli.frozen import frozen

Given = ParamSpec("Given")
Found = TypeVar("Found")


@frozen
class Command:
    """A command.

    Args:
        function: returns a `gradcli.results.result.Result`, or a `Text`. Its docstring begins with what the command
            does; its parameters are its arguments and options (see `gradcli.commands.options`).
        examples: command lines.
        formats: that the result may be asked for in; none where it is a text.
        judged: whether `--fail-on` may ask for its verdicts.
        document: whether what comes out is a document for another program, which no terminal shows.
        pictures: the names of what `--plot` can draw, the first unless `--picture` says otherwise.
        shared: the options that it takes beside its own, as ``**options``.
    """

    name: str
    function: Callable[..., Any]
    examples: Sequence[str]
    formats: Sequence[str]
    judged: bool
    document: bool
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
    document: bool = False,
    pictures: Sequence[str] = (),
    shared: type[Any] = RunOptions,
) -> Callable[[Callable[Given, Found]], Callable[Given, Found]]:
    """Make a function a command, called like it unless `name` says otherwise; the arguments are those of `Command`."""

    def register(function: Callable[Given, Found]) -> Callable[Given, Found]:
        call: Callable[..., Found] = function
        positional = [
            parameter.name
            for parameter in inspect.signature(function).parameters.values()
            if parameter.kind is inspect.Parameter.POSITIONAL_OR_KEYWORD
        ]

        @wraps(function)
        def with_checks(*given: Given.args, **options: Given.kwargs) -> Found:
            known = declared(function, shared)
            for option in options:
                if option not in known:
                    raise TypeError(f"{function.__name__}() got an unexpected keyword argument {option!r}")
            values = [checked(name, value, *known[name]) for name, value in zip(positional, given, strict=False)]
            named = {name: checked(name, value, *known[name]) for name, value in options.items()}
            return call(*values, *given[len(values) :], **named)

        called = name or function.__name__
        COMMANDS[called] = Command(called, with_checks, examples, formats, judged, document, pictures, shared)
        return with_checks

    return register
