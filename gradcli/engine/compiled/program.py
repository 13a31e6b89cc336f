"""Instructions as a program of the compiled interpreter."""

from __future__ import annotations

import numpy as np

from gradcli.engine.arrays import Array, Arrays
from gradcli.engine.compiled import table
from gradcli.engine.step.instructions import Instruction, Instructions, Operand, Span
from gradcli.language.across import ACROSS


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
        self._program = table.Program(arrays.dtype, [self._call(instruction) for instruction in instructions])

    def _call(self, instruction: Instruction) -> table.Call:
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
            case "clip_norm" | "clip_value":
                limit, counter = map(self._operand, args[1:])
                return table.Call(name, (limit,), self._operand(out), 2, counter)
            case _:
                return table.Call(name, tuple(map(self._operand, args)), self._operand(out))

    def _operand(self, operand: Operand) -> table.Operand:
        arrays, buffer = self._arrays, operand.buffer
        moving = buffer.span is Span.SEGMENT or buffer in arrays.moving
        return table.Operand(arrays.view(operand), moving, _whole(arrays[buffer]))

    def _without_sequences(self, matrix: Array) -> Array:
        """Return a matrix (1, R, m, k) without the axes of length 1 that sequences and columns have."""
        return matrix.reshape(matrix.shape[:4])

    def run(self, first: int, count: int, *, reverse: bool = False) -> None:
        """See `NumpyProgram.run`."""
        if self._version != self._arrays.version:
            self._program.pack()
            self._version = self._arrays.version
        self._program.run(first, count, reverse)
