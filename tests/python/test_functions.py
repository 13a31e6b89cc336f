"""The functions of Python give what the command line prints: the same documents, from the same arguments."""

from __future__ import annotations

import copy
import json
import pickle
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from in_process import gradcli as command_line

import gradcli
from gradcli.results.result import Result

CHECKPOINT = Path(__file__).parents[2] / "examples" / "checkpoints" / "digits-lstm.safetensors"
SIZES = {"seq_len": 12, "hidden_size": 5, "input_size": 3, "batch_size": 4, "trials": 2, "seed": 7}
SIZES_OF_LINE = [f"--{name.replace('_', '-')}={value}" for name, value in SIZES.items()]

#: A command line, and the call that says the same.
CALLS: dict[str, tuple[list[str], Callable[[], Result]]] = {
    "simulate": (
        ["simulate", "lstm", *SIZES_OF_LINE, "--set", "init.b_f=2", "--clip", "norm=0.1", "--clip", "step_value=1e-3"],
        lambda: gradcli.simulate("lstm", **SIZES, set={"init.b_f": 2}, clip=["norm=0.1", {"step_value": 1e-3}]),
    ),
    "simulate at every step": (
        ["simulate", "gru", *SIZES_OF_LINE, "--set", "loss.at=every"],
        lambda: gradcli.simulate("gru", **SIZES, set=["loss.at=every"]),
    ),
    "compare": (
        ["compare", "lstm", "rnn", *SIZES_OF_LINE, "--match", "params"],
        lambda: gradcli.compare(["lstm", "rnn"], **SIZES, match="params"),
    ),
    "jacobian": (
        ["jacobian", "rnn", *SIZES_OF_LINE, "--exponents", "all", "--burn-in", "2"],
        lambda: gradcli.jacobian("rnn", **SIZES, exponents="all", burn_in=2),
    ),
    "paths": (
        ["paths", "lstm", *SIZES_OF_LINE, "--distance", "3", "--from", "h", "--to", "c"],
        lambda: gradcli.paths("lstm", **SIZES, distance=3, start="h", end="c"),
    ),
    "contributions": (
        ["contributions", "gru", *SIZES_OF_LINE, "--set", "num_layers=2", "--layer", "0"],
        lambda: gradcli.contributions("gru", **SIZES, set={"num_layers": 2}, layer=0),
    ),
    "gates": (["gates", "lstm", *SIZES_OF_LINE], lambda: gradcli.gates("lstm", **SIZES)),
    "inspect": (["inspect", str(CHECKPOINT)], lambda: gradcli.inspect(CHECKPOINT)),
}
each_call = pytest.mark.parametrize(("line", "call"), CALLS.values(), ids=CALLS)


@pytest.fixture(scope="module")
def results() -> Mapping[str, Result]:
    return {name: call() for name, (_, call) in CALLS.items()}


@each_call
def test_the_document_is_the_json_of_the_command_line(line: list[str], call: Callable[[], Result]) -> None:
    finished = command_line(*line, "--format", "json")
    assert finished.code == 0, finished.stderr
    assert json.loads(json.dumps(call().to_dict(), allow_nan=False)) == finished.report()


@pytest.mark.parametrize("format", ["table", "csv", "markdown"])
@each_call
def test_the_text_is_that_of_the_command_line(line: list[str], call: Callable[[], Result], format: str) -> None:  # noqa: A002
    finished = command_line(*line, "--format", format)
    assert call().to_text(width=None, format=format) == finished.stdout


@pytest.mark.parametrize("name", CALLS)
def test_a_second_call_gives_the_same(name: str, results: Mapping[str, Result]) -> None:
    assert CALLS[name][1]().to_dict() == results[name].to_dict()


@pytest.mark.parametrize("name", CALLS)
def test_a_document_is_plain_data(name: str, results: Mapping[str, Result]) -> None:
    def check(value: Any) -> None:
        assert type(value) in (dict, list, str, int, float, bool, type(None)), value
        for entry in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
            check(entry)

    check(results[name].to_dict())


@pytest.mark.parametrize("name", CALLS)
def test_attributes_are_the_keys_of_the_json(name: str, results: Mapping[str, Result]) -> None:
    result = results[name]
    document = result.to_dict()
    run = document["runs"][0] if document["command"] in ("simulate", "gates", "jacobian") else document
    for key in set(run) - {"schema_version", "command", "gradcli_version", "engine", "runs"}:
        assert hasattr(result, key), key


@pytest.mark.parametrize("name", CALLS)
@pytest.mark.parametrize("copied", [lambda one: pickle.loads(pickle.dumps(one)), copy.deepcopy, copy.copy])
def test_a_copy_is_as_good(name: str, copied: Callable[[Result], Result], results: Mapping[str, Result]) -> None:
    result = results[name]
    twin = copied(result)
    assert twin.to_dict() == result.to_dict()
    assert twin.to_text(full=True) == result.to_text(full=True)
    assert twin.to_text(format="csv") == result.to_text(format="csv")
    assert repr(twin) == repr(result)
    assert twin.pictures == result.pictures
    for picture in set(result.pictures) - {"matrix"}:
        assert twin.picture(picture).title == result.picture(picture).title


def test_a_copy_says_which_picture_it_has_not_kept(results: Mapping[str, Result]) -> None:
    twin = copy.deepcopy(results["simulate"])
    with pytest.raises(gradcli.GradcliError, match="the picture 'matrix' takes a run of its own"):
        twin.picture("matrix")


def test_a_pickled_result_takes_no_arrays_of_the_run_with_it() -> None:
    inputs = np.zeros((4, 2000, 50))
    result = gradcli.simulate("rnn", inputs=inputs, hidden_size=3, trials=1, remedies=False)
    assert len(pickle.dumps(result)) < inputs.nbytes / 4


def test_a_result_in_a_line() -> None:
    assert repr(gradcli.simulate("lstm", seq_len=100)) == "<Simulation lstm: vanishing, horizon 14>"
    both = gradcli.compare(["lstm", "indrnn"], seq_len=100)
    horizons = [run.verdict.horizon.threshold for run in both.runs]
    assert repr(both).startswith(f"<Comparison lstm: vanishing, horizon {horizons[0]}; indrnn: ")
    assert repr(both.runs[0]) == "<Run lstm: vanishing, horizon 14>"


@pytest.mark.parametrize(
    ("changes", "kind"),
    [
        ({"init.W_hh": 0, "activation": "identity"}, "dead"),
        ({"init.W_hh": {"orthogonal": {"gain": 1e9}}, "activation": "identity", "seq_len": 60}, "nonfinite"),
    ],
)
def test_a_line_tells_no_horizon_where_there_is_no_gradient(changes: dict[str, Any], kind: str) -> None:
    assert repr(gradcli.simulate("rnn", set=changes)) == f"<Simulation rnn: {kind}>"


def test_str_is_the_screen(results: Mapping[str, Result]) -> None:
    assert str(results["simulate"]) == results["simulate"].to_text(width=80)


def test_what_is_saved_is_what_the_command_line_writes(tmp_path: Path, results: Mapping[str, Result]) -> None:
    line = CALLS["simulate"][0]
    for ending in (".json", ".csv"):
        assert command_line(*line, "-o", tmp_path / f"line{ending}").code == 0
        results["simulate"].save(tmp_path / f"python{ending}")
        assert (tmp_path / f"python{ending}").read_bytes() == (tmp_path / f"line{ending}").read_bytes()


def test_arrays_that_are_saved_are_those_of_the_command_line(tmp_path: Path) -> None:
    assert command_line(*CALLS["simulate"][0], "--save", tmp_path / "line.npz").code == 0
    result = gradcli.simulate("lstm", **SIZES, set={"init.b_f": 2}, save=tmp_path / "save.npz", record=True)
    result.save(tmp_path / "python.npz")
    with np.load(tmp_path / "line.npz") as line:
        for name in ("save.npz", "python.npz"):
            with np.load(tmp_path / name) as python:
                assert set(python) == set(line) == set(result.arrays)
                assert all(np.array_equal(python[key], line[key]) for key in line)


def test_a_picture_is_saved_by_its_ending(tmp_path: Path, results: Mapping[str, Result]) -> None:
    pytest.importorskip("matplotlib")
    results["gates"].save(tmp_path / "gates.svg")
    assert b"<svg" in (tmp_path / "gates.svg").read_bytes()


def test_a_curve_makes_a_data_frame(results: Mapping[str, Result]) -> None:
    curve: Any = results["simulate"].curve  # type: ignore[attr-defined]
    frame = pd.DataFrame({"log10_norm": curve.log10_norm, "log10_ratio": curve.log10_ratio}, index=curve.distance)
    assert list(frame.index) == list(range(13))
    assert frame["log10_ratio"][1] == 0.0


def test_a_mapping_is_a_spec(tmp_path: Path) -> None:
    spec = {"cell": "rnn", "hidden_size": 2, "seq_len": 9, "params": {"W_hh": np.array([[0.9, 1.0], [0.0, 0.9]])}}
    text = json.dumps({**spec, "params": {"W_hh": [[0.9, 1.0], [0.0, 0.9]]}})
    (tmp_path / "rnn.yaml").write_text(text)
    by_file = gradcli.simulate(tmp_path / "rnn.yaml").to_dict()
    assert gradcli.simulate(spec).to_dict() == by_file


def test_the_resolved_spec_gives_the_same_run(results: Mapping[str, Result]) -> None:
    spec = results["simulate"].to_dict()["runs"][0]["spec"]
    assert gradcli.simulate(spec).to_dict()["runs"][0] == results["simulate"].to_dict()["runs"][0]
