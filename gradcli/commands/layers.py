"""Which layer of a stack a diagnostic looks at."""

from __future__ import annotations

from gradcli.engine.bidirectional import DIRECTIONS
from gradcli.engine.problem import REVERSE, layer_names
from gradcli.errors import UsageError, did_you_mean
from gradcli.prepare.build import Network
from gradcli.spec.models import Spec


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
