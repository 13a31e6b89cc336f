"""The options of where a result goes, which belong to the command line alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from gradcli.commands.command import COMMANDS, Command
from gradcli.commands.completions import fail_on
from gradcli.commands.options import OUTPUT, Option
from gradcli.errors import UsageError, did_you_mean
from gradcli.formats import FORMAT_OF_ENDING, PICTURE_ENDINGS
from gradcli.spec.verdict_kinds import VERDICT_KINDS

SAVE = "save"


def delivery_options(command: Command, *, saving: bool) -> dict[str, tuple[Option, Any]]:
    """Return the options of where the result of a command goes, with their defaults, by `Delivery`'s fields."""
    found: dict[str, tuple[Option, Any]] = {}
    if command.formats:
        found["format"] = _format(command), None
    found["output"] = _output(command), None
    if command.pictures:
        found["plot"] = _PLOT, None
        found["picture"] = _picture(command), None
        found["chart"] = _CHART, False
    if command.judged:
        found["fail_on"] = _FAIL_ON, None
    if command.formats:
        found["full"] = _FULL, False
    found["quiet"] = _QUIET, False
    return found


def _format(command: Command) -> Option:
    formats = list(command.formats)
    programs = "JSON or CSV for programs" if "csv" in formats else "JSON for programs"
    tests = ", JUnit XML and GitHub annotations for continuous integration" if "junit" in formats else ""
    latex = "; LaTeX: the formulas alone" if "latex" in formats else ""
    return Option(
        metavar="|".join(formats),
        help=f"A table for people, {programs}{tests}, Markdown for notes{latex}.",
        otherwise=f"{formats[0]}, or what the ending of FILE says",
        complete=lambda beginning: formats,
        panel=OUTPUT,
    )


def _output(command: Command) -> Option:
    endings = [ending for ending, name in FORMAT_OF_ENDING.items() if name in command.formats]
    says = f"; {', '.join(endings)} say the format" if endings else ""
    return Option(
        names=("-o", "--output"),
        metavar="FILE",
        typed=Path,
        help=f"Write the result to this file instead of standard output{says}.",
        panel=OUTPUT,
    )


def _picture(command: Command) -> Option:
    names = list(command.pictures)
    return Option(
        metavar="|".join(names),
        help="Which picture --plot and --chart draw.",
        otherwise=names[0],
        complete=lambda beginning: names,
        panel=OUTPUT,
    )


_PLOT = Option(
    metavar="FILE",
    typed=Path,
    help=f"Draw a picture to this file; {', '.join(PICTURE_ENDINGS)} say what kind (needs gradcli[plot]).",
    panel=OUTPUT,
)
_CHART = Option(help="Draw a picture in characters above the table.", panel=OUTPUT)
_FAIL_ON = Option(
    metavar="KIND,...",
    help=f"Exit with code 3 if a verdict is one of these: {', '.join(VERDICT_KINDS)}.",
    complete=fail_on,
    panel=OUTPUT,
)
_FULL = Option(help="Everything that was measured, not just what it comes to.", panel=OUTPUT)
_QUIET = Option(help="Nothing on standard error but errors and failed gates.", panel=OUTPUT)


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
