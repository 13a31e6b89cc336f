"""The JSON and the CSV of `simulate` and `compare`, key by key, and the spec in them that gives the same run again."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import Any, NoReturn

import pytest
import yaml
from measured import SCALAR, SMALL, loaded, measured

from gradcli.diagnostics.measure import measure
from gradcli.diagnostics.remedies import find_remedies
from gradcli.formats import render
from gradcli.prepare.build import build
from gradcli.results.compare import comparison
from gradcli.results.model import Report
from gradcli.results.simulate import simulation
from gradcli.spec.reader import load_spec

NUMBER = (int, float, type(None))
WHOLE = (int, type(None))
CURVE = {
    "distance": [int],
    **{f"log10_norm{of}": [NUMBER] for of in ("", "_p10", "_p90", "_mean")},
    "log10_ratio": [NUMBER],
}
HORIZON = {"threshold": WHOLE, "float32": WHOLE}
VERDICT = {
    "kind": str,
    "pattern": str,
    "rate_per_step": NUMBER,
    "half_life": NUMBER,
    "halved_at": WHOLE,
    "horizon": HORIZON,
    "forecast": WHOLE,
    "peak": {"distance": int, "log10_ratio": NUMBER},
    "end": {"log10_ratio": NUMBER},
    "first_step": {"log10_ratio": NUMBER},
    "exponent": NUMBER,
    "exponent_from": (str, type(None)),
    "typical": type(None),
    "shares": type(None),
    "reason": str,
}
#: What a verdict on sequences adds to one on a curve.
OF_SEQUENCES = {
    "typical": {"kind": str, "rate_per_step": NUMBER, "half_life": NUMBER, "horizon": HORIZON},
    "shares": dict.fromkeys(("stable", "vanishing", "transient", "exploding", "dead"), float),
}
CLIP = {
    "method": str,
    "threshold": float,
    "log10_norm_before": NUMBER,
    "log10_norm_after": NUMBER,
    "scale": NUMBER,
    "cosine": NUMBER,
    "fraction_clipped": float,
    "loss_before": NUMBER,
    "loss_after_unclipped": NUMBER,
    "loss_after_clipped": NUMBER,
}
DISTANCE = (int, type(None))
FLOAT32 = {
    "zero_from": DISTANCE,
    "nonfinite_from": DISTANCE,
    "loss": str,
    "gradient": str,
    "norm": str,
    "parameters": dict,
}
HEADER = "label,distance,log10_norm,log10_norm_p10,log10_norm_p90,log10_norm_mean,log10_ratio"


def check(value: Any, form: Any, path: str = "") -> None:
    """Compare a value with its form: a type or several, a dict of all its keys, or a list of one form."""
    if isinstance(form, dict):
        assert isinstance(value, dict), path
        assert value.keys() == form.keys(), path
        for key, inner in form.items():
            check(value[key], inner, f"{path}.{key}")
    elif isinstance(form, list):
        assert isinstance(value, list), path
        for index, entry in enumerate(value):
            check(entry, form[0], f"{path}[{index}]")
    else:
        assert isinstance(value, form), f"{path}: {value!r}"
        assert not isinstance(value, bool) or form in (bool, object), path


BEFORE_AND_AFTER = {"before": NUMBER, "after": NUMBER}
REMEDY = {
    "name": str,
    "set": [str],
    "horizon": BEFORE_AND_AFTER,
    "log10_ratio": BEFORE_AND_AFTER,
    "verdict": VERDICT | OF_SEQUENCES,
    "code": {"torch": (str, type(None)), "keras": (str, type(None))},
}


def form_of(run: dict[str, Any]) -> dict[str, Any]:
    """Return the form of a run: its states, parameters and clipping methods are its own."""
    curve = None if run["status"] == "nonfinite" else {**CURVE, "zero_from": (int, type(None)), "layers": [str]}
    return {
        "label": str,
        "cell": str,
        "weights": (dict, type(None)),
        "status": str,
        "seq_len": int,
        "parameter_count": int,
        "spec": dict.fromkeys(run["spec"], object),
        "notes": [str],
        "verdict": VERDICT | (OF_SEQUENCES if curve else {}),
        "loss": NUMBER,
        "curve": curve or type(None),
        "total": {"log10_norm": [NUMBER], "log10_norm_mean": [NUMBER]} if run["total"] else type(None),
        "states": {
            name: {"log10_norm": [NUMBER], "log10_norm_mean": [NUMBER], "verdict": VERDICT} for name in run["states"]
        },
        "parameters": {name: {"shape": [int], "copies": int, "log10_norm": NUMBER} for name in run["parameters"]},
        "predictions": [dict],
        "clip": [CLIP],
        "float32": FLOAT32 if run["float32"] else type(None),
        "remedies": [REMEDY],
    }


def not_json(constant: str) -> NoReturn:
    raise AssertionError(f"{constant} in JSON")


def data_of(report: Report) -> dict[str, Any]:
    """Return the data of a report as a program reads it."""
    text = render(report, "json", width=None, color=False, unicode=False)
    found: dict[str, Any] = json.loads(text, parse_constant=not_json)
    return found


def run_of(cell: Any = "rnn", **fields: object) -> dict[str, Any]:
    """Return the one run in the JSON of a simulation; its form is as published."""
    found = measured(cell, **fields)
    data = data_of(simulation(found, find_remedies(found)).report)
    check(data, {"schema_version": int, "command": str, "gradcli_version": str, "engine": str, "runs": [dict]})
    assert (data["schema_version"], data["command"], len(data["runs"])) == (1, "simulate", 1)
    (run,) = data["runs"]
    step_clips = [clip for clip in run["clip"] if clip["method"].startswith("step_")]
    for clip in step_clips:
        check(clip.pop("curve"), CURVE)
    check(run, form_of(run))
    return dict(run)


def test_a_run_in_full() -> None:
    run = run_of(
        "lstm", **SMALL, num_layers=2, clip=[{"norm": 0.1}, {"value": 1}, {"step_norm": 0.1}, {"step_value": 9}]
    )
    assert (run["label"], run["cell"], run["status"], run["seq_len"]) == ("lstm", "lstm", "ok", 12)
    assert run["curve"]["distance"] == list(range(13))
    assert all(len(run["curve"][key]) == 13 for key in CURVE)
    assert list(run["states"]) == ["layer0.c", "layer0.h", "layer1.c", "layer1.h"]
    assert all(len(state["log10_norm"]) == 13 for state in run["states"].values())
    assert run["parameters"]["layer0.W_xi"]["shape"] == [5, 3]
    assert run["parameters"]["layer1.W_xi"]["shape"] == [5, 5]
    assert run["parameters"]["layer1.b_o"]["shape"] == [5]
    assert run["parameter_count"] == 4 * (5 * 3 + 5 * 5 + 2 * 5) + 4 * (5 * 5 + 5 * 5 + 2 * 5)
    assert [(clip["method"], clip["threshold"]) for clip in run["clip"]] == [
        ("norm", 0.1),
        ("value", 1.0),
        ("step_norm", 0.1),
        ("step_value", 9.0),
    ]


def test_quantiles_are_in_order() -> None:
    curve = run_of("gru", **SMALL)["curve"]
    for low, middle, high in zip(curve["log10_norm_p10"], curve["log10_norm"], curve["log10_norm_p90"], strict=True):
        assert low < middle < high


def test_the_readout_is_among_the_parameters_but_not_counted() -> None:
    run = run_of("rnn", **SMALL, loss={"kind": "cross_entropy", "classes": 7})
    assert run["parameters"]["readout.W_hy"]["shape"] == [7, 5]
    assert run["parameters"]["readout.b_y"]["shape"] == [7]
    assert run["parameter_count"] == 5 * 3 + 5 * 5 + 2 * 5


def test_exact_zeros_are_null() -> None:
    run = run_of("rnn", **SMALL, activation="relu", init={"b_h": -100.0})
    assert run["verdict"]["kind"] == "dead"
    assert run["curve"]["zero_from"] == 1
    assert run["curve"]["log10_norm"][1:] == [None] * 12
    assert isinstance(run["curve"]["log10_norm"][0], float)
    assert run["parameters"]["layer0.W_hh"]["log10_norm"] is None
    (clip,) = run["clip"]
    assert clip["log10_norm_before"] is clip["scale"] is clip["cosine"] is None


def test_an_overflow_leaves_nulls() -> None:
    run = run_of("rnn", **SMALL, activation="identity", init={"W_hh": {"identity": {"gain": 1e200}}})
    assert (run["status"], run["verdict"]["kind"]) == ("nonfinite", "nonfinite")
    assert run["curve"] is run["loss"] is None
    assert (run["states"], run["clip"]) == ({}, [])
    assert "layer0" in run["verdict"]["reason"]
    assert run["verdict"]["horizon"] == {"threshold": None, "float32": None}


def test_losses_that_are_not_finite_are_null() -> None:
    fields = {"hidden_size": 1, "trials": 1, "batch_size": 1, "seq_len": 3, "loss": {"kind": "mse", "target": "zeros"}}
    run = run_of(SCALAR, **fields, params={"a": 1.0, "b": 1e200})
    assert run["loss"] is None
    assert run["clip"][0]["loss_before"] is None
    assert run["curve"]["log10_norm"] == pytest.approx([200.477] * 4, abs=1e-3)


def test_a_curve_far_beyond_floats() -> None:
    run = run_of(SCALAR, hidden_size=1, trials=1, batch_size=1, seq_len=2000, params={"a": 1e-9, "b": 1.0})
    norms = run["curve"]["log10_norm"]
    assert norms[-1] - norms[0] == pytest.approx(-18_000, rel=1e-12)


def test_a_run_in_float32_tells_what_training_would_see() -> None:
    assert run_of(**SMALL)["float32"] is None
    seen = run_of(**SMALL, dtype="float32")["float32"]
    assert (seen["zero_from"], seen["nonfinite_from"], seen["norm"]) == (None, None, "finite")
    assert set(seen["parameters"]) == {"layer0.W_xh", "layer0.W_hh", "layer0.b_h"}


def test_a_comparison() -> None:
    arms = [measured("lstm", **SMALL), measured("rnn", **SMALL, activation="relu", init={"b_h": -100.0})]
    data = data_of(comparison(arms, ["a note"]).report)
    check(
        data,
        {
            "schema_version": int,
            "command": str,
            "gradcli_version": str,
            "engine": str,
            "runs": [dict],
            "ranking": [{"rank": int, "label": str, "horizon": (int, type(None)), "beyond_sequence": bool}],
            "notes": [str],
            "weights": dict,
        },
    )
    for run in data["runs"]:
        check(run, {key: form for key, form in form_of(run).items() if key != "remedies"})
    assert data["command"] == "compare"
    assert [run["label"] for run in data["runs"]] == ["lstm", "rnn"]
    assert data["notes"] == ["a note"]
    assert data["ranking"][1] == {"rank": 2, "label": "rnn", "horizon": 0, "beyond_sequence": False}


def rows_of(report: Report) -> list[dict[str, str]]:
    text = render(report, "csv", width=None, color=False, unicode=False)
    assert text.split("\n")[0] == HEADER
    return list(csv.DictReader(io.StringIO(text)))


def test_the_csv_has_every_digit_of_the_json() -> None:
    arms = [measured("lstm", **SMALL), measured("rnn", **SMALL, activation="relu", init={"b_h": -100.0})]
    report = comparison(arms, []).report
    rows = rows_of(report)
    assert len(rows) == 2 * 13
    for run in data_of(report)["runs"]:
        own = [row for row in rows if row["label"] == run["label"]]
        assert [int(row["distance"]) for row in own] == run["curve"]["distance"]
        for key in ("log10_norm", "log10_norm_p10", "log10_norm_p90", "log10_norm_mean"):
            assert [float(row[key]) if row[key] else None for row in own] == run["curve"][key]
        mean = run["curve"]["log10_norm_mean"]
        start = mean[0] if mean[1] is None else mean[1]
        expected = [None if norm is None else norm - start for norm in mean]
        assert [float(row["log10_ratio"]) if row["log10_ratio"] else None for row in own] == expected


def test_the_csv_can_be_asked_for_twice() -> None:
    report = simulation(measured(**SMALL)).report
    assert rows_of(report) == rows_of(report) != []


def test_an_overflow_has_no_rows() -> None:
    found = measured("rnn", **SMALL, activation="identity", init={"W_hh": {"identity": {"gain": 1e200}}})
    assert rows_of(simulation(found).report) == []


OWN_CELL = {
    "name": "own",
    "equations": "h[t] = phi(W @ h[t-1] + k * U @ x[t] + b)",
    "activation": "softsign",
    "constants": {"k": 0.5},
    "init": {"W": {"orthogonal": {"gain": 1.1}}, "b": 0.25},
    "title": "A cell of one's own",
}
SPECS: dict[str, dict[str, Any]] = {
    "defaults": {},
    "own cell": {"cell": OWN_CELL, "constants": {"k": 0.75}, "activation": "tanh"},
    "laws": {
        "cell": "lstm",
        "init": {"W_h*": "orthogonal", "W_x?": {"normal": {"std": 0.1}}, "b_f": {"chrono": 50}, "b_i": "chrono"},
        "h_0": {"normal": {"std": 0.5}},
        "c_0": [0.1, 0.2, 0.3, 0.4, 0.5],
        "dtype": "float32",
    },
    "exact values": {"params": {"W_hh": [[0.5 if i == j else 0.0 for j in range(5)] for i in range(5)]}},
    "symbols": {
        "input": {"kind": "one_hot"},
        "loss": {"kind": "cross_entropy", "at": "every"},
        "num_layers": 2,
        "init": {"layer1.W_hh": "identity"},
    },
    "projection": {"loss": {"kind": "projection", "at": [3, 12]}, "input": {"kind": "sine", "period": 7.5}},
    "settings": {
        "clip": [{"value": 0.5}, {"step_norm": 0.01}],
        "thresholds": {"vanishing": 0.5, "exploding": 2.0},
        "learning_rate": 1e-3,
        "seed": 2**40,
        "loss": {"kind": "mse", "target": {"normal": {"std": 2.0}}},
    },
    "files": {"input": {"kind": "file", "path": "x.csv"}},
    "columns": {"input": {"kind": "file", "path": "x.csv", "columns": [3, 1], "standardize": True, "reverse": True}},
    "text": {"input": {"kind": "text", "path": "x.csv"}, "loss": {"kind": "sum"}},
}


@pytest.mark.parametrize("name", SPECS)
def test_the_resolved_spec_gives_the_same_run_again(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "x.csv").write_text("".join(f"{0.1 * t},{t % 3},-1\n" for t in range(99)))
    spec = dict(SPECS[name])
    sizes = {
        key: value for key, value in SMALL.items() if key != "input_size" or name not in ("files", "columns", "text")
    }
    first = run_of(spec.pop("cell", "rnn"), **sizes, **spec)
    file = tmp_path / "again.yaml"
    file.write_text(yaml.safe_dump(first["spec"], sort_keys=False))
    second = run_of_file(file)
    assert second.pop("label") == "again"
    first.pop("label")
    assert second == first


def run_of_file(file: Path) -> dict[str, Any]:
    found = measure(build(load_spec(str(file))))
    data = data_of(simulation(found, find_remedies(found)).report)
    (run,) = data["runs"]
    for clip in run["clip"]:
        clip.pop("curve", None)
    return dict(run)


def test_the_resolved_spec_says_every_default() -> None:
    spec = run_of("rnn")["spec"]
    left_out = {"activation", "initial_states", "weights", "expect"}
    assert spec.keys() | left_out == set(type(loaded().spec).model_fields)
    assert spec["input"] == {"kind": "normal", "std": 1.0, "mean": 0.0}
    assert spec["loss"]["target"] == {"normal": {"std": 1.0, "mean": 0.0}}
