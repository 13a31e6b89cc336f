"""The progress bar: only for long work, only on a terminal, and gone when the work is done."""

from __future__ import annotations

import io
import re

import pytest

from gradcli.cli.progress import Bar, progress_bar


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_long_work_shows_stage_and_steps() -> None:
    screen = Terminal()
    bar = Bar(screen, patience=0.0)
    bar("forward", 250, 1000)
    bar("backward", 1000, 1000)
    bar.close()
    shown = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", screen.getvalue())
    assert "forward" in shown
    assert "250/1000 steps" in shown
    assert "backward" in shown
    assert "1000/1000 steps" in shown


def test_a_bar_that_nobody_takes_off_leaves_the_terminal_fit_for_use() -> None:
    screen = Terminal()
    bar = Bar(screen, patience=0.0)
    bar.leave()
    assert screen.getvalue() == "", "no bar was there"
    bar("forward", 250, 1000)
    bar.leave()
    assert screen.getvalue().endswith("\n\x1b[?25h"), "the cursor is back"
    bar.close()
    shown = screen.getvalue()
    bar.leave()
    assert screen.getvalue() == shown


def test_short_work_shows_nothing() -> None:
    screen = Terminal()
    bar = Bar(screen, patience=60.0)
    for done in range(1, 11):
        bar("forward", done, 10)
    bar.close()
    assert screen.getvalue() == ""


@pytest.mark.parametrize(("stream", "quiet"), [(io.StringIO(), False), (Terminal(), True)])
def test_nobody_is_there_to_see_it(stream: io.StringIO, quiet: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stderr", stream)
    with progress_bar(quiet) as bar:
        assert bar is None


def test_the_engine_tells_every_pass_to_its_end() -> None:
    from gradcli.diagnostics.measure import measure
    from gradcli.prepare.build import build
    from gradcli.spec.reader import load_spec

    told: list[tuple[str, int, int]] = []
    network = build(load_spec("rnn", options={"seq_len": 300, "batch_size": 1, "trials": 1, "hidden_size": 2}))
    measure(network, progress=lambda stage, done, total: told.append((stage, done, total)))
    backward = [done for stage, done, _ in told if stage == "backward"]
    assert backward == sorted(backward)
    assert backward[-1] == 300
    assert len(backward) > 1
    assert ("forward", 300, 300) in told
