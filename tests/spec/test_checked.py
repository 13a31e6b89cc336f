"""Blocks with typed fields: what a value of each type may be, and which mistake anything else is."""

from __future__ import annotations

import copy
import math
import pickle
from typing import Annotated, Any, Literal

import pytest
from as_read import as_read

from gradcli.spec.checked import REQUIRED, SpecModel
from gradcli.spec.models import Spec, Thresholds
from gradcli.spec.value_readers import Field, RefusedError


class Inner(SpecModel):
    """A block in a block."""

    number: Annotated[float, Field(gt=0)] = 1.0


class Outer(SpecModel):
    """A block."""

    name: str
    inner: Inner = Inner()
    several: list[Inner] = []  # noqa: RUF012
    table: dict[Annotated[str, Field(pattern="^[a-z]+$")], int | None] = {}  # noqa: RUF012
    either: Literal["last"] | Annotated[list[int], Field(min_length=1)] = "last"


def kinds(hint: Any, value: Any) -> list[str]:
    try:
        as_read(hint, value)
    except RefusedError as refused:
        return [mistake.kind for mistake in refused.mistakes]
    return []


@pytest.mark.parametrize(
    ("hint", "good", "bad"),
    [
        (bool, [True, False], [(1, "bool_type"), ("true", "bool_type"), (None, "bool_type")]),
        (int, [0, -1, 10**30], [(True, "int_type"), (1.0, "int_type"), ("1", "int_type")]),
        (
            float,
            [0.5, 2],
            [(True, "float_type"), ("1", "float_type"), (math.inf, "finite_number"), (10**400, "float_type")],
        ),
        (str, ["", "a"], [(1, "string_type"), (None, "string_type")]),
        (Literal["a", 1], ["a", 1], [("b", "literal_error"), (True, "literal_error"), (1.0, "literal_error")]),
        (int | None, [1, None], [("a", "int_type")]),
        (Annotated[int, Field(ge=1, le=3)], [1, 3], [(0, "greater_than_equal"), (4, "less_than_equal")]),
        (Annotated[float, Field(gt=0, lt=1)], [0.5], [(0, "greater_than"), (1, "less_than")]),
        (
            Annotated[str, Field(min_length=1, max_length=2)],
            ["a"],
            [("", "string_too_short"), ("abc", "string_too_long")],
        ),
        (Annotated[str, Field(pattern="^[a-z]+$")], ["ab"], [("ab\n", "string_pattern_mismatch")]),
        (Any, [None, [1, "a"]], []),
    ],
)
def test_values_of_a_type(hint: Any, good: list[Any], bad: list[tuple[Any, str]]) -> None:
    for value in good:
        read = as_read(hint, value)
        assert read == value
        assert type(read) is (float if hint is float else type(value))
    for value, kind in bad:
        assert kinds(hint, value) == [kind]


def test_all_mistakes_of_a_block_are_found_with_their_places() -> None:
    data = {
        "nmae": "a",
        "inner": {"number": 0},
        "several": [{}, {"number": "x"}, 3],
        "table": {"A": 1, "b": "x"},
        "either": [],
    }
    with pytest.raises(RefusedError) as refused:
        Outer.model_validate(data)
    assert {(mistake.kind, mistake.place.path, mistake.at_key) for mistake in refused.value.mistakes} == {
        ("missing", (), False),
        ("extra_forbidden", ("nmae",), False),
        ("greater_than", ("inner", "number"), False),
        ("float_type", ("several", 1, "number"), False),
        ("model_type", ("several", 2), False),
        ("string_pattern_mismatch", ("table", "A"), True),
        ("int_type", ("table", "b"), False),
        ("literal_error", ("either",), False),
        ("too_short", ("either",), False),
    }


def test_what_was_given_is_known_and_defaults_are_its_own() -> None:
    one, other = Outer(name="a"), Outer(name="a")
    assert one == other
    assert one.model_fields_set == {"name"}
    assert one.several is not other.several
    assert one.model_dump(exclude_unset=True) == {"name": "a"}
    assert Outer.model_fields["name"].default is REQUIRED
    changed = one.model_copy(update={"inner": Inner(number=2)})
    assert changed.inner.number == 2.0
    assert changed.model_fields_set == {"name", "inner"}
    assert changed != one
    assert changed.model_dump(exclude_defaults=True) == {"name": "a", "inner": {"number": 2.0}}
    assert pickle.loads(pickle.dumps(changed)) == copy.deepcopy(changed) == changed
    with pytest.raises(AttributeError, match="frozen"):
        one.name = "b"  # type: ignore[misc]


def test_a_constructor_checks_as_reading_does() -> None:
    with pytest.raises(RefusedError):
        Thresholds(vanishing=2.0)
    with pytest.raises(RefusedError):
        Spec(cell="rnn", seq_length=3)  # type: ignore[call-arg]
