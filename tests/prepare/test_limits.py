"""The reckoning of memory: near what a run takes, above it, and a refusal that takes none."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tracemalloc
from contextlib import nullcontext
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import pytest
from in_process import gradcli
from measured import loaded

from gradcli.errors import ExitCode, ResourceError
from gradcli.prepare import limits
from gradcli.prepare.build import build
from gradcli.spec.inputs import FileInput
from gradcli.spec.losses import FileTarget

MIB = 2**20

# Each takes 50 MiB or more, so that what Python itself takes does not count.
LARGE: dict[str, dict[str, Any]] = {
    "wide": {"hidden_size": 512, "batch_size": 64, "seq_len": 60, "trials": 2},
    "long": {"hidden_size": 8, "batch_size": 32, "seq_len": 60_000, "trials": 2},
    "large matrices": {"cell": "lstm", "hidden_size": 256, "batch_size": 1, "seq_len": 5, "trials": 8},
    "loss at every step": {
        "hidden_size": 32,
        "seq_len": 400,
        "trials": 2,
        "loss": {"kind": "cross_entropy", "at": "every", "classes": 500},
    },
    "choices at every step": {
        "hidden_size": 32,
        "seq_len": 400,
        "trials": 2,
        "loss": {"kind": "binary_cross_entropy", "at": "every", "outputs": 500},
    },
    "targets at every step": {"hidden_size": 128, "seq_len": 1000, "trials": 2, "loss": {"kind": "mse", "at": "every"}},
    "untied": {"hidden_size": 64, "input_size": 8, "batch_size": 4, "seq_len": 500, "trials": 4, "tied": False},
    "untied and long": {
        "hidden_size": 16,
        "input_size": 1,
        "batch_size": 1,
        "seq_len": 1_500,
        "trials": 1,
        "num_layers": 2,
        "tied": False,
    },
    "saved in groups": {"cell": "lstm", "hidden_size": 64, "seq_len": 400, "trials": 3, "record": True},
    "both directions": {
        "cell": "gru",
        "bidirectional": True,
        "num_layers": 3,
        "hidden_size": 32,
        "seq_len": 2000,
        "trials": 1,
        "loss": {"kind": "cross_entropy", "at": "every"},
    },
    "saved": {"cell": "lstm", "hidden_size": 64, "seq_len": 1000, "trials": 1, "num_layers": 2, "record": True},
}

# The peak of a whole simulation in a process of its own, beyond that of a tiny one.
PROGRAM = """
import json, sys
from gradcli.formats import render_pieces
from gradcli.commands.simulate import simulate
from gradcli.spec.reader import load_spec

def run(record=False, cell="rnn", **fields):
    result = simulate(load_spec(cell, options=fields), record=record)
    for form in ("table", "json"):
        for _ in render_pieces(result.report, form, width=80, color=False, unicode=True):
            pass

def peak():
    # Not ru_maxrss, which a process inherits from the one that started it.
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) * 1024 for line in status if line.startswith("VmHWM:"))

run(hidden_size=2, seq_len=3, trials=1, batch_size=1, record=True)
start = peak()
run(**json.loads(sys.argv[1]))
print(peak() - start)
"""


class _Reckoned(Exception):
    """Ends a build before it takes what it needs."""


def estimate(record: bool = False, cell: str = "rnn", **fields: object) -> int:
    """Return what a spec is reckoned to need, however large, without taking it."""

    def reckon(*arguments: Any, tied: bool, record: bool, **_: Any) -> None:
        raise _Reckoned(limits.estimate_memory(*arguments, tied=tied, record=record))

    spec = loaded(cell, **fields)
    with patch("gradcli.prepare.build.require_memory", reckon), pytest.raises(_Reckoned) as caught:
        build(spec, record=record)
    needed: int = caught.value.args[0]
    return needed


@pytest.mark.skipif(sys.platform != "linux", reason="the peak of a process is told by /proc")
@pytest.mark.parametrize("name", LARGE)
def test_the_reckoning_is_near_the_peak_and_above_it(name: str) -> None:
    command = [sys.executable, "-c", PROGRAM, json.dumps(LARGE[name])]
    folder = Path(limits.__file__).parents[2]
    taken = int(subprocess.run(command, check=True, capture_output=True, text=True, cwd=folder).stdout)
    assert taken > 50 * MIB
    assert taken < estimate(**LARGE[name]) < 2 * taken


def test_a_longer_sequence_needs_no_more_tape() -> None:
    fields: dict[str, Any] = {"hidden_size": 64, "batch_size": 16, "trials": 4}
    short, long, longer = (estimate(**fields, seq_len=n) for n in (100_000, 200_000, 300_000))
    assert longer - long == pytest.approx(long - short, rel=1e-6)
    assert (long - short) / 100_000 < 64 * 8 * 12, "no more than the norms of a step"


@pytest.mark.parametrize(
    "more",
    [
        {"hidden_size": 65_536},
        {"batch_size": 65_536, "seq_len": 100_000},
        {"trials": 65_536, "hidden_size": 4096},
        {"seq_len": 10_000_000, "batch_size": 10_000},
        {"input_size": 65_536, "hidden_size": 65_536, "num_layers": 1000},
    ],
)
def test_what_is_too_large_is_refused_at_once(more: dict[str, object]) -> None:
    options = [f"--set={key}={value}" for key, value in more.items()]
    tracemalloc.start()
    try:
        finished = gradcli("simulate", "rnn", *options)
        taken = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert finished.code == ExitCode.RESOURCE
    assert finished.refused()
    assert "of memory" in finished.stderr
    assert taken < 64 * MIB


# So short that its tape cannot be cut into segments: nothing of what it needs depends on the limit.
SHORT = {"seq_len": 3}


def test_the_limit_is_half_of_what_is_free(monkeypatch: pytest.MonkeyPatch) -> None:
    needed = estimate(**SHORT)
    monkeypatch.setattr(limits, "free_memory", lambda: 2 * needed + 2)
    build(loaded(**SHORT))
    monkeypatch.setattr(limits, "free_memory", lambda: 2 * needed - 2)
    with pytest.raises(ResourceError, match="half of what is free"):
        build(loaded(**SHORT))


def test_where_memory_is_short_the_tape_is_cut_into_segments(monkeypatch: pytest.MonkeyPatch) -> None:
    spec = {"cell": "lstm", "seq_len": 8000, "hidden_size": 32, "batch_size": 8, "trials": 1}
    needed = estimate(**spec)
    problem = build(loaded(**spec), max_memory=needed // 2).problem
    assert problem.sizes.segment < 8000
    assert build(loaded(**spec), max_memory=8 * needed).problem.sizes.segment == 8000


def test_runs_that_are_kept_share_the_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    needed = estimate(record=True, **SHORT)
    monkeypatch.setattr(limits, "free_memory", lambda: 6 * needed - 2)
    build(loaded(**SHORT), record=True, runs_kept=2)
    with pytest.raises(ResourceError, match=r"shared by 3 runs.*leave out --save"):
        build(loaded(**SHORT), record=True, runs_kept=3)


def test_a_refusal_says_how_much_and_what_to_make_smaller() -> None:
    finished = gradcli("simulate", "lstm", "--hidden-size", 4096, "--trials", 100)
    assert finished.code == ExitCode.RESOURCE
    for part in ("about", "GiB of memory; 4.0 GiB", "hidden_size (4096)", "trials (100)", "seq_len (100)"):
        assert part in finished.stderr
    assert "--save" not in finished.stderr


def test_the_limit_can_be_given(monkeypatch: pytest.MonkeyPatch) -> None:
    needed = estimate(**SHORT)
    monkeypatch.setattr(limits, "free_memory", lambda: 0)
    build(loaded(**SHORT), max_memory=needed)
    with pytest.raises(ResourceError, match=r"\(--max-memory\) is the limit.*or allow more with --max-memory"):
        build(loaded(**SHORT), max_memory=needed - 1)
    with pytest.raises(ResourceError, match=r"\(--max-memory, shared by 2 runs\) is the limit"):
        build(loaded(**SHORT), max_memory=2 * needed - 1, runs_kept=2)


@pytest.mark.parametrize("command", [("simulate", "lstm"), ("compare", "lstm", "rnn")])
def test_a_limit_on_the_command_line_stops_a_run_and_lets_one_pass(command: tuple[str, ...]) -> None:
    size = ("-T", 3, "--hidden-size", 4)
    finished = gradcli(*command, *size, "--max-memory", "2K")
    assert finished.code == ExitCode.RESOURCE
    assert finished.refused()
    assert "of memory; 2.0 KiB (--max-memory) is the limit" in finished.stderr
    assert gradcli(*command, *size, free_memory=2048).code == ExitCode.RESOURCE
    assert gradcli(*command, *size, "--max-memory", "1G", free_memory=2048).code == ExitCode.DONE


COMMANDS: dict[str, tuple[str, ...]] = {
    "simulate": ("simulate", "lstm"),
    "simulate --save": ("simulate", "gru", "--save", "run.npz"),
    "simulate, inside": ("simulate", "rnn", "--set", "clip=[{step_norm: 1.0}]"),
    "compare": ("compare", "rnn", "lstm", "gru"),
    "compare --save": ("compare", "rnn", "lstm", "--save", "run.npz"),
    "jacobian": ("jacobian", "lstm", "--exponents", "1"),
    "paths": ("paths", "gru", "--distance", "2"),
    "contributions": ("contributions", "lstm"),
    "gates": ("gates", "rwkv"),
}
SIZES: dict[str, tuple[object, ...]] = {
    "small": ("-T", 12, "--hidden-size", 8, "--input-size", 4, "--batch-size", 4, "--trials", 2),
    "long": ("-T", 300, "--hidden-size", 3, "--input-size", 2, "--batch-size", 2, "--trials", 1),
    "wide": ("-T", 4, "--hidden-size", 64, "--input-size", 4, "--batch-size", 16, "--trials", 2),
}


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("name", COMMANDS)
def test_the_figure_that_a_refusal_names_is_enough(
    name: str, size: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    command = (*COMMANDS[name], *SIZES[size])
    for limit in ("1K", "1M"):
        drawn = patch("gradcli.prepare.parameters.ParameterValues.draw", side_effect=AssertionError("begun"))
        with drawn if limit == "1K" else nullcontext():
            finished = gradcli(*command, "--max-memory", limit)
        if finished.code == ExitCode.DONE:
            continue
        assert finished.code == ExitCode.RESOURCE, finished.stderr
        figures = re.findall(r"about ([\d.,]+ \w+) of memory|([\d.,]+ \w+) for \d+ runs", finished.stderr)
        needed = next(filter(None, reversed([text for pair in figures for text in pair])))
        again = gradcli(*command, "--max-memory", needed.replace(" ", "").replace(",", "").removesuffix("bytes"))
        assert again.code == ExitCode.DONE, (finished.stderr, again.stderr)


@pytest.mark.parametrize(("kind", "name"), [("text", "book.txt"), ("file", "series.csv")])
@pytest.mark.parametrize("command", [("simulate", "rnn"), ("compare", "rnn", "lstm", "--match", "params")])
def test_a_large_input_is_refused_before_it_is_read(
    command: tuple[str, ...], kind: str, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with Path(name).open("wb") as file:
        file.truncate(200 * MIB)  # takes no room on the disk
    tracemalloc.start()
    try:
        finished = gradcli(*command, "--set", f"input={{kind: {kind}, path: {name}}}", "--max-memory", "500M")
        taken = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert finished.code == ExitCode.RESOURCE
    assert finished.refused()
    assert f"reading {name} (200 MiB) could need" in finished.stderr
    assert "500 MiB (--max-memory) is the limit" in finished.stderr
    assert taken < 64 * MIB


def test_an_input_that_is_mapped_or_missing_needs_no_memory(tmp_path: Path) -> None:
    with (tmp_path / "series.npy").open("wb") as file:
        file.truncate(200 * MIB)
    for path in ("series.npy", "missing.csv"):
        limits.require_memory_to_read(FileInput(kind="file", path=path), tmp_path, max_memory=1)


def test_an_array_of_a_npz_needs_what_it_declares(tmp_path: Path) -> None:
    np.savez_compressed(tmp_path / "x.npz", large=np.zeros(MIB), small=np.zeros(8))
    target = FileTarget(path="x.npz", key="large")
    for model in (FileInput(kind="file", path="x.npz", key="large"), target):
        with pytest.raises(ResourceError, match=r"reading x\.npz \(.* KiB\) could need 8\.0 MiB of memory; 4\.0 MiB"):
            limits.require_memory_to_read(model, tmp_path, max_memory=4 * MIB)
        limits.require_memory_to_read(model, tmp_path, max_memory=9 * MIB)
    small = FileInput(kind="file", path="x.npz", key="small")
    limits.require_memory_to_read(small, tmp_path, max_memory=4 * MIB)
    with pytest.raises(ResourceError):
        limits.require_memory_to_read(small.model_copy(update={"lengths": "large"}), tmp_path, max_memory=4 * MIB)


@pytest.mark.parametrize(
    ("name", "asked"),
    [
        ("labels.csv", "loss={kind: mse, target: {file: labels.csv}}"),
        ("ids.txt", "input={kind: tokens, path: ids.txt}"),
    ],
)
def test_large_targets_and_tokens_are_refused_before_they_are_read(
    name: str, asked: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with Path(name).open("wb") as file:
        file.truncate(200 * MIB)
    finished = gradcli("simulate", "rnn", "--set", asked, "--max-memory", "500M")
    assert finished.code == ExitCode.RESOURCE
    assert finished.refused()
    assert f"reading {name} (200 MiB) could need 1.0 GiB" in finished.stderr


def test_free_memory_is_some_of_this_machine() -> None:
    assert MIB < limits.free_memory() < 2**50


@pytest.mark.parametrize(
    ("most", "free"), [("1000\n", 1000 - 700 + 200), ("max\n", 2**63), ("100\n", 0), ("nonsense", 2**63)]
)
def test_a_container_leaves_what_its_limit_says(most: str, free: int, tmp_path: Path) -> None:
    (tmp_path / "memory.max").write_text(most)
    (tmp_path / "memory.current").write_text("700\n")
    (tmp_path / "memory.stat").write_text("anon 450\ninactive_file 200\nactive_file 50\n")
    assert limits._free_of_container(tmp_path) == free


def test_without_a_container_there_is_no_limit(tmp_path: Path) -> None:
    assert limits._free_of_container(tmp_path) == 2**63


def test_the_estimate_is_of_whole_bytes_however_large() -> None:
    found = estimate(hidden_size=65_536, trials=65_536, num_layers=1000, batch_size=65_536, seq_len=10_000_000)
    assert type(found) is int
    assert found > 2**63
