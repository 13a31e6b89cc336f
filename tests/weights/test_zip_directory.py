"""Zip files that lie about themselves, as .npz files: the directory is believed in nothing that can be compared."""

from __future__ import annotations

import io
import struct
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from checkpoint_files import everything, refusal, zipped

from gradcli.errors import ExitCode
from gradcli.weights.readers import zip_directory

CENTRAL, LOCAL, END = b"PK\x01\x02", b"PK\x03\x04", b"PK\x05\x06"


def npy(values: np.ndarray) -> bytes:
    file = io.BytesIO()
    np.lib.format.write_array(file, values)
    return file.getvalue()


def archive() -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as written:
        written.writestr("a.npy", npy(np.ones(2)))
        written.writestr("b.npy", npy(np.ones(3)))
    return file.getvalue()


def patched(signature: bytes, offset: int, layout: str, value: int, last: bool = False) -> bytes:
    """A good archive with one field of a header overwritten."""
    raw = bytearray(archive())
    at = raw.rindex(signature) if last else raw.index(signature)
    struct.pack_into(layout, raw, at + offset, value)
    return bytes(raw)


def with_zip64(count: int = 2, size: int | None = None, start: int | None = None, disks: int = 1) -> bytes:
    """A good archive with a zip64 record at its end, which may lie."""
    raw = archive()
    end = raw.index(END)
    size_here, start_here = struct.unpack_from("<2I", raw, end + 12)
    size, start = size_here if size is None else size, start_here if start is None else start
    record = struct.pack("<4sQ2H2I4Q", b"PK\x06\x06", 44, 45, 45, 0, 0, count, count, size, start)
    locator = struct.pack("<4sIQI", b"PK\x06\x07", 0, end, disks)
    return raw[:end] + record + locator + raw[end:]


HOSTILE: dict[str, tuple[Callable[[], bytes], str]] = {
    "nothing": (lambda: b"", "not a zip file, or one that is cut off"),
    "no zip": (lambda: b"hello" * 100, "not a zip file, or one that is cut off"),
    "bytes after the end": (lambda: archive() + b"x", "not a zip file, or one that is cut off"),
    "bytes in front": (lambda: b"x" + archive(), "its end does not tell where its directory is"),
    "encrypted": (lambda: patched(CENTRAL, 8, "<H", 1), "the entry a.npy of the zip file is encrypted"),
    "encrypted inside": (lambda: patched(LOCAL, 6, "<H", 1), "the directory and the entry a.npy disagree"),
    "bzip2": (lambda: patched(CENTRAL, 10, "<H", 12), "is compressed in a way that is not read"),
    "another method inside": (lambda: patched(LOCAL, 8, "<H", 8), "the directory and the entry a.npy disagree"),
    "stored, of two sizes": (lambda: patched(CENTRAL, 24, "<I", 10**9), "the entry a.npy declares two sizes"),
    "too large": (lambda: patched(CENTRAL, 20, "<I", 10**6), "a.npy lies outside of it or overlaps another one"),
    "beyond the end": (lambda: patched(CENTRAL, 42, "<I", 10**6), "a.npy lies outside of it or overlaps another one"),
    "in another's bytes": (lambda: patched(CENTRAL, 42, "<I", 0, last=True), "two of its entries share their bytes"),
    "within another": (lambda: patched(CENTRAL, 42, "<I", 50, last=True), "overlaps another one"),
    "a long extra field": (lambda: patched(LOCAL, 28, "<H", 999), "the directory and the entry a.npy disagree"),
    "a long name": (lambda: patched(CENTRAL, 28, "<H", 65535), "its directory is damaged"),
    "a name of its own inside": (lambda: archive().replace(b"a.npy", b"c.npy", 1), "and the entry a.npy disagree"),
    "too many entries": (lambda: patched(END, 10, "<H", 3), "its end does not tell where its directory is"),
    "too few entries": (
        lambda: archive().replace(END + struct.pack("<4H", 0, 0, 2, 2), END + struct.pack("<4H", 0, 0, 1, 1)),
        "it declares 1 entries and lists 2",
    ),
    "another disk": (lambda: patched(END, 4, "<H", 1), "its end does not tell where its directory is"),
    "zip64 without its field": (lambda: patched(CENTRAL, 24, "<I", 0xFFFFFFFF), "a zip64 field is missing"),
    "zip64 of another count": (lambda: with_zip64(count=9), "its zip64 record disagrees with the end of the file"),
    "zip64 of another size": (lambda: with_zip64(size=2**40), "its zip64 record disagrees with the end of the file"),
    "zip64 elsewhere": (lambda: with_zip64(start=1), "its zip64 record disagrees with the end of the file"),
    "zip64 of two disks": (lambda: with_zip64(disks=2), "its zip64 record is misplaced"),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_a_zip_file_that_lies_is_refused(case: str, tmp_path: Path) -> None:
    make, message = HOSTILE[case]
    (tmp_path / "x.npz").write_bytes(make())
    assert message in refusal(tmp_path / "x.npz")


def test_an_honest_zip64_record_is_read(tmp_path: Path) -> None:
    (tmp_path / "x.npz").write_bytes(with_zip64())
    assert set(everything(tmp_path / "x.npz")) == {"a", "b"}


def test_a_comment_is_passed_over(tmp_path: Path) -> None:
    path = zipped(tmp_path / "x.npz", {"a.npy": npy(np.ones(2))})
    with zipfile.ZipFile(path, "a") as written:
        written.comment = b"PK\x05\x06, says the comment, " * 10
    assert set(everything(path)) == {"a"}


@pytest.mark.parametrize("name", ["../a.npy", "/a.npy", "a/../../b.npy", "..\\a.npy", "a\n.npy", "\x1b[2J.npy"])
def test_names_that_lead_out_or_cannot_be_printed_are_refused(name: str, tmp_path: Path) -> None:
    assert "the unsafe name" in refusal(zipped(tmp_path / "x.npz", {name: npy(np.ones(2))}))


def test_two_entries_of_one_name_are_refused(tmp_path: Path) -> None:
    with warnings.catch_warnings(), zipfile.ZipFile(tmp_path / "x.npz", "w") as written:
        warnings.simplefilter("ignore", UserWarning)
        written.writestr("a.npy", npy(np.ones(2)))
        written.writestr("a.npy", npy(np.zeros(2)))
    assert "two entries of the zip file have the name a.npy" in refusal(tmp_path / "x.npz")


def test_a_directory_beyond_reason_is_refused_unread(tmp_path: Path) -> None:
    size = zip_directory.MAX_DIRECTORY + 1
    with (tmp_path / "x.npz").open("wb") as file:
        file.seek(size)
        file.write(struct.pack("<4s4H2IH", END, 0, 0, 1, 1, size, 0, 0))
    assert "the directory of the zip file takes 16,777,217 bytes" in refusal(tmp_path / "x.npz", ExitCode.RESOURCE)


def test_large_archives_have_their_sizes_in_zip64_fields(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "x.npz", "w") as written, written.open("a.npy", "w", force_zip64=True) as entry:
        entry.write(npy(np.arange(4.0)))
    raw = bytearray((tmp_path / "x.npz").read_bytes())
    at = raw.index(CENTRAL)
    stored, size, name_length = *struct.unpack_from("<2I", raw, at + 20), 5
    struct.pack_into("<2I", raw, at + 20, 0xFFFFFFFF, 0xFFFFFFFF)
    struct.pack_into("<H", raw, at + 30, 20)
    field = struct.pack("<2H2Q", 1, 16, size, stored)
    raw[at + 46 + name_length : at + 46 + name_length] = field
    end = raw.index(END)
    struct.pack_into("<I", raw, end + 12, end - at)
    (tmp_path / "x.npz").write_bytes(raw)
    assert everything(tmp_path / "x.npz")["a"].tolist() == [0.0, 1.0, 2.0, 3.0]
