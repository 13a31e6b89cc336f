"""Which layer of a network a user means."""

from __future__ import annotations

from gradcli.errors import UsageError
from gradcli.network.build import Network


def layer_number(network: Network, layer: int | None) -> int:
    """Return the number of a layer as given, the top one where none is.

    Raises:
        UsageError: the network has no such layer.
    """
    last = len(network.problem.plans) - 1
    if layer is None:
        return last
    if not 0 <= layer <= last:
        known = f"the layers are 0 to {last}" if last else "the only layer is 0"
        raise UsageError(f"--layer: there is no layer {layer}; {known}")
    return layer
