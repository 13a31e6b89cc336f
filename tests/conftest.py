"""What has to be settled before the tests are loaded, and what the markers mean."""

from __future__ import annotations

import importlib.util
import os
import shutil
import signal
from pathlib import Path

import pytest
from chosen import CHOSEN, is_chosen

from gradcli.prepare.threads import start_with_one_thread

# NumPy's linear algebra starts with one thread, as it does under the command itself: with more, small products wait for
# each other wherever another process holds one of the cores. This comes before NumPy's import.
start_with_one_thread()

# A shell that starts the tests in the background has them ignore Ctrl-C, and with them the commands that they run.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

WITHOUT_TORCH = importlib.util.find_spec("torch") is None
# Where it is required, a missing Chromium is a failure.
WITHOUT_CHROMIUM = os.environ.get("GRADCLI_REQUIRE_CHROMIUM") != "1" and not any(
    map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))
)
_SKIPPED: list[str] = []


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--no-skips", action="store_true", help="fail if a test is skipped, for whatever reason")


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers(config: pytest.Config) -> int | None:
    """Take all cores for all tests, and none but this process where some are asked for: they start sooner."""
    some = config.args_source is pytest.Config.ArgsSource.ARGS or bool(config.option.keyword)
    return 0 if some else None


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Load no more than the modules of a marker for its tests: loading all takes longer than the quick tests do."""
    marker = config.option.markexpr.partition(" and ")[0]
    if marker not in CHOSEN or not collection_path.is_relative_to(Path(__file__).parent):
        return None
    return None if is_chosen(collection_path, marker) else True


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Mark the chosen tests, and skip those of PyTorch and of Chromium where these are not installed.

    With NumPy's engine, which test_engines_agree.py holds against the compiled one for every cell, the cells that span
    the kinds stand for all built-in ones, but for the comparisons with PyTorch.
    """
    if os.environ.get("GRADCLI_ENGINE") == "numpy":
        _leave_cells_out(config, items)
    for item in items:
        needs_torch = item.get_closest_marker("torch") is not None
        if needs_torch and WITHOUT_TORCH:
            item.add_marker(pytest.mark.skip(reason="PyTorch is not installed"))
        if item.get_closest_marker("chromium") is not None and WITHOUT_CHROMIUM:
            item.add_marker(pytest.mark.skip(reason="Chromium is not installed"))
        if is_chosen(item.path, "engine"):
            item.add_marker(pytest.mark.engine)
        if not needs_torch and not item.get_closest_marker("slow") and is_chosen(item.path, "quick"):
            item.add_marker(pytest.mark.quick)


def _leave_cells_out(config: pytest.Config, items: list[pytest.Item]) -> None:
    from built_in_cells import SPANNING

    from gradcli import cells

    others = set(cells.names()) - set(SPANNING)
    others |= {f"zoo-{name}" for name in others}
    kept: list[pytest.Item] = []
    left_out: list[pytest.Item] = []
    for item in items:
        given = getattr(item, "callspec", None)
        named = given is not None and any(isinstance(value, str) and value in others for value in given.params.values())
        is_compared = item.path.name == "test_engines_agree.py" or item.get_closest_marker("torch") is not None
        (left_out if named and not is_compared else kept).append(item)
    items[:] = kept
    config.hook.pytest_deselected(items=left_out)


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    if report.skipped:
        _SKIPPED.append(report.nodeid)


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    if _SKIPPED and session.config.getoption("--no-skips") and session.exitstatus == pytest.ExitCode.OK:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    if _SKIPPED and config.getoption("--no-skips"):
        terminalreporter.write_line(f"--no-skips, and {len(_SKIPPED)} were skipped, such as {_SKIPPED[0]}", red=True)
