"""What is offered when Tab is pressed."""

from __future__ import annotations

from pathlib import Path

import pytest
from built_in_cells import constants, parsed
from doc_snippets import CONFIGS

from gradcli import cells
from gradcli.commands import completions
from gradcli.prepare.sizing import parse
from gradcli.spec.fields import field_paths
from gradcli.spec.models import FAMILIES
from gradcli.spec.reader import load_spec

CHECKPOINTS = CONFIGS.parent / "checkpoints"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Go to a folder with a spec, a checkpoint, a folder, and what is none of these."""
    monkeypatch.chdir(tmp_path)
    for name in ("model.yaml", "model.PT", "model.log", ".hidden.yaml", "lstm.yml"):
        (tmp_path / name).touch()
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "deep.yaml").touch()
    (tmp_path / "empty").mkdir()
    return tmp_path


@pytest.mark.parametrize(
    ("start", "offered"),
    [
        ("lstm-p", ["lstm-peephole", "lstm-projected"]),
        ("lstm", [*(name for name in cells.names() if name.startswith("lstm")), "lstm.yml"]),
        ("model", ["model.PT", "model.yaml", "models/"]),
        ("models/", ["models/deep.yaml"]),
        (".h", [".hidden.yaml"]),
        ("em", []),  # the shell's own completion goes on into the folder
        ("no/such", []),
        ("nosuch", []),
    ],
)
def test_cells_specs_and_checkpoints(folder: Path, start: str, offered: list[str]) -> None:
    assert completions.specs(start) == offered


@pytest.mark.parametrize(
    "name", ["a b.yaml", "a$(id).yaml", "a`id`.yaml", 'a"b.yaml', "a;b.yaml", "a\nb.yaml", "a\\b.yaml"]
)
def test_a_name_that_a_shell_would_take_apart_is_not_offered(folder: Path, name: str) -> None:
    (folder / name).touch()
    (folder / "a.yaml").touch()
    assert completions.specs("./a") == ["./a.yaml"]


@pytest.mark.parametrize("name", cells.names())
def test_parameters_and_states_are_those_of_the_cell(name: str) -> None:
    cell = parsed(name)
    assert set(completions.parameters(name)) == set(cell.parameters) - constants(name).arrays.keys()
    assert completions.states(name) == list(cell.states)


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("*.yaml")), ids=lambda path: path.stem)
def test_parameters_are_those_of_a_file(path: Path) -> None:
    spec = load_spec(str(path))
    assert set(completions.parameters(str(path))) == set(parse(spec).parameters)


def test_paths_of_set() -> None:
    assert completions.set_paths("lstm", "init.b_") == [f"init.b_{gate}=" for gate in "ifgo"]
    assert completions.set_paths("gru", "params.b_h") == ["params.b_hn="]
    assert completions.set_paths("lstm", "c_") == ["c_0=zeros", "c_0=normal", "c_0=uniform"]
    assert completions.set_paths(None, "hid") == ["hidden_size="]
    assert completions.set_paths("missing.yaml", "thresholds.") == ["thresholds.vanishing=", "thresholds.exploding="]
    assert completions.set_paths("lstm", "nosuch") == []


def test_words_of_a_field_that_takes_certain_ones() -> None:
    assert completions.set_paths("lstm", "dty") == ["dtype=float64", "dtype=float32"]
    assert completions.set_paths("lstm", "loss.at=f") == ["loss.at=final"]
    assert "init.b_f=chrono" in completions.set_paths("lstm", "init.b_f=")
    assert completions.set_paths("lstm", "hidden_size=") == []


def test_every_path_that_is_offered_is_one() -> None:
    """What a word is offered for is taken by the reader, and what is no path is refused."""
    for path in field_paths():
        if "<" in path or path.startswith(("cell", "weights", "input.", "loss.")):
            continue
        for offered in completions.set_paths("rnn", f"{path}="):
            load_spec("rnn", overrides=[offered])
    for start in ("init.W_hh=", "h_0=", "input=", "loss=", "loss.at=", "loss.reduction="):
        offered_words = completions.set_paths("rnn", start)
        assert offered_words
        for offered in offered_words:
            load_spec("rnn", overrides=[offered])


def test_kinds_of_verdict_in_a_list() -> None:
    assert completions.fail_on("va") == ["vanishing"]
    assert completions.fail_on("vanishing,d") == ["vanishing,dead"]
    assert "vanishing,vanishing" not in completions.fail_on("vanishing,")
    assert completions.fail_on("vanishing,x") == []


def test_families_of_cells() -> None:
    assert completions.families("") == [family.lower().replace(" ", "-") for family in FAMILIES]
    assert completions.families("LS") == ["lstm"]
    assert completions.families("no") == ["normalised"]


def test_methods_of_clipping() -> None:
    assert completions.clip_methods("step_") == ["step_norm=", "step_value="]


def test_layers_of_a_stack_and_of_a_checkpoint(tmp_path: Path) -> None:
    spec = tmp_path / "deep.yaml"
    spec.write_text("cell: lstm\nnum_layers: 2\nbidirectional: true\n")
    assert completions.layers(str(spec), "") == ["layer0", "layer0.reverse", "layer1", "layer1.reverse"]
    assert completions.layers(str(spec), "layer1") == ["layer1", "layer1.reverse"]
    assert completions.checkpoint_layers(str(spec), "") == []
    checkpoint = CHECKPOINTS / "digits-lstm.pt"
    assert completions.checkpoint_layers(str(checkpoint), "") == ["rnn"]
    spec.write_text(f"weights: {checkpoint}\n")
    assert completions.layers(str(spec), "r") == ["rnn"]
    assert completions.layers(None, "") == []


@pytest.mark.parametrize("content", [b"", b"\xff", b"- 1\n", b"cell: [1]\n", b"cell: {equations: 3}\nnum_layers: x\n"])
def test_a_spec_that_cannot_be_read_offers_nothing_and_says_nothing(content: bytes, tmp_path: Path) -> None:
    spec = tmp_path / "broken.yaml"
    spec.write_bytes(content)
    assert completions.parameters(str(spec)) == []
    assert completions.checkpoint_layers(str(spec), "") == []
    assert completions.set_paths(str(spec), "see") == ["seed="]
    assert completions.layers(str(spec), "x") == []
