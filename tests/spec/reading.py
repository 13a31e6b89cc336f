"""Reading a spec that a test holds as text, without a file."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping, Sequence
from unittest.mock import patch

import pytest

from gradcli.errors import GradcliError, SpecError
from gradcli.spec.reader import LoadedSpec, load_spec


def spec_of(text: str | bytes, *, options: Mapping[str, object] = {}, overrides: Sequence[str] = ()) -> LoadedSpec:
    raw = text.encode("utf-8", "surrogatepass") if isinstance(text, str) else text
    with patch("sys.stdin", io.TextIOWrapper(io.BytesIO(raw))):
        return load_spec("-", options=options, overrides=overrides)


def mistakes_in(text: str | bytes, *, options: Mapping[str, object] = {}, overrides: Sequence[str] = ()) -> list[str]:
    with pytest.raises(SpecError) as caught:
        spec_of(text, options=options, overrides=overrides)
    return str(caught.value).split("\n")


def complaint_about(act: Callable[[], object]) -> str:
    """Return the text of the error for people that `act` raises, empty where it raises none; any other error is one."""
    try:
        act()
    except GradcliError as error:
        return str(error)
    return ""


def is_fit_to_print(complaint: str) -> bool:
    return all(line.isprintable() for line in complaint.split("\n"))
