"""Inputs from files: what is read, which windows are cut, and what is refused with which words."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from gradcli.errors import InputFileError, UsageError
from gradcli.sources.arrays import read_array
from gradcli.sources.cuts import window_starts
from gradcli.sources.input_source import InputSource, SymbolSource
from gradcli.sources.inputs import open_input
from gradcli.spec.inputs import FileInput, TextInput


def open_file(
    folder: Path, name: str, *, input_size: int | None = None, seq_len: int = 4, batch: int = 3, trials: int = 2
) -> InputSource:
    model = TextInput(kind="text", path=name) if name.endswith(".txt") else FileInput(kind="file", path=name)
    return open_input(
        model,
        folder=folder,
        input_size=input_size,
        default_size=99,
        seq_len=seq_len,
        batch_size=batch,
        trials=trials,
        seed=0,
    )


def refusal(folder: Path, name: str, **arguments: int) -> str:
    with pytest.raises(InputFileError) as error:
        open_file(folder, name, **arguments)
    assert error.value.exit_code == 4
    return str(error.value)


def write(folder: Path, name: str, content: str | bytes | np.ndarray) -> None:
    if isinstance(content, np.ndarray):
        np.save(folder / name, content)
    else:
        (folder / name).write_bytes(content.encode() if isinstance(content, str) else content)


class TestWindows:
    def test_they_are_spread_evenly_from_the_first_step_to_the_last(self):
        assert window_starts(100, 10, 4).tolist() == [0, 30, 60, 90]
        assert window_starts(11, 4, 4).tolist() == [0, 2, 4, 7]
        assert window_starts(100, 10, 1).tolist() == [0]
        assert window_starts(10, 10, 3).tolist() == [0, 0, 0]

    @given(st.integers(1, 10**9), st.integers(1, 10**6), st.integers(1, 300))
    def test_none_leaves_the_series(self, window, more, batch):
        starts = window_starts(window + more, window, batch)
        assert len(starts) == batch
        assert starts[0] == 0
        assert np.all(np.diff(starts) >= 0)
        assert starts[-1] == (more if batch > 1 else 0)


class TestNpy:
    def test_a_series_is_cut_into_windows(self, tmp_path):
        values = np.arange(20.0).reshape(10, 2)
        write(tmp_path, "x.npy", values)
        x = open_file(tmp_path, "x.npy").fill(0, 4)
        assert x.shape == (4, 2, 2, 3)
        assert x.dtype == np.float64
        assert x.flags.c_contiguous
        for trial in range(2):
            for sequence, start in enumerate([0, 3, 6]):
                assert np.array_equal(x[:, trial, :, sequence], values[start : start + 4])

    def test_a_vector_is_a_series_of_one_feature(self, tmp_path):
        write(tmp_path, "x.npy", np.arange(6))
        source = open_file(tmp_path, "x.npy", batch=1)
        assert source.size == 1
        assert source.fill(0, 4)[:, 0, 0, 0].tolist() == [0, 1, 2, 3]

    def test_a_recording_for_each_sequence_is_taken_from_its_start(self, tmp_path):
        values = np.random.default_rng(0).standard_normal((3, 6, 2))
        write(tmp_path, "x.npy", values)
        x = open_file(tmp_path, "x.npy").fill(0, 4)
        assert np.array_equal(x[:, 1], values[:, :4].transpose(1, 2, 0))

    def test_segments_show_the_same_numbers(self, tmp_path):
        for shape in ((30, 2), (3, 9, 2)):
            write(tmp_path, "x.npy", np.random.default_rng(0).standard_normal(shape))
            source = open_file(tmp_path, "x.npy", seq_len=9)
            assert np.array_equal(np.concatenate([source.fill(0, 4), source.fill(4, 9)]), source.fill(0, 9))

    @pytest.mark.parametrize("dtype", ["<f4", ">f8", "<f2", "int8", "uint64", ">i4"])
    def test_any_real_dtype_and_memory_order_will_do(self, tmp_path, dtype):
        values = np.asfortranarray(np.arange(20).reshape(10, 2).astype(dtype))
        write(tmp_path, "x.npy", values)
        assert open_file(tmp_path, "x.npy").fill(0, 1)[0, 0, :, 1].tolist() == [6.0, 7.0]

    def test_the_file_is_mapped_not_loaded(self, tmp_path):
        write(tmp_path, "x.npy", np.zeros((10, 2)))
        assert isinstance(read_array(tmp_path / "x.npy", "x.npy"), np.memmap)

    @pytest.mark.parametrize(
        ("values", "message"),
        [
            (np.array([[1, "a"]], dtype=object), "expected real numbers; got an array of Python objects"),
            (np.zeros((9, 2), dtype=complex), "expected real numbers; got an array of complex numbers"),
            (np.zeros((9, 2), dtype=bool), "expected real numbers; got an array of booleans"),
            (np.zeros(9, dtype=[("a", "f8")]), "expected real numbers; got an array of dtype [('a', '<f8')]"),
            (
                np.zeros((2, 2, 2, 2)),
                "expected an array (steps,), (steps, features) or (sequences, steps, features); got shape (2, 2, 2, 2)",
            ),
            (
                np.float64(1),
                "expected an array (steps,), (steps, features) or (sequences, steps, features); got shape ()",
            ),
            (np.zeros((0, 2)), "the array is empty: its shape is (0, 2)"),
            (
                np.zeros((3, 2)),
                "3 rows found, but seq_len = 4 needs 4 (one a step); set seq_len to at most 3, or give a longer file",
            ),
            (
                np.zeros((3, 2, 1)),
                "2 rows found, but seq_len = 4 needs 4 (one a step); set seq_len to at most 2, or give a longer file",
            ),
            (
                np.array([[0, 0], [0, 0], [0, np.nan], [0, 0]]),
                "row 3, column 2: expected a finite number; got nan",
            ),
            (
                np.where(np.arange(24).reshape(3, 4, 2) == 13, np.inf, 0),
                "sequence 2, row 3, column 2: expected a finite number; got inf",
            ),
        ],
    )
    def test_other_arrays_are_refused(self, tmp_path, values, message):
        write(tmp_path, "x.npy", np.asarray(values))
        assert refusal(tmp_path, "x.npy") == f"x.npy: {message}"

    def test_a_number_that_is_not_finite_is_found_in_any_block(self, tmp_path):
        values = np.zeros((2**20 + 5, 1))
        values[-1] = -np.inf
        write(tmp_path, "x.npy", values)
        assert refusal(tmp_path, "x.npy") == f"x.npy: row {2**20 + 5}, column 1: expected a finite number; got -inf"

    def test_numbers_behind_the_last_step_are_not_used_and_may_be_anything(self, tmp_path):
        values = np.zeros((3, 5, 1))
        values[:, 4] = np.nan
        write(tmp_path, "x.npy", values)
        assert not open_file(tmp_path, "x.npy").fill(0, 4).any()

    def test_a_promise_of_more_than_the_file_holds_is_refused_before_any_memory_is_taken(self, tmp_path):
        write(tmp_path, "x.npy", np.zeros((9, 2)))
        content = (tmp_path / "x.npy").read_bytes()
        assert content.count(b"(9, 2), }          ") == 1
        write(tmp_path, "x.npy", content.replace(b"(9, 2), }          ", b"(900000000000, 2),}"))
        assert refusal(tmp_path, "x.npy") == (
            "x.npy: the file is cut short: shape (900000000000, 2) of float64 takes 14400000000128 bytes, "
            "but it has 272"
        )

    @pytest.mark.parametrize("length", [3, 7, 9, 60])
    def test_a_broken_header_is_refused(self, tmp_path, length):
        write(tmp_path, "x.npy", np.zeros((9, 2)))
        write(tmp_path, "x.npy", (tmp_path / "x.npy").read_bytes()[:length])
        assert refusal(tmp_path, "x.npy").startswith("x.npy: is not a .npy file that NumPy can read: ")

    @given(st.binary(max_size=200))
    def test_any_bytes_behind_the_magic_are_refused_with_a_message(self, tmp_path_factory, junk):
        folder = tmp_path_factory.mktemp("junk")
        for header in (b"\x93NUMPY\x01\x00", b"\x93NUMPY\x03\x00", b"\x93NUMPY\x01\x00v\x00"):
            write(folder, "x.npy", header + junk)
            assert refusal(folder, "x.npy").startswith("x.npy: ")

    def test_a_pickle_is_refused(self, tmp_path):
        write(tmp_path, "x.npy", b"\x80\x04\x95")
        assert "is not a .npy file" in refusal(tmp_path, "x.npy")

    def test_more_sequences_than_the_file_has_is_an_error_of_the_spec(self, tmp_path):
        write(tmp_path, "x.npy", np.zeros((5, 9, 2)))
        with pytest.raises(UsageError) as error:
            open_file(tmp_path, "x.npy", batch=6)
        assert str(error.value) == (
            "x.npy holds 5 sequences, but batch_size is 6; "
            "set batch_size to at most 5, or give an array (steps, features) to cut windows from; "
            "the array (5, 9, 2) is read as 5 sequences of 9 steps; if it is (steps, sequences, features), "
            "PyTorch's default, say layout: time_first"
        )


class TestCsv:
    @pytest.mark.parametrize(
        "content",
        [
            "1,2\n3,4\n5,6\n7,8\n",
            "open,close\n1,2\n3,4\n5,6\n7,8\n",
            "\ufeffopen,close\r\n1, 2\r\n\r\n3,4e0\r\n 5,6\r\n7,8",
            '"open","the ""close"""\n"1",+2\n3,4\n5.0,6\n7,8\n,\n\n',
        ],
    )
    def test_rows_are_steps_and_a_header_is_optional(self, tmp_path, content):
        write(tmp_path, "x.csv", content)
        source = open_file(tmp_path, "x.csv", batch=1)
        assert source.size == 2
        assert source.fill(0, 4)[:, 0, :, 0].tolist() == [[1, 2], [3, 4], [5, 6], [7, 8]]

    @given(
        arrays(
            np.float64,
            array_shapes(min_dims=2, max_dims=2, max_side=6),
            elements=st.floats(allow_nan=False, allow_infinity=False),
        ),
        st.booleans(),
        st.sampled_from(["\n", "\r\n"]),
    )
    def test_a_round_trip_keeps_every_bit(self, tmp_path_factory, values, with_header, newline):
        folder = tmp_path_factory.mktemp("csv")
        rows = [",".join(map(repr, row)) for row in values.tolist()]
        header = [",".join(f"x{column}" for column in range(values.shape[1]))] if with_header else []
        write(folder, "x.csv", newline.join(header + rows))
        x = open_file(folder, "x.csv", seq_len=len(values), batch=1).fill(0, len(values))[:, 0, :, 0]
        assert x.tobytes() == np.ascontiguousarray(values).tobytes()

    @pytest.mark.parametrize(
        ("content", "message"),
        [
            ("", "the file is empty"),
            ("\n\n", "holds no numbers"),
            ("a,b\n", "holds no numbers, only a header line"),
            (
                "1\n2\n",
                "2 rows found, but seq_len = 4 needs 4 (one a step); set seq_len to at most 2, or give a longer file",
            ),
            ("1,2\n3\n", "row 2, column 2: expected 2 columns as in the first row; got 1"),
            ("1,2\n\n3,4,5\n", "row 3, column 3: expected 2 columns as in the first row; got 3"),
            ("1\n3,4,5\n", "row 2, column 2: expected 1 column as in the first row; got 3"),
            ("a,b\n1,2\n3,x\n", "row 3, column 2 ('b'): expected a number; got 'x'"),
            ("1,2\n3,\n", "row 2, column 2: expected a number; got an empty cell"),
            ("date,1\n3,4\n", "row 1, column 1: expected a number; got 'date'"),
            ("1,2\nnan,2\n", "row 2, column 1: expected a finite number; got 'nan'"),
            ("1,2\n2,-Infinity\n", "row 2, column 2: expected a finite number; got '-Infinity'"),
            ("1,2\n2,1e999\n", "row 2, column 2: expected a finite number; got '1e999'"),
            ("1,2\n1_000,2\n", "row 2, column 1: expected a number; got '1_000'"),
            ("1\n\u0661\n", "row 2, column 1: expected a number; got '\u0661'"),
            ("a;b\n1;2\n", "row 2, column 1 ('a;b'): expected a number; got '1;2'; columns are separated by commas"),
            ("1\n" + "y" * 50, f"row 2, column 1: expected a number; got '{'y' * 40}...'"),
            ("1\n" + "y" * 200_000, "row 2, column 1: is not CSV: field larger than field limit (131072)"),
            ('1\n"2', "row 2, column 1: is not CSV: unexpected end of data"),
            (b"1,2\n\xff,3\n", "is not UTF-8 text: byte 0xff at offset 4"),
        ],
    )
    def test_mistakes_are_named_with_row_and_column(self, tmp_path, content, message):
        write(tmp_path, "x.csv", content)
        assert refusal(tmp_path, "x.csv") == f"x.csv: {message}"


class TestText:
    def test_characters_are_one_hot_vectors_over_the_sorted_alphabet(self, tmp_path):
        write(tmp_path, "book.txt", "banana\u00e9")
        source = open_file(tmp_path, "book.txt", seq_len=6, batch=1)
        assert isinstance(source, SymbolSource)
        assert source.size == 4
        assert source.symbols(0, 7)[:, 1, 0].tolist() == [1, 0, 2, 0, 2, 0, 3]
        x = source.fill(0, 6)
        assert x.shape == (6, 2, 4, 1)
        assert x.dtype == np.float64
        assert np.array_equal(x[:, 0, :, 0], np.eye(4)[[1, 0, 2, 0, 2, 0]])

    def test_a_byte_order_mark_is_no_character_and_line_ends_are_kept(self, tmp_path):
        write(tmp_path, "book.txt", "\ufeffab\r\nab")
        source = open_file(tmp_path, "book.txt", batch=1)
        assert isinstance(source, SymbolSource)
        assert source.symbols(0, 5)[:, 0, 0].tolist() == [2, 3, 1, 0, 2]

    @given(st.text(min_size=5, max_size=60).filter(lambda text: not text.startswith("\ufeff")), st.integers(1, 5))
    def test_windows_are_those_of_the_text_with_one_character_more_for_the_last_target(
        self, tmp_path_factory, text, batch
    ):
        folder = tmp_path_factory.mktemp("text")
        write(folder, "book.txt", text)
        source = open_file(folder, "book.txt", batch=batch)
        assert isinstance(source, SymbolSource)
        alphabet = sorted(set(text))
        symbols = source.symbols(0, 5)
        for sequence in range(batch):
            start = sequence * (len(text) - 5) // max(batch - 1, 1)
            found = "".join(alphabet[symbol] for symbol in symbols[:, 0, sequence])
            assert found == text[start : start + 5]

    @pytest.mark.parametrize(
        ("content", "message"),
        [
            (
                "abcd",
                "4 characters found, but seq_len = 4 needs 5 (T and the one that follows); "
                "set seq_len to at most 3, or give a longer file",
            ),
            ("a", "1 characters found, but seq_len = 4 needs 5 (T and the one that follows); give a longer file"),
            ("", "the file is empty"),
            (b"ab\x80cdef", "is not UTF-8 text: byte 0x80 at offset 2"),
        ],
    )
    def test_other_texts_are_refused(self, tmp_path, content, message):
        write(tmp_path, "book.txt", content)
        assert refusal(tmp_path, "book.txt") == f"book.txt: {message}"

    def test_another_input_size_is_an_error_of_the_spec(self, tmp_path):
        write(tmp_path, "book.txt", "banana")
        with pytest.raises(UsageError) as error:
            open_file(tmp_path, "book.txt", input_size=32)
        assert str(error.value) == (
            "book.txt has 3 different characters, but input_size is 32; leave input_size out, or set it to 3"
        )
        assert error.value.exit_code == 2


class TestAnyFile:
    def test_another_input_size_is_an_error_of_the_spec(self, tmp_path):
        write(tmp_path, "x.csv", "1,2\n" * 9)
        assert open_file(tmp_path, "x.csv", input_size=2).size == 2
        with pytest.raises(UsageError) as error:
            open_file(tmp_path, "x.csv", input_size=3)
        assert str(error.value) == (
            "x.csv has 2 features a step, but input_size is 3; leave input_size out, or set it to 2"
        )

    def test_paths_are_relative_to_the_folder_and_shown_as_written(self, tmp_path):
        (tmp_path / "data").mkdir()
        write(tmp_path / "data", "x.csv", "1\n" * 9)
        assert open_file(tmp_path, "data/x.csv").size == 1
        assert open_file(Path("elsewhere"), str(tmp_path / "data" / "x.csv")).size == 1
        message = "data/y.csv: no such file (paths are relative to the spec's folder)"
        assert refusal(tmp_path, "data/y.csv") == message

    def test_other_endings_are_refused(self, tmp_path):
        assert refusal(tmp_path, "x.zip") == "x.zip: expected a file that ends in .csv, .npy or .npz"

    def test_folders_and_pipes_are_refused_without_waiting(self, tmp_path):
        (tmp_path / "x.csv").mkdir()
        assert refusal(tmp_path, "x.csv") == "x.csv: not a regular file"
        os.mkfifo(tmp_path / "y.csv")
        assert refusal(tmp_path, "y.csv") == "y.csv: not a regular file"

    def test_a_name_that_no_file_can_have_is_refused(self, tmp_path):
        assert refusal(tmp_path, "\0.csv") == "\0.csv: cannot be read: embedded null byte"
        assert refusal(tmp_path, "x" * 300 + ".csv").endswith(": cannot be read: File name too long")

    @pytest.mark.parametrize("name", ["x.csv", "x.npy", "x.npz", "x.txt"])
    def test_very_large_files_are_refused_by_their_size_alone(self, tmp_path, name):
        with (tmp_path / name).open("wb") as file:
            file.truncate(2**30 + 1)
        limit = "256" if name == "x.txt" else "1,024"
        assert refusal(tmp_path, name) == (
            f"{name}: 1,024 MiB is more than the {limit} MiB that are accepted; cut out the part that is needed"
        )
