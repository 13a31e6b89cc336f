"""The valid files that the fuzzing starts from, by reader; a new reader is one function and one line here."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from tests.fuzz.seeds_h5_onnx import keras_h5, onnx_file


def npz(folder: Path) -> list[Path]:
    rng = np.random.default_rng(0)
    arrays: dict[str, Any] = {
        "encoder/W_hh": rng.standard_normal((4, 4)),
        "b": rng.standard_normal(4).astype("f4"),
        "half": rng.standard_normal((2, 3)).astype("f2"),
        "swapped": rng.standard_normal((2, 3)).astype(">f8"),
        "columns": np.asfortranarray(rng.standard_normal((3, 2))),
        "steps": np.array(7),
        "words": np.array(["a", "bc"]),
        "empty": np.empty((0, 3)),
    }
    np.savez(folder / "stored.npz", **arrays)
    np.savez_compressed(folder / "deflated.npz", zeros=np.zeros((30, 40)), **arrays)
    objects = np.empty(1, dtype=object)
    np.savez(folder / "objects.npz", a=np.ones(3), objects=objects, allow_pickle=True)
    return sorted(folder.glob("*.npz"))


def safetensors(folder: Path) -> list[Path]:
    from safetensors.numpy import save_file

    rng = np.random.default_rng(0)
    save_file(
        {
            "rnn.weight_hh_l0": rng.standard_normal((4, 4)).astype("f4"),
            "rnn.bias_hh_l0": rng.standard_normal(4).astype("f2"),
            "steps": np.array([3]),
            "empty": np.empty((0, 3)),
        },
        folder / "some.safetensors",
        metadata={"format": "pt"},
    )
    save_file({"a": rng.standard_normal((2, 3))}, folder / "one.safetensors")
    _torch_safetensors(folder / "narrow.safetensors")
    return sorted(folder.glob("*.safetensors"))


def safetensors_index(folder: Path) -> list[Path]:
    from safetensors.numpy import save_file

    save_file({"a": np.ones((2, 3)), "b": np.ones(2)}, folder / "model-00001-of-00002.safetensors")
    save_file({"c": np.ones((2, 3), "f4")}, folder / "model-00002-of-00002.safetensors")
    shards = {"a": 1, "b": 1, "c": 2}
    index: dict[str, Any] = {
        "metadata": {"total_size": 136},
        "weight_map": {name: f"model-0000{shard}-of-00002.safetensors" for name, shard in shards.items()},
    }
    (folder / "model.safetensors.index.json").write_text(json.dumps(index, indent=2))
    (folder / "part.safetensors.index.json").write_text(json.dumps({"weight_map": {"c": index["weight_map"]["c"]}}))
    return sorted(folder.glob("*.index.json"))


def torch_zip(folder: Path) -> list[Path]:
    import torch

    torch.manual_seed(0)
    model = torch.nn.LSTM(2, 3, bidirectional=True)
    optimiser = torch.optim.Adam(model.parameters())
    model(torch.ones(4, 1, 2))[0].sum().backward()
    optimiser.step()
    torch.save(model.state_dict(), folder / "state.pt")
    torch.save(
        {
            "model": model.state_dict(),
            "epoch": 3,
            "optimizer": optimiser.state_dict(),
            "vocabulary": {"a": 0, "\n": 1},
            "size": torch.Size([2, 3]),
        },
        folder / "training.pt",
    )
    shared = torch.arange(12.0).reshape(3, 4)
    views = {
        "tied": shared,
        "transposed": shared.T,
        "row": shared[1],
        "bf16": shared.bfloat16(),
        "half": shared.half(),
        "wide": torch.ones(2, dtype=torch.uint16),
        "parameter": torch.nn.Parameter(shared),
        "scalar": torch.tensor(2.0),
        "complex": torch.ones(2, dtype=torch.complex64),
    }
    torch.save(views, folder / "views.pt")
    torch.save(views, folder / "protocol4.pt", pickle_protocol=4)
    return sorted(folder.glob("*.pt"))


def _torch_safetensors(path: Path) -> None:
    import torch
    from safetensors.torch import save_file

    save_file({"b": torch.ones(3, dtype=torch.bfloat16), "f8": torch.ones(3).to(torch.float8_e4m3fn)}, path)


#: Reader -> what writes valid files for it into a folder and returns those to mutate.
SEEDS: dict[str, Callable[[Path], list[Path]]] = {
    "npz": npz,
    "safetensors": safetensors,
    "safetensors_index": safetensors_index,
    "torch_zip": torch_zip,
    "onnx_file": onnx_file,
    "keras_h5": keras_h5,
}
