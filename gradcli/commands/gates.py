"""`gradcli gates`: the gates and activations of a layer, and what they do to the gradient."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Unpack

from gradcli.commands.command import command
from gradcli.commands.options import Layer, RunOptions, Target

if TYPE_CHECKING:
    from gradcli.diagnostics.gates import Gates
    from gradcli.prepare.resources import Resources
    from gradcli.results.gates import GatesOfLayer
    from gradcli.results.pictures import Gallery
    from gradcli.spec.reader import LoadedSpec


@command(
    "gradcli gates lstm -T 100",
    "gradcli gates rnn --set init.W_hh=orthogonal",
    "gradcli gates gru --format json -o gates.json",
    pictures=("curve", "slopes", "rates"),
)
def gates(spec: Target, *, layer: Layer = None, **options: Unpack[RunOptions]) -> GatesOfLayer:
    """How open and how steep gates and activations are, and what they and the weights do to the gradient.

    Args:
        spec, options: as for `gradcli.simulate`.
        layer: its name or number, or a layer of the checkpoint; by default the top one.

    Raises:
        GradcliError: as for `gradcli.simulate`, and for a layer that there is not.
    """
    from gradcli.commands.loading import load_for_layer
    from gradcli.prepare.resources import Resources
    from gradcli.results.gates import gates_of_layer

    loaded, layer = load_for_layer(spec, options, layer=layer)
    found = gates_of(loaded, layer, Resources.of(options))
    result = gates_of_layer(found)
    return result.with_gallery(partial(_pictures, found))


def gates_of(loaded: LoadedSpec, layer: str | None, may: Resources) -> Gates:
    """Return what `gates` finds of a spec; raises as it does."""
    from gradcli.commands.layers import build_for_layer, require_one_length
    from gradcli.diagnostics.gates import bytes_kept, measure_gates

    network, index = build_for_layer(loaded, layer, may, bytes_kept, "gates")
    require_one_length(network, "gates")
    with may.computing_threads(network.problem):
        return measure_gates(network, index, progress=may.progress)


def _pictures(found: Gates) -> Gallery:
    from gradcli.results.pictures_of_gates import pictures_of_gates

    return pictures_of_gates(found)
