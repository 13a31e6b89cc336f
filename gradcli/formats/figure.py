"""Pictures by matplotlib, through `Figure` alone: no pyplot, no window, no global state.

What a user named is text everywhere, never a formula and never markup. The same picture gives the same bytes.
"""

from __future__ import annotations

import hashlib
import io
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from xml.sax.saxutils import escape

from matplotlib import style
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine

from gradcli.formats.figure_grids import draw_bars, draw_heat
from gradcli.formats.figure_lines import draw_lines
from gradcli.formats.figure_style import INK, SOFT, clean, rules, shortened
from gradcli.formats.text import wrap
from gradcli.results.pictures import BarChart, HeatMap, LineChart, Picture

#: Inches, and dots an inch of a PNG.
_WIDTH, _HEIGHT, _DPI = 7.2, 4.3, 150
#: Heights in inches: of axes with what is along them, a row of bars, a line of small text, one of the legend, one of
#: the title, and of the edge.
_BODY, _ROW, _LINE, _LEGEND_LINE, _TITLE_LINE, _EDGE = 3.4, 0.27, 0.15, 0.18, 0.21, 0.08
#: Characters that fit into the width: of the title, of what stands below it, of the legend.
_TITLE, _SUBTITLE, _LEGEND = 74, 112, 104


def figure_of(picture: Picture, width: float = _WIDTH) -> Figure:
    """Return a picture as a figure, `width` inches wide; the narrower, the larger its letters on a page."""
    share = width / _WIDTH
    with own_style():
        title = _wrapped(picture.title, share * _TITLE)
        below = _wrapped(picture.subtitle, share * _SUBTITLE)
        figure = Figure(figsize=(width, _HEIGHT), dpi=_DPI)
        axes = figure.add_subplot()
        match picture:
            case LineChart():
                draw_lines(axes, picture)
            case HeatMap():
                draw_heat(figure, axes, picture)
            case BarChart():
                draw_bars(axes, picture)
        rows = _add_legend(figure, int(share * _LEGEND))
        heading = _TITLE_LINE * len(title) + _LINE * len(below) + _EDGE
        figure.set_figheight(heading + _body(picture) + _LEGEND_LINE * rows)
        _add_heading(figure, title, below)
        return figure


def rendered(picture: Picture, format: str) -> bytes:  # noqa: A002
    """Return a picture as the bytes of a file: format is svg, png or pdf."""
    figure = figure_of(picture)
    title, description = clean(picture.title), clean(picture.description)
    file = io.BytesIO()
    with own_style():
        figure.savefig(file, format=format, metadata=_metadata(format, title, description))
    return _described(file.getvalue(), picture) if format == "svg" else file.getvalue()


@contextmanager
def own_style() -> Iterator[None]:
    """Draw by our own rules, not by the user's matplotlibrc; that a font lacks a letter is not worth a warning."""
    with style.context(["default", rules()]), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from")
        yield


def _wrapped(text: str, characters: float) -> list[str]:
    return wrap(clean(text), int(characters), break_words=True) if text else []


def _add_heading(figure: Figure, title: list[str], below: list[str]) -> None:
    """Write the title and what stands below it at the left edge, and leave what they need free of the rest."""
    height = figure.get_figheight()
    place = 1.0 - _EDGE / height
    for lines, line, size, color, weight in (
        (title, _TITLE_LINE, 11, INK, "bold"),
        (below, _LINE, 8, SOFT, "normal"),
    ):
        for text in lines:
            figure.text(
                _EDGE / figure.get_figwidth(), place, text, va="top", fontsize=size, color=color, fontweight=weight
            )
            place -= line / height
    engine = figure.get_layout_engine()
    assert isinstance(engine, ConstrainedLayoutEngine)
    engine.set(rect=(0.0, 0.0, 1.0, place))


def _body(picture: Picture) -> float:
    """Return the height of the axes with what is written along them, in inches."""
    if not isinstance(picture, BarChart):
        return _BODY
    groups = len({bar.group for bar in picture.bars if bar.group})
    return 0.7 + _ROW * max(len(picture.bars) + groups, 4)


def _add_legend(figure: Figure, room: int) -> int:
    """Add a legend below the axes, where it covers no curve, and return its rows; for one thing there is none.

    room: the characters that fit into the width.
    """
    handles, labels = figure.axes[0].get_legend_handles_labels()
    if len(labels) < 2:
        return 0
    texts = [shortened(label, room - 8) for label in labels]
    columns = max(1, min(len(texts), room // (max(map(len, texts)) + 8)))
    figure.legend(handles, texts, loc="outside lower left", ncols=columns, frameon=False, fontsize=8, handlelength=3.2)
    return -(-len(texts) // columns)


def _metadata(format: str, title: str, description: str) -> dict[str, Any]:  # noqa: A002
    """Return what the file says of itself; no date and no version, so that it is the same each time."""
    if format == "svg":
        return {"Title": title, "Date": None, "Creator": None}
    if format == "pdf":
        return {"Title": title, "Subject": description, "CreationDate": None, "Creator": None, "Producer": None}
    return {"Title": title, "Description": description, "Software": None}


def _described(svg: bytes, picture: Picture) -> bytes:
    """Return an SVG that readers of screens announce as one image, with its title and its description."""
    title, description = (escape(clean(text)) for text in (picture.title, picture.description))
    name = hashlib.sha256(f"{picture.name}\0{title}\0{description}".encode()).hexdigest()[:8]
    written = f" <title>{title}</title>".encode()
    told = f' <title id="title-{name}">{title}</title>\n <desc id="description-{name}">{description}</desc>'.encode()
    head = b'<svg role="img" aria-labelledby="title-%b" aria-describedby="description-%b" ' % ((name.encode(),) * 2)
    assert svg.count(written) == 1
    return svg.replace(written, told, 1).replace(b"<svg ", head, 1)
