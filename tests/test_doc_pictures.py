"""The pictures of the documentation are those that the program draws, and a change of one would be seen."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from doc_pictures import FOLDER, differences, images, made, title_of

import gradcli
from gradcli.commands.command import COMMANDS
from gradcli.formats.drawing import render_picture
from gradcli.results.pictures import BarChart, HeatMap, LineChart, Picture

REFRESH = "to take over what the program draws: python tests/doc_pictures.py"
MOST_BYTES = 60_000


@pytest.fixture(scope="module")
def drawn() -> Iterator[dict[str, bytes]]:
    with tempfile.TemporaryDirectory() as folder:
        yield dict(made(Path(folder)))


def test_the_pictures_of_the_page_are_those_that_its_commands_draw(drawn: dict[str, bytes]) -> None:
    assert {file.name for file in FOLDER.iterdir()} == drawn.keys() == images().keys()
    wrong = {name: found for name, svg in drawn.items() if (found := differences((FOLDER / name).read_bytes(), svg))}
    assert not wrong, REFRESH


def test_the_text_alternatives_are_their_titles(drawn: dict[str, bytes]) -> None:
    assert images() == {name: title_of(svg) for name, svg in drawn.items()}, REFRESH


def test_the_files_are_small() -> None:
    assert max(file.stat().st_size for file in FOLDER.iterdir()) < MOST_BYTES


def test_the_page_has_every_picture_of_every_command() -> None:
    from doc_pictures import PAGE

    text = PAGE.read_text(encoding="utf-8")
    for name, command in COMMANDS.items():
        if command.pictures:
            assert f"| `{name}` | {', '.join(f'`{picture}`' for picture in command.pictures)} |" in text
            calls = [line for line in text.replace("\\\n   ", "").split("\n") if line.startswith(f"$ gradcli {name} ")]
            plots = [line for line in calls if "--plot" in line]
            shown = {line.partition("--picture ")[2] or command.pictures[0] for line in plots}
            assert shown == set(command.pictures)


def changed(picture: Picture, by: float) -> Picture:
    """Return a picture with all its numbers larger by a share."""
    match picture:
        case LineChart():
            return replace(picture, series=[replace(one, y=one.y * (1 + by)) for one in picture.series])
        case HeatMap():
            return replace(picture, values=picture.values * (1 + by), columns=picture.columns)
        case BarChart():
            grown = [[None if one is None else one * (1 + by) for one in bar.values] for bar in picture.bars]
            bars = [replace(bar, values=values) for bar, values in zip(picture.bars, grown, strict=True)]
            return replace(picture, bars=bars)


@pytest.mark.parametrize(("command", "name"), [(c, n) for c, one in COMMANDS.items() for n in one.pictures])
def test_a_change_of_one_percent_would_be_seen(command: str, name: str) -> None:
    sizes = {"hidden_size": 6, "input_size": 3, "seq_len": 40, "trials": 2, "batch_size": 2}
    target = ["lstm", "rnn"] if command == "compare" else "lstm"
    clip = {"clip": "norm=1e-6"} if command == "simulate" else {}  # far enough from 1, whose logarithm is 0
    picture = getattr(gradcli, command)(target, **sizes, **clip).picture(name)
    svg = render_picture(picture, ".svg")
    assert not differences(svg, render_picture(picture, ".svg"))
    for by in (0.01, -0.01):
        assert differences(svg, render_picture(changed(picture, by), ".svg"))
    if isinstance(picture, LineChart):
        gone = replace(picture, series=[replace(one, y=np.where(one.x > 20, np.nan, one.y)) for one in picture.series])
        assert name == "lyapunov" or differences(svg, render_picture(gone, ".svg"))
    assert differences(svg, render_picture(replace(picture, title="another"), ".svg"))
