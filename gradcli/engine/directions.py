"""Both directions of a layer: the reverse one reads the sequence from its end, and their outputs are joined.

With h the output state of the forward direction and g that of the reverse one, each by its own steps 1..T,

    y[t] = [h[t], g[T+1-t]]

is what a layer puts out at position t: step k of the reverse direction stands at position T+1-k. The layer above reads
y, in both of its directions. So a layer needs the whole of the one below, and one direction goes back over all its
steps before the next begins. Source: M. Schuster and K. K. Paliwal, Bidirectional recurrent neural networks (1997).

A sequence b that occupies the positions s_b + 1 .. T alone is read by the reverse direction from T down to s_b + 1, at
its own steps s_b + 1 .. T likewise: its step k stands at position T + 1 + s_b - k. So the sequences of both directions
begin after the same steps, and end at step T.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from gradcli.engine.layer import Layer
from gradcli.engine.starts import Start, Starts

Array = np.ndarray[Any, Any]

#: The layers of a bidirectional stack come in pairs: the forward direction, the reverse one.
DIRECTIONS = 2


def forward_both_ways(
    layers: Sequence[Layer],
    x: Array,
    histories: Sequence[Mapping[str, Array]],
    *,
    begins: Starts | None = None,
    starts: Sequence[Sequence[Start]] | None = None,
    final: bool = False,
) -> Array:
    """Run a bidirectional stack over a whole sequence, and return what its top layer puts out, (T, R, size, B).

    Args:
        layers: both directions of the lowest layer, then of the next one.
        x: the input by position, (T, R, input_size, B).
        histories: the states of each direction before its own first step.
        begins: where sequences begin that are of different lengths. starts: the same for each direction of each layer.
        final: whether both directions of the top layer are joined by their own steps, [h[k], g[k]], not by position.
    """
    for index in range(0, len(layers), DIRECTIONS):
        outputs = []
        # Copied: products of arrays that run backwards in memory are slow.
        for direction, read in enumerate((x, np.ascontiguousarray(_in_reverse(x, begins)))):
            layer = layers[index + direction]
            own = () if starts is None else starts[index + direction]
            layer.forward(read, histories[index + direction], starts=own)
            outputs.append(layer.outputs() if begins is None else begins.filled(layer.outputs(), 0))
        if not (final and index == len(layers) - DIRECTIONS):
            outputs[1] = _in_reverse(outputs[1], begins)
        x = np.concatenate(outputs, axis=2)
    return x


def _in_reverse(values: Array, begins: Starts | None) -> Array:
    """Return values by the steps of one direction, (T, R, size, B), by those of the other one."""
    return values[::-1] if begins is None else begins.filled(begins.in_reverse(values), 0)
