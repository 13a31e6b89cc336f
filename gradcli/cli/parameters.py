"""What a command takes on the command line, from its declaration, and the call that it comes to."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from gradcli.cli.delivery import Delivery
from gradcli.cli.interrupt import answering_interrupts
from gradcli.cli.options import SAVE, delivery_options
from gradcli.cli.progress import progress_bar
from gradcli.commands.arguments import declared
from gradcli.commands.command import COMMANDS, Command
from gradcli.commands.options import RESOURCES, Argument, ByFormat, Option

REQUIRED = inspect.Parameter.empty


class Parameter(NamedTuple):
    """An argument or option. kind: its type on the command line. default: `REQUIRED` where there is none."""

    mark: Argument | Option
    kind: Any
    default: Any


class CommandLine:
    """A command as the command line has it."""

    def __init__(self, command: Command) -> None:
        self._command = command
        self._found = declared(command.function, command.shared)
        known = inspect.signature(command.function).parameters
        self._own = {
            # An option that commands share is None where it is not given.
            name: _parameter(mark, hint, known[name].default if name in known else None)
            for name, (mark, hint) in self._found.items()
            if isinstance(mark, Argument | Option)
        }
        self._delivered = {
            name: _parameter(mark, bool if value is False else str, value)
            for name, (mark, value) in delivery_options(command, saving=SAVE in self._own).items()
        }

    @property
    def parameters(self) -> Mapping[str, Parameter]:
        """All parameters by name: what the run may take stands last in the help text, and what comes out before it."""
        found = (self._own | self._delivered).items()
        return dict(sorted(found, key=lambda item: getattr(item[1].mark, "panel", None) == RESOURCES))

    def run(self, given: Mapping[str, Any]) -> None:
        """Call the command with a value for each of its parameters, and hand over what it finds."""
        arguments = {name: given[name] for name in self._own if given[name] is not None}
        for name, (mark, _) in self._found.items():
            if name not in arguments and getattr(mark, "command_line", None):
                arguments[name] = mark.command_line()
        places = {name: given[name] for name in self._delivered}
        if places["output"] == Path("-"):
            places["output"] = None
        delivery = Delivery(self._command, arguments.get(SAVE), **places)
        for name, (mark, _) in self._found.items():
            if isinstance(mark, ByFormat):
                arguments[name] = mark.value(delivery.chosen_format)
        with answering_interrupts(), delivery.outputs_declared():
            with progress_bar(delivery.quiet) as bar:
                if "progress" in self._found and bar is not None:
                    arguments["progress"] = bar
                result = COMMANDS[self._command.name].function(**arguments)
                picture = delivery.drawn(result)
            delivery.hand_over(result, picture)


def _parameter(mark: Argument | Option, hint: Any, value: Any) -> Parameter:
    kind = mark.typed or hint
    return Parameter(mark, kind, str(value) if kind is str and value not in (REQUIRED, None) else value)
