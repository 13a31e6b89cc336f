"""The kinds of verdict on a gradient curve: the words that reports, gates (`--fail-on`) and `expect:` blocks share."""

from __future__ import annotations

from typing import Literal, get_args

VerdictKind = Literal["stable", "vanishing", "exploding", "transient", "dead", "nonfinite"]

VERDICT_KINDS: tuple[VerdictKind, ...] = get_args(VerdictKind)
