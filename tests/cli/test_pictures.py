"""`--plot`, `--picture` and `--chart`: what is wrong is told before any work, and files are whole or not there."""

from __future__ import annotations

import os
import re
import time
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from in_process import gradcli

import gradcli as python
from gradcli.commands.command import COMMANDS
from gradcli.formats import drawing

SMALL = ("--hidden-size", 4, "--input-size", 3, "-T", 12, "--trials", 2, "--batch-size", 2)
WITH_PICTURES = [name for name, command in COMMANDS.items() if command.pictures]
STARTS = {".svg": b"<?xml", ".png": b"\x89PNG", ".pdf": b"%PDF"}
#: Work that no test would wait for.
ENDLESS = ("-T", 500_000_000, "--max-memory", "1T")


def arguments(command: str) -> tuple[Any, ...]:
    return (command, "lstm", *(["rnn"] if command == "compare" else []), *SMALL)


def test_the_commands_with_pictures() -> None:
    assert WITH_PICTURES == ["simulate", "compare", "jacobian", "paths", "contributions", "gates"]


@pytest.mark.parametrize("command", WITH_PICTURES)
def test_the_pictures_that_are_declared_are_those_of_the_result(command: str) -> None:
    first = ["lstm", "rnn"] if command == "compare" else "lstm"
    sizes = {"hidden_size": 4, "input_size": 3, "seq_len": 12, "trials": 2, "batch_size": 2}
    assert list(getattr(python, command)(first, **sizes).pictures) == list(COMMANDS[command].pictures)


@pytest.mark.parametrize("command", WITH_PICTURES)
def test_each_picture_becomes_a_file(command: str, tmp_path: Path) -> None:
    plain = gradcli(*arguments(command)).stdout
    for name in COMMANDS[command].pictures:
        for ending, start in STARTS.items():
            file = tmp_path / f"{name}{ending}"
            done = gradcli(*arguments(command), "--plot", file, "--picture", name)
            assert done.code == 0, done.stderr
            assert done.stdout == plain  # the result is what it is without a picture
            assert done.stderr == f"wrote {file}\n"
            assert file.read_bytes().startswith(start)
    assert sorted(tmp_path.iterdir()) == sorted(
        tmp_path / f"{name}{ending}" for name in COMMANDS[command].pictures for ending in STARTS
    )


def test_the_first_picture_is_the_one_that_is_drawn(tmp_path: Path) -> None:
    gradcli(*arguments("simulate"), "--plot", tmp_path / "a.svg", "--quiet")
    gradcli(*arguments("simulate"), "--plot", tmp_path / "b.svg", "--picture", "curve")
    assert (tmp_path / "a.svg").read_bytes() == (tmp_path / "b.svg").read_bytes()
    assert gradcli(*arguments("simulate"), "--plot", tmp_path / "a.svg", "--quiet").stderr == ""


MISTAKES = {
    ("--plot", "a.jpg"): r"error: --plot a\.jpg: the name of a picture ends in \.svg, \.png or \.pdf",
    ("--plot", "-"): r"error: --plot -: the name of a picture ends in \.svg, \.png or \.pdf",
    ("--plot", "a.svg", "--picture", "curves"): (
        r"error: --picture: no picture of 'gradcli simulate' is called 'curves'; known: curve, states, clip, matrix; "
        r"did you mean 'curve'\?"
    ),
    ("--picture", "clip"): r"error: --picture says what --plot FILE or --chart draws; give one of them",
    ("--chart", "--format", "json"): r"error: --chart stands above a table, and this is json; use --plot FILE",
    ("--chart", "-o", "x.csv"): r"error: --chart stands above a table, and this is csv; use --plot FILE",
    ("--plot", "a.svg", "-o", "a.svg"): r"error: -o and --plot name the same file, .*",
    ("--plot", "./a.svg", "--save", "a.svg"): r"error: --plot and --save name the same file, .*",
    ("--plot", "nowhere/a.svg"): r"error: cannot write nowhere/a\.svg: the directory nowhere does not exist",
    ("--plot", "folder.svg"): r"error: cannot write folder\.svg: it is a directory; give the name of a file",
}


@pytest.mark.parametrize("options", MISTAKES, ids=" ".join)
def test_a_mistake_is_told_in_one_line_before_any_work(
    options: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder.svg").mkdir()
    started = time.monotonic()
    done = gradcli("simulate", "rnn", *ENDLESS, *options)
    assert time.monotonic() - started < 5
    assert done.code == 2 if "cannot write" not in done.stderr else done.code > 0
    assert re.fullmatch(MISTAKES[options], done.stderr.strip()), done.stderr
    assert done.stdout == ""
    assert [path.name for path in tmp_path.iterdir()] == ["folder.svg"]


def test_formulas_are_not_drawn(tmp_path: Path) -> None:
    done = gradcli(*arguments("paths"), "--format", "latex", "--plot", tmp_path / "a.svg")
    assert done.code == 2
    assert "derives formulas and measures nothing that could be drawn" in done.stderr


def test_without_matplotlib_nothing_is_computed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(drawing, "find_spec", lambda name: None)
    done = gradcli("simulate", "rnn", *ENDLESS, "--plot", tmp_path / "a.svg")
    assert done.code == 2
    assert done.stderr == (
        "error: pictures are drawn by matplotlib, which is not installed: pip install 'gradcli[plot]'\n"
    )
    assert gradcli(*arguments("simulate"), "--chart").code == 0  # which needs none


def test_the_file_of_a_spec_is_not_drawn_over(tmp_path: Path) -> None:
    spec = tmp_path / "spec.svg"
    spec.write_text("cell: rnn\n")
    done = gradcli("simulate", spec, *SMALL, "--plot", spec)
    assert done.code == 2
    assert spec.read_text() == "cell: rnn\n"


def test_a_file_that_is_there_is_replaced_and_keeps_its_mode(tmp_path: Path) -> None:
    file = tmp_path / "a.svg"
    file.write_text("old")
    file.chmod(0o600)
    link = tmp_path / "link.svg"
    link.symlink_to(file)
    assert gradcli(*arguments("simulate"), "--plot", link).code == 0
    assert link.is_symlink()
    ElementTree.parse(file)
    assert os.stat(file).st_mode & 0o777 == 0o600


def test_a_chart_stands_above_the_table() -> None:
    plain, done = gradcli(*arguments("simulate")), gradcli(*arguments("simulate"), "--chart")
    assert done.code == 0
    chart, table = done.stdout.split("\n\n", maxsplit=1)
    assert table == plain.stdout
    assert chart.startswith("lstm: ")
    assert "distance, steps back from the loss" in chart


def test_a_chart_in_a_file_is_that_of_python(tmp_path: Path) -> None:
    done = gradcli(*arguments("simulate"), "--chart", "--picture", "states", "-o", tmp_path / "a.txt")
    assert done.code == 0
    found = python.simulate("lstm", hidden_size=4, input_size=3, seq_len=12, trials=2, batch_size=2)
    assert (tmp_path / "a.txt").read_text().startswith(found.to_chart(width=None, picture="states"))


def test_a_gate_still_fails_and_the_picture_is_there(tmp_path: Path) -> None:
    done = gradcli("simulate", "rnn", *SMALL, "--fail-on", "vanishing,stable", "--plot", tmp_path / "a.svg")
    assert done.code == 3
    ElementTree.parse(tmp_path / "a.svg")


def test_python_draws_the_same(tmp_path: Path) -> None:
    found = python.simulate("lstm", hidden_size=4, input_size=3, seq_len=12, trials=2, batch_size=2)
    figure = found.plot(tmp_path / "a.svg", picture="states")
    assert type(figure).__name__ == "Figure"
    gradcli(*arguments("simulate"), "--plot", tmp_path / "b.svg", "--picture", "states")
    assert (tmp_path / "a.svg").read_bytes() == (tmp_path / "b.svg").read_bytes()
    with pytest.raises(python.GradcliError, match=r"ends in \.svg, \.png or \.pdf"):
        found.plot(tmp_path / "a.jpg")
    with pytest.raises(python.GradcliError, match="known: curve, states, clip, matrix"):
        found.plot(picture="nothing")
    with pytest.raises(python.GradcliError, match="does not exist"):
        found.plot(tmp_path / "nowhere" / "a.svg")
