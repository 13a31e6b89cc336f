"""Pictures inside a page: the SVG of `gradcli.formats.figure` as a part of the document, in the document's colours."""

from __future__ import annotations

import re
from dataclasses import replace
from io import BytesIO
from xml.etree import ElementTree

from gradcli.formats.figure_style import clean
from gradcli.results.pictures import Picture

_SVG, _XLINK = "{http://www.w3.org/2000/svg}", "{http://www.w3.org/1999/xlink}"
#: Inches: narrow, so that its letters can be read where the page is as narrow as a phone.
_WIDTH = 5.6
_COLOUR = re.compile(r"#[0-9a-fA-F]{6}\b")
#: Places in points; a hundredth of one is not seen, and more digits would be half of a page.
_PLACES = ("d", "x", "y")
_NUMBER = re.compile(r"-?\d+\.\d{3,}")
#: What refers to another element of the same picture.
_REFERENCE = re.compile(r"url\(#([^)]+)\)")


def draw(picture: Picture, name: str) -> str:
    """Return a picture as an `svg` element with names of its own, all of which begin with `name`.

    Title and subtitle are left to the page, which can wrap them. Every colour is a custom property of the style sheet
    called after it, such as `--ink-0072b2`, with itself where there is none: so a picture follows the page into the
    dark.
    """
    from gradcli.formats.figure import figure_of, own_style

    figure = figure_of(replace(picture, title="", subtitle=""), width=_WIDTH)
    file = BytesIO()
    with own_style():
        figure.savefig(file, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    return inlined(file.getvalue(), name, picture.title, picture.description)


def inlined(svg: bytes, name: str, title: str, description: str) -> str:
    """Return an SVG document as an element of an HTML one, which is read out as one image."""
    root = ElementTree.fromstring(svg)
    for element in list(root.iter()):
        for child in list(element):
            if child.tag in (f"{_SVG}metadata", f"{_SVG}style", f"{_SVG}title"):
                element.remove(child)
    for element in root.iter():
        element.tag = element.tag.removeprefix(_SVG)
        attributes = {key.removeprefix(_XLINK): value for key, value in element.attrib.items()}
        element.attrib.clear()
        element.attrib.update({key: _own(key, value, name) for key, value in attributes.items()})
    for size in ("width", "height", "version"):
        root.attrib.pop(size, None)
    root.attrib |= {"role": "img", "aria-labelledby": f"{name}-title {name}-description"}
    told = [
        ElementTree.Element(tag, {"id": f"{name}-{what}"})
        for tag, what in (("title", "title"), ("desc", "description"))
    ]
    for element, words in zip(told, (title, description), strict=True):
        element.text = clean(words)
    root[:0] = told
    return ElementTree.tostring(root, encoding="unicode")


def _own(key: str, value: str, name: str) -> str:
    """Return an attribute's value with the names of this picture, and the colours of the page."""
    if key == "id":
        return f"{name}-{value}"
    if key == "href" and value.startswith("#"):
        return f"#{name}-{value[1:]}"
    if key in _PLACES:
        return _NUMBER.sub(lambda found: f"{float(found[0]):.2f}", value)
    value = _REFERENCE.sub(rf"url(#{name}-\1)", value)
    if key in ("style", "fill", "stroke"):
        return _COLOUR.sub(lambda found: f"var(--ink-{found[0][1:].lower()}, {found[0].lower()})", value)
    return value
