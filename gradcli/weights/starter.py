"""A commented spec that runs a layer of a checkpoint."""

from __future__ import annotations

from collections.abc import Iterator

from gradcli.spec.models import Spec
from gradcli.spec.shown import counted, flow, printable
from gradcli.spec.starter import field_lines
from gradcli.weights.layers import Contents, RecurrentLayer

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
    yield from field_lines("trials", 1)
    for field in ("seed", "dtype"):
        yield from field_lines(field, defaults[field])
    yield ""
    yield from field_lines("input", defaults["input"])
    yield f"# Your own data, {counted(layer.input_size, 'feature')} a step, in place of drawn numbers:"
    yield "# input: {kind: file, path: data.npz, key: x}"
    for embedding in contents.embeddings_of(layer):
        tokens = counted(embedding.table.shape[0], "token")
        yield f"# The file has an embedding with as many features, {flow(embedding.name)}, of {tokens}."
    yield ""
    yield from field_lines("loss", defaults["loss"])
    for head in contents.heads_of(layer):
        classes = counted(head.weight.shape[0], "class", "classes")
        yield f"# The file has a linear head that fits, {flow(head.name)}; as readout of {classes}:"
        yield f"# loss: {flow({'kind': 'cross_entropy', 'readout': head.name})}"
    for field in ("clip", "thresholds", "learning_rate"):
        yield from field_lines(field, defaults[field])


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
