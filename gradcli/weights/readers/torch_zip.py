"""State dicts that `torch.save` writes (PyTorch 1.6 and later), read without PyTorch and without running anything.

The file is a zip: a pickle of the dicts, <root>/data.pkl, and the numbers of each storage, <root>/data/<key>.
"""

from __future__ import annotations

from pathlib import Path
from typing import NoReturn

import numpy as np

from gradcli.errors import InputFileError, ResourceError
from gradcli.weights.checkpoint import NUMPY_CODES, Array, Checkpoint, Tensor, widened
from gradcli.weights.readers.file_bytes import FileBytes
from gradcli.weights.readers.torch_objects import StridedTensor
from gradcli.weights.readers.torch_pickle import MAX_PICKLE, read_pickle
from gradcli.weights.readers.torch_state import NamedTensors
from gradcli.weights.readers.zip_directory import Entry, ZipDirectory

#: The start of files from before PyTorch 1.6: a pickle of a long integer.
_LEGACY = bytes.fromhex("80 02 8a 0a 6c fc 9c 46")
_SAVE = "torch.save(model.state_dict(), ...)"
_ORDERS = {b"little": "<", b"big": ">"}


class TorchZip(Checkpoint):
    """An open .pt file.

    Checksums are not compared: `torch.serialization.set_crc32_options(False)` writes files that have none.
    """

    FORMAT = "PyTorch state dict"

    def __init__(self, file: FileBytes) -> None:
        self._file = file
        start = file.read(0, min(file.size, 8))
        if not start.startswith(b"PK"):
            _refuse_other_format(start, file.name)
        self._zip = ZipDirectory(file)
        root = self._root()
        self._require_stored()
        self._order = self._byte_order(root)
        prefix = f"{root}/data/"
        self._storages = {
            name.removeprefix(prefix): entry for name, entry in self._zip.entries.items() if name.startswith(prefix)
        }
        pickle = self._zip.entries[f"{root}/data.pkl"]
        if pickle.size > MAX_PICKLE:
            raise ResourceError(
                f"{file.name}: its pickle takes {pickle.size:,} bytes; at most {MAX_PICKLE:,} are read; save the"
                f" weights alone, with {_SAVE}"
            )
        sizes = {key: entry.size for key, entry in self._storages.items()}
        state = read_pickle(self._stored(pickle, 0, pickle.size, "u1").tobytes(), file.name, sizes)
        if not isinstance(state, dict):
            what = "a single tensor" if isinstance(state, StridedTensor) else "something else"
            raise InputFileError(f"{file.name}: expected a dict of tensors and found {what}; save it with {_SAVE}")
        found = NamedTensors(state, file.name)
        self._views = found.views
        super().__init__(file.name, found.tensors, found.ignored)

    def _root(self) -> str:
        """Return the folder that all entries are in, whatever its name."""
        pickles = [name for name in self._zip.entries if name.count("/") == 1 and name.endswith("/data.pkl")]
        root = pickles[0].partition("/")[0] if len(pickles) == 1 else ""
        names = self._zip.entries.keys()
        if f"{root}/constants.pkl" in names or any(name.startswith(f"{root}/code/") for name in names):
            raise InputFileError(
                f"{self._file.name}: a TorchScript program, which has code in it; load it with torch.jit.load and save"
                f" its weights alone, with {_SAVE}"
            )
        if not root:
            raise InputFileError(
                f"{self._file.name}: a zip file, but not one that torch.save writes: there is no data.pkl in it; save"
                f" the weights with {_SAVE}"
            )
        return root

    def _require_stored(self) -> None:
        for entry in self._zip.entries.values():
            if entry.deflated:
                raise InputFileError(
                    f"{self._file.name}: the entry {entry.name} is compressed, which torch.save never does; was the"
                    " file packed again?"
                )

    def _byte_order(self, root: str) -> str:
        entry = self._zip.entries.get(f"{root}/byteorder")
        # Files of PyTorch before 2.1 do not say; they are little-endian but for those of rare machines.
        text = self._stored(entry, 0, min(entry.size, 10), "u1").tobytes() if entry else b"little"
        if text not in _ORDERS:
            raise InputFileError(f"{self._file.name}: its byte order is neither little nor big")
        return _ORDERS[text]

    def _stored(self, entry: Entry, start: int, count: int, dtype: str) -> Array:
        """Return `count` entries of a dtype, from the byte `start` of an entry of the zip file on."""
        return self._file.array(self._zip.data_start(entry) + start, count, dtype)

    def _read(self, tensor: Tensor) -> Array:
        view = self._views[tensor.name]
        dtype = np.dtype(self._order + NUMPY_CODES[tensor.dtype])
        flat = self._stored(self._storages[view.key], view.offset * dtype.itemsize, view.span, dtype.str)
        strides = tuple(stride * dtype.itemsize for stride in view.strides)
        if 0 in view.shape:
            return widened(np.empty(view.shape, dtype), tensor.dtype)
        strided = np.lib.stride_tricks.as_strided(flat, view.shape, strides, writeable=False)
        return widened(np.ascontiguousarray(strided).reshape(view.shape), tensor.dtype)

    def close(self) -> None:
        """Let go of the file."""
        self._file.close()


def open_file(path: Path, name: str) -> TorchZip:
    """Return a .pt file, open; see `gradcli.weights.formats.open_checkpoint` for arguments and errors."""
    file = FileBytes(path, name)
    try:
        return TorchZip(file)
    except BaseException:
        file.close()
        raise


def _refuse_other_format(start: bytes, name: str) -> NoReturn:
    if start == _LEGACY:
        raise InputFileError(
            f"{name}: written by PyTorch before 1.6, or in its old format; load it with torch.load(...,"
            f" weights_only=True) and save it again with {_SAVE}"
        )
    if start[:1] == b"\x80":
        raise InputFileError(f"{name}: a bare pickle, not what torch.save writes; save the weights with {_SAVE}")
    raise InputFileError(f"{name}: not a zip file, as torch.save writes; save the weights with {_SAVE}")
