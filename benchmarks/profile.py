"""Where the time of one run goes, of either engine.

The compiled engine runs a program in one call: a timer is around each. NumPy's loops carry their own source: of it a
twin is made that reads the clock before and after each line; what reading the clock costs is measured, and taken off.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from enum import StrEnum
from time import perf_counter
from types import FunctionType
from typing import Any, cast
from unittest.mock import patch

from benchmarks.engines import COMPILED, NUMPY, use
from gradcli.engine.backward import BackwardPass
from gradcli.engine.compiled.program import CompiledProgram
from gradcli.engine.executor import Program
from gradcli.engine.layer import Layer
from gradcli.engine.numpy_loops import CopiedProgram, NumpyProgram
from gradcli.engine.problem import Run
from gradcli.engine.run import Engine

Seconds = dict["Part", float]


class Part(StrEnum):
    """What a run does."""

    FORWARD = "forward"
    BACKWARD = "backward"
    FORWARD_PRODUCTS = "products forward"
    BACKWARD_PRODUCTS = "products backward"
    FUNCTIONS = "exp, tanh, ..."
    FORWARD_ARITHMETIC = "arithmetic forward"
    BACKWARD_ARITHMETIC = "arithmetic backward"
    COEFFICIENTS = "coefficients"
    ADDENDS = "input product"
    REST = "rest"


#: What each engine's run is taken apart into.
PARTS: dict[str, tuple[Part, ...]] = {
    COMPILED: (Part.FORWARD, Part.COEFFICIENTS, Part.BACKWARD, Part.ADDENDS, Part.REST),
    NUMPY: tuple(part for part in Part if part not in (Part.FORWARD, Part.BACKWARD)),
}
_INDEX = {part: index for index, part in enumerate(Part)}
_PRODUCTS = frozenset({"dot", "matmul"})
_ARITHMETIC = frozenset({"add", "subtract", "multiply", "divide", "negative", "reciprocal", "copyto"})

#: A line of a loop that is one call: `p1.dot(v0, p0)`, `add(p0, v1, p0)`.
_CALL = re.compile(r"(?P<indent>\s+)(?:\w+\.)?(?P<function>\w+)\(.*\)")

#: An object, the name of one of its functions, and what is to take its place.
_Twin = tuple[object, str, object]


def _part_forward(function: str) -> Part:
    if function in _PRODUCTS:
        return Part.FORWARD_PRODUCTS
    return Part.FORWARD_ARITHMETIC if function in _ARITHMETIC else Part.FUNCTIONS


def _part_backward(function: str) -> Part:
    if function in _PRODUCTS:
        return Part.BACKWARD_PRODUCTS
    return Part.BACKWARD_ARITHMETIC if function in _ARITHMETIC else Part.FUNCTIONS


class _Timers:
    """Adds up the seconds of each part, and how many calls were timed for it."""

    def __init__(self) -> None:
        self.seconds = [0.0] * len(_INDEX)
        self.calls = [0] * len(_INDEX)

    def clear(self) -> None:
        self.seconds[:] = [0.0] * len(_INDEX)
        self.calls[:] = [0] * len(_INDEX)

    def whole(self, function: Callable[..., None], part: Part) -> Callable[..., None]:
        """Return a function with one timer around all that it does."""
        index = _INDEX[part]

        def timed(*args: Any, **named: Any) -> None:
            begin = perf_counter()
            function(*args, **named)
            self.seconds[index] += perf_counter() - begin
            self.calls[index] += 1

        return timed

    def each_call(self, program: NumpyProgram, part_of: Callable[[str], Part]) -> Callable[[Any, Any], None]:
        """Return the twin of a program's loop over steps, with a timer around every call in it."""
        lines: list[str] = []
        calls: Counter[int] = Counter()
        for line in program.source.splitlines():
            found = _CALL.fullmatch(line)
            if found is None:
                lines.append(line)
                continue
            index = _INDEX[part_of(found["function"])]
            calls[index] += 1
            lines += _with_timer(line, found["indent"], index)
        # The loop's own globals are the functions that its calls name.
        run = _compiled(lines, cast(FunctionType, program.loop).__globals__, self.seconds)

        def counted(columns: Any, fixed: Any) -> None:
            run(columns, fixed)
            for index, count in calls.items():
                self.calls[index] += count * len(columns[0])

        return counted


def _with_timer(line: str, indent: str, index: int) -> list[str]:
    return [f"{indent}begin = clock()", line, f"{indent}seconds[{index}] += clock() - begin"]


def _compiled(lines: list[str], names: dict[str, Any], seconds: list[float]) -> Callable[[Any, Any], None]:
    namespace = {**names, "clock": perf_counter, "seconds": seconds}
    exec(compile("\n".join(lines), "<timed loop>", "exec"), namespace)  # the engine's own text, and timers
    return cast(Callable[[Any, Any], None], namespace["run"])


class Profiler:
    """Runs an engine with timers, each time for the norms alone.

    A program is timed by the executor that it has, and the run is taken apart as `PARTS` has it for the engine.

    Args:
        engine: a problem that is run. name: the engine that it was made for.

    Attributes:
        runs: the seconds of each part, one entry a run. They add up to the run's time without that of the timers.
    """

    def __init__(self, engine: Engine, name: str) -> None:
        self.runs: list[Seconds] = []
        self.parts = PARTS[name]
        self._engine, self._name = engine, name
        self._timers = _Timers()
        self._inside, self._around = timer_seconds()
        use(name)
        engine.run(parameters=False)  # makes the groups of trials and their backward passes
        self._twins: list[_Twin] = []
        for group in engine._groups.values():
            for layer in group.layers:
                self._twins += self._of_layer(layer)
            for backward in group.passes(parameters=False):
                self._twins += self._of_backward(backward)

    def _of_layer(self, layer: Layer) -> list[_Twin]:
        fill: _Twin = (layer, "fill", self._timers.whole(layer.fill, Part.ADDENDS))
        return [fill, self._of_program(layer.loop, Part.FORWARD, _part_forward)]

    def _of_backward(self, backward: BackwardPass) -> list[_Twin]:
        coefficients = backward.coefficients
        whole = self._timers.whole(coefficients.run, Part.COEFFICIENTS)
        if isinstance(coefficients, NumpyProgram):  # its views are made outside the loop
            whole = self._timers.whole(coefficients.loop, Part.COEFFICIENTS)
            found: list[_Twin] = [(coefficients, "loop", whole)]
        else:
            found = [(coefficients, "run", whole)]
        steps: Sequence[Program | None] = (backward.step, backward._upward)
        return found + [self._of_program(step, Part.BACKWARD, _part_backward) for step in steps if step is not None]

    def _of_program(self, program: Program, part: Part, part_of: Callable[[str], Part]) -> _Twin:
        """Return the twin of a program that runs step by step.

        Raises:
            ValueError: it is another engine's, which would be taken apart otherwise.
        """
        if program.engine != self._name:
            raise ValueError(f"the {self._name} engine left a program to the {program.engine} engine")
        if isinstance(program, CompiledProgram):
            return program, "run", self._timers.whole(program.run, part)
        loop = program.program if isinstance(program, CopiedProgram) else program
        return loop, "loop", self._timers.each_call(loop, part_of)

    @property
    def calls(self) -> dict[Part, int]:
        """How many calls of each part the last run has timed."""
        return {part: self._timers.calls[_INDEX[part]] for part in self.parts}

    def run(self) -> Run:
        """Run once and add to `runs`; return what the engine returns."""
        timers = self._timers
        timers.clear()
        use(self._name)
        with ExitStack() as twins_in_place:
            for owner, name, twin in self._twins:
                twins_in_place.enter_context(patch.object(owner, name, twin))
            begin = perf_counter()
            found = self._engine.run(parameters=False)
            seconds = perf_counter() - begin
        total = seconds - sum(timers.calls) * self._around
        parts = {part: timers.seconds[_INDEX[part]] - timers.calls[_INDEX[part]] * self._inside for part in self.parts}
        parts[Part.REST] = total - sum(parts.values())
        self.runs.append(parts)
        return found


def timer_seconds(steps: int = 10_000, repeats: int = 5) -> tuple[float, float]:
    """Return what a timer around nothing costs: the seconds that it shows, and those that it takes."""
    head = ["def run(columns, fixed):", "    for [v] in zip(*columns):"]
    seconds = [0.0]
    bare = _compiled([*head, "        pass"], {}, seconds)
    timed = _compiled([*head, *_with_timer("        pass", "        ", 0)], {}, seconds)
    columns = [range(steps)]
    shown, taken = [], []
    for _ in range(repeats):
        seconds[0] = 0.0
        start = perf_counter()
        bare(columns, ())
        middle = perf_counter()
        timed(columns, ())
        end = perf_counter()
        shown.append(seconds[0] / steps)
        taken.append(((end - middle) - (middle - start)) / steps)
    return min(shown), min(taken)
