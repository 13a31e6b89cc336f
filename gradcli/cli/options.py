"""The options of where a result goes, which belong to the command line alone."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Annotated, Any

import typer

from gradcli.commands.command import COMMANDS, Command
from gradcli.commands.completions import fail_on
from gradcli.commands.options import OUTPUT
from gradcli.errors import UsageError, did_you_mean
from gradcli.formats import FORMAT_OF_ENDING, PICTURE_ENDINGS
from gradcli.spec.verdict_kinds import VERDICT_KINDS

SAVE = "save"


def _stdout_as_none(path: Path | None) -> Path | None:
    return None if path == Path("-") else path


def delivery_options(command: Command, *, saving: bool) -> dict[str, inspect.Parameter]:
    """Return the parameters for where the result of a command goes, by the names of `Delivery`'s fields."""
    declared: dict[str, tuple[Any, Any]] = {}
    if command.formats:
        declared["format"] = _format(command), None
    declared["output"] = _output(command), None
    if command.pictures:
        declared["plot"] = _PLOT, None
        declared["picture"] = _picture(command), None
        declared["chart"] = _CHART, False
    if command.judged:
        declared["fail_on"] = _FAIL_ON, None
    if command.formats:
        declared["full"] = _FULL, False
    declared["quiet"] = _QUIET, False
    return {
        name: inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, annotation=annotation, default=value)
        for name, (annotation, value) in declared.items()
    }


def _format(command: Command) -> Any:
    formats = list(command.formats)
    programs = "JSON or CSV for programs" if "csv" in formats else "JSON for programs"
    tests = ", JUnit XML and GitHub annotations for continuous integration" if "junit" in formats else ""
    latex = "; LaTeX: the formulas alone" if "latex" in formats else ""
    return Annotated[
        str | None,
        typer.Option(
            "--format",
            metavar="|".join(formats),
            help=f"A table for people, {programs}{tests}, Markdown for notes{latex}.",
            show_default=f"{formats[0]}, or what the ending of FILE says",
            autocompletion=lambda: formats,
            rich_help_panel=OUTPUT,
        ),
    ]


def _output(command: Command) -> Any:
    endings = [ending for ending, name in FORMAT_OF_ENDING.items() if name in command.formats]
    says = f"; {', '.join(endings)} say the format" if endings else ""
    return Annotated[
        Path | None,
        typer.Option(
            "-o",
            "--output",
            metavar="FILE",
            help=f"Write the result to this file instead of standard output{says}.",
            callback=_stdout_as_none,
            show_default=False,
            rich_help_panel=OUTPUT,
        ),
    ]


def _picture(command: Command) -> Any:
    names = list(command.pictures)
    return Annotated[
        str | None,
        typer.Option(
            "--picture",
            metavar="|".join(names),
            help="Which picture --plot and --chart draw.",
            show_default=names[0],
            autocompletion=lambda: names,
            rich_help_panel=OUTPUT,
        ),
    ]


_PLOT = Annotated[
    Path | None,
    typer.Option(
        "--plot",
        metavar="FILE",
        help=f"Draw a picture to this file; {', '.join(PICTURE_ENDINGS)} say what kind (needs gradcli[plot]).",
        show_default=False,
        rich_help_panel=OUTPUT,
    ),
]
_CHART = Annotated[
    bool,
    typer.Option("--chart", help="Draw a picture in characters above the table.", rich_help_panel=OUTPUT),
]
_FAIL_ON = Annotated[
    str | None,
    typer.Option(
        "--fail-on",
        metavar="KIND,...",
        help=f"Exit with code 3 if a verdict is one of these: {', '.join(VERDICT_KINDS)}.",
        show_default=False,
        autocompletion=fail_on,
        rich_help_panel=OUTPUT,
    ),
]
_FULL = Annotated[
    bool,
    typer.Option("--full", help="Everything that was measured, not just what it comes to.", rich_help_panel=OUTPUT),
]
_QUIET = Annotated[
    bool,
    typer.Option("--quiet", help="Nothing on standard error but errors and failed gates.", rich_help_panel=OUTPUT),
]


def known_format(name: str | None, command: Command) -> None:
    """Check that a command has the format that is asked for.

    Raises:
        UsageError: it has not.
    """
    if name is not None and name not in command.formats:
        having = [other.name for other in COMMANDS.values() if name in other.formats]
        known = ", ".join(command.formats)
        if having:
            raise UsageError(f"--format: {name} is a format of 'gradcli {having[0]}'; here: {known}")
        raise UsageError(f"--format: no format is called {name!r}; known: {known}{did_you_mean(name, command.formats)}")


def verdict_kinds(text: str | None) -> tuple[str, ...]:
    """Return the kinds in the comma-separated list of `--fail-on`; none where it was not given.

    Raises UsageError for a word that is no kind of verdict, and for an empty list.
    """
    if text is None:
        return ()
    kinds = tuple(dict.fromkeys(kind for kind in (part.strip() for part in text.split(",")) if kind))
    for kind in kinds:
        if kind not in VERDICT_KINDS:
            raise UsageError(
                f"--fail-on: no verdict is called {kind!r}; known: {', '.join(VERDICT_KINDS)}"
                f"{did_you_mean(kind, list(VERDICT_KINDS))}"
            )
    if not kinds:
        raise UsageError(f"--fail-on: expected at least one of {', '.join(VERDICT_KINDS)}")
    return kinds
