"""`gradcli paths`: which routes through the cell the gradient takes, as formulas and in numbers."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Annotated, Unpack

from gradcli.commands.command import command
from gradcli.commands.options import ByFormat, Layer, Option, RunOptions, Target
from gradcli.errors import UsageError, did_you_mean
from gradcli.formats import FORMATS, FORMULA_FORMATS

if TYPE_CHECKING:
    from gradcli.diagnostics.paths import Paths
    from gradcli.prepare.build import Network
    from gradcli.prepare.resources import Resources
    from gradcli.results.paths import PathsOfLayer
    from gradcli.results.pictures import Gallery
    from gradcli.spec.reader import LoadedSpec


@command(
    "gradcli paths lstm",
    "gradcli paths lstm -T 3 --distance 2",
    "gradcli paths gru --to h --distance 50",
    "gradcli paths my.yaml --format latex",
    formats=(*FORMATS, *FORMULA_FORMATS),
    pictures=("routes", "direct"),
)
def paths(
    spec: Target,
    *,
    distance: Annotated[
        int, Option(metavar="D", help="Steps from the loss back to where the routes end.", least=1)
    ] = 1,
    start: Annotated[
        str | None,
        Option(
            names=("--from",),
            metavar="STATE",
            help="The state at the last step that the routes start from.",
            default="the output",
        ),
    ] = None,
    end: Annotated[
        str | None,
        Option(names=("--to",), metavar="STATE", help="The state that the routes lead back to.", default="all states"),
    ] = None,
    layer: Layer = None,
    formulas_only: Annotated[bool, ByFormat(lambda name: name in FORMULA_FORMATS)] = False,
    **options: Unpack[RunOptions],
) -> PathsOfLayer:
    """Which routes through the cell the gradient takes: one step's Jacobian as formulas, and each route's share.

    Args:
        spec, options: as for `gradcli.simulate`.
        distance: how many steps back the routes lead.
        start: the state that they start from; the output unless given. end: that they lead to; all unless given.
        layer: its name or number, or a layer of the checkpoint; the top one unless given.
        formulas_only: derive, and measure nothing.

    Raises:
        GradcliError: as for `gradcli.simulate`, and a state, layer or distance that there is not.
    """
    from gradcli.commands.loading import load_for_layer
    from gradcli.prepare.resources import Resources
    from gradcli.results.paths_report import paths_of_layer

    loaded, layer = load_for_layer(spec, options, layer=layer)
    found = paths_of(
        loaded,
        layer,
        Resources.of(options),
        distance=distance,
        start=start,
        end=end,
        formulas_only=formulas_only,
    )
    result = paths_of_layer(found)
    return result if formulas_only else result.with_gallery(partial(_pictures, found))


def paths_of(
    loaded: LoadedSpec,
    layer: str | None,
    may: Resources,
    *,
    distance: int = 1,
    start: str | None = None,
    end: str | None = None,
    formulas_only: bool = False,
) -> Paths:
    """Return what `paths` finds of a spec; raises as it does."""
    from gradcli.commands.layers import choose_layer, require_one_direction, require_one_length
    from gradcli.diagnostics.paths import formulas_of, trace_paths
    from gradcli.prepare.build import build

    with may.computing_threads():
        network = build(loaded, max_memory=may.max_memory)
    if not formulas_only:
        require_one_direction(network, "paths")
        require_one_length(network, "paths")
    chosen = choose_layer(network, layer)
    cell = network.problem.plans[chosen].cell
    states = list(cell.states)
    first = _state("--from", start or cell.output, states)
    ends = [_state("--to", end, states)] if end is not None else states
    _check_distance(network, distance)
    with may.computing_threads(network.problem):
        if formulas_only:
            return formulas_of(network, chosen)
        return trace_paths(network, layer=chosen, distance=distance, start=first, ends=ends, progress=may.progress)


def _pictures(found: Paths) -> Gallery:
    from gradcli.results.pictures_of_paths import pictures_of_paths

    return pictures_of_paths(found)


def _state(option: str, name: str, states: Sequence[str]) -> str:
    if name not in states:
        raise UsageError(
            f"{option}: no state is called {name!r}; states: {', '.join(states)}{did_you_mean(name, states)}"
        )
    return name


def _check_distance(network: Network, distance: int) -> None:
    last, seq_len = network.problem.loss.last_step, network.problem.seq_len
    if distance > last:
        where = "" if last == seq_len else f", where the loss counts last (T = {seq_len})"
        raise UsageError(
            f"--distance: {distance} steps lead beyond the beginning: there are {last} before step {last}"
            f"{where}; take a distance from 1 to {last}"
        )
