"""What `gradcli paths` finds of one layer, each number declared once; `paths_report` is what a person reads."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from gradcli.diagnostics.paths import CARRIES, DirectCurve, Paths, RouteTable, Share
from gradcli.diagnostics.paths_tracer import MOST_DISTANCES
from gradcli.frozen import frozen
from gradcli.language.formula import MOST_TERMS, FormulaWriter, JacobianBlock, StepJacobian
from gradcli.language.graph import Node
from gradcli.language.notation import signed_sum
from gradcli.language.routes import Diagonal
from gradcli.results.declared import key
from gradcli.results.one_layer import OfOneSpec, spec_fields
from gradcli.results.run import Verdict, verdict_of

Array = np.ndarray[Any, Any]

#: What the numbers of routes are over all trials and sequences.
AGGREGATES = {
    "log10_norm": "median over trials and sequences",
    "log10_relative": "median over the sequences whose gradient is not zero, exactly or but for rounding",
    "projection": "routes: mean over those sequences, so that the shares add up to 1; direct: their median",
    "cosine": "median over those of them in which the route's vector is not zero",
}
#: Whole numbers beyond this are no longer exact where a reader makes floats of them.
_LARGEST_EXACT = 2**53


@frozen(kw_only=True)
class RouteFormula:
    """A term of a block: one route within the step."""

    route: str = key("the route, such as `c -> f -> h -> c`")
    formula: str = key("what it multiplies by, in the notation of the screen")
    latex: str = key("the same as LaTeX")


@frozen(kw_only=True)
class BlockFormula:
    """A block of the Jacobian of one step, as formulas."""

    of: str = key("the state that is derived")
    by: str = key("the earlier state that it is derived by")
    lag: int = key("how many steps earlier")
    derivative: str = key("`partial` (earlier states independent) or `total` (as functions of each other)")
    name: str = key("its name, such as `dc[t]/dc[t-1]`")
    count: int = key("how many routes there are")
    terms: Sequence[RouteFormula] = key(f"each of them; none where there are more than {MOST_TERMS}")


@frozen(kw_only=True)
class StepFormulas:
    """The Jacobian of one step, derived from the equations."""

    blocks: Sequence[BlockFormula] = key("its blocks")
    definitions: Mapping[str, str] = key("the symbols in the formulas")


@frozen(kw_only=True)
class RouteShare:
    """What one route, or all with the same last step, passes on; null where no sequence has a gradient to compare."""

    route: str = key("the route")
    formula: str = key("what it multiplies by", csv=False)
    log10_norm: float | None = key("log10 of the norm of its vector")
    log10_relative: float | None = key("log10 of that relative to the whole gradient")
    projection: float | None = key("v . total / |total|^2; those of all routes add up to 1")
    cosine: float | None = key("of the angle between the two")


@frozen(kw_only=True)
class RoutesBetween:
    """The routes from one state at the loss back to another."""

    start: str = key("the state that they start from")
    end: str = key("the state that they lead back to")
    distance: int = key("how many steps earlier")
    count: int | str | None = key(
        "how many there are; a text above 2^53, which a float could not hold; null: not counted", csv=False
    )
    listed: str = key("what `shares` has: `routes`, or `last steps` of them all where there are too many", csv=False)
    log10_norm: float | None = key("log10 of the norm of the whole gradient", csv=False)
    fraction_zero: float = key("of the sequences, how many have none", csv=False)
    fraction_rounding: float = key(
        "in how many the routes cancel to zero but for rounding; they have no shares", csv=False
    )
    residual: float | None = key("|sum of the routes - whole| / |whole|, the largest", csv=False)
    shares: Sequence[RouteShare] = key("what each passes on, the largest first", csv=False)


@frozen(kw_only=True)
class DirectRouteByDistance:
    """A direct route, gates held constant, beside the whole gradient of its states, at D distances, each (D,)."""

    state: str = key("what it is called: its state, or several of them, such as `(re, im)`")
    states: Sequence[str] = key("the states on it")
    coefficient: str = key("what it multiplies by in a step")
    carries_to: int = key(f"the distance up to which its projection is at least {CARRIES:g} throughout")
    start: int | None = key(
        "the distance where it begins: where the gradient of its states first is not exactly zero; null where nowhere"
    )
    distance: Array = key(f"the distances: all up to {MOST_DISTANCES:,}, or about so many of them")
    log10_direct: Array = key("log10 of the norm that it alone passes on")
    log10_total: Array = key("log10 of that of the whole gradient")
    projection: Array = key("of the one on the other; null where there is no gradient")
    cosine: Array = key("of the angle between the two")
    fraction_rounding: Array = key("of the sequences, in how many the whole gradient is nothing but rounding")


@frozen(kw_only=True, repr=False, eq=False)
class PathsOfLayer(OfOneSpec):
    """What `paths` found of one layer."""

    command = "paths"

    layer: int = key("its number, from 0")
    step: int = key("the step from which distances count: where the loss counts last")
    verdict: Verdict | None = key("null unless `nonfinite`")
    aggregates: Mapping[str, str] = key("what each number is over all trials and sequences")
    jacobian: StepFormulas = key("one step's Jacobian as formulas")
    routes: Sequence[RoutesBetween] = key("the routes, for each end")
    direct: Sequence[DirectRouteByDistance] = key("the direct routes by distance")


def paths_fields(found: Paths, writer: FormulaWriter, text: StepJacobian, latex: StepJacobian) -> dict[str, Any]:
    """Return the fields of `PathsOfLayer` for what was found.

    Args:
        writer: of formulas as text. text, latex: the Jacobian of one step.
    """
    return {
        **spec_fields(found.network, finite=found.verdict is None),
        "layer": found.layer,
        "step": found.step,
        "verdict": None if found.verdict is None else verdict_of(found.verdict),
        "aggregates": AGGREGATES,
        "jacobian": StepFormulas(
            blocks=tuple(map(_block, text.blocks, latex.blocks)), definitions=dict(text.definitions)
        ),
        "routes": tuple(_routes(found, table, writer) for table in found.tables),
        "direct": tuple(_direct(curve, writer) for curve in found.direct),
    }


def _block(block: JacobianBlock, twin: JacobianBlock) -> BlockFormula:
    return BlockFormula(
        of=block.target,
        by=block.source,
        lag=block.lag,
        derivative="total" if block.is_total else "partial",
        name=block.name,
        count=block.count,
        terms=tuple(
            RouteFormula(
                route=term.route,
                formula=signed_sum([(term.sign, term.text)]),
                latex=signed_sum([(in_latex.sign, in_latex.text)]),
            )
            for term, in_latex in zip(block.terms, twin.terms, strict=True)
        ),
    )


def _routes(found: Paths, table: RouteTable, writer: FormulaWriter) -> RoutesBetween:
    return RoutesBetween(
        start=table.start,
        end=table.end,
        distance=table.distance,
        count=str(table.count) if table.count is not None and table.count > _LARGEST_EXACT else table.count,
        listed="routes" if table.is_complete else "last steps",
        log10_norm=table.log10_norm,
        fraction_zero=table.zeros,
        fraction_rounding=table.rounding,
        residual=table.residual,
        shares=tuple(
            RouteShare(
                route=route_name(found, table, share, writer),
                formula=writer.formula(share.route),
                log10_norm=share.log10_norm,
                log10_relative=share.log10_relative,
                projection=share.projection,
                cosine=share.cosine,
            )
            for share in largest_first(table.shares)
        ),
    )


def _direct(curve: DirectCurve, writer: FormulaWriter) -> DirectRouteByDistance:
    return DirectRouteByDistance(
        state=curve.route.label,
        states=tuple(curve.route.states),
        coefficient=coefficient(curve, writer),
        carries_to=curve.carries_to,
        start=curve.start,
        distance=curve.distances,
        log10_direct=curve.log10_direct,
        log10_total=curve.log10_total,
        projection=curve.projection,
        cosine=curve.cosine,
        fraction_rounding=curve.rounding,
    )


def route_name(found: Paths, table: RouteTable, share: Share, writer: FormulaWriter) -> str:
    step = found.step if table.is_complete and table.distance > 1 else None
    return writer.route(share.route, step)


def largest_first(shares: Sequence[Share]) -> list[Share]:
    return sorted(shares, key=lambda share: -abs(share.projection or 0.0))


def coefficient(curve: DirectCurve, writer: FormulaWriter) -> str:
    """Return what a route multiplies by in a step: one coefficient, or of several states each with its ends."""
    if len(curve.route.edges) == 1:
        edge = curve.route.edges[0]
        return _diagonal(edge.coefficient, edge.source, writer)
    words = []
    for edge in curve.route.edges:
        within = "" if edge.lag else " within the step"
        words.append(f"{edge.target} <- {edge.source}{within}: {_diagonal(edge.coefficient, edge.source, writer)}")
    return "; ".join(words)


def _diagonal(coefficient: Node, source: str, writer: FormulaWriter) -> str:
    is_one = coefficient.is_number and coefficient.data == 1.0
    return signed_sum([writer.factor(None if is_one else Diagonal(coefficient), source)])
