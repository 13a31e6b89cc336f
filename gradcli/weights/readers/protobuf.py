"""The wire format of protocol buffers: the fields of a message, found without decoding what is not asked for.

A message is a row of fields: a varint with 8 * number + wire type, then the value, which is a varint (type 0), 8 bytes
(1), a length and as many bytes (2), or 4 bytes (5) (protobuf.dev, "Encoding"). The library of that name turns 20 MB of
empty submessages into 1.8 GB of objects; here a file is mapped, and no more than `Wire.LIMIT` fields are looked at.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Any, ClassVar, NamedTuple

import numpy as np

Array = np.ndarray[Any, Any]

#: Bytes that are decoded at once.
_BLOCK = 2**20

VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5


class WireError(Exception):
    """Bytes that are no message of the kind that was expected; the text says where."""


class TooManyFieldsError(Exception):
    """More fields than any file of the kind has."""


class Span(NamedTuple):
    """Some bytes of the data, from `start` up to `end`."""

    start: int
    end: int


class Field(NamedTuple):
    """A field of a message. value: that of a varint, as unsigned; span: its bytes, without a length before them."""

    number: int
    wire: int
    value: int
    span: Span


class Wire:
    """Data in the wire format. data: bytes or a map of a file."""

    #: Of large graphs of real models, each node takes about twenty.
    LIMIT: ClassVar[int] = 500_000

    def __init__(self, data: Any) -> None:
        self.data = data
        self._left = self.LIMIT

    def fields(self, span: Span) -> Iterator[Field]:
        """Yield the fields of the message in a span."""
        data, (at, stop) = self.data, span
        while at < stop:
            self.spend(1)
            begin = at
            key = data[at]
            at += 1
            if key >= 0x80:
                key, at = self._varint(begin, stop)
            number, wire = key >> 3, key & 7
            value = 0
            if wire == BYTES:
                length, at = self._varint(at, stop)
                end = at + length
            elif wire == VARINT:
                value, end = self._varint(at, stop)
            elif wire in (FIXED64, FIXED32):
                end = at + (8 if wire == FIXED64 else 4)
            else:
                raise WireError(f"no field can begin with {data[begin]} at byte {begin}")
            if end > stop or not 0 < number < 2**29:
                raise WireError(f"the field at byte {begin} goes beyond its message")
            yield Field(number, wire, value, Span(at, end))
            at = end

    def spend(self, count: int) -> None:
        """Count what is looked at.

        Raises:
            TooManyFieldsError: that is more than `LIMIT` in all.
        """
        self._left -= count
        if self._left < 0:
            raise TooManyFieldsError

    def text(self, field: Field, limit: int) -> str:
        """Return the text of a field."""
        return self.raw(field, limit).decode()

    def raw(self, field: Field, limit: int) -> bytes:
        """Return the bytes of a field."""
        start, end = self.message(field)
        if end - start > limit:
            raise WireError(f"the text at byte {start} is longer than {limit:,} bytes")
        self.spend((end - start) // 64)
        return bytes(self.data[start:end])

    def message(self, field: Field) -> Span:
        """Return the span of a message in a field."""
        if field.wire != BYTES:
            raise WireError(f"a number at byte {field.span.start} where a text or message belongs")
        return field.span

    def integer(self, field: Field) -> int:
        """Return an int64 or int32."""
        if field.wire != VARINT:
            raise WireError(f"no whole number at byte {field.span.start}, where one belongs")
        return signed(field.value)

    def integers(self, field: Field) -> list[int]:
        """Return int64s, packed or one of them."""
        if field.wire == VARINT:
            return [signed(field.value)]
        span = self.message(field)
        self.spend(span.end - span.start)
        numbers: list[int] = varints(self.data[span.start : span.end], np.dtype(np.uint64)).view(np.int64).tolist()
        return numbers

    def floats(self, field: Field) -> list[float]:
        """Return float32s, packed or one of them."""
        start, end = field.span
        if field.wire not in (FIXED32, BYTES) or (end - start) % 4:
            raise WireError(f"no float32 at byte {start}, where they belong")
        self.spend((end - start) // 4)
        return [float(value) for (value,) in struct.iter_unpack("<f", self.data[start:end])]

    def _varint(self, at: int, end: int) -> tuple[int, int]:
        if at < end and (byte := self.data[at]) < 0x80:
            return byte, at + 1
        value = shift = 0
        for place in range(at, min(at + 10, end)):
            byte = self.data[place]
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                return value & 0xFFFF_FFFF_FFFF_FFFF, place + 1
            shift += 7
        raise WireError(f"the number at byte {at} does not end")


def signed(value: int) -> int:
    """Return the int64 that has the bits of a uint64."""
    return value - 2**64 if value >= 2**63 else value


def count_varints(data: bytes) -> int:
    """Return how many varints follow one another in some bytes.

    Raises:
        WireError: one of them does not end after at most ten bytes.
    """
    return sum(lengths.size for _, _, lengths in _blocks(data))


def varints(data: bytes, dtype: np.dtype[Any]) -> Array:
    """Return the varints that follow one another in some bytes, or as many of their low bits as an unsigned dtype has.

    >>> varints(bytes([5, 0xAC, 0x02]), np.dtype(np.uint16))
    array([  5, 300], dtype=uint16)

    Raises:
        WireError: as for `count_varints`.
    """
    values = np.empty(count_varints(data), dtype)
    first = 0
    for block, starts, lengths in _blocks(data):
        whole = np.zeros(lengths.size, np.uint64)
        for place in range(int(lengths.max())):
            inside = lengths > place
            whole[inside] |= (block[starts[inside] + place].astype(np.uint64) & np.uint64(0x7F)) << np.uint64(7 * place)
        values[first : first + lengths.size] = whole.astype(dtype)
        first += lengths.size
    return values


def _blocks(data: bytes) -> Iterator[tuple[Array, Array, Array]]:
    """Yield blocks of the data, and where the varints in each of them begin and how long they are."""
    entries = np.frombuffer(data, np.uint8)
    at = 0
    while at < entries.size:
        block = entries[at : at + _BLOCK]
        ends = np.flatnonzero(block < 0x80)
        lengths = np.diff(ends, prepend=-1)
        whole = at + _BLOCK < entries.size or (ends.size and ends[-1] == block.size - 1)
        if not ends.size or not whole or lengths.max() > 10:
            raise WireError("a packed number does not end")
        yield block, ends - lengths + 1, lengths
        at += int(ends[-1]) + 1
