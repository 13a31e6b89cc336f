"""The name map of a spec: which tensor, or part of one, each parameter of a user's own cell takes its values from.

weights:
  file: model.npz
  map:
    W_hh: rnn/kernel:T                       transposed
    W_hi: lstm.weight_hh_l0[0:64]            rows 0 to 63
    W_hg: kernel[:, 128:192]:T               columns, then transposed
    b_i: lstm.bias_ih_l0[0:64] + lstm.bias_hh_l0[0:64]
"""

from __future__ import annotations

import re

from gradcli.errors import UsageError, did_you_mean
from gradcli.weights.checkpoint import FLOATS, Checkpoint
from gradcli.weights.layers import Index, Slice, Value

_PLUS = " + "
_TRANSPOSED = ":T"
_INDEXED = r"(?s)(?P<name>.+?)\[(?P<index>[0-9:,\s]+)\]"
_RANGE = r"(?P<first>\d{0,12}):(?P<last>\d{0,12})"
_MOST_TERMS = 64


def parse_entry(text: str, checkpoint: Checkpoint) -> Value:
    """Return the value that an entry of a name map stands for.

    Terms joined by " + " are added. A term is a tensor's name, with an index in brackets of numbers and ranges a:b, as
    in NumPy without negative numbers and steps, and with ":T" behind it transposed. A tensor whose name looks like that
    itself is meant first.

    Raises:
        UsageError: no such tensor, an index outside of it, or terms of different shapes.
    """
    terms = [text] if text in checkpoint.tensors else text.split(_PLUS)
    if len(terms) > _MOST_TERMS:
        raise UsageError(f"adds {len(terms)} tensors; at most {_MOST_TERMS} are accepted")
    parts = [_term(term.strip(), checkpoint) for term in terms]
    shapes = {shape for _, shape in parts}
    if len(shapes) > 1:
        shown = " + ".join(_shown(shape) for _, shape in parts)
        raise UsageError(f"adds tensors of different shapes: {shown}")
    return Value(tuple(part for part, _ in parts), parts[0][1])


def _term(text: str, checkpoint: Checkpoint) -> tuple[Slice, tuple[int, ...]]:
    """Return a term and its shape."""
    name, transposed = text, False
    if name not in checkpoint.tensors and name.endswith(_TRANSPOSED):
        name, transposed = name.removesuffix(_TRANSPOSED), True
    index: Index = ()
    found = re.fullmatch(_INDEXED, name)
    if name not in checkpoint.tensors and found is not None:
        name = found["name"]
    else:
        found = None
    if name not in checkpoint.tensors:
        known = list(checkpoint.tensors)
        listed = f"; tensors: {', '.join(known)}" if len(known) <= 8 else ""
        raise UsageError(f"{checkpoint.name} has no tensor {name!r}{listed}{did_you_mean(name, known)}")
    tensor = checkpoint.tensors[name]
    if tensor.dtype not in FLOATS:
        raise UsageError(f"the tensor {name!r} of {checkpoint.name} holds {tensor.dtype}; weights are real numbers")
    shape = tensor.shape
    if found is not None:
        index, shape = _index(found["index"], name, shape)
    if transposed and len(shape) != 2:
        raise UsageError(f"{text!r} has shape {_shown(shape)}; only a matrix can be transposed")
    return Slice(name, index, transposed), shape[::-1] if transposed else shape


def _index(text: str, name: str, shape: tuple[int, ...]) -> tuple[Index, tuple[int, ...]]:
    """Return an index, and the shape that is left of one with it."""
    parts = [part.strip() for part in text.split(",")]
    if len(parts) > len(shape):
        raise UsageError(f"[{text}] has {len(parts)} parts, but {name!r} has shape {_shown(shape)}")
    index: list[int | slice] = []
    left: list[int] = []
    for part, size in zip(parts, shape, strict=False):
        found = re.fullmatch(_RANGE, part)
        if found is not None:
            first, last = int(found["first"] or 0), int(found["last"] or size)
            if not first < last <= size:
                raise UsageError(f"[{text}]: the range {part} is empty or beyond the {size} of {name!r}")
            index.append(slice(first, last))
            left.append(last - first)
        elif part.isdecimal() and len(part) <= 12 and int(part) < size:
            index.append(int(part))
        else:
            raise UsageError(
                f"[{text}]: expected a number below {size} or a range a:b of them for {name!r}; got {part!r}"
            )
    return tuple(index), (*left, *shape[len(parts) :])


def _shown(shape: tuple[int, ...]) -> str:
    return " x ".join(map(str, shape)) or "a single number"
