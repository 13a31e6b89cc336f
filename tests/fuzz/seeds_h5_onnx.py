"""Small valid files for the fuzzing of the readers of HDF5 and ONNX, between them every feature that these read."""

from __future__ import annotations

import zipfile
from pathlib import Path

import h5py
import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper


def keras_h5(folder: Path) -> list[Path]:
    """Write the layouts of Keras, the storage layouts of HDF5 in its old and new file versions, and an archive."""
    made = [_legacy(folder / "legacy.h5"), _weights(folder / "small.weights.h5"), _linked(folder / "linked.h5")]
    made += [_stored(folder / f"stored-{version}.h5", version) for version in ("earliest", "latest")]
    for name, compression in (("stored.keras", zipfile.ZIP_STORED), ("deflated.keras", zipfile.ZIP_DEFLATED)):
        with zipfile.ZipFile(folder / name, "w", compression) as archive:
            archive.writestr("metadata.json", '{"keras_version": "3.15.1"}')
            archive.writestr("config.json", '{"class_name": "Sequential", "config": {"layers": [{"units": 2}]}}')
            archive.write(folder / "small.weights.h5", "model.weights.h5")
        made.append(folder / name)
    return made


def onnx_file(folder: Path) -> list[Path]:
    """Write an LSTM with raw initializers, and tensors of every dtype in every field that holds entries."""
    rng = np.random.default_rng(5)
    lstm = [
        numpy_helper.from_array(rng.normal(size=shape).astype(np.float32), name)
        for name, shape in (("W", (1, 8, 3)), ("R", (1, 8, 2)), ("B", (1, 16)))
    ]
    node = helper.make_node(
        "LSTM",
        ["x", "W", "R", "B"],
        ["y", "h"],
        "enc",
        hidden_size=2,
        activations=["Sigmoid", "Tanh", "Tanh"],
        clip=3.0,
    )
    constant = helper.make_node("Constant", [], ["axes"], value=numpy_helper.from_array(np.array([1, -2]), "axes"))
    inside = helper.make_graph([], "inside", [], [])
    branch = helper.make_node("If", ["flag"], ["z"], then_branch=inside, else_branch=inside)
    sequence = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["T", None, 3])
    result = helper.make_tensor_value_info("y", TensorProto.FLOAT, None)
    typed = [
        helper.make_tensor("f", TensorProto.FLOAT, [2], [1.0, -2.0]),
        helper.make_tensor("d", TensorProto.DOUBLE, [2, 1], [1.0, -2.0]),
        helper.make_tensor("h", TensorProto.FLOAT16, [2], [1.0, -2.0]),
        helper.make_tensor("b", TensorProto.BFLOAT16, [2], [1.0, -2.0]),
        helper.make_tensor("i", TensorProto.INT32, [2], [7, -300]),
        helper.make_tensor("l", TensorProto.INT64, [2], [7, -(2**40)]),
        helper.make_tensor("u", TensorProto.UINT64, [2], [7, 2**63]),
        helper.make_tensor("s", TensorProto.STRING, [1], [b"text"]),
    ]
    graphs = {
        "lstm.onnx": helper.make_graph([node, constant, branch], "lstm", [sequence], [result], lstm),
        "typed.onnx": helper.make_graph([], "typed", [], [], typed),
    }
    made = []
    for name, graph in graphs.items():
        onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)]), folder / name)
        made.append(folder / name)
    return made


def _legacy(path: Path) -> Path:
    with h5py.File(path, "w") as file:
        file.attrs["keras_version"] = "3.15.1"
        file.attrs["model_config"] = '{"class_name": "Sequential", "config": {"layers": []}}'
        weights = file.create_group("model_weights")
        weights.attrs["layer_names"] = ["enc"]
        layer = weights.create_group("enc")
        layer.attrs["weight_names"] = np.array([b"enc/lstm_cell/kernel", b"enc/lstm_cell/bias"])
        layer["enc/lstm_cell/kernel"] = np.ones((3, 8), np.float32)
        layer["enc/lstm_cell/bias"] = np.zeros(8, ">f8")
        file["optimizer_weights/adam/iteration"] = 3
    return path


def _weights(path: Path) -> Path:
    with h5py.File(path, "w") as file:
        own = file.create_group("layers/gru/cell/vars", track_order=True)
        own.attrs["name"] = "gru_cell"
        for index in range(9):  # more than 8 links are stored as a heap and a tree
            own[str(index)] = np.full((2, 6), index, np.float16)
    return path


def _linked(path: Path) -> Path:
    with h5py.File(path, "w") as file:
        file["a"] = np.arange(4.0)
        file["b"] = file["a"]
        file["loop"] = file["/"]
        file["soft"] = h5py.SoftLink("/a")
        file["external"] = h5py.ExternalLink("other.h5", "/a")
        file["texts"] = ["x", "y"]
        file["pair"] = np.zeros(2, [("x", "f4"), ("y", "i4")])
        file["ragged"] = np.array([np.ones(2), np.ones(3)], h5py.vlen_dtype("f8"))
        file["bits"] = np.array([b"\x80\x3f"], "V2")
        file["bits"].attrs["dtype"] = "bfloat16"
        file["type"] = np.dtype("f4")
    return path


def _stored(path: Path, version: str) -> Path:
    with h5py.File(path, "w", libver=version) as file:
        for name, options in (("gzip", {"compression": "gzip", "shuffle": True}), ("lzf", {"compression": "lzf"})):
            file.create_dataset(name, data=np.arange(64.0).reshape(8, 8), chunks=(4, 4), fletcher32=True, **options)
        file.create_dataset("chunked", data=np.arange(6, dtype=np.int16), chunks=(4,), maxshape=(None,))
        compact = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        compact.set_layout(h5py.h5d.COMPACT)
        space = h5py.h5s.create_simple((3,))
        made = h5py.h5d.create(file.id, b"compact", h5py.h5t.NATIVE_FLOAT, space, compact)
        made.write(h5py.h5s.ALL, h5py.h5s.ALL, np.ones(3, np.float32))
    return path
