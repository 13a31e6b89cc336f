"""Reads a page as a browser's parser would, and refuses what is not sound: an independent reading of the HTML."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from html.parser import HTMLParser
from itertools import pairwise

_VOID = {"meta", "link", "br"}
#: What may refer to other elements by their names.
_REFERENCES = ("aria-labelledby", "aria-describedby")
#: Elements by which a page would run something, load something or send something.
_ACTIVE = {"script", "iframe", "object", "embed", "form", "input", "button", "base", "audio", "video", "img", "style"}


@dataclass
class Element:
    """An element, its attributes, and what is in it."""

    tag: str
    attributes: dict[str, str]
    children: list[Element | str] = field(default_factory=list)

    def walk(self) -> Iterator[Element]:
        yield self
        for child in self.children:
            if isinstance(child, Element):
                yield from child.walk()

    def all(self, *tags: str) -> list[Element]:
        return [element for element in self.walk() if element.tag in tags]

    def one(self, tag: str) -> Element:
        [found] = self.all(tag)
        return found

    @property
    def text(self) -> str:
        """What is written in it, with single spaces, as a reader of screens has it."""
        parts = [child if isinstance(child, str) else child.text for child in self.children]
        return re.sub(r"\s+", " ", " ".join(parts)).strip()

    @property
    def raw(self) -> str:
        return "".join(child if isinstance(child, str) else child.raw for child in self.children)


class _Reader(HTMLParser):
    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.root = Element("document", {})
        self._open = [self.root]

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        names = [name for name, _ in attrs]
        assert len(names) == len(set(names)), f"<{tag}> has an attribute twice: {names}"
        element = Element(tag, {name: value or "" for name, value in attrs})
        self._open[-1].children.append(element)
        if tag not in _VOID:
            self._open.append(element)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        # Only foreign elements may close themselves.
        assert any(element.tag in ("svg", "math") for element in self._open), f"<{tag}/> in HTML"
        self.handle_starttag(tag, attrs)
        self._open.pop()

    def handle_endtag(self, tag: str) -> None:
        assert self._open[-1].tag == tag, f"</{tag}> where <{self._open[-1].tag}> is open"
        self._open.pop()

    def handle_data(self, data: str) -> None:
        self._open[-1].children.append(data)

    def handle_comment(self, data: str) -> None:
        raise AssertionError(f"a comment: {data!r}")

    def close(self) -> None:
        super().close()
        assert self._open == [self.root], f"not closed: {[element.tag for element in self._open[1:]]}"


def read(page: str) -> Element:
    """Return a page as a tree, every rule of a sound page checked."""
    reader = _Reader()
    reader.feed(page)
    reader.close()
    root = reader.root
    assert page.startswith("<!DOCTYPE html>\n<html lang=")
    _names(root)
    _headings(root)
    _nothing_active(root)
    _tables(root)
    _pictures(root)
    for element in root.all("math"):
        assert element.attributes["alttext"].strip()
    return root


def _names(root: Element) -> None:
    """Names are given once, and what refers to one finds it."""
    names = [element.attributes["id"] for element in root.walk() if "id" in element.attributes]
    assert len(names) == len(set(names)), sorted({name for name in names if names.count(name) > 1})
    for element in root.walk():
        for attribute in _REFERENCES:
            for name in element.attributes.get(attribute, "").split():
                assert name in names, f"{attribute}={name} leads nowhere"
        for attribute in ("href", "xlink:href"):
            link = element.attributes.get(attribute, "")
            assert not link.startswith("#") or link[1:] in names, f"{link} leads nowhere"
        for value in element.attributes.values():
            for name in re.findall(r"url\(#([^)]*)\)", value):
                assert name in names, f"url(#{name}) leads nowhere"


def _headings(root: Element) -> None:
    """There is one h1, it comes first, and no level is left out."""
    levels = [int(element.tag[1]) for element in root.walk() if re.fullmatch("h[1-6]", element.tag)]
    assert levels[0] == 1
    assert levels.count(1) == 1
    for before, after in pairwise(levels):
        assert after <= before + 1, levels


def _nothing_active(root: Element) -> None:
    for element in root.walk():
        assert element.tag not in _ACTIVE or (element.tag == "style" and not element.attributes), element.tag
        for name, value in element.attributes.items():
            assert not name.startswith("on"), name
            assert name == "srcset" or "javascript:" not in value.lower(), value
            if name in ("src", "href", "xlink:href", "data", "action", "srcset"):
                assert value.startswith(("#", "data:")), f"{element.tag} {name}={value[:60]}"
    [style] = root.all("style")
    assert "url(" not in style.raw
    assert "@import" not in style.raw
    policies = [e.attributes for e in root.all("meta") if e.attributes.get("http-equiv") == "Content-Security-Policy"]
    assert len(policies) == 1
    assert policies[0]["content"].startswith("default-src 'none';")


def _tables(root: Element) -> None:
    for table in root.all("table"):
        assert table.one("caption").text
        assert all(cell.attributes.get("scope") in ("col", "row") for cell in table.all("th"))
        rows = [[cell for cell in row.children if isinstance(cell, Element)] for row in table.all("tr")]
        if "formulas" not in table.attributes.get("class", ""):
            assert len({len(row) for row in rows}) == 1, "rows of different lengths"


def _pictures(root: Element) -> None:
    for svg in root.all("svg"):
        assert svg.attributes["role"] == "img"
        names = svg.attributes["aria-labelledby"].split()
        named = {e.attributes["id"]: e for e in svg.walk() if e.attributes.get("id") in names}
        assert [e.tag for e in named.values()] == ["title", "desc"]
        assert all(element.text for element in named.values())
    for math in root.all("math"):
        assert math.text
