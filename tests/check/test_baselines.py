"""Baselines: what is kept, what passes, and what becomes of entries whose files are gone."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from checking import SMALL, check, line, outcomes, write
from hypothesis import example, given
from hypothesis import strategies as st
from in_process import gradcli

from gradcli.diagnostics.baseline import Recorded, compare_with_baseline
from gradcli.diagnostics.figures import CURVE_FIGURES, Figure
from gradcli.errors import InputFileError
from gradcli.results.baseline import Entry, parse_baseline, write_baseline


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return an empty folder that is the current one."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def entries(path: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(path.read_text())["files"]
    return found


def test_what_was_measured_is_kept_and_found_again(folder: Path) -> None:
    line(folder / "m/a.yaml", 0.5, {"lyapunov": "< 0"})
    line(folder / "m/b.yaml", 2.0)
    assert check("m", "--baseline", "base/line.json", "--update").code == 4  # there is no such folder
    (folder / "base").mkdir()
    assert check("m", "--baseline", "base/line.json", "--update").code == 0
    found = entries(folder / "base/line.json")
    assert list(found) == ["../m/a.yaml", "../m/b.yaml"]
    a, b = (found[name]["figures"] for name in found)
    assert set(a) == {*CURVE_FIGURES, "lyapunov"}
    assert set(b) == set(CURVE_FIGURES)
    assert (a["horizon"], b["horizon"], b["half_life"]) == (
        {"value": 10},
        {"value": "unbounded"},
        {"value": "unbounded"},
    )
    assert a["rate_per_step"]["value"] == pytest.approx(0.5)
    done = check("m", "--baseline", "base/line.json")
    assert (done.code, done.stdout.splitlines()[0]) == (0, "PASSED   14 checks passed, in 2 files")


def test_the_same_measurements_give_the_same_bytes(folder: Path) -> None:
    for name in "abc":
        write(folder / f"{name}.yaml", seed=ord(name))
    check("a.yaml", "b.yaml", "c.yaml", "--baseline", "one.json", "--update")
    check("c.yaml", "a.yaml", "b.yaml", "--baseline", "other.json", "--update")
    assert (folder / "one.json").read_bytes() == (folder / "other.json").read_bytes()


def test_a_changed_cell_is_told_and_that_the_spec_has_changed(folder: Path) -> None:
    line(folder / "a.yaml", 0.5)
    check("a.yaml", "--baseline", "b.json", "--update")
    line(folder / "a.yaml", 0.6)
    done = check("a.yaml", "--baseline", "b.json")
    assert done.code == 3
    assert (
        "the baseline has 10, but the horizon is 14 steps (3.99999 away); the spec has changed since the baseline"
        in done.stdout
    )
    found = outcomes("a.yaml", "--baseline", "b.json")
    failed = {name for name, one in found.items() if one["status"] == "failed"}
    assert failed == {"baseline.horizon", "baseline.rate_per_step", "baseline.half_life"}
    assert found["baseline.verdict"]["status"] == "passed"
    # 0.6 is 20 % more than 0.5; ln 2 / -ln 0.6 is 36 % more than 1; 14 is 40 % more than 10.
    assert check("a.yaml", "--baseline", "b.json", "--tolerance", "0.39").code == 3
    assert check("a.yaml", "--baseline", "b.json", "--tolerance", "0.41").code == 0


def test_other_expectations_do_not_count_as_a_changed_spec(folder: Path) -> None:
    line(folder / "a.yaml", 0.5, {"verdict": "vanishing"})
    check("a.yaml", "--baseline", "b.json", "--update")
    before = entries(folder / "b.json")["a.yaml"]["spec"]
    line(folder / "a.yaml", 0.5, {"horizon": 10})
    check("a.yaml", "--baseline", "b.json", "--update")
    assert entries(folder / "b.json")["a.yaml"]["spec"] == before


def test_the_range_is_that_of_the_trials_alone(folder: Path) -> None:
    """Each trial alone, read from the saved gradients: the fall from distance 1 to T has the range of theirs."""
    sizes = {**SMALL, "trials": 5, "seq_len": 30}
    write(folder / "a.yaml", **sizes)
    check("a.yaml", "--baseline", "b.json", "--update")
    kept = entries(folder / "b.json")["a.yaml"]["figures"]
    gradcli("simulate", "a.yaml", "--save", "run.npz", "--quiet")
    with np.load(folder / "run.npz") as run:
        mantissa, log2 = run["grad_state.layer0.h"], run["log2_state.layer0.h"]
    norms = np.linalg.norm(mantissa, axis=-1) * np.exp2(log2)  # (R, T+1, B)
    means = norms.mean(axis=-1)[:, ::-1]
    horizons = [int(np.flatnonzero(mean / mean[1] >= 1e-3).max()) for mean in means]
    own = kept["horizon"]
    assert (own.get("low", own["value"]), own.get("high", own["value"])) == (min(horizons), max(horizons))
    assert min(horizons) < max(horizons)
    assert kept["rate_per_step"]["low"] < kept["rate_per_step"]["value"] < kept["rate_per_step"]["high"]


def test_of_one_trial_the_range_is_that_of_its_sequences(folder: Path) -> None:
    write(folder / "a.yaml", **{**SMALL, "trials": 1, "batch_size": 6, "seq_len": 30})
    write(folder / "b.yaml", **{**SMALL, "trials": 1, "batch_size": 1, "seq_len": 30})
    check("a.yaml", "b.yaml", "--baseline", "b.json", "--update")
    several, single = (entries(folder / "b.json")[name]["figures"]["rate_per_step"] for name in ("a.yaml", "b.yaml"))
    assert several["low"] < several["high"]
    assert set(single) == {"value"}


def test_sequences_of_different_lengths_have_a_range(folder: Path) -> None:
    np.save(folder / "x.npy", np.random.default_rng(0).normal(size=(3, 12, 2)))
    data = {"kind": "file", "path": "x.npy", "lengths": [12, 5, 9]}
    write(folder / "a.yaml", **{**SMALL, "trials": 1, "batch_size": 3, "input": data})
    assert check("a.yaml", "--baseline", "b.json", "--update").code == 0
    assert check("a.yaml", "--baseline", "b.json").code == 0


def test_another_draw_within_the_range_passes(folder: Path) -> None:
    """Seeds drawn anew: with many trials the mean of another draw hardly ever leaves the range of single trials."""
    sizes = {**SMALL, "trials": 16, "seq_len": 30, "hidden_size": 8}
    write(folder / "a.yaml", **sizes)
    check("a.yaml", "--baseline", "b.json", "--update")
    for seed in range(1, 6):
        write(folder / "a.yaml", **sizes, seed=seed)
        done = check("a.yaml", "--baseline", "b.json")
        assert done.code == 0, done.stdout


def test_what_is_new_fails_as_baseline_and_what_is_gone_is_a_warning(folder: Path) -> None:
    line(folder / "a.yaml", 0.5)
    check("a.yaml", "--baseline", "b.json", "--update")
    line(folder / "new.yaml", 0.5)
    (folder / "a.yaml").unlink()
    done = check("new.yaml", "--baseline", "b.json")
    assert done.code == 3
    assert "the baseline has nothing of this file; --update adds it" in done.stdout
    assert "the baseline has a file that is gone: a.yaml; --update leaves it out" in done.stdout
    done = check("new.yaml", "--baseline", "b.json", "--update")
    assert done.code == 0
    assert "a.yaml; left out now" in done.stdout
    assert list(entries(folder / "b.json")) == ["new.yaml"]


def test_an_update_keeps_what_was_not_checked_or_could_not_be(folder: Path) -> None:
    for name in ("a", "b", "c"):
        line(folder / f"{name}.yaml", 0.5)
    check(".", "--baseline", "b.json", "--update")
    line(folder / "a.yaml", 2.0)
    (folder / "b.yaml").write_text("{cell: rnn, hiden_size: 1}")
    assert check("a.yaml", "b.yaml", "--baseline", "b.json", "--update").code == 2
    found = entries(folder / "b.json")
    assert [found[name]["figures"]["verdict"]["value"] for name in ("a.yaml", "b.yaml", "c.yaml")] == [
        "exploding",
        "vanishing",
        "vanishing",
    ]


def test_expectations_come_beside_the_baseline(folder: Path) -> None:
    line(folder / "a.yaml", 0.5, {"horizon": ">= 50"})
    assert check("a.yaml", "--baseline", "b.json", "--update").code == 3
    found = outcomes("a.yaml", "--baseline", "b.json")
    assert (found["horizon"]["status"], found["baseline.horizon"]["status"]) == ("failed", "passed")
    assert found["baseline.horizon"]["line"] is None


# One figure against another.

numbers = st.floats(-1e6, 1e6).map(lambda x: round(x, 6))


@given(numbers, numbers, numbers, numbers)
def test_within_the_range_passes_and_outside_fails(one: float, two: float, three: float, now: float) -> None:
    low, value, high = sorted([one, two, three])
    found = compare_with_baseline("peak", Recorded(value, low, high), Figure(now, "x"))
    slack = 1e-6 * max(abs(low), abs(high))
    if low <= now <= high:
        assert found.status == "passed"
    elif now < low - 2 * slack or now > high + 2 * slack:
        assert found.status == "failed"


@given(numbers, numbers, st.floats(0, 10))
def test_a_tolerance_is_relative_but_for_logarithms_and_shares(value: float, now: float, tolerance: float) -> None:
    before, slack = Recorded(value, value - 1e9, value + 1e9), 3e-6 * (abs(value) * (1 + tolerance) + tolerance)
    for name, unit in (("peak", abs(value)), ("lyapunov", 1.0), ("clip_fraction", 1.0)):
        found = compare_with_baseline(name, before, Figure(now, "x"), tolerance).status
        room = tolerance * unit - abs(now - value)
        assert abs(room) <= slack or found == ("passed" if room > 0 else "failed")


@pytest.mark.parametrize(
    ("before", "now", "passes"),
    [
        (Recorded(math.inf), math.inf, True),
        (Recorded(math.inf), 5.0, False),
        (Recorded(math.inf, 10.0, math.inf), 12.0, True),
        (Recorded(math.inf, 10.0, math.inf), 9.0, False),
        (Recorded(5.0), math.inf, False),
        (Recorded(-math.inf), -math.inf, True),
        (Recorded(None), None, True),
        (Recorded(None), 1.0, False),
        (Recorded(1.0), None, False),
        (Recorded("stable"), "stable", True),
        (Recorded("stable"), "vanishing", False),
        (Recorded(True), True, True),
        (Recorded(True), False, False),
    ],
)
def test_what_has_no_bound_or_is_no_number(before: Recorded, now: Any, passes: bool) -> None:
    assert (compare_with_baseline("horizon", before, Figure(now, "x")).status == "passed") == passes


# The file.

values = (
    st.none() | st.booleans() | st.sampled_from(["stable", "dead"]) | st.integers(0, 10**6) | st.floats(-1e300, 1e300)
)
ends = st.floats(-1e300, 1e300) | st.sampled_from([math.inf, -math.inf])
ranges = st.tuples(ends, ends).map(sorted)
recorded = st.builds(Recorded, values) | st.builds(lambda value, ends: Recorded(value, *ends), ends, ranges)
figures = st.dictionaries(st.sampled_from(sorted(CURVE_FIGURES)), recorded)
specs = st.builds(Entry, st.text(max_size=20), st.integers(0, 2**63 - 1), figures)


def near(one: Any, other: Any) -> bool:
    return one == other or (isinstance(one, float) and math.isclose(one, other, rel_tol=1e-8))


@example({"a": Entry("", 0, {"rate": Recorded(0.0, 9.999999995000001e299, 9.999999995000003e299)})})
@given(st.dictionaries(st.text(max_size=20), specs, max_size=4))
def test_a_baseline_is_read_as_it_was_written(entries: dict[str, Entry]) -> None:
    text = write_baseline(entries)
    found = parse_baseline(text, "b.json")
    assert write_baseline(found) == text
    for path, entry in entries.items():
        assert (found[path].spec, found[path].seed) == (entry.spec, entry.seed)
        for name, one in entry.figures.items():
            again = found[path].figures[name]
            assert near(again.value, one.value)
            if one.low is not None and not near(one.low, one.high):
                assert near(again.low, one.low)
                assert near(again.high, one.high)


HEAD = '{"layout": 1, "command": "check"'
PEAK = HEAD + ', "files": {"a": {"spec": "x", "seed": 0, "figures": {"peak": {"value": %s}}}}}'


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "it is not JSON (line 1, column 1)"),
        ("{", "it is not JSON"),
        ("[" * 100_000, "it is not JSON"),
        ("\x00\ufffd", "it is not JSON"),
        ("[]", "is no baseline of gradcli check"),
        ("{}", "is no baseline of gradcli check"),
        ('{"layout": 1, "command": "simulate"}', "is no baseline of gradcli check"),
        ('{"layout": 2, "command": "check", "gradcli_version": "9.9"}', "layout 2, from gradcli '9.9'"),
        (HEAD + "}", "files"),
        (HEAD + ', "files": {"a": 1}}', "files.a"),
        (HEAD + ', "files": {"a": {"spec": "x", "seed": "0", "figures": {}}}}', "files.a.seed"),
        (PEAK % "NaN", "not JSON"),
        (PEAK % "1e999", "figures.peak.value"),
        (PEAK % "[]", "figures.peak.value"),
    ],
)
def test_what_is_no_baseline_is_refused_and_not_written_over(text: str, says: str, folder: Path) -> None:
    with pytest.raises(InputFileError, match="--update"):
        parse_baseline(text, "b.json")
    line(folder / "a.yaml", 0.5)
    (folder / "b.json").write_text(text)
    for option in ([], ["--update"]):
        done = check("a.yaml", "--baseline", "b.json", *option)
        assert (done.code, done.stdout) == (4, "")
        assert says in done.stderr
    assert (folder / "b.json").read_text() == text


def test_paths_of_a_baseline_may_be_anything(folder: Path) -> None:
    line(folder / "a.yaml", 0.5)
    odd = {name: Entry("x", 0, {}) for name in ("\x00", "x" * 5000, "../../..", "\x1b[31m", "a/../a.yaml")}
    (folder / "b.json").write_text(write_baseline(odd))
    done = check("a.yaml", "--baseline", "b.json")
    assert done.code == 3
    assert "\x1b" not in done.stdout
    assert check("a.yaml", "--baseline", "b.json", "--update").code == 0
