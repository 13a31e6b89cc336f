"""How numbers are written for people, in sentences and in tables alike."""

from __future__ import annotations

from collections.abc import Sequence


def shape_text(shape: Sequence[int | str]) -> str:
    """Write the shape of an array: 64 x 32, 64, scalar."""
    return " x ".join(map(str, shape)) or "scalar"
