"""How a notebook shows a result: its picture, where matplotlib is installed, above what the terminal shows."""

from __future__ import annotations

from html import escape
from importlib.util import find_spec

from gradcli.results.result import Result

_WIDTH = 100


def bundle(result: Result) -> dict[str, str]:
    """Return a result by media type; the text keeps its columns."""
    text = result.to_text(width=_WIDTH)
    return {"text/plain": text, "text/html": f"{_picture(result)}<pre>{escape(text)}</pre>"}


def _picture(result: Result) -> str:
    """Return the first picture as an SVG element; nothing where there is none, or nothing that draws it."""
    if not result.pictures or find_spec("matplotlib") is None:
        return ""
    from gradcli.formats.drawing import render_picture

    svg = render_picture(result.picture(), ".svg").decode()
    return svg[svg.index("<svg") :]  # without what stands at the head of a file alone
