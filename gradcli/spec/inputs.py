"""The inputs of a run: what x[t] is, and where it comes from."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator
from pydantic_core import PydanticCustomError

from gradcli.spec.base import BareKind, SpecModel
from gradcli.spec.initialisers import Finite, Positive


class ZerosInput(SpecModel):
    """x[t] = 0: the cell left to itself."""

    kind: Literal["zeros"]


class ConstantInput(SpecModel):
    """x[t] = value in every feature."""

    kind: Literal["constant"]
    value: Finite = 1.0


class NormalInput(SpecModel):
    """Independent draws from N(mean, std^2)."""

    kind: Literal["normal"]
    std: Positive = 1.0
    mean: Finite = 0.0


class UniformInput(SpecModel):
    """Independent draws from U(low, high)."""

    kind: Literal["uniform"]
    low: Finite = -1.0
    high: Finite = 1.0

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        if self.low > self.high:
            raise PydanticCustomError(
                "bounds", "low = {low} is above high = {high}", {"low": self.low, "high": self.high}
            )
        return self


class SineInput(SpecModel):
    """x[t] = amplitude sin(2 pi t / period + phase), the phase drawn for every sequence and feature."""

    kind: Literal["sine"]
    period: Positive = 25.0
    amplitude: Positive = 1.0


class OneHotInput(SpecModel):
    """One of input_size symbols at each step, drawn uniformly."""

    kind: Literal["one_hot"]


class FileInput(SpecModel):
    """A series from a .csv (one row a step) or .npy file: (steps, features) or (sequences, steps, features)."""

    kind: Literal["file"]
    path: Annotated[str, Field(min_length=1, max_length=4096)]


class TextInput(SpecModel):
    """Characters of a UTF-8 text as one-hot vectors; input_size is the number of different characters."""

    kind: Literal["text"]
    path: Annotated[str, Field(min_length=1, max_length=4096)]


Input = Annotated[
    Annotated[
        ZerosInput | ConstantInput | NormalInput | UniformInput | SineInput | OneHotInput | FileInput | TextInput,
        Field(discriminator="kind"),
    ],
    BareKind(),
]
