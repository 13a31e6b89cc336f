"""Checkpoints in several safetensors files, found by their index: read as one, and never from elsewhere."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from checkpoint_files import assert_same, everything, ignored, opened, refusal
from safetensors.numpy import save_file

from gradcli.errors import ExitCode
from gradcli.weights.readers import safetensors_index

INDEX = "model.safetensors.index.json"
A, B = "model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    save_file({"a": np.arange(4.0), "b": np.ones((2, 2), "f4")}, tmp_path / A)
    save_file({"c": np.arange(3.0)}, tmp_path / B)
    index(tmp_path, {"c": B, "a": A, "b": A})
    return tmp_path


def index(folder: Path, weight_map: Any) -> Path:
    path = folder / INDEX
    path.write_text(json.dumps({"metadata": {"total_size": 72}, "weight_map": weight_map}))
    return path


def test_the_files_are_read_as_one(folder: Path) -> None:
    found = everything(folder / INDEX)
    assert list(found) == ["c", "a", "b"]
    assert_same(found["a"], np.arange(4.0))
    assert_same(found["b"], np.ones((2, 2), "f4"))
    assert_same(found["c"], np.arange(3.0))


def test_what_the_index_leaves_out_is_ignored(folder: Path) -> None:
    assert ignored(index(folder, {"a": A})) == {"b": f"in {A}, but the index does not have it there"}


def test_the_links_of_a_download_cache_are_followed(folder: Path, tmp_path: Path) -> None:
    """Hugging Face's cache: a folder of links into one folder of files, whose names are checksums."""
    blobs, snapshot = tmp_path / "blobs", tmp_path / "snapshots" / "1"
    blobs.mkdir()
    snapshot.mkdir(parents=True)
    for checksum, name in enumerate((A, B, INDEX)):
        (folder / name).rename(blobs / str(checksum))
        (snapshot / name).symlink_to(Path("..", "..", "blobs", str(checksum)))
    assert set(everything(snapshot / INDEX)) == {"a", "b", "c"}


def test_a_link_elsewhere_is_refused(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    elsewhere = tmp_path_factory.mktemp("elsewhere") / "private.safetensors"
    (folder / B).rename(elsewhere)
    (folder / B).symlink_to(elsewhere)
    assert f"{B} is a link that leads out of the folder of the index" in refusal(folder / INDEX)


@pytest.mark.parametrize(
    "shard",
    ["../x.safetensors", "/x.safetensors", "a/b.safetensors", "..\\x.safetensors", "C:x.safetensors", "x.bin", "", "..",
     "\n.safetensors", "x\0.safetensors", "x" * 300 + ".safetensors"],
)  # fmt: skip
def test_only_plain_names_are_opened(shard: str, folder: Path) -> None:
    assert "expected a plain name that ends in .safetensors" in refusal(index(folder, {"a": shard}))


def test_a_shard_that_is_a_folder_or_missing_is_refused(folder: Path) -> None:
    (folder / "x.safetensors").mkdir()
    assert "x.safetensors, which is not beside it" in refusal(index(folder, {"a": "x.safetensors"}))
    assert "y.safetensors, which is not beside it" in refusal(index(folder, {"a": "y.safetensors"}))


def test_a_shard_without_the_tensor_is_refused(folder: Path) -> None:
    assert f"the tensor c is not in {A}, where it should be" in refusal(index(folder, {"a": A, "c": A}))


def test_a_damaged_shard_is_named(folder: Path) -> None:
    (folder / B).write_bytes((folder / B).read_bytes()[:-1])
    assert f"{INDEX}: {B}: the file is cut off" in refusal(folder / INDEX)


def test_a_shard_that_changes_after_it_was_opened_is_refused(folder: Path) -> None:
    with opened(folder / INDEX) as checkpoint:
        save_file({"c": np.arange(5.0)}, folder / B)
        with pytest.raises(safetensors_index.InputFileError, match="has changed since it was opened"):
            checkpoint.read("c")


@pytest.mark.parametrize("text", ["[]", "{}", '{"weight_map": []}', '{"weight_map": {"a": 1}}', "3"])
def test_what_is_no_index_is_refused(text: str, tmp_path: Path) -> None:
    (tmp_path / INDEX).write_text(text)
    assert "expected an index of safetensors files" in refusal(tmp_path / INDEX)


def test_a_tensor_twice_is_refused(folder: Path) -> None:
    (folder / INDEX).write_text(f'{{"weight_map": {{"a": "{A}", "a": "{B}"}}}}')
    assert "a stands twice" in refusal(folder / INDEX)


def test_too_many_files_are_refused(folder: Path) -> None:
    many = {f"t{place}": f"{place}.safetensors" for place in range(safetensors_index.MAX_SHARDS + 1)}
    assert "it names 2,001 files; at most 2,000" in refusal(index(folder, many), ExitCode.RESOURCE)


def test_an_index_beyond_reason_is_refused_unread(tmp_path: Path) -> None:
    with (tmp_path / INDEX).open("wb") as file:
        file.truncate(1 << 40)
    assert "the index takes 1,099,511,627,776 bytes" in refusal(tmp_path / INDEX, ExitCode.RESOURCE)
