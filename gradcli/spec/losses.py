"""The losses of a run: a number for each sequence, from the output state at the steps `at`.

With `reduction` sum, L is the sum over these steps. With mean, the batch loss is what the loss modules of frameworks
give by default: the mean over all pairs of a sequence and a step that counts, and over outputs where there are several,
without the half of the squared error.
"""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

from gradcli.spec.base import BareKind, Choice, choice_of
from gradcli.spec.checked import SpecModel
from gradcli.spec.initialisers import Exact, NormalState, UniformState, Zeros
from gradcli.spec.inputs import ArrayKey, FilePath, Layout, PathOrGiven
from gradcli.spec.value_readers import Before, Field, WrongError

MAX_SEQ_LEN = 10_000_000
MAX_CLASSES = 1_000_000
DEFAULT_CLASSES = 10  # of a cross-entropy whose target is not the next symbol
DEFAULT_OUTPUTS = 1  # of a binary cross-entropy

ClassNumber = Annotated[int, Field(ge=0, lt=MAX_CLASSES)]
Step = Annotated[int, Field(ge=1, le=MAX_SEQ_LEN)]
At = Literal["last", "final", "every"] | Annotated[list[Step], Field(min_length=1)]
Reduction = Literal["sum", "mean"]


def _not_mean(value: Any) -> Any:
    if value == "mean":
        message = "expected 'sum'; got 'mean': for a mean of outputs take the kind projection, with a vector of 1/n"
        raise WrongError(message)
    return value


SumAlone = Annotated[Literal["sum"], Before(_not_mean)]


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


class DrawnBit(Choice):
    """0 or 1 with equal probability, for every sequence, step and output."""

    NAME = "drawn"


BinaryTarget: Any = choice_of("target", DrawnBit, FileTarget, bare=Exact)

#: In the place of a head's name: a readout drawn like the other parameters, although the checkpoint holds a head.
DRAWN_READOUT = "drawn"
Readout = Annotated[str, Field(min_length=1, max_length=1024)]


class MSELoss(SpecModel):
    """L = sum over steps in `at` and outputs of (h - target)^2 / 2; with `readout` of (W_hy @ h + b_y - target)^2 / 2.

    readout: a linear head of the checkpoint in `weights`.
    """

    kind: Literal["mse"]
    at: At = "last"
    reduction: Reduction = "sum"
    readout: Readout | None = None
    target: Target = NormalState()


class CrossEntropyLoss(SpecModel):
    """L = sum over steps in `at` of -log softmax(W_hy @ h + b_y)[target], through a linear readout.

    readout: a linear head of the checkpoint in `weights`, unless given the only one that fits; or "drawn".
    """

    kind: Literal["cross_entropy"]
    at: At = "last"
    reduction: Reduction = "sum"
    readout: Readout | None = None
    classes: Annotated[int, Field(ge=2, le=MAX_CLASSES)] | None = None
    target: ClassTarget | None = None


class BinaryCrossEntropyLoss(SpecModel):
    """L = -sum over steps in `at` and outputs of t log p + (1 - t) log(1 - p), p = sigmoid(W_hy @ h + b_y).

    readout: a linear head of the checkpoint in `weights`, unless given the only one that fits; or "drawn".
    outputs: how many there are, each for itself; those of the head where there is one.
    target: t, from 0 to 1.
    """

    kind: Literal["binary_cross_entropy"]
    at: At = "last"
    reduction: Reduction = "sum"
    readout: Readout | None = None
    outputs: Annotated[int, Field(ge=1, le=MAX_CLASSES)] | None = None
    target: BinaryTarget = DrawnBit()


class ProjectionLoss(SpecModel):
    """L = sum over steps in `at` of v . h, with v a random unit vector unless `vector` gives it."""

    kind: Literal["projection"]
    at: At = "last"
    reduction: Reduction = "sum"
    vector: Annotated[list[float], Field(min_length=1)] | None = None


class SumLoss(SpecModel):
    """L = sum over steps in `at` and outputs of h."""

    kind: Literal["sum"]
    at: At = "last"
    reduction: SumAlone = "sum"


class GivenLoss(SpecModel):
    """L = sum over all steps of g[t] . h[t], where the gradient g[t] that enters the output is given for each sequence.

    It is that of a whole batch's loss, whatever that is: parameters get the sum over sequences of what comes of it.
    file: a .npy, .npz or .csv, (sequences, T, output size).
    """

    kind: Literal["given"]
    file: PathOrGiven
    key: ArrayKey | None = None
    layout: Layout | None = None

    at: ClassVar[At] = "every"
    reduction: ClassVar[Reduction] = "sum"


#: Losses that always read out through a linear layer, and those that can.
ReadoutLoss = CrossEntropyLoss | BinaryCrossEntropyLoss
TargetLoss = MSELoss | ReadoutLoss

Loss = Annotated[
    Annotated[TargetLoss | ProjectionLoss | SumLoss | GivenLoss, Field(discriminator="kind")],
    BareKind(),
]


def loss_steps(loss: Loss, seq_len: int) -> list[int]:
    """Return the steps 1..T at which the output counts, ascending; final states are those at each direction's step T.

    >>> loss_steps(SumLoss(kind="sum", at=[9, 2]), 10), loss_steps(SumLoss(kind="sum", at="final"), 10)
    ([2, 9], [10])
    """
    if isinstance(loss.at, list):
        return sorted(loss.at)
    return list(range(1, seq_len + 1)) if loss.at == "every" else [seq_len]
