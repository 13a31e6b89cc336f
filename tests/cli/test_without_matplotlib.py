"""Where matplotlib is not installed: everything but pictures works, and pictures are refused in a sentence."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from processes import environment

#: As if it were not installed, for whoever looks for it and for whoever imports it.
WITHOUT = "import sys; sys.modules['matplotlib'] = None\n"
COMMAND = f"{WITHOUT}sys.argv[0] = 'gradcli'\nfrom gradcli.__main__ import main\nsys.exit(main())"
SMALL = ["-T", "5", "--hidden-size", "3", "--trials", "1", "--quiet"]
REFUSED = "error: pictures are drawn by matplotlib, which is not installed: pip install 'gradcli[plot]'\n"


def python(cwd: Path, program: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", program, *arguments], env=environment(), cwd=cwd, capture_output=True, text=True
    )


@pytest.mark.parametrize(
    "arguments",
    [
        ["report", "rnn", "-o", "page.html"],
        ["report", "rnn", "lstm", "-o", "page.html"],
        *([name, "rnn", "--plot", "a.png"] for name in ("simulate", "jacobian", "paths", "contributions", "gates")),
        ["compare", "rnn", "lstm", "--plot", "a.pdf"],
    ],
    ids=" ".join,
)
def test_pictures_are_refused_in_a_sentence(tmp_path: Path, arguments: list[str]) -> None:
    done = python(tmp_path, COMMAND, *arguments, *SMALL)
    assert (done.returncode, done.stdout, done.stderr) == (2, "", REFUSED)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["simulate", "jacobian", "paths", "contributions", "gates"])
def test_all_the_rest_works(tmp_path: Path, name: str) -> None:
    done = python(tmp_path, COMMAND, name, "rnn", *SMALL, "--chart")
    assert (done.returncode, done.stderr) == (0, "")


def test_python_and_notebooks(tmp_path: Path) -> None:
    program = (
        f"{WITHOUT}import gradcli\nrun = gradcli.simulate('rnn', seq_len=5)\n"
        "shown = run._repr_mimebundle_()\nassert '<pre>' in shown['text/html'] and '<img' not in shown['text/html']\n"
        "for draw in (run.plot, lambda: run.save('a.svg'), lambda: gradcli.report('rnn')):\n"
        "    try:\n        draw()\n    except gradcli.GradcliError as error:\n        print(error)"
    )
    done = python(tmp_path, program)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == 3 * REFUSED.removeprefix("error: ")
