"""The programs of a cell's step, and how many NumPy functions they call."""

from __future__ import annotations

from collections.abc import Collection

import numpy as np
from measured import loaded

from gradcli.engine.arrays import Arrays
from gradcli.engine.numpy_loops import NumpyProgram
from gradcli.engine.step.backward import Choices
from gradcli.engine.step.instructions import Instructions, buffers_of
from gradcli.engine.step.plan import LayerPlan
from gradcli.prepare.build import build

SIZES = {"hidden_size": 8, "input_size": 6, "batch_size": 2, "trials": 1, "seq_len": 3}


def plan_of(name: str, without: Collection[str] = ()) -> LayerPlan:
    """Return the plan of a built-in cell for one trial, without some optimisations."""
    plan = build(loaded(name, **SIZES)).problem.plans[0]
    return LayerPlan(plan.cell, without=without).windowed


def numpy_calls(instructions: Instructions) -> int:
    """Return how many functions NumPy is called for, for a step."""
    arrays = Arrays(1, 2, np.dtype(np.float64))
    arrays.allocate(buffers_of(instructions), segment=3, block=3)
    source = NumpyProgram(instructions, arrays).source
    return sum("(" in line for line in source.splitlines()[1:] if "zip" not in line)


def calls_of_step(plan: LayerPlan) -> int:
    """Return how many calls a step costs, forward and back for a loss at the last step."""
    return numpy_calls(plan.forward) + numpy_calls(plan.backward(Choices(plan.prefilled)).step)
