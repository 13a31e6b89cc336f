"""Classes of `gradcli.frozen` against frozen dataclasses: what they take, give, and refuse."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from dataclasses import FrozenInstanceError, asdict, dataclass, field, fields, replace
from typing import Any, ClassVar

import pytest

from gradcli.frozen import frozen


@frozen
class Point:
    """A point."""

    kind: ClassVar[str] = "point"

    x: float
    y: float = 0.0
    names: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class DataPoint:
    """The same as a dataclass."""

    kind: ClassVar[str] = "point"

    x: float
    y: float = 0.0
    names: list[str] = field(default_factory=list)


@frozen(kw_only=True)
class Named(Point):
    """A point with a name, which is given by name."""

    name: str


@dataclass(frozen=True, kw_only=True)
class DataNamed(DataPoint):
    """The same as a dataclass."""

    name: str


@frozen(eq=False, repr=False)
class Checked:
    """A number that is checked and is only itself."""

    number: int
    twice: int = field(init=False, default=2)

    def __post_init__(self) -> None:
        if self.number < 0:
            raise ValueError("negative")


def _outcome(make: Callable[[], Any]) -> object:
    try:
        made = make()
    except TypeError:
        return TypeError
    return vars(made), repr(made).replace("Data", "")


CALLS: list[tuple[tuple[Any, ...], dict[str, Any]]] = [
    ((), {}),
    ((1,), {}),
    ((1, 2), {}),
    ((1, 2, ["a"]), {}),
    ((1, 2, [], 4), {}),
    ((1,), {"x": 2}),
    ((1,), {"y": 2}),
    ((), {"y": 2, "x": 1}),
    ((1,), {"z": 2}),
    ((), {"y": 2}),
    ((1,), {"name": "a"}),
    ((1, 2, [], "a"), {}),
    ((1, 2, []), {"name": "a"}),
]


@pytest.mark.parametrize(("given", "named"), CALLS)
@pytest.mark.parametrize(("ours", "theirs"), [(Point, DataPoint), (Named, DataNamed)])
def test_takes_what_a_dataclass_takes(ours: Any, theirs: Any, given: Any, named: Any) -> None:
    assert _outcome(lambda: ours(*given, **named)) == _outcome(lambda: theirs(*given, **named))


def test_equality_and_hash_are_those_of_the_fields() -> None:
    assert Point(1, 2) == Point(1, 2)
    assert Point(1, 2) != Point(2, 1)
    assert Named(1, name="a") != Point(1)
    assert Point(1) != DataPoint(1)
    with pytest.raises(TypeError, match="unhashable"):
        hash(Point(1))
    assert hash(Point(1, 2, ())) == hash(Point(1, 2, ()))  # type: ignore[arg-type]
    one = Checked(1)
    assert one != Checked(1)
    assert hash(one) == object.__hash__(one)
    assert repr(one) == object.__repr__(one)


def test_nothing_can_be_assigned() -> None:
    point = Point(1)
    for name in ("x", "other"):
        with pytest.raises(FrozenInstanceError):
            setattr(point, name, 2)
        with pytest.raises(FrozenInstanceError):
            delattr(point, name)
    assert point == Point(1)


def test_defaults_are_made_anew_and_the_end_is_called() -> None:
    assert Point(1).names is not Point(1).names
    assert Checked(1).twice == 2
    with pytest.raises(ValueError, match="negative"):
        Checked(-1)
    with pytest.raises(TypeError):
        Checked(1, twice=3)  # type: ignore[call-arg]


def test_the_functions_of_dataclasses_and_copies_work() -> None:
    named = Named(1, name="a")
    assert [each.name for each in fields(Named)] == [each.name for each in fields(DataNamed)]
    assert replace(named, y=3) == Named(1, 3, name="a")
    assert asdict(named) == asdict(DataNamed(1, name="a"))
    assert pickle.loads(pickle.dumps(named)) == copy.deepcopy(named) == named
    match named:
        case Point(x, y):
            assert (x, y) == (1, 0.0)
