"""Programs as the engine runs them: moving and local operands, either direction, threads; and what is refused."""

from __future__ import annotations

import gc
import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from compiled_programs import DTYPES, LEVELS, NEEDED

from gradcli.engine.compiled import table
from gradcli.engine.compiled.table import Call, Operand, Program

pytestmark = NEEDED
Array = np.ndarray[Any, Any]


def recurrence(states: Array, inputs: Array, weights: Array, addend: Array) -> list[Call]:
    """h[t] = tanh(W h[t-1] + x[t]): a tape of states that moves, addends of a block that do not."""
    before, now = Operand(states[:-1], True), Operand(states[1:], True)
    return [
        Call("product", (Operand(weights), before), Operand(addend)),
        Call("add", (Operand(addend), Operand(inputs)), Operand(addend)),
        Call("tanh", (Operand(addend),), now),
    ]


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("dtype", DTYPES, ids=lambda t: t.__name__)
@pytest.mark.parametrize("sequences", [1, 3, 16])
def test_a_recurrence_in_blocks(sequences: int, dtype: Any, level: str) -> None:
    rng = np.random.default_rng(0)
    steps, block, trials, size = 20, 5, 2, 9
    states = np.zeros((steps + 1, trials, size, sequences), dtype)
    states[0] = rng.standard_normal(states[0].shape)
    inputs = rng.standard_normal((steps, *states.shape[1:])).astype(dtype)
    weights = (rng.standard_normal((1, trials, size, size)) / 3).astype(dtype)
    of_block, addend = np.empty((block, *states.shape[1:]), dtype), np.empty((1, *states.shape[1:]), dtype)
    program = Program(dtype, recurrence(states, of_block, weights, addend), level)
    wanted = states.copy()
    for step in range(steps):
        wanted[step + 1] = np.tanh(weights[0] @ wanted[step] + inputs[step])
    for first in range(0, steps, block):
        of_block[...] = inputs[first : first + block]
        program.run(first, block, False)
    np.testing.assert_allclose(states, wanted, rtol=100 * np.finfo(dtype).eps, atol=100 * np.finfo(dtype).eps)


def test_backwards_the_last_step_comes_first() -> None:
    rng = np.random.default_rng(1)
    steps = 7
    adjoint, slope = np.zeros((steps + 1, 1, 4, 2)), rng.standard_normal((steps, 1, 4, 2))
    adjoint[steps] = 1.0
    calls = [Call("multiply", (Operand(adjoint[1:], True), Operand(slope)), Operand(adjoint[:-1], True))]
    Program(np.float64, calls).run(0, steps, True)
    wanted = np.cumprod(slope[::-1], axis=0)[::-1]
    np.testing.assert_allclose(adjoint[:-1], wanted, rtol=1e-13)


def test_moving_operands_start_where_the_run_does_and_local_ones_at_their_first_step() -> None:
    tape, block, out = np.arange(10.0).reshape(10, 1), np.array([[100.0], [200.0], [300.0]]), np.zeros((10, 1))
    program = Program(np.float64, [Call("add", (Operand(tape, True), Operand(block)), Operand(out, True))])
    program.run(4, 3, False)
    np.testing.assert_array_equal(out.ravel(), [0, 0, 0, 0, 104, 205, 306, 0, 0, 0])
    out[...] = 0
    program.run(7, 2, True)
    np.testing.assert_array_equal(out.ravel(), [0] * 7 + [107, 208, 0])
    program.run(3, 0, False)
    for first, count in ((0, 4), (8, 3), (10, 1), (-1, 1), (0, -1), (2**62, 2**62)):
        with pytest.raises(ValueError, match="has not so many steps"):
            program.run(first, count, False)


def test_a_program_keeps_its_buffers_alive() -> None:
    def make() -> Program:
        views = np.zeros((5, 50_000))[:, 10:-10], np.ones((1, 50_000))[:, 10:-10]
        return Program(np.float64, [Call("add", (Operand(views[0]), Operand(views[1])), Operand(views[0]))])

    program = make()
    gc.collect()
    junk = [np.full((5, 50_000), np.nan) for _ in range(3)]
    program.run(0, 5, False)
    assert len(junk) == 3


def test_programs_in_two_threads_do_not_disturb_each_other() -> None:
    rng = np.random.default_rng(2)
    weights = rng.standard_normal((1, 1, 64, 64)) / 8

    def work(seed: int) -> Array:
        states = np.zeros((400, 1, 64, 24))
        states[0] = np.random.default_rng(seed).standard_normal(states[0].shape)
        inputs, addend = np.zeros((399, 1, 64, 24)), np.empty((1, 1, 64, 24))
        Program(np.float64, recurrence(states, inputs, weights, addend)).run(0, 399, False)
        return states

    alone = [work(seed) for seed in range(2)]
    found: dict[int, list[Array]] = {0: [], 1: []}
    threads = [
        threading.Thread(target=lambda seed=seed: found[seed].extend(work(seed) for _ in range(5))) for seed in found
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for seed, results in found.items():
        assert len(results) == 5
        for result in results:
            np.testing.assert_array_equal(result, alone[seed])


def test_one_program_runs_once_at_a_time() -> None:
    states = np.zeros((1, 1, 256, 64))
    weights = np.zeros((1, 1, 256, 256))
    calls = [Call("product", (Operand(weights), Operand(states)), Operand(np.empty_like(states)))] * 20
    program = Program(np.float64, calls)
    refused: list[str] = []

    def run() -> None:
        try:
            for _ in range(5):
                program.run(0, 20, False)
        except ValueError as error:
            refused.append(str(error))

    threads = [threading.Thread(target=run) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert set(refused) <= {"the program is running already, in another thread"}
    program.run(0, 1, False)


A, B, OUT = np.zeros((3, 2, 4)), np.ones((3, 2, 4)), np.zeros((3, 2, 4))
FLOATS, FIXED = np.zeros((3, 2, 4), np.float32), np.zeros((3, 2, 4))
FIXED.flags.writeable = False
ALIGNED = np.zeros(200, np.uint8)
BEYOND = np.lib.stride_tricks.as_strided(A, (3, 2, 5), A.strides)
BEFORE = np.lib.stride_tricks.as_strided(A, (3, 2, 4), (-64, 32, 8))
REPEATED = np.lib.stride_tricks.as_strided(np.zeros((3, 2, 4)), (3, 2, 4), (64, 0, 8), writeable=True)
LAPPED = np.lib.stride_tricks.as_strided(np.zeros((3, 2, 4)), (3, 2, 4), (64, 8, 8), writeable=True)
MATRIX = np.zeros((1, 2, 5, 4))
AXES = np.zeros((1,) * 9)
LATTICE = np.zeros((1,) + (3,) * 6)[:, ::2, ::2, ::2, ::2, ::2, ::2]
SHIFTED = np.zeros((3, 2, 5))
ENDLESS = np.broadcast_to(np.zeros((1, 1, 1, 1)), (1, 1, 4, 2**57))


def call(op: str, *args: Array, out: Array = OUT, **more: Any) -> Callable[[], Program]:
    if isinstance(more.get("also"), np.ndarray):
        more["also"] = Operand(more["also"])
    return lambda: Program(np.float64, [Call(op, tuple(map(Operand, args)), Operand(out), **more)])


REFUSED = {
    "cosh: there is no such operation": call("cosh", A),
    "add: it has another number of operands": call("add", A),
    "tanh: it has another number of operands": call("tanh", A, also=B),
    "add: a view is to be of type float64": call("add", A, FLOATS),
    "copy: a view is to be of type float64": call("copy", A.astype(">f8")),
    "copy: a view is to be aligned": call("copy", ALIGNED[1:193].view(np.float64).reshape(3, 2, 4)),
    "ldexp: the exponents are to be 32-bit integers": call("ldexp", A, np.zeros((3, 2, 4), np.int64)),
    "add: the shapes do not fit each other": call("add", A, np.zeros((3, 2, 3))),
    "add: all views are to have as many axes as the output": call("add", A, np.zeros((3, 4))),
    "copy: a view has too many axes": call("copy", AXES, out=AXES),
    "copy: a view is to lie within its buffer": call("copy", BEYOND, out=np.zeros((3, 2, 5))),
    "tanh: a view is to lie within its buffer": call("tanh", BEFORE),
    "copy: a view is to have at least one number": call("copy", A[:, :0], out=OUT[:, :0]),
    "a buffer that is written is to be writable": call("copy", A, out=FIXED),
    "copy: an output is to have a place of its own for every number": call("copy", A, out=REPEATED),
    "exp: an output is to have a place of its own for every number": call("exp", A, out=LAPPED),
    "product: it takes a matrix": call("product", A, B),
    "product: the shapes do not fit each other": call("product", MATRIX, np.zeros((3, 2, 5)), out=np.zeros((3, 2, 5))),
    "product: the matrix is to be the same at every step": call(
        "product", np.zeros((3, 2, 4, 4)), A, out=np.zeros((3, 2, 4))
    ),
    "product: the columns of a product are to lie behind each other": call(
        "product", MATRIX, np.zeros((3, 2, 4, 3, 3))[..., :2], out=np.zeros((3, 2, 5, 3, 2))
    ),
    "product: the matrix is too large": call(
        "product", ENDLESS, ENDLESS.swapaxes(2, 3)[:, :, :, :1], out=np.zeros((1, 1, 4, 1))
    ),
    "product_add: its operands may not overlap": call("product_add", np.zeros((1, 2, 4, 4)), OUT),
    "sum_axis: there is no such axis": call("sum_axis", A, axis=3),
    "softmax: there is no such axis": call("softmax", A),
    "multiply: the views have more axes that do not lie behind each other": call(
        "multiply", LATTICE, LATTICE, out=np.zeros(LATTICE.shape)
    ),
    "largest: the views have more axes that do not lie behind each other": call(
        "largest", LATTICE, out=np.zeros((*LATTICE.shape[:-1], 1)), axis=6
    ),
    "sum_product: the shapes do not fit each other": call("sum_product", A, A, out=OUT[:, :1, :1], axis=2),
    "sum_product: an operand is to have length 1 along the axis": call("sum_product", A, A, axis=2),
    "sum_product: its operands may not overlap": call("sum_product", A, OUT, out=OUT[:, :, :1], axis=2),
    "sum_product: all views are to have as many axes": call("sum_product", A, A[..., None], out=OUT[:, :, :1], axis=2),
    "cumsum: its operands may not overlap": call("cumsum", SHIFTED[:, :, 1:], out=SHIFTED[:, :, :-1], axis=2),
    "cumsum_reversed: the shapes do not fit each other": call("cumsum_reversed", A, out=OUT[:, :, :3], axis=2),
    "sum_axis: an operand is to have length 1 along the axis": call("sum_axis", A, axis=2),
    "norm: its operands may not overlap": call("layer_norm", A, also=OUT[:, :, :1], axis=2),
    "softmax_jacobian: its operands may not overlap": call("softmax_jacobian", OUT, A, axis=2),
    "clip_norm: the counters are to be 64-bit integers": call("clip_norm", A, also=B[:, :, :1], axis=2),
}


@pytest.mark.parametrize("sentence", REFUSED)
def test_a_wrong_program_is_refused_in_a_sentence(sentence: str) -> None:
    with pytest.raises(ValueError, match=rf"^{sentence}"):
        REFUSED[sentence]()


def test_more_that_is_refused() -> None:
    """At the door of the extension, which table.py never comes to with these."""
    program = table._interpreter.Program
    good = ("copy", ((OUT, OUT, False),), ((A, A, False),), 0, 0.0)
    program("d", [good], None)
    described: tuple[Any, ...]
    for described in (
        None,
        good[:4],
        ("copy", [], (), 0, 0.0),
        ("copy", ((OUT, OUT),), ((A, A, False),), 0, 0.0),
        ("copy", ((OUT, None, False),), ((A, A, False),), 0, 0.0),
        ("copy", ((None, OUT, False),), ((A, A, False),), 0, 0.0),
        ("copy", ((A, OUT, False),), ((A, A, False),), 0, 0.0),
        (3, ((OUT, OUT, False),), ((A, A, False),), 0, 0.0),
    ):
        with pytest.raises(ValueError, match=" "):
            program("d", [described], None)
    with pytest.raises(ValueError, match='"d" or "f"'):
        program("e", [good], None)
    with pytest.raises(ValueError, match="no such level"):
        program("d", [good], "avx4096")


def test_a_view_made_by_as_strided_has_the_buffer_that_it_was_made_of() -> None:
    memory = np.arange(12.0)
    windows = np.lib.stride_tricks.sliding_window_view(memory, 5)[:, None]
    out = np.empty((8, 1, 5))
    Program(np.float64, [Call("copy", (Operand(windows),), Operand(out))]).run(0, 8, False)
    np.testing.assert_array_equal(out, windows)
