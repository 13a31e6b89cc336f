"""Which numbers of a file each sequence is made of: windows, recordings, lengths, columns, standardised features."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from from_file import opened, sequences
from hypothesis import given
from hypothesis import strategies as st

from gradcli.errors import InputFileError, UsageError
from gradcli.sources.arrays import read_array
from gradcli.sources.files import FieldError
from gradcli.sources.standardisation import standardisation_of

RECORDINGS = np.random.default_rng(0).standard_normal((5, 6, 2))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    np.savez(tmp_path / "x.npz", x=RECORDINGS, n=np.array([6, 1, 4, 2, 3], dtype=np.uint8))
    np.save(tmp_path / "x.npy", RECORDINGS)
    np.save(tmp_path / "long.npy", np.arange(40).reshape(20, 2))
    return tmp_path


class TestBatch:
    def test_the_first_sequences_are_taken(self, folder: Path) -> None:
        source = opened(folder, path="x.npy", seq_len=6, batch=3)
        assert np.array_equal(sequences(source), RECORDINGS[:3])
        assert source.lengths is None

    @pytest.mark.parametrize(("asked", "found"), [(16, 5), (5, 5), (4, 4)])
    def test_unless_given_it_is_as_large_as_the_file_up_to_the_default(
        self, folder: Path, asked: int, found: int
    ) -> None:
        source = opened(folder, path="x.npy", seq_len=6, batch=asked, batch_given=False)
        assert source.extent.batch_size == found
        assert np.array_equal(sequences(source), RECORDINGS[:found])


class TestStride:
    def test_windows_begin_every_so_many_steps(self, folder: Path) -> None:
        x = sequences(opened(folder, path="long.npy", seq_len=5, batch=4, stride=3))
        assert x[:, 0, 0].tolist() == [0, 6, 12, 18]
        assert x[3, :, 1].tolist() == [19, 21, 23, 25, 27]

    def test_the_last_window_may_end_where_the_file_does_and_no_later(self, folder: Path) -> None:
        assert sequences(opened(folder, path="long.npy", seq_len=5, batch=6, stride=3))[5, -1].tolist() == [38, 39]
        with pytest.raises(FieldError) as error:
            opened(folder, path="long.npy", seq_len=6, batch=6, stride=3)
        assert str(error.value) == (
            "long.npy: 20 rows hold 5 windows of 6, one beginning every 3, but batch_size is 6; "
            "set batch_size to at most 5, or make stride or seq_len smaller"
        )
        assert error.value.path == ("stride",)

    def test_one_window_needs_no_stride_to_fit(self, folder: Path) -> None:
        assert sequences(opened(folder, path="long.npy", seq_len=20, batch=1, stride=10**6)).shape == (1, 20, 2)


class TestLengths:
    @pytest.mark.parametrize("lengths", ["n", "n.npy", "n.csv", [6, 1, 4, 2, 3]])
    def test_all_sequences_end_at_the_last_step(self, folder: Path, lengths: Any) -> None:
        np.save(folder / "n.npy", np.array([6, 1, 4, 2, 3]))
        (folder / "n.csv").write_text("length\n6\n1\n4\n2\n3\n", encoding="utf-8")
        source = opened(folder, path="x.npz", key="x", seq_len=6, batch=4, lengths=lengths)
        assert source.lengths is not None
        assert source.lengths.tolist() == [6, 1, 4, 2]
        for x, recording, length in zip(sequences(source), RECORDINGS, source.lengths, strict=False):
            assert np.array_equal(x[6 - length :], recording[:length])
            assert not x[: 6 - length].any()

    def test_reversed_they_begin_with_their_own_last_step(self, folder: Path) -> None:
        source = opened(folder, path="x.npz", key="x", seq_len=6, batch=5, lengths="n", reverse=True)
        assert source.lengths is not None
        for x, recording, length in zip(sequences(source), RECORDINGS, source.lengths, strict=True):
            assert np.array_equal(x[6 - length :], recording[:length][::-1])
            assert not x[: 6 - length].any()

    def test_longer_ones_are_cut_to_their_first_steps(self, folder: Path) -> None:
        source = opened(folder, path="x.npz", key="x", seq_len=3, batch=5, lengths="n")
        assert source.lengths is not None
        assert source.lengths.tolist() == [3, 1, 3, 2, 3]
        assert np.array_equal(sequences(source)[2], RECORDINGS[2, :3])

    def test_they_are_none_where_all_sequences_are_full(self, folder: Path) -> None:
        assert opened(folder, path="x.npz", key="x", seq_len=6, batch=1, lengths="n").lengths is None
        assert opened(folder, path="x.npz", key="x", seq_len=1, batch=5, lengths="n").lengths is None

    def test_the_padding_may_be_anything(self, folder: Path) -> None:
        values = RECORDINGS.copy()
        values[1, 1:] = np.nan
        np.save(folder / "padded.npy", values)
        source = opened(folder, path="padded.npy", seq_len=6, batch=5, lengths=[6, 1, 6, 6, 6], standardize=True)
        assert np.isfinite(sequences(source)).all()
        with pytest.raises(InputFileError, match=re.escape("sequence 2, row 2, column 1: expected a finite number")):
            opened(folder, path="padded.npy", seq_len=6, batch=5, lengths=[6, 2, 6, 6, 6])

    @pytest.mark.parametrize(
        ("lengths", "message"),
        [
            ([6, 1, 4], "expected a length for each of 5 sequences; got 3"),
            ([6, 1, 4, 2, 7], "sequence 5: expected a whole number from 1 to the 6 steps of x.npz; got 7"),
            ("nn", "x.npz has no array 'nn'; it holds: x, n; did you mean 'n'?"),
            ("half.npy", "half.npy: sequence 1: expected a whole number from 1 to the 6 steps of x.npz; got 0.5"),
            ("zero.npy", "zero.npy: sequence 2: expected a whole number from 1 to the 6 steps of x.npz; got 0"),
            ("nan.npy", "nan.npy: sequence 1: expected a whole number from 1 to the 6 steps of x.npz; got nan"),
            ("x.npy", "x.npy: expected a length for each of 5 sequences; got shape (5, 6, 2)"),
            ("missing.npy", "missing.npy: no such file (paths are relative to the spec's folder)"),
        ],
    )
    def test_what_is_no_length_is_refused(self, folder: Path, lengths: Any, message: str) -> None:
        np.save(folder / "half.npy", np.full(5, 0.5))
        np.save(folder / "nan.npy", np.full(5, np.nan))
        np.save(folder / "zero.npy", np.array([1, 0, 1, 1, 1]))
        with pytest.raises((FieldError, InputFileError)) as error:
            opened(folder, path="x.npz", key="x", seq_len=6, batch=5, lengths=lengths)
        assert str(error.value) == message
        if isinstance(error.value, FieldError):
            assert error.value.path[0] == "lengths"

    def test_a_name_needs_a_npz_to_look_in(self, folder: Path) -> None:
        with pytest.raises(FieldError, match=r"expected a list, or a file that ends in \.npy or \.csv; got 'n'"):
            opened(folder, path="x.npy", seq_len=6, batch=5, lengths="n")


class TestReverse:
    def test_windows_and_recordings_are_read_from_their_ends(self, folder: Path) -> None:
        plain = sequences(opened(folder, path="long.npy", seq_len=5, batch=3))
        assert np.array_equal(
            sequences(opened(folder, path="long.npy", seq_len=5, batch=3, reverse=True)), plain[:, ::-1]
        )
        found = sequences(opened(folder, path="x.npy", seq_len=4, batch=5, reverse=True))
        assert np.array_equal(found, RECORDINGS[:, :4][:, ::-1])


class TestColumns:
    TABLE = "day,low, high ,year\nmonday,1,2,2026\ntuesday,3,4,2026\n"

    def csv(self, folder: Path, text: str, columns: list[Any]) -> list[list[float]]:
        (folder / "x.csv").write_text(text, encoding="utf-8")
        return np.asarray(read_array(folder / "x.csv", "x.csv", columns=columns)).tolist()

    @pytest.mark.parametrize("columns", [["high", "low"], [3, 2], ["high", 2]])
    def test_of_a_csv_by_name_or_number_in_the_order_given(self, tmp_path: Path, columns: list[Any]) -> None:
        assert self.csv(tmp_path, self.TABLE, columns) == [[2, 1], [4, 3]]

    def test_a_header_is_told_by_the_wanted_columns_alone(self, tmp_path: Path) -> None:
        assert self.csv(tmp_path, "2026,low\n2026,1\n", [2]) == [[1]]
        assert self.csv(tmp_path, "a,1\nb,2\n", [2]) == [[1], [2]]

    @pytest.mark.parametrize(
        ("text", "columns", "message", "place"),
        [
            (TABLE, ["low", "hgih"], "no column is called 'hgih' in the first line of x.csv; did you mean 'high'?", 1),
            (TABLE, [2, 9], "x.csv has 4 columns; got 9", 1),
            (TABLE, ["low", 2], "column 2 is given twice", 1),
            ("a,a\n1,2\n", ["a"], "x.csv has 2 columns that are called 'a'; give the number of the one that", 0),
            ("1,2\n3,4\n", ["1"], "x.csv has no header line; give the number of the column, from 1", 0),
        ],
    )  # fmt: skip
    def test_one_that_there_is_not_is_told_with_its_place(
        self, tmp_path: Path, text: str, columns: list[Any], message: str, place: int
    ) -> None:
        with pytest.raises(FieldError) as error:
            self.csv(tmp_path, text, columns)
        assert str(error.value).startswith(message)
        assert error.value.path == ("columns", place)

    def test_a_bad_cell_keeps_its_place_in_the_file(self, tmp_path: Path) -> None:
        with pytest.raises(InputFileError, match=re.escape("x.csv: row 2, column 1 ('day'): expected a number")):
            self.csv(tmp_path, self.TABLE, ["low", "day"])
        with pytest.raises(InputFileError, match="row 3, column 3: expected 4 columns as in the first row; got 2"):
            self.csv(tmp_path, "a,b,c,d\n1,2,3,4\n1,2\n", [1])

    def test_of_an_array_by_number(self, folder: Path) -> None:
        assert np.array_equal(
            sequences(opened(folder, path="x.npy", seq_len=6, batch=5, columns=[2])), RECORDINGS[:, :, 1:]
        )
        with pytest.raises(FieldError, match=r"the columns of x\.npy have no names"):
            opened(folder, path="x.npy", seq_len=6, batch=5, columns=["a"])
        with pytest.raises(FieldError, match=r"x\.npy has 2 columns; got 3"):
            opened(folder, path="x.npy", seq_len=6, batch=5, columns=[1, 3])


def test_every_number_is_multiplied_by_the_scale(folder: Path) -> None:
    np.save(folder / "bytes.npy", np.arange(12, dtype=np.uint8).reshape(6, 2))
    x = sequences(opened(folder, path="bytes.npy", seq_len=6, batch=1, scale=0.0625))[0]
    assert np.array_equal(x, np.arange(12).reshape(6, 2) / 16)


class TestStandardised:
    def test_over_all_that_the_file_holds(self, folder: Path) -> None:
        """NumPy's own mean and (population) standard deviation, of all five sequences, though two are read."""
        mean, std = RECORDINGS.mean(axis=(0, 1)), RECORDINGS.std(axis=(0, 1))
        source = opened(folder, path="x.npy", seq_len=4, batch=2, standardize=True)
        assert sequences(source) == pytest.approx((RECORDINGS[:2, :4] - mean) / std, rel=1e-12)
        (note,) = source.notes
        assert note == (
            f"x.npy: each feature standardised over 30 steps; mean {mean[0]:.4g} {mean[1]:.4g},"
            f" standard deviation {std[0]:.4g} {std[1]:.4g}"
        )

    def test_the_padding_does_not_count_and_stays_zero(self, folder: Path) -> None:
        lengths = [6, 1, 4, 2, 3]
        real = np.concatenate([recording[:length] for recording, length in zip(RECORDINGS, lengths, strict=True)])
        source = opened(folder, path="x.npz", key="x", seq_len=6, batch=5, lengths="n", standardize=True)
        x = sequences(source)
        for found, recording, length in zip(x, RECORDINGS, lengths, strict=True):
            expected = (recording[:length] - real.mean(axis=0)) / real.std(axis=0)
            assert found[6 - length :] == pytest.approx(expected, rel=1e-12)
            assert not found[: 6 - length].any()

    def test_what_never_changes_is_centred(self, folder: Path) -> None:
        np.save(folder / "still.npy", np.stack([np.full(9, 0.1), np.arange(9.0), np.zeros(9)], axis=1))
        source = opened(folder, path="still.npy", seq_len=9, batch=1, standardize=True)
        x = sequences(source)[0]
        assert not x[:, [0, 2]].any()
        assert x[:, 1].std() == pytest.approx(1.0, rel=1e-12)
        assert source.notes[0].endswith("standard deviation 0 2.582 0; 2 that never change, centred only")

    @given(
        st.lists(st.integers(-(2**40), 2**40), min_size=2, max_size=30, unique=True),
        st.sampled_from([1.0, 1e-300, 1e290, 3.0]),
        st.integers(0, 5),
    )
    def test_at_any_scale(self, numbers: list[int], scale: float, shift: int) -> None:
        """Compared where nothing is lost: the same numbers as exact integers, by their definition."""
        integers = np.array(numbers, dtype=np.float64) + shift
        change = standardisation_of((integers * scale)[np.newaxis, :, np.newaxis], [len(numbers)])
        mean = sum(int(n) for n in integers) / len(numbers)
        centred = integers - mean
        found = change((integers * scale)[:, np.newaxis])[:, 0]
        bound = 1e-12 * np.abs(integers).max() / centred.std()
        assert np.abs(found - centred / centred.std()).max() <= bound

    def test_of_integers(self, folder: Path) -> None:
        values = np.arange(12, dtype=np.uint8).reshape(6, 2)
        np.save(folder / "bytes.npy", values)
        x = sequences(opened(folder, path="bytes.npy", seq_len=6, batch=1, standardize=True))[0]
        assert x == pytest.approx((values - values.mean(axis=0)) / values.std(axis=0), rel=1e-12)

    def test_every_number_of_the_file_has_to_be_finite(self, folder: Path) -> None:
        values = RECORDINGS.copy()
        values[4, 5, 1] = np.inf
        np.save(folder / "inf.npy", values)
        assert np.isfinite(sequences(opened(folder, path="inf.npy", seq_len=4, batch=2))).all()
        with pytest.raises(InputFileError, match="sequence 5, row 6, column 2: expected a finite number; got inf"):
            opened(folder, path="inf.npy", seq_len=4, batch=2, standardize=True)


def test_lengths_and_strides_belong_to_one_kind_of_file_each(folder: Path) -> None:
    with pytest.raises(UsageError, match=r"x\.npy has a recording for each sequence, of which no windows are cut"):
        opened(folder, path="x.npy", seq_len=6, batch=5, stride=2)
    with pytest.raises(UsageError, match=r"long\.npy is one long recording, whose windows all have seq_len steps"):
        opened(folder, path="long.npy", seq_len=6, batch=1, lengths=[6])
