"""The report of `gradcli contributions`: the terms against distance, the windows of truncated BPTT, each parameter."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from gradcli.diagnostics.contributions import TOLERANCES, Contributions, Terms
from gradcli.diagnostics.curve import Curve
from gradcli.frozen import frozen
from gradcli.numbers import fraction, grouped, log10_text, percent, power_of_ten, significant, threshold
from gradcli.results.curves import bars, shown_distances
from gradcli.results.declared import InColumns, columns_of, key
from gradcli.results.model import Block, Cell, Column, Line, Records, Report, Table
from gradcli.results.norm_curve import curve_fields
from gradcli.results.one_layer import OfOneLayer, spec_fields
from gradcli.results.run import BatchCurve, Verdict, sequences_of, verdict_of
from gradcli.results.simulate import describe, length_lines, loss_lines, verdict_lines

Array = np.ndarray[Any, Any]

#: Up to so many steps, every term of every parameter is printed by its name.
MOST_NAMED_TERMS = 12
#: What the CSV calls all parameters of the layer as one vector.
ALL = "all"


@frozen(kw_only=True)
class TermsByDistance:
    """The terms g_d of a gradient G, by distance d = 0 to T-1, each (T,)."""

    distance: range = key("0 to T-1")
    log10_norm: Array = key("log10 |g_d|")
    log10_relative: Array = key("log10 |g_d| / |G|")
    share: Array = key("<g_d, G> / <G, G>; they add up to 1")


@frozen(kw_only=True)
class TruncatedByWindow:
    """What BPTT truncated to K steps keeps, G_K = g_0 + ... + g_(K-1), by window K = 1 to T, each (T,)."""

    window: range = key("1 to T", csv=False)
    share_kept: Array = key("<G_K, G> / <G, G>")
    norm_kept: Array = key("|G_K| / |G|")
    cosine: Array = key("between G_K and G")
    bias: Array = key("|G_K - G| / |G|")


@frozen(kw_only=True)
class SmallestWindow:
    """The window that is enough, there and for every larger one; null where there is no gradient."""

    tolerance: float = key("what G_K may miss")
    by_bias: int | None = key("the smallest window with a `bias` of at most that")
    by_cosine: int | None = key("the smallest with a `cosine` of at least 1 minus that")


@frozen(kw_only=True)
class GradientInTerms:
    """A gradient G, of one parameter or of several as one vector, and its terms; medians over trials."""

    log10_norm: float = key("log10 |G|; null for an exact zero")
    value: float | None = key("G itself, where it is one number of one trial")
    terms: TermsByDistance = key("the terms g_d by distance")
    truncated: TruncatedByWindow = key("truncated BPTT by window")
    smallest_window: Sequence[SmallestWindow] = key("the windows that are enough, for each tolerance")


@frozen(kw_only=True, repr=False, eq=False)
class ContributionsOfLayer(OfOneLayer):
    """What `contributions` found of one layer."""

    command = "contributions"

    loss_step: int = key("the step whose loss alone is looked at")
    verdict: Verdict | None = key("null unless `nonfinite`")
    state_curve: BatchCurve = key(
        "the norms of the gradient by distance, of the layer's states; null (Python: empty) where there is no gradient",
        null=lambda curve: not curve.distance,
    )
    joint: GradientInTerms = key(
        "all parameters of the layer as one vector; null (Python: empty) where there are none, or no gradient",
        null=lambda joint: not joint.terms.distance,
    )
    parameters: Mapping[str, GradientInTerms] = key("each parameter alone, such as `W_hh`")


def contributions_of_layer(found: Contributions) -> ContributionsOfLayer:
    """Return the result for one run."""
    network = found.network
    curve = BatchCurve(
        **curve_fields(found.state_curve),
        sequences=None if found.state_curve is None else sequences_of(network),
    )
    joint = _in_terms(found.joint or _without_terms())
    parameters = {name: _in_terms(terms) for name, terms in (found.parameters or {}).items()}
    return ContributionsOfLayer(
        **spec_fields(network, finite=found.verdict is None),
        layer=network.problem.names[found.layer],
        loss_step=network.problem.seq_len,
        verdict=None if found.verdict is None else verdict_of(found.verdict),
        state_curve=curve,
        joint=joint,
        parameters=parameters,
        shown=_shown(found, _records(network.loaded.label, curve, {ALL: joint, **parameters})),
    )


def _in_terms(terms: Terms) -> GradientInTerms:
    count = len(terms.share)
    return GradientInTerms(
        log10_norm=terms.log10_total,
        value=terms.value,
        terms=TermsByDistance(
            distance=range(count),
            log10_norm=terms.log10_norm,
            log10_relative=terms.log10_relative,
            share=terms.share,
        ),
        truncated=TruncatedByWindow(
            window=range(1, count + 1),
            share_kept=terms.kept,
            norm_kept=terms.norm_kept,
            cosine=terms.cosine,
            bias=terms.bias,
        ),
        smallest_window=tuple(
            SmallestWindow(tolerance=e, by_bias=terms.window(e), by_cosine=terms.window_by_cosine(e))
            for e in TOLERANCES
        ),
    )


def _without_terms() -> Terms:
    """Return the terms of no gradient."""
    none = np.empty(0)
    return Terms(none, none, none, none, none, none, none, log10_total=math.nan, value=None, rounding=0.0)


def _records(label: str, curve: BatchCurve, gradients: Mapping[str, GradientInTerms]) -> Records:
    """Return one row for each distance, of all parameters together and of each; the window is the distance plus 1."""
    parts = [
        {
            "label": label,
            "parameter": name,
            **columns_of(each.terms),
            **columns_of(each.truncated),
            "state_log10_norm": curve.log10_norm[: len(each.terms.distance)],
            "state_log10_norm_mean": curve.log10_norm_mean[: len(each.terms.distance)],
        }
        for name, each in gradients.items()
    ]
    return InColumns(list(parts[0]), parts).records


def _shown(found: Contributions, records: Records) -> Report:
    label = found.network.loaded.label
    head: list[Block] = [
        Line(describe(found.network), label, "title"),
        *loss_lines(found.network, found.loss_steps),
        *length_lines(found.network),
    ]
    groups, full = [head], [head]
    if found.verdict is not None:
        groups.append(verdict_lines(found.verdict))
        full = []
    elif found.joint is not None and found.state_curve is not None:
        terms: list[Block] = [_terms_table(found, found.joint, found.state_curve)]
        answer = [_summary(found, found.joint, found.state_curve), terms]
        named = _named_terms(found)
        groups += [*answer, named or [Line("each window, and each parameter: --full", "more", "dim")]]
        full += [*answer, [_windows_table(found.joint)], named or [_parameter_table(found)]]
    else:
        groups.append([Line("The layer has no parameters to train: there is no gradient to take apart.")])
        full = []
    return Report("contributions", groups, records=records, full=full)


def _layer_words(found: Contributions) -> str:
    several = len(found.network.problem.plans) > 1
    return f" of {found.network.problem.names[found.layer]}" if several else ""


# The headline.


def _summary(found: Contributions, joint: Terms, curve: Curve) -> list[Block]:
    lines: list[Block] = []
    if not joint.exists:
        lines.append(Line("Every term is exactly zero, or they cancel exactly: there is no gradient.", style="bad"))
    else:
        cosine = ", ".join(f"{threshold(1 - e)} with {_window(joint.window_by_cosine(e), joint)}" for e in TOLERANCES)
        text = (
            f"{truncation_words(found, joint)}\n"
            f"(|G_K - G| / |G|, there and for every larger window K; by the cosine: {cosine})"
        )
        lines.append(Line(text, "truncated BPTT", "title"))
    lines.append(Line(_two_curves(joint, curve), "two curves", "dim"))
    if not found.network.problem.tied:
        text = "Each step has weights of its own, with one term; the gradient joins those of all steps as one vector."
        lines.append(Line(text, "untied", "dim"))
    return lines


def truncation_words(found: Contributions, joint: Terms) -> str:
    """Say with which windows truncated BPTT keeps a gradient that there is."""
    steps = ", ".join(f"to within {percent(e)} with {_window(joint.window(e), joint)}" for e in TOLERANCES)
    plural = "" if joint.window(TOLERANCES[-1]) == 1 else "s"
    return f"keeps the gradient{_layer_words(found)} {steps} step{plural}"


def _window(window: int | None, terms: Terms) -> str:
    if window is None:
        return "-"
    return f"all {grouped(window)}" if window == len(terms.bias) > 1 else grouped(window)


def _two_curves(joint: Terms, curve: Curve) -> str:
    last = len(joint.share) - 1
    start = "The state curve |dL/ds| is not the curve of the contributions |term of dL/dW|"
    curves = [values[: last + 1] for values in (curve.mean, joint.log10_norm) if _have_a_start(values)]
    if last == 0 or len(curves) < 2:
        return f"{start}."
    half = (last + 1) // 2 if any(map(_is_uneven, curves)) else 0
    if half:
        where = f"from the largest of distances 0 to {grouped(half - 1)} to that of {grouped(half)} to {grouped(last)}"
        ends = [_change(float(values[half:].max() - values[:half].max())) for values in curves]
    else:
        where = f"from distance 0 to {grouped(last)}"
        ends = [_change(float(values[-1] - values[0])) for values in curves]
    if ends[0] == ends[1]:
        return f"{start}, but {where} each {ends[0]}."
    return f"{start}: {where} the first {ends[0]}, the second {ends[1]}."


def _is_uneven(log10: np.ndarray[Any, Any]) -> bool:
    """Tell whether a curve falls and rises again by more than a factor 10, as with a clock that some units wait for.

    Then its two ends may lie at different phases, and compare nothing.

    >>> _is_uneven(np.array([0.0, -1.0, -2.0, -2.5])), _is_uneven(np.array([0.0, -16.0, -0.5, -16.5]))
    (False, True)
    """
    some = log10[np.isfinite(log10)]
    rises, falls = some - np.minimum.accumulate(some), np.maximum.accumulate(some) - some
    return bool(rises.max() > 1.0 and falls.max() > 1.0)


def _have_a_start(values: np.ndarray[Any, Any]) -> bool:
    """Tell whether a curve can be compared with its start: it is no exact zero there, and a number at the end."""
    return math.isfinite(values[0]) and values[-1] < math.inf


def _change(log10: float) -> str:
    if math.isinf(log10):
        return "falls to exactly zero"
    if abs(log10) < 0.005:
        return "stays level"
    way = "falls" if log10 < 0 else "grows"
    return f"{way} by a factor {power_of_ten(abs(log10))}"


# The tables.


def _terms_table(found: Contributions, joint: Terms, curve: Curve) -> Table:
    last = len(joint.share) - 1
    distances = shown_distances(last, [w - 1 for e in TOLERANCES if (w := joint.window(e)) is not None])
    columns = [
        Column("distance", keep=9),
        Column("contribution", keep=9),
        Column("", "bar", keep=2),
        Column("of gradient", keep=5),
        Column("share", keep=8),
        Column("kept", keep=7),
        Column("state curve", keep=8),
    ]
    drawn = bars([float(joint.log10_norm[d]) for d in distances])
    rows: list[list[Cell]] = [
        [
            d,
            log10_text(float(joint.log10_norm[d])),
            bar,
            _fraction(float(joint.log10_relative[d])),
            _share(float(joint.share[d])),
            _share(float(joint.kept[d])),
            log10_text(float(curve.mean[d])),
        ]
        for d, bar in zip(distances, drawn, strict=True)
    ]
    note = (
        f"contribution: log10 |term| of all parameters{_layer_words(found)} together, |gradient| "
        f"{power_of_ten(joint.log10_total)}; state curve: log10 of the mean |dL/ds|. Shares are projections on the"
        " gradient and add up to 1; norms do not add."
    )
    return Table(columns, rows, note=note)


def _fraction(log10: float) -> str | None:
    return None if math.isnan(log10) else power_of_ten(log10)


def _share(value: float) -> str | None:
    """Return a share or cosine; empty where there is no gradient."""
    return None if math.isnan(value) else fraction(value)


def _windows_table(joint: Terms) -> Table:
    count = len(joint.bias)
    wanted = [w for e in TOLERANCES for w in (joint.window(e), joint.window_by_cosine(e)) if w is not None]
    windows = [d + 1 for d in shown_distances(count - 1, [w - 1 for w in wanted])]
    columns = [
        Column("window K", keep=9),
        Column("share kept", keep=7),
        Column("norm kept", keep=6),
        Column("cosine", keep=8),
        Column("relative bias", keep=9),
        Column("", "flag", keep=5),
    ]
    rows: list[list[Cell]] = [
        [
            k,
            _share(float(joint.kept[k - 1])),
            _share(float(joint.norm_kept[k - 1])),
            _share(float(joint.cosine[k - 1])),
            _bias(float(joint.bias[k - 1]), joint),
            _marks(joint, k),
        ]
        for k in windows
    ]
    note = (
        "G_K: the terms of the last K steps; share kept <G_K, G> / <G, G>, norm kept |G_K| / |G|, bias |G_K - G| / |G|"
    )
    return Table(columns, rows, title="truncated BPTT", note=note)


def _bias(value: float, terms: Terms) -> str | None:
    if math.isnan(value):
        return None
    return f"< {significant(terms.rounding, digits=1)}" if value < terms.rounding else significant(value, digits=2)


def _marks(joint: Terms, window: int) -> str:
    return ", ".join(percent(1 - e) for e in TOLERANCES if joint.window(e) == window)


def _parameter_table(found: Contributions) -> Table:
    parameters = found.parameters or {}
    last = len(next(iter(parameters.values())).share) - 1
    columns = [
        Column("parameter", "text", keep=9),
        Column("|gradient|", keep=8),
        Column("share at 0", keep=6),
        *([Column(f"at {last}", keep=5)] if last else []),
        *(Column(f"K for {percent(1 - e)}", keep=7) for e in TOLERANCES),
        *(Column(f"cosine {threshold(1 - e)}", keep=4) for e in TOLERANCES),
    ]
    rows: list[list[Cell]] = [
        [
            name,
            power_of_ten(terms.log10_total),
            _share(float(terms.share[0])),
            *([_share(float(terms.share[last]))] if last else []),
            *(terms.window(e) for e in TOLERANCES),
            *(terms.window_by_cosine(e) for e in TOLERANCES),
        ]
        for name, terms in parameters.items()
    ]
    note = f"K: the smallest window with a relative bias of at most {_or(TOLERANCES)}; then by the cosine"
    return Table(columns, rows, title=f"parameters{_layer_words(found)}", note=note)


def _or(tolerances: Sequence[float]) -> str:
    return " or ".join(map(percent, tolerances))


def _named_terms(found: Contributions) -> list[Block]:
    """Return each parameter's gradient as the sum of its terms, each by its name, where there are few steps."""
    last = found.network.problem.seq_len
    if last > MOST_NAMED_TERMS or not found.parameters:
        return []
    tables: list[Block] = []
    for name, terms in found.parameters.items():
        steps = [last - d for d in range(last)]
        title = _sum_of_terms(found, name, steps)
        columns = [
            Column("term of step", "text", keep=9),
            Column("value" if terms.value is not None else "norm", keep=8),
            Column("share of the gradient", keep=9),
            Column("sum so far", keep=6),
        ]
        rows: list[list[Cell]] = [
            [str(k), _size(terms, last - k), _share(float(terms.share[last - k])), _share(float(terms.kept[last - k]))]
            for k in steps
        ]
        whole = power_of_ten(terms.log10_total) if terms.value is None else significant(terms.value, digits=5)
        rows.append(["sum", whole, "1" if terms.exists else None, None])
        tables.append(Table(columns, rows, title=title))
    return tables


def _sum_of_terms(found: Contributions, name: str, steps: Sequence[int]) -> str:
    last = found.network.problem.seq_len
    if not found.network.problem.tied:
        return f"dL_{last}/d{name}, of each step's own {name}"
    return f"dL_{last}/d{name} = " + " + ".join(f"term of step {k}" if k == last else f"step {k}" for k in steps)


def _size(terms: Terms, d: int) -> str:
    """Return a term: the number itself where the parameter is one number, else its norm."""
    if terms.value is None or not terms.exists:
        return power_of_ten(float(terms.log10_norm[d]))
    return significant(terms.value * float(terms.share[d]) + 0.0, digits=5)  # + 0.0: without the sign of a zero
