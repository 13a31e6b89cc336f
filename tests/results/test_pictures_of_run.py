"""The pictures of `simulate` and `compare`: their numbers are the JSON's, their words are derived once more."""

from __future__ import annotations

import math
import re
from typing import Any

import numpy as np
import pytest
from measured import SCALAR, SMALL, measured

from gradcli.diagnostics.gradient_matrix import measure_gradient_matrix
from gradcli.diagnostics.measure import Measured
from gradcli.formats.drawing import render_picture
from gradcli.results.declared import data_of
from gradcli.results.pictures import Array, BarChart, HeatMap, LineChart, Picture, Series
from gradcli.results.pictures_of_run import (
    MOST_SERIES,
    clip_picture,
    comparison_picture,
    curve_picture,
    matrix_picture,
    states_picture,
)
from gradcli.results.run import run_of

JORDAN = {"name": "jordan", "equations": "h[t] = W @ h[t-1] + b"}
SHIFT = {"name": "shift", "equations": "h[t] = W @ h[t-1]"}
BLOW = {"name": "blow", "equations": "h[t] = exp(h[t-1]) + W_x @ x[t]"}
ALONE = {"name": "alone", "equations": "h[t] = W_x @ x[t]"}
NOTHING = {"name": "nothing", "equations": "h[t] = 0 * (W_h @ h[t-1]) + b\n", "output": "h"}
PROJECTION = {"kind": "projection"}
JORDAN_BLOCK = {
    "hidden_size": 2,
    "seq_len": 100,
    "params": {"W": [[0.9, 1.0], [0.0, 0.9]], "b": [0.1, 0.1]},
    "loss": {"kind": "projection", "vector": [1.0, 0.0]},
}


def linear(factor: float, **fields: Any) -> Measured:
    return measured(SCALAR, hidden_size=2, params={"a": [factor] * 2}, loss=PROJECTION, **{**SMALL_LINEAR, **fields})


SMALL_LINEAR = {"seq_len": 20, "batch_size": 2, "trials": 2}

RUNS: dict[str, Any] = {
    "stable": lambda: linear(0.95),
    "stable and level": lambda: linear(1.0),
    "vanishing": lambda: linear(0.3),
    "exploding": lambda: linear(3.0),
    "transient": lambda: measured(JORDAN, **JORDAN_BLOCK),
    "dead": lambda: measured(SHIFT, hidden_size=4, seq_len=9, params={"W": np.eye(4, k=-1).tolist()}, loss=PROJECTION),
    "dead at once": lambda: measured(ALONE, **SMALL),
    "nonfinite": lambda: measured(BLOW, **SMALL),
    "one step": lambda: linear(0.5, seq_len=1),
    "one sequence": lambda: measured("gru", **{**SMALL, "batch_size": 1, "trials": 1}),
    "every step": lambda: measured("lstm", **SMALL, loss={"kind": "mse", "at": "every"}),
    "two layers": lambda: measured("lstm", **SMALL, num_layers=2),
    "two directions": lambda: measured("gru", **SMALL, bidirectional=True),
    "float32": lambda: measured("rnn", **{**SMALL, "seq_len": 150}, dtype="float32"),
    "clipped inside": lambda: measured("lstm", **SMALL, clip=[{"step_norm": 0.1}, {"norm": 0.5}, {"step_value": 0.01}]),
}


def run_data(run: Measured) -> Any:
    return data_of(run_of(run))


WORDS = {"stable": "reaches the beginning"}
NUMBER = r"([\d.]+(?:e[-+]?\d+)?|10\^-?[\d.]+)"


@pytest.fixture(scope="module")
def runs() -> dict[str, Measured]:
    return {name: make() for name, make in RUNS.items()}


def pictures(run: Measured) -> list[Picture]:
    found: list[Picture] = [curve_picture(run), states_picture(run), clip_picture(run)]
    if not run.network.problem.bidirectional:
        found.append(matrix_picture(run, measure_gradient_matrix(run.network)))
    return found


def logs(values: Any) -> Array:
    """Return log10 norms of the JSON; null is an exact zero."""
    return np.array([-np.inf if value is None else value for value in values])


def value(text: str) -> float:
    """Return log10 of a number as sentences have it."""
    return float(text.removeprefix("10^")) if text.startswith("10^") else math.log10(float(text))


def ratios_of(mean: Array) -> Array:
    """Return log10 of the norm relative to the second distance that has one, or the only one."""
    some = np.flatnonzero(np.isfinite(mean))
    return mean - mean[some[min(1, len(some) - 1)]] if some.size else mean


def check_title(title: str, label: str, kind: str, mean: Array) -> None:
    """Check each part of a title against the curve that it is about."""
    last, ratios = len(mean) - 1, ratios_of(mean)
    name, _, rest = title.partition(": ")
    assert name == label
    word, *parts = rest.split(", ")
    assert word == WORDS.get(kind, kind)
    for part in parts:
        if match := re.fullmatch(rf"a factor {NUMBER} a step", part):
            steps = np.diff(ratios[len(ratios) // 2 :])
            mean_step = float(np.mean(steps[np.isfinite(steps)]))
            assert 10.0 ** value(match[1]) == pytest.approx(10.0**mean_step, rel=0.05)
        elif match := re.fullmatch(r"horizon (\d+) of (\d+) steps?", part):
            horizon = max(d for d in range(last + 1) if ratios[d] >= -3 - 1e-9)
            assert (int(match[1]), int(match[2])) == (horizon, last)
        elif match := re.fullmatch(r"exactly zero from (\d+) steps? back", part):
            zero_from = int(match[1])
            assert np.isneginf(mean[zero_from:]).all()
            assert not np.isneginf(mean[zero_from - 1])
        elif part == "exactly zero at every distance":
            assert np.isneginf(mean).all()
        elif match := re.fullmatch(rf"at most {NUMBER} times its size (\d+) steps? back", part):
            assert int(match[2]) == int(np.argmax(ratios))
            assert value(match[1]) == pytest.approx(ratios.max(), abs=0.03)
        elif match := re.fullmatch(rf"{NUMBER} times its size (\d+) steps? back", part):
            assert int(match[2]) == last
            assert value(match[1]) == pytest.approx(ratios[-1], abs=0.06)
        elif match := re.fullmatch(rf"(\d+) steps? back (?:{NUMBER} of it is left|all of it is left)", part):
            assert int(match[1]) == last
            assert (value(match[2]) if match[2] else 0.0) == pytest.approx(ratios[-1], abs=0.03)
        else:
            match = re.fullmatch(rf"(\d+) steps? back it is {NUMBER} times as large", part)
            assert match, f"a part that no rule derives: {part}"
            assert value(match[2]) == pytest.approx(ratios[-1], abs=0.03)


@pytest.mark.parametrize("name", RUNS)
def test_the_title_says_what_the_curve_does(name: str, runs: dict[str, Measured]) -> None:
    run = runs[name]
    data = run_data(run)
    kind = name if name in ("stable", "vanishing", "exploding", "transient", "dead", "nonfinite") else run.verdict.kind
    assert run.verdict.kind == kind
    mean = np.array([]) if data["curve"] is None else logs(data["curve"]["log10_norm_mean"])
    for picture in pictures(run):
        check_title(picture.title, run.label, kind, mean)
        assert picture.description
        assert picture.subtitle.split("; ")
        assert "hidden" in picture.subtitle


@pytest.mark.parametrize("name", RUNS)
def test_every_picture_can_be_drawn(name: str, runs: dict[str, Measured]) -> None:
    for picture in pictures(runs[name]):
        assert render_picture(picture, ".svg")


def series_of(picture: Picture) -> dict[str, Series]:
    assert isinstance(picture, LineChart)
    return {one.label: one for one in picture.series}


@pytest.mark.parametrize("name", [name for name in RUNS if name != "nonfinite"])
def test_the_numbers_are_those_of_the_json(name: str, runs: dict[str, Measured]) -> None:
    run = runs[name]
    data, found = run_data(run), series_of(curve_picture(runs[name]))
    of = ", of the last loss alone" if data["total"] else ""
    curve = data["curve"]
    if run.network.spec.trials * run.network.spec.batch_size == 1:
        assert list(found) == ["norm"]
        np.testing.assert_array_equal(found["norm"].y, logs(curve["log10_norm_mean"]))
        return
    mean, median = found.pop(f"mean of the norms{of}"), found.pop("median")
    for y, key in ((mean.y, "_mean"), (median.y, ""), (median.low, "_p10"), (median.high, "_p90")):
        np.testing.assert_array_equal(y, logs(curve[f"log10_norm{key}"]))
    for one in (mean, median):
        np.testing.assert_array_equal(one.x, curve["distance"])
    if data["total"]:
        (label, total), *rest = found.items()
        assert label == f"of all {run.network.spec.seq_len} losses together"
        np.testing.assert_array_equal(total.y, logs(data["total"]["log10_norm_mean"]))
        assert not rest
    else:
        assert not found
    states = series_of(states_picture(run))
    names = data["states"]
    assert list(states) == [state if run.network.spec.num_layers > 1 or run.network.problem.bidirectional else
                            state.removeprefix("layer0.") for state in names]  # fmt: skip
    for one, state in zip(states.values(), names.values(), strict=True):
        np.testing.assert_array_equal(one.y, logs(state["log10_norm_mean"]))


def test_thresholds_and_horizon_are_where_they_are(runs: dict[str, Measured]) -> None:
    picture = curve_picture(runs["vanishing"])
    mean = next(iter(series_of(picture).values())).y
    levels = {level.label: level.value - mean[1] for level in picture.levels}
    assert levels == {
        "exploding 1e3": pytest.approx(3),
        "vanishing 1e-3": pytest.approx(-3),
        "float32's precision": pytest.approx(math.log10(2.0**-23)),
    }
    (mark,) = picture.marks
    assert mark.label == f"horizon {mark.position}"
    assert mean[int(mark.position)] - mean[1] >= -3 > mean[int(mark.position) + 1] - mean[1]
    assert not curve_picture(runs["stable"]).marks
    assert [level.label for level in curve_picture(runs["stable"]).levels] == ["exploding 1e3", "vanishing 1e-3"]


def test_float32_is_told_where_it_sees_nothing(runs: dict[str, Measured]) -> None:
    run = runs["float32"]
    zero_from = run_data(run)["float32"]["zero_from"]
    assert zero_from is not None
    labels = {mark.label: mark.position for mark in curve_picture(run).marks}
    assert labels[f"float32 has 0 from {zero_from}"] == zero_from


def test_a_run_that_is_not_finite_says_where(runs: dict[str, Measured]) -> None:
    for picture in pictures(runs["nonfinite"]):
        assert isinstance(picture, LineChart)
        assert not picture.series
        assert picture.description == runs["nonfinite"].verdict.reason
        assert "exp(h[t-1])" in picture.description


def test_the_description_has_the_ends_of_the_curve(runs: dict[str, Measured]) -> None:
    for name in set(RUNS) - {"nonfinite"}:
        picture = curve_picture(runs[name])
        mean = next(iter(series_of(picture).values())).y
        match = re.match(r"log10 .* goes from (\S+) at distance 0 to (.+) at distance (\d+)\. ", picture.description)
        assert match, picture.description
        for text, y in ((match[1], mean[0]), (match[2], mean[-1])):
            assert np.isneginf(y) if text == "0 exactly" else float(text) == pytest.approx(y, abs=0.06)
        assert int(match[3]) == len(mean) - 1
        assert runs[name].verdict.reason in picture.description


# Clipping.


def test_clipping_inside_bptt_is_drawn_as_curves(runs: dict[str, Measured]) -> None:
    picture = clip_picture(runs["clipped inside"])
    found = series_of(picture)
    rows = {f"{row['method']} {row['threshold']:g}": row for row in run_data(runs["clipped inside"])["clip"]}
    assert list(found) == ["unclipped", "step_norm 0.1", "step_value 0.01"]
    for label in ("step_norm 0.1", "step_value 0.01"):
        np.testing.assert_array_equal(found[label].y, logs(rows[label]["curve"]["log10_norm_mean"]))
        assert (found[label].y <= found["unclipped"].y + 1e-12).all()
    assert "norm 0.5 after BPTT: unclipped" in picture.subtitle


def test_clipping_after_bptt_is_drawn_as_norms_before_and_after() -> None:
    run = measured("lstm", **SMALL, clip=[{"norm": 0.01}, {"value": 1e3}])
    picture = clip_picture(run)
    assert isinstance(picture, BarChart)
    assert picture.x.log10
    rows = run_data(run)["clip"]
    expected = [[row["log10_norm_before"], row["log10_norm_after"]] for row in rows]
    assert [list(bar.values) for bar in picture.bars] == expected
    assert [bar.label for bar in picture.bars] == ["norm 0.01", "value 1000"]
    assert expected[0][1] == pytest.approx(-2, abs=1e-3)
    assert expected[1][0] == expected[1][1]


def test_with_losses_at_every_step_the_unclipped_curve_is_that_of_all(runs: dict[str, Measured]) -> None:
    """Clipping acts on the gradient that training has."""
    run = measured("lstm", **SMALL, loss={"kind": "mse", "at": "every"}, clip=[{"step_norm": 1e6}])
    found = series_of(clip_picture(run))
    np.testing.assert_allclose(found["step_norm 1e6"].y, found["unclipped"].y, rtol=1e-12)
    np.testing.assert_array_equal(found["unclipped"].y, logs(run_data(run)["total"]["log10_norm_mean"]))


def test_a_spec_without_clipping_says_so() -> None:
    picture = clip_picture(measured("rnn", **SMALL, clip=[]))
    assert picture.description == "The spec asks for no clipping."
    assert list(series_of(picture)) == ["unclipped"]


# The matrix.


def test_the_matrix_says_what_it_is_of(runs: dict[str, Measured]) -> None:
    one, all_steps = runs["vanishing"], runs["every step"]
    moved = matrix_picture(one, measure_gradient_matrix(one.network))
    own = matrix_picture(all_steps, measure_gradient_matrix(all_steps.network))
    assert isinstance(moved, HeatMap)
    assert isinstance(own, HeatMap)
    assert moved.subtitle.startswith("the spec's loss, moved to step t; hidden")
    assert own.subtitle.startswith("the loss at step t alone; hidden")
    many = measured("rnn", **{**SMALL, "seq_len": 200})
    thinned = matrix_picture(many, measure_gradient_matrix(many.network))
    assert "; 64 of 200 steps t; " in thinned.subtitle
    values = own.values[np.isfinite(own.values)]
    low, high = re.search(r"log10 from (\S+) to (\S+)\. ", own.description).groups()  # type: ignore[union-attr]
    assert (float(low), float(high)) == (pytest.approx(values.min(), abs=0.006), pytest.approx(values.max(), abs=0.006))


# compare.


def test_a_comparison_has_all_means_relative_to_one_step_back(runs: dict[str, Measured]) -> None:
    arms = [linear(0.3), linear(0.9), measured(BLOW, **SMALL_LINEAR)]
    picture = comparison_picture(arms)
    assert picture.title == "The gradient reaches farthest in rnn: 20 steps back, to the beginning"
    drawn = [(one.y, one.note) for one in picture.series]
    assert len(drawn) == 2
    for (y, note), arm in zip(drawn, (arms[1], arms[0]), strict=True):  # the farthest first
        mean = logs(run_data(arm)["curve"]["log10_norm_mean"])
        np.testing.assert_array_equal(y, mean - mean[1])
        check_title(f"{arm.label}: {note}", arm.label, arm.verdict.kind, mean)
        assert note in picture.description
    assert {level.label: level.value for level in picture.levels}["vanishing 1e-3"] == pytest.approx(-3)
    assert f"not finite: {arms[2].label}" in picture.subtitle


def test_of_too_many_cells_the_farthest_are_drawn() -> None:
    arms = [linear(0.5 + 0.04 * i) for i in range(MOST_SERIES + 2)]
    picture = comparison_picture(arms)
    assert len(picture.series) == MOST_SERIES
    ends = [one.y[-1] for one in picture.series]
    assert min(ends) == pytest.approx(19 * math.log10(0.58))
    assert picture.subtitle.count("rnn") == 2


def test_a_comparison_without_a_gradient_says_so() -> None:
    picture = comparison_picture([measured(BLOW, **SMALL), measured(BLOW, **SMALL)])
    assert picture.title == "No cell has a gradient: in all of them a number is not finite"
    assert not picture.series
    assert not picture.levels
