"""A page: sections of blocks, pictures and formulas under headings. What a report is to a terminal, this is to a reader
who scrolls; `gradcli.formats.page` writes it, and knows no diagnostic.
"""

from __future__ import annotations

from collections.abc import Sequence

from gradcli.frozen import frozen
from gradcli.results.model import Block
from gradcli.results.pictures import Picture


@frozen
class Mathematics:
    """An expression twice: as a row of MathML elements, and as the text that stands for it where that is not shown."""

    markup: str
    text: str


@frozen
class Formula:
    """One equation, or one term of a sum, whose left side is None where it goes on with the formula above.

    note: what stands beside it, such as the route that a term belongs to.
    """

    left: Mathematics | None
    right: Mathematics
    note: str = ""


@frozen
class Formulas:
    """Formulas below each other, under a caption."""

    title: str
    rows: Sequence[Formula]


@frozen
class Folded:
    """What is shown on demand, and in print."""

    summary: str
    content: Sequence[Content]


@frozen
class Section:
    """A heading and what stands under it, sections of the next level included."""

    title: str
    content: Sequence[Content]


Content = Block | Picture | Formulas | Folded | Section


@frozen
class Page:
    """A whole page. title: what it is about. lead: what stands above the list of contents."""

    title: str
    lead: Sequence[Content]
    sections: Sequence[Section]
