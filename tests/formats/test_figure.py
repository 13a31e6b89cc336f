"""Pictures by matplotlib: what is on them is what the picture says, in files that are whole and the same each time."""

from __future__ import annotations

import colorsys
import itertools
import json
import subprocess
import sys
import zlib
from dataclasses import replace
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
from matplotlib import colors, rc_context
from matplotlib.figure import Figure

from gradcli.errors import UsageError
from gradcli.formats import drawing
from gradcli.formats.drawing import PICTURE_ENDINGS, draw, picture_ending, render_picture
from gradcli.formats.figure_style import LOOKS, ROLE_LOOKS, apart
from gradcli.results.pictures import Axis, Bar, BarChart, HeatMap, Level, LineChart, Mark, Picture, Series

SVG = "{http://www.w3.org/2000/svg}"
HOSTILE = 'a $x_1$ <script>alert("1")</script> & _b_ ]]> \x1b[2J \x00 \ufffe \u202e \ud800 \\frac{a}{b} 中文 ∂'
DISTANCE, NORM = Axis("distance", "steps back"), Axis("gradient norm", log10=True)


def line(*y: float, **fields: Any) -> LineChart:
    series = [Series("norm", np.arange(len(y)), np.array(y))]
    return LineChart("curve", "a title", DISTANCE, NORM, series, **{"description": "A sentence.", **fields})


def heat() -> HeatMap:
    values = np.array([[0.0, np.nan], [-np.inf, -4.0]])
    axes = (Axis("step s"), Axis("step t"), Axis("norm", log10=True))
    return HeatMap("matrix", "a title", *axes, np.array([0, 1]), np.array([1, 2]), values, "below", "A sentence.")


def bars(log10: bool = False) -> BarChart:
    rows = [Bar("one", [0.5, -0.25], "group"), Bar("two", [-np.inf, None], "group"), Bar("three", [1.0, 0.0], "other")]
    return BarChart(
        "routes", "a title", Axis("share", log10=log10), ["before", "after"], rows, description="A sentence."
    )


ALL: dict[str, Picture] = {"line": line(0.0, -1.0), "heat": heat(), "bars": bars(), "points": bars(log10=True)}


def svg_of(picture: Picture) -> ElementTree.Element:
    return ElementTree.fromstring(render_picture(picture, ".svg"))


def texts(figure: Figure) -> list[str]:
    figure.draw_without_rendering()
    found = [text.get_text() for text in figure.findobj(lambda one: hasattr(one, "get_text"))]
    return [text for text in found if text]


@pytest.mark.parametrize("ending", PICTURE_ENDINGS)
@pytest.mark.parametrize("kind", ALL)
def test_the_same_picture_gives_the_same_bytes(kind: str, ending: str) -> None:
    first = render_picture(ALL[kind], ending)
    assert first == render_picture(ALL[kind], ending)
    starts = {".svg": b"<?xml", ".png": b"\x89PNG\r\n", ".pdf": b"%PDF-"}
    assert first.startswith(starts[ending])


@pytest.mark.parametrize("kind", ALL)
def test_a_file_does_not_depend_on_the_users_settings(kind: str) -> None:
    plain = render_picture(ALL[kind], ".svg")
    with rc_context({"lines.linewidth": 9, "font.size": 30, "svg.fonttype": "path", "axes.facecolor": "red"}):
        assert render_picture(ALL[kind], ".svg") == plain


@pytest.mark.parametrize("kind", ALL)
def test_an_svg_has_its_title_and_its_text_alternative(kind: str) -> None:
    root = svg_of(ALL[kind])
    title, description = root.find(f"{SVG}title"), root.find(f"{SVG}desc")
    assert title is not None
    assert description is not None
    assert (title.text, description.text) == ("a title", "A sentence.")
    assert root.get("role") == "img"
    assert root.get("aria-labelledby") == title.get("id")
    assert root.get("aria-describedby") == description.get("id")
    shown = ["".join(node.itertext()) for node in root.iter(f"{SVG}text")]
    assert "a title" in shown  # text stays text


def hostile(picture: Picture) -> Picture:
    named = replace(picture, title=HOSTILE, subtitle=HOSTILE, description=HOSTILE, x=Axis(HOSTILE))
    match named:
        case LineChart():
            series = [replace(one, label=HOSTILE, note=HOSTILE) for one in (*named.series, *named.series)]
            return replace(named, series=series, levels=[Level(0.0, HOSTILE)], marks=[Mark(1.0, HOSTILE)])
        case BarChart():
            rows = [replace(bar, label=HOSTILE, group=HOSTILE) for bar in named.bars]
            return replace(named, bars=rows, parts=[HOSTILE, HOSTILE])
        case HeatMap():
            return replace(named, scale=Axis(HOSTILE))


@pytest.mark.parametrize("ending", PICTURE_ENDINGS)
@pytest.mark.parametrize("kind", ALL)
def test_names_are_nothing_but_text(kind: str, ending: str) -> None:
    """pyproject.toml makes warnings errors: a letter that the font lacks, or axes without room, would be one."""
    found = render_picture(hostile(ALL[kind]), ending)
    if ending != ".svg":
        return
    root = ElementTree.fromstring(found)
    assert not [node for node in root.iter() if node.tag.endswith("script")]
    shown = "".join("".join(node.itertext()) for node in root.iter(f"{SVG}text"))
    assert "$x_1$" in shown  # not read as a formula
    whole = found.decode()
    assert not any(char in whole for char in "\x1b\x00\ufffe\u202e")


def test_the_curves_are_the_numbers() -> None:
    picture = line(0.5, -1.0, -2.5, np.nan, -3.0)
    (curve,) = [one for one in draw(picture).axes[0].lines if one.get_gid() == "curve-0"]
    np.testing.assert_array_equal(curve.get_xdata(), [0, 1, 2, 3, 4])
    np.testing.assert_array_equal(curve.get_ydata(), [0.5, -1.0, -2.5, np.nan, -3.0])


def test_a_million_points_make_a_small_file_that_keeps_the_peak() -> None:
    y = np.sin(np.arange(1_000_000) * 0.37)
    y[654_321] = 7.0
    picture = line(*y)
    (curve,) = [one for one in draw(picture).axes[0].lines if one.get_gid() == "curve-0"]
    assert max(curve.get_ydata()) == 7.0
    assert len(render_picture(picture, ".svg")) < 60_000


def test_exact_zeros_are_a_strip_and_no_value() -> None:
    picture = line(0.0, -1.0, -np.inf, -np.inf, -2.0, -np.inf)
    figure = draw(picture)
    axes = figure.axes[0]
    (curve,) = [one for one in axes.lines if one.get_gid() == "curve-0"]
    np.testing.assert_array_equal(np.isnan(curve.get_ydata()), [False, False, True, True, False, True])
    strips = [one for one in axes.lines if one.get_linewidth() == 4]
    assert [list(one.get_xdata()) for one in strips] == [[1.6, 3.4], [4.6, 5.4]]
    bottom = axes.get_ylim()[0]
    for one in strips:  # below every number
        assert bottom < axes.transData.inverted().transform(one.get_transform().transform(one.get_xydata()))[0, 1] < -2
    assert "exactly zero" in texts(figure)
    assert "exactly zero" not in texts(draw(line(0.0, -1.0)))


@pytest.mark.parametrize("y", [(), (-np.inf, -np.inf), (np.nan,)])
def test_without_a_number_a_picture_says_why(y: tuple[float, ...]) -> None:
    picture = replace(line(*y), series=[]) if not y else line(*y)
    figure = draw(picture)
    assert "A sentence." in texts(figure)
    assert not [one for one in figure.axes[0].lines if one.get_gid()]
    assert "A sentence." in texts(draw(replace(bars(), bars=[Bar("one", [None, -np.inf])])))


def test_levels_and_marks_lie_where_they_are() -> None:
    picture = line(
        0.0, -1.0, -9.0, levels=[Level(-3.0, "vanishing"), Level(3.0, "exploding")], marks=[Mark(1, "horizon")]
    )
    figure = draw(picture)
    lines = figure.axes[0].lines
    across = {one.get_ydata()[0] for one in lines if list(one.get_xdata()) == [0, 1]}
    down = {one.get_xdata()[0] for one in lines if list(one.get_ydata()) == [0, 1]}
    assert (across, down) == ({-3.0, 3.0}, {1})
    assert {"vanishing", "exploding", "horizon"} <= set(texts(figure))
    low, high = figure.axes[0].get_ylim()
    assert low < -9.0
    assert high > 3.0


def test_names_of_levels_do_not_lie_on_each_other() -> None:
    """... and stay beside the axes, however close together the levels are, and however near to an edge."""
    for values in itertools.product([0.0, 0.01, 0.5, 0.51, 0.99, 1.0], repeat=4):
        found = apart(values, 0.06)
        assert sorted(found, key=lambda one: one) == [found[i] for i in np.argsort(values, kind="stable")]
        assert all(b - a >= 0.06 - 1e-12 for a, b in itertools.pairwise(sorted(found)))
        assert min(found) >= 0
        assert max(found) <= 1


def test_the_legend_covers_no_curve() -> None:
    series = [Series(f"cell {i}", np.arange(5), np.arange(5.0) + i, note="vanishing, horizon 3 of 5") for i in range(8)]
    figure = draw(replace(line(0.0), series=series))
    figure.draw_without_rendering()
    (legend,) = figure.legends
    assert not legend.get_window_extent().overlaps(figure.axes[0].get_window_extent())
    assert legend.get_window_extent().y0 >= 0
    assert len(legend.get_texts()) == 8


@pytest.mark.parametrize("lines", [1, 3])
def test_nothing_lies_on_the_heading(lines: int) -> None:
    words = " ".join(["many words of a title"] * 3 * lines)
    picture = replace(line(0.0, -9.0, marks=[Mark(1, "horizon"), Mark(1, "within 5 %")]), title=words, subtitle=words)
    figure = draw(picture)
    figure.draw_without_rendering()
    heading = [text.get_window_extent() for text in figure.texts]
    assert len(heading) > lines
    assert not any(a.overlaps(b) for a, b in itertools.combinations(heading, 2))
    assert min(box.y0 for box in heading) >= figure.axes[0].get_tightbbox().y1 - 1
    assert max(box.x1 for box in heading) <= figure.bbox.x1


def luminance(color: str) -> float:
    """Return how light a colour is in grey, 0 to 1 (ITU-R BT.601)."""
    return float(np.dot(colors.to_rgb(color), (0.299, 0.587, 0.114)))


def test_series_differ_in_grey_too() -> None:
    """By how light they are, or by their dashes and their markers, whichever pair one takes."""
    for a, b in itertools.combinations(LOOKS, 2):
        assert a.marker != b.marker
        assert a.dashes != b.dashes
        assert a.color != b.color
    for a, b in itertools.pairwise(LOOKS[:4]):  # of a few curves, neighbours in grey alone
        assert abs(luminance(a.color) - luminance(b.color)) > 0.15
    roles = list(ROLE_LOOKS.values())
    for a, b in itertools.combinations(roles, 2):
        assert a.dashes != b.dashes or abs(luminance(a.color) - luminance(b.color)) > 0.15
    assert all(luminance(look.color) < 0.75 for look in (*LOOKS, *roles))  # on white paper
    assert len({colorsys.rgb_to_hsv(*colors.to_rgb(look.color)) for look in LOOKS}) == len(LOOKS)


def test_a_heat_map_tells_zero_from_nothing() -> None:
    figure = draw(heat())
    (image,) = figure.axes[0].images
    cells = np.asarray(image.get_array())
    assert cells.shape == (2, 2, 4)
    assert cells[1, 0, 3] == 0.0  # a hole, through which the hatching shows
    np.testing.assert_array_equal(cells[0, 1], [1, 1, 1, 1])
    light, dark = cells[0, 0], cells[1, 1]
    assert luminance(tuple(light[:3])) > luminance(tuple(dark[:3])) + 0.3
    assert [patch.get_hatch() for patch in figure.axes[0].patches] == ["////"]
    assert "exactly zero" in texts(figure)
    shown = [
        label.get_text() for axis in (figure.axes[0].xaxis, figure.axes[0].yaxis) for label in axis.get_ticklabels()
    ]
    assert shown == ["0", "1", "1", "2"]


@pytest.mark.parametrize("steps", [[3], [0, 1], list(range(41)), [round(step) for step in np.linspace(1, 500, 64)]])
def test_the_steps_of_a_heat_map_stand_where_they_are_and_are_round(steps: list[int]) -> None:
    values = np.zeros((1, len(steps)))
    axes = draw(replace(heat(), columns=np.array(steps), rows=np.array([1]), values=values)).axes[0]
    ticks = [
        (place, int(label.get_text())) for place, label in zip(axes.get_xticks(), axes.get_xticklabels(), strict=True)
    ]
    shown = [step for _, step in ticks]
    assert shown[0] >= steps[0]
    assert shown[-1] <= steps[-1]
    assert len({b - a for a, b in itertools.pairwise(shown)}) <= 1
    for place, step in ticks:
        before, after = steps[int(place)], steps[min(int(np.ceil(place)), len(steps) - 1)]
        assert before <= step <= after


def test_bars_have_the_lengths_of_their_numbers() -> None:
    figure = draw(replace(bars(), bars=[Bar("one", [0.5, -0.25]), Bar("two", [0.125, None])]))
    widths = {patch.get_gid(): patch.get_width() for patch in figure.axes[0].patches if patch.get_gid()}
    assert widths.pop("bar-1-1") is not None
    assert widths == {"bar-0-0": 0.5, "bar-0-1": 0.125, "bar-1-0": -0.25}
    assert {"0.5", "-0.25", "0.125", "no number"} <= set(texts(figure))


def test_logarithms_are_points_and_what_is_none_is_said() -> None:
    figure = draw(bars(log10=True))
    points = {one.get_gid(): list(one.get_xdata()) for one in figure.axes[0].lines if one.get_gid()}
    np.testing.assert_array_equal(points["points-0"], [0.5, np.nan, 1.0])
    np.testing.assert_array_equal(points["points-1"], [-0.25, np.nan, 0.0])
    assert "before exactly zero, after not finite" in texts(figure)


def test_a_png_says_what_it_shows() -> None:
    png = render_picture(line(0.0, -1.0), ".png")
    assert b"Title\x00a title" in png
    assert b"Description\x00A sentence." in png
    assert zlib.crc32(png[12:29]).to_bytes(4, "big") == png[29:33]  # the header is whole


def test_an_ending_tells_the_kind(tmp_path: Any) -> None:
    assert [picture_ending(tmp_path / name) for name in ("a.svg", "b.PNG", "c.x.pdf")] == [".svg", ".png", ".pdf"]
    for name in ("a", "a.jpg", "a.svg.gz", "-", ".svg"):
        with pytest.raises(UsageError, match=r"ends in \.svg, \.png or \.pdf"):
            picture_ending(tmp_path / name)


WANTING_MATPLOTLIB = (
    lambda: picture_ending(Path("a.svg")),
    lambda: draw(line(0.0)),
    lambda: render_picture(line(0.0), ".svg"),
)


@pytest.mark.parametrize("call", WANTING_MATPLOTLIB)
def test_without_matplotlib_one_sentence_says_what_to_install(call: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(drawing, "find_spec", lambda name: None)
    with pytest.raises(UsageError, match=r"pip install 'gradcli\[plot\]'") as error:
        call()
    assert "\n" not in str(error.value)


def test_drawing_loads_no_pyplot_and_describing_no_matplotlib() -> None:
    code = """
import json, sys
import numpy as np
from gradcli.results.pictures import Axis, LineChart, Series
from gradcli.formats import chart, drawing
before = "matplotlib" in sys.modules
picture = LineChart("c", "t", Axis("x"), Axis("y"), [Series("s", np.arange(2), np.zeros(2))])
drawing.render_picture(picture, ".pdf")
print(json.dumps([before, "matplotlib" in sys.modules, "matplotlib.pyplot" in sys.modules]))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == [False, True, False]
