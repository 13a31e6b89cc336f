"""`gradcli compare`: what bare names borrow, labels, equal parameter counts, and the ranking."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from measured import SMALL, loaded, table_of

from gradcli.commands.compare import compare
from gradcli.engine.run import Engine
from gradcli.errors import ResourceError, SpecError, UsageError
from gradcli.prepare import limits
from gradcli.prepare.arms import SHARED
from gradcli.prepare.build import build
from gradcli.results.arms import run_on
from gradcli.results.result import Result
from gradcli.spec.models import Spec
from gradcli.spec.reader import LoadedSpec, load_spec

OVERFLOW: dict[str, Any] = {"activation": "identity", "init": {"W_hh": {"identity": {"gain": 1e300}}}}
EXPLODING: dict[str, Any] = {"activation": "identity", "init": {"W_hh": {"orthogonal": {"gain": 3.0}}}}
LEVEL: dict[str, Any] = {"activation": "identity", "init": {"W_hh": "orthogonal"}}
FALLING: dict[str, Any] = {"activation": "identity", "init": {"W_hh": {"orthogonal": {"gain": 0.5}}}}
DEAD: dict[str, Any] = {"activation": "relu", "init": {"b_h": -100.0}}


def arm(label: str, cell: str = "rnn", **fields: object) -> LoadedSpec:
    return replace(loaded(cell, **{**SMALL, **fields}), label=label)


def ranking(result: Result) -> list[str]:
    return [place["label"] for place in result.report.data["ranking"]]


def spec_of(result: Result, label: str) -> dict[str, Any]:
    (spec,) = (run["spec"] for run in result.report.data["runs"] if run["label"] == label)
    return dict(spec)


def written(folder: Path, name: str, **fields: object) -> LoadedSpec:
    """Return a spec that was read from a file."""
    file = folder / f"{name}.yaml"
    file.write_text(json.dumps({"cell": "rnn", **SMALL, **fields}))
    return load_spec(str(file))


def test_bare_names_have_the_input_and_the_targets_of_the_first_file(tmp_path: Path) -> None:
    first = written(tmp_path, "a", input={"kind": "sine"}, seed=7, loss={"kind": "mse", "at": "every"})
    later = written(tmp_path, "d", input={"kind": "zeros"}, seed=8)
    arrays = compare([load_spec("lstm", options={"hidden_size": 5}), first, later, arm("c", "gru")], record=True).arrays
    for label in ("lstm", "c"):
        np.testing.assert_array_equal(arrays[f"{label}/x"], arrays["a/x"])
        np.testing.assert_array_equal(arrays[f"{label}/target"], arrays["a/target"])
        np.testing.assert_array_equal(arrays[f"{label}/at"], arrays["a/at"])
    assert not arrays["d/x"].any()


def test_a_note_tells_what_was_borrowed_and_only_that(tmp_path: Path) -> None:
    result = compare([written(tmp_path, "a", seed=7, trials=2), arm("b", "lstm", trials=2)])
    assert result.report.data["notes"] == ["b: seed as in a"]
    assert "b: seed as in a" in table_of(result.report)


def test_what_differs_is_told_with_the_arms_that_have_it(tmp_path: Path) -> None:
    arms = [
        written(tmp_path, "raw", input={"kind": "normal", "std": 100.0}),
        written(tmp_path, "still", input={"kind": "zeros"}, seq_len=7, seed=9),
        written(tmp_path, "normalised", input={"kind": "normal"}, loss={"kind": "sum"}, clip=[]),
    ]
    report = compare(arms).report
    told = [
        "input: normal, std 100 (raw); zeros (still); normal, std 1 (normalised)",
        "T: 12 (raw, normalised); 7 (still)",
        "seed: 0 (raw, normalised); 9 (still)",
        "loss: mse, at last (raw, still); sum, at last (normalised)",
        "clip: norm 1 (raw, still); none (normalised)",
    ]
    assert report.data["notes"] == told
    assert table_of(report, width=None).splitlines()[:6] == ["compare   3 trials x 2 sequences", *told]


def test_arms_of_different_lengths_are_side_by_side_as_far_as_each_goes(tmp_path: Path) -> None:
    arms = [written(tmp_path, "long", **FALLING, seq_len=14), written(tmp_path, "short", **LEVEL, seq_len=8)]
    result = compare(arms)
    assert ranking(result) == ["long", "short"], "10 steps back, and 8, which is as far as it goes"
    lines = table_of(result.report.in_full()).splitlines()
    rows = {
        row[0]: row for line in lines[lines.index("log10 of the gradient's mean norm") + 2 :] if (row := line.split())
    }
    assert len(rows["8"]) == 3
    assert len(rows["9"]) == len(rows["14"]) == 2
    assert "The gradient reaches farthest in long: 10 steps back." in lines
    assert [len(run["curve"]["distance"]) for run in result.report.data["runs"]] == [15, 9]


def test_files_of_one_name_in_two_folders_are_two_inputs(tmp_path: Path) -> None:
    arms = []
    for folder, value in (("a", 1.0), ("b", 2.0)):
        (tmp_path / folder).mkdir()
        np.save(tmp_path / folder / "x.npy", np.full((2, 12, 3), value))
        arms.append(written(tmp_path / folder, "spec", input={"kind": "file", "path": "x.npy"}))
    (note,) = compare(arms).report.data["notes"]
    assert note == f"input: file, path {tmp_path}/a/x.npy (spec); file, path {tmp_path}/b/x.npy (spec-2)"


def test_what_is_shared_and_what_is_an_arms_own(tmp_path: Path) -> None:
    own = {
        "cell",
        "activation",
        "constants",
        "hidden_size",
        "num_layers",
        "bidirectional",
        "tied",
        "input_at",
        "init",
        "params",
        "weights",
        "initial_states",
        "expect",
    }
    assert set(SHARED) | own == set(Spec.model_fields)
    assert set(SHARED).isdisjoint(own)
    first = written(tmp_path, "a", learning_rate=0.5, clip=[{"value": 2.0}], thresholds={"vanishing": 0.25})
    result = compare([first, arm("b", "lstm", hidden_size=9, num_layers=2, h_0=0.5, clip=[{"norm": 1.0}])])
    a, b = spec_of(result, "a"), spec_of(result, "b")
    assert {name: b.get(name) for name in SHARED} == {name: a.get(name) for name in SHARED}
    assert (b["hidden_size"], b["num_layers"], b["h_0"]) == (9, 2, {"values": 0.5})
    assert set(run_on(build(first))) == set(SHARED), "every field that may differ is compared"


def test_equal_names_are_numbered() -> None:
    result = compare([arm("x"), arm("y", "gru"), arm("x", seed=1), arm("x", "lstm")])
    assert [label for label, _ in result.verdicts] == ["x", "y", "x-2", "x-3"]
    assert result.report.data["notes"] == ["seed: 0 (x, y, x-3); 1 (x-2)"]


def test_a_number_does_not_make_two_names_equal() -> None:
    result = compare([arm("x"), arm("x-2", "gru"), arm("x", "lstm")])
    labels = [label for label, _ in result.verdicts]
    assert len(set(labels)) == 3
    assert labels[:2] == ["x", "x-2"]


@pytest.mark.parametrize("layers", [1, 2])
def test_matched_arms_have_about_as_many_parameters(layers: int) -> None:
    cells = ["lstm", "rnn", "gru", "mgu", "lstm-peephole"]
    arms = [arm(cell, cell, hidden_size=24, num_layers=layers, seq_len=3) for cell in cells]
    result = compare(arms, match="params")
    counts = {run["label"]: run["parameter_count"] for run in result.report.data["runs"]}
    assert all(count == pytest.approx(counts["lstm"], rel=0.04) for count in counts.values())
    assert spec_of(result, "lstm")["hidden_size"] == 24
    sizes = {label: spec_of(result, label)["hidden_size"] for label in cells}
    assert sizes["rnn"] > sizes["mgu"] > sizes["gru"] > sizes["lstm"] >= sizes["lstm-peephole"]
    text = table_of(result.report, width=None)
    assert "hidden sizes chosen for about as many parameters as lstm has" in text
    rows = {line.split()[1]: line.split() for line in text.splitlines() if line.strip()[:1] in "12345" and "│" in line}
    assert {label: int(row[-2]) for label, row in rows.items()} == sizes


def test_a_matched_size_is_the_nearest_there_is() -> None:
    arms = [arm("a", hidden_size=7, seq_len=2), arm("b", "gru", seq_len=2)]
    (wanted, found) = (run["parameter_count"] for run in compare(arms, match="params").report.data["runs"])

    def count(size: int) -> int:
        run = compare([arms[0], arm("b", "gru", hidden_size=size, seq_len=2)]).report.data["runs"][1]
        return int(run["parameter_count"])

    assert abs(found - wanted) == min(abs(count(size) - wanted) for size in range(1, 9))


def test_the_farthest_comes_first_and_what_has_no_gradient_last() -> None:
    fields: dict[str, Any] = {"seq_len": 20}
    result = compare(
        [
            arm("overflow", **fields, **OVERFLOW),
            arm("dead", **fields, **DEAD),
            arm("falling", **fields, **FALLING),
            arm("exploding", **fields, **EXPLODING),
            arm("level", **fields, **LEVEL),
        ]
    )
    assert dict(result.verdicts) == {
        "overflow": "nonfinite",
        "dead": "dead",
        "falling": "vanishing",
        "exploding": "exploding",
        "level": "stable",
    }
    assert ranking(result) == ["level", "exploding", "falling", "dead", "overflow"]
    places = {place["label"]: place for place in result.report.data["ranking"]}
    assert [place["rank"] for place in result.report.data["ranking"]] == [1, 2, 3, 4, 5]
    assert {label for label, place in places.items() if place["beyond_sequence"]} == {"level", "exploding"}
    assert {label: place["horizon"] for label, place in places.items()} == {
        "level": None,
        "exploding": None,
        "falling": 10,
        "dead": 0,
        "overflow": None,
    }
    text = table_of(result.report)
    assert "The gradient reaches farthest in level and exploding (exploding): 20 steps back" in text
    assert "NONFINITE: the forward pass overflows at step 3, layer0" in " ".join(text.split())


def test_arms_without_any_gradient() -> None:
    result = compare([arm("a", **OVERFLOW), arm("b", **OVERFLOW)])
    assert "No cell has a gradient" in table_of(result.report)
    assert "log10 of the gradient's mean norm" not in table_of(result.report)


def test_a_mistake_in_what_is_borrowed_is_placed_in_the_file(tmp_path: Path) -> None:
    first = tmp_path / "first.yaml"
    first.write_text("cell: rnn\nhidden_size: 2\nloss: {kind: projection, vector: [1, 0]}\n")
    with pytest.raises(SpecError) as caught:
        compare([load_spec("lstm", options={"hidden_size": 3}), load_spec(str(first))])
    assert str(caught.value).splitlines() == [
        f"{first}:3:34: loss.vector: for lstm, which takes its loss from here: expected a list of 3 numbers; got a"
        " list of 2 numbers",
    ]


def test_a_mistake_in_the_file_is_its_own_whoever_borrows_it(tmp_path: Path) -> None:
    first = tmp_path / "first.yaml"
    first.write_text("cell: rnn\nhidden_size: 2\nloss: {kind: projection, vector: [1, 0, 0]}\n")
    with pytest.raises(SpecError) as alone:
        build(load_spec(str(first)))
    with pytest.raises(SpecError) as caught:
        compare([load_spec("lstm", options={"hidden_size": 3}), load_spec(str(first))])
    assert str(caught.value) == str(alone.value)


def test_one_spec_is_not_enough() -> None:
    with pytest.raises(UsageError, match="at least two specs"):
        compare([arm("a")])


def test_an_unknown_match_is_refused() -> None:
    with pytest.raises(UsageError, match=r"match: expected 'params'; got 'size'"):
        compare([arm("a"), arm("b")], match="size")


def test_recorded_arms_share_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    arms = [arm(f"a{i}", seq_len=2000) for i in range(4)]
    monkeypatch.setattr(limits, "free_memory", lambda: 2**24)
    compare(arms[:2])
    with pytest.raises(ResourceError, match="shared by 4 runs"):
        compare(arms, record=True)


@pytest.mark.parametrize("width", [80, 40])
@pytest.mark.parametrize("count", [2, 3, 4, 5])
def test_the_tables_fit_the_screen(width: int, count: int) -> None:
    arms = [arm("lstm", "lstm"), arm("exploding-rnn", **EXPLODING), arm("gru", "gru"), arm("dead", **DEAD)]
    arms.append(arm("overflow", **OVERFLOW))
    text = table_of(compare(arms[:count]).report, width)
    assert max(map(len, text.splitlines())) <= width
    assert "nan" not in text.lower()
    assert "None" not in text
    for label in ("lstm", "exploding-rnn", "gru", "dead", "overflow")[:count]:
        assert any(line.split()[1:2] == [label] for line in text.splitlines()), f"{label} is not in the ranking"


def test_a_narrow_screen_keeps_the_curve_of_the_farthest() -> None:
    arms = [arm(label, **FALLING, seq_len=20) for label in ("first-label", "second-label", "third-label")]
    arms.append(arm("reaches-far", **LEVEL, seq_len=20))
    lines = table_of(compare(arms).report.in_full(), width=40).splitlines()
    header = lines[lines.index("log10 of the gradient's mean norm") + 1]
    assert "reaches-far" in header


def test_a_mistake_in_an_option_names_the_arm_that_it_does_not_suit() -> None:
    arms = [load_spec(name, overrides=["init.b_f=1"]) for name in ("lstm", "rnn")]
    with pytest.raises(SpecError) as error:
        compare(arms)
    assert str(error.value).startswith("--set init.b_f=1: init.b_f: for rnn: no parameter matches 'b_f'; parameters: ")


def test_arms_of_the_same_cell_share_a_run(monkeypatch: pytest.MonkeyPatch) -> None:
    arms = [arm("a"), arm("b", "lstm"), arm("c", seed=9), arm("d", init={"W_hh": "orthogonal"})]
    arms += [arm("e", tied=False), arm("f", input={"kind": "zeros"}), arm("g", loss={"kind": "mse", "target": 0})]
    alone = [compare([a, a]).report.data["runs"][0]["curve"]["log10_norm"] for a in (arms[0], arms[3])]
    shared: list[int] = []
    monkeypatch.setattr(
        "gradcli.diagnostics.side_by_side.Engine",
        lambda problem, **options: shared.append(problem.trials) or Engine(problem, **options),
    )
    runs = compare(arms).report.data["runs"]
    assert shared == [3 * SMALL["trials"]], "the tied rnn arms on the same input with the same loss"
    for found, expected in zip((runs[0], runs[3]), alone, strict=True):
        np.testing.assert_allclose(list(found["curve"]["log10_norm"]), list(expected), rtol=1e-12)


def test_where_a_shared_run_overflows_each_arm_tells_of_its_own() -> None:
    kinds = [run["verdict"]["kind"] for run in compare([arm("a"), arm("b", **OVERFLOW)]).report.data["runs"]]
    alone = compare([arm("a"), arm("c", "lstm")]).report.data["runs"][0]["verdict"]["kind"]
    assert kinds == [alone, "nonfinite"]
