"""Texts over an alphabet of one's own, and tokens as rows of an embedding table."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from from_file import opened, sequences
from hypothesis import given
from hypothesis import strategies as st

from gradcli.errors import GradcliError, InputFileError, UsageError
from gradcli.sources.files import FieldError
from gradcli.sources.input_source import SymbolSource
from gradcli.sources.targets import class_count, draw_target
from gradcli.sources.texts import read_whole_numbers
from gradcli.spec.losses import CrossEntropyLoss, NextSymbol

TABLE = np.random.default_rng(0).standard_normal((7, 3))
STREAM = np.random.default_rng(1).integers(7, size=30)
NEXT = CrossEntropyLoss(kind="cross_entropy", at="every", target=NextSymbol())


def table(name: str | None) -> np.ndarray:
    assert name in (None, "encoder")
    return TABLE


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    np.save(tmp_path / "long.npy", STREAM)
    np.savez(tmp_path / "many.npz", ids=STREAM.reshape(5, 6), n=np.array([6, 2, 4, 3, 6]))
    return tmp_path


def tokens(folder: Path, **arguments: Any) -> SymbolSource:
    source = opened(folder, kind="tokens", **({"table": table} | arguments))
    assert isinstance(source, SymbolSource)
    return source


def following(source: SymbolSource) -> np.ndarray:
    """Return the targets that ask for the next symbol, of the first trial, (batch, T)."""
    extent = source.extent
    found = draw_target(
        NEXT,
        output_size=4,
        steps=range(1, extent.seq_len + 1),
        batch_size=extent.batch_size,
        trials=extent.trials,
        seed=0,
        input_source=source,
    )
    return np.asarray(found[:, 0].T)


class TestText:
    def test_an_alphabet_sets_the_order_and_may_hold_more(self, tmp_path: Path) -> None:
        (tmp_path / "a.txt").write_text("banana\n", encoding="utf-8")
        source = opened(tmp_path, kind="text", path="a.txt", alphabet="nab\nz", seq_len=6, batch=1)
        assert isinstance(source, SymbolSource)
        assert source.size == source.symbol_count == 5
        assert source.symbols(0, 7)[:, 0, 0].tolist() == [2, 1, 0, 1, 0, 1, 3]
        assert np.array_equal(sequences(source)[0], np.eye(5)[[2, 1, 0, 1, 0, 1]])

    def test_a_character_outside_of_it_is_told_with_its_place(self, tmp_path: Path) -> None:
        (tmp_path / "a.txt").write_text("ban\nan\u00e9a", encoding="utf-8")
        with pytest.raises(InputFileError) as error:
            opened(tmp_path, kind="text", path="a.txt", alphabet="abn\n", seq_len=6, batch=1)
        assert str(error.value) == "a.txt: line 2, character 3: '\u00e9' is not in the alphabet that is given"

    def test_windows_begin_every_so_many_characters(self, tmp_path: Path) -> None:
        (tmp_path / "a.txt").write_text("abcdefghijkl", encoding="utf-8")
        source = opened(tmp_path, kind="text", path="a.txt", stride=4, seq_len=3, batch=3)
        assert isinstance(source, SymbolSource)
        assert source.symbols(0, 4)[:, 0].T.tolist() == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 10, 11]]
        with pytest.raises(FieldError, match="12 characters hold 3 windows of 4, one beginning every 4"):
            opened(tmp_path, kind="text", path="a.txt", stride=4, seq_len=3, batch=4)


ROW = "expected a whole number from 0 to 6, a row of the embedding table; got"


class TestTokens:
    def test_each_is_a_row_of_the_table(self, folder: Path) -> None:
        source = tokens(folder, path="long.npy", seq_len=10, batch=2, embedding="encoder")
        assert (source.size, source.symbol_count) == (3, 7)
        x = sequences(source)
        assert np.array_equal(x, np.stack([TABLE[STREAM[:10]], TABLE[STREAM[20:]]]))

    def test_the_next_one_may_be_the_target(self, folder: Path) -> None:
        """The last window leaves a token for the last target, and the classes are the rows of the table."""
        source = tokens(folder, path="long.npy", seq_len=10, batch=2, one_more=True)
        assert class_count(NEXT, source) == 7
        assert np.array_equal(sequences(source)[1], TABLE[STREAM[19:29]])
        assert np.array_equal(following(source), [STREAM[1:11], STREAM[20:30]])

    def test_of_sentences_each_ends_at_the_last_step(self, folder: Path) -> None:
        source = tokens(folder, path="many.npz", key="ids", lengths="n", seq_len=6, batch=5)
        assert source.lengths is not None
        for x, sentence, length in zip(sequences(source), STREAM.reshape(5, 6), source.lengths, strict=True):
            assert np.array_equal(x[6 - length :], TABLE[sentence[:length]])
            assert not x[: 6 - length].any()

    def test_of_sentences_the_last_token_is_the_last_target(self, folder: Path) -> None:
        source = tokens(folder, path="many.npz", key="ids", lengths="n", seq_len=5, batch=5, one_more=True)
        assert source.lengths is not None
        assert source.lengths.tolist() == [5, 1, 3, 2, 5]
        targets = following(source)
        for x, target, sentence, length in zip(
            sequences(source), targets, STREAM.reshape(5, 6), source.lengths, strict=True
        ):
            assert np.array_equal(x[5 - length :], TABLE[sentence[:length]])
            assert np.array_equal(target[5 - length :], sentence[1 : length + 1])

    @pytest.mark.parametrize(
        ("name", "text"),
        [("x.txt", "3 1\n4\t1 5\n\n2"), ("x.csv", "3,1,4,1,5,2\n"), ("x.csv", "id\n3\n1\n4\n1\n5\n2\n")],
    )
    def test_they_may_stand_in_a_text(self, folder: Path, name: str, text: str) -> None:
        (folder / name).write_text(text, encoding="utf-8")
        source = tokens(folder, path=name, seq_len=6, batch=1)
        assert source.symbols(0, 6)[:, 0, 0].tolist() == [3, 1, 4, 1, 5, 2]

    @pytest.mark.parametrize(
        ("values", "words"),
        [
            (np.array([0, 1, 7, 2]), f"token 3: {ROW} 7"),
            (np.array([0, -1, 7, 2]), f"token 2: {ROW} -1"),
            (np.array([0, 0.5, 1]), f"token 2: {ROW} 0.5"),
            (np.array([[0, 1], [9, 2]]), f"sequence 2, token 1: {ROW} 9"),
            (np.zeros((2, 2, 2)), "expected tokens (steps,) or (sequences, steps); got an array of shape (2, 2, 2)"),
        ],
    )
    def test_what_is_no_token_is_told_with_its_place(self, folder: Path, values: np.ndarray, words: str) -> None:
        np.save(folder / "x.npy", values)
        with pytest.raises(InputFileError) as error:
            tokens(folder, path="x.npy", seq_len=2, batch=2)
        assert str(error.value) == f"x.npy: {words}"

    def test_a_text_has_no_keys_and_other_files_no_tokens(self, folder: Path) -> None:
        (folder / "x.txt").write_text("1 2 3", encoding="utf-8")
        with pytest.raises(FieldError, match=r"x\.txt is no \.npz, and has no keys"):
            tokens(folder, path="x.txt", key="a", seq_len=2, batch=1)
        with pytest.raises(InputFileError, match=r"x\.pdf: expected a file that ends in \.txt, \.csv, \.npy or \.npz"):
            tokens(folder, path="x.pdf", seq_len=2, batch=1)

    def test_the_padding_may_be_anything(self, folder: Path) -> None:
        np.save(folder / "x.npy", np.array([[1, 2, -1], [3, 4, 5]]))
        source = tokens(folder, path="x.npy", seq_len=3, batch=2, lengths=[2, 3])
        assert source.symbols(0, 3)[1:, 0, 0].tolist() == [1, 2]

    def test_without_a_checkpoint_there_is_no_table(self, folder: Path) -> None:
        with pytest.raises(UsageError, match="give the checkpoint that has it under `weights:`"):
            tokens(folder, path="long.npy", seq_len=3, batch=1, table=None)

    def test_a_sequence_of_one_has_no_next(self, folder: Path) -> None:
        with pytest.raises(FieldError) as error:
            tokens(folder, path="many.npz", key="ids", lengths=[6, 1, 2, 2, 2], seq_len=5, batch=5, one_more=True)
        assert str(error.value) == (
            "sequence 2: expected a whole number from 2 to the 6 steps of many.npz"
            " (2, as the last one is the target of the one before); got 1"
        )
        assert error.value.path == ("lengths", 1)

    def test_the_size_of_the_table_is_the_size_of_the_input(self, folder: Path) -> None:
        with pytest.raises(UsageError, match=r"long\.npy has 3 features a token, but input_size is 7"):
            tokens(folder, path="long.npy", seq_len=3, batch=1, input_size=7)


class TestWholeNumbers:
    @given(st.lists(st.integers(-(2**31) + 1, 2**31 - 1), min_size=1), st.sampled_from([" ", "\n", "\t ", "\r\n"]))
    def test_any_are_read(self, tmp_path_factory: pytest.TempPathFactory, numbers: list[int], between: str) -> None:
        path = tmp_path_factory.mktemp("numbers") / "x.txt"
        path.write_bytes(between.join(map(str, numbers)).encode())
        assert read_whole_numbers(path, "x.txt").tolist() == numbers

    def test_a_long_line_is_read_by_parts(self, tmp_path: Path) -> None:
        numbers = np.arange(100_000)
        (tmp_path / "x.txt").write_text(" ".join(map(str, numbers)), encoding="utf-8")
        assert np.array_equal(read_whole_numbers(tmp_path / "x.txt", "x.txt"), numbers)

    @pytest.mark.parametrize(
        ("content", "words"),
        [
            (b"1 2\n3 x 4", "line 2: expected whole numbers; got 'x'"),
            (b"1\n\n2.5", "line 3: expected whole numbers; got '2.5'"),
            (b"1 1_000", "line 1: expected whole numbers; got '1_000'"),
            ("1 \u0663".encode(), "line 1: expected whole numbers; got '\u0663'"),
            (b"--1", "line 1: expected whole numbers; got '--1'"),
            (b"1 99999999999", "line 1: 99999999999 is larger than any token"),
            (b"9" * 60, f"line 1: expected whole numbers; got '{'9' * 40}...'"),
            (b"9" * 300_000, f"line 1: expected whole numbers; got '{'9' * 40}'..."),
            (b" \n ", "holds no numbers"),
            (b"", "the file is empty"),
            (b"1 \xff", "is not UTF-8 text: invalid start byte"),
        ],
    )
    def test_other_texts_are_refused(self, tmp_path: Path, content: bytes, words: str) -> None:
        (tmp_path / "x.txt").write_bytes(content)
        with pytest.raises(GradcliError) as error:
            read_whole_numbers(tmp_path / "x.txt", "x.txt")
        assert str(error.value) == f"x.txt: {words}"
        assert error.value.exit_code == 4
