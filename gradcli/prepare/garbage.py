"""Python's search for garbage in cycles: not while a process of gradcli starts, which makes objects that all stay.

A tenth of a small run's time went into looking through them, again and again as there were more.
"""

from __future__ import annotations

import gc

_paused = False


def collect_later() -> None:
    """Have Python look for no garbage until `collect_again`; called where the process is gradcli's own."""
    global _paused
    if gc.isenabled():
        gc.disable()
        _paused = True


def collect_again() -> None:
    """Have Python look for garbage again, where it was put off, but not among all that is there now."""
    global _paused
    if _paused:
        gc.freeze()
        gc.enable()
        _paused = False
