"""Blocks of data with typed fields, each checked as it is read; all mistakes of a block are found at once.

A block is a class with annotated fields, as for pydantic, which does the same and more but takes longer to be imported
than a small run takes altogether. Nothing is coerced, but for a whole number where a float is asked for.

    class Sine(SpecModel):
        kind: Literal["sine"]
        period: Annotated[float, Field(gt=0)] = 25.0

What a field takes, see `gradcli.spec.value_readers`.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from functools import cache
from typing import (
    Annotated,
    Any,
    ClassVar,
    Literal,
    NamedTuple,
    Self,
    dataclass_transform,
    get_args,
    get_origin,
    get_type_hints,
)

from gradcli.spec.value_readers import Mistake, Place, RefusedError, reader_of, told

#: In the place of the default of a field that must be given.
REQUIRED: Any = ...


class ModelField:
    """A field of a block. annotation: its type without what `Annotated` adds, which is `metadata`."""

    def __init__(self, name: str, hint: Any, default: Any) -> None:
        self.name, self.hint, self.default = name, hint, default
        self.annotation, *metadata = get_args(hint) if get_origin(hint) is Annotated else (hint,)
        self.metadata = tuple(metadata)

    def is_required(self) -> bool:
        """Tell whether it must be given."""
        return self.default is REQUIRED

    def get_default(self) -> Any:
        """Return its default, a list or table of its own."""
        return self.default.copy() if isinstance(self.default, list | dict) else self.default


class _Fields:
    """Gives the fields of a class by name, in their order."""

    def __get__(self, instance: object, owner: type[Any]) -> Mapping[str, ModelField]:
        found: Mapping[str, ModelField] = _fields_of(owner)  # type: ignore[arg-type]
        return found


@cache
def _fields_of(model: type[Any]) -> Mapping[str, ModelField]:
    return {
        name: ModelField(name, hint, getattr(model, name, REQUIRED))
        for name, hint in get_type_hints(model, include_extras=True).items()
        if get_origin(hint) is not ClassVar
    }


class Dump(NamedTuple):
    """How a block is written out. for_json: arrays as their shapes."""

    for_json: bool = False
    exclude_unset: bool = False
    exclude_defaults: bool = False
    exclude_none: bool = False

    def plain(self, value: Any) -> Any:
        """Return a value as plain data."""
        if isinstance(value, SpecModel):
            return value.dumped(self)
        if isinstance(value, dict):
            return {key: self.plain(entry) for key, entry in value.items()}
        if isinstance(value, list):
            return [self.plain(entry) for entry in value]
        written = getattr(value, "written", None)
        return value if written is None else written(for_json=self.for_json)


@dataclass_transform(kw_only_default=True, frozen_default=True)
class SpecModel:
    """A block of the spec: no unknown keys, no coercion, no NaN or infinity, immutable once read."""

    #: Whether keys that are no fields are a mistake.
    CLOSED: ClassVar[bool] = True

    model_fields: ClassVar[Mapping[str, ModelField]] = _Fields()  # type: ignore[assignment]

    def __init__(self, /, **values: Any) -> None:
        self.__dict__.update(self._read_fields(values, Place((), values, type(self))))
        told(Place((), values, type(self)), self.check)

    @classmethod
    def model_validate(cls, data: Any) -> Self:
        """Return data as a block.

        Raises:
            RefusedError: they are none.
        """
        return cls.read(data, Place((), data, cls))

    @classmethod
    def read(cls, value: Any, place: Place) -> Self:
        """Return the value at a place as a block; raises as `model_validate`."""
        if isinstance(value, cls):
            return value
        if not isinstance(value, Mapping):
            raise RefusedError([Mistake("model_type", place)])
        made = cls.__new__(cls)
        made.__dict__.update(cls._read_fields(value, place))
        told(place, made.check)
        return made

    @classmethod
    def _read_fields(cls, value: Mapping[str, Any], place: Place) -> dict[str, Any]:
        value = cls.gathered(value)
        inside = place._replace(owner=cls)
        mistakes, found = [], {}
        for name, field in cls.model_fields.items():
            if name not in value:
                if field.is_required():
                    mistakes.append(Mistake("missing", inside, {"key": name}))
                found[name] = field.get_default()
                continue
            try:
                found[name] = reader_of(field.hint)(value[name], inside.at(name))
            except RefusedError as refused:
                mistakes += refused.mistakes
        if cls.CLOSED:
            mistakes += [Mistake("extra_forbidden", inside.at(key)) for key in value if key not in cls.model_fields]
        if mistakes:
            raise RefusedError(mistakes)
        return found | {"_given": frozenset(value)}

    @classmethod
    def gathered(cls, data: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return data with each field under its own name."""
        return data

    def check(self) -> None:
        """Check fields against each other.

        Raises:
            WrongError: they do not fit.
        """

    @classmethod
    def model_construct(cls, _fields_set: Collection[str] | None = None, **values: Any) -> Self:
        """Return a block of values that need no check, with defaults for the others."""
        made = cls.__new__(cls)
        defaults = {name: field.get_default() for name, field in cls.model_fields.items() if name not in values}
        made.__dict__.update(defaults | values, _given=frozenset(values if _fields_set is None else _fields_set))
        return made

    def model_copy(self, *, update: Mapping[str, Any] = {}) -> Self:
        """Return a copy with other values in some fields, which need no check."""
        made = type(self).__new__(type(self))
        made.__dict__.update(self.__dict__, **update, _given=self.model_fields_set | set(update))
        return made

    @property
    def model_fields_set(self) -> frozenset[str]:
        """The fields that were given."""
        found: frozenset[str] = self.__dict__["_given"]
        return found

    def model_dump(
        self,
        *,
        mode: Literal["python", "json"] = "python",
        include: Collection[str] | None = None,
        exclude: Collection[str] = (),
        exclude_unset: bool = False,
        exclude_defaults: bool = False,
        exclude_none: bool = False,
    ) -> Any:
        """Return it as plain data, in the shortest form in which it may be written.

        Args:
            mode: "json" leaves nothing that JSON has no word for. include, exclude: fields of this block.
            exclude_unset, exclude_defaults, exclude_none: fields of blocks within as well.
        """
        dumped = self.dumped(Dump(mode == "json", exclude_unset, exclude_defaults, exclude_none))
        if include is None and not exclude:
            return dumped
        return {key: value for key, value in dumped.items() if key not in exclude and (not include or key in include)}

    def dumped(self, how: Dump) -> Any:
        """Return it as plain data."""
        found = {}
        for name, field in self.model_fields.items():
            value = getattr(self, name)
            unset = how.exclude_unset and name not in self.model_fields_set
            usual = how.exclude_defaults and not field.is_required() and value == field.default
            if not (unset or usual or (how.exclude_none and value is None)):
                found[name] = how.plain(value)
        return found

    def _values(self) -> tuple[Any, ...]:
        return tuple(getattr(self, name) for name in self.model_fields)

    def __eq__(self, other: object) -> bool:
        return type(other) is type(self) and self._values() == other._values()

    def __hash__(self) -> int:
        return hash((type(self), self._values()))

    def __repr__(self) -> str:
        fields = ", ".join(f"{name}={getattr(self, name)!r}" for name in self.model_fields)
        return f"{type(self).__name__}({fields})"

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError(f"{type(self).__name__} is frozen; model_copy makes another one")
