"""The manual page says what the program's own help says, and is sound roff."""

from __future__ import annotations

import re
import shutil
import subprocess

import pytest
import typer.main
from manual_page import EXIT_CODES, PAGE, escaped, manual_page

from gradcli.cli.app import app
from gradcli.errors import ExitCode

_NOT_FOUND = "is not installed"


def test_the_page_is_current() -> None:
    assert PAGE.read_text(encoding="ascii") == manual_page(), "python -m tests.manual_page writes it"


def test_every_exit_code_is_told() -> None:
    assert set(EXIT_CODES) == set(ExitCode)


@pytest.mark.parametrize(
    ("text", "roff"),
    [
        ("--seq-len", r"\-\-seq\-len"),
        (".csv files", r"\&.csv files"),
        ("'-' or `x`", r"\(aq\-\(aq or \(gax\(ga"),
        ('a "b" \\n', r"a \(dqb\(dq \en"),
        ("2 × 3", r"2 \[u00D7] 3"),
        ("h^2 ~ 1", r"h\(ha2 \(ti 1"),
    ],
)
def test_text_is_text_to_roff(text: str, roff: str) -> None:
    assert escaped(text) == roff


@pytest.mark.skipif(shutil.which("groff") is None, reason=f"groff {_NOT_FOUND}")
def test_groff_shows_every_command_and_option_and_warns_of_nothing() -> None:
    done = subprocess.run(
        ["groff", "-ww", "-man", "-Tascii", "-P-c", "-rLL=200n", str(PAGE)], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    text = re.sub(".\b", "", done.stdout)
    group = typer.main.get_command(app)
    for name, command in group.commands.items():  # type: ignore[attr-defined]
        assert re.search(rf"^ +gradcli {name}( |$)", text, re.MULTILINE)
        for parameter in command.params:
            for option in parameter.opts if parameter.param_type_name == "option" else ():
                assert re.search(rf"(?<!\S){re.escape(option)}(?![\w-])", text), option


@pytest.mark.skipif(shutil.which("mandoc") is None, reason=f"mandoc {_NOT_FOUND}")
def test_mandoc_finds_nothing_but_that_there_is_no_date() -> None:
    done = subprocess.run(
        ["mandoc", "-T", "lint", "-W", "warning", str(PAGE)], capture_output=True, text=True, check=False
    )
    found = [line for line in (done.stdout + done.stderr).splitlines() if "missing date" not in line]
    assert found == []
