"""Independent pieces of work in processes of their own, whose results come in order, whatever becomes of one."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager, suppress
from multiprocessing import connection
from typing import TypeVar

Task = TypeVar("Task")
Outcome = TypeVar("Outcome")

#: Waiting is done in such turns, because a signal is only answered between two of them on some systems.
_TURN_SECONDS = 0.5


def run_apart(
    work: Callable[[Task], Outcome],
    tasks: Sequence[Task],
    processes: int,
    *,
    on_done: Callable[[int], None] = lambda count: None,
) -> list[Outcome | None]:
    """Return what `work` makes of each task, in the order of the tasks; None where its process died over it.

    A process that dies takes the pool with it, and nobody can tell over which of the tasks that were under way. So what
    was not finished is done once more, one at a time.

    Args:
        work: a function at the top of a module, as processes are started anew and import it. tasks: that can be
            pickled. processes: how many at once.
        on_done: told how many are done.
    """
    found: dict[int, Outcome] = {}
    with _pool(processes) as pool:
        waiting: dict[Future[Outcome], int] = {}
        with suppress(BrokenProcessPool):
            for index, task in enumerate(tasks):
                waiting[pool.submit(work, task)] = index
        for future in _as_they_come(waiting):
            try:
                found[waiting[future]] = future.result()
            except BrokenProcessPool:
                continue
            on_done(len(found))
    lost: set[int] = set()
    while len(found) + len(lost) < len(tasks):
        with _pool(1) as pool:
            for index, task in enumerate(tasks):
                if index in found or index in lost:
                    continue
                try:
                    (future,) = _as_they_come([pool.submit(work, task)])
                    found[index] = future.result()
                except BrokenProcessPool:
                    lost.add(index)
                    break  # the next ones need a pool that lives
                finally:
                    on_done(len(found) + len(lost))
    return [found.get(index) for index in range(len(tasks))]


def _as_they_come(futures: Sequence[Future[Outcome]] | dict[Future[Outcome], int]) -> Iterator[Future[Outcome]]:
    pending = set(futures)
    while pending:
        done, pending = wait(pending, timeout=_TURN_SECONDS, return_when=FIRST_COMPLETED)
        yield from done


@contextmanager
def _pool(processes: int) -> Iterator[ProcessPoolExecutor]:
    """Give a pool that is gone when the block is, at once if it does not come to its end."""
    before = set(multiprocessing.active_children())
    # A fork would copy the locks of BLAS's threads in whatever state they are.
    pool = ProcessPoolExecutor(processes, multiprocessing.get_context("spawn"), initializer=_begin)
    try:
        yield pool
        pool.shutdown()
    except BaseException:
        pool.shutdown(wait=False, cancel_futures=True)
        for child in set(multiprocessing.active_children()) - before:
            child.kill()
        raise


def _begin() -> None:
    """Leave Ctrl-C, which reaches every process of a terminal, to the one that began; and end when that one does."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, name="parent", daemon=True).start()


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        connection.wait([parent.sentinel])
        os._exit(1)
