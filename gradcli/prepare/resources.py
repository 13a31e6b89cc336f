"""What a run may take, and whom it tells of its progress."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager
from typing import Any, Self

from gradcli.engine.problem import Problem, Progress
from gradcli.frozen import frozen
from gradcli.prepare import threads


@frozen
class Resources:
    """What a run may take.

    Args:
        max_memory: bytes; None for half of what is free.
        threads: to compute on; None for as many as a run is worth.
        progress: called now and then while a run is under way.
    """

    max_memory: int | None = None
    threads: int | None = None
    progress: Progress | None = None

    @classmethod
    def of(cls, options: Mapping[str, Any]) -> Self:
        """Return those that are among the options of a command."""
        return cls(options.get("max_memory"), options.get("threads"), options.get("progress"))

    def computing_threads(self, problem: Problem | None = None) -> AbstractContextManager[None]:
        """Compute on the threads that were asked for, or on as many as `problem` is worth, in a block."""
        return threads.computing_threads(self.threads, problem)
