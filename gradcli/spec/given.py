"""Arrays that Python gives in the place of a file, or of numbers, in a spec: they stay the arrays that they are."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from gradcli.errors import Problem
from gradcli.frozen import frozen
from gradcli.spec.positions import Positions
from gradcli.spec.shown import Path, shown
from gradcli.spec.value_readers import Place, Reader, WrongError, reader_of

_KEY = "given"


class Given:
    """An array, and what messages call it.

    It goes through the models of a spec as it is: a sequence of 100,000 steps is no list of numbers. No file can hold
    one; of a spec that is written out, its shape is left.

    Args:
        name: the argument that gave it, such as "inputs".
        values: a NumPy array, of any dtype. It must not change any more.
    """

    def __init__(self, name: str, values: Any) -> None:
        self.name, self.values = name, values

    def __str__(self) -> str:
        return self.name

    def __repr__(self) -> str:
        return f"{self.name} of shape {self.values.shape}"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Given) and self.name == other.name and self.values is other.values

    def __hash__(self) -> int:
        return hash((self.name, id(self.values)))

    def written(self, *, for_json: bool) -> Any:
        """Return what stands for it in a spec that is written out: itself, and in JSON its shape."""
        return {_KEY: list(self.values.shape)} if for_json else self


class OrGiven:
    """Marks a field that takes an array from Python as well: what may stand there in a file is `written`."""

    def __init__(self, written: Any) -> None:
        self.written_kind = written

    def reader(self, inner: Callable[[], Reader]) -> Reader:
        read = reader_of(self.written_kind)

        def unless_given(value: Any, place: Place) -> Any:
            if isinstance(value, Given):
                return value
            if isinstance(value, Mapping) and list(value) == [_KEY]:
                raise WrongError("stands for an array that Python gave; give it again, or name a file").at(place)
            return read(value, place)

        return unless_given


@frozen
class Settled:
    """A size that an array settles: the field of the spec, and where from in words, as in "inputs has 50 steps"."""

    field: str
    size: int
    words: str
    name: str


class GivenArrays:
    """The arrays of a run that take the place of what its spec says, and the sizes that they settle."""

    def __init__(self) -> None:
        self._placed: list[tuple[Path, str, Any]] = []
        self._sizes: list[Settled] = []

    def put(self, path: Path, name: str, value: Any) -> None:
        """Have a field, or an entry of a table, be `value`, in which there is the array of this name."""
        self._placed.append((path, name, value))

    def settle(self, sizes: Iterable[Settled]) -> None:
        """Have fields of the spec be the sizes of an array."""
        self._sizes += sizes

    def apply(self, data: dict[str, Any], positions: Positions) -> None:
        """Put the arrays in place in the plain data of a spec."""
        for path, name, value in self._placed:
            table: Any = data
            for key in path[:-1]:
                table[key] = dict(table[key]) if isinstance(table.get(key), Mapping) else {}
                table = table[key]
            table.pop(path[-1], None)  # of the names that match a parameter the last one wins
            table[path[-1]] = value
            positions.override(path, name)
            if isinstance(value, Mapping):
                for key, entry in value.items():
                    if isinstance(entry, Given):
                        positions.override((*path, key), name)

    def apply_sizes(self, data: dict[str, Any], positions: Positions) -> list[Problem]:
        """Put the sizes in place; return where the spec says otherwise."""
        problems = []
        for settled in self._sizes:
            said = data.setdefault(settled.field, settled.size)
            if said != settled.size:
                message = f"{settled.field} is {shown(said)}, but {settled.words}"
                problems.append(positions.problem((settled.field,), message))
            elif positions.place((settled.field,)) is None and positions.option_of((settled.field,)) is None:
                positions.override((settled.field,), settled.name)
        return problems
