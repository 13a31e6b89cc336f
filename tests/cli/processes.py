"""How tests run gradcli as a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import gradcli

ROOT = Path(gradcli.__file__).parents[1]
FAKE = Path(__file__).with_name("fake_commands.py")
Run = Callable[..., subprocess.CompletedProcess[str]]

# What a developer's shell or CI may have set, and would change the output.
_SCREEN = ("NO_COLOR", "FORCE_COLOR", "COLUMNS", "GITHUB_ACTIONS", "LC_ALL", "PYTHONIOENCODING", "GRADCLI_DEBUG")


def environment(**changes: str) -> dict[str, str]:
    """Return an environment in which gradcli can be imported, with nothing about screens but `changes`."""
    kept = {name: value for name, value in os.environ.items() if name not in _SCREEN}
    return kept | {"PYTHONPATH": str(ROOT), "TERM": "xterm", "LC_ALL": "C.UTF-8"} | changes


def command(*arguments: object, fake: str | None = None) -> list[str]:
    """Return the command line of gradcli; with `fake`, of gradcli with commands that compute nothing."""
    start = ["-m", "gradcli"] if fake is None else [str(FAKE), fake]
    return [sys.executable, *start, *map(str, arguments)]
