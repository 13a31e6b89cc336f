"""A remedy is told only after it was run and helped: what is printed is typed again, and must do what it says."""

from __future__ import annotations

import math
import re
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import pytest
import yaml
from built_in_cells import SPANNING, hidden_size_of
from in_process import gradcli
from measured import loaded, small_batch

from gradcli import cells
from gradcli.diagnostics import remedies as judged
from gradcli.diagnostics.measure import measure
from gradcli.diagnostics.remedies import find_remedies, outcome, trouble_of
from gradcli.diagnostics.remedy_table import Case, edits_for
from gradcli.prepare.build import build
from gradcli.results.simulate import simulation
from gradcli.spec.edits import edited

SIZES = ["--input-size", 4, "--trials", 2, "--seed", 3]
DIGITS = Path(__file__).parents[1] / "examples" / "checkpoints" / "digits-lstm.pt"
THRESHOLD = {"vanishing": 1e-3, "exploding": 1e3}

#: Settings of the recurrence, the gates and the input, good ones and bad ones.
SETTINGS: dict[str, list[str]] = {
    "as they are": [],
    "large recurrence": ["init.W_h*={normal: {std: 0.6}}", "input.std=0.1"],
    "small recurrence": ["init.W_h*={normal: {std: 0.02}}"],
    "large input": ["input.std=30"],
    "constant input": ["input={kind: constant, value: 5}"],
    "closed gates": ["init.b_*=-2"],
    "open gates": ["init.b_*=4"],
    "of keras": ['init={"*": keras}'],
    "of flax": ['init={"*": flax}'],
    "two layers": ["num_layers=2"],
    "every step": ["loss.at=every"],
}


def sizes_of(cell: str) -> list[object]:
    """Return the options of small sizes that suit a built-in cell."""
    return [*SIZES, "--hidden-size", hidden_size_of(cell, 10), "--batch-size", small_batch(cell)]


def simulated(target: object, *options: object, remedies: bool = True) -> dict[str, Any]:
    finished = gradcli("simulate", target, *options, "--format", "json", remedies=remedies)
    assert finished.code == 0, finished.stderr
    run: dict[str, Any] = finished.report()["runs"][0]
    return run


def as_options(texts: Sequence[str]) -> list[str]:
    return [word for text in texts for word in ("--set", text)]


def end_of(run: dict[str, Any]) -> tuple[str, float, float]:
    """Return how a run ends: its verdict, its reach in steps, and what is left at T, as log10."""
    horizon = run["verdict"]["horizon"]["threshold"]
    return run["verdict"]["kind"], (math.inf if horizon is None else horizon), ratio_at_end(run)


def ratio_at_end(run: dict[str, Any]) -> float:
    """Return log10 of what is left at T, read off the last row of the CSV's column."""
    if run["status"] == "nonfinite":
        return math.nan
    found = gradcli("simulate", "-", "--format", "csv", stdin=yaml.safe_dump(run["spec"]))
    last = found.stdout.splitlines()[-1].rpartition(",")[2]
    return float(last) if last else -math.inf


def assert_better(before: dict[str, Any], after: dict[str, Any]) -> None:
    """An independent reading of "it helped", from the verdicts and the ends of the curves alone."""
    (kind, reach, left), (kind_after, reach_after, left_after) = end_of(before), end_of(after)
    assert kind_after not in ("exploding", "nonfinite")
    assert left_after < math.log10(THRESHOLD["exploding"])
    if kind in ("exploding", "nonfinite"):
        assert kind_after == "stable"
    elif kind in ("vanishing", "dead"):
        assert reach_after > reach or (reach_after == reach and left_after > left)
    elif kind == "stable":
        assert kind_after == "stable"
        assert abs(left_after) < 0.6 * abs(left)
    else:
        assert kind_after == "stable" or reach_after > reach


def check_printed_remedies(target: object, *options: object, most: int | None = None) -> int:
    """Type every remedy that was found, or the first ones, behind the same command; return how many are printed."""
    before = simulated(target, *options)
    text = gradcli("simulate", target, *options).stdout
    lines = [line for line in text.splitlines() if re.match(r"try +--(set (?!loss)|clip)", line)]
    assert len(lines) == min(len(before["remedies"]), 1)
    for number, remedy in enumerate(before["remedies"][:most]):
        after = simulated(target, *options, *as_options(remedy["set"]), remedies=False)
        if remedy["name"] == "clipping inside BPTT":
            assert_caps(after, remedy)
            continue
        assert to_12_digits(after["verdict"]) == to_12_digits(remedy["verdict"])
        assert after["verdict"]["horizon"]["threshold"] == remedy["horizon"]["after"]
        assert before["verdict"]["horizon"]["threshold"] == remedy["horizon"]["before"]
        if number == 0:
            left = remedy["log10_ratio"]["after"]
            assert ratio_at_end(after) == pytest.approx(-math.inf if left is None else left, abs=1e-9)
            assert_better(before, after)
            typed, _, effect = lines[0].removeprefix("try").strip().partition("   ")
            assert shlex.split(typed) == as_options(remedy["set"])
            assert_says(effect, before, after)
    return len(lines)


def to_12_digits(value: Any) -> Any:
    """Return data with its numbers rounded: runs of several trials at once, and alone, add up in other orders."""
    if isinstance(value, dict):
        return {key: to_12_digits(entry) for key, entry in value.items()}
    return float(f"{value:.12g}") if isinstance(value, float) else value


def assert_says(effect: str, before: dict[str, Any], after: dict[str, Any]) -> None:
    """The sentence has the horizons, or what is left at T, of the two runs."""
    horizons = re.fullmatch(r"horizon ([\d,]+) -> ([\d,]+) steps( \(the beginning\))?", effect.strip())
    kinds, reaches, ends = zip(end_of(before), end_of(after), strict=True)
    if horizons:
        told = [int(number.replace(",", "")) for number in horizons.groups()[:2]]
        assert told == [min(reach, before["seq_len"]) for reach in reaches]
        assert bool(horizons[3]) == (reaches[1] == math.inf)
        return
    words = r"(?:([a-z ]+) -> ([a-z ]+), )?at [\d,]+ steps (?:(\S+) -> )?(\S+) of its size 1 step back"
    found = re.fullmatch(words, effect.strip())
    assert found, effect
    shown = tuple("reaches the beginning" if kind == "stable" else kind for kind in kinds)
    assert (found[1], found[2]) == (shown if shown[0] != shown[1] else (None, None))
    for text, end in zip(found.groups()[2:], ends, strict=True):
        if text is not None:
            assert number_of(text) == pytest.approx(end, abs=0.06)


def number_of(text: str) -> float:
    """Return log10 of a number as reports write it."""
    if text.startswith("10^"):
        return float(text[3:])
    return math.log10(float(text)) if float(text) else -math.inf


def assert_caps(after: dict[str, Any], remedy: dict[str, Any]) -> None:
    (row,) = after["clip"]
    curve = row["curve"]["log10_norm_mean"]
    assert row["method"] == "step_norm"
    assert max(curve) <= math.log10(row["threshold"] * math.sqrt(8)) + 1e-9  # of up to eight states, joined
    assert curve[-1] - curve[1] == pytest.approx(remedy["log10_ratio"]["after"], abs=1.0)


@pytest.mark.parametrize("cell", cells.names())
def test_what_is_printed_does_what_it_says_for_every_cell(cell: str) -> None:
    check_printed_remedies(cell, *sizes_of(cell), "-T", 40, most=None if cell in SPANNING else 1)


@pytest.mark.parametrize("setting", SETTINGS)
@pytest.mark.parametrize(("cell", "seq_len"), [("rnn", 60), ("lstm", 8), ("gru", 60)])
def test_what_is_printed_does_what_it_says_in_every_setting(cell: str, setting: str, seq_len: int) -> None:
    check_printed_remedies(cell, *sizes_of(cell), "-T", seq_len, *as_options(SETTINGS[setting]))


@pytest.mark.parametrize("cell", [name for name in cells.names() if cells.load(name).cell.chrono])
def test_gates_that_can_keep_are_made_to(cell: str) -> None:
    run = simulated(cell, "--hidden-size", 24, "--batch-size", 2, "--trials", 2, "-T", 100)
    assert run["verdict"]["kind"] != "vanishing" or run["remedies"][0]["verdict"]["kind"] == "stable"


def test_every_edit_of_the_table_suits_the_cell_that_it_is_for() -> None:
    """An edit that the reader refuses is passed over in silence: there must be none."""
    for cell in cells.names():
        fields = {"input_size": 4, "trials": 1, "batch_size": 3, "seq_len": 30, "hidden_size": hidden_size_of(cell, 6)}
        measured = measure(build(loaded(cell, **fields, input={"kind": "normal", "std": 9.0})), theory=False)
        trouble = trouble_of(outcome(measured), measured.network.spec.thresholds)
        for edit in edits_for(Case(measured, trouble)) if trouble is not None else ():
            build(edited(measured.network.loaded, (*edit.sets, "clip=[]")))


# The faults that were found from outside.


def test_a_memory_that_is_there_is_not_shortened() -> None:
    """b_f = 8: 0.9997 a step, a memory of 2,000 steps; chrono would make it 48. The drop is the read-out's, once."""
    options = [*as_options(["init.W_*={normal: 0.01}", "init.b_f=8", "init.b_i=-8", "init.b_g=0", "init.b_o=-7.5"])]
    options += ["--hidden-size", 32, "--input-size", 8, "--batch-size", 32, "-T", 100]
    before = simulated("lstm", *options)
    for remedy in before["remedies"]:
        assert "init.b_f=chrono" not in remedy["set"]
        assert "init.b_f=3" not in remedy["set"]
    chrono = simulated("lstm", *options, *as_options(["init.b_f=chrono", "init.b_i=chrono"]))
    assert chrono["verdict"]["rate_per_step"] < 0.99 < before["verdict"]["rate_per_step"]


def test_a_glob_does_not_hide_the_remedy() -> None:
    for glob in ('init={"*": keras}', 'init={"b_*": zeros}', "init.*=torch", 'init={b_f: 0, "b_*": 0, "W_*": torch}'):
        run = simulated("lstm", "-T", 100, "--set", glob, "--hidden-size", 32, "--batch-size", 4)
        best = run["remedies"][0]
        assert any(text.startswith("init.b_f=") for text in best["set"])
        assert best["verdict"]["kind"] == "stable"
        again = simulated(
            "lstm", "-T", 100, "--set", glob, "--hidden-size", 32, "--batch-size", 4, *as_options(best["set"])
        )
        assert again["verdict"] == best["verdict"]


def test_a_large_input_is_what_is_mended() -> None:
    run = simulated("lstm", "-T", 100, "--set", "input.std=100", "--hidden-size", 32, "--batch-size", 4)
    assert ["input.std=1"] in [remedy["set"] for remedy in run["remedies"]]
    check_printed_remedies("lstm", "-T", 100, "--set", "input.std=100", "--hidden-size", 32, "--batch-size", 4)


def test_a_short_sequence_that_is_called_stable_has_a_remedy_too() -> None:
    run = simulated("lstm", "-T", 10)
    assert run["remedies"][0]["log10_ratio"]["after"] > 0.5 * run["remedies"][0]["log10_ratio"]["before"]
    assert check_printed_remedies("lstm", "-T", 10) == 1


def test_a_checkpoint_has_remedies_which_keep_what_it_learnt() -> None:
    run = simulated(DIGITS, "-T", 100)
    texts = [text for remedy in run["remedies"] for text in remedy["set"]]
    assert texts
    assert all(text.startswith(("weights.", "input.")) for text in texts)
    assert check_printed_remedies(DIGITS, "-T", 100) == 1
    assert all(remedy["code"]["keras"] is None for remedy in run["remedies"])  # the file is PyTorch's


def test_exact_values_are_set_where_they_stand() -> None:
    run = simulated("lstm", "-T", 60, "--hidden-size", 8, "--set", "params.b_f=-1", "--set", "params.b_i=0")
    assert run["remedies"][0]["set"] == ["params.b_f=3"]
    check_printed_remedies("lstm", "-T", 60, "--hidden-size", 8, "--set", "params.b_f=-1", "--set", "params.b_i=0")


def test_what_explodes_is_tamed_and_clipping_comes_last() -> None:
    options = ["-T", 80, "--hidden-size", 32, *as_options(["init.W_hh={normal: 0.4}", "input.std=0.1"])]
    run = simulated("rnn", *options)
    assert run["verdict"]["kind"] == "exploding"
    names = [remedy["name"] for remedy in run["remedies"]]
    assert names[0] in ("orthogonal recurrence", "recurrent gain")
    assert "clipping inside BPTT" not in names[:-1]
    check_printed_remedies("rnn", *options)


def test_an_overflow_is_mended_by_a_recurrence_that_keeps_its_size() -> None:
    options = ["-T", 50, "--hidden-size", 8, "--set", "activation=identity", "--set", "init.W_hh={identity: 1e200}"]
    assert simulated("rnn", *options)["verdict"]["kind"] == "nonfinite"
    assert check_printed_remedies("rnn", *options) == 1


def test_where_the_gradient_stays_nothing_is_proposed() -> None:
    for options in (
        ["rnn", "--set", "activation=identity", "--set", "init.W_hh=orthogonal"],
        ["lstm", "--set", "init.b_f=5"],
    ):
        assert simulated(*options, "--hidden-size", 16)["remedies"] == []
        assert "try " not in gradcli("simulate", *options, "--hidden-size", 16).stdout


def test_a_run_that_takes_long_is_not_run_again() -> None:
    network = build(loaded("lstm", seq_len=100))
    found = measure(network)
    with patch.object(judged, "_MOST_WORK", 1.0):
        remedies = find_remedies(found)
    assert (remedies.tried, remedies.found, remedies.too_large) == (0, (), True)
    work = judged._work(found)
    with patch.object(judged, "_MOST_WORK", 1.5 * work):
        assert find_remedies(found).tried == 1


def test_where_nothing_was_run_none_is_said_to_apply() -> None:
    """The verdict itself says what would keep such a run finite, which is no edit of a spec that could be measured."""
    cell = {"equations": "h[t] = exp(3 * h[t-1] + W @ x[t])"}
    found = measure(build(loaded(cell, hidden_size=3, input_size=2, seq_len=20)))
    remedies = find_remedies(found)
    assert (found.verdict.kind, remedies.tried, len(remedies.found)) == ("nonfinite", 0, 0)
    text = simulation(found, remedies).to_text(full=True, width=None)
    assert "No remedy that gradcli knows applies here." in text
    assert "would keep it finite" in text


def test_rows_of_numbers_ask_for_no_remedies() -> None:
    with patch("gradcli.diagnostics.remedies.find_remedies", side_effect=AssertionError):
        assert gradcli("simulate", "lstm", "-T", 20, "--format", "csv").code == 0


# What changes trained values, and what an option sets among globs.


def test_a_law_of_a_function_of_the_weights_is_not_scaled_as_one_of_the_weights() -> None:
    drawn = "init.W_hh={uniform: {bound: 0.02, mean: 0.5, of: sigmoid}}"
    for law, offered in ((drawn, False), ("init.W_hh={uniform: 0.08}", True)):
        remedies = simulated("rnn", *sizes_of("rnn"), "-T", 60, "--set", law)["remedies"]
        texts = [text for remedy in remedies for text in remedy["set"]]
        assert not any("of:" in text for text in texts)
        assert any(text.startswith("init.W_hh={uniform") for text in texts) == offered, texts


def test_trained_values_are_scaled_and_shifted(tmp_path: Path) -> None:
    def parameters(*texts: str) -> dict[str, np.ndarray]:
        finished = gradcli("simulate", DIGITS, "-T", 3, *as_options(texts), "--save", tmp_path / "run.npz")
        assert finished.code == 0, finished.stderr
        with np.load(tmp_path / "run.npz") as arrays:
            return {name: arrays[name] for name in arrays if name.startswith("param.")}

    plain = parameters()
    changed = parameters(
        "weights.scale.W_h*=0.5", "weights.scale.W_hf=2", "weights.shift.b_f=1.5", "weights.scale.b_f=3"
    )
    for name, value in plain.items():
        short = name.rpartition(".")[2]
        factor = {"W_hf": 2.0, "b_f": 3.0}.get(short, 0.5 if short.startswith("W_h") and "readout" not in name else 1.0)
        np.testing.assert_array_equal(changed[name], factor * value + (1.5 if short == "b_f" else 0.0))


def test_only_trained_values_are_changed() -> None:
    finished = gradcli("simulate", DIGITS, "-T", 3, "--set", "weights.shift.b_q=1")
    assert finished.code == 2
    assert "no parameter matches 'b_q'" in finished.stderr


def test_an_option_wins_over_a_glob_of_the_file(tmp_path: Path) -> None:
    spec = {"cell": "lstm", "seq_len": 5, "init": {"b_f": 1.0, "b_*": "zeros"}, "params": {"b_g": 1.0, "b_[go]": 2.0}}
    (tmp_path / "spec.yaml").write_text(yaml.safe_dump(spec, sort_keys=False))
    options = as_options(["init.b_f=7", "params.b_g=3", "init.W_hi.normal.std=0.5"])
    finished = gradcli("simulate", tmp_path / "spec.yaml", *options, "--save", tmp_path / "run.npz")
    assert finished.code == 0, finished.stderr
    with np.load(tmp_path / "run.npz") as arrays:
        assert set(arrays["param.layer0.b_f"].ravel()) == {7.0}
        assert set(arrays["param.layer0.b_g"].ravel()) == {3.0}
        assert set(arrays["param.layer0.b_o"].ravel()) == {2.0}


# The command to go on with.


@pytest.mark.parametrize(
    "options",
    [
        ["lstm", "-T", 20, "--hidden-size", 8],
        [
            "rnn",
            "-T",
            30,
            "--set",
            "init.W_hh={normal: 0.6}",
            "--set",
            "input.std=0.1",
            "--seed",
            2,
            "--clip",
            "norm=1",
        ],
        ["gru", "-T", 20, "--set", 'init={"*": keras}', "--set", "bidirectional=true", "--hidden-size", 8],
        [DIGITS, "-T", 30, "--layer", "rnn"],
    ],
)
def test_the_next_command_runs_as_it_is_printed_on_the_same_spec(options: list[object]) -> None:
    text = gradcli("simulate", *options).stdout
    (line,) = (line for line in text.splitlines() if line.startswith("next "))
    program, command, *arguments = shlex.split(line.removeprefix("next"))
    assert program == "gradcli"
    finished = gradcli(command, *arguments, "--format", "json")
    assert finished.code == 0, finished.stderr
    told, meant = finished.report()["runs"][0]["spec"], simulated(*options)["spec"]
    assert {**told, "clip": None} == {**meant, "clip": None}
    assert arguments[0] == str(options[0])


@pytest.mark.parametrize("cell", cells.names())
def test_the_next_command_suits_every_cell(cell: str) -> None:
    options = [cell, *sizes_of(cell), "-T", 12]
    text = gradcli("simulate", *options, remedies=False).stdout
    (line,) = (line for line in text.splitlines() if line.startswith("next "))
    _, command, *arguments = shlex.split(line.removeprefix("next"))
    finished = gradcli(command, *arguments)
    assert finished.code == 0, finished.stderr


def test_an_input_from_a_file_has_remedies_too(tmp_path: Path) -> None:
    """Its number of features is the file's, and no default of the spec."""
    np.save(tmp_path / "x.npy", np.random.default_rng(0).normal(size=(300, 3)))
    options = ["--set", f"input={{kind: file, path: {tmp_path / 'x.npy'}}}", "-T", 40, "--hidden-size", 8]
    run = simulated("lstm", *options, "--batch-size", 4)
    assert run["remedies"]
    assert check_printed_remedies("lstm", *options, "--batch-size", 4) == 1


def test_what_is_left_is_told_of_where_the_loss_enters() -> None:
    """With the loss at step 18 of 20 the first gradient stands 2 steps back, and ratios are to the next one."""
    options = ["lstm", "-T", 20, "--set", "loss.at=[18]", "--hidden-size", 16, "--set", "thresholds.vanishing=1e-5"]
    run = simulated(*options)
    norms = run["curve"]["log10_norm_mean"]
    assert [norm is None for norm in norms[:4]] == [True, True, False, False]
    left = run["remedies"][0]["log10_ratio"]["before"]
    assert left == pytest.approx(norms[20] - norms[3], abs=1e-12)
    (line,) = (line for line in gradcli("simulate", *options).stdout.splitlines() if line.startswith("try"))
    assert re.search(r"at 20 steps \S+ -> \S+ of its size 3 steps back$", line), line
