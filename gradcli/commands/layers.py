"""Which layer of a stack a diagnostic looks at, and what it asks of the network."""

from __future__ import annotations

from collections.abc import Callable

from gradcli.engine.directions import DIRECTIONS
from gradcli.engine.problem import REVERSE, layer_names
from gradcli.engine.sizes import Sizes
from gradcli.engine.step.plan import LayerPlan
from gradcli.errors import UsageError, did_you_mean
from gradcli.prepare.build import Network, build
from gradcli.prepare.limits import Beside, sizes_of
from gradcli.prepare.resources import Resources
from gradcli.spec.models import Spec
from gradcli.spec.reader import LoadedSpec


def build_for_layer(
    loaded: LoadedSpec, asked: str | None, may: Resources, bytes_kept: Callable[[LayerPlan, Sizes], int], command: str
) -> tuple[Network, int]:
    """Return a network of one direction and the index of a layer of it, for a command that keeps of it every step.

    Args:
        asked: the layer, as for `choose_layer`. bytes_kept: what is kept of the layer.

    Raises:
        UsageError: there is no such layer, or layers are bidirectional. ResourceError: not enough memory.
    """
    beside = Beside(
        lambda spec, plans: bytes_kept(plans[index_of_layer(spec, asked)], sizes_of(spec, plans)),
        "what is kept of every step",
    )
    with may.computing_threads():
        network = build(loaded, max_memory=may.max_memory, beside=beside)
    require_one_direction(network, command)
    return network, choose_layer(network, asked)


def choose_layer(network: Network, asked: str | None) -> int:
    """Return the index of the layer that --layer names, by its name or number; by default the top one.

    A number means the forward direction of a bidirectional layer, `1.reverse` the other one.

    Raises:
        UsageError: there is no such layer.
    """
    return index_of_layer(network.spec, asked)


def index_of_layer(spec: Spec, asked: str | None) -> int:
    """Return the same from the spec alone, before anything is drawn."""
    names = layer_names(spec.num_layers, spec.bidirectional)
    if asked is None:
        return len(names) - (DIRECTIONS if spec.bidirectional else 1)
    name = f"layer{asked}" if asked[:1].isdigit() else asked
    if name not in names:
        known = ", ".join(names) if len(names) <= 8 else f"{names[0]} to {names[-1]}"
        raise UsageError(f"--layer: no layer is called {asked!r}; layers: {known}{did_you_mean(name, names)}")
    return names.index(name)


def require_one_direction(network: Network, command: str) -> None:
    """Check that layers have one direction, for a command that goes back step by step through all of them.

    Raises:
        UsageError: the layers are bidirectional.
    """
    if network.problem.bidirectional:
        top = network.problem.names[network.problem.top]
        raise UsageError(
            f"gradcli {command} does not go back through bidirectional layers. `gradcli simulate` shows the gradient"
            f" of each direction, and `gradcli jacobian --layer {top}.{REVERSE}` the Jacobian of one; or set"
            " bidirectional to false"
        )


def require_one_length(network: Network, command: str) -> None:
    """Check that all sequences have the same length, for a command that looks at all of them at every distance.

    Raises:
        UsageError: they have not.
    """
    if network.problem.begins is not None:
        raise UsageError(
            f"gradcli {command} looks at all sequences of a batch at every distance, which it does not do where their"
            " lengths differ. `gradcli simulate` shows the gradient, `gradcli contributions` and `gradcli jacobian`"
            " take it apart; or give sequences of one length"
        )
