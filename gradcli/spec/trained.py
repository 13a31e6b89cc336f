"""Trained weights in a spec: the block that names a checkpoint, and what the checkpoint settles of the spec."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path as FilePath
from typing import Annotated, Any

from gradcli.errors import UsageError
from gradcli.spec.checked import SpecModel
from gradcli.spec.files import NamesFile
from gradcli.spec.initialisers import Finite
from gradcli.spec.shown import Path
from gradcli.spec.value_readers import Field

Label = Annotated[str, Field(min_length=1, max_length=1024)]
ParameterPattern = Annotated[str, Field(pattern=r"^[A-Za-z0-9_*?.\[\]!-]+$", max_length=128)]


class Weights(SpecModel):
    """Trained weights: a layer of a checkpoint, or a tensor of it for each parameter; value = scale * trained + shift.

    Of the patterns of `scale`, and of those of `shift`, that match a parameter the last one wins.
    """

    file: Annotated[
        str,
        Field(min_length=1, max_length=4096, description="the checkpoint, relative to the spec's folder"),
        NamesFile(),
    ]
    layer: Annotated[
        Label | None, Field(description="the recurrent layer, as `gradcli inspect` lists it; the only one unless given")
    ] = None
    map: Annotated[
        dict[ParameterPattern, Label],
        Field(description="parameter name or glob -> the tensor with its values: kernel, kernel[0:64], kernel:T"),
    ] = {}
    scale: Annotated[
        dict[ParameterPattern, Finite],
        Field(description="parameter name or glob -> what its trained values are multiplied by"),
    ] = {}
    shift: Annotated[
        dict[ParameterPattern, Finite],
        Field(description="parameter name or glob -> what is added to its trained values, after `scale`"),
    ] = {}


#: Fields that the layer of a checkpoint settles; what a spec says of them may only agree.
SIZES = ("hidden_size", "input_size", "num_layers", "bidirectional")


class Trained(ABC):
    """What a checkpoint settles of a spec."""

    @property
    @abstractmethod
    def fields(self) -> Mapping[str, Any]:
        """The fields of the spec that the checkpoint settles, as plain data."""

    @property
    @abstractmethod
    def layer_name(self) -> str | None:
        """The recurrent layer that is read; None where a map alone gives the parameters."""

    @property
    @abstractmethod
    def description(self) -> str:
        """What is read, in a few words: "the PyTorch LSTM rnn of model.pt"."""

    @property
    @abstractmethod
    def notes(self) -> tuple[str, ...]:
        """What a user should know of how it was read, one line each."""

    @property
    def files(self) -> tuple[FilePath, ...]:
        """The files that are read beside the one that the spec names."""
        return ()


class WeightsError(UsageError):
    """A mistake in what a spec says of its weights: at `path` of the spec."""

    def __init__(self, path: Path, message: str) -> None:
        self.path = path
        super().__init__(message)


class Checkpoints(ABC):
    """How the reader of specs learns of checkpoints, which it cannot open itself."""

    @abstractmethod
    def is_file_name(self, target: str) -> bool:
        """Tell whether a target of the command line is a checkpoint and not a spec, by its ending."""

    @abstractmethod
    def open(self, weights: Weights, data: Mapping[str, Any], folder: FilePath) -> Trained:
        """Return what a checkpoint settles of the spec with this plain data; paths are relative to `folder`.

        Raises:
            WeightsError: a layer or tensor that the file does not hold, and what does not fit the rest of the spec.
            GradcliError: a file that cannot be read, or is refused.
        """
