"""Text made safe, measured and wrapped."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gradcli.formats.text import display_width, pad, printable, wrap


@given(st.text())
def test_printable_text_has_no_control_characters(text: str) -> None:
    assert not {unicodedata.category(char) for char in printable(text)} & {"Cc", "Cf", "Cs", "Zl", "Zp"}


@given(st.text())
def test_printable_ascii_is_printable_ascii(text: str) -> None:
    plain = printable(text, unicode=False)
    assert plain.isascii()
    assert plain.isprintable()


@given(st.text(st.characters(min_codepoint=32, max_codepoint=126)))
def test_printable_leaves_ordinary_text_alone(text: str) -> None:
    assert printable(text) == printable(text, unicode=False) == text


@pytest.mark.parametrize(
    ("text", "ascii_form"),
    [("4 × 16", "4 x 16"), ("é", "e"), ("10⁻³", "10-3"), ("中", "\\u4e2d"), ("straße", "strasse"), ("a→b", "a->b")],
)
def test_ascii_forms(text: str, ascii_form: str) -> None:
    assert printable(text, unicode=False) == ascii_form


WORDS = st.lists(st.text("ab中", min_size=1, max_size=8), min_size=1)


@given(WORDS, st.integers(min_value=16, max_value=40))
def test_wrapping_loses_nothing_and_fits(words: list[str], width: int) -> None:
    lines = wrap(" ".join(words), width)
    assert " ".join(lines).split() == words
    assert max(map(display_width, lines)) <= width


@given(st.text("ab中 ", min_size=1), st.integers(min_value=2, max_value=10))
def test_broken_words_fit_too(text: str, width: int) -> None:
    lines = wrap(text.strip(), width, break_words=True)
    assert "".join(lines).replace(" ", "") == text.replace(" ", "")
    assert max(map(display_width, lines)) <= width


def test_parts_stay_together() -> None:
    text = "W_xh 0.031   W_hh 0.044   b_h 0.052"
    assert wrap(text, 25) == ["W_xh 0.031   W_hh 0.044", "b_h 0.052"]
    assert wrap(text, 18) == ["W_xh 0.031", "W_hh 0.044", "b_h 0.052"]
    assert wrap(text, 31, keep_parts=False) == ["W_xh 0.031   W_hh 0.044   b_h", "0.052"]


def test_long_words_are_left_whole_unless_told() -> None:
    assert wrap("see experiments/long.yaml now", 10) == ["see", "experiments/long.yaml", "now"]


def test_padding_counts_columns() -> None:
    assert pad("中", 4) == "中  "
    assert pad("中", 4, right=True) == "  中"
