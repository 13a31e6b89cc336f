"""Arrays in .npz files, honest and hostile: a clear refusal, before the memory is taken."""

from __future__ import annotations

import io
import pickle
import re
import struct
import tracemalloc
import zipfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gradcli.errors import GradcliError, InputFileError
from gradcli.sources import npz
from gradcli.sources.arrays import read_array
from gradcli.sources.files import FieldError

MIB = 2**20
VALUES = np.random.default_rng(0).standard_normal((4, 3, 2))


def npy(array: np.ndarray, *, shape: str | None = None) -> bytes:
    """Return a .npy; `shape` is what its header says instead of the truth."""
    file = io.BytesIO()
    np.lib.format.write_array(file, array, version=(1, 0))
    content = file.getvalue()
    if shape is None:
        return content
    told = f"'shape': {array.shape}".encode()
    lie = f"'shape': {shape}".encode()
    assert told in content
    header = content[:128].replace(told, lie)
    # The header is padded with spaces, so that a longer shape keeps its length.
    return header.rstrip(b" \n")[:127].ljust(127) + b"\n" + content[128:]


def write_zip(path: Path, entries: dict[str, bytes], compression: int = zipfile.ZIP_DEFLATED) -> None:
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, content in entries.items():
            archive.writestr(name, content)


def read(path: Path, key: str | None = None) -> np.ndarray:
    return read_array(path, "x.npz", key=key)


def refusal(path: Path, key: str | None = None) -> str:
    with pytest.raises(InputFileError) as error:
        read(path, key)
    assert error.value.exit_code == 4
    return str(error.value)


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_arrays_are_found_by_their_key(tmp_path: Path, save) -> None:
    path = tmp_path / "x.npz"
    save(path, a=VALUES, b=np.asfortranarray(VALUES[0]), c=np.arange(5, dtype=">u2"))
    for key, expected in {"a": VALUES, "b": VALUES[0], "c": np.arange(5)}.items():
        assert np.array_equal(read(path, key), expected)
    save(path, only=VALUES)
    assert np.array_equal(read(path), VALUES)


def test_a_key_that_there_is_not(tmp_path: Path) -> None:
    path = tmp_path / "x.npz"
    np.savez(path, rows=VALUES, labels=VALUES)
    with pytest.raises(FieldError) as error:
        read(path, "row")
    assert str(error.value) == "x.npz has no array 'row'; it holds: rows, labels; did you mean 'rows'?"
    assert (error.value.path, error.value.exit_code) == (("key",), 2)
    with pytest.raises(FieldError, match=re.escape("x.npz holds 2 arrays (rows, labels); say which with `key:`")):
        read(path)
    np.savez(path, **{f"a{n}": VALUES for n in range(20)})
    with pytest.raises(FieldError, match=re.escape("(a0, a1, a2, a3, a4, a5, a6, a7, ...)")):
        read(path)


def test_a_bomb_is_refused_by_what_it_declares(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(npz, "MAX_SERIES_BYTES", 16 * MIB)
    path = tmp_path / "x.npz"
    np.savez_compressed(path, x=np.zeros(4 * MIB))
    assert path.stat().st_size < MIB
    tracemalloc.start()
    try:
        message = refusal(path)
        taken = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert message == (
        "x.npz, array 'x': 32 MiB is more than the 16 MiB that are accepted; cut out the part that is needed"
    )
    assert taken < 4 * MIB


def test_a_bomb_that_declares_little_gives_no_more_than_that(tmp_path: Path) -> None:
    """The directory and the header say 16 bytes; the compressed entry goes on for 64 MiB."""
    path = tmp_path / "x.npz"
    honest = npy(np.zeros(2))
    write_zip(path, {"x.npy": honest + bytes(64 * MIB)})
    content = bytearray(path.read_bytes())
    size = struct.pack("<L", len(honest) + 64 * MIB)
    assert content.count(size) == 2  # in the entry's own header, and in the directory
    path.write_bytes(bytes(content).replace(size, struct.pack("<L", len(honest))))
    tracemalloc.start()
    try:
        message = refusal(path)
        taken = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert message.startswith("x.npz: the zip file is damaged: Bad CRC-32")
    assert taken < 4 * MIB


@pytest.mark.parametrize("shape", ["(1000000000000,)", "(1, 3)", "(2, 2)", "(0,)", "(-5,)", "('a',)", "(2,"])
def test_a_header_that_lies_is_refused_before_any_memory_is_taken(tmp_path: Path, shape: str) -> None:
    path = tmp_path / "x.npz"
    write_zip(path, {"x.npy": npy(np.zeros(2), shape=shape)})
    tracemalloc.start()
    try:
        message = refusal(path)
        taken = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert message.startswith("x.npz, array 'x': ")
    assert taken < 4 * MIB


def test_the_words_of_a_lie(tmp_path: Path) -> None:
    path = tmp_path / "x.npz"
    write_zip(path, {"x.npy": npy(np.zeros(2), shape="(1000000000000,)")})
    assert refusal(path) == (
        "x.npz, array 'x': shape (1000000000000,) of float64 takes 8000000000128 bytes, but 144 are there"
    )


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (npy(np.array(["a"])), "expected real numbers; got an array of strings"),
        (npy(np.array([True])), "expected real numbers; got an array of booleans"),
        (npy(np.array([1j])), "expected real numbers; got an array of complex numbers"),
        (npy(np.array([{}], dtype=object)), "expected real numbers; got an array of Python objects"),
        (npy(np.zeros((0, 2))), "the array is empty: its shape is (0, 2)"),
        (pickle.dumps([1]), "is not a .npy file that NumPy can read: "),
        (b"", "is not a .npy file that NumPy can read: "),
    ],
)
def test_what_is_no_array_of_numbers_is_refused(tmp_path: Path, content: bytes, words: str) -> None:
    write_zip(tmp_path / "x.npz", {"x.npy": content})
    assert refusal(tmp_path / "x.npz").startswith(f"x.npz, array 'x': {words}")


def test_nothing_in_a_pickle_is_run(tmp_path: Path) -> None:
    class Sneaky:
        def __reduce__(self) -> tuple[object, ...]:
            return (Path.touch, (tmp_path / "ran",))

    file = io.BytesIO()
    np.save(file, np.array([Sneaky()], dtype=object), allow_pickle=True)
    write_zip(tmp_path / "x.npz", {"x.npy": file.getvalue()})
    assert "Python objects" in refusal(tmp_path / "x.npz")
    assert not (tmp_path / "ran").exists()


def test_other_zips_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.npz"
    write_zip(path, {"x.npy": npy(VALUES)}, zipfile.ZIP_LZMA)
    assert refusal(path) == "x.npz, array 'x': is compressed in a way that NumPy does not write"
    write_zip(path, {"x.npy": npy(VALUES), "x": npy(VALUES)})
    assert refusal(path) == "x.npz: two arrays are called 'x'"
    write_zip(path, {"x.npy": npy(VALUES)}, zipfile.ZIP_STORED)
    content = bytearray(path.read_bytes())
    content[content.index(b"PK\x01\x02") + 8] |= 1
    path.write_bytes(content)
    assert refusal(path) == "x.npz, array 'x': is encrypted"
    write_zip(path, {})
    with pytest.raises(FieldError, match=r"x\.npz holds no array"):
        read(path)
    path.write_bytes(b"\x93NUMPY" + bytes(100))
    assert refusal(path) == "x.npz: is not a .npz file: it does not end as a zip does"
    path.write_bytes(b"")
    assert refusal(path) == "x.npz: the file is empty"


def test_a_directory_beyond_reason_is_refused_before_it_is_read(tmp_path: Path) -> None:
    path = tmp_path / "x.npz"
    write_zip(path, {"x.npy": npy(VALUES)})
    content = bytearray(path.read_bytes())
    content[-10:-6] = struct.pack("<L", 2**30)
    path.write_bytes(content)
    assert refusal(path) == "x.npz: the directory of the zip takes 1,073,741,824 bytes; it is refused"


@pytest.mark.parametrize("compression", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_a_damaged_entry_is_refused(tmp_path: Path, compression: int) -> None:
    path = tmp_path / "x.npz"
    write_zip(path, {"x.npy": npy(VALUES)}, compression)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0xFF
    path.write_bytes(content)
    assert refusal(path).startswith("x.npz")


WHOLE = io.BytesIO()
np.savez_compressed(WHOLE, x=VALUES)


@settings(max_examples=300)
@given(st.data())
def test_any_damage_is_told_or_does_no_harm(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    content = bytearray(WHOLE.getvalue())
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    end = data.draw(st.one_of(st.just(len(content)), st.integers(1, len(content))))
    path = tmp_path_factory.mktemp("damaged") / "x.npz"
    path.write_bytes(content[:end])
    try:
        found: np.ndarray | str = read(path)
    except GradcliError as error:
        found = str(error)
    assert found.startswith("x.npz") if isinstance(found, str) else np.array_equal(found, VALUES)
