"""The layouts: how each framework names and arranges the tensors of its recurrent layers.

Each is a module of this package with a function `find(checkpoint, taken)`, which returns the `Contents` that it
recognises among the tensors that no layout before it has taken. What stands around the recurrent layers, linear heads
and embeddings, is looked for last, in the light of their sizes.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import TYPE_CHECKING

from gradcli.weights.layers import Contents

if TYPE_CHECKING:
    from gradcli.weights.checkpoint import Checkpoint

#: In the order in which they are asked: files that say what their layers are, then those told by tensor names alone.
LAYOUTS = ("onnx", "keras", "pytorch", "haiku", "flax")


def find_layers(checkpoint: Checkpoint) -> Contents:
    """Return the recurrent layers, linear heads and embeddings of a checkpoint."""
    from gradcli.weights.layouts import linear as linear_layout

    contents = Contents()
    taken: set[str] = set()
    for layout in LAYOUTS:
        find: Callable[[Checkpoint, set[str]], Contents] = import_module(f"{__name__}.{layout}").find
        found = find(checkpoint, taken)
        taken.update(*(part.tensors for part in found.layers))
        taken.update(*(part.tensors for part in found.heads))
        taken.update(*(part.tensors for part in found.embeddings))
        taken.update(*(part.tensors for part in found.unsupported))
        contents += found
    return contents + linear_layout.find(checkpoint, taken, contents.layers)
