"""The pictures of `jacobian`, `contributions`, `gates`, `paths`: the JSON's numbers, and words that they bear out."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest
from measured import SMALL

import gradcli
from gradcli.formats.drawing import render_picture
from gradcli.results.pictures import Array, BarChart, LineChart, Series
from gradcli.results.result import Result

BLOW = {"cell": {"name": "blow", "equations": "h[t] = exp(h[t-1]) + W_x @ x[t]"}}
#: h[t] = W h[t-1] with W^4 = 0: exact zeros from 4 steps back on.
SHIFT = {
    "cell": {"name": "shift", "equations": "h[t] = W @ h[t-1] + W_x @ x[t]"},
    "params": {"W": np.eye(4, k=-1).tolist()},
}
COMMANDS = {
    "jacobian": gradcli.jacobian,
    "contributions": gradcli.contributions,
    "gates": gradcli.gates,
    "paths": gradcli.paths,
}
SPECS: dict[str, Any] = {
    "lstm": "lstm",
    "rnn": "rnn",
    "shift": SHIFT,
    "blow": BLOW,
    "no parameters": {"cell": {"name": "none", "equations": "h[t] = 0.5 * h[t-1] + x[t]"}, "input_size": 5},
}


def result(command: str, spec: str, **options: Any) -> Result:
    sizes = {**SMALL, "input_size": 5} if spec == "no parameters" else {**SMALL}
    if spec == "shift":
        sizes["hidden_size"] = 4
    return COMMANDS[command](SPECS[spec], **{**sizes, **options})  # type: ignore[operator]


def run_of(found: Result) -> dict[str, Any]:
    run: dict[str, Any] = found.to_dict()["runs"][0]
    return run


def series_of(found: Result, name: str) -> dict[str, Series]:
    picture = found.picture(name)
    assert isinstance(picture, LineChart)
    return {one.label: one for one in picture.series}


def numbers(values: Any) -> Array:
    return np.array([np.nan if value is None else value for value in values], dtype=float)


def same(shown: Array, given: Any) -> None:
    """Check that what is shown is what the JSON has; where that has null, a picture has no finite number."""
    expected = numbers(given)
    np.testing.assert_array_equal(np.where(np.isfinite(shown), shown, np.nan), expected)


@pytest.mark.parametrize("spec", SPECS)
@pytest.mark.parametrize("command", COMMANDS)
def test_every_picture_has_a_title_a_description_and_can_be_drawn(command: str, spec: str) -> None:
    found = result(command, spec)
    assert found.pictures
    for name in found.pictures:
        picture = found.picture(name)
        assert picture.name == name
        assert picture.title
        assert picture.description.endswith(".")
        assert "hidden" in picture.subtitle
        assert render_picture(picture, ".svg")


@pytest.mark.parametrize("command", COMMANDS)
def test_what_is_not_finite_has_no_curve_and_says_where(command: str) -> None:
    found = result(command, "blow")
    for name in found.pictures:
        picture = found.picture(name)
        assert isinstance(picture, LineChart)
        assert not picture.series
        assert "not finite" in picture.description
        assert picture.title.endswith(": nonfinite")


# jacobian.


def test_singular_values_are_those_of_the_json() -> None:
    for spec in ("lstm", "rnn", "shift"):
        found = result("jacobian", spec)
        run, shown = run_of(found), series_of(found, "curve")
        values = run["singular_values"]
        for label, key in (("largest", "log10_largest"), ("median", "log10_median"), ("smallest", "log10_smallest")):
            same(shown[label].y, values[key])
            np.testing.assert_array_equal(shown[label].x, values["distance"])
        assert shown["largest"].low is not None
        same(shown["largest"].low, values["log10_largest_p10"])
        assert shown["largest"].high is not None
        same(shown["largest"].high, values["log10_largest_p90"])
        same(shown["Frobenius norm"].y, run["frobenius"]["log10_norm"])
        bounds = numbers(values["log10_bound"])
        bound = shown.get("proven bound of the largest")
        assert (bound is not None) == bool(np.isfinite(bounds).any())
        if bound is not None:
            same(bound.y, values["log10_bound"])
            largest = shown["largest"].y
            assert (largest <= bound.y + 1e-9)[np.isfinite(largest) & np.isfinite(bound.y)].all()


def test_exponents_are_points_and_their_number_is_told() -> None:
    found = result("jacobian", "rnn", exponents="all")
    picture, exponents = found.picture("lyapunov"), numbers(run_of(found)["lyapunov"]["exponents"])
    assert isinstance(picture, LineChart)
    (one,) = picture.series
    np.testing.assert_array_equal(one.y, exponents)
    np.testing.assert_array_equal(one.x, np.arange(1, len(exponents) + 1))
    assert f"{len(exponents)} of {len(exponents)} exponents" in picture.subtitle
    match = re.fullmatch(
        r"The leading Lyapunov exponent is (\S+) nats a step; (\d+) of (\d+) exponents are positive\.",
        picture.description,
    )
    assert match
    assert float(match[1]) == pytest.approx(exponents[0], rel=1e-3)
    assert (int(match[2]), int(match[3])) == (int((exponents > 0).sum()), len(exponents))
    dead = result("jacobian", "shift").picture("lyapunov")
    assert dead.description.startswith("The leading Lyapunov exponent is minus infinity")


# contributions.


def test_terms_are_those_of_the_json_and_the_largest_parameters_are_drawn() -> None:
    found = result("contributions", "lstm")
    run, shown = run_of(found), series_of(found, "curve")
    same(shown.pop("all parameters").y, run["joint"]["terms"]["log10_norm"])
    same(shown.pop("state curve, mean of |dL/ds|").y, run["state_curve"]["log10_norm_mean"][:-1])
    largest = sorted(run["parameters"], key=lambda name: -run["parameters"][name]["log10_norm"])
    assert list(shown) == largest[:4]
    for name, one in shown.items():
        same(one.y, run["parameters"][name]["terms"]["log10_norm"])
    assert f"; {len(largest) - 4} parameters with smaller gradients are not drawn" in found.picture("curve").subtitle


def test_shares_and_errors_are_those_of_the_json() -> None:
    found = result("contributions", "rnn", seq_len=60)
    run = run_of(found)["joint"]
    shares = series_of(found, "shares")
    same(shares["this distance"].y, run["terms"]["share"])
    same(shares["all up to this distance"].y, run["truncated"]["share_kept"])
    assert shares["all up to this distance"].y[-1] == pytest.approx(1)
    errors = series_of(found, "truncation")
    bias, cosine = errors["relative bias |G_K - G| / |G|"], errors["1 - cosine of G_K and G"]
    np.testing.assert_array_equal(bias.x, run["truncated"]["window"])
    for one, given in ((bias, numbers(run["truncated"]["bias"])), (cosine, 1 - numbers(run["truncated"]["cosine"]))):
        drawn = np.isfinite(one.y)
        np.testing.assert_allclose(10.0 ** one.y[drawn], given[drawn], rtol=1e-12)
        assert (given[~drawn] < 1e-12).all()  # nothing but rounding


def test_the_windows_of_the_title_are_those_of_the_marks() -> None:
    found = result("contributions", "rnn", seq_len=60)
    run = run_of(found)["joint"]
    windows = {row["tolerance"]: row["by_bias"] for row in run["smallest_window"]}
    bias = numbers(run["truncated"]["bias"])
    for tolerance, window in windows.items():
        assert bias[window - 1] <= tolerance
        assert window == 1 or bias[window - 2] > tolerance
    title = found.picture("curve").title
    assert title.endswith(
        f": keeps the gradient to within 5 % with {windows[0.05]}, to within 1 % with {windows[0.01]} steps"
    )
    for name, shift in (("curve", 1), ("shares", 1), ("truncation", 0)):
        picture = found.picture(name)
        assert isinstance(picture, LineChart)
        places = {mark.label: mark.position + shift for mark in picture.marks}
        assert places == {"within 5 %": windows[0.05], "within 1 %": windows[0.01]}
        assert title.partition(": ")[2] in picture.description


def test_without_a_gradient_or_parameters_it_is_said() -> None:
    found = result("contributions", "no parameters")
    for name in found.pictures:
        assert found.picture(name).title.endswith(": no parameters")
        assert "no parameters" in found.picture(name).description


# gates.


def test_gates_and_rates_are_those_of_the_json() -> None:
    found = result("gates", "lstm")
    run = run_of(found)
    curve, slopes, rates = (series_of(found, name) for name in ("curve", "slopes", "rates"))
    assert list(curve) == list(slopes) == list(run["activations"])
    for name, gate in run["activations"].items():
        same(curve[name].y, gate["mean"])
        assert curve[name].low is not None
        np.testing.assert_allclose(curve[name].y - curve[name].low, numbers(gate["std"]), rtol=1e-9)
        same(slopes[name].y, gate["slope_on_gradient"])
    for label, key in (("rate", "rate"), ("activations", "activations"), ("weights", "weights")):
        same(rates[label].y, run["rates"][key])
    total = sum(one.y for label, one in rates.items() if label != "rate")
    np.testing.assert_allclose(total, rates["rate"].y, rtol=1e-9)  # the parts add up
    assert run["cause"]["text"] in found.picture("rates").subtitle
    assert found.picture("curve").description.endswith(f"Main cause: {run['cause']['text']}.")


# paths.


def test_routes_are_bars_of_their_shares_the_largest_first() -> None:
    found = result("paths", "lstm")
    picture = found.picture()
    assert isinstance(picture, BarChart)
    tables = {}
    for table in run_of(found)["routes"]:
        tables[table["end"]] = sorted((route["projection"] for route in table["shares"]), key=lambda one: -abs(one))
    shown: dict[str, list[Any]] = {}
    for bar in picture.bars:
        shown.setdefault(bar.group.rpartition(" back to ")[2][0], []).append(bar.values[0])
    assert shown == tables
    for values in shown.values():
        assert sum(values) == pytest.approx(1)
    first: dict[str, Any] = {}
    for bar in picture.bars:
        first.setdefault(bar.group, bar)
    assert picture.title.endswith(", ".join(f"{bar.label} ({bar.values[0]:.2g})" for bar in first.values()))


def test_the_direct_route_is_beside_the_whole_gradient() -> None:
    found = result("paths", "lstm")
    shown = series_of(found, "direct")
    (route,) = run_of(found)["direct"]
    same(shown["whole gradient of c"].y, route["log10_total"])
    same(shown["direct route of c alone"].y, route["log10_direct"])
    assert (
        found.picture("direct").title
        == f"lstm: the direct route carries the gradient of c up to {route['carries_to']} steps back"
    )
    none = result("paths", "rnn").picture("direct")
    assert none.title == "rnn: there is no direct route"


def test_formulas_alone_have_no_pictures() -> None:
    found = gradcli.paths("lstm", formulas_only=True, **SMALL)  # type: ignore[arg-type]
    assert not found.pictures
    with pytest.raises(gradcli.GradcliError, match="no pictures"):
        found.plot()


def test_a_route_that_is_exactly_zero_is_no_number() -> None:
    picture = result("paths", "shift", distance=6).picture()
    assert picture.title.endswith(": no gradient")
    assert picture.description == "No route leads back to an earlier state, or the gradient there is exactly zero."
