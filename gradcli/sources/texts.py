"""Texts as symbols, and lists of whole numbers."""

from __future__ import annotations

from array import array
from pathlib import Path

import numpy as np

from gradcli.errors import InputFileError
from gradcli.frozen import frozen
from gradcli.sources.files import MAX_TEXT_BYTES, not_utf8, require_file, unreadable

_CODEPOINTS = 0x110000
_PART = 2**16
_LARGEST_ID = 2**31


@frozen
class Text:
    """A text as symbols. alphabet: its characters; a symbol is a character's place in it."""

    codepoints: np.ndarray
    alphabet: str
    symbol_of_codepoint: np.ndarray

    def __len__(self) -> int:
        return len(self.codepoints)

    def symbols_of(self, codepoints: np.ndarray) -> np.ndarray:
        """Return the symbols of some of its code points: integers of the same shape, in [0, len(alphabet))."""
        found: np.ndarray = self.symbol_of_codepoint[codepoints]
        return found


def read_text(path: Path, name: str, alphabet: str | None = None) -> Text:
    """Return a UTF-8 file as symbols, line ends as they are; a byte order mark is no character.

    alphabet: all characters that may occur, in the order of the symbols; those of the file, sorted, unless given.

    Raises InputFileError.
    """
    require_file(path, name, MAX_TEXT_BYTES)
    try:
        characters = path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputFileError(not_utf8(name, error)) from None
    except OSError as error:
        raise InputFileError(unreadable(name, error)) from None
    codepoints = np.frombuffer(characters.encode("utf-32-le"), dtype="<u4")
    occurs = np.zeros(_CODEPOINTS, dtype=bool)
    occurs[codepoints] = True
    if alphabet is None:
        return Text(codepoints, "".join(map(chr, np.flatnonzero(occurs))), np.cumsum(occurs) - 1)
    known = np.array([ord(character) for character in alphabet])
    occurs[known] = False
    if occurs.any():
        place = int(np.argmax(occurs[codepoints]))
        line, column = characters.count("\n", 0, place) + 1, place - characters.rfind("\n", 0, place)
        raise InputFileError(
            f"{name}: line {line}, character {column}: {characters[place]!r} is not in the alphabet that is given"
        )
    table = np.zeros(_CODEPOINTS, dtype=np.int64)
    table[known] = np.arange(len(known))
    return Text(codepoints, alphabet, table)


def read_whole_numbers(path: Path, name: str) -> np.ndarray:
    """Return the whole numbers of a text file, set apart by spaces or line ends: int64 (count,).

    Raises InputFileError.
    """
    require_file(path, name, MAX_TEXT_BYTES)
    numbers = array("q")
    line = 1
    try:
        with path.open(encoding="utf-8-sig") as file:
            rest = ""
            # By parts, as all of it may stand in one line, and a list of words takes many times the file.
            while part := file.read(_PART):
                whole, rest = _up_to_last_space(rest + part, name, line)
                line = _append(numbers, whole, name, line)
            _append(numbers, rest, name, line)
    except UnicodeDecodeError as error:
        raise InputFileError(f"{name}: is not UTF-8 text: {error.reason}") from None
    except OSError as error:
        raise InputFileError(unreadable(name, error)) from None
    if not numbers:
        raise InputFileError(f"{name}: holds no numbers")
    return np.frombuffer(numbers, dtype=np.int64)


def _up_to_last_space(text: str, name: str, line: int) -> tuple[str, str]:
    """Return the words of a part that are complete, and what may go on in the next."""
    end = max(map(text.rfind, " \t\n")) + 1
    if len(text) - end > _PART:
        raise InputFileError(f"{name}: line {line}: expected whole numbers; got {text[end : end + 40]!r}...")
    return text[:end], text[end:]


def _append(numbers: array[int], words: str, name: str, line: int) -> int:
    """Add the numbers of some lines, of which the first is `line`; return the number of the last."""
    for more, text in enumerate(words.split("\n")):
        for word in text.split():
            if not (word.isascii() and word.removeprefix("-").isdecimal()) or len(word) > 20:
                got = repr(word if len(word) <= 40 else word[:40] + "...")
                raise InputFileError(f"{name}: line {line + more}: expected whole numbers; got {got}")
            number = int(word)
            if abs(number) >= _LARGEST_ID:
                raise InputFileError(f"{name}: line {line + more}: {number} is larger than any token")
            numbers.append(number)
    return line + words.count("\n")
