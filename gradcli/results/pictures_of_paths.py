"""The pictures of `gradcli paths`: the shares of the routes, and the direct routes beside the whole gradient."""

from __future__ import annotations

from functools import partial

from gradcli.diagnostics.paths import Paths
from gradcli.language.formula import FormulaWriter
from gradcli.language.notation import Text
from gradcli.numbers import significant
from gradcli.results.paths import largest_first, route_name
from gradcli.results.paths_report import direct_sentence, routes_title, shown_route
from gradcli.results.pictures import Axis, Bar, BarChart, Gallery, LineChart, Picture, Series
from gradcli.results.pictures_of_run import DISTANCE, MOST_SERIES, NORM, run_words, without_curve

#: The largest so many routes to each end are drawn.
_MOST_BARS = 12


def pictures_of_paths(found: Paths) -> Gallery:
    """Return the pictures of `paths`."""
    return {"routes": partial(routes_picture, found), "direct": partial(direct_picture, found)}


def routes_picture(found: Paths) -> Picture:
    """Return the share of each route in the gradient of the state at which it ends."""
    label = found.network.loaded.label
    if found.verdict is not None:
        return without_curve("routes", f"{label}: nonfinite", found.network, found.verdict)
    writer = FormulaWriter(found.graph, Text())
    bars: list[Bar] = []
    main: list[str] = []
    left_out = 0
    for table in found.tables:
        shares = largest_first(table.shares)
        left_out += max(len(shares) - _MOST_BARS, 0)
        names = [shown_route(route_name(found, table, share, writer), True) for share in shares[:_MOST_BARS]]
        group = routes_title(found, table)
        bars += [Bar(name, [share.projection], group) for name, share in zip(names, shares, strict=False)]
        if shares and shares[0].projection is not None:
            main.append(f"{names[0]} ({significant(shares[0].projection, digits=2)})")
    more = f"; {left_out} smaller ones are not drawn" if left_out else ""
    words = f"main route{'s' if len(main) > 1 else ''} of the gradient: {', '.join(main)}" if main else "no gradient"
    sentences = [direct_sentence(curve, writer) for curve in found.direct]
    return BarChart(
        "routes",
        f"{label}: {words}",
        Axis("projection on the whole gradient"),
        [""],
        bars,
        (),
        f"{run_words(found.network)}{more}",
        " ".join(["Shares of the routes of one gradient, the largest first; to each end they add up to 1.", *sentences])
        if main
        else "No route leads back to an earlier state, or the gradient there is exactly zero.",
    )


def direct_picture(found: Paths) -> LineChart:
    """Return the norm of what the direct routes carry, beside that of the whole gradient of their states."""
    label = found.network.loaded.label
    if found.verdict is not None:
        return without_curve("direct", f"{label}: nonfinite", found.network, found.verdict)
    writer = FormulaWriter(found.graph, Text())
    series = []
    for curve in found.direct[: MOST_SERIES // 2]:
        state = curve.route.label
        series.append(Series(f"whole gradient of {state}", curve.distances, curve.log10_total, "reference"))
        series.append(Series(f"direct route of {state} alone", curve.distances, curve.log10_direct))
    carried = "; ".join(f"of {curve.route.label} up to {curve.carries_to} steps back" for curve in found.direct)
    return LineChart(
        "direct",
        f"{label}: the direct route carries the gradient {carried}"
        if carried
        else f"{label}: there is no direct route",
        DISTANCE,
        NORM,
        series,
        subtitle=run_words(found.network),
        description=" ".join(direct_sentence(curve, writer) for curve in found.direct)
        or "No step takes a state over entry by entry: there is no direct route.",
    )
