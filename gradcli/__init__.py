"""Gradient flow through recurrent cells: exact back-propagation through time for any cell given as equations.

A function for each command, `gradcli.simulate("lstm", seq_len=200)`, which returns what was found. Importing gradcli
costs next to nothing; what a function needs is imported when it is first looked up.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from gradcli.commands import *  # noqa: F403
    from gradcli.errors import GradcliError as GradcliError

__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    if not name.startswith("_") and (found := _names().get(name)) is not None:
        return found
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *_names()})


def _names() -> dict[str, Any]:
    import gradcli.commands  # noqa: F401 - which declares them
    from gradcli.commands.command import COMMANDS
    from gradcli.errors import GradcliError

    functions = {name: command.function for name, command in COMMANDS.items() if command.is_function}
    return {"GradcliError": GradcliError, **functions}
