"""A safe reader of YAML 1.2: plain data, and the place of every key and value.

PyYAML scans and parses; what the scalars mean is decided here by the core schema of YAML 1.2, so ``1e-3`` is a number
and ``no`` a text, whatever else in the process uses PyYAML. Anchors, aliases and tags are refused: a spec needs none,
and they are the ways in which a small file becomes a large or a hostile one.
"""

from __future__ import annotations

import math
import re
import unicodedata
from collections.abc import Mapping
from functools import lru_cache
from typing import Any, NamedTuple

import yaml
from yaml.parser import Parser
from yaml.reader import Reader
from yaml.scanner import Scanner

from gradcli.errors import InputFileError, Problem, SpecError
from gradcli.frozen import frozen
from gradcli.spec.shown import Path, printable, shown
from gradcli.spec.yaml_syntax import plain_words

MAX_BYTES = 2**20
MAX_DEPTH = 50
MAX_EVENTS = 100_000
MAX_DIGITS = 1000

# Control characters, line ends that only some programs count (U+0085, U+2028, U+2029), surrogates and byte order marks
# are refused. What is allowed is all the rest:
_ALLOWED_ASCII = r"\t\n\x20-\x7e"
_ALLOWED_BEYOND = r"\xa0-\u2027\u202a-\ud7ff\ue000-\ufefe\uff00-\ufffd\U00010000-\U0010ffff"
_LINE_END = r"\r\n|\r|\n"
_TAG_PREFIX = "tag:yaml.org,2002:"
_BOM = "\ufeff"

_NULL = frozenset({"", "~", "null", "Null", "NULL"})
_BOOL = {"true": True, "True": True, "TRUE": True, "false": False, "False": False, "FALSE": False}
_NUMBER_START = frozenset("+-.0123456789")
_DECIMAL = r"[-+]?[0-9]+"
_OCTAL = r"0o[0-7]+"
_HEXADECIMAL = r"0x[0-9a-fA-F]+"
_FLOAT = r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?"
_NOT_FINITE = r"[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)"


def _first_forbidden(text: str, also: str = "") -> re.Match[str] | None:
    """Return the first character that cannot stand in a spec; those of `also` can."""
    return _forbidden(_ALLOWED_ASCII + also + ("" if text.isascii() else _ALLOWED_BEYOND)).search(text)


@lru_cache
def _forbidden(allowed: str) -> re.Pattern[str]:
    # Compiled when needed: for the characters beyond ASCII that takes longer than reading a spec.
    return re.compile(f"[^{allowed}]")


class Place(NamedTuple):
    """A place in a file; line and column count from 1."""

    line: int
    column: int


class Mistake(NamedTuple):
    """A mistake that leaves the rest of the document readable."""

    place: Place
    path: Path
    message: str


@frozen
class Document:
    """What a YAML text holds.

    data: plain dicts, lists, texts, numbers, booleans and None.
    keys, values: the place of every key and of every value, by its path (mapping keys and list indices).
    styles: for every text, how it is written: "" plain, "'" or '"' quoted, "|" literal, ">" folded.
    mistakes: what is wrong although the rest could be read (duplicate keys, keys that are no text, infinite numbers).
    """

    data: Any
    keys: Mapping[Path, Place]
    values: Mapping[Path, Place]
    styles: Mapping[Path, str]
    mistakes: tuple[Mistake, ...]
    lines: tuple[str, ...]

    def place_in_text(self, path: Path, line: int, column: int) -> Place:
        """Return where the character at (line, column) of the text at `path` stands in the file.

        Exact for literal blocks, and for texts on one line without escapes; else the start of the text.
        """
        start = self.values[path]
        text: Any = self.data
        for part in path:
            text = text[part]
        if not isinstance(text, str):
            return start
        style = self.styles.get(path, "")
        if style == "|":
            return self._place_in_block(start, text.split("\n"), line, column)
        before = start.column - 1 + len(style)
        on_one_line = style != ">" and self.lines[start.line - 1][before:].startswith(text)
        return Place(start.line, before + column) if line == 1 and on_one_line else start

    def _place_in_block(self, start: Place, text: list[str], line: int, column: int) -> Place:
        # Text line n is file line start + n: the header stands on the first, and blank lines are kept.
        for number, content in enumerate(text, start=1):
            if content:
                indentation = len(self.lines[start.line + number - 1]) - len(content)
                return Place(start.line + line, indentation + column)
        return start


def read(raw: bytes | str, source: str) -> Document:
    """Return the document in `raw`; `source` names it in messages.

    Raises InputFileError where it is too large or no UTF-8, SpecError where it is no YAML or uses what a spec may not.
    """
    text = _decoded(raw, source).removeprefix(_BOM)
    bad = _first_forbidden(text, also=r"\r")
    if bad:
        before = re.split(_LINE_END, text[: bad.start()])
        place = Place(len(before), len(before[-1]) + 1)
        raise _refusal(source, place, f"{_character(bad.group())} cannot stand in a spec; remove it")
    return _Builder(text, source).document()


def _decoded(raw: bytes | str, source: str) -> str:
    if len(raw) > MAX_BYTES:
        raise InputFileError(f"{source}: larger than {MAX_BYTES:,} bytes, the most that a spec may have")
    if isinstance(raw, str):
        return raw
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError as error:
        raise InputFileError(
            f"{source}: not a text in UTF-8: byte 0x{raw[error.start]:02x} at offset {error.start}; "
            "save the file as UTF-8"
        ) from None


def _refusal(source: str, place: Place, message: str) -> SpecError:
    return SpecError([Problem(source, place.line, place.column, "", message)])


def _character(char: str) -> str:
    name = unicodedata.name(char, "").lower()
    return f"the character U+{ord(char):04X}" + (f" ({name})" if name else "")


def _place(mark: Any) -> Place:
    return Place(mark.line + 1, mark.column + 1)


class _Events(Reader, Scanner, Parser):
    """PyYAML's event parser in pure Python: a state machine, so deep nesting does not recurse."""

    def __init__(self, text: str) -> None:
        Reader.__init__(self, text)
        Scanner.__init__(self)
        Parser.__init__(self)


class _Frame:
    """A list or mapping being read; `path` is None inside what is read but not kept."""

    __slots__ = ("key", "path", "values")

    def __init__(self, values: Any, path: Path | None) -> None:
        self.values = values
        self.path = path
        self.key: str | None = None  # of a mapping: the key whose value comes next

    def awaits_key(self) -> bool:
        return isinstance(self.values, dict) and self.key is None

    def next_path(self) -> Path | None:
        part = self.key if isinstance(self.values, dict) else len(self.values)
        return None if self.path is None or part in (None, _DROPPED) else (*self.path, part)

    def put(self, value: Any) -> None:
        if isinstance(self.values, list):
            self.values.append(value)
        else:
            if self.key != _DROPPED:
                self.values[self.key] = value
            self.key = None


# Stands for a key whose value is read but not kept; no key of a file can hold NUL.
_DROPPED = "\0"


class _Builder:
    """Builds the document from PyYAML's events, without recursion."""

    def __init__(self, text: str, source: str) -> None:
        self.text = text
        self.source = source
        self.keys: dict[Path, Place] = {}
        self.values: dict[Path, Place] = {}
        self.styles: dict[Path, str] = {}
        self.mistakes: list[Mistake] = []
        self.refused: list[Problem] = []
        self.root: Any = None
        self.stack: list[_Frame] = []

    def document(self) -> Document:
        events = _Events(self.text)
        try:
            self._read(events)
        except yaml.MarkedYAMLError as error:
            mark, message = plain_words(error)
            place = _place(mark) if mark is not None else Place(1, 1)
            raise SpecError([*self.refused, *_refusal(self.source, place, message).problems]) from None
        except (ValueError, OverflowError):
            # PyYAML passes the number of a "\U..." escape to chr() unchecked, and that of a directive to int().
            place = _place(events.get_mark())
            raise _refusal(self.source, place, "this escape is out of range: there is no such character") from None
        if self.refused:
            raise SpecError(self.refused)
        lines = tuple(re.split(_LINE_END, self.text))
        return Document(self.root, self.keys, self.values, self.styles, tuple(self.mistakes), lines)

    def _read(self, events: Any) -> None:
        count = 0
        documents = 0
        while events.check_event():
            event = events.get_event()
            count += 1
            if count > MAX_EVENTS:
                self._stop(event, f"more than {MAX_EVENTS:,} keys and values, the most that a spec may have")
            if isinstance(event, yaml.ScalarEvent):
                self._scalar(event)
            elif isinstance(event, yaml.CollectionStartEvent):
                self._open(event)
            elif isinstance(event, yaml.CollectionEndEvent):
                self._close()
            elif isinstance(event, yaml.AliasEvent):
                self._refuse(event, f'an alias cannot stand in a spec; if a name is meant, quote it: "*{event.anchor}"')
                self._scalar(yaml.ScalarEvent(None, None, (False, True), "", event.start_mark, style="'"))
            elif isinstance(event, yaml.DocumentStartEvent):
                documents += 1
                if documents > 1:
                    self._stop(event, "a second document starts here; a file holds one")

    def _stop(self, event: Any, message: str) -> None:
        refusal = _refusal(self.source, _place(event.start_mark), message)
        raise SpecError([*self.refused, *refusal.problems])

    def _refuse(self, event: Any, message: str) -> None:
        place = _place(event.start_mark)
        self.refused.append(Problem(self.source, place.line, place.column, "", message))

    def _check_node(self, event: Any) -> None:
        if event.anchor is not None:
            self._refuse(event, f'an anchor cannot stand in a spec; if a text is meant, quote it: "&{event.anchor}"')
        if event.tag is not None:
            tag = printable(event.tag.replace(_TAG_PREFIX, "!!"))
            self._refuse(event, f"a tag ({tag}) cannot stand in a spec; if a text is meant, quote it")

    def _mistake(self, event: Any, path: Path | None, message: str) -> None:
        self.mistakes.append(Mistake(_place(event.start_mark), path or (), message))

    def _open(self, event: Any) -> None:
        self._check_node(event)
        if len(self.stack) >= MAX_DEPTH:
            self._stop(event, f"nested more than {MAX_DEPTH} deep")
        values: Any = {} if isinstance(event, yaml.MappingStartEvent) else []
        path: Path | None = ()
        if self.stack:
            parent = self.stack[-1]
            if parent.awaits_key():
                self._mistake(
                    event, parent.path, "a key must be a text, not a list or block; if a text is meant, quote it"
                )
                parent.key = _DROPPED
                self.stack.append(_Frame(values, None))
                return
            path = parent.next_path()
            parent.put(values)
        else:
            self.root = values
        if path is not None:
            self.values[path] = _place(event.start_mark)
        self.stack.append(_Frame(values, path))

    def _close(self) -> None:
        self.stack.pop()

    def _scalar(self, event: Any) -> None:
        self._check_node(event)
        parent = self.stack[-1] if self.stack else None
        if parent is not None and parent.awaits_key():
            self._key(event, parent)
            return
        path = parent.next_path() if parent is not None else ()
        value = self._value(event, path)
        if path is not None:
            self.values[path] = _place(event.start_mark)
            if isinstance(value, str):
                self.styles[path] = event.style or ""
        if parent is None:
            self.root = value
        else:
            parent.put(value)

    def _key(self, event: Any, parent: _Frame) -> None:
        place = _place(event.start_mark)
        key: str = event.value
        parent.key = key
        if _is_special(event):
            path = None if parent.path is None else (*parent.path, key)
            named = f'a key must be a text; quote it: "{printable(key)}"' if key else "there is no key before the ':'"
            self._mistake(event, path, named)
        self._check_characters(event, parent.path)
        if _first_forbidden(key):
            parent.key = _DROPPED
        elif parent.path is not None:
            path = (*parent.path, key)
            if path in self.keys:
                first = self.keys[path].line
                where = f"first on line {first}, again on line {place.line}"
                self._mistake(event, path, f"the key {shown(key)} is given twice: {where}")
                parent.key = _DROPPED
            else:
                self.keys[path] = place

    def _value(self, event: Any, path: Path | None) -> Any:
        text: str = event.value
        if not _is_special(event):
            self._check_characters(event, path)
            return text
        if text in _NULL:
            return None
        if text in _BOOL:
            return _BOOL[text]
        if re.fullmatch(_NOT_FINITE, text):
            self._mistake(event, path, f"infinity and NaN are not allowed; got {text}")
            return 0.0
        if re.fullmatch(_FLOAT, text) and not re.fullmatch(_DECIMAL, text):
            number = float(text)
            if math.isinf(number):
                self._mistake(event, path, f"the number is too large for a float64; got {printable(text)}")
                return 0.0
            return number
        digits = len(text.lstrip("+-"))
        if digits > MAX_DIGITS:
            self._mistake(event, path, f"a whole number of {digits:,} characters; at most {MAX_DIGITS:,} can be read")
            return 0
        return int(text, 10 if re.fullmatch(_DECIMAL, text) else 0)

    def _check_characters(self, event: Any, path: Path | None) -> None:
        """Refuse what a quoted text can smuggle in by an escape: it would reach the terminal."""
        if not event.value.isprintable():
            bad = _first_forbidden(event.value)
            if bad:
                self._mistake(event, path, f"{_character(bad.group())} cannot stand in a text")


def _is_special(event: Any) -> bool:
    """Tell whether a plain scalar is something other than text in the core schema of YAML 1.2."""
    text = event.value
    if event.style:
        return False
    if text in _NULL or text in _BOOL:
        return True
    return text[0] in _NUMBER_START and any(
        re.fullmatch(pattern, text) for pattern in (_FLOAT, _OCTAL, _HEXADECIMAL, _NOT_FINITE)
    )
