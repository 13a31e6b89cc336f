"""Several processes: results in order and the same as from one, a worker that dies, and an end at any moment."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from checking import check, line, write

import gradcli
from gradcli.prepare.processes import run_apart

ROOT = Path(gradcli.__file__).parents[1]
pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="POSIX signals")


def command(*arguments: object) -> list[str]:
    return [sys.executable, "-m", "gradcli", "check", *map(str, arguments)]


def environment() -> dict[str, str]:
    return os.environ | {"PYTHONPATH": f"{ROOT}{os.pathsep}{Path(__file__).parent}", "NO_COLOR": "1"}


def square(number: int) -> int:
    if number < 0:
        os.kill(os.getpid(), signal.SIGKILL)
    return number * number


def process_id(_: int) -> tuple[int, str | None, object]:
    time.sleep(0.05)
    return os.getpid(), os.environ.get("OPENBLAS_NUM_THREADS"), signal.getsignal(signal.SIGINT)


def raise_value_error(number: int) -> int:
    raise ValueError(number)


def test_outcomes_come_in_order_and_a_worker_that_dies_costs_its_own_alone() -> None:
    told: list[int] = []
    assert run_apart(square, [3, -1, 2, 5, -2, 4], 2, on_done=told.append) == [9, None, 4, 25, None, 16]
    assert told[-1] == 6
    assert told == sorted(told)


def test_work_is_done_elsewhere_without_ctrl_c_and_with_one_thread() -> None:
    found = [one for one in run_apart(process_id, list(range(8)), 2) if one is not None]
    assert len(found) == 8
    assert os.getpid() not in {one[0] for one in found}
    assert {one[1] for one in found} == {"1"}
    assert {one[2] for one in found} == {signal.SIG_IGN}


def test_what_the_work_raises_is_raised() -> None:
    with pytest.raises(ValueError, match="7"):
        run_apart(raise_value_error, [7], 1)


def test_the_results_are_those_of_one_process(tmp_path: Path) -> None:
    for number in range(6):
        write(tmp_path / f"m/{number}.yaml", {"horizon": ">= 5", "verdict": "stable"}, seed=number)
    (tmp_path / "m/7.yaml").write_text("{cell: rnn, expect: {verdict: fine}}")
    texts = []
    for jobs in (1, 3):
        done = subprocess.run(
            command("m", "missing.yaml", "--jobs", jobs, "--format", "json", "--baseline", f"{jobs}.json", "--update"),
            cwd=tmp_path,
            env=environment(),
            capture_output=True,
            text=True,
            check=False,
        )
        assert (done.returncode, done.stderr) == (2, "")
        report = json.loads(done.stdout)
        assert report.pop("baseline") == f"{jobs}.json"
        for file in report["files"]:
            del file["seconds"]
        texts.append(report)
    assert texts[0] == texts[1]
    assert len(texts[0]["files"]) == 8
    assert (tmp_path / "1.json").read_bytes() == (tmp_path / "3.json").read_bytes()


def test_what_is_too_much_for_a_share_runs_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for number in range(3):
        write(tmp_path / f"{number}.yaml", {"finite": True}, hidden_size=64 if number == 1 else 2)
    sizes = (f"{2**k}K" for k in range(6, 20))
    enough = next(size for size in sizes if check(".", "--max-memory", size).code == 0)

    def status_of_the_large_one(size: str) -> str:
        arguments = command(".", "--format", "json", "--jobs", 3, "--max-memory", size)
        done = subprocess.run(arguments, env=environment(), capture_output=True, text=True, check=False)
        return str(json.loads(done.stdout)["files"][1]["status"])

    assert status_of_the_large_one(enough) == "passed"
    half = f"{int(enough.removesuffix('K')) // 2}K"
    assert (check(".", "--max-memory", half).code, status_of_the_large_one(half)) == (5, "error")


def alive(parent: int) -> list[int]:
    """Return the processes below one, by Linux's /proc; none where there is no such."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = path.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[1]) == parent and fields[0] != "Z":
            found.append(int(path.parent.name))
    return found


def is_running(process: int) -> bool:
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="looks processes up in /proc")
@pytest.mark.parametrize("all_of_them", [False, True], ids=["alone", "group"])
@pytest.mark.parametrize("ended_by", ["SIGINT", "SIGTERM", "SIGHUP", "SIGKILL"])
@pytest.mark.parametrize("seconds", [0.2, 2.0])
def test_an_end_at_any_moment_leaves_nothing(ended_by: str, seconds: float, all_of_them: bool, tmp_path: Path) -> None:
    for number in range(6):
        line(tmp_path / f"m/{number}.yaml", 0.9999, {"verdict": "stable"}, seq_len=3_000_000)
    arguments = command(
        "m", "--jobs", 3, "--format", "junit", "-o", "report.xml", "--baseline", "baseline.json", "--update"
    )
    with subprocess.Popen(
        arguments,
        cwd=tmp_path,
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
    ) as process:
        time.sleep(seconds)
        below = alive(process.pid)
        # A terminal signals all of its processes, `kill` one of them.
        (os.killpg if all_of_them else os.kill)(process.pid, getattr(signal, ended_by))
        start = time.monotonic()
        process.communicate(timeout=30)
        took = time.monotonic() - start
    assert process.returncode in (
        {"SIGINT": 130}.get(ended_by, 128 + getattr(signal, ended_by)),
        -getattr(signal, ended_by),
    )
    assert took < 10
    assert [path.name for path in tmp_path.iterdir()] == ["m"]
    until = time.monotonic() + 10
    while any(map(is_running, below)) and time.monotonic() < until:
        time.sleep(0.05)
    assert [one for one in below if is_running(one)] == []


def test_a_script_without_a_guard_checks_in_its_own_process(tmp_path: Path) -> None:
    for number in range(4):
        line(tmp_path / f"m/{number}.yaml", 0.5, {"horizon": 10})
    (tmp_path / "script.py").write_text("import gradcli\nprint(gradcli.check('m').status)\n")
    done = subprocess.run(
        [sys.executable, "script.py"], cwd=tmp_path, env=environment(), capture_output=True, text=True, check=False
    )
    assert (done.stdout, done.stderr) == ("passed\n", "")
