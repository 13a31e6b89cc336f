"""What a result says of the data that it was read from, and the batch that a file settles."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from in_process import gradcli

ASKED = ("-T", 5, "--hidden-size", 3, "--trials", 1, "--set")
NOTE = "x.npy: each feature standardised over 60 steps; mean 29.5, standard deviation 17.32"


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    np.save("x.npy", np.arange(60).reshape(6, 10, 1))
    return tmp_path


def report(*arguments: object) -> dict[str, Any]:
    finished = gradcli(*arguments, "--format", "json")
    assert finished.code == 0, finished.stderr
    return finished.report()


@pytest.mark.parametrize("command", ["simulate", "jacobian", "gates", "contributions"])
def test_the_screen_says_how_features_were_standardised(command: str) -> None:
    asked = (*ASKED, "input={kind: file, path: x.npy, standardize: true}")
    assert NOTE in gradcli(command, "rnn", *asked).stdout
    assert "standardised" not in gradcli(command, "rnn", *ASKED, "input={kind: file, path: x.npy}").stdout


def test_so_does_the_json_and_a_comparison_says_it_once() -> None:
    asked = (*ASKED, "input={kind: file, path: x.npy, standardize: true}")
    assert report("simulate", "rnn", *asked)["runs"][0]["notes"] == [NOTE]
    compared = report("compare", "rnn", "gru", *asked)
    assert compared["notes"] == [NOTE]
    assert [run["notes"] for run in compared["runs"]] == [[NOTE], [NOTE]]
    assert gradcli("compare", "rnn", "gru", *asked).stdout.count(NOTE) == 1
    assert report("simulate", "rnn", *ASKED, "seed=1")["runs"][0]["notes"] == []


@pytest.mark.parametrize(("given", "found"), [((), 6), (("--batch-size", 4), 4), (("--batch-size", 6), 6)])
def test_the_resolved_spec_has_the_batch_of_the_file(given: tuple[object, ...], found: int) -> None:
    for command in (("simulate", "rnn"), ("compare", "rnn", "lstm"), ("compare", "rnn", "lstm", "--match", "params")):
        for run in report(*command, *ASKED, "input={kind: file, path: x.npy}", *given)["runs"]:
            assert run["spec"]["batch_size"] == found
            assert run["spec"]["input_size"] == 1


def test_a_single_recording_is_too_small_a_batch_for_batch_norm(folder: Path) -> None:
    np.save("one.npy", np.arange(10.0).reshape(1, 10, 1))
    finished = gradcli("simulate", "batch-norm-rnn", *ASKED, "input={kind: file, path: one.npy}")
    assert finished.code == 2
    assert "make batch_size 2 or more; got 1" in finished.stderr
