"""A page made by hand: sound HTML, nothing of its texts obeyed, legible in light and dark."""

from __future__ import annotations

import re
from importlib.resources import files

import pytest
from hostile_text import HOSTILE, SHOWN
from html_document import Element, read

from gradcli.formats.figure_style import LOOKS, ROLE_LOOKS
from gradcli.formats.html import Ids, blocks
from gradcli.formats.page import render
from gradcli.formats.page_svg import inlined
from gradcli.results.model import Block, Column, Line, Table, Verbatim
from gradcli.results.page import Content, Folded, Formula, Formulas, Mathematics, Page, Section
from gradcli.results.pictures import Axis, BarChart, Picture

TABLE = Table(
    [Column("distance"), Column("what", "text"), Column("", "bar"), Column("", "flag"), Column("empty")],
    [[0, "a", 1.0, "", None], [1, "b", 0.25, "< 1e-3", None]],
    title="Some numbers",
    note="a note",
)


def picture(words: str) -> BarChart:
    return BarChart("routes", words, Axis("share"), [""], [], subtitle=words, description=words)


def drawn(shown: Picture, name: str) -> str:
    svg = '<svg xmlns="http://www.w3.org/2000/svg"><g id="a"/><path style="fill: #E69F00; clip-path: url(#a)"/></svg>'
    return inlined(svg.encode(), name, shown.title, shown.description)


def page_of(*content: Content, title: str = "A page", lead: list[Content] | None = None) -> Element:
    return read(written(*content, title=title, lead=lead))


def written(*content: Content, title: str = "A page", lead: list[Content] | None = None) -> str:
    sections = [part for part in content if isinstance(part, Section)]
    assert len(sections) == len(content)
    return "".join(render(Page(title, lead or [], sections), drawn))


def test_a_table_tells_what_is_what() -> None:
    table = page_of(Section("One", [TABLE])).one("table")
    assert table.one("caption").text == "Some numbers"
    header, *rows = table.all("tr")
    assert [cell.text for cell in header.all("th")] == ["distance", "what"]
    assert [[cell.text for cell in row.all("th", "td")] for row in rows] == [
        ["0", "a", "", ""],
        ["1", "b", "", "< 1e-3"],
    ]
    assert [row.one("th").attributes["scope"] for row in rows] == ["row", "row"]
    assert [cell.attributes.get("class") for cell in rows[1].all("th", "td")] == ["number", "text", "bar", "flag"]
    assert rows[1].one("span").attributes["style"] == "width:25.0%"


def test_a_table_without_a_title_is_told_by_its_heading() -> None:
    section = Section("The heading", [Table([Column("d")], [[1]])])
    caption = page_of(section).one("caption")
    assert (caption.text, caption.attributes["class"]) == ("The heading", "said")


def test_labelled_lines_are_terms_and_what_is_said_of_them() -> None:
    found = page_of(
        lead=[Line("falls\nfast   really", "VANISHING", "bad"), Line("because", "why", "dim"), Line("plain")]
    )
    terms = found.one("dl")
    assert [(e.tag, e.text, e.attributes.get("class")) for e in terms.all("dt", "dd")] == [
        ("dt", "VANISHING", "bad"),
        ("dd", "falls fast really", None),
        ("dt", "why", "dim"),
        ("dd", "because", None),
    ]
    assert "fast\N{EM SPACE} really" in terms.raw
    assert found.one("p").text == "plain"


def test_every_text_is_shown_and_none_is_obeyed() -> None:
    mathematics = Mathematics("<mi>a</mi>", HOSTILE)
    hostile: list[Content] = [
        Line(HOSTILE),
        Line(HOSTILE, HOSTILE, "warn"),
        Verbatim(f"{HOSTILE}\n{HOSTILE}"),
        Table([Column(HOSTILE, "text"), Column("n")], [[HOSTILE, 1]], HOSTILE, HOSTILE),
        Formulas(HOSTILE, [Formula(mathematics, mathematics, HOSTILE)]),
        Folded(HOSTILE, [Line("in it")]),
        picture(HOSTILE),
    ]
    found = page_of(Section(HOSTILE, hostile), Section(HOSTILE, hostile), title=HOSTILE)
    places = ("title", "h1", "h2", "a", "p", "dt", "dd", "code", "caption", "th", "summary", "figcaption", "desc")
    for tag in places:
        texts = [element.text for element in found.all(tag)]
        assert any(SHOWN in text for text in texts), (tag, texts)
    assert SHOWN in re.sub(r"\s+", " ", found.all("math")[0].attributes["alttext"])
    for element in found.walk():
        for value in [*element.attributes.values(), *(child for child in element.children if isinstance(child, str))]:
            assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]", value)


def test_names_of_sections_are_told_apart() -> None:
    found = page_of(*(Section("Same", [picture("one"), TABLE]) for _ in range(3)))
    assert [e.attributes["id"] for e in found.all("h2")] == ["same", "same-2", "same-3"]
    assert len(found.all("svg")) == 3


def test_the_list_of_contents_leads_to_two_levels() -> None:
    cells = Section("Cells", [Section("a", [Section("deeper", [Line("x")])]), Section("b", [Line("y")])])
    contents = page_of(cells, Section("Last", [Line("z")])).one("nav")
    assert [link.attributes["href"] for link in contents.all("a")] == ["#cells", "#a", "#b", "#last"]
    outer = contents.one("nav").children if contents.tag != "nav" else contents.children
    [top] = [child for child in outer if isinstance(child, Element)]
    assert [child.all("a")[0].text for child in top.children if isinstance(child, Element)] == ["Cells", "Last"]


def test_a_notebook_gets_a_fragment() -> None:
    group: list[Block] = [Line("a", "b"), TABLE]
    assert "".join(blocks(group, Ids(), "A run")).startswith("<dl>")


def test_a_picture_follows_the_colours_of_the_page() -> None:
    [svg] = page_of(Section("One", [picture("words")])).all("svg")
    [path] = svg.all("path")
    assert path.attributes["style"] == "fill: var(--ink-e69f00, #e69f00); clip-path: url(#picture-routes-a)"


# Colours.

STYLE = files("gradcli.formats").joinpath("page.css").read_text()


def colours(*, dark: bool) -> dict[str, str]:
    """Return the custom properties of a scheme, those that lead to others resolved."""
    light, _, rest = STYLE.partition("@media")
    found = dict(re.findall(r"--([\w-]+):\s*([^;]+);", light))
    if dark:
        found |= dict(re.findall(r"--([\w-]+):\s*([^;]+);", rest[: rest.index("\n}\n")]))
    return {name: found[value[6:-1]] if value.startswith("var(--") else value for name, value in found.items()}


def luminance(colour: str) -> float:
    """Return the relative luminance of WCAG 2.2."""
    channels = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one: str, other: str) -> float:
    low, high = sorted([luminance(one), luminance(other)])
    return (high + 0.05) / (low + 0.05)


def test_contrast_of_black_on_white_is_21() -> None:
    assert contrast("#000000", "#ffffff") == pytest.approx(21.0)
    assert contrast("#777777", "#ffffff") == pytest.approx(4.48, abs=0.01)


@pytest.mark.parametrize("dark", [False, True])
def test_text_is_legible(dark: bool) -> None:
    found = colours(dark=dark)
    for ground in ("paper", "soft"):
        for name in ("ink", "dim", "link", "good", "warn", "bad"):
            assert contrast(found[name], found[ground]) >= 4.5, (name, ground)


@pytest.mark.parametrize("dark", [False, True])
def test_curves_are_seen(dark: bool) -> None:
    found = colours(dark=dark)
    assert contrast(found["bar"], found["paper"]) >= 3.0
    for look in (*LOOKS, *ROLE_LOOKS.values()):
        ink = f"ink-{look.color[1:].lower()}"
        assert contrast(found[ink], found["paper"]) >= 3.0, ink
