"""Loading specs for a command: files, built-in cells, mappings, and checkpoints in their place."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from typing import Any

from gradcli.commands.arrays import given_arrays, with_initial_state
from gradcli.commands.options import ClipLike, SpecLike, SpecOptions
from gradcli.engine.problem import REVERSE
from gradcli.errors import UsageError, did_you_mean
from gradcli.output_files import require_unwritten
from gradcli.prepare.sizing import parse
from gradcli.prepare.trained import CheckpointFiles
from gradcli.spec.base import alternatives_of
from gradcli.spec.models import Clip
from gradcli.spec.reader import LAYER_OPTION, LoadedSpec, load_spec

#: What names a layer of a stack, and not one of a checkpoint.
_OF_STACK = rf"(layer)?[0-9]+(\.{REVERSE})?"
_FIELDS = tuple(name for name in SpecOptions.__annotations__ if name != "set")

Options = Mapping[str, Any]
Clips = ClipLike | Sequence[ClipLike] | None


def load(spec: SpecLike, options: Options, *, clip: Clips = None, checkpoint_layer: str | None = None) -> LoadedSpec:
    """Return a spec with what the options of a command say of it.

    Args:
        options: with those of `SpecOptions`. clip: methods of clipping.
        checkpoint_layer: the layer of the checkpoint, as `--layer` names it.

    Raises:
        GradcliError: a bad spec, a file that cannot be read or is refused, a layer of a spec without trained weights.
    """
    return load_all([spec], options, clip=clip, checkpoint_layer=checkpoint_layer)[0]


def load_all(
    specs: Sequence[SpecLike], options: Options, *, clip: Clips = None, checkpoint_layer: str | None = None
) -> list[LoadedSpec]:
    """Return several specs; `checkpoint_layer` is that of each of them that has trained weights.

    Raises:
        GradcliError: as for `load`; a layer is for one spec at least.
    """
    found = [_load(spec, options, clip, checkpoint_layer) for spec in specs]
    require_unwritten([file for loaded in found for file in loaded.files])
    if checkpoint_layer is not None and all(loaded.spec.weights is None for loaded in found):
        names = " and ".join(loaded.source for loaded in found)
        raise UsageError(f"{LAYER_OPTION}: names a layer of a checkpoint, but there are no trained weights in {names}")
    return found


def load_for_layer(spec: SpecLike, options: Options, *, layer: int | str | None) -> tuple[LoadedSpec, str | None]:
    """Return a spec, and the layer of its stack that `layer` means.

    In a spec with trained weights, `layer` may be a layer of the checkpoint instead, of which the top layer is meant.

    Raises:
        GradcliError: as for `load`.
    """
    layer = None if layer is None else str(layer)
    of_stack = layer is None or re.fullmatch(_OF_STACK, layer) is not None
    loaded = _load(spec, options, None, None if of_stack else layer)
    require_unwritten(loaded.files)
    return loaded, layer if of_stack or loaded.spec.weights is None else None


def _load(spec: SpecLike, options: Options, clip: Clips, layer: str | None) -> LoadedSpec:
    if isinstance(spec, LoadedSpec):
        return spec
    fields = {name: options[name] for name in _FIELDS if options.get(name) is not None}
    if clip:
        fields["clip"] = [_clip(each) for each in ([clip] if isinstance(clip, str | Mapping) else clip)]
    loaded = load_spec(
        spec if isinstance(spec, str | Mapping) else _as_file(spec),
        options=fields,
        overrides=_overrides(options.get("set")),
        examine_cell=parse,
        checkpoints=CheckpointFiles(),
        layer=layer,
        arrays=given_arrays(options),
    )
    return with_initial_state(loaded, options)


def _as_file(given: Any) -> str:
    """Return a path that no name of a built-in cell could be taken for."""
    path: str = os.fspath(given)
    return path if os.sep in path else os.path.join(os.curdir, path)


def _overrides(given: Mapping[str, object] | Sequence[str] | None) -> Sequence[str]:
    """Return what `--set` says, as texts PATH=VALUE; JSON is YAML as well."""
    if isinstance(given, Mapping):
        import json

        return [f"{path}={json.dumps(value, default=_as_list)}" for path, value in given.items()]
    return [given] if isinstance(given, str) else given or ()


def _as_list(value: Any) -> Any:
    if hasattr(value, "tolist"):
        return value.tolist()
    raise UsageError(f"set: a value must be a number, a text, a list or a mapping; got {type(value).__name__}")


def _clip(given: ClipLike) -> dict[str, Any]:
    """Return a method of clipping with its threshold, as a spec has it."""
    if isinstance(given, Mapping):
        return dict(given)
    methods = [method.NAME for method in alternatives_of(Clip)]
    method, equals, threshold = (part.strip() for part in given.partition("="))
    if not equals:
        raise UsageError(f"--clip: expected METHOD=THRESHOLD, such as {methods[0]}=1; got {given!r}")
    if method not in methods:
        raise UsageError(
            f"--clip: no clipping method is called {method!r}; known: {', '.join(methods)}"
            f"{did_you_mean(method, methods)}"
        )
    try:
        return {method: float(threshold)}
    except ValueError:
        raise UsageError(f"--clip: the threshold of {method} must be a number; got {threshold!r}") from None
