"""How many threads compute: those of NumPy's linear algebra library (BLAS), and of the compiled interpreter.

BLAS has one, except where the products are large, as its threads meet at every product. The interpreter divides what
has nothing to do with each other, trials and sequences, and takes all there are where a run is worth it.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Any

from gradcli.errors import UsageError

if TYPE_CHECKING:
    from threadpoolctl import ThreadpoolController

    from gradcli.engine.problem import Problem
    from gradcli.engine.step.plan import LayerPlan

#: Read by the BLAS libraries that NumPy may come with, once, when it is imported.
BLAS_VARIABLES = ("OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "OMP_NUM_THREADS")

#: Multiplications in one product from which it is worth more than one thread: H = 256 at B = 32, or H = 1024 at B = 1.
#: Measured in float64 with OpenBLAS 0.3.31 on two cores, an LSTM's stacked product takes, on one thread and on two:
#:
#:     rows x inner x columns      one, us   two, us
#:      512 x  128 x  32  (2^21)        82        60
#:     1024 x  256 x  16  (2^22)       257       147
#:     1024 x  256 x  32  (2^23)       401       225
#:     2048 x  512 x  64  (2^26)      2819      1521
#:     2048 x  512 x   1  (2^20)       264       137
#:     4096 x 1024 x   1  (2^22)      1144       574
#:
#: Smaller ones gain as well while every core is idle. But the threads wait for each other at the end of every product:
#: where another program holds one of the cores, each product takes a slice of the scheduler's time, about 8 ms however
#: small it is. At 2^21 that was a factor of 90, at 2^26 one of 2.
_WORTH_THREADS = 2**23
#: Products of this kind do not keep more threads than these busy.
_MOST_THREADS = 8

#: The variables that gradcli has set itself.
_set_here: set[str] = set()


def start_with_one_thread() -> None:
    """Have BLAS start with one thread, unless a variable of the environment says how many; before NumPy's import."""
    if not any(name in os.environ for name in BLAS_VARIABLES):
        os.environ.update(dict.fromkeys(BLAS_VARIABLES, "1"))
        _set_here.update(BLAS_VARIABLES)


def threads_of_environment() -> int | None:
    """Return how many threads the user's environment gives BLAS; None where it says nothing, one where no number.

    Of several numbers, one for each level of nested regions as OpenMP has it, it is the first.
    """
    given = [os.environ[name] for name in BLAS_VARIABLES if name in os.environ and name not in _set_here]
    if not given:
        return None
    first = given[0].partition(",")[0].strip()
    return max(1, int(first)) if first.isascii() and first.isdigit() else 1


def worthwhile_threads(products: Iterable[tuple[int, int, int]], cpus: int) -> int:
    """Return how many threads matrix products of these sizes, (rows, inner, columns), are worth.

    >>> worthwhile_threads([(256, 64, 16)], cpus=4)
    1
    >>> worthwhile_threads([(256, 64, 16), (1024, 256, 32)], cpus=4)
    4
    """
    # A matrix times a vector takes as long as times two: reading the matrix is what takes the time.
    largest = max((rows * inner * max(columns, 2) for rows, inner, columns in products), default=0)
    return min(cpus, _MOST_THREADS) if largest >= _WORTH_THREADS else 1


def recurrent_products(plans: Sequence[LayerPlan], batch_size: int) -> list[tuple[int, int, int]]:
    """Return the sizes (rows, inner, columns) of the products that every step computes, one after the other."""
    return [(s.rows, plan.size(s.group.vector), batch_size) for plan in plans for s in plan.layout.stacks]


def usable_cpus() -> int:
    """Return the number of processors that this process may use; in a container, of its share."""
    cpus = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(cpus, _cpus_of_container()))


def _cpus_of_container(folder: Path = Path("/sys/fs/cgroup")) -> int:
    """Return how many processors' time the control group (version 2) grants, rounded down; no limit without one."""
    try:
        quota, period = (folder / "cpu.max").read_text().split()
        return int(quota) // int(period)  # the quota is "max" where there is none
    except (OSError, ValueError):
        return 2**31


@contextmanager
def computing_threads(asked: int | None, problem: Problem | None = None) -> Iterator[None]:
    """Have BLAS and the compiled interpreter compute on as many threads as suits while the block runs.

    The number is the one asked for with --threads; else the one that the user's environment gave BLAS at the start;
    else, for BLAS, what the problem's products are worth, or one while no problem is known, and for the interpreter as
    many as there are processors, which it takes where a run is worth them.

    Raises:
        UsageError: a number was asked for, and NumPy's BLAS is none whose threads can be set.
    """
    from gradcli.engine.threads import ALLOWED  # part of the engine, which not every command needs

    allowed = ALLOWED.set(asked or threads_of_environment() or min(usable_cpus(), _MOST_THREADS))
    try:
        with _blas_threads(asked, problem):
            yield
    finally:
        ALLOWED.reset(allowed)


@contextmanager
def _blas_threads(asked: int | None, problem: Problem | None) -> Iterator[None]:
    count = asked
    if count is None:
        if problem is None or threads_of_environment() is not None:
            yield
            return
        count = worthwhile_threads(recurrent_products(problem.plans, problem.batch_size), usable_cpus())
    if count == 1 and _set_here:  # as at the start: small runs do not wait for an import
        yield
        return
    import numpy as np  # noqa: F401  only a library that is loaded can be found
    from threadpoolctl import ThreadpoolController

    found = ThreadpoolController().select(user_api="blas")
    if asked is not None and not found.lib_controllers:
        raise UsageError(
            "--threads: NumPy computes here with a linear algebra library whose threads cannot be set; leave it out"
        )
    with _limits.set(found, count):
        yield


class _Limits:
    """The number of threads of BLAS, which is one for the whole process, set by blocks within and beside each other.

    The latest block that still runs has its way; the last one to end leaves BLAS as the first one found it.
    """

    def __init__(self) -> None:
        self._lock = Lock()
        self._running: dict[object, int] = {}
        self._found: Any = None

    @contextmanager
    def set(self, controller: ThreadpoolController, count: int) -> Iterator[None]:
        block = object()
        with self._lock:
            limits = controller.limit(limits=count)
            if not self._running:
                self._found = limits
            self._running[block] = count
        try:
            yield
        finally:
            with self._lock:
                del self._running[block]
                if self._running:
                    controller.limit(limits=list(self._running.values())[-1])
                else:
                    self._found.restore_original_limits()


_limits = _Limits()
