"""Ctrl-C within a second, whatever NumPy is at.

Python acts on a signal between two instructions of the main thread, and to it the factorisation of a large matrix is
one instruction that takes minutes. So a thread watches as well: when the main thread has not come to an end soon after
the signal, it tidies up and ends the process. It can do so because NumPy lets other threads run during long work.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NoReturn

from gradcli.errors import ENDED_BY
from gradcli.output_files import act_now

#: How long the main thread may take to unwind.
_GRACE_SECONDS = 0.5
_STOP = 0  # no signal has this number


@contextmanager
def answering_interrupts() -> Iterator[None]:
    """Have the signals of `ENDED_BY` end the process within a second while the block runs; a second one at once.

    On Windows, and outside the main thread, signals are left to Python alone.
    """
    if os.name == "nt" or threading.current_thread() is not threading.main_thread():
        yield
        return
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    watcher = threading.Thread(target=_watch, args=(reading,), name="interrupts", daemon=True)
    previous = signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
    watcher.start()
    try:
        yield
    finally:
        signal.set_wakeup_fd(previous)
        os.write(writing, bytes([_STOP]))
        watcher.join()
        os.close(reading)
        os.close(writing)


def _watch(pipe: int) -> None:
    """Read the numbers of signals; end the process when the first one had no effect in time, or at a second."""
    import select

    code: int | None = None
    deadline = 0.0
    while True:
        patience = None if code is None else max(0.0, deadline - time.monotonic())
        arrived = bool(select.select([pipe], [], [], patience)[0])
        number = os.read(pipe, 1)[0] if arrived else None
        if number == _STOP:
            return
        if code is not None and (number is None or number in ENDED_BY):
            _end(code)
        if number in ENDED_BY:
            code, deadline = ENDED_BY[number], time.monotonic() + _GRACE_SECONDS


def _end(code: int) -> NoReturn:
    act_now()
    os._exit(code)
