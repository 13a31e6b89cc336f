"""A progress bar on standard error for long work, where that is a terminal."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, TextIO

from gradcli.commands.options import FILES
from gradcli.output_files import unless_finished

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

#: Work that ends sooner shows no bar, and does not wait for rich to be imported.
_PATIENCE_SECONDS = 1.0
_REFRESH_SECONDS = 0.1
#: Ends the line of a bar, and shows the cursor that rich has hidden.
_END_OF_BAR = "\n\x1b[?25h"


class Bar:
    """Shows how far a pass over the sequence is; called with (stage, steps or files done, all of them)."""

    def __init__(self, stream: TextIO, patience: float = _PATIENCE_SECONDS) -> None:
        self._stream = stream
        self._due = time.monotonic() + patience
        self._progress: Progress | None = None
        self._task: TaskID | None = None
        self._stage = ""

    def __call__(self, stage: str, done: int, total: int) -> None:
        now = time.monotonic()
        if now < self._due and not (self._progress is not None and done == total):
            return
        self._due = now + _REFRESH_SECONDS
        progress = self._progress or self._start()
        if self._task is None or stage != self._stage:
            if self._task is not None:
                progress.remove_task(self._task)
            unit = "" if stage == FILES else "steps"
            self._task, self._stage = progress.add_task(stage, total=total, unit=unit), stage
        progress.update(self._task, completed=done, refresh=True)

    def _start(self) -> Progress:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        console = Console(file=self._stream)
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[unit]}"),
        )
        self._progress = Progress(*columns, TimeRemainingColumn(), console=console, transient=True, auto_refresh=False)
        self._progress.start()
        return self._progress

    def close(self) -> None:
        """Take the bar off the screen."""
        if self._progress is not None:
            self._progress.stop()
            self._progress = None

    def leave(self) -> None:
        """Leave the bar where it is, and the terminal fit for use: with a cursor, at the beginning of a line."""
        if self._progress is not None:
            self._stream.write(_END_OF_BAR)
            self._stream.flush()


@contextmanager
def progress_bar(quiet: bool) -> Iterator[Bar | None]:
    """Give a bar while the block runs, or None where there is nobody to see it."""
    if quiet or sys.stderr is None or not sys.stderr.isatty():
        yield None
        return
    bar = Bar(sys.stderr)
    with unless_finished(bar.leave):
        try:
            yield bar
        finally:
            bar.close()
