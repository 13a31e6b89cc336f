"""Which executor runs a program: the compiled interpreter where there is one, else NumPy.

Both run the same instructions. One that the compiled interpreter does not know leaves its whole program to NumPy.
``GRADCLI_ENGINE=numpy`` in the environment leaves everything to it.
"""

from __future__ import annotations

import os

from gradcli.engine.arrays import Array, Arrays
from gradcli.engine.compiled import table
from gradcli.engine.compiled.program import CompiledProgram, knows
from gradcli.engine.numpy_loops import CopiedProgram, NumpyProgram
from gradcli.engine.scaled import log2_norm
from gradcli.engine.step.instructions import Instructions
from gradcli.errors import UsageError

#: Names the executor that is wanted.
VARIABLE = "GRADCLI_ENGINE"
COMPILED, NUMPY = "compiled", "numpy"

Program = NumpyProgram | CopiedProgram | CompiledProgram


def wanted() -> str:
    """Return which executor is to run what both can run.

    Raises:
        UsageError: the environment asks for one that is not there.
    """
    asked = os.environ.get(VARIABLE, "")
    if asked not in ("", COMPILED, NUMPY):
        raise UsageError(f"{VARIABLE}={asked}: no such engine; write {COMPILED} or {NUMPY}, or leave it unset")
    if asked == COMPILED and table.WHY_NOT is not None:
        raise UsageError(f"{VARIABLE}={asked}: there is none: {table.WHY_NOT}; write {NUMPY}, or leave it unset")
    return asked or (COMPILED if table.AVAILABLE else NUMPY)


def log2_norms(values: Array) -> Array:
    """Return log2 of the norms of vectors, (n, R, size, B) -> (n, R, B); see `gradcli.engine.scaled.log2_norm`."""
    return table.log2_norms(values) if wanted() == COMPILED else log2_norm(values, axis=2)


def program(instructions: Instructions, arrays: Arrays, *, whole: bool = False, copied: int | None = None) -> Program:
    """Return instructions as a program that runs.

    Args:
        whole: whether NumPy may take all steps that run together at once: none needs what another computes.
        copied: for how many steps NumPy has arrays of its own, see `CopiedProgram`; None where it has none.
    """
    if wanted() == COMPILED and knows(instructions):
        return CompiledProgram(instructions, arrays)
    if copied is not None:
        return CopiedProgram(instructions, arrays, copied)
    return NumpyProgram(instructions, arrays, whole=whole)
