"""An independent reading of what is saved, against what is concluded: random specs, and every sentence that disagrees.

Written from the published meaning of the numbers alone, and sharing no code with the diagnostics. What `--save` holds
of a run (gradients as mantissa * 2**log2) is read anew, and every figure of the JSON and every sentence of the screen
that can be read off it is compared. Where a definition leaves a case open (a curve that alternates around a threshold,
a hump of less than tenfold) each of its readings is accepted.

    OPENBLAS_NUM_THREADS=1 python tests/search/independent_reading.py --specs 2000 --seed 0
"""

from __future__ import annotations

import argparse
import json
import math
import re
import shlex
import sys
import time
import traceback
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import numpy as np

from gradcli import cells
from gradcli.commands.gates import gates
from gradcli.commands.simulate import simulate
from gradcli.errors import GradcliError
from gradcli.formats import render
from gradcli.spec.reader import LoadedSpec, load_spec

Array = np.ndarray[Any, Any]
Options = dict[str, Any]

FLOAT32_EPSILON = math.log10(2.0**-23)
# A gradient so many digits below that of all states together may be nothing but rounding.
ROUNDING_DIGITS = {"float64": 13, "float32": 5}
TIE = 1e-9  # log10; nearer than that to a threshold, either side will do
ALTERNATING = 8  # a curve may dip again and again after so many steps at most
HUMP, TALL = math.log10(2.0), 1.0  # below the first there is no hump, from the second on there certainly is


# What is read off the arrays.


@dataclass(frozen=True)
class Reading:
    """The norms of some states together: log10 of each sequence's at each distance, (T+1, sequences)."""

    each: Array

    @property
    def mean(self) -> Array:
        top = self.each.max(axis=1, keepdims=True)
        with np.errstate(all="ignore"):
            found = top[:, 0] + np.log10(np.mean(10.0 ** (self.each - top), axis=1))
        return np.where(np.isneginf(top[:, 0]), -np.inf, found)

    @property
    def ordered(self) -> Array:
        return np.sort(self.each, axis=1)


def read_norms(arrays: Mapping[str, Array], names: Sequence[str]) -> Reading:
    """Return log10 of the norm of some states' gradient together, by distance back from the last step."""
    squares = []
    for name in names:
        mantissa, log2 = arrays[f"grad_state.{name}"], arrays[f"log2_state.{name}"]
        largest = np.abs(mantissa).max(axis=-1)
        with np.errstate(all="ignore"):
            unit = np.where(largest > 0, largest, 1.0)
            norm = np.sqrt(np.square(mantissa / unit[..., None]).sum(axis=-1))
            squares.append(np.where(largest > 0, np.log2(norm) + np.log2(unit) + log2, -np.inf))
    top = np.maximum.reduce(squares)
    with np.errstate(all="ignore"):
        total = top + 0.5 * np.log2(sum(np.exp2(2.0 * (one - top)) for one in squares))
    total = np.where(np.isneginf(top), -np.inf, total) * math.log10(2.0)  # (R, T+1, B)
    return Reading(total[:, ::-1].transpose(1, 0, 2).reshape(total.shape[1], -1))


def reference_of(curve: Array) -> int | None:
    """Return the distance that a curve is relative to: one step after the first with a gradient."""
    alive = np.flatnonzero(curve > -np.inf)
    if not alive.size:
        return None
    later = alive[alive > alive[0]]
    return int(later[0]) if later.size else int(alive[0])


@dataclass(frozen=True)
class Thresholds:
    low: float
    high: float


def closings(ratio: Array) -> list[float]:
    """Return what may count as the end: the last ratio, or where the curve dips again and again, one that is no dip."""
    last = ratio[-ALTERNATING - 1 :]
    inner = np.flatnonzero((last[1:-1] < last[:-2] - TIE) & (last[1:-1] < last[2:] - TIE))
    return [float(last[-1]), *([float(last.max())] if inner.size else [])]


def kinds_of(curve: Array, limits: Thresholds, reference: int) -> set[str]:
    """Return the kinds that the definitions allow for a curve relative to a distance."""
    ratio = curve[reference:] - curve[reference]
    return set().union(*(_kinds(ratio, end, limits) for end in closings(ratio)))


def _kinds(ratio: Array, end: float, limits: Thresholds) -> set[str]:
    peak = float(ratio.max())
    if np.isneginf(end):
        return {"dead"}
    found = set()
    for shift in (-TIE, TIE):
        low, high = limits.low + shift, limits.high + shift
        if end >= high:
            found.add("exploding")
        elif peak >= high:
            # Past the threshold and on its way down: back for good when it has vanished, or fallen far.
            found |= {"transient"} if end < low else {"transient", "exploding"}
        elif end < low:
            found |= (
                {"vanishing"} if peak < HUMP - TIE else {"transient"} if peak >= TALL else {"transient", "vanishing"}
            )
        else:
            # A hump that has come back by tenfold is transient, or has merely not vanished yet.
            found |= {"stable", "transient"} if peak >= HUMP - TIE and peak - end >= TALL - TIE else {"stable"}
    return found


def horizons_of(curve: Array, threshold: float, reference: int) -> set[int | None]:
    """Return the largest distances at which the ratio is above a threshold, for good; None where that is the end."""
    ratio = curve - curve[reference]
    found: set[int | None] = set()
    for shift in (-TIE, TIE):
        above = np.flatnonzero(ratio >= threshold + shift)
        last = int(above[-1]) if above.size else 0
        found.add(None if last == len(curve) - 1 else last)
        if last >= len(curve) - 1 - ALTERNATING and len(closings(ratio[reference:])) > 1:
            found.add(None)
    return found


# What was said.


@dataclass
class Case:
    """One spec, and what disagrees in it."""

    cell: str
    options: Options
    disagreements: list[str] = field(default_factory=list)
    refused: str = ""
    checks: int = 0

    def expect(self, holds: bool, what: str) -> None:
        self.checks += 1
        if not holds:
            self.disagreements.append(what)

    def close(self, found: Any, expected: float, what: str, tolerance: float = 1e-7) -> None:
        if np.isneginf(expected):
            self.expect(found is None, f"{what}: {found}, read 0 exactly")
        else:
            same = found is not None and math.isclose(found, expected, rel_tol=tolerance, abs_tol=tolerance)
            self.expect(same, f"{what}: {found}, read {expected:.10g}")


def top_states(arrays: Mapping[str, Array]) -> list[str]:
    names = [name.removeprefix("grad_state.") for name in arrays if name.startswith("grad_state.")]
    top = max((name.partition(".")[0] for name in names), key=lambda layer: int(layer.removeprefix("layer")))
    return [name for name in names if name.startswith(f"{top}.")]


def numbers(values: Sequence[float | None]) -> Array:
    return np.array([-np.inf if value is None else value for value in values])


def check_verdict(case: Case, verdict: Mapping[str, Any], curve: Array, limits: Thresholds, where: str) -> None:
    """Compare a verdict with the curve that it is of."""
    reference = reference_of(curve)
    if reference is None:
        case.expect(verdict["kind"] == "dead", f"{where} kind: {verdict['kind']}, read dead: no gradient anywhere")
        return
    allowed = kinds_of(curve, limits, reference)
    case.expect(verdict["kind"] in allowed, f"{where} kind: {verdict['kind']}, read {sorted(allowed)}")
    for key, threshold in (("threshold", limits.low), ("float32", FLOAT32_EPSILON)):
        found, read = verdict["horizon"][key], horizons_of(curve, threshold, reference)
        case.expect(found in read, f"{where} horizon.{key}: {found}, read {sorted(read, key=str)}")
    if "peak" in verdict:
        check_figures(case, verdict, curve, reference, where)
    check_rate(case, verdict, curve, reference, limits, where)


def check_figures(case: Case, verdict: Mapping[str, Any], curve: Array, reference: int, where: str) -> None:
    ratio = curve - curve[reference]
    case.close(verdict["peak"]["log10_ratio"], float(ratio[reference:].max()), f"{where} peak")
    at = verdict["peak"]["distance"]
    case.expect(ratio[at] >= ratio[reference:].max() - 1e-6, f"{where} peak.distance: {at}, where r is 10^{ratio[at]}")
    halved = np.flatnonzero(ratio[reference:] <= -HUMP)
    nearly = np.flatnonzero(ratio[reference:] <= -HUMP + TIE)
    read = {reference + int(one[0]) if one.size else None for one in (halved, nearly)}
    case.expect(verdict["halved_at"] in read, f"{where} halved_at: {verdict['halved_at']}, read {read}")
    start = int(np.flatnonzero(curve > -np.inf)[0])
    if start < reference:
        case.close(verdict["first_step"]["log10_ratio"], float(curve[reference] - curve[start]), f"{where} first_step")


def check_rate(
    case: Case, verdict: Mapping[str, Any], curve: Array, reference: int, limits: Thresholds, where: str
) -> None:
    """Compare the rate with a line through the end of the curve, and what is derived from it with the rate."""
    rate, half_life, pattern = verdict["rate_per_step"], verdict["half_life"], verdict.get("pattern")
    if rate is None:
        case.expect(half_life is None, f"{where} half_life {half_life} without a rate")
        return
    if half_life is not None:
        case.close(half_life, -math.log(2) / math.log(rate) if rate < 1 else math.inf, f"{where} half_life of {rate}")
    elif pattern is not None:
        # An unsteady curve need not fall although the line through it does.
        may = rate >= 1 or pattern in ("flat", "mixed")
        case.expect(may, f"{where} half_life null at rate {rate}, pattern {pattern}")
    alive = np.flatnonzero(curve > -np.inf)
    last = int(alive[-1])
    if last - reference < 6 or pattern is None:
        return
    slopes = [slope_of(curve, first, last) for first in line_starts(curve, reference, last)]
    scatter = 0.05 + 0.35 * max(abs(s) for s in slopes)
    said = math.log(rate)
    inside = min(slopes) - scatter <= said <= max(slopes) + scatter
    case.expect(inside, f"{where} rate {rate:.5g}: {said:.4g} nats a step, read {[round(s, 4) for s in slopes]}")
    if pattern == "exponential":
        # What is called exponential lies about a line: its last half scatters by less than the line falls in all.
        tail = curve[(reference + last) // 2 : last + 1]
        tail = tail[tail > -np.inf]
        away = tail - np.arange(len(tail)) * math.log10(rate)
        off = float(np.std(away))
        whole = (last - reference) * abs(math.log10(rate))
        case.expect(off < 0.3 + 0.3 * whole, f"{where} exponential, but scatters by 10^{off:.2f} of 10^{whole:.2f}")
    check_forecast(case, verdict, curve, reference, limits, where)


def line_starts(curve: Array, reference: int, last: int) -> list[int]:
    """Return where a line through the tail may begin: quarter by quarter, and after a hump at it or halfway from it."""
    starts = {reference + (last - reference) * quarters // 4 for quarters in range(4)}
    peak = reference + int(np.argmax(curve[reference : last + 1]))
    if curve[peak] - curve[reference] >= HUMP and peak < last:
        starts |= {peak, (peak + last) // 2}
    return sorted(starts)


def slope_of(curve: Array, first: int, last: int) -> float:
    """Return the slope, in nats a step, of the least squares line through the distances first..last."""
    distances = np.arange(first, last + 1)
    values = curve[first : last + 1]
    there = values > -np.inf
    if there.sum() < 2:
        return 0.0
    return float(np.polyfit(distances[there], values[there], 1)[0] * math.log(10))


def check_forecast(
    case: Case, verdict: Mapping[str, Any], curve: Array, reference: int, limits: Thresholds, where: str
) -> None:
    forecast, rate = verdict.get("forecast"), verdict["rate_per_step"]
    ratio, last = curve - curve[reference], len(curve) - 1
    if "forecast" not in verdict:
        return
    if verdict["kind"] not in ("stable", "transient"):
        case.expect(forecast is None, f"{where} forecast {forecast} of a curve that is {verdict['kind']}")
    if forecast is None:
        pattern, crossed = verdict["pattern"], ratio[reference:].max() >= limits.high - TIE
        steady = pattern == "exponential" and abs(math.log10(rate)) > 1e-3
        silent = verdict["kind"] == "stable" and steady and not crossed
        case.expect(not silent, f"{where} no forecast at rate {rate}")
        return
    case.expect(forecast > last, f"{where} forecast {forecast} within the sequence of {last}")
    if verdict["pattern"] == "exponential":
        threshold = limits.low if rate < 1 else limits.high
        # At T stands the initial state, which has fewer routes to the loss than the others: the one before will do too.
        reads = [d + (threshold - float(ratio[d])) / math.log10(rate) for d in (last, last - 1)]
        near = [abs(forecast - read) <= 2 + 0.35 * max(read - last, 0) + 0.5 / abs(math.log10(rate)) for read in reads]
        case.expect(any(near), f"{where} forecast {forecast}, read {[round(read) for read in reads]}")


def check_shares(case: Case, verdict: Mapping[str, Any], reading: Reading, limits: Thresholds) -> None:
    """Compare the shares with the kinds of the sequences, each by its own curve."""
    shares = verdict["shares"] or {}
    possible: Counter[str] = Counter()
    sure: Counter[str] = Counter()
    reference = reference_of(reading.mean)
    count = reading.each.shape[1]
    for curve in reading.each.T:
        if reference is None or np.isneginf(curve[-1]):
            allowed = {"dead"}
        else:
            own = reference if curve[reference] > -np.inf else None
            allowed = {"stable", "vanishing", "transient", "exploding"}
            if own is not None:
                allowed = kinds_of(curve, limits, own) - {"dead"}
                if "transient" in allowed and (curve[own:] - curve[own]).max() >= limits.high - TIE:
                    allowed = (allowed - {"transient"}) | {"exploding"}
        possible.update(allowed)
        if len(allowed) == 1:
            sure.update(allowed)
    if shares:
        case.expect(abs(sum(shares.values()) - 1) < 1e-9, f"shares add up to {sum(shares.values())}")
    for kind, share in shares.items():
        low, high = sure[kind] / count, possible[kind] / count
        case.expect(low - 1e-9 <= share <= high + 1e-9, f"share {kind}: {share}, read {low} to {high}")


def check_curve(case: Case, data: Mapping[str, Any], reading: Reading, where: str) -> None:
    mean, ordered = reading.mean, reading.ordered
    said = numbers(data["log10_norm_mean"])
    case.expect(same_curve(said, mean), f"{where} log10_norm_mean differs by {difference(said, mean)}")
    count = ordered.shape[1]
    for key, share in (("log10_norm", 0.5), ("log10_norm_p10", 0.1), ("log10_norm_p90", 0.9)):
        if key not in data:
            continue
        place = share * (count - 1)
        low, high = ordered[:, math.floor(place)], ordered[:, math.ceil(place)]
        found = numbers(data[key])
        with np.errstate(invalid="ignore"):
            inside = ((found >= low - 1e-7) | (found == low)) & ((found <= high + 1e-7) | (found == high))
        case.expect(bool(inside.all()), f"{where} {key} is not between its neighbours at {np.flatnonzero(~inside)[:5]}")


def same_curve(a: Array, b: Array) -> bool:
    return a.shape == b.shape and bool(np.array_equal(np.isneginf(a), np.isneginf(b))) and difference(a, b) < 1e-6


def difference(a: Array, b: Array) -> float:
    if a.shape != b.shape:
        return math.inf
    both = (a > -np.inf) & (b > -np.inf)
    return float(np.abs(a[both] - b[both]).max()) if both.any() else 0.0


# The screen.

WORDS = {
    "stable": "REACHES THE BEGINNING",
    "vanishing": "VANISHING",
    "exploding": "EXPLODING",
    "transient": "TRANSIENT",
    "dead": "DEAD",
}
NUMBER = r"10\^-?[\d.,]+|[\d.,]+(?:e[+-]?\d+)?"


def number_of(text: str) -> float:
    """Return log10 of a number as it is written: 0.15, 5.9e-4, 10^-161.0, 1,234."""
    text = text.replace(",", "").rstrip(".")
    if text.startswith("10^"):
        return float(text[3:])
    value = float(text)
    return math.log10(value) if value > 0 else -math.inf


def verdict_text(screen: str) -> str:
    """Return the verdict's paragraph in one line: what stands before the table, after the title."""
    lines = screen.split("\n\n")
    return " ".join(lines[1].split()) if len(lines) > 1 else ""


def check_screen(case: Case, screen: str, run: Mapping[str, Any], curve: Array) -> None:
    """Compare the sentences on the verdict with the arrays."""
    verdict, text = run["verdict"], verdict_text(screen)
    reference = reference_of(curve)
    if reference is None:
        case.expect(text.startswith("DEAD"), f"screen: {text[:60]!r} of no gradient at all")
        return
    ratio, last = curve - curve[reference], len(curve) - 1
    word = WORDS[verdict["kind"]]
    case.expect(text.startswith(word), f"screen begins {text[:40]!r}, not {word}")
    # "it" and what follows a semicolon on the typical sequence are of other curves.
    own = re.split(r"that is the mean of the norms", text)[0].split("in float32 ")[0]
    crossing = r"(at this rate |by this law )?(below|above) (\d[\de.-]*|float32's precision) from ([\d,]*\d)"
    for found in re.finditer(crossing, own):
        forecast, side, what, steps = found.groups()
        told = Crossing(found.group(0), bool(forecast), side, what, int(steps.replace(",", "")))
        check_crossing(case, told, ratio, reference, verdict)
    for found in re.finditer(rf"at ([\d,]+) steps? ({NUMBER})", own):
        steps, value = int(found.group(1).replace(",", "")), number_of(found.group(2))
        if steps == last and not own[: found.start()].endswith(" to "):
            case.expect(near(value, float(ratio[-1])), f"screen: {found.group(0)!r}, read 10^{ratio[-1]:.3f}")
    for found in re.finditer(rf"({NUMBER}) of it is left", own):
        ends = closings(ratio[reference:])
        case.expect(
            any(near(number_of(found.group(1)), end) for end in ends), f"screen: {found.group(0)!r}, read {ends}"
        )
    for found in re.finditer(rf"at most ({NUMBER}) times(?: its start)?, ([\d,]+) steps? back", own):
        at = int(found.group(2).replace(",", ""))
        fits = near(number_of(found.group(1)), float(ratio[at])) and ratio[at] >= ratio[reference:].max() - 1e-6
        case.expect(fits, f"screen: {found.group(0)!r}, read 10^{ratio[at]:.3f}")
    for found in re.finditer(r"exactly zero from ([\d,]+) steps? back", own):
        first = int(found.group(1).replace(",", ""))
        zero = bool(np.isneginf(curve[first:]).all()) and not np.isneginf(curve[first - 1])
        case.expect(zero, f"screen: {found.group(0)!r}, read {int(np.flatnonzero(curve > -np.inf)[-1]) + 1}")
    for found in re.finditer(r"half-life ([\d.,]+(?:e[+-]?\d+)?) steps?", own):
        said, life = 10 ** number_of(found.group(1)), verdict["half_life"]
        case.expect(life is not None and abs(said - life) <= 0.06 * life, f"screen: {found.group(0)!r}, JSON {life}")
    check_table(case, screen, curve, ratio)


@dataclass(frozen=True)
class Crossing:
    """A sentence on where a curve is below or above a threshold."""

    sentence: str
    forecast: bool
    side: str
    what: str
    steps: int


def check_crossing(case: Case, told: Crossing, ratio: Array, reference: int, verdict: Mapping[str, Any]) -> None:
    sentence, steps = told.sentence, told.steps
    if told.forecast:
        case.expect(steps == verdict["forecast"], f"screen: {sentence!r}, JSON forecast {verdict['forecast']}")
        return
    threshold = FLOAT32_EPSILON if told.what.startswith("float32") else math.log10(float(told.what))
    if told.side == "below":
        holds = steps < len(ratio) and bool((ratio[steps:] < threshold + TIE).all())
        first = steps <= reference or ratio[steps - 1] >= threshold - TIE
        case.expect(holds and first, f"screen: {sentence!r}, read r {ratio[steps - 1 : steps + 1]}")
    else:
        above = np.flatnonzero(ratio[reference:] >= threshold - TIE)
        read = int(above[0]) + reference if above.size else None
        case.expect(steps == read, f"screen: {sentence!r}, read {read}")


def near(a: float, b: float) -> bool:
    """Tell whether two log10 of numbers agree as far as two digits do."""
    if np.isneginf(a) or np.isneginf(b):
        return bool(np.isneginf(a) and np.isneginf(b))
    return abs(a - b) <= 0.03 + (0.06 if abs(b) >= 3 else 0.0)


def check_table(case: Case, screen: str, curve: Array, ratio: Array) -> None:
    """Compare the rows of the curve's table: distance, log10 of the mean norm, ..., relative."""
    rows = 0
    inside = False
    for line in screen.splitlines():
        if line.startswith("distance "):
            inside = True
            continue
        if inside and not line.strip():
            break
        found = re.match(r"\s*(\d+)\s+(0 exactly|-?[\d.]+)", line)
        if not inside or not found:
            continue
        rows += 1
        d, text = int(found.group(1)), found.group(2)
        value = -math.inf if text == "0 exactly" else float(text)
        with np.errstate(invalid="ignore"):
            same = value == curve[d] or abs(value - curve[d]) <= (0.0051 if abs(value) < 10 else 0.051)
        case.expect(same, f"row {d}: {text}, read {curve[d]:.4f}")
        relative = re.search(rf"(?:│\S*\s+|\s)({NUMBER})(?:\s+(?:[<>] \S+|exact zero))?\s*$", line.split("│")[-1])
        if relative:
            case.expect(
                near(number_of(relative.group(1)), float(ratio[d])),
                f"row {d}: relative {relative.group(1)}, read 10^{ratio[d]:.4f}",
            )
    case.expect(rows > 1, "no rows of a table were found on the screen")


# The runs.


def load(cell: str, options: Mapping[str, Any], overrides: Sequence[str] = ()) -> LoadedSpec:
    # Overrides are written into what they are given.
    return load_spec(cell, options=deepcopy(dict(options)), overrides=list(overrides))


def examine(cell: str, options: Options, *, causes: bool = True, remedies: bool = True) -> Case:
    """Run a spec, and compare what is concluded with what is saved."""
    case = Case(cell, options)
    try:
        result = simulate(load(cell, options), record=True)
    except GradcliError as error:
        case.refused = str(error).splitlines()[0]
        return case
    (run,) = json.loads(render(result.report, "json", width=None, color=False, unicode=False))["runs"]
    arrays = dict(result.arrays)
    screen = render(result.report.in_full(), "table", width=500, color=False, unicode=True)
    if run["status"] == "nonfinite":
        check_nonfinite(case, run, arrays)
        return case
    spec = run["spec"]
    limits = Thresholds(*(math.log10(spec["thresholds"][name]) for name in ("vanishing", "exploding")))
    if len(arrays["at"]) > 1:
        total = read_norms(arrays, top_states(arrays))
        case.expect(run["total"] is not None, "no total derivative, with a loss at several steps")
        if run["total"] is not None:
            check_curve(case, run["total"], total, "total")
        alone = last_alone(case, cell, options, arrays)
        if alone is None:
            return case
        arrays = alone
    names = top_states(arrays)
    reading = read_norms(arrays, names)
    check_curve(case, run["curve"], reading, "curve")
    mean = reading.mean
    check_verdict(case, run["verdict"], mean, limits, "verdict")
    zero = np.flatnonzero(mean > -np.inf)
    zero_from = None if zero.size and zero[-1] == len(mean) - 1 else int(zero[-1]) + 1 if zero.size else 0
    case.expect(run["curve"]["zero_from"] == zero_from, f"zero_from {run['curve']['zero_from']}, read {zero_from}")
    check_shares(case, run["verdict"], reading, limits)
    if run["verdict"].get("typical"):
        check_verdict(case, run["verdict"]["typical"], numbers(run["curve"]["log10_norm"]), limits, "typical")
    for name, state in run["states"].items():
        own = read_norms(arrays, [name])
        check_curve(case, state, own, name)
        if state["verdict"] is None:
            far_below = own.mean[1:-1] < mean[1:-1] - ROUNDING_DIGITS[spec["dtype"]]
            case.expect(bool(far_below.all()), f"{name}: said to be nothing but rounding, and is not")
        else:
            check_verdict(case, state["verdict"], own.mean, limits, name)
    for name, parameter in run["parameters"].items():
        check_parameter(case, name, parameter, dict(result.arrays))
    check_screen(case, screen, run, mean)
    if remedies:
        check_remedies(case, screen, run, cell, options)
    if causes:
        check_cause(case, run, mean, cell, options)
    return case


def last_alone(case: Case, cell: str, options: Options, arrays: Mapping[str, Array]) -> dict[str, Array] | None:
    """Return the arrays of the last loss alone: with the same target at that step."""
    loss = dict(options["loss"])
    loss["at"] = [int(arrays["at"][-1])]
    if loss["kind"] == "mse":
        # The draw of a target goes by its place in the list; a number is the same at every step.
        case.expect(loss.get("target") is not None, "a drawn target at several steps cannot be had alone")
    return dict(simulate(load(cell, {**options, "loss": loss}), record=True).arrays)


def check_parameter(case: Case, name: str, data: Mapping[str, Any], arrays: Mapping[str, Array]) -> None:
    if f"grad_param.{name}" not in arrays:
        return
    mantissa, log2 = arrays[f"grad_param.{name}"], arrays[f"log2_param.{name}"]
    norms = np.sqrt(np.square(mantissa.reshape(len(mantissa), -1)).sum(axis=1))
    with np.errstate(divide="ignore"):
        log10 = np.sort((np.log2(norms) + log2) * math.log10(2))
    low, high = log10[(len(log10) - 1) // 2], log10[len(log10) // 2]
    said = -math.inf if data["log10_norm"] is None else data["log10_norm"]
    case.expect(low - 1e-6 <= said <= high + 1e-6 or said == low, f"{name} log10_norm {said}, read {low} to {high}")


def check_nonfinite(case: Case, run: Mapping[str, Any], arrays: Mapping[str, Array]) -> None:
    """A forward pass that is said to leave the finite numbers has states that are not finite, or gradients do."""
    states = [value for name, value in arrays.items() if name.startswith("state.")]
    broken = any(not np.isfinite(state).all() for state in states)
    forward = run["verdict"]["reason"].startswith("The forward pass")
    case.expect(broken or not forward, "nonfinite, but all saved states are finite")
    case.expect(run["verdict"]["kind"] == "nonfinite", f"no curve, and the verdict is {run['verdict']['kind']}")


def check_remedies(case: Case, screen: str, run: Mapping[str, Any], cell: str, options: Options) -> None:
    """Run what `try` lines say again: the gradient must reach farther with it or keep its size better, as they say."""
    seq_len = run["seq_len"]
    before = reach(run["verdict"], seq_len)
    lines = [line for block in screen.split("\n\n") for line in try_lines(block)]
    for line in lines:
        command = line.split("   ")
        words = shlex.split(next((part for part in command if part.strip().startswith("--set")), ""))
        overrides = [value for option, value in pairwise(words) if option == "--set"]
        if not overrides or "loss.at" in line:
            continue
        try:
            result = simulate(load(cell, options, overrides))
        except GradcliError as error:
            case.expect(False, f"try {line!r}: refused: {error}")
            continue
        (again,) = json.loads(render(result.report, "json", width=None, color=False, unicode=False))["runs"]
        after = reach(again["verdict"], seq_len)
        sizes = [abs(size(one)) for one in (run, again)]
        helps = after > before or again["verdict"]["kind"] == "stable" or sizes[1] < sizes[0]
        case.expect(helps, f"try {line!r}: reaches {after} steps, before {before}")
        said = re.search(r"horizon (?:>= )?([\d,]+) -> ([\d,]+)", line)
        if said:
            told = [int(number.replace(",", "")) for number in said.groups()]
            case.expect(told == [before, after] and after > before, f"try {line!r}: read {before} and {after}")
        said = re.search(rf"at [\d,]+ steps (?:(?:{NUMBER}) -> )?({NUMBER}) of its start", line)
        if said:
            read = size(again)
            case.expect(near(number_of(said.group(1)), read), f"try {line!r}: read 10^{read:.3f}")


def size(run: Mapping[str, Any]) -> float:
    """Return log10 of the mean norm at the beginning relative to distance 1; the largest there is for a zero."""
    curve = numbers(run["curve"]["log10_norm_mean"]) if run["curve"] else np.array([-np.inf])
    reference = reference_of(curve)
    return math.inf if reference is None or np.isneginf(curve[-1]) else float(curve[-1] - curve[reference])


def try_lines(block: str) -> Iterator[str]:
    """Yield the lines labelled `try`, each with those that go on without a label."""
    label, text = "", ""
    for line in [*block.splitlines(), "end"]:
        head = re.match(r"(\S+)?\s+(?=\S)|(\S+)$", line)
        if line[:1].strip():
            if label == "try":
                yield text
            label, text = (head.group(1) or "") if head else "", line
        else:
            text += "\n" + line


def reach(verdict: Mapping[str, Any], seq_len: int) -> int:
    horizon = verdict["horizon"]["threshold"]
    return seq_len if horizon is None else int(horizon)


def check_cause(case: Case, run: Mapping[str, Any], curve: Array, cell: str, options: Options) -> None:
    """A cause that is named accounts for the measured rate within a factor of 2 in nats.

    curve: that of the norms. What is to be explained is its mean rate from one step before the last loss to the
    beginning; `gates` counts its distances from that loss.
    """
    curve = curve[int(np.argmax(curve > -np.inf)) :]
    try:
        result = gates(load(cell, options))
    except GradcliError:
        return
    (found,) = json.loads(render(result.report, "json", width=None, color=False, unicode=False))["runs"]
    verdict, cause = found["verdict"], found["cause"]
    if verdict is None:
        return
    kind = run["verdict"]["kind"]
    case.expect(verdict["kind"] == kind, f"gates says {verdict['kind']}, simulate {kind}")
    if cause is None or cause.get("nats") is None or len(curve) < 3 or not np.isfinite(curve[[1, -1]]).all():
        return
    nats, measured = cause["nats"], float(curve[-1] - curve[1]) * math.log(10) / (len(curve) - 2)
    within = measured * nats > 0 and abs(measured) / 2 - 1e-6 <= abs(nats) <= 2 * abs(measured) + 1e-6
    case.expect(within, f"cause {cause['kind']}: {nats:.4g} nats a step, measured {measured:.4g}")


# Random specs.

COMMON = (
    "rnn",
    "lstm",
    "gru",
    "irnn",
    "lstm-no-forget",
    "mgu",
    "gru-textbook",
    "indrnn",
    "ugrnn",
    "scrn",
    "slstm",
    "lru",
)


def random_spec(rng: np.random.Generator) -> tuple[str, Options]:
    """Draw a cell and the fields of a spec."""
    known = cells.names()
    pool = [name for name in COMMON if name in known] if rng.random() < 0.7 else list(known)
    cell = str(rng.choice(pool))
    options: Options = {
        "hidden_size": int(rng.integers(2, 41)),
        "input_size": int(rng.integers(1, 9)),
        "seq_len": int(rng.choice([1, 2, 3, 5, 8, 12, 20, 35, 60, 100, 101, 200, 300])),
        "batch_size": int(rng.integers(2, 7)),
        "trials": int(rng.integers(1, 5)),
        "seed": int(rng.integers(1000)),
    }
    if rng.random() < 0.15:
        options["num_layers"] = 2
    if rng.random() < 0.2:
        options["dtype"] = "float32"
    if rng.random() < 0.3:
        options["thresholds"] = {
            "vanishing": float(rng.choice([0.5, 0.1, 1e-2, 1e-6])),
            "exploding": float(rng.choice([2.0, 10.0, 1e5])),
        }
    options["input"] = random_input(rng)
    options["loss"] = random_loss(rng, options["seq_len"])
    options["init"] = random_init(rng, cell)
    options["clip"] = [] if rng.random() < 0.8 else [{"norm": 1.0}]
    return cell, options


def random_input(rng: np.random.Generator) -> Options:
    kind = rng.choice(["normal", "normal", "normal", "zeros", "sine", "uniform", "constant"])
    scale = float(10.0 ** rng.uniform(-2, 2))
    match kind:
        case "normal":
            return {"kind": "normal", "std": scale}
        case "sine":
            return {"kind": "sine", "amplitude": scale}
        case "uniform":
            return {"kind": "uniform", "low": -scale, "high": scale}
        case "constant":
            return {"kind": "constant", "value": scale}
    return {"kind": "zeros"}


def random_loss(rng: np.random.Generator, seq_len: int) -> Options:
    kind = str(rng.choice(["mse", "mse", "projection", "sum", "cross_entropy"]))
    loss: Options = {"kind": kind}
    at = rng.random()
    if at < 0.15:
        loss["at"] = "every"
    elif at < 0.25 and seq_len > 1:
        steps = {int(step) for step in rng.integers(1, seq_len + 1, size=3)}
        loss["at"] = sorted(steps | ({seq_len} if rng.random() < 0.7 else set()))
    if kind == "mse" and "at" in loss:
        loss["target"] = float(rng.normal())
    if kind == "cross_entropy":
        # Targets of several steps would be drawn by their places in the list.
        return {"kind": "projection", "at": loss["at"]} if "at" in loss else {**loss, "classes": 3, "target": 1}
    return loss


def random_init(rng: np.random.Generator, cell: str) -> Options:
    init: Options = {}
    parameters = set(re.findall(r"\b[Wb]_\w+\b", cells.load(cell).cell.equations))
    recurrent = sorted(p for p in parameters if p.startswith("W_h"))
    biases = sorted(p for p in parameters if p.startswith("b_"))
    gain = float(10.0 ** rng.uniform(-1.0, 1.0))
    if recurrent and rng.random() < 0.7:
        init["W_h*"] = [
            {"normal": {"std": 0.2 * gain}},
            {"orthogonal": {"gain": min(gain, 3.0)}},
            {"uniform": {"bound": 0.3 * gain}},
        ][int(rng.integers(3))]
        square = {p for p in recurrent if re.search(rf"\b{p} @", cells.load(cell).cell.equations)}
        if not square:
            init["W_h*"] = {"normal": {"std": 0.2 * gain}}
    for bias in biases:
        if rng.random() < 0.35:
            init[bias] = float(rng.choice([-8, -4, -2, -1, 0, 1, 2, 4, 8]))
    if {"b_f", "b_i"} <= set(biases) and cell == "lstm" and rng.random() < 0.15:
        init |= {"b_f": "chrono", "b_i": "chrono"}
    return init


def search(count: int, seed: int, *, every: int = 5, until: float = math.inf) -> list[Case]:
    """Examine random specs; causes and remedies of every few, as they take runs of their own."""
    found = []
    for index in range(count):
        if time.monotonic() > until:
            break
        cell, options = random_spec(np.random.default_rng([seed, index]))
        try:
            case = examine(cell, options, causes=index % every == 0, remedies=True)
        except Exception:  # whatever it is, it is a disagreement of its own
            case = Case(cell, options, [f"crashed: {traceback.format_exc(limit=-3)}"])
        found.append(case)
    return found


def summary(found: Sequence[Case]) -> str:
    """Return how many agree, and every spec that does not."""
    wrong = [case for case in found if case.disagreements]
    refused = Counter(re.sub(r"\d+", "N", case.refused)[:90] for case in found if case.refused)
    kinds = Counter(re.sub(r"[\d.,e+-]+", "#", one)[:60] for case in wrong for one in case.disagreements)
    lines = [
        f"{len(found)} specs, {sum(case.checks for case in found)} comparisons, {sum(refused.values())} refused,"
        f" {len(wrong)} with a disagreement",
        *(f"  refused {count}: {text}" for text, count in refused.most_common(8)),
        *(f"  {count} x {text}" for text, count in kinds.most_common(30)),
    ]
    for case in wrong:
        lines.append(f"{case.cell} {json.dumps(case.options)}")
        lines += [f"    {one}" for one in case.disagreements[:6]]
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--specs", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--seconds", type=float, default=math.inf)
    asked = parser.parse_args()
    found = search(asked.specs, asked.seed, until=time.monotonic() + asked.seconds)
    sys.stdout.write(summary(found) + "\n")
    return int(any(case.disagreements for case in found))


if __name__ == "__main__":
    sys.exit(main())
