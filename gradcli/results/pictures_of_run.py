"""The pictures of `gradcli simulate` and `gradcli compare`: curves with thresholds, states, clipping, the matrix."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial

import numpy as np

from gradcli.diagnostics.curve import Curve
from gradcli.diagnostics.curve_landmarks import LOG10_FLOAT32_EPSILON, reference_distance
from gradcli.diagnostics.gradient_matrix import GradientMatrix
from gradcli.diagnostics.measure import Measured
from gradcli.diagnostics.verdict import Verdict
from gradcli.diagnostics.verdict_words import KIND_WORDS
from gradcli.numbers import factor, grouped, log10_text, power_of_ten, steps_text, threshold
from gradcli.prepare.build import Network
from gradcli.results.arms import common_words
from gradcli.results.clipping import clipping_sentences
from gradcli.results.clipping_rows import method_text
from gradcli.results.compare import farthest, rank
from gradcli.results.directions import headline_note
from gradcli.results.pictures import (
    Array,
    Axis,
    Bar,
    BarChart,
    ByRun,
    Gallery,
    HeatMap,
    Level,
    LineChart,
    Mark,
    Picture,
    Series,
)
from gradcli.results.simulate import describe, first_and_last
from gradcli.spec.models import Thresholds

DISTANCE = Axis("distance", "steps back from the loss")
NORM = Axis("gradient norm", log10=True)
#: More curves than that are not told apart.
MOST_SERIES = 8
_QUANTILES = "10-90 % of the sequences"


def verdict_title(label: str, verdict: Verdict, last: int) -> str:
    """Return the line above a picture: what was judged, its kind, and the figure that tells most of it.

    last: the largest distance.
    """
    return f"{label}: {verdict_figures(verdict, last)}"


def verdict_figures(verdict: Verdict, last: int) -> str:
    """Return the same without the label."""
    return ", ".join(part for part in _verdict_parts(verdict, last) if part)


def _verdict_parts(verdict: Verdict, last: int) -> list[str]:
    parts = [KIND_WORDS[verdict.kind]]
    if verdict.zero_from is not None:
        return [*parts, "exactly zero at every distance" if verdict.zero_from == 0 else _zero_words(verdict.zero_from)]
    if verdict.pattern == "exponential" and verdict.rate_per_step is not None:
        parts.append(f"a factor {factor(math.log10(verdict.rate_per_step))} a step")
    if verdict.kind == "transient":
        parts.append(f"at most {power_of_ten(verdict.peak_log10_ratio)} times its size {_back(verdict.peak_distance)}")
    if verdict.kind == "exploding" and verdict.end_log10_ratio is not None:
        parts.append(f"{power_of_ten(verdict.end_log10_ratio)} times its size {_back(last)}")
    elif verdict.horizon_threshold is not None:
        parts.append(f"horizon {grouped(verdict.horizon_threshold)} of {steps_text(last)}")
    return [*parts, verdict.left]


def _back(distance: int) -> str:
    return f"{steps_text(distance)} back"


def _zero_words(zero_from: int) -> str:
    return f"exactly zero from {_back(zero_from)}"


def run_words(network: Network) -> str:
    """Return what was run, its sizes and its sample, on one line."""
    return next(line for line in describe(network).split("\n") if line.startswith("hidden "))


def threshold_levels(thresholds: Thresholds, reference: float, lowest: float) -> list[Level]:
    """Return the thresholds as levels of log10 norms.

    Args:
        reference: the log10 norm that they are relative to. lowest: the smallest that is drawn; float32's precision is
            a level where something is below it.
    """
    found = [
        Level(reference + math.log10(thresholds.exploding), f"exploding {threshold(thresholds.exploding)}"),
        Level(reference + math.log10(thresholds.vanishing), f"vanishing {threshold(thresholds.vanishing)}"),
    ]
    if lowest < reference + LOG10_FLOAT32_EPSILON:
        found.append(Level(reference + LOG10_FLOAT32_EPSILON, "float32's precision"))
    return found


def verdict_marks(verdict: Verdict) -> list[Mark]:
    """Return the places on the axis of distances that the verdict is about."""
    horizon = verdict.horizon_threshold
    return [] if horizon is None or verdict.zero_from == 0 else [Mark(horizon, f"horizon {grouped(horizon)}")]


def lowest_of(*curves: Array) -> float:
    """Return the smallest number of some curves; infinity where there is none."""
    return min((float(curve[np.isfinite(curve)].min(initial=np.inf)) for curve in curves), default=math.inf)


def distances_of(curve: Array) -> Array:
    return np.arange(len(curve))


# simulate.


def pictures_of_run(measured: Measured, matrix: Callable[[], GradientMatrix]) -> Gallery:
    """Return the pictures of `simulate`; `matrix` measures what only its own picture needs."""
    return {
        "curve": partial(curve_picture, measured),
        "states": partial(states_picture, measured),
        "clip": partial(clip_picture, measured),
        "matrix": ByRun(lambda: matrix_picture(measured, matrix())),
    }


def curve_picture(measured: Measured) -> LineChart:
    """Return the gradient norm against distance: mean and median, the band of the sequences, thresholds, horizon."""
    verdict, curve, last = measured.verdict, measured.curve, measured.network.spec.seq_len
    title = verdict_title(measured.label, verdict, last)
    if curve is None:
        return without_curve("curve", title, measured.network, verdict)
    series = [*_curve_series(measured, curve), *_total_series(measured)]
    levels = (
        threshold_levels(measured.network.spec.thresholds, curve.reference, lowest_of(curve.mean, curve.low))
        if reference_distance(curve.mean) is not None
        else []
    )
    description = f"{_ends(curve.mean)} {verdict.reason}"
    return LineChart(
        "curve",
        title,
        DISTANCE,
        NORM,
        series,
        levels,
        [*verdict_marks(verdict), *_float32_marks(measured)],
        _subtitle(measured),
        description,
    )


def pictures_without_curve(names: Sequence[str], network: Network, verdict: Verdict) -> Gallery:
    """Return the pictures of a run in which a number was not finite, each of which says so."""
    title = verdict_title(network.loaded.label, verdict, network.spec.seq_len)
    return {name: partial(without_curve, name, title, network, verdict) for name in names}


def without_curve(name: str, title: str, network: Network, verdict: Verdict) -> LineChart:
    """Return the picture of a run in which a number was not finite: there is no curve, and it says why."""
    return LineChart(name, title, DISTANCE, NORM, [], subtitle=run_words(network), description=verdict.reason)


def _subtitle(measured: Measured) -> str:
    return "; ".join(part for part in (run_words(measured.network), headline_note(measured)) if part)


def _ends(mean: Array) -> str:
    """Say from where to where a curve goes.

    >>> _ends(np.array([0.0, -0.5, -np.inf]))
    'log10 of the gradient norm goes from 0.00 at distance 0 to 0 exactly at distance 2.'
    """
    last = len(mean) - 1
    start, end = log10_text(float(mean[0])), log10_text(float(mean[last]))
    return f"log10 of the gradient norm goes from {start} at distance 0 to {end} at distance {grouped(last)}."


def _curve_series(measured: Measured, curve: Curve) -> list[Series]:
    x = distances_of(curve.mean)
    alone = "" if measured.total is None else ", of the last loss alone"
    if curve.median is curve.mean:
        return [Series(f"norm{alone}", x, curve.mean, "mean")]
    return [
        Series(f"mean of the norms{alone}", x, curve.mean, "mean"),
        Series("median", x, curve.median, "median", curve.low, curve.high, _QUANTILES),
    ]


def _total_series(measured: Measured) -> list[Series]:
    if measured.total is None:
        return []
    total, count = measured.total.mean, len(measured.network.problem.loss.steps)
    return [Series(f"of all {grouped(count)} losses together", distances_of(total), total, "reference")]


def _float32_marks(measured: Measured) -> list[Mark]:
    """Return from where on a run in float32 would see nothing, or no number."""
    seen = measured.float32
    if seen is None:
        return []
    places = [(seen.zero_from, "float32 has 0"), (seen.nonfinite_from, "float32 has Inf or NaN")]
    return [
        Mark(d, f"{words} from {grouped(d)}")
        for d, words in places
        if d is not None and d != measured.verdict.zero_from
    ]


def states_picture(measured: Measured) -> LineChart:
    """Return the mean norm of every state of every layer against distance."""
    title = verdict_title(measured.label, measured.verdict, measured.network.spec.seq_len)
    if measured.curve is None:
        return without_curve("states", title, measured.network, measured.verdict)
    names = first_and_last(list(measured.states), MOST_SERIES)
    several = len(measured.network.problem.names) > 1
    series = [
        Series(name if several else name.rpartition(".")[2], distances_of(state.mean), state.mean)
        for name, state in ((name, measured.states[name]) for name in names)
    ]
    left_out = len(measured.states) - len(names)
    more = f"; {left_out} states between them are not drawn" if left_out else ""
    states = [measured.states[name] for name in names]
    kinds = ", ".join(
        f"{s.label} {'nothing but rounding' if state.is_rounding else KIND_WORDS[state.verdict.kind]}"
        for s, state in zip(series, states, strict=True)
    )
    return LineChart(
        "states",
        title,
        DISTANCE,
        NORM,
        series,
        subtitle=f"each state's own curve, the mean of the norms{more}; {run_words(measured.network)}",
        description=f"The mean gradient norm of each state against distance. By its own curve: {kinds}.",
    )


def clip_picture(measured: Measured) -> Picture:
    """Return raw against clipped: the curves where clipping acts inside BPTT, else the norms before and after it."""
    title = verdict_title(measured.label, measured.verdict, measured.network.spec.seq_len)
    curve = measured.curve
    if curve is None:
        return without_curve("clip", title, measured.network, measured.verdict)
    words = clipping_sentences(measured) if measured.clipped else "The spec asks for no clipping."
    inside = [(method_text(clipped), clipped.curve) for clipped in measured.clipped if clipped.curve is not None]
    if not inside and measured.clipped:
        bars = [Bar(method_text(c), [c.log10_norm_before, c.log10_norm_after]) for c in measured.clipped]
        axis = Axis("norm of all parameters' gradients", log10=True)
        return BarChart("clip", title, axis, ["before clipping", "after"], bars, (), run_words(measured.network), words)
    # Clipping acts on the gradients that training has: those of all losses together.
    raw = curve if measured.total is None else measured.total
    series = [Series("unclipped", distances_of(raw.mean), raw.mean, "reference")]
    series += [
        Series(method, distances_of(clipped.mean), clipped.mean) for method, clipped in inside[: MOST_SERIES - 1]
    ]
    left_out = max(len(inside) - (MOST_SERIES - 1), 0)
    more = f"; {left_out} more methods are not drawn" if left_out else ""
    after = [method_text(clipped) for clipped in measured.clipped if clipped.curve is None]
    more += f"; {' and '.join(after)} after BPTT: unclipped" if after else ""
    return LineChart(
        "clip", title, DISTANCE, NORM, series, (), (), f"mean of the norms{more}; {run_words(measured.network)}", words
    )


def matrix_picture(measured: Measured, found: GradientMatrix) -> Picture:
    """Return the matrix of gradient norms over (t, s): the loss at step t alone, the states at step s."""
    title = verdict_title(measured.label, measured.verdict, measured.network.spec.seq_len)
    if found.verdict is not None:
        return without_curve("matrix", title, measured.network, found.verdict)
    thinned = f"; {len(found.steps)} of {grouped(found.counted)} steps t" if len(found.steps) < found.counted else ""
    loss = "the spec's loss, moved to step t" if found.moved else "the loss at step t alone"
    values = found.log10_norm[np.isfinite(found.log10_norm)]
    span = f" from {log10_text(float(values.min()))} to {log10_text(float(values.max()))}" if values.size else ""
    return HeatMap(
        "matrix",
        title,
        Axis("step s of the state"),
        Axis("step t of the loss"),
        Axis("mean of |dL_t/ds_s|", log10=True),
        found.states,
        found.steps,
        found.log10_norm,
        f"{loss}{thinned}; {run_words(measured.network)}",
        f"Gradient norms of the loss at step t with respect to the states at steps s up to t, log10{span}."
        f" {measured.verdict.reason}",
    )


# compare.


def pictures_of_comparison(arms: Sequence[Measured]) -> Gallery:
    """Return the pictures of `compare`."""
    return {"curve": partial(comparison_picture, arms)}


def comparison_picture(arms: Sequence[Measured]) -> LineChart:
    """Return the mean norms of several runs, each relative to its own one step back from where its loss enters."""
    ranking = rank(arms)
    shown = [(arm, arm.curve) for arm in ranking if arm.curve is not None][:MOST_SERIES]
    series = [
        Series(
            arm.label,
            distances_of(curve.mean),
            curve.mean - curve.reference,
            note=verdict_figures(arm.verdict, len(curve.mean) - 1),
        )
        for arm, curve in shown
    ]
    nonfinite = [arm.label for arm in ranking if arm.curve is None]
    left_out = [arm.label for arm in ranking if arm.curve is not None][MOST_SERIES:]
    notes = [
        common_words(arms),
        f"not finite: {', '.join(nonfinite)}" if nonfinite else "",
        f"not drawn: {', '.join(left_out)}" if left_out else "",
    ]
    starts = {reference_distance(curve.mean) for _, curve in shown} - {None}
    unit = "distance 1" if starts <= {1} else "one step back from the loss"
    same = len({(t.vanishing, t.exploding) for t in (arm.network.spec.thresholds for arm in arms)}) == 1
    levels = threshold_levels(arms[0].network.spec.thresholds, 0.0, lowest_of(*(s.y for s in series))) if same else []
    verdicts = "; ".join(verdict_title(arm.label, arm.verdict, arm.network.spec.seq_len) for arm in ranking)
    return LineChart(
        "curve",
        farthest(ranking).removesuffix("."),
        DISTANCE,
        Axis(f"mean norm relative to {unit}", log10=True),
        series,
        levels if series else [],
        (),
        "; ".join(note for note in notes if note),
        f"{farthest(ranking)} {verdicts}.",
    )
