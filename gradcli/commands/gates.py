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
    from gradcli.commands.layers import choose_layer, index_of_layer, require_one_direction, require_one_length
    from gradcli.diagnostics.gates import bytes_kept, measure_gates
    from gradcli.prepare.build import build
    from gradcli.prepare.limits import Beside, sizes_of

    beside = Beside(
        lambda spec, plans: bytes_kept(plans[index_of_layer(spec, layer)], sizes_of(spec, plans)),
        "what is kept of every step",
    )
    with may.blas_threads():
        network = build(loaded, max_memory=may.max_memory, beside=beside)
    require_one_direction(network, "gates")
    require_one_length(network, "gates")
    index = choose_layer(network, layer)
    with may.blas_threads(network.problem):
        return measure_gates(network, index, progress=may.progress)


def _pictures(found: Gates) -> Gallery:
    from gradcli.results.pictures_of_gates import pictures_of_gates

    return pictures_of_gates(found)
