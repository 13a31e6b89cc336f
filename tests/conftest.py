"""What has to be settled before the tests are loaded, and what the markers mean."""

from __future__ import annotations

import importlib.util
import signal

import pytest

from gradcli.network.threads import start_with_one_thread

# NumPy's linear algebra starts with one thread, as it does under the command itself: with more, small products wait for
# each other wherever another process holds one of the cores. This comes before NumPy's import.
start_with_one_thread()

# A shell that starts the tests in the background has them ignore Ctrl-C, and with them the commands that they run.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

WITHOUT_TORCH = importlib.util.find_spec("torch") is None
_SKIPPED: list[str] = []


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--no-skips", action="store_true", help="fail if a test is skipped, for whatever reason")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip the comparisons with PyTorch where it is not installed."""
    if WITHOUT_TORCH:
        for item in items:
            if item.get_closest_marker("torch"):
                item.add_marker(pytest.mark.skip(reason="PyTorch is not installed"))


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
