"""Files with their steps first, as PyTorch has them unless batch_first is asked for."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from in_process import Finished, gradcli

T, BATCH = 12, 5
SMALL = ("-T", T, "--hidden-size", 3, "--trials", 1)


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(3)
    x, y = rng.normal(size=(T, BATCH, 2)), rng.normal(size=(T, BATCH, 3))
    classes = rng.integers(0, 4, size=(T, BATCH))
    for name, array in {"x": x, "y": y, "classes": classes}.items():
        np.save(f"{name}-time.npy", array)
        np.save(f"{name}.npy", array.swapaxes(0, 1))
    return tmp_path


def run(*sets: str, options: tuple[object, ...] = SMALL) -> Finished:
    return gradcli("simulate", "gru", *options, *(part for text in sets for part in ("--set", text)))


def numbers(*sets: str) -> dict[str, Any]:
    done = gradcli("simulate", "gru", *SMALL, *(part for text in sets for part in ("--set", text)), "--format", "json")
    assert done.code == 0, done.stderr
    found = done.report()["runs"][0]
    return {key: found[key] for key in ("curve", "states", "parameters", "clip", "notes")}


@pytest.mark.parametrize(
    "more", ["", ", standardize: true", ", lengths: [12, 7, 3, 12, 1]", ", reverse: true, scale: 2"]
)
@pytest.mark.parametrize(
    "loss",
    [
        ("kind: mse, target: zeros", "kind: mse, target: zeros"),
        (
            "kind: mse, at: every, target: {file: y.npy}",
            "kind: mse, at: every, target: {file: {path: y-time.npy, layout: time_first}}",
        ),
        (
            "kind: cross_entropy, at: every, classes: 4, target: {file: classes.npy}",
            "kind: cross_entropy, at: every, classes: 4, target: {file: {path: classes-time.npy, layout: time_first}}",
        ),
    ],
    ids=["zeros", "values", "classes"],
)
def test_steps_first_is_the_transposed_file(more: str, loss: tuple[str, str]) -> None:
    usual = numbers(f"input={{kind: file, path: x.npy{more}}}", f"loss={{{loss[0]}}}")
    time_first = numbers(f"input={{kind: file, path: x-time.npy, layout: time_first{more}}}", f"loss={{{loss[1]}}}")
    notes = [str(note).replace("x-time.npy", "x.npy") for note in time_first.pop("notes")]
    assert notes == usual.pop("notes")
    assert time_first == usual
    same = numbers(f"input={{kind: file, path: x.npy, layout: batch_first{more}}}", f"loss={{{loss[0]}}}")
    same.pop("notes")
    assert same == usual


HOW_READ = (
    "the array (12, 5, 2) is read as 12 sequences of 5 steps; if it is (steps, sequences, features), PyTorch's default,"
    " say layout: time_first"
)


def test_too_few_steps_tell_that_the_file_may_have_its_steps_first() -> None:
    done = run("input={kind: file, path: x-time.npy}")
    assert done.code == 4
    assert "5 rows found, but seq_len = 12 needs 12" in done.stderr
    assert HOW_READ in done.stderr


def test_what_would_be_too_few_either_way_does_not() -> None:
    done = run("input={kind: file, path: x-time.npy}", "batch_size=6")
    assert done.code == 4
    assert "layout" not in done.stderr


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (("-T", 5, "--batch-size", 5), True),  # as many in a batch as the second axis has
        (("-T", 4), False),
        (("-T", 4, "--batch-size", 12), False),
    ],
)
def test_a_shape_that_speaks_for_steps_first_is_told(options: tuple[object, ...], told: bool) -> None:
    sizes = (*options, "--hidden-size", 3, "--trials", 1)
    done = run("input={kind: file, path: x-time.npy}", options=sizes)
    assert done.code == 0, done.stderr
    assert (f"x-time.npy: {HOW_READ}" in done.stdout) == told
    for layout in ("batch_first", "time_first"):
        said = run(f"input={{kind: file, path: x-time.npy, layout: {layout}}}", options=("-T", 4, "--trials", 1))
        assert "is read as" not in said.stdout


def test_as_many_steps_as_the_first_axis_has_is_told(folder: Path) -> None:
    np.save("wide.npy", np.zeros((12, 20, 2)))
    assert "(12, 20, 2) is read as 12 sequences of 20 steps" in run("input={kind: file, path: wide.npy}").stdout


def test_a_target_that_fits_with_its_steps_first_says_so() -> None:
    done = run("input={kind: file, path: x.npy}", "loss={kind: mse, target: {file: y-time.npy}}")
    assert done.code == 2
    assert "got shape (12, 5, 3); with its steps first it fits: say layout: time_first" in done.stderr
