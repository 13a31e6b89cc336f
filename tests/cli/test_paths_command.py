"""`gradcli paths` as a process."""

from __future__ import annotations

import json

from processes import Run

SMALL = ("--hidden-size", 4, "--input-size", 3, "-T", 6, "--batch-size", 2, "--trials", 2)


def test_the_routes_of_the_lstm(run: Run) -> None:
    done = run("paths", "lstm", "-T", 3, "--distance", 2, "--to", "h", "--hidden-size", 4)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.count("\nh[3] -> ") == 19


def test_every_format(run: Run) -> None:
    assert json.loads(run("paths", "gru", *SMALL, "--format", "json").stdout)["command"] == "paths"
    assert run("paths", "gru", *SMALL, "--format", "csv").stdout.startswith("label,layer,section,")
    assert run("paths", "gru", *SMALL, "--format", "latex").stdout.startswith("\\begin{align*}\n")
    assert "| route |" in run("paths", "gru", *SMALL, "--format", "markdown").stdout


def test_latex_is_offered_here_only(run: Run) -> None:
    done = run("simulate", "lstm", "--format", "latex")
    assert (done.returncode, done.stdout) == (2, "")
    assert "latex is a format of 'gradcli paths'; here: table" in done.stderr


def test_mistakes(run: Run) -> None:
    for arguments in (["--from", "q"], ["--to", "q"], ["--layer", "9"], ["--distance", "7"], ["--distance", "0"]):
        done = run("paths", "lstm", *SMALL, *arguments)
        assert (done.returncode, done.stdout) == (2, "")
        assert arguments[0] in done.stderr
