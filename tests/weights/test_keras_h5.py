"""The reader of Keras's HDF5 files: what it reads, and what hostile files come to."""

from __future__ import annotations

import importlib.util
import io
import json
import os
import signal
import sys
import zipfile
import zlib
from collections.abc import Callable
from importlib.machinery import ModuleSpec
from pathlib import Path
from time import monotonic

import h5py
import numpy as np
import pytest

from gradcli.errors import GradcliError, InputFileError, ResourceError, UsageError
from gradcli.weights.readers import hdf5_process
from gradcli.weights.readers.keras_h5 import KerasCheckpoint, open_file

SECRET = 1234.5


def opened(path: Path) -> KerasCheckpoint:
    return open_file(path, "model.h5")


def refused(path: Path, kind: type[GradcliError] = InputFileError) -> str:
    """Return the text with which a file is refused, on opening or on reading a tensor."""

    def read_all() -> None:
        with opened(path) as checkpoint:
            for tensor in checkpoint.tensors:
                checkpoint.read(tensor)

    with pytest.raises(kind) as caught:
        read_all()
    text = str(caught.value)
    assert text.startswith("model.h5: ")
    assert "\n" not in text
    return text


def written(path: Path, write: Callable[[h5py.File], None]) -> Path:
    with h5py.File(path, "w") as file:
        write(file)
    return path


@pytest.fixture
def secret(tmp_path: Path) -> Path:
    return written(tmp_path / "secret.h5", lambda file: file.create_dataset("w", data=np.full(4, SECRET)))


def keras_archive(path: Path, weights: bytes, compression: int = zipfile.ZIP_STORED, config: str = "{}") -> Path:
    with zipfile.ZipFile(path, "w", compression) as archive:
        archive.writestr("metadata.json", "not read")
        archive.writestr("config.json", config)
        archive.writestr("model.weights.h5", weights)
    return path


def weights_bytes() -> bytes:
    file = io.BytesIO()
    with h5py.File(file, "w") as inside:
        own = inside.create_group("layers/lstm/cell/vars", track_order=True)
        own.attrs["name"] = "lstm_cell"
        own["0"] = np.arange(24.0).reshape(3, 8)
        inside["optimizer/vars/0"] = 3
    return file.getvalue()


@pytest.mark.parametrize("compression", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_an_archive_gives_its_config_and_its_weights(tmp_path: Path, compression: int) -> None:
    config = {"class_name": "Sequential", "config": {"layers": [{"units": 2}]}}
    path = keras_archive(tmp_path / "m.keras", weights_bytes(), compression, json.dumps(config))
    with opened(path) as checkpoint:
        assert checkpoint.config == config
        assert checkpoint.attributes == {"layers/lstm/cell/vars": {"name": "lstm_cell"}}
        assert list(checkpoint.tensors) == ["layers/lstm/cell/vars/0"]
        assert [(each.name, "optimizer" in each.reason) for each in checkpoint.ignored] == [("optimizer", True)]
        np.testing.assert_array_equal(checkpoint.read("layers/lstm/cell/vars/0"), np.arange(24.0).reshape(3, 8))


def test_a_legacy_file_gives_its_config_and_the_order_of_its_weights(tmp_path: Path) -> None:
    def write(file: h5py.File) -> None:
        file.attrs["model_config"] = '{"class_name": "Functional"}'
        file.attrs["keras_version"] = b"2.15.0"
        layer = file.create_group("model_weights/enc")
        file["model_weights"].attrs["layer_names"] = [b"enc"]
        layer.attrs["weight_names0"] = np.array([b"enc/kernel:0", b"enc/recurrent_kernel:0"])
        layer.attrs["weight_names1"] = np.array([b"enc/bias:0"])
        layer["enc/kernel:0"] = np.ones((2, 4), ">f4")

    with opened(written(tmp_path / "m.h5", write)) as checkpoint:
        assert checkpoint.config == {"class_name": "Functional"}
        assert checkpoint.attributes == {
            "": {"keras_version": "2.15.0"},
            "model_weights": {"layer_names": ("enc",)},
            "model_weights/enc": {"weight_names": ("enc/kernel:0", "enc/recurrent_kernel:0", "enc/bias:0")},
        }
        entries = checkpoint.read("model_weights/enc/enc/kernel:0")
        assert entries.dtype == np.dtype(np.float32)
        np.testing.assert_array_equal(entries, np.ones((2, 4)))


def test_a_file_of_weights_alone_has_no_config(tmp_path: Path) -> None:
    (tmp_path / "m.weights.h5").write_bytes(weights_bytes())
    with opened(tmp_path / "m.weights.h5") as checkpoint:
        assert checkpoint.config is None


@pytest.mark.parametrize("dtype", ["f8", "f4", "f2", ">f8", "i8", "i4", "i2", "i1", "u8", "u4", "u2", "u1", "?"])
@pytest.mark.parametrize("options", [{}, {"compression": "gzip", "shuffle": True}, {"compression": "lzf"}])
def test_every_dtype_and_every_filter_that_is_read(tmp_path: Path, dtype: str, options: dict[str, object]) -> None:
    entries = np.array([[0, 1, 2], [3, 100, 7]]).astype(dtype)
    path = written(tmp_path / "m.h5", lambda file: file.create_dataset("w", data=entries, **options))
    with opened(path) as checkpoint:
        assert checkpoint.tensors["w"].dtype == np.dtype(dtype).name
        np.testing.assert_array_equal(checkpoint.read("w"), entries)


def test_a_bfloat16_of_keras_is_widened(tmp_path: Path) -> None:
    ml_dtypes = pytest.importorskip("ml_dtypes")
    values = np.array([[1.0, -2.5], [0.0, 3e38]])

    def write(file: h5py.File) -> None:
        file.create_dataset("w", data=values.astype(ml_dtypes.bfloat16)).attrs["dtype"] = "bfloat16"

    with opened(written(tmp_path / "m.h5", write)) as checkpoint:
        assert checkpoint.tensors["w"].dtype == "bfloat16"
        np.testing.assert_array_equal(checkpoint.read("w"), values.astype(ml_dtypes.bfloat16).astype(np.float32))


def test_what_holds_no_numbers_is_ignored(tmp_path: Path) -> None:
    def write(file: h5py.File) -> None:
        file["texts"] = ["a", "b"]
        file["pair"] = np.zeros(2, [("x", "f4"), ("y", "i4")])
        file["ragged"] = np.array([np.ones(2), np.ones(3)], h5py.vlen_dtype("f8"))
        file["bytes"] = np.array([b"ab"], "V2")
        file["reference"] = np.array([file["texts"].ref], h5py.ref_dtype)
        file["complex"] = np.ones(2, complex)
        file["type"] = np.dtype("f4")
        file["w"] = np.ones(2)

    with opened(written(tmp_path / "m.h5", write)) as checkpoint:
        assert list(checkpoint.tensors) == ["w"]
        ignored = {each.name for each in checkpoint.ignored}
        assert ignored == {"texts", "pair", "ragged", "bytes", "reference", "complex", "type"}


def test_a_tensor_that_is_not_finite_is_named(tmp_path: Path) -> None:
    path = written(tmp_path / "m.h5", lambda file: file.create_dataset("a/w", data=[1.0, np.nan]))
    assert "a/w is nan at [1]" in refused(path)


def test_links_to_other_places_are_not_followed(tmp_path: Path, secret: Path) -> None:
    def write(file: h5py.File) -> None:
        file["w"] = np.ones(4)
        file["external"] = h5py.ExternalLink("secret.h5", "/w")
        file["absolute"] = h5py.ExternalLink(str(secret), "/")
        file["soft"] = h5py.SoftLink("/external")
        file["dangling"] = h5py.SoftLink("/nothing")

    with opened(written(tmp_path / "m.h5", write)) as checkpoint:
        assert list(checkpoint.tensors) == ["w"]
        assert {each.name for each in checkpoint.ignored} == {"external", "absolute", "soft", "dangling"}
        assert all("not followed" in each.reason for each in checkpoint.ignored)


def test_a_name_with_a_slash_does_not_lead_through_a_link(tmp_path: Path, secret: Path) -> None:
    """HDF5 takes the name of a link for a path: a hard link called a/w would be w behind the external link a."""

    def write(file: h5py.File) -> None:
        file["a"] = h5py.ExternalLink("secret.h5", "/")
        file["b_w"] = np.zeros(4)

    path = written(tmp_path / "m.h5", write)
    content = path.read_bytes()
    assert content.count(b"b_w") == 1
    path.write_bytes(content.replace(b"b_w", b"a/w"))
    with h5py.File(path) as file:
        assert file["a/w"][0] == SECRET  # so would a walk that trusts names read it
    with opened(path) as checkpoint:
        assert checkpoint.tensors == {}
        assert ("a/w", "a name that is a path") in [(each.name, each.reason) for each in checkpoint.ignored]


@pytest.mark.skipif(sys.platform == "win32", reason="there is no such limit")
def test_the_process_could_not_open_another_file(tmp_path: Path, secret: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Were a link followed by mistake, the operating system would still say no."""
    path = written(tmp_path / "m.h5", lambda file: file.create_dataset("w", data=[1.0]))
    following = f"from gradcli.weights.readers import hdf5; hdf5.Hdf5File = lambda file: open({str(secret)!r}); serve()"
    monkeypatch.setattr(hdf5_process, "_PROGRAM", hdf5_process._PROGRAM.replace("serve()", following))
    assert "Too many open files" in refused(path)


def test_external_storage_is_refused(tmp_path: Path) -> None:
    raw = tmp_path / "raw.bin"
    raw.write_bytes(np.full(4, SECRET).tobytes())

    def write(file: h5py.File) -> None:
        file.create_dataset("w", (4,), "f8", external=[(str(raw), 0, h5py.h5f.UNLIMITED)])

    path = written(tmp_path / "m.h5", write)
    text = refused(path)
    assert "w has its entries in other files" in text


@pytest.mark.parametrize("unlimited", [False, True])
def test_a_virtual_dataset_is_refused(tmp_path: Path, secret: Path, unlimited: bool) -> None:
    layout = h5py.VirtualLayout((4,), "f8", maxshape=(None,) if unlimited else None)
    source = h5py.VirtualSource(str(secret), "w", shape=(4,))
    layout[:] = source

    path = written(tmp_path / "m.h5", lambda file: file.create_virtual_dataset("w", layout))
    with h5py.File(path) as file:
        assert file["w"][0] == SECRET
    assert "w has its entries in other files" in refused(path)


def test_loops_of_groups_end(tmp_path: Path) -> None:
    def write(file: h5py.File) -> None:
        file["a/b/w"] = np.ones(2)
        file["a/b/up"] = file["a"]
        file["a/b/root"] = file["/"]
        file["again"] = file["a/b/w"]

    with opened(written(tmp_path / "m.h5", write)) as checkpoint:
        assert set(checkpoint.tensors) == {"a/b/w", "again"}
        assert {each.name for each in checkpoint.ignored} == {"a/b/up", "a/b/root"}


def test_groups_that_are_very_deep_are_left(tmp_path: Path) -> None:
    with opened(written(tmp_path / "m.h5", lambda file: file.create_dataset("g/" * 200 + "w", data=[1.0]))) as found:
        assert found.tensors == {}
        assert "groups deep" in found.ignored[0].reason


@pytest.mark.parametrize("chunks", [None, (2**20,)])
def test_four_terabytes_of_nothing_are_refused(tmp_path: Path, chunks: tuple[int] | None) -> None:
    path = written(tmp_path / "m.h5", lambda file: file.create_dataset("w", (2**40,), "f4", chunks=chunks))
    assert "w claims 4,398,046,511,104 bytes, and the file holds 0 for it" in refused(path)


def test_a_chunk_much_larger_than_its_dataset_is_refused(tmp_path: Path) -> None:
    def write(file: h5py.File) -> None:
        file.create_dataset("w", (1,), "f4", maxshape=(None,), chunks=(2**29,), compression="gzip")

    assert "in chunks of 2,147,483,648 bytes" in refused(written(tmp_path / "m.h5", write), ResourceError)


def test_a_dataset_that_inflates_beyond_what_is_read_is_refused(tmp_path: Path) -> None:
    """Each chunk is 64 MB of zeros in 64 kB; all of them together are 3 GB."""
    space = 2**24

    def write(file: h5py.File) -> None:
        made = file.create_dataset("w", (48 * space,), "f4", chunks=(space,), compression="gzip")
        made[:space] = 0
        _, chunk = made.id.read_direct_chunk((0,))
        for index in range(1, 48):
            made.id.write_direct_chunk((index * space,), chunk)

    path = written(tmp_path / "m.h5", write)
    assert path.stat().st_size < 8 * 2**20
    assert "at most 2,147,483,648 can be read" in refused(path, ResourceError)


def test_a_chunk_that_inflates_to_more_than_it_claims_takes_no_more_memory_than_allowed(tmp_path: Path) -> None:
    packer = zlib.compressobj(9)
    start = packer.compress(b"")
    block = packer.compress(bytes(2**24)) + packer.flush(zlib.Z_FULL_FLUSH)
    again = packer.compress(bytes(2**24)) + packer.flush(zlib.Z_FULL_FLUSH)
    bomb = start + block + 511 * again  # 8 GB of zeros; a block after a full flush needs none before it

    def write(file: h5py.File) -> None:
        made = file.create_dataset("w", (1024,), "f4", chunks=(1024,), compression="gzip")
        made.id.write_direct_chunk((0,), bomb)

    path = written(tmp_path / "m.h5", write)
    with opened(path) as checkpoint:
        with pytest.raises((InputFileError, ResourceError)):
            checkpoint.read("w")
        if sys.platform == "linux":
            process = checkpoint._process._process
            assert process.poll() is None  # stopped by what it may take, before it was by its time
            status = Path(f"/proc/{process.pid}/status").read_text()
            assert int(status.split("VmHWM:")[1].split()[0]) < 1.5 * 2**20


def test_a_filter_that_is_not_read_is_named(tmp_path: Path) -> None:
    def write(file: h5py.File) -> None:
        file.create_dataset("w", data=np.arange(64), chunks=(8,), scaleoffset=0)

    assert "w is compressed by filter 6; those that are read are gzip" in refused(written(tmp_path / "m.h5", write))


def test_names_that_cannot_be_printed_are_ignored(tmp_path: Path) -> None:
    def write(file: h5py.File) -> None:
        file.id.links.create_soft(b"\x1b[31m", b"/x")
        h5py.h5g.create(file.id, b"\xff\xfe")

    with opened(written(tmp_path / "m.h5", write)) as checkpoint:
        assert sorted(each.name for each in checkpoint.ignored) == ["\\x1b[31m", "\\xff\\xfe"]


def test_too_many_objects_are_refused(tmp_path: Path) -> None:
    def write(file: h5py.File) -> None:
        group = file.create_group("g")
        for index in range(100_001):
            group.id.links.create_soft(b"%d" % index, b"/")

    assert "more than 100,000 objects" in refused(written(tmp_path / "m.h5", write), ResourceError)


def test_a_root_that_is_a_dataset_is_refused(tmp_path: Path) -> None:
    path = written(tmp_path / "m.h5", lambda file: file.create_dataset("w", data=np.ones(4)))
    with h5py.File(path) as file:
        place = h5py.h5o.get_info(file["w"].id).addr
    content = bytearray(path.read_bytes())
    content[64:72] = place.to_bytes(8, "little")  # the root's object header, in the superblock's entry for it
    content[72:76] = bytes(4)  # and nothing else of it there
    path.write_bytes(content)
    assert "begins with something else than a group" in refused(path)


def test_a_file_cut_short_anywhere_is_refused(tmp_path: Path) -> None:
    whole = weights_bytes()
    for length in (0, 1, 4, 8, 96, 800, len(whole) // 2, len(whole) - 1):
        (tmp_path / "m.h5").write_bytes(whole[:length])
        refused(tmp_path / "m.h5")


@pytest.mark.parametrize("content", [b"hello", b"PK\x03\x04" + bytes(100), b"\x89HDF\r\n\x1a\n" + b"\xff" * 5000])
def test_other_files_are_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "m.h5").write_bytes(content)
    refused(tmp_path / "m.h5")


class TestArchive:
    def test_without_weights(self, tmp_path: Path) -> None:
        with zipfile.ZipFile(tmp_path / "m.keras", "w") as archive:
            archive.writestr("config.json", "{}")
        assert "a zip archive without model.weights.h5" in refused(tmp_path / "m.keras")

    def test_paths_out_of_the_folder_are_not_extracted(self, tmp_path: Path) -> None:
        folder = tmp_path / "inner"
        folder.mkdir()
        path = keras_archive(folder / "m.keras", weights_bytes())
        with zipfile.ZipFile(path, "a") as archive:
            archive.writestr("../outside", "x")
            archive.writestr("/model.weights.h5", "x")
        with opened(path) as checkpoint:
            assert list(checkpoint.tensors) == ["layers/lstm/cell/vars/0"]
        assert [each.name for each in tmp_path.iterdir()] == ["inner"]
        assert [each.name for each in folder.iterdir()] == ["m.keras"]

    def test_a_bomb_of_weights(self, tmp_path: Path) -> None:
        path = tmp_path / "m.keras"
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("config.json", "{}")
            archive.writestr("model.weights.h5", bytes(12_345))
        size = (12_345).to_bytes(4, "little")
        path.write_bytes(path.read_bytes().replace(size, (2**30 + 1).to_bytes(4, "little")))
        assert "model.weights.h5 unpacks to 1,073,741,825 bytes" in refused(path, ResourceError)

    def test_a_bomb_of_a_config(self, tmp_path: Path) -> None:
        path = keras_archive(tmp_path / "m.keras", weights_bytes(), zipfile.ZIP_DEFLATED, " " * (2**24 + 1))
        assert "config.json unpacks to" in refused(path, ResourceError)

    def test_a_member_that_lies_about_its_size(self, tmp_path: Path) -> None:
        path = keras_archive(tmp_path / "m.keras", weights_bytes(), zipfile.ZIP_DEFLATED)
        size = len(weights_bytes()).to_bytes(4, "little")
        path.write_bytes(path.read_bytes().replace(size, (1000).to_bytes(4, "little")))
        refused(path)

    def test_a_stored_member_beyond_the_end_of_the_file(self, tmp_path: Path) -> None:
        path = keras_archive(tmp_path / "m.keras", weights_bytes())
        size = len(weights_bytes()).to_bytes(4, "little")
        path.write_bytes(path.read_bytes().replace(size, (2**31).to_bytes(4, "little")))
        assert "model.weights.h5 is cut short" in refused(path)

    @pytest.mark.parametrize(
        ("config", "reason"),
        [
            ("[" * 100_000, "nested too deep"),
            ('{"a": ' * 100_000, "nested too deep"),
            ("{", "no JSON that can be read"),
            ("9" * 5000, "no JSON that can be read"),
            ("[]", "no JSON object"),
            ("", "no JSON that can be read"),
        ],
    )
    def test_a_config_that_is_none(self, tmp_path: Path, config: str, reason: str) -> None:
        assert reason in refused(keras_archive(tmp_path / "m.keras", weights_bytes(), config=config))

    def test_duplicate_keys_and_members_do_no_harm(self, tmp_path: Path) -> None:
        path = keras_archive(tmp_path / "m.keras", weights_bytes(), config='{"a": 1, "a": 2}')
        with opened(path) as checkpoint:
            assert checkpoint.config == {"a": 2}


def damaging(program: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Have the process run something before it answers, as the C library may on a hostile file."""
    monkeypatch.setattr(hdf5_process, "_PROGRAM", hdf5_process._PROGRAM.replace("serve()", program))


@pytest.fixture
def valid(tmp_path: Path) -> Path:
    (tmp_path / "m.h5").write_bytes(weights_bytes())
    return tmp_path / "m.h5"


class TestProcess:
    def test_a_crash_is_an_input_error(self, valid: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        damaging("import os; os.abort()", monkeypatch)
        assert "the HDF5 library crashes on it" in refused(valid)

    def test_an_endless_wait_is_given_up(self, valid: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        damaging("import time; time.sleep(100)", monkeypatch)
        monkeypatch.setattr(hdf5_process, "PATIENCE", 1)
        assert "does not come to an end" in refused(valid, ResourceError)

    @pytest.mark.skipif(sys.platform == "win32", reason="there is no such limit")
    def test_an_endless_loop_is_stopped_by_the_operating_system(
        self, valid: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        looping = (
            "from gradcli.weights.readers import hdf5; hdf5.Hdf5File = lambda file: exec('while True: pass'); serve()"
        )
        damaging(looping, monkeypatch)
        monkeypatch.setattr(hdf5_process, "COMPUTING", 1)
        start = monotonic()
        before = signal.signal(signal.SIGXCPU, signal.SIG_IGN)  # what a program started from here inherits
        try:
            assert "does not come to an end" in refused(valid, ResourceError)
        finally:
            signal.signal(signal.SIGXCPU, before)
        assert monotonic() - start < hdf5_process.PATIENCE

    @pytest.mark.parametrize("answer", [b"\xff" * 8, b"\x05" + bytes(7) + b"hello", b"\x64" + bytes(7) + b"{}"])
    def test_an_answer_that_is_none_is_an_input_error(
        self, valid: Path, monkeypatch: pytest.MonkeyPatch, answer: bytes
    ) -> None:
        damaging(f"sys.stdout.buffer.write({answer!r})", monkeypatch)
        refused(valid)

    def test_a_crash_between_two_tensors_is_an_input_error(self, valid: Path) -> None:
        with opened(valid) as checkpoint:
            checkpoint._process._process.kill()
            checkpoint._process._process.wait()
            with pytest.raises(InputFileError, match="crashed on it"):
                checkpoint.read("layers/lstm/cell/vars/0")

    def test_it_ends_with_the_checkpoint(self, valid: Path) -> None:
        with opened(valid) as checkpoint:
            process = checkpoint._process._process
            assert process.poll() is None
        assert process.poll() is not None

    def test_nothing_is_imported_from_the_folder_of_the_user(
        self, valid: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        (tmp_path / "h5py.py").write_text(f"open({str(tmp_path / 'executed')!r}, 'w')")
        monkeypatch.chdir(tmp_path)
        monkeypatch.setenv("PYTHONPATH", str(tmp_path))
        with opened(valid) as checkpoint:
            assert len(checkpoint.tensors) == 1
        assert not os.path.exists(tmp_path / "executed")


def test_without_h5py_the_message_says_how_to_get_it(valid: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = importlib.util.find_spec

    def missing(name: str, package: str | None = None) -> ModuleSpec | None:
        return None if name == "h5py" else found(name, package)

    monkeypatch.setattr("gradcli.weights.readers.keras_h5.find_spec", missing)
    with pytest.raises(UsageError) as caught:
        opened(valid)
    assert str(caught.value).endswith("pip install 'gradcli[keras]'")
