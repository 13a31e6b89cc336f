"""PyTorch checkpoints put together by hand, instruction by instruction, so that each part can lie."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from checkpoint_files import zipped

STORAGE = np.arange(6, dtype="f4").tobytes()


def text(value: str) -> bytes:
    raw = value.encode()
    return b"X" + struct.pack("<I", len(raw)) + raw


def number(value: int) -> bytes:
    raw = value.to_bytes(value.bit_length() // 8 + 1, "little", signed=True)
    return b"\x8a" + bytes([len(raw)]) + raw


def numbers(*values: int) -> bytes:
    return b"(" + b"".join(map(number, values)) + b"t"


def named(module: str, name: str) -> bytes:
    return f"c{module}\n{name}\n".encode()


def storage(key: str = "0", count: int = 6, kind: bytes | None = None) -> bytes:
    kind = named("torch", "FloatStorage") if kind is None else kind
    return b"(" + text("storage") + kind + text(key) + text("cpu") + number(count) + b"tQ"


def tensor(
    shape: bytes = numbers(2, 3), strides: bytes = numbers(3, 1), offset: bytes = number(0), of: bytes | None = None
) -> bytes:
    of = storage() if of is None else of
    return named("torch._utils", "_rebuild_tensor_v2") + b"(" + of + offset + shape + strides + b"\x89)tR"


def state(**values: bytes) -> bytes:
    """The pickle of a dict."""
    return b"\x80\x02" + dictionary(**values) + b"."


def dictionary(**values: bytes) -> bytes:
    return b"}" + b"".join(text(key) + value + b"s" for key, value in values.items())


def checkpoint(
    path: Path, pickle: bytes, storages: Mapping[str, bytes] | None = None, order: bytes | None = b"little"
) -> Path:
    """Write the zip file of a pickle and its storages, by default six numbers in float32."""
    storages = {"0": STORAGE} if storages is None else storages
    entries = {"m/data.pkl": pickle, "m/version": b"3\n"}
    if order is not None:
        entries["m/byteorder"] = order
    return zipped(path, entries | {f"m/data/{key}": content for key, content in storages.items()})
