"""From the declaration of a command to the function that Typer takes: every option a parameter of its own."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Annotated, Any

import typer

from gradcli.cli.delivery import Delivery
from gradcli.cli.help import default
from gradcli.cli.interrupt import answering_interrupts
from gradcli.cli.options import SAVE, delivery_options
from gradcli.cli.progress import progress_bar
from gradcli.commands.arguments import declared
from gradcli.commands.command import COMMANDS, Command
from gradcli.commands.options import RESOURCES, Argument, ByFormat, Option

_EMPTY = inspect.Parameter.empty


def typer_command(command: Command) -> Callable[..., None]:
    """Return a function with one parameter for each argument and option of a command, and of where its result goes."""
    found = declared(command.function, command.shared)
    by_format = {name: mark for name, (mark, _) in found.items() if isinstance(mark, ByFormat)}
    own = {
        name: _parameter(name, mark, hint, value)
        for name, ((mark, hint), value) in _with_defaults(command, found).items()
        if isinstance(mark, Argument | Option)
    }
    of_command_line = {
        name: mark.command_line for name, (mark, _) in found.items() if getattr(mark, "command_line", None)
    }
    delivered = delivery_options(command, saving=SAVE in own)
    wants_progress = "progress" in found

    def run(**given: Any) -> None:
        arguments = {name: given[name] for name in own if given[name] is not None}
        arguments |= {name: make() for name, make in of_command_line.items() if name not in arguments}
        delivery = Delivery(command, arguments.get(SAVE), **{name: given[name] for name in delivered})
        arguments |= {name: mark.value(delivery.chosen_format) for name, mark in by_format.items()}
        with answering_interrupts(), delivery.outputs_declared():
            with progress_bar(delivery.quiet) as bar:
                if wants_progress and bar is not None:
                    arguments["progress"] = bar
                result = COMMANDS[command.name].function(**arguments)
                picture = delivery.drawn(result)
            delivery.hand_over(result, picture)

    parameters = [*own.values(), *delivered.values()]
    # What an option may take stands last in the help text, and what comes out before it.
    parameters.sort(key=lambda parameter: _panel(parameter) == RESOURCES)
    run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    run.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return run


def _with_defaults(command: Command, found: Mapping[str, tuple[Any, Any]]) -> dict[str, tuple[tuple[Any, Any], Any]]:
    """Return each parameter with its default; an option that commands share is None where it is not given."""
    parameters = inspect.signature(command.function).parameters
    return {name: (each, parameters[name].default if name in parameters else None) for name, each in found.items()}


def _parameter(name: str, mark: Argument | Option, hint: Any, value: Any) -> inspect.Parameter:
    kind = mark.typed or hint
    if isinstance(mark, Option) and value is None and kind in (int, str, float):
        kind = kind | None
    return inspect.Parameter(
        name,
        inspect.Parameter.KEYWORD_ONLY,
        annotation=Annotated[kind, _argument(mark) if isinstance(mark, Argument) else _option(name, mark, value)],
        default=str(value) if kind is str and value not in (_EMPTY, None) else value,
    )


def _argument(mark: Argument) -> Any:
    return typer.Argument(metavar=mark.metavar, help=mark.help, autocompletion=_completion(mark))


def _option(name: str, mark: Option, value: Any) -> Any:
    names = mark.names or ("--" + name.replace("_", "-"),)
    stated = f" {default(mark.default)}" if mark.default else ""
    return typer.Option(
        *names,
        metavar=mark.metavar or None,
        help=f"{mark.help}{stated}",
        parser=mark.read,
        min=mark.least,
        max=mark.most,
        show_default=value is not None and not mark.default,
        autocompletion=_completion(mark),
        rich_help_panel=mark.panel,
    )


def _completion(mark: Argument | Option) -> Callable[..., list[str]] | None:
    if isinstance(mark, Option) and mark.complete_for is not None:
        complete_for = mark.complete_for

        def completed_for_spec(ctx: typer.Context, incomplete: str) -> list[str]:
            return list(complete_for(_first_spec(ctx), incomplete))

        return completed_for_spec
    if mark.complete is None:
        return None
    complete = mark.complete

    def completed(incomplete: str) -> list[str]:
        return list(complete(incomplete))

    return completed


def _first_spec(ctx: typer.Context) -> str | None:
    """Return the first argument on the line so far; behind an option without its value, arguments have no names yet."""
    names = [each.name for each in ctx.command.params if each.param_type_name == "argument"]
    values = [ctx.params.get(name) for name in names]
    first = next((value for value in [*values, *ctx.args] if value), None)
    first = first[0] if isinstance(first, list | tuple) else first
    return first if isinstance(first, str) else None


def _panel(parameter: inspect.Parameter) -> str | None:
    found: str | None = getattr(parameter.annotation.__metadata__[0], "rich_help_panel", None)
    return found
