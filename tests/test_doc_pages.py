"""The pages of the documentation are those that the program writes, and a change of one would be seen."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest
from doc_pages import FOLDER, differences, made, shown

REFRESH = "to take over what the program writes: python tests/doc_pages.py"
MOST_BYTES = 300_000


def test_the_pages_are_those_that_the_commands_write() -> None:
    assert {file.name for file in FOLDER.iterdir()} == shown() != set()
    with tempfile.TemporaryDirectory() as folder:
        written = dict(made(Path(folder)))
    assert written.keys() == shown()
    wrong = {name: differences((FOLDER / name).read_text(encoding="utf-8"), page) for name, page in written.items()}
    assert not any(wrong.values()), (REFRESH, wrong)


def test_the_files_are_small() -> None:
    assert max(file.stat().st_size for file in FOLDER.iterdir()) < MOST_BYTES


@pytest.mark.parametrize(
    ("there", "instead"),
    [
        ('<dt class="bad">VANISHING</dt>', '<dt class="bad">EXPLODING</dt>'),
        (">14</td>", ">24</td>"),
        ('<h2 id="why">Why</h2>', '<h2 id="why">Where</h2>'),
        ("falls by a factor 0.63 a step", "falls by a factor 0.83 a step"),
    ],
)
def test_a_change_is_seen(there: str, instead: str) -> None:
    page = (FOLDER / "lstm.html").read_text(encoding="utf-8")
    assert there in page
    assert differences(page, page.replace(there, instead, 1))


def test_the_last_digit_is_no_change() -> None:
    page = (FOLDER / "lstm.html").read_text(encoding="utf-8")
    assert not differences(page, page.replace("a factor 0.63 a step", "a factor 0.64 a step"))
