"""The input of a spec: what the rest of the spec settles about it, and where mistakes are placed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from gradcli.errors import SpecError
from gradcli.prepare.build import build
from gradcli.prepare.data import open_source
from gradcli.sources.input_source import SymbolSource
from gradcli.spec.reader import LoadedSpec, load_spec

TABLE = np.arange(20.0).reshape(10, 2)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    np.savez(tmp_path / "x.npz", x=np.arange(60.0).reshape(3, 10, 2), ids=np.arange(10), labels=np.array([0, 1, 2]))
    return tmp_path


def loaded(folder: Path, **fields: Any) -> LoadedSpec:
    path = folder / "x.yaml"
    path.write_text(yaml.safe_dump({"cell": "rnn", "hidden_size": 3, "seq_len": 4, **fields}), encoding="utf-8")
    return load_spec(str(path))


@pytest.mark.parametrize(
    ("loss", "last"),
    [
        ({"kind": "cross_entropy"}, 5),
        ({"kind": "cross_entropy", "target": "next"}, 5),
        ({"kind": "cross_entropy", "target": "drawn"}, 6),
        ({"kind": "mse"}, 6),
    ],
)
def test_windows_of_tokens_leave_one_for_the_last_target_where_that_is_the_next(
    folder: Path, loss: dict[str, Any], last: int
) -> None:
    spec = loaded(folder, input={"kind": "tokens", "path": "x.npz", "key": "ids"}, loss=loss, batch_size=2)
    source = open_source(spec, embedding=lambda name: TABLE)
    assert isinstance(source, SymbolSource)
    assert source.symbols(0, 4)[:, 0, 1].tolist() == [last, last + 1, last + 2, last + 3]


def test_the_file_settles_a_batch_that_the_spec_leaves_open(folder: Path) -> None:
    data = {"kind": "file", "path": "x.npz", "key": "x"}
    target = {"file": {"path": "x.npz", "key": "labels"}}
    network = build(loaded(folder, input=data, loss={"kind": "cross_entropy", "target": target}))
    assert network.spec.batch_size == network.problem.batch_size == 3
    assert network.problem.loss.saved()["target"].tolist() == [[[0, 1, 2]]] * network.spec.trials


def test_targets_beside_an_input_at_the_first_step_alone_are_those_of_their_own_steps(folder: Path) -> None:
    values = np.random.default_rng(0).standard_normal((3, 10, 3))
    np.save(folder / "y.npy", values)
    data = {"kind": "file", "path": "x.npz", "key": "x"}
    loss = {"kind": "mse", "at": [2, 4], "target": {"file": "y.npy"}}
    network = build(loaded(folder, input=data, loss=loss, input_at="first", trials=1))
    (found,) = network.problem.loss.saved()["target"]
    assert np.array_equal(found, values[:, [1, 3]].swapaxes(0, 1))


def test_mistakes_in_a_target_are_placed_at_its_keys(folder: Path) -> None:
    data = {"kind": "file", "path": "x.npz", "key": "x"}
    spec = loaded(folder, input=data, loss={"kind": "mse", "target": {"file": {"path": "x.npz", "key": "y"}}})
    with pytest.raises(SpecError) as error:
        build(spec)
    (problem,) = error.value.problems
    assert problem.path == "loss.target.file.key"
    assert problem.line > 0
