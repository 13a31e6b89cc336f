"""Where each value of a spec was written: in its file, or in an option of the command line."""

from __future__ import annotations

from collections.abc import Iterator

from gradcli.errors import Problem
from gradcli.spec.shown import Path, dotted
from gradcli.spec.yaml12 import Document, Place

SET = "--set"


def _upwards(path: Path) -> Iterator[Path]:
    """Yield a path and its ancestors, the nearest first."""
    for length in range(len(path), -1, -1):
        yield path[:length]


class Positions:
    """The places of a spec's keys and values.

    source: the file as messages name it. document: what was read from it; None where no file was.
    """

    def __init__(self, source: str, document: Document | None) -> None:
        self.source = source
        self.document = document
        self._overridden: dict[Path, str] = {}
        self._arguments: dict[Path, str] = {}

    def copy(self) -> Positions:
        """Return the same places, to which more options may be noted."""
        twin = Positions(self.source, self.document)
        twin._overridden, twin._arguments = dict(self._overridden), dict(self._arguments)
        return twin

    def override(self, path: Path, label: str, argument: str = "") -> None:
        """Note that the value at `path`, with all below it, now comes from the option `label`.

        Args:
            argument: of the option, as the command line takes it; "" where it takes none that could be written again.
        """
        for older in [older for older in self._overridden if older[: len(path)] == path]:
            del self._overridden[older]
            self._arguments.pop(older, None)
        self._overridden[path] = label
        if argument:
            self._arguments[path] = argument

    def options(self) -> list[str]:
        """Return the options that change the spec, in the order in which they were given: "-T", "50", "--set" ..."""
        found = []
        for path, argument in self._arguments.items():
            label = self._overridden[path]
            found += [SET if label.startswith(SET) else label, argument]
        return found

    def option_of(self, path: Path) -> str | None:
        """Return the option that the value at `path` comes from, None where it comes from the file."""
        nearest = self._option_path(path)
        return None if nearest is None else self._overridden[nearest]

    def _option_path(self, path: Path) -> Path | None:
        return next((one for one in _upwards(path) if one in self._overridden), None)

    def is_kind_written(self, field: str) -> bool:
        """Tell whether the kind of a block such as the loss stands in the file or in an option."""
        in_file = self.document is not None and (field,) in self.document.keys
        return in_file or any(path in self._overridden for path in ((field,), (field, "kind")))

    def place(self, path: Path, at_key: bool = False) -> Place | None:
        """Return the place in the file of the value (or key) at `path`, else of its nearest ancestor."""
        if self.document is None:
            return None
        if at_key and path in self.document.keys:
            return self.document.keys[path]
        return next((self.document.values[one] for one in _upwards(path) if one in self.document.values), None)

    def problem(self, path: Path, message: str, at_key: bool = False) -> Problem:
        """Return the problem of the value (or key) at `path`."""
        option = self.option_of(path)
        if option is not None:
            # An option of its own names its field already.
            trail = "" if path == self._option_path(path) and not option.startswith(SET) else dotted(path)
            return Problem(option, 0, 0, trail, message)
        line, column = self.place(path, at_key) or (0, 0)
        return Problem(self.source, line, column, dotted(path), message)

    def mistakes(self) -> list[Problem]:
        """Return what was wrong with the text of the file although it could be read."""
        found = self.document.mistakes if self.document is not None else ()
        return [Problem(self.source, *mistake.place, dotted(mistake.path), mistake.message) for mistake in found]
