"""Garbage is looked for again once a run begins, if it was gradcli that put it off."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Iterator

import pytest

from gradcli.prepare.garbage import collect_again, collect_later


@pytest.fixture(autouse=True)
def as_before() -> Iterator[None]:
    yield
    gc.unfreeze()
    gc.enable()


class Cycle:
    """An object that only the search for garbage finds."""

    def __init__(self) -> None:
        self.itself = self


def test_what_is_put_off_is_taken_up_again() -> None:
    collect_later()
    assert not gc.isenabled()
    collect_again()
    assert gc.isenabled()
    gone = weakref.ref(Cycle())
    gc.collect()
    assert gone() is None


def test_what_somebody_else_has_switched_off_stays_so() -> None:
    gc.disable()
    collect_later()
    collect_again()
    assert not gc.isenabled()
    gc.enable()
    collect_again()
    assert gc.get_freeze_count() == 0
