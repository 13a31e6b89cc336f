"""Some random programs; many more are tried by hand: see tests/fuzz/fuzz_interpreter.py."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import random_programs
from compiled_programs import NEEDED
from random_programs import Buffer, Call, attempt

pytestmark = NEEDED
Array = np.ndarray[Any, Any]
Generator = np.random.Generator

COMPARISONS = {name: getattr(np, name) for name in ("greater", "greater_equal", "equal")}
#: Operations whose operands are drawn as those of another.
DRAWN_AS = {
    "where": "multiply_add",
    "sum_product": "sum_axis",
    "largest": "sum_axis",
    "cumsum": "softmax",
    "cumsum_reversed": "softmax",
}
draw, by_numpy = random_programs._call, random_programs._by_numpy


def drawn(rng: Generator, buffers: dict[str, list[Buffer]], op: str, steps: int) -> Call | None:
    """Return a random call, of the operations of `DRAWN_AS` too."""
    call = draw(rng, buffers, DRAWN_AS.get(op, op), steps)
    if call is None or op not in DRAWN_AS:
        return call
    call.op = op
    if op == "where" and rng.random() < 0.5:
        call.inputs[0] = replace(call.inputs[0], strides=(0,) * len(call.inputs[0].strides))
    elif op == "sum_product":
        x = call.inputs[0]
        kept = [n if rng.random() < 0.6 else 1 for n in x.shape]
        y = replace(x, shape=tuple(kept)) if x.shape else replace(x)
        call.inputs = [x, y] if rng.random() < 0.5 else [y, x]
    elif op.startswith("cumsum") and rng.random() < 0.4:
        call.inputs[0] = replace(call.outputs[0])
    return call


def by_numpy_too(call: Call, step: int, first: int, matrix: Array | None) -> None:
    """Do a call at one step, of the operations of `DRAWN_AS` too."""
    if call.op not in DRAWN_AS:
        by_numpy(call, step, first, matrix)
        return
    out, *ins = (random_programs._at(operand, step, first) for operand in (*call.outputs, *call.inputs))
    axis = call.axis - 1
    if call.op == "where":
        out[...] = np.where(ins[0] != 0, ins[1], ins[2])
    elif call.op == "largest":
        out[...] = np.maximum.reduce(ins[0], axis=axis, keepdims=True)
    elif call.op == "sum_product":
        terms = max((x.shape[axis] for x in ins if x.ndim), default=1)
        shape = (*out.shape[:axis], terms, *out.shape[axis + 1 :])
        out[...] = np.broadcast_to(ins[0] * ins[1], shape).sum(axis=axis, keepdims=True)
    else:
        x = np.broadcast_to(ins[0], out.shape)
        order = slice(None, None, -1 if call.op == "cumsum_reversed" else 1)
        along = (slice(None),) * axis + (order,)
        out[along] = np.cumsum(x[along], axis=axis)


@pytest.fixture
def all_operations(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have random programs be made of all operations that there are."""
    monkeypatch.setattr(random_programs, "TWO", {**random_programs.TWO, **COMPARISONS})
    monkeypatch.setattr(random_programs, "ALONG_AXIS", (*random_programs.ALONG_AXIS, *DRAWN_AS))
    monkeypatch.setattr(random_programs, "_call", drawn)
    monkeypatch.setattr(random_programs, "_by_numpy", by_numpy_too)


@pytest.mark.parametrize("part", range(4))
@pytest.mark.usefixtures("all_operations")
def test_random_programs_are_refused_or_right(part: int) -> None:
    outcomes = Counter(attempt(np.random.default_rng([1, part, number])) for number in range(400))
    assert outcomes["accepted"] > 180
    assert outcomes["refused"] > 50
