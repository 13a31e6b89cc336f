"""The reader of YAML 1.2: what scalars mean, where things stand, and what is refused."""

from __future__ import annotations

import json
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from reading import complaint_about, is_fit_to_print

from gradcli.errors import GradcliError, InputFileError, SpecError
from gradcli.spec import yaml12
from gradcli.spec.yaml12 import Place

PRINTABLE = st.characters(exclude_categories=("C", "Zl", "Zp"))


def value_of(text: str) -> Any:
    document = yaml12.read(f"key: {text}\n", "x.yaml")
    assert not document.mistakes
    return document.data["key"]


def mistakes_of(text: str) -> list[str]:
    return [f"{m.place.line}:{m.place.column}: {m.message}" for m in yaml12.read(text, "x.yaml").mistakes]


def refusal_of(text: str | bytes) -> str:
    with pytest.raises(GradcliError) as caught:
        yaml12.read(text, "x.yaml")
    return str(caught.value)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-3", 1e-3),
        ("1e3", 1e3),
        ("1E-3", 1e-3),
        ("1.0e3", 1e3),
        ("+.5", 0.5),
        ("1.", 1.0),
        ("-0", 0),
        ("010", 10),
        ("-010", -10),
        ("0o10", 8),
        ("0x10", 16),
        ("0xfF", 255),
        ("9" * 1000, int("9" * 1000)),
        ("true", True),
        ("FALSE", False),
        ("~", None),
        ("Null", None),
        ("", None),
        *((word, word) for word in ("no", "off", "on", "NO", "yes", "y", "n", "tRUE", "nUll")),
        *((word, word) for word in ("1:30", "12:30:45", "2024-01-01", "2024-13-45", "1:59:59:400.5")),
        *((word, word) for word in ("inf", "nan", "Infinity", "1_000", "0b1", "0o9", "0xg", "-0x1", "1e", ".", "<<")),
        ("'1'", "1"),
        ('"true"', "true"),
        ('"\\x41\\t\\u00e9"', "A\té"),
    ],
)
def test_scalars_follow_the_core_schema_of_yaml_1_2(text: str, value: object) -> None:
    read = value_of(text)
    assert read == value
    assert type(read) is type(value)


def test_pyyamls_own_tables_are_left_alone() -> None:
    yaml12.read("a: 1e-3\nb: no\n", "x.yaml")
    assert yaml.safe_load("a: 1e-3\nb: no\n") == {"a": "1e-3", "b": False}


@pytest.mark.parametrize("text", [".inf", "-.INF", "+.Inf", ".nan", ".NaN"])
def test_infinity_and_nan_are_mistakes(text: str) -> None:
    assert mistakes_of(f"key: {text}\n") == [f"1:6: infinity and NaN are not allowed; got {text}"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("1e999", "the number is too large for a float64; got 1e999"),
        ("9" * 1001, "a whole number of 1,001 characters; at most 1,000 can be read"),
        ("9" * 5000, "a whole number of 5,000 characters; at most 1,000 can be read"),
        ("0x" + "f" * 200_000, "a whole number of 200,002 characters; at most 1,000 can be read"),
    ],
)
def test_numbers_too_large_are_mistakes(text: str, message: str) -> None:
    assert mistakes_of(f"key: {text}\n") == [f"1:6: {message}"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("1: a\n", '1:1: a key must be a text; quote it: "1"'),
        ("true: a\n", '1:1: a key must be a text; quote it: "true"'),
        ("{a: {~: 1}}\n", '1:6: a key must be a text; quote it: "~"'),
        ("? [a]\n: b\n", "1:3: a key must be a text, not a list or block; if a text is meant, quote it"),
        ("a: 1\nb: 2\na: 3\n", "3:1: the key 'a' is given twice: first on line 1, again on line 3"),
        ("- {a: 1, 'a': 2}\n", "1:10: the key 'a' is given twice: first on line 1, again on line 1"),
        ('"\\e[2J": 1\n', "1:1: the character U+001B cannot stand in a text"),
        ('a: "\\r"\n', "1:4: the character U+000D cannot stand in a text"),
        ('a: "\\ud800"\n', "1:4: the character U+D800 cannot stand in a text"),
    ],
)
def test_a_mistake_leaves_the_rest_readable(text: str, message: str) -> None:
    assert mistakes_of(text) == [message]


def test_of_duplicate_keys_the_first_is_kept() -> None:
    document = yaml12.read("a: {x: 1}\na: {y: 2}\nb: 3\n", "x.yaml")
    assert document.data == {"a": {"x": 1}, "b": 3}
    assert document.values["a", "x"] == Place(1, 8)
    assert ("a", "y") not in document.values


@pytest.mark.parametrize(
    ("text", "place", "about"),
    [
        ("&x [*x]", "1:1", "an anchor"),
        ("a: *b", "1:4", "an alias"),
        ("a: &b 1", "1:4", "an anchor"),
        ("a: !!int x", "1:4", "a tag (!!int)"),
        ("a: !!timestamp x", "1:4", "a tag (!!timestamp)"),
        ("a: !!bool maybe", "1:4", "a tag (!!bool)"),
        ("a: !!python/object/apply:os.system [ls]", "1:4", "a tag (!!python/object/apply:os.system)"),
        ("a: !own 1", "1:4", "a tag (!own)"),
        ("a: ! 1", "1:4", "a tag (!)"),
        ("a: 1\n--- 2\n", "2:1", "a second document"),
        ("a\x07: 1", "1:2", "the character U+0007"),
        ("a: 1\r\nb: \x7f", "2:4", "the character U+007F"),
        ("a: \ufeff1", "1:4", "the character U+FEFF"),
        ("[" * 100_000, "1:51", "nested more than 50 deep"),
        ("- " * 60, "1:101", "nested more than 50 deep"),
        ("[" + "1," * 100_000 + "]", "1:199996", "more than 100,000 keys and values"),
    ],
)
def test_what_no_spec_needs_is_refused(text: str, place: str, about: str) -> None:
    assert refusal_of(text).startswith(f"x.yaml:{place}: {about}")


def test_fifty_levels_are_read() -> None:
    nested = yaml12.read("[" * 50 + "]" * 50, "x.yaml").data
    depth = 1
    while nested:
        (nested,) = nested
        depth += 1
    assert depth == 50


def test_all_refusals_of_a_file_are_told_at_once() -> None:
    with pytest.raises(SpecError) as caught:
        yaml12.read("a: &x 1\nb: *x\nc: !t 2\nd: [\n", "x.yaml")
    assert [problem.line for problem in caught.value.problems] == [1, 2, 3, 5]


def test_a_file_too_large_is_refused() -> None:
    text = "#" * yaml12.MAX_BYTES
    assert yaml12.read(text.encode(), "x.yaml").data is None
    with pytest.raises(InputFileError, match=r"x\.yaml: larger than 1,048,576 bytes"):
        yaml12.read(f"{text}#".encode(), "x.yaml")


def test_the_offset_of_a_byte_that_is_no_utf_8_is_told() -> None:
    with pytest.raises(InputFileError, match="byte 0xe9 at offset 6;"):
        yaml12.read(b"a: caf\xe9", "x.yaml")


def test_a_byte_order_mark_at_the_start_is_skipped() -> None:
    document = yaml12.read(b"\xef\xbb\xbfa: b\n", "x.yaml")
    assert document.data == {"a": "b"}
    assert document.values[("a",)] == Place(1, 4)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a:\n\tb: 1", "2:1: a tab cannot stand here; indent with spaces"),
        ("a: @x", "1:4: a text cannot start with '@'; quote it"),
        ("a: [1, 2\nb: 3", "2:2: the '[' of line 1 is not closed by ']', or a ',' is missing"),
        ("a: {b: 1", "1:9: the '{' of line 1 is not closed by '}', or a ',' is missing"),
        ("a:\n  'x", "2:5: the quote that opens on line 2 is never closed"),
        ("a: 1\nb\nc: 2", "3:1: the key on line 2 has no ':' behind it"),
        ("a: ]", "1:4: a value is missing before ']'"),
        ("a: - 1", "1:4: a '- ' list cannot start here; put it on a line of its own"),
        ("*: 1", "1:1: a text that starts with '*' must be quoted: \"*\""),
        ("a: !<x", "1:4: a text that starts with '!' must be quoted"),
        (
            "a: |0\n  b",
            "1:4: only +, - or an indentation from 1 to 9 can follow '|' or '>' on its line; if a comparison is meant,"
            ' quote it: ">= 50"',
        ),
        ('a: "\\q"', "1:6: there is no escape \\q; write a backslash twice, or use single quotes"),
        ('a: "\\U00110000"', "1:7: this escape is out of range: there is no such character"),
    ],
)
def test_syntax_errors_are_told_in_plain_words(text: str, message: str) -> None:
    assert refusal_of(text) == f"x.yaml:{message}"


# Where things stand -------------------------------------------------------------------------------------------------

SCALARS = (
    st.none()
    | st.booleans()
    | st.integers(-(10**20), 10**20)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(PRINTABLE, max_size=8)
)
DATA = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(PRINTABLE, max_size=6), inner, max_size=4),
    max_leaves=12,
)


class Writer:
    """Writes data as YAML, and notes where it puts each key and value."""

    def __init__(self) -> None:
        self.text = ""
        self.keys: dict[tuple[str | int, ...], Place] = {}
        self.values: dict[tuple[str | int, ...], Place] = {}

    def here(self) -> Place:
        before, _, line = self.text.rpartition("\n")
        return Place(before.count("\n") + 2 if "\n" in self.text else 1, len(line) + 1)

    def scalar(self, value: object) -> None:
        self.text += repr(value) if isinstance(value, float) else json.dumps(value, ensure_ascii=False)

    def flow(self, value: Any, path: tuple[str | int, ...]) -> None:
        self.values[path] = self.here()
        if isinstance(value, dict):
            self.text += "{"
            for key, inner in value.items():
                self.keys[*path, key] = self.here()
                self.scalar(key)
                self.text += ": "
                self.flow(inner, (*path, key))
                self.text += ",\n "
            self.text += "}"
        elif isinstance(value, list):
            self.text += "[ "
            for index, inner in enumerate(value):
                self.flow(inner, (*path, index))
                self.text += " , "
            self.text += "]"
        else:
            self.scalar(value)

    def block(self, value: Any, path: tuple[str | int, ...], indentation: int) -> None:
        if not isinstance(value, dict | list) or not value:
            self.flow(value, path)
            return
        for number, (part, inner) in enumerate(value.items() if isinstance(value, dict) else enumerate(value)):
            self.text += "\n# a comment\n\n" + " " * indentation
            if number == 0:
                self.values[path] = self.here()
            if isinstance(value, dict):
                self.keys[*path, part] = self.here()
                self.scalar(part)
                self.text += ":  "
            else:
                self.text += "-  "
            self.block(inner, (*path, part), indentation + 3)


@settings(deadline=None)
@given(DATA, st.booleans())
def test_every_key_and_value_is_read_with_its_place(data: Any, in_blocks: bool) -> None:
    writer = Writer()
    if in_blocks:
        writer.block(data, (), 0)
    else:
        writer.flow(data, ())
    document = yaml12.read(writer.text, "x.yaml")
    assert document.data == data
    assert json.dumps(document.data) == json.dumps(data)  # 1 == 1.0 == True, but they are not the same
    assert document.values == writer.values
    assert document.keys == writer.keys


LINES = st.lists(st.text(st.sampled_from("ab =@#:[]'é"), max_size=6).map(str.rstrip), min_size=1, max_size=6)


@settings(deadline=None)
@given(LINES, st.integers(1, 6), st.sampled_from(["", "-", "+"]), st.booleans(), st.sampled_from(["\n", "\r\n"]))
def test_a_place_in_a_literal_block_is_a_place_in_the_file(
    lines: list[str], indentation: int, chomping: str, explicit: bool, end: str
) -> None:
    # Without an indicator the first line with text sets the indentation, so it cannot begin with a space.
    explicit = explicit or next((line for line in lines if line), "").startswith(" ")
    header = f"|{indentation if explicit else ''}{chomping}"
    written = ["# above", "outer:", f" - key: {header} # note"]
    # The block stands in a mapping at column 4, so an indicator counts from there.
    spaces = 3 + indentation
    written += [" " * spaces + line if line else "" for line in lines]
    document = yaml12.read(end.join(written) + end, "x.yaml")
    path = ("outer", 0, "key")
    text = document.data["outer"][0]["key"]
    for line, content in enumerate(text.split("\n"), start=1):
        for column, char in enumerate(content, start=1):
            place = document.place_in_text(path, line, column)
            assert place == Place(3 + line, spaces + column)
            assert written[place.line - 1][place.column - 1] == char


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        ("abc def", Place(2, 5)),
        ("'abc def'", Place(2, 6)),
        ('"abc def"', Place(2, 6)),
        ('"\\x61bc def"', Place(2, 4)),
        ("'ab''c'", Place(2, 4)),
        ("abc\n def", Place(2, 4)),
        (">\n abc\n def", Place(2, 4)),
    ],
)
def test_a_place_in_a_text_on_one_line(written: str, expected: Place) -> None:
    document = yaml12.read(f"x: 1\nk: {written}\n", "x.yaml")
    assert document.place_in_text(("k",), 1, 2) == expected
    assert document.place_in_text(("k",), 2, 1) == Place(2, 4)


# Hostile input ------------------------------------------------------------------------------------------------------

PIECES = [
    *"a1-:,[]{}'\"\\|>?!&*#%@~ \t\n",
    ": ",
    "- ",
    "&a ",
    "*a",
    "--- ",
    "...\n",
    "1e9",
    ".inf",
    "\\U00110000",
    "\x1b",
]
FRAGMENTS = st.lists(st.sampled_from([*PIECES, "\u2028", "\ud800", "\ufeff"]), max_size=30).map("".join)


@settings(deadline=None)
@given(st.text() | st.binary() | FRAGMENTS)
def test_no_text_raises_anything_but_errors_for_people(raw: str | bytes) -> None:
    complaint = complaint_about(lambda: yaml12.read(raw, "x.yaml"))
    assert complaint.startswith("x.yaml") or not complaint
    assert is_fit_to_print(complaint)
