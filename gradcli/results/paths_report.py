"""What a person reads of `gradcli paths`: the formulas of one step, the routes and their shares, the direct route."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from gradcli.diagnostics.paths import CARRIES, DirectCurve, Paths, RouteTable
from gradcli.diagnostics.paths_tracer import LONGEST_ROUTE, MOST_ROUTES
from gradcli.language.formula import FormulaWriter, JacobianBlock, StepJacobian, step_jacobian
from gradcli.language.notation import Latex, Text, signed_sum
from gradcli.numbers import fraction, grouped, log10_text, percent, power_of_ten, significant, steps_text, threshold
from gradcli.results.curves import shown_distances
from gradcli.results.declared import InColumns, columns_of, csv_names
from gradcli.results.formulas import JACOBIAN_TITLES
from gradcli.results.model import Block, Cell, Column, Line, Records, Report, Table, filled
from gradcli.results.paths import (
    DirectRouteByDistance,
    PathsOfLayer,
    RoutesBetween,
    RouteShare,
    coefficient,
    largest_first,
    paths_fields,
    route_name,
)
from gradcli.results.simulate import describe, verdict_lines

Array = np.ndarray[Any, Any]

#: From this projection on, a route is clearly more than the whole of which it is a part.
_MORE_THAN_ALL = 1.5
#: A projection below this is no float any more, or has lost digits.
_SMALLEST = 1e-300
#: A name on a route that is longer than this, as of a part of an equation that has none, is cut; not with --full.
LONGEST_NAME = 40
_CUT, _ARROW = "...", " -> "
_NOTHING_EARLIER = "No state depends on an earlier one: there is no way back through time."
_LATEX_BREAK = r" \\"


def paths_of_layer(found: Paths) -> PathsOfLayer:
    """Return the result for the routes of one layer."""
    writer = FormulaWriter(found.graph, Text())
    text, latex = (step_jacobian(found.graph, notation) for notation in (Text(), Latex()))
    fields = paths_fields(found, writer, text, latex)
    title = Line(describe(found.network), found.network.loaded.label, "title")
    notes = [Line(text, style="dim") for text in _notes(found)]
    head: list[Block] = [title, *notes]
    formulas = jacobian_tables(text)
    routes, whole = ([[_routes(found, table, writer, cut)] for table in found.tables] for cut in (True, False))
    groups, full = [head], [head]
    if found.verdict is not None:
        groups += [verdict_lines(found.verdict), *formulas]
        full = []
    else:
        sentences = direct_lines(found)
        curves: list[list[Block]] = [[_direct_table(curve, found)] for curve in found.direct]
        more = Line("formulas of whole steps, the direct route by distance: --full", "more", "dim")
        groups += [sentences, *routes, *jacobian_tables(text, cut=True)[:1], [more] if found.tables else []]
        full += [sentences, *whole, *formulas, *curves]
    layer = found.network.problem.names[found.layer]
    shown = Report(
        "paths",
        filled(groups),
        records=_records(fields["label"], layer, fields["routes"], fields["direct"]),
        latex=_latex(latex),
        full=filled(full),
    )
    return PathsOfLayer(**fields, shown=shown)


def _records(
    label: str, layer: str, routes: Sequence[RoutesBetween], direct: Sequence[DirectRouteByDistance]
) -> Records:
    """Return one row for each share, and one for each distance of a direct route."""
    header = ["label", "layer", "section", "start", "end", "distance", *csv_names(RouteShare)]
    of = {"label": label, "layer": layer}
    shares = [
        {**of, "section": each.listed, **columns_of(each), **columns_of(share)}
        for each in routes
        for share in each.shares
    ]
    curves = [
        {
            **of,
            "section": "direct",
            "start": curve.state,
            "end": curve.state,
            "distance": curve.distance,
            "route": f"{curve.state} -> {curve.state}",
            "log10_norm": curve.log10_direct,
            "log10_relative": _relative(curve),
            "projection": curve.projection,
            "cosine": curve.cosine,
        }
        for curve in direct
    ]
    return InColumns(header, [*shares, *curves]).records


def _relative(curve: DirectRouteByDistance) -> Array:
    with np.errstate(invalid="ignore"):
        return np.asarray(curve.log10_direct - curve.log10_total)


def _notes(found: Paths) -> Iterator[str]:
    """Yield what is to be known of the layer, and of the step at which routes start."""
    layers = len(found.network.problem.plans)
    if found.layer < layers - 1:
        yield (
            f"layer {found.layer} of 0 to {layers - 1}: routes inside it, of the gradient that the layers above pass on"
            f" at step {found.step} alone"
        )
    elif layers > 1:
        yield f"layer {found.layer}, the top one"
    problem = found.network.problem
    if len(problem.loss.steps) > 1:
        yield f"the loss at step {found.step} alone: what enters at other steps takes the same routes from there"
    if found.step < problem.seq_len:
        yield f"the loss counts last at step {found.step}: distances are counted from there"


# Formulas.


def jacobian_tables(jacobian: StepJacobian, *, cut: bool = False) -> list[list[Block]]:
    """Return the blocks of the Jacobian, the partial derivatives and the total ones each in a table.

    Args:
        cut: whether very long names on routes are cut.
    """
    if not jacobian.blocks:
        return [[Line(_NOTHING_EARLIER)]]
    partial = [block for block in jacobian.blocks if not block.is_total]
    total = [block for block in jacobian.blocks if block.is_total]
    symbols = [f"{symbol} = {formula}" for symbol, formula in jacobian.definitions]
    where = f"where {', '.join(symbols)}" if symbols else ""
    groups: list[list[Block]] = [[_formula_table(JACOBIAN_TITLES[False], partial, cut)]]
    if total:
        groups.append([_formula_table(JACOBIAN_TITLES[True], total, cut)])
    if where:
        groups[-1].append(Line(where))
    return groups


def _formula_table(title: str, blocks: Sequence[JacobianBlock], cut: bool) -> Table:
    columns = [Column("", "text", keep=9), Column("formula", "text", keep=9), Column("route back", "text", keep=6)]
    rows: list[list[Cell]] = []
    for block in blocks:
        if not block.terms:
            rows.append([f"{block.name} =", f"a sum over {grouped(block.count)} routes", None])
        for index, term in enumerate(block.terms):
            sign = "-" if term.sign < 0 else "+" if index else ""
            rows.append(
                [f"{block.name} =" if not index else "", f"{sign} {term.text}".strip(), shown_route(term.route, cut)]
            )
    return Table(columns, rows, title=title)


def _latex(jacobian: StepJacobian) -> str:
    """Return the formulas as an align* environment of amsmath."""
    lines = [line for block in jacobian.blocks for line in _latex_lines(block)]
    lines += [(f"{symbol} &= {formula}", "") for symbol, formula in jacobian.definitions]
    if not lines:
        return f"% {_NOTHING_EARLIER}\n"
    ends = [*[_LATEX_BREAK] * (len(lines) - 1), ""]
    comments = [f"  % {route}" if route else "" for _, route in lines]
    rows = [f"  {text}{end}{note}" for (text, _), end, note in zip(lines, ends, comments, strict=True)]
    return "\n".join([r"\begin{align*}", *rows, r"\end{align*}", ""])


def _latex_lines(block: JacobianBlock) -> Iterator[tuple[str, str]]:
    if not block.terms:
        yield rf"{block.name} &= \text{{a sum over {block.count} routes}}", ""
    for index, term in enumerate(block.terms):
        if index == 0:
            yield f"{block.name} &= {signed_sum([(term.sign, term.text)])}", term.route
        else:
            yield rf"&\quad {'-' if term.sign < 0 else '+'} {term.text}", term.route


# Routes.


def _routes(found: Paths, table: RouteTable, writer: FormulaWriter, cut: bool) -> Block:
    if table.shares:
        return _route_table(found, table, writer, cut)
    return Line(f"No route leads {_ends(found, table)}: the gradient there is exactly zero.")


def _route_table(found: Paths, table: RouteTable, writer: FormulaWriter, cut: bool) -> Block:
    if table.zeros == 1:
        return Line(f"{routes_title(found, table)}: the gradient is exactly zero")
    columns = [
        Column("route" if table.is_complete else "last step of the routes", "text", keep=9),
        Column("norm", keep=7),
        Column("relative", keep=6),
        Column("projection", keep=9),
        Column("", "bar", keep=3),
        Column("cosine", keep=5),
    ]
    # Long names need the room that bars would take.
    long = table.is_complete and table.distance > 1
    rows: list[list[Cell]] = [
        [
            shown_route(route_name(found, table, share, writer), cut),
            power_of_ten(share.log10_norm),
            _maybe_power(share.log10_relative),
            _signed(share.projection),
            None if share.projection is None or long else min(abs(share.projection), 1.0),
            _signed(share.cosine),
        ]
        for share in largest_first(table.shares)
    ]
    one = "1" if _has_shares(table) else "-"
    rows.append(["all together", power_of_ten(table.log10_norm), one, one, None, one])
    return Table(columns, rows, title=routes_title(found, table), note=_route_note(table))


def _has_shares(table: RouteTable) -> bool:
    """Tell whether there is a gradient in any sequence, more than rounding, for routes to have shares of."""
    return any(share.log10_relative is not None for share in table.shares)


def shown_route(name: str, cut: bool) -> str:
    """Return the name of a route, with what is very long on it cut in the middle where `cut`.

    >>> shown_route("h -> sum(beta[0:1]) / (sum(abs(s[0:4])^5))^0.2 / 3 -> h", True)
    'h -> sum(beta[0:1]) / (s...[0:4])^5))^0.2 / 3 -> h'
    """
    return _ARROW.join(_middle_cut(part) for part in name.split(_ARROW)) if cut else name


def _middle_cut(name: str) -> str:
    if len(name) <= LONGEST_NAME:
        return name
    kept = LONGEST_NAME - len(_CUT)
    return f"{name[: (kept + 1) // 2]}{_CUT}{name[-(kept // 2) :]}"


def routes_title(found: Paths, table: RouteTable) -> str:
    ends = _ends(found, table)
    if table.count == 1:
        return f"The only route {ends}"
    if table.is_complete:
        return f"All {table.count} routes {ends}"
    count = "Routes" if table.count is None else f"The {_many(table.count)} routes"
    return f"{count} {ends}, by their last step"


def _ends(found: Paths, table: RouteTable) -> str:
    return f"from {table.start}[{found.step}] back to {table.end}[{found.step - table.distance}]"


def _many(count: int) -> str:
    return grouped(count) if count < 10**6 else power_of_ten(math.log10(count))


def _route_note(table: RouteTable) -> str:
    if _has_shares(table):
        parts = [
            "vectors add up, norms do not: the projections on the whole gradient add up to 1",
            "over trials and sequences projection is the mean, and norm, relative and cosine are medians",
        ]
    else:
        parts = ["the routes cancel to zero but for rounding: there is no whole gradient to compare them with"]
    if not table.is_complete:
        parts.append(
            "each row is the sum of all routes that end so, whatever came before"
            f" (one by one up to {MOST_ROUTES} routes over {LONGEST_ROUTE} steps)"
        )
    if table.zeros:
        parts.append(f"in {percent(table.zeros)} of the sequences the gradient is exactly zero")
    if table.rounding and _has_shares(table):
        parts.append(
            f"in {percent(table.rounding)} of the sequences the routes cancel to zero but for rounding: they count for"
            " the norm alone"
        )
    return "; ".join(parts)


def _maybe_power(log10: float | None) -> str:
    return "-" if log10 is None else power_of_ten(log10)


def _signed(value: float | None) -> str:
    """Return a projection or a cosine."""
    return "-" if value is None or math.isnan(value) else fraction(value)


# The direct route.


def direct_lines(found: Paths) -> list[Block]:
    """Say of every direct route whether it carries the gradient; nothing where nothing was measured."""
    if not found.tables:
        return []
    if not found.direct:
        states = " and ".join(found.graph.states)
        text = (
            f"None: no step takes {states} over entry by entry, so all of the gradient goes through matrices or gates."
        )
        return [Line(text, "direct route")]
    writer = FormulaWriter(found.graph, Text())
    return [Line(direct_sentence(curve, writer), "direct route") for curve in found.direct]


def direct_sentence(curve: DirectCurve, writer: FormulaWriter) -> str:
    """Say whether the direct route of a state carries its gradient, and how far back."""
    state = curve.route.label
    name = f"{state} -> {state} at every step, {coefficient(curve, writer)}"
    if curve.start is None:
        nothing = "nothing but rounding of routes that cancel" if curve.rounding.any() else "exactly zero"
        return f"{name}: but the gradient of {state} is {nothing}."
    began = steps_text(curve.start)
    seen = np.flatnonzero(~np.isnan(curve.projection) & (curve.distances > curve.start))
    if not seen.size:
        if curve.start:
            return f"{name}: but {state} has a gradient {began} back only."
        return f"{name}: but the gradient of {state} is exactly zero."
    # Where it begins it is all of the gradient, which says nothing.
    first = f" The gradient of {state} begins {began} back: the route is followed from there." if curve.start else ""
    last = int(seen[-1])
    farthest, share = int(curve.distances[last]), float(curve.projection[last])
    steps = f"{steps_text(farthest)} back"
    # In most sequences both may be exactly zero, where some have a gradient still.
    direct = float(curve.log10_direct[last])
    ratio = direct if math.isinf(direct) else direct - float(curve.log10_total[last])
    if curve.carries_to >= farthest:
        answer = (
            f"It carries the gradient of {state}: {steps} its projection on the whole is {significant(share, digits=3)}"
        )
        more = ", so that other routes work against it" if share > _MORE_THAN_ALL else ""
        since = " from there on" if curve.start else ""
        return f"{name}.{first} {answer}{more}; it is at least {CARRIES:g} at every distance{since}."
    size = f"{steps} its norm is {power_of_ten(ratio)} of the whole gradient's"
    rest = "the other routes carry it" if ratio <= 0 else "the other routes work against it"
    if curve.carries_to > curve.start:
        far = steps_text(curve.carries_to)
        return f"{name}.{first} It carries the gradient of {state} up to {far} back only: {size}; beyond, {rest}."
    return f"{name}.{first} It does not carry the gradient of {state}: {size}; {rest}."


def _direct_table(curve: DirectCurve, found: Paths) -> Table:
    place = {int(distance): index for index, distance in enumerate(curve.distances)}
    also = [curve.carries_to, *(table.distance for table in found.tables)]
    shown = [place[d] for d in shown_distances(int(curve.distances[-1]), also) if d in place]
    columns = [
        Column("distance", keep=9),
        Column("log10 direct", keep=8),
        Column("log10 all", keep=8),
        Column("relative", keep=6),
        Column("projection", keep=9),
        Column("", "bar", keep=3),
        Column("cosine", keep=5),
    ]
    rows: list[list[Cell]] = []
    for i in shown:
        direct, whole = float(curve.log10_direct[i]), float(curve.log10_total[i])
        projection = float(curve.projection[i])
        rows.append(
            [
                int(curve.distances[i]),
                log10_text(direct),
                log10_text(whole),
                None if math.isnan(projection) else power_of_ten(direct - whole),
                f"< {threshold(_SMALLEST)}"
                if abs(projection) < _SMALLEST and math.isfinite(direct)
                else _signed(projection),
                None if math.isnan(projection) else min(abs(projection), 1.0),
                _signed(float(curve.cosine[i])),
            ]
        )
    note = "medians over trials and sequences"
    if curve.rounding.any():
        note += "; where most of them have nothing but rounding of routes that cancel, it is compared with nothing"
    return Table(columns, rows, title=f"The direct route of {curve.route.label} beside its whole gradient", note=note)
