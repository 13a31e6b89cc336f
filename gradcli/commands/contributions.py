"""`gradcli contributions`: the gradient of a layer's parameters, taken apart step by step."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Unpack

from gradcli.commands.command import command
from gradcli.commands.options import Layer, RunOptions, Target

if TYPE_CHECKING:
    from gradcli.diagnostics.contributions import Contributions
    from gradcli.prepare.resources import Resources
    from gradcli.results.contributions import ContributionsOfLayer
    from gradcli.results.pictures import Gallery
    from gradcli.spec.reader import LoadedSpec


@command(
    "gradcli contributions rnn -T 50",
    "gradcli contributions examples/configs/notes-three-steps.yaml",
    "gradcli contributions lstm --set init.b_f=3 -o terms.csv",
    pictures=("curve", "shares", "truncation"),
)
def contributions(spec: Target, *, layer: Layer = None, **options: Unpack[RunOptions]) -> ContributionsOfLayer:
    """Which steps a parameter's gradient comes from, and what truncated BPTT would leave of it.

    Args:
        spec, options: as for `gradcli.simulate`.
        layer: its name or number, or a layer of the checkpoint; by default the top one.

    Raises:
        GradcliError: as for `gradcli.simulate`, and for a layer that there is not.
    """
    from gradcli.commands.loading import load_for_layer
    from gradcli.prepare.resources import Resources
    from gradcli.results.contributions import contributions_of_layer

    loaded, layer = load_for_layer(spec, options, layer=layer)
    found = contributions_of(loaded, layer, Resources.of(options))
    result = contributions_of_layer(found)
    return result.with_gallery(partial(_pictures, found))


def contributions_of(loaded: LoadedSpec, layer: str | None, may: Resources) -> Contributions:
    """Return what `contributions` finds of a spec; raises as it does."""
    from gradcli.commands.layers import build_for_layer
    from gradcli.diagnostics.contributions import bytes_kept, measure_contributions

    network, index = build_for_layer(loaded, layer, may, bytes_kept, "contributions")
    with may.computing_threads(network.problem):
        return measure_contributions(network, index, progress=may.progress)


def _pictures(found: Contributions) -> Gallery:
    from gradcli.results.pictures_of_contributions import pictures_of_contributions

    return pictures_of_contributions(found)
