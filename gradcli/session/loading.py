"""Loading specs for a command: files, built-in cells, and checkpoints in their place."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType

from gradcli.engine.problem import REVERSE
from gradcli.errors import UsageError
from gradcli.prepare.sizing import parse
from gradcli.prepare.trained import CheckpointFiles
from gradcli.spec.files import require_apart
from gradcli.spec.reader import LAYER_OPTION, LoadedSpec, load_spec

#: What names a layer of a stack, and not one of a checkpoint.
_OF_STACK = re.compile(rf"(layer)?[0-9]+(\.{REVERSE})?")


def load(
    target: str,
    *,
    options: Mapping[str, object],
    overrides: Sequence[str],
    checkpoint_layer: str | None = None,
    outputs: Mapping[str, Path] = MappingProxyType({}),
) -> LoadedSpec:
    """Return the spec that `target` names.

    Args:
        target, options, overrides: as for `gradcli.session.run_simulation`.
        checkpoint_layer: the layer of the checkpoint, as `--layer` names it.
        outputs: the files that will be written, by the option that names each: none of them may be read.

    Raises:
        GradcliError: a bad spec, a file that cannot be read or is refused, a layer of a spec without trained weights.
    """
    return load_all([target], options=options, overrides=overrides, checkpoint_layer=checkpoint_layer, outputs=outputs)[
        0
    ]


def load_all(
    targets: Sequence[str],
    *,
    options: Mapping[str, object],
    overrides: Sequence[str],
    checkpoint_layer: str | None = None,
    outputs: Mapping[str, Path] = MappingProxyType({}),
) -> list[LoadedSpec]:
    """Return several specs; `checkpoint_layer` is that of each of them that has trained weights.

    Raises:
        GradcliError: as for `load`; a layer is for one spec at least.
    """
    found = [_load(target, options, overrides, checkpoint_layer) for target in targets]
    require_apart(outputs, [file for loaded in found for file in loaded.files])
    if checkpoint_layer is not None and all(loaded.spec.weights is None for loaded in found):
        names = " and ".join(loaded.source for loaded in found)
        raise UsageError(f"{LAYER_OPTION}: names a layer of a checkpoint, but there are no trained weights in {names}")
    return found


def load_for_layer(
    target: str,
    *,
    options: Mapping[str, object],
    overrides: Sequence[str],
    layer: str | None,
    outputs: Mapping[str, Path] = MappingProxyType({}),
) -> tuple[LoadedSpec, str | None]:
    """Return the spec that `target` names, and the layer of its stack that `layer` means.

    In a spec with trained weights, `layer` may be a layer of the checkpoint instead, of which the top layer is meant.

    Raises:
        GradcliError: as for `load`.
    """
    of_stack = layer is None or _OF_STACK.fullmatch(layer) is not None
    loaded = _load(target, options, overrides, None if of_stack else layer)
    require_apart(outputs, loaded.files)
    return loaded, layer if of_stack or loaded.spec.weights is None else None


def _load(target: str, options: Mapping[str, object], overrides: Sequence[str], layer: str | None) -> LoadedSpec:
    return load_spec(
        target, options=options, overrides=overrides, examine_cell=parse, checkpoints=CheckpointFiles(), layer=layer
    )
