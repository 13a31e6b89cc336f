"""How names and globs of a spec mean parameters."""

from __future__ import annotations

from fnmatch import fnmatchcase

from gradcli.engine.problem import READOUT


def matches(pattern: str, name: str) -> bool:
    """Tell whether a name or glob of the spec means a parameter such as "layer1.W_hh".

    A bare one means every layer and direction, "layer1.W_hh" the forward direction of one layer; the readout's
    parameters answer to "readout." only.
    """
    layer, _, short = name.rpartition(".")
    of_layers, dot, of_names = pattern.rpartition(".")
    if not fnmatchcase(short, of_names):
        return False
    return fnmatchcase(layer, of_layers) if dot else layer != READOUT
