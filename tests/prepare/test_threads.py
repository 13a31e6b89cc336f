"""The number of BLAS threads: the rule, who settles it, and that NumPy's products really use it."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from in_process import gradcli
from measured import loaded
from threadpoolctl import ThreadpoolController

import gradcli as python
from gradcli.engine.threads import ALLOWED
from gradcli.prepare import threads
from gradcli.prepare.build import build
from gradcli.prepare.threads import computing_threads, recurrent_products, start_with_one_thread, worthwhile_threads

LARGE: dict[str, object] = {"hidden_size": 256, "batch_size": 32, "seq_len": 3, "trials": 1, "input_size": 4}
SMALL = LARGE | {"hidden_size": 8}

needs_threads = pytest.mark.skipif(
    not ThreadpoolController().select(user_api="blas").lib_controllers, reason="a BLAS whose threads cannot be set"
)


@pytest.fixture(autouse=True)
def _nothing_settled(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in threads.BLAS_VARIABLES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(threads, "_set_here", set())
    monkeypatch.setattr(threads, "usable_cpus", lambda: 3)


def now() -> set[int]:
    """Return how many threads NumPy's BLAS computes on."""
    return {library["num_threads"] for library in ThreadpoolController().select(user_api="blas").info()}


def during(*cells: str, threads: int | None = None, **fields: object) -> list[int]:
    """Return how many threads there are while each of the cells runs."""
    seen: list[set[int]] = []

    def look(stage: str, done: int, total: int) -> None:
        if stage == "backward" and done == total:
            seen.append(now())

    asked: dict[str, Any] = {**fields, "threads": threads, "progress": look}
    before = now()
    if len(cells) == 1:
        python.simulate(cells[0], **asked)
    else:
        python.compare(cells, **asked)
    assert now() == before
    return [count for counts in seen for count in counts]


@pytest.mark.parametrize(
    ("products", "expected"),
    [
        ([], 1),
        ([(256, 64, 16)], 1),  # an LSTM of 64 units
        ([(1024, 256, 1)], 1),
        ([(1024, 256, 31)], 1),
        ([(1024, 256, 32)], 4),
        ([(4096, 1024, 1)], 4),
        ([(4095, 1024, 1)], 1),
        ([(1024, 256, 20), (1024, 256, 20)], 1),  # one after the other
        ([(8, 8, 8), (10**6, 10**6, 10**6)], 4),
    ],
)
def test_the_rule(products: list[tuple[int, int, int]], expected: int) -> None:
    assert worthwhile_threads(products, cpus=4) == expected
    assert worthwhile_threads(products, cpus=1) == 1
    assert worthwhile_threads(products, cpus=500) <= 8


@pytest.mark.parametrize(
    ("cell", "products"),
    [
        ("lstm", [(4 * 6, 6, 5), (4 * 6, 6, 5)]),
        ("rnn", [(6, 6, 5), (6, 6, 5)]),
        ("minlstm", []),
    ],
)
def test_products_on_the_same_vector_count_as_one(cell: str, products: list[tuple[int, int, int]]) -> None:
    problem = build(loaded(cell, hidden_size=6, batch_size=5, num_layers=2, seq_len=2, trials=3)).problem
    assert recurrent_products(problem.plans, problem.batch_size) == products


@pytest.mark.parametrize(
    ("asked", "environment", "expected"),
    [(None, None, 3), (5, None, 5), (None, "2", 2), (None, "2,4", 2), (5, "2", 5), (None, "many", 1), (None, "0", 1)],
)
def test_the_threads_of_the_interpreter(
    asked: int | None, environment: str | None, expected: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    if environment is not None:
        monkeypatch.setenv("OMP_NUM_THREADS", environment)
    before = ALLOWED.get()
    with computing_threads(asked):
        assert ALLOWED.get() == expected
        with computing_threads(7):
            assert ALLOWED.get() == 7
        assert ALLOWED.get() == expected
    assert ALLOWED.get() == before


def test_the_interpreter_keeps_no_more_than_a_few_processors_busy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threads, "usable_cpus", lambda: 500)
    with computing_threads(None):
        assert ALLOWED.get() == 8


@needs_threads
def test_by_size_without_the_users_doing() -> None:
    with computing_threads(1):
        assert during("lstm", **SMALL) == [1]
        assert during("lstm", **LARGE) == [3]
        assert during("lstm", "rnn", "gru", **LARGE) == [3, 1, 1], "each cell by its own size"


@needs_threads
def test_a_number_that_is_asked_for_wins(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENBLAS_NUM_THREADS", "1")
    for count in (1, 2):
        assert during("lstm", threads=count, **SMALL) == [count]
        assert during("lstm", threads=count, **LARGE) == [count]
        assert during("rnn", "gru", threads=count, **SMALL) == [count, count]


@needs_threads
@pytest.mark.parametrize("name", threads.BLAS_VARIABLES)
def test_the_users_environment_wins_over_the_size(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(name, "1")
    with computing_threads(1):
        assert during("lstm", **LARGE) == [1]


def test_one_thread_to_start_with() -> None:
    start_with_one_thread()
    assert [os.environ[name] for name in threads.BLAS_VARIABLES] == ["1", "1", "1"]
    assert threads.threads_of_environment() is None


def test_an_environment_that_says_how_many_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "4")
    start_with_one_thread()
    assert os.environ["OMP_NUM_THREADS"] == "4"
    assert "OPENBLAS_NUM_THREADS" not in os.environ, "it would win over the user's"
    assert threads.threads_of_environment() == 4


@needs_threads
@pytest.mark.parametrize("cell", ["lstm", "gru", "rnn"])
def test_results_do_not_depend_on_the_number(cell: str) -> None:
    found = []
    for count in (1, 2):
        options = ("-T", 12, "--hidden-size", 256, "--batch-size", 32, "--trials", 1, "--threads", count)
        finished = gradcli("simulate", cell, *options, "--format", "json")
        assert finished.code == 0, finished.stderr
        found.append(json.loads(finished.stdout)["runs"][0])
    one, two = found
    assert two["loss"] == pytest.approx(one["loss"], rel=1e-12, abs=0)
    for name in one["states"]:
        # log10 x + 4e-13 is x (1 + 1e-12)
        assert two["states"][name]["log10_norm"] == pytest.approx(one["states"][name]["log10_norm"], rel=0, abs=4e-13)
    for name, parameter in one["parameters"].items():
        assert two["parameters"][name]["log10_norm"] == pytest.approx(parameter["log10_norm"], rel=0, abs=4e-13)


def test_a_library_without_threads_to_set_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ThreadpoolController, "_load_libraries", lambda self: None)
    assert during("lstm", **LARGE) == [], "nothing was asked for, so that nothing is missing"
    finished = gradcli("simulate", "rnn", "-T", 2, "--threads", 2)
    assert finished.code == 2
    assert finished.refused()
    assert "--threads: NumPy computes here with a linear algebra library whose threads cannot be set" in finished.stderr


@pytest.mark.parametrize(
    ("text", "cpus"), [("200000 100000\n", 2), ("150000 100000\n", 1), ("max 100000\n", 2**31), ("nonsense", 2**31)]
)
def test_a_container_grants_what_its_quota_says(text: str, cpus: int, tmp_path: Path) -> None:
    (tmp_path / "cpu.max").write_text(text)
    assert threads._cpus_of_container(tmp_path) == cpus


def test_the_processors_of_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    assert 1 <= threads.usable_cpus() <= (os.cpu_count() or 1)
    monkeypatch.setattr(threads, "_cpus_of_container", lambda: 0)
    assert threads.usable_cpus() == 1, "half a processor is one"
