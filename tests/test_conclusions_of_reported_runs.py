"""Runs of which something false was once concluded: each is read anew from its saved arrays, words included."""

from __future__ import annotations

import csv
import io
import json
import math
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from in_process import gradcli
from late_torch import torch
from numpy.typing import NDArray

Array = NDArray[np.float64]

LOW, HIGH = -3.0, 3.0
"""The usual thresholds on the ratio to distance 1, log10."""
TWICE = math.log10(2.0)
CHECKPOINT = Path(__file__).parents[1] / "examples" / "checkpoints" / "digits-lstm.pt"
GRU = ["gru", "-T", 200, "--set", "init.W_h*={normal: {std: 0.4}}", "--set", "input.std=0.1"]
LSTM = ["lstm", "-T", 200, "--set", "init.b_f=3", "--set", "init.W_h*={normal: {std: 0.3}}"]
RELU = ["lstm", "--hidden-size", 100, "--set", "activation=relu", "--set", "init.b_f=1"]
RELU += ["--set", "init.W_h*={normal: {std: 0.12}}"]


@dataclass(frozen=True)
class Seen:
    """A run: exit code, JSON, what a person reads (in full, on one line), and log10 of the norms by distance."""

    code: int
    run: dict[str, Any]
    text: str
    arrays: dict[str, NDArray[Any]]

    @property
    def verdict(self) -> dict[str, Any]:
        found: dict[str, Any] = self.run["verdict"]
        return found

    @property
    def each(self) -> Array:
        """Return log10 of each sequence's norm, all states of the layer together: (T+1, sequences)."""
        squares = []
        for name in (key.removeprefix("grad_state.") for key in self.arrays if key.startswith("grad_state.")):
            with np.errstate(divide="ignore"):
                norm = np.log2(np.linalg.norm(self.arrays[f"grad_state.{name}"], axis=-1))
            squares.append(2 * (norm + self.arrays[f"log2_state.{name}"]))
        joined = 0.5 * np.logaddexp2.reduce(squares) * math.log10(2.0)
        return np.asarray(joined[:, ::-1].transpose(1, 0, 2).reshape(joined.shape[1], -1))

    @property
    def mean(self) -> Array:
        """Return log10 of the mean of the norms over sequences, (T+1,)."""
        each = self.each
        top = each.max(axis=1)
        with np.errstate(divide="ignore", invalid="ignore"):
            mean = top + np.log10(np.mean(10.0 ** (each - top[:, None]), axis=1))
        return np.asarray(np.where(np.isneginf(top), -np.inf, mean))

    @property
    def ratio(self) -> Array:
        return np.asarray(self.mean - self.mean[1])


def see(folder: Path, *arguments: object) -> Seen:
    saved = folder / "run.npz"
    finished = gradcli("simulate", *arguments, "--format", "json", "--save", saved)
    assert finished.code in (0, 3), finished.stderr
    options = [word for word in arguments if word not in ("--fail-on", "vanishing", "exploding", "dead")]
    text = " ".join(gradcli("simulate", *options, "--full").stdout.split())
    with np.load(saved) as arrays:
        return Seen(finished.code, finished.report()["runs"][0], text, dict(arrays))


def kind_of(ratio: Array) -> str:
    """Name what a curve that is no border case does, (T+1,) relative to distance 1."""
    end, peak = ratio[-1], ratio[1:].max()
    if np.isneginf(end):
        return "dead"
    if end >= HIGH:
        return "exploding"
    came_back = peak >= TWICE and (end < LOW or peak - end >= 1)
    return "transient" if came_back else "vanishing" if end < LOW else "stable"


def shares_of(each: Array) -> dict[str, float]:
    """Return the share of each kind, every sequence relative to its own norm one step back."""
    kinds = []
    for curve in each.T:
        ratio = curve - curve[1]
        kind = kind_of(ratio)
        kinds.append("exploding" if kind == "transient" and ratio[1:].max() >= HIGH else kind)
    return {kind: kinds.count(kind) / len(kinds) for kind in set(kinds)}


def slope(ratio: Array) -> float:
    """Return the factor a step of the last three quarters of a curve, by least squares in logarithms."""
    first = 1 + (len(ratio) - 2) // 4
    return float(10 ** np.polyfit(np.arange(first, len(ratio)), ratio[first:], 1)[0])


# --- what the mean does, what the typical sequence does --------------------------------------------------------------


@pytest.mark.parametrize(
    ("spec", "fails"),
    [(GRU, False), ([*GRU, "--set", "seed=2"], True), (LSTM, True), (RELU, True)],
    ids=["gru", "gru, another draw", "lstm", "lstm with relu"],
)
def test_a_few_sequences_that_explode_are_told_and_judged(spec: list[Any], fails: bool, tmp_path: Path) -> None:
    found = see(tmp_path, *spec, "--fail-on", "exploding")
    assert found.verdict["kind"] == kind_of(found.ratio) == ("exploding" if fails else "stable")
    assert found.code == (3 if fails else 0)
    median = np.median(found.each, axis=1)
    assert found.verdict["typical"]["kind"] == kind_of(median - median[1])
    shares = shares_of(found.each)
    assert {kind: share for kind, share in found.verdict["shares"].items() if share} == pytest.approx(shares)
    assert 0 < shares["exploding"] < 0.5
    assert f"{shares['exploding']:.0%} explode".replace("%", " %") in found.text
    assert "clipping cannot bring back" not in found.text.lower()
    # The mean lies far above the typical one: a word of one would be false of the other.
    assert found.ratio[-1] > (median - median[1])[-1] + 0.5


@pytest.mark.torch
def test_the_norm_before_clipping_is_that_of_pytorch_s_batch_gradient(tmp_path: Path) -> None:
    found = see(tmp_path, *GRU)
    arrays, norms = found.arrays, []
    for trial in range(len(arrays["x"])):
        layer = torch.nn.GRU(32, 64, batch_first=True, dtype=torch.float64)

        def given(name: str, trial: int = trial) -> Any:
            return torch.tensor(arrays[f"param.layer0.{name}"][trial])

        with torch.no_grad():
            layer.weight_ih_l0.copy_(torch.cat([given(f"W_x{gate}") for gate in "rzn"]))
            layer.weight_hh_l0.copy_(torch.cat([given(f"W_h{gate}") for gate in "rzn"]))
            layer.bias_ih_l0.copy_(torch.cat([given(f"b_{gate}") for gate in "rzn"]))
            layer.bias_hh_l0.zero_()[128:] = given("b_hn")
        out = layer(torch.tensor(arrays["x"][trial].transpose(1, 0, 2)))[0][:, -1]
        target = torch.tensor(arrays["target"][trial, 0])
        (0.5 * ((out - target) ** 2).sum(dim=1).mean()).backward()
        norms.append(math.sqrt(sum(float((p.grad**2).sum()) for p in layer.parameters())))
    (clip,) = found.run["clip"]
    assert clip["log10_norm_before"] == pytest.approx(np.median(np.log10(norms)), abs=1e-9)
    assert max(norms) > 1e3


def test_half_of_the_sequences_dead_is_not_dead(tmp_path: Path) -> None:
    spec = {
        "cell": "irnn",
        "hidden_size": 4,
        "input_size": 4,
        "seq_len": 60,
        "trials": 4,
        "init": {"W_xh": {"normal": {"std": 0.3}}, "b_h": -0.02},
        "h_0": {"uniform": {"bound": 1.0}},
    }
    (tmp_path / "s.json").write_text(json.dumps(spec))
    found = see(tmp_path, (tmp_path / "s.json").rename(tmp_path / "s.yaml"), "--fail-on", "dead")
    dead = float(np.isneginf(found.each[60]).mean())
    assert found.code == 0
    assert 0.5 < dead < 1
    assert found.verdict["shares"]["dead"] == dead
    assert found.verdict["typical"]["kind"] == "dead"
    assert found.verdict["kind"] == "stable"
    assert found.run["curve"]["log10_norm_mean"][60] == pytest.approx(found.mean[60])
    assert f"{dead:.0%} are exactly zero".replace("%", " %") in found.text
    assert f"{10 ** found.ratio[60]:.2g} of it is left" in found.text


# --- the last loss alone ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("spec", "at"),
    [
        (["lstm"], "every"),
        (["lstm"], "[1, 100]"),
        (["lstm"], "[50, 100]"),
        (["rnn", "--set", "init.W_hh={normal: {std: 0.01}}"], "every"),
    ],
)
def test_losses_at_other_steps_do_not_lengthen_the_reach(spec: list[Any], at: str, tmp_path: Path) -> None:
    alone = see(tmp_path, *spec)
    found = see(tmp_path, *spec, "--set", f"loss.at={at}", "--fail-on", "vanishing")
    assert kind_of(alone.ratio) == "vanishing"
    assert found.verdict["kind"] == "vanishing"
    assert found.code == 3
    assert found.text.partition("VANISHING")[1]
    mean = np.array(found.run["curve"]["log10_norm_mean"])
    np.testing.assert_allclose(mean - mean[1], alone.ratio, atol=0.1)  # other targets are drawn at the last step
    last_above = int(np.flatnonzero(alone.ratio >= LOW)[-1])
    assert abs(found.verdict["horizon"]["threshold"] - last_above) <= 1
    # What --save holds is the total derivative, and so is what stands beside the curve.
    np.testing.assert_allclose(found.run["total"]["log10_norm_mean"], found.mean, rtol=1e-9)
    everywhere = at == "every"
    assert ("the one at the step itself rules" in found.text) == everywhere


def test_a_ranking_is_that_of_the_last_loss() -> None:
    cells = ["lstm", "gru", "rnn", "lstm-no-forget"]
    ranked = []
    for at in ("every", "last"):
        report = gradcli("compare", *cells, "--set", f"loss.at={at}", "--format", "json").report()
        ranked.append([(place["label"], place["horizon"]) for place in report["ranking"]])
    assert [label for label, _ in ranked[0]] == [label for label, _ in ranked[1]]
    assert ranked[0] == ranked[1]


# --- what the read-out takes, once -----------------------------------------------------------------------------------


def test_an_lstm_with_closed_output_gates_keeps_what_its_forget_gates_keep(tmp_path: Path) -> None:
    init = {"W_*": {"normal": {"std": 0.01}}, "b_f": 8, "b_i": -8, "b_g": 0, "b_o": -7.5}
    spec = {"cell": "lstm", "hidden_size": 32, "input_size": 8, "seq_len": 100, "batch_size": 32, "init": init}
    (tmp_path / "s.yaml").write_text(json.dumps(spec))
    found = see(tmp_path, tmp_path / "s.yaml", "--fail-on", "vanishing")
    assert found.code == 0
    assert slope(found.ratio) == pytest.approx(1 / (1 + math.exp(-8)), abs=2e-5)
    assert found.verdict["rate_per_step"] == pytest.approx(slope(found.ratio), abs=2e-5)
    assert found.verdict["first_step"]["log10_ratio"] == pytest.approx(found.mean[1] - found.mean[0])
    assert found.mean[1] - found.mean[0] < -3
    assert "stays level (a factor 0.9997" in found.text.replace("0.99966", "0.9997")
    (told,) = re.findall(r"changes it by a factor (\S+), once: not counted", found.text)
    assert math.log10(float(told)) == pytest.approx(found.mean[1] - found.mean[0], abs=0.02)
    assert found.verdict["horizon"]["threshold"] is None
    assert "try --set" not in found.text
    assert "> 1e3" not in found.text  # the gradient at the loss itself is no explosion


def test_an_output_gate_is_no_part_of_the_verdict(tmp_path: Path) -> None:
    found = []
    for bias in (0, -2, -4, -6):
        sets = ["init.b_f=chrono", "init.b_i=chrono", f"init.b_o={bias}"]
        found.append(see(tmp_path, "lstm", *(word for text in sets for word in ("--set", text))))
        assert found[-1].verdict["rate_per_step"] == pytest.approx(slope(found[-1].ratio), rel=1e-6)
    assert {run.verdict["kind"] for run in found} == {"stable"} == {kind_of(run.ratio) for run in found}
    assert {run.verdict["horizon"]["threshold"] for run in found} == {None}
    rates = [run.verdict["rate_per_step"] for run in found]
    assert max(rates) - min(rates) < 1e-3
    first_steps = [run.verdict["first_step"]["log10_ratio"] for run in found]
    assert first_steps == sorted(first_steps, reverse=True)
    assert first_steps[0] - first_steps[-1] > 1.5


# --- words and figures that fit --------------------------------------------------------------------------------------


def test_what_halves_in_a_step_or_two_is_not_called_steady(tmp_path: Path) -> None:
    found = see(tmp_path, "lstm", "-T", 10, "--fail-on", "vanishing")
    assert found.code == 0  # no threshold is crossed within ten steps, which is what a gate asks
    assert found.verdict["half_life"] < 1.6
    said = found.text.partition("distance log10")[0].lower()
    assert "reaches the beginning" in said
    assert not re.search(r"stable|steady|level|flat|healthy|unevenly", said)
    assert f"{10 ** found.ratio[10]:.1g} of it is left" in said
    # Where it would cross: by the line through the last three quarters.
    rate = math.log10(slope(found.ratio))
    crossing = 10 + (LOW - found.ratio[10]) / rate
    assert abs(found.verdict["forecast"] - crossing) <= 2
    assert f"below 1e-3 from {found.verdict['forecast']} steps back, beyond this sequence" in said


def test_what_grows_by_hundreds_says_so(tmp_path: Path) -> None:
    spec = {"cell": {"equations": "h[t] = 2 * h[t-1] + x[t]"}, "hidden_size": 3, "input_size": 3, "seq_len": 9}
    (tmp_path / "s.yaml").write_text(json.dumps(spec))
    found = see(tmp_path, tmp_path / "s.yaml")
    assert found.ratio[9] == pytest.approx(8 * TWICE)
    assert found.verdict["half_life"] is None
    assert "9 steps back it is 256 times as large grows by a factor 2 a step (doubling every 1 step)" in found.text
    assert "above 1e3 from 11 steps back, beyond this sequence" in found.text  # 2^10 at distance 11
    assert found.verdict["forecast"] == 11
    assert "The cell has no parameters" in found.text


def test_a_trained_network_s_loss_of_half_is_told_as_such(tmp_path: Path) -> None:
    found = see(tmp_path, CHECKPOINT, "-T", 8)
    assert slope(found.ratio) < 0.8
    assert f"falls by a factor {found.verdict['rate_per_step']:.2g} a step" in found.text
    assert "grows" not in found.text.partition("distance log10")[0]
    halved = int(np.flatnonzero(found.ratio[1:] <= -TWICE)[0]) + 1
    assert found.verdict["halved_at"] == halved


def test_half_lives_side_by_side_are_of_one_definition(tmp_path: Path) -> None:
    cells = ["lstm", "slstm-exp", "rwkv", "batch-norm-lstm"]
    finished = gradcli("compare", *cells, "--hidden-size", 32, "--format", "json", "--save", tmp_path / "c.npz")
    screen = gradcli("compare", *cells, "--hidden-size", 32).stdout
    arrays = np.load(tmp_path / "c.npz")
    for run in finished.report()["runs"]:
        label = run["label"]
        own = {key.partition("/")[2]: arrays[key] for key in arrays.files if key.startswith(f"{label}/")}
        ratio = Seen(0, run, "", own).ratio
        rate, half_life = run["verdict"]["rate_per_step"], run["verdict"]["half_life"]
        assert rate == pytest.approx(slope(ratio), rel=1e-6)
        if rate >= 1:
            assert half_life is None
            continue
        assert half_life == pytest.approx(-math.log(2) / math.log(slope(ratio)), rel=1e-4)
        (row,) = re.findall(rf"^ +\d+  {label} .*$", screen, re.M)
        assert f" {half_life:.3g} " in row
    assert {run["label"] for run in finished.report()["runs"] if run["verdict"]["half_life"] is None} == {
        "batch-norm-lstm"
    }


def test_an_average_over_part_of_a_curve_says_of_which_part(tmp_path: Path) -> None:
    """The average of a tail, led back to the start, would be far from what is left at the end."""
    found = see(tmp_path, "slstm")
    rate, end = math.log10(slope(found.ratio)), found.ratio[-1]
    assert abs(end - rate * 99) > 0.6  # by a factor of four
    said = verdict_words(found)
    assert re.search(r"on average from \d+ steps back on|at \d+ steps back[^;]*, then \w+ unevenly", said)


def test_nothing_is_said_of_what_comes_after_the_end(tmp_path: Path) -> None:
    found = see(tmp_path, "batch-norm-lstm")
    assert int(np.argmax(found.ratio[1:])) + 1 == 100
    said = verdict_words(found)
    assert f"rises unevenly to {10 ** found.ratio[100]:.0f} times its size at 100 steps back" in said
    assert "from there on" not in said


# --- curves of given shape -------------------------------------------------------------------------------------------


def drawn(folder: Path, log10_curve: Array) -> Seen:
    """Return a run whose gradient has a curve of this shape, each step multiplying by its own number."""
    factors = 10.0 ** np.diff(log10_curve)[::-1]
    np.save(folder / "x.npy", factors.reshape(1, -1, 1))
    spec = {
        "cell": {"equations": "h[t] = x[t] * h[t-1]"},
        "hidden_size": 1,
        "input_size": 1,
        "seq_len": len(factors),
        "batch_size": 1,
        "trials": 1,
        "input": {"kind": "file", "path": "x.npy"},
        "h_0": 1.0,
        "loss": {"kind": "projection", "vector": [1.0]},
    }
    (folder / "s.yaml").write_text(json.dumps(spec))
    found = see(folder, folder / "s.yaml")
    np.testing.assert_allclose(found.mean, log10_curve - log10_curve[0], atol=1e-9)
    return found


def verdict_words(found: Seen) -> str:
    return found.text.partition("distance log10")[0]


@pytest.mark.parametrize("depth", [3.2, 6.0])
def test_an_alternating_curve_has_one_kind_at_both_parities(depth: float, tmp_path: Path) -> None:
    kinds = set()
    for seq_len in (40, 41):
        d = np.arange(seq_len + 1)
        found = drawn(tmp_path, np.where(d % 2 == 0, -depth, 0.0) - 0.001 * d)
        kinds.add(found.verdict["kind"])
        assert "alternates" in verdict_words(found)
    assert kinds == {"stable"}


@pytest.mark.parametrize(("height", "kind"), [(6.0, "transient"), (2.0, "transient"), (0.1, "vanishing")])
def test_a_hump_is_told_with_its_height(height: float, kind: str, tmp_path: Path) -> None:
    d = np.arange(101)
    found = drawn(tmp_path, height * np.exp(-(((d - 25) / 12.0) ** 2)) - 0.05 * d)
    assert found.verdict["kind"] == kind == kind_of(found.ratio)
    peak = int(np.argmax(found.ratio[1:])) + 1
    assert found.verdict["peak"]["distance"] == peak
    assert found.verdict["peak"]["log10_ratio"] == pytest.approx(found.ratio[peak])
    if kind == "transient":
        assert f"{peak} steps back" in verdict_words(found)


def test_two_rates_are_told_as_two(tmp_path: Path) -> None:
    d = np.arange(101)
    found = drawn(tmp_path, np.log10(0.6**d + 1e-4 * 0.98**d))
    halved = int(np.flatnonzero(found.ratio[1:] <= -TWICE)[0]) + 1
    assert found.verdict["halved_at"] == halved == 3
    said = verdict_words(found)
    half_life = found.verdict["half_life"]
    assert half_life == pytest.approx(-math.log(2) / math.log(found.verdict["rate_per_step"]))
    # The slow half-life is told only behind the quick fall that comes first.
    falls, _, then = said.partition(", then ")
    assert re.search(r"falls to .* at \d+ steps back", falls)
    assert "falls by a factor 0.98" in then


def test_growth_is_not_slowing_where_the_curve_has_fallen(tmp_path: Path) -> None:
    d = np.arange(101)
    for bend in (20, 40):
        rise = np.where(d < bend, 6.0 * d / bend, 6.0 - 3.0 * (d - bend) / (100 - bend))
        said = verdict_words(drawn(tmp_path, rise))
        assert "slowing" not in said
        (peak,) = re.findall(r"rises to (\S+) times its size", said)
        assert 5.6 < math.log10(float(peak)) < 6.0  # from distance 1 on


# --- one run, told in every form -------------------------------------------------------------------------------------

CASES = [["lstm"], ["irnn"], ["slstm"], GRU, ["rnn", "--set", "init.W_hh={normal: {std: 0.5}}"], ["rnn", "-T", 2]]


@pytest.mark.parametrize("spec", CASES, ids=lambda spec: " ".join(map(str, spec)))
def test_all_forms_of_a_report_agree(spec: list[Any], tmp_path: Path) -> None:
    found = see(tmp_path, *spec)
    kind, horizon = found.verdict["kind"], found.verdict["horizon"]["threshold"]
    assert kind == kind_of(found.ratio)
    word = {"stable": "reaches the beginning"}.get(kind, kind)
    assert found.text.partition(" distance log10")[0].find(word.upper()) > 0
    assert word in gradcli("simulate", *spec, "--format", "markdown").stdout.lower()
    rows = list(csv.DictReader(io.StringIO(gradcli("simulate", *spec, "--format", "csv").stdout)))
    ratio = [float(row["log10_ratio"]) for row in rows]
    np.testing.assert_allclose(ratio, found.ratio, atol=1e-9)
    for other in ("stable", "vanishing", "exploding", "transient", "dead"):
        code = gradcli("simulate", *spec, "--fail-on", other, "--quiet").code
        assert code == (3 if other == kind else 0)
    other = "irnn" if spec[0] == "rnn" else "mgu"
    compared = gradcli("compare", *spec, other, "--format", "json").report()
    (own,) = (run for run in compared["runs"] if run["label"] == spec[0])
    (place,) = (place for place in compared["ranking"] if place["label"] == spec[0])
    assert own["verdict"]["kind"] == kind
    assert place["horizon"] == own["verdict"]["horizon"]["threshold"] == horizon
    for name, state in found.run["states"].items():
        alone = Seen(0, found.run, "", {key: v for key, v in found.arrays.items() if key.endswith(f"_state.{name}")})
        told = [-np.inf if value is None else value for value in state["log10_norm_mean"]]
        np.testing.assert_allclose(told, alone.mean, atol=1e-9)
        if state["verdict"] is None:  # nothing but rounding beside the other states of its layer
            assert (alone.mean[1:-1] < found.mean[1:-1] - 13).all()
        elif np.isfinite(alone.mean).all():
            assert state["verdict"]["kind"] == kind_of(alone.ratio)
