"""The process: runs the command line, and turns whatever goes wrong into one message and an exit code."""

from __future__ import annotations

import os
import signal
import sys
from typing import NoReturn

from gradcli import __version__
from gradcli.errors import ExitCode, GradcliError, OutputError, SpecError

_TERMINATED = 128 + signal.SIGTERM


def main() -> int:
    """Run gradcli on the arguments of the process and return its exit code; no traceback ever reaches the user.

    Exit codes are those of `gradcli.errors.ExitCode`. A reader that closes the pipe early (``gradcli ... | head -1``)
    has what it wanted, so that is no error. With GRADCLI_DEBUG=1 in the environment, errors come with their traceback.
    """
    signal.signal(signal.SIGTERM, _terminate)
    try:
        code = _run(sys.argv[1:])
        if sys.stdout is not None:
            sys.stdout.flush()
        return code
    except BrokenPipeError:
        _discard_output()
        return ExitCode.DONE
    except KeyboardInterrupt:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # the end has come already; a second one would only be a traceback
        return ExitCode.INTERRUPTED
    except Exception as error:
        if isinstance(error, (OutputError, OSError)):
            _discard_output()
        text, code = _explain(error)
        _complain(text)
        if os.environ.get("GRADCLI_DEBUG") == "1":
            import traceback

            _complain(traceback.format_exc())
        return code


def _run(arguments: list[str]) -> int:
    if arguments == ["--version"]:  # answered before anything slow is imported
        print(f"gradcli {__version__}")  # noqa: T201
        return ExitCode.DONE
    from gradcli.network.threads import start_with_one_thread

    start_with_one_thread()
    # gradcli has none, and looking for them takes longer the more packages are installed.
    os.environ.setdefault("PYDANTIC_DISABLE_PLUGINS", "__all__")
    from gradcli.cli import app

    try:
        app(args=arguments, prog_name="gradcli")
    except SystemExit as stop:
        return stop.code if isinstance(stop.code, int) else ExitCode.DONE
    return ExitCode.DONE


def _explain(error: Exception) -> tuple[str, int]:
    """Return the message for the user, and the exit code."""
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


def _terminate(number: int, frame: object) -> NoReturn:
    raise SystemExit(_TERMINATED)  # unlike the default action, this unwinds: half-written files are removed


if __name__ == "__main__":
    sys.exit(main())
