"""The manual page, made from the commands and options of the program itself. After a change of them:

    python -m tests.manual_page

It is written to docs/gradcli.1, which the wheel installs as share/man/man1/gradcli.1.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import typer.main
from rich.text import Text

from gradcli import __version__
from gradcli.cli.app import app
from gradcli.errors import ExitCode

PAGE = Path(__file__).resolve().parents[1] / "docs" / "gradcli.1"
EXIT_CODES: Mapping[ExitCode, str] = {
    ExitCode.DONE: "Done.",
    ExitCode.INTERNAL: "An internal error.",
    ExitCode.USAGE: "Bad usage, or a spec with mistakes.",
    ExitCode.GATE: "A gate failed.",
    ExitCode.INPUT_FILE: "A file cannot be read or was refused, or an output cannot be written.",
    ExitCode.RESOURCE: "The work would take more memory than allowed.",
    ExitCode.INTERRUPTED: "Interrupted; 128 and the number of the signal where another signal ended it.",
}
ENVIRONMENT: Mapping[str, str] = {
    "NO_COLOR": "Where it is set and not empty, nothing is coloured.",
    "FORCE_COLOR": "Where it is set and not empty, tables are coloured in a pipe too.",
    "COLUMNS": "The width of the terminal.",
    "GRADCLI_DEBUG": "With 1, errors come with their traceback.",
}
_ESCAPES = {"\\": r"\e", "-": r"\-", "'": r"\(aq", "`": r"\(ga", '"': r"\(dq", "^": r"\(ha", "~": r"\(ti"}
_HELP = ["-h", "--help"]

# A command and its options are objects of Typer's own, which have no public type.
Parameter = Any
Command = Any


def manual_page() -> str:
    """Return the page in roff."""
    group: Command = typer.main.get_command(app)
    commands: dict[str, Command] = {name: command for name, command in group.commands.items() if not command.hidden}
    shared = _shared(commands)
    lines = [
        f'.TH GRADCLI 1 "" "gradcli {escaped(__version__)}" "User Commands"',
        *(".nh", ".ad l"),  # neither hyphens nor wide gaps in what is to be copied
        ".SH NAME",
        rf"gradcli \- {escaped(_plain(group.help).rstrip('?.'))}",
        ".SH SYNOPSIS",
        ".B gradcli",
        ".I COMMAND",
        r"[\fIARGUMENT\fR ...] [\fIOPTION\fR ...]",
        ".SH COMMANDS",
    ]
    for name, command in commands.items():
        lines += _section_of(name, command, shared)
    lines += [".SH OPTIONS OF SEVERAL COMMANDS"]
    for entry in shared:
        lines += entry
    lines += [".SH OPTIONS OF GRADCLI ITSELF"]
    for parameter in group.params:
        lines += _entry(parameter)
    lines += _entry_of(", ".join(_HELP), "", "Show help and exit; behind a command, its help.")
    lines += [".SH EXIT STATUS", *_listed({str(int(code)): text for code, text in EXIT_CODES.items()})]
    lines += [".SH ENVIRONMENT", *_listed(ENVIRONMENT), ".SH EXAMPLES"]
    for command in commands.values():
        lines += [line for text in _examples(command) for line in (".nf", escaped(text), ".fi", ".PP")]
    return "\n".join(lines[:-1]) + "\n"


def _section_of(name: str, command: Command, shared: list[list[str]]) -> Iterator[str]:
    arguments = [parameter for parameter in command.params if parameter.param_type_name == "argument"]
    options = [parameter for parameter in command.params if parameter.param_type_name == "option"]
    usage = " ".join([f"gradcli {name}", *(parameter.metavar for parameter in arguments)])
    yield f'.SS "{escaped(usage)}"'
    first, *rest = _paragraphs(command.help)
    yield first
    for paragraph in rest:
        yield from (".PP", paragraph)
    for parameter in arguments:
        yield from _entry(parameter)
    for parameter in options:
        if _entry(parameter) not in shared:
            yield from _entry(parameter)
    if also := [_longest(parameter) for parameter in options if _entry(parameter) in shared]:
        yield ".PP"
        yield escaped(f"Described below: {', '.join(also)}.")


def _shared(commands: Mapping[str, Command]) -> list[list[str]]:
    """Return the entries of the options that several commands have alike; of two with one name the more frequent."""
    by_name: dict[str, Counter[tuple[str, ...]]] = {}
    for command in commands.values():
        for parameter in command.params:
            if parameter.param_type_name == "option":
                by_name.setdefault(_longest(parameter), Counter())[tuple(_entry(parameter))] += 1
    most_frequent = [entries.most_common(1)[0] for entries in by_name.values()]
    return [list(entry) for entry, count in most_frequent if count > 1]


def _entry(parameter: Parameter) -> list[str]:
    if parameter.param_type_name == "argument":
        return list(_entry_of("", parameter.metavar, _plain(parameter.help or "")))
    value = parameter.metavar or ("" if parameter.is_flag else "N")
    default = f" Default: {parameter.show_default}." if isinstance(parameter.show_default, str) else ""
    text = re.sub(r" \[default: (.*)\]$", r" Default: \1.", _plain(parameter.help)) + default
    return list(_entry_of(", ".join(parameter.opts), value, text))


def _entry_of(names: str, value: str, text: str) -> Iterator[str]:
    yield ".TP"
    yield " ".join(
        part for part in (rf"\fB{escaped(names)}\fR" * bool(names), rf"\fI{escaped(value)}\fR" * bool(value)) if part
    )
    yield escaped(text)


def _listed(entries: Mapping[str, str]) -> list[str]:
    return [line for name, text in entries.items() for line in _entry_of(name, "", text)]


def _examples(command: Command) -> list[str]:
    return [line.strip() for line in _plain(command.epilog).splitlines() if line.startswith("  gradcli ")]


def _paragraphs(markup: str) -> list[str]:
    return [escaped(" ".join(paragraph.split())) for paragraph in _plain(markup).split("\n\n")]


def _longest(parameter: Parameter) -> str:
    return str(max(parameter.opts, key=len))


def _plain(markup: str) -> str:
    return Text.from_markup(markup).plain


def escaped(text: str) -> str:
    """Return a line of text that roff takes for nothing else."""
    roff = "".join(_ESCAPES.get(char, char if char.isascii() else rf"\[u{ord(char):04X}]") for char in text)
    return rf"\&{roff}" if roff.startswith(".") else roff


def main() -> None:
    """Write the page."""
    PAGE.write_text(manual_page(), encoding="ascii")


if __name__ == "__main__":
    main()
