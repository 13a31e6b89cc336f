"""The pictures of the documentation: made by the commands that docs/pictures.md shows, and compared by what they show.

Two SVGs are the same picture where their words are, and where curves, bars and cells have the same values, read off
their axes. So another version of matplotlib, or of a font, does not matter, and a curve that has changed does.

After a change of the pictures:

    python tests/doc_pictures.py
"""

from __future__ import annotations

import base64
import io
import os
import re
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest.mock import patch
from xml.etree import ElementTree

import numpy as np
from doc_snippets import ROOT, Terminal, walk
from matplotlib.image import imread
from numpy.typing import NDArray

PAGE = ROOT / "docs" / "pictures.md"
FOLDER = ROOT / "docs" / "pictures"
#: How far two curves may lie apart, as a share of what the axes span; and two colours, of 1.
CLOSE = 0.003
CLOSE_IN_COLOUR = 0.02
#: At so many places across the axes curves are compared.
_PLACES = 80
_PLOT = re.compile(r"--plot (\S+)")
_IMAGE = re.compile(r"^!\[(.*)\]\(pictures/(\S+)\)$", re.MULTILINE)
_SVG, _LINK = "{http://www.w3.org/2000/svg}", "{http://www.w3.org/1999/xlink}href"
_DRAWN = ("curve-", "bar-", "points-")
_NUMBER = re.compile(r"-?[\d.]+(?:e-?\d+)?")

Array = NDArray[np.float64]


def made(folder: Path) -> Iterator[tuple[str, bytes]]:
    """Run the commands of the page, and yield the name and the content of each picture that they make.

    NumPy runs them: one shows a recurrence so chaotic that the last digit decides what a step of descent makes of it.
    """
    with patch.dict(os.environ, {"GRADCLI_ENGINE": "numpy"}):
        yield from _made(folder)


def _made(folder: Path) -> Iterator[tuple[str, bytes]]:
    terminal = Terminal(folder)
    for _, command, lines in walk(PAGE, terminal):
        found = _PLOT.search(command.line)
        if found is not None:
            if terminal.code:
                raise RuntimeError(f"{command.place}: $ {command.line}\n" + "\n".join(lines))
            yield found[1], (terminal.folder / found[1]).read_bytes()


def images() -> dict[str, str]:
    """Return the text alternative of each picture on the page, by its name."""
    return {name: text for text, name in _IMAGE.findall(PAGE.read_text(encoding="utf-8"))}


def title_of(svg: bytes) -> str:
    """Return what a picture says of itself."""
    title = ElementTree.fromstring(svg).find(f"{_SVG}title")
    assert title is not None
    return title.text or ""


def differences(svg: bytes, other: bytes) -> list[str]:
    """Return what two pictures show differently."""
    a, b = ElementTree.fromstring(svg), ElementTree.fromstring(other)
    found = []
    if _words(a) != _words(b):
        found.append(f"words: {sorted(_words(a) ^ _words(b))}")
    shapes, others = _shapes(a), _shapes(b)
    if shapes.keys() != others.keys():
        return [*found, f"shapes: {sorted(shapes.keys() ^ others.keys())}"]
    for name, (shape, close) in shapes.items():
        again = others[name][0]
        if shape.shape != again.shape or not np.all(
            (np.abs(shape - again) <= close) | (np.isnan(shape) & np.isnan(again))
        ):
            found.append(name)
    return found


def _words(root: ElementTree.Element) -> set[str]:
    """Return all text but that of ticks."""
    ticks = {node for group in root.iter(f"{_SVG}g") if "tick_" in (group.get("id") or "") for node in group.iter()}
    kinds = (f"{_SVG}text", f"{_SVG}title", f"{_SVG}desc")
    return {"".join(node.itertext()) for node in root.iter() if node.tag in kinds and node not in ticks}


def _shapes(root: ElementTree.Element) -> dict[str, tuple[Array, Any]]:
    """Return what is drawn, by name, and how far from that the same may lie.

    Curves as values at even places, points and bars as places, cells as colours, the scale of colours as its ends.
    """
    groups = {group.get("id"): group for group in root.iter(f"{_SVG}g")}
    axes = groups["axes_1"]
    box = np.vstack(_lines(next(axes.iter(f"{_SVG}path"))))
    ends = np.array([_ends(axes, box, axis) for axis in (0, 1)])
    size = np.abs(np.diff(ends)[:, 0])
    found: dict[str, tuple[Array, Any]] = {}
    if "axes_2" in groups:
        scale = groups["axes_2"]
        colours = _ends(scale, np.vstack(_lines(next(scale.iter(f"{_SVG}path")))), 1)
        found["scale"] = colours, CLOSE * np.ptp(colours)

    def placed(points: Array) -> Array:
        """Return places on the canvas as values of the axes."""
        return np.column_stack([np.interp(points[:, i], *_rising(box[:, i], ends[i])) for i in (0, 1)])

    for node in axes.iter():
        name = node.get("id") or ""
        if name == "cells":
            image = imread(io.BytesIO(base64.b64decode((node.get(_LINK) or "").partition(",")[2])))
            found[name] = np.asarray(image, dtype=float), CLOSE_IN_COLOUR
        if not name.startswith(_DRAWN):
            continue
        path = next((one for one in node.findall(f"{_SVG}path") if one.get("d")), None)
        if path is None or name.startswith("points-"):
            places = [[float(use.get(axis, "nan")) for axis in "xy"] for use in node.iter(f"{_SVG}use")]
            found[name] = placed(np.array(places).reshape(-1, 2)), CLOSE * size
        elif name.startswith("bar-"):
            corners = placed(np.vstack(_lines(path)))
            found[name] = np.array([corners.min(axis=0), corners.max(axis=0)]), CLOSE * size
        else:
            found[name] = _values([placed(line) for line in _lines(path)], ends[0]), CLOSE * size[1]
    return found


def _ends(axes: ElementTree.Element, box: Array, axis: int) -> Array:
    """Return the values at the ends of an axis, the lower place on the canvas first, from two of its ticks."""
    ticks = []
    for group in axes.iter(f"{_SVG}g"):
        mark, label = next(group.iter(f"{_SVG}use"), None), next(group.iter(f"{_SVG}text"), None)
        if (group.get("id") or "").startswith(("xtick_", "ytick_")[axis]) and mark is not None and label is not None:
            number = "".join(label.itertext()).strip().replace("\N{MINUS SIGN}", "-").replace(",", "")
            if _NUMBER.fullmatch(number):
                ticks.append((float(mark.get("xy"[axis], "nan")), float(number)))
    places = np.array([box[:, axis].min(), box[:, axis].max()])
    if len(ticks) < 2:  # an axis of names, or without room for two numbers
        return np.array([0.0, 1.0])
    (start, first), *_, (end, last) = ticks
    return np.asarray(first + (places - start) * (last - first) / (end - start))


def _rising(places: Array, values: Array) -> tuple[Array, Array]:
    return np.array([places.min(), places.max()]), values


def _lines(path: Any) -> list[Array]:
    """Return the lines that a path consists of, each (n, 2)."""
    parts = (path.get("d") or "").replace("z", "").split("M")[1:]
    return [np.array(_NUMBER.findall(part), dtype=float).reshape(-1, 2) for part in parts]


def _values(lines: list[Array], ends: Array) -> Array:
    """Return the values of lines at even places between two; NaN where there is none."""
    places = np.linspace(*ends, _PLACES)
    found = np.full(_PLACES, np.nan)
    for line in lines:
        within = (places >= line[0, 0]) & (places <= line[-1, 0])
        found[within] = np.interp(places[within], line[:, 0], line[:, 1])
    return found


def main() -> None:
    """Make all pictures anew; those that show what they showed stay as they are, byte for byte."""
    FOLDER.mkdir(exist_ok=True)
    text = PAGE.read_text(encoding="utf-8")
    with tempfile.TemporaryDirectory() as folder:
        drawn = dict(made(Path(folder)))
    for name, svg in drawn.items():
        file = FOLDER / name
        if not file.exists() or differences(file.read_bytes(), svg):
            file.write_bytes(svg)
    for file in FOLDER.iterdir():
        if file.name not in drawn:
            file.unlink()
    PAGE.write_text(
        _IMAGE.sub(lambda found: f"![{title_of(drawn[found[2]])}](pictures/{found[2]})", text), encoding="utf-8"
    )


if __name__ == "__main__":
    main()
