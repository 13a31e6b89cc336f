"""Loading specs for a command: files, built-in cells, and checkpoints in their place."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from gradcli.engine.problem import REVERSE
from gradcli.errors import UsageError
from gradcli.network.sizing import parse
from gradcli.network.trained import CheckpointFiles
from gradcli.spec.reader import LAYER_OPTION, LoadedSpec, load_spec

#: What names a layer of a stack, and not one of a checkpoint.
_OF_STACK = re.compile(rf"(layer)?[0-9]+(\.{REVERSE})?")


def load(
    target: str, *, options: Mapping[str, object], overrides: Sequence[str], checkpoint_layer: str | None = None
) -> LoadedSpec:
    """Return the spec that `target` names.

    Args:
        target, options, overrides: as for `gradcli.session.run_simulation`.
        checkpoint_layer: the layer of the checkpoint, as `--layer` names it.

    Raises:
        GradcliError: a bad spec, a file that cannot be read or is refused, a layer of a spec without trained weights.
    """
    return load_all([target], options=options, overrides=overrides, checkpoint_layer=checkpoint_layer)[0]


def load_all(
    targets: Sequence[str],
    *,
    options: Mapping[str, object],
    overrides: Sequence[str],
    checkpoint_layer: str | None = None,
) -> list[LoadedSpec]:
    """Return several specs; `checkpoint_layer` is that of each of them that has trained weights.

    Raises:
        GradcliError: as for `load`; a layer is for one spec at least.
    """
    found = [_load(target, options, overrides, checkpoint_layer) for target in targets]
    if checkpoint_layer is not None and all(loaded.spec.weights is None for loaded in found):
        names = " and ".join(loaded.source for loaded in found)
        raise UsageError(f"{LAYER_OPTION}: names a layer of a checkpoint, but there are no trained weights in {names}")
    return found


def load_for_layer(
    target: str, *, options: Mapping[str, object], overrides: Sequence[str], layer: str | None
) -> tuple[LoadedSpec, str | None]:
    """Return the spec that `target` names, and the layer of its stack that `layer` means.

    In a spec with trained weights, `layer` may be a layer of the checkpoint instead, of which the top layer is meant.

    Raises:
        GradcliError: as for `load`.
    """
    if layer is None or _OF_STACK.fullmatch(layer):
        return _load(target, options, overrides, None), layer
    loaded = _load(target, options, overrides, layer)
    return loaded, None if loaded.spec.weights is not None else layer


def _load(target: str, options: Mapping[str, object], overrides: Sequence[str], layer: str | None) -> LoadedSpec:
    return load_spec(
        target, options=options, overrides=overrides, examine_cell=parse, checkpoints=CheckpointFiles(), layer=layer
    )
