"""Targets from files stand beside the input: the same sequences, the same windows, the same last step."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from as_read import as_read
from from_file import opened

from gradcli.errors import InputFileError
from gradcli.sources.files import FieldError
from gradcli.sources.input_source import InputSource
from gradcli.sources.target_files import TargetError
from gradcli.sources.targets import draw_target
from gradcli.spec.losses import Loss

N, S, SIZE = 5, 6, 3
RNG = np.random.default_rng(0)
LABELS = RNG.integers(10, size=(N, S))
VALUES = RNG.standard_normal((N, S, SIZE))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    np.savez(
        tmp_path / "x.npz",
        x=np.zeros((N, S, 2)),
        long=np.zeros((40, 2)),
        labels=LABELS,
        label=LABELS[:, 0].astype(np.uint8),
        values=VALUES,
        value=VALUES[:, 0],
        long_labels=np.arange(40) % 10,
        long_values=np.arange(40.0),
    )
    return tmp_path


def recordings(folder: Path, seq_len: int = S, batch: int = 4, **arguments: Any) -> InputSource:
    return opened(folder, path="x.npz", key="x", seq_len=seq_len, batch=batch, **arguments)


def target(source: InputSource, folder: Path, kind: str, key: str, steps: list[int], **arguments: Any) -> np.ndarray:
    """Return the target, (steps, trials, ...), after a look that the trials agree and a part is a part."""

    def drawn(part: slice = slice(None)) -> np.ndarray:
        return draw_target(
            as_read(Loss, {"kind": kind, "target": {"file": {"path": "x.npz", "key": key}}, **arguments}),
            output_size=1 if key.startswith("long") else SIZE,
            steps=steps,
            batch_size=source.extent.batch_size,
            trials=2,
            seed=0,
            input_source=source,
            folder=folder,
            part=part,
        )

    found = drawn()
    assert np.array_equal(found[:, 0], found[:, 1])
    assert np.array_equal(drawn(slice(0, 1)), found[:1])
    assert found.flags.writeable
    return found


def test_one_label_for_each_sequence_holds_at_every_step_of_the_loss(folder: Path) -> None:
    found = target(recordings(folder), folder, "cross_entropy", "label", [2, 6])
    assert found.dtype == np.int64
    assert np.array_equal(found[:, 0], [LABELS[:4, 0]] * 2)


def test_a_label_for_each_step_is_that_of_the_step(folder: Path) -> None:
    found = target(recordings(folder), folder, "cross_entropy", "labels", [2, 6])
    assert np.array_equal(found[:, 0], LABELS[:4, [1, 5]].T)


@pytest.mark.parametrize("reverse", [False, True])
def test_of_shorter_sequences_the_targets_end_at_the_last_step_too(folder: Path, reverse: bool) -> None:
    lengths = [6, 1, 4, 2, 3]
    source = recordings(folder, batch=5, lengths=lengths, reverse=reverse)
    steps = list(range(1, S + 1))
    classes = target(source, folder, "cross_entropy", "labels", steps)[:, 0].T
    values = target(source, folder, "mse", "values", steps)[:, 0].transpose(2, 0, 1)
    order = -1 if reverse else 1
    for b, length in enumerate(lengths):
        assert np.array_equal(classes[b, S - length :], LABELS[b, :length][::order])
        assert np.array_equal(values[b, S - length :], VALUES[b, :length][::order])
        assert not classes[b, : S - length].any()
        assert not values[b, : S - length].any()


def test_what_the_padding_says_is_not_read(folder: Path) -> None:
    labels, values = LABELS.copy(), VALUES.copy()
    labels[1, 1:], values[1, 1:] = -1, np.nan
    np.savez(folder / "x.npz", x=np.zeros((N, S, 2)), labels=labels, values=values)
    source = recordings(folder, lengths=[6, 1, 6, 6, 6])
    assert target(source, folder, "cross_entropy", "labels", [1, 6])[:, 0, 1].tolist() == [0, LABELS[1, 0]]
    assert np.array_equal(target(source, folder, "mse", "values", [1, 6])[:, 0, :, 1], [[0] * SIZE, VALUES[1, 0]])


def test_values_are_one_vector_for_each_sequence_or_step(folder: Path) -> None:
    source = recordings(folder)
    assert np.array_equal(target(source, folder, "mse", "value", [6])[0, 0], VALUES[:4, 0].T)
    assert np.array_equal(target(source, folder, "mse", "values", [3, 6])[:, 0], VALUES[:4, [2, 5]].transpose(1, 2, 0))


@pytest.mark.parametrize("stride", [None, 7])
def test_beside_windows_they_are_cut_at_the_same_places(folder: Path, stride: int | None) -> None:
    np.savez(folder / "x.npz", long=np.stack([np.arange(40.0)] * 2, axis=1), long_labels=np.arange(40) % 10,
             long_values=np.arange(40.0))  # fmt: skip
    source = opened(folder, path="x.npz", key="long", seq_len=5, batch=4, stride=stride)
    x = source.fill(0, 5)[:, 0, 0]
    steps = [1, 2, 5]
    assert np.array_equal(target(source, folder, "cross_entropy", "long_labels", steps)[:, 0], x[[0, 1, 4]] % 10)
    assert np.array_equal(target(source, folder, "mse", "long_values", steps)[:, 0, 0], x[[0, 1, 4]])


def test_beside_a_drawn_input_there_is_one_for_each_sequence(folder: Path) -> None:
    source = opened(folder, kind="normal", seq_len=S, batch=N)
    assert np.array_equal(target(source, folder, "cross_entropy", "labels", [6])[0, 0], LABELS[:, 5])


def test_labels_may_be_the_column_of_a_csv(folder: Path) -> None:
    (folder / "labels.csv").write_text("label\n" + "\n".join(map(str, LABELS[:, 0])), encoding="utf-8")
    loss = as_read(Loss, {"kind": "cross_entropy", "target": {"file": "labels.csv"}})
    found = draw_target(
        loss, output_size=2, steps=[S], batch_size=4, trials=1, seed=0, input_source=recordings(folder), folder=folder
    )
    assert np.array_equal(found[0, 0], LABELS[:4, 0])


LABEL = "expected a label for each of 5 sequences, or for each of their 6 steps: an array (5,) or (5, 6); got"
VECTOR = "expected 3 numbers for each of 5 sequences, or for each of their 6 steps: an array (5, 3) or (5, 6, 3); got"
CLASS = "expected a class, with 10 classes a whole number from 0 to 9; got"
FINITE = "expected a finite number; got"


def with_one(shape: tuple[int, ...], place: int, value: float) -> np.ndarray:
    """Return zeros with `value` at one place of the flat array."""
    array = np.zeros(shape)
    array.flat[place] = value
    return array


@pytest.mark.parametrize(
    ("kind", "array", "message"),
    [
        ("cross_entropy", np.zeros(4), f"{LABEL} shape (4,)"),
        ("cross_entropy", np.zeros((5, 4)), f"{LABEL} shape (5, 4)"),
        ("mse", np.zeros((5, 2)), f"{VECTOR} shape (5, 2)"),
        ("cross_entropy", np.array([0, 1, 10, 2, 3]), f"sequence 3: {CLASS} 10"),
        ("cross_entropy", np.array([0, -1, 1, 2, 3]), f"sequence 2: {CLASS} -1"),
        ("cross_entropy", np.array([0, 0.5, 1, 2, 3]), f"sequence 2: {CLASS} 0.5"),
        ("cross_entropy", with_one((5, 6), 11, 99), f"sequence 2, step 6: {CLASS} 99.0"),
        ("mse", with_one((5, 3), 4, np.nan), f"sequence 2, column 2: {FINITE} nan"),
        ("mse", with_one((5, 6, 3), 17, np.inf), f"sequence 1, step 6, column 3: {FINITE} inf"),
    ],
)
def test_what_does_not_fit_is_an_error(folder: Path, kind: str, array: np.ndarray, message: str) -> None:
    np.savez(folder / "x.npz", x=np.zeros((N, S, 2)), y=array)
    with pytest.raises(TargetError) as error:
        target(recordings(folder), folder, kind, "y", [6])
    assert str(error.value) == f"x.npz: {message}"


def test_beside_windows_there_is_one_for_each_step_of_the_file(folder: Path) -> None:
    np.savez(folder / "x.npz", long=np.zeros((40, 2)), y=np.zeros(39))
    with pytest.raises(TargetError) as error:
        target(opened(folder, path="x.npz", key="long", seq_len=5, batch=4), folder, "cross_entropy", "y", [5])
    expected = "expected a label for each of the 40 steps of the file that is the input: an array (40,)"
    assert str(error.value) == f"x.npz: {expected}; got shape (39,)"


def test_an_unreadable_file_is_told(folder: Path) -> None:
    with pytest.raises(FieldError, match=r"x\.npz has no array 'lable'; .*; did you mean 'label'\?"):
        target(recordings(folder), folder, "cross_entropy", "lable", [6])
    (folder / "bad.npy").write_bytes(b"junk")
    with pytest.raises(InputFileError, match=r"bad\.npy: is not a \.npy file"):
        draw_target(
            as_read(Loss, {"kind": "mse", "target": {"file": "bad.npy"}}),
            output_size=1, steps=[1], batch_size=4, trials=1, seed=0, input_source=recordings(folder), folder=folder,
        )  # fmt: skip
