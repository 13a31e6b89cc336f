"""`gradcli inspect` on a checkpoint that stands in for a file: what is printed where, and every refusal."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from checkpoints_by_hand import Table, arrays_of, of_parameters
from in_process import gradcli
from processes import environment

from gradcli.errors import InputFileError
from gradcli.spec import yaml12
from gradcli.weights import formats, layouts
from gradcli.weights.checkpoint import Checkpoint, Tensor
from gradcli.weights.formats import FOLDER_FILES, open_checkpoint
from gradcli.weights.layers import Contents, Unsupported

FILE = "model.safetensors"


def arrays() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    return arrays_of("encoder.rnn.layer0", "ifgo", 4, 3, rng) | arrays_of("plain.layer0", "h", 2, 3, rng)


def found_in(checkpoint: Checkpoint) -> Contents:
    assert isinstance(checkpoint, Table)
    layers = (
        of_parameters(checkpoint, "encoder.rnn", "lstm", "LSTM"),
        of_parameters(checkpoint, "plain", "rnn", "RNN"),
    )
    return Contents(layers, unsupported=(Unsupported("odd", "its gates are not known here"),))


@pytest.fixture(autouse=True)
def table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Table:
    """Return the checkpoint that is read in place of any file; the layers in it are `found_in` it."""
    monkeypatch.chdir(tmp_path)
    Path(FILE).write_bytes(b"stands for a checkpoint")
    made = Table(arrays(), name=FILE)
    monkeypatch.setattr(formats, "open_checkpoint", lambda path, name: made)
    monkeypatch.setattr(layouts, "find_layers", found_in)
    return made


def test_the_table() -> None:
    done = gradcli("inspect", FILE)
    assert (done.code, done.stderr) == (0, "")
    assert "encoder.rnn   PyTorch LSTM, runs as the built-in cell lstm" in done.stdout
    assert "cannot run   odd: its gates are not known here" in done.stdout


def test_every_format_and_a_file() -> None:
    assert gradcli("inspect", FILE, "--format", "json").report()["command"] == "inspect"
    assert gradcli("inspect", FILE, "--format", "csv").stdout.startswith("layer,direction,parameter,")
    assert "| matrix | shape |" in gradcli("inspect", FILE, "--format", "markdown").stdout
    done = gradcli("inspect", FILE, "--format", "json", "-o", "layers.json")
    assert (done.code, done.stdout, done.stderr) == (0, "", "wrote layers.json\n")
    assert json.loads(Path("layers.json").read_text())["file"] == FILE


def test_a_file_without_recurrent_layers_is_no_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(layouts, "find_layers", lambda checkpoint: Contents())
    done = gradcli("inspect", FILE)
    assert (done.code, done.stderr) == (0, "")
    assert "gradcli recognises no recurrent layer in this file" in done.stdout
    assert gradcli("inspect", FILE, "--spec", "rnn").code == 4


def test_memory_is_reckoned_before_anything_is_read(table: Table) -> None:
    done = gradcli("inspect", FILE, "--max-memory", "1K")
    assert done.refused()
    assert done.code == 5
    assert "reading the recurrent weights of encoder.rnn in model.safetensors would need about" in done.stderr
    assert table.was_read == []


def test_every_tensor_that_is_not_finite_is_listed_with_how_many_entries(table: Table) -> None:
    table.arrays["plain.layer0.W_hh"][0, 1] = np.nan
    table.arrays["plain.layer0.W_hh"][1] = -np.inf
    table.arrays["plain.layer0.b_h"][:] = np.nan
    done = gradcli("inspect", FILE)
    assert (done.code, done.stderr) == (0, "")
    assert (
        "NOT FINITE   2 tensors of 15 with entries that are NaN or infinite; plain cannot be run with them"
        in done.stdout
    )
    found = gradcli("inspect", FILE, "--format", "json").report()
    assert found["not_finite"] == [
        {"tensor": "plain.layer0.W_hh", "shape": [2, 2], "nan": 1, "infinite": 2, "size": 4},
        {"tensor": "plain.layer0.b_h", "shape": [2], "nan": 2, "infinite": 0, "size": 2},
    ]
    measured = {layer["name"]: layer["directions"] for layer in found["layers"]}
    assert list(measured["encoder.rnn"]) == ["layer0"]
    assert measured["plain"] == {}
    assert "--layer encoder.rnn" in done.stdout.split("next")[1]


def test_a_file_whose_every_layer_is_not_finite_offers_none_to_run(table: Table) -> None:
    for values in table.arrays.values():
        values.flat[0] = np.inf
    done = gradcli("inspect", FILE)
    assert (done.code, done.stderr) == (0, "")
    assert "15 tensors of 15" in done.stdout
    assert "next" not in done.stdout


def test_what_cannot_be_looked_at_is_told(table: Table) -> None:
    table.arrays["unused"] = np.zeros((2000, 1000))
    table.tensors["unused"] = Tensor("unused", (2000, 1000), "float64")
    done = gradcli("inspect", FILE, "--max-memory", "10M")
    assert done.code == 0, done.stderr
    assert "unused: reading it would take too much memory" in done.stdout


# --- --spec ----------------------------------------------------------------------------------------------------------


def weights_in(text: str) -> object:
    found = yaml12.read(text, "spec.yaml")
    assert not found.mistakes
    return found.data["weights"]


def test_a_spec_on_standard_output_reads_nothing(table: Table) -> None:
    done = gradcli("inspect", f"./{FILE}", "--spec", "encoder.rnn")
    assert (done.code, done.stderr) == (0, "")
    assert weights_in(done.stdout) == {"file": f"./{FILE}", "layer": "encoder.rnn"}
    assert table.was_read == []


def test_in_a_file_the_path_starts_from_its_folder(tmp_path: Path) -> None:
    Path("specs/deep").mkdir(parents=True)
    done = gradcli("inspect", FILE, "--spec", "plain", "-o", "specs/deep/my.yaml")
    assert (done.code, done.stdout, done.stderr) == (0, "", "wrote specs/deep/my.yaml\n")
    assert weights_in(Path("specs/deep/my.yaml").read_text()) == {"file": f"../../{FILE}", "layer": "plain"}
    whole = tmp_path / FILE
    gradcli("inspect", whole, "--spec", "plain", "-o", "specs/deep/my.yaml")
    assert weights_in(Path("specs/deep/my.yaml").read_text()) == {"file": str(whole), "layer": "plain"}


def test_through_a_folder_that_is_a_link(tmp_path: Path) -> None:
    Path("far/away").mkdir(parents=True)
    Path("near").symlink_to(tmp_path / "far/away")
    gradcli("inspect", FILE, "--spec", "plain", "-o", "near/my.yaml")
    weights = weights_in(Path("near/my.yaml").read_text())
    assert isinstance(weights, dict)
    assert (Path("near") / weights["file"]).read_bytes() == Path(FILE).read_bytes()


def test_an_unknown_layer() -> None:
    done = gradcli("inspect", FILE, "--spec", "encoder.rn")
    assert done.refused()
    assert done.code == 2
    assert "--spec: model.safetensors has no recurrent layer 'encoder.rn'; layers: encoder.rnn, plain" in done.stderr
    assert "did you mean 'encoder.rnn'?" in done.stderr


def test_a_layer_that_cannot_run() -> None:
    done = gradcli("inspect", FILE, "--spec", "odd")
    assert done.refused()
    assert done.code == 4
    assert f"{FILE}: odd: its gates are not known here" in done.stderr


def test_a_spec_is_yaml_alone() -> None:
    done = gradcli("inspect", FILE, "--spec", "plain", "--format", "json")
    assert done.refused()
    assert done.code == 2
    assert "what comes out is no report but YAML; leave --format json out" in done.stderr


# --- files that are none ---------------------------------------------------------------------------------------------


def test_a_folder_of_anything(tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    message = r"^here: a folder; name a checkpoint in it, a file that ends in \.safetensors"
    with pytest.raises(InputFileError, match=message):
        open_checkpoint(folder, "here")


@pytest.mark.parametrize("first", range(len(FOLDER_FILES)))
def test_a_folder_of_a_model(first: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    folder = tmp_path / "model.safetensors.d"
    folder.mkdir()
    for name in FOLDER_FILES[first:]:
        (folder / name).touch()
    done = gradcli("inspect", folder)
    assert done.refused()
    assert done.code == 4
    assert f"{folder}: a folder; name the checkpoint in it: {folder / FOLDER_FILES[first]}" in done.stderr


@pytest.mark.parametrize("name", ["missing.npz", "model.txt", "-"])
def test_no_checkpoint(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    done = gradcli("inspect", name)
    assert done.refused()
    assert done.code == 4
    assert f"{name}: " in done.stderr


# --- what it loads ---------------------------------------------------------------------------------------------------

PROGRAM = """
import json, sys
from gradcli.weights import formats, layouts
from gradcli.weights.layers import Contents
from checkpoints_by_hand import Table
formats.open_checkpoint = lambda path, name: Table({}, name=name)
layouts.find_layers = lambda checkpoint: Contents()
assert not {"rich", "typer"} & set(sys.modules)
sys.argv = ["gradcli", *sys.argv[1:]]
from gradcli.__main__ import main
code = main()
print(json.dumps([code, sorted(sys.modules)]), file=sys.stderr)
"""


def test_a_result_in_a_pipe_is_written_without_rich(tmp_path: Path) -> None:
    tests = str(Path(__file__).parent.parent)
    env = environment()
    env["PYTHONPATH"] += f":{tests}"
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, "inspect", FILE, "--format", "json"],
        env=env,
        cwd=tmp_path,
        capture_output=True,
        encoding="utf-8",
        check=True,
    )
    code, modules = json.loads(done.stderr.splitlines()[-1])
    assert code == 0
    assert json.loads(done.stdout)["layers"] == []
    assert "rich" not in modules
    assert "torch" not in modules
    assert "h5py" not in modules
    assert "onnx" not in modules
