"""PyTorch checkpoints that PyTorch itself has written: read as it reads them, or refused with what to do instead."""

from __future__ import annotations

import argparse
import zipfile
from collections import OrderedDict, defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from checkpoint_files import assert_same, everything, ignored, refusal, resident
from hypothesis import given, settings
from hypothesis import strategies as st
from late_torch import torch

from gradcli.weights.readers.torch_state import MAX_DEPTH

pytestmark = pytest.mark.torch


def saved(path: Path, value: Any, **options: Any) -> Path:
    torch.save(value, path, **options)
    return path


def as_numpy(tensor: Any) -> np.ndarray:
    """The numbers of a tensor as `Checkpoint.read` gives them: narrow floats widened."""
    tensor = tensor.detach()
    narrow = tensor.dtype in (torch.bfloat16, torch.float16)
    return np.asarray((tensor.float() if narrow else tensor).numpy())


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_the_state_of_a_model_is_read_bit_by_bit(protocol: int, tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = torch.nn.ModuleDict(
        {
            "encoder": torch.nn.LSTM(3, 4, num_layers=2, bidirectional=True),
            "head": torch.nn.Linear(8, 2).double(),
            "norm": torch.nn.BatchNorm1d(3),
        }
    )
    expected = model.state_dict()
    found = everything(saved(tmp_path / "x.pt", expected, pickle_protocol=protocol))
    assert list(found) == list(expected)
    for name, tensor in expected.items():
        assert_same(found[name], as_numpy(tensor))


@pytest.mark.parametrize(
    "dtype",
    ["float64", "float32", "float16", "bfloat16", "int64", "int32", "int16", "int8", "uint64", "uint32", "uint16",
     "uint8", "bool"],
)  # fmt: skip
def test_every_dtype_is_read(dtype: str, tmp_path: Path) -> None:
    tensor = torch.arange(6).reshape(2, 3).to(getattr(torch, dtype))
    assert_same(everything(saved(tmp_path / "x.pt", {"a": tensor}))["a"], as_numpy(tensor))


def test_views_share_their_storage(tmp_path: Path) -> None:
    base = torch.arange(24.0).reshape(4, 6)
    views = {
        "base": base,
        "tied": base,
        "transposed": base.T,
        "row": base[2],
        "block": base[1:3, ::2],
        "columns": base.T[1:4].T,
        "scalar": base[3, 5],
        "empty": base[:0],
        "diagonal": base.diagonal(),
        "bf16": base.bfloat16().T,
        "parameter": torch.nn.Parameter(base.T),
        "buffer": torch.nn.Buffer(base[0]),
    }
    path = saved(tmp_path / "x.pt", views)
    found = everything(path)
    assert list(found) == list(views)
    for name, tensor in views.items():
        assert_same(found[name], as_numpy(tensor))
    with zipfile.ZipFile(path) as archive:
        assert sum("/data/" in name for name in archive.namelist()) == 2


@settings(deadline=None)
@given(shape=st.lists(st.integers(1, 4), min_size=1, max_size=4), data=st.data(), step=st.integers(1, 3))
def test_any_view_is_read(tmp_path_factory: pytest.TempPathFactory, shape: list[int], data: Any, step: int) -> None:
    order = data.draw(st.permutations(range(len(shape))))
    tensor = torch.randn(shape, dtype=torch.float64).permute(*order)[::step]
    path = saved(tmp_path_factory.mktemp("any") / "x.pt", {"a": tensor})
    assert_same(everything(path)["a"], as_numpy(tensor))


def test_a_training_checkpoint_is_read_under_joined_names(tmp_path: Path) -> None:
    model = torch.nn.ModuleDict({"encoder": torch.nn.GRU(2, 3)})
    optimizer = torch.optim.Adam(model.parameters())
    model["encoder"](torch.ones(4, 1, 2))[0].sum().backward()
    optimizer.step()
    path = saved(
        tmp_path / "x.pt",
        {
            "model": model.state_dict(),
            "optimizer": optimizer.state_dict(),
            "epoch": 3,
            "loss": 0.25,
            "note": "best",
            "done": True,
            "losses": [1.0, 0.5],
            "vocabulary": {" ": 0, "\n": 1, "a": 2},
            "arguments": argparse.Namespace(lr=0.1),
            "size": torch.Size([2, 3]),
            "device": torch.device("cpu"),
            "dtype": torch.float32,
            "best": np.float64(0.5),
            "counts": defaultdict(int, a=1),
            "nothing": None,
        },
    )
    found = everything(path)
    for name, tensor in model.state_dict().items():
        assert_same(found[f"model.{name}"], as_numpy(tensor))
    assert_same(found["optimizer.state.0.exp_avg"], as_numpy(optimizer.state_dict()["state"][0]["exp_avg"]))
    assert ignored(path) == {
        "optimizer.param_groups": "a list of 1 entries",
        "epoch": "a number",
        "loss": "a number",
        "note": "a text",
        "done": "a bool",
        "losses": "a list of 2 entries",
        "vocabulary": "a dict of 3 entries without a tensor",
        "arguments": "an object of argparse.Namespace",
        "size": "an object of torch.Size",
        "device": "an object of torch.device",
        "dtype": "torch.float32",
        "best": f"an object of {np.float64(0.5).__reduce__()[0].__module__}.scalar",
        "counts": "a dict of 1 entries without a tensor",
        "nothing": "None",
    }


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_tensors_of_other_kinds_are_ignored(tmp_path: Path) -> None:
    path = saved(
        tmp_path / "x.pt",
        {
            "a": torch.ones(2),
            "complex": torch.ones(2, dtype=torch.complex64),
            "conjugate": torch.ones(2, dtype=torch.complex64).conj(),
            "f8": torch.ones(2).to(torch.float8_e4m3fn),
            "sparse": torch.eye(2).to_sparse(),
            "quantised": torch.quantize_per_tensor(torch.ones(3), 0.1, 0, torch.qint8),
            "meta": torch.empty(3, device="meta"),
        },
    )
    assert list(everything(path)) == ["a"]
    assert ignored(path) == {
        "complex": "a tensor of a dtype that is not read",
        "conjugate": "a tensor that is marked as conjugate or negative",
        "f8": "a tensor of a dtype that is not read",
        "sparse": "a sparse tensor",
        "quantised": "a quantised tensor",
        "meta": "a tensor without numbers, of the device meta",
    }


def test_a_tensor_with_attributes_of_its_own_is_read(tmp_path: Path) -> None:
    tensor, parameter = torch.ones(2, 3), torch.nn.Parameter(torch.ones(2))
    tensor.note = parameter.note = "mine"
    found = everything(saved(tmp_path / "x.pt", {"a": tensor, "b": parameter}))
    assert_same(found["a"], as_numpy(tensor))
    assert_same(found["b"], as_numpy(parameter))


def test_files_without_checksums_are_read(tmp_path: Path) -> None:
    torch.serialization.set_crc32_options(False)
    try:
        path = saved(tmp_path / "x.pt", {"a": torch.arange(3.0)})
    finally:
        torch.serialization.set_crc32_options(True)
    with zipfile.ZipFile(path) as archive, pytest.raises(zipfile.BadZipFile, match="CRC"):
        archive.read("x/data/0")
    assert_same(everything(path)["a"], np.arange(3.0, dtype="f4"))


def test_one_tensor_is_read_without_the_others(tmp_path: Path) -> None:
    saved(tmp_path / "x.pt", {"large": torch.zeros(50_000_000), "small": torch.arange(3.0)})
    code = (
        "from pathlib import Path\n"
        "from gradcli.weights.formats import open_checkpoint\n"
        "with open_checkpoint(Path('x.pt'), 'x.pt') as checkpoint:\n"
        "    assert checkpoint.tensors['large'].nbytes == 200_000_000\n"
        "    assert checkpoint.read('small').tolist() == [0, 1, 2]\n"
        "import sys; assert 'torch' not in sys.modules\n"
    )
    assert resident(code, tmp_path) < 100e6


def test_dicts_that_nest_too_deep_are_refused(tmp_path: Path) -> None:
    nested: Any = torch.ones(2)
    for _ in range(MAX_DEPTH):
        nested = {"a": nested}
    assert list(everything(saved(tmp_path / "x.pt", nested))) == [".".join("a" * MAX_DEPTH)]
    nested = {"a": {"a": nested}}
    assert "nest deeper than 32 levels" in refusal(saved(tmp_path / "x.pt", nested))


def test_a_whole_model_is_refused_with_what_to_do(tmp_path: Path) -> None:
    message = refusal(saved(tmp_path / "x.pt", torch.nn.LSTM(2, 3)))
    assert message == (
        "x.pt: refused: besides tensors it holds torch.nn.modules.rnn.LSTM, as pickles of whole models do, and gradcli"
        " runs nothing in a file; save the weights alone, with torch.save(model.state_dict(), ...)"
    )


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_torchscript_is_refused_with_what_to_do(tmp_path: Path) -> None:
    torch.jit.save(torch.jit.script(torch.nn.Linear(2, 3)), tmp_path / "x.pt")
    message = refusal(tmp_path / "x.pt")
    assert "a TorchScript program, which has code in it; load it with torch.jit.load and save its weights" in message


def test_the_format_before_1_6_is_refused_with_what_to_do(tmp_path: Path) -> None:
    path = saved(tmp_path / "x.pt", OrderedDict(a=torch.ones(2)), _use_new_zipfile_serialization=False)
    assert "written by PyTorch before 1.6, or in its old format; load it with torch.load(" in refusal(path)


def test_a_single_tensor_is_refused_with_what_to_do(tmp_path: Path) -> None:
    message = refusal(saved(tmp_path / "x.pt", torch.ones(2)))
    assert "expected a dict of tensors and found a single tensor; save it with torch.save(" in message


def test_weights_that_are_not_finite_are_refused(tmp_path: Path) -> None:
    path = saved(tmp_path / "x.pt", {"w": torch.tensor([1.0, float("inf")])})
    assert "the tensor w is inf at [1]" in refusal(path)


def test_a_file_that_was_packed_again_is_refused(tmp_path: Path) -> None:
    saved(tmp_path / "x.pt", {"w": torch.ones(300)})
    with (
        zipfile.ZipFile(tmp_path / "x.pt") as old,
        zipfile.ZipFile(tmp_path / "y.pt", "w", zipfile.ZIP_DEFLATED) as new,
    ):
        for name in old.namelist():
            new.writestr(name, old.read(name))
    assert "is compressed, which torch.save never does" in refusal(tmp_path / "y.pt")


def test_every_truncation_is_refused(tmp_path: Path) -> None:
    whole = saved(tmp_path / "x.pt", {"w": torch.ones(3)}).read_bytes()
    for length in range(len(whole)):
        (tmp_path / "x.pt").write_bytes(whole[:length])
        refusal(tmp_path / "x.pt")
