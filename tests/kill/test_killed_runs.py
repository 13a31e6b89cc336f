"""Runs that are ended leave files that are whole or not there; tests/kill/kill_commands.py ends thousands."""

from __future__ import annotations

import os
import random
import sys
from pathlib import Path

import pytest
from kill.attempts import (
    OUT_OF_SPACE,
    SIGNALS,
    Command,
    Ending,
    Process,
    Whole,
    at_any_moment,
    attempt,
    undisturbed,
    while_it_writes,
)

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="POSIX signals")

SAVING = Command(
    ("simulate", "rnn", "-T", "80", "--hidden-size", "64", "-o", "run.json", "--save", "run.npz", "--quiet"),
    ("run.json", "run.npz"),
)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Whole:
    """Return what the command writes when nothing ends it."""
    return undisturbed(SAVING, tmp_path_factory.mktemp("whole") / "run")


@pytest.mark.parametrize("old", [False, True], ids=["new", "old"])
@pytest.mark.parametrize("name", SIGNALS)
def test_a_signal_leaves_whole_files_or_none(name: str, old: bool, whole: Whole, tmp_path: Path) -> None:
    rng = random.Random(f"{name} {old}")
    for ending in (at_any_moment(name, whole, rng), while_it_writes([name], rng)):
        assert attempt(SAVING, whole, ending, tmp_path / "run", old=old).faults == ()


@pytest.mark.parametrize("part", [0.0, 0.3, 0.9])
def test_without_space_the_old_files_stay(part: float, whole: Whole, tmp_path: Path) -> None:
    found = attempt(SAVING, whole, OUT_OF_SPACE, tmp_path / "run", old=True, limit=int(part * whole.largest))
    assert (found.code, found.left, found.faults) == (4, 0, ())
    assert (tmp_path / "run" / "run.npz").read_bytes() == SAVING.before


def test_what_may_not_be_left_is_seen(whole: Whole, tmp_path: Path) -> None:
    def spoil(process: Process, folder: Path) -> None:
        process.wait(60)
        os.truncate(folder / "run.npz", 1000)
        (folder / ".gradcli-1.tmp").touch()
        (folder / "other").touch()

    faults = attempt(SAVING, whole, Ending(spoil, (0,)), tmp_path / "run", old=False).faults
    assert set(faults) == {
        ".gradcli-1.tmp is left",
        "other is left",
        "run.npz is neither old nor whole",
        "exit code 0 without all files",
    }
    after_kill = attempt(SAVING, whole, Ending(spoil, (0,), tidy=False), tmp_path / "run", old=False).faults
    assert set(faults) - set(after_kill) == {".gradcli-1.tmp is left"}
