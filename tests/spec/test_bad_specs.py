"""Every spec in tests/bad_specs is refused, in exactly the words of the .txt beside it.

A new case is a NAME.yaml and a NAME.txt; the text is what the error says, and ends with a line end.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from gradcli.errors import GradcliError
from gradcli.spec.reader import load_spec

FOLDER = Path(__file__).parents[1] / "bad_specs"
SPECS = sorted(file.name for file in FOLDER.glob("*.yaml"))


@pytest.mark.parametrize("name", SPECS)
def test_a_bad_spec_is_refused_in_these_words(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(FOLDER)
    with pytest.raises(GradcliError) as caught:
        load_spec(name)
    assert f"{caught.value}\n" == (FOLDER / name).with_suffix(".txt").read_text(encoding="utf-8")


def test_every_bad_spec_has_its_words_and_every_text_its_spec() -> None:
    assert len(SPECS) >= 30
    assert sorted(file.with_suffix(".yaml").name for file in FOLDER.glob("*.txt")) == SPECS
