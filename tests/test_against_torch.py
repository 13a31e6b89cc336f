"""Every cell, run by the command and redone by PyTorch's autograd: the same states and gradients, to 1e-10 relative."""

from __future__ import annotations

import re
from collections.abc import Iterator
from importlib import resources
from pathlib import Path
from typing import Any

import pytest
import yaml
from built_in_cells import SPANNING, WITHOUT_GRADIENT, hidden_size_of, in_turn, random_starts
from reference.compare_run import Comparison, compare
from reference.equations import parse
from simulated import simulate

from gradcli import cells
from gradcli.engine.executor import NUMPY, wanted

pytestmark = pytest.mark.torch

RELATIVE_ERROR = 1e-10
TEST_CELLS = sorted((Path(__file__).parent / "cells").glob("*.yaml"))
SEQ_LEN, HIDDEN_SIZE, INPUT_SIZE = 9, 5, 3  # or the next larger hidden_size that suits a cell
AT_SOME = [5, SEQ_LEN, 2]
SETTINGS: dict[str, dict[str, Any]] = {
    "mse at last": {"loss": {"kind": "mse", "at": "last"}, "batch_size": 1, "trials": 1},
    "mse at every, 3 layers": {"loss": {"kind": "mse", "at": "every"}, "num_layers": 3},
    "cross-entropy at some": {"loss": {"kind": "cross_entropy", "at": AT_SOME, "classes": 4}},
    "cross-entropy at last, 3 layers": {"loss": {"kind": "cross_entropy", "at": "last"}, "num_layers": 3, "trials": 1},
    "projection at every": {"loss": {"kind": "projection", "at": "every"}, "batch_size": 1},
    "projection at last, 3 layers": {"loss": {"kind": "projection", "at": "last"}, "num_layers": 3},
    "mse at every, 2 layers both ways": {
        "loss": {"kind": "mse", "at": "every"},
        "num_layers": 2,
        "bidirectional": True,
        "trials": 2,
    },
    "sum at some, 3 layers": {"loss": {"kind": "sum", "at": AT_SOME}, "num_layers": 3, "batch_size": 1, "trials": 1},
}


def agreement(spec: dict[str, Any], cell_block: dict[str, Any], folder: Path) -> Comparison:
    """Run a spec and redo it: the relative errors under each name."""
    simulated = simulate(spec, folder, save=True)
    resolved = simulated.report["spec"]
    assert simulated.arrays["x"].shape[:3] == (resolved["trials"], resolved["seq_len"], resolved["batch_size"])
    return compare(simulated.arrays, resolved, cell_block)


def built_in(name: str) -> dict[str, Any]:
    """Return the file of a built-in cell, read without gradcli's own reader."""
    block: dict[str, Any] = yaml.safe_load((resources.files(cells) / f"{name}.yaml").read_text(encoding="utf-8"))
    return block


@pytest.mark.parametrize("path", TEST_CELLS, ids=lambda path: path.stem)
def test_cells_of_the_tests(path: Path, tmp_path: Path) -> None:
    spec = yaml.safe_load(path.read_text(encoding="utf-8"))
    comparison = agreement(spec, spec["cell"], tmp_path)
    assert comparison.skipped == 0
    assert {name: error for name, error in comparison.worst.items() if not error < RELATIVE_ERROR} == {}


def assert_built_in_cell_agrees(name: str, folder: Path, no_gradient: str = "", **fields: Any) -> None:
    """Compare all numbers; those of what has `no_gradient` but for rounding are left out."""
    block = built_in(name)
    states = [equation.target for equation in parse(block["equations"]) if equation.is_state]
    spec = {
        "cell": name,
        "hidden_size": hidden_size_of(name),
        "input_size": INPUT_SIZE,
        "seq_len": SEQ_LEN,
        "batch_size": 4,
        "trials": 2,
        **random_starts(states),
        **fields,
    }
    if "batch_norm" in block["equations"]:
        # One sequence has no statistics, and of a few little but rounding comes through.
        spec["batch_size"] = 5
    comparison = agreement(spec, block, folder)
    assert comparison.skipped == 0
    rounding = re.compile(rf"grad_state\.layer\d(\.reverse)?\.{WITHOUT_GRADIENT.get(name)}|{no_gradient}")
    compared = {key: error for key, error in comparison.worst.items() if not rounding.fullmatch(key)}
    assert {key: error for key, error in compared.items() if not error < RELATIVE_ERROR} == {}


def settings_of(name: str) -> list[str]:
    """Return the settings that a built-in cell can run at: a network in depth has one direction."""
    tied = built_in(name).get("tied", True)
    return [setting for setting, fields in SETTINGS.items() if tied or not fields.get("bidirectional")]


def chosen_settings() -> Iterator[tuple[str, str]]:
    """Yield cells with all settings or with one; with NumPy's engine, which is held against the other one, with one."""
    for number, name in enumerate(cells.names()):
        settings = settings_of(name)
        for setting in settings if name in SPANNING and wanted() != NUMPY else [settings[number % len(settings)]]:
            yield name, setting


@pytest.mark.parametrize(("name", "setting"), list(chosen_settings()))
def test_built_in_cells(name: str, setting: str, tmp_path: Path) -> None:
    assert_built_in_cell_agrees(name, tmp_path, **SETTINGS[setting])


UNTIED: dict[str, dict[str, Any]] = {
    "mse at last": {"loss": {"kind": "mse", "at": "last"}},
    "cross-entropy at some, 2 layers": {
        "loss": {"kind": "cross_entropy", "at": AT_SOME, "classes": 4},
        "num_layers": 2,
        "batch_size": 1,
    },
    "projection at every, input at every, 3 layers": {
        "loss": {"kind": "projection", "at": "every"},
        "input_at": "every",
        "num_layers": 3,
        "trials": 1,
    },
}


@pytest.mark.parametrize(("name", "setting"), in_turn(cells.names(), list(UNTIED)))
def test_built_in_cells_with_weights_of_their_own_at_every_step(name: str, setting: str, tmp_path: Path) -> None:
    # With its input at the first step alone, the query is the same in all entries, and the key's sum is 1.
    no_gradient = r"grad_param\.layer0\.W_xk" if (name, setting) == ("fast-weight-programmer", "mse at last") else ""
    assert_built_in_cell_agrees(name, tmp_path, no_gradient, **{"tied": False, "trials": 2, **UNTIED[setting]})


@pytest.mark.parametrize("path", TEST_CELLS, ids=lambda path: path.stem)
def test_cells_of_the_tests_with_weights_of_their_own_at_every_step(path: Path, tmp_path: Path) -> None:
    spec = yaml.safe_load(path.read_text(encoding="utf-8")) | {"tied": False, "input_at": "every"}
    comparison = agreement(spec, spec["cell"], tmp_path)
    assert comparison.skipped == 0
    assert {name: error for name, error in comparison.worst.items() if not error < RELATIVE_ERROR} == {}


def test_gradients_agree_down_to_where_float64_ends(tmp_path: Path) -> None:
    spec = {
        "cell": "rnn",
        "hidden_size": HIDDEN_SIZE,
        "input_size": INPUT_SIZE,
        "seq_len": 400,
        "batch_size": 1,
        "trials": 1,
        "init": {"W_hh": {"orthogonal": {"gain": 0.1}}},
    }
    comparison = agreement(spec, built_in("rnn"), tmp_path)
    assert comparison.skipped > 0
    assert comparison.largest < RELATIVE_ERROR
