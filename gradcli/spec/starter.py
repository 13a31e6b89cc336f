"""A commented spec to start from, written from the models' defaults and the cell's own file."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from gradcli import cells
from gradcli.errors import UsageError
from gradcli.spec.models import CellBlock, Spec, is_tied, steps_with_input
from gradcli.spec.schema import SPEC_NOTES
from gradcli.spec.shown import flow

_SIZES = (
    "hidden_size",
    "input_size",
    "num_layers",
    "bidirectional",
    "seq_len",
    "batch_size",
    "trials",
    "seed",
    "dtype",
)
_BEHAVIOUR = ("input", "loss", "clip", "thresholds", "learning_rate")
#: Where the notes behind fields begin.
COMMENT_COLUMN = 26


def starter_spec(name: str) -> str:
    """Return a commented YAML spec of a built-in cell; as it stands, it reads as the same spec as the bare name.

    Raises UsageError where there is no such cell.
    """
    known = cells.find(name)
    if known is None:
        raise UsageError(cells.unknown(name))
    return "".join(f"{line}\n" for line in _lines(known))


def _lines(name: str) -> Iterator[str]:
    cell = cells.load(name).cell
    spec = Spec(cell=name)
    defaults = spec.model_dump(exclude_none=True)
    for text in (cell.title, cell.reference):
        if text:
            yield f"# {' '.join(text.split())}"
    yield ""
    yield from field_lines("cell", name)
    yield "# To change its equations, write them here in place of the line above:"
    yield from (f"# {line}" for line in _cell_block(cell))
    yield ""
    for field in _SIZES:
        yield from field_lines(field, defaults[field])
    for field, value in (("tied", is_tied(spec, cell)), ("input_at", steps_with_input(spec, cell))):
        yield from (f"# {line}" for line in field_lines(field, value))
    yield ""
    yield _sentence(f"{SPEC_NOTES['init']}; of this cell, unless given here:")
    yield from (f"# {line}" for line in _table("init", _dumped(cell)["init"]))
    yield _sentence(f"{SPEC_NOTES['initial_states']}:")
    yield "# h_0: zeros"
    yield _sentence(f"{SPEC_NOTES['weights']}:")
    yield "# weights: {file: model.safetensors, layer: encoder.rnn}"
    yield ""
    for field in _BEHAVIOUR:
        yield from field_lines(field, defaults[field])
    yield _sentence(f"{SPEC_NOTES['expect']}:")
    yield '# expect: {verdict: stable, horizon: ">= 50"}'


def field_lines(name: str, value: Any) -> Iterator[str]:
    """Yield a field with its note: behind it where there is room, else above it."""
    line = f"{name}: {flow(value)}"
    if len(line) < COMMENT_COLUMN:
        yield f"{line:{COMMENT_COLUMN}} # {SPEC_NOTES[name]}"
    else:
        yield _sentence(f"{SPEC_NOTES[name]}:")
        yield line


def _sentence(note: str) -> str:
    return f"# {note[0].upper()}{note[1:]}"


def _dumped(cell: CellBlock) -> dict[str, Any]:
    init = cell.model_dump(include={"init"})
    about = {"title", "family", "reference", "year", "notes"}
    return {**cell.model_dump(exclude_defaults=True, exclude=about), **init}


def _cell_block(cell: CellBlock) -> Iterator[str]:
    """Yield the lines of the cell written out as a block."""
    yield "cell:"
    for key, value in _dumped(cell).items():
        if key == "equations":
            yield "  equations: |"
            yield from (f"    {line}" for line in cell.equations.splitlines())
        elif isinstance(value, Mapping):
            yield from (f"  {line}" for line in _table(key, value))
        else:
            yield f"  {key}: {flow(value)}"


def _table(key: str, value: Mapping[str, Any]) -> Iterator[str]:
    if not value:
        yield f"{key}: {{}}"
        return
    yield f"{key}:"
    for name, inner in value.items():
        yield f"  {flow(name)}: {flow(inner)}"
