"""Random programs for the compiled interpreter, valid and corrupted, and what NumPy makes of them.

A program passes where it is refused with one sentence, or accepted, its operands all within their buffers, and then
leaves in every buffer what the same calls leave with NumPy, and nothing beside them. Anything else raises Fault.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from gradcli.engine.compiled import table
from gradcli.language.across import ACROSS
from gradcli.language.functions import FUNCTIONS

Array = np.ndarray[Any, Any]
Generator = np.random.Generator

#: Numbers on either side of a buffer that nothing may change.
GUARD = 32
TWO: dict[str, Callable[..., Any]] = {
    name: getattr(np, name)
    for name in ("add", "subtract", "multiply", "divide", "power", "maximum", "minimum", "ldexp")
} | {name: getattr(np, name) for name in ("greater", "greater_equal", "equal")}
THREE: dict[str, Callable[..., Any]] = {
    "multiply_add": lambda x, y, z: x * y + z,
    "where": lambda mask, x, y: np.where(mask != 0, x, y),
}
FOUR: dict[str, Callable[..., Any]] = {"sum_of_products": lambda a, x, b, y: a * x + b * y}
ONE = ("copy", "negative", "reciprocal", "square", "sigmoid_of_negated", *FUNCTIONS)
PRODUCTS = ("product", "product_transposed", "product_add", "product_transposed_add")
SUMS = ("sum_axis", "sum_product", "largest")
CUMULATIVE = ("cumsum", "cumsum_reversed")
ALONG_AXIS = (*SUMS, *CUMULATIVE, *ACROSS, *(f"{name}_jacobian" for name in ACROSS), "clip_norm", "clip_value")
#: Calls that may follow each other: none magnifies a rounding much.
CALM = ("add", "subtract", "maximum", "minimum", "copy", "negative", "tanh", "sigmoid", "hard_tanh", "silu", "softsign")
KINDS = {"exponent": np.int32, "counter": np.int64, "threshold": np.float64}


class Fault(Exception):
    """What no program may come to."""


@dataclass
class Buffer:
    """Memory with guards around it: `inside` is what the program gets."""

    whole: Array

    @property
    def inside(self) -> Array:
        return self.whole[GUARD:-GUARD]


@dataclass
class Operand:
    """A view as numbers: bytes from the start of its buffer, strides in bytes."""

    buffer: Buffer
    dtype: np.dtype[Any]
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]
    moving: bool = False
    writable: bool = True

    def view(self) -> Array:
        # Not by way of a slice: a corrupted offset leads out of the buffer.
        whole = self.buffer.whole
        start = whole.__array_interface__["data"][0] + GUARD * whole.itemsize + self.offset
        holder = _Holder(
            {
                "data": (start, False),
                "shape": self.shape,
                "strides": self.strides,
                "typestr": self.dtype.str,
                "version": 3,
            },
            whole,
        )
        return np.asarray(holder)

    def described(self) -> tuple[Array, Array, bool]:
        inside = self.buffer.inside
        inside.flags.writeable = self.writable
        return inside, self.view(), self.moving

    def is_within(self) -> bool:
        reaches = [(n - 1) * s for n, s in zip(self.shape, self.strides, strict=True)]
        low = self.offset + sum(min(reach, 0) for reach in reaches)
        high = self.offset + sum(max(reach, 0) for reach in reaches) + self.dtype.itemsize
        return low >= 0 and high <= self.buffer.inside.nbytes

    def steps(self) -> int | None:
        """Return how many steps it has, None where all are the same memory."""
        return self.shape[0] if self.shape and self.shape[0] > 1 and self.strides[0] else None


@dataclass
class _Holder:
    __array_interface__: dict[str, Any]
    base: Array


@dataclass
class Call:
    op: str
    outputs: list[Operand]
    inputs: list[Operand]
    axis: int = 0
    number: float = 0.0


def _buffer(rng: Generator, dtype: Any, size: int) -> Buffer:
    kind = np.dtype(dtype).kind
    values = rng.integers(-9, 9, size + 2 * GUARD) if kind == "i" else rng.uniform(-2, 2, size + 2 * GUARD)
    return Buffer(values.astype(dtype))


def _operand(rng: Generator, buffer: Buffer, shape: tuple[int, ...], is_output: bool, still: bool) -> Operand | None:
    """Return a view of a shape somewhere in a buffer, its axes in some order, with gaps and broadcasts; or None."""
    item = buffer.whole.itemsize
    tidy = rng.random() < 0.5
    order = range(len(shape))[::-1] if tidy else rng.permutation(len(shape)).tolist()
    strides = [0] * len(shape)
    size = 1
    for axis in order:
        if (axis == 0 and still) or (not is_output and not tidy and rng.random() < 0.1):
            continue
        strides[axis] = size
        size *= shape[axis]
        if not tidy:
            size += int(rng.integers(0, 3))
            strides[axis] *= int(rng.choice([1, 1, -1]))
    reaches = [(n - 1) * s for n, s in zip(shape, strides, strict=True)]
    low, high = sum(min(r, 0) for r in reaches), sum(max(r, 0) for r in reaches)
    room = buffer.inside.size - (high - low) - 1
    if room < 0:
        return None
    offset = int(rng.integers(0, room + 1)) - low
    return Operand(buffer, buffer.whole.dtype, offset * item, shape, tuple(s * item for s in strides))


def _call(rng: Generator, buffers: dict[str, list[Buffer]], op: str, steps: int) -> Call | None:
    axes = int(rng.integers(1, 5))
    body = tuple(int(n) for n in rng.choice([1, 2, 3, 4, 5, 9, 17], axes, p=[0.3, 0.2, 0.15, 0.1, 0.1, 0.1, 0.05]))

    def operand(shape: tuple[int, ...], kind: str = "number", is_output: bool = False) -> Operand | None:
        """Return an operand whose step has a shape, of an input of a call that broadcasts now and then a number."""
        still = bool(rng.random() < 0.3)
        length = 1 if still and rng.random() < 0.5 else steps
        if not is_output and kind == "number" and op not in (*PRODUCTS, *SUMS) and rng.random() < 0.05:
            shape = ()
            length = 1
        buffer = buffers[kind][int(rng.integers(len(buffers[kind])))]
        found = _operand(rng, buffer, (length, *shape), is_output, still)
        if found is not None:
            found.moving = bool(rng.random() < 0.5)
            if not shape and not is_output and rng.random() < 0.5:
                found.shape, found.strides = (), ()
        return found

    def narrowed(shape: tuple[int, ...]) -> tuple[int, ...]:
        return tuple(1 if rng.random() < 0.15 else n for n in shape)

    if op in PRODUCTS:
        rows, inner, columns = (int(n) for n in rng.choice([1, 2, 3, 4, 5, 8, 9, 12, 33], 3))
        trials = int(rng.integers(1, 4))
        behind = (columns,) if rng.random() < 0.8 else (() if rng.random() < 0.5 else (columns, 2))
        sides = (inner, rows) if "transposed" in op else (rows, inner)
        matrix = operand((trials if rng.random() < 0.5 else 1, *sides))
        if matrix is not None and matrix.shape:
            matrix.shape, matrix.strides = (1, *matrix.shape[1:]), (0, *matrix.strides[1:])
        found = [operand((trials, rows, *behind), is_output=True), matrix, operand((trials, inner, *behind))]
        return _complete(Call(op, found[:1], found[1:]))  # type: ignore[arg-type]
    if op not in ALONG_AXIS:
        count = 1 if op in ONE else 3 if op in THREE else 4 if op in FOUR else 2
        found = [operand(body, is_output=True), *(operand(narrowed(body)) for _ in range(count))]
        if op == "ldexp":
            found[2] = operand(narrowed(body), "exponent")
        if found[0] is not None and rng.random() < 0.2:
            found[1 if op == "ldexp" else int(rng.integers(1, count + 1))] = replace(found[0])
        return _complete(Call(op, found[:1], found[1:]))  # type: ignore[arg-type]
    axis = int(rng.integers(1, axes + 1))
    alone = (*body[: axis - 1], 1, *body[axis:])
    if op in SUMS:
        found = [operand(alone, is_output=True), operand(body)]
        if op == "sum_product":
            found.insert(int(rng.integers(1, 3)), operand(tuple(1 if rng.random() < 0.4 else n for n in body)))
    elif op in CUMULATIVE:
        found = [operand(body, is_output=True), operand(body)]
        if rng.random() < 0.3:
            found[1] = found[0] and replace(found[0])
    elif op.startswith("clip"):
        found = [operand(body, is_output=True), operand(alone, "counter", True), operand(alone, "threshold")]
        return _complete(Call(op, found[:2], found[2:], axis))  # type: ignore[arg-type]
    elif op.endswith("_jacobian"):
        found = [operand(body, is_output=True), operand(body), operand(body)]
        if not op.startswith("softmax"):
            found.insert(2, operand(alone))
        if found[0] is not None and rng.random() < 0.3:
            found[-1] = replace(found[0])
    else:
        found = [operand(body, is_output=True), operand(body)]
        if op != "softmax":
            found.insert(1, operand(alone if rng.random() < 0.5 else body, is_output=True))
    outputs = 2 if op in ("layer_norm", "batch_norm") else 1
    return _complete(Call(op, found[:outputs], found[outputs:], axis, 0.01))  # type: ignore[arg-type]


def _complete(call: Call) -> Call | None:
    return None if None in (*call.outputs, *call.inputs) else call


def _corrupt(rng: Generator, call: Call, buffers: dict[str, list[Buffer]]) -> None:
    """Change one thing of a call: mostly into what is not allowed, at times into another valid one."""
    operands = call.outputs + call.inputs
    place = int(rng.integers(len(operands)))
    operand = operands[place] = replace(operands[place])
    side, at = (call.outputs, place) if place < len(call.outputs) else (call.inputs, place - len(call.outputs))
    side[at] = operand
    axis = int(rng.integers(max(len(operand.shape), 1)))
    what = int(rng.integers(14))
    item = operand.dtype.itemsize
    if what == 0:
        operand.offset += int(rng.integers(-60, 60)) * item
    elif what == 1:
        operand.offset += int(rng.integers(-12, 13))
    elif what == 2 and operand.shape:
        strides = list(operand.strides)
        strides[axis] += int(rng.choice([item, -item, 3 * item, 2**20, -(2**40), 2**62, -(2**63), 1]))
        strides[axis] = max(min(strides[axis], 2**63 - 1), -(2**63))
        operand.strides = tuple(strides)
    elif what == 3 and operand.shape:
        shape = list(operand.shape)
        shape[axis] = int(rng.choice([0, 1, shape[axis] + 1, shape[axis] * 7, 10**6]))
        operand.shape = tuple(shape)
    elif what == 4:
        operand.buffer = buffers["number"][int(rng.integers(len(buffers["number"])))]
    elif what == 5:
        operand.dtype = np.dtype(rng.choice(["f8", "f4", "i4", "i8", ">f8", "c8", "?", "u8", "f2"]))
    elif what == 6:
        operand.writable = False
    elif what == 7:
        operand.shape, operand.strides = (*operand.shape, 1), (*operand.strides, item)
    elif what == 8:
        operand.shape, operand.strides = operand.shape[1:], operand.strides[1:]
    elif what == 9:
        call.axis = int(rng.integers(-3, 9))
    elif what == 10:
        call.op = str(rng.choice([*table.OPERATIONS, "", "x" * 300, "norm\x00"]))
    elif what == 11:
        side.pop(at)
    elif what == 12:
        side.insert(at, replace(operand))
    elif what == 13:
        operand.strides = tuple(rng.permutation(operand.strides).tolist()) if operand.strides else ()


@dataclass
class Attempt:
    """A program, with the run that is asked of it."""

    dtype: np.dtype[Any]
    buffers: list[Buffer]
    calls: list[Call]
    corrupted: bool
    first: int
    count: int
    reverse: bool
    level: str | None


def random_attempt(rng: Generator) -> Attempt:
    """Return the program of a generator: the same for the same seed."""
    dtype = np.dtype(rng.choice(["f8", "f4"]))
    size = int(rng.choice([40, 300, 3000]))
    buffers = {"number": [_buffer(rng, dtype, size) for _ in range(int(rng.integers(1, 4)))]}
    buffers |= {kind: [_buffer(rng, other, 300)] for kind, other in KINDS.items()}
    if dtype == np.float64:
        buffers["threshold"] = buffers["number"] if rng.random() < 0.1 else buffers["threshold"]
    steps = int(rng.integers(1, 5))
    several = rng.random() < 0.4
    everything = (*ONE, *TWO, *THREE, *FOUR, *PRODUCTS * 5, *ALONG_AXIS * 2)
    calls = []
    for _ in range(int(rng.integers(2, 6)) if several else 1):
        op = str(rng.choice(CALM if several else everything))
        for _ in range(20):
            call = _call(rng, buffers, op, steps)
            if call is not None:
                calls.append(call)
                break
    corrupted = bool(calls) and rng.random() < 0.4
    if corrupted:
        _corrupt(rng, calls[int(rng.integers(len(calls)))], buffers)
    first, count = int(rng.integers(0, steps)), int(rng.integers(0, steps + 1))
    if rng.random() < 0.03:
        first, count = (int(n) for n in rng.choice([-1, 0, 2, 7, 2**40, 2**62], 2))
    if any(call.op.startswith("clip") for call in calls):
        count = min(count, 1)  # what was clipped is at the threshold, on one side of it or the other
    level = str(rng.choice(table.LEVELS))
    everywhere = [buffer for kind in buffers.values() for buffer in kind]
    return Attempt(dtype, everywhere, calls, corrupted, first, count, bool(rng.random() < 0.5), level)


def attempt(rng: Generator) -> str:
    """Make and run a random program; return "accepted" or "refused", of a run "refused run"; raises Fault."""
    tried = random_attempt(rng)
    calls = tried.calls
    described = [
        (
            table._NAMES.get(call.op, call.op),
            tuple(o.described() for o in call.outputs),
            tuple(o.described() for o in call.inputs),
            call.axis,
            call.number,
        )
        for call in calls
    ]
    before = [buffer.whole.copy() for buffer in tried.buffers]
    try:
        program = table._interpreter.Program(tried.dtype.char, described, tried.level)
    except ValueError as error:
        _check_sentence(str(error))
        _check_unchanged(tried.buffers, before)
        if not tried.corrupted and not _may_be_refused(str(error)):
            raise Fault(f"refused without need: {error}") from None
        return "refused"
    operands = [o for call in calls for o in call.outputs + call.inputs]
    if not all(o.is_within() for o in operands):
        raise Fault("an operand outside of its buffer was accepted")
    if not all(o.writable for call in calls for o in call.outputs):
        raise Fault("a buffer that cannot be written was accepted for an output")
    _check_unchanged(tried.buffers, before)
    # NumPy's matrices are those of now, as the packed ones are.
    matrices = {id(call): call.inputs[0].view().copy() for call in calls if call.op in PRODUCTS}
    allowed = tried.first >= 0 and tried.count >= 0
    for operand in operands:
        steps = operand.steps()
        if steps is not None:
            allowed = allowed and (tried.first if operand.moving else 0) + tried.count <= steps
    if allowed and tried.count > 1000:
        return "accepted"  # nothing has steps: it would run for ever
    try:
        program.run(tried.first, tried.count, tried.reverse)
    except ValueError as error:
        _check_sentence(str(error))
        if allowed:
            raise Fault(f"a run was refused: {error}") from None
        _check_unchanged(tried.buffers, before)
        return "refused run"
    if not allowed:
        raise Fault("a run over steps that there are not was accepted")
    found = [buffer.whole.copy() for buffer in tried.buffers]
    for buffer, values in zip(tried.buffers, before, strict=True):
        buffer.whole[...] = values
    with np.errstate(all="ignore"):
        for i in range(tried.count):
            step = tried.count - 1 - i if tried.reverse else i
            for call in calls:
                _by_numpy(call, step, tried.first, matrices.get(id(call)))
    for buffer, values, old in zip(tried.buffers, found, before, strict=True):
        for guard in (slice(0, GUARD), slice(-GUARD, None)):
            if not np.array_equal(values[guard], old[guard]):
                raise Fault("memory beside a buffer has changed")
        _check_close(values, buffer.whole, tried.dtype)
    return "accepted"


def _may_be_refused(sentence: str) -> bool:
    """Tell whether a program that nobody corrupted may be refused so: for how its views lie."""
    return any(
        part in sentence
        for part in ("may not overlap", "do not lie behind each other", "are to lie behind", "place of its own")
    )


def _check_sentence(text: str) -> None:
    if not text.isprintable() or len(text) > 500 or not text:
        raise Fault(f"no sentence: {text!r}")


def _check_unchanged(buffers: list[Buffer], before: list[Array]) -> None:
    for buffer, values in zip(buffers, before, strict=True):
        if buffer.whole.tobytes() != values.tobytes():
            raise Fault("memory has changed before a run")


def _check_close(found: Array, wanted: Array, dtype: np.dtype[Any]) -> None:
    if found.dtype.kind == "i":
        if not np.array_equal(found, wanted):
            raise Fault("another count")
        return
    tolerance = 1e-9 if dtype == np.float64 else 1e-3
    if found.dtype != dtype:
        tolerance = 0.0
    # Where a number is huge, its rounding was magnified too: only that both are counts.
    huge = (np.abs(found) > 1e5) & (np.abs(wanted) > 1e5)
    close = np.isclose(found, wanted, rtol=tolerance, atol=tolerance, equal_nan=True)
    if not (close | huge).all():
        worst = int(np.argmin(close | huge))
        raise Fault(f"{found[worst]} where NumPy has {wanted[worst]}")


def _at(operand: Operand, step: int, first: int) -> Array:
    view = operand.view()
    if not view.shape:
        return view
    index = (first if operand.moving else 0) + step if operand.steps() is not None else 0
    return np.asarray(view[index : index + 1][0, ...])


def _by_numpy(call: Call, step: int, first: int, matrix: Array | None) -> None:
    """Do a call at one step."""
    outs = [_at(o, step, first) for o in call.outputs]
    ins = [_at(o, step, first) for o in call.inputs]
    out, op = outs[0], call.op
    if op in PRODUCTS:
        assert matrix is not None
        matrix = matrix[0].swapaxes(-1, -2) if "transposed" in op else matrix[0]
        vectors = ins[1].reshape(*ins[1].shape[:2], -1)
        product = np.matmul(matrix, vectors)
        product = product.reshape(product.shape[0], *out.shape[1:])
        out[...] = out + product if op.endswith("_add") else product
    elif op in TWO:
        out[...] = TWO[op](*ins)
    elif op in THREE:
        out[...] = THREE[op](*ins)
    elif op in FOUR:
        out[...] = FOUR[op](*ins)
    elif op == "copy":
        out[...] = ins[0].copy()
    elif op in ("negative", "reciprocal", "square"):
        out[...] = getattr(np, op)(ins[0])
    elif op == "sigmoid_of_negated":
        out[...] = 1 / (1 + np.exp(ins[0]))
    elif op in FUNCTIONS:
        given = np.array(ins[0])
        result = np.empty_like(given)
        FUNCTIONS[op].evaluate(given, result)
        out[...] = result
    else:
        _along_axis(op, call.axis - 1, call.number, outs, ins)


def _along_axis(op: str, axis: int, number: float, outs: list[Array], ins: list[Array]) -> None:
    out = outs[0]
    if op == "sum_axis":
        out[...] = ins[0].sum(axis=axis, keepdims=True)
    elif op == "largest":
        out[...] = ins[0].max(axis=axis, keepdims=True)
    elif op == "sum_product":
        terms = max((x.shape[axis] for x in ins if x.ndim), default=1)
        shape = (*out.shape[:axis], terms, *out.shape[axis + 1 :])
        out[...] = np.broadcast_to(ins[0] * ins[1], shape).sum(axis=axis, keepdims=True)
    elif op in CUMULATIVE:
        along = (slice(None),) * axis + (slice(None, None, -1 if op == "cumsum_reversed" else 1),)
        out[along] = np.cumsum(np.broadcast_to(ins[0], out.shape)[along], axis=axis)
    elif op.startswith("clip"):
        threshold = ins[0]
        largest = np.abs(out).max(axis=axis, keepdims=True)
        if op == "clip_value":
            over = largest > threshold
            clipped = np.where(out > threshold, threshold, np.where(out < -threshold, -threshold, out))
        else:
            unit = np.where(largest > 0, largest, 1).astype(out.dtype)
            norm = unit * np.sqrt(np.square(out / unit).sum(axis=axis, keepdims=True))
            over = norm > threshold
            clipped = out * np.where(over, threshold / np.where(over, norm, 1.0), 1.0)
        out[...] = clipped
        outs[1][...] += np.broadcast_to(over, outs[1].shape)
    elif op.endswith("_jacobian"):
        name = op.removesuffix("_jacobian")
        full = [np.broadcast_to(a, out.shape) for a in ins]
        v, result = np.array(full[-1]), np.empty_like(out)
        ACROSS[name].apply_jacobian(axis, full[0], full[1] if len(full) == 3 else None, v, result)
        out[...] = result
    else:
        y, slope = ACROSS[op].evaluate(np.array(np.broadcast_to(ins[0], out.shape)), number, axis)
        out[...] = y
        if slope is not None:
            outs[1][...] = slope
