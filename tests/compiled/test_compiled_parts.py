"""A program on several threads: every number is in one part, and none of them is another by a single bit."""

from __future__ import annotations

import math
import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from itertools import product
from typing import Any

import numpy as np
import pytest
from built_in_cells import in_turn
from measured import loaded
from numpy.typing import NDArray

from gradcli import cells
from gradcli.diagnostics.layer_jacobian import measure_jacobian
from gradcli.diagnostics.verdict import Verdict
from gradcli.engine.arrays import Arrays
from gradcli.engine.compiled import program, table
from gradcli.engine.compiled.parts import Part, parts_of, run_beside, work_of
from gradcli.engine.problem import Run
from gradcli.engine.run import Engine
from gradcli.engine.step.backward import Choices
from gradcli.engine.step_clip import StepClip
from gradcli.engine.threads import ALLOWED
from gradcli.prepare.build import build

pytestmark = pytest.mark.skipif(not table.AVAILABLE, reason="the compiled interpreter was not built")

#: Trials, sequences of each and the type of a run.
SETTINGS = [(3, 2, "float64"), (1, 17, "float64"), (1, 37, "float32")]
SIZES: dict[str, Any] = {"hidden_size": 12, "input_size": 4, "seq_len": 24, "clip": []}
OVER_SEQUENCES = [name for name in cells.names() if "batch_norm" in str(cells.load(name).cell.equations)]


@contextmanager
def threads(count: int) -> Iterator[list[int]]:
    """Divide whatever can be divided for so many threads; give how many parts each program has that ran."""
    seen: list[int] = []
    allowed = ALLOWED.set(count)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(program, "WORTH_A_THREAD", 1)
        patch.setattr(program, "run_beside", lambda runs: (seen.append(len(runs)), run_beside(runs)))
        try:
            yield seen
        finally:
            ALLOWED.reset(allowed)


def numbers(run: Run) -> dict[str, NDArray[Any]]:
    """Return all numbers of a run by name."""
    found = dict(run.log2_norm)
    for name, gradient in run.gradients.items():
        found |= {f"{name} mantissa": gradient.mantissa, f"{name} exponent": gradient.exponent}
    return found


def assert_same(one: dict[str, NDArray[Any]], other: dict[str, NDArray[Any]]) -> None:
    assert one.keys() == other.keys()
    for name in one:
        np.testing.assert_array_equal(one[name], other[name], err_msg=name)


@pytest.mark.parametrize(("cell", "setting"), in_turn(cells.names(), SETTINGS))
def test_threads_change_no_bit(cell: str, setting: tuple[int, int, str]) -> None:
    trials, batch_size, dtype = setting
    problem = build(loaded(cell, **SIZES, trials=trials, batch_size=batch_size, dtype=dtype)).problem
    alone = numbers(Engine(problem).run(step_clip=StepClip("step_norm", 0.5)))
    with threads(2) as seen:
        assert_same(alone, numbers(Engine(problem).run(step_clip=StepClip("step_norm", 0.5))))
    assert set(seen) <= {2}
    line = 16 if dtype == "float32" else 8
    assert (2 in seen) == (problem.sizes.trials_at_once > 1 or batch_size >= 2 * line)


@pytest.mark.parametrize(("cell", "batch_size"), [("lstm", 1), ("gru", 1), ("batch-norm-rnn", 3)])
def test_columns_of_a_jacobian_are_divided_if_it_is_of_one_sequence(cell: str, batch_size: int) -> None:
    network = build(loaded(cell, **SIZES | {"hidden_size": 20}, trials=1, batch_size=batch_size))
    alone = measure_jacobian(network, 0, [0, 5, 24], exponents=None)
    with threads(2) as seen:
        divided = measure_jacobian(network, 0, [0, 5, 24], exponents=None)
    assert (2 in seen) == (batch_size == 1)
    assert not isinstance(alone, Verdict)
    assert not isinstance(divided, Verdict)
    assert_same({"frobenius": alone.spectra.frobenius}, {"frobenius": divided.spectra.frobenius})
    assert_same(vars(alone.lyapunov), vars(divided.lyapunov))


def test_the_parts_are_all_there_is_and_the_largest_is_small() -> None:
    plan = build(loaded("lstm", **SIZES, trials=1, batch_size=1)).problem.plans[0]
    units = {1: 1, -1: 8}  # a line of the cache
    for count, trials, batch_size, columns in product(
        [2, 3, 8], [1, 2, 3, 5], [1, 7, 8, 9, 17, 23, 31, 64, 70], [None, 1, 24]
    ):
        found = parts_of(plan.forward, Arrays(trials, batch_size, np.dtype(np.float64), columns), count)
        last = batch_size if columns is None else columns if batch_size == 1 else 1
        lengths = {1: trials, -1: last}
        if not found:
            assert trials == 1
            assert last < 2 * units[-1]
            continue
        assert 2 <= len(found) <= count
        (axis,) = {part.axis for part in found}
        assert [found[0].start, *(part.stop for part in found)] == [*(part.start for part in found), lengths[axis]]
        assert all(part.stop - part.start >= units[axis] for part in found)
        assert axis == 1 or all(part.start % 8 == 0 for part in found)
        largest = [
            (units[axis] * (math.ceil(length // units[axis] / count) + 1) - 1) / length
            for axis, length in lengths.items()
        ]
        assert max(part.stop - part.start for part in found) / lengths[axis] <= min(1.0, *largest)


def test_sequences_that_a_function_goes_over_are_not_divided() -> None:
    for cell in OVER_SEQUENCES:
        plan = build(loaded(cell, **SIZES, trials=1, batch_size=64)).problem.plans[0]
        backward = plan.backward(Choices(plan.prefilled)).step
        for instructions in (plan.forward, backward):
            assert parts_of(instructions, Arrays(1, 64, np.dtype(np.float64)), 2) == []


def test_what_is_the_same_for_all_places_is_in_every_part() -> None:
    view = np.arange(24.0).reshape(1, 4, 6, 1)
    assert Part(-1, 8, 16).of(view) is view
    assert np.array_equal(Part(1, 2, 4).of(view), view[:, 2:4])


def test_a_short_run_wakes_no_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(program, "run_beside", lambda runs: pytest.fail("a thread for less than a millisecond"))
    problem = build(loaded("lstm", **SIZES, trials=4, batch_size=2)).problem
    allowed = ALLOWED.set(8)
    try:
        Engine(problem).run()
    finally:
        ALLOWED.reset(allowed)


def test_what_a_thread_raises_is_raised_when_all_are_done() -> None:
    done: list[str] = []

    def fail() -> None:
        raise ValueError("no")

    for calls in ([lambda: done.append("first"), fail, lambda: done.append("last")], [fail, lambda: done.append("a")]):
        with pytest.raises(ValueError, match="no"):
            run_beside(calls)
    assert sorted(done) == ["a", "first", "last"]


def test_threads_are_used_again() -> None:
    seen: set[int] = set()
    for _ in range(5):
        run_beside([lambda: seen.add(threading.get_ident())] * 3)
        with pytest.raises(ZeroDivisionError):
            run_beside([int, int, lambda: 1 // 0])
    assert len(seen) <= 3
    assert threading.get_ident() in seen


def test_what_runs_beside_may_divide_its_own_work() -> None:
    done: list[int] = []

    def call(depth: int) -> None:
        done.append(depth)
        if depth:
            run_beside([partial(call, depth - 1)] * 2)

    call(3)
    assert sorted(done) == [0] * 8 + [1] * 4 + [2] * 2 + [3]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork")
@pytest.mark.filterwarnings("ignore:.*use of fork.*:DeprecationWarning")
def test_a_forked_process_has_threads_of_its_own() -> None:
    run_beside([int, int])
    child = os.fork()
    if child == 0:
        done: list[int] = []
        run_beside([lambda: done.append(1), lambda: done.append(2)])
        os._exit(0 if sorted(done) == [1, 2] else 1)
    for _ in range(200):
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            break
        time.sleep(0.05)
    else:
        os.kill(child, signal.SIGKILL)
        pytest.fail("the child waits for a thread that it does not have")
    assert status == 0


def test_the_work_of_a_step_is_near_the_products_of_its_equations() -> None:
    plan = build(loaded("lstm", **SIZES | {"hidden_size": 64}, trials=1, batch_size=1)).problem.plans[0]
    found = work_of(plan.forward, Arrays(4, 16, np.dtype(np.float64)))
    assert 4 * 64 * 64 * 4 * 16 < found < 2 * 4 * 64 * 64 * 4 * 16


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("level", table.LEVELS)
def test_a_matrix_is_packed_once_for_programs_on_other_columns(level: str, dtype: type[Any]) -> None:
    rng = np.random.default_rng(3)
    matrix = rng.random((1, 1, 20, 30)).astype(dtype)
    vectors = rng.random((4, 1, 30, 48)).astype(dtype)
    out = np.zeros((4, 1, 20, 48), dtype)

    def of_columns(start: int, stop: int, **lender: table.Program) -> table.Program:
        args = table.Operand(matrix), table.Operand(vectors[..., start:stop])
        return table.Program(dtype, [table.Call("product", args, table.Operand(out[..., start:stop]))], level, **lender)

    one, two = of_columns(0, 16), of_columns(47, 48)
    three = of_columns(16, 47, lender=one)
    whole = [one, three, two, of_columns(47, 48, lender=three)]
    for matrix_is_new in (False, True):
        if matrix_is_new:
            matrix[...] = rng.random(matrix.shape)
            for program_ in whole:
                program_.pack()
        out[...] = np.nan
        for program_ in whole:
            program_.run(0, 4, False)
        np.testing.assert_allclose(out, matrix @ vectors, rtol=100 * np.finfo(dtype).eps)
    # A lender that is gone leaves what it has lent.
    del one
    whole.clear()
    out[...] = np.nan
    three.run(0, 4, False)
    assert np.isfinite(out[..., 16:47]).all()
    matrix[...] = 0.0
    three.pack()
    three.run(0, 4, False)
    assert out[..., 16:47].any(), "it is its lender that reads the matrix"


def test_a_lender_is_a_program() -> None:
    with pytest.raises(TypeError, match="a lender is a program"):
        table._interpreter.Program("d", [], None, 1)
