"""`gradcli examples`: the list, and one of them wherever the command is run."""

from __future__ import annotations

import csv
import io
from pathlib import Path

import pytest
from doc_snippets import CONFIGS, stated_verdict
from in_process import gradcli

from gradcli.spec import examples


def test_the_list_in_every_format() -> None:
    names = sorted(path.stem for path in CONFIGS.glob("*.yaml"))
    listed = gradcli("examples", "--format", "json").report()["examples"]
    assert [row["name"] for row in listed] == names
    rows = list(csv.DictReader(io.StringIO(gradcli("examples", "--format", "csv").stdout)))
    assert rows == listed
    table = gradcli("examples").stdout
    assert all(f"\n{name} " in f"\n{table}" for name in names)


def test_the_kind_of_each_verdict_is_that_of_its_header() -> None:
    for row in gradcli("examples", "--format", "json").report()["examples"]:
        word = stated_verdict(CONFIGS / f"{row['name']}.yaml").split(",")[0].split("   ")[0].lower()
        assert word == {"stable": "reaches the beginning"}.get(row["verdict"], row["verdict"])


@pytest.mark.parametrize("name", ["digits-rows", "gru-text", "file-input", "forget-bias-1"])
def test_a_copy_runs_as_the_example_does(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert gradcli("examples", name, "-o", "my.yaml").stderr == "wrote my.yaml\n"
    assert (tmp_path / "my.yaml").read_text(encoding="utf-8") == gradcli("examples", name).stdout
    ours = gradcli("simulate", "my.yaml", "--format", "csv").stdout.replace("my,", f"{name},")
    assert ours == gradcli("simulate", CONFIGS / f"{name}.yaml", "--format", "csv").stdout


def test_an_example_is_no_report() -> None:
    assert gradcli("examples", "lstm", "--format", "json").refused()


def test_an_unknown_example() -> None:
    done = gradcli("examples", "forget-bias-2")
    assert (done.code, done.stdout) == (2, "")
    assert "did you mean 'forget-bias-" in done.stderr
    assert len(examples.names()) > 50
