"""Archives of NumPy: what `savez` writes is read bit by bit; bombs, lies and pickles are refused."""

from __future__ import annotations

import io
import os
import struct
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from checkpoint_files import assert_same, everything, ignored, opened, refusal, resident, zipped
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays, floating_dtypes, integer_dtypes

from gradcli.errors import ExitCode
from gradcli.weights.readers import zip_directory


def npy(values: Any, **options: Any) -> bytes:
    file = io.BytesIO()
    np.lib.format.write_array(file, np.asarray(values), **options)
    return file.getvalue()


def header(text: str, data: bytes = b"", version: int = 1) -> bytes:
    """An array with a header of one's own."""
    raw = text.encode("latin-1")
    length = struct.pack("<H" if version == 1 else "<I", len(raw))
    return b"\x93NUMPY" + bytes([version, 0]) + length + raw + data


def described(descr: str = "'<f8'", order: str = "False", shape: str = "(2,)") -> str:
    return f"{{'descr': {descr}, 'fortran_order': {order}, 'shape': {shape}, }}\n"


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_what_numpy_writes_is_read_bit_by_bit(save: Any, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    arrays_written = {
        "encoder/W_hh": rng.standard_normal((5, 4)),
        "columns": np.asfortranarray(rng.standard_normal((3, 4, 2))),
        "scalar": np.array(3.5),
        "empty": np.empty((0, 3), "f4"),
        "steps": np.arange(5, dtype="i2"),
        "flags": np.array([True, False]),
        "three.dots.npy": np.ones(2, "f4"),
    }
    save(tmp_path / "x.npz", **arrays_written)
    found = everything(tmp_path / "x.npz")
    assert list(found) == list(arrays_written)
    for name, values in arrays_written.items():
        assert_same(found[name], values)


@settings(deadline=None)
@given(arrays(st.one_of(floating_dtypes(sizes=(32, 64)), integer_dtypes()), array_shapes(min_dims=0, max_dims=4),
              elements={"allow_nan": False, "allow_infinity": False}), st.booleans())  # fmt: skip
def test_any_array_of_either_byte_order_is_read(
    tmp_path_factory: pytest.TempPathFactory, values: np.ndarray, deflated: bool
) -> None:
    path = tmp_path_factory.mktemp("any") / "x.npz"
    (np.savez_compressed if deflated else np.savez)(path, a=values)
    assert_same(everything(path)["a"], values.astype(values.dtype.newbyteorder("=")))


def test_half_precision_is_widened(tmp_path: Path) -> None:
    values = np.random.default_rng(0).standard_normal((3, 2)).astype("f2")
    np.savez(tmp_path / "x.npz", a=values, swapped=values.astype(">f2"))
    found = everything(tmp_path / "x.npz")
    assert_same(found["a"], values.astype("f4"))
    assert_same(found["swapped"], values.astype("f4"))


@pytest.mark.parametrize("version", [(1, 0), (2, 0), (3, 0)])
def test_every_version_of_the_header_is_read(version: tuple[int, int], tmp_path: Path) -> None:
    path = zipped(tmp_path / "x.npz", {"a.npy": npy(np.arange(3.0), version=version)})
    assert_same(everything(path)["a"], np.arange(3.0))


def test_a_header_of_another_writer_is_read(tmp_path: Path) -> None:
    text = '{"shape":(3L,),"fortran_order":False,"descr":"<f8"}'
    path = zipped(tmp_path / "x.npz", {"a.npy": header(text, np.arange(3.0).tobytes())})
    assert_same(everything(path)["a"], np.arange(3.0))


def test_other_arrays_are_ignored_and_nothing_is_unpickled(tmp_path: Path) -> None:
    canary = tmp_path / "canary"

    class Payload:
        def __reduce__(self) -> Any:
            return os.mkdir, (str(canary),)

    objects = np.empty(1, object)
    objects[0] = Payload()
    np.savez(
        tmp_path / "x.npz",
        objects=objects,
        words=np.array(["ab"]),
        complex=np.ones(2, "c8"),
        records=np.zeros(2, [("a", "f4"), ("b", "i4")]),
        bits=np.zeros(2, "V2"),
    )
    assert ignored(tmp_path / "x.npz") == {
        "objects": "an array of Python objects, which are never unpickled",
        "words": "an array of the dtype <U2",
        "complex": "an array of the dtype <c8",
        "records": "an array of records",
        "bits": "an array of the dtype |V2",
    }
    assert everything(tmp_path / "x.npz") == {}
    assert not canary.exists()
    np.load(tmp_path / "x.npz", allow_pickle=True)["objects"]
    assert canary.exists()  # the payload is one


def test_entries_that_are_no_arrays_are_ignored(tmp_path: Path) -> None:
    path = zipped(tmp_path / "x.npz", {"readme.txt": b"hello", "a.npy": npy(np.ones(2))})
    assert ignored(path) == {"readme.txt": "not an array of NumPy's"}


def test_one_array_is_read_without_the_others(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "x.npz", "w") as archive:
        archive.writestr("small.npy", npy(np.arange(3.0)))
        archive.writestr("large.npy", npy(np.zeros(25_000_000, "f4")))
    code = (
        "from pathlib import Path\n"
        "from gradcli.weights.formats import open_checkpoint\n"
        "with open_checkpoint(Path('x.npz'), 'x.npz') as checkpoint:\n"
        "    assert checkpoint.tensors['large'].nbytes == 100_000_000\n"
        "    assert checkpoint.read('small').tolist() == [0, 1, 2]\n"
    )
    assert resident(code, tmp_path) < 80e6


def test_a_bomb_is_refused_unread(tmp_path: Path) -> None:
    path = zipped(tmp_path / "x.npz", {"a.npy": npy(np.zeros(12_000_000))}, zipfile.ZIP_DEFLATED)
    assert path.stat().st_size < 120_000
    message = refusal(path, ExitCode.RESOURCE)
    assert "the entry a.npy would grow from" in message
    assert "to 96,000,128 when inflated; at most 100 times as many are allowed" in message


def test_constant_weights_of_ordinary_size_are_no_bomb(tmp_path: Path) -> None:
    np.savez_compressed(tmp_path / "x.npz", a=np.zeros((1000, 1000)))
    assert not everything(tmp_path / "x.npz")["a"].any()


def test_an_entry_that_inflates_to_more_than_it_declares_is_stopped(tmp_path: Path) -> None:
    content = npy(np.zeros(3))
    path = zipped(tmp_path / "x.npz", {"a.npy": content + bytes(30_000_000)}, zipfile.ZIP_DEFLATED)
    true_size, small = (struct.pack("<I", size) for size in (len(content) + 30_000_000, len(content)))
    path.write_bytes(path.read_bytes().replace(true_size, small))
    assert "the entry a.npy is longer than declared" in refusal(path)


def test_an_entry_that_inflates_to_less_than_it_declares_is_refused(tmp_path: Path) -> None:
    content = npy(np.zeros(3))
    path = zipped(tmp_path / "x.npz", {"a.npy": content[:-8]}, zipfile.ZIP_DEFLATED)
    path.write_bytes(path.read_bytes().replace(struct.pack("<I", len(content) - 8), struct.pack("<I", len(content))))
    assert "the entry a.npy is shorter than declared" in refusal(path)


@pytest.mark.parametrize("more", range(0, 300, 7))
def test_what_the_inflater_holds_back_is_fetched(more: int, tmp_path: Path) -> None:
    """Long runs: the last bytes of the file are taken in before all that they stand for has come out."""
    values = np.zeros(2 * zip_directory.CHUNK - 128 + more, "u1")
    np.savez_compressed(tmp_path / "x.npz", a=values)
    assert_same(everything(tmp_path / "x.npz")["a"], values)


def test_a_wrong_checksum_is_refused(tmp_path: Path) -> None:
    np.savez(tmp_path / "x.npz", a=np.full(3, 1.5))
    raw = (tmp_path / "x.npz").read_bytes()
    (tmp_path / "x.npz").write_bytes(raw.replace(struct.pack("<d", 1.5), struct.pack("<d", 2.5), 1))
    assert "the checksum of the entry a.npy is wrong" in refusal(tmp_path / "x.npz")


HOSTILE: dict[str, tuple[bytes, str]] = {
    "10^12 entries": (header(described(shape="(1000000000000,)"), bytes(16)), "takes 8,000,000,000,000 bytes, and"),
    "a shape that overflows": (header(described(shape=f"({2**40}, {2**40})"), bytes(16)), "a shape that no tensor has"),
    "a long number": (header(described(shape="(" + "9" * 5000 + ",)"), bytes(16)), "a shape that no array has"),
    "a negative length": (header(described(shape="(-5,)"), bytes(16)), "a header that is not NumPy's"),
    "too many dimensions": (header(described(shape="(" + "1, " * 40 + ")"), bytes(8)), "40 dimensions; at most 32"),
    "too few bytes": (header(described(), bytes(15)), "of shape (2,) takes 16 bytes, and the file holds 15"),
    "too many bytes": (header(described(), bytes(17)), "of shape (2,) takes 16 bytes, and the file holds 17"),
    "code": (header("__import__('os').system('true')", bytes(16)), "a header that is not NumPy's"),
    "a key twice": (header("{'descr': '<f8', 'descr': '<f8', 'shape': (2,)}", bytes(16)), "header that is not NumPy's"),
    "values exchanged": (header("{'descr': (2,), 'shape': '<f8', 'fortran_order': False}"), "header that is not"),
    "blanks": (header(described()[:-3] + " " * 9000 + "x", bytes(16)), "a header that is not NumPy's"),
    "nested": (header("(" * 9000), "a header that is not NumPy's"),
    "a long header": (
        header(described(), bytes(16), 2).replace(b"\x02\x00", b"\x02\x00\xff\xff\xff\x7f"),
        "declares a",
    ),
    "another version": (b"\x93NUMPY\x09\x00" + header(described(), bytes(16))[8:], "is not an array of NumPy's"),
    "no magic": (b"PK" + npy(np.ones(3)), "the entry a.npy is not an array of NumPy's"),
    "nothing": (b"", "the entry a.npy is not an array of NumPy's"),
    "not a number": (npy(np.array([0.0, np.nan])), "the tensor a is nan at [1]"),
}


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
@pytest.mark.parametrize("case", HOSTILE)
def test_what_is_not_numpys_is_refused(case: str, method: int, tmp_path: Path) -> None:
    content, message = HOSTILE[case]
    assert message in refusal(zipped(tmp_path / "x.npz", {"a.npy": content}, method))


def test_every_truncation_is_refused(tmp_path: Path) -> None:
    np.savez(tmp_path / "x.npz", a=np.ones(2), b=np.ones(3))
    whole = (tmp_path / "x.npz").read_bytes()
    for length in range(len(whole)):
        (tmp_path / "x.npz").write_bytes(whole[:length])
        refusal(tmp_path / "x.npz")


def test_a_missing_name_is_a_mistake_of_the_caller(tmp_path: Path) -> None:
    np.savez(tmp_path / "x.npz", a=np.ones(2))
    with opened(tmp_path / "x.npz") as checkpoint, pytest.raises(KeyError):
        checkpoint.read("b")
