"""A page as one HTML document that needs nothing else: no script, no network, no font of its own."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from importlib.resources import files
from itertools import groupby

from gradcli.formats.html import Ids, blocks, lines, text
from gradcli.results.model import Line, Table, Verbatim
from gradcli.results.page import Content, Folded, Formulas, Mathematics, Page, Section
from gradcli.results.pictures import BarChart, HeatMap, LineChart, Picture

#: Draws a picture, whose name in the document is given, as an element.
Draw = Callable[[Picture, str], str]

#: Whatever a page holds, a browser is to load nothing for it and to run nothing in it.
_POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:; base-uri 'none'; form-action 'none'"
_LOWEST_HEADING = 6
_CONTENTS = "Contents"


def render(page: Page, draw: Draw) -> Iterator[str]:
    """Yield the document. See `gradcli.formats.drawing.draw` for one that draws."""
    title = text(page.title)
    style = files("gradcli.formats").joinpath("page.css").read_text(encoding="utf-8")
    yield (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta name="color-scheme" content="light dark">\n'
        f'<title>{title}</title>\n<link rel="icon" href="data:,">\n<style>\n{style}</style>\n</head>\n<body>\n'
    )
    writer = _Writer(draw)
    lead, *sections = ["".join(writer.content(part, page.title, level=1)) for part in (page.lead, page.sections)]
    yield '<a class="skip" href="#main">Skip to the result</a>\n'
    yield f'<main id="main">\n<h1>{title}</h1>\n{lead}'
    yield from writer.contents()
    yield from sections
    yield "</main>\n</body>\n</html>\n"


class _Writer:
    """Writes what stands on a page, and keeps what its list of contents is made of."""

    def __init__(self, draw: Draw) -> None:
        self._draw = draw
        self._ids = Ids()
        self._ids.new("main")
        self._headings: list[tuple[int, str, str]] = []

    def contents(self) -> Iterator[str]:
        """Yield the list of contents: the sections, and those of the next level in lists of their own."""
        if len(self._headings) < 2:
            return
        top = min(level for level, _, _ in self._headings)
        yield f'<nav aria-label="{_CONTENTS}">\n<ul>\n'
        entries = [heading for heading in self._headings if heading[0] <= top + 1]
        for index, (level, name, title) in enumerate(entries):
            link = f'<a href="#{name}">{text(title)}</a>'
            following = entries[index + 1][0] if index + 1 < len(entries) else top
            opens = "\n<ul>" if following > level else "</li>"
            closes = "\n</ul></li>" if following < level else ""
            yield f"<li>{link}{opens}{closes}\n"
        yield "</ul>\n</nav>\n"

    def content(self, found: Sequence[Content], caption: str, level: int) -> Iterator[str]:
        """Yield what stands under a heading of `level`; `caption` is what tables without a title are about."""
        for is_block, group in groupby(found, key=lambda part: isinstance(part, (Line, Table, Verbatim))):
            if is_block:
                yield from blocks(
                    [part for part in group if isinstance(part, (Line, Table, Verbatim))], self._ids, caption
                )
                continue
            for part in group:
                match part:
                    case Section():
                        yield from self._section(part, level + 1)
                    case Folded():
                        yield f"<details>\n<summary>{text(part.summary)}</summary>\n"
                        yield from self.content(part.content, part.summary, level)
                        yield "</details>\n"
                    case Formulas():
                        yield self._formulas(part)
                    case LineChart() | HeatMap() | BarChart():
                        yield self._figure(part)

    def _section(self, section: Section, level: int) -> Iterator[str]:
        name = self._ids.new(section.title)
        self._headings.append((level, name, section.title))
        tag = f"h{min(level, _LOWEST_HEADING)}"
        yield f'<section aria-labelledby="{name}">\n<{tag} id="{name}">{text(section.title)}</{tag}>\n'
        yield from self.content(section.content, section.title, level)
        yield "</section>\n"

    def _figure(self, picture: Picture) -> str:
        caption = f"<figcaption>{lines(picture.subtitle)}</figcaption>\n" if picture.subtitle else ""
        return f"<figure>\n{self._draw(picture, self._ids.new(f'picture {picture.name}'))}\n{caption}</figure>\n"

    def _formulas(self, found: Formulas) -> str:
        name = self._ids.new(found.title)
        rows = "".join(
            f"<tr>{_left(row.left)}<td>{_math(row.right)}</td>"
            f'{f"""<td class="text">{text(row.note)}</td>""" if row.note else ""}</tr>\n'
            for row in found.rows
        )
        return (
            f'<div class="wide" role="region" tabindex="0" aria-labelledby="{name}">\n<table class="formulas">\n'
            f'<caption id="{name}">{text(found.title)}</caption>\n<tbody>\n{rows}</tbody>\n</table>\n</div>\n'
        )


def _left(side: Mathematics | None) -> str:
    """Return the left side of a formula with its sign, or an empty cell where the formula goes on."""
    if side is None:
        return "<td></td>"
    return f'<th scope="row">{_math(Mathematics(f"{side.markup}<mo>=</mo>", f"{side.text} ="))}</th>'


def _math(found: Mathematics) -> str:
    return f'<math alttext="{text(found.text)}">{found.markup}</math>'
