"""Checkpoints of Keras: `.keras` archives, `.weights.h5`, and the `.h5` of Keras 2 and of `model.save("m.h5")` since.

Keras is neither imported nor needed, and none of its loaders, whose safe mode was bypassed again and again: of an
archive config.json and model.weights.h5 are read, of HDF5 hard links to datasets of numbers, and all else is left.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from gradcli.errors import InputFileError, UsageError
from gradcli.weights.checkpoint import Checkpoint, Ignored, Tensor, widened
from gradcli.weights.readers.hdf5_process import Hdf5Process

Array = np.ndarray[Any, Any]
Attributes = Mapping[str, str | tuple[str, ...]]


class KerasCheckpoint(Checkpoint):
    """An HDF5 file of Keras, or a .keras archive. Tensors are named by their paths in HDF5.

    config: the model's config; None where the file has none, as every .weights.h5.
    attributes: path of a group ("" is the whole file) -> those of its attributes "name", "layer_names", "weight_names",
        "keras_version", "backend" that it has. A list that Keras split over several attributes is whole again.
    """

    FORMAT = "Keras HDF5"

    def __init__(self, path: Path, name: str) -> None:
        self._process = Hdf5Process(path, name)
        try:
            listed = self._process.listed
            tensors = [Tensor(tensor, tuple(shape), dtype) for tensor, shape, dtype in listed["tensors"]]
            super().__init__(
                name, {each.name: each for each in tensors}, [Ignored(*each) for each in listed["ignored"]]
            )
            self.config = _parsed(listed["config"], name)
            self.attributes: Mapping[str, Attributes] = {
                group: {key: value if isinstance(value, str) else tuple(value) for key, value in texts.items()}
                for group, texts in listed["attributes"].items()
            }
        except BaseException:
            self.close()
            raise

    def _read(self, tensor: Tensor) -> Array:
        return widened(self._process.read(tensor), tensor.dtype)

    def close(self) -> None:
        self._process.close()


def open_file(path: Path, name: str) -> KerasCheckpoint:
    """Return the checkpoint at `path`, open; see `formats.open_checkpoint`.

    Raises:
        InputFileError: the file is damaged, or holds what is refused.
        ResourceError: it would take more memory or time than any checkpoint needs.
        UsageError: h5py is not installed.
    """
    if find_spec("h5py") is None:
        raise UsageError(f"{name}: reading HDF5 needs h5py, which is not installed: pip install 'gradcli[keras]'")
    return KerasCheckpoint(path, name)


def _parsed(text: str | None, name: str) -> Mapping[str, Any] | None:
    if text is None:
        return None
    try:
        config = json.loads(text)
    except (ValueError, RecursionError) as error:
        reason = "it is nested too deep" if isinstance(error, RecursionError) else str(error)
        raise InputFileError(f"{name}: the model's config is no JSON that can be read: {reason}") from None
    if not isinstance(config, dict):
        raise InputFileError(f"{name}: the model's config is no JSON object")
    return config
