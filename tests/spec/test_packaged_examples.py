"""The examples that come with the package: named, described by their headers, and runnable wherever they are copied."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pytest

from gradcli.errors import GradcliError, UsageError
from gradcli.spec import examples
from gradcli.spec.files import files_named
from gradcli.spec.reader import load_spec

CONFIGS = Path(__file__).parents[2] / "examples" / "configs"


def test_every_example_has_a_name_a_line_and_a_verdict() -> None:
    found = examples.examples()
    assert [example.name for example in found] == sorted(path.stem for path in CONFIGS.glob("*.yaml"))
    assert len({example.title for example in found}) == len(found)
    for example in found:
        header = (CONFIGS / f"{example.name}.yaml").read_text(encoding="utf-8")
        prose = " ".join(line.removeprefix("# ") for line in header.split("\n#\n")[0].split("\n"))
        assert prose.startswith((f"{example.title}. ", f"{example.title} ")) or prose == f"{example.title}."
        assert len(example.title) <= 100
        assert f"# Verdict: {example.verdict}" in header
        assert re.fullmatch("[A-Z ]+", example.verdict)


@pytest.mark.parametrize("name", examples.names())
def test_a_copy_reads_the_same_wherever_it_stands(name: str, tmp_path: Path) -> None:
    copy = tmp_path / f"{name}.yaml"
    copy.write_text(examples.text_of(name), encoding="utf-8")
    theirs, ours = load_spec(str(CONFIGS / f"{name}.yaml")).spec, load_spec(str(copy)).spec
    for (trail, before), (same_trail, after) in zip(files_named(theirs), files_named(ours), strict=True):
        assert trail == same_trail
        assert Path(after).is_absolute()
        assert Path(after).read_bytes() == (CONFIGS / before).read_bytes()
    blank = {path: "" for _, path in (*files_named(theirs), *files_named(ours))}
    texts = [json.dumps(spec.model_dump()) for spec in (theirs, ours)]
    for path in sorted(blank, key=len, reverse=True):
        texts = [text.replace(json.dumps(path), '""') for text in texts]
    assert texts[0] == texts[1]


def test_the_commands_of_a_header_are_for_the_folder_of_the_copy() -> None:
    for name in examples.names():
        header = examples.text_of(name).partition("\n\n")[0]
        assert "examples/configs" not in header
        for file in re.findall(r"[\w-]+\.yaml", header):
            assert Path(file).stem in examples.names()


def test_data_in_a_folder_with_blanks_and_signs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    odd = tmp_path / "a: {b}, #c 'd' \"e\""
    shutil.copytree(CONFIGS, odd / "examples" / "configs")
    shutil.copytree(CONFIGS.parent / "data", odd / "examples" / "data")
    monkeypatch.setattr(examples, "folder", lambda: odd / "examples" / "configs")
    (tmp_path / "my.yaml").write_text(examples.text_of("digits-rows"), encoding="utf-8")
    found = [path for _, path in files_named(load_spec(str(tmp_path / "my.yaml")).spec)]
    assert found == [str(odd / "examples" / "data" / "digits.npz")] * 2


def test_an_unknown_name_is_told_with_a_near_one() -> None:
    with pytest.raises(UsageError, match=r"no example is called 'digit-rows'; did you mean 'digits-rows'\?"):
        examples.text_of("digit-rows")


@pytest.mark.parametrize(
    ("target", "name"),
    [("examples/configs/lstm.yaml", "lstm"), ("./lstm.yaml", "lstm"), ("digits-rows", "digits-rows")],
)
def test_an_example_that_is_no_file_here_is_told_how_to_get(
    target: str, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(
        GradcliError, match=rf"'gradcli examples {name} -o {name}\.yaml' writes the example of this name"
    ):
        load_spec(target)


@pytest.mark.parametrize("target", ["missing.yaml", "lstm/missing", "nosuch"])
def test_of_what_is_no_example_nothing_is_said(target: str) -> None:
    assert examples.hint(target) == ""
