"""Files that commands write: in full or not at all, and never in the place of something else."""

from __future__ import annotations

import os
import stat
import sys
import threading
from pathlib import Path

import pytest
from processes import Run

from gradcli.errors import ExitCode, OutputError
from gradcli.output_files import check_writable, replacing

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="POSIX files")


def write(path: Path, content: bytes = b"new") -> None:
    check_writable(path)
    with replacing(path) as file:
        file.write(content)


def test_new_file_gets_the_usual_mode(tmp_path: Path) -> None:
    write(tmp_path / "out")
    (tmp_path / "usual").touch()
    assert (tmp_path / "out").read_bytes() == b"new"
    assert (tmp_path / "out").stat().st_mode == (tmp_path / "usual").stat().st_mode


def test_existing_file_keeps_its_mode_and_its_readers(tmp_path: Path) -> None:
    path = tmp_path / "out"
    path.write_bytes(b"old")
    path.chmod(0o640)
    with path.open("rb") as reader:
        write(path)
        assert reader.read() == b"old"
    assert path.read_bytes() == b"new"
    assert stat.S_IMODE(path.stat().st_mode) == 0o640
    assert os.listdir(tmp_path) == ["out"]


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt, SystemExit])
def test_failure_leaves_all_as_it_was(tmp_path: Path, error: type[BaseException]) -> None:
    path = tmp_path / "out"
    path.write_bytes(b"old")

    def fail_halfway() -> None:
        with replacing(path) as file:
            file.write(b"half")
            raise error

    with pytest.raises(error):
        fail_halfway()
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["out"]


def test_symbolic_links_are_followed(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    target, link, chain = tmp_path / "elsewhere" / "real", tmp_path / "link", tmp_path / "chain"
    link.symlink_to(target)
    chain.symlink_to("link")
    write(chain)  # dangling so far: the target is created
    assert target.read_bytes() == b"new"
    write(link, b"newer")
    assert target.read_bytes() == b"newer"
    assert link.is_symlink()
    assert chain.is_symlink()
    assert not target.is_symlink()


def test_link_to_itself_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "loop").symlink_to("loop")
    with pytest.raises(OutputError, match="loop"):
        check_writable(tmp_path / "loop")


def test_fifo_is_written_through(tmp_path: Path) -> None:
    path = tmp_path / "fifo"
    os.mkfifo(path)
    got: list[bytes] = []
    reader = threading.Thread(target=lambda: got.append(path.read_bytes()))
    reader.start()
    write(path)
    reader.join(10)
    assert got == [b"new"]
    assert stat.S_ISFIFO(path.stat().st_mode)


def test_devices_stay_devices() -> None:
    write(Path("/dev/null"))
    assert stat.S_ISCHR(os.stat("/dev/null").st_mode)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full here")
def test_full_device_is_an_output_error() -> None:
    with pytest.raises(OutputError, match=r"cannot write /dev/full: No space left on device") as caught:
        write(Path("/dev/full"))
    assert caught.value.exit_code is ExitCode.INPUT_FILE


def test_directory_is_refused(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="it is a directory"):
        check_writable(tmp_path)


def test_missing_directory_is_named(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match=r"the directory .*missing does not exist"):
        check_writable(tmp_path / "missing" / "out")


def test_a_link_that_leads_nowhere_says_where(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "gone" / "file")
    message = f"link: it is a link to {tmp_path}/gone/file, and the directory {tmp_path}/gone does not exist"
    with pytest.raises(OutputError, match=message):
        check_writable(tmp_path / "link")


def test_file_in_place_of_a_directory(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match="Not a directory"):
        check_writable(tmp_path / "file" / "out")


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="no /proc here")
def test_directory_that_takes_no_files() -> None:
    with pytest.raises(OutputError, match="cannot write"):
        check_writable(Path("/proc/gradcli-test"))


@pytest.mark.skipif(hasattr(os, "geteuid") and os.geteuid() == 0, reason="root may write anywhere")
def test_write_protection_is_respected(tmp_path: Path) -> None:
    path = tmp_path / "out"
    path.touch(mode=0o444)
    with pytest.raises(OutputError, match="write-protected"):
        check_writable(path)
    path.unlink()
    tmp_path.chmod(0o555)
    try:
        with pytest.raises(OutputError, match="Permission denied"):
            check_writable(path)
    finally:
        tmp_path.chmod(0o755)


def test_long_names_are_possible(tmp_path: Path) -> None:
    write(tmp_path / ("n" * 255))
    with pytest.raises(OutputError, match="File name too long"):
        write(tmp_path / ("n" * 256))


# The same through the command line.


def test_output_and_save(run: Run, tmp_path: Path) -> None:
    done = run("simulate", "x", "--format", "csv", "-o", "out.csv", "--save", "run.npz", fake="echo")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "wrote out.csv\nwrote run.npz\n")
    assert (tmp_path / "out.csv").read_text(encoding="utf-8").startswith("n,i\nrow │ 0,0\n")
    assert (tmp_path / "run.npz").read_bytes() == b"arrays"
    assert run("simulate", "x", "-o", "out.csv", "--quiet", fake="echo").stderr == ""


@pytest.mark.parametrize(
    ("name", "asked", "beginning"),
    [
        ("out.json", (), "{"),
        ("OUT.CSV", (), "n,i"),
        ("out.md", (), "**STABLE**"),
        ("out.txt", (), "STABLE   it"),
        ("out.dat", (), "STABLE   it"),
        ("out.tex", (), "STABLE   it"),
        ("out.json", ("--format", "csv"), "n,i"),
        ("out.csv", ("--format", "table"), "STABLE   it"),
    ],
)
def test_the_ending_says_the_format_unless_an_option_does(
    run: Run, tmp_path: Path, name: str, asked: tuple[str, ...], beginning: str
) -> None:
    assert run("simulate", "x", "-o", name, *asked, "--quiet", fake="echo").returncode == 0
    assert (tmp_path / name).read_text(encoding="utf-8").startswith(beginning)


def test_every_command_that_prints_can_write_a_file(run: Run, tmp_path: Path) -> None:
    for arguments, name in (
        (["init", "lstm"], "my.yaml"),
        (["schema"], "schema.json"),
        (["cells"], "cells.csv"),
        (["cells", "gru"], "gru.json"),
        (["paths", "rnn", "-T", 3, "--hidden-size", 2], "step.tex"),
    ):
        done = run(*arguments, "-o", name)
        assert (done.returncode, done.stdout, done.stderr) == (0, "", f"wrote {name}\n")
    assert (tmp_path / "my.yaml").read_text() == run("init", "lstm").stdout
    assert (tmp_path / "schema.json").read_text() == run("schema").stdout
    assert (tmp_path / "cells.csv").read_text() == run("cells", "--format", "csv").stdout
    assert (tmp_path / "gru.json").read_text() == run("cells", "gru", "--format", "json").stdout
    assert (tmp_path / "step.tex").read_text().startswith("\\begin{align")
    assert run("init", "lstm", "-o", "missing/my.yaml").returncode == 4


def test_dash_is_standard_output(run: Run, tmp_path: Path) -> None:
    done = run("simulate", "x", "-o", "-", fake="echo")
    assert done.stdout.startswith("STABLE")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("option", ["-o", "--save"])
def test_paths_are_checked_before_the_work(run: Run, option: str) -> None:
    done = run("simulate", "x", option, "missing/out", fake="bug")
    assert (done.returncode, done.stderr) == (
        4,
        "error: cannot write missing/out: the directory missing does not exist\n",
    )


def test_standard_output_as_a_file_stays_what_it_is(run: Run, tmp_path: Path) -> None:
    if not os.path.exists("/dev/stdout"):
        pytest.skip("no /dev/stdout here")
    before = os.lstat("/dev/stdout")
    assert run("simulate", "x", "-o", "/dev/stdout", "--quiet", fake="echo").stdout.startswith("STABLE")
    log = tmp_path / "log"
    log.write_text("before\n")
    with log.open("a") as file:
        assert run("simulate", "x", "-o", "/dev/stdout", fake="echo", stdout=file).returncode == 0
    assert log.read_text(encoding="utf-8").startswith("before\nSTABLE")
    assert os.lstat("/dev/stdout") == before


def test_failed_save_leaves_nothing(run: Run, tmp_path: Path) -> None:
    done = run("simulate", "x", "--save", "run.npz", fake="save-fails")
    assert done.returncode == 1
    assert done.stdout == ""
    assert list(tmp_path.iterdir()) == []
