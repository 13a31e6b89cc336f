"""gradcli inside somebody's program: what an import loads and changes, threads, processes, notebooks; no output."""

from __future__ import annotations

import json
import multiprocessing
import pickle
import signal
import subprocess
import sys
import warnings
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from threadpoolctl import threadpool_info

import gradcli

ROOT = Path(__file__).parents[2]
HEAVY = {"matplotlib", "numpy", "pydantic", "rich", "threadpoolctl", "torch", "typer", "yaml"}
RUN = {"hidden_size": 6, "input_size": 3, "batch_size": 4, "trials": 2, "seq_len": 30}
CELLS = ("lstm", "gru", "rnn", "indrnn", "mgu", "lstm", "scrn", "gru")


def loaded_after(program: str) -> set[str]:
    """Return the modules that a program has loaded when it ends, run by itself."""
    program += "\nimport json, sys; print(json.dumps(sorted(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, encoding="utf-8", check=True)
    assert done.stderr == ""
    return set(json.loads(done.stdout))


def test_the_import_loads_nothing_slow() -> None:
    modules = loaded_after("import gradcli")
    assert modules & HEAVY == set()
    assert {name for name in modules if name.startswith("gradcli")} == {"gradcli"}


def test_looking_a_function_up_loads_nothing_slow() -> None:
    assert loaded_after("import gradcli; gradcli.simulate; dir(gradcli); gradcli.GradcliError") & HEAVY == set()


def test_a_run_loads_no_command_line_and_no_pictures() -> None:
    modules = loaded_after("import gradcli; gradcli.simulate('rnn', seq_len=3, trials=1).to_dict()")
    assert modules & {"typer", "rich", "matplotlib", "torch", "gradcli.cli"} == set()


def test_nothing_of_the_process_is_changed() -> None:
    program = """
import os, signal, sys, warnings
before = (dict(os.environ), [signal.getsignal(s) for s in (signal.SIGINT, signal.SIGTERM)], list(warnings.filters),
          sys.excepthook, os.getcwd())
import gradcli
gradcli.simulate
assert (dict(os.environ), [signal.getsignal(s) for s in (signal.SIGINT, signal.SIGTERM)], list(warnings.filters),
        sys.excepthook, os.getcwd()) == before
import numpy
state = numpy.random.get_state()[1].tolist(), numpy.geterr(), numpy.get_printoptions()
gradcli.simulate('rnn', seq_len=3, trials=1)
assert (numpy.random.get_state()[1].tolist(), numpy.geterr(), numpy.get_printoptions()) == state
assert [signal.getsignal(s) for s in (signal.SIGINT, signal.SIGTERM)] == before[1]
assert dict(os.environ) == before[0]
"""
    subprocess.run([sys.executable, "-c", program], cwd=ROOT, check=True)


def test_nothing_is_printed_and_nothing_warned_of(capfd: pytest.CaptureFixture[str]) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        gradcli.simulate("lstm", **RUN).to_text()
        with pytest.raises(gradcli.GradcliError):
            gradcli.simulate("lstm", seq_len=0)
    assert capfd.readouterr() == ("", "")


def test_an_unknown_keyword_is_a_type_error() -> None:
    with pytest.raises(TypeError, match=r"simulate\(\) got an unexpected keyword argument 'seqlen'"):
        gradcli.simulate("lstm", seqlen=3)  # type: ignore[call-arg]


def test_no_error_ends_the_process() -> None:
    for bad in ("nothing", "./nothing.yaml", "./nothing.pt", {"cell": 3}, {1: 2}):
        with pytest.raises(gradcli.GradcliError) as error:
            gradcli.simulate(bad)  # type: ignore[arg-type]
        assert not isinstance(error.value, SystemExit)


MISUSE: Sequence[tuple[dict[str, Any], str]] = (
    ({"seq_len": "5"}, "seq_len: expected a whole number; got '5' (str)"),
    ({"seq_len": True}, "seq_len: expected a whole number; got True (bool)"),
    ({"seq_len": 0}, "--seq-len: must be at least 1; got 0"),
    ({"clip": 5}, "clip: expected a text or a mapping or a list"),
    ({"clip": "norm"}, "--clip: expected METHOD=THRESHOLD"),
    ({"set": 5}, "set: expected a mapping or a text or a list"),
    ({"set": {"init.b_f": object()}}, "set: a value must be a number, a text, a list or a mapping; got object"),
    ({"layer": 1.5}, "layer: expected a text; got 1.5 (float)"),
    ({"save": 5}, "save: expected a text or a path; got 5 (int)"),
    ({"remedies": "yes"}, "remedies: expected True or False; got 'yes' (str)"),
    ({"threads": 0}, "threads: must be at least 1; got 0"),
    ({"max_memory": "much"}, "--max-memory: expected a size such as 500M"),
    ({"max_memory": -1}, "--max-memory: expected a size such as 500M"),
    ({"max_memory": "1K"}, "1.0 KiB (--max-memory) is the limit"),
    ({"progress": 5}, "progress: expected a function; got 5 (int)"),
)


@pytest.mark.parametrize(("options", "words"), MISUSE)
def test_misuse_is_told_in_words(options: dict[str, Any], words: str) -> None:
    with pytest.raises(gradcli.GradcliError) as error:
        gradcli.simulate("lstm", **options)
    assert words in str(error.value)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: gradcli.jacobian("rnn", burn_in=-1), "burn_in: must be at least 0; got -1"),
        (lambda: gradcli.jacobian("rnn", exponents=0), "--exponents: expected a whole number from 1 on, or all"),
        (lambda: gradcli.paths("rnn", distance=0), "distance: must be at least 1; got 0"),
        (lambda: gradcli.gates("rnn", layer=3), "--layer: no layer is called '3'"),
        (lambda: gradcli.compare("rnn"), "specs: expected a list, each entry a text or a path or a mapping or a spec"),
        (lambda: gradcli.compare(["rnn"]), "compare takes at least two specs"),
        (lambda: gradcli.simulate(None), "spec: expected a text or a path or a mapping or a spec; got None"),
        (lambda: gradcli.inspect(3), "file: expected a text or a path; got 3 (int)"),
        (lambda: gradcli.gates("rnn", **RUN).to_text(format="yaml"), "no format is called 'yaml'"),
        (lambda: gradcli.gates("rnn", **RUN).to_text(format="latex"), "has no LaTeX form"),
        (lambda: gradcli.gates("rnn", **RUN).save("x.doc"), "x.doc: the ending says what is written"),
        (lambda: gradcli.gates("rnn", **RUN).save("x.npz"), "there are no arrays to save"),
    ],
)
def test_misuse_of_others_is_told_in_words(call: Any, words: str) -> None:
    with pytest.raises(gradcli.GradcliError) as error:
        call()
    assert words in str(error.value)


def test_numbers_of_numpy_are_numbers() -> None:
    options = {"seq_len": np.int64(9), "clip": {"norm": np.float32(0.5)}, "set": {"init.b_f": np.float64(1.0)}}
    found = gradcli.simulate("lstm", **options, max_memory="1G", threads=np.int32(1))
    same = gradcli.simulate("lstm", seq_len=9, clip="norm=0.5", set=["init.b_f=1.0"])
    assert found.to_dict() == same.to_dict()


def document(cell: str) -> dict[str, Any]:
    return gradcli.simulate(cell, **RUN).to_dict()


@pytest.fixture(scope="module")
def one_by_one() -> list[dict[str, Any]]:
    return [document(cell) for cell in CELLS]


def test_threads_get_what_one_alone_gets(one_by_one: list[dict[str, Any]]) -> None:
    before = [library["num_threads"] for library in threadpool_info()]
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(document, CELLS)) == one_by_one
    assert [library["num_threads"] for library in threadpool_info()] == before


def test_spawned_processes_take_functions_and_give_results_back(one_by_one: list[dict[str, Any]]) -> None:
    handler = signal.getsignal(signal.SIGINT)
    with ProcessPoolExecutor(2, mp_context=multiprocessing.get_context("spawn")) as pool:
        waiting = [pool.submit(gradcli.simulate, cell, **RUN) for cell in CELLS[:3]]
        found = [one.result() for one in waiting]
        failed = pool.submit(gradcli.simulate, "nothing").exception()
    assert [one.to_dict() for one in found] == one_by_one[:3]
    assert found[0].picture("curve").title.startswith("lstm: ")
    assert isinstance(failed, gradcli.GradcliError)
    assert "no built-in cell is called 'nothing'" in str(failed)
    assert signal.getsignal(signal.SIGINT) is handler


@pytest.mark.parametrize(
    "call",
    [
        lambda: gradcli.simulate({"cell": "lstm", "seq_len": 0, "trials": 0}),
        lambda: gradcli.simulate("lstm", max_memory="1K"),
        lambda: gradcli.simulate("./nothing.yaml"),
        lambda: gradcli.simulate("lstm", save="/"),
    ],
)
def test_an_error_survives_the_way_between_processes(call: Any) -> None:
    with pytest.raises(gradcli.GradcliError) as error:
        call()
    sent = pickle.loads(pickle.dumps(error.value))
    assert type(sent) is type(error.value)
    assert str(sent) == str(error.value)
    assert vars(sent) == vars(error.value)
    assert sent.exit_code == error.value.exit_code
