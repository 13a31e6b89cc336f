"""Sums of products become one call of the compiled interpreter: where, where not, and that no number is another."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from compiled_programs import NEEDED
from measured import loaded
from numpy.typing import NDArray

from gradcli.engine.arrays import Arrays
from gradcli.engine.compiled import program
from gradcli.engine.compiled.program import CompiledProgram
from gradcli.engine.numpy_loops import NumpyProgram
from gradcli.engine.problem import Run
from gradcli.engine.run import Engine
from gradcli.engine.step.instructions import Buffer, Instruction, Instructions, Operand, Span, buffers_of
from gradcli.prepare.build import build

pytestmark = NEEDED

STEPS = 3
#: Of this step and the two before it; of each step; of use within a step only.
STATE = Buffer("state", 12, Span.BLOCK, lag=2)
GIVEN, OTHER = (Buffer(name, 12, Span.BLOCK) for name in ("given", "other"))
ONE, TWO, THREE = (Buffer(name, 12, Span.ONCE) for name in ("one", "two", "three"))
TAPE = Buffer("tape", 36, Span.SEGMENT, lag=1)
MATRIX, WORK = (Buffer(name, 36, Span.ONCE) for name in ("matrix", "work"))

S, BEFORE, LONG_BEFORE = (STATE.rows(0, 6, lag) for lag in (0, 1, 2))
F, G = GIVEN.rows(0, 6), GIVEN.rows(6, 12)
P, Q = OTHER.rows(0, 6), OTHER.rows(6, 12)
T, U, V = (buffer.rows(0, 6) for buffer in (ONE, TWO, THREE))


def to(out: Operand, op: str, *args: Operand, data: Any = None) -> Instruction:
    return Instruction(op, args, out, data)


def moved(operand: Operand, by: int) -> Operand:
    return operand._replace(start=operand.start + by)


def spread(buffer: Buffer, *strides: int) -> Operand:
    """Return a vector of 6 as a matrix of equal rows or columns, or a matrix as it lies."""
    return Operand(buffer, 0, (6, 6), strides)


#: The ends of most programs: u = g q, and what is added to it.
ADD_T = [to(U, "multiply", G, Q), to(P, "add", U, T)]
ADD_BEFORE = [to(U, "multiply", G, Q), to(BEFORE, "add", BEFORE, U)]

JOINED = {
    "neighbours": [to(T, "multiply", S, F), *ADD_T],
    "the other way round": [to(T, "multiply", S, F), to(U, "multiply", G, Q), to(P, "add", T, U)],
    "others between": [to(T, "multiply", S, F), to(V, "negative", F), to(V, "add", V, S), *ADD_T],
    "in place": [to(BEFORE, "multiply", S, F), *ADD_BEFORE],
    "in place, others between": [to(BEFORE, "multiply", S, F), to(V, "negative", S), to(Q, "copy", V), *ADD_BEFORE],
    "the output is a factor": [to(T, "multiply", S, F), to(U, "multiply", G, Q), to(S, "add", U, T)],
    "a product in place of its factor": [to(BEFORE, "multiply", BEFORE, F), to(V, "copy", P), *ADD_BEFORE],
    "another step of the same memory": [
        to(BEFORE, "multiply", S, F),
        to(LONG_BEFORE, "negative", LONG_BEFORE),
        to(V, "add", S, LONG_BEFORE),
        *ADD_BEFORE,
    ],
    "other numbers of the same memory": [
        to(BEFORE, "multiply", S, F),
        to(moved(BEFORE, 6), "add", moved(BEFORE, 6), Q),
        *ADD_BEFORE,
    ],
    "a matrix that was a vector": [
        to(MATRIX.rows(), "multiply", TAPE.rows(lag=1), Operand(GIVEN, 0, (36,), (0,))),
        to(V, "copy", P),
        to(spread(WORK, 6, 1), "multiply", spread(GIVEN, 1, 0), spread(OTHER, 0, 1)),
        to(TAPE.rows(), "add", MATRIX.rows(), WORK.rows()),
    ],
    "a matrix": [
        to(spread(MATRIX, 6, 1), "multiply", spread(TAPE, 6, 1)._replace(lag=1), spread(GIVEN, 0, 1)),
        to(V, "copy", P),
        to(spread(WORK, 6, 1), "multiply", spread(GIVEN, 1, 0), spread(OTHER, 0, 1)),
        to(spread(TAPE, 6, 1), "add", spread(MATRIX, 6, 1), spread(WORK, 6, 1)),
    ],
}

#: By what would go wrong.
APART = {
    "the product is read": [to(BEFORE, "multiply", S, F), to(V, "negative", BEFORE), to(P, "copy", V), *ADD_BEFORE],
    "a part of it is read": [
        to(BEFORE, "multiply", S, F),
        to(P, "negative", moved(BEFORE, 5)),
        *ADD_BEFORE,
    ],
    "it is read as of several steps": [
        to(BEFORE, "multiply", S, F),
        to(P, "negative", Operand(STATE, 8, (6,), (1,), lag=2)),
        *ADD_BEFORE,
    ],
    "it is written": [to(BEFORE, "multiply", S, F), to(BEFORE, "copy", Q), *ADD_BEFORE],
    "one of use within a step is written": [to(T, "multiply", S, F), to(T, "copy", Q), *ADD_T],
    "a part of it is written": [to(T, "multiply", S, F), to(moved(T, 3), "copy", Q), *ADD_T],
    "a factor is written": [to(T, "multiply", S, F), to(S, "copy", Q), *ADD_T],
    "the other factor is written": [to(T, "multiply", S, F), to(F, "negative", S), *ADD_T],
    "a part of a factor is written": [to(T, "multiply", S, F), to(moved(S, 4), "copy", Q), *ADD_T],
    "a factor is written as a slope": [
        to(T, "multiply", S, F),
        to(V, "across", P, F._replace(shape=(1,)), data=("layer_norm", 0.5)),
        *ADD_T,
    ],
    "it is kept": [to(BEFORE, "multiply", S, F), to(U, "multiply", G, Q), to(P, "add", U, BEFORE)],
    "it is kept, and read once": [to(TAPE.rows(0, 6), "multiply", S, F), *ADD_T[:1], to(P, "add", U, TAPE.rows(0, 6))],
    "it is needed later": [to(T, "multiply", S, F), *ADD_T, to(Q, "copy", T)],
    "a part of it is needed later": [to(T, "multiply", S, F), *ADD_T, to(Q, "copy", moved(T, 4))],
    "the other product is made of it": [
        to(BEFORE, "multiply", S, F),
        to(U, "multiply", BEFORE, Q),
        to(BEFORE, "add", BEFORE, U),
    ],
    "the other product is made of a part of it": [
        to(BEFORE, "multiply", S, F),
        to(U, "multiply", moved(BEFORE, 2), Q),
        to(BEFORE, "add", BEFORE, U),
    ],
    "the output is a part of a factor": [
        to(T, "multiply", S, F),
        to(U, "multiply", G, Q),
        to(moved(S, 1), "add", U, T),
    ],
    "another part is added": [to(T, "multiply", S, F), to(U, "multiply", G, Q), to(P, "add", U, moved(T, 2))],
    "it is a quotient": [to(T, "maximum", S, F), *ADD_T],
    "it has other axes": [
        to(
            Operand(MATRIX, 0, (4, 9), (9, 1)),
            "multiply",
            Operand(TAPE, 0, (4, 9), (9, 1), 1),
            Operand(GIVEN, 0, (4, 9), (0, 1)),
        ),
        to(spread(WORK, 6, 1), "multiply", spread(GIVEN, 1, 0), spread(OTHER, 0, 1)),
        to(spread(TAPE, 6, 1), "add", spread(MATRIX, 6, 1), spread(WORK, 6, 1)),
    ],
    "it lies otherwise": [
        to(spread(MATRIX, 6, 1), "multiply", spread(TAPE, 6, 1), spread(GIVEN, 0, 1)),
        to(spread(WORK, 6, 1), "multiply", spread(GIVEN, 1, 0), spread(OTHER, 0, 1)),
        to(spread(TAPE, 6, 1), "add", spread(MATRIX, 1, 6), spread(WORK, 6, 1)),
    ],
}


def operations(instructions: Instructions) -> list[str]:
    return [instruction.op for instruction in program._with_sums_of_products(instructions)]


def left_by(
    make: Callable[[Instructions, Arrays], CompiledProgram | NumpyProgram], instructions: Instructions, seed: int
) -> dict[str, NDArray[Any]]:
    """Return what a program leaves in memory that outlives a step; the numbers are small and whole, and so exact."""
    rng = np.random.default_rng(seed)
    arrays = Arrays(2, 3, np.dtype(np.float64))
    buffers = sorted(buffers_of(instructions), key=lambda buffer: buffer.name)
    arrays.allocate(buffers, segment=STEPS, block=STEPS)
    for buffer in buffers:
        arrays[buffer][...] = rng.integers(-1, 3, arrays[buffer].shape)
    make(instructions, arrays).run(0, STEPS)
    return {buffer.name: arrays[buffer] for buffer in buffers if buffer.span is not Span.ONCE}


def assert_nothing_else(instructions: Instructions, seed: int = 0) -> bool:
    """Compare with NumPy, which joins nothing; return whether the numbers were small enough for that."""
    wanted = left_by(NumpyProgram, instructions, seed)
    if max(np.abs(values).max() for values in wanted.values()) > 2.0**40:
        return False
    found = left_by(CompiledProgram, instructions, seed)
    for name, values in wanted.items():
        np.testing.assert_allclose(found[name], values, rtol=1e-12, atol=0, err_msg=name)
    return True


@pytest.mark.parametrize("name", JOINED)
def test_a_product_that_is_only_added_becomes_part_of_the_sum(name: str) -> None:
    found = operations(JOINED[name])
    assert found.count("sum_of_products") == 1
    assert "multiply" not in found
    assert len(found) == len(JOINED[name]) - 2
    assert assert_nothing_else(JOINED[name])


@pytest.mark.parametrize("name", APART)
def test_a_product_that_somebody_else_has_to_do_with_stays(name: str) -> None:
    assert "sum_of_products" not in operations(APART[name])
    assert assert_nothing_else(APART[name])


def test_the_sum_takes_the_place_of_the_last_of_its_calls() -> None:
    assert operations(JOINED["in place, others between"]) == ["negative", "copy", "sum_of_products"]
    joined = program._with_sums_of_products(JOINED["in place"])
    assert joined == [Instruction("sum_of_products", (G, Q, S, F), BEFORE)]


def random_operand(rng: np.random.Generator) -> Operand:
    buffer = (STATE, GIVEN, ONE)[int(rng.integers(3))]
    start = int(rng.choice([0, 0, 0, 6, 6, 3]))
    return buffer.rows(start, start + 6, int(rng.integers(buffer.lag + 1)))


def random_instructions(rng: np.random.Generator, most: int) -> list[Instruction]:
    inputs = {"copy": 1, "negative": 1, "maximum": 2, "add": 2, "multiply": 2}
    ops = [str(op) for op in rng.choice(list(inputs), rng.integers(most))]
    return [to(random_operand(rng), op, *(random_operand(rng) for _ in range(inputs[op]))) for op in ops]


@pytest.mark.parametrize("part", range(4))
def test_random_programs_leave_what_they_left(part: int) -> None:
    """Two products and their sum, with others between and around, all on the same few numbers."""
    joined = tried = 0
    for seed in range(500):
        rng = np.random.default_rng([part, seed])
        term, *factors, out = (random_operand(rng) for _ in range(6))
        instructions = [
            *random_instructions(rng, 2),
            to(term, "multiply", *factors[:2]),
            *random_instructions(rng, 4),
            to(U, "multiply", *factors[2:]),
            to(term if rng.random() < 0.5 else out, "add", term, U),
            *random_instructions(rng, 2),
        ]
        if assert_nothing_else(instructions, seed):
            tried += 1
            joined += "sum_of_products" in operations(instructions)
    assert tried > 400
    assert 50 < joined < 350


def numbers(run: Run) -> dict[str, NDArray[Any]]:
    """Return all numbers of a run by name."""
    found = {"losses": run.losses, **run.log2_norm}
    for name, gradient in run.gradients.items():
        found |= {f"{name} mantissa": gradient.mantissa, f"{name} exponent": gradient.exponent}
    return found


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("batch_size", [1, 5])
@pytest.mark.parametrize("cell", ["gated-deltanet", "mamba", "matrix-lstm", "rwkv-7", "lstm", "gru"])
def test_no_run_is_another_by_a_single_bit(
    cell: str, batch_size: int, dtype: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = loaded(cell, hidden_size=8, input_size=4, seq_len=30, batch_size=batch_size, trials=2, dtype=dtype, clip=[])
    problem = build(spec).problem
    made: list[str] = []
    join = program._with_sums_of_products

    def recording(instructions: Instructions) -> list[Instruction]:
        found = join(instructions)
        made.extend(instruction.op for instruction in found)
        return found

    monkeypatch.setattr(program, "_with_sums_of_products", recording)
    joined = numbers(Engine(problem).run())
    assert ("sum_of_products" in made) == (cell != "gru")
    made.clear()
    monkeypatch.setattr(program, "_sum_of_products", lambda *_: None)
    apart = numbers(Engine(problem).run())
    assert "sum_of_products" not in made
    assert joined.keys() == apart.keys()
    for name in joined:
        np.testing.assert_array_equal(joined[name], apart[name], err_msg=name)
