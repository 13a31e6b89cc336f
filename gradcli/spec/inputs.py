"""The inputs of a run: what x[t] is, and where it comes from."""

from __future__ import annotations

from typing import Annotated, Literal

from gradcli.spec.base import BareKind
from gradcli.spec.checked import SpecModel
from gradcli.spec.files import NamesFile
from gradcli.spec.given import Given, OrGiven
from gradcli.spec.initialisers import Finite, Positive
from gradcli.spec.value_readers import Field, Then, WrongError


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

    def check(self) -> None:
        if self.low > self.high:
            raise WrongError(f"low = {self.low} is above high = {self.high}")


class SineInput(SpecModel):
    """x[t] = amplitude sin(2 pi t / period + phase), the phase drawn for every sequence and feature."""

    kind: Literal["sine"]
    period: Positive = 25.0
    amplitude: Positive = 1.0


class OneHotInput(SpecModel):
    """One of input_size symbols at each step, drawn uniformly."""

    kind: Literal["one_hot"]


FilePath = Annotated[
    str, Field(min_length=1, max_length=4096, description="relative to the spec's folder"), NamesFile()
]
PathOrGiven = Annotated[FilePath | Given, OrGiven(FilePath), NamesFile()]
ArrayKey = Annotated[
    str, Field(min_length=1, max_length=256, description="which array of a .npz; not needed where it holds one")
]
MAX_STEPS_IN_FILE = 2**30  # bytes are fewer in any file that is accepted
Count = Annotated[int, Field(ge=1, le=MAX_STEPS_IN_FILE)]
Stride = Count
# The name of an array in the same .npz, the path of a .npy or .csv file, or the numbers themselves.
Lengths = Annotated[str, Field(min_length=1, max_length=4096)] | Annotated[list[Count], Field(min_length=1)]
#: What tells the path of a file of lengths from the name of an array.
LENGTHS_ENDINGS = (".npy", ".csv")
Layout = Annotated[
    Literal["batch_first", "time_first"],
    Field(
        description="which axis of the file comes first: sequences, as unless given, or time_first, PyTorch's default:"
        " (steps, sequences, ...)"
    ),
]
# By the name in a CSV's header, or by its number from 1.
FileColumn = Annotated[str, Field(min_length=1, max_length=256)] | Annotated[int, Field(ge=1, le=1_000_000)]


class FileInput(SpecModel):
    """A series from a .csv (one row a step), .npy or .npz file: (steps, features) or (sequences, steps, features)."""

    kind: Literal["file"]
    path: PathOrGiven
    key: ArrayKey | None = None
    layout: Layout | None = None
    columns: Annotated[
        Annotated[list[FileColumn], Field(min_length=1)] | None,
        Field(description="the features to take, by name in the CSV's header or by number from 1; all unless given"),
    ] = None
    scale: Annotated[
        Finite, Field(description="what every number is multiplied by, as it was in training: 0.0625 for sixteenths")
    ] = 1.0
    standardize: Annotated[
        bool, Field(description="bring each feature to mean 0 and standard deviation 1 over the whole file")
    ] = False
    stride: Annotated[
        Stride | None,
        Field(description="a window of T steps starts every so many rows; evenly spread over the file unless given"),
    ] = None
    reverse: Annotated[bool, Field(description="read each sequence from its end to its start")] = False
    lengths: Annotated[
        Lengths | None,
        Field(description="of sequences padded at their ends: a list, an array of the same .npz, or a .npy or .csv"),
        NamesFile(LENGTHS_ENDINGS),
    ] = None

    def check(self) -> None:
        if self.standardize and self.scale != 1.0:
            raise WrongError("standardize leaves nothing of scale; give one of the two")


def _all_different(alphabet: str | None) -> str | None:
    first: dict[str, int] = {}
    for place, character in enumerate(alphabet or "", start=1):
        if first.setdefault(character, place) != place:
            twice = f"at {first[character]} and {place}"
            raise WrongError(f"the character {character!r} stands in it twice, {twice}")
    return alphabet


class TextInput(SpecModel):
    """Characters of a UTF-8 text as one-hot vectors; input_size is the number of different characters."""

    kind: Literal["text"]
    path: FilePath
    alphabet: Annotated[
        Annotated[str, Field(min_length=1, max_length=65_536)] | None,
        Field(description="all characters that may occur, in the order of the one-hot vector; unless given, sorted"),
        Then(_all_different),
    ] = None
    stride: Annotated[
        Stride | None, Field(description="a window starts every so many characters; evenly spread unless given")
    ] = None


class TokensInput(SpecModel):
    """Token ids from 0, each looked up in the embedding table of the checkpoint under `weights`."""

    kind: Literal["tokens"]
    path: FilePath
    key: ArrayKey | None = None
    layout: Layout | None = None
    embedding: Annotated[
        Annotated[str, Field(min_length=1, max_length=1024)] | None,
        Field(description="the table's name in the checkpoint; not needed where it holds one"),
    ] = None
    stride: Annotated[
        Stride | None, Field(description="a window starts every so many tokens; evenly spread unless given")
    ] = None
    lengths: Annotated[
        Lengths | None,
        Field(description="of sequences padded at their ends: a list, an array of the same .npz, or a .npy or .csv"),
        NamesFile(LENGTHS_ENDINGS),
    ] = None


Input = Annotated[
    Annotated[
        ZerosInput
        | ConstantInput
        | NormalInput
        | UniformInput
        | SineInput
        | OneHotInput
        | FileInput
        | TextInput
        | TokensInput,
        Field(discriminator="kind"),
    ],
    BareKind(),
]
