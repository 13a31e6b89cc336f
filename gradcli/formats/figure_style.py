"""How figures look: colours, lines and markers that differ in grey too, and text that is nothing but text."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter

from gradcli.formats.text import printable, wrap
from gradcli.frozen import frozen
from gradcli.numbers import grouped

#: Figures do not depend on the user's matplotlibrc; text in them is never parsed, and stays text in SVG.
RULES: dict[str, Any] = {
    "text.parse_math": False,
    "text.usetex": False,
    "svg.fonttype": "none",
    "svg.hashsalt": "gradcli",
    "pdf.fonttype": 42,
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],
    "font.size": 9.0,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": "#444444",
    "xtick.color": "#444444",
    "ytick.color": "#444444",
    "hatch.linewidth": 0.6,
    "figure.constrained_layout.use": True,
}

INK, SOFT = "#000000", "#555555"
_SOLID, _DOTS = "-", (0, (1, 1.5))


@frozen
class Look:
    """Colour, dashes and marker of a series."""

    color: str
    dashes: Any
    marker: str
    width: float = 1.5


#: For the series of equal rank. The colours are those of Okabe and Ito (2008), which the colour-blind tell apart, in an
#: order in which neighbours differ in grey; where two are alike in grey, their dashes and markers are not.
LOOKS = (
    Look("#0072B2", _SOLID, "o"),
    Look("#E69F00", (0, (5, 1.5)), "s"),
    Look("#000000", (0, (1, 1)), "^"),
    Look("#009E73", (0, (6, 1.5, 1, 1.5)), "D"),
    Look("#D55E00", (0, (8, 1)), "v"),
    Look("#56B4E9", (0, (3, 1)), "P"),
    Look("#CC79A7", (0, (6, 1, 1, 1, 1, 1)), "X"),
    Look("#7A7A7A", (0, (10, 3)), "*"),
)
#: For those that are no equals of others: see `gradcli.results.pictures.Role`.
ROLE_LOOKS = {
    "mean": Look(INK, _SOLID, "", 2.0),
    "median": Look("#0072B2", (0, (4, 1.5)), "", 1.5),
    "reference": Look("#7A7A7A", (0, (6, 1.5, 1, 1.5)), "", 1.5),
    "bound": Look("#D55E00", _DOTS, "", 1.8),
}


def clean(text: str) -> str:
    """Return text without what a file format or a reader would obey, or could not hold (U+FFFE, U+FFFF)."""
    return printable(text).translate({0xFFFE: None, 0xFFFF: None})


def say(axes: Axes, text: str) -> None:
    """Write into empty axes what there is to say instead of a curve."""
    lines = "\n".join(wrap(clean(text), 70, break_words=True))
    axes.text(0.5, 0.5, lines, transform=axes.transAxes, ha="center", va="center", color=INK, fontsize=10)
    axes.set_xticks([])
    axes.set_yticks([])


def shortened(text: str, most: int) -> str:
    """Return text of at most so many characters, its middle left out where it has more."""
    text = clean(text)
    if len(text) <= most:
        return text
    head = (most - 1) // 2
    return f"{text[:head]}…{text[len(text) - (most - 1 - head) :]}"


def apart(positions: Sequence[float], gap: float) -> list[float]:
    """Return positions in 0..1 moved so that a gap is between them, in the same order: upwards, or down from 1.

    >>> apart([0.0, 0.125, 1.0, 0.9375], 0.25)
    [0.0, 0.25, 1.0, 0.75]
    """
    order = sorted(range(len(positions)), key=lambda i: positions[i])
    found = list(positions)
    for before, after in pairwise(order):
        found[after] = max(found[after], found[before] + gap)
    limit = 1.0
    for index in reversed(order):
        found[index] = min(found[index], limit)
        limit = found[index] - gap
    return found


def whole_numbers() -> FuncFormatter:
    """Return what writes ticks as whole numbers, with commas where they are long."""
    return FuncFormatter(lambda value, _: grouped(round(value)))


def rules() -> dict[str, Any]:
    """Return the rules, for a version of matplotlib that may not know all of them."""
    return {name: value for name, value in RULES.items() if name in matplotlib.rcParams}
