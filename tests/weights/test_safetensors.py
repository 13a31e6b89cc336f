"""Safetensors files: what the format's own library writes is read bit by bit; what breaks its rules is refused."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from checkpoint_files import assert_same, everything, ignored, opened, refusal, resident
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from late_torch import torch
from safetensors.numpy import save, save_file

from gradcli.errors import ExitCode
from gradcli.weights.readers import safetensors

NUMPY_DTYPES = ("f8", "f4", "i8", "i4", "i2", "i1", "u8", "u4", "u2", "u1", "?")


def raw(path: Path, header: Any, data: bytes = b"") -> Path:
    """A file of the format, of a header and what follows it."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + data)
    return path


def entry(dtype: Any = "F32", shape: Any = (2,), offsets: Any = (0, 8)) -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": offsets}


@pytest.mark.parametrize("dtype", NUMPY_DTYPES)
def test_what_the_library_writes_is_read_bit_by_bit(dtype: str, tmp_path: Path) -> None:
    values = np.random.default_rng(0).integers(0, 2, (3, 4)).astype(dtype)
    save_file({"a": values, "empty": values[:0], "scalar": np.array(values[0, 0])}, tmp_path / "x.safetensors")
    found = everything(tmp_path / "x.safetensors")
    assert_same(found["a"], values)
    assert_same(found["empty"], values[:0])
    assert_same(found["scalar"], np.array(values[0, 0]))


@settings(deadline=None)
@given(st.lists(arrays(np.float64, array_shapes(max_dims=4, max_side=4), elements=st.floats(-9, 9)), max_size=4))
def test_any_arrays_are_read(tmp_path_factory: pytest.TempPathFactory, values: list[np.ndarray]) -> None:
    path = tmp_path_factory.mktemp("any") / "x.safetensors"
    path.write_bytes(save({f"layer.{place}": each for place, each in enumerate(values)}))
    found = everything(path)
    assert len(found) == len(values)
    for place, each in enumerate(values):
        assert_same(found[f"layer.{place}"], each)


@pytest.mark.torch
def test_narrow_floats_are_widened_exactly(tmp_path: Path) -> None:
    from safetensors.torch import save_file as save_torch

    torch.manual_seed(0)
    tensors = {name: torch.randn(3, 5).to(getattr(torch, name)) for name in ("bfloat16", "float16", "float8_e4m3fn")}
    path = tmp_path / "x.safetensors"
    save_torch(tensors, path)
    found = everything(path)
    for name in ("bfloat16", "float16"):
        assert_same(found[name], tensors[name].float().numpy())
    assert ignored(path) == {"float8_e4m3fn": "a tensor of the dtype F8_E4M3"}


def test_a_large_file_costs_what_is_read_of_it(tmp_path: Path) -> None:
    """2 GB, of which one small layer is wanted: the rest is a hole in the file that nobody touches."""
    big, small = 2 << 30, np.arange(6.0)
    header = {
        "embedding": entry("F32", (big // 4096, 1024), (0, big)),
        "rnn.bias": entry("F64", (6,), (big, big + 48)),
    }
    path = raw(tmp_path / "big.safetensors", header)
    with path.open("r+b") as file:
        file.seek(path.stat().st_size + big)
        file.write(small.tobytes())
    code = (
        "from pathlib import Path\n"
        "from gradcli.weights.formats import open_checkpoint\n"
        "with open_checkpoint(Path('big.safetensors'), 'big.safetensors') as checkpoint:\n"
        "    assert checkpoint.tensors['embedding'].nbytes == 2 << 30\n"
        "    assert checkpoint.read('rnn.bias').tolist() == [0, 1, 2, 3, 4, 5]\n"
    )
    if sys.platform == "linux":
        assert resident(code, tmp_path) < 100e6
    with opened(path) as checkpoint:
        assert_same(checkpoint.read("rnn.bias"), small)


def test_metadata_is_no_tensor(tmp_path: Path) -> None:
    save_file({"a": np.ones(2)}, tmp_path / "x.safetensors", metadata={"format": "np"})
    assert list(everything(tmp_path / "x.safetensors")) == ["a"]


def test_every_truncation_is_refused(tmp_path: Path) -> None:
    whole = save({"a": np.ones((2, 2)), "b": np.ones(3)})
    for length in range(len(whole)):
        path = tmp_path / "x.safetensors"
        path.write_bytes(whole[:length])
        refusal(path)


@pytest.mark.parametrize("number", [np.nan, np.inf, -np.inf])
def test_weights_that_are_not_finite_are_refused(number: float, tmp_path: Path) -> None:
    save_file({"w": np.array([[1.0, 2.0], [number, 3.0]])}, tmp_path / "x.safetensors")
    assert f"the tensor w is {number} at [1, 0]" in refusal(tmp_path / "x.safetensors")


HOSTILE: dict[str, tuple[Any, bytes, str]] = {
    "a hole": ({"a": entry(), "b": entry(offsets=(12, 20))}, bytes(20), "the tensor b has unused bytes before it"),
    "a hole in front": ({"a": entry(offsets=(4, 12))}, bytes(12), "the tensor a has unused bytes before it"),
    "an overlap": ({"a": entry(), "b": entry(offsets=(4, 12))}, bytes(12), "the tensor b overlaps another one"),
    "one place for two": ({"a": entry(), "b": entry()}, bytes(8), "the tensor b overlaps another one"),
    "beyond the end": ({"a": entry()}, bytes(7), "the file is cut off: its tensors take 8 bytes, and it holds 7"),
    "more than promised": ({"a": entry()}, bytes(9), "the file is damaged: its tensors take 8 bytes, and it holds 9"),
    "backwards": ({"a": entry(offsets=(8, 0))}, bytes(8), "the tensor a ends before it starts"),
    "a wrong shape": ({"a": entry(shape=(3,))}, bytes(8), "of shape (3,) takes 12 bytes, and the header gives it 8"),
    "a huge shape": ({"a": entry(shape=(2**40, 2**40))}, bytes(8), "has a shape that no tensor has"),
    "a huge empty shape": ({"a": entry(shape=(0, 2**61), offsets=(0, 0))}, b"", "has a shape that no tensor has"),
    "40 TB": ({"a": entry(shape=(10**13,), offsets=(0, 4 * 10**13))}, bytes(8), "the file is cut off"),
    "a negative length": ({"a": entry(shape=(-2,))}, bytes(8), "impossible dtype, shape or offset"),
    "a negative offset": ({"a": entry(offsets=(-8, 0))}, bytes(8), "impossible dtype, shape or offset"),
    "an offset beyond 64 bits": ({"a": entry(offsets=(0, 2**70))}, bytes(8), "impossible dtype, shape or offset"),
    "a length that is true": ({"a": entry(shape=(True, 2))}, bytes(8), "impossible dtype, shape or offset"),
    "a length with a point": ({"a": entry(shape=(2.0,))}, bytes(8), "impossible dtype, shape or offset"),
    "too many dimensions": ({"a": entry(shape=[1] * 33 + [2])}, bytes(8), "has 34 dimensions; at most 32"),
    "a dtype that is none": ({"a": entry(dtype=3)}, bytes(8), "impossible dtype, shape or offset"),
    "no offsets": ({"a": {"dtype": "F32", "shape": [2]}}, bytes(8), "is not a dtype, a shape and data_offsets"),
    "a key too many": ({"a": entry() | {"x": 1}}, bytes(8), "is not a dtype, a shape and data_offsets"),
    "a list of tensors": ({"a": [1]}, bytes(8), "is not a dtype, a shape and data_offsets"),
    "metadata of numbers": ({"__metadata__": {"a": 1}}, b"", "__metadata__ in the header is not a table of texts"),
    "a name of control codes": ({"\x1b[2J": entry()}, bytes(8), "cannot be printed: \\x1b[2J"),
    "half a character": (b'{"\\ud800": %s}' % json.dumps(entry()).encode(), bytes(8), "cannot be printed"),
    "a long name": ({"a" * 2000: entry()}, bytes(8), "a tensor's name is too long"),
    "a name twice": (b'{"a": %s, "a": {}}' % json.dumps(entry()).encode(), bytes(8), "a stands twice"),
    "a field twice": (b'{"a": {"dtype": "F32", "dtype": "F64"}}', b"", "dtype stands twice"),
    "no JSON": (b'{"a": ', b"", "the header is not valid JSON"),
    "no UTF-8": (b'{"\xff": 1}', b"", "the header is not valid JSON"),
    "no object": (b"[]", b"", "its header does not start with {"),
    "nested": (b'{"a": ' + b"[" * 100_000, b"", "the header is not valid JSON"),
    "a number of digits": (b'{"a": ' + b"9" * 100_000 + b"}", b"", "the header is not valid JSON"),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_what_breaks_the_format_is_refused(case: str, tmp_path: Path) -> None:
    header, data, message = HOSTILE[case]
    assert message in refusal(raw(tmp_path / "x.safetensors", header, data))


def test_a_header_longer_than_the_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    path.write_bytes((2**63).to_bytes(8, "little") + b"{}")
    assert "it declares a header of 9,223,372,036,854,775,808 bytes" in refusal(path)


def test_a_header_beyond_reason_is_refused_unread(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    length = safetensors.MAX_JSON + 1
    path.write_bytes(length.to_bytes(8, "little"))
    with path.open("r+b") as file:
        file.truncate(8 + length)
    assert "the header takes 16,777,217 bytes; at most 16,777,216" in refusal(path, ExitCode.RESOURCE)


def test_a_file_that_shrinks_after_it_was_opened_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    save_file({"a": np.ones(100)}, path)
    with opened(path) as checkpoint:
        with path.open("r+b") as file:
            file.truncate(200)
        with pytest.raises(safetensors.InputFileError, match="cut off"):
            checkpoint.read("a")
