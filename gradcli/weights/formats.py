"""The formats of checkpoints, and the choice among them."""

from __future__ import annotations

import os
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

from gradcli.errors import InputFileError, ResourceError
from gradcli.frozen import frozen

if TYPE_CHECKING:  # the endings alone, for completion, need no NumPy
    from gradcli.weights.checkpoint import Checkpoint


@frozen
class Format:
    """A format: the endings of its files, and the module of this package whose `open_file(path, name)` reads them."""

    endings: tuple[str, ...]
    module: str

    def open_file(self, path: Path, name: str) -> Checkpoint:
        reader: Callable[[Path, str], Checkpoint] = import_module(f"gradcli.weights.readers.{self.module}").open_file
        return reader(path, name)


#: Of two endings that fit, the longer one decides.
FORMATS = (
    Format((".safetensors",), "safetensors"),
    Format((".safetensors.index.json",), "safetensors_index"),
    Format((".npz",), "npz"),
    Format((".pt", ".pth", ".ckpt", ".bin"), "torch_zip"),
    Format((".h5", ".hdf5", ".keras"), "keras_h5"),
    Format((".onnx",), "onnx_file"),
)
#: What the folder of a model on the Hugging Face hub holds; each wins over those behind it.
FOLDER_FILES = ("model.safetensors.index.json", "model.safetensors", "pytorch_model.bin")


def endings() -> list[str]:
    """Return the endings of all files that can be read."""
    return [ending for each in FORMATS for ending in each.endings]


def format_of(name: str) -> Format | None:
    """Return the format that a file's name tells; None for one of no checkpoint."""
    fitting = [(len(ending), each) for each in FORMATS for ending in each.endings if name.lower().endswith(ending)]
    return max(fitting, key=lambda found: found[0])[1] if fitting else None


def _checkpoint_in(folder: Path, name: str) -> str:
    """Return which file of a model's folder to name: the index of several files before one of them."""
    for usual in FOLDER_FILES:
        if os.path.isfile(folder / usual):
            return f"name the checkpoint in it: {os.path.join(name, usual)}"
    return f"name a checkpoint in it, a file that ends in {', '.join(endings())}"


def open_checkpoint(path: Path, name: str) -> Checkpoint:
    """Return the checkpoint at `path`, open: a context manager.

    Args:
        path: a regular file.
        name: what messages call it, as the user wrote it.

    Raises:
        InputFileError: no such file, no such format, or a file that is damaged or unsafe.
        ResourceError: a file that would take more memory or time than any checkpoint needs.
        UsageError: the format needs a package that is not installed.
    """
    if os.path.isdir(path):
        raise InputFileError(f"{name}: a folder; {_checkpoint_in(path, name)}")
    found = format_of(name)
    if found is None:
        raise InputFileError(f"{name}: expected a checkpoint, a file that ends in {', '.join(endings())}")
    try:
        is_file = path.is_file()
        path.stat()
    except FileNotFoundError:
        raise InputFileError(f"{name}: there is no such file") from None
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise InputFileError(f"{name}: cannot be read: {reason}") from None
    if not is_file:
        raise InputFileError(f"{name}: not a regular file")
    try:
        return found.open_file(path, name)
    except MemoryError:
        raise ResourceError(f"{name}: there is not enough memory to open it") from None
