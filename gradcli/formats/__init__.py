"""A report as text: one module a format, each with the same `render`, imported only when it is asked for.

A format is told the width, the colour and the alphabet of the screen; it never looks at the terminal, and it knows no
diagnostic: it walks over the report's blocks, data or records.
"""

from __future__ import annotations

from importlib import import_module

from gradcli.report.model import Report

FORMATS = ("table", "json", "csv", "markdown")


def render(report: Report, name: str, *, width: int | None, color: bool, unicode: bool) -> str:
    """Return the report in the format called `name`, one of `FORMATS`.

    width: columns of the screen, None for no limit. color: ANSI colours. unicode: characters beyond ASCII may be used.
    """
    if name not in FORMATS:
        raise ValueError(f"no format is called {name!r}")
    text: str = import_module(f"gradcli.formats.{name}").render(report, width=width, color=color, unicode=unicode)
    return text
