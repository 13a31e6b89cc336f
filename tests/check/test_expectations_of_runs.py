"""Expectations against what `gradcli simulate` says of the same spec, read independently, for every kind of verdict."""

from __future__ import annotations

import json
import math
import operator
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from checking import SMALL, check, line, outcomes, write
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from in_process import gradcli

from gradcli.spec.verdict_kinds import VERDICT_KINDS

# Every kind of verdict, by recurrences of one or two states.
KINDS: Mapping[str, Mapping[str, Any]] = {
    "stable": {"cell": "rnn", "init": {"W_hh": "orthogonal"}, "input": {"kind": "normal", "std": 0.01}},
    "vanishing": {"cell": "rnn", "init": {"W_hh": {"spectral_radius": 0.2}}},
    "exploding": {
        "cell": {"equations": "h[t] = W_hh @ h[t-1] + W_xh @ x[t]"},
        "init": {"W_hh": {"spectral_radius": 4}},
    },
    "transient": {
        "cell": {"equations": "h[t] = W_hh @ h[t-1]"},
        "params": {"W_hh": [[0.9, 1.0], [0.0, 0.9]]},
        "hidden_size": 2,
        "h_0": 1.0,
        "seq_len": 100,
        "loss": {"kind": "projection", "vector": [1.0, 0.0]},
    },
    "dead": {"cell": {"equations": "h[t] = W_hh @ h[t-1] + W_xh @ x[t]"}, "params": {"W_hh": 0.0}},
    "nonfinite": {"cell": {"equations": "h[t] = exp(W_hh @ h[t-1]) + W_xh @ x[t]"}, "init": {"W_hh": 10.0}},
}
# What has no half-life for a reason of its own, beside those.
ODD: Mapping[str, Mapping[str, Any]] = {
    "zero at once": {"cell": {"equations": "h[t] = 0 * (W_hh @ h[t-1])"}, "loss": {"kind": "mse", "target": 0.0}},
    "one step": {"cell": "rnn", "seq_len": 1},
    "two steps": {"cell": "rnn", "seq_len": 2},
    "a shift": {
        "cell": {"equations": "h[t] = W_hh @ h[t-1] + W_xh @ x[t]"},
        "params": {"W_hh": [[float(column == row + 1) for column in range(6)] for row in range(6)]},
        "hidden_size": 6,
        "loss": {"kind": "projection", "vector": [1.0, 0.0, 0.0, 0.0, 0.0, 0.0]},
    },
    "beyond a float": {
        "cell": {"equations": "h[t] = a * h[t-1] + W_xh @ x[t]"},
        "init": {"a": 1e30},
        "seq_len": 12,
        "loss": {"kind": "sum"},
        "input": "zeros",
    },
}

SIGNS = {">=": operator.ge, "<=": operator.le, ">": operator.gt, "<": operator.lt}
NUMBERS = ("horizon", "rate_per_step", "half_life", "peak", "clip_fraction")


def simulated(path: Path) -> dict[str, Any]:
    run: dict[str, Any] = gradcli("simulate", path, "--format", "json", "--quiet").report()["runs"][0]
    return run


def measured(run: Mapping[str, Any]) -> dict[str, Any]:
    """Return the figures as the JSON of `simulate` gives them: infinite what has no bound, None what is not there."""
    verdict = run["verdict"]
    kind, nothing = verdict["kind"], run["curve"] is None or run["curve"]["zero_from"] == 0
    rate, half_life = verdict["rate_per_step"], verdict["half_life"]
    if half_life is None and kind not in ("dead", "nonfinite") and (rate is not None or kind == "exploding"):
        half_life = math.inf
    horizon = verdict["horizon"]["threshold"]
    peak = verdict["peak"]["log10_ratio"]
    clip = run["clip"]
    return {
        "verdict": kind,
        "finite": kind != "nonfinite",
        "horizon": math.inf if horizon is None and kind != "nonfinite" else horizon,
        "rate_per_step": rate,
        "half_life": half_life,
        "peak": None if nothing else math.inf if peak > 300 else 10.0**peak,
        "clip_fraction": clip[0]["fraction_clipped"] if clip else None,
    }


def holds(expected: object, value: object) -> bool:
    if isinstance(expected, bool) or isinstance(value, str):
        return value == expected or (isinstance(expected, list) and value in expected)
    if value is None:
        return False
    assert isinstance(expected, str)
    assert isinstance(value, float | int)
    if ".." in expected:
        low, high = map(float, expected.split(".."))
        return low <= value <= high
    sign, bound = expected.split()
    return bool(SIGNS[sign](value, float(bound)))


def agree(path: Path, expect: Mapping[str, Any]) -> str:
    """Check that every expectation comes out as it does by the figures of `simulate`; return the verdict's kind."""
    run = simulated(path)
    figures, found = measured(run), outcomes(path)
    assert list(found) == [name for name in found if name in expect]
    assert set(found) == set(expect)
    for name, expected in expect.items():
        value, one = figures[name], found[name]
        assert (one["status"] == "passed") == holds(expected, value), (name, expected, value, one)
        finite = None if isinstance(value, float) and math.isinf(value) else value
        assert one["measured"] == (finite if isinstance(finite, str | bool | None) else pytest.approx(finite, rel=1e-9))
        said = str(one["message"])
        if one["status"] == "failed":
            assert said.startswith("expected ")
            assert str(one["expected"]) in said
        if value is None:
            assert "there is no " in said
        elif isinstance(value, float) and math.isinf(value) and name != "peak":
            assert "unbounded" in said
        elif name == "verdict":
            assert f"the verdict is {value}. {run['verdict']['reason'].removesuffix('.')}" in said
    return str(figures["verdict"])


bounds = st.sampled_from(["0", "0.2", "0.5", "1", "2", "3", "10", "11", "1e3", "1e30", "-1"])
numbers = st.one_of(
    st.builds("{} {}".format, st.sampled_from(sorted(SIGNS)), bounds),
    st.tuples(bounds, bounds).map(lambda ends: "..".join(sorted(ends, key=float))),
)
expectations = st.fixed_dictionaries(
    {},
    optional={
        "verdict": st.sampled_from(VERDICT_KINDS) | st.lists(st.sampled_from(VERDICT_KINDS), min_size=1),
        "finite": st.booleans(),
        **dict.fromkeys(NUMBERS, numbers),
    },
).filter(bool)
small_runs = settings(
    max_examples=12, deadline=None, derandomize=True, database=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)  # fmt: skip


@pytest.mark.parametrize("case", [*KINDS, *ODD])
def test_every_figure_of_every_kind_is_there_unbounded_or_missing_with_its_reason(case: str, tmp_path: Path) -> None:
    for written in (">= 0", "<= 1e3"):
        expect = {**dict.fromkeys(NUMBERS, written), "verdict": "stable", "finite": True}
        agree(write(tmp_path / "spec.yaml", expect, **{**KINDS, **ODD}[case]), expect)


@pytest.mark.parametrize("case", [*KINDS, *ODD])
@small_runs
@given(expect=expectations)
def test_it_agrees_with_simulate(case: str, expect: Mapping[str, Any], tmp_path: Path) -> None:
    path = write(tmp_path / "spec.yaml", expect, **{**KINDS, **ODD}[case])
    kind = agree(path, expect)
    assert case in ODD or kind == case


@settings(small_runs, max_examples=25)
@given(
    expect=expectations,
    cell=st.sampled_from(["rnn", "lstm", "gru", "irnn", "lru"]),
    gain=st.sampled_from([0.1, 0.5, 1.0, 2.0, 20.0]),
    std=st.sampled_from([0.01, 1.0, 10.0]),
    at=st.sampled_from(["last", "every", [3, 7]]),
    both=st.booleans(),
    seed=st.integers(0, 5),
)
def test_it_agrees_with_simulate_on_random_specs(
    expect: Mapping[str, Any], cell: str, gain: float, std: float, at: object, both: bool, seed: int, tmp_path: Path
) -> None:
    agree(
        write(
            tmp_path / "spec.yaml",
            expect,
            cell=cell,
            bidirectional=both,
            seed=seed,
            init={} if cell == "lru" else {"W_h*": {"normal": gain}},
            input={"kind": "normal", "std": std},
            loss={"kind": "mse", "at": at},
        ),
        expect,
    )


@pytest.mark.parametrize("factor", [0.5, 1.0, 2.0])
def test_a_line_has_the_figures_of_its_factor(factor: float, tmp_path: Path) -> None:
    path = line(
        tmp_path / "line.yaml",
        factor,
        {
            "rate_per_step": f"{factor - 1e-9}..{factor + 1e-9}",
            "half_life": "0.999999..1.000001" if factor < 1 else ">= 1e9",
            "horizon": 10 if factor < 1 else ">= 1000",  # 0.5^(d - 1) >= 1e-3
            "peak": f"{max(factor, 1) ** 19 - 1e-6}..{max(factor, 1) ** 19 + 1e-6}",
            "lyapunov": f"{math.log(factor) - 1e-9}..{math.log(factor) + 1e-9}",
            "certificate": factor < 1,
        },
    )
    done = check(path)
    assert done.code == 0, done.stdout


def test_figures_of_the_jacobian_are_those_of_its_command(tmp_path: Path) -> None:
    for name, spec in {"vanishing": KINDS["vanishing"], "stacked": {"cell": "lstm", "num_layers": 2}}.items():
        path = write(tmp_path / f"{name}.yaml", {"lyapunov": "< 100", "certificate": True}, **spec)
        found = outcomes(path)
        run = gradcli("jacobian", path, "--format", "json", "--quiet").report()["runs"][0]
        assert found["lyapunov"]["measured"] == pytest.approx(run["lyapunov"]["exponents"][0], rel=1e-9)
        assert found["certificate"]["measured"] == run["certificate"]["proves_vanishing"]


def test_a_run_that_is_not_finite_fails_every_number_with_its_reason(tmp_path: Path) -> None:
    expect = dict.fromkeys((*NUMBERS, "lyapunov"), ">= 0")
    found = outcomes(write(tmp_path / "spec.yaml", expect, **KINDS["nonfinite"]))
    assert [one["status"] for one in found.values()] == ["failed"] * 6
    for one in found.values():
        assert "is not finite at step" in one["message"]


def test_a_direction_that_is_mapped_to_zero_has_no_least_exponent(tmp_path: Path) -> None:
    found = outcomes(write(tmp_path / "spec.yaml", {"lyapunov": "< 0"}, **KINDS["dead"]))
    assert found["lyapunov"]["status"] == "passed"
    assert "-infinity" in found["lyapunov"]["message"]


def test_weights_of_every_step_prove_nothing(tmp_path: Path) -> None:
    found = outcomes(write(tmp_path / "spec.yaml", {"certificate": True}, tied=False, **KINDS["vanishing"]))
    assert "every step has weights of its own" in found["certificate"]["message"]


def test_only_what_is_asked_for_is_computed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def forbidden(*_: object, **__: object) -> None:
        raise AssertionError("computed for nothing")

    path = write(tmp_path / "spec.yaml", {"certificate": False})
    with monkeypatch.context() as patch:
        patch.setattr("gradcli.commands.checking.measure", forbidden)
        patch.setattr("gradcli.commands.checking.leading_exponents", forbidden)
        assert check(path).code == 0
        assert check(write(tmp_path / "other.yaml", {"horizon": ">= 0"})).code == 1
    with monkeypatch.context() as patch:
        patch.setattr("gradcli.commands.checking.leading_exponents", forbidden)
        patch.setattr("gradcli.commands.checking.prove", forbidden)
        patch.setattr("gradcli.diagnostics.clipping._Descent", forbidden)
        assert check(write(tmp_path / "spec.yaml", {"horizon": ">= 0", "finite": True}, clip=[{"norm": 1}])).code == 0


def test_the_first_method_is_the_one_that_is_asked_about(tmp_path: Path) -> None:
    path = write(tmp_path / "spec.yaml", {"clip_fraction": "> 0"}, clip=[{"value": 1e9}, {"norm": 1e-9}])
    one = outcomes(path)["clip_fraction"]
    assert (one["status"], one["measured"]) == ("failed", 0.0)
    assert "value 1e9" in one["message"]


def test_expectations_change_nothing_of_the_run(tmp_path: Path) -> None:
    plain, asked = write(tmp_path / "a.yaml"), write(tmp_path / "b.yaml", {"verdict": "stable", "clip_fraction": "< 1"})
    one, other = simulated(plain), simulated(asked)
    assert json.dumps(one["curve"]) == json.dumps(other["curve"])
    assert other["spec"].pop("expect") == {"verdict": "stable", "clip_fraction": "< 1"}
    assert one["spec"] == other["spec"]
    assert set(SMALL) <= set(one["spec"])
