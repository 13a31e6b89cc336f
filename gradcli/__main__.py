"""The process: runs the command line, and turns whatever goes wrong into one message and an exit code."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable

_Handler = Callable[..., object] | int | None
_INTERRUPTED = 128 + signal.SIGINT
#: Wider than any screen: a width that is wrong must not make a line of 100 MB.
_WIDEST = 1000

#: The exit codes of the signals that have come. What their handlers raise may arrive as something else: libraries catch
#: it and wrap it, as those do that build classes.
_ended_by: list[int] = []
#: The signals besides Ctrl-C that are answered.
_answered: list[int] = []


def main() -> int:
    """Run gradcli on the arguments of the process and return its exit code; no traceback ever reaches the user.

    Exit codes are those of `gradcli.errors.ExitCode`. A reader that closes the pipe early (``gradcli ... | head -1``)
    has what it wanted, so that is no error. With GRADCLI_DEBUG=1 in the environment, errors come with their traceback.
    """
    before = signal.getsignal(signal.SIGINT)
    if before is not signal.SIG_IGN:
        # Nothing is left behind by imports, and what they call back may swallow an exception.
        signal.signal(signal.SIGINT, _stop)
    _ended_by.clear()
    telling, sys.unraisablehook = sys.unraisablehook, _unraisable
    try:
        code = _run(sys.argv[1:], before)
        if sys.stdout is not None:
            sys.stdout.flush()
        return code
    except BrokenPipeError as gone:
        return _unread(gone)
    except KeyboardInterrupt:
        return _INTERRUPTED
    except SystemExit as stop:  # one of the signals that end a process
        return stop.code if isinstance(stop.code, int) else 0
    except Exception as error:
        if _ended_by:
            return _ended_by[0]
        text, code = _explain(error)
        _complain(text)
        if os.environ.get("GRADCLI_DEBUG") == "1":
            import traceback

            _complain("".join(traceback.format_exception(error)))
        return code
    finally:
        for number in (signal.SIGINT, *_answered):
            signal.signal(number, signal.SIG_IGN)  # the end has come; one more would only be a traceback
        if not _ended_by:  # what was in use is taken down even later
            sys.unraisablehook = telling


def _run(arguments: list[str], interrupted: _Handler) -> int:
    from gradcli.errors import ENDED_BY

    # What whoever started it wants ignored, as nohup does, stays so.
    others = [n for n in ENDED_BY if n != signal.SIGINT and signal.getsignal(n) is not signal.SIG_IGN]
    for number in others:
        signal.signal(number, _stop)
    _answered[:] = others
    if arguments == ["--version"]:  # answered before anything slow is imported
        from gradcli.engine.about import version_text

        print(version_text())  # noqa: T201
        return 0
    from gradcli.prepare.garbage import collect_later
    from gradcli.prepare.threads import start_with_one_thread

    collect_later()
    start_with_one_thread()
    _settle_screen()
    from gradcli.cli import run

    signal.signal(signal.SIGINT, _interrupt if interrupted is signal.default_int_handler else interrupted)
    for number in others:
        signal.signal(number, _end)
    try:
        run(arguments)
    except SystemExit as stop:
        if isinstance(gone := stop.__context__, BrokenPipeError):  # which Typer and rich take for a failure
            return _unread(gone)
        return stop.code if isinstance(stop.code, int) else 0
    return 0


def _unread(gone: BrokenPipeError) -> int:
    """Return the exit code where the reader has gone: that of the mistake which it did not stay to read, if any."""
    _discard_output()
    return int(getattr(gone.__context__, "exit_code", 0))


def _settle_screen() -> None:
    """Leave only widths and wishes about colour in the environment that those who read it can follow."""
    for name in ("COLUMNS", "TERMINAL_WIDTH"):
        width = os.environ.get(name, "")
        if not (width.isascii() and width.isdecimal() and int(width[:20]) > 0):
            os.environ.pop(name, None)
        elif int(width[:20]) > _WIDEST:
            os.environ[name] = str(_WIDEST)
    if os.environ.get("NO_COLOR"):
        os.environ.pop("FORCE_COLOR", None)
    # Typer takes both for a wish to have colours in a pipe as well; that is what FORCE_COLOR is for.
    for name in ("GITHUB_ACTIONS", "PY_COLORS"):
        os.environ.pop(name, None)


def _explain(error: Exception) -> tuple[str, int]:
    """Return the message for the user, and the exit code."""
    from gradcli.errors import ExitCode, GradcliError, OutputError, SpecError

    if isinstance(error, (OutputError, OSError)):
        _discard_output()
    match error:
        case SpecError():
            count = len(error.problems)
            sources = " and ".join(dict.fromkeys(problem.source for problem in error.problems))
            return f"{error}\n{count} mistake{'s' if count != 1 else ''} in {sources}", error.exit_code
        case GradcliError():
            return f"error: {error}", error.exit_code
        case MemoryError():
            return "error: out of memory; a smaller seq_len, hidden_size, batch_size or trials needs less", (
                ExitCode.RESOURCE
            )
        case OSError():
            place = f"{os.fsdecode(error.filename)}: " if isinstance(error.filename, (str, bytes)) else ""
            return f"error: {place}{error.strerror or error}", ExitCode.INPUT_FILE
        case _:
            return (
                f"internal error: {type(error).__name__}: {error}\n"
                "please report this, with what GRADCLI_DEBUG=1 in the environment adds to it"
            ), ExitCode.INTERNAL


def _complain(text: str) -> None:
    from gradcli.formats.text import printable

    if sys.stderr is None:
        return
    try:
        for line in text.rstrip("\n").split("\n"):
            print(printable(line), file=sys.stderr)  # noqa: T201
        sys.stderr.flush()
    except OSError:  # nobody is left to tell; the exit code still says it
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)


def _discard_output() -> None:
    """Point standard output at nothing, so that the interpreter's own flush at exit cannot fail once more."""
    if sys.stdout is not None:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _unraisable(unraisable: sys.UnraisableHookArgs) -> None:
    """Say nothing of what a signal has raised where nothing can be raised: the run ends, and that is no mistake."""
    if not _ended_by:
        sys.__unraisablehook__(unraisable)


def _stop(number: int, frame: object) -> None:
    os._exit(128 + number)


def _interrupt(number: int, frame: object) -> None:
    _ended_by.append(_INTERRUPTED)
    raise KeyboardInterrupt


def _end(number: int, frame: object) -> None:
    _ended_by.append(128 + number)
    raise SystemExit(128 + number)  # unlike the default action, this unwinds: half-written files are removed


if __name__ == "__main__":
    sys.exit(main())
