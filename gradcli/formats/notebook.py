"""How a notebook shows a result: what the terminal shows, as text that keeps its columns, and its picture."""

from __future__ import annotations

from base64 import b64encode
from html import escape
from importlib.util import find_spec

from gradcli.formats.drawing import render_picture
from gradcli.results.result import Result

_WIDTH = 100


def bundle(result: Result) -> dict[str, str]:
    """Return a result by media type; the picture is there where matplotlib is installed."""
    text = result.to_text(width=_WIDTH)
    return {"text/plain": text, "text/html": f"<pre>{escape(text)}</pre>{_picture(result)}"}


def _picture(result: Result) -> str:
    """Return the first picture of a result as an image by itself, whose names are not those of others on the page."""
    if not result.pictures or find_spec("matplotlib") is None:
        return ""
    picture = result.picture()
    data = b64encode(render_picture(picture, ".svg")).decode("ascii")
    words = escape(f"{picture.title}. {picture.description}")
    return f'<img alt="{words}" style="max-width: 100%; background: white" src="data:image/svg+xml;base64,{data}">'
