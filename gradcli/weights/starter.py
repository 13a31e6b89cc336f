"""A commented spec that runs a layer of a checkpoint."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from gradcli.spec.models import Spec
from gradcli.spec.shown import counted, flow, printable
from gradcli.spec.starter import COMMENT_COLUMN, field_lines
from gradcli.weights.layers import Contents, LinearHead, RecurrentLayer

_NOTE_LIMIT = 500


def layer_spec(file: str, layer: RecurrentLayer, contents: Contents) -> str:
    """Return a commented YAML spec with the weights of a layer.

    Args:
        file: the checkpoint's path, as seen from the folder where the spec will be.
        contents: of the checkpoint: what could be the layer's readout and its input.
    """
    return "".join(f"{line}\n" for line in _lines(file, layer, contents))


def _lines(file: str, layer: RecurrentLayer, contents: Contents) -> Iterator[str]:
    defaults = Spec(cell="rnn").model_dump()
    yield f"# {printable(layer.framework)} {printable(layer.kind)} with trained weights"
    yield ""
    yield "weights:"
    yield f"  file: {flow(file)}"
    yield f"  layer: {flow(layer.name)}"
    yield "# What the file settles, and no field here needs to say:"
    yield from (f"#   {line}" for line in _settled(layer))
    yield ""
    for field in ("seq_len", "batch_size"):
        yield from field_lines(field, defaults[field])
    yield f"{'trials: 1':{COMMENT_COLUMN}} # the weights are the file's: another trial is other input"
    for field in ("seed", "dtype"):
        yield from field_lines(field, defaults[field])
    yield ""
    yield from field_lines("input", defaults["input"])
    yield f"# Your own data, {counted(layer.input_size, 'feature')} a step, in place of drawn numbers:"
    yield "# input: {kind: file, path: data.npz, key: x}"
    for embedding in contents.embeddings_of(layer):
        tokens = counted(embedding.table.shape[0], "token")
        yield f"# Token ids from 0, each looked up in the file's embedding of {tokens}:"
        yield f"# input: {flow({'kind': 'tokens', 'path': 'tokens.npy', 'embedding': embedding.name})}"
    yield ""
    yield from _loss_lines(contents.heads_of(layer), defaults["loss"])
    for field in ("clip", "thresholds", "learning_rate"):
        yield from field_lines(field, defaults[field])


def _loss_lines(heads: Sequence[LinearHead], default: Any) -> Iterator[str]:
    """Yield the loss: the model's own where one head fits, as in a run without a spec, and others to choose from."""
    choices = [{"kind": head.loss, "readout": head.name} for head in heads]
    if len(choices) == 1:
        yield f"# The loss of the model: {flow(heads[0].name)}, a linear head of the file that fits, is the readout."
        if heads[0].is_regression_assumed:
            yield "# The file does not say what its one output is: for the logit of a yes or no, binary_cross_entropy."
        yield f"loss: {flow(choices[0])}"
        yield "# Without it:"
        yield f"# loss: {flow(default)}"
        return
    yield from field_lines("loss", default)
    if choices:
        yield "# With a linear head of the file that fits as readout:"
        yield from (f"# loss: {flow(choice)}" for choice in choices)


def _settled(layer: RecurrentLayer) -> Iterator[str]:
    """Yield what the file settles, as a spec would say it, and the notes on how it was read."""
    if isinstance(layer.cell, str):
        yield f"cell: {layer.cell}"
    else:
        yield "cell:"
        yield "  equations: |"
        yield from (f"    {line}" for line in layer.cell["equations"].splitlines())
    if layer.activation is not None:
        yield f"activation: {layer.activation}"
    for field in ("hidden_size", "input_size", "num_layers", "bidirectional"):
        yield f"{field}: {flow(getattr(layer, field))}"
    if layer.initial_states:
        yield f"initial states: {', '.join(layer.initial_states)}"
    for note in layer.notes:
        yield f"({printable(' '.join(note.split()), _NOTE_LIMIT)})"
