"""The file of a baseline: what was once measured of each spec, as JSON that a person can read the differences of."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Annotated, Any, Literal, NoReturn

from gradcli import __version__
from gradcli.diagnostics.baseline import Recorded
from gradcli.errors import InputFileError
from gradcli.frozen import frozen
from gradcli.results.envelope import envelope
from gradcli.spec.checked import SpecModel
from gradcli.spec.explain import check
from gradcli.spec.shown import dotted, shown
from gradcli.spec.value_readers import Field

#: Of the file's layout; a reader refuses another one.
LAYOUT = 1
_COMMAND = "check"
#: Digits that are kept: what rounding differs in from machine to machine is not to show as a difference.
_DIGITS = 9
_UNBOUNDED, _MINUS_INFINITY = "unbounded", "-infinity"
_INFINITE: Mapping[Any, float] = {_UNBOUNDED: math.inf, _MINUS_INFINITY: -math.inf}


@frozen
class Entry:
    """What a baseline has of one spec.

    spec: a digest of what the spec says, its `expect:` left out. seed: the spec's.
    figures: by the names of their checks.
    """

    spec: str
    seed: int
    figures: Mapping[str, Recorded]


class _Model(SpecModel):
    CLOSED = False  # so that a later version may say more


_End = int | float | Literal["unbounded", "-infinity"] | None


class _Figure(_Model):
    value: bool | int | float | Annotated[str, Field(max_length=64)] | None
    low: _End = None
    high: _End = None


class _Entry(_Model):
    spec: Annotated[str, Field(max_length=128)]
    seed: int
    figures: dict[str, _Figure]


class _File(_Model):
    layout: int
    files: dict[str, _Entry]


def parse_baseline(text: str, source: str) -> dict[str, Entry]:
    """Return the entries of a baseline by the paths of their specs.

    Args:
        text: of the file. source: its name, for messages.

    Raises:
        InputFileError: the text is no baseline, or one of another layout.
    """
    try:
        data = json.loads(text, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        where = f" (line {error.lineno}, column {error.colno})" if isinstance(error, json.JSONDecodeError) else ""
        raise InputFileError(f"{source}: is no baseline: it is not JSON{where}; {_ANEW}") from None
    layout = data.get("layout") if isinstance(data, dict) else None
    if layout is None or data.get("command") != _COMMAND:
        raise InputFileError(f"{source}: is no baseline of gradcli check; {_ANEW}")
    if layout != LAYOUT:
        version = shown(data.get("gradcli_version"))
        raise InputFileError(
            f"{source}: is a baseline of layout {shown(layout)}, from gradcli {version}; this is gradcli {__version__},"
            f" which reads layout {LAYOUT}; remove it, and write it anew with --update"
        )
    found, wrong = check(_File, data)
    if found is None:
        raise InputFileError(f"{source}: is no baseline: {dotted(wrong[0].path)}: {wrong[0].message}; {_ANEW}")
    return {
        path: Entry(
            entry.spec,
            entry.seed,
            {name: Recorded(_read(one.value), _read(one.low), _read(one.high)) for name, one in entry.figures.items()},
        )
        for path, entry in found.files.items()
    }


_ANEW = "--update writes one where no file is yet"


def _refuse_constant(constant: str) -> NoReturn:
    raise ValueError(constant)


def _read(value: Any) -> Any:
    return _INFINITE.get(value, value)


def write_baseline(entries: Mapping[str, Entry]) -> str:
    """Return the text of a baseline: the same entries give the same text, in whatever order they come."""
    data = envelope(_COMMAND) | {
        "layout": LAYOUT,
        "files": {
            path: {
                "spec": entry.spec,
                "seed": entry.seed,
                "figures": {name: _figure(one) for name, one in entry.figures.items()},
            }
            for path, entry in entries.items()
        },
    }
    return json.dumps(data, indent=2, sort_keys=True, allow_nan=False) + "\n"


def _figure(recorded: Recorded) -> dict[str, Any]:
    ends = {"low": _written(recorded.low), "high": _written(recorded.high)}
    # Ends that differ in digits which are not written are one.
    known = {name: end for name, end in ends.items() if end is not None and ends["low"] != ends["high"]}
    return {"value": _written(recorded.value)} | known


def _written(value: Any) -> Any:
    if not isinstance(value, float):
        return value
    if math.isinf(value):
        return _UNBOUNDED if value > 0 else _MINUS_INFINITY
    return float(f"{value:.{_DIGITS}g}")
