"""Where the time of one run goes: the engine's loops once more, with a timer around every call in them.

A compiled loop carries its own source. From it a twin is made that reads the clock before and after each line; what
reading the clock costs is measured, and taken off.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack
from enum import StrEnum
from time import perf_counter
from types import FunctionType
from typing import Any, cast
from unittest.mock import patch

from gradcli.engine.numpy_loops import CopiedProgram, NumpyProgram
from gradcli.engine.problem import Run
from gradcli.engine.run import Engine

Seconds = dict["Part", float]


class Part(StrEnum):
    """What a run does."""

    FORWARD_PRODUCTS = "products forward"
    BACKWARD_PRODUCTS = "products backward"
    FUNCTIONS = "exp, tanh, ..."
    FORWARD_ARITHMETIC = "arithmetic forward"
    BACKWARD_ARITHMETIC = "arithmetic backward"
    COEFFICIENTS = "coefficients"
    ADDENDS = "input product"
    REST = "rest"


_PARTS = tuple(Part)
_PRODUCTS = frozenset({"dot", "matmul"})
_ARITHMETIC = frozenset({"add", "subtract", "multiply", "divide", "negative", "reciprocal", "copyto"})

#: A line of a loop that is one call: `p1.dot(v0, p0)`, `add(p0, v1, p0)`.
_CALL = re.compile(r"(?P<indent>\s+)(?:\w+\.)?(?P<function>\w+)\(.*\)")


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
        self.seconds = [0.0] * len(_PARTS)
        self.calls = [0] * len(_PARTS)

    def clear(self) -> None:
        self.seconds[:] = [0.0] * len(_PARTS)
        self.calls[:] = [0] * len(_PARTS)

    def whole(self, function: Callable[..., None], part: Part) -> Callable[..., None]:
        """Return a function with one timer around all that it does."""
        index = _PARTS.index(part)

        def timed(*args: Any) -> None:
            begin = perf_counter()
            function(*args)
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
            index = _PARTS.index(part_of(found["function"]))
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
    """Runs an engine with a timer around every call of its loops, each time for the norms alone.

    runs: the seconds of each part, one entry a run. They add up to the run's time without that of the timers.
    """

    def __init__(self, engine: Engine) -> None:
        self.runs: list[Seconds] = []
        self._engine = engine
        self._timers = timers = _Timers()
        self._inside, self._around = timer_seconds()
        engine.run(parameters=False)  # makes the groups of trials and their backward passes
        self._twins: list[tuple[object, str, object]] = []
        for group in engine._groups.values():
            for layer in group.layers:
                forward = layer.loop.program if isinstance(layer.loop, CopiedProgram) else layer.loop
                self._twins += [
                    (forward, "loop", timers.each_call(forward, _part_forward)),
                    (layer, "fill", timers.whole(layer.fill, Part.ADDENDS)),
                ]
            for backward in group.passes(parameters=False, clipped=False):
                coefficients = backward.coefficients
                self._twins += [
                    (backward.step, "loop", timers.each_call(backward.step, _part_backward)),
                    (coefficients, "loop", timers.whole(coefficients.loop, Part.COEFFICIENTS)),
                ]

    @property
    def calls(self) -> dict[Part, int]:
        """How many calls of each part the last run has timed."""
        return dict(zip(_PARTS, self._timers.calls, strict=True))

    def run(self) -> Run:
        """Run once and add to `runs`; return what the engine returns."""
        timers = self._timers
        timers.clear()
        with ExitStack() as twins_in_place:
            for owner, name, twin in self._twins:
                twins_in_place.enter_context(patch.object(owner, name, twin))
            begin = perf_counter()
            found = self._engine.run(parameters=False)
            seconds = perf_counter() - begin
        total = seconds - sum(timers.calls) * self._around
        parts = {
            part: seconds - calls * self._inside
            for part, seconds, calls in zip(_PARTS, timers.seconds, timers.calls, strict=True)
        }
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
