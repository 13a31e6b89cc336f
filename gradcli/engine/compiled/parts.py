"""Parts of a program that run beside each other, each on a thread of its own.

Trials have nothing to do with each other, nor have the columns of a matrix of cotangents, nor sequences unless a
function goes over them: a program on some of them alone gives the same numbers, to the last bit. So the threads meet
once a block of steps, not at every product.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from itertools import pairwise
from math import prod
from threading import Lock, Thread
from typing import NamedTuple

from gradcli.engine.arrays import Array, Arrays
from gradcli.engine.step.instructions import Instructions
from gradcli.language.across import ACROSS

#: Multiplications from which a run, of all its steps, is worth a thread more: about a millisecond.
WORTH_A_THREAD = 2**24
#: What an elementwise operation on a number counts, in multiplications of a product.
_ELEMENTWISE = 16
#: Sequences and columns come in as many as a line of the cache has numbers, or more: no two threads write to one, and
#: none of them has a few columns, whose products are added up in another way.
_LINE = 64


class Part(NamedTuple):
    """Some of the places along one axis of all views: that of trials, 1, or one counted from the end."""

    axis: int
    start: int
    stop: int

    def of(self, view: Array) -> Array:
        """Return this part of a view; all of it, where it is the same for all places."""
        axis = self.axis % view.ndim
        return view if view.shape[axis] == 1 else view[(slice(None),) * axis + (slice(self.start, self.stop),)]


def work_of(instructions: Instructions, arrays: Arrays) -> int:
    """Return about how much a step is, in multiplications of a product."""
    each = arrays.trials * arrays.batch_size * (arrays.columns or 1)
    total = 0
    for op, args, out, _ in instructions:
        total += prod(args[0].shape) if op == "product" else _ELEMENTWISE * prod(out.shape)
    return each * total


def parts_of(instructions: Instructions, arrays: Arrays, threads: int) -> list[Part]:
    """Return the parts for so many threads, about as large as each other; none where nothing can be divided."""
    line = max(1, _LINE // arrays.dtype.itemsize)
    axes = [(1, arrays.trials, 1)]
    if arrays.columns is not None:
        if arrays.batch_size == 1:  # a product takes columns that lie behind each other
            axes.append((-1, arrays.columns, line))
    elif not any(op in ("across", "jacobian") and ACROSS[data[0]].over_sequences for op, _, _, data in instructions):
        axes.append((-1, arrays.batch_size, line))
    found: list[Part] = []
    smallest = 1.0
    for axis, length, unit in axes:
        units = length // unit
        count = max(1, min(threads, units))
        borders = [*(unit * -(-units * i // count) for i in range(count)), length]
        largest = max(stop - start for start, stop in pairwise(borders)) / length
        if largest < smallest:
            found, smallest = [Part(axis, start, stop) for start, stop in pairwise(borders)], largest
    return found


class _Worker:
    """A thread that waits for calls: to wake one takes a tenth of a millisecond, to start one three."""

    def __init__(self) -> None:
        self._begin, self._ended = Lock(), Lock()
        self._begin.acquire()
        self._ended.acquire()
        self._call: Callable[[], object] | None = None
        self._raised: BaseException | None = None
        Thread(target=self._work, name="gradcli", daemon=True).start()

    def begin(self, call: Callable[[], object]) -> None:
        """Have the thread do a call; `end` is to follow."""
        self._call = call
        self._begin.release()

    def end(self) -> None:
        """Wait for the call to end, and raise what it has raised; the thread is idle then."""
        self._ended.acquire()
        raised, self._raised = self._raised, None
        _idle.append(self)
        if raised is not None:
            raise raised

    def _work(self) -> None:
        while True:
            self._begin.acquire()
            try:
                assert self._call is not None
                self._call()
            except BaseException as error:  # told by the thread that waits
                self._raised = error
            self._call = None
            self._ended.release()


#: Workers that have nothing to do. In a process that was forked there is none.
_idle: deque[_Worker] = deque()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_idle.clear)


def run_beside(calls: Sequence[Callable[[], object]]) -> None:
    """Do all calls, the first one in this thread; return, or raise what one of them has raised, when all are done."""
    with ExitStack() as ending:
        for call in calls[1:]:
            try:
                worker = _idle.pop()
            except IndexError:
                worker = _Worker()
            worker.begin(call)
            ending.callback(worker.end)
        calls[0]()
