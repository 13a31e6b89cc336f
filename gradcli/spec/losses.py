"""The losses of a run: a number for each sequence, from the output state at the steps `at`."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from gradcli.spec.base import BareKind, Choice, SpecModel, choice_of
from gradcli.spec.initialisers import Exact, NormalState, UniformState, Zeros
from gradcli.spec.inputs import ArrayKey, FilePath, Layout

MAX_SEQ_LEN = 10_000_000
MAX_CLASSES = 1_000_000
DEFAULT_CLASSES = 10  # of a cross-entropy whose target is not the next symbol

ClassNumber = Annotated[int, Field(ge=0, lt=MAX_CLASSES)]
Step = Annotated[int, Field(ge=1, le=MAX_SEQ_LEN)]
At = Literal["last", "every"] | Annotated[list[Step], Field(min_length=1)]


class FileTarget(Choice):
    """Targets from a .npy, .npz or .csv file, one for each sequence or for each of its steps."""

    NAME = "file"
    MAIN = "path"
    path: FilePath
    key: ArrayKey | None = None
    layout: Layout | None = None


Target: Any = choice_of("target", Zeros, NormalState, UniformState, FileTarget, bare=Exact)


class NextSymbol(Choice):
    """The next symbol of the input: the target of a language model."""

    NAME = "next"


class DrawnClass(Choice):
    """A class drawn uniformly for every sequence and step."""

    NAME = "drawn"


class GivenClass(Choice):
    """Given class numbers from 0: one, or one for every step of `at`."""

    NAME = "classes"
    MAIN = "classes"
    classes: ClassNumber | Annotated[list[ClassNumber], Field(min_length=1)]


ClassTarget: Any = choice_of("target", DrawnClass, NextSymbol, FileTarget, bare=GivenClass)


#: In the place of a head's name: a readout drawn like the other parameters, although the checkpoint holds a head.
DRAWN_READOUT = "drawn"
Readout = Annotated[str, Field(min_length=1, max_length=1024)]


class MSELoss(SpecModel):
    """L = sum over steps in `at` and outputs of (h - target)^2 / 2; with `readout` of (W_hy @ h + b_y - target)^2 / 2.

    readout: a linear head of the checkpoint in `weights`.
    """

    kind: Literal["mse"]
    at: At = "last"
    readout: Readout | None = None
    target: Target = NormalState()


class CrossEntropyLoss(SpecModel):
    """L = sum over steps in `at` of -log softmax(W_hy @ h + b_y)[target], through a linear readout.

    readout: a linear head of the checkpoint in `weights`, unless given the only one that fits; or "drawn".
    """

    kind: Literal["cross_entropy"]
    at: At = "last"
    readout: Readout | None = None
    classes: Annotated[int, Field(ge=2, le=MAX_CLASSES)] | None = None
    target: ClassTarget | None = None


class ProjectionLoss(SpecModel):
    """L = sum over steps in `at` of v . h, with v a random unit vector unless `vector` gives it."""

    kind: Literal["projection"]
    at: At = "last"
    vector: Annotated[list[float], Field(min_length=1)] | None = None


class SumLoss(SpecModel):
    """L = sum over steps in `at` and outputs of h."""

    kind: Literal["sum"]
    at: At = "last"


Loss = Annotated[
    Annotated[MSELoss | CrossEntropyLoss | ProjectionLoss | SumLoss, Field(discriminator="kind")],
    BareKind(),
]
