"""Ctrl-C and termination: a prompt end with the right exit code, and nothing left behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from processes import command, environment

from gradcli import output_files
from gradcli.cli import interrupt
from gradcli.cli.interrupt import answering_interrupts
from gradcli.output_files import act_now, unless_finished

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="POSIX signals")

#: Seconds within which a process must end, on a machine however busy; each would otherwise go on for far longer.
PATIENCE = 20

# gradcli, which says on standard error when it has begun what the test waits for.
ANNOUNCING = """
import sys
import numpy as np
import gradcli.commands
from dataclasses import replace
from functools import wraps
from gradcli.__main__ import main
from gradcli.cli import COMMANDS

def announce(*_):
    print("begun", file=sys.stderr, flush=True)

def eigvals(matrix, found=np.linalg.eigvals):
    announce()
    return found(matrix)

@wraps(gradcli.simulate)
def simulate(found=gradcli.simulate, progress=None, **options):
    return found(progress=announce, **options)

WHAT = sys.argv.pop(1)
if WHAT == "eigenvalues":
    np.linalg.eigvals = eigvals
else:
    COMMANDS["simulate"] = replace(COMMANDS["simulate"], function=simulate)
sys.argv[0] = "gradcli"
sys.exit(main())
"""


@contextmanager
def begun(arguments: list[str], cwd: Path, sign: str) -> Iterator[subprocess.Popen[str]]:
    """Give a process that has said `sign` on standard error; it is killed if it outlives the block."""
    with subprocess.Popen(
        arguments, env=environment(), cwd=cwd, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        try:
            assert process.stderr is not None
            assert process.stderr.readline() == f"{sign}\n"
            time.sleep(0.5)  # the call that it has announced is under way
            yield process
        finally:
            process.kill()


def rest_of(process: subprocess.Popen[str]) -> set[str]:
    """Return the lines that are left on standard output and standard error."""
    assert process.stdout is not None
    assert process.stderr is not None
    return set((process.stdout.read() + process.stderr.read()).splitlines())


# The eigenvalues of the one, a single call, take a minute or more; the steps of the other as well.
@pytest.mark.parametrize(
    ("what", "options"),
    [
        ("eigenvalues", ["-T", "1", "--hidden-size", "5000", "--set", "init.W_hh={spectral_radius: 0.9}"]),
        ("steps", ["-T", "10000000", "--hidden-size", "8"]),
    ],
)
def test_interrupt_at_any_size(what: str, options: list[str], tmp_path: Path) -> None:
    small = ["--batch-size", "1", "--trials", "1", "--input-size", "1", "--max-memory", "1T", "-o", "out.csv"]
    arguments = [sys.executable, "-c", ANNOUNCING, what, "simulate", "rnn", *options, *small]
    with begun(arguments, tmp_path, "begun") as process:
        process.send_signal(signal.SIGINT)
        assert process.wait(PATIENCE) == 130
        assert rest_of(process) <= {"begun"}
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("mode", ["save-waits", "save-blocks"])
@pytest.mark.parametrize(
    ("number", "code"),
    [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129), (signal.SIGXCPU, 128 + signal.SIGXCPU)],
)
def test_end_while_a_file_is_written(number: signal.Signals, code: int, mode: str, tmp_path: Path) -> None:
    (tmp_path / "run.npz").write_bytes(b"old")
    arguments = command("simulate", "x", "--save", "run.npz", "-o", "-", "--quiet", fake=mode)
    with begun(arguments, tmp_path, "saving") as process:
        assert len(list(tmp_path.iterdir())) == 2
        process.send_signal(number)
        assert process.wait(PATIENCE) == code
        assert not any("Traceback" in line for line in rest_of(process))
    assert [path.name for path in tmp_path.iterdir()] == ["run.npz"]
    assert (tmp_path / "run.npz").read_bytes() == b"old"


def test_second_interrupt_does_not_wait_for_the_first(tmp_path: Path) -> None:
    fake = Path(command(fake="save-blocks")[1])
    patient = tmp_path / "patient.py"
    patient.write_text(
        "import runpy, sys\n"
        "from gradcli.cli import interrupt\n"
        "interrupt._GRACE_SECONDS = 600.0\n"
        f"sys.argv[0] = {str(fake)!r}\n"
        f"runpy.run_path({str(fake)!r}, run_name='__main__')\n"
    )
    arguments = [sys.executable, str(patient), "save-blocks", "simulate", "x", "--save", "run.npz", "--quiet"]
    with begun(arguments, tmp_path, "saving") as process:
        process.send_signal(signal.SIGINT)
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(1)
        process.send_signal(signal.SIGINT)
        assert process.wait(PATIENCE) == 130
    assert [path.name for path in tmp_path.iterdir()] == ["patient.py"]


def test_what_is_started_to_outlive_its_terminal_does(tmp_path: Path) -> None:
    arguments = ["nohup", *command("simulate", "x", "--save", "run.npz", "-o", "-", "--quiet", fake="save-waits")]
    with begun(arguments, tmp_path, "saving") as process:
        process.send_signal(signal.SIGHUP)
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(1)
        process.send_signal(signal.SIGTERM)
        assert process.wait(PATIENCE) == 143


# gradcli, interrupted while the module that its first argument names is imported.
IMPORTING = """
import os, signal, sys

class Interrupting:
    def find_spec(self, name, path=None, target=None):
        if name == MODULE:
            os.kill(os.getpid(), signal.SIGINT)

MODULE = sys.argv.pop(1)
sys.meta_path.insert(0, Interrupting())
sys.argv[0] = "gradcli"
from gradcli.__main__ import main
sys.exit(main())
"""


@pytest.mark.parametrize(
    ("module", "last"),
    [
        *[(name, "--quiet") for name in ("gradcli.errors", "gradcli.prepare.threads", "gradcli.cli", "numpy")],
        ("gradcli.commands.loading", "--quiet"),
        ("typer", "--help"),  # a line that needs no explanation does without it
    ],
)
def test_interrupt_during_the_imports_is_no_traceback(module: str, last: str, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", IMPORTING, module, "simulate", "lstm", "-o", "out.csv", last],
        env=environment(),
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "")
    assert list(tmp_path.iterdir()) == []


# gradcli, ended in the middle of a library that makes another error of what is raised in it, or none at all.
WRAPPING = """
import os, signal, sys, time
import gradcli.commands
from dataclasses import replace
from functools import wraps
from gradcli.__main__ import main
from gradcli.commands.command import COMMANDS

class Library:
    def __del__(self):
        os.kill(os.getpid(), NUMBER)

@wraps(gradcli.simulate)
def simulate(**options):
    if SWALLOWS:
        Library()
        time.sleep(60)
    try:
        os.kill(os.getpid(), NUMBER)
    except BaseException as stop:
        raise ValueError(f"wrapped: {stop!r}") from None

NUMBER, SWALLOWS = int(sys.argv.pop(1)), sys.argv.pop(1) == "swallows"
COMMANDS["simulate"] = replace(COMMANDS["simulate"], function=simulate)
sys.argv[0] = "gradcli"
sys.exit(main())
"""


@pytest.mark.parametrize("library", ["wraps", "swallows"])
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)])
def test_a_signal_that_a_library_takes_for_its_own_error_ends_the_run(
    number: signal.Signals, code: int, library: str, tmp_path: Path
) -> None:
    done = subprocess.run(
        [sys.executable, "-c", WRAPPING, str(int(number)), library, "simulate", "lstm", "-o", "out.csv"],
        env=environment(),
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (code, "", "")
    assert list(tmp_path.iterdir()) == []


# In this process: what is left when all goes well.


def test_an_orderly_end_leaves_no_trace() -> None:
    before = signal.set_wakeup_fd(-1)
    signal.set_wakeup_fd(before)
    descriptors = set(os.listdir("/dev/fd"))
    with answering_interrupts():
        assert "interrupts" in {thread.name for thread in threading.enumerate()}
    with pytest.raises(KeyboardInterrupt), answering_interrupts():
        signal.raise_signal(signal.SIGINT)
    assert "interrupts" not in {thread.name for thread in threading.enumerate()}
    assert signal.set_wakeup_fd(before) == before
    assert set(os.listdir("/dev/fd")) == descriptors


def test_other_signals_are_not_answered() -> None:
    heard = []
    before = signal.signal(signal.SIGUSR1, lambda *_: heard.append("heard"))
    try:
        with answering_interrupts():
            signal.raise_signal(signal.SIGUSR1)
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert heard == ["heard"]


def test_outside_the_main_thread_nothing_is_watched() -> None:
    names: list[str] = []

    def look() -> None:
        with answering_interrupts():
            names.extend(thread.name for thread in threading.enumerate())

    thread = threading.Thread(target=look, name="elsewhere")
    thread.start()
    thread.join()
    assert "elsewhere" in names
    assert "interrupts" not in names


def test_what_is_to_be_undone() -> None:
    done: list[str] = []
    with unless_finished(lambda: done.append("finished")):
        pass
    assert done == []
    with pytest.raises(RuntimeError, match="why"), unless_finished(lambda: done.append("undone")):
        raise RuntimeError("why")
    assert done == ["undone"]
    act_now()
    assert done == ["undone"], "only once"


def test_what_an_interrupt_stopped_is_done_at_the_end() -> None:
    done: list[str] = []

    def undo() -> None:
        done.append("tried")
        if len(done) == 1:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt), unless_finished(undo):
        raise RuntimeError
    act_now()
    assert done == ["tried", "tried"]
    output_files._last_acts.clear()


def test_undoing_never_hides_what_went_wrong() -> None:
    def undo() -> None:
        raise OSError("no")

    with pytest.raises(RuntimeError, match="why"), unless_finished(undo):
        raise RuntimeError("why")


def test_an_answer_within_a_second() -> None:
    assert 0.1 <= interrupt._GRACE_SECONDS <= 0.8, "time to unwind, and time to spare"
