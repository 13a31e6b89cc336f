"""No output of a run takes the place of a file that the run reads, or of another output, however it is spelled."""

from __future__ import annotations

import inspect
import io
import os
import shutil
import sys
from pathlib import Path
from unittest.mock import patch

import numpy as np
import pytest
from in_process import gradcli
from processes import Run

from gradcli.cli import COMMANDS

safetensors = pytest.importorskip("safetensors.numpy")

SMALL = ("-T", 4, "--hidden-size", 3, "--batch-size", 2, "--trials", 1)
READING = [
    name
    for name, command in COMMANDS.items()
    if {"spec", "specs", "file"} & set(inspect.signature(command.function).parameters)
]


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    np.savez("data.npz", x=rng.normal(size=(2, 6, 3)), n=[4, 3])
    np.save("lengths.npy", [4, 3])
    np.save("y.npy", rng.normal(size=(2, 3)))
    Path("my.yaml").write_text(
        "cell: rnn\ninput: {kind: file, path: data.npz, key: x, lengths: lengths.npy}\n"
        "loss: {kind: mse, target: {file: y.npy}}\n"
    )
    shapes = {"weight_ih_l0": (12, 3), "weight_hh_l0": (12, 3), "bias_ih_l0": (12,), "bias_hh_l0": (12,)}
    tensors = {f"rnn.{name}": rng.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}
    safetensors.save_file(tensors, "model.safetensors")
    safetensors.save_file(tensors, "part.safetensors")
    names = ", ".join(f'"{name}": "part.safetensors"' for name in tensors)
    Path("model.safetensors.index.json").write_text(f'{{"weight_map": {{{names}}}}}')
    return tmp_path


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


@pytest.mark.parametrize("name", ["my.yaml", "./my.yaml", "../{}/my.yaml", "{}/my.yaml", "link.yaml", "hard.yaml"])
@pytest.mark.parametrize("option", ["-o", "--save"])
def test_the_spec_stays_under_every_spelling(folder: Path, option: str, name: str) -> None:
    Path("link.yaml").symlink_to("my.yaml")
    os.link("my.yaml", "hard.yaml")
    before = contents(folder)
    spelled = name.format(folder.name if name.startswith("..") else folder)
    done = gradcli("simulate", "my.yaml", *SMALL, option, spelled)
    assert done.refused()
    assert done.code == 2
    same = "the run reads this file" if spelled.strip("./") == "my.yaml" else "it is my.yaml, which the run reads"
    assert f": {same} (the spec); give the output another name" in done.stderr
    assert contents(folder) == before


@pytest.mark.parametrize(
    ("name", "field"),
    [
        ("data.npz", "input.path"),
        ("lengths.npy", "input.lengths"),
        ("y.npy", "loss.target.path"),
        ("my.yaml", "the spec"),
    ],
)
def test_all_that_a_spec_names_stays(folder: Path, name: str, field: str) -> None:
    before = contents(folder)
    done = gradcli("simulate", "my.yaml", *SMALL, "-o", name)
    assert (done.code, done.stdout) == (2, "")
    assert f"-o {name}: the run reads this file ({field})" in done.stderr
    assert contents(folder) == before


@pytest.mark.parametrize(
    ("target", "name"),
    [
        ("model.safetensors", "model.safetensors"),
        ("model.safetensors.index.json", "model.safetensors.index.json"),
        ("model.safetensors.index.json", "part.safetensors"),
    ],
)
@pytest.mark.parametrize("command", ["simulate", "inspect"])
def test_a_checkpoint_stays_with_all_its_files(folder: Path, command: str, target: str, name: str) -> None:
    before = contents(folder)
    done = gradcli(command, target, "-o", name)
    assert (done.code, done.stdout) == (2, "")
    assert f"-o {name}: the run reads this file" in done.stderr
    assert contents(folder) == before


@pytest.mark.parametrize("command", READING)
def test_every_command_that_reads_files_looks(folder: Path, command: str) -> None:
    target = "model.safetensors" if command == "inspect" else "my.yaml"
    before = contents(folder)
    done = gradcli(command, target, "-o", target)
    assert (done.code, done.stdout) == (2, "")
    assert f"-o {target}: the run reads this file" in done.stderr
    assert contents(folder) == before


def test_a_spec_of_a_layer_does_not_take_the_place_of_its_weights(folder: Path) -> None:
    before = contents(folder)
    assert gradcli("inspect", "model.safetensors", "--spec", "rnn", "-o", "model.safetensors").code == 2
    assert contents(folder) == before


def test_each_of_several_specs_stays(folder: Path) -> None:
    shutil.copy("my.yaml", "other.yaml")
    before = contents(folder)
    assert gradcli("compare", "my.yaml", "other.yaml", *SMALL, "--save", "other.yaml").code == 2
    assert contents(folder) == before


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX files")
def test_a_spec_on_standard_input_stays(folder: Path, run: Run) -> None:
    Path("piped.yaml").write_text("cell: rnn\n")
    with (
        Path("piped.yaml").open() as file,
        patch.object(sys, "stdin", io.TextIOWrapper(io.FileIO(file.fileno(), closefd=False))),
    ):
        from gradcli.commands.loading import load
        from gradcli.errors import UsageError
        from gradcli.output_files import will_write

        with (
            will_write({"-o": Path("piped.yaml")}),
            pytest.raises(UsageError, match=r"piped\.yaml: it is <stdin>, which the run reads"),
        ):
            load("-", {})


@pytest.mark.parametrize("other", ["F", "./F", "link", "hard"])
def test_two_outputs_are_two_files(folder: Path, run: Run, other: str) -> None:
    Path("F").write_bytes(b"old")
    Path("link").symlink_to("F")
    os.link("F", "hard")
    done = run("simulate", "x", "-o", "F", "--save", other, fake="bug")
    assert done.returncode == 2
    assert done.stderr.startswith("error: -o and --save name the same file, F, and one would overwrite the other")
    assert Path("F").read_bytes() == b"old"


def test_two_outputs_that_are_not_there_yet_are_two_files_as_well(run: Run, folder: Path) -> None:
    Path("link").symlink_to("new")
    assert run("simulate", "x", "-o", "new", "--save", "./new", fake="bug").returncode == 2
    assert run("simulate", "x", "-o", "link", "--save", "new", fake="bug").returncode == 2
    assert not Path("new").exists()


@pytest.mark.skipif(not Path("/dev/null").exists(), reason="no /dev/null here")
def test_a_device_may_take_both(run: Run) -> None:
    assert run("simulate", "x", "-o", "/dev/null", "--save", "/dev/null", fake="echo").returncode == 0


def test_a_cell_and_a_file_of_its_name_are_two_things(folder: Path) -> None:
    Path("lstm").write_text("old")
    assert gradcli("simulate", "lstm", *SMALL, "-o", "lstm").code == 0
    assert gradcli("simulate", "lstm", *SMALL, "--set", "input.std=2", "-o", "my.yaml").code == 0
