"""Ways to spoil a file: of its bytes whatever they mean, and of the structure that its format gives them."""

from __future__ import annotations

import io
import json
import pickletools
import re
import struct
import warnings
import zipfile
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any, Literal, TypeVar

import numpy as np

T = TypeVar("T")
Mutation = Callable[[bytes, np.random.Generator], bytes]

ORDERS: tuple[Literal["little", "big"], ...] = ("little", "big")
NUMBERS = (0, 1, 2, 3, 7, 8, 255, 65535, 2**31 - 1, 2**31, 2**32 - 1, 2**40, 2**53, 2**62, 2**63 - 1, 2**64 - 1)
TEXTS = (
    b"..",
    b"/",
    b"\\",
    b"../../etc/passwd",
    b"\x00",
    b"\xff\xfe",
    b"\n",
    b"\x1b[2J",
    b"-1",
    b"1e999",
    b"NaN",
    b"'",
)


def mutated(data: bytes, others: list[bytes], ending: str, rng: np.random.Generator) -> bytes:
    """Return data after one to four mutations, mostly one; splices take from `others`."""
    structured = STRUCTURED.get(ending)
    for _ in range(int(_pick((1, 1, 1, 2, 3, 4), rng))):
        if structured and rng.random() < 0.7:
            data = structured(data, rng)
        elif rng.random() < 0.1:
            data = _spliced(data, others[int(rng.integers(len(others)))], rng)
        else:
            data = _pick(BYTES, rng)(data, rng)
    return data


def _pick(choices: Sequence[T], rng: np.random.Generator) -> T:
    return choices[int(rng.integers(len(choices)))]


def _place(data: bytes, rng: np.random.Generator) -> int:
    """A place in the data; as often as not near one of its ends, where formats keep what describes the rest."""
    where = rng.random()
    if where < 0.5 or len(data) < 400:
        return int(rng.integers(len(data) + 1))
    near = int(rng.integers(400))
    return near if where < 0.75 else len(data) - near


def _span(data: bytes, rng: np.random.Generator) -> tuple[int, int]:
    start = _place(data, rng)
    return start, min(len(data), start + int(rng.integers(1, 1 + int(_pick((4, 32, 256), rng)))))


def _bits_flipped(data: bytes, rng: np.random.Generator) -> bytes:
    changed = bytearray(data)
    for _ in range(int(rng.integers(1, 6))):
        at = _place(data, rng)
        if at < len(changed):
            changed[at] ^= 1 << int(rng.integers(8))
    return bytes(changed)


def _truncated(data: bytes, rng: np.random.Generator) -> bytes:
    return data[: _place(data, rng)]


def _deleted(data: bytes, rng: np.random.Generator) -> bytes:
    start, stop = _span(data, rng)
    return data[:start] + data[stop:]


def _repeated(data: bytes, rng: np.random.Generator) -> bytes:
    start, stop = _span(data, rng)
    return data[:stop] + data[start:stop] * int(_pick((1, 2, 50), rng)) + data[stop:]


def _moved(data: bytes, rng: np.random.Generator) -> bytes:
    start, stop = _span(data, rng)
    at = _place(data, rng)
    return data[:at] + data[start:stop] + data[at + stop - start :]


def _inserted(data: bytes, rng: np.random.Generator) -> bytes:
    at = _place(data, rng)
    new = _pick(TEXTS, rng) if rng.random() < 0.5 else rng.bytes(int(rng.integers(1, 9)))
    return data[:at] + new + data[at:]


def _number_overwritten(data: bytes, rng: np.random.Generator) -> bytes:
    """A length or an offset changed: 1 to 8 bytes of either byte order."""
    width = int(_pick((1, 2, 4, 8), rng))
    number = _pick((*NUMBERS, len(data), len(data) - 8, len(data) + 1), rng) % 256**width
    at = _place(data, rng)
    return data[:at] + int(number).to_bytes(width, _pick(ORDERS, rng)) + data[at + width :]


def _digits_changed(data: bytes, rng: np.random.Generator) -> bytes:
    runs = list(re.finditer(rb"-?\d+", data))
    if not runs:
        return data
    run = _pick(runs, rng)
    return data[: run.start()] + str(_pick((*NUMBERS, -1), rng)).encode() + data[run.end() :]


def _spliced(data: bytes, other: bytes, rng: np.random.Generator) -> bytes:
    return data[: _place(data, rng)] + other[_place(other, rng) :]


BYTES: tuple[Mutation, ...] = (
    _bits_flipped,
    _truncated,
    _deleted,
    _repeated,
    _moved,
    _inserted,
    _number_overwritten,
    _number_overwritten,
    _digits_changed,
)


def _repacked(data: bytes, rng: np.random.Generator) -> bytes:
    """A zip file with one entry changed and all checksums right, so that what is behind them is reached."""
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            entries = [(info.filename, archive.read(info)) for info in archive.infolist()]
    except Exception:  # a file that an earlier mutation has broken
        return _pick(BYTES, rng)(data, rng)
    if not entries:
        return data
    at = int(rng.integers(len(entries)))
    pickles = [place for place, (name, _) in enumerate(entries) if name.endswith(".pkl")]
    if pickles and rng.random() < 0.7:
        at = pickles[0]
    name, content = entries[at]
    change = rng.random()
    if change < 0.8:
        entries[at] = (name, _content_changed(name, content, rng))
    elif change < 0.87:
        entries[at] = (_pick((name + "x", "../" + name, "/" + name, "a/b/" + name, entries[0][0]), rng), content)
    elif change < 0.93:
        del entries[at]
    else:
        entries.append(entries[at])
    packed = io.BytesIO()
    method = zipfile.ZIP_DEFLATED if rng.random() < 0.06 else zipfile.ZIP_STORED
    with warnings.catch_warnings(), zipfile.ZipFile(packed, "w", method) as archive:
        warnings.simplefilter("ignore")
        for entry_name, entry_content in entries:
            archive.writestr(entry_name, entry_content)
    return packed.getvalue()


def _content_changed(name: str, content: bytes, rng: np.random.Generator) -> bytes:
    if name.endswith(".pkl") and rng.random() < 0.7:
        return _pickle_changed(content, rng)
    if name.endswith(".npy") and rng.random() < 0.6:
        head, rest = content[:128], content[128:]
        return _pick(BYTES, rng)(head, rng) + rest
    return _pick(BYTES, rng)(content, rng)


def _pickle_changed(content: bytes, rng: np.random.Generator) -> bytes:
    """A pickle with instructions deleted, repeated, exchanged, put in or given other arguments."""
    try:
        found = [place for _, _, place in pickletools.genops(content)]
    except Exception:  # a pickle that an earlier mutation has broken
        return _pick(BYTES, rng)(content, rng)
    places = [place for place in found if place is not None] + [len(content)]
    if len(places) < 4:
        return content
    instructions = [content[a:b] for a, b in pairwise(places)]
    at, other = (int(rng.integers(len(instructions))) for _ in range(2))
    change = rng.random()
    if change < 0.2:
        del instructions[at]
    elif change < 0.4:
        instructions.insert(at, instructions[other])
    elif change < 0.55:
        instructions[at], instructions[other] = instructions[other], instructions[at]
    elif change < 0.75:
        numbers = [place for place, code in enumerate(instructions) if code[:1] in (b"K", b"M", b"J", b"\x8a")]
        if numbers:
            instructions[_pick(numbers, rng)] = _integer(_pick((*NUMBERS, -1, -4), rng))
    else:
        instructions.insert(at, _pick(HOSTILE_INSTRUCTIONS, rng))
    return b"".join(instructions)


def _integer(number: int) -> bytes:
    raw = number.to_bytes(9, "little", signed=True)
    return b"\x8a" + struct.pack("B", len(raw)) + raw


HOSTILE_INSTRUCTIONS = (
    *(bytes([code]) for code in b"().012NRQabdelstu]}\x81\x85\x86\x87\x88\x89\x8f\x90\x91\x92\x93\x94IPOiFLSVpg"),
    b"cposix\nsystem\n",
    b"cbuiltins\neval\n",
    b"ctorch._utils\n_rebuild_tensor_v2\n",
    b"ctorch._utils\n_rebuild_parameter\n",
    b"ctorch._utils\n_rebuild_from_type_v2\n",
    b"ctorch\nFloatStorage\n",
    b"ccollections\nOrderedDict\n",
    b"r\xff\xff\xff\x7f",
    b"j\xff\xff\xff\x7f",
    b"X\xff\xff\xff\xff",
    b"\x8d\x00\x00\x00\x00\x00\x01\x00\x00",
    b"\x8b\xff\xff\xff\x7f",
    b"X\x04\x00\x00\x00\xed\xa0\x80a",
)


def _header_changed(data: bytes, rng: np.random.Generator) -> bytes:
    """A safetensors file with something else in its header, and the header's length right."""
    length = int.from_bytes(data[:8], "little")
    text = _json_changed(data[8 : 8 + length], rng)
    return len(text).to_bytes(8, "little") + text + data[8 + length :]


def _json_changed(text: bytes, rng: np.random.Generator) -> bytes:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return _pick(BYTES, rng)(text, rng)
    holders: list[tuple[Any, Any]] = []

    def walk(node: Any) -> None:
        for key in node if isinstance(node, dict) else range(len(node)):
            holders.append((node, key))
            if isinstance(node[key], dict | list):
                walk(node[key])

    if isinstance(value, dict | list):
        walk(value)
    if not holders:
        return _pick(BYTES, rng)(text, rng)
    node, key = _pick(holders, rng)
    change = rng.random()
    if change < 0.5:
        node[key] = _pick(JSON_VALUES, rng)
    elif change < 0.7:
        del node[key]
    elif change < 0.85:
        other, other_key = _pick(holders, rng)
        node[key] = json.loads(json.dumps(other[other_key]))
    elif isinstance(node, dict):
        node[_pick(("", "a" * 2000, "\ud800", "\x1b[2J", "a\nb", "__metadata__", "dtype"), rng)] = node.pop(key)
    else:
        node.insert(0, _pick(NUMBERS, rng))
    return json.dumps(value).encode()


JSON_VALUES: tuple[Any, ...] = (
    *NUMBERS, -1, 1.5, True, None, "", "F32", "F8_E4M3", "BF16", "../x.safetensors", "/dev/zero", "a\x00.safetensors",
    [], [2**62, 2**62], [[]], {}, {"a": 1}, "x" * 300 + ".safetensors",
)  # fmt: skip

#: By the ending of the file's name.
STRUCTURED: dict[str, Mutation] = {
    ".npz": _repacked,
    ".pt": _repacked,
    ".keras": _repacked,
    ".safetensors": _header_changed,
    ".json": _json_changed,
}
