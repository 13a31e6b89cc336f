"""Neighbouring instructions of one operation on neighbouring numbers become one.

* ``multiply a[0:8] b[0:8] -> c[0:8]; multiply a[8:16] b[8:16] -> c[8:16]`` is one call of 16 numbers.
* ``multiply a[0:8] d -> c[0:8]; multiply a[8:16] d -> c[8:16]``, with the same d, is one call of 2 x 8, over which d is
  spread.
"""

from __future__ import annotations

from collections.abc import Iterable

from gradcli.engine.step.instructions import Instruction, Operand

#: Operations that are not taken entry by entry.
_WHOLE = frozenset(
    {
        *("product", "across", "jacobian", "clip_norm", "clip_value"),
        *("sum_axis", "sum_product", "largest", "cumsum", "cumsum_reversed"),
    }
)


def merged(instructions: Iterable[Instruction]) -> list[Instruction]:
    """Return instructions that do the same, as few as neighbours allow."""
    found: list[Instruction] = []
    for instruction in instructions:
        joined = _joined(found[-1], instruction) if found else None
        if joined is None:
            found.append(instruction)
        else:
            found[-1] = joined
    return found


def _joined(a: Instruction, b: Instruction) -> Instruction | None:
    if a.op != b.op or a.op in _WHOLE or len(b.out.shape) != 1:
        return None
    if not _follows(a.out, b.out):
        return None
    pairs = list(zip(a.args, b.args, strict=True))
    if any(p.buffer is a.out.buffer and p != a.out for p, _ in pairs):
        return None  # b might read what a writes
    if all(_follows(p, q) or _is_one_number(p, q) for p, q in pairs) and len(a.out.shape) == 1:
        args = tuple(_longer(p, q) for p, q in pairs)
        return a._replace(args=args, out=_longer(a.out, b.out))
    height = b.out.shape[0]
    if a.out.shape[-1] != height or not all(_follows(p, q) or _is_same(p, q) for p, q in pairs):
        return None
    return a._replace(args=tuple(_stacked(p, q) for p, q in pairs), out=_stacked(a.out, b.out))


def _follows(a: Operand, b: Operand) -> bool:
    """Tell whether the numbers of `b`, a vector, come right after those of `a`."""
    if a.buffer is not b.buffer or a.lag != b.lag or b.strides != (1,) or 0 in a.strides or len(a.shape) > 2:
        return False
    return a.start + a.shape[0] * (a.shape[1] if len(a.shape) == 2 else 1) == b.start


def _is_one_number(a: Operand, b: Operand) -> bool:
    """Tell whether both are one and the same number, spread."""
    return len(a.shape) == 1 and a.strides == (0,) and a._replace(shape=b.shape) == b


def _is_same(a: Operand, b: Operand) -> bool:
    """Tell whether `b` is what each part of `a` is, or `a` itself."""
    return a == b or (a.strides == (0, *b.strides) and a._replace(shape=b.shape, strides=b.strides) == b)


def _longer(a: Operand, b: Operand) -> Operand:
    return a._replace(shape=(a.shape[0] + b.shape[0],))


def _stacked(a: Operand, b: Operand) -> Operand:
    """Return `a`, a vector or parts of equal height already, with `b` as one part more."""
    height = b.shape[0]
    parts = a.shape[0] + 1 if len(a.shape) == 2 else 2
    spread = _is_same(a, b)
    return a._replace(shape=(parts, height), strides=(0, *b.strides) if spread else (height, 1))
