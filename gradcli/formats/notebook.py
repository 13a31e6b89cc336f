"""How a notebook shows a result: what the terminal shows, as text that keeps its columns."""

from __future__ import annotations

from html import escape

from gradcli.results.result import Result

_WIDTH = 100


def bundle(result: Result) -> dict[str, str]:
    """Return a result by media type."""
    text = result.to_text(width=_WIDTH)
    return {"text/plain": text, "text/html": f"<pre>{escape(text)}</pre>"}
