"""From the declaration of a command to the function that Typer takes: every option a parameter of its own."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from gradcli.cli.help import default
from gradcli.cli.parameters import CommandLine
from gradcli.commands.command import Command
from gradcli.commands.options import Argument, Option


def typer_command(command: Command) -> Callable[..., None]:
    """Return a function with one parameter for each argument and option of a command, and of where its result goes."""
    line = CommandLine(command)

    def run(**given: Any) -> None:
        line.run(given)

    parameters = [_parameter(name, *each) for name, each in line.parameters.items()]
    run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    run.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return run


def _parameter(name: str, mark: Argument | Option, kind: Any, value: Any) -> inspect.Parameter:
    if isinstance(mark, Option) and value is None and kind in (int, str, float, Path):
        kind = kind | None
    return inspect.Parameter(
        name,
        inspect.Parameter.KEYWORD_ONLY,
        annotation=Annotated[kind, _argument(mark) if isinstance(mark, Argument) else _option(name, mark, value)],
        default=value,
    )


def _argument(mark: Argument) -> Any:
    return typer.Argument(metavar=mark.metavar, help=mark.help, autocompletion=_completion(mark))


def _option(name: str, mark: Option, value: Any) -> Any:
    stated = f" {default(mark.default)}" if mark.default else ""
    return typer.Option(
        *mark.names_for(name),
        metavar=mark.metavar or None,
        help=f"{mark.help}{stated}",
        parser=mark.read,
        min=mark.least,
        max=mark.most,
        show_default=mark.otherwise or (value is not None and not mark.default),
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
