"""What `gradcli jacobian` says of the long run, held against powers of matrices and trajectories worked out here."""

from __future__ import annotations

import json
import math
import re
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from in_process import gradcli
from simulated import ONE_SEQUENCE

CASCADE = """a[t] = 0.99 * a[t-1] + W @ x[t]
b[t] = 0.99 * b[t-1] + a[t]
c[t] = 0.99 * c[t-1] + b[t]
h[t] = 0.99 * h[t-1] + c[t]"""
INTEGRATOR = """v[t] = v[t-1] + W @ x[t]
h[t] = 5 * v[t]"""
ROTATION = """re[t] = c * re[t-1] - s * im[t-1] + W @ x[t]
im[t] = s * re[t-1] + c * im[t-1]
h[t] = 3 * re[t]"""

#: The cascade's map of one unit: b[t] has all of a[t] in it, and so on.
OF_CASCADE = 0.99 * np.tril(np.ones((4, 4)))


def written(folder: Path, spec: dict[str, Any]) -> Path:
    file = folder / "spec.yaml"
    file.write_text(json.dumps({**ONE_SEQUENCE, **spec}), encoding="utf-8")
    return file


def cell(equations: str, seq_len: int, size: int = 2, **fields: Any) -> dict[str, Any]:
    inner = {"equations": equations, **fields.pop("inner", {})}
    return {"cell": inner, "hidden_size": size, "input_size": size, "seq_len": seq_len, **fields}


def told(file: Path | str, *options: object) -> dict[str, str]:
    """Return the lines on growth, transient and certificate, by their labels."""
    finished = gradcli("jacobian", file, *options)
    assert finished.code == 0, finished.stderr
    found = re.findall(r"^(growth|transient|certificate) +(.*)$", finished.stdout, re.MULTILINE)
    return {label: " ".join(text.split()) for label, text in found}


def run_of(file: Path | str, *options: object) -> dict[str, Any]:
    finished = gradcli("jacobian", file, "--format", "json", *options)
    assert finished.code == 0, finished.stderr
    run: dict[str, Any] = finished.report()["runs"][0]
    return run


def checks(folder: Path, spec: dict[str, Any], expect: dict[str, Any]) -> dict[str, Any]:
    finished = gradcli("check", written(folder, {**spec, "expect": expect}), "--format", "json")
    return {one["name"]: one for one in finished.report()["files"][0]["checks"]}


def norms_of_powers(matrix: Any, most: int) -> list[float]:
    return [float(np.linalg.norm(np.linalg.matrix_power(matrix, d), 2)) for d in range(most + 1)]


def number_after(words: str, text: str) -> float:
    found = re.search(rf"{words} ([-0-9.e]+)", text)
    assert found is not None, text
    return float(found[1].rstrip("."))


# What the weights prove.


def test_a_bound_of_the_long_run_is_not_said_of_every_step(tmp_path: Path) -> None:
    largest = max(norms_of_powers(OF_CASCADE, 100)[1:])
    assert largest > 1e4  # though every eigenvalue is 0.99
    said = told(written(tmp_path, cell(CASCADE, 100)))["certificate"]
    assert "0.99 < 1 in the long run" in said
    assert "at least that fast" not in said
    assert "cannot explode" not in said
    assert largest <= number_after("no more than a factor", said) <= 1.1 * largest


def test_check_proves_no_more_than_the_long_run(tmp_path: Path) -> None:
    largest = max(norms_of_powers(OF_CASCADE, 100)[1:])
    found = checks(tmp_path, cell(CASCADE, 100), {"certificate": True})["certificate"]
    assert (found["status"], found["measured"]) == ("passed", True)
    assert "in the long run" in found["message"]
    assert largest <= number_after("no more than a factor", found["message"]) <= 1.1 * largest


@pytest.mark.parametrize(
    ("equations", "blocks", "says"),
    [
        # One state: the bound is that of every step.
        ("h[t] = 0.9 * h[t-1] + W @ x[t]", [[0.9]], "falls at least that fast"),
        # [[0.9, 0], [0.045, 0.9]]: smaller at every step, but not by 0.9.
        (
            "a[t] = 0.9 * a[t-1] + W @ x[t]\nh[t] = 0.9 * h[t-1] + 0.05 * a[t]",
            [[0.9, 0.0], [0.045, 0.9]],
            "falls at every step",
        ),
        ("a[t] = 0.9 * a[t-1] + W @ x[t]\nh[t] = 0.9 * h[t-1] + a[t]", [[0.9, 0.0], [0.9, 0.9]], "before, it may grow"),
    ],
)
def test_what_is_said_of_every_step_holds_at_every_step(
    equations: str, blocks: list[list[float]], says: str, tmp_path: Path
) -> None:
    said = told(written(tmp_path, cell(equations, 12)))["certificate"]
    assert says in said
    norms = norms_of_powers(np.array(blocks), 12)
    step = {"falls at least that fast": 0.9, "before, it may grow": math.inf}.get(says)
    most = number_after("falls at every step, to", said) if step is None else step
    assert all(later <= most * earlier * (1 + 1e-12) for earlier, later in pairwise(norms))


def test_a_bound_of_one_says_of_which_states_it_is(tmp_path: Path) -> None:
    one = np.array([[1.0, 0.0], [5.0, 0.0]])
    norms = norms_of_powers(one, 12)
    assert norms[1] == pytest.approx(math.sqrt(26))
    assert norms[2:] == pytest.approx([norms[1]] * 11)  # from then on, no step makes it larger
    said = told(written(tmp_path, cell(INTEGRATOR, 12)))
    assert "no step makes the gradient larger once it has left h" in said["certificate"]
    assert norms[1] <= number_after(r"\(a factor", said["certificate"]) <= norms[1] * 1.1
    assert "peaks at 5.1, 1 step back, and is 5.1 at 12 steps back" in said["transient"]


def test_a_read_out_without_a_bound_leaves_the_others_theirs(tmp_path: Path) -> None:
    chain = "v[t] = 0.5 * v[t-1] + W @ x[t]"
    said = told(written(tmp_path, cell(f"{chain}\nh[t] = exp(v[t])", 8)))["certificate"]
    assert "= 0.5 < 1: whatever the input, the gradient cannot explode and falls at least that fast once" in said
    assert "once it has left h, where no later step sends one (of whose slope no bound was found)" in said
    chain = "v[t] = 0.5 * v[t-1] + W @ x[t]\nu[t] = 0.5 * u[t-1] + 4 * v[t-1]"
    said = told(written(tmp_path, cell(f"{chain}\nh[t] = exp(u[t])", 8)))["certificate"]
    largest = max(norms_of_powers(np.array([[0.5, 0.0], [4.0, 0.5]]), 8)[1:])
    assert largest <= number_after("no more than a factor", said) <= 1.1 * largest
    assert "of whose slope no bound was found" in said


def test_a_bound_just_below_one_is_not_written_as_one(tmp_path: Path) -> None:
    said = told(written(tmp_path, cell("h[t] = 0.999999 * h[t-1] + W @ x[t]", 5)))["certificate"]
    assert "bound a step = 0.999999 < 1" in said


# Exponents.


@pytest.mark.parametrize("steps", [5, 20, 31])
def test_read_outs_have_no_part_in_growth(steps: int, tmp_path: Path) -> None:
    """A scaled rotation has the rate of its scale over any number of steps, whatever is read out of it."""
    spec = cell(ROTATION, steps, size=4, inner={"constants": {"c": 0.8956, "s": 0.3854}})
    rate = math.log(math.hypot(0.8956, 0.3854))
    run = run_of(written(tmp_path, spec), "--exponents", "all")
    assert run["state_size"] == 12
    assert run["lyapunov"]["exponents"][:8] == pytest.approx([rate] * 8, rel=1e-9)
    assert run["lyapunov"]["exponents"][8:] == [None] * 4
    assert (run["lyapunov"]["complete"], run["lyapunov"]["predictability_time"]) == (True, None)
    found = checks(tmp_path, spec, {"lyapunov": "<= 0"})["lyapunov"]
    assert (found["status"], found["measured"]) == ("passed", pytest.approx(rate, rel=1e-9))


def test_read_outs_of_read_outs_have_none_either(tmp_path: Path) -> None:
    equations = "v[t] = 0.9 * v[t-1] + W @ x[t]\nk[t] = 50 * v[t]\nh[t] = k[t-1]"
    exponents = run_of(written(tmp_path, cell(equations, 10)), "--exponents", "all")["lyapunov"]["exponents"]
    assert exponents == [pytest.approx(math.log(0.9), rel=1e-9)] * 2 + [None] * 4


def test_what_is_not_carried_at_all_has_no_finite_exponent(tmp_path: Path) -> None:
    run = run_of(written(tmp_path, cell("h[t] = tanh(W @ x[t])", 6)))
    assert run["lyapunov"]["exponents"] == [None, None]


def test_exponents_beside_a_read_out_are_those_of_the_carried_map(tmp_path: Path) -> None:
    """Their sum is ln abs(det W) + the mean of sum ln(1 - s^2), along the trajectory that is worked out here."""
    size, steps = 6, 25
    weights = 1.3 * np.random.default_rng(5).standard_normal((size, size)) / math.sqrt(size)
    start = np.random.default_rng(6).standard_normal(size)
    spec = {
        "cell": {"equations": "s[t] = tanh(W @ s[t-1])\nh[t] = 30 * s[t]"},
        "hidden_size": size,
        "seq_len": steps,
        "params": {"W": weights.tolist()},
        "s_0": start.tolist(),
    }
    run = run_of(written(tmp_path, spec), "--exponents", "all", "--burn-in", 0)
    logs, s = [], start
    for _ in range(steps):
        s = np.tanh(weights @ s)
        logs.append(np.log1p(-(s**2)).sum())
    exponents = run["lyapunov"]["exponents"]
    assert exponents[size:] == [None] * size
    assert sum(exponents[:size]) == pytest.approx(np.linalg.slogdet(weights)[1] + np.mean(logs), rel=1e-9)


@pytest.mark.parametrize(
    ("spec", "rate"),
    [
        (cell(CASCADE, 100), 0.99),  # proven by the bounds
        # The same map at every step: its own radius proves it.
        (cell("h[t] = W @ h[t-1]", 8, params={"W": [[0.9, 1.0], [0.0, 0.9]]}, h_0=1.0), 0.9),
    ],
)
def test_growth_over_few_steps_is_not_called_unpredictable(spec: dict[str, Any], rate: float, tmp_path: Path) -> None:
    run = run_of(written(tmp_path, spec))["lyapunov"]
    assert run["exponents"][0] > 0 > math.log(rate)
    assert run["long_run_bound"] == pytest.approx(math.log(rate), rel=1e-6)
    assert (run["predictability_time"], run["kaplan_yorke_dimension"], run["entropy"]) == (None, 0.0, 0.0)
    said = told(tmp_path / "spec.yaml")["growth"]
    assert "predictability time" not in said
    assert "Kaplan-Yorke" not in said
    assert f"steps only: in the long run, the weights prove, it is at most {math.log(rate):.4g}" in said
    found = checks(tmp_path, spec, {"lyapunov": "<= 0"})["lyapunov"]
    assert (found["status"], found["measured"]) == ("passed", pytest.approx(math.log(rate), rel=1e-6))
    assert "in the long run" in found["message"]


def test_a_neutral_direction_neither_grows_nor_falls(tmp_path: Path) -> None:
    run = run_of(written(tmp_path, cell(INTEGRATOR, 12, size=4)), "--exponents", "all")["lyapunov"]
    assert run["exponents"] == [0.0] * 4 + [None] * 4
    assert (run["predictability_time"], run["kaplan_yorke_dimension"]) == (None, 4.0)


def kaplan_yorke(exponents: list[float]) -> float:
    total = 0.0
    for j, value in enumerate(exponents):
        if total + value < 0:
            return j + total / abs(value)
        total += value
    return float(len(exponents))


@pytest.mark.parametrize("trials", [2, 3, 4])
def test_what_is_made_of_exponents_is_made_of_those_that_are_told(trials: int, tmp_path: Path) -> None:
    chaos = {"h_0": {"normal": {"std": 1}}, "init": {"W": {"normal": {"std": 0.6}}}}
    spec = cell("h[t] = tanh(W @ h[t-1])", 60, size=20, trials=trials, **chaos)
    run = run_of(written(tmp_path, spec), "--exponents", "all")["lyapunov"]
    exponents = run["exponents"]
    assert exponents[0] > 0
    assert run["predictability_time"] == pytest.approx(math.log(2) / exponents[0], rel=1e-12)
    assert run["kaplan_yorke_dimension"] == pytest.approx(kaplan_yorke(exponents), rel=1e-12)
    assert run["entropy"] == pytest.approx(sum(value for value in exponents if value > 0), rel=1e-12)


# Trials.


def matrices_of(file: Path, folder: Path) -> Any:
    saved = folder / "run.npz"
    assert gradcli("simulate", file, "--save", saved).code == 0
    return np.load(saved)["param.layer0.W"]


def test_the_median_and_the_mean_of_the_norm_are_keys_of_their_own(tmp_path: Path) -> None:
    spec = cell("h[t] = W @ h[t-1]", 20, size=5, trials=3, h_0=1.0, init={"W": {"normal": {"std": 0.5}}})
    file = written(tmp_path, spec)
    weights, run = matrices_of(file, tmp_path), run_of(file)
    norms = np.array([[np.linalg.norm(np.linalg.matrix_power(w, d)) for d in range(21)] for w in weights])
    assert run["frobenius"]["log10_norm"] == pytest.approx(np.log10(np.median(norms, axis=0)), abs=1e-9)
    mean = np.log10(norms.mean(axis=0))
    assert run["frobenius"]["log10_norm_mean"] == pytest.approx(mean, abs=1e-9)
    assert run["verdict"]["end"]["log10_ratio"] == pytest.approx(mean[-1] - mean[1], abs=1e-9)
    assert abs(mean - np.log10(np.median(norms, axis=0))).max() > 0.1  # the two are not told apart by chance
    assert "the verdict is on the mean of the norm ||J||_F" in gradcli("jacobian", file).stdout


@pytest.mark.parametrize("trials", [1, 2, 4])
def test_the_peak_is_one_of_a_trial(trials: int, tmp_path: Path) -> None:
    spec = cell("h[t] = W @ h[t-1]", 40, size=3, trials=trials, h_0=1.0, init={"W": {"normal": {"std": 0.5}}}, seed=3)
    file = written(tmp_path, spec)
    weights, run = matrices_of(file, tmp_path), run_of(file)
    norms = np.array([norms_of_powers(w, 40) for w in weights])
    middle = np.argsort(norms.max(axis=1))[(trials - 1) // 2]
    assert run["peak"]["distance"] == norms[middle].argmax()
    assert run["peak"]["log10_largest"] == pytest.approx(np.log10(norms[middle].max()), abs=1e-6)


def test_a_gain_that_is_still_there_is_not_called_faded(tmp_path: Path) -> None:
    # 0.99^d (1 + ...): rises to 37 at 99 steps back; at 120 it has hardly fallen.
    matrix = [[0.99, 1.0], [0.0, 0.99]]
    norms = norms_of_powers(np.array(matrix), 120)
    file = written(tmp_path, cell("h[t] = W @ h[t-1]", 120, params={"W": matrix}, h_0=1.0))
    said = told(file)["transient"]
    assert f"peaks at {max(norms):.2g}, {np.argmax(norms)} steps back, and is {norms[-1]:.2g} at 120 steps back" in said
    assert "fades later" not in said
    assert "has not faded" in said
    assert "fades later" in told(file, "-T", 900)["transient"]


def test_zeros_of_read_outs_are_exact(tmp_path: Path) -> None:
    finished = gradcli("jacobian", written(tmp_path, cell(INTEGRATOR, 5)))
    row = next(line for line in finished.stdout.splitlines() if re.match(r" +3 ", line))
    assert row.count("0 exactly") == 2
    assert "no later step sends h a gradient: 2 directions end in exactly 0" in finished.stdout


# Gradients that are not those of the dynamics.


def test_a_surrogate_tells_nothing_of_predictability(tmp_path: Path) -> None:
    options = ("-T", 12, "--hidden-size", 4)
    for name in ("lif", "alif", "plif", "rlif", "synaptic"):
        said = told(name, *options)["growth"]
        assert "of the surrogate's Jacobian, not of the dynamics" in said
        assert "predictability" not in said
        assert "Kaplan" not in said
    run = run_of("lif", *options)["lyapunov"]
    assert run["exponents"][0] == pytest.approx(math.log(0.9), rel=1e-9)  # its leak, by which no spike passes
    assert run["of_dynamics"] is False
    assert (run["predictability_time"], run["kaplan_yorke_dimension"], run["entropy"]) == (None, None, None)


def test_what_stop_holds_back_is_told_and_ties_of_max_are_not(tmp_path: Path) -> None:
    held = cell("h[t] = 0.5 * h[t-1] + stop(tanh(W @ h[t-1])) + U @ x[t]", 10)
    assert "what stop(...) holds back" in told(written(tmp_path, held))["growth"]
    tied = cell("h[t] = 0.5 * h[t-1] + 0.1 * max(h[t-1]) + U @ x[t]", 10)
    assert "stop" not in told(written(tmp_path, tied))["growth"]
    assert run_of(tmp_path / "spec.yaml")["lyapunov"]["of_dynamics"] is True


def test_check_says_that_a_gradient_is_the_surrogates(tmp_path: Path) -> None:
    asked = {"verdict": "exploding", "horizon": ">= 1", "finite": True, "certificate": True, "lyapunov": "<= 0"}
    spiking = checks(tmp_path, {"cell": "lif", "hidden_size": 4, "seq_len": 12}, asked)
    assert {
        name for name, one in spiking.items() if "has that of its surrogate, atan with k = 2" in one["message"]
    } == {
        "verdict",
        "horizon",
        "certificate",
        "lyapunov",
    }
    stopping = checks(tmp_path, {"cell": "skip-gru", "hidden_size": 4, "seq_len": 12}, asked)
    told = {name for name, one in stopping.items() if "What stop(...) holds passes no gradient" in one["message"]}
    assert told == {"verdict", "horizon", "certificate", "lyapunov"}
    plain = checks(tmp_path, {"cell": "rnn", "hidden_size": 4, "seq_len": 12}, asked)
    assert not any("surrogate" in one["message"] or "stop(" in one["message"] for one in plain.values())


def test_a_few_steps_without_a_standard_error_foretell_nothing() -> None:
    """An LMU's window turns what it holds, and grows for some steps; nothing is proven of its tanh network."""
    sizes = ("--hidden-size", 4, "--input-size", 3, "--trials", 1)
    lyapunov = gradcli("jacobian", "lmu", "-T", 12, *sizes, "--format", "json").report()["runs"][0]["lyapunov"]
    assert lyapunov["exponents"][0] > 0
    assert lyapunov["standard_error"][0] is None
    few, many = (gradcli("jacobian", "lmu", "-T", steps, *sizes).stdout for steps in (12, 200))
    assert "over 11 steps, too few for a standard error, so that it may be a transient's" in " ".join(few.split())
    assert "predictability time" not in few
    assert "too few" not in many
