"""What a contestant is, and whether the library that it needs is there."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]

#: What makes a module importable, where it is not.
_INSTALL = {"torch": "pip install torch", "jax": "pip install jax"}


@dataclass(frozen=True)
class Peer:
    """One contestant, ready to run.

    gives: what it gives. run: one run.
    norms: what a run returned as the norm of dL/ds_t by state, (T+1, B); None where it does not give them.
    compile_seconds: what had to be compiled before the first run, None where nothing had.
    """

    name: str
    gives: str
    run: Callable[[], Any]
    norms: Callable[[Any], dict[str, Array]] | None = None
    compile_seconds: float | None = None


def missing(module: str) -> str | None:
    """Return how to install a module that is not there, and None where it is."""
    return None if find_spec(module) else f"{module}: not installed; {_INSTALL[module]}"
