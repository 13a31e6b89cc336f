"""Completion as shells ask for it, and as they show it."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
from doc_snippets import CONFIGS
from processes import command, environment

CHECKPOINT = CONFIGS.parent / "checkpoints" / "digits-lstm.pt"
SHELLS = ("bash", "zsh", "fish")
LINES = [
    ("simulate lst", {"lstm", "lstm-coupled"}),
    ("simulate lstm --set init.b_", {"init.b_i=", "init.b_f=", "init.b_g=", "init.b_o="}),
    ("simulate --set dty", {"dtype=float32", "dtype=float64"}),
    ("compare gru lstm --set params.b_h", {"params.b_hn="}),
    ("simulate lstm --fail-on vanishing,ex", {"vanishing,exploding"}),
    ("simulate lstm --clip step_", {"step_norm=", "step_value="}),
    ("simulate lstm --format j", {"json"}),
    ("compare lstm gru --match p", {"params"}),
    (f"simulate {CHECKPOINT} --layer r", {"rnn"}),
    ("gates lstm --layer l", {"layer0"}),
    ("cells mg", {"mgu"}),
    ("examples digits-", {"digits-rows", "digits-pixels"}),
    ("exam", {"examples"}),
    ("simulate --seq", {"--seq-len"}),
]


def asked(line: str, shell: str) -> dict[str, str]:
    """Return the environment with which a shell asks for what may end a line."""
    words = ["gradcli", *line.split(" ")]
    of_shell = {"COMP_WORDS": "\n".join(words), "COMP_CWORD": str(len(words) - 1)}
    if shell != "bash":
        of_shell = {"_TYPER_COMPLETE_ARGS": " ".join(words), "_TYPER_COMPLETE_FISH_ACTION": "get-args"}
    return environment(_GRADCLI_COMPLETE=f"complete_{shell}", **of_shell)


def answer(line: str, shell: str, cwd: Path) -> set[str]:
    """Return the words that gradcli answers."""
    done = subprocess.run(
        command(), env=asked(line, shell), cwd=cwd, capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    if shell == "zsh":
        return {word.replace(r"\\:", ":") for word in re.findall(r'"([^"]*)"(?::"[^"]*")?', done.stdout)}
    return {line.partition("\t")[0] for line in done.stdout.splitlines() if line}


@pytest.mark.parametrize("shell", SHELLS)
@pytest.mark.parametrize(("line", "words"), LINES, ids=[line for line, _ in LINES])
def test_what_is_answered(line: str, words: set[str], shell: str, tmp_path: Path) -> None:
    found = answer(line, shell, tmp_path)
    assert words <= found
    last = line.rpartition(" ")[2]
    assert all(word.startswith(last) for word in found)


@pytest.mark.parametrize("shell", SHELLS)
def test_a_broken_spec_is_no_error(shell: str, tmp_path: Path) -> None:
    (tmp_path / "broken.yaml").write_text("cell: {equations: [1]}\n")
    assert answer("simulate broken.yaml --set see", shell, tmp_path) == {"seed="}
    assert answer("simulate broken.yaml --set init.b_f", shell, tmp_path) == set()


#: gradcli as a shell asks it, which says at its end what it has loaded.
LOADING = """
import atexit, json, sys
atexit.register(lambda: print(json.dumps(sorted(sys.modules)), file=sys.stderr))
sys.argv = ["gradcli"]
from gradcli.__main__ import main
sys.exit(main())
"""


@pytest.mark.parametrize("line", ["simulate lst", "simulate lstm --set init.b_", "simulate lstm --fail-on va", "exam"])
def test_nothing_slow_is_loaded(line: str, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", LOADING],
        env=asked(line, "bash"),
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert done.stdout
    assert {"numpy", "rich", "gradcli.engine"} & set(json.loads(done.stderr)) == set()


@pytest.fixture
def bin_folder(tmp_path: Path) -> Path:
    """Return a folder with a command called gradcli, and in it the script that each shell reads."""
    folder = tmp_path / "bin"
    folder.mkdir()
    start = folder / "gradcli"
    start.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m gradcli "$@"\n')
    start.chmod(0o755)
    for shell in SHELLS:
        done = subprocess.run(
            command(), env=environment(_GRADCLI_COMPLETE=f"source_{shell}"), capture_output=True, text=True, check=True
        )
        (folder / f"completion.{shell}").write_text(done.stdout)
    return folder


def in_shell(bin_folder: Path, shell: str, script: str, cwd: Path) -> list[str]:
    start = [shell, *(["--norc"] if shell == "bash" else ["--no-config"]), "-c", script]
    env = environment(PATH=f"{bin_folder}{os.pathsep}{os.environ['PATH']}", HOME=str(bin_folder))
    done = subprocess.run(start, env=env, cwd=cwd, capture_output=True, text=True, timeout=120, check=False)
    assert done.stderr == ""
    return done.stdout.splitlines()


needs_bash = pytest.mark.skipif(shutil.which("bash") is None, reason="bash is not installed")
needs_zsh = pytest.mark.skipif(shutil.which("zsh") is None, reason="zsh is not installed")
needs_fish = pytest.mark.skipif(shutil.which("fish") is None, reason="fish is not installed")

#: Each would make a file where a shell runs a part of its name.
HOSTILE = (
    "m$(touch ran).yaml",
    "m`touch ran`.yaml",
    "m\\$(touch ran).yaml",
    'm"; touch ran; ".yaml',
    "m'$(touch ran)'.yaml",
)


@pytest.fixture
def hostile_folder(tmp_path: Path) -> Path:
    folder = tmp_path / "specs"
    folder.mkdir()
    for name in (*HOSTILE, "my-model.yaml"):
        (folder / name).touch()
    return folder


@needs_bash
def test_bash(bin_folder: Path, hostile_folder: Path) -> None:
    script = f"""
source '{bin_folder}/completion.bash'
COMP_WORDS=(gradcli simulate m); COMP_CWORD=2
_gradcli_completion gradcli
printf '%s\\n' "${{COMPREPLY[@]}}"
"""
    found = in_shell(bin_folder, "bash", script, hostile_folder)
    assert {"mgu", "my-model.yaml"} <= set(found)
    assert not set(found) & set(HOSTILE)
    assert "ran" not in os.listdir(hostile_folder)


@needs_fish
def test_fish(bin_folder: Path, hostile_folder: Path) -> None:
    script = f"source '{bin_folder}/completion.fish'; complete -C 'gradcli simulate m'"
    found = {line.partition("\t")[0] for line in in_shell(bin_folder, "fish", script, hostile_folder)}
    assert {"mgu", "my-model.yaml"} <= found
    assert "ran" not in os.listdir(hostile_folder)


@needs_zsh
def test_zsh(bin_folder: Path, hostile_folder: Path) -> None:
    """The function runs within zsh's line editor alone, so that keys have to be typed on a terminal."""
    import pty

    env = environment(PATH=f"{bin_folder}{os.pathsep}{os.environ['PATH']}", HOME=str(bin_folder), PS1="> ")
    ours, theirs = pty.openpty()
    with subprocess.Popen(
        ["zsh", "-f", "-i"], env=env, cwd=hostile_folder, stdin=theirs, stdout=theirs, stderr=theirs
    ) as zsh:
        os.close(theirs)
        try:
            os.write(
                ours,
                f"autoload -Uz compinit; compinit -u -D; source '{bin_folder}/completion.zsh'; echo re''ady\n".encode(),
            )
            read_until(ours, "ready")
            os.write(ours, b"gradcli simulate my\t")
            read_until(ours, "my-model.yaml")
            os.write(ours, b"\x15gradcli simulate m\t")
            read_until(ours, "mgu")
            os.write(ours, b"\x15gradcli simulate lstm --set init.W_x\t")
            read_until(ours, "init.W_xo=")
        finally:
            zsh.kill()
            os.close(ours)
    assert "ran" not in os.listdir(hostile_folder)


def read_until(terminal: int, sign: str, seconds: float = 60.0) -> None:
    """Read a terminal until it has shown `sign`."""
    import select

    shown, deadline = "", time.monotonic() + seconds
    while sign not in re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", shown):
        assert time.monotonic() < deadline, shown
        if select.select([terminal], [], [], 1.0)[0]:
            shown += os.read(terminal, 4096).decode(errors="replace")
