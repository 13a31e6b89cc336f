"""Instructions as a program of the compiled interpreter."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from functools import partial
from math import prod

import numpy as np

from gradcli.engine.arrays import Array, Arrays
from gradcli.engine.compiled import table
from gradcli.engine.compiled.parts import WORTH_A_THREAD, Part, parts_of, run_beside, work_of
from gradcli.engine.step.instructions import Buffer, Instruction, Instructions, Operand, Span, common_shape
from gradcli.engine.threads import ALLOWED
from gradcli.language.across import ACROSS

#: More steps than mostly run at once.
_MANY_STEPS = 1000


def knows(instructions: Instructions) -> bool:
    """Tell whether the compiled interpreter is there and knows all operations of a program."""
    return table.AVAILABLE and all(_operation(instruction) in table.OPERATIONS for instruction in instructions)


def _operation(instruction: Instruction) -> str:
    """Return what the interpreter calls an operation."""
    match instruction.op:
        case "across":
            return str(instruction.data[0])
        case "jacobian":
            return f"{instruction.data[0]}_jacobian"
        case op:
            return op


def _whole(array: Array) -> Array:
    """Return the contiguous array that an array is a part of."""
    while not array.flags.c_contiguous and isinstance(array.base, np.ndarray):
        array = array.base
    return array


class CompiledProgram:
    """Instructions that the compiled interpreter runs on a table of arrays, all steps one after the other.

    Args:
        instructions: what to do at each step. arrays: the memory, which stays where it is.
    """

    engine = "compiled"

    def __init__(self, instructions: Instructions, arrays: Arrays) -> None:
        self._arrays = arrays
        self._version = arrays.version
        self._work = work_of(instructions, arrays)
        threads = ALLOWED.get()
        may_be_divided = threads > 1 and self._work * _MANY_STEPS >= WORTH_A_THREAD
        parts: list[Part | None] = [*parts_of(instructions, arrays, threads)] if may_be_divided else []
        self._programs: list[table.Program] = []
        instructions = _with_sums_of_products(instructions)
        for views in [_Views(arrays, part) for part in parts or [None]]:
            lender = self._programs[0] if self._programs else None
            self._programs.append(table.Program(arrays.dtype, map(views.call, instructions), lender=lender))

    def run(self, first: int, count: int, *, reverse: bool = False) -> None:
        """See `NumpyProgram.run`."""
        if self._version != self._arrays.version:
            for program in self._programs:
                program.pack()
            self._version = self._arrays.version
        runs = [partial(program.run, first, count, reverse) for program in self._programs]
        if len(runs) > 1 and self._work * count >= WORTH_A_THREAD:
            run_beside(runs)
        else:
            for run in runs:
                run()


def _with_sums_of_products(instructions: Instructions) -> list[Instruction]:
    """Return instructions in which sums of products are one call, where nobody else has a use for a product.

    ``multiply t <- b, y; add out <- x, t`` next to each other become ``multiply_add out <- b, y, x``, and then
    ``multiply t <- b, y; ...; multiply_add out <- a, x, t`` become ``...; sum_of_products out <- a, x, b, y``.
    """
    reads = Counter(operand.buffer for instruction in instructions for operand in instruction.args)
    found: list[Instruction] = []
    for instruction in instructions:
        last = found[-1] if found else None
        joined = None if last is None else _sum_of_product(last, instruction, reads)
        if joined is not None:
            found.pop()
        _add_sum(found, joined or instruction, reads)
    return found


def _sum_of_product(product: Instruction, total: Instruction, reads: Counter[Buffer]) -> Instruction | None:
    term = product.out
    if (product.op, total.op) != ("multiply", "add") or reads[term.buffer] != 1 or term.buffer.span is not Span.ONCE:
        return None
    shape = common_shape(term.shape, total.out.shape)
    fits = [operand.fit(shape) for operand in total.args if prod(operand.shape) == prod(shape)]
    others = [operand for operand in fits if operand != term.fit(shape)]
    if len(fits) != len(total.args) or len(others) != 1 or product.args[0].shape != shape:
        return None
    return Instruction("multiply_add", (*product.args, *others), total.out.fit(shape))


def _add_sum(found: list[Instruction], total: Instruction, reads: Counter[Buffer]) -> None:
    """Append an instruction; one that adds to a product of some instructions ago, as the sum of both in its place.

    What lies between may neither touch that product, which is not there any more, nor write what it is made of.
    """
    if total.op == "multiply_add":
        written: list[Operand] = []
        for place in reversed(range(len(found))):
            product = found[place]
            joined = _sum_of_products(product, total, reads)
            if joined is not None and not _meet(product.args, written):
                del found[place]
                total = joined
                break
            if _meet((*product.args, *product.written), total.args[2:]):
                break
            written += product.written
    found.append(total)


def _sum_of_products(product: Instruction, total: Instruction, reads: Counter[Buffer]) -> Instruction | None:
    """Return ``multiply`` and ``multiply_add`` as one, where it is that product which is added, and nothing else's."""
    if product.op != "multiply":
        return None
    shape = common_shape(product.out.shape, total.out.shape)
    operands = *product.args, *total.args, product.out, total.out
    if any(operand.shape != shape and operand.shape != (prod(shape),) for operand in operands):
        return None
    b, y, a, x, addend, term, out = (operand.fit(shape) for operand in operands)
    is_alone = term.buffer.span is Span.ONCE and reads[term.buffer] == 1
    is_written_over = out == term and not _meet((a, x), (term,))
    if addend != term or not (is_alone or is_written_over):
        return None
    if any(out != operand and _meet((out,), (operand,)) for operand in (b, y)):
        return None  # it would be copied before it is written
    return Instruction("sum_of_products", (a, x, b, y), out)


def _meet(some: Iterable[Operand], others: Iterable[Operand]) -> bool:
    """Tell whether operands of the one kind and of the other may have a number in common, at any one step."""
    others = list(others)
    return any(_may_overlap(a, b) for a in some for b in others)


def _may_overlap(a: Operand, b: Operand) -> bool:
    """Tell the same of two; steps apart, they have none in common if neither is a window over several steps."""
    if a.buffer is not b.buffer:
        return False
    (a_first, a_last), (b_first, b_last) = _range(a), _range(b)
    if a.lag == b.lag:
        return a_first <= b_last and b_first <= a_last
    return min(a_first, b_first) < 0 or max(a_last, b_last) >= a.buffer.size


def _range(operand: Operand) -> tuple[int, int]:
    """Return the first and the last number of an operand, counted in its buffer."""
    reaches = [(size - 1) * stride for size, stride in zip(operand.shape, operand.strides, strict=True)]
    return operand.start + sum(min(r, 0) for r in reaches), operand.start + sum(max(r, 0) for r in reaches)


class _Views:
    """Instructions as calls on views of a table of arrays, or on a part of each view."""

    def __init__(self, arrays: Arrays, part: Part | None) -> None:
        self._arrays, self._part = arrays, part

    def call(self, instruction: Instruction) -> table.Call:
        """Return an instruction as a call."""
        op, args, out, data = instruction
        name = _operation(instruction)
        match op:
            case "product":
                matrix = self._operand(args[0])
                matrix = matrix._replace(view=self._without_sequences(matrix.view))
                return table.Call(name, (matrix, self._operand(args[1])), self._operand(out))
            case "across":
                slope = self._operand(args[1]) if len(args) > 1 else None
                axis = 2 + ACROSS[data[0]].over_sequences
                return table.Call(name, (self._operand(args[0]),), self._operand(out), axis, slope, data[1])
            case "jacobian":
                axis = 2 + ACROSS[data[0]].over_sequences
                return table.Call(name, tuple(map(self._operand, args)), self._operand(out), axis)
            case "sum_axis" | "sum_product" | "largest" | "cumsum" | "cumsum_reversed":
                return table.Call(name, tuple(map(self._operand, args)), self._operand(out), 2 + data)
            case "clip_norm" | "clip_value":
                limit, counter = map(self._operand, args[1:])
                return table.Call(name, (limit,), self._operand(out), 2, counter)
            case _:
                return table.Call(name, tuple(map(self._operand, args)), self._operand(out))

    def _operand(self, operand: Operand) -> table.Operand:
        arrays, buffer = self._arrays, operand.buffer
        moving = buffer.span is Span.SEGMENT or buffer in arrays.moving
        view = arrays.view(operand)
        return table.Operand(view if self._part is None else self._part.of(view), moving, _whole(arrays[buffer]))

    def _without_sequences(self, matrix: Array) -> Array:
        """Return a matrix (1, R, m, k) without the axes of length 1 that sequences and columns have."""
        return matrix.reshape(matrix.shape[:4])
