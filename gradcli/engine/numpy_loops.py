"""Instructions as NumPy calls: a loop over steps as straight-line Python, or a block of steps in one go.

The source is made from the instructions alone. Nothing of the user's text enters it: names are v0, v1, ... and numbers,
arrays and functions are bound as objects, so there is nothing in it that a spec could execute.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache, partial
from types import CodeType
from typing import Any

import numpy as np

from gradcli.engine.arrays import Arrays
from gradcli.engine.step.instructions import Buffer, Instruction, Instructions, Operand, Span, buffers_of
from gradcli.engine.step_clip import OPERATIONS as CLIPPING
from gradcli.language.across import ACROSS
from gradcli.language.functions import FUNCTIONS

Array = np.ndarray[Any, Any]

#: Up to this many numbers a constant operand is a full array, which NumPy handles faster than a broadcast one.
_FULL_CONSTANT = 4096

#: NumPy wants the output of these by name; by position, where it may be, it is a little faster.
_NAMED_OUTPUT = frozenset({"maximum", "minimum"})


class NumpyProgram:
    """Instructions as calls of NumPy functions on views of a table of arrays.

    Args:
        instructions: what to do at each step. arrays: the memory.
        whole: whether all steps that run together are one call each, and not one after the other.

    Attributes:
        source: of the loop over steps, or of the block. loop: it, ``loop(columns, fixed)`` with views for each
            variable.
    """

    engine = "numpy"

    def __init__(self, instructions: Instructions, arrays: Arrays, *, whole: bool = False) -> None:
        self._arrays, self._whole = arrays, whole
        self._fixed: dict[Any, str] = {}
        self._columns: dict[Operand | tuple[str, Operand], str] = {}
        self._names: dict[str, Any] = {}
        self._lines: list[str] = []
        for instruction in instructions:
            self._write(instruction)
        self.source = self._source()
        namespace = dict(self._names)
        exec(_compiled(self.source), namespace)  # the instructions' own text, see the module's docstring
        self.loop: Callable[[Any, Any], None] = namespace["run"]
        self._made: list[Any] = []
        self._version = -1
        self._views: dict[Any, Any] = {}

    # The source.

    def _source(self) -> str:
        fixed = f"[{', '.join(self._fixed.values())}] = fixed" if self._fixed else "pass"
        names = f"[{', '.join(self._columns.values())}]"
        if self._whole:
            body = [f"{names} = columns" if self._columns else "pass", *self._lines]
        else:
            each = f"for {names} in zip(*columns):" if self._columns else "if False:"
            body = [each, *(f"    {line}" for line in self._lines or ["pass"])]
        return "\n".join(["def run(columns, fixed):", *(f"    {line}" for line in (fixed, *body))])

    def _name(self, operand: Operand, kind: str = "") -> str:
        """Return the variable of an operand; kind: "matrix", "vector" of a product, "bare" without columns."""
        key = (kind, operand) if kind else operand
        if operand.buffer.span is Span.ONCE:
            return self._fixed.setdefault(key, f"p{len(self._fixed)}")
        return self._columns.setdefault(key, f"v{len(self._columns)}")

    def _call(self, function: str, *variables: str) -> None:
        self._names.setdefault(function, getattr(np, function, None) or FUNCTIONS[function].evaluate)
        *operands, out = variables
        named = "out=" if function in _NAMED_OUTPUT else ""
        self._lines.append(f"{function}({', '.join([*operands, named + out])})")

    def _number(self, value: float, like: Operand) -> str:
        """Return the variable of a constant as an operand for the numbers of another operand."""
        key = value if self._whole else (value, like.shape)
        return self._fixed.setdefault(("number", key), f"p{len(self._fixed)}")

    def _write(self, instruction: Instruction) -> None:
        op, args, out, data = instruction
        name = self._name
        match op:
            case "product":
                matrix, vector, into = name(args[0], "matrix"), name(args[1], "vector"), name(out, "vector")
                if self._arrays.trials > 1:
                    self._call("matmul", matrix, vector, into)
                else:
                    # As a method it is a third faster than as a function, which looks for overrides first.
                    self._lines.append(f"{matrix}.dot({vector}, {into})")
            case "sigmoid" | "sigmoid_of_negated":
                # 1 / (1 + exp(-a)), spelled out so that constants are operands like others.
                argument, into = name(args[0]), name(out)
                if op == "sigmoid":
                    self._call("negative", argument, into)
                    argument = into
                self._call("exp", argument, into)
                self._call("add", into, self._number(1.0, out), into)
                self._call("reciprocal", into, into)
            case "relu":
                self._call("maximum", name(args[0]), self._number(0.0, out), name(out))
            case "copy":
                self._call("copyto", name(out), name(args[0]))
            case "across":
                function, eps = ACROSS[data[0]], data[1]
                write_value = partial(function.write_value, eps, self._axis(function.over_sequences))
                self._bound(write_value, name(args[0]), name(out), *map(name, args[1:]))
            case "jacobian":
                function = ACROSS[data[0]]
                y, *slope, adjoint = args
                at_step = [name(part, "bare") for part in slope] or ["None"]
                jacobian = partial(function.apply_jacobian, self._axis(function.over_sequences))
                self._bound(jacobian, name(y, "bare"), *at_step, name(adjoint), name(out))
            case "sum_axis" | "largest":
                reduce = np.add.reduce if op == "sum_axis" else np.maximum.reduce
                self._bound(partial(_along, reduce, self._axis_of(data)), name(args[0]), name(out))
            case "sum_product":
                self._bound(partial(_sum_product, self._axis_of(data)), *map(name, args), name(out))
            case "cumsum" | "cumsum_reversed":
                self._bound(partial(_cumulate, self._axis_of(data), op == "cumsum_reversed"), name(args[0]), name(out))
            case "greater" | "greater_equal" | "equal":
                self._bound(partial(_compare, getattr(np, op)), *map(name, args), name(out))
            case "where":
                self._bound(_where, *map(name, args), name(out))
            case "clip_norm" | "clip_value":
                self._bound(partial(CLIPPING[op], self._axis(False)), *map(name, args))
            case _:
                self._call(op, *map(name, args), name(out))

    def _bound(self, function: Callable[..., None], *variables: str) -> None:
        """Write the call of a function that is bound to a name of its own."""
        name = f"f{len(self._names)}"
        self._names[name] = function
        self._lines.append(f"{name}({', '.join(variables)})")

    def _axis(self, over_sequences: bool) -> int:
        """Return the axis of a step's arrays over which a function across goes."""
        return (self._arrays.trials > 1) + over_sequences

    def _axis_of(self, axis: int) -> int:
        """Return the axis of a step's arrays that is an axis of an operand."""
        return axis + (2 if self._whole else self._arrays.trials > 1)

    # The arrays.

    def _view(self, key: Any) -> Array:
        """Return what a variable is at every step."""
        kind, operand = key if isinstance(key[0], str) else ("", key)
        arrays = self._arrays
        view = arrays.view(operand)
        if kind == "matrix":
            view = view[..., 0] if arrays.columns is None else view[..., 0, 0]
            return view if arrays.trials > 1 else view[:, 0]
        if kind == "bare" and arrays.columns is not None:
            view = view[..., 0]
        if kind == "vector" and arrays.columns is not None:
            view = _with_columns_joined(view)
        elif arrays.trials == 1 and arrays.batch_size == 1 and not self._whole:
            view = view.squeeze(axis=2 + len(operand.shape))
        return view if arrays.trials > 1 or self._whole else view[:, 0]

    def _fixed_arrays(self) -> list[Any]:
        if self._version != self._arrays.version:
            self._made = [self._constant(key) for key in self._fixed]
            self._version = self._arrays.version
        return self._made

    def _constant(self, key: Any) -> Any:
        arrays = self._arrays
        if key[0] == "number":
            if self._whole:
                return key[1]
            value, shape = key[1]
            whole: tuple[int, ...] = (arrays.trials, *shape, arrays.batch_size)
            if arrays.trials == 1:
                whole = shape if arrays.batch_size == 1 else whole[1:]
            small = arrays.columns is None and int(np.prod(whole)) <= _FULL_CONSTANT
            return np.full(whole, value, arrays.dtype) if small else np.asarray(value, arrays.dtype)
        view = self._view(key)[0]
        operand = key[1] if isinstance(key[0], str) else key
        if operand.buffer.value is None or key[0] == "matrix":
            return view
        if operand.buffer.value.is_number and (self._whole or view.size > _FULL_CONSTANT):
            return np.asarray(operand.buffer.value.data, arrays.dtype)
        return self._over_sequences(view)

    def _over_sequences(self, view: Array) -> Array:
        """Return a constant with an entry for each number that it meets, where that is small; else as it is.

        NumPy then goes over all numbers of a step at once, and not row by row.
        """
        arrays = self._arrays
        if arrays.columns is None and view.ndim > 1 and view.shape[-1] == 1 < arrays.batch_size:
            whole = np.broadcast_to(view, (*view.shape[:-1], arrays.batch_size))
            if whole.size <= _FULL_CONSTANT:
                return np.ascontiguousarray(whole)
        return np.ascontiguousarray(view)

    # Running.

    def run(self, first: int, count: int, *, reverse: bool = False) -> None:
        """Do all that is to be done at some steps.

        Args:
            first: the first of them, from 0, in a segment; what lasts for a block begins with it.
            count: how many. reverse: whether the last step comes first.
        """
        fixed = self._fixed_arrays()
        columns = []
        for key in self._columns:
            operand = key[1] if isinstance(key[0], str) else key
            lo = self._arrays.first_of(operand.buffer, first)
            views = self._at_all_steps(key)
            part = views if lo == 0 and count == len(views) else views[lo : lo + count]
            columns.append(part[::-1] if reverse else part)
        self.loop(columns, fixed)

    def _at_all_steps(self, key: Any) -> Any:
        """Return what a variable is at every step: one array for the whole of them, or a view of each."""
        if key not in self._views:
            view = self._view(key)
            self._views[key] = view if self._whole else list(view)
        return self._views[key]


class CopiedProgram:
    """A loop that works in a few arrays of its own, again and again, and copies what it keeps to the segment's.

    The loop holds a view for each array and step: to make and visit views of a whole segment would cost more, where
    steps are small, than to copy them.

    Args:
        instructions, arrays: those of `NumpyProgram`. length: for how many steps it has memory.
    """

    engine = "numpy"

    def __init__(self, instructions: Instructions, arrays: Arrays, length: int) -> None:
        self._arrays = arrays
        self._own = Arrays(arrays.trials, arrays.batch_size, arrays.dtype)
        written = {operand.buffer for instruction in instructions for operand in instruction.written}
        self._kept: list[tuple[Buffer, bool]] = []
        for buffer in buffers_of(instructions):
            if buffer.span is Span.SEGMENT:
                self._own.allocate([buffer], segment=length, block=length)
                self._kept.append((buffer, buffer in written))
            else:
                self._own[buffer] = arrays[buffer]
        self.program = NumpyProgram(instructions, self._own)

    def run(self, first: int, count: int, *, reverse: bool = False) -> None:
        """See `NumpyProgram.run`; forwards in time only."""
        own, arrays = self._own, self._arrays
        own.version = arrays.version
        for buffer, is_written in self._kept:
            there = buffer.lag if is_written else buffer.lag + count
            np.copyto(own[buffer][:there], arrays[buffer][first : first + there])
        self.program.run(0, count)
        for buffer, is_written in self._kept:
            if is_written:
                lag = buffer.lag
                np.copyto(arrays[buffer][lag + first : lag + first + count], own[buffer][lag : lag + count])


def _along(reduce: Callable[..., Array], axis: int, a: Array, out: Array) -> None:
    reduce(a, axis=axis, keepdims=True, out=out)


def _sum_product(axis: int, a: Array, b: Array, out: Array) -> None:
    np.add.reduce(a * b, axis=axis, keepdims=True, out=out)


def _cumulate(axis: int, reverse: bool, a: Array, out: Array) -> None:
    order = (slice(None),) * axis + (slice(None, None, -1),) if reverse else ()
    out[order] = np.cumsum(a[order], axis=axis)


def _compare(operation: Callable[..., Array], a: Array, b: Array, out: Array) -> None:
    np.copyto(out, operation(a, b), casting="unsafe")


def _where(mask: Array, a: Array, b: Array, out: Array) -> None:
    np.copyto(out, np.where(mask != 0, a, b))


@lru_cache(maxsize=64)
def _compiled(source: str) -> CodeType:
    return compile(source, "<step>", "exec")


def _with_columns_joined(view: Array) -> Array:
    """Return (..., B, K) as (..., B K), which are side by side in memory."""
    shape = (*view.shape[:-2], view.shape[-2] * view.shape[-1])
    return np.lib.stride_tricks.as_strided(view, shape, (*view.strides[:-2], view.strides[-1]))
