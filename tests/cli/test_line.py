"""A line that is read without Typer comes to the same call as with it; what Typer refuses is left to it."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gradcli.cli import COMMANDS
from gradcli.cli.app import app
from gradcli.cli.line import read_line
from gradcli.cli.parameters import CommandLine
from gradcli.errors import GradcliError

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
#: What a word of a line may be, beside the options of a command.
WORDS = [
    "lstm",
    "gru",
    "-",
    "--",
    "a.yaml",
    "1",
    "0",
    "-1",
    "007",
    "1.5",
    "norm=1",
    "json",
    "out.json",
    "2G",
    "",
    "٣",
    "-h",
]


def called(line: Sequence[str], monkeypatch: pytest.MonkeyPatch) -> tuple[Any, Any]:
    """Return the values that a line comes to, read plainly and by Typer; None where it is left to Typer, or refused."""
    found: list[Mapping[str, Any]] = []
    with monkeypatch.context() as patch:
        patch.setattr(CommandLine, "run", lambda self, values: found.append(values))
        call = read_line(line)
        if call is not None:
            call()
        plain = _said(found)
        found.clear()
        try:
            app(args=list(line), prog_name="gradcli")
        except GradcliError:
            return plain, None
        except SystemExit as stop:
            if stop.code:
                return plain, None
        return plain, _said(found)


def _said(found: Sequence[Mapping[str, Any]]) -> Any:
    """Return what was given: of an option that was not, Typer may give no list or an empty one."""
    return {name: value for name, value in found[0].items() if value not in (None, [])} if found else None


def _lines_of_pages() -> list[list[str]]:
    lines = {tuple(shlex.split(each)) for command in COMMANDS.values() for each in command.examples}
    for page in PAGES:
        text = page.read_text(encoding="utf-8").replace("\\\n", " ")
        for shown in re.findall(r"^\$ (gradcli [^\n|>;&$`(]*)", text, flags=re.MULTILINE):
            lines.add(tuple(shlex.split(shown, comments=True)))
    return [list(line[1:]) for line in sorted(lines) if line[1] in COMMANDS]


@pytest.mark.parametrize("line", _lines_of_pages(), ids=" ".join)
def test_lines_of_the_documentation_are_plain(line: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    plain, by_typer = called(line, monkeypatch)
    assert plain is not None
    assert plain == by_typer


@st.composite
def lines(draw: st.DrawFn) -> list[str]:
    name = draw(st.sampled_from(sorted(COMMANDS)))
    options = [
        option
        for parameter, each in CommandLine(COMMANDS[name]).parameters.items()
        if hasattr(each.mark, "names_for")
        for option in each.mark.names_for(parameter)
    ]
    word = st.sampled_from(WORDS)
    option = st.sampled_from(options)
    part = st.one_of(
        word.map(lambda w: [w]),
        option.map(lambda o: [o]),
        st.tuples(option, word).map(list),
        st.tuples(option, word).map(lambda pair: ["=".join(pair)]),
        st.tuples(option, word).map(lambda pair: ["".join(pair)]),
    )
    return [name, *(each for few in draw(st.lists(part, max_size=4)) for each in few)]


@settings(max_examples=300, deadline=None)
@given(line=lines())
def test_no_line_means_something_else(line: list[str]) -> None:
    with pytest.MonkeyPatch.context() as monkeypatch:
        plain, by_typer = called(line, monkeypatch)
    if plain is not None:
        assert plain == by_typer


@pytest.mark.parametrize(
    "line",
    [
        ["simulate"],
        ["simulate", "lstm", "--seed"],
        ["simulate", "lstm", "-o"],
        ["simulate", "lstm", "--seed", "--full"],
        ["simulate", "lstm", "--seed", "x"],
        ["simulate", "lstm", "--full=yes"],
        ["simulate", "lstm", "--threads", "0"],
        ["simulate", "lstm", "--max-memory", "much"],
        ["simulate", "lstm", "gru"],
        ["simulat", "lstm"],
        ["simulate", "--help"],
        ["--version"],
        [],
    ],
)
def test_what_is_to_be_explained_is_left_to_typer(line: list[str]) -> None:
    assert read_line(line) is None


def test_completion_is_left_to_typer(monkeypatch: pytest.MonkeyPatch) -> None:
    assert read_line(["simulate", "lstm"]) is not None
    monkeypatch.setenv("_GRADCLI_COMPLETE", "complete_bash")
    assert read_line(["simulate", "lstm"]) is None
