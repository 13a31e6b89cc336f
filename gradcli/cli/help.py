"""What every help text ends with, and how it shows options: no type behind a flag, defaults as they are."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Sequence
from typing import Any

from typer.core import TyperCommand, TyperGroup

#: The widest example that a help text holds on one line of a terminal of 80 columns, with its margin.
EXAMPLE_WIDTH = 78
_DOCUMENTATION = (
    "README.md and the folder docs/ of the project: docs/tutorial.md to begin with, docs/spec.md for all fields"
)


def end_of_help(examples: Sequence[str]) -> str:
    """Return the end of a help text: example commands, one a line, and where the documentation is."""
    lines = ["[bold]Examples[/bold]", *(f"  {line}" for line in examples)]
    return "\n\n".join([*lines, f"[bold]Documentation[/bold]  {_DOCUMENTATION}"])


def first_words(function: Callable[..., object]) -> str:
    """Return what the docstring of a command says before it comes to arguments and errors."""
    text = inspect.getdoc(function) or ""
    return re.split(r"\n\n(?:Args|Returns|Raises):\n", text)[0]


def default(value: object) -> str:
    """Return how a help text states a default that Typer does not know of: one that stands behind the spec's value."""
    return rf"[dim]\[default: {value}][/dim]"


class _PlainFlags:
    """Shows flags, which take no value, without a type."""

    def get_params(self, ctx: Any) -> list[Any]:
        params: list[Any] = super().get_params(ctx)  # type: ignore[misc]
        for param in params:
            if getattr(param, "is_flag", False):
                param.metavar = ""
        return params


class Command(_PlainFlags, TyperCommand):
    """A command of gradcli."""


class Commands(_PlainFlags, TyperGroup):
    """gradcli itself."""
