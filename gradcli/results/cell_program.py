"""A built-in cell's step as the engine runs it."""

from __future__ import annotations

from collections.abc import Sequence

from gradcli import cells
from gradcli.engine.step.listing import listing
from gradcli.engine.step.plan import LayerPlan
from gradcli.errors import UsageError
from gradcli.frozen import frozen
from gradcli.results.cells import parsed_cell
from gradcli.results.declared import key
from gradcli.results.model import Block, Line, Report, Verbatim
from gradcli.results.result import Result
from gradcli.spec import defaults


@frozen(kw_only=True)
class ProgramPart:
    """Instructions that are run one after the other."""

    when: str = key("when they are run")
    instructions: Sequence[str] = key("the instructions: what is written, and from what")


@frozen(kw_only=True, repr=False)
class CellProgram(Result):
    """One built-in cell as a program."""

    command = "cells"

    name: str = key("its name")
    hidden_size: int = key("the units that it has here")
    input_size: int = key("the features of its input")
    program: Sequence[ProgramPart] = key("what a step computes, in parts")


def cell_program(name: str) -> CellProgram:
    """Return what a step of a built-in cell computes, for one trial, at the sizes that a spec has by default.

    Raises UsageError if no cell has this name.
    """
    known = cells.find(name)
    if known is None:
        raise UsageError(cells.unknown(name))
    block = cells.load(known).cell
    hidden, inputs = defaults.HIDDEN_SIZE, defaults.HIDDEN_SIZE if block.tied is False else defaults.INPUT_SIZE
    plan = LayerPlan(parsed_cell(block).at_sizes(hidden, inputs))
    parts = [
        ProgramPart(when=when, instructions=[f"{out} = {expression}" for out, expression in lines])
        for when, lines in listing(plan)
    ]
    groups: list[list[Block]] = [[Line(f"a step of {known}, with {hidden} hidden units", style="title")]]
    for when, lines in listing(plan):
        width = max(len(out) for out, _ in lines)
        text = "\n".join(f"{out.ljust(width)} = {expression}" for out, expression in lines)
        groups.append([Line(when, style="dim"), Verbatim(text)])
    return CellProgram(name=known, hidden_size=hidden, input_size=inputs, program=parts, shown=Report("cells", groups))
