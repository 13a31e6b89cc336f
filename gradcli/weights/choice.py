"""Which recurrent layer of a checkpoint a name means."""

from __future__ import annotations

from collections.abc import Sequence

from gradcli.errors import InputFileError, UsageError, did_you_mean
from gradcli.spec.shown import printable
from gradcli.weights.checkpoint import Checkpoint
from gradcli.weights.layers import Contents, RecurrentLayer

#: So many names are listed in a message.
_LISTED = 12


def choose_layer(checkpoint: Checkpoint, contents: Contents, name: str | None) -> RecurrentLayer:
    """Return the layer of a checkpoint that has a name; without one the only layer.

    The end of a name will do where no other ends like it: "rnn" for "model.encoder.rnn".

    Raises:
        UsageError: there is no such layer, or there are several and none was named.
        InputFileError: there is no layer at all, or it is one that gradcli cannot run.
    """
    layers = {layer.name: layer for layer in contents.layers}
    if name in layers:
        return layers[name]
    unsupported = [one for one in contents.unsupported if name == one.name or (name is None and not layers)]
    if unsupported:
        raise InputFileError(f"{checkpoint.name}: {printable(unsupported[0].name)}: {unsupported[0].reason}")
    if not layers:
        raise InputFileError(f"{checkpoint.name}: holds no recurrent layer that gradcli knows; {_holds(checkpoint)}")
    if name is None and len(layers) == 1:
        return contents.layers[0]
    if name is None:
        known = f"{len(layers)} recurrent layers: {listed(list(layers))}; name one"
        raise UsageError(f"{checkpoint.name} has {known}, with --layer or `layer:` under `weights:`")
    ending = [layer for full, layer in layers.items() if full.endswith((f".{name}", f"/{name}"))]
    if len(ending) == 1:
        return ending[0]
    raise UsageError(
        f"{checkpoint.name} has no recurrent layer {name!r}; layers: {listed(list(layers))}"
        f"{did_you_mean(name, list(layers))}"
    )


def listed(names: Sequence[str]) -> str:
    """Return the first few of some names as a message lists them.

    >>> listed(["a", "b"])
    'a, b'
    """
    more = f" and {len(names) - _LISTED:,} more" if len(names) > _LISTED else ""
    return ", ".join(map(printable, names[:_LISTED])) + more


def _holds(checkpoint: Checkpoint) -> str:
    names = list(checkpoint.tensors)
    if not names:
        return "it holds no tensors"
    held = f"it holds {len(names):,} tensor{'s' if len(names) > 1 else ''}, {listed(names)}"
    return f"{held}; a `map:` under `weights:` can give them to the parameters of a cell of your own"
