"""Every spec in tests/bad_specs is refused by the real command, in exactly the words of the .txt beside it.

A new case is a NAME.yaml and a NAME.txt; the text is what standard error says, with the memory that a run would need
left out: that is the engine's to change. Cases that do not end with exit code 2 are listed here.
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from in_process import Finished, gradcli

FOLDER = Path(__file__).parents[1] / "bad_specs"
SPECS = sorted(file.name for file in FOLDER.glob("*.yaml"))
CODES = {
    4: """
        binary latin-1 npy-cut-short npy-nan npy-no-array npy-shape npy-texts series-empty series-folder
        series-header-only series-kind series-latin-1 series-missing series-nan series-ragged series-semicolons
        series-short series-word text-latin-1 text-short data-alphabet data-column-of-text data-lengths-in-file
        data-npz-texts data-time-first
    """,
    5: "memory-hidden-size memory-seq-len memory-sine untied-memory",
}
CODE_OF = {f"{name}.yaml": code for code, names in CODES.items() for name in names.split()}


@pytest.mark.parametrize("name", SPECS)
def test_a_bad_spec_is_refused_in_these_words(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(FOLDER)
    words = (FOLDER / name).with_suffix(".txt").read_text(encoding="utf-8")
    found = gradcli("simulate", name)
    said = re.sub(r"(?<=need about )[\d.,]+ \w+(?= of memory)", "...", found.stderr)
    assert Finished(found.code, found.stdout, said) == Finished(CODE_OF.get(name, 2), "", words)


def test_every_bad_spec_has_its_words_and_every_text_its_spec() -> None:
    assert len(SPECS) >= 140
    assert sorted(file.with_suffix(".yaml").name for file in FOLDER.glob("*.txt")) == SPECS
    assert set(CODE_OF) <= set(SPECS)
