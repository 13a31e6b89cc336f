"""Checkpoints in several safetensors files, with an index of which tensor is in which (`model.safetensors.index.json`).

The index is that of Hugging Face's libraries: `weight_map` gives the file of each tensor.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from gradcli.errors import InputFileError, ResourceError
from gradcli.weights.checkpoint import MAX_TENSORS, Array, Checkpoint, Ignored, Tensor, require_tensor, short
from gradcli.weights.readers import safetensors
from gradcli.weights.readers.file_bytes import FileBytes

#: More files than any checkpoint is split into.
MAX_SHARDS = 2_000


class SafetensorsIndex(Checkpoint):
    """A checkpoint in several files; each is open only while its header or one of its tensors is read."""

    FORMAT = "safetensors, in several files"

    def __init__(self, path: Path, name: str) -> None:
        weight_map = _weight_map(path, name)
        self._index = path
        self._shard_of = weight_map
        shards = dict.fromkeys(weight_map.values())
        if len(shards) > MAX_SHARDS:
            raise ResourceError(f"{name}: it names {len(shards):,} files; at most {MAX_SHARDS:,} are read")
        self._paths = {shard: _beside(path, shard, name) for shard in shards}
        self.beside = tuple(self._paths.values())
        found: dict[str, Tensor] = {}
        ignored: list[Ignored] = []
        elsewhere: set[str] = set()
        for shard, place in self._paths.items():
            with safetensors.open_file(place, f"{name}: {shard}") as opened:
                for tensor in opened.tensors.values():
                    if weight_map.get(tensor.name) == shard:
                        found[tensor.name] = tensor
                    else:
                        ignored.append(Ignored(tensor.name, f"in {shard}, but the index does not have it there"))
                ignored.extend(opened.ignored)
                elsewhere.update(each.name for each in opened.ignored)
        for tensor_name, shard in weight_map.items():
            if tensor_name not in found and short(tensor_name) not in elsewhere:
                raise InputFileError(f"{name}: the tensor {short(tensor_name)} is not in {shard}, where it should be")
        super().__init__(name, {each: found[each] for each in weight_map if each in found}, ignored)

    def _read(self, tensor: Tensor) -> Array:
        shard = self._shard_of[tensor.name]
        with safetensors.open_file(self._paths[shard], f"{self.name}: {shard}") as opened:
            if opened.tensors.get(tensor.name) != tensor:
                raise InputFileError(f"{self.name}: {shard} has changed since it was opened")
            return opened.read(tensor.name)

    def close(self) -> None:
        """Nothing to let go of: no file stays open."""


def open_file(path: Path, name: str) -> SafetensorsIndex:
    """Return the checkpoint of an index; see `gradcli.weights.formats.open_checkpoint` for arguments and errors."""
    return SafetensorsIndex(path, name)


def _weight_map(path: Path, name: str) -> dict[str, str]:
    file = FileBytes(path, name)
    try:
        if file.size > safetensors.MAX_JSON:
            raise ResourceError(
                f"{name}: the index takes {file.size:,} bytes; at most {safetensors.MAX_JSON:,} are read"
            )
        index: Any = safetensors.parse_json(file.read(0, file.size), name)
    finally:
        file.close()
    weight_map = index.get("weight_map") if isinstance(index, dict) else None
    if not isinstance(weight_map, dict) or not all(isinstance(shard, str) for shard in weight_map.values()):
        raise InputFileError(
            f"{name}: expected an index of safetensors files, with weight_map: tensor name -> file name"
        )
    if len(weight_map) > MAX_TENSORS:
        raise InputFileError(f"{name}: it lists more than {MAX_TENSORS:,} tensors")
    for tensor in weight_map:
        require_tensor(Tensor(tensor, (), "float32"), name)
    return weight_map


def _beside(index: Path, shard: str, name: str) -> Path:
    """Return the path of a file that an index names, which lies in the index's own folder.

    Hugging Face's cache has links to one common folder, for the index as for the files that it names: a link is
    followed where it leads into the folder that the index itself is in.
    """
    plain = shard.isprintable() and shard.endswith(".safetensors") and not set(shard) & set("/\\:")
    if not plain or len(shard) > 255:
        raise InputFileError(
            f"{name}: refused: it names the file {short(shard)}; expected a plain name that ends in .safetensors"
        )
    try:
        path = index.parent / shard
        folders = (index.parent.resolve(), index.resolve().parent)
        if not path.is_file():
            raise InputFileError(f"{name}: it names the file {shard}, which is not beside it")
        if path.resolve().parent not in folders:
            raise InputFileError(f"{name}: refused: {shard} is a link that leads out of the folder of the index")
    except (OSError, RuntimeError, ValueError):
        raise InputFileError(f"{name}: it names the file {shard}, which cannot be found") from None
    return path
