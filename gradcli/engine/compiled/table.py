"""Calls on NumPy views as a program that runs compiled, step by step.

A call is an operation, its inputs and its output, each an `Operand`: a view whose first axis is the step, then the axes
along which operands broadcast together. Where the same memory serves every step, the first axis has length 1 or stride
0. A *moving* operand is a tape of a whole segment, indexed by the absolute step; a local one is indexed from the first
step of what is being run. Everything is checked when the program is made, so that running it checks nothing:

    program = Program(np.dtype(np.float64), calls)
    program.run(first, count, reverse=False)
    program.pack()                            # after the matrices of products have changed

The extension is not there where no C compiler was found on installation: `WHY_NOT` says so.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

import numpy as np

from gradcli.engine.compiled import why_not

_interpreter: Any = None
#: Why there is no extension; None where there is.
WHY_NOT = why_not()
if WHY_NOT is None:
    from gradcli.engine.compiled import _interpreter

Array = np.ndarray[Any, Any]

#: Whether the extension can be used.
AVAILABLE = WHY_NOT is None
#: Operations that the extension calls by another name.
_NAMES = {
    "layer_norm": "norm",
    "batch_norm": "norm",
    "layer_norm_jacobian": "norm_jacobian",
    "batch_norm_jacobian": "norm_jacobian",
    "_root": "sqrt",
}
#: What a program can be made of; empty where the extension was not built.
OPERATIONS = frozenset((*_interpreter.OPERATIONS, *_NAMES)) - {"norm", "norm_jacobian"} if AVAILABLE else frozenset()
#: What of this processor the extension can use, the best first.
LEVELS: tuple[str, ...] = _interpreter.LEVELS if AVAILABLE else ()


class Operand(NamedTuple):
    """A view on the numbers of an operand.

    view: (steps, ...); a number is an array without axes.
    moving: indexed by the absolute step, and not from the first step of a run.
    buffer: the array that owns the memory, contiguous in whatever order of its axes; where it is not given, it is found
        by way of the view.
    """

    view: Array
    moving: bool = False
    buffer: Array | None = None


class Call(NamedTuple):
    """An operation on operands.

    op: one of OPERATIONS. args: its inputs. out: its output, which may be an input too.
    also: the second output: of a norm its slope, of clipping the counter.
    axis: of the view, counted with the steps, for what works along one. number: the eps of a norm.

    The operations, beside the functions of gradcli.language.functions under their names:

    copy, negative, reciprocal, square, sigmoid_of_negated: of one operand. add, subtract, multiply, divide, power,
    maximum, minimum: of two. greater, greater_equal, equal: of two, 1 where it is so, else 0, as where either is NaN.
    ldexp: of numbers and exponents (int32). multiply_add: args[0] * args[1] + args[2]. sum_of_products: args[0] *
    args[1] + args[2] * args[3], to the last bit what multiply_add makes of the first two and the product of the others.
    where: args[1] where args[0] is not 0, else args[2]; what is not taken may be anything.
    product: a matrix (1, R or 1, m, k), packed by `pack`, times vectors (steps, R, k, ...), the axes behind contiguous
    together; product_transposed: the transposed of a matrix (1, R or 1, k, m); with _add, added to the output.
    sum_axis, largest: of one operand, along an axis that has length 1 in the output; NaN is larger than all others.
    sum_product: the sum of args[0] * args[1] along such an axis; either may have length 1 along any axis, this one too.
    Where another axis is contiguous, it is added up term by term, the first one first.
    cumsum, cumsum_reversed: of one operand, along an axis, the sums up to each number and from each number on.
    layer_norm, batch_norm: y and, in `also`, the slope, from a. softmax: y from a. Their products with vectors:
    layer_norm_jacobian, batch_norm_jacobian (y, slope, v), softmax_jacobian (y, v).
    clip_norm, clip_value: an adjoint (`out`), changed in place, at thresholds (float64), the sequences that are changed
    counted in `also` (int64); both have length 1 along the axis. See gradcli.diagnostics.clipping.
    """

    op: str
    args: tuple[Operand, ...]
    out: Operand
    axis: int = 0
    also: Operand | None = None
    number: float = 0.0


class Program:
    """Calls that are run one after the other, step by step.

    Args:
        dtype: float64 or float32, of all operands but exponents, counters and thresholds.
        level: one of LEVELS; the best one where it is not given.
        lender: a program on other numbers with the same matrices: what it packs serves this one as well.

    Raises:
        ValueError: a call is none that can be run; the sentence says which and why.
    """

    def __init__(
        self,
        dtype: np.dtype[Any] | type,
        calls: Iterable[Call],
        level: str | None = None,
        lender: Program | None = None,
    ) -> None:
        if WHY_NOT is not None:
            raise ValueError(f"the compiled interpreter is not there: {WHY_NOT}")
        described = [
            (
                _NAMES.get(call.op, call.op),
                (_described(call.out),) if call.also is None else (_described(call.out), _described(call.also)),
                tuple(map(_described, call.args)),
                call.axis,
                call.number,
            )
            for call in calls
        ]
        lending = None if lender is None else lender._program
        self._program: Any = _interpreter.Program(np.dtype(dtype).char, described, level, lending)
        #: Run all calls, step by step, for `count` steps from `first` on: run(first, count, reverse).
        self.run = self._program.run
        #: Read the matrices of products again, after their values have changed; a lender reads its own.
        self.pack = self._program.pack


def _described(operand: Operand) -> tuple[Array, Array, bool]:
    view, moving, buffer = operand
    return (_owner(view) if buffer is None else buffer), view, moving


def _owner(view: Array) -> Array:
    """Return the array that owns the memory of a view, made by np.lib.stride_tricks.as_strided or otherwise."""
    while view.base is not None:
        base = view.base if isinstance(view.base, np.ndarray) else getattr(view.base, "base", None)
        if not isinstance(base, np.ndarray):
            break
        view = base
    return view


def log2_norms(values: Array) -> Array:
    """Return log2 of the Euclidean norms sqrt(sum_i v_i^2), (n, R, size, B) -> (n, R, B), of type float64.

    -inf for an exact zero, NaN where an entry is not finite: as gradcli.engine.scaled.log2_norm. float32 is summed as
    float64.
    """
    found = np.empty((*values.shape[:2], *values.shape[3:]))
    _interpreter.log2_norms(values, found, None)
    return found


def largest_magnitudes(values: Array) -> Array:
    """Return max_i |v_i|, (n, R, size, B) -> (n, R, B), of type float64; NaN where an entry is none."""
    found = np.empty((*values.shape[:2], *values.shape[3:]))
    _interpreter.log2_norms(values, None, found)
    return found
